"""How long an edit takes, from command to finished file, once Python has started.

    python -m benchmarks.edit [--size 854x480] [--frames 50] [--repeats 5] [--json FILE]

A made-up fitted clip: two layers with homographies, lattice residuals and shading, coded as h264.
Timed: text at pins, paint on the object, a removed layer, and one preview frame; each from reading
the recipe's files to the renamed output. The baseline, in the same run and through the same decoder
and encoder, renders every layer's edited atlas over the whole frame and composites all of it in
floating point, without a box, without reuse of the original pixels. Medians and quartiles;
processor time beside them, which a busy machine changes less. Beside the times, what knowing the
old sky does to edges (`benchmarks.edges`).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from atlas.clip import write_bytes, write_rgb
from atlas.coords import Size
from atlas.errors import InputError, run_script
from atlas.layered import LayeredMapping, LayerMotion, lattice_shape
from atlas.run import current_commit, machine_name
from atlas.shading import unit_shading
from atlas.texture import Texture, sample
from atlas.video import open_source
from atlas.video_writer import VideoWriter
from benchmarks import edges
from edits.context import RenderContext
from edits.deliver import Delivery, Job, make_writer, write_frame, write_video
from edits.footage import Footage
from edits.kinds import Insert, LayerPaint, RemoveLayer
from edits.recipe import Recipe
from preprocess.sky.procedural import fractal_noise

STRIDE_PX = 8
FPS = Fraction(25)


def made_up_job(folder: Path, size: Size, count: int) -> Job:
    """A clip that pans by 3 px a frame behind a disc, as a fitted run would describe it."""
    rng = np.random.default_rng(0)
    wide = Size(size.height, size.width + 3 * count)
    background = np.stack([0.3 + 0.4 * fractal_noise(rng, wide, 3, 6) for _ in range(3)], -1)
    background = background.astype(np.float32)
    disc = Size(size.height // 2, size.height // 2)
    thing = np.stack([0.5 + 0.4 * fractal_noise(rng, disc, 3, 6) for _ in range(3)], -1)
    thing = thing.astype(np.float32)
    y, x = np.mgrid[: size.height, : size.width]
    radius = np.hypot(x - size.width / 2, y - size.height / 2)
    alpha = np.clip(disc.height / 2 - 4 - radius, 0, 1).astype(np.float32)
    alphas = np.stack([alpha, np.ones_like(alpha)])
    motions = [
        _motion("foreground", disc, size, count, _shift(disc.width / 2 - size.width / 2,
                                                        disc.height / 2 - size.height / 2, 0)),
        _motion("background", wide, size, count, _shift(0, 0, 3)),
    ]  # fmt: skip
    mapping = LayeredMapping(size, motions, lambda t: alphas)
    textures = [Texture(rgb, np.ones(rgb.shape[:2], np.float32)) for rgb in (thing, background)]
    path = folder / "clip.mp4"
    with VideoWriter(path, size, fps=FPS) as writer:
        for t in range(count):
            found = mapping.frame(t)
            layers = [sample(a.rgb, uv) for a, uv in zip(textures, found.uv, strict=True)]
            rgb = layers[1] + alpha[..., None] * (layers[0] - layers[1])
            writer.write(np.rint(rgb.clip(0, 1) * 255).astype(np.uint8))
    source = open_source(path)
    context = RenderContext(
        textures=textures,
        shading=unit_shading(2, count, size, 16),
        times_s=source.info.frame_times_s,
        fps=float(FPS),
        read_frame=source.frame,
    )
    return Job(Footage(source), mapping, context)


def _shift(x: float, y: float, x_per_frame: float) -> Callable[[int], np.ndarray]:
    return lambda t: np.array([[1, 1e-4, x + x_per_frame * t], [0, 1, y], [1e-9, 0, 1]], np.float64)


def _motion(
    name: str, canvas: Size, size: Size, count: int, matrix: Callable[[int], np.ndarray]
) -> LayerMotion:
    residual = np.zeros((count, *lattice_shape(size, STRIDE_PX), 2), np.float32)
    matrices = np.stack([matrix(t) for t in range(count)])
    return LayerMotion(name, canvas, matrices, residual, STRIDE_PX, np.ones(count, np.float32))


def plain_video(job: Job, edited: list[np.ndarray], out: Path) -> None:
    """The baseline: every layer's edited atlas, whole frames, floating point.

    Args:
        edited: per layer, (h, w, 3) float32: the atlas with the edit painted in.
    """
    source = job.footage.source
    assert job.context.shading is not None
    with make_writer(source.info, Delivery(out=out)) as writer:
        for t, _ in enumerate(source.frames()):
            found = job.mapping.frame(t)
            gains = job.context.shading(t)
            total = np.zeros((*source.info.size.wh[::-1], 3), np.float32)
            for share, rgb, uv, gain in zip(found.visible(), edited, found.uv, gains, strict=True):
                total += share[..., None] * sample(rgb, uv) * gain
            writer.write(np.rint(total.clip(0, 1) * 255).astype(np.uint8))


def recipes(folder: Path, job: Job) -> dict[str, Recipe]:
    """What is timed, by name."""
    canvas, size = job.mapping.layers[0].canvas, job.footage.source.info.size
    rgba = np.zeros((canvas.height, canvas.width, 4), np.uint8)
    cv2.circle(rgba, (canvas.width // 2, canvas.height // 2), canvas.height // 3,
               (230, 40, 90, 200), -1, cv2.LINE_AA)  # fmt: skip
    write_rgb(folder / "paint.png", rgba)
    x, y = 0.15 * size.width, 0.2 * size.height
    corners = ((x, y), (4 * x, 1.1 * y), (4 * x, 2 * y), (x, 2 * y))
    return {
        "text": Recipe(
            edits=(Insert(layer="background", frame=0, corners=corners, text="GRAND HOTEL"),)
        ),
        "paint": Recipe(edits=(LayerPaint(layer="foreground", path=str(folder / "paint.png")),)),
        "remove": Recipe(edits=(RemoveLayer(layer="foreground"),)),
    }


def measure(size: Size, count: int, repeats: int) -> dict[str, object]:
    """Seconds of every way, by turns so that a busy machine is busy for all."""
    with tempfile.TemporaryDirectory(prefix="skyweave-") as name:
        folder = Path(name)
        job = made_up_job(folder, size, count)
        textures = [texture.rgb for texture in job.context.textures or []]
        ways: dict[str, Callable[[], object]] = {
            "plain_s": lambda: plain_video(job, textures, folder / "plain.mp4")
        }
        for key, recipe in recipes(folder, job).items():
            ways[f"{key}_s"] = lambda recipe=recipe, key=key: write_video(
                job, job.open(recipe), Delivery(out=folder / f"{key}.mp4")
            )
            ways[f"{key}_preview_s"] = lambda recipe=recipe, key=key: write_frame(
                job, job.open(recipe), Delivery(out=folder / f"{key}_preview.png"), count // 2
            )
        spent: dict[str, list[float]] = {key: [] for key in ways}
        busy: dict[str, list[float]] = {key: [] for key in ways}
        for way in ways.values():
            way()
        for _ in range(repeats):
            for key, way in ways.items():
                start, cpu = time.perf_counter(), _processor_s()
                way()
                spent[key].append(time.perf_counter() - start)
                busy[key].append(_processor_s() - cpu)
    found: dict[str, object] = {key: _spread(values) for key, values in spent.items()}
    found["processor_s"] = {k: round(statistics.median(v), 3) for k, v in busy.items()}
    return found


def _processor_s() -> float:
    """Processor time of this process and of the ffmpegs that have ended, seconds."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _spread(values: list[float]) -> dict[str, float]:
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    return {"median": round(middle, 3), "low": round(low, 3), "high": round(high, 3)}


def parse_arguments(name: str) -> tuple[argparse.Namespace, tuple[int, int]]:
    """Options of the benchmarks of edits, and --size as (width, height)."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}")
    parser.add_argument("--size", default="854x480", help="WIDTHxHEIGHT")
    parser.add_argument("--frames", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    try:
        width, height = (int(part) for part in args.size.split("x"))
    except ValueError as err:
        raise InputError(f"--size {args.size}: wanted WIDTHxHEIGHT") from err
    return args, (width, height)


def main() -> None:
    args, (width, height) = parse_arguments("edit")
    report = {
        "what": f"edit of {args.frames} frames at {width}x{height}, to a finished h264 file",
        "machine": machine_name(),
        "date": time.strftime("%Y-%m-%d"),
        "commit": current_commit(),
        "repeats": args.repeats,
        "opencv_threads": cv2.getNumThreads(),
        **measure(Size(height, width), args.frames, args.repeats),
        "edges_of_a_replaced_sky_db": edges.measure(),
    }
    text = json.dumps(report, indent=1)
    print(text)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(args.json, text.encode("utf-8"))


if __name__ == "__main__":
    run_script(main)
