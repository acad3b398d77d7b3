"""An edit of a clip with several shots: each shot is rendered on its own, the frames are one video.

What an edit places by what the clip shows (a sky) is placed for every shot anew; what belongs to
one frame (paint on it, text pinned to it) changes that frame's shot alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from atlas.mapping import LayerMapping
from atlas.shots import Shot
from edits.apply import BegunFrame, Renderer
from edits.context import RenderContext, check_frame
from edits.kinds import FramePaint, Insert
from edits.recipe import Recipe


class ShotsRenderer(Renderer):
    """A renderer for every shot; frames go to the one whose shot they belong to.

    Args:
        mapping: all shots as one (`atlas.shots.ShotsMapping`). shots: the same, one by one.
    """

    def __init__(
        self,
        mapping: LayerMapping,
        shots: Sequence[Shot],
        recipe: Recipe,
        context: RenderContext,
    ):
        for edit in recipe.edits:
            if isinstance(edit, FramePaint | Insert):
                check_frame(mapping, context, edit.frame)
        super().__init__(mapping, Recipe(), context)
        self.recipe = recipe
        self._parts = [_open_shot(shot, recipe, context) for shot in shots]
        for part in self._parts:
            self.filtered |= part.filtered
        self.removal = self._parts[0].removal

    def covers(self, index: int) -> bool:
        return any(part.covers(index) for part in self._parts)

    def begin(self, index: int, rgb: np.ndarray) -> BegunFrame:
        part = next((part for part in self._parts if part.covers(index)), super())
        return part.begin(index, rgb)

    @property
    def in_any_order(self) -> bool:
        return all(part.in_any_order for part in self._parts)

    def report(self) -> None:
        for part in self._parts:
            part.report()


def _open_shot(shot: Shot, recipe: Recipe, context: RenderContext) -> Renderer:
    first = context.first_frame + shot.first
    frames = range(first, first + shot.part.frame_count)
    edits = tuple(
        edit
        for edit in recipe.edits
        if not isinstance(edit, FramePaint | Insert) or edit.frame in frames
    )
    own = replace(context, textures=shot.textures, shading=shot.shading, first_frame=first)
    return Renderer(shot.part, replace(recipe, edits=edits), own)
