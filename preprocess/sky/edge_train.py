"""Train the edge network on what the sky network says of augmented pictures.

    python -m preprocess.sky.edge_train --data sky_segmentation --skies skyboxes --out runs/edge

Pictures are drawn by `augment.Augmenter` at up to 640 px, with many more crowns, wires and walls
than the sky network is trained on. The sky network looks at each; its answer is spoilt at random
(crowns lost whole, edges moved, less sure or shifted), so that the edge network learns to mend
errors, not those of one set of weights. Crops round the doubtful places are trained on.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from atlas.coords import Size
from atlas.errors import run_script
from preprocess.sky import losses
from preprocess.sky.augment import AugmentConfig, Augmenter, Sample
from preprocess.sky.data import (
    STRIDE_PX,
    Pair,
    fitting_size,
    hold_out,
    load_pairs,
    to_bytes,
)
from preprocess.sky.edge_inputs import channels, small_planes
from preprocess.sky.edge_network import EdgeNetwork, load_edge_network, save_edge_weights
from preprocess.sky.matte import NETWORK_WEIGHTS
from preprocess.sky.opencv_network import OpenCvNetwork
from preprocess.sky.procedural import fractal_noise
from preprocess.sky.refine import RefineOptions, refine_matte
from preprocess.sky.rough_labels import smooth_under
from preprocess.sky.scenery import Layer, bare_crowns, building, foliage
from preprocess.sky.sky_sources import load_skies
from preprocess.sky.thin_things import thin_coverage

log = logging.getLogger(__name__)

SIDE_PX = 640
SIZES = (Size(416, 640), Size(480, 640), Size(640, 480), Size(360, 480), Size(384, 576))
CROP_PX = 96
_GAP_REACH_PX = 11
_LIT_WALL = 0.22
POOL = 64
"""Pictures kept at hand; every fourth step one of them is replaced."""
PICTURES = AugmentConfig(
    domain_shares=(("ade", 0.46), ("camvid", 0.2), ("lmf", 0.3), ("lowlight", 0.04)),
    all_ground=0.1,
    all_sky=0.2,
    drawn_land=0.75,
    white_sky=0.24,
    dusk=0.15,
    afterglow=0.35,
    silhouette=0.12,
    thin_thing=0.35,
    crowns=0.5,
    crowns_white=0.65,
    building=0.16,
    water=0.1,
    burnt=0.12,
)
LOSS_WEIGHTS = {"cross_entropy": 0.5, "absolute": 1.0, "edges": 1.0}


@dataclass
class Picture:
    """One augmented picture, ready to be cropped."""

    channels: np.ndarray
    """(9, H, W) float16."""
    alpha: np.ndarray
    """(H, W) uint8."""
    weight: np.ndarray
    """(H, W) uint8."""
    places: np.ndarray
    """(K, 2) rows and columns in doubt."""


class PictureSource:
    """Draws pictures and what a spoilt answer of the sky network says of them."""

    def __init__(self, augmenter: Augmenter, weights: list[Path], rng: np.random.Generator) -> None:
        """`weights`: of sky networks, one of which looks at each picture."""
        self.augmenter, self.rng, self._weights = augmenter, rng, weights
        self._networks: dict[tuple[Path, Size], OpenCvNetwork] = {}

    def picture(self) -> Picture:
        """The next one that shows open sky."""
        while True:
            size = SIZES[self.rng.integers(len(SIZES))]
            sample = self.augmenter.sample(size)
            found = self._seen(sample, size)
            if found is not None:
                return found

    def _seen(self, sample: Sample, size: Size) -> Picture | None:
        rgb = to_bytes(sample.rgb)
        small, logits = self._answer(rgb, size)
        truth = cv2.resize(sample.alpha, small.shape[1::-1], interpolation=cv2.INTER_AREA)
        logits = spoilt(logits, truth, self.rng)
        coarse = (1 / (1 + np.exp(-logits))).astype(np.float32)
        planes = small_planes(small, coarse)
        if planes is None:
            return None
        large = cv2.resize(planes, size.wh, interpolation=cv2.INTER_LINEAR)
        first = refine_matte(rgb, small, coarse, RefineOptions())
        values = channels(rgb.astype(np.float32) / 255, large, first).astype(np.float16)
        wrong = np.abs(1 / (1 + np.exp(-large[..., 4])) - sample.alpha) * sample.weight
        doubt = (np.abs(large[..., 4]) < 4) | (wrong > 0.1)
        places = np.argwhere(doubt[::4, ::4]) * 4
        return Picture(values, to_bytes(sample.alpha), to_bytes(sample.weight), places)

    def _answer(self, rgb: np.ndarray, size: Size) -> tuple[np.ndarray, np.ndarray]:
        """Small frame and logits (h, w) of one look at 256 px or of two as the careful matte's."""
        sides = (256,) if self.rng.random() < 0.4 else (256, 384)
        weights = self._weights[self.rng.integers(len(self._weights))]
        logits, small = [], rgb
        for side in sides:
            key = weights, fitting_size(size, side, STRIDE_PX)
            if key not in self._networks:
                self._networks[key] = OpenCvNetwork(*key)
            small = cv2.resize(rgb, key[1].wh, interpolation=cv2.INTER_AREA)
            logits.append(self._networks[key].logits(small))
        wh = small.shape[1::-1]
        mean = np.mean([cv2.resize(v, wh, interpolation=cv2.INTER_LINEAR) for v in logits], axis=0)
        return small, mean.astype(np.float32)


