"""From a renderer to files: videos, parts of them, single frames, contact sheets."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from atlas.clip import write_rgb
from atlas.coords import Size
from atlas.errors import InputError
from atlas.mapping import LayerMapping
from atlas.sheets import contact_sheet
from atlas.video import VideoInfo
from atlas.video_writer import VideoWriter
from edits.composite import side_by_side
from edits.recipe import Recipe

if TYPE_CHECKING:
    from atlas.shots import Shot
    from edits.apply import BegunFrame, Renderer
    from edits.context import RenderContext
    from edits.footage import Footage

SHEET_FRAMES = 6
MOST_WORKERS = 4
WORK_PIXELS = 2.5e7
"""Pixels of all frames that are worked on at a time, at most: each takes about 150 bytes."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """What is edited, through which mapping; `shots`: the mapping's shots if it has several."""

    footage: Footage
    mapping: LayerMapping
    context: RenderContext
    shots: tuple[Shot, ...] = ()

    def covered(self) -> tuple[int, int] | None:
        """First and last source frame of what was fitted; None where that is the whole source.

        A black lead-in, which no clip folder holds, belongs to what follows it.
        """
        count, start = self.footage.source.info.frame_count, self.context.first_frame
        first = start if start > self.footage.first_frame else 0
        last = min(start + self.mapping.frame_count, count) - 1
        return None if (first, last) == (0, count - 1) else (first, last)

    def open(self, recipe: Recipe) -> Renderer:
        """A renderer; of a mapping that learns from the frames, one that has seen none yet."""
        if self.shots:
            from edits.shots import ShotsRenderer

            return ShotsRenderer(self.mapping, self.shots, recipe, self.context)
        from edits.apply import Renderer  # brings torch, which streams do without

        fresh = self.context.fresh_mapping
        return Renderer(self.mapping if fresh is None else fresh(), recipe, self.context)


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """What is written.

    span: first and last source frame, both included; None for all. effort, bits, pixel_format,
    may_be_short: as `VideoWriter.preset` and so on.
    """

    out: Path
    codec: str = "auto"
    crf: int = 16
    side_by_side: bool = False
    span: tuple[int, int] | None = None
    effort: str = "fast"
    bits: int | None = None
    pixel_format: str = "rgb24"
    may_be_short: bool = False


def parse_span(text: str | None, info: VideoInfo) -> tuple[int, int] | None:
    """A:B, A: or :B as first and last source frame, both included."""
    if text is None:
        return None
    first, colon, last = text.partition(":")
    if not colon or not all(part == "" or part.isdigit() for part in (first, last)):
        raise InputError(f"--range {text}: wanted A:B, first and last frame, both included")
    span = int(first or 0), int(last or info.frame_count - 1)
    if not 0 <= span[0] <= span[1] < info.frame_count:
        raise InputError(f"--range {text}: wanted frames within 0:{info.frame_count - 1}")
    return span


def make_writer(info: VideoInfo, delivery: Delivery) -> VideoWriter:
    """The writer; refuses a suffix or codec that it does not know."""
    size = Size(info.size.height, info.size.width * (2 if delivery.side_by_side else 1))
    changes: dict[str, Any] = {
        "size": size,
        "codec": delivery.codec,
        "crf": delivery.crf,
        "preset": delivery.effort,
        "bits": delivery.bits,
        "pixel_format": delivery.pixel_format,
        "may_be_short": delivery.may_be_short,
    }
    if delivery.span is None:
        return VideoWriter.like(info, delivery.out, **changes)
    first, last = delivery.span
    end_s = info.duration_s if last == info.frame_count - 1 else info.frame_times_s[last + 1]
    start_s = info.frame_times_s[first] if first else 0.0
    changes["frame_times_s"] = [t - start_s for t in info.frame_times_s[first : last + 1]]
    changes["end_s"] = end_s - start_s
    changes["sound_from_s"], changes["sound_until_s"] = start_s, end_s
    return VideoWriter.like(info, delivery.out, **changes)


