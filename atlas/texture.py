"""Atlas textures: one layer's picture, and frames seen through it. Made in `atlas.splat`.

Free of torch, which takes seconds to import and which edits need none of.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from atlas.coords import Size
from atlas.mapping import LayerMapping


@dataclass(frozen=True)
class Texture:
    """One layer's atlas as a picture.

    rgb: (H, W, 3) float32, display-encoded, [0, 1]; unseen texels carry colours from nearby.
    coverage: (H, W) float32, [0, 1]; how much of the texel some frame has seen.
    bare: (H, W) float32, [0, 1]; how surely some frame has seen the texel with nothing in front;
        None where nobody asked.
    """

    rgb: np.ndarray
    coverage: np.ndarray
    bare: np.ndarray | None = None

    @property
    def size(self) -> Size:
        return Size(*self.coverage.shape)

    def rgba8(self) -> np.ndarray:
        """(H, W, 4) uint8, straight alpha = coverage."""
        rgba = np.dstack([self.rgb, self.coverage])
        return np.clip(np.rint(rgba * 255), 0, 255).astype(np.uint8)


def sample(texture_rgb: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """Bilinear samples of a texture, its border texels continued outward.

    Args:
        texture_rgb: (h, w) or (h, w, C) float32.
        uv: (H, W, 2) float32, texels.
    Returns:
        (H, W) or (H, W, C) float32.
    """
    if not cv2.checkRange(uv)[0]:
        uv = np.nan_to_num(uv, nan=-1e4, posinf=3e4, neginf=-3e4)
    uv = uv.astype(np.float32, copy=False)
    return cv2.remap(texture_rgb, uv, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


Gains = Callable[[int, Size | None], np.ndarray]
"""(t, view size) -> (L, H, W, 3) float32: factors on each layer's colours (`atlas.shading`)."""


def render(
    mapping: LayerMapping,
    textures: list[Texture],
    t: int,
    size: Size | None = None,
    gains: Gains | None = None,
) -> np.ndarray:
    """Frame `t` as the layers' textures give it: (H, W, 3) float32 in [0, 1]."""
    m = mapping.frame(t, size)
    shares = m.visible()
    gain = None if gains is None else gains(t, size)
    out = np.zeros((*shares.shape[1:], 3), np.float32)
    for i, (share, texture, uv) in enumerate(zip(shares, textures, m.uv, strict=True)):
        colour = sample(texture.rgb, uv)
        out += share[..., None] * (colour if gain is None else colour * gain[i])
    return np.clip(out, 0, 1)


def fill_unseen(rgb: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Fill texels of low weight from their surroundings by push-pull (Gortler et al. 1996).

    Args:
        rgb: (H, W, 3) float32; weight: (H, W) float32, >= 0.
    Returns:
        (H, W, 3) float32: `rgb` where weight >= 0.3, blending into coarser and coarser averages.
    """
    trust = np.minimum(weight / 0.3, 1).astype(np.float32)
    trust3 = cv2.merge([trust] * 3)  # as wide as the colours: numpy is slow where shapes differ
    trusted = rgb * trust3
    if min(rgb.shape[:2]) <= 1 or bool((trust >= 1).all()):
        mean = trusted.sum((0, 1)) / max(float(trust.sum()), 1e-6)
        return (trusted + mean * (1 - trust3)).astype(np.float32)
    half = (max(rgb.shape[1] // 2, 1), max(rgb.shape[0] // 2, 1))
    low_weight = cv2.resize(trust, half, interpolation=cv2.INTER_AREA)
    low = cv2.resize(trusted, half, interpolation=cv2.INTER_AREA)
    low = low / cv2.merge([np.maximum(low_weight, 1e-6)] * 3)
    low = fill_unseen(low, low_weight)
    up = cv2.resize(low, (rgb.shape[1], rgb.shape[0]), interpolation=cv2.INTER_LINEAR)
    return (trusted + up * (1 - trust3)).astype(np.float32)
