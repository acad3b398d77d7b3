"""Settle the edges of a matte at full size with the edge network, run by OpenCV.

The frame is worked through in tiles, those only in which the small matte is in doubt; tiles overlap
and fade into each other. Far from any doubt the first matte stays.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from atlas.errors import InputError
from atlas.guided import guided_upsample
from preprocess.sky.edge_inputs import CHANNELS, channels, small_planes
from preprocess.sky.onnx_file import OnnxGraph

EDGE_WEIGHTS = Path(__file__).with_name("edge_weights.safetensors")


@dataclass(frozen=True, kw_only=True)
class EdgeOptions:
    """Where the edge network is asked."""

    sure_ground: float = -5.0
    """Logit of the small matte below which ground stays ground."""
    sure_sky: float = 5.0
    """Logit above which sky stays sky."""
    reach: float = 0.012
    """How far beyond the doubtful region it is asked still, in longer sides of the frame."""
    margin: float = 0.03
    """Opacities within this of 0 and 1 become 0 and 1; [0, 0.5)."""
    most_px: int = 1280
    """Longer side at which it looks; larger frames are reduced, and the result is brought back by a
    guided filter of 5 reduced pixels."""

    def __post_init__(self) -> None:
        if not self.sure_ground < self.sure_sky:
            raise ValueError(f"sure_ground {self.sure_ground} must be below {self.sure_sky}")
        if not 0 <= self.margin < 0.5:
            raise ValueError(f"margin must be in [0, 0.5), got {self.margin}")


TILE_PX = 160
_BRIGHTER = (0.02, 0.08)
"""Mean of the three colours above the open sky's; colours in [0, 1]."""
_CLOUDED = (0.05, 0.1)
"""Scatter of the open sky's colour, RGB distance."""
_RATHER_SURE = (0.5, 2.0)
"""Logits of the small matte."""
_MEAN = np.full((1, 3), 1 / 3, np.float32)
_OVERLAP_PX = 32
_UPSAMPLE_EPS = 1e-4


class EdgeMatter:
    """Opacity at full size from a frame, its small picture and small matte; for several threads."""

    def __init__(self, weights: Path = EDGE_WEIGHTS, options: EdgeOptions | None = None) -> None:
        self.options = options or EdgeOptions()
        self._model = np.frombuffer(edge_network_onnx(weights), np.uint8)
        self._networks = threading.local()
        ramp = (np.arange(TILE_PX, dtype=np.float32) + 1) / _OVERLAP_PX
        ramp = np.minimum(1, np.minimum(ramp, ramp[::-1]))
        self._fade = ramp[:, None] * ramp

    def __call__(
        self, rgb: np.ndarray, small: np.ndarray, coarse: np.ndarray, first: np.ndarray
    ) -> np.ndarray:
        """Settle `first` where the small matte is in doubt.

        Args:
            rgb: (H, W, 3) uint8. small: (h, w, 3) uint8, the frame made small.
            coarse: (h, w) float32, its matte. first: (H, W) float32, that brought to full size.
        Returns:
            (H, W) float32 in [0, 1]; `first` itself where no open sky is seen.
        """
        planes = small_planes(small, coarse)
        if planes is None:
            return first
        scale = self.options.most_px / max(first.shape)
        if scale >= 1:
            return self._settled(rgb, planes, first)
        wh = (max(1, round(first.shape[1] * scale)), max(1, round(first.shape[0] * scale)))
        reduced = cv2.resize(rgb, wh, interpolation=cv2.INTER_AREA)
        start = cv2.resize(first, wh, interpolation=cv2.INTER_AREA)
        change = self._settled(reduced, planes, start)
        fine = np.clip(guided_upsample(rgb, reduced, change, 2, _UPSAMPLE_EPS), 0, 1)
        same = (np.abs(change - start) < 1e-3).astype(np.uint8)
        same = cv2.resize(same, first.shape[::-1], interpolation=cv2.INTER_NEAREST)
        return np.where(same > 0, first, fine).astype(np.float32)

    def _settled(self, rgb: np.ndarray, planes: np.ndarray, first: np.ndarray) -> np.ndarray:
        height, width = first.shape
        trust = self._trust(planes[..., 4], first.shape)
        pad_y, pad_x = max(0, TILE_PX - height), max(0, TILE_PX - width)
        large = cv2.resize(planes, (width, height), interpolation=cv2.INTER_LINEAR)
        values = channels(rgb.astype(np.float32) * np.float32(1 / 255), large, first)
        if pad_y or pad_x:
            values = np.pad(values, ((0, 0), (0, pad_y), (0, pad_x)), "edge")
            trust = np.pad(trust, ((0, pad_y), (0, pad_x)))
        total = np.full(trust.shape, 1e-6, np.float32)
        found = np.zeros(trust.shape, np.float32)
        for top in tile_starts(trust.shape[0]):
            for left in tile_starts(trust.shape[1]):
                part = np.s_[top : top + TILE_PX, left : left + TILE_PX]
                if not trust[part].any():
                    continue
                logits = self.logits(values[:, part[0], part[1]])
                found[part] += self._fade / (1 + np.exp(-logits))
                total[part] += self._fade
        edge = (found / total)[:height, :width]
        margin = self.options.margin
        edge = np.clip((edge - margin) / (1 - 2 * margin), 0, 1)
        edge += sky_kept(rgb, large) * np.maximum(first - edge, 0)
        return first + trust[:height, :width] * (edge - first)

    def logits(self, tile: np.ndarray) -> np.ndarray:
        """(`TILE_PX`, `TILE_PX`) float32, of the input (9, `TILE_PX`, `TILE_PX`) float32."""
        network = getattr(self._networks, "own", None)
        if network is None:  # OpenCV's networks hold their input: one for each thread
            network = self._networks.own = cv2.dnn.readNetFromONNX(self._model)
        network.setInput(np.ascontiguousarray(tile[None]))
        return network.forward()[0, 0]

    def _trust(self, logit: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
        """(H, W) float32: 1 where the small logits (h, w) are in doubt, 0 away from there."""
        options = self.options
        doubt = ((logit > options.sure_ground) & (logit < options.sure_sky)).astype(np.uint8)
        radius = max(1, round(options.reach * max(logit.shape)))
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1,) * 2)
        near = cv2.dilate(doubt, kernel).astype(np.float32)
        soft = cv2.resize(cv2.blur(near, (3, 3)), shape[::-1], interpolation=cv2.INTER_LINEAR)
        return soft