def write_video(
    job: Job, renderer: Renderer, delivery: Delivery, advance: Callable[[], object] = lambda: None
) -> tuple[int, np.ndarray]:
    """Render every frame of the span into a file (or folder of PNGs).

    Returns:
        The number of frames, and the edited frame in the middle, (H, W, 3) uint8.
    """
    info = job.footage.source.info
    first, last = delivery.span or (0, info.frame_count - 1)
    middle: np.ndarray | None = None
    count = 0
    with make_writer(info, delivery) as writer:
        for before, after in rendered_pairs(job, renderer, (first, last)):
            writer.write(side_by_side(before, after) if delivery.side_by_side else after)
            advance()
            if count <= (last - first) // 2:
                middle = after
            count += 1
    renderer.report()
    assert middle is not None  # the writer refuses a video without frames
    return count, middle


def render_frame(job: Job, renderer: Renderer, frame: int) -> tuple[np.ndarray, np.ndarray]:
    """Source frame number `frame` and the same edited, (H, W, 3) uint8."""
    info = job.footage.source.info
    if not 0 <= frame < info.frame_count:
        raise InputError(f"there is no frame {frame}; the source has 0..{info.frame_count - 1}")
    return next(iter(rendered_pairs(job, renderer, (frame, frame))))


def write_frame(job: Job, renderer: Renderer, delivery: Delivery, frame: int) -> None:
    """Render one frame into a picture file."""
    before, after = render_frame(job, renderer, frame)
    write_rgb(delivery.out, side_by_side(before, after) if delivery.side_by_side else after)


def write_contact_sheet(job: Job, renderer: Renderer, delivery: Delivery) -> None:
    """Frames spread over the span, the original above the edit, as one picture."""
    first, last = delivery.span or (0, job.footage.source.info.frame_count - 1)
    picked = np.unique(np.linspace(first, last, SHEET_FRAMES).round().astype(int)).tolist()
    if job.context.fresh_mapping is None:
        pairs = [render_frame(job, renderer, frame) for frame in picked]
    else:  # learns as frames pass: all of them, once
        whole = enumerate(rendered_pairs(job, renderer, (first, last)), first)
        pairs = [pair for frame, pair in whole if frame in picked]
    rows = [[before for before, _ in pairs], [after for _, after in pairs]]
    columns = [f"frame {frame}" for frame in picked]
    write_rgb(delivery.out, contact_sheet(rows, columns, ["original", "edited"]))


def thumbnail(rgb: np.ndarray, width: int = 480) -> np.ndarray:
    """A small copy, as wide as `width` at most."""
    height = max(round(rgb.shape[0] * width / rgb.shape[1]), 1)
    if width >= rgb.shape[1]:
        return rgb
    return cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA)


def rendered_pairs(
    job: Job, renderer: Renderer, span: tuple[int, int]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Source and edited frames of a span; mappings that learn are shown what comes before."""
    first, last = span
    start = 0 if job.context.fresh_mapping is not None else first
    workers = workers_for(job.footage.source.info.size) if renderer.in_any_order else 1
    with closing(_generator(job.footage.source.frames(start, last - start + 1))) as frames:
        numbered = enumerate(frames, start)
        if workers > 1:
            yield from _at_once(renderer, numbered, workers)
            return
        for index, rgb in numbered:
            if index < first:
                renderer.pass_over(index, rgb)
            else:
                yield rgb, renderer.frame(index, rgb)


def _at_once(
    renderer: Renderer, numbered: Iterator[tuple[int, np.ndarray]], workers: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Source and edited frames in order, several of them worked on at a time."""
    waiting: deque[tuple[np.ndarray, Future[BegunFrame]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for index, rgb in numbered:
                waiting.append((rgb, pool.submit(renderer.begin, index, rgb)))
                if len(waiting) > workers:
                    before, begun = waiting.popleft()
                    yield before, renderer.finish(begun.result())
            while waiting:
                before, begun = waiting.popleft()
                yield before, renderer.finish(begun.result())
        finally:
            for _, begun in waiting:
                begun.cancel()


def workers_for(size: Size) -> int:
    """How many frames of a size are worked on at a time: one a core, as memory allows."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(min(cores or 1, MOST_WORKERS, int(WORK_PIXELS / (size.width * size.height))), 1)


def _generator(frames: Iterator[np.ndarray]) -> Generator[np.ndarray, None, None]:
    yield from frames
