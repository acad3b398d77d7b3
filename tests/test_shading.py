"""The shading: smooth light, the sharp edge of a shadow, and what is no light at all."""

import cv2
import numpy as np
import pytest

from atlas.shading import STRIDE_PX, fit_gain

SHAPE = (96, 160)


@pytest.fixture(scope="module")
def picture():
    rng = np.random.default_rng(3)
    noise = cv2.GaussianBlur(rng.random((*SHAPE, 3)).astype(np.float32), (0, 0), 1.2)
    return 0.25 + 0.5 * (noise - noise.min()) / np.ptp(noise)


def gain_of(frame, picture, share=None, sigma_px=48.0):
    share = np.ones(SHAPE, np.float32) if share is None else share
    return fit_gain(frame.astype(np.float32), picture, share, STRIDE_PX, sigma_px)


def test_the_edge_of_a_shadow_stays_sharp(picture):
    shadow = np.where(np.arange(SHAPE[1]) < 80, 0.45, 1.0)[None, :, None]
    found = gain_of(picture * shadow, picture)
    x = np.arange(found.shape[1]) * STRIDE_PX
    # 12 px from the edge a window of 48 px would still be half way between the two
    assert np.abs(found[:, x < 68] - 0.45).max() < 0.06
    assert np.abs(found[:, x > 92] - 1.0).max() < 0.1


def test_texture_out_of_place_is_not_light(picture):
    found = gain_of(np.roll(picture, 1, axis=1), picture)
    assert np.abs(found - 1).max() < 0.008  # 0.015 were every window believed


def test_small_spots_of_another_colour_are_not_tinted(picture):
    frame = picture.copy()
    frame[40:60, 70:90] *= (1.6, 0.6, 1.0)
    fine = gain_of(frame, picture) / gain_of(frame, picture, sigma_px=1e3)
    tint = fine.max(-1) / fine.min(-1)
    assert tint.max() < 1.1  # the fine windows are grey


def test_light_comes_from_the_layer_alone(picture):
    share = np.zeros(SHAPE, np.float32)
    share[:, :80] = 1
    frame = np.where(share[..., None] > 0, 0.7 * picture, 5 * picture)
    found = gain_of(frame, picture, share)
    inside = found[:, : 72 // STRIDE_PX]
    assert np.abs(inside - 0.7).max() < 0.02


def test_the_widest_window_alone_is_least_squares(picture):
    ramp = np.linspace(0.8, 1.2, SHAPE[1])[None, :, None]
    frame = (picture * ramp).astype(np.float32)
    found = gain_of(frame, picture, sigma_px=1e4)  # wider than the frame: one gain for all
    residual = ((frame - picture) ** 2).mean(-1, keepdims=True)
    weight = 0.15**2 / (0.15**2 + residual)
    wanted = (weight * frame * picture).sum((0, 1)) / (weight * picture**2).sum((0, 1))
    assert np.abs(found - wanted).max() < 0.01
