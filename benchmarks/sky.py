"""Speed and steadiness of the sky mattes.

    python -m benchmarks.sky speed   [--json FILE]
    python -m benchmarks.sky flicker --clips DIR NAME ... [--json FILE]
    python -m benchmarks.sky shaken  --images DIR --masks DIR [--json FILE]
    python -m benchmarks.sky exact   [--json FILE]

speed: frames/s of the network alone and of the whole matte at 854x480; median over frames.
flicker: mean |a_t - carried a_{t-1}| along optical flow, where the flow agrees both ways, in
thousandths; the streaming matte of each frame alone and causally steadied, the careful one alone
and steadied both ways.
shaken: pictures with known mattes, moved as by an unsteady hand with new noise in every frame: IoU,
error and flicker against the truth that moves along, alone and steadied.
exact: frames of the demo scene, whose twigs are known exactly: error, flicker against the truth and
what `flicker` measures, of the exact matte too, which by that measure does not come out as still.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from atlas.clip import write_bytes
from atlas.coords import Size
from atlas.errors import run_script
from atlas.mapping import visible_shares
from atlas.video import open_source
from preprocess.sky.data import STRIDE_PX, fitting_size, read_pairs
from preprocess.sky.evaluate import polygon_gaps, score_picture
from preprocess.sky.infer import CAREFUL, MatteOptions, NetworkMatter
from preprocess.sky.matte import NETWORK_WEIGHTS
from preprocess.sky.offline import clip_mattes, survey_times
from preprocess.sky.opencv_network import OpenCvNetwork
from preprocess.sky.procedural import fractal_noise, sky_picture
from preprocess.sky.temporal import carry
from tests.demo_scene import demo_scene

FRAME = Size(480, 854)
DEMO_FRAMES, DEMO_START = 72, 10


def moving_frames(count: int, size: Size = FRAME) -> Iterator[np.ndarray]:
    """A computed sky above textured hills, panned by 3 px a frame; (H, W, 3) uint8."""
    rng = np.random.default_rng(0)
    wide = Size(size.height, size.width + 3 * count)
    sky = sky_picture(rng, wide, "clouds")
    ground = 0.5 * fractal_noise(rng, wide, 8, 6)[..., None] * np.array([0.6, 0.8, 0.4])
    skyline = size.height * (0.4 + 0.2 * fractal_noise(rng, wide, 3, 5)[0])
    is_sky = np.arange(size.height)[:, None] < skyline[None]
    picture = np.where(is_sky[..., None], sky, ground)
    picture = np.round(255 * picture).astype(np.uint8)
    for t in range(count):
        yield np.ascontiguousarray(picture[:, 3 * t : 3 * t + size.width])


def measure_speed(weights: Path, count: int) -> dict[str, object]:
    """Median milliseconds and frames/s after ten frames to warm up."""
    options = MatteOptions()
    size = fitting_size(FRAME, options.side_px, STRIDE_PX)
    network = OpenCvNetwork(weights, size)
    frames = list(moving_frames(count + 10))
    small = [cv2.resize(frame, size.wh, interpolation=cv2.INTER_AREA) for frame in frames]
    alone_ms = _median_ms([lambda p=p: network.opacity(p) for p in small])
    matter = NetworkMatter(weights, options)
    whole_ms = _median_ms([lambda f=f: matter.matte(f) for f in frames])
    return {
        "threads": cv2.getNumThreads(),
        "frames": count,
        "network_size": str(size),
        "network_ms": alone_ms,
        "network_frames_per_s": 1000 / alone_ms,
        "matte_size": str(FRAME),
        "matte_ms": whole_ms,
        "matte_frames_per_s": 1000 / whole_ms,
    }


def _median_ms(calls: list, warmup: int = 10) -> float:
    spent = []
    for call in calls:
        start = time.perf_counter()
        call()
        spent.append(1000 * (time.perf_counter() - start))
    return statistics.median(spent[warmup:])


def flow_agreeing(new: np.ndarray, old: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Flow (H, W, 2) px from `new` to `old`, and where it agrees both ways within 1 px."""
    greys = [cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in (new, old)]
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    there = dis.calc(greys[0], greys[1], None)
    back = carry(dis.calc(greys[1], greys[0], None), there)
    return there, np.hypot(*np.moveaxis(there + back, 2, 0)) < 1.0


