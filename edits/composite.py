"""Original pixels first: an edit lands as a difference, weighted by what the pixel shows of it.

    new frame = frame + sum over layers of share * (new colour - own colour)

with the layer's own colour as `edits.unmix` finds it. A pixel that shows nothing of the edited
layer, or where the paint is transparent, keeps its value to the bit. Colours are display-encoded
(sRGB), the space in which cameras and paint programs blend.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from edits.blend import paint_over
from edits.paint import Paint, float_sample, lit
from edits.unmix import Index, estimate_at, own_color

SHARE_STEP = 1 / 512
"""Shares closer than this to 0 or 1 count as 0 or 1: less than half a grey level."""
GRAIN_SIGMA_PX = 1.5
_GRAIN_LIMIT = 3.0


@dataclass(frozen=True)
class LayerEdit:
    """What happens to one layer in one frame.

    share: (H, W) float32, how much of each pixel shows the layer. uv: (H, W, 2) float32 texels.
    paints: in the order in which they are applied.
    prior: (H, W, 3) float32, the layer's own colour as the atlas has it, or None; or what makes
        it for the pixels of an index, since it is needed only where pixels are mixed.
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
    prior: np.ndarray | Callable[[Index], np.ndarray | None] | None = None
    gain: np.ndarray | None = None
    time_s: float = 0.0
    keep_grain: float = 0.0
    replaced: np.ndarray | None = None
    unmix: bool = True

    def prior_color(self, at: Index) -> np.ndarray | None:
        """`prior` at some pixels, made if need be."""
        if self.prior is None or callable(self.prior):
            return None if self.prior is None else self.prior(at)
        return self.prior[at]


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
    if len(edits) == 1 and _is_replacement(edits[0]):
        box = bounding_box(edits[0].share)
        return frame.copy() if box is None else _replaced(frame, edits[0], box)
    landings = [landing for edit in edits if (landing := _land(edit)) is not None]
    if not landings:
        return frame.copy()
    whole = _enclosing([landing.box for landing in landings])
    needs_all = any(landing.mixed.any() and landing.edit.unmix for landing in landings)
    scaled = _scaled(frame) if needs_all else np.zeros((*frame.shape[:2], 3), np.float32)
    if not needs_all:
        scaled[whole] = _scaled(frame[whole])
    for landing in landings:
        landing.find_own(scaled)
    if len(landings) > 1:
        _reconcile(scaled, landings)
    values = scaled[whole].copy()
    top, left = whole[0].start, whole[1].start
    for landing in landings:
        rows, columns = landing.box
        part = (
            slice(rows.start - top, rows.stop - top),
            slice(columns.start - left, columns.stop - left),
        )
        values[part] += landing.delta(scaled)
    out = frame.copy()
    out[whole] = _quantised(values, frame.dtype)
    return out


@dataclass
class _Landing:
    """One layer's edit where it changes something.

    box: rows and columns of the frame. share: (h, w) float32, snapped. samples: (h, w, 4) float32
    of every paint, premultiplied and lit. own: (h, w, 3) float32, see `find_own`.
    """

    edit: LayerEdit
    box: tuple[slice, slice]
    share: np.ndarray
    samples: list[np.ndarray]
    own: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32))

    @property
    def mixed(self) -> np.ndarray:
        return (self.share > 0) & (self.share < 1)

    def find_own(self, frame: np.ndarray) -> None:
        """What colour the layer has of its own: the frame's, unmixed where it shows others too.

        Args:
            frame: (H, W, 3) float32, [0, 1], the whole frame.
        """
        self.own = frame[self.box].copy()
        at = np.nonzero(self.mixed)
        if at[0].size and self.edit.unmix:
            inside = at[0] + self.box[0].start, at[1] + self.box[1].start
            estimate = estimate_at(frame, self.edit.share, self.edit.prior_color, inside)
            self.own[at] = own_color(self.own[at], self.share[at][:, None], estimate)

    def delta(self, frame: np.ndarray) -> np.ndarray:
        """(h, w, 3) float32: share * (new - own)."""
        edit, box = self.edit, self.box
        new, through = self.own, np.ones((*self.share.shape, 1), np.float32)
        if edit.replaced is not None:
            new, through = edit.replaced[box], np.zeros_like(through)
        for paint, sampled in zip(edit.paints, self.samples, strict=True):
            new = paint_over(new, sampled, paint.blend)
            if paint.blend == "normal":  # the other modes let the grain through
                through = through * (1 - sampled[..., 3:])
        if edit.keep_grain > 0:
            prior = edit.prior_color(box)
            grain = grain_of(frame[box] - (0 if prior is None else prior), self.share)
            new = new + edit.keep_grain * (1 - through) * grain
        return self.share[..., None] * (new - self.own)


