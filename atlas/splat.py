"""Atlas textures in closed form: frames splatted into layers.

Sampling a texture at given positions is linear in the texture; splatting is its transpose. The
texture that best explains the frames in the least-squares sense is found by a few back-projection
steps (Irani and Peleg 1991), with weights that turn the squares into a robust loss.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from atlas.coords import Size
from atlas.mapping import LayerMapping, visible_shares
from atlas.texture import Gains, Texture, fill_unseen

HELD = 0.6
"""Weight that holds a texel where it is: one of which only mixed pixels tell moves little."""
NEAR_TEXELS = 3
"""Texels this near to one seen pure, never pure themselves, keep to its colours: a layer's rim."""
RIM_MARGIN = 0.04
"""How far beyond those colours they may go; display-encoded, [0, 1]."""
_PURE_WEIGHT = (0.05, 0.5)
"""A texel of less pure weight is never seen pure, one of more is seen so well enough to go by."""


class SplatSum:
    """Weighted sums of frame colours on one layer's canvas, gathered frame by frame.

    Works on the device given; (4, H, W): weight times RGB, and weight.
    """

    def __init__(self, canvas: Size, device: torch.device | str = "cpu"):
        self.canvas = canvas
        self.sums = torch.zeros(4, canvas.height, canvas.width, device=device)

    def add(self, values: Tensor, weight: Tensor, uv: Tensor) -> None:
        """Add one frame.

        Args:
            values: (3, H, W) float, what to splat.
            weight: (H, W) float, >= 0.
            uv: (H, W, 2) float, texel positions; samples off the canvas are dropped.
        """
        low, high = uv.amin((0, 1)), uv.amax((0, 1))
        if not bool(torch.isfinite(low).all() and torch.isfinite(high).all()):
            low, high = torch.zeros(2), torch.tensor(self.canvas.wh)
        left, top = (max(int(v), 0) for v in low.floor().tolist())
        right = min(int(high[0]) + 2, self.canvas.width)
        bottom = min(int(high[1]) + 2, self.canvas.height)
        if left >= right or top >= bottom:
            return
        stacked = torch.cat([values * weight, weight[None]])
        corner = torch.tensor([left, top], dtype=uv.dtype, device=uv.device)
        part = splat_adjoint(stacked, uv - corner, Size(bottom - top, right - left))
        self.sums[:, top:bottom, left:right] += part

    def mean(self) -> tuple[Tensor, Tensor]:
        """(3, H, W) weighted mean, 0 where nothing landed, and (H, W) weight."""
        weight = self.sums[3]
        return self.sums[:3] / weight.clamp_min(1e-6), weight


def splat_adjoint(values: Tensor, uv: Tensor, canvas: Size) -> Tensor:
    """Transpose of bilinear sampling: scatter (C, H, W) values at uv (H, W, 2) onto a canvas.

    Returns (C, canvas.height, canvas.width). For any texture X, <sample(X, uv), values> equals
    <X, splat_adjoint(values, uv)>.
    """
    shape = (1, values.shape[0], canvas.height, canvas.width)
    empty = torch.empty(shape, device=values.device, dtype=values.dtype)
    grad, _ = torch.ops.aten.grid_sampler_2d_backward(
        values[None].contiguous(), empty, _grid(uv, canvas), 0, 0, False, [True, False]
    )
    return grad[0]


def sample_torch(texture: Tensor, uv: Tensor) -> Tensor:
    """Bilinear samples (C, H, W) of a (C, h, w) texture at uv (H, W, 2) texels; 0 outside."""
    canvas = Size(*texture.shape[-2:])
    return F.grid_sample(texture[None], _grid(uv, canvas), align_corners=False)[0]


def _grid(uv: Tensor, canvas: Size) -> Tensor:
    """`grid_sample`'s own coordinates (align_corners=False) of texel positions, (1, H, W, 2)."""
    scale = torch.tensor([2 / canvas.width, 2 / canvas.height], device=uv.device, dtype=uv.dtype)
    return ((uv + 0.5) * scale - 1)[None].contiguous()


@dataclass(frozen=True, kw_only=True)
class SplatOptions:
    """How textures are estimated."""

    sharpen_steps: int = 2
    """Back-projection steps after the first mean; >= 0."""
    robust_sigma: float = 0.3
    """Residual at which a sample's weight has fallen to one half (Geman-McClure), [0, 1] RGB."""
    pure_share: float = 0.9
    """The first mean takes pixels that show at least this much of one layer alone; (0, 1]."""


