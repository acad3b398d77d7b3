"""Where a clip looks on a canvas: rectangles that pictures are fitted to."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from atlas.mapping import FrameMapping
from atlas.wide_canvas import Roll

USUAL_VIEW_DEG = 65.0
"""Field of view of phones and dashcams, along the longer side."""
PAN_ROOM = 0.3
"""How far a camera is expected to turn to either side where only its first frame is known."""


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
    focal: focal length of the camera in texels, which looks straight at the canvas in the first
        frame; None where it is not known.
    """

    seen: Region
    first_frame: Region
    focal: float | None = None
    certain: bool = True
    """Whether `seen` is measured; False where it is expected from the first frame."""
    roll: Roll | None = None
    """How the canvas is rolled out from a cylinder round the camera; None for a flat one."""

    def focal_at(self, field_of_view_deg: float | None) -> float:
        """Focal length in texels: of that horizontal angle over the first frame, else the
        camera's, else of `USUAL_VIEW_DEG` along the first frame's longer side."""
        first = self.first_frame
        if field_of_view_deg is not None:
            return first.width / 2 / math.tan(math.radians(field_of_view_deg) / 2)
        if self.focal is not None:
            return self.focal
        if self.roll is not None:
            return self.roll.focal
        return max(first.width, first.height) / 2 / math.tan(math.radians(USUAL_VIEW_DEG) / 2)


def canvas_view(
    first: FrameMapping,
    layer: int,
    coverage: np.ndarray | None,
    focal: float | None = None,
    roll: Roll | None = None,
) -> CanvasView:
    """Where a clip looks on the canvas of one layer.

    Args:
        first: the mapping of the first frame.
        coverage: (H, W) float, what the whole clip has seen of the canvas; None where only the
            first frame is known (streaming).
        focal: of the camera, texels, where it is known. roll: of the layer's canvas.
    """
    frame = frame_region(first.uv[layer])
    seen = None if coverage is None else seen_region(coverage)
    if seen is not None:
        return CanvasView(seen, frame, focal, roll=roll)
    seen = expected_region(first.uv[layer], first.visible()[layer])
    return CanvasView(seen, frame, focal, certain=False, roll=roll)


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


def expected_region(uv: np.ndarray, share: np.ndarray) -> Region:
    """What a clip is likely to see of a canvas, from its first frame alone.

    Rows from the frame's top to the lowest that shows the layer; columns with room for a pan of
    `PAN_ROOM` frame widths to either side.

    Args:
        uv: (H, W, 2) float, texels. share: (H, W) float, [0, 1], of the layer.
    """
    frame = frame_region(uv)
    in_row = (share > 0.5).sum(1)
    bottom = frame.bottom
    if in_row.any():
        low = int(np.flatnonzero(in_row > 0.05 * in_row.max())[-1])
        bottom = frame.top + (low + 1) / len(share) * frame.height
    room = PAN_ROOM * frame.width
    return Region(frame.left - room, frame.top, frame.right + room, bottom)


def _outer_edges(along: np.ndarray) -> tuple[float, float]:
    """Lowest and highest edge of a line of pixels whose centres lie at `along`."""
    finite = along[np.isfinite(along)].astype(np.float64)
    if finite.size == 0:
        raise ValueError("the first frame has no position on the canvas")
    low, high = sorted((finite[0], finite[-1]))
    half = (high - low) / (finite.size - 1) / 2 if finite.size > 1 else 0.5
    half = half or 0.5
    return float(low - half), float(high + half)
