"""What can be wrong with a model folder of the original layered-neural-atlases program."""

# ruff: noqa: F401, F811

import os

import pytest
import torch

from atlas.errors import InputError
from tests.lna_models import CONFIG, model, random_states, write_model
from thirdparty.lna import read_lna_model


class Boom:
    """Unpickling this runs code."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_code_in_a_checkpoint_is_not_run(tmp_path, model):
    torch.save({"F_atlas_state_dict": Boom(tmp_path / "ran")}, model / "checkpoint")
    with pytest.raises(InputError, match="code would have to run, which is refused"):
        read_lna_model(model)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04 cut off", b"\x80\x02}q."])
def test_a_damaged_checkpoint(model, content):
    (model / "checkpoint").write_bytes(content)
    with pytest.raises(InputError, match=r"checkpoint: (not a checkpoint|damaged|.* is missing)"):
        read_lna_model(model)


def test_a_truncated_checkpoint(model):
    data = (model / "checkpoint").read_bytes()
    (model / "checkpoint").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match="damaged"):
        read_lna_model(model)


def test_a_folder_without_checkpoint_or_config(tmp_path, model):
    with pytest.raises(InputError, match="holds no file called checkpoint"):
        read_lna_model(tmp_path)
    (model / "config.json").unlink()
    with pytest.raises(InputError, match=r"config\.json: not found; the sizes of the networks"):
        read_lna_model(model)


def without(key):
    return {k: v for k, v in CONFIG.items() if k != key}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (without("number_of_layers_alpha"), "number_of_layers_alpha is missing"),
        (without("resx"), "resx is missing"),
        (CONFIG | {"number_of_channels_atlas": "wide"}, "number_of_channels_atlas is 'wide'"),
        (CONFIG | {"number_of_layers_mapping2": 0}, "number_of_layers_mapping2 is 0"),
        (CONFIG | {"number_of_layers_mapping2": True}, "number_of_layers_mapping2 is True"),
        (CONFIG | {"use_positional_encoding_mapping1": 1}, "mapping1 is 1, wanted true or false"),
        (CONFIG | {"positional_encoding_num_alpha": 99}, "is 99, wanted a whole number, 1 to 24"),
        (CONFIG | {"data_folder": 3}, "data_folder is 3, wanted text"),
        ([], "wanted an object with keys, found list"),
    ],
)
def test_a_wrong_config(tmp_path, config, message):
    with pytest.raises(InputError, match=r"config\.json: .*" + message):
        read_lna_model(write_model(tmp_path / "model", config=config))


def test_a_config_that_is_no_json(model):
    (model / "config.json").write_text("{")
    with pytest.raises(InputError, match="not readable as JSON"):
        read_lna_model(model)


def change(key, name, value):
    states = random_states()
    if value is None:
        del states[key][name]
    else:
        states[key][name] = value
    return states


@pytest.mark.parametrize(
    ("states", "message"),
    [
        ({"iteration": 1}, "model_F_mapping1_state_dict is missing; it holds iteration"),
        (
            change("F_atlas_state_dict", "hidden.5.bias", None),
            r"F_atlas_state_dict lacks hidden\.5\.bias",
        ),
        (
            change("model_F_alpha_state_dict", "hidden.0.weight", torch.zeros(10, 6)),
            r"hidden\.0\.weight .* shape \(10, 6\), config\.json makes it \(10, 12\)",
        ),
        (
            change("model_F_mapping2_state_dict", "hidden.2.bias", torch.zeros(2)),
            r"holds hidden\.2\.bias, which a network of 2 layers",
        ),
        (
            change("F_atlas_state_dict", "hidden.5.bias", torch.tensor([0.0, torch.nan, 0.0])),
            r"hidden\.5\.bias .* not finite",
        ),
        ([1, 2], "holds a list"),
    ],
)
def test_a_checkpoint_that_does_not_fit(tmp_path, states, message):
    with pytest.raises(InputError, match="checkpoint: .*" + message):
        read_lna_model(write_model(tmp_path / "model", states))
