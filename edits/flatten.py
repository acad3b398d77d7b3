"""Paint on an atlas as still pictures, for programs that lay pictures on it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from atlas.coords import Size, pixel_grid
from atlas.errors import InputError
from atlas.mapping import Layer
from edits.apply import Renderer
from edits.context import look_at
from edits.paint import Paint

DETAIL = 2
"""Flat pictures have this many pixels for each texel of the atlas, either way ..."""
DETAIL_SIDE_PX = 6000
"""... as long as that makes them no larger than this; else as many as the atlas."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FlatPaint:
    """A picture on an atlas: (h, w, 4) float32 straight RGBA, and its blend mode."""

    rgba: np.ndarray
    blend: str = "normal"


def flat_paints(renderer: Renderer) -> dict[str, list[FlatPaint]]:
    """By layer name: what the recipe paints on each atlas, in order of application.

    What still pictures on an atlas cannot hold is refused (removed layers) or reported (skies
    that move, looks, grain).
    """
    if renderer.removal is not None:
        raise InputError(
            "a removed layer cannot be handed over as paint; export without it, and lay the atlas "
            "of the layer below over the plate"
        )
    for name, given in (("look", renderer.recipe.look), ("keep_grain", renderer.recipe.keep_grain)):
        if given:
            log.warning(
                "the scripts rebuild the edit without its %s; the folder rendered has the finished "
                "frames",
                name,
            )
    if not renderer.recipe.edits:
        return {}
    first = look_at(renderer.mapping, renderer.context, renderer.context.first_frame).found
    layers = renderer.mapping.layers
    return {layers[i].name: flatten(p, layers[i]) for i, p in renderer.paints(first).items()}


def flatten(paints: Sequence[Paint], layer: Layer) -> list[FlatPaint]:
    """The same paint as pictures edge to edge on the atlas; neighbours in normal mode become one.

    Paint that changes over time is taken at its start, and that is reported.
    """
    detail = DETAIL if max(layer.canvas.wh) * DETAIL <= DETAIL_SIDE_PX else 1
    size = Size(layer.canvas.height * detail, layer.canvas.width * detail)
    uv = pixel_grid(layer.canvas, size)
    flat = []
    for blend, group in groupby(paints, lambda paint: paint.blend):
        pictures = [_picture(paint, uv, layer) for paint in group]
        if blend != "normal":
            flat += [FlatPaint(_straight(picture), blend) for picture in pictures]
            continue
        over = pictures[0]
        for picture in pictures[1:]:
            over = picture + (1 - picture[..., 3:]) * over
        flat.append(FlatPaint(_straight(over)))
    return flat


def _picture(paint: Paint, uv: np.ndarray, layer: Layer) -> np.ndarray:
    """(h, w, 4) float32, premultiplied."""
    now, later = paint.sample(uv, 0.0), paint.sample(uv, 1.0)
    if not np.array_equal(now, later):
        log.warning("paint on layer %r changes over time; its start is handed over", layer.name)
    return now.astype(np.float32) / 255 if now.dtype == np.uint8 else now


def _straight(rgba: np.ndarray) -> np.ndarray:
    colour = np.clip(rgba[..., :3] / np.maximum(rgba[..., 3:], 1e-6), 0, 1)
    return np.dstack([colour, rgba[..., 3]]).astype(np.float32)
