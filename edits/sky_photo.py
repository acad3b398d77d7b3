"""The sky of a photo that shows more than sky: cut out, and filled where something hid it."""

from __future__ import annotations

import cv2
import numpy as np

from edits.unmix import push_pull

CLEAR, LIKELY, HIDDEN = 0.95, 0.4, 0.1
"""Mattes above `LIKELY` count as sky (doubtful clouds are better kept than filled), but close to
what is below `HIDDEN` (twigs, soft edges) only those above `CLEAR` do."""
_LEAST_COLUMNS = 0.12
_LEAST_SKY = 0.02
_FILL_WIDTH_PX = 512


def take_sky(rgb: np.ndarray, matte: np.ndarray) -> np.ndarray | None:
    """The part of a photo down to its skyline, with all that is not sky filled.

    Rows go down to the lowest one in which `_LEAST_COLUMNS` of the width is sky. A hidden pixel
    takes the sky as far above its column's skyline as it lies below (clouds go on, mirrored),
    eased into the colours of the sky round about where that is not sky either.

    Args:
        rgb: (H, W, 3) float32, [0, 1]. matte: (H, W) float32, [0, 1], 1 = sky.
    Returns:
        (h, W, 3) float32, h <= H; None when there is next to no sky.
    """
    sure = matte >= LIKELY
    rows = np.flatnonzero(sure.mean(1) >= _LEAST_COLUMNS)
    if rows.size == 0 or sure.mean() < _LEAST_SKY:
        return None
    rgb, matte = rgb[: rows[-1] + 1], matte[: rows[-1] + 1]
    known = _known(matte)
    smooth = _diffused(rgb, known)
    if smooth is None:
        return None
    reflected, there = _mirrored(rgb, smooth, known)
    filled = smooth + there[..., None] * (reflected - smooth)
    weight = cv2.GaussianBlur(known, (0, 0), max(1.0, rgb.shape[1] / 600)) * known
    return np.clip(filled + weight[..., None] * (rgb - filled), 0, 1).astype(np.float32)


def _known(matte: np.ndarray) -> np.ndarray:
    """(H, W) float32, 1 where a pixel counts as sky."""
    width = matte.shape[1]
    close = cv2.dilate((matte < HIDDEN).astype(np.uint8), _square(width / 60)) > 0
    sky = (matte >= LIKELY) & ~(close & (matte < CLEAR))
    return cv2.erode(sky.astype(np.uint8), _square(width / 300)).astype(np.float32)


def _square(reach_px: float) -> np.ndarray:
    side = 2 * max(1, round(reach_px)) + 1
    return np.ones((side, side), np.uint8)


def _diffused(rgb: np.ndarray, known: np.ndarray) -> np.ndarray | None:
    """The known colours spread smoothly over the rest."""
    height, width = known.shape
    factor = max(1.0, width / _FILL_WIDTH_PX)
    small = (max(1, round(width / factor)), max(1, round(height / factor)))
    weighted = np.dstack([rgb * known[..., None], known])
    filled = push_pull(cv2.resize(weighted, small, interpolation=cv2.INTER_AREA))
    if filled is None:
        return None
    return cv2.resize(filled, (width, height), interpolation=cv2.INTER_LINEAR)


def _mirrored(
    rgb: np.ndarray, smooth: np.ndarray, known: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Detail from above the skyline for what is below, and (H, W) how far it is known.

    Only the detail (picture minus its smooth colours) is mirrored; the colours stay those of the
    surroundings, so that the horizon's glow is not followed by the zenith's dark.
    """
    height, width = known.shape
    hidden = known < 0.5
    above = np.where(hidden, 0, np.arange(1, height + 1)[:, None])
    skyline = np.maximum.accumulate(above, axis=0).astype(np.float32)  # last sky row above, plus 1
    skyline = cv2.blur(skyline, (max(1, width // 16), 1))
    rows = np.arange(height, dtype=np.float32)[:, None]
    source = np.abs(2 * skyline - 1 - rows)
    columns = np.broadcast_to(np.arange(width, dtype=np.float32), source.shape)
    broad = cv2.GaussianBlur(rgb, (0, 0), max(2.0, width / 60))
    detail = (rgb - broad) * known[..., None]
    moved = cv2.remap(detail, columns, source, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    there = cv2.remap(known, columns, source, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    distance = np.clip((rows - skyline) / max(0.35 * height, 1), 0, 1)
    return smooth + moved, cv2.GaussianBlur(there, (0, 0), 2) * (1 - distance)
