"""`--compose lna`: frames as the original layered-neural-atlases program writes them."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator

import numpy as np

from atlas.progress import progress
from atlas.video import VideoInfo
from edits.composite import side_by_side
from edits.deliver import Job, make_writer
from edits.lna_compose import open_pictures, render_lna
from edits.recipe import Recipe
from edits.session import delivery_of


def render_as_original(args: argparse.Namespace, job: Job, recipe: Recipe) -> int:
    """Write every frame that the mapping covers, at the fit's size; how many."""
    pictures = open_pictures(job.mapping, recipe)
    frames, info = fitted_frames(job)
    count = 0
    bar = progress(None, info.frame_count, "rendering")
    with make_writer(info, delivery_of(args, info)) as writer, bar:
        for before, after in render_lna(job.mapping, frames, pictures):
            writer.write(side_by_side(before, after) if args.side_by_side else after)
            bar.advance()
            count += 1
    return count


def fitted_frames(job: Job) -> tuple[Iterator[np.ndarray], VideoInfo]:
    """The frames that the mapping covers, and what a video of them at the fit's size holds."""
    info, first = job.footage.source.info, job.footage.first_frame
    count = min(job.mapping.frame_count, info.frame_count - first)
    end = first + count
    changed = dataclasses.replace(
        info,
        size=job.mapping.frame_size,
        frame_count=count,
        frame_times_s=info.frame_times_s[first:end],
        duration_s=info.frame_times_s[end] if end < info.frame_count else info.duration_s,
        audio=None,  # as the original program has it
    )
    return job.footage.source.frames(first, count), changed
