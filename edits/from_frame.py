"""Paint on frames, carried into the atlas of every layer that it covers.

A painted frame says, pixel by pixel, which colour at which opacity lies over what was there. Where
a pixel shows one layer alone that is the layer's paint; where it shows several, each layer's paint
follows from its surroundings and the pixel's shares. The inverse mapping then brings it onto the
canvas. What the frame does not show of a canvas is left alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from atlas.coords import Size
from atlas.errors import InputError
from atlas.mapping import LayerMapping
from edits.context import (
    RenderContext,
    Sight,
    atlas_color,
    check_frame,
    look_at,
    read_source_frame,
)
from edits.inverse import invert_uv
from edits.kinds import FramePaint
from edits.paint import same_aspect
from edits.patch import PatchPaint, to_patch
from edits.picture import Picture, read_picture
from edits.unmix import estimate_color, own_color, push_pull
from edits.view import Region

LEAST_SHARE = 1 / 128
"""A layer of which a pixel shows less takes no paint from it."""
PURE_SHARE = 0.98
SOLID_LEVELS = 24.0
"""A difference of this many levels counts as fully opaque paint, a smaller one as translucent."""
DETAIL = 1.15
"""Texels of the carried paint per pixel of the painted frame."""
MAX_TEXELS = 6144
_REACH_PX = 2
_NOISE_QUANTILE, _QUANTILE_SIGMAS = 0.2, 0.2533
"""A fifth of the absolute values of Gaussian noise lie below 0.2533 standard deviations."""
_MOST_NOISE = 12.0


@dataclass(frozen=True)
class PaintedLayer:
    """One layer's paint in one frame: (H, W, 4) float32 premultiplied, unshaded; (H, W, 2) uv."""

    rgba: np.ndarray
    uv: np.ndarray


def carry_paint(
    edits: Sequence[FramePaint], mapping: LayerMapping, context: RenderContext
) -> dict[int, PatchPaint]:
    """Bring several frames' paint onto the canvases: by layer number, one paint each.

    Where frames' paints meet, the later one lies on top, and the opacity is the larger of the two:
    the same wash painted in two frames stays one wash.
    """
    painted: dict[int, list[PaintedLayer]] = {}
    for edit in edits:
        only = None if edit.layer is None else mapping.layer_index(edit.layer)
        for layer, found in _read_paint(edit, mapping, context, only).items():
            painted.setdefault(layer, []).append(found)
    return {layer: _merged(parts) for layer, parts in painted.items()}


def _read_paint(
    edit: FramePaint, mapping: LayerMapping, context: RenderContext, only: int | None
) -> dict[int, PaintedLayer]:
    check_frame(mapping, context, edit.frame)
    picture = read_picture(Path(edit.path))
    frame_size = Size(*read_source_frame(context, edit.frame).shape[:2])
    if not same_aspect(picture.size, frame_size):
        raise InputError(
            f"{edit.path}: is {picture.size}, but frame {edit.frame} is {frame_size}; wanted that "
            f"size or another of the same aspect (within 2 %)"
        )
    if picture.opaque and picture.size.width > frame_size.width:
        smaller = cv2.resize(picture.rgb, frame_size.wh, interpolation=cv2.INTER_AREA)
        picture = Picture(smaller, None)
    sight = look_at(mapping, context, edit.frame, picture.size)
    if picture.opaque:
        frame_paint = difference_paint(sight.rgb, picture.rgb, edit.threshold)
        layers = split_by_layer(frame_paint, sight, context)
    else:
        layers = [picture.premultiplied()] * len(mapping.layers)
    shares = sight.found.visible()
    out = {}
    for i, rgba in enumerate(layers):
        if only is None or i == only:
            ready = _on_layer(rgba, shares[i], None if sight.gains is None else sight.gains[i])
            if ready is not None:
                out[i] = PaintedLayer(ready, sight.found.uv[i])
    if not out:
        what = "does not differ from it" if picture.opaque else "covers nothing that it shows"
        where = "" if edit.layer is None else f" of layer {edit.layer!r}"
        raise InputError(f"{edit.path}: painted frame {edit.frame}{where}: {what}")
    return out


