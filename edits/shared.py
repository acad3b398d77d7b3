"""One edit, placed once on a mapping's canvases and seen through any mapping brought onto them.

Evaluation compares paths under the same edit: the sky is placed where the fitted atlas looks, and
the other path's uv is carried onto that canvas (`atlas.gauge.Regauged`), so nothing but the mapping
and its mattes differs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from atlas.coords import Size
from atlas.mapping import FrameMapping
from atlas.metrics import checkerboard
from atlas.survey import Contender
from atlas.texture import sample
from edits.composite import LayerEdit, composite_frame
from edits.paint import Paint, open_layer_paint
from edits.recipe import LayerPaint, SkyEdit
from edits.sky import open_sky
from edits.view import canvas_view

_LIGHT, _DARK = (1.0, 0.72, 0.2), (0.1, 0.25, 0.55)


@dataclass(frozen=True)
class PlacedEdit:
    """Satisfies `atlas.evaluation.SharedEdit`.

    paint_on_canvas: the paint, at its place. times_s: presentation time of every frame.
    """

    layer: str
    paint_on_canvas: Paint
    times_s: Sequence[float]

    @property
    def takes_light(self) -> bool:
        """Whether the layer's light falls on the paint."""
        return self.paint_on_canvas.takes_shading

    def apply(
        self, rgb: np.ndarray, t: int, found: FrameMapping, contender: Contender
    ) -> np.ndarray:
        """(H, W, 3) uint8: the edited frame; `found` is on the canvases the paint lies on."""
        index = contender.mapping.layer_index(self.layer)
        uv, gain, prior = found.uv[index], None, None
        if contender.shading is not None:
            gain = contender.shading(t)[index]
            if gain.shape[:2] != rgb.shape[:2]:
                gain = cv2.resize(gain, Size(*rgb.shape[:2]).wh, interpolation=cv2.INTER_LINEAR)
        if contender.knows_past:
            prior = sample(contender.textures[index].rgb, uv)
            prior = prior if gain is None else prior * gain
        edit = LayerEdit(
            share=found.visible()[index],
            uv=uv,
            paints=[self.paint_on_canvas],
            prior=prior,
            gain=gain,
            time_s=self.times_s[t] - self.times_s[0],
        )
        return composite_frame(rgb, [edit])

    def paint(self, uv: np.ndarray, t: int) -> np.ndarray:
        """(H, W, 4) float32, premultiplied: the paint at (H, W, 2) texels, unshaded."""
        found = self.paint_on_canvas.sample(uv, self.times_s[t] - self.times_s[0])
        if found.dtype == np.uint8:
            found = found.astype(np.float32) / 255
        if found.shape[2] == 3:
            found = np.dstack([found, np.ones(found.shape[:2], np.float32)])
        return found


class CheckerPaint:
    """Translucent squares over a whole layer: the edit for clips that come without one."""

    blend = "normal"
    takes_shading = True
    opaque = False

    def __init__(self, square: float, blur: float):
        self._square, self._blur = square, blur

    def sample(self, uv: np.ndarray, time_s: float) -> np.ndarray:
        board = checkerboard(uv, self._square, self._blur)[..., None]
        color = board * np.array(_LIGHT, np.float32) + (1 - board) * np.array(_DARK, np.float32)
        opacity = np.full(board.shape, 0.6, np.float32)
        return np.concatenate([color * opacity, opacity], axis=-1)


def place_edit(
    edit: SkyEdit | LayerPaint, reference: Contender, first: FrameMapping, times_s: Sequence[float]
) -> PlacedEdit:
    """Read an edit's files and put it where `edit.py` would for the reference's mapping.

    Args:
        first: the reference's mapping of the first frame.
    """
    index = reference.mapping.layer_index(edit.layer)
    layer = reference.mapping.layers[index]
    source = open_sky(edit, layer) if isinstance(edit, SkyEdit) else open_layer_paint(edit, layer)
    coverage = reference.textures[index].coverage if reference.knows_past else None
    view = canvas_view(first, index, coverage, roll=layer.roll)
    return PlacedEdit(edit.layer, source.place(view), times_s)
