"""Conversions between pixel, unit, time and texel coordinates; they exist nowhere else.

Pixel positions: (x, y), origin at the centre of the top-left pixel, x right, y down. This is the
convention of `cv2.remap`, optical flow arrays and homographies throughout the project.
Texel positions: the same convention on a layer's canvas.
Unit positions: the square on which coordinate networks work, [-1, 1].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

if TYPE_CHECKING:  # torch takes seconds to import, and most commands need none of it
    from torch import Tensor

Array = TypeVar("Array", bound=Any)
"""A numpy array or a torch tensor; what comes out is what went in."""


@dataclass(frozen=True)
class Size:
    """Height and width in pixels (or texels); both at least 1."""

    height: int
    width: int

    def __post_init__(self) -> None:
        if not self.height >= 1:
            raise ValueError(f"height must be >= 1, got {self.height}")
        if not self.width >= 1:
            raise ValueError(f"width must be >= 1, got {self.width}")

    @property
    def wh(self) -> tuple[int, int]:
        """(width, height), the order OpenCV wants."""
        return (self.width, self.height)

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


def pixel_to_unit(xy_px: Array, size: Size) -> Array:
    """Map pixel positions into the square on which the fields are fitted.

    Convention: (x, y) order, origin at the centre of the top-left pixel, y down.
    Both axes share one scale: the longer side spans [-1, 1] and shapes keep their
    aspect. Inverse: `unit_to_pixel`.

    Args:
        xy_px: (..., 2) float, pixels.
        size: frame height and width, pixels; the longer side is at least 2.
    Returns:
        (..., 2) float, unit coordinates.
    """
    _check_pairs(xy_px, "xy_px")
    return xy_px * (2 / _span_px(size)) - 1


def unit_to_pixel(xy_unit: Array, size: Size) -> Array:
    """Inverse of `pixel_to_unit`: (..., 2) unit coordinates to (..., 2) pixels."""
    _check_pairs(xy_unit, "xy_unit")
    return (xy_unit + 1) * (_span_px(size) / 2)


def frame_to_unit(t: Array, frame_count: int) -> Array:
    """Map frame indices 0 .. frame_count - 1 to [-1, 1]; a single frame maps to -1."""
    if frame_count < 1:
        raise ValueError(f"frame_count must be >= 1, got {frame_count}")
    return t * (2 / max(frame_count - 1, 1)) - 1


def resize_positions(xy_px: Array, source: Size, target: Size) -> Array:
    """Carry pixel positions from a picture of one size to the same picture at another.

    Pixel areas, not centres, are scaled (the rule of `cv2.resize`): the picture's outer edges
    coincide. x and y scale on their own, since sizes are whole numbers.

    Args:
        xy_px: (..., 2) float, positions in the picture of size `source`, pixels.
    Returns:
        (..., 2) float, the same spots in the picture of size `target`, pixels.
    """
    _check_pairs(xy_px, "xy_px")
    sx, sy = target.width / source.width, target.height / source.height
    out = xy_px * 1.0
    out[..., 0] = (xy_px[..., 0] + 0.5) * sx - 0.5
    out[..., 1] = (xy_px[..., 1] + 0.5) * sy - 0.5
    return out


def resize_matrix(source: Size, target: Size) -> np.ndarray:
    """(3, 3) float64: `resize_positions` from `source` to `target` as a matrix on (x, y, 1)."""
    sx, sy = target.width / source.width, target.height / source.height
    return np.array([[sx, 0, 0.5 * sx - 0.5], [0, sy, 0.5 * sy - 0.5], [0, 0, 1]], np.float64)


def pixel_to_st(xy_px: np.ndarray, size: Size) -> np.ndarray:
    """Map pixel (or texel) positions to the ST coordinates of compositing programs.

    Convention: s = (x + 0.5) / width, t = 1 - (y + 0.5) / height: the picture's outer edges are 0
    and 1, t goes up from the bottom edge. Inverse: `st_to_pixel`.

    Args:
        xy_px: (..., 2) float, pixels.
    Returns:
        (..., 2) float32, dimensionless.
    """
    _check_pairs(xy_px, "xy_px")
    x, y = np.asarray(xy_px[..., 0], np.float64), np.asarray(xy_px[..., 1], np.float64)
    st = np.stack([(x + 0.5) / size.width, 1 - (y + 0.5) / size.height], axis=-1)
    return st.astype(np.float32)


def st_to_pixel(st: np.ndarray, size: Size) -> np.ndarray:
    """Inverse of `pixel_to_st`: (..., 2) ST coordinates to (..., 2) float32 pixels."""
    _check_pairs(st, "st")
    s, t = np.asarray(st[..., 0], np.float64), np.asarray(st[..., 1], np.float64)
    xy = np.stack([s * size.width - 0.5, (1 - t) * size.height - 0.5], axis=-1)
    return xy.astype(np.float32)


def pixel_grid(size: Size, view: Size | None = None) -> np.ndarray:
    """(H, W, 2) float32: the position of every pixel of a `size` picture, in (x, y) order.

    With `view`, the pixel centres of a picture of size `view` showing the same thing, given in
    pixels of `size` (so the result is (view.height, view.width, 2)).
    """
    view = view or size
    x = (np.arange(view.width, dtype=np.float32) + 0.5) * (size.width / view.width) - 0.5
    y = (np.arange(view.height, dtype=np.float32) + 0.5) * (size.height / view.height) - 0.5
    return np.stack(np.meshgrid(x, y), axis=-1)


def apply_homography(matrix: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """Apply a (3, 3) homography to (..., 2) positions; the result has the shape of `xy`.

    Positions that the homography sends to or behind infinity (w <= 0) come back as nan.
    """
    _check_pairs(xy, "xy")
    m = np.asarray(matrix, np.float64)
    x, y = xy[..., 0], xy[..., 1]
    w = m[2, 0] * x + m[2, 1] * y + m[2, 2]
    w = np.where(w > 1e-12, w, np.nan)
    u = (m[0, 0] * x + m[0, 1] * y + m[0, 2]) / w
    v = (m[1, 0] * x + m[1, 1] * y + m[1, 2]) / w
    return np.stack([u, v], axis=-1).astype(xy.dtype if xy.dtype.kind == "f" else np.float64)


def folded(points: np.ndarray) -> np.ndarray:
    """(N, 2) as (K, 256, 2), the last one repeated: OpenCV wants pictures, below 2^15 a side."""
    missing = -len(points) % 256
    return np.pad(points, ((0, missing), (0, 0)), mode="edge").reshape(-1, 256, 2)


def _span_px(size: Size) -> int:
    span = max(size.height, size.width) - 1
    if span < 1:
        raise ValueError(f"the longer side must be >= 2 pixels, got {size}")
    return span


def _check_pairs(values: np.ndarray | Tensor, name: str) -> None:
    if values.shape[-1] != 2:
        raise ValueError(f"{name} must end in a dimension of 2, got {tuple(values.shape)}")
