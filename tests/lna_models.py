"""Small random models in the format of the original layered-neural-atlases program."""

import json

import numpy as np
import pytest
import torch

from atlas.clip import write_rgb
from atlas.coords import Size

SIZE, COUNT = Size(height=22, width=36), 3
SOURCE = Size(height=33, width=54)  # frames lie at another size than that of the fit
CONFIG = {
    "maximum_number_of_frames": COUNT,
    "resx": SIZE.width,
    "resy": SIZE.height,
    "data_folder": "data/pan",
    "number_of_layers_mapping1": 3,
    "number_of_channels_mapping1": 12,
    "use_positional_encoding_mapping1": True,
    "number_of_positional_encoding_mapping1": 1,
    "number_of_layers_mapping2": 2,
    "number_of_channels_mapping2": 9,
    "use_positional_encoding_mapping2": False,
    "number_of_positional_encoding_mapping2": 2,
    "number_of_layers_alpha": 3,
    "number_of_channels_alpha": 10,
    "positional_encoding_num_alpha": 2,
    "number_of_layers_atlas": 6,
    "number_of_channels_atlas": 8,
    "positional_encoding_num_atlas": 3,
}
KEYS = {  # inputs after encoding, outputs, layers, channels, layers that see the input again
    "model_F_mapping1_state_dict": (6, 2, 3, 12, ()),
    "model_F_mapping2_state_dict": (3, 2, 2, 9, ()),
    "model_F_alpha_state_dict": (12, 1, 3, 10, ()),
    "F_atlas_state_dict": (12, 3, 6, 8, (4,)),
}


def random_states(seed=0):
    rng = torch.Generator().manual_seed(seed)
    states = {"iteration": 811, "optimizer_all_state_dict": {"state": {}, "param_groups": []}}
    for key, (inputs, outputs, layers, channels, skips) in KEYS.items():
        state = {}
        for i in range(layers):
            into = inputs if i == 0 else channels + (inputs if i in skips else 0)
            out = outputs if i == layers - 1 else channels
            weight = torch.randn(out, into, generator=rng) / into**0.5
            state[f"hidden.{i}.weight"] = weight
            state[f"hidden.{i}.bias"] = 0.2 * torch.randn(out, generator=rng)
        states[key] = state
    return states


def write_model(folder, states=None, config=None):
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(random_states() if states is None else states, folder / "checkpoint")
    (folder / "config.json").write_text(json.dumps(CONFIG if config is None else config))
    return folder


def write_frames(folder, count=COUNT):
    folder.mkdir(parents=True)
    rng = np.random.default_rng(5)
    for t in range(count):
        rgb = rng.integers(0, 256, (SOURCE.height, SOURCE.width, 3), np.uint8)
        write_rgb(folder / f"{t:05d}.png", rgb)
    return folder


@pytest.fixture
def model(tmp_path):
    return write_model(tmp_path / "results/pan_B")


@pytest.fixture
def data(tmp_path):
    return write_frames(tmp_path / "data/pan")


@pytest.fixture
def small_atlases(monkeypatch):
    """Atlas pictures of 120 x 120, since two million texels take seconds."""
    monkeypatch.setattr("atlas.lna_import.TEXELS", 120)


def by_hand(states, key, x):
    """One network in plain numpy, from the description of the format alone."""
    _, _, layers, _, skips = KEYS[key]
    x = np.asarray(x, np.float64)
    octaves = {"model_F_mapping1": 1, "model_F_alpha": 2, "F_atlas": 3}
    encoded = x
    if n := octaves.get(key.removesuffix("_state_dict"), 0):
        parts = [f(2**k * np.pi * x) for k in range(n) for f in (np.sin, np.cos)]
        encoded = np.concatenate(parts)
    h = encoded
    for i in range(layers):
        if i > 0:
            h = np.maximum(h, 0)
        if i in skips:
            h = np.concatenate([h, encoded])
        weight, bias = (states[key][f"hidden.{i}.{part}"].double() for part in ("weight", "bias"))
        h = weight.numpy() @ h + bias.numpy()
    return np.tanh(h)
