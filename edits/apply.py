"""Recipe and LayerMapping to frames, at the source's own resolution."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from atlas.coords import Size
from atlas.mapping import FrameMapping, Layer, LayerMapping
from atlas.texture import Texture, sample
from edits.composite import LayerEdit, composite_frame
from edits.paint import Paint, PaintSource, open_layer_paint
from edits.recipe import Edit, Recipe, SkyEdit, check_files
from edits.sky import open_sky
from edits.view import canvas_view

LOW_CONFIDENCE = 0.25
"""A layer's motion below this is reported as uncertain."""
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RenderContext:
    """What rendering needs to know beside the mapping.

    textures: what each layer looked like, top to bottom; None where nothing is known (fast path).
    shading: frame -> (L, H, W, 3) float32 gain of each layer's colours, at any size; or None.
    first_frame: source frame that is frame 0 of the mapping; frames before it pass unchanged.
    times_s: presentation time of each source frame; sky videos play by it.
    fps: frame rate for frames that `times_s` does not cover.
    """

    textures: Sequence[Texture] | None = None
    shading: Callable[[int], np.ndarray] | None = None
    first_frame: int = 0
    times_s: Sequence[float] = ()
    fps: float = 25.0

    def time_s(self, source_frame: int) -> float:
        """Seconds since the first frame that the mapping covers."""
        if source_frame < len(self.times_s):
            start = self.times_s[min(self.first_frame, source_frame)]
            return float(self.times_s[source_frame]) - float(start)
        return (source_frame - self.first_frame) / self.fps


@dataclass(frozen=True)
class _Plan:
    """The edits of one layer, read and checked; skies are placed when the first frame is known."""

    layer: int
    sources: tuple[PaintSource, ...]


def render(
    mapping: LayerMapping,
    source_frames: Iterable[np.ndarray],
    recipe: Recipe,
    context: RenderContext | None = None,
) -> Iterator[np.ndarray]:
    """Edited frames, one for every source frame, in order; see `render_pairs`."""
    pairs = render_pairs(mapping, source_frames, recipe, context)
    return (after for _, after in pairs)


def render_pairs(
    mapping: LayerMapping,
    source_frames: Iterable[np.ndarray],
    recipe: Recipe,
    context: RenderContext | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Source frame and edited frame, for every source frame, in order.

    All files of the recipe are read and checked before this returns; frames are then made one at
    a time as they are asked for. Source frames that the mapping does not cover pass unchanged.

    Args:
        source_frames: (H, W, 3) uint8 RGB, all of one size, of whatever resolution.
    Returns:
        Iterator of two (H, W, 3) uint8 RGB.
    """
    context = context or RenderContext()
    plans = _read_edits(recipe, mapping)
    return _rendered(mapping, source_frames, plans, recipe.keep_grain, context)


def _read_edits(recipe: Recipe, mapping: LayerMapping) -> list[_Plan]:
    check_files(recipe)
    by_layer: dict[int, list[PaintSource]] = {}
    for edit in recipe.edits:
        index = mapping.layer_index(edit.layer)
        layer = mapping.layers[index]
        by_layer.setdefault(index, []).append(_opened(edit, layer))
    return [_Plan(index, tuple(sources)) for index, sources in by_layer.items()]


def _rendered(
    mapping: LayerMapping,
    source_frames: Iterable[np.ndarray],
    plans: list[_Plan],
    keep_grain: float,
    context: RenderContext,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    paints: dict[int, list[Paint]] | None = None
    doubtful = 0
    for index, rgb in enumerate(source_frames):
        t = index - context.first_frame
        if not plans or not 0 <= t < mapping.frame_count:
            yield rgb, rgb
            continue
        mapping.observe(t, rgb)
        found = mapping.frame(t, Size(*rgb.shape[:2]))
        if paints is None:
            paints = {p.layer: _placed(p, found, context) for p in plans}
        doubtful += any(found.confidence[layer] < LOW_CONFIDENCE for layer in paints)
        facts = _FrameFacts(t, context.time_s(index), keep_grain, context)
        yield rgb, _edited(rgb, found, paints, facts)
    if doubtful:
        log.warning(
            "the motion of the edited layers is uncertain in %d of %d frames; look at those",
            doubtful,
            mapping.frame_count,
        )


@dataclass(frozen=True)
class _FrameFacts:
    t: int
    time_s: float
    keep_grain: float
    context: RenderContext


def _edited(
    rgb: np.ndarray, found: FrameMapping, paints: dict[int, list[Paint]], facts: _FrameFacts
) -> np.ndarray:
    shares = found.visible()
    gains = facts.context.shading(facts.t) if facts.context.shading else None
    edits = []
    for layer, stack in paints.items():
        gain = None if gains is None else _fitted(gains[layer], rgb.shape[:2])
        prior = None
        if facts.context.textures is not None:
            prior = sample(facts.context.textures[layer].rgb, found.uv[layer])
            prior = prior if gain is None else prior * gain
        edits.append(
            LayerEdit(
                share=shares[layer],
                uv=found.uv[layer],
                paints=stack,
                prior=prior,
                gain=gain,
                time_s=facts.time_s,
                keep_grain=facts.keep_grain,
            )
        )
    return composite_frame(rgb, edits)


def _placed(plan: _Plan, first: FrameMapping, context: RenderContext) -> list[Paint]:
    """The layer's paints, skies placed where the clip looks."""
    coverage = None
    if context.textures is not None:
        coverage = context.textures[plan.layer].coverage
    view = canvas_view(first, plan.layer, coverage)
    return [source.place(view) for source in plan.sources]


def _opened(edit: Edit, layer: Layer) -> PaintSource:
    return open_sky(edit, layer) if isinstance(edit, SkyEdit) else open_layer_paint(edit, layer)


def _fitted(gain: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    if gain.shape[:2] == shape:
        return gain
    return cv2.resize(gain, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR)
