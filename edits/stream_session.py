"""What `edit.py VIDEO --sky ...` does: open a stream, write it, say how it went."""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Iterator
from contextlib import closing

import cv2
import numpy as np

from atlas.coords import Size
from atlas.errors import InputError
from atlas.planes import PlaneFormat, Planes
from atlas.progress import progress
from atlas.video import FrameSource, open_source
from edits.deliver import Delivery, make_writer, parse_span
from edits.recipe import Recipe
from edits.stream import SkyStream, StreamFrame, can_stream

_RGB_CODECS = ("lossless", "ffv1", "png")
_VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm")


def streamed_source(args: argparse.Namespace, recipe: Recipe) -> FrameSource | None:
    """The video to stream; None where this command has to go frame by frame instead."""
    looking = args.preview is not None or args.contact_sheet or args.watch or args.history
    other = args.size or args.data or args.source or args.clip
    if (
        looking
        or other
        or args.frame_by_frame
        or args.compose != "exact"
        or args.codec in _RGB_CODECS
    ):
        return None
    if not args.input.is_file() or not can_stream(recipe):
        return None
    if args.out is None or args.out.suffix.lower() not in _VIDEO_SUFFIXES:
        return None
    source = open_source(args.input, trusting=True)
    return source if source.plane_format is not None else None


def stream_video(args: argparse.Namespace, source: FrameSource, stream: SkyStream) -> str:
    """Write the edited video; what there is to say of it."""
    start_s = time.monotonic()
    cv2.setNumThreads(1)  # the stages are the parallelism
    info, form = source.info, stream.form
    delivery = Delivery(
        out=args.out, codec=args.codec, crf=args.crf, side_by_side=args.side_by_side,
        span=parse_span(args.range, info), effort=args.effort or "superfast",
        bits=_bits(args, form), pixel_format=pixel_format_of(args, form), may_be_short=True,
    )  # fmt: skip
    first, last = delivery.span or (0, info.frame_count - 1)
    writer, count = make_writer(info, delivery), 0
    frames = _numbered(source, form, last + 1)
    with progress(None, last + 1, "rendering") as bar, closing(stream.run(frames)) as results:
        try:
            with writer:
                try:
                    for frame in results:
                        if frame.index >= first:
                            writer.write_planes(output_planes(frame, form, delivery))
                            count += 1
                        bar.advance()
                except KeyboardInterrupt:
                    if args.keep_partial and writer.keep_partial():
                        print(f"{args.out}: interrupted; holds the first {count} frames")
                    raise
        except KeyboardInterrupt:
            raise SystemExit(130) from None
    seconds = time.monotonic() - start_s
    said = f"{args.out}: {count} frames in {seconds:.1f} s ({count / seconds:.1f} frames/s)"
    return f"{said}\n{stage_times(stream, last + 1)}" if args.stage_times else said


def stage_times(stream: SkyStream, count: int) -> str:
    """CPU milliseconds a frame of every stage, of ffmpeg's processes, and of all the rest."""
    shares = {name: seconds for name, seconds in stream.times.cpu_s.items() if name != "decode"}
    own, others = (
        sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    shares["start and pipes"] = own - sum(shares.values())
    shares["ffmpeg decode and encode"] = others
    parts = (f"{name} {1000 * seconds / count:.1f}" for name, seconds in shares.items())
    return "stages, CPU ms a frame: " + ", ".join(parts)


def _numbered(
    source: FrameSource, form: PlaneFormat, count: int
) -> Iterator[tuple[int, float, Planes]]:
    times_s = source.info.frame_times_s
    with closing(source.planes(form, 0, count)) as frames:  # pyright: ignore[reportArgumentType]
        for index, planes in enumerate(frames):
            yield index, times_s[index] - times_s[0], planes


def _bits(args: argparse.Namespace, form: PlaneFormat) -> int | None:
    if args.bits is not None:
        return args.bits
    plain = args.codec in ("auto", "h264") and args.out.suffix.lower() != ".webm"
    return 8 if plain else form.bits


def pixel_format_of(args: argparse.Namespace, form: PlaneFormat) -> str:
    """What the encoder is fed."""
    if not args.with_alpha:
        return form.name
    if args.codec != "prores":
        raise InputError("--with-alpha needs --codec prores (.mov); other codecs hold no opacity")
    return "yuva444p10le"


def output_planes(frame: StreamFrame, form: PlaneFormat, delivery: Delivery) -> list[np.ndarray]:
    """The planes that are written for a frame."""
    assert frame.done is not None
    assert frame.alpha is not None
    done = list(frame.done.all)
    if delivery.side_by_side:
        done = [np.hstack(pair) for pair in zip(frame.planes.all, done, strict=True)]
    if delivery.pixel_format != "yuva444p10le":
        return done
    alpha = (1023 - frame.alpha.astype(np.uint32) * 1023 // 255).astype(np.uint16)
    if delivery.side_by_side:
        alpha = np.hstack([np.full_like(alpha, 1023), alpha])
    wide = form.with_size(Size(*alpha.shape))
    return [*wide.as_444_10(Planes(*done)), alpha]
