"""The run folder: what training leaves, and how the later stages open it.

runs/swan/config.yaml               the resolved config
runs/swan/run.json                  `RunInfo`
runs/swan/checkpoint.safetensors    the fitted mapping
runs/swan/atlas_<layer>.png         RGBA, alpha = what was seen
runs/swan/contact.png               frames, reconstructions, atlases at a glance
runs/swan/events.out.tfevents...    TensorBoard
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
import os
import platform
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from atlas.clip import Clip, write_bytes, write_rgb
from atlas.coords import Size
from atlas.errors import InputError
from atlas.mapping import Layer, LayerMapping
from atlas.texture import Texture

RUN_VERSION = 1
OPENERS = {"layered": "atlas.layered_file", "lna": "atlas.lna_mapping", "shots": "atlas.shots"}
"""Which module's `open_mapping(folder, info)` reads the checkpoint of which kind of run."""


@dataclass(frozen=True, kw_only=True)
class RunInfo:
    """The content of `run.json`."""

    kind: str
    """Which recipe made it: "layered" or "lna"; "shots" for several shots' runs together."""
    clip_folder: str
    """Absolute path of the clip folder."""
    clip_sha256: str
    """Hash of the clip's `clip.json`, or of its list of frames where it has none."""
    frame_count: int
    width: int
    """Size of the frames that were fitted, pixels."""
    height: int
    layers: list[dict[str, Any]]
    """Top to bottom: name, canvas height and width in texels."""
    first_frame: int = 0
    """Frame of the clip that is frame 0 of the run: a shot's first."""
    shots: list[list[int]] = field(default_factory=list)
    """[first, end) of every shot, where there are several."""
    clip_folder_from_run: str = ""
    """The same, seen from the run folder: where it is looked for when both have moved together."""
    seed: int = 0
    commit: str | None = None
    machine: str = ""
    complete: bool = False
    """False while the fit is under way; a run is usable either way once it has a checkpoint."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Time by stage."""
    metrics: dict[str, float] = field(default_factory=dict)
    peak_memory_mb: float | None = None
    version: int = RUN_VERSION

    def layer_tuple(self) -> tuple[Layer, ...]:
        return tuple(Layer(r["name"], Size(r["height"], r["width"])) for r in self.layers)


@dataclass(frozen=True)
class Run:
    """An opened run.

    mapping: the fitted LayerMapping. textures: one per layer, top to bottom.
    base: the mapping before any learned residual (a homography per layer and frame), if kept.
    shading: frame index -> (L, H, W, 3) float32 gain of each layer's colours at the fit's size;
        None where the recipe has no shading.
    """

    folder: Path
    info: RunInfo
    mapping: LayerMapping
    textures: list[Texture]
    base: LayerMapping | None = None
    shading: Any | None = None
    shots: tuple[Any, ...] = ()
    """`atlas.shots.Shot` of each shot, where the clip has several."""

    @property
    def clip_folder(self) -> Path:
        """Where the clip lies."""
        return find_clip_folder(self.folder, self.info)

    def clip(self) -> Clip:
        """The clip folder that the run was fitted to."""
        clip, first = Clip(self.clip_folder), self.info.first_frame
        whole = first == 0 and self.info.frame_count == clip.frame_count
        return clip if whole else clip.span(first, first + self.info.frame_count)


@dataclass(frozen=True)
class OpenedMapping:
    """What a recipe's `open_mapping(folder, info)` returns; see `Run` for the fields."""

    mapping: LayerMapping
    textures: list[Texture]
    base: LayerMapping | None = None
    shading: Any | None = None
    shots: tuple[Any, ...] = ()


def open_run(folder: Path | str) -> Run:
    """Open a run folder; raises `InputError` for anything that is not one."""
    folder = Path(folder)
    info = read_run_info(folder)
    if not info.shots and not (folder / "checkpoint.safetensors").is_file():
        raise InputError(f"{folder}: the run has no checkpoint yet; train it with --resume")
    if info.kind not in OPENERS:
        raise InputError(f"{folder / 'run.json'}: kind is {info.kind!r}, wanted layered or lna")
    opened: OpenedMapping = importlib.import_module(OPENERS[info.kind]).open_mapping(folder, info)
    return Run(folder, info, **vars(opened))


def find_clip_folder(run: Path, info: RunInfo) -> Path:
    """Where the clip lay at the fit, or lies from the run if both have moved together."""
    folder = Path(info.clip_folder)
    moved = run / info.clip_folder_from_run
    together = info.clip_folder_from_run and not folder.is_dir() and moved.is_dir()
    return moved.resolve() if together else folder


def is_run(folder: Path | str) -> bool:
    """Whether the folder is one that training wrote."""
    return (Path(folder) / "run.json").is_file()


def read_run_info(folder: Path) -> RunInfo:
    """Parse and check `run.json`."""
    path = folder / "run.json"
    if not path.is_file():
        raise InputError(f"{folder}: not a run folder (no run.json from train.py)")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data.get("version") != RUN_VERSION:
            raise InputError(f"{path}: version is {data.get('version')!r}, wanted {RUN_VERSION}")
        return RunInfo(**data)
    except (OSError, ValueError, TypeError, AttributeError) as err:
        raise InputError(f"{path}: not what train.py writes ({err})") from err


def write_run_info(folder: Path, info: RunInfo) -> None:
    """Write `run.json`, whole or not at all."""
    try:
        relative = os.path.relpath(info.clip_folder, folder.resolve())
    except ValueError:  # another drive on Windows
        relative = ""
    data = dataclasses.asdict(dataclasses.replace(info, clip_folder_from_run=relative))
    write_bytes(folder / "run.json", json.dumps(data, indent=1).encode())


def write_atlases(folder: Path, layers: tuple[Layer, ...], textures: list[Texture]) -> None:
    """Write every layer's atlas as `atlas_<layer>.png`, RGBA 8 bit."""
    for layer, texture in zip(layers, textures, strict=True):
        write_rgb(folder / f"atlas_{layer.name}.png", texture.rgba8())


def clip_hash(clip: Clip) -> str:
    """SHA-256 of `clip.json`, or of the frames' names where the folder has none."""
    path = clip.folder / "clip.json"
    data = path.read_bytes() if path.is_file() else "\n".join(clip.frame_names).encode()
    return hashlib.sha256(data).hexdigest()


def current_commit() -> str | None:
    """The commit of the checkout this code runs from, `-dirty` if changed; None without git."""
    here = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(here), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        return done.stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + ("-dirty" if git("status", "-s") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def machine_name() -> str:
    """What the figures were measured on: processor, cores, system."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    return f"{model}, {os.cpu_count()} cores, {platform.system()}, numpy {np.__version__}"


def peak_memory_mb() -> float | None:
    """Largest resident size of this process so far, MB; None where the system does not tell."""
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB on Linux
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6, 1)
