"""Parts cut out of labelled pictures, and the camera's grain."""

from __future__ import annotations

import numpy as np
import pytest

from atlas.coords import Size
from preprocess.sky.camera_effects import photographed
from preprocess.sky.crops import LITTLE_SKY, cropped
from preprocess.sky.data import Pair

SIZE = Size(96, 128)


def pair_with(sky_rows: int, height: int = 480, width: int = 160) -> Pair:
    """Sky above a skyline, red where the matte is 1, with a weight that is half everywhere."""
    alpha = np.zeros((height, width), np.uint8)
    alpha[:sky_rows] = 255
    rgb = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    rgb[..., 0] = alpha
    return Pair("lmf_x", rgb, alpha, np.full_like(alpha, 128))


@pytest.mark.parametrize("angle", [None, 0.4])
def test_picture_and_labels_are_cut_alike(angle):
    for seed in range(20):
        rng = np.random.default_rng(seed)
        rgb, alpha, weight = cropped(pair_with(240), SIZE, rng, angle=angle)
        assert rgb.shape == (96, 128, 3)
        np.testing.assert_allclose(rgb[..., 0], alpha, atol=1 / 255)
        np.testing.assert_allclose(weight, 128 / 255, atol=1e-6)


def test_little_sky_is_little_and_some():
    shares = [
        cropped(pair_with(96), SIZE, np.random.default_rng(seed), little_sky=True)[1].mean()
        for seed in range(60)
    ]
    least, most = LITTLE_SKY
    assert least - 0.01 < min(shares) < 0.02  # a row more or less by sampling
    assert 0.08 < max(shares) < most + 0.01
    plain = [
        cropped(pair_with(96), SIZE, np.random.default_rng(seed))[1].mean() for seed in range(60)
    ]
    assert np.mean([least < share < most for share in plain]) < 0.3


def test_a_picture_without_sky_is_cut_all_the_same():
    rgb, alpha, _ = cropped(pair_with(0), SIZE, np.random.default_rng(1), little_sky=True)
    assert not alpha.any()
    assert rgb[..., 1].std() > 0.1


def test_nothing_above_the_top_row_is_seen():
    for seed in range(30):
        _, alpha, _ = cropped(pair_with(100), SIZE, np.random.default_rng(seed), top=101)
        assert not alpha.any()


def test_grain_is_fine_and_coarse():
    """Neighbours of a grey picture's grain: alike where it is coarse, strangers where fine."""
    grey = np.full((96, 128, 3), 0.5, np.float32)
    flat = np.ones((96, 128), np.float32)
    found = []
    for seed in range(200):
        rgb = photographed(grey, flat, flat, np.random.default_rng(seed), lambda r, _a, _w: r)
        spread = rgb[..., 1] - rgb[..., 1].mean()
        if spread.std() > 0.01:
            assert rgb[..., 0].std() > 0.003  # the other channels too
            assert rgb[..., 2].std() > 0.003
            found.append(float((spread[:, 1:] * spread[:, :-1]).mean() / spread.var()))
    assert len(found) > 20
    assert min(found) < 0.1
    assert max(found) > 0.7
