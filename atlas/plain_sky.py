"""A sky without texture, continued behind what hides it: bare crowns before a blue sky.

Where no frame shows the sky behind a pixel bare, a plain sky can still be told: its colour is a
smooth function of the place in the frame, which the open sky gives. It is trusted only inside
things that let the sky through in many small places (crowns, fences, masts), next to open sky:
water, walls and windows of the sky's colour are smooth, and stay what they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

PLAIN_NOISE = (0.02, 0.035)
"""Skies whose colours lie closer than the first to the smooth model are plain, farther than the
second not at all; RGB distance (median) with colours in [0, 1]."""
LEAST_CHROMA = (0.08, 0.14)
"""Skies whose colours are nearer to grey than the first have no hue to tell them by, farther than
the second enough; RGB distance."""
WINDOW_SHARE = 1 / 24
"""Width of the window in which a thing is seen to let the sky through; share of the frame's."""
UNEVEN = (0.06, 0.12)
"""Standard deviation of the sky's hue within the window: less than the first is a wall or water,
more than the second a crown."""
LEAST_KEY = (0.12, 0.22)
"""Mean share of the sky's hue within the window: of less than the first, nothing shines through."""
MOST_GAP = 0.004
"""Gaps in a crown up to this share of the frame's area are taken whole."""
BELOW_OPEN = 1 / 24
"""How far below the lowest open sky a gap may lie, share of the frame's height: bluish asphalt
under a treeline is as uneven as a crown."""
LEAST_OPEN = 0.03
"""Share of the frame that must show open sky."""
_FIT_PIXELS = 4000
_RIDGE = 1e-5 * np.diag([0.0, 1, 1, 1, 1, 1, 1, 1])
"""Holds the bends of a sky of which little is seen; squared colour units."""


@dataclass(frozen=True)
class PlainSky:
    """color: (H, W, 3) float32, the sky's own colour at every pixel, also where it is hidden.
    key: (H, W) float32, [0, 1], how much of the sky's hue each pixel has.
    trust: (H, W) float32, [0, 1], how far both may be used there.
    """

    color: np.ndarray
    key: np.ndarray
    trust: np.ndarray


def plain_sky(frame: np.ndarray, share: np.ndarray) -> PlainSky | None:
    """The smooth colour of a frame's sky and where to trust it; None for a sky that is not plain.

    Args:
        frame: (H, W, 3) float32, [0, 1]. share: (H, W) float32, [0, 1], of the sky, roughly.
    """
    fitted = _fitted_sky(frame, share > 0.98)
    if fitted is None:
        return None
    color, plain = fitted
    hue, sky_hue = _without_grey(frame), _without_grey(color)
    key = (hue * sky_hue).sum(-1) / np.maximum((sky_hue**2).sum(-1), 1e-6)
    # coded hues are coarser than what is dark
    key = np.minimum(key.clip(0, 1), _largest_share(frame, color)).astype(np.float32)
    return PlainSky(color, key, (plain * _seen_through(key, share)).astype(np.float32))


def _largest_share(frame: np.ndarray, color: np.ndarray) -> np.ndarray:
    """(H, W): s for which frame - s color, the rest of the pixel, still lies in [0, 1 - s]."""
    darkest = (frame / np.maximum(color, 1e-3)).min(-1)
    brightest = ((1 - frame) / np.maximum(1 - color, 1e-3)).min(-1)
    return np.minimum(darkest, brightest).clip(0, 1)


def _without_grey(rgb: np.ndarray) -> np.ndarray:
    grey = (rgb[..., 0] + rgb[..., 1] + rgb[..., 2]) / 3
    return rgb - grey[..., None]


def _fitted_sky(frame: np.ndarray, open_sky: np.ndarray) -> tuple[np.ndarray, float] | None:
    """The colour that a sky has everywhere, and how plain that sky is.

    Returns:
        (H, W, 3) float32 and a number in (0, 1]; None for a sky that is not plain or has no hue.
    """
    if open_sky.mean() < LEAST_OPEN:
        return None
    smooth = smooth_sky(frame, open_sky)
    plain = 1 - _ramp(smooth.off, PLAIN_NOISE)
    plain *= _ramp(smooth.chroma, LEAST_CHROMA)
    return (smooth.color(), plain) if plain > 0 else None


@dataclass(frozen=True)
class SmoothSky:
    """A cubic polynomial of the place, for each of three colours."""

    weights: np.ndarray
    """(8, 3) float64, of `_powers`."""
    off: float
    """Median RGB distance of the open sky's colours from it, colours in [0, 1]."""
    chroma: float
    """Median RGB distance of its colours from grey."""
    shape: tuple[int, int]
    """Height and width of the frame, px."""
    seen: tuple[int, int, int, int]
    """First and last column, first and last row of the open sky, px."""

    def color(self) -> np.ndarray:
        """(H, W, 3) float32, [0, 1]: the sky at every place, also where it is hidden.

        Beyond the open sky a cubic runs away: rows and columns are held at the open sky's ends.
        """
        height, width = self.shape
        at_x = np.linspace(0.5, width - 0.5, _coarse(width)) - 0.5
        at_y = np.linspace(0.5, height - 0.5, _coarse(height)) - 0.5
        left, right, top, bottom = self.seen
        grid_x, grid_y = np.meshgrid(at_x.clip(left, right), at_y.clip(top, bottom))
        rough = _powers(grid_x.ravel() / width, grid_y.ravel() / height) @ self.weights
        rough = rough.reshape(*grid_x.shape, 3).astype(np.float32)
        return _stretched(rough, self.shape).clip(0, 1)


