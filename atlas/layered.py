"""The default neural atlas as a LayerMapping: homographies, a residual on a lattice, mattes.

A pixel x of frame t lies in layer l at uv = H_lt x + r_l(x, t): a base homography plus a smooth
residual that is known on a lattice of the frame and interpolated between its points.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from atlas.coords import Size, apply_homography, pixel_grid
from atlas.guided import guided_upsample
from atlas.mapping import FrameMapping, Layer, LayerMapping
from atlas.wide_canvas import Roll


@dataclass
class LayerMotion:
    """One layer's motion over the clip.

    matrices: (T, 3, 3) float64, frame pixels -> canvas texels; where there is a roll, -> rays.
    residual: (T, h, w, 2) float32, texels to add, at frame pixels (j * stride_px, i * stride_px);
        None for a layer that moves by its homographies alone.
    confidence: (T,) float32 in [0, 1].
    roll: how a canvas is rolled out from a cylinder; None for a flat one.
    """

    name: str
    canvas: Size
    matrices: np.ndarray
    residual: np.ndarray | None
    stride_px: int
    confidence: np.ndarray
    roll: Roll | None = None

    def uv(self, t: int, size: Size, view: Size | None = None) -> np.ndarray:
        """(H, W, 2) float32 texels of every pixel of a `view` picture of frame `t` (`size` px)."""
        if self.roll is not None:
            uv = self.roll.map(t, self.matrices[t], size, view)
        else:
            uv = homography_map(self.matrices[t], size, view)
        if self.residual is not None:
            uv += sample_lattice(self.residual[t], self.stride_px, size, view)
        return uv

    def uv_at(self, t: int, xy: np.ndarray) -> np.ndarray:
        """(H, W, 2) float32 texels of any positions (H, W, 2) float32, pixels of the fit's size."""
        corners = np.array([[f(xy[..., i]) for i, f in enumerate(p)] for p in _CORNERS])
        if self.roll is not None:
            one = np.ones_like(xy[..., :1])
            uv = self.roll.uv(t, np.concatenate([xy, one], -1) @ self.matrices[t].T)
        elif np.isfinite(apply_homography(self.matrices[t], corners)).all():
            uv = cv2.perspectiveTransform(xy, self.matrices[t])
        else:
            uv = apply_homography(self.matrices[t], xy)
        if self.residual is not None:
            at = xy * np.float32(1 / self.stride_px)
            uv += cv2.remap(
                self.residual[t], at, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
            )
        return uv


_CORNERS = ((np.min, np.min), (np.min, np.max), (np.max, np.min), (np.max, np.max))


def lattice_shape(size: Size, stride_px: int) -> tuple[int, int]:
    """(h, w): lattice points at multiples of the stride that span a frame of `size`."""
    return -(-(size.height - 1) // stride_px) + 1, -(-(size.width - 1) // stride_px) + 1


def homography_map(matrix: np.ndarray, size: Size, view: Size | None = None) -> np.ndarray:
    """(H, W, 2) float32: where a homography of frame pixels sends every pixel of the view.

    nan where the homography sends a pixel to or behind infinity.
    """
    grid = pixel_grid(size, view)
    corners = grid[:: max(len(grid) - 1, 1), :: max(grid.shape[1] - 1, 1)]
    if not np.isfinite(apply_homography(matrix, corners)).all():
        return apply_homography(matrix, grid)
    if abs(matrix[2, 0]) < 1e-12 and abs(matrix[2, 1]) < 1e-12:
        return cv2.transform(grid, (matrix[:2] / matrix[2, 2]).astype(np.float64))
    return cv2.perspectiveTransform(grid, matrix)


def sample_lattice(
    lattice: np.ndarray, stride_px: int, size: Size, view: Size | None = None
) -> np.ndarray:
    """Bilinear samples (H, W, C) float32 of an (h, w, C) lattice at every pixel of the view."""
    view = view or size
    sx, sy = size.width / view.width, size.height / view.height
    to_lattice = np.array(
        [
            [sx / stride_px, 0, (0.5 * sx - 0.5) / stride_px],
            [0, sy / stride_px, (0.5 * sy - 0.5) / stride_px],
        ]
    )
    return cv2.warpAffine(
        lattice,
        to_lattice,
        view.wh,
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )


FINER = 1.25
"""A view this much wider than the fit gets its mattes' edges from the frame itself."""
GUIDE_RADIUS_PX = 3
GUIDE_EPS = 1e-4


class LayeredMapping(LayerMapping):
    """Homographies plus lattice residuals; opacity from `alpha`.

    Views finer than the fit: where the frame was shown to `observe`, soft edges are enlarged along
    the frame's own by a guided filter (`atlas.guided`), else bilinearly.
    """

    def __init__(self, size: Size, motions: list[LayerMotion], alpha: Callable[[int], np.ndarray]):
        """
        Args:
            alpha: t -> (L, H, W) float32 at `size`, the layers' own opacities, top to bottom.
        """
        self.frame_size = size
        self.frame_count = len(motions[0].matrices)
        self.layers = tuple(Layer(m.name, m.canvas, m.roll) for m in motions)
        self.motions = motions
        self._alpha = alpha
        self._shown = threading.local()

    in_any_order = True

    def observe(self, t: int, rgb: np.ndarray) -> None:
        self._shown.frame = (t, rgb)

    def frame(self, t: int, size: Size | None = None) -> FrameMapping:
        if not 0 <= t < self.frame_count:
            raise ValueError(f"t must be in 0..{self.frame_count - 1}, got {t}")
        view = size or self.frame_size
        uv = np.stack([m.uv(t, self.frame_size, view) for m in self.motions])
        alpha = self._alpha(t)
        if view != self.frame_size:
            alpha = self._enlarged(t, alpha, view)
        confidence = np.array([m.confidence[t] for m in self.motions], np.float32)
        return FrameMapping(uv, alpha.clip(0, 1), confidence)

    def _enlarged(self, t: int, alpha: np.ndarray, view: Size) -> np.ndarray:
        """(L, H, W) opacity at the view's size."""
        plain = np.stack([cv2.resize(a, view.wh) for a in alpha])
        shown: tuple[int, np.ndarray] | None = getattr(self._shown, "frame", None)
        finer = view.width >= FINER * self.frame_size.width
        if not finer or shown is None or shown[0] != t or shown[1].shape[:2] != plain.shape[1:]:
            return plain
        guide = _grey(shown[1])
        small = cv2.resize(guide, self.frame_size.wh, interpolation=cv2.INTER_AREA)
        for i in range(len(alpha) - 1):
            soft = (plain[i] > 0.02) & (plain[i] < 0.98)
            if soft.any():
                along = guided_upsample(guide, small, alpha[i], GUIDE_RADIUS_PX, GUIDE_EPS)
                plain[i] = np.where(soft, along.clip(0, 1), plain[i])
        return plain


def _grey(rgb: np.ndarray) -> np.ndarray:
    """(H, W) uint8 luma of 8 or 16 bit RGB."""
    if rgb.dtype != np.uint8:
        rgb = (rgb >> 8).astype(np.uint8)
    return cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
