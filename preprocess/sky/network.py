"""The matting network: a small U-Net that sees the whole frame at low resolution.

The encoder is MobileNetV2's (Sandler et al., arXiv 1801.04381) without its last blocks, so that it
can start from features learnt on many photographs (`backbone`). A vector pooled over the whole
picture is added at the coarsest stage (global context, as in ParseNet, arXiv 1506.04579); a decoder
adds the stages back. Besides RGB the network is given the height in the frame as a channel
(CoordConv, arXiv 1807.03247), because sky is above. The pooled vector also says whether the picture
holds any sky; where it holds none, that lowers every pixel's answer.
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
from preprocess.sky.network_config import Block, NetworkConfig


def _conv(inputs: int, outputs: int, *, kernel: int = 3) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, 1, kernel // 2, bias=False), nn.BatchNorm2d(outputs)
    )


class HalvingConv(nn.Conv2d):
    """3x3 convolution of stride 2 on even sides, with one row and column of zeros beyond the end.

    TensorFlow's "same": output pixel i looks at 2i, 2i + 1, 2i + 2, as the backbone was trained.
    """

    def __init__(self, inputs: int, outputs: int, *, groups: int = 1) -> None:
        super().__init__(inputs, outputs, 3, 2, 0, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, (0, 1, 0, 1)))


class InvertedResidual(nn.Module):
    """Widen by 1x1, 3x3 in each channel alone, narrow by 1x1; added to the input where it fits."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        inner = block.inputs * block.expansion
        self.expand = _conv(block.inputs, inner, kernel=1) if block.expansion > 1 else None
        each = (
            HalvingConv(inner, inner, groups=inner)
            if block.stride == 2
            else nn.Conv2d(inner, inner, 3, 1, 1, groups=inner, bias=False)
        )
        self.depthwise = nn.Sequential(each, nn.BatchNorm2d(inner))
        self.project = _conv(inner, block.outputs, kernel=1)
        self.added = block.added

    def forward(self, x: Tensor) -> Tensor:
        inner = x if self.expand is None else F.relu6(self.expand(x))
        narrow = self.project(F.relu6(self.depthwise(inner)))
        return x + narrow if self.added else narrow


class Merge(nn.Module):
    """Project the coarser picture, enlarge it, add the projected skip, convolve."""

    def __init__(self, coarse: int, skip: int, width: int) -> None:
        super().__init__()
        self.coarse = _conv(coarse, width, kernel=1)
        self.skip = _conv(skip, width, kernel=1)
        self.mix = _conv(width, width)

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
        stem, decoder = self.config.stem, self.config.decoder
        self.stem = nn.Sequential(HalvingConv(4, stem), nn.BatchNorm2d(stem))
        blocks = self.config.blocks()
        self.blocks = nn.ModuleList(InvertedResidual(block) for block in blocks)
        inputs = blocks[-1].outputs
        self.context = nn.Sequential(nn.Linear(inputs, inputs), nn.ReLU())
        self.context_gain = nn.Linear(inputs, inputs)
        self.presence = nn.Linear(inputs, 1)
        skips = [blocks[index].outputs for index in self.config.taps()]
        coarser = (*decoder[1:], inputs)
        self.merges = nn.ModuleList(
            Merge(coarser[level], skips[level], decoder[level]) for level in reversed(range(4))
        )
        self.coarse_head = nn.Conv2d(decoder[3], 1, 1)
        self.head = nn.Conv2d(decoder[0], 1, 3, padding=1)

    def forward(self, rgb: Tensor) -> Tensor:
        return self.answers(rgb).pixels

    def backbone(self) -> list[nn.Parameter]:
        """The parameters of the encoder."""
        return [*self.stem.parameters(), *self.blocks.parameters()]

    def levels(self, rgb: Tensor) -> list[Tensor]:
        """(B, C, H / s, W / s) at s = 2, 4, 8, 16, 32 of (B, 3, H, W)."""
        taps = self.config.taps()
        x = F.relu6(self.stem(with_height_channel(rgb)))
        levels: list[Tensor] = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in taps:
                levels.append(x)
        return levels

    def answers(self, rgb: Tensor) -> Answers:
        """All that it says of (B, 3, H, W); only the pixels' logits are for use."""
        if rgb.shape[-2] % STRIDE_PX or rgb.shape[-1] % STRIDE_PX:
            raise ValueError(f"height and width must be multiples of 32, got {tuple(rgb.shape)}")
        levels = self.levels(rgb)
        x = levels[-1]
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
    """Colours in [-1, 1] and the height in the frame: (B, 3, H, W) -> (B, 4, H, W).

    The fourth channel runs from -1 in the top row to 1 in the bottom row.
    """
    batch, _, height, width = rgb.shape
    rows = torch.linspace(-1, 1, height, device=rgb.device, dtype=rgb.dtype)
    rows = rows.view(1, 1, height, 1).expand(batch, 1, height, width)
    return torch.cat([rgb * 2 - 1, rows], dim=1)


def save_weights(network: SkyNetwork, path: Path) -> None:
    """Write weights at half precision, with the network's sizes as metadata."""
    tensors = {
        key: value.half() if value.is_floating_point() else value
        for key, value in network.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    partial = path.with_name(path.name + ".partial")
    save_file({k: v.contiguous() for k, v in tensors.items()}, partial, network.config.metadata())
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
    network = SkyNetwork(NetworkConfig.from_metadata(metadata, path))
    missing, unexpected = network.load_state_dict(tensors, strict=False)
    missing = [key for key in missing if not key.endswith("num_batches_tracked")]
    if missing or unexpected:
        raise InputError(f"{path}: weights do not fit: missing {missing}, unknown {unexpected}")
    return network.eval()
