"""The lens of a turning camera: the one focal length with which all it saw fits together.

Corners are followed. Whenever the view has moved on by a good part of its width, what is still
seen is matched with the frame where it was first seen, directly. Each such pair of views under
rotation, x' ~ K R K^-1 x, fits one focal length best (Hartley and Zisserman 2004, section 19.6);
what all pairs say together is weighed against what lenses usually are, so that a camera that
hardly turns gets a usual lens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from atlas.coords import Size
from preprocess.rotation import intrinsics
from preprocess.tracks import find_corners, follow, follow_on

PRIOR_SPREAD = 0.25
"""Spread of the logarithm of usual focal lengths: two thirds lie within 22 % of the middle."""
SURE_SPREAD = 0.04
"""A focal length is taken as known when its logarithm is known to this."""
USEFUL_SPREAD = 0.1
"""It is better than a usual one from here on."""
_LADDER = np.exp(np.linspace(math.log(0.4), math.log(4.0), 21))
_POINTS = 110
_MOST_PAIRS = 12
"""Pairs of views that a `LensFinder` holds."""
_STEPS = (0.1, 0.2, 0.32, 0.45)
"""A pair of views is taken when the view has moved by these shares of the longer side."""
_LEAST_POINTS = 24
_LEAST_SHARE = 0.5
"""A pair of views counts when so many of its matches agree on one rotation."""
_ROUNDS = 6
_CAP_PX = 2.0
_NOISE_PX = 0.35
"""Error of a match that does not follow the model, from which spreads are told: distortion of the
lens and depth, which all matches of a pair of views share."""
_INDEPENDENT = 6
"""Matches of a pair of views that err independently of each other."""


@dataclass(frozen=True)
class FocalFound:
    """What a look ahead found. focal_px: in pixels of the frame. spread: of its logarithm."""

    focal_px: float
    spread: float

    @property
    def sure(self) -> bool:
        return self.spread < SURE_SPREAD


@dataclass(frozen=True)
class ViewPair:
    """Matches (N, 2) px between two views."""

    first_px: np.ndarray
    second_px: np.ndarray


@dataclass
class _Anchor:
    """A frame from which corners are followed on."""

    grey: np.ndarray
    start_px: np.ndarray
    now_px: np.ndarray
    taken: int = 0


class PairCollector:
    """Give it the frames of a camera, some ten a second; it picks out pairs of views."""

    def __init__(self) -> None:
        self._anchors: list[_Anchor] = []
        self._before: np.ndarray | None = None

    def cut(self) -> None:
        """The next frame has nothing to do with the last one."""
        self._anchors, self._before = [], None

    def see(self, grey: np.ndarray) -> list[ViewPair]:
        """Pairs of views that end in the next frame (h, w) uint8."""
        found: list[ViewPair] = []
        if self._before is not None:
            for anchor in self._anchors:
                _go_on(anchor, self._before, grey)
                found += _taken(anchor, grey)
            self._anchors = [
                a for a in self._anchors if len(a.now_px) >= _LEAST_POINTS and a.taken < len(_STEPS)
            ]
        if not self._anchors or self._anchors[-1].taken:
            corners = find_corners(grey, np.ones(grey.shape, bool), _POINTS, max(grey.shape) / 40)
            if len(corners) >= _LEAST_POINTS:
                self._anchors.append(_Anchor(grey, corners, corners))
        self._before = grey
        return found


class LensFinder:
    """The lens as it shows itself while frames come in, from the last pairs of views."""

    def __init__(self, size: Size, prior: FocalFound):
        """`prior`: what is believed beforehand, in pixels of frames of this size."""
        self._size, self._prior = size, prior
        self._collector = PairCollector()
        self._pairs: list[ViewPair] = []
        self.found = prior

    def cut(self) -> None:
        """A new shot begins with the next frame."""
        self._collector.cut()

    def see(self, grey: np.ndarray) -> None:
        """Take in a frame (h, w) uint8 of that size; once sure, nothing more is looked at."""
        if self.found.sure and len(self._pairs) == _MOST_PAIRS:
            return
        new = self._collector.see(grey)
        if new:
            self._pairs = (self._pairs + new)[-_MOST_PAIRS:]
            self.found = weighed(self._pairs, self._size, self._prior)

    def best_px(self) -> float | None:
        """The focal length found, pixels; None while it is hardly better than a usual one."""
        return self.found.focal_px if self.found.spread < USEFUL_SPREAD else None


def _go_on(anchor: _Anchor, before: np.ndarray, grey: np.ndarray) -> None:
    """Follow an anchor's points one frame further."""
    there, good = follow_on(before, grey, anchor.now_px)
    anchor.start_px, anchor.now_px = anchor.start_px[good], there[good]


