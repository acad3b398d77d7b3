"""Measure mappings of one clip side by side: reconstruction, mattes, stability, a shared edit.

Two passes over the frames, each streaming. `atlas.survey` finds how the canvases relate (gauges)
and how fine they are; `Measurement` then scores every frame. Each contender sees the same frames,
the same held-out flow and the same edit, carried over by its gauge.
"""

from __future__ import annotations

import math
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Protocol

import cv2
import numpy as np

from atlas.clip import Clip
from atlas.gauge import Regauged, uv_error_px
from atlas.mapping import FrameMapping, visible_shares
from atlas.metrics import (
    PAIR_STEP,
    PSNR_LIMIT_DB,
    HeldOutFlow,
    Quantiles,
    WarpError,
    held_out_flow,
    local_jacobian,
    mask_iou,
    pooled_rms,
    psnr_db,
    ssim,
)
from atlas.survey import Contender, Survey
from atlas.texture import sample
from atlas.truth import Truth

UV_LIMIT_PX = 9999.0
"""What errors in pixels are cut to in a report (a singular mapping is infinitely wrong)."""
_VISIBLE = 0.9


class SharedEdit(Protocol):
    """One edit, painted on the canvases of the first contender (the reference)."""

    @property
    def layer(self) -> str:
        """The layer that is painted."""
        ...

    @property
    def takes_light(self) -> bool:
        """Whether the layer's light falls on the paint."""
        ...

    def apply(
        self, rgb: np.ndarray, t: int, found: FrameMapping, contender: Contender
    ) -> np.ndarray:
        """(H, W, 3) uint8: the edited frame, given a mapping on the reference's canvases."""
        ...

    def paint(self, uv: np.ndarray, t: int) -> np.ndarray:
        """(H, W, 4) float32 premultiplied: the paint at (H, W, 2) texels of the reference."""
        ...


@dataclass
class Mean:
    """Running mean."""

    total: float = 0.0
    count: int = 0

    def add(self, value: float) -> None:
        """nan (nothing to measure) is left out."""
        if not math.isnan(value):
            self.total += value
            self.count += 1

    @property
    def value(self) -> float | None:
        return self.total / self.count if self.count else None


@dataclass
class Scores:
    """What one contender has shown so far."""

    psnr_db: Mean = field(default_factory=Mean)
    psnr_no_shading_db: Mean = field(default_factory=Mean)
    psnr_camera_light_db: Mean = field(default_factory=Mean)
    ssim: Mean = field(default_factory=Mean)
    squared_error: dict[str, Mean] = field(default_factory=dict)
    alpha_iou: dict[str, Mean] = field(default_factory=dict)
    uv_error_px: dict[str, Quantiles] = field(default_factory=dict)
    uv_error_smooth_px: dict[str, Quantiles] = field(default_factory=dict)
    edit_psnr_db: Mean = field(default_factory=Mean)
    warps: dict[str, WarpError] = field(default_factory=dict)
    edit_seconds: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """The object `atlas` or `fast` of report.json; see docs/REPORT.md."""
        return {
            "psnr_db": _rounded(self.psnr_db.value),
            "psnr_no_shading_db": _rounded(self.psnr_no_shading_db.value),
            "psnr_camera_light_db": _rounded(self.psnr_camera_light_db.value),
            "psnr_by_layer_db": {
                name: None if m.value is None else _rounded(_db(m.value))
                for name, m in self.squared_error.items()
            },
            "ssim": _rounded(self.ssim.value, 5),
            "warp_error": _rounded(pooled_rms(list(self.warps.values())), 5),
            "warp_error_by_layer": {n: _rounded(w.rms, 5) for n, w in self.warps.items()},
            "drift_px": {n: _median_p95(w.drift_px) for n, w in self.warps.items()},
            "alpha_iou": {n: _rounded(m.value, 5) for n, m in self.alpha_iou.items()},
            "uv_error_px": {n: _median_p95(q) for n, q in self.uv_error_px.items()} or None,
            "uv_error_smooth_px": {n: _median_p95(q) for n, q in self.uv_error_smooth_px.items()}
            or None,
            "edit_psnr_db": _rounded(self.edit_psnr_db.value),
        }


