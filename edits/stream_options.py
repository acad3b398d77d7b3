"""Command-line options of the fast path: camera, output and live pictures."""

from __future__ import annotations

import argparse
from pathlib import Path

EFFORTS = (
    "ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow",
)  # fmt: skip


def add_stream_options(parser: argparse.ArgumentParser) -> None:
    """Add them."""
    add = parser.add_argument_group("fast path").add_argument
    add("--track", metavar="FILE", type=Path, help="use this camera track, .json or .chan "
        "(docs/CAMERA_TRACK.md)")  # fmt: skip
    add("--export-track", metavar="FILE", type=Path, help="write the camera track, .json or .chan")
    add("--still", action="store_true", help="lock the sky to the frame")
    add("--fov", metavar="DEG", type=float, help="the camera's horizontal field of view, if known "
        "(default: found from how the picture turns)")  # fmt: skip
    add("--keep-partial", action="store_true", help="when interrupted, keep the video up to there")
    add("--bits", type=int, choices=(8, 10), help="bits of the result (default: the source's; 8 "
        "for h264, which few players take in 10)")  # fmt: skip
    add("--with-alpha", action="store_true", help="the result carries the matte as alpha, sky "
        "transparent; prores only")  # fmt: skip
    add("--effort", choices=EFFORTS, help="the encoder's trade of time for size (default: fast; "
        "superfast where the sky of a video is replaced)")  # fmt: skip
    add("--multiband", action="store_true", help="photos: blend scene and sky band by band along "
        "the skyline, which hides rough mattes of twigs and softens clean edges")  # fmt: skip
    add("--frame-by-frame", action="store_true", help="one frame after the other in one thread, in "
        "RGB, as edits other than skies are made")  # fmt: skip
    add("--stage-times", action="store_true", help="say how long each stage took")
    live = parser.add_argument_group("live").add_argument
    live("--input", metavar="N|-", dest="live", help="edit pictures as they come: camera number "
         "N, or - for a video of any kind on standard input; --out - writes YUV4MPEG to standard "
         "output, no --out opens a window")  # fmt: skip
    live("--mirror", action="store_true", help="show live pictures as a mirror does")
