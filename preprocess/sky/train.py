"""Train the sky network.

    python -m preprocess.sky.train --data sky_segmentation --skies skyboxes --out runs/sky \
        --backbone object_detection_ssd_mobilenetv2_oidv4_fp16.tflite

`--backbone` starts the encoder from features learnt on photographs (see `backbone`); without it all
weights begin at random.

Runs on the CPU or a GPU. A checkpoint is written every few minutes; the same command goes on from
it. The learning rate follows the share of the time budget that is used up, so that a run on a busy
machine still ends with a small one. `--init WEIGHTS` starts from weights of an earlier training
instead of random ones, with a fresh optimiser and the whole course of the rate. Weights for use:
OUT/weights.safetensors, an exponential mean.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from atlas.coords import Size
from atlas.errors import InputError, run_script
from preprocess.sky import losses
from preprocess.sky.augment import Augmenter
from preprocess.sky.backbone import encoder_layers, put_into_encoder
from preprocess.sky.batches import BATCH_SIZES, EARLY_SIZES, BatchStream
from preprocess.sky.data import STRIDE_PX, Pair, fitting_size, hold_out, load_pairs
from preprocess.sky.network import Answers, SkyNetwork, load_network, save_weights
from preprocess.sky.no_sky import load_no_sky
from preprocess.sky.sky_sources import load_skies
from thirdparty.mobilenet_v2 import FoldedConv, read_encoder
from thirdparty.weights import RECORDS, find_weights

log = logging.getLogger(__name__)

LOSS_WEIGHTS = {
    "cross_entropy": 1.0,
    "absolute": 1.0,
    "overlap": 0.5,
    "edges": 1.5,
    "coarse": 0.3,
    "presence": 0.2,
}


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How long and how fast to train."""

    minutes: float = 90.0
    """Time budget of the whole training, all resumed parts together."""
    batch: int = 16
    shards: int = 2
    """Parts of a batch computed side by side, each by a thread of its own. On a busy CPU this
    waits less than one operation spread over threads."""
    rate: float = 2e-3
    """Highest learning rate of AdamW."""
    encoder_share: float = 1.0
    """The encoder's learning rate in shares of that; below 1 it keeps to what it started from."""
    final_rate: float = 1e-5
    decay: float = 0.02
    early: float = 0.7
    """Share of the budget in which `EARLY_SIZES` are used."""
    warmup: float = 0.02
    """Share of the budget in which the rate rises from zero."""
    mean_decay: float = 0.998
    """Decay per step of the exponential mean of the weights."""
    checkpoint_s: float = 180.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.minutes > 0:
            raise InputError(f"--minutes must be > 0, got {self.minutes}")
        if self.batch < 2:
            raise InputError(f"--batch must be >= 2, got {self.batch}")
        if not 0 <= self.early <= 1:
            raise InputError(f"--early must be a share from 0 to 1, got {self.early}")
        if not 0 < self.encoder_share <= 1:
            raise InputError(f"--encoder-share must be in (0, 1], got {self.encoder_share}")
        if not 1 <= self.shards <= self.batch // 2:
            raise InputError(f"--shards must be 1 to half of --batch, got {self.shards}")