def splat(
    mapping: LayerMapping,
    frames: Callable[[int], np.ndarray],
    options: SplatOptions | None = None,
    gains: Gains | None = None,
) -> list[Texture]:
    """Estimate every layer's texture from the frames, robustly: one per layer, top to bottom.

    A first mean over pixels that show one layer alone, what they do not reach filled from around;
    then `sharpen_steps` of back-projection of what the composite of all layers leaves over, which
    sharpens, and unmixes pixels that show several layers (twigs, hair, a soft skyline). Each
    sample's weight is its share squared times Geman-McClure's s^2 / (s^2 + r^2) of the residual
    r, so that what covers a layer for a while does not stain it.

    Args:
        frames: t -> (H, W, 3) uint8 RGB at `mapping.frame_size` (other sizes are resized).
        gains: the shading to take out of the frames; None without.
    """
    solver = _TextureSolver(mapping, frames, options or SplatOptions(), gains)
    solver.first_mean()
    for _ in range(solver.options.sharpen_steps):
        solver.back_project()
    return solver.textures()


@dataclass
class _LayerSight:
    """One layer in one frame, cut to the part that shows it: (h, w) share, uv, (3, h, w) gain."""

    cut: tuple[slice, slice]
    share: Tensor
    uv: Tensor
    gain: Tensor | float


@dataclass
class _Sight:
    """One frame: (3, H, W) colours, and its layers; None for one that it does not show."""

    rgb: Tensor
    layers: list[_LayerSight | None]


