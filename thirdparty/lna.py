"""Model folders of the original layered-neural-atlases program: `checkpoint` and `config.json`.

Facts about the format: `checkpoint` is a `torch.save` dictionary with one state dict for each of
four fully connected networks (`hidden.N.weight`, `hidden.N.bias`), the optimiser's state and the
iteration; `config.json` holds the sizes of the networks and of the video they were fitted to. The
networks take x/(L/2) - 1, y/(L/2) - 1 and t/(T/2) - 1, L being the longer side and T the number of
frames. Checkpoints are unpickled with `weights_only`, so no code from them runs.
"""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atlas.errors import InputError

if TYPE_CHECKING:  # torch takes seconds to import, and telling a run from a model needs none of it
    from torch import Tensor

CHECKPOINT = "checkpoint"
CONFIG = "config.json"
ATLAS_SKIPS = (4, 7)
"""Layers of the atlas network that see the encoded input again; fixed in that program."""


@dataclass(frozen=True)
class LnaNetwork:
    """One fully connected network: ReLU between layers, tanh at the end.

    depth: number of linear layers. width: channels of the hidden ones.
    frequencies: octaves of the positional encoding; 0 = the coordinates themselves.
    skips: layers (0 = the first) that see the encoded input again.
    weights: `hidden.N.weight` (out, in) and `hidden.N.bias` (out,), float32, on the CPU.
    """

    depth: int
    width: int
    frequencies: int
    skips: tuple[int, ...]
    weights: dict[str, Tensor] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class LnaModel:
    """What a model folder holds.

    folder: the folder itself. data_folder: where its frames lay, as its config has it.
    width, height: size at which the video was fitted, pixels.
    maximum_frames: how many of the folder's frames were used at most.
    iteration: how long it was fitted.
    foreground, background: xyt -> uv. opacity: xyt -> tanh opacity. atlas: uv -> RGB, shared.
    """

    folder: Path
    data_folder: str
    width: int
    height: int
    maximum_frames: int
    iteration: int
    foreground: LnaNetwork
    background: LnaNetwork
    opacity: LnaNetwork
    atlas: LnaNetwork


def is_lna_model(folder: Path | str) -> bool:
    """Whether the folder holds such a checkpoint (and no `run.json` of this project)."""
    folder = Path(folder)
    return (folder / CHECKPOINT).is_file() and not (folder / "run.json").exists()


def read_lna_model(folder: Path | str) -> LnaModel:
    """Read and check a model folder; raises `InputError` for anything that is not one."""
    folder = Path(folder)
    if not (folder / CHECKPOINT).is_file():
        raise InputError(
            f"{folder}: holds no file called {CHECKPOINT}; wanted a results folder of "
            "layered-neural-atlases"
        )
    config = _Config(folder / CONFIG)
    states = _load(folder / CHECKPOINT)
    networks = {}
    for name, (key, inputs, outputs) in _NETWORKS.items():
        depth, width, frequencies = config.sizes(name)
        skips = tuple(s for s in ATLAS_SKIPS if s < depth) if name == "atlas" else ()
        shapes = _shapes(inputs, outputs, LnaNetwork(depth, width, frequencies, skips, {}))
        weights = _weights(folder / CHECKPOINT, states, key, shapes)
        networks[name] = LnaNetwork(depth, width, frequencies, skips, weights)
    iteration = states.get("iteration", 0)
    return LnaModel(
        folder=folder,
        data_folder=config.text("data_folder"),
        width=config.whole("resx", 2),
        height=config.whole("resy", 2),
        maximum_frames=config.whole("maximum_number_of_frames", 1),
        iteration=iteration if isinstance(iteration, int) else 0,
        **networks,
    )


_NETWORKS = {
    "foreground": ("model_F_mapping1_state_dict", 3, 2),
    "background": ("model_F_mapping2_state_dict", 3, 2),
    "opacity": ("model_F_alpha_state_dict", 3, 1),
    "atlas": ("F_atlas_state_dict", 2, 3),
}
"""Part of `LnaModel` -> key in the checkpoint, inputs, outputs."""
_SUFFIXES = {"foreground": "mapping1", "background": "mapping2", "opacity": "alpha"}
_LARGEST_WIDTH = 1 << 14
_LARGEST_DEPTH = 64
_LARGEST_FREQUENCIES = 24
_ANY = 1 << 30


