"""RAFT: princeton-vl weights land on the right tensors, padding, the failures a user can meet.

Random weights: the networks are the real ones, so a wrong key or a wrong pad changes the output.
"""

import builtins
import sys

import numpy as np
import pytest
import torch

from atlas.errors import InputError
from thirdparty import raft
from thirdparty.raft import Raft, from_princeton, import_torchvision, padding


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Small networks on a busy machine: threads that wait for each other cost more than they do."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


BLOCKS = [f"layer{i}.{j}" for i in (1, 2, 3) for j in (0, 1)]


def princeton_names(large: bool) -> dict[str, str]:
    """torchvision module -> princeton-vl module, written out from the two definitions.

    Independent of the adapter's own rules: every block's modules are listed by hand here.
    """
    table = {}
    convs = 2 if large else 3
    for theirs, ours in (("fnet", "feature_encoder"), ("cnet", "context_encoder")):
        table[f"{ours}.convnormrelu.0"] = f"{theirs}.conv1"
        table[f"{ours}.convnormrelu.1"] = f"{theirs}.norm1"
        table[f"{ours}.conv"] = f"{theirs}.conv2"
        for block in BLOCKS:
            for k in range(1, convs + 1):
                table[f"{ours}.{block}.convnormrelu{k}.0"] = f"{theirs}.{block}.conv{k}"
                table[f"{ours}.{block}.convnormrelu{k}.1"] = f"{theirs}.{block}.norm{k}"
        for block in ("layer2.0", "layer3.0"):
            table[f"{ours}.{block}.downsample.0"] = f"{theirs}.{block}.downsample.0"
            table[f"{ours}.{block}.downsample.1"] = f"{theirs}.{block}.downsample.1"
    motion = "update_block.motion_encoder"
    table[f"{motion}.convcorr1.0"] = "update_block.encoder.convc1"
    table[f"{motion}.convflow1.0"] = "update_block.encoder.convf1"
    table[f"{motion}.convflow2.0"] = "update_block.encoder.convf2"
    table[f"{motion}.conv.0"] = "update_block.encoder.conv"
    recurrent = "update_block.recurrent_block"
    for gate in "zrq":
        table[f"{recurrent}.convgru1.conv{gate}"] = f"update_block.gru.conv{gate}" + "1" * large
    if large:
        table[f"{motion}.convcorr2.0"] = "update_block.encoder.convc2"
        for gate in "zrq":
            table[f"{recurrent}.convgru2.conv{gate}"] = f"update_block.gru.conv{gate}2"
        table["mask_predictor.convrelu.0"] = "update_block.mask.0"
        table["mask_predictor.conv"] = "update_block.mask.2"
    for k in (1, 2):
        table[f"update_block.flow_head.conv{k}"] = f"update_block.flow_head.conv{k}"
    return table


def random_state(name: str) -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    state = raft.build(name).state_dict()
    for key, value in state.items():
        if "running_mean" in key:  # all alike in a fresh network, so a swap would not show
            value.normal_()
        elif "running_var" in key:
            value.uniform_(0.5, 2)
        elif value.is_floating_point() and value.ndim == 1:
            value.add_(0.1 * torch.randn_like(value))
    return state


def as_princeton(state: dict[str, torch.Tensor], large: bool) -> dict[str, torch.Tensor]:
    """What princeton-vl's training would have saved: DataParallel, shared norms stored twice."""
    table = princeton_names(large)
    out = {}
    for key, value in state.items():
        module, _, parameter = key.rpartition(".")
        out[f"module.{table[module]}.{parameter}"] = value
        if module.endswith("downsample.1"):
            block = table[module].removesuffix("downsample.1")
            out[f"module.{block}norm{3 if large else 4}.{parameter}"] = value
    return out


def pictures(height: int = 121, width: int = 126) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    a = rng.integers(0, 256, (height, width, 3), np.uint8)
    return a, np.roll(a, (1, 2), axis=(0, 1))


@pytest.mark.parametrize("name", ["raft_large", "raft_small"])
def test_princeton_weights_give_the_same_flow(tmp_path, monkeypatch, name):
    monkeypatch.setattr(raft, "UPDATES", 1)
    state = random_state(name)
    torch.save(state, tmp_path / "tv.pth")
    theirs = as_princeton(state, large=name == "raft_large")
    torch.save(theirs, tmp_path / "princeton.pth")
    a, b = pictures()
    ours = Raft("raft_large", tmp_path / "tv.pth").flow(a, b)
    found = Raft("raft_large", tmp_path / "princeton.pth").flow(a, b)
    assert np.abs(ours).max() > 0.1  # a flow of zeros would agree with anything
    np.testing.assert_array_equal(found, ours)


