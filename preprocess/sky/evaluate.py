"""Measure sky mattes against pictures with known ones.

    python -m preprocess.sky.evaluate --images DIR --masks DIR --json FILE [--matter classical]

Each picture is treated alone, at its own size. Written for all pictures and per domain (the part
of the name before the first "_"):

    iou_mean        mean over pictures with sky of the IoU at threshold 0.5
    iou_open_mean   the same without the pixels that a polygon calls ground and that look like the
                    sky behind them: bare crowns, where more sky shows than twig (`crowns`)
    iou_right_mean  the iou_mean of a matte that is right everywhere and takes those pixels for sky
    mae_mean        mean over pictures of |matte - truth|
    band_mae_mean   the same inside the band round the truth's edges, 10 px wide at 640 px
    false_sky_mean  mean over pictures without sky of the share marked as sky
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from atlas.clip import write_bytes
from atlas.errors import InputError, run_script
from preprocess.sky.choose import MATTER_NAMES, open_matter
from preprocess.sky.crowns import crown_sky
from preprocess.sky.data import read_pairs
from preprocess.sky.matte import SkyMatter

BAND_PX = 10
BAND_SIDE_PX = 640
NO_SKY_SHARE = 0.001
"""A picture with less sky than this (share of pixels) counts as one without sky."""


@dataclass(frozen=True)
class PictureScore:
    """What one picture scores; None where a number has no meaning."""

    name: str
    iou: float | None
    """None for a picture without sky."""
    iou_open: float | None
    iou_right: float | None
    mae: float
    band_mae: float | None
    """None without an edge."""
    false_sky: float | None
    """None for a picture with sky."""


def edge_band(truth: np.ndarray) -> np.ndarray:
    """(H, W) bool: pixels within half of `BAND_PX` (scaled by size) of an edge of `truth` at 0.5.

    Args:
        truth: (H, W) float, 1 = sky.
    """
    sky = (truth > 0.5).astype(np.uint8)
    radius = max(1, round(BAND_PX / 2 * max(truth.shape) / BAND_SIDE_PX))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    grown = cv2.dilate(sky, kernel, borderType=cv2.BORDER_REPLICATE)
    return grown != cv2.erode(sky, kernel, borderType=cv2.BORDER_REPLICATE)


def polygon_gaps(rgb: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(H, W) bool: more sky than twig by `crowns.crown_sky`; nothing where the truth is soft."""
    if ((truth > 0) & (truth < 1)).any():
        return np.zeros(truth.shape, bool)
    return crown_sky(rgb, truth)[1] > 0.5


def score_picture(
    name: str, matte: np.ndarray, truth: np.ndarray, gaps: np.ndarray | None = None
) -> PictureScore:
    """Compare two (H, W) float mattes in [0, 1]; `gaps` (H, W) bool, see `polygon_gaps`."""
    if matte.shape != truth.shape:
        raise ValueError(f"matte is {matte.shape}, truth is {truth.shape}: must be equal")
    error = np.abs(matte - truth)
    if gaps is None:
        gaps = np.zeros(truth.shape, bool)
    found, sky, band = matte > 0.5, truth > 0.5, edge_band(truth)
    has_sky = sky.mean() >= NO_SKY_SHARE
    either = (found | sky).sum()
    return PictureScore(
        name=name,
        iou=float((found & sky).sum() / either) if has_sky else None,
        iou_open=float((found & sky).sum() / ((found | sky) & ~gaps).sum()) if has_sky else None,
        iou_right=float(sky.sum() / (sky | gaps).sum()) if has_sky else None,
        mae=float(error.mean()),
        band_mae=float(error[band].mean()) if band.any() else None,
        false_sky=None if has_sky else float(found.mean()),
    )


def summarize(scores: Iterable[PictureScore]) -> dict[str, float | int | None]:
    """Means over the pictures where each number has a meaning; None where there is no such."""
    scores = list(scores)

    def mean(values: Iterable[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return float(np.mean(known)) if known else None

    return {
        "iou_mean": mean(score.iou for score in scores),
        "iou_open_mean": mean(score.iou_open for score in scores),
        "iou_right_mean": mean(score.iou_right for score in scores),
        "mae_mean": mean(score.mae for score in scores),
        "band_mae_mean": mean(score.band_mae for score in scores),
        "false_sky_mean": mean(score.false_sky for score in scores),
        "pictures": len(scores),
        "pictures_with_sky": sum(score.iou is not None for score in scores),
    }


def evaluate_folder(
    matte_of: Callable[[np.ndarray], np.ndarray], images: Path, masks: Path
) -> list[PictureScore]:
    """Score `matte_of(rgb)` for every pair of equal names, each picture alone."""
    return [
        score_picture(name, matte_of(rgb), truth, polygon_gaps(rgb, truth))
        for name, rgb, truth in read_pairs(images, masks)
    ]


def alone(matter: SkyMatter) -> Callable[[np.ndarray], np.ndarray]:
    """A matter as a function of single pictures: it forgets before each."""

    def matte_of(rgb: np.ndarray) -> np.ndarray:
        matter.reset()
        return matter.matte(rgb)

    return matte_of


def report(scores: list[PictureScore]) -> dict[str, object]:
    """The JSON that the command writes: all pictures, then "domains" and "per_picture"."""
    domains = sorted({score.name.split("_")[0] for score in scores})
    return {
        **summarize(scores),
        "domains": {
            domain: summarize(s for s in scores if s.name.split("_")[0] == domain)
            for domain in domains
        },
        "per_picture": {
            score.name: {
                "iou": score.iou,
                "iou_open": score.iou_open,
                "mae": score.mae,
                "false_sky": score.false_sky,
            }
            for score in scores
        },
    }


def print_table(result: dict) -> None:
    """One line for each domain and one for all."""
    columns = (
        "iou_mean",
        "iou_open_mean",
        "iou_right_mean",
        "mae_mean",
        "band_mae_mean",
        "false_sky_mean",
    )
    print(f"{'':12}{'pictures':>9}" + "".join(f"{name:>16}" for name in columns))
    for name, row in [*result["domains"].items(), ("all", result)]:
        cells = "".join(
            f"{'-' if row[column] is None else format(row[column], '.4f'):>16}"
            for column in columns
        )
        print(f"{name:12}{row['pictures']:>9}{cells}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Score sky mattes on pictures with known ones.")
    parser.add_argument("--images", type=Path, required=True, help="folder of pictures")
    parser.add_argument("--masks", type=Path, required=True, help="their masks, equal names")
    parser.add_argument("--json", type=Path, help="write the numbers here")
    parser.add_argument(
        "--matter",
        default="auto",
        help=f"{', '.join(MATTER_NAMES)}, or a file: our .safetensors, SkyAR's .pt, an .onnx model",
    )
    parser.add_argument(
        "--streaming", action="store_true", help="measure the quicker matte of the streaming path"
    )
    arguments = parser.parse_args()
    if arguments.json and not arguments.json.parent.is_dir():
        raise InputError(f"--json {arguments.json}: its folder does not exist")
    matter = open_matter(arguments.matter, careful=not arguments.streaming)
    result = report(evaluate_folder(alone(matter), arguments.images, arguments.masks))
    print_table(result)
    if arguments.json:
        write_bytes(arguments.json, (json.dumps(result, indent=2) + "\n").encode())


if __name__ == "__main__":
    run_script(main)
