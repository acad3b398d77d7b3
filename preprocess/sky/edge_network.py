"""The edge network: a tiny U-Net that settles, at full size, what the small matte leaves in doubt.

It sees some 90 px round each pixel: enough to tell twigs from a wall with windows, not enough to
know what a scene is, which the small matte's logit tells it. Its answer is added to that logit.
"""

from __future__ import annotations

from pathlib import Path

import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from preprocess.sky.edge_inputs import CHANNELS

WIDTHS = (8, 16, 24, 32)
"""Channels at 1, 1/2, 1/4 and 1/8 of the frame's size."""


class EdgeNetwork(nn.Module):
    """(B, 9, H, W) of `edge_inputs.channels` to logits (B, 1, H, W); sides are multiples of 8."""

    def __init__(self) -> None:
        super().__init__()
        inputs = (CHANNELS, *WIDTHS[:-1])
        self.down = nn.ModuleList(
            nn.Conv2d(a, b, 3, 1 if level == 0 else 2, 1)
            for level, (a, b) in enumerate(zip(inputs, WIDTHS, strict=True))
        )
        self.inner = nn.ModuleList(nn.Conv2d(width, width, 3, 1, 1) for width in WIDTHS[1:])
        self.up = nn.ModuleList(
            nn.Conv2d(WIDTHS[level + 1], WIDTHS[level], 1) for level in range(len(WIDTHS) - 1)
        )
        self.mix = nn.ModuleList(nn.Conv2d(width, width, 3, 1, 1) for width in WIDTHS[:-1])
        self.head = nn.Conv2d(WIDTHS[0], 1, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        logit = x[:, -1:]
        levels: list[Tensor] = []
        for level, down in enumerate(self.down):
            x = F.relu(down(x))
            if level:
                x = F.relu(x + self.inner[level - 1](x))
            levels.append(x)
        for level in reversed(range(len(WIDTHS) - 1)):
            up = F.interpolate(
                self.up[level](x), scale_factor=2.0, mode="bilinear", align_corners=False
            )
            x = F.relu(up + levels[level])
            x = F.relu(x + self.mix[level](x))
        return self.head(x) + logit


def save_edge_weights(network: EdgeNetwork, path: Path) -> None:
    """Write weights at half precision."""
    tensors = {key: value.half().contiguous() for key, value in network.state_dict().items()}
    partial = path.with_name(path.name + ".partial")
    save_file(tensors, partial)
    partial.replace(path)


def load_edge_network(path: Path) -> EdgeNetwork:
    """Read what `save_edge_weights` wrote; float32, in evaluation mode."""
    network = EdgeNetwork()
    network.load_state_dict({key: value.float() for key, value in load_file(path).items()})
    return network.eval()
