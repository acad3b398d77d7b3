"""The sky network's encoder started from a file of folded convolutions."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from atlas.errors import InputError
from preprocess.sky.backbone import encoder_layers, put_into_encoder
from preprocess.sky.network import SkyNetwork, with_height_channel
from preprocess.sky.network_config import NetworkConfig
from preprocess.sky.train import TrainConfig, Trainer
from tests.sky_networks import SMALL
from thirdparty.mobilenet_v2 import FoldedConv, read_encoder
from thirdparty.weights import RECORDS, find_weights


def random_convs(network: SkyNetwork, seed: int = 0) -> list[FoldedConv]:
    """Folded convolutions that fit the encoder, of RGB."""
    rng = np.random.default_rng(seed)
    convs = []
    for number, (conv, _) in enumerate(encoder_layers(network)):
        shape = list(conv.weight.shape)
        shape[1] -= number == 0
        fan_in = int(np.prod(shape[1:]))
        weight = rng.normal(0, (2 / fan_in) ** 0.5, shape).astype(np.float32)
        convs.append(FoldedConv(weight, rng.normal(0, 0.3, shape[0]).astype(np.float32)))
    return convs


def plain_encoder(config: NetworkConfig, convs: list[FoldedConv], rgb: Tensor) -> list[Tensor]:
    """The levels of arXiv 1801.04381's encoder from folded convolutions, written out."""
    left = [(torch.from_numpy(c.weight), torch.from_numpy(c.bias)) for c in convs]

    def conv(x: Tensor, stride: int = 1) -> Tensor:
        weight, bias = left.pop(0)
        size = weight.shape[-1]
        if stride == 2:
            x = F.pad(x, (0, 1, 0, 1))
        padding = 0 if stride == 2 else size // 2
        groups = x.shape[1] if weight.shape[1] == 1 else 1
        return F.conv2d(x, weight, bias, stride, padding, groups=groups)

    x = F.relu6(conv(rgb * 2 - 1, stride=2))
    levels = []
    for index, block in enumerate(config.blocks()):
        inner = F.relu6(conv(x)) if block.expansion > 1 else x
        inner = F.relu6(conv(inner, block.stride))
        narrow = conv(inner)
        x = x + narrow if block.stride == 1 and block.inputs == block.outputs else narrow
        if index in config.taps():
            levels.append(x)
    assert not left
    return levels