def all_ways(weights: Path, frames: Sequence[np.ndarray]) -> dict[str, list[np.ndarray]]:
    """Mattes of a clip with and without the temporal part, streaming and careful."""

    def alone(options: MatteOptions) -> list[np.ndarray]:
        return list(clip_mattes(NetworkMatter(weights, replace(options, steady=None)), frames))

    survey = [frames[t] for t in survey_times(len(frames))]
    return {
        "alone": alone(MatteOptions()),
        "causal": list(clip_mattes(NetworkMatter(weights), frames, causal=True)),
        "careful_alone": alone(CAREFUL),
        "both_ways": list(clip_mattes(NetworkMatter(weights, CAREFUL), frames, survey=survey)),
    }


def change_along_flow(
    frames: Sequence[np.ndarray], ways: dict[str, list[np.ndarray]]
) -> dict[str, float]:
    """Thousandths of opacity per frame, along the flow, at half size."""
    half = Size(frames[0].shape[0] // 2, frames[0].shape[1] // 2)
    small = [cv2.resize(frame, half.wh, interpolation=cv2.INTER_AREA) for frame in frames]
    sums = dict.fromkeys(ways, 0.0)
    for t in range(1, len(frames)):
        flow, agrees = flow_agreeing(small[t], small[t - 1])
        for name, mattes in ways.items():
            new, old = (
                cv2.resize(mattes[i], half.wh, interpolation=cv2.INTER_AREA) for i in (t, t - 1)
            )
            change = np.abs(new - carry(old, flow))[agrees]
            sums[name] += 1000 * float(change.mean()) / (len(frames) - 1)
    return sums


def measure_flicker(clip: Path, weights: Path, count: int) -> dict[str, float]:
    """`change_along_flow` of a clip's first frames, by way."""
    source = open_source(clip)
    frames = list(source.frames(0, min(count, source.info.frame_count)))
    return change_along_flow(frames, all_ways(weights, frames))


def error_flicker(errors: Sequence[np.ndarray]) -> float:
    """Mean |change of a matte's error| from frame to frame, thousandths: true motion is free.

    The mean absolute form of dtSSD (Erofeev et al., "Perceptually Motivated Benchmark for Video
    Matting", 2015).
    """
    return 1000 * float(np.mean([np.abs(b - a).mean() for a, b in itertools.pairwise(errors)]))


def measure_exact(weights: Path, count: int) -> dict[str, dict[str, float]]:
    """By way, and for the exact matte: error, flicker of the error, change along the flow."""
    scene = demo_scene(FRAME, DEMO_FRAMES)
    mapping = scene.mapping()
    times = range(DEMO_START, min(DEMO_START + count, DEMO_FRAMES))
    frames = [scene.frames(t) for t in times]
    truths = [visible_shares(mapping.frame(t).alpha)[-1].astype(np.float32) for t in times]
    ways = {"exact": truths} | all_ways(weights, frames)
    change = change_along_flow(frames, ways)
    rows = {}
    for way, mattes in ways.items():
        errors = [matte - truth for matte, truth in zip(mattes, truths, strict=True)]
        rows[way] = {
            "mae": float(np.mean(np.abs(errors))),
            "flicker": error_flicker(errors),
            "change_along_flow": change[way],
        }
    return rows


def shaken(
    rgb: np.ndarray, matte: np.ndarray, count: int, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Frames (H, W, 3) uint8 of a picture under an unsteady hand, and their mattes (H, W).

    The window wanders by some 2 px a frame, turns and zooms a little; exposure wavers by 3 %; noise
    of 4 levels is new in every frame.
    """
    rng = np.random.default_rng(seed)
    height, width = matte.shape
    place = np.zeros(4)  # x, y px; angle; log zoom
    for _ in range(count):
        place = 0.95 * place + rng.normal(0, [2.0, 1.5, 0.003, 0.004])
        zoom = 1.12 * np.exp(place[3])
        matrix = cv2.getRotationMatrix2D((width / 2, height / 2), np.rad2deg(place[2]), zoom)
        matrix[:, 2] += place[:2]
        moved, truth = (
            cv2.warpAffine(
                picture, matrix, (width, height), flags=how, borderMode=cv2.BORDER_REFLECT
            )
            for picture, how in ((rgb, cv2.INTER_LINEAR), (matte, cv2.INTER_LINEAR))
        )
        lit = moved * (1 + rng.normal(0, 0.03)) + rng.normal(0, 4, moved.shape)
        yield np.clip(np.round(lit), 0, 255).astype(np.uint8), truth


def measure_shaken(
    images: Path, masks: Path, weights: Path, count: int, pictures: int
) -> dict[str, dict[str, float]]:
    """By way: IoU, the same without the gaps of crowns that polygons call ground, error, flicker.

    Flicker is that of the error, so that true motion costs nothing.
    """
    pairs = [pair for pair in read_pairs(images, masks) if pair[2].mean() > 0.02]
    step = max(1, len(pairs) // pictures)
    rows: dict[str, list[tuple[float, float, float, float]]] = {}
    first = count // 3
    for seed, (name, rgb, matte) in enumerate(pairs[::step][:pictures]):
        frames, truths = zip(*shaken(rgb, matte, count, seed), strict=True)
        open_crowns = polygon_gaps(rgb, matte).astype(np.float32)
        gaps = [moved > 0.5 for _, moved in shaken(rgb, open_crowns, count, seed)]
        for way, mattes in all_ways(weights, frames).items():
            errors = [m - truth for m, truth in zip(mattes, truths, strict=True)][first:]
            scores = [
                score_picture(name, m, truth, gap)
                for m, truth, gap in list(zip(mattes, truths, gaps, strict=True))[first:]
            ]
            iou = float(np.mean([score.iou for score in scores if score.iou is not None]))
            iou_open = float(np.mean([s.iou_open for s in scores if s.iou_open is not None]))
            error = float(np.mean([score.mae for score in scores]))
            rows.setdefault(way, []).append((iou, iou_open, error, error_flicker(errors)))
    names = ("iou", "iou_open", "mae", "flicker")
    return {
        way: dict(zip(names, np.mean(values, axis=0).tolist(), strict=True))
        for way, values in rows.items()
    }


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Speed and steadiness of the sky mattes.")
    parser.add_argument("what", choices=("speed", "flicker", "shaken", "exact"))
    parser.add_argument("names", nargs="*", help="clips, for flicker")
    parser.add_argument("--clips", type=Path, default=Path("."), help="folder of the clips")
    parser.add_argument("--images", type=Path, help="folder of pictures, for shaken")
    parser.add_argument("--masks", type=Path, help="their mattes, equal names")
    parser.add_argument("--weights", type=Path, default=NETWORK_WEIGHTS, help="of our network")
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--pictures", type=int, default=12)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    return parser.parse_intermixed_args()


def main() -> None:
    arguments = parse_arguments()
    cv2.setNumThreads(arguments.threads)
    if arguments.what == "speed":
        result: dict = measure_speed(arguments.weights, arguments.frames)
    else:
        weights = arguments.weights
        if arguments.what == "flicker":
            result = {
                Path(name).stem: measure_flicker(arguments.clips / name, weights, arguments.frames)
                for name in arguments.names
            }
        elif arguments.what == "exact":
            result = measure_exact(weights, arguments.frames)
        else:
            result = measure_shaken(
                arguments.images, arguments.masks, weights, arguments.frames, arguments.pictures
            )
    text = json.dumps(result, indent=2) + "\n"
    print(text, end="")
    if arguments.json:
        write_bytes(arguments.json, text.encode())


if __name__ == "__main__":
    run_script(main)
