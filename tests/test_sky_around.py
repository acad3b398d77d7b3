"""Refined mattes averaged over the frames around each."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest

from preprocess.sky import around
from preprocess.sky.around import RefinedFrame, averaged_around
from preprocess.sky.temporal import SteadyOptions, followed, matte_slope

OPTIONS = SteadyOptions(flow="smooth")


def wires(t: int) -> tuple[np.ndarray, np.ndarray]:
    """Frame t (96, 128, 3) uint8 of thin dark wires before a pale sky, and its exact matte.

    Drawn four times as large and averaged: all moves 0.75 px right and 0.25 px down a frame.
    """
    large = np.ones((4 * 96, 4 * 128), np.float32)
    x, y = 3 * t, t
    large[4 * 70 + y :] = 0.0
    rng = np.random.default_rng(7)
    for _ in range(14):
        ends = rng.integers(-40, 4 * 128 + 40, (2, 2))
        (x0, y0), (x1, y1) = ((int(e[0]) + x, int(e[1] * 0.6) + y) for e in ends)
        cv2.line(large, (x0, y0), (x1, y1), 0.0, 3)
    matte = cv2.resize(large, (128, 96), interpolation=cv2.INTER_AREA)
    grain = np.random.default_rng(t).normal(0, 2, (96, 128, 3))
    rgb = 60 + 130 * matte[..., None] + grain
    return np.clip(rgb.round(), 0, 255).astype(np.uint8), matte


def trembling(count: int) -> tuple[list[RefinedFrame], list[np.ndarray]]:
    """Frames of the wires with mattes that tremble along the edges; the exact mattes."""
    frames, truths = [], []
    for t in range(count):
        rgb, truth = wires(t)
        noise = np.random.default_rng(100 + t).normal(0, 0.12, truth.shape).astype(np.float32)
        edge = (truth > 0) & (truth < 1)
        frames.append(RefinedFrame(rgb, np.clip(truth + noise * edge, 0, 1)))
        truths.append(truth)
    return frames, truths


def mean_error(mattes: list[np.ndarray], truths: list[np.ndarray]) -> float:
    inner = slice(12, -12)
    pairs = list(zip(mattes, truths, strict=True))[3:-3]
    return float(np.mean([np.abs(m - t)[inner, inner].mean() for m, t in pairs]))


def mean_tremble(mattes: list[np.ndarray], truths: list[np.ndarray]) -> float:
    """Mean |change of the matte less the true change|, as the dtSSD of video matting counts it."""
    wrong = [m - t for m, t in zip(mattes, truths, strict=True)][3:-3]
    return float(
        np.mean([np.abs(b - a)[12:-12, 12:-12].mean() for a, b in itertools.pairwise(wrong)])
    )


def test_moving_wires_tremble_less_and_stay_as_exact(monkeypatch):
    frames, truths = trembling(14)
    alone = [f.matte for f in frames]
    steady = list(averaged_around(frames, OPTIONS))
    assert mean_tremble(steady, truths) < 0.6 * mean_tremble(alone, truths)
    assert mean_error(steady, truths) < 0.75 * mean_error(alone, truths)
    monkeypatch.setattr(around, "followed", lambda carried, slope, change: carried)
    smeared = list(averaged_around(frames, OPTIONS))
    assert mean_error(smeared, truths) > mean_error(alone, truths)  # what following prevents


def test_time_has_no_direction():
    frames, _ = trembling(7)
    there = list(averaged_around(frames, OPTIONS))
    back = list(averaged_around(reversed(frames), OPTIONS))
    for first, second in zip(there, reversed(back), strict=True):
        np.testing.assert_allclose(first, second, atol=1e-5)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 9])
def test_frames_come_in_order_and_no_later_than_they_must(count):
    """Of a still scene, frame t is marked by its own level; the mean stays nearest to it."""
    rgb = np.full((40, 60, 3), 90, np.uint8)
    taken = []

    def source():
        for t in range(count):
            taken.append(t)
            yield RefinedFrame(rgb, np.full((40, 60), 0.02 * t, np.float32))

    got = []
    for t, matte in enumerate(averaged_around(source(), OPTIONS)):
        assert len(taken) == min(count, t + 1 + OPTIONS.around)
        got.append(float(matte.mean()))
    ends = [(max(0, t - 3), min(count - 1, t + 3)) for t in range(count)]
    np.testing.assert_allclose(got, [0.02 * (a + b) / 2 for a, b in ends], atol=2e-3)


def test_the_users_own_matte_stays_and_counts_for_its_neighbours():
    rgb = np.full((40, 60, 3), 90, np.uint8)
    mattes = [np.full((40, 60), v, np.float32) for v in (0.5, 0.6, 0.5)]
    frames = [RefinedFrame(rgb, m, settled=t == 1) for t, m in enumerate(mattes)]
    first, own, last = averaged_around(frames, OPTIONS)
    np.testing.assert_array_equal(own, mattes[1])
    assert 0.52 < first.mean() < 0.55
    np.testing.assert_allclose(first, last)


def test_a_cut_and_another_size_have_no_say():
    rgb, matte = wires(0)
    other = RefinedFrame(np.full_like(rgb, 255), 1 - matte)
    narrow = RefinedFrame(rgb[:, :100].copy(), matte[:, :100].copy())
    got = list(averaged_around([RefinedFrame(rgb, matte), other, narrow], OPTIONS))
    np.testing.assert_allclose(got[0], matte, atol=0.02)
    np.testing.assert_allclose(got[1], 1 - matte, atol=0.02)
    np.testing.assert_array_equal(got[2], matte[:, :100])


@pytest.mark.parametrize("shape", [(16, 20), (9, 13), (4, 4), (1, 1), (3, 400)])
def test_frames_of_a_few_pixels_are_taken(shape):
    rng = np.random.default_rng(0)
    frames = [
        RefinedFrame(
            rng.integers(0, 255, (*shape, 3)).astype(np.uint8), rng.random(shape, np.float32)
        )
        for _ in range(3)
    ]
    for matte in averaged_around(frames, OPTIONS):
        assert matte.shape == shape
        assert np.isfinite(matte).all()


def test_none_around_gives_the_mattes_as_they_are():
    frames, _ = trembling(3)
    got = averaged_around(frames, SteadyOptions(around=0))
    for frame, matte in zip(frames, got, strict=True):
        np.testing.assert_array_equal(matte, frame.matte)


def test_slope_and_change_give_the_new_opacity():
    """Opacity linear in grey, 0 at 40 and 1 at 200: a change of 16 levels is a tenth of it."""
    grey = np.random.default_rng(0).integers(40, 201, (32, 64)).astype(np.uint8)
    matte = (grey.astype(np.float32) - 40) / 160
    slope = matte_slope(grey, matte)
    np.testing.assert_allclose(slope[8:-8, 8:-8], 255 / 160, rtol=0.05)
    change = np.full(grey.shape, 16, np.float32)
    got = followed(matte, np.full_like(matte, 255 / 160), change)
    np.testing.assert_allclose(got, np.clip(matte + 0.1, 0, 1), atol=1e-6)
