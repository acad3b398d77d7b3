"""Focal length from a turning camera: of all focal lengths, the one whose rotation fits best.

Under rotation, pixels off the middle move more than those in it by (x / f)^2; which f that is shows
as soon as views some degrees apart are matched over the picture's width.
"""

from __future__ import annotations

import numpy as np

from preprocess.rotation import fit_rotation, rays

_COARSE = np.exp(np.linspace(np.log(0.55), np.log(3.0), 15))
_FINE = np.exp(np.linspace(-0.12, 0.12, 9))


class FocalSearch:
    """Collects the cost of each focal length of a ladder over matched views.

    The first ladder is wide; once it tells, a narrow one is set round its best rung.
    """

    def __init__(self, least_turn: float = 0.06, least_views: int = 5):
        """`least_turn`: views nearer than this say nothing, as a share of the picture's width."""
        self._least_turn = least_turn
        self._least_views = least_views
        self._ladder_px = np.empty(0)
        self._cost = np.empty(0)
        self._views = 0
        self._coarse_px: float | None = None

    def _climb(self, ladder_px: np.ndarray) -> None:
        self._ladder_px, self._cost, self._views = ladder_px, np.zeros(len(ladder_px)), 0

    def add(
        self, source_px: np.ndarray, target_px: np.ndarray, weight: np.ndarray, camera: np.ndarray
    ) -> None:
        """Take in matches (N, 2) px between two views of a camera K, with their weights (N,)."""
        width, height = 2 * camera[0, 2] + 1, 2 * camera[1, 2] + 1
        moved = np.linalg.norm(np.median(source_px - target_px, axis=0))
        reach = np.ptp(source_px[:, 0]) / width + np.ptp(source_px[:, 1]) / height
        if len(source_px) < 20 or moved < self._least_turn * width or reach < 0.8:
            return
        if not len(self._ladder_px):
            self._climb(_COARSE * camera[0, 0])
        costs = [_cost(source_px, target_px, weight, camera, f) for f in self._ladder_px]
        self._cost = 0.98 * self._cost + np.array(costs)
        self._views += 1
        if self._views < self._least_views:
            return
        i = int(self._cost.argmin())
        inside = 0 < i < len(self._cost) - 1
        if self._coarse_px is None:
            clear = min(self._cost[0], self._cost[-1]) > 1.2 * self._cost[i]
            if inside and clear:
                self._coarse_px = float(self._ladder_px[i])
                self._climb(_FINE * self._coarse_px)
        elif not inside:  # the best lies beyond the narrow ladder: move it there
            self._coarse_px = float(self._ladder_px[i])
            self._climb(_FINE * self._coarse_px)

    def best_px(self) -> float | None:
        """The focal length that fits best, pixels; None while the views do not tell."""
        if self._coarse_px is None or self._views < self._least_views:
            return None
        i = int(np.clip(self._cost.argmin(), 1, len(self._cost) - 2))
        left, middle, right = self._cost[i - 1 : i + 2]
        shift = 0.5 * (left - right) / max(left - 2 * middle + right, 1e-12)
        step = np.log(self._ladder_px[1] / self._ladder_px[0])
        return float(self._ladder_px[i] * np.exp(step * np.clip(shift, -1, 1)))


def _cost(
    source_px: np.ndarray,
    target_px: np.ndarray,
    weight: np.ndarray,
    camera: np.ndarray,
    focal_px: float,
) -> float:
    """Mean squared error, px^2, capped at 9, of the best rotation with this focal length."""
    trial = camera.copy()
    trial[0, 0] = trial[1, 1] = focal_px
    a, b = rays(source_px, trial), rays(target_px, trial)
    pull = weight
    for _ in range(3):
        rotation = fit_rotation(a, b, pull)
        moved = a @ rotation.T
        with np.errstate(divide="ignore"):
            xy = moved[:, :2] / np.maximum(moved[:, 2:], 1e-6) * focal_px + camera[:2, 2]
        error = np.linalg.norm(xy - target_px, axis=1)
        pull = weight / (1 + error**2)
    return float((weight * np.minimum(error, 3) ** 2).sum() / weight.sum())
