"""Checkpoints of the recipe `lna`: networks, Adam's state and the random generator, no pickle."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy
import safetensors.torch
import torch
from torch import Tensor

from atlas.clip import write_bytes
from atlas.config import TrainConfig, config_from_yaml
from atlas.config_io import to_yaml
from atlas.coords import Size
from atlas.errors import InputError
from atlas.fields import Domain, LayerFields, UvWindow
from atlas.texture import Texture

VERSION = 1
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


@dataclass(frozen=True, kw_only=True)
class CheckpointInfo:
    """What the tensors are of."""

    config: TrainConfig
    layer_names: tuple[str, ...]
    size: Size
    """Frame size of the clip, pixels."""
    frame_count: int
    iteration: int
    """Steps done."""
    windows: tuple[UvWindow, ...]
    """The part of each layer's uv that its canvas shows."""
    original_domain: bool = False
    """The networks expect positions normalised as in the authors' program."""
    commit: str | None = None

    @property
    def domain(self) -> Domain:
        make = Domain.of_original_program if self.original_domain else Domain
        return make(self.size, self.frame_count)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint read from disk; `tensors` holds the optimiser's and generator's state."""

    info: CheckpointInfo
    fields: LayerFields
    tensors: dict[str, Tensor]

    def restore(self, optimiser: torch.optim.Optimizer, generator: torch.Generator) -> None:
        """Put Adam and the random generator back where they were."""
        if "generator" not in self.tensors:
            raise InputError("the checkpoint holds no optimiser state, so the fit cannot go on")
        for name, parameter in self.fields.named_parameters():
            state = {m: self.tensors.get(f"optimiser.{name}.{m}") for m in _MOMENTS}
            if all(value is not None for value in state.values()):
                device = parameter.device
                optimiser.state[parameter] = {
                    m: v if m == "step" else v.to(device) for m, v in state.items() if v is not None
                }
        generator.set_state(self.tensors["generator"])


def save_checkpoint(
    path: Path,
    info: CheckpointInfo,
    fields: LayerFields,
    optimiser: torch.optim.Optimizer | None = None,
    generator: torch.Generator | None = None,
) -> None:
    """Write everything, whole or not at all; without an optimiser the fit cannot be resumed."""
    tensors = {f"fields.{k}": v for k, v in fields.state_dict().items()}
    if not all(bool(v.isfinite().all()) for v in tensors.values()):
        raise InputError(
            f"{path}: the networks hold values that are not finite, so the checkpoint is not "
            "replaced; resume with a lower optimiser.learning_rate"
        )
    if optimiser is not None and generator is not None:
        for name, parameter in fields.named_parameters():
            for moment, value in optimiser.state.get(parameter, {}).items():
                tensors[f"optimiser.{name}.{moment}"] = value
        tensors["generator"] = generator.get_state()
    plain = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    write_bytes(path, safetensors.torch.save(plain, metadata=_metadata(info)))


def load_checkpoint(path: Path, device: torch.device) -> Checkpoint:
    """Read a checkpoint and build its networks on `device`."""
    tensors, metadata = _read(path)
    try:
        version = metadata.get("version")
        if version != str(VERSION):
            raise InputError(f"{path}: version is {version!r}, wanted {VERSION}")
        info = _parse_metadata(metadata, str(path))
    except (KeyError, ValueError, TypeError) as err:
        raise InputError(f"{path}: not a checkpoint of the recipe lna ({err!r})") from err
    fields = LayerFields(len(info.layer_names), info.config.networks)
    state = {k.removeprefix("fields."): v for k, v in tensors.items() if k.startswith("fields.")}
    try:
        fields.load_state_dict(state)
    except RuntimeError as err:
        raise InputError(f"{path}: tensors do not fit the networks it names ({err})") from err
    rest = {k: v for k, v in tensors.items() if not k.startswith("fields.")}
    return Checkpoint(info, fields.to(device), rest)


def save_textures(path: Path, textures: list[Texture], iteration: int) -> None:
    """Keep rendered atlases beside the checkpoint of the same iteration, 8 bit RGBA."""
    arrays = {str(i): texture.rgba8() for i, texture in enumerate(textures)}
    write_bytes(path, safetensors.numpy.save(arrays, metadata={"iteration": str(iteration)}))


def load_textures(path: Path, iteration: int) -> list[Texture] | None:
    """What `save_textures` kept, or None where there is nothing of this iteration."""
    if not path.is_file():
        return None
    tensors, metadata = _read(path)
    if metadata.get("iteration") != str(iteration):
        return None
    pictures = [tensors[str(i)].numpy().astype(np.float32) / 255 for i in range(len(tensors))]
    return [Texture(np.ascontiguousarray(p[..., :3]), p[..., 3].copy()) for p in pictures]


def _metadata(info: CheckpointInfo) -> dict[str, str]:
    return {
        "version": str(VERSION),
        "config": to_yaml(info.config),
        "layers": json.dumps(list(info.layer_names)),
        "size": json.dumps([info.size.height, info.size.width]),
        "frame_count": str(info.frame_count),
        "iteration": str(info.iteration),
        "windows": json.dumps([dataclasses.astuple(w) for w in info.windows]),
        "original_domain": str(int(info.original_domain)),
        "commit": info.commit or "",
    }


def _parse_metadata(metadata: dict[str, str], source: str) -> CheckpointInfo:
    return CheckpointInfo(
        config=config_from_yaml(metadata["config"], source),
        layer_names=tuple(json.loads(metadata["layers"])),
        size=Size(*json.loads(metadata["size"])),
        frame_count=int(metadata["frame_count"]),
        iteration=int(metadata["iteration"]),
        windows=tuple(UvWindow(*row) for row in json.loads(metadata["windows"])),
        original_domain=metadata["original_domain"] == "1",
        commit=metadata["commit"] or None,
    )


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            names = file.keys()
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except FileNotFoundError as err:
        raise InputError(f"{path}: not found") from err
    except (OSError, safetensors.SafetensorError) as err:
        raise InputError(f"{path}: not a readable safetensors file ({err})") from err