def smooth_sky(frame: np.ndarray, open_sky: np.ndarray) -> SmoothSky:
    """Fit the colours of the open sky by their place.

    Fitted thrice, each time without what lies off the last fit (birds, wisps of cloud).

    Args:
        frame: (H, W, 3) float32, [0, 1]. open_sky: (H, W) bool, somewhere true.
    """
    height, width = open_sky.shape
    y, x = np.nonzero(open_sky)
    step = max(len(x) // _FIT_PIXELS, 1)
    x, y = x[::step], y[::step]
    basis, values = _powers(x / width, y / height), frame[y, x].astype(np.float64)
    weights, off, kept = np.zeros((basis.shape[1], 3)), np.zeros(len(x)), np.ones(len(x), bool)
    for _ in range(3):
        chosen = basis[kept]
        normal = chosen.T @ chosen + len(chosen) * _RIDGE
        weights = np.linalg.solve(normal, chosen.T @ values[kept])
        off = np.linalg.norm(values - basis @ weights, axis=-1)
        kept = off <= max(2.5 * float(np.median(off)), 1e-4)
    chroma = float(np.median(np.linalg.norm(_without_grey(basis @ weights), axis=-1)))
    seen = (int(x.min()), int(x.max()), int(y.min()), int(y.max()))
    return SmoothSky(weights, float(np.median(off)), chroma, (height, width), seen)


def _ramp(value: float, between: tuple[float, float]) -> float:
    low, high = between
    return float(np.clip((value - low) / (high - low), 0, 1))


def _coarse(length: int) -> int:
    """How many places along a side tell a smooth colour."""
    return min(length, max(length // 8, 2))


def _stretched(rough: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) bilinear; the outermost values lie on the outermost pixels' centres."""
    height, width = shape
    x = np.linspace(0, rough.shape[1] - 1, width, dtype=np.float32)
    y = np.linspace(0, rough.shape[0] - 1, height, dtype=np.float32)
    return cv2.remap(rough, *np.meshgrid(x, y), cv2.INTER_LINEAR)


def _powers(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(N, 8) float64: 1, x, y, x^2, x y, y^2, y^3, x^2 y, of places in [0, 1]."""
    x, y = 2.0 * x - 1, 2.0 * y - 1
    return np.stack([np.ones_like(x), x, y, x * x, x * y, y * y, y**3, x * x * y], axis=-1)


def _seen_through(key: np.ndarray, share: np.ndarray) -> np.ndarray:
    """(H, W) float32: where things let the sky through and hang together with open sky.

    Args:
        key: (H, W) float32, [0, 1], how much of the sky's hue a pixel has.
    """
    side = 2 * round(WINDOW_SHARE * key.shape[1] / 2) + 1
    covered = 1 - share  # the open sky beside a wall must not make the wall uneven
    total = np.maximum(cv2.blur(covered, (side, side)), 1e-3)
    mean = cv2.blur(key * covered, (side, side)) / total
    variance = cv2.blur(key * key * covered, (side, side)) / total - mean * mean
    low, high = UNEVEN
    crown = np.clip((np.sqrt(np.maximum(variance, 0)) - low) / (high - low), 0, 1)
    low, high = LEAST_KEY
    crown *= np.clip((mean - low) / (high - low), 0, 1)
    # not the rim of a roof, which is as uneven but thin
    kernel = np.ones((side // 2, side // 2), np.uint8)
    inside = cv2.morphologyEx((crown > 0.2).astype(np.uint8), cv2.MORPH_OPEN, kernel)
    inside = cv2.dilate(inside, kernel[: side // 4, : side // 4]) > 0
    inside |= _small_gaps((key > 0.5) & (share < 0.98), inside)
    inside = cv2.morphologyEx(inside.astype(np.uint8), cv2.MORPH_CLOSE, kernel) > 0
    inside &= share < 0.98
    inside[_lowest_open_row(share) + round(BELOW_OPEN * len(share)) :] = False
    reached = _connected(inside | (share > 0.5), share > 0.98)
    soft = side // 4 | 1
    return cv2.blur((inside & reached).astype(np.float32), (soft, soft)) * (share < 0.98)


def _lowest_open_row(share: np.ndarray) -> int:
    """The last row of which at least a hundredth is open sky."""
    rows = np.flatnonzero((share > 0.98).mean(1) > 0.01)
    return int(rows[-1]) if len(rows) else 0


def _small_gaps(alike: np.ndarray, crown: np.ndarray) -> np.ndarray:
    """(H, W) bool: patches of sky colour that touch a crown and are no larger than a gap in one."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(alike.astype(np.uint8))
    labels = np.asarray(labels, np.intp)
    touched = np.zeros(count, bool)
    touched[np.unique(labels[crown & alike])] = True
    good = touched & (stats[:, cv2.CC_STAT_AREA] <= MOST_GAP * alike.size)
    good[0] = False
    return good[labels]


def _connected(where: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """(H, W) bool: the parts of `where` that hold a seed."""
    labels = np.asarray(cv2.connectedComponents(where.astype(np.uint8))[1], np.intp)
    good = np.unique(labels[seeds & where])
    return np.isin(labels, good[good > 0])
