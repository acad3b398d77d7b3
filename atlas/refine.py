"""Coordinate networks for what closed forms leave: a layer's residual motion, trained end to end.

The residual uv of a layer is a field of (x, y, t): features interpolated from dense grids at
several resolutions (a dense form of Mueller et al. 2022, "Instant neural graphics primitives"),
decoded by a small MLP. It is first fitted to the aligned residual by regression, then trained on
whole frames with the losses of layered neural atlases (colour, flow, rigidity) against the
explicit texture. It is evaluated on the lattice and interpolated between its points.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from atlas import losses
from atlas.config import FieldConfig, LossConfig
from atlas.coords import pixel_grid
from atlas.errors import InputError
from atlas.layered import LayerMotion
from atlas.store import ClipStore
from atlas.texture import sample_torch

FITTED = 0.002
"""Regression error (half the squared texels, as long as it is small) that ends the regression."""
PURE_SHARE = 0.9
"""Pixels that show at least this much of a layer have its colour."""


class ResidualField(nn.Module):
    """(x, y, t) -> (u, v) residual in texels, on a frame's lattice.

    Args:
        shape: (T, h, w) of the lattice it will be asked on; sets the finest grid.
    """

    def __init__(self, config: FieldConfig, shape: tuple[int, int, int]):
        super().__init__()
        frames, height, width = shape
        self.grids = nn.ParameterList()
        for level in range(config.levels):
            scale = 0.5 ** (config.levels - 1 - level)
            grid = [
                max(2, round(n * scale * factor))
                for n, factor in ((frames, config.time_resolution), (height, 1.0), (width, 1.0))
            ]
            self.grids.append(nn.Parameter(torch.randn(1, config.features, *grid) * 1e-2))
        into = config.features * config.levels + 3
        self.decode = nn.Sequential(
            nn.Linear(into, config.width), nn.SiLU(), nn.Linear(config.width, config.width)
        )
        self.out = nn.Linear(config.width, 2)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, xyt: Tensor) -> Tensor:
        """(..., 3) coordinates in [-1, 1] over the lattice's box -> (..., 2) texels."""
        at = xyt.reshape(1, 1, 1, -1, 3)
        features = [
            F.grid_sample(g, at, align_corners=True, padding_mode="border")[0, :, 0, 0].T
            for g in self.grids
        ]
        x = torch.cat([*features, xyt.reshape(-1, 3)], dim=-1)
        return self.out(F.silu(self.decode(x))).reshape(*xyt.shape[:-1], 2)


def lattice_xyt(shape: tuple[int, int, int], t: int, device: torch.device | str) -> Tensor:
    """(h, w, 3): the coordinates of frame `t`'s lattice points, each axis in [-1, 1]."""
    frames, height, width = shape
    y = torch.linspace(-1, 1, height, device=device)
    x = torch.linspace(-1, 1, width, device=device)
    time = torch.full((height, width), 2 * t / max(frames - 1, 1) - 1, device=device)
    return torch.stack([*torch.meshgrid(x, y, indexing="xy"), time], dim=-1)


@dataclass(frozen=True)
class Scene:
    """What training one layer's field needs.

    texture: (3, h, w) float, the layer's atlas. gains: t -> (H, W, 3) float32 shading.
    """

    store: ClipStore
    layer: int
    motion: LayerMotion
    texture: Tensor
    gains: Callable[[int], np.ndarray]


