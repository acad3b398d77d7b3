"""A smooth multiplicative shading per layer and frame, so that changing light is not motion.

A pixel of layer l in frame t is texture(uv) times gain_lt(x), the gain a lattice of a few dozen
pixels: light that changes over the clip, vignettes and exposure, but no detail.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np

from atlas.coords import Size
from atlas.layered import lattice_shape, sample_lattice
from atlas.mapping import LayerMapping
from atlas.store import ClipStore
from atlas.texture import Texture, sample

PRIOR = 0.02
"""Pull of the gain toward 1 against squared colour, so that black areas do not make it jump."""


@dataclass(frozen=True)
class Shading:
    """gains: (L, T, h, w, 3) float32 at frame pixels (j * stride_px, i * stride_px)."""

    gains: np.ndarray
    stride_px: int
    size: Size

    def __call__(self, t: int, view: Size | None = None) -> np.ndarray:
        """(L, H, W, 3) float32 gain of each layer's colours at every pixel of the view."""
        return np.stack([sample_lattice(g[t], self.stride_px, self.size, view) for g in self.gains])


def unit_shading(layers: int, frame_count: int, size: Size, stride_px: int) -> Shading:
    """The shading that changes nothing."""
    shape = (layers, frame_count, *lattice_shape(size, stride_px), 3)
    return Shading(np.ones(shape, np.float32), stride_px, size)


def estimate_shading(
    mapping: LayerMapping, textures: list[Texture], store: ClipStore, sigma_px: float
) -> Shading:
    """The gain that best turns the textures into the frames, closed form.

    Least squares in a Gaussian window: g = (G * (w f r) + p) / (G * (w r^2) + p), f the frame,
    r the texture seen through the mapping, w the layer's share, p a pull toward 1.

    Args:
        sigma_px: the window's standard deviation, frame pixels, > 0.
    """
    stride = max(4, int(sigma_px / 3))
    shading = unit_shading(len(textures), store.frame_count, store.size, stride)

    def one_frame(t: int) -> None:
        m = mapping.frame(t)
        frame = store.frame(t).astype(np.float32) / 255
        for i, (share, texture) in enumerate(zip(m.visible(), textures, strict=True)):
            if (share > 0.5).any():
                seen = sample(texture.rgb, m.uv[i])
                shading.gains[i, t] = fit_gain(frame, seen, share, stride, sigma_px)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(one_frame, range(store.frame_count)))
    return shading


def fit_gain(
    frame: np.ndarray, seen: np.ndarray, share: np.ndarray, stride_px: int, sigma_px: float
) -> np.ndarray:
    """(h, w, 3) float32: one layer's gain in one frame at the lattice's points.

    Args:
        frame, seen: (H, W, 3) float32, the frame, and the layer's texture seen through the map.
        share: (H, W) float32, how much of each pixel shows the layer.
    """
    weight = np.where(share > 0.5, share**2, 0)[..., None]
    # a pixel that disagrees strongly is another surface or a moved edge, not light
    residual = ((frame - seen) ** 2).mean(-1, keepdims=True)
    weight = weight * (0.15**2 / (0.15**2 + residual))
    h, w = lattice_shape(Size(*frame.shape[:2]), stride_px)
    sums = np.dstack([frame * seen * weight, seen * seen * weight])
    # box-average to the lattice's points, then the rest of the Gaussian there
    sums = cv2.blur(sums, (stride_px | 1, stride_px | 1), borderType=cv2.BORDER_REFLECT_101)
    y = np.minimum(np.arange(h) * stride_px, frame.shape[0] - 1)
    x = np.minimum(np.arange(w) * stride_px, frame.shape[1] - 1)
    sums = np.ascontiguousarray(sums[np.ix_(y, x)])
    sums = cv2.GaussianBlur(
        sums, (0, 0), max(sigma_px / stride_px, 0.3), borderType=cv2.BORDER_REFLECT_101
    )
    gain = (sums[..., :3] + PRIOR) / (sums[..., 3:] + PRIOR)
    return gain.clip(0.25, 4).astype(np.float32)
