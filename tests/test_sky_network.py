"""The sky network, its weight files and its losses."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.testing import assert_close

from atlas.coords import Size
from atlas.errors import InputError
from preprocess.sky import losses
from preprocess.sky.matte import NETWORK_WEIGHTS
from preprocess.sky.mean_weights import mean_network
from preprocess.sky.network import (
    HalvingConv,
    SkyNetwork,
    folded,
    load_network,
    save_weights,
    with_height_channel,
)
from preprocess.sky.network_config import NetworkConfig
from preprocess.sky.opencv_network import OpenCvNetwork
from tests.sky_networks import SMALL, small_network


def test_height_channel_is_pinned():
    rgb = torch.tensor([0.0, 0.5, 1.0]).view(1, 3, 1, 1).expand(2, 3, 5, 3)
    x = with_height_channel(rgb)
    assert x.shape == (2, 4, 5, 3)
    assert_close(x[1, :3, 4, 2], torch.tensor([-1.0, 0.0, 1.0]))
    assert_close(x[0, 3, :, 1], torch.tensor([-1.0, -0.5, 0.0, 0.5, 1.0]))  # top to bottom


def test_halving_looks_at_a_pixel_and_the_two_after_it():
    """Output i is of inputs 2i, 2i + 1, 2i + 2, and zeros beyond the end."""
    conv = HalvingConv(1, 1)
    with torch.no_grad():
        conv.weight.zero_()
        conv.weight[0, 0, 0] = torch.tensor([1.0, 10.0, 100.0])
        got = conv(torch.tensor([[1.0, 2.0, 3.0, 4.0], [0, 0, 0, 0]]).view(1, 1, 2, 4))
    assert_close(got, torch.tensor([[321.0, 43.0]]).view(1, 1, 1, 2))


def test_mobilenet_v2_has_its_blocks():
    """arXiv 1801.04381, table 2, without the blocks of 320 channels; what the decoder is given."""
    config = NetworkConfig()
    blocks = config.blocks()
    assert len(blocks) == 16
    assert blocks[0] == (32, 16, 1, 1)
    assert blocks[6] == (32, 64, 2, 6)
    assert blocks[10] == (64, 96, 1, 6)
    assert [blocks[index].outputs for index in config.taps()] == [16, 24, 32, 96, 160]
    assert NetworkConfig.from_metadata(SMALL.metadata(), Path("w")) == SMALL


def test_logits_have_the_size_of_the_picture():
    network = small_network()
    answers = network.answers(torch.rand(2, 3, 64, 96))
    assert answers.pixels.shape == (2, 1, 64, 96)
    assert answers.coarse.shape == (2, 1, 4, 6)
    assert answers.presence.shape == (2, 1)


def test_every_pixel_reaches_every_answer():
    """The pooled branch gives the answer at one corner the content of the opposite one."""
    network = small_network()
    rgb = torch.rand(1, 3, 64, 96, requires_grad=True)
    network(rgb)[0, 0, 0, 0].backward()
    assert rgb.grad is not None
    assert rgb.grad[0, :, -8:, -8:].abs().max() > 0


@pytest.mark.parametrize("shape", [(1, 3, 48, 64), (1, 3, 64, 100)])
def test_sides_that_are_no_multiple_of_32_are_refused(shape):
    with pytest.raises(ValueError, match="multiples of 32"):
        small_network()(torch.rand(shape))


def test_weights_come_back_as_half_precision_rounding(tmp_path: Path):
    network = small_network()
    save_weights(network, tmp_path / "w.safetensors")
    loaded = load_network(tmp_path / "w.safetensors")
    assert loaded.config == SMALL
    assert not loaded.training
    for key, value in network.state_dict().items():
        if value.is_floating_point():
            assert_close(loaded.state_dict()[key], value.half().float(), rtol=0, atol=0)


def test_missing_weights_are_the_users_to_mend(tmp_path: Path):
    with pytest.raises(InputError, match="no such file"):
        load_network(tmp_path / "none.safetensors")


def test_broken_weights_are_the_users_to_mend(tmp_path: Path):
    (tmp_path / "w.safetensors").write_bytes(b"not a safetensors file at all")
    with pytest.raises(InputError, match="not a readable safetensors"):
        load_network(tmp_path / "w.safetensors")


def test_foreign_weights_are_the_users_to_mend(tmp_path: Path):
    save_file({"a": torch.zeros(1)}, tmp_path / "w.safetensors")
    with pytest.raises(InputError, match="not a sky network"):
        load_network(tmp_path / "w.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "v.safetensors", SMALL.metadata())
    with pytest.raises(InputError, match="do not fit"):
        load_network(tmp_path / "v.safetensors")


def test_folded_network_gives_the_same_logits():
    network = small_network()
    rgb = torch.rand(1, 3, 64, 96)
    with torch.inference_mode():
        expected = network(rgb).clone()
        got = folded(network)(rgb)
    assert_close(got, expected, rtol=1e-3, atol=1e-4)  # folding reorders float32 sums
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in folded(network).modules())


@pytest.mark.parametrize("size", [Size(64, 64), Size(64, 256), Size(96, 160), Size(192, 64)])
def test_opencv_gives_the_same_opacity_each_time(tmp_path: Path, size: Size):
    """OpenCV runs the same weights; asked again, it must not have changed."""
    torch.manual_seed(2)
    save_weights(SkyNetwork(), tmp_path / "w.safetensors")
    rgb = np.random.default_rng(0).integers(0, 255, (size.height, size.width, 3), np.uint8)
    with torch.inference_mode():
        levels = torch.from_numpy(rgb).permute(2, 0, 1)[None].float() / 255
        wanted = torch.sigmoid(load_network(tmp_path / "w.safetensors")(levels))[0, 0].numpy()
    network = OpenCvNetwork(tmp_path / "w.safetensors", size)
    for _ in range(3):
        np.testing.assert_allclose(network.opacity(rgb), wanted, atol=2e-4)


@pytest.mark.parametrize("size", [Size(32, 64), Size(64, 100)])
def test_sizes_that_opencv_gets_wrong_are_refused(tmp_path: Path, size: Size):
    save_weights(SkyNetwork(), tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="multiples of 32 from 64 on"):
        OpenCvNetwork(tmp_path / "w.safetensors", size)


@pytest.mark.skipif(not NETWORK_WEIGHTS.is_file(), reason="weights are not bundled")
def test_bundled_weights_are_small_and_finite():
    assert NETWORK_WEIGHTS.stat().st_size <= 4_000_000
    network = load_network(NETWORK_WEIGHTS)
    assert all(torch.isfinite(v).all() for v in network.state_dict().values())


def column(values: list[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64).view(1, 1, 1, -1)


def test_cross_entropy_matches_hand_value():
    logits = column([0.0, math.log(3)])  # p = 1/2, 3/4
    loss = losses.cross_entropy(logits, column([1.0, 0.0]), column([1.0, 3.0]))
    assert loss.item() == pytest.approx((math.log(2) + 3 * math.log(4)) / 4)


def test_absolute_matches_hand_value():
    logits = column([0.0, math.log(3)])
    loss = losses.absolute(logits, column([1.0, 0.5]), column([1.0, 3.0]))
    assert loss.item() == pytest.approx((0.5 + 3 * 0.25) / 4)


def test_overlap_is_zero_where_right_and_near_one_where_wrong():
    truth = column([1.0] * 50 + [0.0] * 50)
    sure = 40 * (truth - 0.5)
    ones = torch.ones_like(truth)
    assert losses.overlap(sure, truth, ones).item() == pytest.approx(0, abs=1e-6)
    # disjoint: (0 + slack) / (100 + slack), slack = 1 % of 100 pixels
    assert losses.overlap(-sure, truth, ones).item() == pytest.approx(1 - 1 / 101, abs=1e-6)


def test_edges_see_only_trusted_neighbours():
    logits = column([-40.0, 40.0, 40.0])  # p = 0, 1, 1
    alpha = column([0.0, 0.0, 1.0])  # error = 0, 1, 0: two steps of 1
    trusted = losses.edges(logits, alpha, column([1.0, 1.0, 1.0]))
    assert trusted.item() == pytest.approx(2 / 3)
    partly = losses.edges(logits, alpha, column([1.0, 1.0, 0.3]))
    assert partly.item() == pytest.approx(1 / 2)


@pytest.mark.parametrize(
    "loss", [losses.cross_entropy, losses.absolute, losses.overlap, losses.edges]
)
def test_gradients_are_finite_at_the_ends(loss):
    logits = column([-90.0, 0.0, 90.0]).requires_grad_()
    loss(logits, column([0.0, 1.0, 1.0]), column([1.0, 0.0, 1.0])).backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_coarse_target_is_the_mean_of_its_pixels():
    alpha = torch.zeros(1, 1, 4, 4)
    alpha[..., :2, :] = 1
    alpha[..., 2:, :1] = 1  # lower left cell: half
    logits = torch.tensor([[[[30.0, 30.0], [0.0, -30.0]]]])
    loss = losses.coarse_cross_entropy(logits, alpha, torch.ones_like(alpha))
    assert loss.item() == pytest.approx(math.log(2) / 4, abs=1e-6)


def test_mean_of_weights_counts_the_first_by_its_share(tmp_path: Path):
    paths = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    for seed, path in enumerate(paths):
        save_weights(small_network(seed), path)
    a, b = (load_network(path).state_dict() for path in paths)
    mean = mean_network(*paths, share=0.75).state_dict()
    for key, value in a.items():
        if value.is_floating_point():
            assert_close(mean[key], 0.75 * value + 0.25 * b[key])


def test_weights_that_do_not_fit_have_no_mean(tmp_path: Path):
    save_weights(small_network(), tmp_path / "a.safetensors")
    save_weights(SkyNetwork(), tmp_path / "b.safetensors")
    with pytest.raises(InputError, match="a network of"):
        mean_network(tmp_path / "a.safetensors", tmp_path / "b.safetensors", share=0.5)
    with pytest.raises(InputError, match="--share must be"):
        mean_network(tmp_path / "a.safetensors", tmp_path / "a.safetensors", share=1.5)


def test_no_sky_in_the_picture_lowers_every_pixel_alike(tmp_path: Path):
    """l + min(p, 0): nothing where the picture holds sky, else p; by torch and by OpenCV."""
    network = small_network()
    rgb = torch.randint(0, 255, (1, 3, 64, 96)) / 255
    with torch.no_grad():
        network.presence.weight.zero_()
        pixels = []
        for bias in (4.0, 0.0, -3.0):
            network.presence.bias.fill_(bias)
            pixels.append(network(rgb))
    assert_close(pixels[0], pixels[1], rtol=0, atol=0)
    assert_close(pixels[2], pixels[1] - 3)
    save_weights(network, tmp_path / "w.safetensors")
    levels = (rgb[0] * 255).round().byte().permute(1, 2, 0).numpy()
    got = OpenCvNetwork(tmp_path / "w.safetensors", Size(64, 96)).logits(
        np.ascontiguousarray(levels)
    )
    np.testing.assert_allclose(got, pixels[2][0, 0].numpy(), atol=2e-2)  # weights in half precision


def test_presence_is_not_asked_of_specks():
    alpha = torch.zeros(3, 1, 100, 100)
    alpha[1, 0, :5] = 1  # 5 %
    alpha[2, 0, 0, :20] = 1  # 0.2 %
    presence = torch.tensor([[math.log(3)], [math.log(3)], [50.0]])  # 3/4, 3/4, not asked
    loss = losses.presence_cross_entropy(presence, alpha)
    assert loss.item() == pytest.approx((math.log(4) + 4 * math.log(4 / 3)) / 2)
