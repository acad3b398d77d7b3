"""The matting network: a small residual U-Net that sees the whole frame at low resolution.

A residual encoder (He et al., arXiv 1512.03385) halves the picture five times; a vector pooled over
the whole picture is added at the coarsest stage (global context, as in ParseNet, arXiv 1506.04579);
a decoder adds the stages back. Besides RGB the network is given the height in the frame as a
channel (CoordConv, arXiv 1807.03247), because sky is above. The pooled vector also says whether the
picture holds any sky; where it holds none, that lowers every pixel's answer.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from atlas.errors import InputError
from preprocess.sky.data import STRIDE_PX


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """Sizes of the network; stored beside the weights."""

    widths: tuple[int, ...] = (24, 40, 64, 112, 128)
    """Channels at 1/2, 1/4, 1/8, 1/16 and 1/32 of the input."""
    blocks: tuple[int, ...] = (0, 1, 2, 3, 2)
    """Residual blocks at each of these stages."""

    def __post_init__(self) -> None:
        if len(self.widths) != 5 or len(self.blocks) != 5:
            raise ValueError(f"five stages wanted, got {self.widths} and {self.blocks}")


def _conv(inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
    )


class ResidualBlock(nn.Module):
    """x + two 3x3 convolutions of x, rectified."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = _conv(width, width)
        self.second = _conv(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(F.relu(self.first(x))))


class Stage(nn.Module):
    """Halve the picture by a strided convolution, then residual blocks."""

    def __init__(self, inputs: int, width: int, blocks: int) -> None:
        super().__init__()
        self.down = _conv(inputs, width, stride=2)
        self.blocks = nn.Sequential(*(ResidualBlock(width) for _ in range(blocks)))

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(F.relu(self.down(x)))


class Merge(nn.Module):
    """Project the coarser picture, enlarge it, add the projected skip, convolve."""

    def __init__(self, coarse: int, skip: int) -> None:
        super().__init__()
        self.coarse = _conv(coarse, skip, kernel=1)
        self.skip = _conv(skip, skip, kernel=1)
        self.mix = _conv(skip, skip)

    def forward(self, coarse: Tensor, skip: Tensor) -> Tensor:
        up = F.interpolate(
            self.coarse(coarse), size=skip.shape[-2:], mode="bilinear", align_corners=False
        )
        return F.relu(self.mix(F.relu(up + self.skip(skip))))


@dataclass(frozen=True)
class Answers:
    """What the network says of a batch; logits."""

    pixels: Tensor
    """(B, 1, H, W) of the opacity, at the input's size."""
    coarse: Tensor
    """(B, 1, H/16, W/16): the same by the 1/16 stage alone; for training."""
    presence: Tensor
    """(B, 1): of there being any sky in the picture."""


class SkyNetwork(nn.Module):
    """Logit of the sky's opacity for each pixel of a small frame.

    Input: (B, 3, H, W) display-encoded RGB in [0, 1], H and W multiples of 32.
    Output: (B, 1, H, W) logits at the input's size, computed at half of it: l + min(p, 0), l of the
    pixel and p of sky in the picture at all.
    """

    def __init__(self, config: NetworkConfig | None = None) -> None:
        super().__init__()
        self.config = config or NetworkConfig()
        widths = self.config.widths
        stages = zip((4, *widths[:-1]), widths, self.config.blocks, strict=True)
        self.stages = nn.ModuleList(Stage(*sizes) for sizes in stages)
        self.context = nn.Sequential(nn.Linear(widths[-1], widths[-1]), nn.ReLU())
        self.context_gain = nn.Linear(widths[-1], widths[-1])
        self.presence = nn.Linear(widths[-1], 1)
        self.merges = nn.ModuleList(
            Merge(widths[level + 1], widths[level]) for level in reversed(range(4))
        )
        self.coarse_head = nn.Conv2d(widths[3], 1, 1)
        self.head = nn.Conv2d(widths[0], 1, 3, padding=1)

    def forward(self, rgb: Tensor) -> Tensor:
        return self.answers(rgb).pixels

    def answers(self, rgb: Tensor) -> Answers:
        """All that it says of (B, 3, H, W); only the pixels' logits are for use."""
        if rgb.shape[-2] % STRIDE_PX or rgb.shape[-1] % STRIDE_PX:
            raise ValueError(f"height and width must be multiples of 32, got {tuple(rgb.shape)}")
        x = with_height_channel(rgb)
        levels: list[Tensor] = []
        for stage in self.stages:
            x = stage(x)
            levels.append(x)
        context = self.context(x.mean(dim=(2, 3)))
        presence = self.presence(context)
        x = F.relu(x + self.context_gain(context)[:, :, None, None])
        coarse_logits = torch.zeros(0)
        for index, merge in enumerate(self.merges):
            x = merge(x, levels[3 - index])
            if index == 0:
                coarse_logits = self.coarse_head(x)
        logits = self.head(x) - F.relu(-presence)[:, :, None, None]
        logits = F.interpolate(logits, size=rgb.shape[-2:], mode="bilinear", align_corners=False)
        return Answers(logits, coarse_logits, presence)


