"""Let the sky network's encoder start from features that were learnt on many photographs.

A few hundred pictures with sky mattes teach what sky is, but not what the world looks like; an
encoder that has seen millions of photographs knows that. Its file holds convolutions with their
normalisation folded in. Here they are put into the encoder and the normalisation is put back:
y = W x + b becomes g (W x - m) / s + c with m, s^2 mean and variance of W x over training pictures,
g = s and c = m + b, which answers alike and can be trained on like any other.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from atlas.errors import InputError
from preprocess.sky.network import SkyNetwork
from thirdparty.mobilenet_v2 import FoldedConv


def encoder_layers(network: SkyNetwork) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """The convolutions of the encoder, each with its normalisation, in order."""
    sequences = [
        module
        for part in (network.stem, network.blocks)
        for module in part.modules()
        if isinstance(module, nn.Sequential) and len(module) == 2
    ]
    return [(module[0], module[1]) for module in sequences]  # type: ignore[misc]


def put_into_encoder(
    network: SkyNetwork, convs: list[FoldedConv], rgb: Tensor, source: str
) -> None:
    """Put a backbone's convolutions into the encoder of `network`.

    The channel that the encoder has besides RGB (height in the frame) starts without a say.

    Args:
        convs: see `thirdparty.mobilenet_v2.read_encoder`; as many as `encoder_layers`.
        rgb: (B, 3, H, W) in [0, 1], pictures as those that will be trained on.
        source: what an error names.
    Raises:
        InputError: a convolution of another shape.
    """
    layers = encoder_layers(network)
    for (conv, norm), folded in zip(layers, convs, strict=True):
        weight = folded.weight
        if conv is layers[0][0]:
            weight = np.concatenate([weight, np.zeros_like(weight[:, :1])], axis=1)
        if weight.shape != tuple(conv.weight.shape):
            raise InputError(
                f"{source}: a convolution of {weight.shape}; wanted {tuple(conv.weight.shape)}"
            )
        with torch.no_grad():
            conv.weight.copy_(torch.from_numpy(weight))
            norm.reset_parameters()
            norm.weight.fill_((1 + norm.eps) ** 0.5)  # with mean 0 and variance 1: y = W x + b
            norm.bias.copy_(torch.from_numpy(folded.bias))
    _put_norms_back(network, layers, rgb)


def _put_norms_back(
    network: SkyNetwork, layers: list[tuple[nn.Conv2d, nn.BatchNorm2d]], rgb: Tensor
) -> None:
    """Mean and variance of each convolution's answer to `rgb` as those of its normalisation."""
    seen: list[tuple[nn.BatchNorm2d, Tensor, Tensor]] = []

    def note(norm: nn.BatchNorm2d, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0]
        seen.append((norm, x.mean(dim=(0, 2, 3)), x.var(dim=(0, 2, 3), correction=0)))

    handles = [norm.register_forward_pre_hook(note) for _, norm in layers]
    training = network.training
    with torch.no_grad():
        network.eval().levels(rgb)
        for handle in handles:
            handle.remove()
        for norm, mean, variance in seen:
            norm.running_mean.copy_(mean)  # type: ignore[union-attr]
            norm.running_var.copy_(variance)  # type: ignore[union-attr]
            norm.weight.copy_((variance + norm.eps).sqrt())
            norm.bias.add_(mean)
    network.train(training)