def difference_paint(
    before: np.ndarray, after: np.ndarray, threshold: float | None = None
) -> np.ndarray:
    """The paint that turns one picture into the other: before (1 - a) + a C = after.

    Strong differences become opaque, weak ones translucent, as far as a colour in range allows.
    Differences that are coding noise (up to `threshold`, and specks) are no paint.

    Args:
        before, after: (H, W, 3) float32, [0, 1].
        threshold: 8-bit levels; None: four standard deviations of the noise, as the quietest
            fifth of the pixels shows it, at most 12 levels.
    Returns:
        (H, W, 4) float32, premultiplied.
    """
    change = after - before
    size = np.abs(change).max(-1) * 255
    if threshold is None:
        quiet = float(np.quantile(size, _NOISE_QUANTILE)) / _QUANTILE_SIGMAS
        threshold = min(max(4 * quiet, 1.0), _MOST_NOISE)
    kept = _without_specks(size, threshold)
    solid = max(SOLID_LEVELS, 3 * threshold)
    ramp = np.clip((size - threshold / 2) / (solid - threshold / 2), 0, 1)
    room = np.where(change > 0, 1 - before, before)  # how far the colour could go either way
    least = (np.abs(change) / np.maximum(room, 1e-6)).max(-1)
    alpha = np.where(kept, np.clip(np.maximum(ramp, least), 0, 1), 0).astype(np.float32)
    rgb = np.clip(before * alpha[..., None] + np.where(kept[..., None], change, 0), 0, 1)
    return np.dstack([np.minimum(rgb, alpha[..., None]), alpha]).astype(np.float32)


def _without_specks(size: np.ndarray, threshold: float) -> np.ndarray:
    """(H, W) bool: differences above the threshold that belong to a patch, not to noise."""
    if threshold <= 1:  # a copy without loss: whatever differs is paint
        return size > threshold * 0.5
    smooth = cv2.GaussianBlur(size.astype(np.float32), (0, 0), 1.0)
    weak = (smooth > threshold).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(weak, connectivity=8)
    strongest = np.zeros(count)
    np.maximum.at(strongest, labels.ravel(), smooth.ravel())
    good = (strongest > 1.5 * threshold) & (stats[:, cv2.CC_STAT_AREA] >= 12)
    good[0] = False
    return cv2.dilate(good[labels].astype(np.uint8), np.ones((3, 3), np.uint8)) > 0


def split_by_layer(paint: np.ndarray, sight: Sight, context: RenderContext) -> list[np.ndarray]:
    """Each layer's own paint from that of the frame: (H, W, 4) float32, premultiplied.

    Pure pixels give each layer's change; diffused into mixed pixels it is a guess d_l there, and
    the least correction (weighted by opacity a_l) makes the sum right:
    d_l += share_l a_l r / sum_k share_k^2 a_k with r what is left over.
    """
    frame, shares = sight.rgb, sight.found.visible()
    total = paint[..., :3] - paint[..., 3:] * frame  # the change of the pixel
    mixed = ((shares >= LEAST_SHARE) & (shares < PURE_SHARE)).any(0)
    at = np.nonzero(mixed & (_near(paint[..., 3] > 0)))
    layers = [paint.copy() for _ in shares]
    if at[0].size == 0:
        return layers
    share = shares[:, at[0], at[1], None]
    alphas, guesses, owns = [], [], []
    for i, plane in enumerate(shares):
        spread = _spread(np.dstack([total, paint[..., 3]]), plane)[at]
        gain = None if sight.gains is None else sight.gains[i]
        prior = atlas_color(context, sight.found, i, gain)
        guesses.append(spread[:, :3])
        alphas.append(np.clip(spread[:, 3:], 0, 1))
        owns.append(own_color(frame[at], share[i], estimate_color(frame, plane, prior)[at]))
    alpha, change = np.stack(alphas), np.stack(guesses)
    left = total[at] - (share * change).sum(0)
    change = change + share * alpha * left / np.maximum((share**2 * alpha).sum(0), 1e-3)
    for layer, a, d, own in zip(layers, alpha, change, owns, strict=True):
        layer[at] = np.concatenate([np.clip(own * a + d, 0, a), a], axis=-1)
    return layers