def test_encoder_answers_as_the_folded_convolutions():
    """Also where the normalisation takes its numbers from the pictures at hand, as in training."""
    network = SkyNetwork(SMALL)
    convs = random_convs(network)
    rgb = torch.rand(3, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    wanted = plain_encoder(SMALL, convs, rgb)
    put_into_encoder(network, convs, rgb, "convs")
    assert network.training
    with torch.no_grad():
        for got in (network.eval().levels(rgb), network.train().levels(rgb)):
            for level, truth in zip(got, wanted, strict=True):
                assert truth.std() > 0.1
                assert_close(level, truth, rtol=1e-3, atol=1e-3)  # float32, 20 layers


def test_normalisation_knows_the_spread_of_its_pictures():
    """Not mean 0 and variance 1: else rates of training would mean something else per layer."""
    network = SkyNetwork(SMALL)
    convs = random_convs(network)
    rgb = torch.rand(2, 3, 64, 64)
    put_into_encoder(network, convs, rgb, "convs")
    conv, norm = encoder_layers(network)[0]
    with torch.no_grad():
        answer = conv(with_height_channel(rgb))
    assert_close(norm.running_mean, answer.mean(dim=(0, 2, 3)), rtol=1e-4, atol=1e-4)
    assert_close(norm.running_var, answer.var(dim=(0, 2, 3), correction=0), rtol=1e-4, atol=1e-4)
    assert conv.weight[:, 3].abs().max() == 0  # height in the frame: no say yet


def test_convolutions_that_do_not_fit_are_named():
    network = SkyNetwork(SMALL)
    convs = random_convs(network)
    convs[2] = FoldedConv(convs[2].weight[:, :1], convs[2].bias)
    with pytest.raises(InputError, match=r"x\.tflite: a convolution of"):
        put_into_encoder(network, convs, torch.rand(1, 3, 64, 64), "x.tflite")


def test_file_is_followed_from_the_picture_on(tmp_path: Path):
    """Half precision behind a dequantiser, a sum, and a predictor that branches off."""
    pytest.importorskip("tflite", reason="backbone files need tflite")
    import tflite

    from tests.tflite_file import tflite_bytes

    op = tflite.BuiltinOperator
    rng = np.random.default_rng(3)
    first = rng.normal(size=(4, 3, 3, 3)).astype(np.float16)  # out, height, width, in
    each = rng.normal(size=(1, 3, 3, 4)).astype(np.float32)  # 1, height, width, channel
    predictor = rng.normal(size=(2, 1, 1, 4)).astype(np.float32)
    last = rng.normal(size=(4, 1, 1, 4)).astype(np.float32)
    biases = [rng.normal(size=n).astype(np.float32) for n in (4, 4, 2, 4)]
    tensors = [(1, 8, 8, 3), first, (4, 3, 3, 3), each, predictor, last, *biases]
    tensors += [(1, 4, 4, 4)] * 2 + [(1, 4, 4, 2), (1, 32)] + [(1, 4, 4, 4)] * 2
    operators = [
        (op.DEQUANTIZE, [1], 2),
        (op.CONV_2D, [0, 2, 6], 10),
        (op.CONV_2D, [10, 4, 8], 12),
        (op.RESHAPE, [12], 13),
        (op.DEPTHWISE_CONV_2D, [10, 3, 7], 11),
        (op.ADD, [11, 10], 14),
        (op.CONV_2D, [14, 5, 9], 15),
    ]
    path = tmp_path / "b.tflite"
    path.write_bytes(tflite_bytes(tensors, operators, given=0))
    found = read_encoder(path, 3)
    assert [c.weight.shape for c in found] == [(4, 3, 3, 3), (4, 1, 3, 3), (4, 4, 1, 1)]
    np.testing.assert_array_equal(found[0].weight[1, 2], first.astype(np.float32)[1, :, :, 2])
    np.testing.assert_array_equal(found[1].weight[3, 0], each[0, :, :, 3])
    np.testing.assert_array_equal(found[2].weight[..., 0, 0], last[:, 0, 0])
    for conv, bias in zip(found, (biases[0], biases[1], biases[3]), strict=True):
        np.testing.assert_array_equal(conv.bias, bias)
    with pytest.raises(InputError, match=r"b\.tflite: a chain of 3 convolutions .* wanted 48"):
        read_encoder(path, len(encoder_layers(SkyNetwork())))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        (b"PK not one", "not a TensorFlow Lite file"),
        (b"\x08\x00\x00\x00TFL3", "not a whole TensorFlow Lite file"),
    ],
)
def test_wrong_backbone_files_are_named(tmp_path: Path, content: bytes | None, message: str):
    pytest.importorskip("tflite", reason="backbone files need tflite")
    path = tmp_path / "b.tflite"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=rf"b\.tflite: {message}"):
        read_encoder(path, 48)


def test_encoder_learns_at_its_share_of_the_rate():
    trainer = Trainer(TrainConfig(shards=1, encoder_share=0.25), torch.device("cpu"))
    encoder, rest = trainer.optimizer.param_groups
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 255, (2, 64, 64, 3), np.uint8)
    alpha = np.zeros((2, 64, 64), np.uint8)
    alpha[:, :30] = 255
    trainer.train_batch((picture, alpha, np.full_like(alpha, 255)))
    assert encoder["lr"] == pytest.approx(0.25 * rest["lr"])
    both = len(encoder["params"]) + len(rest["params"])
    assert both == len(list(trainer.network.parameters()))
    assert len(encoder["params"]) == 3 * len(encoder_layers(trainer.network))
    with pytest.raises(InputError, match="--encoder-share"):
        TrainConfig(encoder_share=0)


def test_checkpoint_of_another_network_is_named(tmp_path: Path):
    trainer = Trainer(TrainConfig(shards=1), torch.device("cpu"))
    trainer.network = SkyNetwork(SMALL)
    trainer.save(tmp_path / "checkpoint.pt")
    with pytest.raises(InputError, match=r"checkpoint\.pt: of a training of another network"):
        Trainer(TrainConfig(shards=1), torch.device("cpu")).load(tmp_path / "checkpoint.pt")


@pytest.mark.weights
def test_recorded_backbone_answers_as_its_convolutions():
    """Needs the file of the record `mobilenet_v2_ssd`, at $SKYWEAVE_BACKBONE or fetched."""
    path = find_weights(RECORDS["mobilenet_v2_ssd"], os.environ.get("SKYWEAVE_BACKBONE"))
    network = SkyNetwork()
    rgb = torch.rand(2, 3, 64, 96)
    convs = read_encoder(path, len(encoder_layers(network)))
    put_into_encoder(network, convs, rgb, str(path))
    wanted = plain_encoder(network.config, convs, rgb)
    with torch.no_grad():
        for level, truth in zip(network.eval().levels(rgb), wanted, strict=True):
            assert_close(level, truth, rtol=1e-3, atol=1e-3)
