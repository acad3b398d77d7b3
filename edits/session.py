"""What `edit.py` does with a recipe and an opened job: write, keep, list, watch."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from atlas.errors import InputError
from atlas.progress import progress
from atlas.run import current_commit, is_run, read_run_info
from atlas.sheets import to_bytes
from atlas.video import VideoInfo
from edits.apply import Renderer
from edits.deliver import (
    Delivery,
    Job,
    parse_span,
    thumbnail,
    write_contact_sheet,
    write_frame,
    write_video,
)
from edits.history import EditFacts, describe_recipe, keep_edit, kept_edits
from edits.recipe import Recipe
from edits.watch import saved_files


def delivery_of(
    args: argparse.Namespace, info: VideoInfo, covered: tuple[int, int] | None = None
) -> Delivery:
    """What is to be written, from the options.

    Args:
        covered: first and last frame where no range is asked for; None for all.
    """
    return Delivery(
        out=args.out,
        codec=args.codec,
        crf=args.crf,
        side_by_side=args.side_by_side,
        span=parse_span(args.range, info) or covered,
        effort=args.effort or "fast",
    )


def produce(args: argparse.Namespace, job: Job, recipe: Recipe) -> None:
    """Make what was asked for: a frame, a contact sheet or the video."""
    start_s = time.monotonic()
    info = job.footage.source.info
    covered = job.covered()
    renderer, delivery = job.open(recipe), delivery_of(args, info, covered)
    if args.preview is not None or args.contact_sheet:
        if args.preview is None:
            write_contact_sheet(job, renderer, delivery)
        else:
            write_frame(job, renderer, delivery, args.preview)
        print(f"{args.out}: {time.monotonic() - start_s:.2f} s")
        return
    first, last = delivery.span or (0, info.frame_count - 1)
    with progress(None, last - first + 1, "rendering") as bar:
        count, middle = write_video(job, renderer, delivery, bar.advance)
    seconds = time.monotonic() - start_s
    print(summary(args.out, count, seconds))
    if covered is not None and args.range is None:
        print(f"frames {first} to {last} of {info.frame_count}, those fitted; --range 0: has all")
    if is_run(args.input) and not args.no_history:
        keep(args, renderer, middle, count, seconds)


def keep(
    args: argparse.Namespace, renderer: Renderer, picture: np.ndarray, count: int, seconds: float
) -> None:
    """Store a finished edit in the run folder."""
    notes = [renderer.removal.describe()] if renderer.removal else []
    facts = EditFacts(
        out=str(args.out.resolve()),
        frames=count,
        seconds=round(seconds, 2),
        commit=current_commit(),
        notes=notes,
    )
    pictures = {"preview.jpg": thumbnail(picture)}
    for name, filtered in renderer.filtered.items():
        pictures[f"filtered_{name}.png"] = to_bytes(filtered.rgb)
    folder = keep_edit(args.input, renderer.recipe, facts, pictures)
    if folder is not None:
        print(f"kept as {folder}")


def show_history(args: argparse.Namespace) -> None:
    """List the edits that a run keeps."""
    read_run_info(args.input)
    kept = list(kept_edits(args.input))
    if not kept:
        print(f"{args.input}: no edits yet")
    for edit in kept:
        if edit.facts is None or edit.recipe is None:
            print(f"{edit.number:03d}  cannot be read: {edit.trouble}")
            continue
        print(f"{edit.number:03d}  {edit.facts.date}  {describe_recipe(edit.recipe)}")
        print(f"     {edit.facts.frames} frames, {edit.facts.seconds:.1f} s, {edit.facts.out}")


def watch(args: argparse.Namespace, job: Job, read: Callable[[], Recipe]) -> None:
    """Make it again whenever one of its files is saved; ends with Ctrl-C."""
    recipe = read()

    def files() -> list[Path]:
        return [*recipe.files(), *([args.recipe] if args.recipe else [])]

    print(f"watching {', '.join(str(path) for path in files())}; Ctrl-C ends", flush=True)
    for saved in saved_files(files):
        print(f"saved: {', '.join(str(path) for path in sorted(saved))}", flush=True)
        try:
            recipe = read()
            produce(args, job, recipe)
        except InputError as err:  # half an edit, or a slip: the next save may mend it
            print(f"error: {' '.join(str(err).split())}", file=sys.stderr, flush=True)


def summary(out: Path, count: int, seconds: float) -> str:
    """What a command says when it is done."""
    return f"{out}: {count} frames in {seconds:.1f} s ({count / seconds:.1f} frames/s)"
