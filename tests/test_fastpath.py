"""The fast path's layer mapping on rendered pans: positions, memory, order, replay, cuts."""

import cv2
import numpy as np
import pytest

from atlas.coords import Size, apply_homography, pixel_grid
from preprocess.camera import CameraPose, StepMatches
from preprocess.fastpath import (
    FastPathMapping,
    FastPathOptions,
    HomographyChain,
    looks_like_cut,
)
from preprocess.sky.matte import SkyMatter
from tests.scene_presets import SceneOptions, make_scene
from tests.test_camera import SIZE, Pan, turn


class GivenMatter(SkyMatter):
    """Hands out known mattes in order, and remembers how often it was told to forget."""

    def __init__(self, mattes):
        self.mattes = mattes
        self.at = 0
        self.resets = 0

    def matte(self, rgb):
        self.at += 1
        return self.mattes[(self.at - 1) % len(self.mattes)]

    def reset(self):
        self.at = 0
        self.resets += 1


def pan_clip(count=10, step_deg=-0.6, seed=0):
    pan = Pan(sky_texture=20.0, seed=seed)
    rotations = [turn(step_deg * i, 0.1 * i) for i in range(count)]
    rendered = [pan.render(r) for r in rotations]
    return [f for f, _ in rendered], [m for _, m in rendered], rotations, pan


def observed(count=10, **options):
    frames, mattes, rotations, pan = pan_clip(count)
    mapping = FastPathMapping(SIZE, FastPathOptions(**options), GivenMatter(mattes))
    answers = []
    for t, rgb in enumerate(frames):
        mapping.observe(t, rgb)
        answers.append(mapping.frame(t))
    return mapping, answers, frames, mattes, rotations, pan


def test_sky_uv_and_alpha_of_a_pan():
    mapping, answers, _, mattes, rotations, pan = observed(margin=(0.5, 0.25))
    assert [layer.name for layer in mapping.layers] == ["foreground", "sky"]
    assert mapping.layers[1].canvas == Size(height=200 + 2 * 50, width=356 + 2 * 178)
    assert mapping.frame_count == 10
    inverse = np.linalg.inv(pan.camera)
    for answer, matte, rotation in zip(answers, mattes, rotations, strict=True):
        exact = apply_homography(pan.camera @ rotation @ inverse, pixel_grid(SIZE))
        exact = exact + np.array([178, 50])
        assert np.abs(answer.uv[1] - exact)[:110].max() < 1.0  # texels, all of the sky
        np.testing.assert_array_equal(answer.alpha[0], 1 - matte)
        assert (answer.alpha[1] == 1).all()
        assert answer.uv.shape == (2, 200, 356, 2)
        assert answer.uv.dtype == answer.alpha.dtype == answer.confidence.dtype == np.float32


def test_first_frame_sits_in_the_middle_at_its_own_scale():
    _, answers, *_ = observed(1)
    expected = pixel_grid(SIZE) + np.array([0.75 * 356, 0.5 * 200])
    np.testing.assert_allclose(answers[0].uv, [expected, expected], atol=1e-3)


def test_foreground_follows_the_ground():
    """The ground of these clips turns with the camera, so both layers move alike on it."""
    _, answers, *_ = observed()
    gap = np.abs(answers[-1].uv[0] - answers[-1].uv[1])[120:]
    assert np.median(gap) < 1.5


def test_other_sizes_show_the_same_place():
    mapping, answers, *_ = observed()
    half = mapping.frame(9, Size(100, 178))
    np.testing.assert_allclose(
        half.uv, answers[9].uv.reshape(2, 100, 2, 178, 2, 2).mean(axis=(2, 4)), atol=0.02
    )
    assert half.alpha[0].mean() == pytest.approx(answers[9].alpha[0].mean(), abs=0.005)
    assert mapping.frame(9, Size(301, 77)).uv.shape == (2, 301, 77, 2)


def test_only_the_last_mattes_are_kept():
    mapping, *_ = observed(kept_frames=2)
    mapping.frame(8)
    with pytest.raises(ValueError, match="matte of frame 7 is no longer kept"):
        mapping.frame(7)
    assert mapping.motion(0).sky_confidence == 1
    with pytest.raises(ValueError, match="frame 10 has not been observed"):
        mapping.frame(10)


def test_frames_come_in_order_and_at_one_size():
    mapping, _, frames, *_ = observed(3)
    with pytest.raises(ValueError, match="in order: wanted 3, got 5"):
        mapping.observe(5, frames[0])
    with pytest.raises(ValueError, match=r"rgb must be \(H, W, 3\) of 356x200"):
        mapping.observe(3, frames[0][:-1])


def test_replay_gives_the_same_answers():
    mapping, answers, frames, *_ = observed()
    for t, rgb in enumerate(frames):
        mapping.observe(t, rgb)
        again = mapping.frame(t)
        np.testing.assert_array_equal(again.uv, answers[t].uv)
        np.testing.assert_array_equal(again.alpha, answers[t].alpha)
    assert mapping.frame_count == 10