def sky_kept(rgb: np.ndarray, planes: np.ndarray) -> np.ndarray:
    """(H, W) float32, [0, 1]: where the small matte's sky is not taken back by the edge network.

    That is where the small matte is rather sure of sky and the pixel outshines the open sky (the
    sun, a cloud), or where the open sky itself scatters, among clouds: a gap between two of them is
    no thing before the sky.

    Args:
        rgb: (H, W, 3) uint8. planes: (H, W, 5) float32, of `edge_inputs.small_planes`.
    """
    over = cv2.transform(rgb.astype(np.float32) * np.float32(1 / 255) - planes[..., :3], _MEAN)
    brighter = _ramp(over, _BRIGHTER)
    clouded = _ramp(planes[..., 3], _CLOUDED)
    return np.maximum(brighter, clouded) * _ramp(planes[..., 4], _RATHER_SURE)


def _ramp(values: np.ndarray, between: tuple[float, float]) -> np.ndarray:
    low, high = between
    return np.clip((values - low) / (high - low), 0, 1)


def tile_starts(length: int) -> list[int]:
    """Where tiles begin along a side of at least `TILE_PX`, the last flush with its end."""
    steps = max(0, -(-(length - TILE_PX) // (TILE_PX - _OVERLAP_PX)))
    return [round(i * (length - TILE_PX) / steps) for i in range(steps)] + [length - TILE_PX]


def edge_network_onnx(weights: Path, side_px: int = TILE_PX) -> bytes:
    """`preprocess.sky.edge_network.EdgeNetwork` as an ONNX file for square tiles."""
    try:
        tensors = {k: v.astype(np.float32) for k, v in load_file(weights).items()}
    except FileNotFoundError as err:
        raise InputError(f"{weights}: no such file; wanted the edge network's weights") from err
    except SafetensorError as err:
        raise InputError(f"{weights}: not a readable safetensors file ({err})") from err
    graph = OnnxGraph()

    def conv(value: str, name: str, stride: int = 1) -> str:
        weight, bias = tensors[f"{name}.weight"], tensors[f"{name}.bias"]
        return graph.convolution(value, weight, bias, stride)

    def added(value: str, other: str) -> str:
        return graph.add("Relu", [graph.add("Add", [value, other])])

    value, levels = "values", []
    depth = sum(name.startswith("down.") and name.endswith(".weight") for name in tensors)
    for level in range(depth):
        value = graph.add("Relu", [conv(value, f"down.{level}", 2 if level else 1)])
        if level:
            value = added(value, conv(value, f"inner.{level - 1}"))
        levels.append(value)
    twice = graph.constant(np.array([1, 1, 2, 2], np.float32))
    for level in reversed(range(depth - 1)):
        up = conv(value, f"up.{level}")
        up = graph.add(
            "Resize",
            [up, "", twice],
            mode="linear",
            coordinate_transformation_mode="half_pixel",
        )
        value = added(up, levels[level])
        value = added(value, conv(value, f"mix.{level}"))
    # the small matte's logit, the last channel, is added by a convolution of one weight
    pick = np.zeros((1, CHANNELS, 1, 1), np.float32)
    pick[0, -1] = 1
    logit = graph.convolution("values", pick, np.zeros(1, np.float32))
    answer = graph.add("Add", [conv(value, "head"), logit])
    shape = [1, CHANNELS, side_px, side_px]
    return graph.model(("values", shape), (answer, [1, 1, side_px, side_px]))
