"""Where a clip looks on a canvas: rectangles that pictures are fitted to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Region:
    """A rectangle on a canvas, by its outer edges; texel i spans [i - 0.5, i + 0.5]."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def width(self) -> float:
        return self.right - self.left

    @property
    def height(self) -> float:
        return self.bottom - self.top

    @property
    def centre(self) -> tuple[float, float]:
        return (self.left + self.right) / 2, (self.top + self.bottom) / 2


@dataclass(frozen=True)
class CanvasView:
    """Where a clip looks on a layer's canvas.

    seen: what all of it sees. first_frame: what its first frame spans.
    """

    seen: Region
    first_frame: Region


def seen_region(coverage: np.ndarray) -> Region | None:
    """The rectangle that holds what a clip has seen of a canvas; None when it saw nothing.

    Rows and columns that hold next to nothing (stray texels) do not count.

    Args:
        coverage: (H, W) float, [0, 1].
    """
    seen = coverage > 0.5
    in_row, in_column = seen.sum(1), seen.sum(0)
    if not in_row.any():
        return None
    rows = np.flatnonzero(in_row > 0.05 * in_row.max())
    columns = np.flatnonzero(in_column > 0.05 * in_column.max())
    return Region(columns[0] - 0.5, rows[0] - 0.5, columns[-1] + 0.5, rows[-1] + 0.5)


def frame_region(uv: np.ndarray) -> Region:
    """The upright rectangle on the canvas that a frame spans, measured along its middle lines.

    Args:
        uv: (H, W, 2) float, texels.
    """
    height, width = uv.shape[:2]
    left, right = _outer_edges(uv[height // 2, :, 0])
    top, bottom = _outer_edges(uv[:, width // 2, 1])
    return Region(left, top, right, bottom)


def _outer_edges(along: np.ndarray) -> tuple[float, float]:
    """Lowest and highest edge of a line of pixels whose centres lie at `along`."""
    finite = along[np.isfinite(along)].astype(np.float64)
    if finite.size == 0:
        raise ValueError("the first frame has no position on the canvas")
    low, high = sorted((finite[0], finite[-1]))
    half = (high - low) / (finite.size - 1) / 2 if finite.size > 1 else 0.5
    half = half or 0.5
    return float(low - half), float(high + half)