class _Config:
    """`config.json`, each value checked as it is asked for."""

    def __init__(self, path: Path):
        self._path = path
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as err:
            raise InputError(
                f"{path}: not found; the sizes of the networks stand in it; copy it from the "
                "folder where the model was trained"
            ) from err
        except (OSError, ValueError) as err:
            raise InputError(f"{path}: not readable as JSON ({err})") from err
        if not isinstance(data, dict):
            raise InputError(f"{path}: wanted an object with keys, found {type(data).__name__}")
        self._data: dict[str, Any] = data

    def _get(self, key: str, wanted: str) -> Any:
        if key not in self._data:
            raise InputError(f"{self._path}: {key} is missing; wanted {wanted}")
        return self._data[key]

    def text(self, key: str) -> str:
        value = self._data.get(key, "")
        if not isinstance(value, str):
            raise InputError(f"{self._path}: {key} is {value!r}, wanted text")
        return value

    def whole(self, key: str, least: int, most: int = _ANY) -> int:
        wanted = f"a whole number, {least} " + ("or more" if most == _ANY else f"to {most}")
        value = self._get(key, wanted)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise InputError(f"{self._path}: {key} is {value!r}, wanted {wanted}")
        return value

    def flag(self, key: str) -> bool:
        value = self._get(key, "true or false")
        if not isinstance(value, bool):
            raise InputError(f"{self._path}: {key} is {value!r}, wanted true or false")
        return value

    def sizes(self, name: str) -> tuple[int, int, int]:
        """Depth, width and frequencies of one network."""
        suffix = _SUFFIXES.get(name, name)
        depth = self.whole(f"number_of_layers_{suffix}", 2, _LARGEST_DEPTH)
        width = self.whole(f"number_of_channels_{suffix}", 1, _LARGEST_WIDTH)
        if name in ("foreground", "background"):
            encoded = self.flag(f"use_positional_encoding_{suffix}")
            key = f"number_of_positional_encoding_{suffix}"
            frequencies = self.whole(key, 1, _LARGEST_FREQUENCIES) if encoded else 0
        else:
            frequencies = self.whole(f"positional_encoding_num_{suffix}", 1, _LARGEST_FREQUENCIES)
        return depth, width, frequencies


def _shapes(inputs: int, outputs: int, network: LnaNetwork) -> dict[str, tuple[int, ...]]:
    """Shape of every weight that a network of these sizes has."""
    encoded = 2 * inputs * network.frequencies if network.frequencies else inputs
    shapes: dict[str, tuple[int, ...]] = {}
    for i in range(network.depth):
        into = encoded if i == 0 else network.width + (encoded if i in network.skips else 0)
        out = outputs if i == network.depth - 1 else network.width
        shapes[f"hidden.{i}.weight"] = (out, into)
        shapes[f"hidden.{i}.bias"] = (out,)
    return shapes


def _load(path: Path) -> dict[str, Any]:
    """The checkpoint's dictionary, read without running code from it."""
    import torch

    data = io.BytesIO(path.read_bytes())
    try:
        states = torch.load(data, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as err:
        raise InputError(
            f"{path}: not a checkpoint of weights alone; it is damaged, or holds objects whose "
            "code would have to run, which is refused"
        ) from err
    except (RuntimeError, EOFError, OSError, ValueError, LookupError, zipfile.BadZipFile) as err:
        raise InputError(f"{path}: damaged, or not a checkpoint of PyTorch") from err
    if not isinstance(states, dict):
        found = type(states).__name__
        raise InputError(f"{path}: holds a {found}; wanted a checkpoint of layered-neural-atlases")
    return states


def _weights(
    path: Path, states: dict[str, Any], key: str, shapes: dict[str, tuple[int, ...]]
) -> dict[str, Tensor]:
    """One network's weights, all there, of the right shapes and finite."""
    state = states.get(key)
    if not isinstance(state, dict):
        known = ", ".join(str(name) for name in list(states)[:8]) or "nothing"
        raise InputError(f"{path}: {key} is missing; it holds {known}")
    extra = next((name for name in state if name not in shapes), None)
    if extra is not None:
        raise InputError(
            f"{path}: {key} holds {extra}, which a network of {len(shapes) // 2} layers, as "
            f"{CONFIG} describes it, has not"
        )
    import torch

    weights = {}
    for name, shape in shapes.items():
        value: Any = state.get(name)
        if not torch.is_tensor(value):
            raise InputError(f"{path}: {key} lacks {name}")
        if tuple(value.shape) != shape:
            raise InputError(
                f"{path}: {name} of {key} has shape {tuple(value.shape)}, {CONFIG} makes it {shape}"
            )
        if not value.is_floating_point() or not bool(value.isfinite().all()):
            raise InputError(f"{path}: {name} of {key} holds values that are not finite numbers")
        weights[name] = value.to(torch.float32)
    return weights
