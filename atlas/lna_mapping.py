"""A neural atlas as a LayerMapping: networks asked pixel by pixel, or on a coarser lattice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import Module

from atlas.adaptive import evaluate_adaptively
from atlas.coords import Size, pixel_grid, pixel_to_unit, resize_positions, unit_to_pixel
from atlas.fields import ALPHA_FLOOR, ALPHA_SPAN, WHOLE_UV, Domain, LayerFields, UvWindow
from atlas.lna_checkpoint import Checkpoint, load_checkpoint, load_textures
from atlas.mapping import FrameMapping, Layer, LayerMapping, resample, visible_shares
from atlas.run import OpenedMapping, RunInfo
from atlas.splat import splat_adjoint
from atlas.texture import Texture

SEEN_SHARE = 0.1
"""A pixel that shows less of a layer than this does not stretch the layer's canvas."""
CHUNK = 1 << 12
"""Positions evaluated at once on a CPU: what lies between two layers of a network stays in its
cache. Bounds memory and time, not the result."""
CHUNK_ON_GPU = 1 << 17
UNSEEN_STEP = 8
"""Texels that no frame shows are asked this far apart and interpolated."""


class LnaMapping(LayerMapping):
    """Fitted coordinate networks behind the interface that edits use.

    Args:
        fields: the networks, on the device on which they shall run.
        layers: names and canvases, top to bottom; canvases are square.
        frame_size, frame_count: of the clip.
        windows: the part of each layer's uv that its canvas shows; None = all of it.
        domain: where the clip lies in unit space; None = this project's convention.
        lattice_px: 1 asks the networks at every pixel; N > 1 at every N-th along each side and
            interpolates, which is N^2 times faster and softens opacity's edge.
        tolerance: 0 asks the networks at every pixel (of the lattice); else pixels are
            interpolated where that is off by no more than this many texels, and this over ten in
            opacity (`atlas.adaptive`).
    """

    def __init__(
        self,
        fields: LayerFields,
        layers: tuple[Layer, ...],
        frame_size: Size,
        frame_count: int,
        *,
        windows: tuple[UvWindow, ...] | None = None,
        domain: Domain | None = None,
        lattice_px: int = 1,
        tolerance: float = 0.0,
    ):
        if len(layers) != fields.layer_count:
            raise ValueError(f"layers must be {fields.layer_count}, got {len(layers)}")
        if lattice_px < 1:
            raise ValueError(f"lattice_px must be >= 1, got {lattice_px}")
        self.fields = fields
        self.layers = layers
        self.frame_size = frame_size
        self.frame_count = frame_count
        self.windows = windows or (WHOLE_UV,) * len(layers)
        self.domain = domain or Domain(frame_size, frame_count)
        self.lattice_px = lattice_px
        self.tolerance = tolerance

    @property
    def device(self) -> torch.device:
        return self.fields.tiles.device

    @property
    def chunk(self) -> int:
        """Positions to evaluate at once on this device."""
        return CHUNK if self.device.type == "cpu" else CHUNK_ON_GPU

    def frame(self, t: int, size: Size | None = None) -> FrameMapping:
        size = size or self.frame_size
        if self.lattice_px > 1:
            lattice = _ceil_divide(self.frame_size, self.lattice_px)
            return resample(self._evaluate(t, lattice), size)
        return self._evaluate(t, size)

    def unit_uv(self, t: int, xy_px: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """uv (L, H, W, 2), [-1, 1], and alpha (L, H, W) at (H, W, 2) pixels of frame `t`."""
        uv_parts, alpha_parts = [], []
        with torch.no_grad():
            for at in self._unit_positions(t, xy_px).split(self.chunk):
                uv, alpha = self.fields.motion(at)
                uv_parts.append(uv.cpu())
                alpha_parts.append(alpha[..., 0].cpu())
        shape = (len(self.layers), *xy_px.shape[:2])
        uv, alpha = torch.cat(uv_parts, 1), torch.cat(alpha_parts, 1)
        return uv.view(*shape, 2).numpy(), alpha.view(shape).numpy()

    def _evaluate(self, t: int, view: Size) -> FrameMapping:
        """The networks' answer at the pixel centres of a `view` picture of frame `t`."""
        if self.tolerance > 0:
            return self._interpolated(t, view)
        uv, alpha = self.unit_uv(t, pixel_grid(self.frame_size, view))
        texels = [self._texels(i, torch.from_numpy(one)).numpy() for i, one in enumerate(uv)]
        return FrameMapping(np.stack(texels), alpha, np.ones(len(self.layers), np.float32))

    def _interpolated(self, t: int, view: Size) -> FrameMapping:
        """As `_evaluate`; every network on its own, asked where interpolation would not do."""
        alpha = np.ones((len(self.layers), view.height, view.width), np.float32)
        for i, network in enumerate(self.fields.opacity):

            def opacity(at: Tensor, network: Module = network) -> Tensor:
                return ALPHA_FLOOR + ALPHA_SPAN * 0.5 * (network(at) + 1)

            ask = self._asker(t, view, opacity)
            alpha[i] = evaluate_adaptively(ask, view, self.tolerance / 10)[..., 0].clip(0, 1)
        uv = [
            evaluate_adaptively(
                self._asker(t, view, lambda at, i=i: self._texels(i, self.fields.uv(i, at))),
                view,
                self.tolerance,
            )
            for i in range(len(self.layers))
        ]
        return FrameMapping(np.stack(uv), alpha, np.ones(len(self.layers), np.float32))

    def _asker(
        self, t: int, view: Size, network: Callable[[Tensor], Tensor]
    ) -> Callable[[np.ndarray], np.ndarray]:
        """(N, 2) pixels of a `view` picture of frame `t` -> (N, C) what a network says there."""

        def ask(xy: np.ndarray) -> np.ndarray:
            at = self._unit_positions(t, resize_positions(xy, view, self.frame_size))
            with torch.no_grad():
                return torch.cat([network(part).cpu() for part in at.split(self.chunk)]).numpy()

        return ask

    def reconstruct(self, t: int, size: Size | None = None) -> np.ndarray:
        """Frame `t` straight from the networks: (H, W, 3) float32, [0, 1]."""
        view = size or self.frame_size
        positions = self._unit_positions(t, pixel_grid(self.frame_size, view))
        with torch.no_grad():
            parts = [self.fields(at).composite().cpu() for at in positions.split(self.chunk)]
        return torch.cat(parts).view(view.height, view.width, 3).clamp(0, 1).numpy()

    def render_texture(self, layer: int, canvas: Size | None = None) -> Texture:
        """One layer's atlas; coverage says how much of each texel some frame shows."""
        return self.render_textures(canvas)[layer]

    def render_textures(self, canvas: Size | None = None) -> list[Texture]:
        """Every layer's atlas on its canvas, or on one of another size that shows the same."""
        textures = []
        for layer, coverage in enumerate(self._coverages()):
            whole = self.layers[layer].canvas
            view = canvas or whole
            seen = cv2.resize(coverage, view.wh, interpolation=cv2.INTER_LINEAR)
            rough = _ceil_divide(view, UNSEEN_STEP)
            colors = self._colors(layer, pixel_grid(whole, rough).reshape(-1, 2))
            rgb = cv2.resize(colors.reshape(rough.height, rough.width, 3), view.wh)
            near = cv2.dilate((seen > 0).astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
            rgb[near] = self._colors(layer, pixel_grid(whole, view)[near])
            textures.append(Texture(rgb, seen))
        return textures

    def _colors(self, layer: int, texels: np.ndarray) -> np.ndarray:
        """(N, 3) float32, [0, 1]: one layer's atlas at (N, 2) texels."""
        at = self._from_texels(layer, torch.from_numpy(texels).to(self.device))
        with torch.no_grad():
            parts = [self.fields.color(layer, one).cpu() for one in at.split(self.chunk)]
        return torch.cat(parts).clamp(0, 1).numpy()

    def _coverages(self) -> list[np.ndarray]:
        """Per layer (h, w) float32, [0, 1]: how much of its canvas some frame shows, coarsely.

        Visible shares of quarter-size frames are splatted on canvases on which neighbouring
        pixels fall on neighbouring texels, so that a fine canvas gets no holes.
        """
        view = _ceil_divide(self.frame_size, 4)
        middle = self._evaluate(self.frame_count // 2, view)
        coarse = [
            _divide(layer.canvas, max(_spread(uv), 1.0))
            for layer, uv in zip(self.layers, middle.uv, strict=True)
        ]
        totals = [torch.zeros(size.height, size.width) for size in coarse]
        for t in range(self.frame_count):
            mapping = self._evaluate(t, view)
            for i, share in enumerate(mapping.visible()):
                at = resize_positions(mapping.uv[i], self.layers[i].canvas, coarse[i])
                values = torch.from_numpy(share)[None]
                totals[i] += splat_adjoint(values, torch.from_numpy(at), coarse[i])[0]
        return [np.clip(total.numpy() / 0.5, 0, 1) for total in totals]

    def _unit_positions(self, t: int, xy_px: np.ndarray) -> Tensor:
        """(H W, 3) unit positions x, y, t of (H, W, 2) pixels of frame `t`."""
        if not 0 <= t < self.frame_count:
            raise ValueError(f"t must be in 0..{self.frame_count - 1}, got {t}")
        xy = torch.from_numpy(xy_px).view(-1, 2).to(self.device)
        return self.domain.to_unit(torch.cat([xy, torch.full_like(xy[:, :1], t)], dim=-1))

    def _texels(self, layer: int, uv: Tensor) -> Tensor:
        return unit_to_pixel(self.windows[layer].to_window(uv), self.layers[layer].canvas)

    def _from_texels(self, layer: int, texels: Tensor) -> Tensor:
        position = pixel_to_unit(texels, self.layers[layer].canvas)
        return self.windows[layer].from_window(position)


def open_mapping(folder: Path, info: RunInfo) -> OpenedMapping:
    """The mapping and textures of a run folder of the recipe `lna`, on the CPU."""
    checkpoint = load_checkpoint(folder / "checkpoint.safetensors", torch.device("cpu"))
    mapping = mapping_of(checkpoint)
    textures = load_textures(folder / "textures.safetensors", checkpoint.info.iteration)
    if textures is None:  # the fit was stopped between a checkpoint and a look at the atlases
        textures = mapping.render_textures()
    return OpenedMapping(mapping, textures)


def mapping_of(checkpoint: Checkpoint) -> LnaMapping:
    """A checkpoint's fields behind the interface that edits use."""
    info = checkpoint.info
    side = info.config.canvas_texels
    return LnaMapping(
        checkpoint.fields,
        tuple(Layer(name, Size(side, side)) for name in info.layer_names),
        info.size,
        info.frame_count,
        windows=info.windows,
        domain=info.domain,
    )


def used_windows(mapping: LnaMapping, steps: int = 40) -> tuple[UvWindow, ...]:
    """The square of uv that each layer uses, and a small margin; a layer never seen keeps all.

    Every frame is looked at on a lattice of at most `steps` x `steps` pixels, borders included.
    """
    size = mapping.frame_size
    x, y = (np.linspace(0, n - 1, min(n, steps), dtype=np.float32) for n in size.wh)
    lattice = np.stack(np.meshgrid(x, y), axis=-1)
    lows = np.full((len(mapping.layers), 2), np.inf)
    highs = -lows
    for t in range(mapping.frame_count):
        uv, alpha = mapping.unit_uv(t, lattice)
        for i, share in enumerate(visible_shares(alpha)):
            used = uv[i][share >= SEEN_SHARE]
            if len(used):
                lows[i] = np.minimum(lows[i], used.min(0))
                highs[i] = np.maximum(highs[i], used.max(0))
    return tuple(_square(low, high) for low, high in zip(lows, highs, strict=True))


def _square(low: np.ndarray, high: np.ndarray) -> UvWindow:
    if not np.isfinite(low).all():
        return WHOLE_UV
    center = (low + high) / 2
    half = max(float((high - low).max()) / 2 * 1.05, 1e-3)  # 1.05: what the lattice steps over
    return UvWindow(float(center[0]), float(center[1]), half)


def _spread(uv: np.ndarray) -> float:
    """Texels from one pixel to the next, the median over an (H, W, 2) picture."""
    steps = [np.linalg.norm(np.diff(uv, axis=axis), axis=-1).ravel() for axis in (0, 1)]
    both = np.concatenate(steps)
    return float(np.median(both)) if len(both) else 1.0


def _divide(size: Size, by: float) -> Size:
    return Size(max(round(size.height / by), 1), max(round(size.width / by), 1))


def _ceil_divide(size: Size, by: int) -> Size:
    return Size(-(-size.height // by), -(-size.width // by))
