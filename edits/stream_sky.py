"""A new sky as planes, seen through the homography of one frame.

What `Paint.sample` gives as RGBA at every pixel's own position, for skies that lie flat on the
canvas or all around as a panorama: the texture is turned into Y, U and V once, and each plane is
warped by itself, chroma at its own size and place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from atlas.coords import Size, apply_homography, resize_matrix, resize_positions
from atlas.planes import PlaneFormat
from edits.mipmap import LEVEL_BIAS, Pyramid
from edits.paint import Paint
from edits.panorama import PanoramaPaint
from edits.sky import FlatSky, PlacedSky, VideoSky

_GRID_PX = 16
_LEFT = 0.5 / _GRID_PX
"""Chroma's way to the left, pixels of luma, in blocks."""
_SWITCH = 0.75
"""A coarser or finer copy of the texture is taken when the wanted level is off by this."""
_FARTHEST = 64
"""Homographies that look farther than so many lengths of the texture are not used."""


@dataclass(frozen=True)
class Rows:
    """Rows [top, bottom) of a frame, even numbers both where chroma is halved."""

    top: int
    bottom: int

    @property
    def count(self) -> int:
        return self.bottom - self.top


class SkyPlanes:
    """One sky of one clip; `sample` is asked for its frames in order."""

    def __init__(self, paint: Paint, form: PlaneFormat):
        self._paint, self._form = paint, form
        self._textures: dict[int, tuple[np.ndarray, ...]] = {}
        self._of: Pyramid | None = None
        self._level: int | None = None
        self._last: np.ndarray | None = None

    @staticmethod
    def can(paint: Paint) -> bool:
        """Whether this paint can be had as planes."""
        kinds = isinstance(paint, PlacedSky | VideoSky | PanoramaPaint)
        return kinds and paint.opaque and paint.blend == "normal"

    def sample(self, homography: np.ndarray, rows: Rows, time_s: float) -> list[np.ndarray]:
        """Y (rows, W), U and V at chroma's size: the sky in those rows of a frame.

        Args:
            homography: (3, 3), frame pixels to canvas texels.
        """
        if isinstance(self._paint, PanoramaPaint):
            return self._around(self._paint, homography, rows, time_s)
        assert isinstance(self._paint, PlacedSky | VideoSky)
        flat = self._paint.flat(time_s)
        self._take(flat.pyramid)
        if flat.bend is None:
            homography = self._usable(homography)
        elif flat.bend.needed(homography, self._corners()):
            bent = flat.bend.of_frame(homography, self._grid(rows))
            at = apply_homography(flat.matrix, bent.reshape(-1, 2)).reshape(bent.shape)
            return self._remapped(at, flat.pyramid, rows, flat.border)
        out = []
        for kind, matrix in enumerate(self._places(rows)):
            onto = flat.matrix @ homography
            level = self._level_for(onto, flat.pyramid) + (kind > 0 and self._form.step == 2)
            level = min(level, flat.pyramid.coarsest)
            texture = self._texture(flat.pyramid, level)[kind]
            size = Size(*texture.shape)
            onto = resize_matrix(flat.pyramid.size, size) @ onto @ matrix
            out.append(self._warped(texture, onto, self._wh(kind, rows), flat))
        return out

    def _warped(
        self, texture: np.ndarray, onto: np.ndarray, wh: tuple[int, int], flat: FlatSky
    ) -> np.ndarray:
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return cv2.warpPerspective(texture, onto, wh, flags=flags, borderMode=flat.border)

    def _places(self, rows: Rows) -> list[np.ndarray]:
        """Pixels of the planes' rows to pixels of the frame, for Y, U and V."""
        luma = np.array([[1, 0, 0], [0, 1, rows.top], [0, 0, 1]], np.float64)
        if self._form.step == 1:
            return [luma] * 3
        chroma = np.array([[2, 0, 0], [0, 2, rows.top + 0.5], [0, 0, 1]], np.float64)
        return [luma, chroma, chroma]

    def _wh(self, kind: int, rows: Rows) -> tuple[int, int]:
        step = self._form.step if kind else 1
        return self._form.size.width // step, rows.count // step

    def _take(self, pyramid: Pyramid) -> None:
        if self._of is not pyramid:
            self._textures, self._of = {}, pyramid

    def _texture(self, pyramid: Pyramid, level: int) -> tuple[np.ndarray, ...]:
        """The planes of one level of a texture, made when first needed."""
        if level not in self._textures:
            rgb = np.ascontiguousarray(pyramid.level(level)[..., :3])
            self._textures[level] = tuple(cv2.split(self._form.yuv_of(rgb)))
        return self._textures[level]

    def _level_for(self, onto: np.ndarray, pyramid: Pyramid) -> int:
        """Level by the texels that a pixel in the frame's middle spans; steady over the clip."""
        width, height = self._form.size.wh
        x, y = (width - 1) / 2, (height - 1) / 2
        middle = np.array([[x, y], [x + 1, y], [x, y + 1]])
        at = apply_homography(onto, middle)
        spans = np.linalg.norm(at[1:] - at[:1], axis=1)
        return self._steady(float(np.sqrt((spans**2).mean())), pyramid)

    def _usable(self, homography: np.ndarray) -> np.ndarray:
        """The homography, or the last one where it looks away from the canvas."""
        width, height = self._form.size.wh
        corners = self._corners()
        depth = corners @ homography[2, :2] + homography[2, 2]
        reach = _FARTHEST * max(width, height)
        good = bool((depth > 1e-3).all())
        if good:
            good = bool(np.abs(apply_homography(homography, corners)).max() < reach)
        if not good and self._last is not None:
            return self._last
        self._last = homography
        return homography

    def _around(
        self, paint: PanoramaPaint, homography: np.ndarray, rows: Rows, time_s: float
    ) -> list[np.ndarray]:
        """The planes of a panorama."""
        self._take(paint.pyramid)
        at = paint.positions_in_frame(homography, self._grid(rows), time_s)
        if paint.is_steep(at):
            return self._near_pole(paint, homography, rows, time_s)
        return self._remapped(at, paint.pyramid, rows, cv2.BORDER_WRAP)

    def _near_pole(
        self, paint: PanoramaPaint, homography: np.ndarray, rows: Rows, time_s: float
    ) -> list[np.ndarray]:
        """The same where positions jump between the points of a grid: every pixel by itself."""
        size, out = paint.pyramid.size, []
        level = self._level_on_grid(
            paint.positions_in_frame(homography, self._grid(rows), time_s), paint.pyramid
        )
        for kind, matrix in enumerate(self._places(rows)):
            if kind < 2:  # V lies where U does
                width, height = self._wh(kind, rows)
                xy = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).astype(
                    np.float64
                )
                xy = xy * np.diag(matrix)[:2] + matrix[:2, 2]
                at = paint.positions_in_frame(homography, xy, time_s)
            coarser = min(level + (kind > 0 and self._form.step == 2), paint.pyramid.coarsest)
            texture = self._texture(paint.pyramid, coarser)[kind]
            few = resize_positions(at, size, Size(*texture.shape)).astype(np.float32)
            out.append(_remap(texture, few, cv2.BORDER_WRAP))
        return out

    def _corners(self) -> np.ndarray:
        width, height = self._form.size.wh
        return np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float64)

    def _grid(self, rows: Rows) -> np.ndarray:
        """(h, w, 2) float64: middles of blocks of pixels of some rows, and one more all round."""
        shape = (self._form.size.width // _GRID_PX + 3, -(-rows.count // _GRID_PX) + 2)
        x, y = np.meshgrid(*((np.arange(n) - 0.5) * _GRID_PX - 0.5 for n in shape))
        return np.stack([x, y + rows.top], axis=-1)

    def _remapped(
        self, at: np.ndarray, pyramid: Pyramid, rows: Rows, border: int
    ) -> list[np.ndarray]:
        """The planes of a texture, from where the points of `_grid` lie on it, interpolated."""
        finest, out, step = self._level_on_grid(at, pyramid), [], self._form.step
        for kind in (0, 1):
            level = min(finest + (kind > 0 and step == 2), pyramid.coarsest)
            textures = self._texture(pyramid, level)
            textures = textures[1:] if kind else textures[:1]
            few = resize_positions(at, pyramid.size, Size(*textures[0].shape)).astype(np.float32)
            if kind and step == 2:  # chroma lies level with the left of two columns
                few = cv2.addWeighted(few[:, 1:], 1 - _LEFT, few[:, :-1], _LEFT, 0)
                few = cv2.copyMakeBorder(few, 0, 0, 1, 0, cv2.BORDER_REPLICATE)
            times = _GRID_PX // (step if kind else 1)
            maps = cv2.resize(few, None, fx=times, fy=times, interpolation=cv2.INTER_LINEAR)
            width, height = self._wh(kind, rows)
            maps = maps[times : times + height, times : times + width]
            out += [_remap(texture, maps, border) for texture in textures]
        return out

    def _level_on_grid(self, at: np.ndarray, pyramid: Pyramid) -> int:
        """As `_level_for`, of positions of the points of `_grid`."""
        spans = np.linalg.norm(np.diff(at, axis=1), axis=2) / _GRID_PX
        return self._steady(float(np.median(spans)), pyramid)

    def _steady(self, span: float, pyramid: Pyramid) -> int:
        """The level for texels that a pixel spans; the last one while that is nearly right."""
        wanted = float(np.log2(max(span, 1e-6))) + LEVEL_BIAS
        if self._level is None or abs(wanted - self._level) > _SWITCH:
            self._level = int(np.clip(round(wanted), 0, pyramid.coarsest))
        return self._level


def _remap(texture: np.ndarray, at: np.ndarray, border: int) -> np.ndarray:
    none: Any = None  # the stubs want a second map
    return cv2.remap(texture, at, none, cv2.INTER_LINEAR, borderMode=border)
