"""Base motion against scenes whose camera is known exactly."""

import itertools

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from atlas import base_motion
from atlas.base_motion import (
    _as_a_turn,
    _chain,
    estimate_base_motion,
    estimate_focal,
    fit_pair,
    place_on_canvas,
    refine_jointly,
)
from atlas.clip import Clip
from atlas.coords import Size, apply_homography, pixel_grid
from atlas.gauge import fit_gauge, uv_error_px
from atlas.layered import LayeredMapping, LayerMotion
from atlas.matches import Matches, match_along_flow, match_in_mask, texture_measure
from atlas.metrics import local_jacobian
from atlas.motion_model import camera_matrix, motion_model
from atlas.store import ClipStore
from tests.scene_presets import SceneOptions, make_scene
from tests.synthetic import write_clip

SIZE = Size(108, 180)


@pytest.fixture(scope="module")
def panned(tmp_path_factory):
    """A pan over clouds and ground: scene and its clip, with exact flow and masks."""
    scene = make_scene(SceneOptions(size=SIZE, frame_count=14, pan_deg=12, camera="hand"))
    folder = write_clip(scene, tmp_path_factory.mktemp("pan") / "pan", merged=True)
    return scene, ClipStore(Clip(folder))


def relative_error_px(motion, scene, layer):
    """Distance between estimated and true position of each pixel in the middle frame, (T,) max."""
    middle = scene.frame_count // 2
    truth = scene.mapping()
    grid = pixel_grid(scene.size)[::12, ::12].reshape(-1, 2).astype(np.float64)
    errors = []
    for t in range(scene.frame_count):
        uv_true = truth.frame(t).uv[layer][::12, ::12].reshape(-1, 2)
        at_middle = truth.frame(middle).uv[layer]
        # carry the true canvas position back to pixels of the middle frame by its local affine map
        ones = np.column_stack([at_middle.reshape(-1, 2), np.ones(at_middle[..., 0].size)])
        back, *_ = np.linalg.lstsq(ones, pixel_grid(scene.size).reshape(-1, 2), rcond=None)
        expected = np.column_stack([uv_true, np.ones(len(uv_true))]) @ back
        estimate = np.linalg.inv(motion.matrices[middle]) @ motion.matrices[t]
        errors.append(np.linalg.norm(apply_homography(estimate, grid) - expected, axis=1).max())
    return np.array(errors)


@pytest.mark.parametrize("model", ["homography", "rotation"])
def test_the_sky_of_a_pan_is_tied_to_one_canvas(panned, model):
    scene, store = panned
    motion = estimate_base_motion(store, 1, model)
    # the way back through an affine fit of a perspective canvas costs up to 0.4 px at the corners
    assert relative_error_px(motion, scene, scene.layer_index("sky")).max() < 0.9
    assert motion.confidence.min() > 0.9


def test_all_that_is_seen_lies_on_the_canvas(panned):
    _, store = panned
    motion = estimate_base_motion(store, 1, "rotation")
    for t in range(store.frame_count):
        uv = apply_homography(motion.matrices[t], pixel_grid(SIZE).astype(np.float64))
        uv = uv[store.share(1, t) > 0.5]
        assert uv.min() >= 0
        assert uv[:, 0].max() <= motion.canvas.width - 1
        assert uv[:, 1].max() <= motion.canvas.height - 1


def test_a_sky_without_texture_moves_with_the_far_ground(tmp_path):
    scene = make_scene(SceneOptions(size=SIZE, frame_count=8, pan_deg=6, sky="plain"))
    store = ClipStore(Clip(write_clip(scene, tmp_path / "plain", merged=True)))
    motion = estimate_base_motion(store, 1, "rotation")
    assert relative_error_px(motion, scene, scene.layer_index("sky")).max() < 0.9


def test_the_focal_length_is_found_within_a_fifth(tmp_path):
    scene = make_scene(SceneOptions(size=Size(216, 384), frame_count=24, pan_deg=30))
    store = ClipStore(Clip(write_clip(scene, tmp_path / "wide", merged=True)))
    near = [match_along_flow(store, 1, t) for t in range(23)]
    start = motion_model("rotation", store.size, 2.0 * scene.camera.focal_px)
    found = estimate_focal(near, start, 24)
    # candidates are a fifth apart
    assert found == pytest.approx(scene.camera.focal_px, rel=0.25)


def test_one_frame_is_the_identity_on_its_canvas(tmp_path):
    scene = make_scene(SceneOptions(size=SIZE, frame_count=1))
    store = ClipStore(Clip(write_clip(scene, tmp_path / "one", merged=True)))
    motion = estimate_base_motion(store, 1, "rotation")
    assert np.allclose(motion.matrices[0][:2, :2], np.eye(2))
    assert np.allclose(motion.matrices[0][2], [0, 0, 1])


