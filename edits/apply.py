"""Recipe and LayerMapping to frames, at the source's own resolution."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path

import numpy as np

from atlas.coords import Size
from atlas.errors import InputError
from atlas.mapping import FrameMapping, LayerMapping
from edits.composite import LayerEdit, composite_frame
from edits.context import (
    RenderContext,
    atlas_color,
    fitted_gains,
    look_at,
)
from edits.filter_atlas import filter_paint, run_filter
from edits.fine_edges import sharpen_edges
from edits.from_frame import carry_paint
from edits.insert import open_insert
from edits.kinds import Edit, FilterAtlas, FramePaint, Insert, LayerPaint, RemoveLayer, SkyEdit
from edits.layered_paint import is_layered, open_layered_paint
from edits.look_pass import LayerLook
from edits.paint import Paint, PaintSource, open_layer_paint
from edits.picture import Picture
from edits.recipe import Recipe, check_files
from edits.remove import Removal
from edits.sky import HDR_SUFFIXES, PICTURE_SUFFIXES, open_sky
from edits.view import canvas_view

__all__ = ["RenderContext", "Renderer", "render", "render_pairs"]

LOW_CONFIDENCE = 0.25
"""A layer's motion below this is reported as uncertain."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BegunFrame:
    """A frame as `Renderer.begin` leaves it.

    before, after: (H, W, 3) uint8, the source's and the edited one, without what a look adds.
    found: its mapping; None where the mapping does not cover it.
    """

    renderer: Renderer
    index: int
    before: np.ndarray
    after: np.ndarray
    found: FrameMapping | None = None