def folded(network: SkyNetwork) -> SkyNetwork:
    """A copy for inference: every normalisation folded into the convolution before it.

    The copy answers alike up to rounding, and is laid out the way CPU convolutions like.
    """
    network = copy.deepcopy(network).eval()
    for module in network.modules():
        if isinstance(module, nn.Sequential) and len(module) == 2:
            convolution, norm = module
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                module[0] = fuse_conv_bn_eval(convolution, norm)
                module[1] = nn.Identity()
    return network.requires_grad_(False).to(memory_format=torch.channels_last)


def with_height_channel(rgb: Tensor) -> Tensor:
    """Centre the colours and append the height in the frame: (B, 3, H, W) -> (B, 4, H, W).

    The fourth channel runs from -1 in the top row to 1 in the bottom row.
    """
    batch, _, height, width = rgb.shape
    rows = torch.linspace(-1, 1, height, device=rgb.device, dtype=rgb.dtype)
    rows = rows.view(1, 1, height, 1).expand(batch, 1, height, width)
    return torch.cat([(rgb - 0.5) * 4, rows], dim=1)


def save_weights(network: SkyNetwork, path: Path) -> None:
    """Write weights at half precision, with the network's sizes as metadata."""
    tensors = {
        key: value.half() if value.is_floating_point() else value
        for key, value in network.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    config = network.config
    metadata = {
        "widths": ",".join(map(str, config.widths)),
        "blocks": ",".join(map(str, config.blocks)),
    }
    partial = path.with_name(path.name + ".partial")
    save_file({k: v.contiguous() for k, v in tensors.items()}, partial, metadata)
    partial.replace(path)


def load_network(path: Path) -> SkyNetwork:
    """Read a network that `save_weights` wrote; float32, in evaluation mode, on the CPU."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118
    except FileNotFoundError as err:
        raise InputError(f"{path}: no such file; wanted the sky network's weights") from err
    except SafetensorError as err:
        raise InputError(f"{path}: not a readable safetensors file ({err})") from err
    if not {"widths", "blocks"} <= metadata.keys():
        raise InputError(f"{path}: not a sky network: no 'widths' and 'blocks' in its metadata")
    config = NetworkConfig(
        widths=tuple(int(v) for v in metadata["widths"].split(",")),
        blocks=tuple(int(v) for v in metadata["blocks"].split(",")),
    )
    network = SkyNetwork(config)
    if "presence.weight" not in tensors:  # weights of before that answer: it says nothing
        tensors["presence.weight"] = torch.zeros_like(network.presence.weight)
        tensors["presence.bias"] = torch.zeros_like(network.presence.bias)
    missing, unexpected = network.load_state_dict(tensors, strict=False)
    missing = [key for key in missing if not key.endswith("num_batches_tracked")]
    if missing or unexpected:
        raise InputError(f"{path}: weights do not fit: missing {missing}, unknown {unexpected}")
    return network.eval()
