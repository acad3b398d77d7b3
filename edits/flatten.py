"""All paint on an atlas as one picture, for programs that lay one picture on it."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from atlas.coords import Size, pixel_grid
from atlas.errors import InputError
from atlas.mapping import Layer
from atlas.texture import Texture, sample
from edits.apply import Renderer
from edits.blend import paint_over
from edits.context import look_at
from edits.paint import Paint

DETAIL = 2
"""Flat pictures have this many pixels for each texel of the atlas, either way ..."""
DETAIL_SIDE_PX = 6000
"""... as long as that makes them no larger than this; else as many as the atlas."""
log = logging.getLogger(__name__)


def flat_paints(renderer: Renderer) -> dict[str, np.ndarray]:
    """By layer name, (h, w, 4) float32 straight RGBA: what the recipe paints on each atlas.

    What a still picture on an atlas cannot hold is refused (removed layers) or reported (skies
    that move, looks, grain).
    """
    if renderer.removal is not None:
        raise InputError(
            "a removed layer cannot be handed over as paint; export without it, and lay the atlas "
            "of the layer below over the plate"
        )
    for name, given in (("look", renderer.recipe.look), ("keep_grain", renderer.recipe.keep_grain)):
        if given:
            log.warning("the recipe's %s is not part of the hand-over", name)
    context = renderer.context
    if not renderer.recipe.edits:
        return {}
    first = look_at(renderer.mapping, context, context.first_frame).found
    flat = {}
    for index, paints in renderer.paints(first).items():
        layer = renderer.mapping.layers[index]
        texture = None if context.textures is None else context.textures[index]
        flat[layer.name] = flatten(paints, layer, texture)
    return flat


def flatten(paints: Sequence[Paint], layer: Layer, texture: Texture | None) -> np.ndarray:
    """(h, w, 4) float32 straight RGBA that has the effect of `paints`, one after the other.

    Blend modes other than normal are worked out on the atlas's own colours, so that the result,
    laid on those in normal mode, gives what the paints give.

    Args:
        texture: the layer's atlas; None where it is not known: then all must be normal.
    """
    detail = DETAIL if max(layer.canvas.wh) * DETAIL <= DETAIL_SIDE_PX else 1
    size = Size(layer.canvas.height * detail, layer.canvas.width * detail)
    uv = pixel_grid(layer.canvas, size)
    if texture is None and any(paint.blend != "normal" for paint in paints):
        raise InputError(
            f"layer {layer.name!r} has no atlas (fast path), so only paint in normal mode can be "
            "handed over"
        )
    base = np.zeros((*uv.shape[:2], 3), np.float32) if texture is None else sample(texture.rgb, uv)
    colour = np.zeros_like(base)  # premultiplied
    alpha = np.zeros((*uv.shape[:2], 1), np.float32)
    for paint in paints:
        rgba = _at(paint, uv, 0.0)
        if not np.array_equal(rgba, _at(paint, uv, 1.0)):
            log.warning("paint on layer %r changes over time; its start is handed over", layer.name)
        share = rgba[..., 3:]
        if paint.blend == "normal":
            colour = rgba[..., :3] + (1 - share) * colour
        else:  # share * B(backdrop, paint) over what is there
            backdrop = colour + (1 - alpha) * base
            blended = paint_over(backdrop, rgba, paint.blend) - (1 - share) * backdrop
            colour = blended + (1 - share) * colour
        alpha = share + (1 - share) * alpha
    straight = np.clip(colour / np.maximum(alpha, 1e-6), 0, 1)
    return np.dstack([straight, alpha]).astype(np.float32)


def _at(paint: Paint, uv: np.ndarray, time_s: float) -> np.ndarray:
    rgba = paint.sample(uv, time_s)
    return rgba.astype(np.float32) / 255 if rgba.dtype == np.uint8 else rgba
