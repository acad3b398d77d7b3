"""Closed-form matting inside a band (Levin, Lischinski, Weiss, PAMI 2008), led by a first matte.

Where sky and ground colours lie on a line in every small window, opacity is a linear function of
colour there, and a^T L a is zero for the true matte; L is the matting Laplacian, eq 12. The matte
is the minimum of

    a^T L a + sum_i d_i (a_i - p_i)^2

p is the first matte; d is large where it is sure and small in the doubtful band. Only windows that
touch the band are set up, so the cost goes with the length of the skyline, not with the picture.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import cv2
import numpy as np
from scipy.sparse import coo_array, diags_array
from scipy.sparse.linalg import cg

from atlas.guided import guided_upsample

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class BandOptions:
    """The doubtful band and what is believed inside it."""

    reach: float = 0.006
    """Half width of the band round the first matte's edges, in longer sides of the picture."""
    sure: float = 0.05
    """Opacities within this of 0 and 1, away from edges, are kept."""
    prior: float = 0.3
    """d in the band: how far the first matte holds against the colours."""
    eps: float = 1e-4
    """Spread of colours that is noise, squared units of [0, 1]; eq 12's epsilon."""
    tolerance: float = 1e-2
    """Relative residual at which conjugate gradients stop."""
    most_steps: int = 400
    most_px: int = 1280
    """Longer side at which it is solved; larger pictures are reduced, and the result is brought
    back by a guided filter of 5 reduced pixels. Bounds memory to some hundred MB."""

    def __post_init__(self) -> None:
        if not self.reach > 0:
            raise ValueError(f"reach must be > 0, got {self.reach}")
        if not 0 <= self.sure < 0.5:
            raise ValueError(f"sure must be in [0, 0.5), got {self.sure}")
        if not self.prior > 0:
            raise ValueError(f"prior must be > 0, got {self.prior}")


_UPSAMPLE_EPS = 1e-4
_CORNERS = [(y, x) for y in range(3) for x in range(3)]


def doubtful_band(matte: np.ndarray, options: BandOptions) -> np.ndarray:
    """(H, W) bool: near an edge of `matte` (H, W) at 0.5, or where it is between the sure ends."""
    radius = max(1, round(options.reach * max(matte.shape)))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    sky = (matte > 0.5).astype(np.uint8)
    grown = cv2.dilate(sky, kernel, borderType=cv2.BORDER_REPLICATE)
    near = grown != cv2.erode(sky, kernel, borderType=cv2.BORDER_REPLICATE)
    soft = (matte > options.sure) & (matte < 1 - options.sure)
    soft = cv2.dilate(soft.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    return near | soft


def matting_laplacian(rgb: np.ndarray, centres: np.ndarray, eps: float) -> coo_array:
    """Eq 12, summed over the 3x3 windows round `centres`.

    Args:
        rgb: (H, W, 3) float, [0, 1].
        centres: (K, 2) int, row and column of the middle of each window, inside the picture's rim.
        eps: see `BandOptions.eps`.
    Returns:
        (H W, H W) sparse float64, rows and columns in the order of the flattened picture.
    """
    height, width = rgb.shape[:2]
    steps = np.array([(y - 1) * width + x - 1 for y, x in _CORNERS])
    members = (centres[:, 0] * width + centres[:, 1])[:, None] + steps  # (K, 9)
    colours = rgb.reshape(-1, 3).astype(np.float64)[members]
    offsets = colours - colours.mean(axis=1, keepdims=True)
    spread = np.einsum("kic,kid->kcd", offsets, offsets) / 9 + eps / 9 * np.eye(3)
    likeness = offsets @ np.linalg.inv(spread) @ offsets.transpose(0, 2, 1)
    values = np.eye(9) - (1 + likeness) / 9
    rows = np.repeat(members, 9, axis=1).ravel()
    columns = np.tile(members, (1, 9)).ravel()
    return coo_array((values.ravel(), (rows, columns)), shape=(height * width, height * width))


def closed_form_matte(
    rgb: np.ndarray, first: np.ndarray, options: BandOptions | None = None
) -> np.ndarray:
    """Sharpen a matte along twigs, wires and hair.

    Args:
        rgb: (H, W, 3) uint8. first: (H, W) float32 in [0, 1], right but for its edges.
    Returns:
        (H, W) float32 in [0, 1]; equal to `first` outside its doubtful band.
    """
    options = options or BandOptions()
    if first.shape != rgb.shape[:2]:
        raise ValueError(f"first is {first.shape}, rgb is {rgb.shape[:2]}: must be equal")
    if max(first.shape) > options.most_px:
        return _solved_smaller(rgb, first, options)
    band = doubtful_band(first, options)
    touched = cv2.dilate(band.astype(np.uint8), np.ones((3, 3), np.uint8))
    touched[[0, -1]] = 0
    touched[:, [0, -1]] = 0
    centres = np.argwhere(touched)
    if not len(centres):
        return first
    laplacian = matting_laplacian(rgb.astype(np.float64) / 255, centres, options.eps).tocsr()
    inside = np.flatnonzero(band.ravel())
    outside = np.flatnonzero(~band.ravel())
    unknown = laplacian[inside]
    known = first.ravel().astype(np.float64)
    right = options.prior * known[inside] - unknown[:, outside] @ known[outside]
    matrix = unknown[:, inside] + diags_array(np.full(inside.size, options.prior))
    found, failed = cg(
        matrix,
        right,
        x0=known[inside],
        rtol=options.tolerance,
        maxiter=options.most_steps,
        M=diags_array(1 / matrix.diagonal()),
    )
    if failed:
        log.debug("closed-form matting stopped after %d steps", options.most_steps)
    matte = first.copy()
    matte.ravel()[inside] = np.clip(found, 0, 1)
    return matte


def _solved_smaller(rgb: np.ndarray, first: np.ndarray, options: BandOptions) -> np.ndarray:
    scale = options.most_px / max(first.shape)
    wh = (max(1, round(first.shape[1] * scale)), max(1, round(first.shape[0] * scale)))
    small, start = (cv2.resize(v, wh, interpolation=cv2.INTER_AREA) for v in (rgb, first))
    solved = closed_form_matte(small, start, options)
    fine = np.clip(guided_upsample(rgb, small, solved, 2, _UPSAMPLE_EPS), 0, 1)
    return np.where(doubtful_band(first, options), fine, first).astype(np.float32)