class _TextureSolver:
    """Least squares over all frames and layers at once, one pass over the clip per step."""

    def __init__(
        self,
        mapping: LayerMapping,
        frames: Callable[[int], np.ndarray],
        options: SplatOptions,
        gains: Gains | None,
    ):
        self.mapping, self.frames, self.options, self.gains = mapping, frames, options, gains
        self.estimate: list[Tensor] = []
        self.seen: list[Tensor] = []
        self.pure: list[Tensor] = []
        self.limits: list[tuple[Tensor, Tensor]] = []

    def first_mean(self) -> None:
        """Means over pixels that show one layer alone; counts what is seen at all."""
        sums = [SplatSum(layer.canvas) for layer in self.mapping.layers]
        self.seen = [torch.zeros_like(total.sums[0]) for total in sums]
        for sight in self._sights():
            for i, (total, seen) in enumerate(zip(sums, sight.layers, strict=True)):
                if seen is None:
                    continue
                share = seen.share
                # a shadow or a reflection is seen where it is as strong as it gets
                least = min(0.5, max(0.5 * float(share.max()), 0.05))
                if not bool((share >= least).any()):
                    continue
                visible = torch.where(share >= least, share**2, 0.0)
                self.seen[i] += splat_adjoint(visible[None], seen.uv, total.canvas)[0]
                # a sample says rgb / gain with variance 1 / gain^2
                pure = torch.where(share >= self.options.pure_share, share**2, 0.0)
                rgb = sight.rgb[:, seen.cut[0], seen.cut[1]]
                total.add(rgb / seen.gain, pure * _squared(seen.gain), seen.uv)
        self.estimate, self.pure = [], []
        for total in sums:
            mean, weight = total.mean()
            self.pure.append(weight)
            rgb = fill_unseen(mean.permute(1, 2, 0).cpu().numpy(), weight.cpu().numpy())
            self.estimate.append(torch.from_numpy(rgb).permute(2, 0, 1).contiguous())
        self.limits = [
            rim_limits(rgb, pure) for rgb, pure in zip(self.estimate, self.pure, strict=True)
        ]

    def back_project(self) -> None:
        """One step down the composite's residual."""
        sums = [SplatSum(layer.canvas) for layer in self.mapping.layers]
        s2 = self.options.robust_sigma**2
        for sight in self._sights():
            residual = sight.rgb.clone()
            shown = [(i, seen) for i, seen in enumerate(sight.layers) if seen is not None]
            for i, seen in shown:
                colour = sample_torch(self.estimate[i], seen.uv)
                residual[:, seen.cut[0], seen.cut[1]] -= seen.share * seen.gain * colour
            trust = s2 / (s2 + (residual**2).mean(0))
            for i, seen in shown:
                factor = seen.share * seen.gain
                enough = seen.share > 0.05
                values = residual[:, seen.cut[0], seen.cut[1]] / (factor + (~enough))
                weight = torch.where(enough, trust[seen.cut] * _squared(factor), 0.0)
                sums[i].add(values, weight, seen.uv)
        for i, (total, (low, high)) in enumerate(zip(sums, self.limits, strict=True)):
            moved = self.estimate[i] + total.sums[:3] / (total.sums[3] + HELD)
            self.estimate[i] = torch.maximum(torch.minimum(moved, high), low)

    def textures(self) -> list[Texture]:
        out = []
        for estimate, seen, pure in zip(self.estimate, self.seen, self.pure, strict=True):
            rgb = np.ascontiguousarray(estimate.permute(1, 2, 0).clamp(0, 1).cpu().numpy())
            coverage, bare = (
                np.clip(cv2.GaussianBlur(w.cpu().numpy(), (0, 0), 0.7) / 0.2, 0, 1)
                for w in (seen, pure)
            )
            out.append(Texture(rgb, coverage.astype(np.float32), bare.astype(np.float32)))
        return out

    def _sights(self) -> Iterator[_Sight]:
        """Every frame in turn, the next one prepared while this one is worked on."""
        with ThreadPoolExecutor(1) as pool:
            coming = None
            for t in range(self.mapping.frame_count + 1):
                ready = coming
                last = t == self.mapping.frame_count
                coming = None if last else pool.submit(self._sight, t)
                if ready is not None:
                    yield ready.result()

    def _sight(self, t: int) -> _Sight:
        size = self.mapping.frame_size
        rgb = self.frames(t)
        if rgb.shape[:2] != (size.height, size.width):
            rgb = cv2.resize(rgb, size.wh, interpolation=cv2.INTER_AREA)
        self.mapping.observe(t, rgb)
        m = self.mapping.frame(t)
        gains = None if self.gains is None else self.gains(t, None)
        layers: list[_LayerSight | None] = []
        for i, share in enumerate(visible_shares(m.alpha)):
            rows, columns = (np.flatnonzero((share > 0.02).any(axis)) for axis in (1, 0))
            if not len(rows):
                layers.append(None)
                continue
            cut = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
            uv = torch.from_numpy(np.nan_to_num(m.uv[i][cut], nan=-1e4))
            gain = 1.0
            if gains is not None:
                gain = torch.from_numpy(np.ascontiguousarray(gains[i][cut])).permute(2, 0, 1)
            layers.append(_LayerSight(cut, torch.from_numpy(share[cut].copy()), uv, gain))
        return _Sight(torch.from_numpy(rgb).permute(2, 0, 1).float() / 255, layers)


def rim_limits(rgb: Tensor, pure: Tensor) -> tuple[Tensor, Tensor]:
    """Lowest and highest colour that each texel may take, (3, H, W) each; infinite if any.

    At a layer's rim only mixed pixels tell of a texel. A matte that is a little too wide or too
    narrow there makes the least squares overshoot: a bright or dark line round the atlas's object.

    Args:
        rgb: (3, H, W), the first mean. pure: (H, W), the weight of pixels of this layer alone.
    """
    least, enough = _PURE_WEIGHT
    known = (pure > enough)[None]
    side = 2 * NEAR_TEXELS + 1
    infinite = torch.tensor(torch.inf, device=rgb.device, dtype=rgb.dtype)
    high = F.max_pool2d(torch.where(known, rgb, -infinite)[None], side, 1, NEAR_TEXELS)[0]
    low = -F.max_pool2d(torch.where(known, -rgb, -infinite)[None], side, 1, NEAR_TEXELS)[0]
    rim = (pure < least) & torch.isfinite(high)
    return torch.where(rim, low - RIM_MARGIN, -infinite), torch.where(
        rim, high + RIM_MARGIN, infinite
    )


def _squared(gain: Tensor | float) -> Tensor | float:
    """A gain's square, over colours if it has any: what a sample's weight grows with."""
    if isinstance(gain, float):
        return gain**2
    return (gain**2).mean(0) if gain.dim() == 3 else gain**2