class Trainer:
    """The network, its exponential mean, its optimiser, and what is needed to go on."""

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        torch.manual_seed(config.seed)
        self.config = config
        self.device = device
        self.network = SkyNetwork().to(device, memory_format=torch.channels_last)
        self.mean = SkyNetwork().to(device, memory_format=torch.channels_last).eval()
        self.mean.load_state_dict(self.network.state_dict())
        encoder = self.network.backbone()
        known = set(encoder)
        rest = [p for p in self.network.parameters() if p not in known]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": encoder, "share": config.encoder_share},
                {"params": rest, "share": 1.0},
            ],
            lr=config.rate,
            weight_decay=config.decay,
        )
        self.step = 0
        self.seconds = 0.0
        self._workers = ThreadPoolExecutor(
            config.shards, initializer=torch.set_num_threads, initargs=(1,)
        )

    def train_batch(self, batch: tuple[np.ndarray, np.ndarray, np.ndarray]) -> dict[str, float]:
        """One step on (rgb, alpha, weight) of `Augmenter.batch`; returns the loss terms."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["share"] * self.rate()
        self.network.train()
        shards = [
            tuple(values[start :: self.config.shards] for values in batch)
            for start in range(self.config.shards)
        ]
        results = list(self._workers.map(self._shard_gradients, shards))
        terms = {
            name: sum(result[0][name] for result in results) / len(results)
            for name in results[0][0]
        }
        if not all(math.isfinite(value) for value in terms.values()):
            raise FloatingPointError(f"step {self.step}: loss is not finite: {terms}")
        for index, parameter in enumerate(self.network.parameters()):
            parameter.grad = torch.stack([result[1][index] for result in results]).mean(dim=0)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self.optimizer.step()
        self.step += 1
        self._update_mean()
        return terms

    def _shard_gradients(
        self, shard: tuple[np.ndarray, ...]
    ) -> tuple[dict[str, float], tuple[Tensor, ...]]:
        """Loss terms of a part of the batch, and the gradient of each parameter.

        Runs in a thread of its own. The running statistics of normalisation are shared between the
        threads and may miss an update; they average over hundreds.
        """
        rgb = torch.from_numpy(shard[0]).permute(0, 3, 1, 2).to(self.device).float() / 255
        alpha, weight = (
            torch.from_numpy(v)[:, None].to(self.device).float() / 255 for v in shard[1:]
        )
        with torch.autocast(self.device.type, torch.bfloat16):
            answers = self.network.answers(rgb)
        terms = loss_terms(answers, alpha, weight)
        total = torch.stack([LOSS_WEIGHTS[name] * term for name, term in terms.items()]).sum()
        gradients = torch.autograd.grad(total, list(self.network.parameters()))
        return {name: float(term.detach()) for name, term in terms.items()}, gradients

    def rate(self) -> float:
        """Learning rate now: linear rise, then a cosine down to `final_rate`."""
        config = self.config
        share = min(1.0, self.seconds / (60 * config.minutes))
        if share < config.warmup:
            return config.rate * max(share, 1e-3) / config.warmup
        fall = 0.5 + 0.5 * math.cos(math.pi * (share - config.warmup) / (1 - config.warmup))
        return config.final_rate + (config.rate - config.final_rate) * fall

    def _update_mean(self) -> None:
        decay = min(self.config.mean_decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            now = self.network.state_dict()
            for key, value in self.mean.state_dict().items():
                if value.is_floating_point():
                    value.lerp_(now[key], 1 - decay)

    def start_from(self, weights: Path) -> None:
        """Take the weights of an earlier training; what it knew of rates and steps is not kept."""
        earlier = load_network(weights)
        if earlier.config != self.network.config:
            raise InputError(
                f"{weights}: a network of {earlier.config}; wanted {self.network.config}"
            )
        self.network.load_state_dict(earlier.state_dict())
        self.mean.load_state_dict(earlier.state_dict())

    def start_from_backbone(self, backbone: list[FoldedConv], batch: np.ndarray) -> None:
        """Take the encoder's convolutions; `batch` (B, H, W, 3) uint8 are training pictures."""
        rgb = torch.from_numpy(batch).permute(0, 3, 1, 2).to(self.device).float() / 255
        put_into_encoder(self.network, backbone, rgb, "--backbone")
        self.mean.load_state_dict(self.network.state_dict())

    def save(self, path: Path) -> None:
        state = {
            "network": self.network.state_dict(),
            "mean": self.mean.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
        }
        partial = path.with_name(path.name + ".partial")
        torch.save(state, partial)
        partial.replace(path)

    def load(self, path: Path) -> None:
        state = torch.load(path, map_location=self.device, weights_only=True)
        try:
            self.network.load_state_dict(state["network"])
            self.mean.load_state_dict(state["mean"])
            self.optimizer.load_state_dict(state["optimizer"])
        except (RuntimeError, ValueError) as err:
            raise InputError(
                f"{path}: of a training of another network; wanted one of this: take another --out"
            ) from err
        self.step, self.seconds = state["step"], state["seconds"]


def loss_terms(answers: Answers, alpha: Tensor, weight: Tensor) -> dict[str, Tensor]:
    """The terms that `LOSS_WEIGHTS` weighs, by name; `alpha` and `weight` (B, 1, H, W)."""
    logits = answers.pixels.float()
    return {
        "cross_entropy": losses.cross_entropy(logits, alpha, weight),
        "absolute": losses.absolute(logits, alpha, weight),
        "overlap": losses.overlap(logits, alpha, weight),
        "edges": losses.edges(logits, alpha, weight),
        "coarse": losses.coarse_cross_entropy(answers.coarse.float(), alpha, weight),
        "presence": losses.presence_cross_entropy(answers.presence.float(), alpha),
    }


def held_out_scores(network: SkyNetwork, pairs: list[Pair], side_px: int = 256) -> dict[str, float]:
    """Mean IoU by domain (pictures with sky) and false sky of the network alone, unrefined."""
    network.eval()
    device = next(network.parameters()).device
    scores: dict[str, list[float]] = {}
    for pair in pairs:
        size = fitting_size(Size(*pair.alpha.shape), side_px, STRIDE_PX)
        small = cv2.resize(pair.rgb, size.wh, interpolation=cv2.INTER_AREA)
        rgb = torch.from_numpy(small).permute(2, 0, 1)[None].to(device).float() / 255
        with torch.inference_mode():
            matte = torch.sigmoid(network(rgb))[0, 0].cpu().numpy()
        truth = pair.alpha > 127
        found = cv2.resize(matte, truth.shape[::-1], interpolation=cv2.INTER_LINEAR) > 0.5
        if truth.any():
            iou = (truth & found).sum() / (truth | found).sum()
            scores.setdefault(pair.domain, []).append(float(iou))
        else:
            scores.setdefault("false_sky", []).append(float(found.mean()))
    return {name: round(float(np.mean(values)), 4) for name, values in sorted(scores.items())}


