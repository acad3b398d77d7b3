"""A look on planes: the scene is told from its old sky, toned and veiled, then the new sky laid.

The same sums as `edits.look_pass` does in RGB, for a third of the time. Everything that depends on
colour is done at the size of chroma, in RGB; luma follows from the curve of grey and a smooth rest,

    y' = a curve(y) + enlarged (y'_small - a curve(y_small)),

so detail keeps the contrast that grey would have, and colours are right at the size of chroma.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np

from atlas.planes import PlaneFormat, Planes
from edits.look_pass import Air, veiled
from edits.relight import LUMINANCE, ToneTable
from edits.stream_composite import kept, laid
from edits.stream_sky import Rows


@dataclass(frozen=True)
class Laid:
    """A new sky for one frame. rows: which rows it is for; planes: Y, U and V of those rows;
    old: `stream_composite.old_sky`."""

    rows: Rows
    planes: list[np.ndarray]
    old: np.ndarray | None


class PlaneLook:
    """Looks on the frames of one format."""

    def __init__(self, form: PlaneFormat):
        self._form = form
        self._curve: tuple[ToneTable, np.ndarray] | None = None

    def apply(self, planes: Planes, alpha: np.ndarray, sky: Laid | None, air: Air) -> Planes:
        """The finished frame, but for what falls.

        Args:
            planes: as decoded. alpha: (H, W) uint8, 255 = sky.
            sky: the new one; None leaves the frame's own.
        """
        height = alpha.shape[0]
        out = Planes(*(plane.copy() for plane in planes.all))
        above = _span(alpha, height)
        below = _span(cv2.bitwise_not(alpha), height)
        if sky is not None:
            self._put(out, sky.rows, sky.planes)
        if above is not None and air.glow is not None:
            self._put(out, above, self._lit(self._of(out, above), air, above).all)
        if below is None:
            return out
        both = None if above is None else _common(above, below)
        shares = [] if both is None else self._shares(alpha[both.top : both.bottom])
        scene = Planes(*(plane.copy() for plane in self._of(planes, below).all))
        if both is not None and sky is not None and sky.old is not None:
            alone = self._alone(self._of(planes, both), shares, sky.old, both)
            self._put(scene, _within(both, below), alone)
        scene = self._under_air(scene, air, below)
        if both is not None:
            mixed = zip(
                self._of(scene, _within(both, below)).all, self._of(out, both).all, strict=True
            )
            done = [laid(own, shares[i > 0], new) for i, (own, new) in enumerate(mixed)]
            self._put(scene, _within(both, below), done)
        self._put(out, below, scene.all)
        return out

    def _shares(self, alpha: np.ndarray) -> list[np.ndarray]:
        return [share.astype(self._form.dtype) for share in (alpha, self._form.at_chroma(alpha))]

    def _of(self, planes: Planes, rows: Rows) -> Planes:
        """Some rows of planes, in their memory."""
        step = self._form.step
        chroma = slice(rows.top // step, rows.bottom // step)
        return Planes(planes.y[rows.top : rows.bottom], planes.u[chroma], planes.v[chroma])

    def _put(self, onto: Planes, rows: Rows, planes: Sequence[np.ndarray]) -> None:
        for place, plane in zip(self._of(onto, rows).all, planes, strict=True):
            place[:] = plane

    def _alone(
        self, planes: Planes, shares: list[np.ndarray], old: np.ndarray, rows: Rows
    ) -> list[np.ndarray]:
        """The scene in some rows, its old sky taken out of mixed pixels."""
        form, out = self._form, []
        spans = [form.luma_span, form.chroma_span]
        for kind, plane in enumerate(planes.all):
            step, share = (form.step if kind else 1), shares[kind > 0]
            wh = (plane.shape[1], form.size.height // step)
            own = cv2.resize(np.ascontiguousarray(old[..., kind]), wh)
            own = own[rows.top // step : rows.bottom // step]
            own = np.rint(np.clip(own, 0, form.peak)).astype(plane.dtype)
            rest = kept(plane, share, own, spans[kind > 0])
            left = cv2.subtract(np.full_like(share, 255), share)
            out.append(cv2.divide(rest, left, scale=255))
        return out

    def _under_air(self, scene: Planes, air: Air, rows: Rows) -> Planes:
        """The scene in some rows toned, veiled and lit."""
        opacity = None
        steps: list[Callable[[np.ndarray], np.ndarray]] = []
        if air.table is not None:
            steps.append(air.table.apply)
        for field in (air.veil, None if air.glow is None else (air.glow, air.glow)):
            if field is None:
                continue
            hides, adds = (self._part(light, rows) for light in field)
            steps.append(partial(veiled, opacity=hides, color=adds, share=None))
            grey = 1 - hides @ LUMINANCE
            opacity = grey if opacity is None else opacity * grey
        if not steps:
            return scene
        curve = None if air.table is None else self._curve_of(air.table)

        def through(rgb: np.ndarray) -> np.ndarray:
            for step in steps:
                rgb = step(rgb)
            return rgb

        return self._mapped(scene, through, curve, opacity)

    def _lit(self, planes: Planes, air: Air, rows: Rows) -> Planes:
        """Some rows with the sun's light screened over them."""
        assert air.glow is not None
        glow = self._part(air.glow, rows)
        grey = 1 - glow @ LUMINANCE
        return self._mapped(planes, lambda rgb: veiled(rgb, glow, glow, None), None, grey)

    def _part(self, field: np.ndarray, rows: Rows) -> np.ndarray:
        """A field over the whole picture, (h, w, 3), at its own width for some rows alone."""
        height, width = self._form.size.height, field.shape[1]
        scale = field.shape[0] / height
        count = max(1, round(rows.count * scale))
        step = rows.count * scale / count
        matrix = np.array([[1, 0, 0], [0, step, rows.top * scale + 0.5 * step - 0.5]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(
            field, matrix, (width, count), flags=flags, borderMode=cv2.BORDER_REPLICATE
        )

    def _mapped(
        self,
        planes: Planes,
        change: Callable[[np.ndarray], np.ndarray],
        curve: np.ndarray | None,
        through: np.ndarray | None,
    ) -> Planes:
        """Planes whose colours were changed at the size of chroma.

        Args:
            change: (h, w, 3) RGB to the same.
            curve: (levels,), what becomes of the luma of grey. through: (h, w) float32 in [0, 1],
                factor on the contrast of luma.
        """
        form = self._form
        small = form.at_chroma(planes.y)
        rgb = form.mixed(small, planes.u, planes.v, np.uint8 if form.bits == 8 else np.uint16)
        y, u, v = cv2.split(form.yuv_of(change(rgb)))
        few, many = (self._contrast(plane, curve, through) for plane in (small, planes.y))
        rest = cv2.subtract(y, few, dtype=cv2.CV_16S)
        rest = cv2.resize(rest, planes.y.shape[::-1], interpolation=cv2.INTER_LINEAR)
        kind = cv2.CV_8U if form.bits == 8 else cv2.CV_16U
        full = cv2.add(many, rest, dtype=kind)
        return Planes(full if form.bits == 8 else cv2.min(full, form.peak), u, v)

    def _contrast(
        self, plane: np.ndarray, curve: np.ndarray | None, through: np.ndarray | None
    ) -> np.ndarray:
        if curve is not None:
            plane = cv2.LUT(plane, curve) if plane.dtype == np.uint8 else curve.take(plane)
        if through is None:
            return plane
        share = cv2.resize(cv2.convertScaleAbs(through, alpha=255), plane.shape[::-1])
        return cv2.multiply(plane, share.astype(plane.dtype, copy=False), scale=1 / 255)

    def _curve_of(self, table: ToneTable) -> np.ndarray:
        """(levels,) of the form: what the table makes of the luma of grey."""
        if self._curve is None or self._curve[0] is not table:
            form = self._form
            low, high = form.luma_span
            levels = np.arange(form.peak + 1, dtype=np.float32)
            grey = np.clip((levels - low) / (high - low), 0, 1)
            toned = table.apply_float(np.repeat(grey[None, :, None], 3, axis=2))
            self._curve = (table, form.yuv_of(toned)[0, :, 0].copy())
        return self._curve[1]


def _span(share: np.ndarray, height: int) -> Rows | None:
    """The rows in which a share is not 0, widened to even numbers; None where it is 0."""
    _, top, _, count = cv2.boundingRect(share)
    if not count:
        return None
    return Rows(top - top % 2, min(top + count + (top + count) % 2, height))


def _common(a: Rows, b: Rows) -> Rows | None:
    top, bottom = max(a.top, b.top), min(a.bottom, b.bottom)
    return Rows(top, bottom) if top < bottom else None


def _within(rows: Rows, of: Rows) -> Rows:
    """Rows counted from the first of some others."""
    return Rows(rows.top - of.top, rows.bottom - of.top)
