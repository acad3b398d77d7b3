"""Another sky through a fitted run: frames a second, one frame at a time and several at once.

    python -m benchmarks.run_sky runs/annarbor --sky edits/skies/sunset.jpg --frames 40

From opened run to finished file, decoding and encoding included, loading of Python not. Medians of
`--repeats`; processor time beside them, which a busy machine changes less. Both ways must write the
same pixels: the greatest difference of a few frames is given.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import edit
from atlas.errors import run_script
from benchmarks.pipeline import keep, print_table
from edits import deliver
from edits.deliver import Delivery, Job, render_frame, workers_for, write_video
from edits.recipe import Recipe


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.run_sky",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path, help="run folder with a sky")
    parser.add_argument("--sky", type=Path, default=Path("edits/skies/sunset.jpg"))
    parser.add_argument("--frames", type=int, default=40, metavar="N", help="of the clip's first")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="keep the table here")
    return parser.parse_args()


def cpu_s() -> float:
    """Processor seconds of this process and of the programs that it has run."""
    return sum(os.times()[:4])


def timed(job: Job, recipe: Recipe, span: tuple[int, int], workers: int, repeats: int) -> Any:
    """One row: frames a second and processor time a frame."""
    count = span[1] - span[0] + 1
    rates, costs = [], []
    deliver.workers_for = lambda size: workers
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(repeats):
            start_s, start_cpu_s = time.perf_counter(), cpu_s()
            write_video(job, job.open(recipe), Delivery(out=Path(folder) / "o.mp4", span=span))
            rates.append(count / (time.perf_counter() - start_s))
            costs.append(1e3 * (cpu_s() - start_cpu_s) / count)
    return {
        "size": str(job.footage.source.info.size),
        "at_once": workers,
        "frames_per_s": round(statistics.median(rates), 2),
        "cpu_ms_per_frame": round(statistics.median(costs), 1),
    }


def difference(job: Job, recipe: Recipe, span: tuple[int, int]) -> int:
    """Greatest difference in levels between both ways, over three frames."""
    picked = sorted({int(t) for t in np.linspace(*span, 3)})
    alone = [render_frame(job, job.open(recipe), t)[1] for t in picked]
    deliver.workers_for = lambda size: 3
    together = [after for _, after in deliver.rendered_pairs(job, job.open(recipe), span)]
    pairs = ((a, together[t - span[0]]) for a, t in zip(alone, picked, strict=True))
    return max(int(np.abs(a.astype(int) - b).max()) for a, b in pairs)


def main() -> None:
    options = parse_arguments()
    args = edit.parse([str(options.run), "--sky", str(options.sky), "--out", "unused.mp4"])
    job, recipe = edit.open_job(args, edit.find_footage(args)), edit.read_recipe(args)
    size, count = job.footage.source.info.size, job.footage.source.info.frame_count
    first, last = job.covered() or (0, count - 1)
    span = first, min(first + options.frames - 1, last)
    several = workers_for(size)
    rows = [timed(job, recipe, span, n, options.repeats) for n in sorted({1, several})]
    apart = difference(job, recipe, span)
    rows = [row | {"greatest_difference": apart} for row in rows]
    print_table(rows)
    keep(options.json, rows)


if __name__ == "__main__":
    run_script(main)
