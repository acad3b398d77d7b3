"""`edit.py RUN --export stmap DIR` and `edit.py RUN --export-atlas DIR`."""

from __future__ import annotations

import argparse
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import Protocol

import numpy as np

from atlas.errors import InputError
from atlas.mapping import LayerMapping
from atlas.progress import progress
from atlas.texture import Texture
from edits.apply import Renderer
from edits.context import RenderContext
from edits.deliver import parse_span
from edits.export_atlas import export_atlases
from edits.export_options import export_folder
from edits.flatten import flat_paints
from edits.footage import Footage
from edits.recipe import Recipe, SkyEdit
from edits.stmap import ExportOptions, ExportSource, export_stmaps


class ExportJob(Protocol):
    """What is exported: frames, through which mapping, and what is known beside it."""

    @property
    def footage(self) -> Footage: ...

    @property
    def mapping(self) -> LayerMapping: ...

    @property
    def context(self) -> RenderContext: ...


def check_shots(job: ExportJob, recipe: Recipe) -> None:
    """Refuse what has another place in every shot, where one picture a layer is asked for."""
    if getattr(job, "shots", ()) and any(isinstance(edit, SkyEdit) for edit in recipe.edits):
        raise InputError(
            "--export: a sky is placed for every shot anew; export the shots one by one "
            "(RUN/shots/01, RUN/shots/02 ...)"
        )


def run_export(args: argparse.Namespace, job: ExportJob, recipe: Recipe) -> str:
    """Do what --export or --export-atlas asks for; one line that says what was written.

    Args:
        recipe: what is painted; may hold nothing.
    """
    folder = export_folder(args)
    if args.export:
        check_shots(job, recipe)
        span = parse_span(args.range, job.footage.source.info)
        return export_edit(folder, job, recipe, span, movies=args.codec == "prores")
    textures = _textures(job, "--export-atlas")
    export_atlases(folder, job.mapping.layers, textures)
    names = ", ".join(layer.name for layer in job.mapping.layers)
    return f"{folder}: atlases of {names}, as PNG and OpenRaster"


def export_edit(
    folder: Path,
    job: ExportJob,
    recipe: Recipe,
    span: tuple[int, int] | None = None,
    *,
    movies: bool = False,
) -> str:
    """Write the hand-over folder of an edit; one line that says what it holds.

    Args:
        span: first and last source frame, both included; None for all.
        movies: mattes as ProRes 4444 as well.
    """
    looks = recipe.look is not None and recipe.look.active
    fresh = job.context.fresh_mapping  # one that learns from frames sees them once
    mapping = job.mapping if fresh is None else fresh()
    renderer = Renderer(mapping, recipe, job.context) if recipe.edits or looks else None
    paints = {} if renderer is None else flat_paints(renderer)
    finished = renderer if looks or recipe.keep_grain else None
    start = job.context.first_frame  # a mapping may promise more frames than the source has
    count = min(job.mapping.frame_count, job.footage.source.info.frame_count - start)
    first, last = span or (start, start + count - 1)
    options = ExportOptions(first=first, last=last, paints=paints, movies=movies)
    with (
        progress(None, last - first + 1, "exporting") as bar,
        closing(_frames(job.footage)) as frames,
    ):
        source = ExportSource(
            mapping=job.mapping, frames=frames, context=job.context, renderer=finished
        )
        written = export_stmaps(folder, source, options, bar.advance)
    count, names = written.last - written.first + 1, ", ".join(r.name for r in written.layers)
    return f"{folder}: {count} frames of {names}; open rebuild.nk (Nuke) or rebuild.comp (Fusion)"


def _frames(footage: Footage) -> Generator[np.ndarray, None, None]:
    yield from footage.source.frames()


def _textures(job: ExportJob, option: str) -> list[Texture]:
    if job.context.textures is None:
        raise InputError(
            f"{option} needs a run of train.py, which has atlases; the fast path has none"
        )
    return list(job.context.textures)
