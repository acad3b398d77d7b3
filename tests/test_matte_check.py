"""Exact mattes are left as they are, swollen ones are mended; told without a mixing model."""

import numpy as np
import pytest

from atlas.coords import Size
from atlas.mapping import FrameMapping
from atlas.matte_check import MOST_WRONG, contradictions, mending_helps
from atlas.splat import SplatOptions, splat
from atlas.texture import Texture
from tests.scene_presets import SceneOptions, make_scene
from tests.test_known_sky import RoughMattes


class ExactMattes(RoughMattes):
    """The scene's own opacity."""

    def frame(self, t, size=None):
        found = super().frame(t, size)
        share = self.true_share(t)
        return FrameMapping(found.uv, np.stack([1 - share, np.ones_like(share)]), found.confidence)


@pytest.fixture(scope="module")
def scene():
    options = SceneOptions(size=Size(120, 200), frame_count=6, pan_deg=14, parallax=True, grain=1.0)
    return make_scene(options)


def sky_of(mattes, scene):
    return splat(mattes, scene.frames, SplatOptions(sharpen_steps=0))[-1]


def test_exact_mattes_are_left_alone(scene):
    mattes = ExactMattes(scene, swell_px=0)
    assert not mending_helps(mattes, scene.frames, sky_of(mattes, scene), None)


def test_swollen_mattes_are_mended(scene):
    mattes = RoughMattes(scene, swell_px=2)
    assert mending_helps(mattes, scene.frames, sky_of(mattes, scene), None)


def test_twigs_that_a_matte_misses_are_told(scene):
    mattes = ExactMattes(scene, swell_px=0)
    sky = sky_of(mattes, scene)
    found = mattes.frame(2)
    missing = found.alpha.copy()
    solid = missing[0] > 0.5
    missing[0, :, ::3] = 0  # every third column called sky
    wrong, edge = contradictions(
        scene.frames(2), FrameMapping(found.uv, missing, found.confidence), sky, None
    )
    assert wrong > MOST_WRONG * edge
    assert wrong <= solid[:, ::3].sum()


def test_a_frame_without_open_sky_says_nothing(scene):
    mattes = ExactMattes(scene, swell_px=0)
    sky = sky_of(mattes, scene)
    found = mattes.frame(0)
    alpha = np.ones_like(found.alpha)
    none = FrameMapping(found.uv, alpha, found.confidence)
    assert contradictions(scene.frames(0), none, sky, None) == (0, 0)
    with pytest.raises(ValueError, match="bare"):
        contradictions(scene.frames(0), found, Texture(sky.rgb, sky.coverage), None)