def _land(edit: LayerEdit) -> _Landing | None:
    """Sample the paints, and find the box outside of which they leave everything as it is."""
    if not edit.paints and edit.replaced is None:
        return None
    box = bounding_box(edit.share)
    if box is None:
        return None
    samples = [float_sample(paint, edit.uv[box], edit.time_s) for paint in edit.paints]
    if edit.replaced is None:
        painted = [cv2.extractChannel(sampled, 3) for sampled in samples]
        inner = bounding_box(painted[0] if len(painted) == 1 else np.maximum.reduce(painted), 0)
        if inner is None:
            return None
        samples = [np.ascontiguousarray(sampled[inner]) for sampled in samples]
        box = (
            slice(box[0].start + inner[0].start, box[0].start + inner[0].stop),
            slice(box[1].start + inner[1].start, box[1].start + inner[1].stop),
        )
    if edit.gain is not None:
        gain = edit.gain[box]
        samples = [
            lit(sampled, gain) if paint.takes_shading else sampled
            for paint, sampled in zip(edit.paints, samples, strict=True)
        ]
    return _Landing(edit, box, _snapped(edit.share[box]), samples)


def _reconcile(frame: np.ndarray, landings: Sequence[_Landing]) -> None:
    """Make the own colours of several edited layers explain their common pixels together.

    As in `own_color`, with the edited layers taken as one: what is left, frame - sum share * own,
    must lie in [0, 1 - sum share]. The least change to the own colours sees to it.
    """
    several = np.zeros(frame.shape[:2], np.uint8)
    unmixed = [landing for landing in landings if landing.edit.unmix]
    for landing in unmixed:
        several[landing.box] += landing.mixed
    rows, columns = np.nonzero(several >= 2)
    if rows.size == 0:
        return
    share = np.zeros((len(unmixed), rows.size, 1), np.float32)
    own = np.zeros((len(unmixed), rows.size, 3), np.float32)
    places = []
    for i, landing in enumerate(unmixed):
        y, x = rows - landing.box[0].start, columns - landing.box[1].start
        height, width = landing.share.shape
        inside = np.flatnonzero((y >= 0) & (y < height) & (x >= 0) & (x < width))
        places.append((inside, y[inside], x[inside]))
        share[i, inside, 0] = landing.share[y[inside], x[inside]]
        own[i, inside] = landing.own[y[inside], x[inside]]
    together, color = (share * own).sum(0), frame[rows, columns]
    wanted = np.clip(together, color - 1 + share.sum(0), color)
    own += share * (wanted - together) / np.maximum((share**2).sum(0), 1e-6)
    for i, (landing, (inside, y, x)) in enumerate(zip(unmixed, places, strict=True)):
        landing.own[y, x] = own[i, inside]


def _enclosing(boxes: Sequence[tuple[slice, slice]]) -> tuple[slice, slice]:
    rows, columns = [box[0] for box in boxes], [box[1] for box in boxes]
    return (
        slice(min(r.start for r in rows), max(r.stop for r in rows)),
        slice(min(c.start for c in columns), max(c.stop for c in columns)),
    )


def _scaled(frame: np.ndarray) -> np.ndarray:
    return frame.astype(np.float32) * np.float32(1 / np.iinfo(frame.dtype).max)


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
    cv2.copyTo(_levels(new, frame.dtype), (share == 1).view(np.uint8), out[box])
    at = np.nonzero((share > 0) & (share < 1))
    if at[0].size:
        scaled = frame.astype(np.float32) * (1 / peak)
        inside = at[0] + box[0].start, at[1] + box[1].start
        estimate = estimate_at(scaled, edit.share, edit.prior_color, inside)
        wanted = new[at][:, :3].astype(np.float32)
        wanted *= 1 / 255 if new.dtype == np.uint8 else 1
        mixed = replace_layer(scaled[inside], share[at], estimate, wanted)
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


def bounding_box(share: np.ndarray, least: float = SHARE_STEP) -> tuple[slice, slice] | None:
    """Rows and columns that enclose every share of more than next to nothing; None without any.

    Args:
        share: (H, W) float32. least: what counts; 0 for anything above 0.
    """
    least = least or float(np.finfo(np.float32).tiny)
    rows = np.flatnonzero(cv2.reduce(share, 1, cv2.REDUCE_MAX) >= least)
    columns = np.flatnonzero(cv2.reduce(share, 0, cv2.REDUCE_MAX) >= least)
    if rows.size == 0:
        return None
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def side_by_side(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """(H, 2 W, 3): the original on the left, the edit on the right."""
    return np.concatenate([before, after], axis=1)
