"""How the canvases of several mappings of one clip relate, found in one streaming pass."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from atlas.clip import Clip
from atlas.coords import Size
from atlas.gauge import Gauge, GaugeFit, spread
from atlas.mapping import FrameMapping, LayerMapping
from atlas.metrics import texel_scale
from atlas.texture import Texture
from atlas.truth import Truth

SURVEY_FRAMES = 100
"""Frames at most from which gauges are fitted."""
_VISIBLE = 0.9


@dataclass(frozen=True)
class Contender:
    """One way to map the clip: the fitted atlas, or the fast path.

    textures: one per layer, for the reconstruction. shading: frame -> (L, H, W, 3) gain, or None.
    knows_past: whether edits may use the textures as the layer's own colour (the fast path has
        none while it streams).
    """

    name: str
    mapping: LayerMapping
    textures: list[Texture]
    shading: Callable[[int], np.ndarray] | None = None
    knows_past: bool = True


class FirstFrames(LayerMapping):
    """The first `count` frames of a mapping."""

    def __init__(self, mapping: LayerMapping, count: int):
        self.mapping = mapping
        self.layers, self.frame_size = mapping.layers, mapping.frame_size
        self.frame_count = min(count, mapping.frame_count)

    def observe(self, t: int, rgb: np.ndarray) -> None:
        self.mapping.observe(t, rgb)

    def frame(self, t: int, size: Size | None = None) -> FrameMapping:
        return self.mapping.frame(t, size)


@dataclass
class Survey:
    """How contenders' canvases relate. Keys: contender's name, layer's name.

    to_reference: contender -> the first contender's canvas.
    to_truth, to_truth_smooth: contender -> the true canvas; by a homography, and bent as well.
    from_truth: layer -> from the true canvas to the first contender's.
    texels_per_px: how fine each canvas is.
    """

    to_reference: dict[str, dict[str, Gauge]]
    to_truth: dict[str, dict[str, Gauge]]
    to_truth_smooth: dict[str, dict[str, Gauge]]
    from_truth: dict[str, Gauge] = field(default_factory=dict)
    texels_per_px: dict[str, dict[str, float]] = field(default_factory=dict)


def survey(
    clip: Clip,
    contenders: list[Contender],
    truth: Truth | None,
    count: int,
    frames: Iterable[int] | None = None,
) -> Survey:
    """Fit all gauges in one pass over the first `count` frames.

    Args:
        frames: 0, 1, 2 ... count - 1, if somebody wants to see them go by (a progress bar).
    """
    frames = range(count) if frames is None else frames
    looked_at = set(spread(count, SURVEY_FRAMES))
    fits: dict[tuple[str, str, str], GaugeFit] = {}
    scales: dict[str, dict[str, list[float]]] = {c.name: {} for c in contenders}
    for t in frames:
        rgb = clip.frame(t)
        found: dict[str, tuple[LayerMapping, FrameMapping]] = {}
        for contender in contenders:
            contender.mapping.observe(t, rgb)
            if t in looked_at:
                found[contender.name] = contender.mapping, contender.mapping.frame(t, clip.size)
        if t not in looked_at:
            continue
        for name, (mapping, frame) in found.items():
            shares = frame.visible()
            for i, layer in enumerate(mapping.layers):
                scale = texel_scale(frame.uv[i], shares[i] >= _VISIBLE)
                scales[name].setdefault(layer.name, []).append(scale)
        if truth is not None:
            found["truth"] = truth.mapping, truth.frame(t, clip.size)
        for source, target in _gauge_pairs([c.name for c in contenders], truth is not None):
            _add_pair(fits, (source, target), found[source], found[target], clip.size)
    return _solve_all(fits, scales, contenders[0].name)


def _gauge_pairs(names: list[str], with_truth: bool) -> list[tuple[str, str]]:
    pairs = [(name, names[0]) for name in names[1:]]
    if with_truth:
        pairs += [(name, "truth") for name in names] + [("truth", names[0])]
    return pairs


def _add_pair(
    fits: dict[tuple[str, str, str], GaugeFit],
    key: tuple[str, str],
    source: tuple[LayerMapping, FrameMapping],
    target: tuple[LayerMapping, FrameMapping],
    size: Size,
) -> None:
    """Add one frame to the fits of every layer that both mappings have."""
    target_names = [layer.name for layer in target[0].layers]
    shares_a, shares_b = source[1].visible(), target[1].visible()
    for i, layer in enumerate(source[0].layers):
        if layer.name not in target_names:
            continue
        j = target_names.index(layer.name)
        fit = fits.setdefault(
            (*key, layer.name), GaugeFit(layer, target[0].layers[j], size, seed=len(fits))
        )
        where = (shares_a[i] >= _VISIBLE) & (shares_b[j] >= _VISIBLE)
        fit.add(source[1].uv[i], target[1].uv[j], where)


def _solve_all(
    fits: dict[tuple[str, str, str], GaugeFit],
    scales: dict[str, dict[str, list[float]]],
    reference: str,
) -> Survey:
    to_reference, to_truth, smooth = ({name: {} for name in scales} for _ in range(3))
    result = Survey(to_reference, to_truth, smooth)
    for (source, target, layer), fit in fits.items():
        gauge = fit.solve()
        if gauge is None:
            continue
        if source == "truth":
            result.from_truth[layer] = gauge
        elif target == reference:
            result.to_reference[source][layer] = gauge
        else:
            result.to_truth[source][layer] = gauge
            bent = fit.solve(smooth=True)
            if bent is not None:
                result.to_truth_smooth[source][layer] = bent
    for name, layers in scales.items():
        result.texels_per_px[name] = {
            layer: float(np.nanmedian(values)) if np.isfinite(values).any() else math.nan
            for layer, values in layers.items()
        }
    return result
