"""Quality and time of fits on clips: frames with masks, DIS flow, 768x432.

    python -m benchmarks.fit ../shared/data/clips/blackswan --work build/bench \\
        --json benchmarks/results/fit.json

A clip is a folder of frames NAME with masks in NAME_masks beside it, or a video (then masks as
preprocess decides). Each configuration given is fitted to each clip, one after the other.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

from benchmarks.pipeline import command, keep, print_table, report_of


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.fit",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("clips", nargs="+", type=Path, help="frame folders or videos")
    parser.add_argument("--work", type=Path, default=Path("build/bench"), help="scratch folder")
    parser.add_argument("--config", nargs="*", default=["configs/default.yaml"], help="presets")
    parser.add_argument("--budget", type=float, metavar="SECONDS", help="of every fit")
    parser.add_argument("--quality", choices=("draft", "standard", "best"), help="of every fit")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="for train.py")
    parser.add_argument("--size", default="768x432", metavar="WxH")
    parser.add_argument("--max-frames", type=int, default=50, metavar="N")
    parser.add_argument("--json", type=Path, help="keep the table here")
    return parser.parse_args()


def prepare(clip: Path, options: argparse.Namespace) -> tuple[Path, float]:
    """Preprocess anew; returns the clip folder and the seconds it took."""
    folder = options.work / "data" / clip.stem
    for old in folder.parent.glob(f"{clip.stem}*"):
        shutil.rmtree(old)
    masks = clip.with_name(f"{clip.name}_masks")
    arguments: list[str | Path] = [clip, "--out", folder, "--flow", "dis", "--size", options.size]
    arguments += ["--max-frames", str(options.max_frames)]
    arguments += ["--masks", masks] if masks.is_dir() else []
    return folder, command("-m", "preprocess", *arguments)


def measure(clip: Path, config: str, options: argparse.Namespace) -> dict[str, Any]:
    folder, preprocess_s = prepare(clip, options)
    run = options.work / "runs" / f"{clip.stem}_{Path(config).stem}"
    run.parent.mkdir(parents=True, exist_ok=True)
    budget = ["--budget", str(options.budget)] if options.budget else []
    quality = ["--quality", options.quality] if options.quality else []
    more = [*budget, *quality, *(word for one in options.set for word in ("--set", one))]
    train_s = command("train.py", folder, "--out", run, "--overwrite", "--config", config, *more)
    report = report_of(run, "--no-fast")
    atlas = report["atlas"]
    top = report["run"]["layers"][0]
    return {
        "clip": clip.stem,
        "config": Path(config).stem,
        "psnr_db": atlas["psnr_db"],
        "camera_light_db": atlas["psnr_camera_light_db"],
        "no_shading_db": atlas["psnr_no_shading_db"],
        f"{top}_db": atlas["psnr_by_layer_db"][top],
        "ssim": atlas["ssim"],
        "warp_error": atlas["warp_error"],
        "preprocess_s": round(preprocess_s, 1),
        "train_s": round(train_s, 1),
        "peak_memory_mb": report["peak_memory_by_stage_mb"]["train"],
    }


def main() -> None:
    options = parse_arguments()
    rows = []
    for clip in options.clips:
        for config in options.config:
            rows.append(measure(clip, config, options))
            print_table(rows[-1:])
    print()
    print_table(rows)
    keep(options.json, rows)


if __name__ == "__main__":
    main()
