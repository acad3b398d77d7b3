"""How clean mattes end that begin as rough masks: agreement with annotations, before and after.

    python -m benchmarks.rough_masks ../shared/data/clips/car-shadow --size 480x270 --frames 16 \\
        --json benchmarks/results/rough_masks.json

Annotated masks are made rough in four ways, `--off` pixels of the fitted size each: too large, too
small, beside, and shaken (beside, another way in every frame). Each is preprocessed and fitted as a
user would, then the run's mattes are compared with the annotations (intersection over union at
one half, mean over the frames). Exact masks go first: what is lost on those is the price.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from atlas.clip import list_frames, read_grey, write_rgb
from atlas.metrics import mask_iou
from benchmarks.pipeline import command, keep, print_table

Spoil = Callable[[np.ndarray, float, np.random.Generator], np.ndarray]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.rough_masks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("clip", type=Path, help="folder of frames NAME, annotations in NAME_masks")
    parser.add_argument("--work", type=Path, default=Path("build/bench"), help="scratch folder")
    parser.add_argument("--size", default="480x270", metavar="WxH")
    parser.add_argument("--frames", type=int, default=16, metavar="N")
    parser.add_argument("--off", type=float, default=5.0, metavar="PX", help="of the fitted size")
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--quality", default="standard")
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings of the fit"
    )
    parser.add_argument("--json", type=Path, help="keep the table here")
    return parser.parse_args()


def _kernel(off_px: float) -> np.ndarray:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * round(off_px) + 1,) * 2)


def _moved(mask: np.ndarray, off_px: float, angle: float) -> np.ndarray:
    shift = np.array([[1, 0, off_px * np.cos(angle)], [0, 1, off_px * np.sin(angle)]], np.float32)
    return cv2.warpAffine(mask, shift, mask.shape[::-1])


KINDS: dict[str, Spoil] = {
    "exact": lambda mask, off_px, rng: mask,
    "too_large": lambda mask, off_px, rng: cv2.dilate(mask, _kernel(off_px)),
    "too_small": lambda mask, off_px, rng: cv2.erode(mask, _kernel(off_px)),
    "beside": lambda mask, off_px, rng: _moved(mask, off_px, 0.6),
    "shaken": lambda mask, off_px, rng: _moved(mask, off_px, rng.uniform(0, 2 * np.pi)),
}


def spoiled(clip: Path, folder: Path, kind: str, options: argparse.Namespace) -> None:
    """Write the clip's masks, made rough, into a folder."""
    masks = clip.with_name(f"{clip.name}_masks")
    width = int(options.size.split("x")[0])
    rng = np.random.default_rng(0)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for path in sorted(masks.iterdir())[: options.frames]:
        mask = read_grey(path)
        off_px = options.off * mask.shape[1] / width
        write_rgb(folder / f"{path.stem}.png", KINDS[kind](mask, off_px, rng))


def agreement(truth: list[np.ndarray], found: list[np.ndarray]) -> float:
    """Mean intersection over union, frames without the thing left out."""
    rows = [mask_iou(a / 255.0, b / 255.0) for a, b in zip(found, truth, strict=True) if b.any()]
    return round(float(np.mean(rows)), 4)


def measure(kind: str, options: argparse.Namespace) -> dict[str, Any]:
    stem = f"{options.clip.name}_{kind}"
    folder, run = options.work / "data" / stem, options.work / "runs" / stem
    masks = options.work / "data" / f"{stem}_rough"
    for old in folder.parent.glob(f"{stem}*"):
        shutil.rmtree(old)
    spoiled(options.clip, masks, kind, options)
    arguments = ["--flow", "dis", "--size", options.size, "--max-frames", str(options.frames)]
    command("-m", "preprocess", options.clip, "--out", folder, "--masks", masks, *arguments)
    run.parent.mkdir(parents=True, exist_ok=True)
    arguments = [word for value in options.set for word in ("--set", value)]
    arguments += ["--overwrite", "--quality", options.quality]
    command("train.py", folder, "--out", run, *arguments)
    info = json.loads((run / "run.json").read_text(encoding="utf-8"))
    top, size = info["layers"][0]["name"], (info["width"], info["height"])
    exact = sorted(options.clip.with_name(f"{options.clip.name}_masks").iterdir())
    count = len(list_frames(folder))
    truth, given = (
        [cv2.resize(read_grey(p), size, interpolation=cv2.INTER_AREA) for p in paths[:count]]
        for paths in (exact, sorted(masks.iterdir()))
    )
    found = [read_grey(p) for p in sorted((run / "mattes" / top).iterdir())]
    return {
        "clip": options.clip.name,
        "masks": kind,
        "settings": " ".join(options.set),
        "off_px": options.off,
        "given_iou": agreement(truth, given),
        "found_iou": agreement(truth, found),
        "psnr_db": info["metrics"]["psnr_db"],
    }


def main() -> None:
    options = parse_arguments()
    rows = []
    for kind in options.kinds:
        rows.append(measure(kind, options))
        print_table(rows[-1:])
        keep(options.json, rows)


if __name__ == "__main__":
    main()
