"""SkyAR's sky matting network `coord_resnet50`, so that its own checkpoint loads.

Zou, "Castle in the Sky" (arXiv 2010.11800): a ResNet-50 whose decoder adds the encoder's stages and
gives every convolution outside the encoder the height in the picture as one more channel
(CoordConv, arXiv 1807.03247). Written from the checkpoint's keys and shapes and from one input with
its output. The checkpoint (CC BY-NC-SA 4.0) is no part of this project: the user gives its path.
"""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from atlas.errors import InputError

SIDE_PX = 384
"""Both sides of the picture that the network was trained on."""


class CoordConv(nn.Module):
    """A convolution that sees the height too, row / height: 0 in the top row."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, bias: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs + 1, outputs, kernel, stride, kernel // 2, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        rows = torch.arange(height, device=x.device, dtype=x.dtype) / height
        rows = rows.view(1, 1, height, 1).expand(batch, 1, height, width)
        return self.conv(torch.cat([x, rows], dim=1))


class CoordResNet50(nn.Module):
    """Input (B, 3, 384, 384) RGB in [0, 1]; output (B, 1, 384, 384) opacity of the sky."""

    def __init__(self) -> None:
        super().__init__()
        try:
            from torchvision.models import resnet50
        except ModuleNotFoundError as err:
            raise InputError("the SkyAR matte needs torchvision: pip install torchvision") from err
        self.resnet = resnet50(weights=None)
        self.conv_in = CoordConv(3, 64, 7, 2, bias=False)
        self.conv_fpn1 = CoordConv(2048, 1024, 3, 1, bias=True)
        self.conv_fpn2 = CoordConv(1024, 512, 3, 1, bias=True)
        self.conv_fpn3 = CoordConv(512, 256, 3, 1, bias=True)
        self.conv_fpn4 = CoordConv(256, 64, 3, 1, bias=True)
        self.conv_pred_1 = CoordConv(64, 64, 3, 1, bias=True)
        self.conv_pred_2 = CoordConv(64, 1, 3, 1, bias=True)

    def forward(self, rgb: Tensor) -> Tensor:
        net = self.resnet
        stem = F.relu(net.bn1(self.conv_in(rgb)))
        at4 = net.layer1(net.maxpool(stem))
        at8 = net.layer2(at4)
        at16 = net.layer3(at8)
        at32 = net.layer4(at16)
        x = _twice(F.relu(self.conv_fpn1(at32))) + at16
        x = _twice(F.relu(self.conv_fpn2(x))) + at8
        x = _twice(F.relu(self.conv_fpn3(x))) + at4
        x = _twice(F.relu(self.conv_fpn4(x)))
        x = _twice(F.relu(self.conv_pred_1(x)))
        return torch.sigmoid(self.conv_pred_2(x))


def _twice(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def load_skyar(path: Path) -> CoordResNet50:
    """The network with the weights of SkyAR's `best_ckpt.pt`, or of a bare state dict.

    Nothing in the file is executed: it must hold tensors and plain numbers only.
    """
    try:
        with torch.serialization.safe_globals(_number_types()):
            data = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as err:
        raise InputError(f"{path}: no such file; wanted SkyAR's best_ckpt.pt") from err
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as err:
        reason = str(err).splitlines()[0] if str(err) else type(err).__name__
        raise InputError(f"{path}: not a checkpoint of tensors ({reason})") from err
    state = data.get("model_G_state_dict", data) if isinstance(data, dict) else None
    if not isinstance(state, dict) or "conv_fpn1.conv.weight" not in state:
        raise InputError(f"{path}: holds no coord_resnet50; wanted SkyAR's best_ckpt.pt")
    network = CoordResNet50()
    try:
        network.load_state_dict(state)
    except RuntimeError as err:
        raise InputError(f"{path}: its weights do not fit coord_resnet50: {err}") from err
    return network.eval().requires_grad_(False)


def _number_types() -> list:
    """NumPy's scalar types, which training scripts leave beside the tensors (best accuracy)."""
    import numpy as np

    scalar = np.array(0.0)[()].__reduce__()[0]
    return [scalar, np.dtype, *{type(np.dtype(t)) for t in ("f4", "f8", "i4", "i8")}]
