"""Canvases of cameras that turn far: rolled out from a cylinder round the camera.

A flat canvas stretches what lies off its middle by 1 / cos^2 of the angle, 3 times at 55 degrees
and without end at 90. Where a clip sees that far, its layer gets a canvas on which equal angles
have equal lengths, all the way round (Szeliski and Shum 1997, "Creating full view panoramic image
mosaics", section 2: cylindrical coordinates).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import cv2
import numpy as np

from atlas.coords import Size

if TYPE_CHECKING:
    from torch import Tensor

FLAT_DEG = 55.0
"""A layer seen at most this far off the middle of its canvas lies on a plane."""
CELL_PX = 4
"""Maps are computed at every so many pixels; between them a cylinder bends by < 0.02 texels."""


@dataclass(frozen=True, eq=False)
class Roll:
    """A canvas rolled out from a cylinder whose radius is the focal length.

    focal: texels per radian, and of the radius. origin: (u, v) texels of what lies ahead.
    turns: (T,) float64, radians by which each frame's middle is turned away from there to the
        right (down, if `vertical`), unwound: more than a whole turn goes on.
    vertical: the camera tilts rather than pans, so rows are rolled out, not columns.
    """

    focal: float
    origin: tuple[float, float]
    turns: np.ndarray
    vertical: bool = False

    def uv(self, t: int, rays: np.ndarray) -> np.ndarray:
        """(..., 2) float32 texels of rays.

        Args:
            rays: (..., 3), right, down and ahead as the middle of frame `t` looks, of any length.
        """
        right, down, ahead = np.moveaxis(rays, -1, 0)
        round_it, along = (down, right) if self.vertical else (right, down)
        turned = np.arctan2(round_it, ahead) + self.turns[t]
        along = along / np.hypot(round_it, ahead)
        u, v = (along, turned) if self.vertical else (turned, along)
        x, y = self.origin
        return np.stack([u * self.focal + x, v * self.focal + y], -1).astype(np.float32)

    def tensor(self, t: int, rays: Tensor) -> Tensor:
        """`uv` of a tensor of rays (..., 3), with gradients."""
        right, down, ahead = rays.unbind(-1)
        round_it, along = (down, right) if self.vertical else (right, down)
        turned = self.focal * (round_it.atan2(ahead) + float(self.turns[t]))
        along = self.focal * along / (round_it**2 + ahead**2).sqrt()
        u, v = (along, turned) if self.vertical else (turned, along)
        across, low = rays.new_tensor([1.0, 0.0]), rays.new_tensor([0.0, 1.0])
        return rays.new_tensor(self.origin) + u[..., None] * across + v[..., None] * low

    def rays(self, uv: np.ndarray, ahead: tuple[float, float]) -> np.ndarray:
        """(..., 3) rays (right, down, ahead) of (..., 2) texels, for who looks at texel `ahead`."""
        u, v = np.moveaxis((uv.astype(np.float64) - ahead) / self.focal, -1, 0)
        if self.vertical:
            return np.stack([u, np.sin(v), np.cos(v)], -1)
        return np.stack([np.sin(u), v, np.cos(u)], -1)

    def map(self, t: int, matrix: np.ndarray, size: Size, view: Size | None = None) -> np.ndarray:
        """(H, W, 2) float32 texels of every pixel of a `view` picture of frame `t` (`size` px).

        Args:
            matrix: (3, 3), pixels of the frame to rays.
        """
        view = view or size
        sx, sy = size.width / view.width, size.height / view.height
        cell = max(1, round(CELL_PX / max(sx, sy)))  # pixels of the view
        rows, columns = (-(-side // cell) + 2 for side in (view.height, view.width))
        y, x = np.mgrid[-1 : rows - 1, -1 : columns - 1].astype(np.float64) * cell + cell / 2
        xy1 = np.stack([x * sx - 0.5, y * sy - 0.5, np.ones_like(x)], -1)
        uv = cv2.resize(self.uv(t, xy1 @ matrix.T), (columns * cell, rows * cell))
        return uv[cell : cell + view.height, cell : cell + view.width]

    def part(self, frames: slice) -> Roll:
        """The same canvas for some of the frames."""
        return replace(self, turns=self.turns[frames])


def angles_off(matrices: np.ndarray, camera: np.ndarray, seen: list[np.ndarray]) -> float:
    """How far off the middle of a flat canvas a layer is seen, degrees, across or down.

    Args:
        matrices: (T, 3, 3), frame pixels to pixels of the frame that the canvas is parallel to, of
            determinant 1, so that what lies behind the camera can be told.
        camera: (3, 3) pinhole matrix. seen: for each frame (N, 2) pixels that show the layer.
    """
    rays = [_rays(m, camera, xy) for m, xy in zip(matrices, seen, strict=True) if len(xy)]
    if not rays:
        return 0.0
    right, down, ahead = np.concatenate(rays).T
    across = np.arctan2(np.abs(right), ahead)
    return float(np.degrees(max(across.max(), np.arctan2(np.abs(down), ahead).max())))


def rolled(matrices: np.ndarray, camera: np.ndarray, middle: np.ndarray) -> tuple[np.ndarray, Roll]:
    """The canvas of a cylinder that stands as the camera turned.

    Args:
        matrices, camera: as for `angles_off`.
        middle: (2,) pixels, the frame's middle.
    Returns:
        (T, 3, 3) frame pixels to rays, and the roll, whose origin is texel (0, 0).
    """
    centres = np.stack([_rays(m, camera, middle[None])[0] for m in matrices])
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    axis = np.linalg.eigh(centres.T @ centres)[1][:, 0]  # about which all of them turn
    vertical = bool(abs(axis[0]) > abs(axis[1]))
    axis = axis * np.sign(axis[0 if vertical else 1] or 1.0)
    ahead = centres[len(centres) // 2]
    ahead = ahead - axis * (axis @ ahead)
    ahead /= np.linalg.norm(ahead)
    if vertical:
        axes = np.stack([axis, np.cross(ahead, axis), ahead])
    else:
        axes = np.stack([np.cross(axis, ahead), axis, ahead])
    seen = centres @ axes.T
    turns = np.unwrap(np.arctan2(seen[:, 1 if vertical else 0], seen[:, 2]))
    to_rays = np.linalg.inv(camera)
    out = np.stack(
        [_back(a, vertical) @ axes @ to_rays @ m for a, m in zip(turns, matrices, strict=True)]
    )
    return out, Roll(float(camera[0, 0]), (0.0, 0.0), turns, vertical)


def _rays(matrix: np.ndarray, camera: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """(N, 3) rays of pixels, in the axes of the frame that `matrix` leads to."""
    ends = np.column_stack([xy, np.ones(len(xy))]) @ matrix.T
    return ends @ np.linalg.inv(camera).T


def _back(angle: float, vertical: bool) -> np.ndarray:
    """(3, 3) turn that brings what lies `angle` to the right (or down) straight ahead."""
    c, s = np.cos(angle), np.sin(angle)
    if vertical:
        return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    return np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]])
