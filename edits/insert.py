"""Text, pictures and videos pinned to four points of one frame, as part of a layer.

A position on the canvas is carried to the frame of the pins (a homography fitted about the pins,
plus what the mapping deviates from it), and from there by the pins' perspective to the picture. The
picture is so sampled once, at its own resolution, in every frame.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from atlas.coords import Size, apply_homography, pixel_grid
from atlas.errors import InputError
from edits.context import Sight
from edits.inverse import invert_uv
from edits.kinds import Insert
from edits.lettering import render_text
from edits.mipmap import Pyramid
from edits.patch import from_patch, pixels_within, to_patch
from edits.picture import read_picture
from edits.sky import PICTURE_SUFFIXES
from edits.sky_video import open_looped
from edits.unmix import push_pull
from edits.view import Region

LATTICE = 192
"""Points of the deviation's lattice along its longer side."""
LEAST_DEVIATION_PX = 0.05
_LEAST_PIXELS = 64


@dataclass(frozen=True)
class PinMotion:
    """From the canvas to the frame in which the pins were set.

    matrix: (3, 3) float64, canvas texels to frame pixels. region: where the picture can be.
    deviation: (h, w, 2) float32 px to add, on a lattice that fills `region`; None for none.
    """

    matrix: np.ndarray
    region: Region
    deviation: np.ndarray | None

    def to_frame(self, uv: np.ndarray) -> np.ndarray:
        """(H, W, 2) float32 canvas texels to frame pixels; nan beyond the horizon."""
        xy = apply_homography(self.matrix, uv)
        if self.deviation is not None:
            size = Size(*self.deviation.shape[:2])
            at = to_patch(np.nan_to_num(uv), self.region, size)
            border = cv2.BORDER_REPLICATE
            xy += cv2.remap(self.deviation, at, None, cv2.INTER_LINEAR, borderMode=border)
        return xy


class PinnedPaint:
    """A picture or video at its pins.

    Args:
        content: time in seconds -> the picture as a pyramid, always of one size.
        to_picture: (3, 3) float64, pixels of the pins' frame to pixels of the picture.
    """

    takes_shading = True
    opaque = False

    def __init__(
        self,
        content: Callable[[float], Pyramid],
        motion: PinMotion,
        to_picture: np.ndarray,
        edit: Insert,
    ):
        self.blend = edit.blend
        self._opacity = edit.opacity
        self._content, self._motion, self._to_picture = content, motion, to_picture

    def place(self, view: object) -> PinnedPaint:
        return self

    def sample(self, uv: np.ndarray, time_s: float) -> np.ndarray:
        out = np.zeros((*uv.shape[:2], 4), np.float32)
        box = pixels_within(uv, self._motion.region)
        if box is None:
            return out
        at = apply_homography(self._to_picture, self._motion.to_frame(uv[box]))
        found = self._content(time_s).sample(at.astype(np.float32))
        scale = self._opacity / 255 if found.dtype == np.uint8 else self._opacity
        np.multiply(found, np.float32(scale), out=out[box])
        return out


def open_insert(edit: Insert, sight: Sight, layer: int) -> PinnedPaint:
    """Read what is inserted and fix it to layer number `layer` as `sight` shows it."""
    corners = np.array(edit.corners, np.float64)
    motion = follow_pins(sight.found.uv[layer], corners, edit)
    content, size = _content(edit, corners)
    edges = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * size.wh - 0.5
    to_picture = cv2.getPerspectiveTransform(
        corners.astype(np.float32), edges.astype(np.float32)
    ).astype(np.float64)
    return PinnedPaint(content, motion, to_picture, edit)


