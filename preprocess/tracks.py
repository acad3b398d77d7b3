"""Points to follow and where they went: corners and pyramidal Lucas-Kanade, checked both ways.

Shi and Tomasi, "Good Features to Track" (CVPR 1994); Bouguet, "Pyramidal Implementation of the
Lucas Kanade Feature Tracker" (2000).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from itertools import pairwise

import cv2
import numpy as np

from atlas.coords import Size

_WINDOW = (13, 13)
_LEVELS = 3
_STOP = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 12, 0.02)
_NEAREST = 0.02
"""Neighbours nearer than this, radians, are too near to tell how their distance changed."""
_FLATTEST = 6e-6
"""Least eigenvalue of the structure tensor of a usable corner: below, it is noise or banding."""


def find_corners(grey: np.ndarray, mask: np.ndarray, count: int, distance_px: float) -> np.ndarray:
    """Up to `count` corners of `grey` inside `mask`, at least `distance_px` apart: (N, 2) px.

    `grey` is (h, w) uint8, `mask` (h, w) bool. Corners are taken by rank within the mask; those
    too flat to follow are left out, so a textureless region gives none.
    """
    if count <= 0 or not mask.any():  # OpenCV takes 0 for "no limit" and refuses less
        return np.empty((0, 2), np.float32)
    smooth = cv2.GaussianBlur(grey, (0, 0), 1.0)
    corners, quality = cv2.goodFeaturesToTrackWithQuality(
        smooth, count, 0.003, distance_px, mask.astype(np.uint8), blockSize=7, gradientSize=3
    )[:2]
    if corners is None:
        return np.empty((0, 2), np.float32)
    return corners.reshape(-1, 2)[np.ravel(quality) > _FLATTEST]


def follow(
    source: np.ndarray, target: np.ndarray, xy_px: np.ndarray, guess_px: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Where points of one picture lie in another of the same size.

    Args:
        source, target: (h, w) uint8.
        xy_px: (N, 2) float32 points in `source`. guess_px: (N, 2) first guess in `target`.
    Returns:
        (N, 2) float32 points in `target`, and (N,) bool: found, inside, and led back to within
        half a pixel of where they came from.
    """
    if not len(xy_px):
        return np.empty((0, 2), np.float32), np.empty(0, bool)
    start = np.ascontiguousarray(xy_px, np.float32).reshape(-1, 1, 2)
    options = {"winSize": _WINDOW, "maxLevel": _LEVELS, "criteria": _STOP}
    flags = cv2.OPTFLOW_USE_INITIAL_FLOW
    first = start if guess_px is None else guess_px.astype(np.float32).reshape(-1, 1, 2)
    there, found, _ = cv2.calcOpticalFlowPyrLK(
        source, target, start, first.copy(), flags=flags, **options
    )
    back_guess = there + (start - first)  # not `start` itself: else every point would agree
    back, returned, _ = cv2.calcOpticalFlowPyrLK(
        target, source, there, back_guess, flags=flags, **options
    )
    height, width = target.shape
    there, back = there.reshape(-1, 2), back.reshape(-1, 2)
    error = np.linalg.norm(back - start.reshape(-1, 2), axis=1)
    inside = (there > -0.5).all(axis=1) & (there < (width - 0.5, height - 0.5)).all(axis=1)
    good = (found.ravel() > 0) & (returned.ravel() > 0) & (error < 0.5) & inside
    return there, good


