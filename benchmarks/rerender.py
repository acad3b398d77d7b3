"""Frames a second of a painted layer seen again through baked maps, without encoding.

    python -m benchmarks.rerender [--size 854x480] [--frames 50] [--repeats 5] [--json FILE]

The made-up fitted clip of `benchmarks.edit`: paint over the whole background, and on the object.
Frames lie in memory; the paint's premultiplication counts. Beside it, in the same run, the renderer
that makes the final frames, from the mapping itself.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from atlas.clip import write_rgb
from atlas.coords import Size
from atlas.errors import run_script
from atlas.shading import unit_shading
from benchmarks.edit import made_up_job, parse_arguments
from benchmarks.pipeline import keep, print_table
from edits.apply import Renderer
from edits.context import fitted_gains
from edits.kinds import LayerPaint
from edits.recipe import Recipe
from edits.rerender import bake_layer

WORKERS = 2


def paint_over(canvas: Size, seed: int) -> np.ndarray:
    """(H, W, 4) uint8: blots of three opacities over the whole canvas."""
    rng = np.random.default_rng(seed)
    rgba = np.zeros((canvas.height, canvas.width, 4), np.uint8)
    rgba[:] = (*rng.integers(0, 256, 3).tolist(), 128)
    for _ in range(60):
        centre = tuple(int(v) for v in rng.integers(0, canvas.wh))
        colour = (*rng.integers(0, 256, 3).tolist(), int(rng.choice((90, 180, 255))))
        cv2.circle(rgba, centre, int(rng.integers(10, 60)), colour, -1, cv2.LINE_AA)
    return rgba


def measure(size: Size, count: int, repeats: int) -> list[dict[str, Any]]:
    rows = []
    with tempfile.TemporaryDirectory(prefix="skyweave-") as name:
        folder = Path(name)
        job = made_up_job(folder, size, count)
        frames = [rgb.copy() for _, rgb in zip(range(count), job.footage.source.frames())]  # noqa: B905
        shading = unit_shading(len(job.mapping.layers), count, size, 8)
        for i, layer in enumerate(job.mapping.layers):
            start_s = time.perf_counter()
            baked = bake_layer(
                folder / layer.name,
                job.mapping,
                i,
                size,
                lambda t, view: fitted_gains(shading(t), view),
            )
            bake_s = time.perf_counter() - start_s
            paints = [paint_over(layer.canvas, seed) for seed in range(repeats + 1)]
            path = folder / f"{layer.name}.png"
            write_rgb(path, paints[0])
            recipe = Recipe(edits=(LayerPaint(layer=layer.name, path=str(path)),))
            renderer = Renderer(job.mapping, recipe, job.context)

            def again(baked=baked, paints=paints) -> None:
                paint = baked.premultiplied(paints.pop())
                for _ in baked.video(frames, paint, WORKERS):
                    pass

            def final(renderer=renderer) -> None:
                for t in range(0, count, 5):
                    renderer.frame(t, frames[t])

            again()
            busy_s = time.process_time()
            spent = _spent(again, repeats)
            busy_s = (time.process_time() - busy_s) / (repeats * count)
            final_s = _spent(final, 1)[0] * 5
            rows.append(
                {
                    "layer": layer.name,
                    "size": str(size),
                    "frames_per_s": round(count / statistics.median(spent), 1),
                    "slowest": round(count / max(spent), 1),
                    "fastest": round(count / min(spent), 1),
                    "final_renderer_frames_per_s": round(count / final_s, 1),
                    "processor_ms_per_frame": round(1e3 * busy_s, 2),
                    "bake_s": round(bake_s, 2),
                    "workers": WORKERS,
                }
            )
    return rows


def _spent(work: Callable[[], None], repeats: int) -> list[float]:
    """Wall-clock seconds of every repeat."""
    out = []
    for _ in range(repeats):
        start_s = time.perf_counter()
        work()
        out.append(time.perf_counter() - start_s)
    return out


def main() -> None:
    args, (width, height) = parse_arguments("rerender")
    cv2.setNumThreads(1)  # the workers are the parallelism
    rows = measure(Size(height, width), args.frames, args.repeats)
    print_table(rows)
    keep(args.json, rows)


if __name__ == "__main__":
    run_script(main)
