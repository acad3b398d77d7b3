"""Turn a frame's map round: from frame pixel -> texel to texel -> frame pixel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from atlas.coords import Size, pixel_grid
from atlas.texture import sample_torch, splat_adjoint
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
    values = torch.from_numpy(np.dstack([xy, np.zeros_like(xy[..., 0]), np.ones_like(xy[..., 0])]))
    at = torch.from_numpy(np.nan_to_num(uv, nan=-1e4).astype(np.float32, copy=False))
    sums = splat_adjoint(values.permute(2, 0, 1).contiguous(), at, canvas)
    sums = sums.permute(1, 2, 0).numpy()
    weighted = np.ascontiguousarray(sums / np.maximum(sums[..., 3:], 1))  # weights at most 1
    filled = push_pull(weighted)
    if filled is None:
        return np.zeros((canvas.height, canvas.width, 2), np.float32)
    return np.ascontiguousarray(filled[..., :2])


def _solve(uv: np.ndarray, canvas: Size, guess: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Newton's method from `guess`: (h, w, 2) frame pixels and (h, w) whether they are right."""
    size = Size(*uv.shape[:2])
    down, right = np.gradient(np.nan_to_num(uv, nan=-1e4), axis=(0, 1))
    planes = np.dstack([uv, right, down]).astype(np.float32)  # u v, du/dx dv/dx, du/dy dv/dy
    table = torch.from_numpy(_one_more_pixel(planes)).permute(2, 0, 1).contiguous()
    target = torch.from_numpy(pixel_grid(canvas).reshape(-1, 2))
    low, high = torch.tensor([-0.5, -0.5]), torch.tensor([size.width - 0.5, size.height - 0.5])
    xy = torch.from_numpy(guess.reshape(-1, 2)).clamp(low, high)
    error = torch.full((len(xy),), torch.inf)
    active = torch.arange(len(xy))  # those that still move
    for _ in range(_STEPS):
        at = xy[active]
        u, v, ux, vx, uy, vy = sample_torch(table, at[None] + 1)[:, 0]
        miss_u, miss_v = target[active, 0] - u, target[active, 1] - v
        error[active] = torch.hypot(miss_u, miss_v)
        determinant = ux * vy - uy * vx
        safe = torch.where(determinant.abs() > 1e-6, determinant, 1e-6)
        move = torch.stack([vy * miss_u - uy * miss_v, ux * miss_v - vx * miss_u], -1)
        longest = 0.25 * max(size.wh)
        move = torch.nan_to_num(move / safe[:, None])
        move *= longest / move.norm(dim=1, keepdim=True).clamp_min(longest)
        moved = (at + move).clamp(low, high)
        keep = (error[active] > _CLOSE_TEXELS) & ((moved - at).abs().amax(1) > 1e-3)
        active = active[keep]
        if not len(active):
            break
        xy[active] = moved[keep]
    found = (error <= TOLERANCE_TEXELS).reshape(canvas.height, canvas.width)  # nan is not
    return xy.reshape(canvas.height, canvas.width, 2).numpy(), found.numpy()


def _one_more_pixel(planes: np.ndarray) -> np.ndarray:
    """(H + 2, W + 2, C): one pixel more on every side, continued linearly."""
    rows = np.concatenate([2 * planes[:1] - planes[1:2], planes, 2 * planes[-1:] - planes[-2:-1]])
    left, right = 2 * rows[:, :1] - rows[:, 1:2], 2 * rows[:, -1:] - rows[:, -2:-1]
    return np.ascontiguousarray(np.concatenate([left, rows, right], axis=1))
