"""Edges from the known old sky, against scenes whose opacity is known exactly.

The tree stands close to the camera, so that the sky behind its twigs is bare in other frames.
"""

import cv2
import numpy as np
import pytest

from atlas.coords import Size
from atlas.known_sky import layer_above, refine_sky_share
from atlas.mapping import FrameMapping
from atlas.splat import SplatOptions, splat
from atlas.texture import Texture, sample
from tests.scene_presets import SceneOptions, make_scene


class RoughMattes:
    """The exact mapping of a scene under a sky, its scene's opacity swollen and blurred."""

    def __init__(self, scene, swell_px):
        self.exact = scene.mapping()
        self.layers = tuple(self.exact.layers[i] for i in (0, -1))
        self.frame_count, self.frame_size = self.exact.frame_count, self.exact.frame_size
        self.kernel = np.ones((2 * swell_px + 1,) * 2, np.uint8)

    def observe(self, t, rgb):
        pass

    def true_share(self, t):
        return self.exact.frame(t).visible()[-1]

    def frame(self, t, size=None):
        m = self.exact.frame(t)
        rough = cv2.GaussianBlur(cv2.dilate(1 - self.true_share(t), self.kernel), (0, 0), 2)
        alpha = np.stack([rough, np.ones_like(rough)])
        return FrameMapping(m.uv[[0, -1]], alpha, np.ones(2, np.float32))


@pytest.fixture(scope="module")
def panned():
    options = SceneOptions(size=Size(120, 200), frame_count=9, pan_deg=14, parallax=True, grain=1.0)
    scene = make_scene(options)
    rough = RoughMattes(scene, swell_px=3)
    sky = splat(rough, scene.frames, SplatOptions(sharpen_steps=0))[-1]
    return scene, rough, sky


def test_swollen_edges_shrink_to_the_twigs(panned):
    scene, rough, sky = panned
    before, after = [], []
    for t in range(scene.frame_count):
        mended = refine_sky_share(scene.frames(t), rough.frame(t), sky, None)
        truth = rough.true_share(t)
        edge = rough.frame(t).alpha[0] > 0.02
        edge &= truth > 0.02  # where the rough matte eats sky
        edge &= sample(sky.bare, rough.frame(t).uv[-1]) > 0.9  # and some frame saw the sky bare
        assert edge.sum() > 300
        before.append(np.abs(rough.frame(t).visible()[-1] - truth)[edge].mean())
        after.append(np.abs(mended - truth)[edge].mean())
    assert np.mean(after) < 0.5 * np.mean(before)


def test_the_open_sky_and_the_solid_ground_keep_their_share(panned):
    scene, rough, sky = panned
    t = 4
    mended = refine_sky_share(scene.frames(t), rough.frame(t), sky, None)
    share = rough.frame(t).visible()[-1]
    far = cv2.erode((share > 0.999).astype(np.uint8), np.ones((31, 31))) > 0
    assert np.array_equal(mended[far], share[far])
    assert mended[-20:].max() == 0  # the ground, which the sky was never seen behind


def test_a_sky_never_seen_bare_changes_nothing(panned):
    scene, rough, sky = panned
    blind = Texture(sky.rgb, sky.coverage, np.zeros_like(sky.coverage))
    share = rough.frame(2).visible()[-1]
    assert np.array_equal(refine_sky_share(scene.frames(2), rough.frame(2), blind, None), share)


def test_a_sky_texture_without_bare_is_refused(panned):
    scene, rough, sky = panned
    with pytest.raises(ValueError, match="bare"):
        refine_sky_share(
            scene.frames(0), rough.frame(0), Texture(sky.rgb, sky.coverage), None
        )  # fmt: skip


@pytest.mark.parametrize("seed", range(5))
def test_the_layer_above_takes_up_the_change(seed):
    rng = np.random.default_rng(seed)
    alpha = rng.random((3, 5, 7)).astype(np.float32) * 0.9
    alpha[-1] = 1
    mapping = FrameMapping(np.zeros((3, 5, 7, 2), np.float32), alpha, np.ones(3, np.float32))
    through = 1 - alpha[0]
    wanted = (through * rng.random((5, 7))).astype(np.float32)
    changed = layer_above(mapping, wanted)
    assert np.array_equal(changed[0], alpha[0])
    left = (1 - changed[0]) * (1 - changed[1])
    assert np.allclose(left, wanted, atol=1e-6)  # float32 rounding
