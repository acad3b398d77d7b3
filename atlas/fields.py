"""Coordinate networks: mapping xyt -> uv, opacity xyt -> alpha, atlas uv -> RGB, per layer.

Kasten, Ofri, Wang, Dekel, "Layered Neural Atlases for Consistent Video Editing", SIGGRAPH Asia
2021, section 3, for two or more layers. With two layers and the published sizes the networks hold
1,217,152 parameters in the shapes of the authors' program.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from atlas.config import MlpConfig, NetworksConfig
from atlas.coords import Size, frame_to_unit, pixel_to_unit, unit_to_pixel

ALPHA_FLOOR = 0.001
ALPHA_SPAN = 0.99
"""Opacity is ALPHA_FLOOR + ALPHA_SPAN (tanh + 1) / 2, so that its logarithms stay finite."""


def positional_encoding(coordinates: Tensor, frequencies: int) -> Tensor:
    """sin and cos of 2^k pi times each coordinate, k = 0 .. frequencies - 1 (NeRF, eq. 4).

    Convention: the octave varies slowest; within one, the sines of all coordinates come first,
    then the cosines (the order of the authors' weights).

    Args:
        coordinates: (N, C) float.
        frequencies: octaves, >= 0; 0 returns the coordinates.
    Returns:
        (N, 2 C frequencies) float, [-1, 1].
    """
    if frequencies == 0:
        return coordinates
    octaves = math.pi * 2.0 ** torch.arange(
        frequencies, device=coordinates.device, dtype=coordinates.dtype
    )
    angles = coordinates[:, None, :] * octaves[:, None]  # (N, K, C)
    return torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(1)


class CoordinateMLP(nn.Module):
    """Encoding, `depth` linear layers with ReLU between, tanh at the end.

    Args:
        inputs: C, number of coordinates. outputs: number of channels.
        config: depth, width, octaves and skips.
        skip_gradient: whether gradients reach the coordinates through skips.
    """

    def __init__(self, inputs: int, outputs: int, config: MlpConfig, *, skip_gradient: bool = True):
        super().__init__()
        self.config = config
        self.skip_gradient = skip_gradient
        encoded = 2 * inputs * config.frequencies if config.frequencies else inputs
        self.hidden = nn.ModuleList()
        for i in range(config.depth):
            into = encoded if i == 0 else config.width + (encoded if i in config.skips else 0)
            out = outputs if i == config.depth - 1 else config.width
            self.hidden.append(nn.Linear(into, out))

    def forward(self, coordinates: Tensor) -> Tensor:
        """(N, inputs) float -> (N, outputs) float in (-1, 1)."""
        encoded = positional_encoding(coordinates, self.config.frequencies)
        again = encoded if self.skip_gradient else encoded.detach()
        x = encoded
        for i, layer in enumerate(self.hidden):
            if i > 0:
                x = torch.relu(x)
            if i in self.config.skips:
                x = torch.cat([x, again], dim=-1)
            x = layer(x)
        return torch.tanh(x)


@dataclass(frozen=True)
class LayerSamples:
    """What the fields say at N positions; layers top to bottom.

    uv: (L, N, 2) float, [-1, 1], each layer's own atlas square.
    alpha: (L, N, 1) float, opacity of the layer itself, (0, 1); the bottom layer is 1.
    rgb: (L, N, 3) float, [0, 1], each layer's colour there.
    """

    uv: Tensor
    alpha: Tensor
    rgb: Tensor

    def shares(self) -> Tensor:
        """(L, N, 1): the part of the pixel that shows each layer; see `layer_shares`."""
        return layer_shares(self.alpha)

    def composite(self) -> Tensor:
        """(N, 3) float: the layers seen through each other, top over bottom."""
        return (self.shares() * self.rgb).sum(0)


def layer_shares(alpha: Tensor) -> Tensor:
    """alpha_l times the product of (1 - alpha) of the layers above; sums to 1 over the layers.

    Differentiable twin of `atlas.mapping.visible_shares` on samples.

    Args:
        alpha: (L, N, 1) float, top to bottom, the last one 1.
    Returns:
        (L, N, 1) float.
    """
    through = torch.cumprod(1 - alpha[:-1], dim=0)
    through = torch.cat([torch.ones_like(alpha[:1]), through])
    return alpha * through


def atlas_tiles(layer_count: int) -> tuple[list[tuple[float, float]], float]:
    """Where each layer's uv square lies in the one square on which the atlas network works.

    The square [-1, 1]^2 is cut into n x n tiles, n^2 >= layer_count; the bottom layer takes the
    tile at (-, -), the top layer the one at (+, +): for two layers, uv/2 + 1/2 and uv/2 - 1/2.

    Returns:
        centres (L pairs, top to bottom) and the scale: atlas position = uv * scale + centre.
    """
    if layer_count < 1:
        raise ValueError(f"layer_count must be >= 1, got {layer_count}")
    n = 1 if layer_count == 1 else max(2, math.ceil(math.sqrt(layer_count)))
    along = [(2 * i + 1) / n - 1 for i in range(n)]
    free = [(u, v) for u in along for v in along]
    bottom, top, between = free[0], free[-1], free[1:-1]
    if layer_count == 1:
        return [bottom], 1.0
    return [top, *between[: layer_count - 2], bottom], 1 / n


class LayerFields(nn.Module):
    """All networks of a clip: L mappings, L - 1 opacities, one atlas shared by the layers."""

    tiles: Tensor

    def __init__(self, layer_count: int, config: NetworksConfig):
        super().__init__()
        self.layer_count = layer_count
        mappings = [config.mapping] * (layer_count - 1) + [config.bottom_mapping]
        through = config.skip_gradient
        self.mapping = nn.ModuleList(
            CoordinateMLP(3, 2, one, skip_gradient=through) for one in mappings
        )
        self.opacity = nn.ModuleList(
            CoordinateMLP(3, 1, config.opacity, skip_gradient=through)
            for _ in range(layer_count - 1)
        )
        self.atlas = CoordinateMLP(2, 3, config.atlas, skip_gradient=through)
        centres, self.tile_scale = atlas_tiles(layer_count)
        self.register_buffer("tiles", torch.tensor(centres), persistent=False)

    def uv(self, layer: int, xyt: Tensor) -> Tensor:
        """(N, 2) uv of one layer, [-1, 1], at (N, 3) unit positions in order x, y, t."""
        return self.mapping[layer](xyt)

    def alpha(self, xyt: Tensor) -> Tensor:
        """(L, N, 1) opacity of every layer at (N, 3) unit positions; the bottom layer is 1."""
        upper = [ALPHA_FLOOR + ALPHA_SPAN * 0.5 * (one(xyt) + 1) for one in self.opacity]
        return torch.stack([*upper, torch.ones_like(xyt[:, :1])])

    def color(self, layer: int, uv: Tensor) -> Tensor:
        """(N, 3) colour of one layer's atlas at its own uv (N, 2), [0, 1]."""
        return 0.5 * (self.atlas(uv * self.tile_scale + self.tiles[layer]) + 1)

    def motion(self, xyt: Tensor) -> tuple[Tensor, Tensor]:
        """uv (L, N, 2) and alpha (L, N, 1) of every layer at (N, 3) unit positions."""
        uv = torch.stack([self.uv(layer, xyt) for layer in range(self.layer_count)])
        return uv, self.alpha(xyt)

    def forward(self, xyt: Tensor) -> LayerSamples:
        """Everything at (N, 3) unit positions in order x, y, t."""
        uv, alpha = self.motion(xyt)
        flat = (uv * self.tile_scale + self.tiles[:, None]).flatten(0, 1)
        rgb = 0.5 * (self.atlas(flat) + 1)
        return LayerSamples(uv, alpha, rgb.unflatten(0, uv.shape[:2]))


def parameter_count(module: nn.Module) -> int:
    """Number of trainable values."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


@dataclass(frozen=True)
class Domain:
    """The box of space and time on which a clip's fields are fitted.

    size: frame size whose longer side spans [-1, 1], pixels.
    frame_count: number of frames that span [-1, 1].
    """

    size: Size
    frame_count: int

    @classmethod
    def of_original_program(cls, size: Size, frame_count: int) -> Domain:
        """The authors' program divides by the longer side L and by T, not by L - 1 and T - 1."""
        return cls(Size(size.height + 1, size.width + 1), frame_count + 1)

    def to_unit(self, xyt_px: Tensor) -> Tensor:
        """(N, 3) pixels, pixels and frames -> (N, 3) unit positions."""
        xy = pixel_to_unit(xyt_px[:, :2], self.size)
        t = frame_to_unit(xyt_px[:, 2:], self.frame_count)
        return torch.cat([xy, t], dim=-1)

    def px_per_unit(self) -> float:
        """Frame pixels that one unit of x or y stands for."""
        ends = unit_to_pixel(torch.tensor([[0.0, 0.0], [1.0, 0.0]], dtype=torch.float64), self.size)
        return float(ends[1, 0] - ends[0, 0])


@dataclass(frozen=True)
class UvWindow:
    """The square of a layer's uv that its canvas shows."""

    center_u: float
    center_v: float
    half_edge: float
    """Half the side, uv units, > 0."""

    def to_window(self, uv: Tensor) -> Tensor:
        """(..., 2) uv -> (..., 2), the window spanning [-1, 1]."""
        return (uv - uv.new_tensor([self.center_u, self.center_v])) / self.half_edge

    def from_window(self, position: Tensor) -> Tensor:
        """Inverse of `to_window`."""
        return position * self.half_edge + position.new_tensor([self.center_u, self.center_v])


WHOLE_UV = UvWindow(0.0, 0.0, 1.0)
"""All that a mapping can reach."""
