"""Sample a texture through positions without aliasing: a mip pyramid read at the right level.

Williams 1983, "Pyramidal Parametrics"; the level follows from how many texels one pixel spans.
"""

from __future__ import annotations

import threading
from typing import Any

import cv2
import numpy as np

from atlas.coords import Size, resize_positions

LEVEL_BIAS = -0.25
"""Added to the level: bilinear sampling itself averages up to about 1.2 texels."""
_STEP_PX = 8
_UNIFORM_LEVELS = 0.25
_FARTHEST = 64
"""Positions are cut off at so many lengths of the texture from its origin."""


class Pyramid:
    """A texture and its halvings, made when first needed.

    Args:
        texels: (H, W, C) float32 or uint8, C = 3 or 4 (which is faster); premultiplied.
        border: OpenCV border mode beyond the texture; `cv2.BORDER_CONSTANT` means 0.
    """

    def __init__(self, texels: np.ndarray, border: int = cv2.BORDER_REFLECT):
        if texels.ndim != 3 or texels.shape[2] not in (3, 4):
            raise ValueError(f"texels must be (H, W, 3 or 4), got {texels.shape}")
        self.size = Size(*texels.shape[:2])
        self._levels = [np.ascontiguousarray(texels)]
        self._border = border
        self._growing = threading.Lock()

    def level(self, number: int) -> np.ndarray:
        """The texture halved `number` times by area averaging; at least 1 texel on each side."""
        with self._growing:  # frames are rendered by several threads
            while len(self._levels) <= number:
                height, width = self._levels[-1].shape[:2]
                half = (max(1, (width + 1) // 2), max(1, (height + 1) // 2))
                coarser = cv2.resize(self._levels[-1], half, interpolation=cv2.INTER_AREA)
                self._levels.append(coarser)
        return self._levels[number]

    @property
    def coarsest(self) -> int:
        """The highest level number that says anything: there a side is 1 texel."""
        return int(np.log2(max(1, min(self.size.wh))))

    def sample(self, xy: np.ndarray) -> np.ndarray:
        """Colours at positions.

        Args:
            xy: (H, W, 2) float32, texel positions on this texture, (x, y) order, origin at the
                centre of the top-left texel; neighbours in the array are neighbours in the frame.
                Positions that are not finite give the border's colour.
        Returns:
            (H, W, C) of the texture's own type.
        """
        # OpenCV mirrors a far position step by step: minutes for one at 1e9.
        reach = _FARTHEST * max(self.size.wh)
        if not cv2.checkRange(xy, True, -reach, reach)[0]:
            xy = np.nan_to_num(xy, nan=-reach).clip(-reach, reach)
        top = self.coarsest
        wanted = np.clip(levels_of(xy) + LEVEL_BIAS, 0, top)
        low, high = float(wanted.min()), float(wanted.max())
        if high - low < _UNIFORM_LEVELS:
            return self._between(xy, float(np.median(wanted)))
        smooth = cv2.resize(wanted, xy.shape[1::-1], interpolation=cv2.INTER_LINEAR)
        channels = self._levels[0].shape[2]
        out = np.zeros((*xy.shape[:2], channels), np.float32)
        for number in range(int(np.floor(low)), int(np.ceil(high)) + 1):
            weight = np.maximum(0, 1 - np.abs(smooth - number))
            out += cv2.merge([weight] * channels) * self._remap(xy, number)
        if self._levels[0].dtype == np.uint8:
            return np.rint(out).astype(np.uint8)
        return out

    def _between(self, xy: np.ndarray, wanted: float) -> np.ndarray:
        number = int(wanted)
        share = wanted - number
        fine = self._remap(xy, number)
        if share < 0.02:
            return fine
        return cv2.addWeighted(fine, 1 - share, self._remap(xy, number + 1), share, 0)

    def _remap(self, xy: np.ndarray, number: int) -> np.ndarray:
        texels = self.level(number)
        if number:
            xy = resize_positions(xy, self.size, Size(*texels.shape[:2]))
        positions = xy.astype(np.float32, copy=False)
        none: Any = None  # the stubs want a second map; an empty one reads past its end
        return cv2.remap(texels, positions, none, cv2.INTER_LINEAR, borderMode=self._border)


def levels_of(xy: np.ndarray) -> np.ndarray:
    """log2 of the texels that one pixel spans: root mean square of the Jacobian's columns.

    Args:
        xy: (H, W, 2) float, positions; at least one pixel.
    Returns:
        (H', W') float32 on a coarse grid over the same picture; 0 where one pixel is one texel,
        negative where the texture is magnified.
    """
    height, width = xy.shape[:2]
    step_x, step_y = min(_STEP_PX, max(width - 1, 1)), min(_STEP_PX, max(height - 1, 1))
    points = xy[::step_y, ::step_x].astype(np.float32)
    squared = np.zeros((max(points.shape[0] - 1, 1), max(points.shape[1] - 1, 1)), np.float32)
    axes = 0
    if points.shape[1] > 1:
        span = np.diff(points, axis=1) / step_x
        squared += (span**2).sum(-1)[: squared.shape[0]]
        axes += 1
    if points.shape[0] > 1:
        span = np.diff(points, axis=0) / step_y
        squared += (span**2).sum(-1)[:, : squared.shape[1]]
        axes += 1
    if axes == 0:
        return np.zeros((1, 1), np.float32)
    return 0.5 * np.log2(np.maximum(squared / axes, 1e-12))
