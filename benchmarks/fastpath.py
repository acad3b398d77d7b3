"""The fast path on clips: how the sky moves between frames, and how fast the whole command is.

    python -m benchmarks.fastpath ../shared/data/clips/solidWhiteRight.mp4 --repeats 3

Motion is that of the frame's centre on the sky canvas. A jump would show as a second difference
many times the median: a pan is smooth.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from atlas.coords import apply_homography
from atlas.video import open_source
from benchmarks.pipeline import command, keep, print_table
from preprocess.fastpath import FastPathMapping


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.fastpath",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("clips", nargs="+", type=Path, help="videos")
    parser.add_argument("--sky", default="edits/skies/sunset.jpg", help="the edit's picture")
    parser.add_argument("--repeats", type=int, default=3, help="of the timed command; 0 = none")
    parser.add_argument("--json", type=Path, help="keep the table here")
    return parser.parse_args()


def sky_steps_px(clip: Path) -> np.ndarray:
    """(T - 1, 2): how far the frame's centre moves on the sky canvas from frame to frame."""
    source = open_source(clip)
    size = source.info.size
    mapping = FastPathMapping(size, frame_count=source.info.frame_count)
    centre = np.array([[size.width / 2, size.height / 2]])
    places = []
    for t, rgb in enumerate(source.frames()):
        mapping.observe(t, rgb)
        places.append(apply_homography(mapping.motion(t).sky, centre)[0])
    return np.diff(places, axis=0)


def measure(clip: Path, options: argparse.Namespace) -> dict[str, Any]:
    steps = sky_steps_px(clip)
    lengths = np.linalg.norm(steps, axis=1)
    bends = np.linalg.norm(np.diff(steps, axis=0), axis=1)
    row: dict[str, Any] = {
        "clip": clip.stem,
        "frames": len(steps) + 1,
        "step_px_median": round(float(np.median(lengths)), 2),
        "step_px_max": round(float(lengths.max()), 2),
        "second_difference_px_median": round(float(np.median(bends)), 2),
        "second_difference_px_max": round(float(bends.max()), 2),
        "net_px": round(float(np.linalg.norm(steps.sum(0))), 1),
    }
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.mp4"
        seconds = [
            command("edit.py", clip, "--sky", options.sky, "--out", out)
            for _ in range(options.repeats)
        ]
    if seconds:
        row["command_s_median"] = round(statistics.median(seconds), 1)
        row["command_s_spread"] = f"{min(seconds):.1f}-{max(seconds):.1f}"
        row["frames_per_s"] = round((len(steps) + 1) / statistics.median(seconds), 1)
    return row


def main() -> None:
    options = parse_arguments()
    rows = [measure(clip, options) for clip in options.clips]
    print_table(rows)
    keep(options.json, rows)


if __name__ == "__main__":
    main()