def test_every_princeton_key_is_mapped_onto_its_own_tensor():
    state = random_state("raft_large")
    theirs = {k.removeprefix("module."): v for k, v in as_princeton(state, large=True).items()}
    renamed = from_princeton(theirs)
    assert renamed.keys() == state.keys()
    assert all(renamed[key] is state[key] for key in state)


def test_an_unknown_princeton_key_is_named():
    with pytest.raises(InputError, match=r"fnet.layer9.0.conv1.weight"):
        from_princeton({"fnet.layer9.0.conv1.weight": torch.zeros(1)})


def test_flow_is_that_of_the_replicate_padded_pictures(tmp_path, monkeypatch):
    """The picture's flow is cut out of the padded one at the right place (lopsided pads)."""
    monkeypatch.setattr(raft, "UPDATES", 2)
    torch.save(random_state("raft_small"), tmp_path / "w.pth")
    network = Raft("raft_small", tmp_path / "w.pth")
    a, b = pictures(130, 141)
    left, right, top, bottom = padding(130, 141)
    assert (left + right + 141, top + bottom + 130) == (144, 136)
    rows, columns = (top, bottom), (left, right)
    padded = [np.pad(x, (rows, columns, (0, 0)), mode="edge") for x in (a, b)]
    whole = network.flow(*padded)
    cut = whole[top : top + 130, left : left + 141]
    found = network.flow(a, b)
    assert found.shape == (130, 141, 2)
    np.testing.assert_array_equal(found, cut)


def test_a_batch_is_its_pairs(tmp_path, monkeypatch):
    monkeypatch.setattr(raft, "UPDATES", 1)
    torch.save(random_state("raft_small"), tmp_path / "w.pth")
    network = Raft("raft_small", tmp_path / "w.pth")
    a, b = pictures()
    both = network.flow_batch(np.stack([a, b]), np.stack([b, a]))
    # float32 sums run in another order in a batch
    np.testing.assert_allclose(both[0], network.flow(a, b), atol=1e-3)
    np.testing.assert_allclose(both[1], network.flow(b, a), atol=1e-3)


@pytest.mark.parametrize(("side", "total"), [(1, 128), (128, 128), (129, 136), (432, 432)])
def test_padding_reaches_a_size_raft_takes(side, total):
    left, right, top, bottom = padding(side, 200)
    assert side + top + bottom == total
    assert left + right == 0
    assert abs(top - bottom) <= 1


def test_the_wrong_file_is_named(tmp_path):
    torch.save({"conv.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match=r"other.pth: not the weights of raft_small.*missing"):
        Raft("raft_large", tmp_path / "other.pth")
    state = random_state("raft_small")
    state["feature_encoder.conv.bias"] = torch.zeros(7)
    torch.save(state, tmp_path / "shape.pth")
    with pytest.raises(InputError, match=r"feature_encoder.conv.bias has shape \(7,\)"):
        Raft("raft_small", tmp_path / "shape.pth")


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        (ModuleNotFoundError("No module named 'torchvision'"), "pip install torchvision"),
        (RuntimeError("operator torchvision::nms does not exist"), "does not fit the installed"),
    ],
)
def test_a_torchvision_that_does_not_import_gives_one_line_and_a_way_on(
    monkeypatch, failure, words
):
    real = builtins.__import__

    def broken(name, *args, **kwargs):
        if name.split(".")[0] == "torchvision":
            raise failure
        return real(name, *args, **kwargs)

    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    monkeypatch.setattr(builtins, "__import__", broken)
    with pytest.raises(InputError, match=words) as caught:
        import_torchvision()
    assert str(failure) in str(caught.value)
    assert "--flow dis" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.weights
def test_recorded_weights_find_known_motion():
    """With the published weights (from the cache): a translation, to a tenth of a pixel."""
    from tests.test_flow import moved_pair, translation
    from thirdparty.weights import RECORDS, cache_folder

    if not (cache_folder() / RECORDS["raft_large"].file_name).is_file():
        pytest.skip("raft_large weights are not in the cache")
    a, b, truth = moved_pair(translation(5.5, -2.25))
    error_px = np.linalg.norm(Raft("raft_large").flow(a, b) - truth, axis=-1)
    assert error_px[12:-12, 12:-12].mean() < 0.2  # 0.1 px is usual on clean texture