def _near(painted: np.ndarray) -> np.ndarray:
    return cv2.dilate(painted.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0


def _spread(values: np.ndarray, share: np.ndarray) -> np.ndarray:
    """(H, W, 4): values of the pixels that show the layer alone, diffused into the others."""
    weight = np.where(share >= PURE_SHARE, np.float32(1), np.float32(0))[..., None]
    colors = push_pull(np.dstack([values[..., :3] * weight, weight]).astype(np.float32))
    alphas = push_pull(np.dstack([np.repeat(values[..., 3:], 3, 2) * weight, weight]))
    if colors is None or alphas is None:  # thin things: nothing but the mixed pixels to go by
        return values
    return np.dstack([colors, alphas[..., :1]])


def _on_layer(rgba: np.ndarray, share: np.ndarray, gain: np.ndarray | None) -> np.ndarray | None:
    """The paint where the frame shows the layer, a little beyond its edge, without shading."""
    if gain is not None:
        rgba = np.dstack([rgba[..., :3] / np.maximum(gain, 0.05), rgba[..., 3]])
    seen = (share >= LEAST_SHARE).astype(np.float32)
    rgba = rgba * seen[..., None]
    if not (rgba[..., 3] > 1 / 255).any():
        return None
    width = 2 * _REACH_PX + 1
    near = cv2.blur(seen, (width, width), borderType=cv2.BORDER_REPLICATE)
    beyond = cv2.blur(rgba, (width, width), borderType=cv2.BORDER_REPLICATE)
    fill = (seen == 0) & (near > 0.01)
    rgba[fill] = beyond[fill] / near[fill][:, None]
    return rgba.astype(np.float32)


def _merged(parts: Sequence[PaintedLayer]) -> PatchPaint:
    region, size = _patch_of(parts)
    merged = np.zeros((size.height, size.width, 4), np.float32)
    for part in parts:
        merged = lay_over(merged, _carried(part, region, size))
    return PatchPaint(region, merged)


def lay_over(below: np.ndarray, above: np.ndarray) -> np.ndarray:
    """Merge two paints of the same thing: the upper colour first, the larger of the opacities.

    Args:
        below, above: (H, W, 4) float32, premultiplied.
    """
    alpha = np.maximum(below[..., 3:], above[..., 3:])
    say = above[..., 3:] / np.maximum(alpha, 1e-6)
    straight = below[..., :3] / np.maximum(below[..., 3:], 1e-6) * (1 - say)
    straight = straight + above[..., :3] / np.maximum(above[..., 3:], 1e-6) * say
    return np.dstack([straight * alpha, alpha])


def _patch_of(parts: Sequence[PaintedLayer]) -> tuple[Region, Size]:
    """The part of the canvas that the paint covers, and the size of a picture of it."""
    low, high, texels = np.full(2, np.inf), np.full(2, -np.inf), np.inf
    for part in parts:
        inside = part.rgba[..., 3] > 1 / 512
        uv = part.uv[inside]
        uv = uv[np.isfinite(uv).all(-1)]
        if uv.size:
            low, high = np.minimum(low, uv.min(0)), np.maximum(high, uv.max(0))
        steps = np.linalg.norm(np.diff(part.uv, axis=1), axis=-1)[inside[:, 1:]]
        steps = steps[np.isfinite(steps)]
        texels = min(texels, float(np.median(steps)) if steps.size else 1.0)
    detail = DETAIL / max(texels, 1e-3)
    low, high = np.floor(low) - 1.5, np.ceil(high) + 1.5
    detail = min(detail, MAX_TEXELS / float((high - low).max()))
    width, height = np.maximum(np.ceil((high - low) * detail), 1).astype(int)
    return Region(low[0], low[1], high[0], high[1]), Size(int(height), int(width))


def _carried(part: PaintedLayer, region: Region, size: Size) -> np.ndarray:
    """(h, w, 4) float32: the frame's paint as seen from every texel of the patch."""
    x, y, width, height = cv2.boundingRect((part.rgba[..., 3] > 1 / 512).astype(np.uint8))
    top, left = max(y - 4, 0), max(x - 4, 0)
    box = slice(top, y + height + 4), slice(left, x + width + 4)
    uv = to_patch(np.ascontiguousarray(part.uv[box]), region, size)
    inverse = invert_uv(uv, size)
    picture = np.ascontiguousarray(part.rgba[box])
    seen = cv2.remap(picture, inverse.xy, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    seen[~inverse.found] = 0
    alpha = np.clip(seen[..., 3:], 0, 1)
    return np.dstack([np.maximum(seen[..., :3], 0), alpha])
