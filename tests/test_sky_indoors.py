"""Pictures without any sky, and with little of it, that are drawn for training."""

from __future__ import annotations

import numpy as np
import pytest

from atlas.coords import Size
from preprocess.sky.augment import AugmentConfig, Augmenter
from preprocess.sky.camera_effects import panned, veiled
from preprocess.sky.data import Pair
from preprocess.sky.indoors import bokeh, room, surface
from preprocess.sky.streets import lane

SIZE = Size(64, 96)


@pytest.mark.parametrize("draw", [room, surface, bokeh])
def test_pictures_differ_and_repeat_with_their_seed(draw):
    pictures = [draw(np.random.default_rng(seed), SIZE) for seed in (0, 1, 0)]
    np.testing.assert_array_equal(pictures[0], pictures[2])
    assert np.abs(pictures[0] - pictures[1]).mean() > 0.02
    for picture in pictures:
        assert picture.shape == (64, 96, 3)
        assert picture.dtype == np.float32
        assert picture.min() >= 0
        assert picture.max() <= 1
        assert picture.std() > 0.01


def test_many_rooms_are_pale_above():
    """Else they would not teach that a pale ceiling is no sky."""
    tops = [room(np.random.default_rng(seed), SIZE)[:16].mean() for seed in range(24)]
    assert np.mean(np.array(tops) > 0.7) > 0.25


def pair(name: str, level: int, sky_rows: int) -> Pair:
    rgb = np.full((96, 128, 3), level, np.uint8)
    alpha = np.zeros((96, 128), np.uint8)
    alpha[:sky_rows] = 255
    return Pair(name, rgb, alpha, np.full_like(alpha, 255))


def ground_levels(config: AugmentConfig) -> np.ndarray:
    """Mean levels of pictures that are all ground, of sources with sky (60) and bare (200)."""
    sources = [pair("ade_1", 60, 20), pair("ade_2", 200, 0)]
    augmenter = Augmenter(sources, [], np.random.default_rng(0), config)
    samples = [augmenter._no_sky(SIZE) for _ in range(40)]
    assert all(sample.alpha.max() == 0 and sample.weight.min() == 1 for sample in samples)
    return np.array([sample.rgb.mean() * 255 for sample in samples])


def test_pictures_without_sky_are_taken_as_often_as_asked():
    bare = ground_levels(AugmentConfig(drawn_ground=0, indoors=1))
    np.testing.assert_allclose(bare, 200, atol=1)
    any_ground = ground_levels(AugmentConfig(drawn_ground=0, indoors=0, high_up=0))
    assert 5 < np.sum(np.abs(any_ground - 60) < 1) < 35
    drawn = ground_levels(AugmentConfig(drawn_ground=1))
    assert drawn.std() > 10


def test_all_ground_samples_hold_no_sky():
    config = AugmentConfig(all_sky=0, all_ground=1)
    augmenter = Augmenter([pair("ade_1", 60, 20)], [], np.random.default_rng(1), config)
    assert max(augmenter.sample(SIZE).alpha.max() for _ in range(20)) == 0


def test_a_lane_has_a_floor_and_sky_above_it():
    layers = [lane(np.random.default_rng(seed), SIZE) for seed in range(24)]
    shares = np.array([1 - layer.coverage.mean() for layer in layers])
    assert 0.1 < np.median(shares) < 0.5
    for layer in layers:
        open_sky = layer.coverage < 0.01
        assert layer.coverage[-1].min() == 1
        # once covered, a column stays covered down to the floor: walls stand, nothing hangs
        assert (np.diff(open_sky.sum(axis=1)) <= 2).all()
        assert layer.rgb.min() >= 0
        assert layer.rgb.max() <= 1


def test_lanes_are_drawn_before_skies():
    config = AugmentConfig(all_sky=1, drawn_land=1, lane=1, mirrored=0)
    augmenter = Augmenter([pair("ade_1", 60, 20)], [], np.random.default_rng(1), config)
    alphas = np.stack([augmenter.sample(SIZE).alpha for _ in range(16)])
    assert alphas[:, -2:].max() == 0
    assert alphas[:, :8].mean() > 0.1


def test_a_camera_that_follows_smears_across_and_not_down():
    rng = np.random.default_rng(0)
    columns = np.zeros((64, 96, 3), np.float32)
    columns[:, ::6] = 1
    assert panned(columns, rng)[:, 30:60].std() < 0.02
    rows = np.zeros((64, 96, 3), np.float32)
    rows[::16] = 1
    assert panned(rows, rng).std(axis=0).mean() > 0.04


def test_air_takes_contrast_and_adds_light():
    rgb = np.random.default_rng(1).uniform(0, 0.4, (32, 48, 3)).astype(np.float32)
    seen = np.stack([veiled(rgb, np.random.default_rng(seed)) for seed in range(8)])
    contrast = seen.std(axis=(1, 2)) / rgb.std(axis=(0, 1))
    assert contrast.min() > 0.14
    assert contrast.max() < 0.71
    assert seen[..., 2].mean() > rgb[..., 2].mean() + 0.1
    assert (seen[..., 2].mean(axis=(1, 2)) > seen[..., 0].mean(axis=(1, 2))).mean() > 0.5