class FieldFit:
    """Fits one layer's `ResidualField`: regression, then end to end."""

    def __init__(self, scene: Scene, config: FieldConfig, loss: LossConfig, seed: int):
        assert scene.motion.residual is not None
        self.scene, self.config, self.loss = scene, config, loss
        self.device = scene.texture.device
        self.shape = scene.motion.residual.shape[:3]
        generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.field = ResidualField(config, self.shape).to(self.device)
        self.order = generator
        self.recent = 0.0
        """Running mean of the regression's error, over calls of `regress`."""
        self.start(config.learning_rate)
        self.grid = torch.from_numpy(pixel_grid(scene.store.size)).to(self.device)

    def regress(self, steps: int) -> float:
        """Fit the field to the motion's present residual; returns the last error, texels."""
        residual = self.scene.motion.residual
        assert residual is not None
        error = 0.0
        for _ in range(steps):
            frames = self._pick(min(4, self.shape[0]))
            xyt = torch.stack([lattice_xyt(self.shape, t, self.device) for t in frames])
            target = torch.from_numpy(residual[frames]).to(self.device)
            loss = F.smooth_l1_loss(self.field(xyt), target)
            self._descend(loss, self.config.regression_steps)
            error = float(loss.detach())
        self.recent = 0.5 * self.recent + 0.5 * error if self.recent else error
        return error

    def train(self, steps: int) -> dict[str, float]:
        """Train end to end on pairs of neighbouring frames; returns the last losses by name."""
        values: dict[str, float] = {}
        for _ in range(steps):
            terms = self._terms(self._pick(1)[0], self._step)
            total = torch.stack(list(terms.values())).sum()
            if not bool(torch.isfinite(total)):
                bad = next(n for n, v in terms.items() if not bool(torch.isfinite(v)))
                raise InputError(f"the {bad} loss became {terms[bad].item()}; lower its weight")
            self._descend(total, self.config.training_steps)
            values = {name: float(v.detach()) for name, v in terms.items()}
        return values

    def start(self, learning_rate: float) -> None:
        """Begin a phase: a new optimiser, its rate falling to zero over the phase (cosine)."""
        self._optimiser = torch.optim.Adam(self.field.parameters(), lr=learning_rate)
        self._rate, self._step = learning_rate, 0

    def _descend(self, loss: Tensor, steps: int) -> None:
        falling = 0.5 + 0.5 * math.cos(math.pi * min(self._step / max(steps, 1), 1))
        for group in self._optimiser.param_groups:
            group["lr"] = self._rate * max(falling, 0.02)
        self._optimiser.zero_grad()
        loss.backward()
        self._optimiser.step()
        self._step += 1

    def bake(self) -> np.ndarray:
        """(T, h, w, 2) float32: the field on the lattice of every frame."""
        with torch.no_grad():
            frames = [
                self.field(lattice_xyt(self.shape, t, self.device)) for t in range(self.shape[0])
            ]
        return torch.stack(frames).cpu().numpy()

    def _pick(self, count: int) -> list[int]:
        return torch.randint(self.shape[0], (count,), generator=self.order).tolist()

    def _terms(self, t: int, step: int) -> dict[str, Tensor]:
        """Weighted losses of one frame, and of its flow to the next or the previous one."""
        scene, store = self.scene, self.scene.store
        share = torch.from_numpy(store.share(scene.layer, t)).to(self.device)
        lattice = self.field(lattice_xyt(self.shape, t, self.device))
        oy, ox = divmod(step % 4, 2)  # a quarter of the pixels at a time
        cut = (slice(oy, None, 2), slice(ox, None, 2))
        at, share = self.grid[cut], share[cut]
        inside = share > PURE_SHARE
        uv = self._uv(t, lattice, at)
        terms: dict[str, Tensor] = {}
        if bool(inside.any()):
            frame = torch.from_numpy(store.frame(t)[cut]).to(self.device).float() / 255
            gain = torch.from_numpy(np.ascontiguousarray(scene.gains(t)[cut])).to(self.device)
            seen = sample_torch(scene.texture, uv).permute(1, 2, 0) * gain
            weight = self.loss.rgb.weight
            terms["rgb"] = weight * losses.rgb_loss(seen[inside], frame[inside])
        terms["rigidity"] = self.loss.rigidity.weight * self._rigidity(t, lattice)
        neighbours = [n for n in (t - 1, t + 1) if 0 <= n < store.frame_count]
        if neighbours and bool(inside.any()):
            other = neighbours[step % len(neighbours)]
            terms["flow"] = self.loss.flow.weight * self._flow(t, other, uv, cut, inside)
        return terms

    def _uv(self, t: int, lattice: Tensor, at: Tensor) -> Tensor:
        """(H, W, 2) texels at positions (H, W, 2) px of frame `t`, by base motion and lattice."""
        return self._base(t, at) + self._sample_lattice(lattice, at)

    def _base(self, t: int, at: Tensor) -> Tensor:
        matrix = torch.from_numpy(self.scene.motion.matrices[t]).to(self.device, at.dtype)
        moved = torch.cat([at, torch.ones_like(at[..., :1])], -1) @ matrix.T
        return moved[..., :2] / moved[..., 2:]

    def _sample_lattice(self, lattice: Tensor, at: Tensor) -> Tensor:
        height, width = lattice.shape[:2]
        scale = torch.tensor([2 / max(width - 1, 1), 2 / max(height - 1, 1)], device=self.device)
        grid = at / self.scene.motion.stride_px * scale - 1
        planes = lattice.permute(2, 0, 1)[None]
        sampled = F.grid_sample(planes, grid[None], align_corners=True, padding_mode="border")
        return sampled[0].permute(1, 2, 0)

    def _rigidity(self, t: int, lattice: Tensor) -> Tensor:
        stride = self.scene.motion.stride_px
        height, width = lattice.shape[:2]
        xs = torch.arange(width, device=self.device) * float(stride)
        ys = torch.arange(height, device=self.device) * float(stride)
        at = torch.stack(torch.meshgrid(xs, ys, indexing="xy"), -1)
        uv = self._base(t, at) + lattice
        here, right, down = uv[:-1, :-1], uv[:-1, 1:], uv[1:, :-1]
        here, right, down = (v.reshape(-1, 2) for v in (here, right, down))
        jacobian = losses.finite_jacobian(here, right, down, 1 / stride)
        return losses.rigidity_loss(jacobian, ridge=0.001)

    def _flow(
        self, t: int, other: int, uv: Tensor, cut: tuple[slice, slice], inside: Tensor
    ) -> Tensor:
        store = self.scene.store
        flow = torch.from_numpy(store.flow(t, other)[cut].astype(np.float32)).to(self.device)
        there = self.grid[cut] + flow
        planes = np.dstack(
            [store.flow(other, t).astype(np.float32), store.share(self.scene.layer, other)]
        )
        landed = sample_torch(torch.from_numpy(planes).permute(2, 0, 1).to(self.device), there)
        cycle = torch.linalg.vector_norm(flow + landed[:2].permute(1, 2, 0), dim=-1)
        ok = inside & (cycle < self.loss.flow.max_cycle_error_px) & (landed[2] > 0.9)
        lattice = self.field(lattice_xyt(self.shape, other, self.device))
        matched = self._uv(other, lattice, there)
        share = torch.ones_like(uv[ok][:, :1])
        return losses.flow_loss(uv[ok], matched[ok], share, 1.0)