def chain_matches(true, rng, noise_px):
    """Noisy matches between neighbours, and exact ones from first to last."""
    count = len(true)
    points = rng.uniform([0, 0], [179, 107], (60, 2))
    pairs = []
    for a, b in [*((t, t + 1) for t in range(count - 1)), (0, count - 1)]:
        end = apply_homography(np.linalg.inv(true[b]) @ true[a], points)
        spread = 0 if b - a > 1 else noise_px
        bias = 0 if b - a > 1 else 0.2  # what makes chains drift
        pairs.append(Matches(a, b, points, end + rng.normal(bias, spread, end.shape), np.ones(60)))
    return pairs


def test_joint_refinement_takes_out_the_drift_of_a_chain():
    rng = np.random.default_rng(0)
    true = np.stack([np.eye(3)] * 9)
    true[:, 0, 2] = np.linspace(0, 40, 9)
    pairs = chain_matches(true, rng, 0.05)
    kind = motion_model("affine", SIZE, 150.0)
    chained = [np.eye(3)]
    for m in pairs[:-1]:
        chained.append(chained[-1] @ np.linalg.inv(fit_pair(m, kind)))
    chained = np.stack(chained)
    refined = refine_jointly(pairs, chained, kind, reference=0)
    drift = [abs(m[-1, 0, 2] - true[-1, 0, 2]) for m in (chained, refined)]
    assert drift[0] > 1.2  # eight links of 0.2 px
    assert drift[1] < 0.4 * drift[0]


def test_outliers_do_not_move_a_pair():
    rng = np.random.default_rng(1)
    a = rng.uniform([0, 0], [179, 107], (100, 2))
    b = a + np.array([3.0, -2.0])
    b[:30] += rng.uniform(10, 30, (30, 2))
    for model in ("affine", "homography", "rotation"):
        kind = motion_model(
            model, SIZE, 2000.0
        )  # a long lens, so that a rotation is nearly a shift
        moved = apply_homography(fit_pair(Matches(0, 1, a, b, np.ones(100)), kind), a[30:])
        assert np.abs(moved - b[30:]).max() < 0.3


def test_texture_measure_tells_corners_from_edges_and_noise():
    flat = np.random.default_rng(2).normal(128, 1, (60, 80)).astype(np.uint8)
    edge = flat.copy()
    edge[:, 40:] = 200
    corner = edge.copy()
    corner[30:, 40:] = 60
    at = (30, 40)
    assert texture_measure(flat)[at] < 1
    assert texture_measure(edge)[at] < 2
    assert texture_measure(corner)[at] > 2 * texture_measure(edge)[at] + 3


def test_a_layer_that_is_never_seen_gets_a_canvas_of_the_frame(tmp_path):
    scene = make_scene(SceneOptions(size=SIZE, frame_count=2))
    store = ClipStore(Clip(write_clip(scene, tmp_path / "none", merged=True)))
    store.share = lambda layer, t: np.zeros((SIZE.height, SIZE.width), np.float32)
    _, canvas = place_on_canvas(store, 0, np.stack([np.eye(3)] * 2))
    assert canvas == SIZE


def test_a_small_object_is_matched_whatever_moves_beside_it(tmp_path):
    """A disc goes right while the ground and a pole before it go left."""
    options = SceneOptions(
        size=Size(144, 256), frame_count=6, pan_deg=7, camera="hand", grain=1.0, seed=1,
        object="rigid", occluder=True,
    )  # fmt: skip
    scene = make_scene(options)
    store = ClipStore(Clip(write_clip(scene, tmp_path / "scene")))
    layer = store.clip.layer_names.index("object")
    for t in range(5):
        found = match_in_mask(store, layer, t)
        x, y = found.a_px.astype(int).T
        error_px = np.linalg.norm(found.b_px - found.a_px - scene.flow(t, t + 1)[0][y, x], axis=1)
        assert len(error_px) > 80
        assert np.median(error_px) < 0.15
        assert (error_px < 1).mean() > 0.9


