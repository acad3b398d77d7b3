"""Pictures made to repeat sideways: both ends overlap, and join along a seam that nobody sees.

The seam runs where the two ends differ least (Efros and Freeman 2001, "Image quilting", section
2.1); broad colours fade over the whole overlap, detail across the seam alone, so that no cloud is
seen twice and none is cut.
"""

from __future__ import annotations

import cv2
import numpy as np

from edits.multiband import multiband

OVERLAP = 0.2
"""Share of the width in which the ends lie over each other."""
_WORK_HEIGHT = 256
_BANDS = 3


def overlap_width(width: int) -> int:
    """Columns in which the ends of a picture of that width overlap; even."""
    return 2 * round(OVERLAP * width / 2)


def seamless(texels: np.ndarray) -> np.ndarray:
    """The picture made to repeat sideways, shorter by `overlap_width`.

    Its middle stays the middle: the joined ends are shared out to both sides.

    Args:
        texels: (H, W, C) float32 or uint8.
    Returns:
        (H, W - overlap, C) of the same type.
    """
    width = texels.shape[1]
    reach = overlap_width(width)
    if reach < 4:
        return texels
    before, after = (t.astype(np.float32) for t in (texels[:, width - reach :], texels[:, :reach]))
    joined = _joined(before, after)
    if texels.dtype == np.uint8:
        joined = np.rint(np.clip(joined, 0, 255)).astype(np.uint8)
    half = reach // 2
    return np.concatenate([joined[:, half:], texels[:, reach : width - reach], joined[:, :half]], 1)


def _joined(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """(H, R, C): begins as `before` does, ends as `after` does."""
    reach = before.shape[1]
    across = (np.arange(reach, dtype=np.float32) + 0.5) / reach
    ramp = across * across * (3 - 2 * across)
    broad = [_blurred(p, reach / 10) for p in (before, after)]
    fine = [p - low for p, low in zip((before, after), broad, strict=True)]
    seam = seam_rows(*fine)
    share = np.clip(np.arange(reach, dtype=np.float32)[None] - seam[:, None] + 0.5, 0, 1)
    detail = multiband(fine[0], fine[1], share, _BANDS)
    weight = np.clip(np.minimum(across, 1 - across) * 8, 0, 1)[None, :, None]  # exact at both ends
    plain = np.where(across[None, :, None] < 0.5, fine[0], fine[1])
    low = broad[0] + ramp[None, :, None] * (broad[1] - broad[0])
    return low + plain + weight * (detail - plain)


def _blurred(picture: np.ndarray, sigma_px: float) -> np.ndarray:
    """A Gaussian blur, at a fraction of the size where it is wide."""
    step = max(1, int(sigma_px / 4))
    height, width = picture.shape[:2]
    small = (max(2, round(width / step)), max(2, round(height / step)))
    few = cv2.resize(picture, small, interpolation=cv2.INTER_AREA)
    sigma = max(sigma_px / step, 0.5)
    few = cv2.GaussianBlur(few, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)
    return cv2.resize(few, (width, height), interpolation=cv2.INTER_LINEAR)


def seam_rows(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The path from top to bottom along which two pictures differ least.

    Neighbouring rows differ by at most one column at the working size; the path keeps to the
    middle three quarters.

    Args:
        a, b: (H, W, C) float32.
    Returns:
        (H,) float32, column of the path in each row.
    """
    height, width = a.shape[:2]
    scale = min(1.0, _WORK_HEIGHT / height)
    small = (max(4, round(width * scale)), max(2, round(height * scale)))
    difference = np.abs(a - b).sum(2) + 0.5 * (np.abs(a).sum(2) + np.abs(b).sum(2))
    cost = cv2.resize(difference, small, interpolation=cv2.INTER_AREA).astype(np.float64)
    margin = max(1, small[0] // 8)
    cost[:, :margin] = cost[:, small[0] - margin :] = cost.max() * small[1] + 1
    total = cost.copy()
    for row in range(1, small[1]):
        above = np.pad(total[row - 1], 1, mode="edge")
        total[row] += np.minimum(np.minimum(above[:-2], above[1:-1]), above[2:])
    path = np.empty(small[1], np.float32)
    at = int(total[-1].argmin())
    for row in range(small[1] - 1, -1, -1):
        if row < small[1] - 1:
            low, high = max(at - 1, 0), min(at + 2, small[0])
            at = low + int(total[row, low:high].argmin())
        path[row] = at
    rows = (np.arange(height) + 0.5) / height * small[1] - 0.5
    return ((np.interp(rows, np.arange(small[1]), path) + 0.5) / small[0] * width).astype(
        np.float32
    )
