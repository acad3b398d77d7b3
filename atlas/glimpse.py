"""Small grey frames of a video ahead of time, at a fraction of what decoding it takes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from atlas import ffmpeg
from atlas.coords import Size
from atlas.video import VideoInfo

_EVERY_S = 0.09
"""Frames nearer in time than this are left out."""


def glimpses(
    info: VideoInfo, long_side_px: int, first_s: float, length_s: float
) -> Iterator[np.ndarray]:
    """(h, w) uint8 frames of a stretch of a video, some ten a second.

    Frames that no other frame is decoded from (half, where B frames are used) are not decoded,
    and edges are not smoothed. What cannot be decoded ends it; nothing is raised.

    Args:
        long_side_px: of the frames; even, the other side too.
    """
    size = glimpse_size(info.size, long_side_px)
    # by the whole file's times: frames before the stretch are dropped by their time
    chosen = f"select='isnan(prev_selected_t)+gte(t-prev_selected_t,{_EVERY_S})'"
    small = f"scale={size.width}:{size.height}:flags=area,format=gray"
    cheap = ["-threads", "1", "-skip_loop_filter", "all", "-skip_frame", "noref"]
    given = [*cheap, "-ss", f"{first_s:.3f}", "-t", f"{length_s:.3f}"]
    given += ["-i", ffmpeg.input_name(info.path), "-map", f"0:{info.stream_index}"]
    taken = ["-vf", f"{chosen},{small}", "-fps_mode", "passthrough", "-f", "rawvideo", "-"]
    process = ffmpeg.Process(["-v", "fatal", *given, *taken], read=True)
    try:
        while True:
            data = np.empty((size.height, size.width), np.uint8)
            if process.read_into(data.data.cast("B")) < data.size:
                return
            yield data
    finally:
        process.kill()


def glimpse_size(size: Size, long_side_px: int) -> Size:
    """The size of `glimpses`: even sides, never larger than the frames."""
    scale = min(1.0, long_side_px / max(size.height, size.width))
    return Size(*(max(2, 2 * round(side * scale / 2)) for side in (size.height, size.width)))