def spoilt(logits: np.ndarray, truth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Logits with errors such as other weights make: crowns lost whole, sky grown, doubt, shifts.

    Args:
        logits: (h, w) float32. truth: (h, w) float32, the true matte at that size.
    """
    height, width = logits.shape
    kind = rng.random()
    if kind < 0.35:  # where things stand before the sky in many small pieces, all is ground
        side = 2 * int(rng.integers(3, max(4, width // 20))) + 1
        open_share = cv2.blur(truth, (side, side))
        lost = np.clip((rng.uniform(0.5, 0.97) - open_share) / 0.1, 0, 1)
        least = np.minimum(logits, rng.uniform(-6, -0.5))
        logits = logits + cv2.blur(lost, (5, 5)) * (least - logits)
    elif kind < 0.55:
        reach = int(rng.integers(1, max(2, width // 36)))
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1,) * 2)
        change = cv2.erode if kind < 0.48 else cv2.dilate
        logits = cv2.GaussianBlur(change(logits, kernel), (0, 0), max(0.4, reach / 3))
    if rng.random() < 0.5:
        noise = fractal_noise(rng, Size(height, width), int(rng.integers(3, 12)), 2) - 0.5
        logits = logits + rng.uniform(0, 5) * noise
    return (logits * rng.uniform(0.65, 1.25)).astype(np.float32)


class EdgeAugmenter(Augmenter):
    """Crowns and thin things whose bark is lit unevenly; walls as burnt-out as the sky."""

    def _add_scenery(self, sample: Sample) -> None:
        rng = self.rng
        if sample.alpha.mean() > 0.1 and rng.random() < _LIT_WALL:
            sky = smooth_under(sample.rgb, sample.alpha, sample.alpha.shape[1] // 6)
            wall = building(rng, Size(*sample.alpha.shape), sky.mean((0, 1)))
            lit = np.clip(wall.rgb * rng.uniform(1.0, 1.6), 0, 1)
            self._lay_over(sample, Layer(lit.astype(np.float32), wall.coverage))
        super()._add_scenery(sample)

    def _add_dark_thing(self, sample: Sample, coverage: np.ndarray) -> None:
        rng = self.rng
        size = Size(*coverage.shape)
        if rng.random() < 0.3:
            draw = (bare_crowns, foliage)[rng.integers(2)]
            coverage = 1 - (1 - coverage) * (1 - draw(rng, size))
        if rng.random() < 0.15:
            coverage = 1 - (1 - coverage) * (1 - thin_coverage(rng, size, "wires"))
        dark = rng.uniform(0, 0.4) if rng.random() < 0.75 else rng.uniform(0.3, 0.85)
        colours = dark * rng.uniform(0.7, 1.3, (2, 3)).astype(np.float32)
        colours[1] *= rng.uniform(0.3, 2.0)
        fine = rng.random((size.height // 2 + 1, size.width // 2 + 1), dtype=np.float32)
        fine = cv2.GaussianBlur(fine, (0, 0), rng.uniform(0.6, 3.0))
        fine = (fine - fine.mean()) / max(float(fine.std()), 1e-6)
        fine = cv2.resize(fine, size.wh, interpolation=cv2.INTER_LINEAR)[..., None]
        share = np.clip(0.5 + rng.uniform(0, 0.6) * fine, 0, 1)
        shading = 0.7 + 0.6 * fractal_noise(rng, size, 6, 4)[..., None]
        rgb = (colours[0] + share * (colours[1] - colours[0])) * shading
        self._lay_over(sample, Layer(np.clip(rgb, 0, 1).astype(np.float32), coverage))


def crops(
    pool: list[Picture], count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(B, 9, C, C) float32, alpha and weight (B, 1, C, C) float32 in [0, 1]."""
    parts = []
    for _ in range(count):
        picture = pool[rng.integers(len(pool))]
        height, width = picture.alpha.shape
        place = rng.integers([height, width])
        if len(picture.places) and rng.random() < 0.85:
            jitter = rng.integers(-CROP_PX // 3, CROP_PX // 3 + 1, 2)
            place = picture.places[rng.integers(len(picture.places))] + jitter
        top = int(np.clip(place[0] - CROP_PX // 2, 0, height - CROP_PX))
        left = int(np.clip(place[1] - CROP_PX // 2, 0, width - CROP_PX))
        part = np.s_[..., top : top + CROP_PX, left : left + CROP_PX]
        step = -1 if rng.random() < 0.5 else 1
        parts.append(
            [
                v[part].astype(np.float32)[..., ::step]
                for v in (picture.channels, picture.alpha[None], picture.weight[None])
            ]
        )
    values, alpha, weight = (np.stack(v) for v in zip(*parts, strict=True))
    return values, alpha / 255, weight / 255


def loss_of(network: EdgeNetwork, batch: tuple[np.ndarray, ...]) -> tuple[Tensor, dict]:
    values, alpha, weight = (torch.from_numpy(np.ascontiguousarray(v)) for v in batch)
    with torch.autocast("cpu", torch.bfloat16):
        logits = network(values.to(memory_format=torch.channels_last))
    logits = logits.float()
    terms = {name: getattr(losses, name)(logits, alpha, weight) for name in LOSS_WEIGHTS}
    total = torch.stack([LOSS_WEIGHTS[name] * term for name, term in terms.items()]).sum()
    return total, {name: float(term.detach()) for name, term in terms.items()}


@dataclass(frozen=True)
class EdgeTraining:
    """Minutes of processor time, crops a step, and the highest rate."""

    minutes: float
    batch: int
    rate: float


def train(network: EdgeNetwork, source: PictureSource, settings: EdgeTraining, out: Path) -> None:
    """Train for `settings.minutes`; weights and `log.jsonl` go to `out`."""
    minutes, rate = settings.minutes, settings.rate
    mean = EdgeNetwork()
    mean.load_state_dict(network.state_dict())
    network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=0.01)
    pool = [source.picture() for _ in range(POOL)]
    start = saved = time.process_time()
    step, last, sums = 0, 0, dict.fromkeys(LOSS_WEIGHTS, 0.0)
    while (share := (time.process_time() - start) / (60 * minutes)) < 1:
        if step % 4 == 3:
            pool[step // 4 % POOL] = source.picture()
        warm = min(1.0, (step + 1) / 100)
        for group in optimizer.param_groups:
            group["lr"] = warm * rate * (0.5 + 0.5 * math.cos(math.pi * share)) + 1e-5
        total, terms = loss_of(network, crops(pool, settings.batch, source.rng))
        optimizer.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        step += 1
        for name, value in terms.items():
            sums[name] += value
        decay = min(0.995, (1 + step) / (10 + step))
        with torch.no_grad():
            for kept, now in zip(mean.parameters(), network.parameters(), strict=True):
                kept.lerp_(now, 1 - decay)
        if time.process_time() - saved > 30 or step == 20:
            saved = time.process_time()
            line = {"step": step, "minutes": round((saved - start) / 60, 2)}
            line |= {k: round(v / (step - last), 5) for k, v in sums.items()}
            log.info("%s", json.dumps(line))
            with (out / "log.jsonl").open("a") as file:
                file.write(json.dumps(line) + "\n")
            sums, last = dict.fromkeys(LOSS_WEIGHTS, 0.0), step
            save_edge_weights(mean, out / "edge_weights.safetensors")
    save_edge_weights(mean, out / "edge_weights.safetensors")


def left_to_doubt(pair: Pair) -> Pair:
    """Round gaps of crowns that a polygon called ground nothing is known of the twigs either."""
    gaps = (pair.weight == 0).astype(np.uint8)
    near = cv2.dilate(gaps, np.ones((_GAP_REACH_PX,) * 2, np.uint8)) > 0
    return replace(pair, weight=np.where(near & (pair.alpha < 128), 0, pair.weight))


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the edge network of the sky matte.")
    parser.add_argument("--data", type=Path, required=True, help="folder with train/images, masks")
    parser.add_argument("--skies", type=Path, nargs="*", default=[], help="folders of sky pictures")
    parser.add_argument(
        "--weights", type=Path, nargs="+", default=[NETWORK_WEIGHTS], help="of sky networks"
    )
    parser.add_argument("--out", type=Path, required=True, help="weights and log")
    parser.add_argument("--init", type=Path, help="edge weights to start from")
    parser.add_argument("--minutes", type=float, default=12.0, help="of processor time")
    parser.add_argument("--batch", type=int, default=8, help="crops of 96 px a step")
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--all", action="store_true", help="train on the held-out part too")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    torch.manual_seed(arguments.seed)
    arguments.out.mkdir(parents=True, exist_ok=True)
    pairs = [left_to_doubt(pair) for pair in load_pairs(arguments.data, "train", SIDE_PX)]
    used = pairs if arguments.all else hold_out(pairs)[0]
    rng = np.random.default_rng(arguments.seed)
    augmenter = EdgeAugmenter(used, load_skies(arguments.skies), rng, PICTURES)
    source = PictureSource(augmenter, arguments.weights, rng)
    network = load_edge_network(arguments.init).train() if arguments.init else EdgeNetwork()
    settings = EdgeTraining(arguments.minutes, arguments.batch, arguments.rate)
    train(network, source, settings, arguments.out)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    run_script(main)
