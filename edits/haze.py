"""Haze toward the skyline, and the glow of the sun: what joins a scene with its new sky."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

STANDING = 0.35
"""Haze before the sky itself: what reaches above the skyline mostly stands near."""
_SKYLINE_BLUR = 0.12
_HORIZON_ROWS = 0.25
_SUN_LEVEL = 0.93
_SUN_CONTRAST = 0.12
_GLOW_WIDTHS = (0.035, 0.22)


def skyline(share: np.ndarray) -> np.ndarray:
    """Row at which the scene begins in every column, smooth along the picture.

    The lowest row above which a column is mostly sky, its median over neighbours (poles and trees
    do not count), then blurred. Columns without any sky take their neighbours' row.

    Args:
        share: (h, w) float32, of the sky.
    Returns:
        (w,) float32, rows; -1 where the picture shows no sky at all.
    """
    height, width = share.shape
    sky = share > 0.5
    found = sky.any(0)
    if found.mean() < 0.02:
        return np.full(width, -1, np.float32)
    rows = np.where(sky, np.arange(height)[:, None], -1).max(0) + 1.0
    rows = np.interp(np.arange(width), np.flatnonzero(found), rows[found])
    reach = max(1, round(_SKYLINE_BLUR * width))
    padded = np.pad(rows, reach, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1)
    median = np.median(windows, axis=1).astype(np.float32)
    return cv2.GaussianBlur(median[None], (0, 0), reach / 2, borderType=cv2.BORDER_REPLICATE)[0]


def haze_weight(rows: np.ndarray, size: tuple[int, int], height: float) -> np.ndarray:
    """How thick the haze is: 1 at the skyline, exp(-distance / height) below, `STANDING` above.

    Distance in the picture stands for nearness: without depth, the scene is taken for ground that
    comes nearer from the skyline to the lower edge.

    Args:
        rows: (w,) float, `skyline`. size: (h, w). height: share of the picture's height.
    Returns:
        (h, w) float32, [0, 1].
    """
    below = (np.arange(size[0], dtype=np.float32)[:, None] - rows[None]) / size[0]
    ground = np.exp(-np.maximum(below, 0) / max(height, 1e-3))
    rise = np.clip(-below / max(height, 1e-3), 0, 1)
    weight = ground * (1 - (1 - STANDING) * rise)
    return np.where(rows[None] < 0, 0, weight).astype(np.float32)


def horizon_color(sky: np.ndarray, share: np.ndarray, rows: np.ndarray) -> np.ndarray | None:
    """(3,) float32: the sky's colour in a band over the skyline; None where no sky shows.

    Args:
        sky: (h, w, 3) float32. share: (h, w) float32. rows: (w,), `skyline`.
    """
    height = share.shape[0]
    above = (rows[None] - np.arange(height, dtype=np.float32)[:, None]) / (_HORIZON_ROWS * height)
    weight = np.where((above >= 0) & (above <= 1), 1 - above, 0) * (share > 0.9)
    total = weight.sum()
    if total < 1:
        return None
    return ((sky * weight[..., None]).sum((0, 1)) / total).astype(np.float32)


@dataclass(frozen=True)
class Sun:
    """Where the sun shows. x, y: pixels of the small picture. color: (3,) float32.

    strength: [0, 1], how far it stands out and how much of it is not hidden.
    """

    x: float
    y: float
    color: np.ndarray
    strength: float


def find_sun(sky: np.ndarray, share: np.ndarray) -> Sun | None:
    """The one bright spot of a sky; None when there is none (overcast, night).

    Brightness is compared after a small blur, so that a star is no sun, and must pass the sky's
    mean by far; strength fades in with both, so a sun that goes behind a cloud does not switch off.

    Args:
        sky: (h, w, 3) float32, also where it is hidden. share: (h, w) float32.
    """
    width = share.shape[1]
    luma = sky @ np.array([0.299, 0.587, 0.114], np.float32)
    soft = cv2.GaussianBlur(luma, (0, 0), max(0.012 * width, 0.8))
    peak = float(soft.max())
    spread = peak - float(soft.mean())
    strength = np.clip((peak - _SUN_LEVEL + 0.1) / 0.15, 0, 1)
    strength *= np.clip((spread - _SUN_CONTRAST) / 0.2, 0, 1)
    if strength <= 0:
        return None
    spot = np.maximum(soft - (peak - 0.04), 0)
    covered = float((spot > 0).mean())
    strength *= np.clip((0.06 - covered) / 0.04, 0, 1)  # a bright bank of cloud is no sun
    total = float(spot.sum())
    if strength <= 0 or total <= 0:
        return None
    rows, columns = np.mgrid[: spot.shape[0], : spot.shape[1]]
    x, y = float((spot * columns).sum() / total), float((spot * rows).sum() / total)
    seen = float((spot * share).sum() / total)
    color = (sky * spot[..., None]).sum((0, 1)) / total
    return Sun(x, y, color.astype(np.float32), float(strength * seen))


def sun_glow(sun: Sun, size: tuple[int, int]) -> np.ndarray:
    """(h, w, 3) float32: light round the sun, a bright core and a wide veil, to be screened."""
    rows, columns = np.mgrid[: size[0], : size[1]].astype(np.float32)
    squared = (columns - sun.x) ** 2 + (rows - sun.y) ** 2
    light = np.zeros(size, np.float32)
    for width, part in zip(_GLOW_WIDTHS, (0.45, 0.5), strict=True):
        light += part / (1 + squared / (width * size[1]) ** 2) ** 1.5
    return light[..., None] * sun.color * sun.strength
