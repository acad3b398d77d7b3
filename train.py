"""Fit layered atlases to a clip folder made by `python -m preprocess`."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from atlas.clip import Clip
from atlas.command_line import CommandParser
from atlas.config import QUALITIES, TrainConfig, load_config, save_config
from atlas.config_io import to_yaml
from atlas.errors import InputError, run_script
from atlas.tracking import TensorBoardTracker, Tracker

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

EXAMPLES = """\
examples:
  python train.py data/swan --out runs/swan
  python train.py data/swan --out runs/swan --resume
  python train.py data/swan --out runs/swan --quality draft           (a first look)
  python train.py data/swan --out runs/swan --resume --quality best   (goes on from it)
  python train.py data/swan --out runs/quick --budget 120 --set loss.flow.weight=2
  python train.py data/swan --out runs/paper --config configs/lna.yaml --device cuda
  tensorboard --logdir runs

The keys of --set, with meaning, unit and range, are the fields of TrainConfig in atlas/config.py;
every run folder's config.yaml lists them all with their values.
"""
RUN_FILES = (
    "run.json",
    "config.yaml",
    "checkpoint.safetensors",
    "textures.safetensors",
    "contact.png",
    "atlas_*.png",
    "gains.npy",
    "residual_*.npy",
    "mattes",
    "stages",
    "shots",
    "events.out.tfevents.*",
)


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = CommandParser(prog="python train.py", description=__doc__ or "", epilog=EXAMPLES)
    parser.add_argument("clip", type=Path, help="clip folder made by preprocess, data/NAME")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="run folder to make, runs/NAME"
    )
    parser.add_argument(
        "--config",
        type=Path,
        metavar="YAML",
        help="preset, such as configs/lna.yaml for the published recipe (default: the fast "
        "recipe, configs/default.yaml; with --resume: the run's own)",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change one value, such as loss.flow.weight=2; may be repeated, the last one wins",
    )
    parser.add_argument(
        "--device", metavar="NAME", help="auto (CUDA where there is one), cpu, cuda or cuda:N"
    )
    parser.add_argument("--seed", type=int, metavar="N", help="of every random generator, >= 0")
    parser.add_argument(
        "--quality",
        choices=QUALITIES,
        help="how far to go with the default recipe: each goes on where the one before ends, "
        "also later, with --resume (default: standard)",
    )
    parser.add_argument(
        "--budget",
        type=float,
        metavar="SECONDS",
        help="have the run whole after this long, as good as it gets",
    )
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument(
        "--resume", action="store_true", help="go on with the run in --out, if there is one"
    )
    existing.add_argument(
        "--overwrite", action="store_true", help="delete the run in --out and start again"
    )
    return parser.parse_args(arguments)


def resolve_config(options: argparse.Namespace) -> TrainConfig:
    """Preset, then --set in order, then the options that have a name of their own."""
    path = options.config
    if path is None and options.resume and (options.out / "config.yaml").is_file():
        path = options.out / "config.yaml"
    named = {
        "device": options.device,
        "seed": options.seed,
        "quality": options.quality,
        "budget_s": options.budget,
    }
    if options.resume and options.budget is None:
        named["budget_s"] = "null"  # that of the part before is spent
    overrides = [f"{key}={value}" for key, value in named.items() if value is not None]
    config = load_config(path, [*options.set, *overrides])
    if options.quality is not None and config.recipe != "layered":
        raise InputError(
            f"--quality is for the default recipe, found recipe {config.recipe}; use --budget or "
            "--set optimiser.iterations=N"
        )
    return config


def choose_device(name: str) -> torch.device:
    """The device that a config's `device` means on this machine."""
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda"):
        if not torch.cuda.is_available():
            raise InputError(f"device {name}: PyTorch sees no CUDA device here; use --device cpu")
        index, count = int(name.partition(":")[2] or 0), torch.cuda.device_count()
        if index >= count:
            raise InputError(
                f"device {name}: PyTorch sees {count} CUDA devices, the last is cuda:{count - 1}"
            )
    return torch.device(name)


def prepare_folder(folder: Path, clip: Clip, *, resume: bool, overwrite: bool) -> None:
    """Make the run folder, or refuse one that holds something else."""
    from atlas.run import clip_hash, read_run_info

    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; --out wants a folder")
    inside = {p.name for p in folder.iterdir()} if folder.is_dir() else set()
    if inside and not inside & {"run.json", "config.yaml"}:
        raise InputError(f"{folder}: holds files but no run; choose another --out")
    if inside and not (resume or overwrite):
        raise InputError(
            f"{folder}: already holds a run; add --resume to go on with it or --overwrite to "
            "start again"
        )
    if inside and resume and "run.json" in inside:
        info = read_run_info(folder)
        if info.clip_sha256 != clip_hash(clip):
            raise InputError(
                f"{folder}: was fitted to another state of {info.clip_folder}; use --overwrite or "
                "another --out"
            )
    if inside and overwrite:
        for pattern in RUN_FILES:
            for path in folder.glob(pattern):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    folder.mkdir(parents=True, exist_ok=True)


def fit(
    clip: Clip, config: TrainConfig, options: argparse.Namespace, tracker: Tracker, start_s: float
) -> None:
    """Run the recipe that the config names; its time runs since `start_s`."""
    from atlas.fit_job import FitJob
    from atlas.schedule import TimeBudget

    if config.recipe == "lna":
        from atlas.lna_fit import fit_lna as fit_recipe
    else:
        from atlas.fit import fit_layered as fit_recipe
    device = choose_device(config.device)
    budget = TimeBudget(config.budget_s, spent_s=time.monotonic() - start_s)
    fit_recipe(FitJob(clip, config, options.out, device, tracker, budget), options.resume)


def seconds_before(folder: Path) -> float:
    """What a run that is resumed has taken before; its last interrupted part is not known."""
    from atlas.run import read_run_info

    if not (folder / "run.json").is_file():
        return 0.0
    seconds = read_run_info(folder).seconds
    return float(seconds.get("train", seconds.get("fit", 0.0)))


def main() -> None:
    options = parse_arguments()
    from atlas.run import (
        current_commit,
        machine_name,
        peak_memory_mb,
        read_run_info,
        write_run_info,
    )

    start_s = time.monotonic()
    config = resolve_config(options)
    choose_device(config.device)  # complain before anything is written
    clip = Clip(options.clip)
    clip.check()
    prepare_folder(options.out, clip, resume=options.resume, overwrite=options.overwrite)
    earlier_s = seconds_before(options.out) if options.resume else 0.0
    save_config(config, options.out / "config.yaml")
    try:
        with TensorBoardTracker(options.out) as tracker:
            tracker.text("config", to_yaml(config))
            fit(clip, config, options, tracker, start_s)
    except KeyboardInterrupt:
        print("interrupted; add --resume to go on", file=sys.stderr)
        sys.exit(130)
    info = read_run_info(options.out)
    info = dataclasses.replace(
        info,
        seed=config.seed,
        commit=current_commit(),
        machine=machine_name(),
        complete=True,
        seconds=info.seconds | {"train": round(earlier_s + time.monotonic() - start_s, 2)},
        peak_memory_mb=peak_memory_mb(),
    )
    write_run_info(options.out, info)
    psnr = info.metrics.get("psnr_db")
    quality = "" if psnr is None else f", PSNR {psnr:.2f} dB"
    print(f"{options.out}: {config.recipe} fit of {clip.name}{quality}, {info.seconds['train']} s")


if __name__ == "__main__":
    run_script(main)
