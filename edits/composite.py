"""Original pixels first: an edit lands as a difference, weighted by what the pixel shows of it.

    new frame = frame + sum over layers of share * (new colour - own colour)

with the layer's own colour as `edits.unmix` finds it. A pixel that shows nothing of the edited
layer, or where the paint is transparent, keeps its value to the bit. Colours are display-encoded
(sRGB), the space in which cameras and paint programs blend.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from edits.blend import paint_over
from edits.paint import Paint, shaded_sample
from edits.unmix import estimate_color, own_color

SHARE_STEP = 1 / 512
"""Shares closer than this to 0 or 1 count as 0 or 1: less than half a grey level."""
GRAIN_SIGMA_PX = 1.5
_GRAIN_LIMIT = 3.0


@dataclass(frozen=True)
class LayerEdit:
    """What happens to one layer in one frame.

    share: (H, W) float32, how much of each pixel shows the layer. uv: (H, W, 2) float32 texels.
    paints: in the order in which they are applied.
    prior: (H, W, 3) float32, the layer's own colour as the atlas has it, or None.
    gain: (H, W, 3) float32, the layer's shading in this frame, or None.
    time_s: presentation time of the frame, seconds. keep_grain: [0, 1].
    replaced: (H, W, 3) float32, what the layer shows instead of its own colour, under the paints;
        None for its own colour.
    unmix: whether a mixed pixel's own colour is told from the rest; False for shares that were
        widened beyond the layer, where pixels are faded as they are.
    """

    share: np.ndarray
    uv: np.ndarray
    paints: Sequence[Paint]
    prior: np.ndarray | None = None
    gain: np.ndarray | None = None
    time_s: float = 0.0
    keep_grain: float = 0.0
    replaced: np.ndarray | None = None
    unmix: bool = True


def replace_layer(
    frame: np.ndarray, share: np.ndarray, old: np.ndarray, new: np.ndarray
) -> np.ndarray:
    """frame + share (new - old), with the rest of the pixel, frame - share old, kept in range.

    Args:
        frame, old, new: (..., 3) float, [0, 1]. share: (...) float, [0, 1].
    Returns:
        (..., 3) float: exactly `frame` where the share is 0, `new` where it is 1.
    """
    share = share[..., None]
    return frame + share * (new - own_color(frame, share, old))


def composite_frame(frame: np.ndarray, edits: Sequence[LayerEdit]) -> np.ndarray:
    """Apply every layer's edit to one frame.

    Args:
        frame: (H, W, 3) uint8 or uint16 RGB; left as it is.
    Returns:
        (H, W, 3) of the same type.
    """
    boxes = [
        bounding_box(edit.share) if edit.paints or edit.replaced is not None else None
        for edit in edits
    ]
    landing = [(e, box) for e, box in zip(edits, boxes, strict=True) if box is not None]
    if not landing:
        return frame.copy()
    peak = np.float32(np.iinfo(frame.dtype).max)
    if len(landing) == 1 and _is_replacement(landing[0][0]):
        return _replaced(frame, *landing[0])
    scaled = frame.astype(np.float32) * (1 / peak)
    values = scaled.copy()
    for edit, box in landing:
        values[box] += layer_delta(scaled, edit, box)
    return _quantised(values, frame.dtype)


def layer_delta(frame: np.ndarray, edit: LayerEdit, box: tuple[slice, slice]) -> np.ndarray:
    """share * (new - own) of one layer inside `box`.

    Args:
        frame: (H, W, 3) float32, [0, 1], the whole frame.
        box: rows and columns outside of which the share is 0.
    Returns:
        (h, w, 3) float32.
    """
    share = _snapped(edit.share[box])
    old = frame[box].copy()
    at = np.nonzero((share > 0) & (share < 1))
    if at[0].size and edit.unmix:
        estimate = estimate_color(frame, edit.share, edit.prior)[box]
        old[at] = own_color(old[at], share[at][:, None], estimate[at])
    new, through = old, np.ones((*share.shape, 1), np.float32)
    if edit.replaced is not None:
        new, through = edit.replaced[box], np.zeros_like(through)
    for paint in edit.paints:
        gain = None if edit.gain is None else edit.gain[box]
        sampled = shaded_sample(paint, edit.uv[box], gain, edit.time_s)
        new = paint_over(new, sampled, paint.blend)
        if paint.blend == "normal":  # the other modes let the grain through
            through = through * (1 - sampled[..., 3:])
    if edit.keep_grain > 0:
        grain = grain_of(frame[box] - (0 if edit.prior is None else edit.prior[box]), share)
        new = new + edit.keep_grain * (1 - through) * grain
    return share[..., None] * (new - old)


def _is_replacement(edit: LayerEdit) -> bool:
    """Whether the last paint hides all that the layer showed before."""
    if not edit.paints:
        return False
    last = edit.paints[-1]
    shaded = edit.gain is not None and last.takes_shading
    return last.opaque and last.blend == "normal" and edit.keep_grain == 0 and not shaded


def _replaced(frame: np.ndarray, edit: LayerEdit, box: tuple[slice, slice]) -> np.ndarray:
    """`composite_frame` for one layer under opaque paint: only mixed pixels need arithmetic."""
    peak = np.float32(np.iinfo(frame.dtype).max)
    share = _snapped(edit.share[box])
    new = edit.paints[-1].sample(edit.uv[box], edit.time_s)
    out = frame.copy()
    np.copyto(out[box], _levels(new, frame.dtype), where=(share == 1)[..., None])
    at = np.nonzero((share > 0) & (share < 1))
    if at[0].size:
        scaled = frame.astype(np.float32) * (1 / peak)
        estimate = estimate_color(scaled, edit.share, edit.prior)[box]
        wanted = new[at][:, :3].astype(np.float32)
        wanted *= 1 / 255 if new.dtype == np.uint8 else 1
        mixed = replace_layer(scaled[box][at], share[at], estimate[at], wanted)
        out[box][at] = _quantised(mixed, frame.dtype)
    return out


def _snapped(share: np.ndarray) -> np.ndarray:
    """Shares with what is as good as 0 or 1 made so."""
    share = np.where(share < SHARE_STEP, np.float32(0), share)
    share[share > 1 - SHARE_STEP] = 1
    return share


def _quantised(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """[0, 1] to whole levels of `dtype`, rounded and kept in range; `values` is used up."""
    peak = np.float32(np.iinfo(dtype).max)
    np.multiply(values, peak, out=values)
    np.rint(values, out=values)
    return np.clip(values, 0, peak, out=values).astype(dtype)


def _levels(rgba: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """(H, W, 4) paint, uint8 or float32, as (H, W, 3) levels of `dtype`."""
    rgb = cv2.cvtColor(rgba, cv2.COLOR_RGBA2RGB)
    if rgb.dtype == dtype:
        return rgb
    if rgb.dtype == np.uint8:
        return rgb.astype(dtype) * dtype.type(257)
    return _quantised(rgb, dtype)


def grain_of(residual: np.ndarray, share: np.ndarray) -> np.ndarray:
    """The fine noise of a layer: the high-frequency part of what its texture does not explain.

    Only where the pixel shows the layer alone; amplitudes are cut at three robust standard
    deviations, so that misplaced structure does not pass for grain.

    Args:
        residual: (H, W, 3) float32, frame - prior, or the frame where there is none.
        share: (H, W) float32.
    Returns:
        (H, W, 3) float32.
    """
    fine = residual - cv2.GaussianBlur(residual, (0, 0), GRAIN_SIGMA_PX)
    solid = share >= 1
    if not solid.any():
        return np.zeros_like(residual)
    sigma = 1.4826 * float(np.median(np.abs(fine[solid])))
    fine = np.clip(fine, -_GRAIN_LIMIT * sigma, _GRAIN_LIMIT * sigma)
    return np.where(solid[..., None], fine, 0)


def bounding_box(share: np.ndarray) -> tuple[slice, slice] | None:
    """Rows and columns that enclose every share of more than next to nothing; None without any.

    Args:
        share: (H, W) float32.
    """
    rows = np.flatnonzero(cv2.reduce(share, 1, cv2.REDUCE_MAX) >= SHARE_STEP)
    columns = np.flatnonzero(cv2.reduce(share, 0, cv2.REDUCE_MAX) >= SHARE_STEP)
    if rows.size == 0:
        return None
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def side_by_side(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """(H, 2 W, 3): the original on the left, the edit on the right."""
    return np.concatenate([before, after], axis=1)
