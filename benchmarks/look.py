"""What looks cost: CPU milliseconds a frame, on planes as a stream makes them and in RGB.

    python -m benchmarks.look CLIP [--presets sunset storm galaxy] [--frames 24]

The clip is made 854x480 first. `measure`: statistics, at low resolution. `planes`: composite,
tones, veil and glow of `edits.stream_look`, less the composite alone. `rgb`: the same look by
`edits.look_pass` on RGB, with the two conversions. `weather`: what falls, on planes. `differ`: mean
and 99th percentile of the difference of both results, RGB levels (RGB guesses the sky behind mixed
pixels at low resolution, planes know it).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from atlas.coords import Size
from atlas.layered import homography_map
from atlas.mapping import Layer
from atlas.video import open_source
from benchmarks.fastpath import remade
from benchmarks.live import SIZE
from benchmarks.pipeline import keep, print_table
from edits.look_pass import LookFrame, LookPass, relit, veiled
from edits.paint import Paint
from edits.preset import read_preset
from edits.recipe import Recipe
from edits.sky import open_sky
from edits.stream import streamed_edit
from edits.stream_composite import old_sky, replaced_sky, sky_rows
from edits.stream_look import Laid, PlaneLook
from edits.stream_sky import SkyPlanes
from edits.view import CanvasView, Region
from preprocess.camera_track import CameraChoice, open_camera
from preprocess.observer import SkyObserver


class Clock:
    """CPU milliseconds by name."""

    def __init__(self) -> None:
        self.ms: dict[str, list[float]] = {}
        self._at = 0.0

    def start(self) -> None:
        self._at = time.process_time()

    def stop(self, name: str) -> None:
        self.ms.setdefault(name, []).append(1000 * (time.process_time() - self._at))
        self.start()

    def median(self, name: str) -> float:
        return float(np.median(self.ms.get(name, [0.0])))


def measure(clip: Path, preset: str, count: int) -> dict[str, Any]:
    source, recipe = open_source(clip, trusting=True), read_preset(preset)
    form = source.plane_format
    assert form is not None
    assert recipe.look is not None
    observer = SkyObserver(form, open_camera(form.size, CameraChoice(still=True)))
    paint = _paint(recipe, form.size)
    sky, look, plane_look = SkyPlanes(paint, form), LookPass(recipe.look), PlaneLook(form)
    clock, differences = Clock(), []
    for index, planes in enumerate(source.planes(form, 0, count)):
        seen = observer.look(planes)
        observer.locate(planes, seen)
        alpha, t = observer.matte(planes, seen), index / 30
        rows = sky_rows(alpha)
        if rows is None:
            continue
        laid = Laid(rows, sky.sample(np.eye(3), rows, t), old_sky(form, seen.rgb, seen.sky))
        view = Size(form.size.height // 8, form.size.width // 8)
        uv = homography_map(np.eye(3), form.size, view)
        clock.start()
        air = look.measure(
            LookFrame(seen.rgb, seen.rgb, seen.sky, uv, lambda uv: paint.sample(uv, 0.0), t)
        )
        clock.stop("measure")
        done = plane_look.apply(planes, alpha, laid, air)
        clock.stop("planes")
        plain = replaced_sky(form, planes, alpha, (rows, laid.planes), laid.old)
        clock.stop("plain")
        share = alpha.astype(np.float32) * np.float32(1 / 255)
        rgb = form.rgb_of(plain)
        rgb = rgb if air.table is None else relit(rgb, share, air.sky, air.table)
        rgb = rgb if air.veil is None else veiled(rgb, *air.veil, share)
        rgb = rgb if air.glow is None else veiled(rgb, air.glow, air.glow, None)
        other = form.planes_of(rgb)
        clock.stop("rgb")
        differences.append(np.abs(form.rgb_of(done).astype(int) - form.rgb_of(other)))
        clock.start()
        if look.weather is not None:
            look.weather.apply_planes(done, form, t)
            clock.stop("weather")
    apart = np.stack(differences)
    return {
        "preset": preset,
        "measure": clock.median("measure"),
        "planes": clock.median("planes") - clock.median("plain"),
        "weather": clock.median("weather"),
        "rgb": clock.median("rgb"),
        "differ": f"{apart.mean():.2f}, {np.percentile(apart, 99):.0f}",
    }


def _paint(recipe: Recipe, size: Size) -> Paint:
    """The preset's sky, placed as a first frame places it."""
    edit = streamed_edit(recipe)
    assert edit is not None
    frame = Region(-0.5, -0.5, size.width - 0.5, size.height - 0.5)
    return open_sky(edit, Layer("sky", size)).place(CanvasView(frame, frame, certain=False))


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.look",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("clip", type=Path)
    parser.add_argument("--presets", nargs="+", default=["sunset", "storm", "galaxy"])
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--json", type=Path, help="keep the table here")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "clip.mp4"
        remade(options.clip, made, SIZE, options.frames)
        rows = [measure(made, preset, options.frames) for preset in options.presets]
    print_table(rows)
    keep(options.json, rows)


if __name__ == "__main__":
    main()