def train(trainer: Trainer, stream: BatchStream, held_out: list[Pair], out: Path) -> None:
    """Train until the time budget is used up; write checkpoints, weights and `log.jsonl`."""
    config = trainer.config
    checkpoint = out / "checkpoint.pt"
    sums: dict[str, float] = {}
    steps = 0
    last = saved = time.monotonic()
    while trainer.seconds < 60 * config.minutes:
        early = trainer.seconds < 60 * config.minutes * config.early
        stream.sizes = EARLY_SIZES if early else BATCH_SIZES
        for name, value in trainer.train_batch(stream.next()).items():
            sums[name] = sums.get(name, 0.0) + value
        steps += 1
        now = time.monotonic()
        trainer.seconds += now - last
        last = now
        if now - saved < config.checkpoint_s and trainer.seconds < 60 * config.minutes:
            continue
        trainer.save(checkpoint)
        save_weights(trainer.mean, out / "weights.safetensors")
        line = {
            "step": trainer.step,
            "minutes": round(trainer.seconds / 60, 2),
            "rate": trainer.rate(),
            "images_per_s": round(steps * config.batch / (now - saved), 1),
            "loss": {name: round(value / steps, 5) for name, value in sums.items()},
            "held_out": held_out_scores(trainer.mean, held_out),
        }
        log.info("%s", json.dumps(line))
        with (out / "log.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        sums, steps, saved = {}, 0, now


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train the sky matting network.")
    parser.add_argument("--data", type=Path, required=True, help="folder with train/images, masks")
    parser.add_argument("--skies", type=Path, nargs="*", default=[], help="folders of sky pictures")
    parser.add_argument(
        "--no-sky",
        type=Path,
        nargs="*",
        default=[],
        help="folders of pictures and panoramas without sky",
    )
    parser.add_argument("--out", type=Path, required=True, help="checkpoints, weights and log")
    parser.add_argument("--minutes", type=float, default=90.0, help="time budget (default 90)")
    parser.add_argument("--batch", type=int, default=16, help="pictures a step (default 16)")
    parser.add_argument("--rate", type=float, default=2e-3, help="highest rate (default 2e-3)")
    parser.add_argument(
        "--early", type=float, default=0.7, help="share of the time on small pictures (default 0.7)"
    )
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--init", type=Path, help="weights of an earlier training to start from")
    start.add_argument(
        "--backbone",
        type=str,
        nargs="?",
        const="",
        help="start the encoder from this .tflite file; without a name the recorded one is fetched",
    )
    parser.add_argument(
        "--encoder-share",
        type=float,
        default=1.0,
        help="the encoder's rate in shares of --rate (default 1)",
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda (default cpu)")
    parser.add_argument(
        "--shards", type=int, default=2, help="threads that share a batch (default 2)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--all", action="store_true", help="train on the held-out part too")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    config = TrainConfig(
        minutes=arguments.minutes,
        batch=arguments.batch,
        shards=arguments.shards,
        rate=arguments.rate,
        encoder_share=arguments.encoder_share,
        early=arguments.early,
        seed=arguments.seed,
    )
    trainer = Trainer(config, torch.device(arguments.device))
    backbone = None
    if arguments.backbone is not None:  # read now: a wrong file is to stop this before it begins
        path = find_weights(RECORDS["mobilenet_v2_ssd"], arguments.backbone or None)
        backbone = read_encoder(path, len(encoder_layers(trainer.network)))
    arguments.out.mkdir(parents=True, exist_ok=True)
    pairs = load_pairs(arguments.data, "train")
    kept, held_out = hold_out(pairs)
    no_sky = load_no_sky(arguments.no_sky, np.random.default_rng(config.seed))
    used = [*(pairs if arguments.all else kept), *no_sky]
    checkpoint = arguments.out / "checkpoint.pt"
    if checkpoint.is_file():
        trainer.load(checkpoint)
        log.info("going on from step %d, %.1f min", trainer.step, trainer.seconds / 60)
    elif arguments.init is not None:
        trainer.start_from(arguments.init)
    log.info("%d pictures to train on, %d held out", len(used), len(held_out))
    rng = np.random.default_rng([config.seed, trainer.step])
    augmenter = Augmenter(used, load_skies(arguments.skies), rng)
    if backbone is not None and trainer.step == 0:
        trainer.start_from_backbone(backbone, augmenter.batch(64, BATCH_SIZES[0])[0])
    train(trainer, BatchStream(augmenter, config.batch, trainer.step), held_out, arguments.out)


if __name__ == "__main__":
    run_script(main)
