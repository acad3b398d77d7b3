"""The default recipe, the paper's and frame-by-frame overfitting on one clip, at the same seconds.

    python -m benchmarks.compare data/swan --budget 120 --minutes 10 \\
        --json benchmarks/results/compare.json
    python -m benchmarks.compare data/libby data/car-shadow --budget 60 --minutes 0 --frames 8 \\
        --append --json benchmarks/results/compare.json

All get the same wall-clock seconds. "overfit" bends every frame on its own: flow smoothed over a
pixel, neighbours ignored, nothing trained. The warping error compares checkerboards painted in the
atlas along flow between frames two apart, which no fit has seen (`atlas.metrics.held_out_flow`).
Then the paper's recipe runs for `--minutes`, and it is found how soon the default one passes it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.pipeline import command, keep, kept_rows, print_table, report_of

OVERFIT = (
    "layered.align.sigmas_px=[14,14,9,9,4,2,1,1,1]",
    "layered.align.stride_px=2",
    "layered.align.neighbour_weight=0",
    "layered.residual_field.training_steps=0",
)
METHODS: dict[str, tuple[str, ...]] = {
    "default": ("--config", "configs/default.yaml"),
    "paper": ("--config", "configs/lna.yaml"),
    "overfit": tuple(word for one in OVERFIT for word in ("--set", one)),
}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("clips", nargs="+", type=Path, help="clip folders made by preprocess")
    parser.add_argument("--work", type=Path, default=Path("build/bench"), help="scratch folder")
    parser.add_argument("--budget", type=float, default=120.0, help="seconds of every method")
    parser.add_argument("--minutes", type=float, default=10.0, help="of the paper's recipe after")
    parser.add_argument("--frames", type=int, help="measure the first N frames only")
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--json", type=Path, help="keep the table here")
    parser.add_argument("--append", action="store_true", help="to the rows that the file has")
    return parser.parse_args()


def fit(clip: Path, name: str, arguments: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """Train and evaluate; one row of the table."""
    run = options.work / "runs" / f"{clip.name}_{name}"
    run.parent.mkdir(parents=True, exist_ok=True)
    train_s = command("train.py", clip, "--out", run, "--overwrite", *arguments)
    more = ["--frames", str(options.frames)] if options.frames else []
    atlas = report_of(run, "--no-fast", *more)["atlas"]
    info = json.loads((run / "run.json").read_text(encoding="utf-8"))
    return {
        "clip": clip.name,
        "method": name,
        "budget_s": budget_of(arguments),
        "frames": options.frames or info["frame_count"],
        "train_s": round(train_s, 1),
        "psnr_db": atlas["psnr_db"],
        "camera_light_db": atlas["psnr_camera_light_db"],
        "no_shading_db": atlas["psnr_no_shading_db"],
        "ssim": atlas["ssim"],
        "warp_error": atlas["warp_error"],
        "warp_error_by_layer": atlas["warp_error_by_layer"],
        "peak_memory_mb": info["peak_memory_mb"],
    }


def budget_of(arguments: list[str]) -> float | None:
    """The `--budget` among a command's arguments."""
    if "--budget" not in arguments:
        return None
    return float(arguments[arguments.index("--budget") + 1])


def race(clip: Path, table: Table, options: argparse.Namespace) -> None:
    """The paper's recipe for `--minutes`, and the quickest default fit that is better by PSNR."""
    paper = ["--budget", str(60 * options.minutes), *METHODS["paper"]]
    slow = table.add(fit(clip, f"paper_{options.minutes:g}min", paper, options))
    for quality in ("draft", "standard"):
        row = fit(clip, f"default_{quality}", ["--quality", quality], options)
        passes = row["psnr_db"] > slow["psnr_db"]
        table.add(row | ({"passes": slow["method"]} if passes else {}))
        if passes:
            break


class Table:
    """Rows that are printed, and kept in a file, as they come: a broken run loses nothing.

    append: the file's own rows stay, but for those of the same clip and method.
    """

    def __init__(self, path: Path | None, append: bool = False):
        self.path = path
        self.rows: list[dict[str, Any]] = kept_rows(path) if append else []

    def add(self, row: dict[str, Any]) -> dict[str, Any]:
        same = row["clip"], row["method"]
        self.rows = [x for x in self.rows if (x["clip"], x["method"]) != same] + [row]
        keep(self.path, self.rows)
        print_table([{k: v for k, v in row.items() if k != "warp_error_by_layer"}])
        return row


def main() -> None:
    options = parse_arguments()
    table = Table(options.json, options.append)
    for clip in options.clips:
        budget, best = ["--budget", str(options.budget)], {}
        for name in options.methods:
            row = fit(clip, name, [*budget, *METHODS[name]], options)
            best[name] = row["psnr_db"]
            if name == "paper" and "default" in best:
                row["default_ahead_db"] = round(best["default"] - best["paper"], 2)
            table.add(row)
        if options.minutes > 0:
            race(clip, table, options)


if __name__ == "__main__":
    main()
