"""Guided filter: give a coarse matte the edges of the picture.

He, Sun and Tang, "Guided Image Filtering" (ECCV 2010; PAMI 2013); the subsampled form is He and
Sun, "Fast Guided Filter" (arXiv 1505.00996, 2015). Numbers in brackets are equations of PAMI 2013.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np


def guided_filter(
    guide: np.ndarray,
    source: np.ndarray,
    radius_px: int,
    eps: float,
    subsample: int = 1,
) -> np.ndarray:
    """Filter `source` so that it is locally a linear function of `guide`: q = mean(a) I + mean(b).

    Windows are (2 radius_px + 1)^2, reflected at the border. With `subsample` s > 1 the linear
    coefficients come from pictures s times smaller and are scaled up bilinearly.

    Args:
        guide: (H, W) or (H, W, 3) float in [0, 1], or uint8 (taken as value / 255).
        source: (H, W) float.
        radius_px: window radius in pixels of `guide`, >= 1.
        eps: regularisation, in squared units of the guide; variance below it counts as flat.
        subsample: whole number >= 1.
    Returns:
        (H, W) float32; not clipped, so it may overshoot the range of `source` a little.
    """
    if guide.shape[:2] != source.shape:
        raise ValueError(f"guide is {guide.shape[:2]}, source is {source.shape}: must be equal")
    if radius_px < 1:
        raise ValueError(f"radius_px must be >= 1, got {radius_px}")
    if subsample < 1:
        raise ValueError(f"subsample must be >= 1, got {subsample}")
    if not eps > 0:
        raise ValueError(f"eps must be > 0, got {eps}")
    height, width = source.shape
    small = (max(1, round(width / subsample)), max(1, round(height / subsample)))
    guide_small, source_small = guide, source.astype(np.float32, copy=False)
    if subsample > 1:
        guide_small = cv2.resize(guide, small, interpolation=cv2.INTER_AREA)
        source_small = cv2.resize(source_small, small, interpolation=cv2.INTER_AREA)
    model = fit_linear(guide_small, source_small, max(1, round(radius_px / subsample)), eps)
    return model.apply(guide)


def guided_upsample(
    guide: np.ndarray, guide_small: np.ndarray, source_small: np.ndarray, radius: int, eps: float
) -> np.ndarray:
    """Guided filter of a small matte to the size of `guide`: (H, W) float32, not clipped.

    Args:
        guide: (H, W) or (H, W, 3) uint8 or float, full size.
        guide_small: the same picture at the size (h, w) of `source_small`.
        source_small: (h, w) float32.
        radius: window radius in pixels of the small pictures.
        eps: as in `guided_filter`.
    """
    return fit_linear(guide_small, source_small, radius, eps).apply(guide)


@dataclass(frozen=True)
class LinearModel:
    """Per pixel q = a . I + b: `slope` (h, w) or (h, w, 3), `offset` (h, w), both float32."""

    slope: np.ndarray
    offset: np.ndarray

    def apply(self, guide: np.ndarray) -> np.ndarray:
        """(H, W) float32: the model, scaled up bilinearly, at every pixel of `guide` [eq 8]."""
        wh = (guide.shape[1], guide.shape[0])
        slope, offset = self.slope, self.offset
        if offset.shape != guide.shape[:2]:
            slope = cv2.resize(slope, wh, interpolation=cv2.INTER_LINEAR)
            offset = cv2.resize(offset, wh, interpolation=cv2.INTER_LINEAR)
        scale = 1 / 255 if guide.dtype == np.uint8 else 1.0
        if guide.ndim == 2:
            product = cv2.multiply(guide, slope, scale=scale, dtype=cv2.CV_32F)
        else:
            product = cv2.multiply(guide, slope, scale=scale, dtype=cv2.CV_32F)
            product = cv2.transform(product, np.ones((1, 3), np.float32))
        return cv2.add(product, offset)


def fit_linear(guide: np.ndarray, source: np.ndarray, radius: int, eps: float) -> LinearModel:
    """Ridge fit of `source` to `guide` in every window, averaged over the windows of a pixel.

    Grey guide [eq 5, 6]: a = cov(I, p) / (var(I) + eps), b = mean(p) - a mean(I).
    Colour guide [eq 19, 20]: a = (Sigma + eps 1)^-1 cov(I, p), Sigma the (3, 3) covariance of I.
    """
    scale = 1 / 255 if guide.dtype == np.uint8 else 1.0
    i = guide.astype(np.float32) * np.float32(scale)
    p = source.astype(np.float32, copy=False)
    window = (2 * radius + 1, 2 * radius + 1)

    def mean(values: np.ndarray) -> np.ndarray:
        return cv2.blur(values, window, borderType=cv2.BORDER_REFLECT)

    # Taking one constant from guide and source keeps float32 variances of bright flat skies exact.
    i = i - i.mean(axis=(0, 1), dtype=np.float64).astype(np.float32)
    centre = guide.mean(axis=(0, 1), dtype=np.float64) * scale
    mean_i, mean_p = mean(i), mean(p)
    if i.ndim == 2:
        slope = (mean(i * p) - mean_i * mean_p) / (mean(i * i) - mean_i * mean_i + eps)
        offset = mean_p - slope * mean_i
        slope, offset = mean(slope), mean(offset)
        return LinearModel(slope, (offset - slope * float(centre)).astype(np.float32))
    covariance = mean(i * p[..., None]) - mean_i * mean_p[..., None]
    slope = _solve_symmetric(_covariances(i, mean_i, mean, eps), covariance)
    offset = mean_p - (slope * mean_i).sum(axis=2)
    slope, offset = mean(slope), mean(offset)
    return LinearModel(slope, (offset - slope @ centre.astype(np.float32)).astype(np.float32))


def _covariances(i: np.ndarray, mean_i: np.ndarray, mean, eps: float) -> list[np.ndarray]:
    """Upper triangle rr, rg, rb, gg, gb, bb of Sigma + eps 1, each (H, W)."""
    rows = []
    for c in range(3):
        for d in range(c, 3):
            value = mean(i[..., c] * i[..., d]) - mean_i[..., c] * mean_i[..., d]
            rows.append(value + eps if c == d else value)
    return rows


def _solve_symmetric(upper: list[np.ndarray], right: np.ndarray) -> np.ndarray:
    """Solve the symmetric 3x3 system of every pixel by cofactors: (H, W, 3) float32.

    In float64: where the channels go together (grey pictures), determinants are as small as eps^2.
    """
    rr, rg, rb, gg, gb, bb = (plane.astype(np.float64) for plane in upper)
    c_rr, c_rg, c_rb = gg * bb - gb * gb, gb * rb - rg * bb, rg * gb - gg * rb
    c_gg, c_gb, c_bb = rr * bb - rb * rb, rb * rg - rr * gb, rr * gg - rg * rg
    x, y, z = right[..., 0], right[..., 1], right[..., 2]
    rows = (c_rr, c_rg, c_rb), (c_rg, c_gg, c_gb), (c_rb, c_gb, c_bb)
    solved = np.stack([p * x + q * y + r * z for p, q, r in rows], axis=2)
    determinant = rr * c_rr + rg * c_rg + rb * c_rb
    return (solved / determinant[..., None]).astype(np.float32)
