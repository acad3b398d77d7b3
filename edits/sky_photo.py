"""The sky of a photo that shows more than sky: cut out, and filled where something hid it."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from edits.unmix import push_pull

CLEAR, LIKELY, HIDDEN = 0.95, 0.4, 0.1
"""Mattes above `LIKELY` count as sky (doubtful clouds are better kept than filled), but close to
what is below `HIDDEN` (twigs, soft edges) only those above `CLEAR` do."""
_LEAST_COLUMNS = 0.12
_LEAST_SKY = 0.02
_FILL_WIDTH_PX = 512
_LONGEST_PX = 8192
_PANORAMA_ROWS = 0.6
_BROAD = 1 / 16
"""Deviation of the blur that tells broad colours from clouds; share of the width."""
_EVEN = 1 / 24
"""The lines at which clouds are mirrored follow what hides the sky this smoothly."""
_WIDEST_TOWER = 0.4
"""What is narrower is looked behind from both sides; share of the width."""


def take_sky(rgb: np.ndarray, matte: np.ndarray) -> np.ndarray | None:
    """The part of a photo down to its skyline, with all that is not sky filled.

    Rows go down to the lowest one in which `_LEAST_COLUMNS` of the width is sky. What is hidden
    gets the broad colours of the sky round about. Its clouds are mirrored: those behind towers
    from the sky above, left and right of them, by nearness; then those under the skyline from the
    sky over it, towers filled.

    Args:
        rgb: (H, W, 3) float32, [0, 1]. matte: (H, W) float32, [0, 1], 1 = sky.
    Returns:
        (h, w, 3) float32, h <= H; None when there is next to no sky.
    """
    sure = matte >= LIKELY
    rows = np.flatnonzero(sure.mean(1) >= _LEAST_COLUMNS)
    if rows.size == 0 or sure.mean() < _LEAST_SKY:
        return None
    rgb, matte = _limited(rgb[: rows[-1] + 1], matte[: rows[-1] + 1])
    known = _known(matte)
    inner = cv2.erode(known, _square(rgb.shape[1] / 200))
    smooth = _diffused(rgb, inner)
    if smooth is None:
        return None
    kept = inner[..., None] > 0
    broad = np.where(kept, rgb, smooth)
    broad = cv2.GaussianBlur(broad, (0, 0), max(1.0, _BROAD * rgb.shape[1]))
    filled = broad + _clouds(np.where(kept, rgb - broad, 0).astype(np.float32), inner > 0)
    # the rim of the sky was filled as well: what is wrong there is put right all the way in
    wrong = _diffused(rgb - filled, known - inner)
    filled += 0 if wrong is None else wrong
    weight = cv2.GaussianBlur(known, (0, 0), max(1.0, rgb.shape[1] / 300)) * known
    return np.clip(filled + weight[..., None] * (rgb - filled), 0, 1).astype(np.float32)


def take_panorama_sky(
    rgb: np.ndarray, sky_matte: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray | None:
    """`take_sky` of an equirectangular panorama: what stands in it gives way to sky.

    Args:
        rgb: (H, 2 H, 3) float32, [0, 1]. sky_matte: (h, w, 3) uint8 to (h, w) float32, 1 = sky.
    Returns:
        (H, 2 H, 3) float32, the lowest sky going on below; None when there is next to no sky.
    """
    height, width = rgb.shape[:2]
    beyond = width // 4
    upper = rgb[: round(_PANORAMA_ROWS * height)]
    wide = np.concatenate([upper[:, -beyond:], upper, upper[:, :beyond]], axis=1)
    sky = take_sky(wide, sky_matte(np.rint(wide * 255).astype(np.uint8)))
    if sky is None:
        return None
    once = sky[:, beyond : beyond + width].copy()
    fade = beyond // 2  # what was filled differently on both sides of the seam
    share = ((np.arange(fade, dtype=np.float32) + 1) / (fade + 1))[:, None]
    once[:, -fade:] += share * (sky[:, beyond - fade : beyond] - once[:, -fade:])
    ground = cv2.blur(once[-1:], (2 * (width // 50) + 1, 1))
    return np.concatenate([once, np.repeat(ground, height - len(once), axis=0)])


def _limited(rgb: np.ndarray, matte: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both at a size that no video needs more of."""
    scale = _LONGEST_PX / max(matte.shape)
    if scale >= 1:
        return rgb, matte
    wh = (max(2, round(matte.shape[1] * scale)), max(2, round(matte.shape[0] * scale)))
    return tuple(cv2.resize(p, wh, interpolation=cv2.INTER_AREA) for p in (rgb, matte))  # pyright: ignore[reportReturnType]


