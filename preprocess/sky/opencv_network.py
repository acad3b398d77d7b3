"""The matting network run by OpenCV: no torch, which alone takes two seconds to start.

The same weights file, the same answers up to rounding as `preprocess.sky.network.folded`.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from safetensors import SafetensorError, safe_open

from atlas.coords import Size
from atlas.errors import InputError
from preprocess.sky.network_config import Block, NetworkConfig
from preprocess.sky.onnx_file import OnnxGraph

_NORM_EPS = 1e-5


class OpenCvNetwork:
    """Opacity of the sky in small frames of one size."""

    def __init__(self, weights: Path, size: Size):
        """`size`: of the frames; both sides are multiples of 32, at least 64.

        OpenCV 5 answers wrongly where the coarsest stage is one pixel high or wide.
        """
        if size.height % 32 or size.width % 32 or min(size.height, size.width) < 64:
            raise ValueError(f"height and width must be multiples of 32 from 64 on, got {size}")
        self.size = size
        model = sky_network_onnx(weights, size)
        self._network = cv2.dnn.readNetFromONNX(np.frombuffer(model, np.uint8))
        rows = np.linspace(-1, 1, size.height, dtype=np.float32)[:, None]
        self._input = np.empty((1, 4, size.height, size.width), np.float32)
        self._input[0, 3] = rows

    def opacity(self, rgb: np.ndarray) -> np.ndarray:
        """(h, w) float32 in [0, 1], 1 = sky, of (h, w, 3) uint8 RGB."""
        return 1 / (1 + cv2.exp(-self.logits(rgb)))

    def logits(self, rgb: np.ndarray) -> np.ndarray:
        """(h, w) float32: the logit of the opacity."""
        for channel in range(3):  # as `preprocess.sky.network.with_height_channel`
            plane = cv2.extractChannel(rgb, channel)
            self._input[0, channel] = cv2.addWeighted(
                plane, 2 / 255, plane, 0, -1, dtype=cv2.CV_32F
            )
        self._network.setInput(self._input)
        logits = np.ascontiguousarray(self._network.forward()[0, 0])
        return cv2.resize(logits, self.size.wh, interpolation=cv2.INTER_LINEAR)


def sky_network_onnx(weights: Path, size: Size) -> bytes:
    """The network as an ONNX file for frames of one size: (1, 4, H, W) to (1, 1, H / 2, W / 2)."""
    tensors, config = _read(weights)
    builder = _Builder(tensors)
    graph, skips = builder.graph, []
    value = builder.relu6(builder.norm_conv("rgb", "stem", halving=True))
    for index, block in enumerate(config.blocks()):
        value = builder.inverted_residual(value, f"blocks.{index}", block)
        if index in config.taps():
            skips.append(value)
    pooled = graph.add("GlobalAveragePool", [value])
    context = builder.relu(builder.conv(pooled, "context.0"))
    pooled = builder.conv(context, "context_gain")
    channels = len(tensors["context_gain.bias"])
    shape = np.array([1, channels, size.height // 32, size.width // 32], np.int64)
    # OpenCV 5 would otherwise fuse this sum into the convolution, which cannot repeat its result
    pooled = graph.add("Expand", [pooled, graph.constant(shape)])
    value = builder.relu(graph.add("Add", [pooled, value]))
    for merge in range(len(skips) - 1):
        value = builder.merged(value, skips[-2 - merge], f"merges.{merge}")
    answer = builder.conv(value, "head")
    half = [1, 1, size.height // 2, size.width // 2]
    # min(p, 0) = -relu(-p), the sign taken into the layer's weights
    absence = builder.relu(builder.conv(context, "presence", sign=-1))
    absence = graph.add("Expand", [absence, graph.constant(np.array(half, np.int64))])
    answer = graph.add("Sub", [answer, absence])
    return graph.model(("rgb", [1, 4, size.height, size.width]), (answer, half))


def _read(weights: Path) -> tuple[dict[str, np.ndarray], NetworkConfig]:
    try:
        with safe_open(weights, framework="numpy") as file:
            metadata = file.metadata() or {}
            names = file.keys()
            tensors = {name: file.get_tensor(name).astype(np.float32) for name in names}
    except FileNotFoundError as err:
        raise InputError(f"{weights}: no such file; wanted the sky network's weights") from err
    except SafetensorError as err:
        raise InputError(f"{weights}: not a readable safetensors file ({err})") from err
    return tensors, NetworkConfig.from_metadata(metadata, weights)


class _Builder:
    """Layers by their names in the weights file."""

    def __init__(self, tensors: dict[str, np.ndarray]):
        self.graph = OnnxGraph()
        self._tensors = tensors

    def relu(self, value: str) -> str:
        return self.graph.add("Relu", [value])

    def conv(self, value: str, name: str, sign: int = 1) -> str:
        """A convolution, or a linear layer as one of 1x1, with its bias; `sign` times that."""
        weight, bias = self._tensors[f"{name}.weight"], self._tensors[f"{name}.bias"]
        weight = weight[..., None, None] if weight.ndim == 2 else weight
        return self.graph.convolution(value, sign * weight, sign * bias)

    def relu6(self, value: str) -> str:
        limits = [self.graph.constant(np.array(limit, np.float32)) for limit in (0, 6)]
        return self.graph.add("Clip", [value, *limits])

    def norm_conv(self, value: str, name: str, *, halving: bool = False) -> str:
        """A convolution with the batch normalisation after it folded in.

        halving: a `preprocess.sky.network.HalvingConv`.
        """
        norm = {
            key: self._tensors[f"{name}.1.{key}"]
            for key in ("weight", "bias", "running_mean", "running_var")
        }
        gain = norm["weight"] / np.sqrt(norm["running_var"] + _NORM_EPS)
        weight = self._tensors[f"{name}.0.weight"] * gain[:, None, None, None]
        bias = norm["bias"] - norm["running_mean"] * gain
        groups = len(weight) if weight.shape[1] == 1 else 1
        if not halving:
            return self.graph.convolution(value, weight, bias, groups=groups)
        return self.graph.convolution(value, weight, bias, 2, groups=groups, pads=(0, 0, 1, 1))

    def inverted_residual(self, value: str, name: str, block: Block) -> str:
        """`preprocess.sky.network.InvertedResidual`."""
        inner = value
        if block.expansion > 1:
            inner = self.relu6(self.norm_conv(value, f"{name}.expand"))
        halving = block.stride == 2
        inner = self.relu6(self.norm_conv(inner, f"{name}.depthwise", halving=halving))
        narrow = self.norm_conv(inner, f"{name}.project")
        return self.graph.add("Add", [value, narrow]) if block.added else narrow

    def merged(self, coarse: str, skip: str, name: str) -> str:
        """`preprocess.sky.network.Merge`."""
        up = self.norm_conv(coarse, f"{name}.coarse")
        twice = self.graph.constant(np.array([1, 1, 2, 2], np.float32))
        up = self.graph.add(
            "Resize",
            [up, "", twice],
            mode="linear",
            coordinate_transformation_mode="half_pixel",
        )
        total = self.relu(self.graph.add("Add", [up, self.norm_conv(skip, f"{name}.skip")]))
        return self.relu(self.norm_conv(total, f"{name}.mix"))