def find_corners_evenly(
    grey: np.ndarray, mask: np.ndarray, count: int, distance_px: float, strips: int
) -> np.ndarray:
    """`find_corners`, so many in each of some upright strips: what is far is often dull."""
    edges = np.linspace(0, grey.shape[1], strips + 1).astype(int).tolist()
    found = []
    for left, right in pairwise(edges):
        part = np.s_[:, left:right]
        corners = find_corners(grey[part], mask[part], -(-count // strips), distance_px)
        found.append(corners + np.array([left, 0], np.float32))
    return np.concatenate(found)


def expansion(now: np.ndarray, then: np.ndarray, neighbours: int = 6) -> np.ndarray:
    """(N,) by how much the surroundings of points have grown, as a logarithm: 0 = far away.

    Angles between directions stay as they are when a camera turns, and grow as it comes nearer;
    each point is judged by the median over those next to it. nan where there are too few.

    Args:
        now, then: (N, 3) unit rays to the same points.
    """
    if len(now) <= neighbours:
        return np.full(len(now), np.nan)
    chords2 = [np.maximum(2 - 2 * rays @ rays.T, 0) for rays in (now, then)]
    apart2 = np.where(chords2[0] < _NEAREST**2, np.inf, chords2[0])
    nearest = np.argpartition(apart2, neighbours, axis=1)[:, :neighbours]
    here, before = (np.take_along_axis(c, nearest, axis=1) for c in chords2)
    grown = 0.5 * np.log(np.maximum(here, 1e-12) / np.maximum(before, 1e-12))
    usable = np.isfinite(np.take_along_axis(apart2, nearest, axis=1)).all(axis=1)
    return np.where(usable, np.median(grown, axis=1), np.nan)


def follow_on(
    source: np.ndarray, target: np.ndarray, xy_px: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """`follow` at half the cost, not checked backwards: for what is checked in the end."""
    if not len(xy_px):
        return np.empty((0, 2), np.float32), np.empty(0, bool)
    start = np.ascontiguousarray(xy_px, np.float32).reshape(-1, 1, 2)
    there, found, _ = cv2.calcOpticalFlowPyrLK(
        source, target, start, start.copy(), winSize=_WINDOW, maxLevel=_LEVELS, criteria=_STOP
    )
    there = there.reshape(-1, 2)
    height, width = target.shape
    inside = (there > -0.5).all(axis=1) & (there < (width - 0.5, height - 0.5)).all(axis=1)
    return there, (found.ravel() > 0) & inside


@dataclass(frozen=True)
class StepMatches:
    """Matches between the frame before and this one outside the sky, pixels of the frame."""

    before_px: np.ndarray
    after_px: np.ndarray


@dataclass(frozen=True)
class PointSet:
    """Points that are followed through a shot, all arrays of the same length N.

    xy_px: (N, 2) where they are in the last frame.
    old_px, new_px: (N, 2) where they were in the older and the newer reference frame; nan where
        they were not yet known.
    in_sky: (N,) bool. weight: (N,) how far away they may be by their place, (0, 1].
    far: (N,) how often they have moved as things far away do, [0, 1].
    """

    xy_px: np.ndarray
    old_px: np.ndarray
    new_px: np.ndarray
    in_sky: np.ndarray
    weight: np.ndarray
    far: np.ndarray

    @staticmethod
    def fresh(xy_px: np.ndarray, in_sky: np.ndarray, weight: np.ndarray) -> PointSet:
        unknown = np.full((len(xy_px), 2), np.nan, np.float32)
        half = np.full(len(xy_px), 0.5, np.float32)
        return PointSet(xy_px.astype(np.float32), unknown, unknown, in_sky, weight, half)

    def __len__(self) -> int:
        return len(self.xy_px)

    def pick(self, which: np.ndarray) -> PointSet:
        """Those selected by a mask or by indices."""
        return PointSet(*(getattr(self, f.name)[which] for f in fields(self)))

    def joined(self, other: PointSet) -> PointSet:
        pairs = ((getattr(self, f.name), getattr(other, f.name)) for f in fields(self))
        return PointSet(*(np.concatenate(pair) for pair in pairs))


def working_size(size: Size, long_side_px: int) -> Size:
    """The size at which points are followed: halvings of the frame's where one comes near.

    Within a quarter of `long_side_px`, a power of two is taken: halving is many times cheaper.
    """
    long_side = max(size.height, size.width)
    factor = min(1.0, long_side_px / long_side)
    halved = 0.5 ** round(-np.log2(factor))
    if 0.75 < halved / factor < 1.25:
        factor = halved
    return Size(max(1, round(size.height * factor)), max(1, round(size.width * factor)))