class Renderer:
    """A recipe opened for a mapping: all files read and checked, frames made as asked for.

    filtered: what external filters made, by layer name.
    """

    def __init__(self, mapping: LayerMapping, recipe: Recipe, context: RenderContext | None = None):
        self.mapping, self.recipe = mapping, recipe
        self.context = context or RenderContext()
        self.filtered: dict[str, Picture] = {}
        self.removal: Removal | None = None
        self._paints: dict[int, list[Paint]] | None = None
        self._placing = threading.Lock()
        self._doubtful: set[int] = set()
        look = recipe.look
        self._look = LayerLook.open(look, mapping) if look is not None and look.active else None
        check_files(recipe)
        self._sources: dict[int, list[PaintSource]] = {}
        for kind, edits in groupby(recipe.edits, type):
            self._open(kind, list(edits))
        removed = [edit for edit in recipe.edits if isinstance(edit, RemoveLayer)]
        if removed:
            self.removal = Removal(removed, mapping, self.context)
            log.info("%s", self.removal.describe())

    def covers(self, index: int) -> bool:
        """Whether source frame `index` is one that the edit can change."""
        t = index - self.context.first_frame
        edited = bool(self._sources) or self.removal is not None or self._look is not None
        return edited and 0 <= t < self.mapping.frame_count

    def pass_over(self, index: int, rgb: np.ndarray) -> None:
        """Show a mapping that learns from the frames one that is not to be rendered."""
        if self.context.fresh_mapping is None or not self.covers(index):
            return
        self.mapping.observe(index - self.context.first_frame, rgb)
        if self._paints is None:
            self._place(self.mapping.frame(index - self.context.first_frame, Size(*rgb.shape[:2])))

    def frame(self, index: int, rgb: np.ndarray) -> np.ndarray:
        """Source frame number `index`, edited.

        Args:
            rgb: (H, W, 3) uint8 RGB.
        Returns:
            (H, W, 3) uint8; `rgb` itself where the mapping does not cover the frame.
        """
        return self.finish(self.begin(index, rgb))

    def begin(self, index: int, rgb: np.ndarray) -> BegunFrame:
        """All of a frame that does not depend on those before it; see `in_any_order`."""
        if not self.covers(index):
            return BegunFrame(self, index, rgb, rgb)
        t, size = index - self.context.first_frame, Size(*rgb.shape[:2])
        self.mapping.observe(t, rgb)
        found = self.mapping.frame(t, size)
        with self._placing:
            if self._paints is None:
                # skies are placed by the first frame, whichever one is asked for first
                early = t == 0 or self.context.fresh_mapping is not None
                self._place(found if early else self.mapping.frame(0, size))
        gains = (
            None if self.context.shading is None else fitted_gains(self.context.shading(t), size)
        )
        found = self._fine_edges(rgb, found, gains)
        if self.removal is not None:
            found = self.removal.grown(found)
        after = composite_frame(rgb, self._layer_edits(index, rgb, found, gains))
        return BegunFrame(self, index, rgb, after, found)

    def finish(self, begun: BegunFrame) -> np.ndarray:
        """The rest, frames in order: what a look smooths over time."""
        if begun.renderer is not self:
            return begun.renderer.finish(begun)
        if self._look is None or begun.found is None:
            return begun.after
        paints, time_s = (self._paints or {}).get(self._look.layer, []), self.context.time_s
        pair = begun.before, begun.after
        return self._look.apply(pair, begun.found, paints, time_s(begun.index))

    @property
    def in_any_order(self) -> bool:
        """Whether `begin` may be asked for several frames at once, in any order."""
        if self.context.fresh_mapping is not None or not self.mapping.in_any_order:
            return False
        return not any(_plays(edit) for edit in self.recipe.edits)

    def paints(self, first: FrameMapping) -> dict[int, list[Paint]]:
        """Every layer's paints by its index, in order of application, placed by the first frame."""
        if self._paints is None:
            self._place(first)
        return self._paints or {}

    def report(self) -> None:
        """Warn of frames in which the motion of what was edited is uncertain."""
        if self._doubtful:
            log.warning(
                "the motion of the edited layers is uncertain in %d of %d frames; look at those",
                len(self._doubtful),
                self.mapping.frame_count,
            )

    def _fine_edges(
        self, rgb: np.ndarray, found: FrameMapping, gains: np.ndarray | None
    ) -> FrameMapping:
        """The mapping with edges before the sky as fine as the frame, where they are edited."""
        lowest = max(self._paints or {0: []}, default=0)
        if lowest < len(self.mapping.layers) - 2 and self._look is None:
            return found
        return sharpen_edges(rgb, found, self.mapping, self.context.textures, gains)

    def _layer_edits(
        self, index: int, rgb: np.ndarray, found: FrameMapping, gains: np.ndarray | None
    ) -> list[LayerEdit]:
        context, paints = self.context, self._paints or {}
        shares = found.visible()
        below: dict[int, np.ndarray] = {}
        if self.removal is not None:
            scaled = rgb.astype(np.float32) * np.float32(1 / np.iinfo(rgb.dtype).max)
            below = self.removal.below(scaled, found, gains, paints, context.time_s(index))
        touched = sorted({*paints, *below})
        if any(found.confidence[layer] < LOW_CONFIDENCE for layer in touched):
            self._doubtful.add(index)
        edits = []
        for layer in touched:
            gain = None if gains is None else gains[layer]
            edits.append(
                LayerEdit(
                    share=shares[layer],
                    uv=found.uv[layer],
                    paints=() if layer in below else paints[layer],
                    prior=partial(atlas_color, context, found, layer, gain),
                    gain=gain,
                    time_s=context.time_s(index),
                    keep_grain=self.recipe.keep_grain,
                    replaced=below.get(layer),
                    unmix=self.removal is None or not self.removal.widens(layer),
                )
            )
        return edits

    def _place(self, first: FrameMapping) -> None:
        """Put every paint at its place, by where the first frame looks."""
        textures = self.context.textures
        self._paints = {}
        for layer, sources in self._sources.items():
            coverage = None if textures is None else textures[layer].coverage
            view = canvas_view(
                first, layer, coverage, self.context.focal, self.mapping.layers[layer].roll
            )
            self._paints[layer] = [source.place(view) for source in sources]

    def _open(self, kind: type, edits: Sequence[Edit]) -> None:
        """Open a row of edits of one kind."""
        if kind is FramePaint:  # several frames' paint becomes one
            frames = [edit for edit in edits if isinstance(edit, FramePaint)]
            for layer, paint in carry_paint(frames, self.mapping, self.context).items():
                self._sources.setdefault(layer, []).append(paint)
            return
        for edit in edits:
            if isinstance(edit, FramePaint | RemoveLayer):
                continue
            index = self.mapping.layer_index(edit.layer)
            if isinstance(edit, LayerPaint) and is_layered(edit.path):
                for target, paint in open_layered_paint(edit, self.mapping.layers):
                    self._sources.setdefault(target, []).append(paint)
                continue
            self._sources.setdefault(index, []).append(self._opened(edit, index))

    def _opened(self, edit: SkyEdit | LayerPaint | Insert | FilterAtlas, index: int) -> PaintSource:
        layer = self.mapping.layers[index]
        if isinstance(edit, SkyEdit):
            return open_sky(edit, layer, self.context.sky_matte)
        if isinstance(edit, LayerPaint):
            return open_layer_paint(edit, layer)
        if isinstance(edit, Insert):
            return open_insert(edit, look_at(self.mapping, self.context, edit.frame), index)
        if self.context.textures is None:
            raise InputError(
                f"--filter on layer {edit.layer!r} needs a run of train.py, which has an atlas; "
                f"the fast path has none"
            )
        self.filtered[edit.layer] = run_filter(edit, self.context.textures[index])
        return filter_paint(self.filtered[edit.layer], layer)


def _plays(edit: Edit) -> bool:
    """Whether an edit shows a video, which is read forward."""
    if not isinstance(edit, SkyEdit | Insert):
        return False
    name = edit.source if isinstance(edit, SkyEdit) else edit.path
    still = PICTURE_SUFFIXES | HDR_SUFFIXES
    return name is not None and Path(name).suffix.lower() not in still


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
    return rendered(Renderer(mapping, recipe, context), source_frames)


def rendered(
    renderer: Renderer, source_frames: Iterable[np.ndarray], first: int = 0
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Source frame and edited frame, in order; `first` is the number of the first one given."""
    for index, rgb in enumerate(source_frames, first):
        yield rgb, renderer.frame(index, rgb)
    renderer.report()