def test_over_knows_all_motion_before_the_second_pass():
    frames, *_ = pan_clip(4)
    options = FastPathOptions(matte="classical")
    mapping = FastPathMapping.over(lambda: iter(frames), SIZE, options)
    assert mapping.frame_count == 4
    assert mapping.motion(3).sky[0, 2] != mapping.motion(0).sky[0, 2]
    mapping.observe(0, frames[0])
    assert mapping.frame(0).alpha[1].all()


@pytest.mark.parametrize("cuts", [None, frozenset({5})])
def test_cut_starts_both_layers_anew(cuts):
    first, mattes, *_ = pan_clip(5)
    second = [np.ascontiguousarray(np.flip(f, axis=0)) for f in first]
    matter = GivenMatter(mattes)
    mapping = FastPathMapping(SIZE, FastPathOptions(cuts=cuts), matter)
    for t, rgb in enumerate([*first, *second]):
        mapping.observe(t, rgb)
    assert [t for t in range(10) if mapping.motion(t).starts_shot] == [0, 5]
    np.testing.assert_array_equal(mapping.motion(5).sky, mapping.motion(0).sky)
    np.testing.assert_array_equal(mapping.motion(5).foreground, mapping.motion(0).foreground)
    assert not np.allclose(mapping.motion(4).sky, mapping.motion(0).sky, atol=1)


def test_flash_and_fade_are_no_cuts():
    rgb = cv2.resize(pan_clip(1)[0][0], (32, 32)).astype(np.float32)
    assert not looks_like_cut(rgb, rgb)
    assert not looks_like_cut(rgb, np.clip(1.7 * rgb + 20, 0, 255))
    assert not looks_like_cut(rgb, 0.3 * rgb)
    assert looks_like_cut(rgb, np.flip(rgb, axis=0))


@pytest.mark.parametrize("size", [Size(1, 1), Size(9, 260), Size(121, 40)])
def test_noise_gives_a_valid_mapping(size):
    """Nothing can be followed in noise: finite positions, alpha in range."""
    rng = np.random.default_rng(0)
    mapping = FastPathMapping(size, FastPathOptions(matte="classical"))
    for t in range(4):
        mapping.observe(t, rng.integers(0, 256, (size.height, size.width, 3), dtype=np.uint8))
        answer = mapping.frame(t)
        assert np.isfinite(answer.uv).all()
        assert answer.alpha.min() >= 0
        assert answer.alpha.max() <= 1
        assert ((answer.confidence >= 0) & (answer.confidence <= 1)).all()


def test_chain_recovers_homographies_and_falls_back_to_the_camera():
    rng = np.random.default_rng(2)
    size = Size(300, 500)
    step = np.array([[1.01, 0.02, -3.0], [-0.015, 0.99, 2.0], [1e-5, -2e-5, 1.0]])
    camera = np.array([[1, 0, 7.0], [0, 1, 0], [0, 0, 1]])
    chain = HomographyChain(size)
    chain.restart()
    after = rng.uniform((0, 0), size.wh, (80, 2))
    before = apply_homography(step, after)
    before[:20] += rng.uniform(10, 60, (20, 2))  # things that move by themselves
    total, confidence = chain.step(
        StepMatches(before.astype(np.float32), after.astype(np.float32)),
        CameraPose(camera, np.eye(3), 400.0, 1.0),
    )
    corners = np.array([[0, 0], [499, 0], [499, 299], [0, 299]], float)
    expected = apply_homography(step, corners)
    np.testing.assert_allclose(apply_homography(total, corners), expected, atol=0.1)
    assert confidence == pytest.approx(0.75, abs=0.05)
    nothing = StepMatches(np.empty((0, 2)), np.empty((0, 2)))
    moved, confidence = chain.step(nothing, CameraPose(camera @ camera, np.eye(3), 400.0, 0.8))
    np.testing.assert_allclose(
        apply_homography(moved, corners), expected_after(step, camera), atol=0.1
    )
    assert confidence == pytest.approx(0.2)


def expected_after(step, camera):
    corners = np.array([[0, 0], [499, 0], [499, 299], [0, 299]], float)
    return apply_homography(step @ camera, corners)


def test_kept_mattes_are_the_same_on_every_pass_and_made_once():
    scene = make_scene(SceneOptions(size=Size(72, 120), frame_count=4))

    class Counting(SkyMatter):
        calls = 0

        def matte(self, rgb):
            self.calls += 1
            return np.linspace(1, 0, rgb.shape[0] * rgb.shape[1], dtype=np.float32).reshape(
                rgb.shape[:2]
            )

        def reset(self):
            pass

    matter = Counting()
    mapping = FastPathMapping(Size(72, 120), FastPathOptions(keep_all_mattes=True), matter)
    passes = []
    for _ in range(2):
        alphas = []
        for t in range(4):
            mapping.observe(t, scene.frames(t))
            alphas.append(mapping.frame(t).alpha[0])
        passes.append(np.stack(alphas))
    assert np.array_equal(*passes)
    assert matter.calls == 4
