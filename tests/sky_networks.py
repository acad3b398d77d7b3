"""Sky networks small enough for tests."""

from __future__ import annotations

import torch

from preprocess.sky.network import SkyNetwork
from preprocess.sky.network_config import NetworkConfig

SMALL = NetworkConfig(
    stem=4,
    groups=((4, 1, 1), (6, 1, 2), (8, 2, 2), (8, 1, 2), (8, 1, 1), (12, 1, 2)),
    expansion=2,
    decoder=(4, 6, 8, 8),
)


def small_network(seed: int = 0) -> SkyNetwork:
    """Random weights, running statistics as a trained network has them, not 0 and 1."""
    torch.manual_seed(seed)
    network = SkyNetwork(SMALL)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                assert module.running_mean is not None
                assert module.running_var is not None
                module.running_mean.uniform_(-0.2, 0.2)
                module.running_var.uniform_(0.5, 1.5)
    return network.eval()
