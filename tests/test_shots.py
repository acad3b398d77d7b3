"""Hard cuts are found; pans, flashes, fades, shake and passers-by are none."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from preprocess.shots import change, shots_of, thumbnail

CLIPS = Path(__file__).resolve().parent.parent.parent / "shared" / "data" / "clips"
H, W = 54, 96


def world(seed: int, tint=(1.0, 1.0, 1.0)) -> np.ndarray:
    """(400, 900, 3) uint8: a landscape of blobs in a few colours of its own."""
    rng = np.random.default_rng(seed)
    picture = np.full((400, 900, 3), rng.integers(40, 200, 3), np.float32)
    for _ in range(220):
        centre = (int(rng.integers(900)), int(rng.integers(400)))
        colour = (rng.uniform(20, 235, 3) * tint).tolist()
        cv2.circle(picture, centre, int(rng.integers(8, 40)), colour, -1)
    return cv2.GaussianBlur(picture, (0, 0), 2).clip(0, 255).astype(np.uint8)


def pan(scene: np.ndarray, count: int, step_px: float, x0: float = 10, y0: float = 40) -> list:
    return [
        cv2.getRectSubPix(scene, (W * 2, H * 2), (x0 + W + t * step_px, y0 + H))
        for t in range(count)
    ]


BLUE, RED = world(1, (0.4, 0.6, 1.2)), world(2, (1.2, 0.7, 0.4))


def test_two_pans_joined_are_two_shots():
    assert shots_of(pan(BLUE, 13, 4) + pan(RED, 18, -3, x0=200)) == [[0, 13], [13, 31]]


def test_three_shots_down_to_the_shortest_that_counts():
    frames = pan(BLUE, 9, 2) + pan(RED, 3, 2) + pan(world(7), 11, 2)
    assert shots_of(frames) == [[0, 9], [9, 12], [12, 23]]


@pytest.mark.parametrize("step_px", [0, 3, 11, 25])
def test_a_pan_is_one_shot(step_px):
    # 25 px a frame is 13 % of the frame's width: the whole view is new after 8 frames
    frames = pan(BLUE, 20, step_px)
    assert shots_of(frames) == [[0, 20]]


@pytest.mark.parametrize("at", [1, 8, 17])
@pytest.mark.parametrize("length", [1, 2])
def test_a_flash_is_no_cut(at, length):
    frames = pan(BLUE, 20, 2)
    for t in range(at, at + length):
        frames[t] = (frames[t].astype(int) * 2 + 120).clip(0, 255).astype(np.uint8)
    assert shots_of(frames) == [[0, 20]]


def test_the_frame_after_a_cut_may_flash():
    frames = pan(BLUE, 12, 2) + pan(RED, 12, 2)
    frames[15] = np.full_like(frames[15], 250)
    assert shots_of(frames) == [[0, 12], [12, 24]]


def test_a_fade_of_exposure_is_no_cut():
    frames = [(f * s).astype(np.uint8) for f, s in zip(pan(RED, 20, 2), np.linspace(1, 0.3, 20))]  # noqa: B905
    assert shots_of(frames) == [[0, 20]]


def test_an_object_that_crosses_is_no_cut():
    frames = pan(BLUE, 24, 2)
    for t in range(24):
        x = -80 + 14 * t
        cv2.rectangle(frames[t], (x, 0), (x + 80, 2 * H), (230, 220, 30), -1)
    assert shots_of(frames) == [[0, 24]]


def test_violent_shake_is_no_cut():
    rng = np.random.default_rng(4)
    frames = [
        cv2.blur(
            cv2.getRectSubPix(RED, (W * 2, H * 2), tuple(300 + rng.uniform(-18, 18, 2))), (9, 1)
        )
        for _ in range(30)
    ]
    assert shots_of(frames) == [[0, 30]]


@pytest.mark.parametrize("count", [0, 1, 2])
def test_very_short_clips(count):
    assert shots_of(pan(BLUE, count, 2)) == ([[0, count]] if count else [])


def test_change_is_nothing_between_equals_and_much_between_opposites():
    black, white = np.zeros((36, 64, 3), np.uint8), np.full((36, 64, 3), 255, np.uint8)
    assert change(black, black) == 0
    assert change(black, white) == pytest.approx(1)


def test_a_portrait_thumbnail_keeps_its_shape():
    assert thumbnail(np.zeros((854, 480, 3), np.uint8)).shape == (64, 36, 3)
    assert thumbnail(np.zeros((3, 300, 3), np.uint8)).shape == (8, 64, 3)


def real(name: str, count: int, first: int = 0) -> list[np.ndarray]:
    from atlas.video import open_source

    if not (CLIPS / name).exists():
        pytest.skip(f"{CLIPS / name} is not there")
    return [cv2.resize(f, (160, 90)) for f in open_source(CLIPS / name).frames(first, count)]


@pytest.mark.shared
def test_the_shakiest_real_clip_is_one_shot():
    assert shots_of(real("selfie_walk.mp4", 133)) == [[0, 133]]


@pytest.mark.shared
def test_real_clips_joined_are_cut_where_they_join():
    frames = real("street_sunset_walk.mp4", 20, 60) + real("annarbor.mp4", 15)
    frames += real("blackswan", 17) + real("selfie_walk.mp4", 20)
    assert shots_of(frames) == [[0, 20], [20, 35], [35, 52], [52, 72]]
