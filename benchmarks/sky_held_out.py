"""Choose between weights of the sky network by pictures that they were not trained on.

    python -m benchmarks.sky_held_out WEIGHTS ... --data sky_segmentation
        [--no-sky DIR ...] [--clips DIR] [--sides 256 512] [--upper 384] [--json FILE]

For each file: mean IoU of the held-out tenth of the training pictures, by domain
(`preprocess.sky.data.hold_out`; without the gaps of crowns that polygons leave out), and with
coarse noise; the share of pictures without sky (folders, see `preprocess.sky.no_sky`) that is taken
for sky; and of twelve frames of clips whose sky is known, the share that is wrong in the mean and
at worst. The network's looks, joined and mirrored, before refinement and without a clip's colours.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np

from atlas.clip import write_bytes
from atlas.errors import InputError, run_script
from atlas.video import open_source
from preprocess.sky.data import Pair, hold_out, read_pairs, to_bytes
from preprocess.sky.evaluate import alone, polygon_gaps, score_picture
from preprocess.sky.infer import MatteOptions, NetworkMatter
from preprocess.sky.no_sky import load_no_sky

CLIPS = {
    "helicopter_clouds.mp4": 1,
    "drone_topdown_1080p.mp4": 0,
    "libby": 0,
    "blackswan": 0,
}
"""Shared clips that are sky in (nearly) every pixel, 1, or in none, 0."""
FRAMES = 12
GRAIN = 10.0
"""Standard deviation of `grainy`'s noise before it is enlarged, 8-bit levels."""


def held_out(root: Path) -> list[Pair]:
    """The held-out training pictures of all domains, at their own size."""
    folders = root / "train" / "images", root / "train" / "masks"
    pairs = [
        Pair(name, rgb, to_bytes(matte), np.full(matte.shape, 255, np.uint8))
        for name, rgb, matte in read_pairs(*folders)
    ]
    return hold_out(pairs)[1]


def clip_frames(path: Path) -> Iterator[np.ndarray]:
    """`FRAMES` frames spread over a clip, (H, W, 3) uint8."""
    source = open_source(path, trusting=True)
    count = source.info.frame_count
    for start in np.linspace(0, count - 1, FRAMES).round().astype(int):
        yield from source.frames(int(start), 1)


def grainy(rgb: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 with coarse noise, as of a dark or an enlarged picture; always the same."""
    height, width = rgb.shape[:2]
    noise = np.random.default_rng(0).normal(0, GRAIN, (height // 2, width // 2, 3))
    noise = cv2.resize(noise, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.clip(rgb + noise, 0, 255).round().astype(np.uint8)


def measure(
    matte_of: Callable[[np.ndarray], np.ndarray],
    held: list[Pair],
    no_sky: list[Pair],
    clips: Path | None,
) -> dict[str, float]:
    """The numbers of one set of weights, by name."""
    found: dict[str, list[float]] = defaultdict(list)
    for pair in held:
        truth = pair.alpha.astype(np.float32) / 255
        gaps = polygon_gaps(pair.rgb, truth)
        score = score_picture(pair.name, matte_of(pair.rgb), truth, gaps)
        if score.iou_open is not None:
            found["held out"].append(score.iou_open)
            found[f"held out {pair.domain}"].append(score.iou_open)
            score = score_picture(pair.name, matte_of(grainy(pair.rgb)), truth, gaps)
            found["held out, grainy"].append(score.iou_open or 0.0)
        elif score.false_sky is not None:
            found["held out, false sky"].append(score.false_sky)
    found["no sky"] = [float((matte_of(pair.rgb) > 0.5).mean()) for pair in no_sky]
    numbers = {name: float(np.mean(values)) for name, values in found.items() if values}
    for name, sky in CLIPS.items() if clips else ():
        wrong = [
            float(abs((matte_of(rgb) > 0.5).mean() - sky)) for rgb in clip_frames(clips / name)
        ]
        numbers[f"{name} wrong"] = float(np.mean(wrong))
        numbers[f"{name} worst"] = max(wrong)
    return numbers


def main() -> None:
    parser = argparse.ArgumentParser(description="Sky weights on pictures not trained on.")
    parser.add_argument("weights", type=Path, nargs="+", help="files of the sky network")
    parser.add_argument("--data", type=Path, required=True, help="folder with train/images, masks")
    parser.add_argument("--no-sky", type=Path, nargs="*", default=[], help="pictures without sky")
    parser.add_argument("--clips", type=Path, help="folder with " + ", ".join(CLIPS))
    parser.add_argument("--sides", type=int, nargs="+", default=[256, 512], help="looks, px")
    parser.add_argument(
        "--upper", type=int, default=384, help="look at the upper part, px; 0: none"
    )
    parser.add_argument("--single", action="store_true", help="do not look at mirror images too")
    parser.add_argument("--json", type=Path, help="write the numbers here")
    arguments = parser.parse_args()
    if arguments.json and not arguments.json.parent.is_dir():
        raise InputError(f"--json {arguments.json}: its folder does not exist")
    held = held_out(arguments.data)
    no_sky = load_no_sky(arguments.no_sky, np.random.default_rng(0))
    first, *more = arguments.sides
    options = MatteOptions(
        side_px=first,
        more_sides_px=tuple(more),
        upper_side_px=arguments.upper,
        mirrored=not arguments.single,
        refine=None,
        adapt=False,
        steady=None,
    )
    results = {}
    for path in arguments.weights:
        matter = NetworkMatter(path, options)
        results[str(path)] = measure(alone(matter), held, no_sky, arguments.clips)
        print(path, flush=True)
        for name, value in results[str(path)].items():
            print(f"  {name:32}{value:8.4f}", flush=True)
    if arguments.json:
        write_bytes(arguments.json, (json.dumps(results, indent=2) + "\n").encode())


if __name__ == "__main__":
    run_script(main)
