"""A small exact LayerMapping for tests of edits: two layers, each moved by an affine map."""

from __future__ import annotations

import numpy as np

from atlas.coords import Size, pixel_grid, resize_positions
from atlas.mapping import FrameMapping, Layer, LayerMapping


class AffineMapping(LayerMapping):
    """uv = scale * xy + offset + step * t, per layer; the foreground's alpha is given.

    alpha: (H, W) float32, the foreground's opacity, the same in every frame.
    """

    def __init__(self, alpha: np.ndarray, canvas: Size, frame_count: int = 3):
        self.frame_size = Size(*alpha.shape)
        self.frame_count = frame_count
        self.layers = (Layer("foreground", self.frame_size), Layer("sky", canvas))
        self.offset = np.array([0.0, 0.0], np.float32)
        self.step = np.array([2.0, 1.0], np.float32)
        self.observed: list[int] = []
        self._alpha = alpha.astype(np.float32)

    def observe(self, t: int, rgb: np.ndarray) -> None:
        self.observed.append(t)

    def frame(self, t: int, size: Size | None = None) -> FrameMapping:
        size = size or self.frame_size
        xy = pixel_grid(self.frame_size, size)
        alpha = self._alpha
        if size != self.frame_size:
            nearest = np.rint(resize_positions(pixel_grid(size), size, self.frame_size)).astype(int)
            column = nearest[..., 0].clip(0, self.frame_size.width - 1)
            row = nearest[..., 1].clip(0, self.frame_size.height - 1)
            alpha = alpha[row, column]
        uv = np.stack([xy, xy + self.offset + self.step * t]).astype(np.float32)
        alphas = np.stack([alpha, np.ones_like(alpha)]).astype(np.float32)
        return FrameMapping(uv, alphas, np.ones(2, np.float32))
