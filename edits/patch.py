"""Paint that covers only a part of a layer's canvas, at a resolution of its own."""

from __future__ import annotations

import cv2
import numpy as np

from atlas.coords import Size
from edits.mipmap import Pyramid
from edits.view import Region

MARGIN_TEXELS = 2.0


class PatchPaint:
    """A picture on a rectangle of the canvas; no paint beyond it.

    Args:
        region: the rectangle, canvas texels. rgba: (h, w, 4) float32, premultiplied.
    """

    takes_shading = True
    opaque = False

    def __init__(self, region: Region, rgba: np.ndarray, blend: str = "normal"):
        self.blend = blend
        self.region = region
        self.rgba = rgba
        self._pyramid = Pyramid(rgba, cv2.BORDER_CONSTANT)

    def place(self, view: object) -> PatchPaint:
        return self

    def sample(self, uv: np.ndarray, time_s: float) -> np.ndarray:
        out = np.zeros((*uv.shape[:2], 4), np.float32)
        box = pixels_within(uv, self.region)
        if box is not None:
            at = to_patch(uv[box], self.region, self._pyramid.size)
            out[box] = self._pyramid.sample(at)
        return out


def to_patch(uv: np.ndarray, region: Region, size: Size) -> np.ndarray:
    """(H, W, 2) float32: canvas texels as positions on a picture of `size` that fills `region`."""
    sx, sy = size.width / region.width, size.height / region.height
    affine = np.array([[sx, 0, -region.left * sx - 0.5], [0, sy, -region.top * sy - 0.5]])
    return cv2.transform(uv, affine)


def from_patch(at: np.ndarray, region: Region, size: Size) -> np.ndarray:
    """Inverse of `to_patch`."""
    sx, sy = region.width / size.width, region.height / size.height
    x, y = region.left + 0.5 * sx, region.top + 0.5 * sy
    return cv2.transform(at, np.array([[sx, 0, x], [0, sy, y]]))


def pixels_within(uv: np.ndarray, region: Region) -> tuple[slice, slice] | None:
    """Rows and columns of the frame that hold every pixel that looks into `region`.

    Args:
        uv: (H, W, 2) float32; positions that are not finite look nowhere.
    """
    low = np.array([region.left, region.top]) - MARGIN_TEXELS
    high = np.array([region.right, region.bottom]) + MARGIN_TEXELS
    inside = cv2.inRange(uv, (*low, 0, 0), (*high, 0, 0))
    x, y, width, height = cv2.boundingRect(inside)
    if width == 0:
        return None
    return slice(y, y + height), slice(x, x + width)
