"""Bare crowns that a polygon calls ground: found, with the sky in them, and told from facades."""

from __future__ import annotations

import numpy as np

from preprocess.sky.crowns import crown_sky

HEIGHT, WIDTH = 240, 320


def street() -> tuple[np.ndarray, np.ndarray]:
    """A white sky over dark ground, and its label."""
    rgb = np.full((HEIGHT, WIDTH, 3), 30, np.uint8)
    rgb[:120] = 244
    label = np.zeros((HEIGHT, WIDTH), np.float32)
    label[:120] = 1
    return rgb, label


def draw_twigs(rgb: np.ndarray, rows: slice, columns: slice) -> None:
    """A lattice of dark lines, 2 px wide and 5 apart."""
    part = rgb[rows, columns]
    part[::5] = part[1::5] = 20
    part[:, ::5] = part[:, 1::5] = 20


def test_a_crown_beside_the_labelled_sky_shows_what_is_behind_it():
    rgb, label = street()
    draw_twigs(rgb, slice(0, 120), slice(200, 260))
    label[:120, 200:260] = 0
    crown, alpha = crown_sky(rgb, label)
    inside = (slice(12, 108), slice(206, 254))
    assert crown[inside].mean() > 0.95
    gaps = rgb[inside][..., 0] > 128
    assert alpha[inside][gaps].mean() > 0.95
    assert alpha[inside][~gaps].mean() < 0.05
    assert not crown[:, :196].any(), "nothing is changed where the label says sky"
    assert not crown[126:].any()
    assert not alpha[~crown].any()


def test_half_covered_pixels_get_half():
    rgb, label = street()
    draw_twigs(rgb, slice(0, 120), slice(200, 260))
    rgb[53, 223] = 132
    label[:120, 200:260] = 0
    _, alpha = crown_sky(rgb, label)
    np.testing.assert_allclose(alpha[53, 223], 0.5, atol=0.06)


def test_a_facade_behind_a_roof_is_ground():
    """The same lattice, but a roof wider than a step lies between it and the sky."""
    rgb, label = street()
    label[:120, 190:270] = 0
    rgb[:120, 190:270] = 30
    rgb[20:110, 200:260] = 244
    draw_twigs(rgb, slice(20, 110), slice(200, 260))
    crown, alpha = crown_sky(rgb, label)
    assert not crown.any()
    assert not alpha.any()


def test_a_white_wall_beside_the_sky_is_ground():
    rgb, label = street()
    label[:120, 200:260] = 0  # as white as the sky, but whole
    assert not crown_sky(rgb, label)[0].any()


def test_no_labelled_sky_no_crowns():
    rgb, label = street()
    draw_twigs(rgb, slice(0, 120), slice(200, 260))
    crown, alpha = crown_sky(rgb, np.zeros_like(label))
    assert not crown.any()
    assert not alpha.any()