def follow_pins(uv: np.ndarray, corners: np.ndarray, edit: Insert) -> PinMotion:
    """How the canvas lies to the frame about the pins.

    Args:
        uv: (H, W, 2) float32, the layer's texels at every pixel of the pins' frame.
        corners: (4, 2) float, pixels.
    """
    size = Size(*uv.shape[:2])
    inside = np.zeros((size.height, size.width), np.uint8)
    cv2.fillConvexPoly(inside, np.rint(corners).astype(np.int32), 1)
    inside = (inside > 0) & np.isfinite(uv).all(-1)
    if int(inside.sum()) < _LEAST_PIXELS:
        raise InputError(
            f"the four points of {edit.layer}@{edit.frame} enclose {int(inside.sum())} pixels of "
            f"the frame ({size}); wanted at least {_LEAST_PIXELS}"
        )
    xy = pixel_grid(size)
    step = max(1, int(np.sqrt(inside.sum() / 4000)))
    some = np.zeros_like(inside)
    some[::step, ::step] = inside[::step, ::step]
    matrix = _fitted(uv[some], xy[some])
    outline = apply_homography(np.linalg.inv(matrix), corners)
    around = np.concatenate([outline[np.isfinite(outline).all(-1)], uv[inside]])
    low, high = np.floor(around.min(0)) - 3.5, np.ceil(around.max(0)) + 3.5
    region = Region(*map(float, (low[0], low[1], high[0], high[1])))
    return PinMotion(matrix, region, _deviation(uv, matrix, region))


def _fitted(uv: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """(3, 3) homography from texels to pixels by least squares; w > 0 where it was fitted."""
    matrix, _ = cv2.findHomography(uv.astype(np.float64), xy.astype(np.float64), 0)
    if matrix is None:
        raise InputError("the layer does not move like a surface at the four points; move them")
    middle = uv.mean(0)
    w = matrix[2, 0] * middle[0] + matrix[2, 1] * middle[1] + matrix[2, 2]
    return matrix * np.sign(w)


def _deviation(uv: np.ndarray, matrix: np.ndarray, region: Region) -> np.ndarray | None:
    """(h, w, 2) px: what the mapping adds to the homography, continued where it is not seen."""
    scale = min(1.0, LATTICE / max(region.width, region.height))
    size = Size(max(round(region.height * scale), 2), max(round(region.width * scale), 2))
    box = pixels_within(uv, region)
    assert box is not None  # the region was made from pixels of this frame
    rows, columns = box
    inverse = invert_uv(to_patch(np.ascontiguousarray(uv[box]), region, size), size)
    straight = apply_homography(matrix, from_patch(pixel_grid(size), region, size))
    offset = inverse.xy + np.array([columns.start, rows.start], np.float32) - straight
    good = inverse.found & np.isfinite(offset).all(-1)
    if not good.any() or float(np.abs(offset[good]).max()) < LEAST_DEVIATION_PX:
        return None
    values = np.where(good[..., None], offset, 0)
    weight = good.astype(np.float32)
    filled = push_pull(np.dstack([values, weight * 0, weight]).astype(np.float32))
    assert filled is not None
    return np.ascontiguousarray(filled[..., :2])


def _content(edit: Insert, corners: np.ndarray) -> tuple[Callable[[float], Pyramid], Size]:
    if edit.text is not None:
        sides = np.linalg.norm(np.roll(corners, -1, axis=0) - corners, axis=1)
        aspect = float((sides[0] + sides[2]) / max(sides[1] + sides[3], 1e-6))
        picture = render_text(edit.text, aspect, edit.color)
    elif Path(edit.path or "").suffix.lower() in PICTURE_SUFFIXES:
        picture = read_picture(Path(edit.path or ""))
    else:
        video = open_looped(Path(edit.path or ""))
        return lambda time_s: _opaque(video.at(time_s)), video.size
    pyramid = Pyramid(picture.premultiplied(), cv2.BORDER_CONSTANT)
    return lambda _: pyramid, picture.size


def _opaque(rgb: np.ndarray) -> Pyramid:
    return Pyramid(cv2.cvtColor(rgb, cv2.COLOR_RGB2RGBA), cv2.BORDER_CONSTANT)