@dataclass(frozen=True)
class ContenderView:
    """What one contender made of one frame; pictures are (H, W, 3) uint8."""

    reconstruction: np.ndarray
    edited: np.ndarray | None
    found: FrameMapping


class Measurement:
    """The scoring pass: call `step` for t = 0, 1, 2 ..., then read `scores`."""

    def __init__(
        self,
        clip: Clip,
        contenders: list[Contender],
        known: Survey,
        truth: Truth | None = None,
        edit: SharedEdit | None = None,
    ):
        self.clip, self.contenders, self.known = clip, contenders, known
        self.truth, self.edit = truth, edit
        self.scores = {c.name: Scores() for c in contenders}
        self._cuts = {first for first, _ in clip.shots()}
        self._recent: deque[tuple[np.ndarray, dict[str, FrameMapping]]] = deque(maxlen=PAIR_STEP)
        for c in contenders:
            for i, layer in enumerate(c.mapping.layers):
                scale = known.texels_per_px[c.name].get(layer.name, math.nan)
                warp = WarpError(i, clip.size.width, scale)
                self.scores[c.name].warps[layer.name] = warp

    def step(self, t: int) -> tuple[np.ndarray, dict[str, ContenderView]]:
        """Score frame `t`; returns the frame and what every contender made of it."""
        rgb = self.clip.frame(t)
        if t in self._cuts:
            self._recent.clear()  # nothing moves over a cut
        given = dict(zip(self.clip.layer_names, visible_shares(self.clip.alpha(t)), strict=True))
        exact = None if self.truth is None else self.truth.frame(t, self.clip.size)
        wanted = self._true_edit(rgb, t)
        views = {}
        for contender in self.contenders:
            scores = self.scores[contender.name]
            begin = time.perf_counter()
            contender.mapping.observe(t, rgb)
            found = contender.mapping.frame(t, self.clip.size)
            scores.edit_seconds += time.perf_counter() - begin
            rebuilt = self._reconstruct(contender, found, t, rgb, given)
            self._score_mattes(contender, found, given)
            if exact is not None:
                self._score_uv(contender, found, exact)
            edited = self._edit(contender, found, t, rgb)
            if edited is not None and wanted is not None:
                scores.edit_psnr_db.add(_limited(psnr_db(edited, wanted)))
            views[contender.name] = ContenderView(rebuilt, edited, found)
        self._score_stability(rgb, {name: view.found for name, view in views.items()})
        return rgb, views

    def _reconstruct(
        self,
        contender: Contender,
        found: FrameMapping,
        t: int,
        rgb: np.ndarray,
        given: dict[str, np.ndarray],
    ) -> np.ndarray:
        """Render the frame from the textures, score it, return it as uint8."""
        scores, frame = self.scores[contender.name], rgb.astype(np.float32) / 255
        plain = np.zeros(rgb.shape, np.float32)
        shaded = np.zeros(rgb.shape, np.float32)
        gains = None if contender.shading is None else contender.shading(t)
        for i, share in enumerate(found.visible()):
            color = share[..., None] * sample(contender.textures[i].rgb, found.uv[i])
            plain += color
            if gains is not None:
                shaded += color * _fitted(gains[i], rgb.shape[:2])
        unlit_db = _limited(psnr_db(plain.clip(0, 1), frame))
        camera = None if contender.shading is None else getattr(contender.shading, "camera", None)
        exposed_db = unlit_db
        if camera is not None:
            exposed = plain * _fitted(camera(t), rgb.shape[:2])
            exposed_db = _limited(psnr_db(exposed.clip(0, 1), frame))
        out = plain.clip(0, 1) if gains is None else shaded.clip(0, 1)
        scores.psnr_no_shading_db.add(unlit_db)
        scores.psnr_camera_light_db.add(exposed_db)
        scores.psnr_db.add(unlit_db if gains is None else _limited(psnr_db(out, frame)))
        scores.ssim.add(ssim(out, frame))
        squared = np.square(out - frame).mean(-1)
        for name, share in given.items():
            inside = share > 0.5
            if inside.any():
                total = scores.squared_error.setdefault(name, Mean())
                total.total += float(squared[inside].sum(dtype=np.float64))
                total.count += int(inside.sum())
        return np.rint(out * 255).astype(np.uint8)

    def _score_mattes(
        self, contender: Contender, found: FrameMapping, given: dict[str, np.ndarray]
    ) -> None:
        shares = found.visible()
        for i, layer in enumerate(contender.mapping.layers):
            if layer.name in given:
                iou = self.scores[contender.name].alpha_iou.setdefault(layer.name, Mean())
                iou.add(mask_iou(shares[i], given[layer.name]))

    def _score_uv(self, contender: Contender, found: FrameMapping, exact: FrameMapping) -> None:
        assert self.truth is not None
        scores, shares, exact_shares = self.scores[contender.name], found.visible(), exact.visible()
        kinds = (
            (self.known.to_truth, scores.uv_error_px),
            (self.known.to_truth_smooth, scores.uv_error_smooth_px),
        )
        for gauges, errors in kinds:
            for name, gauge in gauges[contender.name].items():
                i = contender.mapping.layer_index(name)
                j = self.truth.mapping.layer_index(name)
                where = (shares[i] >= _VISIBLE) & (exact_shares[j] >= _VISIBLE)
                jacobian = local_jacobian(exact.uv[j])[where]
                error = uv_error_px(gauge, found.uv[i][where], exact.uv[j][where], jacobian)
                errors.setdefault(name, Quantiles()).add(np.nan_to_num(error, nan=np.inf))

    def _edit(
        self, contender: Contender, found: FrameMapping, t: int, rgb: np.ndarray
    ) -> np.ndarray | None:
        """The shared edit through this contender; None where there is no way to carry it over."""
        if self.edit is None:
            return None
        begin = time.perf_counter()
        if contender is not self.contenders[0]:
            gauges = self.known.to_reference[contender.name]
            if self.edit.layer not in gauges:
                return None
            found = Regauged(contender.mapping, gauges).carry(found)
        edited = self.edit.apply(rgb, t, found, contender)
        self.scores[contender.name].edit_seconds += time.perf_counter() - begin
        return edited

    def _true_edit(self, rgb: np.ndarray, t: int) -> np.ndarray | None:
        if self.truth is None or self.edit is None:
            return None
        edit, gauge = self.edit, self.known.from_truth.get(self.edit.layer)
        if gauge is None:
            return None
        return self.truth.edited(
            rgb, t, edit.layer, lambda uv: edit.paint(gauge(uv), t), edit.takes_light
        )

    def _score_stability(self, rgb: np.ndarray, found: dict[str, FrameMapping]) -> None:
        """Compare the checkerboards of this frame with those of two frames ago."""
        if len(self._recent) == PAIR_STEP:
            earlier_rgb, earlier = self._recent[0]
            motion: HeldOutFlow = held_out_flow(earlier_rgb, rgb)
            for contender in self.contenders:
                for warp in self.scores[contender.name].warps.values():
                    warp.add(earlier[contender.name], found[contender.name], motion)
        self._recent.append((rgb, found))


def _fitted(gain: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if gain.shape[:2] == tuple(shape):
        return gain
    return cv2.resize(gain, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR)


def _limited(value_db: float) -> float:
    return min(value_db, PSNR_LIMIT_DB)


def _db(mean_square: float) -> float:
    return _limited(-10 * math.log10(mean_square)) if mean_square > 0 else PSNR_LIMIT_DB


def _rounded(value: float | None, digits: int = 3) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, digits)


def _median_p95(values: Quantiles) -> dict[str, float | None]:
    found = {"median": values.quantile(0.5), "p95": values.quantile(0.95)}
    return {k: None if v is None else round(min(v, UV_LIMIT_PX), 3) for k, v in found.items()}
