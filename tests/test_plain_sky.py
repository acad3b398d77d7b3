"""A plain blue sky known behind a bare crown; walls, water and cloudy skies left alone."""

import cv2
import numpy as np
import pytest

from atlas.known_sky import refine_sky_share
from atlas.mapping import FrameMapping
from atlas.matte_check import contradictions
from atlas.plain_sky import plain_sky
from atlas.texture import Texture

HEIGHT, WIDTH = 120, 200


def sky(color=(0.28, 0.46, 0.78)):
    """(H, W, 3): brighter towards the ground, with camera noise."""
    y = np.linspace(0, 1, HEIGHT, dtype=np.float32)[:, None, None]
    noise = np.random.default_rng(0).normal(0, 0.006, (HEIGHT, WIDTH, 3)).astype(np.float32)
    return np.clip(np.float32(color) * (1 + 0.25 * y) + noise, 0, 1)


def crown(seed=1):
    """(H, W) float32: the share of a crown of twigs in the lower right, full of gaps."""
    rng = np.random.default_rng(seed)
    twigs = np.zeros((4 * HEIGHT, 4 * WIDTH), np.uint8)
    for _ in range(260):
        x, y = rng.uniform(2.2 * WIDTH, 3.8 * WIDTH), rng.uniform(2 * HEIGHT, 4 * HEIGHT)
        angle, length = rng.normal(-np.pi / 2, 0.5), rng.uniform(60, 150)
        end = (int(x + length * np.cos(angle)), int(y + length * np.sin(angle)))
        cv2.line(twigs, (int(x), int(y)), end, 255, int(rng.integers(2, 6)))
    return cv2.resize(twigs, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA).astype(np.float32) / 255


def scene(color=(0.28, 0.46, 0.78)):
    """Frame, the true share of the sky, and a matte that takes the crown for solid."""
    open_sky, twigs = sky(color), crown()
    wood = np.float32([0.34, 0.3, 0.26])
    frame = open_sky + twigs[..., None] * (wood - open_sky)
    true = 1 - twigs
    solid = cv2.morphologyEx((twigs > 0.2).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((15, 15)))
    matte = cv2.GaussianBlur(1 - solid.astype(np.float32), (0, 0), 1.0)
    frame[85:, :80] = np.float32([0.55, 0.5, 0.42])  # a wall, and a pond that mirrors the sky
    frame[100:115, 10:60] = open_sky[100:115, 10:60]
    true[85:, :80] = matte[85:, :80] = 0
    return np.rint(frame * 255).astype(np.uint8), true, matte


def known(frame, matte):
    """The mapping and the sky's texture: known where the matte has it open."""
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    uv = np.stack([x, y], -1)
    found = FrameMapping(
        np.stack([uv, uv]), np.stack([1 - matte, np.ones_like(matte)]), np.ones(2, np.float32)
    )
    rgb = frame.astype(np.float32) / 255
    return found, Texture(rgb, np.float32(matte > 0), np.float32(matte == 1))


def refined(frame, matte):
    return refine_sky_share(frame, *known(frame, matte), None)


def test_a_matte_that_takes_a_crown_for_solid_needs_mending():
    frame, true, matte = scene()
    wrong, looked_at = contradictions(frame, *known(frame, matte), None)
    assert wrong > 0.1 * looked_at
    wrong, looked_at = contradictions(frame, *known(frame, true), None)
    assert wrong < 0.015 * looked_at


def test_a_bare_crown_lets_the_sky_through():
    frame, true, matte = scene()
    inside = (matte < 0.02) & (true > 0)
    assert inside.sum() > 1500
    before, after = (
        np.abs(matte - true)[inside].mean(),
        np.abs(refined(frame, matte) - true)[inside],
    )
    assert before > 0.4
    assert after.mean() < before / 3


def test_a_wall_and_a_pond_of_the_sky_s_colour_stay_scene():
    frame, _, matte = scene()
    assert refined(frame, matte)[88:, :72].max() < 0.02


def test_the_colour_behind_is_that_of_the_sky():
    frame, true, matte = scene()
    found = plain_sky(frame.astype(np.float32) / 255, matte)
    assert found is not None
    assert np.abs(found.color - sky())[(matte < 0.02) & (true > 0)].mean() < 0.02
    assert (found.trust[matte > 0.99] == 0).all()  # the open sky needs no guess


@pytest.mark.parametrize("kind", ["grey", "cloudy", "hidden"])
def test_other_skies_are_not_guessed(kind):
    frame, _, matte = scene((0.7, 0.71, 0.72) if kind == "grey" else (0.28, 0.46, 0.78))
    frame = frame.astype(np.float32) / 255
    if kind == "cloudy":
        clouds = np.random.default_rng(2).random((6, 10, 1)).astype(np.float32)
        clouds = cv2.resize(clouds, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)[..., None]
        frame = frame + matte[..., None] * 0.5 * clouds.clip(0, 1) * (1 - frame)
    if kind == "hidden":
        matte = np.minimum(matte, np.float32(0.5))
    assert plain_sky(frame, matte) is None


def test_a_bluish_road_below_the_skyline_stays_scene():
    """Dashes and cars make it as uneven as a crown, and trees join it to the sky."""
    frame = np.rint(sky() * 255).astype(np.uint8)
    matte = np.ones((HEIGHT, WIDTH), np.float32)
    rng = np.random.default_rng(5)
    trees = rng.random((20, WIDTH)) < 0.6
    frame[45:65][trees] = (70, 74, 58)
    road = (
        np.float32([0.28, 0.33, 0.42])
        * rng.uniform(0.6, 1.4, (55, WIDTH // 5)).repeat(5, 1)[..., None]
    )
    frame[65:] = np.rint(np.clip(road, 0, 1) * 255)
    frame[70::7, ::9] = 235
    matte[45:] = 0
    matte = cv2.GaussianBlur(matte, (0, 0), 1.0)
    plain = plain_sky(frame.astype(np.float32) / 255, matte)
    assert plain is not None
    assert plain.trust[46:50].max() > 0.2  # the trees' gaps are asked
    assert plain.trust[65:].max() == 0
