"""Paint: a picture that lies on a layer's atlas.

A picture keeps its own resolution; only positions are scaled to it, so paint finer than the atlas
stays fine when frames are rendered larger than they were fitted.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from atlas.coords import Size, resize_positions
from atlas.errors import InputError
from atlas.mapping import Layer
from edits.mipmap import Pyramid
from edits.picture import Picture, read_picture
from edits.recipe import LayerPaint
from edits.view import CanvasView

ASPECT_TOLERANCE = 0.02
"""How far a picture's aspect may be from the atlas's, as a share of it."""


class Paint(Protocol):
    """Anything that has a colour at every position of a layer's atlas."""

    blend: str
    """A key of `edits.blend.BLEND_MODES`."""
    takes_shading: bool
    """Whether the layer's shading (light that changes over the clip) falls on it."""
    opaque: bool
    """Whether its opacity is 1 wherever it may be sampled."""

    def sample(self, uv: np.ndarray, time_s: float) -> np.ndarray:
        """Colour times opacity, and opacity, at atlas positions.

        Args:
            uv: (H, W, 2) float32, texels of the layer's canvas, (x, y) order.
            time_s: presentation time of the frame, seconds.
        Returns:
            (H, W, 4), float32 in [0, 1] or uint8.
        """
        ...


class PaintSource(Protocol):
    """Paint that has been read and checked, and waits to be placed."""

    def place(self, view: CanvasView) -> Paint:
        """The paint at its place, now that it is known where the clip looks."""
        ...


class PicturePaint:
    """A picture stretched over the whole canvas, edge to edge.

    border: OpenCV border mode beyond the canvas; `cv2.BORDER_CONSTANT` means no paint there.
    """

    def __init__(
        self,
        picture: Picture,
        canvas: Size,
        blend: str = "normal",
        *,
        border: int = cv2.BORDER_CONSTANT,
        takes_shading: bool = True,
    ):
        self.blend = blend
        self.takes_shading = takes_shading
        self.opaque = picture.opaque and border != cv2.BORDER_CONSTANT
        self._canvas = canvas
        self._pyramid = Pyramid(picture.premultiplied(), border)

    def place(self, view: CanvasView) -> Paint:
        return self

    def sample(self, uv: np.ndarray, time_s: float) -> np.ndarray:
        if self._pyramid.size != self._canvas:
            uv = resize_positions(uv, self._canvas, self._pyramid.size)
        return self._pyramid.sample(uv)


def open_layer_paint(edit: LayerPaint, layer: Layer) -> PicturePaint:
    """Read and check the picture of a `LayerPaint` for the layer it goes on."""
    picture = read_picture(Path(edit.path))
    if not same_aspect(picture.size, layer.canvas):
        raise InputError(
            f"{edit.path}: is {picture.size}, but the atlas of layer {layer.name!r} is "
            f"{layer.canvas}; wanted that size or another of the same aspect (within 2 %)"
        )
    return PicturePaint(picture, layer.canvas, edit.blend)


def float_sample(paint: Paint, uv: np.ndarray, time_s: float) -> np.ndarray:
    """(H, W, 4) float32, [0, 1]: the paint at (H, W, 2) texels, premultiplied, without light."""
    sampled = paint.sample(uv, time_s)
    if sampled.dtype == np.uint8:
        sampled = sampled.astype(np.float32) * np.float32(1 / 255)
    return sampled


def lit(sampled: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """(H, W, 4) float32: premultiplied paint under the layer's light.

    Args:
        gain: (H, W, 3) float32, the layer's shading.
    """
    out = sampled.copy()
    np.minimum(sampled[..., :3] * gain, sampled[..., 3:], out=out[..., :3])
    return out


def shaded_sample(
    paint: Paint, uv: np.ndarray, gain: np.ndarray | None, time_s: float
) -> np.ndarray:
    """(H, W, 4) float32: `float_sample`, under the layer's light where there is one to take."""
    sampled = float_sample(paint, uv, time_s)
    return lit(sampled, gain) if gain is not None and paint.takes_shading else sampled


def same_aspect(picture: Size, canvas: Size) -> bool:
    """Whether the picture can lie on the canvas without being stretched visibly."""
    ratio = (picture.width * canvas.height) / (picture.height * canvas.width)
    return abs(ratio - 1) <= ASPECT_TOLERANCE