def pan_pairs(focal_px, turn_deg, count=13, near_bias_px=0.0):
    """Exact matches of a pan whose frames are tied by rotations: near ones, and some far apart."""
    k = camera_matrix(focal_px, motion_model("rotation", SIZE, focal_px).to_unit)
    angles = np.radians(np.linspace(-turn_deg / 2, turn_deg / 2, count))
    turns = [Rotation.from_euler("yx", [a, 0.2 * a * a]).as_matrix() for a in angles]
    true = [k @ turns[count // 2].T @ turn @ np.linalg.inv(k) for turn in turns]
    rng = np.random.default_rng(4)
    pairs = []
    for step in (1, 4):
        for a in range(count - step):
            start = rng.uniform([0, 0], [179, 107], (80, 2))
            end = apply_homography(np.linalg.inv(true[a + step]) @ true[a], start)
            end += rng.normal(0, 0.1, end.shape)
            if step == 1:  # as a shorter lens would bend the picture
                end[:, 0] += near_bias_px * ((start[:, 0] - 89.5) / 89.5) ** 2
            pairs.append(Matches(a, a + step, start, end, np.ones(80)))
    return pairs, np.stack(true)


def refined_focal(pairs, start_px, is_free=True, count=13):
    kind = motion_model("rotation", SIZE, start_px)
    kind.focal_is_free = is_free
    chained = [np.eye(3)]
    for m in pairs[: count - 1]:
        chained.append(chained[-1] @ np.linalg.inv(fit_pair(m, kind)))
    middle = np.linalg.inv(chained[count // 2])
    matrices = np.stack([middle @ m for m in chained])
    return refine_jointly(pairs, matrices, kind, count // 2, rounds=10), kind.focal_px


@pytest.mark.parametrize("wrong", [0.88, 1.14])
def test_a_far_pan_tells_its_focal_length_exactly(wrong):
    pairs, true = pan_pairs(200.0, 50.0)
    matrices, focal_px = refined_focal(pairs, wrong * 200.0)
    assert focal_px == pytest.approx(200.0, rel=0.004)  # 0.1 px of noise
    corner = np.array([[0.0, 0.0]])
    for found, expected in zip(matrices, true, strict=True):
        off = apply_homography(found, corner) - apply_homography(expected, corner)
        assert np.abs(off).max() < 0.6
    held, held_px = refined_focal(pairs, wrong * 200.0, is_free=False)
    assert held_px == wrong * 200.0
    assert np.abs(apply_homography(held[0], corner) - apply_homography(true[0], corner)).max() > 3


def test_a_short_pan_keeps_the_focal_length():
    pairs, _ = pan_pairs(200.0, 8.0)
    assert refined_focal(pairs, 230.0)[1] == 230.0


def test_near_pairs_do_not_tell_the_focal_length():
    pairs, _ = pan_pairs(200.0, 40.0, near_bias_px=0.3)
    near = [m for m in pairs if m.b - m.a == 1]  # 3 degrees each, 40 in all
    assert refined_focal(near, 215.0)[1] == pytest.approx(215.0)


def homographies(pairs, count):
    """Every frame's homography to the middle one, chained and refined."""
    kind = motion_model("homography", SIZE, 170.0)
    matrices = _chain(pairs[: count - 1], kind, count, count // 2)
    for _ in range(3):
        matrices = refine_jointly(pairs, matrices, kind, count // 2)
    return matrices, kind


def bent_px(scene, store, layer=0):
    """Median error of a whole pan's maps in its first and last frames, in the best gauge; model."""
    found, true = estimate_base_motion(store, layer, "homography"), scene.mapping()
    name = true.layers[layer].name
    parts = found.canvas, found.matrices, None, 4, found.confidence, found.roll
    mapping = LayeredMapping(store.size, [LayerMotion(name, *parts)], lambda t: store.alpha(t)[:1])
    gauge = fit_gauge(mapping, true, name, name)
    assert gauge is not None
    errors = []
    for t in (0, 1, scene.frame_count - 2, scene.frame_count - 1):
        ours, theirs = mapping.frame(t), true.frame(t)
        seen = theirs.visible()[layer] > 0.9
        jacobian = local_jacobian(theirs.uv[layer])
        errors.append(uv_error_px(gauge, ours.uv[0], theirs.uv[layer], jacobian)[seen])
    return float(np.median(np.concatenate(errors))), found.model


@pytest.mark.slow
def test_a_far_pan_is_a_turn_and_does_not_bend(tmp_path, monkeypatch):
    scene = make_scene(SceneOptions(size=Size(72, 128), frame_count=72, pan_deg=60, camera="hand"))
    store = ClipStore(Clip(write_clip(scene, tmp_path / "far", merged=True)))
    turned = bent_px(scene, store)
    monkeypatch.setattr(base_motion, "FAR_PAN", np.inf)
    free = bent_px(scene, store)
    assert (turned[1], free[1]) == ("rotation", "homography")
    assert turned[0] < 0.3
    assert free[0] > 2.0


def test_far_views_of_a_turn_are_told_to_be_one():
    pairs, true = pan_pairs(200.0, 64.0, count=25)
    found = _as_a_turn(pairs[:24], pairs, *homographies(pairs, 25))
    assert found is not None
    turned, turning = found
    assert turning.focal_px == pytest.approx(200.0, rel=0.005)
    corners = np.array([[0.0, 0], [179, 0], [0, 107], [179, 107]])
    back = apply_homography(np.linalg.inv(true[0]) @ turned[0], corners)
    assert np.abs(back - corners).max() < 0.5  # 0.1 px of noise over twelve links


def test_what_a_turn_does_not_explain_stays_a_homography():
    count = 25
    _, true = pan_pairs(200.0, 64.0, count)
    rng = np.random.default_rng(5)
    frames = [m @ np.diag([1 + 0.006 * t, 1, 1]) for t, m in enumerate(true)]  # a plane comes near
    near = []
    for t, (a, b) in enumerate(itertools.pairwise(frames)):
        start = rng.uniform([0, 0], [179, 107], (80, 2))
        end = apply_homography(np.linalg.inv(b) @ a, start)
        near.append(Matches(t, t + 1, start, end, np.ones(80)))
    assert _as_a_turn(near, near, *homographies(near, count)) is None


def test_a_short_pan_keeps_its_homographies():
    pairs, _ = pan_pairs(200.0, 20.0)
    assert _as_a_turn(pairs[:12], pairs, *homographies(pairs, 13)) is None