def _taken(anchor: _Anchor, grey: np.ndarray) -> list[ViewPair]:
    """The pair of the anchor's frame and this one, when the view has moved on far enough."""
    if len(anchor.now_px) < _LEAST_POINTS:
        return []
    moved = np.linalg.norm(np.median(anchor.now_px - anchor.start_px, axis=0))
    if moved < _STEPS[anchor.taken] * max(grey.shape):
        return []
    while anchor.taken < len(_STEPS) and moved >= _STEPS[anchor.taken] * max(grey.shape):
        anchor.taken += 1
    there, good = follow(anchor.grey, grey, anchor.start_px, anchor.now_px)
    if good.sum() < _LEAST_POINTS:
        return []
    return [ViewPair(anchor.start_px[good], there[good])]


def weighed(pairs: list[ViewPair], size: Size, prior: FocalFound) -> FocalFound:
    """The focal length that pairs of views and what is believed beforehand speak for together."""
    ladder = prior.focal_px * _LADDER
    errors = [pair_errors(pair, size, ladder) for pair in pairs]
    told = [(pair, float(e.min())) for pair, e in zip(pairs, errors, strict=True) if e is not None]
    cost = _prior_cost(ladder, prior)
    for error2, (_, least) in zip((e for e in errors if e is not None), told, strict=True):
        cost = cost + _costs(error2, least)
    for width in (0.1, 0.025):
        ladder = ladder[int(cost.argmin())] * np.exp(np.linspace(-width, width, 9))
        cost = _prior_cost(ladder, prior)
        for pair, least in told:
            error2 = pair_errors(pair, size, ladder)
            cost = cost + (0 if error2 is None else _costs(error2, least))
    # the parabola through what lies round the least cost: its curvature is the information
    steps = np.log(ladder / ladder[4])
    bend, slope, _ = np.polyfit(steps, cost, 2)
    best = float(np.clip(-slope / (2 * bend), steps[0], steps[-1])) if bend > 0 else 0.0
    information = max(2 * bend, 1 / prior.spread**2)
    return FocalFound(float(ladder[4] * math.exp(best)), 1 / math.sqrt(information))


def _costs(error2: np.ndarray, least: float) -> np.ndarray:
    """Minus the logarithm of how likely errors (px^2) are, where `least` is what no focal length
    explains."""
    return _INDEPENDENT * error2 / (2 * max(least, _NOISE_PX**2))


def _prior_cost(ladder: np.ndarray, prior: FocalFound) -> np.ndarray:
    return 0.5 * (np.log(ladder / prior.focal_px) / prior.spread) ** 2


def pair_errors(pair: ViewPair, size: Size, ladder: np.ndarray) -> np.ndarray | None:
    """(len(ladder),) mean squared error of a pair of views, capped, for each focal length.

    None where no rotation explains most of it.
    """
    first, second = pair.first_px.astype(np.float64), pair.second_px.astype(np.float64)
    middle = intrinsics(size, 1.0)[:2, 2]
    a, b = (_ladder_rays(xy - middle, ladder) for xy in (first, second))
    pull = np.ones(a.shape[:2])
    for _ in range(_ROUNDS):
        moved = a @ _rotations(a, b, pull).transpose(0, 2, 1)
        depth = np.maximum(moved[..., 2:], 1e-6)
        off = moved[..., :2] / depth * ladder[:, None, None] + middle - second
        error2 = np.einsum("fni,fni->fn", off, off)
        pull = 1 / (1 + error2 / _CAP_PX**2) ** 2
    capped = np.minimum(error2, _CAP_PX**2).mean(axis=1)
    if np.mean(error2[capped.argmin()] < _CAP_PX**2) < _LEAST_SHARE:
        return None
    return capped


def _ladder_rays(off_px: np.ndarray, ladder: np.ndarray) -> np.ndarray:
    """(F, N, 3) unit rays through points (N, 2) off the middle, for every focal length."""
    rays = np.ones((len(ladder), len(off_px), 3))
    rays[..., :2] = off_px / ladder[:, None, None]
    return rays / np.linalg.norm(rays, axis=2, keepdims=True)


def _rotations(a: np.ndarray, b: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """(F, 3, 3): `preprocess.rotation.fit_rotation` of a stack of matches."""
    u, _, vt = np.linalg.svd((b * weight[..., None]).transpose(0, 2, 1) @ a)
    u[..., 2] *= np.sign(np.linalg.det(u @ vt))[:, None]
    return u @ vt
