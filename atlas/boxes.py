"""The part of a frame that a layer takes up: work on an object costs what the object covers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from atlas.coords import Size, pixel_grid
from atlas.store import ClipStore

SMALLEST_PX = 64
"""No side of a box is shorter, as far as the frame allows: optical flow needs a pyramid."""


@dataclass(frozen=True)
class Box:
    """A rectangle of pixels: rows top .. bottom - 1, columns left .. right - 1."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def cut(self) -> tuple[slice, slice]:
        """Index of the box in arrays (H, W, ...)."""
        return slice(self.top, self.bottom), slice(self.left, self.right)


def box_about(where: np.ndarray, margin_px: int) -> Box | None:
    """The smallest box about the true pixels of (H, W), grown by a margin; None where none is."""
    rows, columns = np.flatnonzero(where.any(1)), np.flatnonzero(where.any(0))
    if not len(rows):
        return None
    top, bottom = _span(rows, margin_px, where.shape[0])
    left, right = _span(columns, margin_px, where.shape[1])
    return Box(top, left, bottom, right)


def _span(found: np.ndarray, margin_px: int, length: int) -> tuple[int, int]:
    short = max(0, SMALLEST_PX - (int(found[-1]) + 1 - int(found[0]) + 2 * margin_px))
    low = max(int(found[0]) - margin_px - (short + 1) // 2, 0)
    high = min(max(int(found[-1]) + 1 + margin_px + short // 2, low + SMALLEST_PX), length)
    return max(min(low, high - SMALLEST_PX), 0), high


class LayerBoxes:
    """Boxes about one layer in every frame of a store, and the positions of their pixels."""

    def __init__(self, store: ClipStore, layer: int, fitted: Size, margin_px: int):
        """
        Args:
            fitted: the size that positions are given for. margin_px: in pixels of the store.
        """
        self.store, self.layer, self.margin_px = store, layer, margin_px
        self.positions = pixel_grid(fitted, store.size)
        self._boxes: dict[int, Box | None] = {}

    def __getitem__(self, t: int) -> Box | None:
        """None where frame `t` shows nothing of the layer."""
        if t not in self._boxes:
            share = self.store.share(self.layer, t)
            shown = (share > 0.5).any()
            self._boxes[t] = box_about(share > 0.05, self.margin_px) if shown else None
        return self._boxes[t]

    def at(self, box: Box) -> np.ndarray:
        """(h, w, 2) float32: the box's pixel centres, in pixels of the fitted size."""
        return np.ascontiguousarray(self.positions[box.cut])
