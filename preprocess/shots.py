"""Hard cuts of a clip: where one shot ends and the next begins, in one pass over thumbnails.

A cut is a frame that no small motion and no brief event explains. Every pair of frames is compared
block by block, each block at its best place nearby (so a pan is no change); a cut must separate
all of the last frames before it from all of the first after it (so a flash, or somebody crossing
the picture, is none), and must stand out from the changes around it (so a violent shake is none).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np

THUMBNAIL_PX = 64
"""Longer side of a thumbnail."""
BLOCK_PX = 8
REACH_PX = 9
"""How far a block may move between two compared frames: thumbnail pixels, 14 % of the side."""


@dataclass(frozen=True)
class ShotSettings:
    """What counts as a cut; see `find_shots`."""

    threshold: float = 0.22
    """Least change between the frames on both sides of a cut, [0, 1]. Real hand-held clips stay
    below 0.17 between neighbours; cuts between unlike clips start at 0.27."""
    prominence: float = 2.0
    """The change must be this many times the median change of the frames around it."""
    guard_frames: int = 3
    """Events shorter than this many frames (flashes, blocked views) are no cuts."""
    around_frames: int = 6
    """How many frames on either side are looked at for `prominence`."""


def thumbnail(rgb: np.ndarray) -> np.ndarray:
    """(h, w, 3) uint8: the picture shrunk so that its longer side is `THUMBNAIL_PX`."""
    height, width = rgb.shape[:2]
    scale = THUMBNAIL_PX / max(height, width)
    wh = (max(round(width * scale), BLOCK_PX), max(round(height * scale), BLOCK_PX))
    return cv2.resize(rgb, wh, interpolation=cv2.INTER_AREA)


def change(a: np.ndarray, b: np.ndarray) -> float:
    """How much of picture b is not explained by picture a, [0, 1].

    The geometric mean of two distances, so that both must be large: what is left of b after every
    block of `BLOCK_PX` was matched in a within `REACH_PX` (as a share of b's own contrast and of
    the colour's range), and how far the two colour histograms lie apart.

    Args:
        a, b: (h, w, 3) uint8 thumbnails of one size.
    """
    return float(np.sqrt(_unmatched(a, b) * _histogram_distance(a, b)))


def _unmatched(a: np.ndarray, b: np.ndarray) -> float:
    """Mean over blocks of b of the least mean absolute difference to a, over 1/4 of the range."""
    height, width = (n // BLOCK_PX * BLOCK_PX for n in b.shape[:2])
    reach = REACH_PX
    padded = cv2.copyMakeBorder(a, reach, reach, reach, reach, cv2.BORDER_REPLICATE)
    best = np.full((height // BLOCK_PX, width // BLOCK_PX), np.inf, np.float32)
    target = b[:height, :width]
    for dy in range(-reach, reach + 1, 3):
        for dx in range(-reach, reach + 1, 3):
            y, x = reach + dy, reach + dx
            difference = cv2.absdiff(target, padded[y : y + height, x : x + width])
            shrunk = cv2.resize(
                difference, (best.shape[1], best.shape[0]), interpolation=cv2.INTER_AREA
            )
            best = np.minimum(best, shrunk.mean(axis=2))
    return float(np.minimum(best / 64, 1).mean())


def _histogram_distance(a: np.ndarray, b: np.ndarray) -> float:
    """1 - intersection of the joint colour histograms, 8 bins a channel, smoothed by one bin."""
    found = []
    for picture in (a, b):
        histogram = cv2.calcHist([picture], [0, 1, 2], None, [8] * 3, [0, 256] * 3)
        for axis in range(3):
            before, after = np.roll(histogram, 1, axis), np.roll(histogram, -1, axis)
            np.moveaxis(before, axis, 0)[0] = 0
            np.moveaxis(after, axis, 0)[-1] = 0
            histogram = before / 4 + histogram / 2 + after / 4
        found.append(histogram / histogram.sum())
    return float(1 - np.minimum(*found).sum())


def find_shots(
    thumbnails: list[np.ndarray],
    settings: ShotSettings | None = None,
    distance: Callable[[np.ndarray, np.ndarray], float] = change,
) -> list[list[int]]:
    """[first, end) of every shot, in frames; they follow one another without gaps.

    Args:
        thumbnails: one per frame, (h, w, 3) uint8, see `thumbnail`.
    """
    settings = settings or ShotSettings()
    count = len(thumbnails)
    steps = [distance(a, b) for a, b in pairwise(thumbnails)]
    cuts: list[int] = []
    for t in range(1, count):
        if steps[t - 1] < settings.threshold or not _stands_out(steps, t - 1, settings):
            continue
        earliest = max(cuts[-1] if cuts else 0, t - settings.guard_frames)
        latest = min(count, t + settings.guard_frames)
        apart = (
            distance(thumbnails[i], thumbnails[j]) >= settings.threshold
            for i in range(earliest, t)
            for j in range(t, latest)
            if (i, j) != (t - 1, t)
        )
        if all(apart):
            cuts.append(t)
    edges = [0, *cuts, count]
    return [[a, b] for a, b in pairwise(edges)] if count else []


def _stands_out(steps: list[float], at: int, settings: ShotSettings) -> bool:
    low, high = max(0, at - settings.around_frames), at + settings.around_frames + 1
    around = steps[low:at] + steps[at + 1 : high]
    return not around or steps[at] >= settings.prominence * float(np.median(around))


def shots_of(frames: Iterable[np.ndarray], settings: ShotSettings | None = None) -> list[list[int]]:
    """`find_shots` of (H, W, 3) uint8 RGB frames of any size."""
    return find_shots([thumbnail(rgb) for rgb in frames], settings)
