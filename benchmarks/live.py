"""Live pictures: latency and rate at a camera's pace, and at more than this machine can do.

    python -m benchmarks.live CLIP [--fps 24 30 60] [--seconds 10] [--preset sunset]

A clip made 854x480 is given picture by picture at the pace of a camera (a picture that nobody takes
is lost, as a camera loses it), through the command's own matte, track, composite and pipe. Latency
runs from the moment a picture was given to the moment it has been handed out.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from atlas.coords import Size
from atlas.planes import PlaneFormat, Planes
from atlas.video import open_source
from benchmarks.fastpath import remade
from benchmarks.pipeline import keep, print_table
from edits.live import PipeOut, run_live
from edits.preset import read_preset
from edits.recipe import Recipe, SkyEdit
from edits.stream import SkyStream
from preprocess.camera_track import CameraChoice, open_camera
from preprocess.observer import SkyObserver

SIZE = Size(480, 854)


class Paced:
    """The frames of a clip, over and over, one every 1 / fps seconds."""

    def __init__(self, form: PlaneFormat, frames: list[Planes], fps: float, seconds: float):
        self.form, self._fps = form, fps
        self._frames: Iterator[Planes] = itertools.cycle(frames)
        self._start_s, self._given, self._count = time.monotonic(), 0, round(fps * seconds)

    def read(self) -> Planes | None:
        """The next picture, when its time has come."""
        if self._given == self._count:
            return None
        time.sleep(max(0.0, self._start_s + self._given / self._fps - time.monotonic()))
        self._given += 1
        return next(self._frames)

    def close(self) -> None: ...


def measure(clip: Path, fps: float, options: argparse.Namespace) -> dict[str, Any]:
    source = open_source(clip, trusting=True)
    form = source.plane_format
    assert form is not None
    frames = list(source.planes(form, 0, min(options.frames, source.info.frame_count)))
    sky = SkyEdit(source=options.sky)
    recipe = read_preset(options.preset) if options.preset else Recipe(edits=(sky,))
    stream = SkyStream(recipe, SkyObserver(form, open_camera(form.size, CameraChoice())))
    paced = Paced(form, frames, fps, options.seconds)
    with Path("/dev/null").open("wb") as pipe:
        start_s = time.monotonic()
        latencies, dropped = run_live(paced, stream, PipeOut(form, pipe))
        seconds = time.monotonic() - start_s
    steady = list(latencies.last_ms)[
        len(latencies.last_ms) // 5 :
    ]  # after the first have warmed up
    return {
        "fps given": fps,
        "fps shown": round(latencies.count / seconds, 1),
        "dropped": dropped,
        "median ms": round(float(np.median(steady))),
        "95 % ms": round(float(np.percentile(steady, 95))),
        "most ms": round(max(steady)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.live",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("clip", type=Path)
    parser.add_argument("--fps", type=float, nargs="+", default=[24.0, 30.0, 120.0])
    parser.add_argument("--seconds", type=float, default=10.0, help="of each run")
    parser.add_argument("--frames", type=int, default=120, help="of the clip, held in memory")
    parser.add_argument("--sky", default="edits/skies/sunset.jpg")
    parser.add_argument("--preset", help="a preset instead of a plain sky")
    parser.add_argument("--json", type=Path, help="keep the table here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "clip.mp4"
        remade(options.clip, made, SIZE, options.frames)
        rows = [measure(made, fps, options) for fps in options.fps]
    print_table(rows)
    if options.json:
        keep(options.json, rows)


if __name__ == "__main__":
    main()
