"""A flat sky bent round the viewer where a pan leaves its plane, so that nothing is stretched.

A plane before the camera shows ever more of itself the further the camera turns: 4 times as much a
degree at 60 degrees, without end at 90. So the plane goes only to `FLAT_DEG` from where the first
frame looks; from there on equal angles take equal lengths, all the way round.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

FLAT_DEG = 35.0
"""About half the view of a phone: the first frame sees a plane."""
_FLAT = math.radians(FLAT_DEG)
_PLAIN = 1 / math.cos(_FLAT) ** 2


@dataclass(frozen=True)
class Bend:
    """centre: canvas texels straight ahead in the first frame. focal: of the camera, texels.

    period: texels after which the sky repeats sideways; None where it does not.
    """

    centre: tuple[float, float]
    focal: float
    period: float | None = None

    @cached_property
    def slope(self) -> float:
        """Length of an angle of 1 beyond `FLAT_DEG`: the tangent's there, or near it, so that a
        whole turn is a whole number of periods."""
        if self.period is None:
            return _PLAIN
        turn = 2 * self.focal * (math.tan(_FLAT) + (math.pi - _FLAT) * _PLAIN)
        whole = max(1, round(turn / self.period)) * self.period
        slope = (whole / (2 * self.focal) - math.tan(_FLAT)) / (math.pi - _FLAT)
        return slope if _PLAIN / 2 < slope < 2 * _PLAIN else _PLAIN

    def of_canvas(self, uv: np.ndarray) -> np.ndarray:
        """(..., 2) canvas texels to texels of the bent sky; near the centre they stay."""
        ahead = (uv - np.asarray(self.centre, uv.dtype)) / self.focal
        if not uv.size or np.abs(ahead).max() <= math.tan(_FLAT):
            return uv
        return self._bent(ahead[..., 0], ahead[..., 1], np.ones_like(ahead[..., 0]))

    def of_frame(self, homography: np.ndarray, xy_px: np.ndarray) -> np.ndarray:
        """(..., 2) pixels of a frame to texels of the bent sky, also of what lies behind.

        Args:
            homography: (3, 3), pixels to canvas texels; its third row is depth, > 0 ahead.
        """
        return self._bent(*self._rays(homography, xy_px))

    def needed(self, homography: np.ndarray, xy_px: np.ndarray) -> bool:
        """Whether any of these pixels looks beyond the plane."""
        x, y, z = self._rays(homography, xy_px)
        return bool((np.maximum(np.abs(x), np.abs(y)) > math.tan(_FLAT) * z).any())

    def _rays(self, homography: np.ndarray, xy_px: np.ndarray) -> tuple[np.ndarray, ...]:
        across, down, depth = np.moveaxis(xy_px @ homography[:, :2].T + homography[:, 2], -1, 0)
        x, y = self.centre
        return (across - x * depth) / self.focal, (down - y * depth) / self.focal, depth

    def _bent(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        yaw = np.arctan2(x, z)
        if yaw.ndim == 2:  # a grid: neighbours lie side by side also straight behind
            yaw = np.unwrap(yaw, axis=1)
            yaw += np.unwrap(yaw[:, :1], axis=0) - yaw[:, :1]
        pitch = np.arctan2(y, np.hypot(x, z))
        down = _length(pitch, _PLAIN) / np.cos(np.minimum(np.abs(yaw), _FLAT))
        bent = np.stack([_length(yaw, self.slope), down], axis=-1) * self.focal
        return (bent + np.asarray(self.centre)).astype(np.result_type(x.dtype, np.float32))


def _length(angle: np.ndarray, slope: float) -> np.ndarray:
    """Its tangent up to `FLAT_DEG`, from there on a straight line."""
    size = np.abs(angle)
    far = math.tan(_FLAT) + (size - _FLAT) * slope
    return np.copysign(np.where(size <= _FLAT, np.tan(np.minimum(size, _FLAT)), far), angle)
