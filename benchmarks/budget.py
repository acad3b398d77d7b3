"""What more time buys: budgets, going on at a higher quality, and fits that are killed.

    python -m benchmarks.budget build/bench/data/blackswan --json benchmarks/results/budget.json

Three tables of PSNR. Fits of one clip by rising `--budget`: none may be worse than a shorter one,
and none may take longer than it was given. One run as draft, then `--resume` to standard and best:
none may be worse than before. A fit that is killed (SIGKILL) again and again and resumed, against
one left alone: the same motion. On a busy machine `--clock cpu` lets budgets run by processor time.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.pipeline import ROOT, command, keep, print_table

BY_CPU = "import time; time.monotonic = time.process_time; import train; train.main()"
"""train.py with a clock that stands still while other programs run."""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.budget",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("clip", type=Path, help="clip folder made by preprocess")
    parser.add_argument("--work", type=Path, default=Path("build/bench"), help="scratch folder")
    parser.add_argument("--budgets", type=float, nargs="*", default=[30, 60, 120, 240])
    parser.add_argument(
        "--qualities", nargs="*", default=["draft", "standard", "best"], help="one after the other"
    )
    parser.add_argument(
        "--kill-every", type=float, default=20.0, metavar="SECONDS", help="0: kill nothing"
    )
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="of budgets")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="for train.py")
    parser.add_argument("--json", type=Path, help="keep the tables here")
    return parser.parse_args()


def arguments_of(options: argparse.Namespace, run: Path, *more: str) -> list[str]:
    """What follows the interpreter's name."""
    start = ["-c", BY_CPU] if options.clock == "cpu" else ["train.py"]
    sets = [word for one in options.set for word in ("--set", one)]
    return [*start, str(options.clip), "--out", str(run), *sets, *more]


def result_of(run: Path) -> dict[str, Any]:
    info = json.loads((run / "run.json").read_text(encoding="utf-8"))
    return {"psnr_db": info["metrics"]["psnr_db"], "train_s": info["seconds"]["train"]}


def by_budget(options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """A fit from nothing for every budget."""
    rows: list[dict[str, Any]] = []
    for budget_s in sorted(options.budgets):
        run = folder / f"budget_{budget_s:g}"
        command(*arguments_of(options, run, "--overwrite", "--budget", str(budget_s)))
        found = result_of(run)
        best = max((row["psnr_db"] for row in rows), default=-np.inf)
        rows.append(
            {
                "what": "budget",
                "budget_s": budget_s,
                **found,
                "in_time": found["train_s"] <= budget_s,
                "never_worse": found["psnr_db"] >= best,
            }
        )
        print_table(rows[-1:])
    return rows


def by_quality(options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """One run that goes on from quality to quality."""
    rows, run = [], folder / "quality"
    for number, quality in enumerate(options.qualities):
        how = "--resume" if number else "--overwrite"
        command(*arguments_of(options, run, how, "--quality", quality))
        found = result_of(run)
        best = max((row["psnr_db"] for row in rows), default=-np.inf)
        rows.append(
            {
                "what": "resumed",
                "quality": quality,
                **found,
                "never_worse": found["psnr_db"] >= best,
            }
        )
        print_table(rows[-1:])
    return rows


def by_killing(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """A fit killed over and over, every time a little later, against one left alone."""
    alone, killed = folder / "alone", folder / "killed"
    quality = ["--quality", options.qualities[min(1, len(options.qualities) - 1)]]
    command(*arguments_of(options, alone, "--overwrite", *quality))
    shutil.rmtree(killed, ignore_errors=True)
    kills, patience_s, how = 0, options.kill_every, "--overwrite"
    while True:
        line = [sys.executable, *arguments_of(options, killed, how, *quality)]
        process = subprocess.Popen(
            line, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        try:
            _, errors = process.communicate(timeout=patience_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            kills, how, patience_s = kills + 1, "--resume", 1.3 * patience_s
            continue
        if process.returncode:
            raise SystemExit(f"the resumed fit failed: {errors.decode(errors='replace')[-500:]}")
        break
    residuals = sorted(path.name for path in alone.glob("residual_*.npy"))
    apart = [np.abs(np.load(alone / n) - np.load(killed / n)).max() for n in residuals]
    return {
        "what": "killed",
        "kills": kills,
        "psnr_db": result_of(killed)["psnr_db"],
        "psnr_alone_db": result_of(alone)["psnr_db"],
        "residual_apart_texels": float(max(apart, default=0)),
    }


def main() -> None:
    options = parse_arguments()
    folder = options.work / "runs" / f"{options.clip.name}_budgets"
    folder.mkdir(parents=True, exist_ok=True)
    start_s = time.monotonic()
    rows = by_budget(options, folder)
    keep(options.json, rows)
    rows += by_quality(options, folder)
    keep(options.json, rows)
    if options.kill_every > 0:
        rows.append(by_killing(options, folder))
        print_table(rows[-1:])
        keep(options.json, rows)
    print(f"{time.monotonic() - start_s:.0f} s in all")


if __name__ == "__main__":
    main()