def _known(matte: np.ndarray) -> np.ndarray:
    """(H, W) float32, 1 where a pixel counts as sky."""
    width = matte.shape[1]
    close = cv2.dilate((matte < HIDDEN).astype(np.uint8), _square(width / 60)) > 0
    sky = (matte >= LIKELY) & ~(close & (matte < CLEAR))
    return cv2.erode(sky.astype(np.uint8), _square(width / 160)).astype(np.float32)


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


def _clouds(detail: np.ndarray, known: np.ndarray) -> np.ndarray:
    """(H, W, 3): detail where it is known, elsewhere mirrored.

    Args:
        detail: (H, W, 3) float32, 0 where it is not known. known: (H, W) bool.
    """
    height, width = known.shape
    skyline = _skyline(known)[None]
    rows = np.arange(height, dtype=np.float32)[:, None]
    filled = _behind_towers(detail, known, ~known & (rows < skyline))
    columns = np.broadcast_to(np.arange(width, dtype=np.float32), known.shape)
    source = np.abs(2 * skyline - 1 - rows)
    below = cv2.remap(filled, columns, source, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    share = np.clip(rows - skyline + 1, 0, 1)[..., None]
    return np.where(known[..., None], detail, filled + share * (below - filled))


def _skyline(known: np.ndarray) -> np.ndarray:
    """(W,) float32, the row under the lowest sky; across towers as at both sides of them."""
    height, width = known.shape
    _, labels, stats, _ = cv2.connectedComponentsWithStats(known.astype(np.uint8))
    areas = stats[1:, cv2.CC_STAT_AREA]
    known = np.isin(labels, 1 + np.flatnonzero(areas > 0.15 * areas.max()))  # none under bridges
    rows = np.where(known.any(0), height - np.argmax(known[::-1], axis=0), 0)
    span = np.ones((1, 2 * round(_WIDEST_TOWER * width / 2) + 1), np.uint8)
    closed = cv2.morphologyEx(
        rows.astype(np.float32)[None], cv2.MORPH_CLOSE, span, borderType=cv2.BORDER_REPLICATE
    )
    sigma = max(1.0, _EVEN * width)
    return cv2.GaussianBlur(closed, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)[0]


def _behind_towers(detail: np.ndarray, known: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """Detail mirrored from above, left and right into what is `hidden`, by nearness."""
    height, width = known.shape
    y, x = (grid.astype(np.float32) for grid in np.mgrid[:height, :width])
    shown = known.astype(np.float32)
    mixed = np.zeros_like(detail)
    total = np.full(known.shape, 1e-3, np.float32)  # no clouds where next to nothing is known
    for axis, backward in ((0, False), (1, False), (1, True)):
        border = _border(known, hidden, axis, backward)
        at_x, at_y = (x, 2 * border - y) if axis == 0 else (2 * border - x, y)
        reach = np.abs((y if axis == 0 else x) - border)
        mode = cv2.BORDER_REFLECT
        moved = cv2.remap(detail, at_x, at_y, cv2.INTER_LINEAR, borderMode=mode)
        there = cv2.remap(shown, at_x, at_y, cv2.INTER_LINEAR, borderMode=mode)
        weight = cv2.GaussianBlur(there, (0, 0), max(1.0, width / 100)) * there
        weight /= (1 + reach / (_EVEN * width)) ** 4
        mixed += weight[..., None] * moved
        total += weight
    return np.where(known[..., None], detail, mixed / total[..., None])


def _border(known: np.ndarray, hidden: np.ndarray, axis: int, backward: bool) -> np.ndarray:
    """(H, W) float32: the last known row (axis 0) or column (1) before each hidden pixel, evened
    out along the border; -1 or the size where there is none.

    Args:
        backward: count from the lower or right end.
    """
    count = known.shape[axis]
    index = np.arange(count, dtype=np.float32)
    index = index[:, None] if axis == 0 else index[None]
    if backward:
        found = np.where(known, index, np.float32(count))
        found = np.flip(np.minimum.accumulate(np.flip(found, axis), axis), axis)
    else:
        found = np.maximum.accumulate(np.where(known, index, np.float32(-1)), axis)
    reach = max(1, round(_EVEN * known.shape[1])) | 1
    side = (reach, 1) if axis == 0 else (1, reach)
    counts = (hidden & (found >= 0) & (found < count)).astype(np.float32)
    even = cv2.blur(found * counts, side) / np.maximum(cv2.blur(counts, side), 1e-6)
    return np.where(counts > 0, even, found).astype(np.float32)
