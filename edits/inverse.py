"""Turn a frame's map round: from frame pixel -> texel to texel -> frame pixel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from atlas.coords import Size, pixel_grid
from edits.unmix import push_pull

TOLERANCE_TEXELS = 0.05
"""A texel counts as found when its frame position maps back to within this of it."""
_CLOSE_TEXELS = 1e-3
_STEPS = 12


@dataclass(frozen=True)
class InverseMap:
    """Where each texel of a canvas lies in one frame.

    xy: (h, w, 2) float32, frame pixels; a guess from nearby where `found` is False.
    found: (h, w) bool, the texel lies inside the frame (its outermost pixels' edges included).
    """

    xy: np.ndarray
    found: np.ndarray


def invert_uv(uv: np.ndarray, canvas: Size) -> InverseMap:
    """Invert a frame's mapping.

    The frame's positions are scattered to the texels they map to, holes filled from around; from
    there Newton's method solves uv(xy) = texel on the bilinearly sampled map. Where the map folds
    one of the solutions is taken.

    Args:
        uv: (H, W, 2) float32, texels of the canvas, at the centres of the frame's pixels.
    """
    size = Size(*uv.shape[:2])
    xy = np.zeros((canvas.height, canvas.width, 2), np.float32)
    found = np.zeros((canvas.height, canvas.width), bool)
    box = _reached(uv, canvas) if min(size.wh) > 1 else None
    if box is None:
        return InverseMap(xy, found)
    rows, columns = box
    target = pixel_grid(canvas)[rows, columns]
    shifted = uv - target[0, 0]
    part = Size(*target.shape[:2])
    xy[rows, columns], found[rows, columns] = _solve(shifted, part, _first_guess(shifted, part))
    return InverseMap(xy, found)


def _reached(uv: np.ndarray, canvas: Size) -> tuple[slice, slice] | None:
    """Rows and columns of the canvas that the frame can reach; None without any."""
    wider = _one_more_pixel(uv)  # pixels reach beyond their centres
    finite = wider[np.isfinite(wider).all(-1)]
    if finite.size == 0:
        return None
    low, high = np.floor(finite.min(0)), np.ceil(finite.max(0)) + 1
    left, top = np.clip(low, 0, canvas.wh).astype(int)
    right, bottom = np.clip(high, 0, canvas.wh).astype(int)
    if right <= left or bottom <= top:
        return None
    return slice(int(top), int(bottom)), slice(int(left), int(right))


def _first_guess(uv: np.ndarray, canvas: Size) -> np.ndarray:
    """(h, w, 2) float32: frame positions scattered onto the canvas, holes filled."""
    xy = pixel_grid(Size(*uv.shape[:2]))
    sums = _scattered(np.nan_to_num(uv, nan=-1e4).reshape(-1, 2), xy.reshape(-1, 2), canvas)
    weighted = np.ascontiguousarray(sums / np.maximum(sums[..., 3:], 1))  # weights at most 1
    filled = push_pull(weighted)
    if filled is None:
        return np.zeros((canvas.height, canvas.width, 2), np.float32)
    return np.ascontiguousarray(filled[..., :2])


def _scattered(at: np.ndarray, xy: np.ndarray, canvas: Size) -> np.ndarray:
    """(h, w, 4) float32: sums of x, y, 0 and 1, each bilinearly onto the texels about its place.

    Args:
        at: (N, 2) texels; those off the canvas are dropped. xy: (N, 2) what is scattered.
    """
    sums = np.zeros((canvas.height * canvas.width, 4), np.float32)
    low = np.floor(at)
    part = (at - low).astype(np.float32)
    for dx, dy in ((0, 0), (1, 0), (0, 1), (1, 1)):
        x, y = low[:, 0] + dx, low[:, 1] + dy
        inside = (x >= 0) & (y >= 0) & (x < canvas.width) & (y < canvas.height)
        place = (y[inside] * canvas.width + x[inside]).astype(np.intp)
        wx, wy = part[inside, 0], part[inside, 1]
        weight = (wx if dx else 1 - wx) * (wy if dy else 1 - wy)
        for channel, values in ((0, xy[inside, 0]), (1, xy[inside, 1]), (3, 1.0)):
            sums[:, channel] += np.bincount(place, weight * values, len(sums))
    return sums.reshape(canvas.height, canvas.width, 4)


def _solve(uv: np.ndarray, canvas: Size, guess: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Newton's method from `guess`: (h, w, 2) frame pixels and (h, w) whether they are right."""
    size = Size(*uv.shape[:2])
    down, right = np.gradient(np.nan_to_num(uv, nan=-1e4), axis=(0, 1))
    planes = np.dstack([uv, right, down]).astype(np.float32)  # u v, du/dx dv/dx, du/dy dv/dy
    table = _one_more_pixel(planes)
    target = pixel_grid(canvas).reshape(-1, 2)
    low = np.array([-0.5, -0.5], np.float32)
    high = np.array([size.width - 0.5, size.height - 0.5], np.float32)
    xy = guess.reshape(-1, 2).clip(low, high)
    error = np.full(len(xy), np.inf, np.float32)
    active = np.arange(len(xy))  # those that still move
    longest = 0.25 * max(size.wh)
    for _ in range(_STEPS):
        at = xy[active]
        seen = _sampled(table, at + 1)
        miss = target[active] - seen[:, :2]
        error[active] = np.hypot(miss[:, 0], miss[:, 1])
        moved = (at + _newton_move(miss, seen[:, 2:], longest)).clip(low, high)
        keep = (error[active] > _CLOSE_TEXELS) & (np.abs(moved - at).max(1) > 1e-3)
        active = active[keep]
        if not len(active):
            break
        xy[active] = moved[keep]
    found = (error <= TOLERANCE_TEXELS).reshape(canvas.height, canvas.width)  # nan is not
    return xy.reshape(canvas.height, canvas.width, 2), found


def _newton_move(miss: np.ndarray, slopes: np.ndarray, longest: float) -> np.ndarray:
    """(N, 2) pixels: J^-1 times what is missed, no longer than `longest`.

    Args:
        miss: (N, 2) texels. slopes: (N, 4), du/dx, dv/dx, du/dy, dv/dy.
    """
    ux, vx, uy, vy = slopes.T
    determinant = ux * vy - uy * vx
    safe = np.where(np.abs(determinant) > 1e-6, determinant, 1e-6)
    u, v = miss.T
    move = np.stack([vy * u - uy * v, ux * v - vx * u], -1) / safe[:, None]
    move = np.nan_to_num(move, posinf=1e6, neginf=-1e6)
    length = np.linalg.norm(move, axis=1, keepdims=True)
    return (move * (longest / np.maximum(length, longest))).astype(np.float32)


def _sampled(table: np.ndarray, at: np.ndarray) -> np.ndarray:
    """(N, C) float32: bilinear samples of (H, W, C) at (N, 2) positions inside it.

    Exact, where `cv2.remap` rounds its weights to 1/32 px.
    """
    height, width = table.shape[:2]
    low = np.clip(np.floor(at), 0, [width - 2, height - 2])
    fx, fy = (at - low).astype(np.float32).T[..., None]
    first = (low[:, 1] * width + low[:, 0]).astype(np.intp)
    flat = table.reshape(-1, table.shape[2])
    top = flat[first] * (1 - fx) + flat[first + 1] * fx
    bottom = flat[first + width] * (1 - fx) + flat[first + width + 1] * fx
    return top * (1 - fy) + bottom * fy


def _one_more_pixel(planes: np.ndarray) -> np.ndarray:
    """(H + 2, W + 2, C): one pixel more on every side, continued linearly."""
    rows = np.concatenate([2 * planes[:1] - planes[1:2], planes, 2 * planes[-1:] - planes[-2:-1]])
    left, right = 2 * rows[:, :1] - rows[:, 1:2], 2 * rows[:, -1:] - rows[:, -2:-1]
    return np.ascontiguousarray(np.concatenate([left, rows, right], axis=1))
