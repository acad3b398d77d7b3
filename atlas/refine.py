"""Coordinate networks for what closed forms leave: a layer's residual motion, trained end to end.

What a layer's aligned residual still lacks is a field of (x, y, t): features interpolated from
dense grids at several resolutions (a dense form of Mueller et al. 2022, "Instant neural graphics
primitives"), decoded by a small MLP. It starts at zero and is trained on whole frames with the
losses of layered neural atlases (colour, flow, rigidity) against the explicit texture. It is
evaluated on a lattice and interpolated between its points.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from atlas import losses
from atlas.boxes import Box, LayerBoxes
from atlas.config import FieldConfig, LossConfig
from atlas.coords import Size, pixel_grid
from atlas.errors import InputError
from atlas.layered import LayerMotion, lattice_shape
from atlas.splat import sample_torch
from atlas.store import ClipStore

PURE_SHARE = 0.9
"""Pixels that show at least this much of a layer have its colour."""
PIXEL_STEP = 3
"""One step sees every so many pixels, along either side; the next step others."""
MARGIN_PX = 8
"""How far beyond the layer the losses reach."""


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
    """Trains what one layer's `ResidualField` adds to the aligned residual, end to end."""

    def __init__(self, scene: Scene, config: FieldConfig, loss: LossConfig, seed: int):
        residual = scene.motion.residual
        assert residual is not None
        self.scene, self.config, self.loss = scene, config, loss
        self.device = scene.texture.device
        self.aligned = torch.from_numpy(residual).to(self.device)
        store = scene.store
        self.stride_px = max(config.stride_px, scene.motion.stride_px)
        self.shape = (store.frame_count, *lattice_shape(store.size, self.stride_px))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.field = ResidualField(config, self.shape).to(self.device)
        self.order = torch.Generator().manual_seed(seed)
        self.boxes = LayerBoxes(store, scene.layer, store.size, MARGIN_PX)
        self.step = 0
        self._points = self._lattice_points()
        self.start(config.learning_rate)

    def start(self, learning_rate: float) -> None:
        """Begin anew: a fresh optimiser, its rate falling to zero over the steps (cosine)."""
        self._optimiser = torch.optim.Adam(self.field.parameters(), lr=learning_rate)
        self._rate, self.step = learning_rate, 0

    def train(self, steps: int) -> dict[str, float]:
        """Train on frames and their flow to a neighbour; returns the last losses by name."""
        values: dict[str, float] = {}
        for _ in range(steps):
            terms = self._terms(int(torch.randint(self.shape[0], (), generator=self.order)))
            if terms:
                total = torch.stack(list(terms.values())).sum()
                if not bool(torch.isfinite(total)):
                    bad = next(n for n, v in terms.items() if not bool(torch.isfinite(v)))
                    raise InputError(f"the {bad} loss became {terms[bad].item()}; lower its weight")
                self._descend(total)
                values = {name: float(v.detach()) for name, v in terms.items()}
            self.step += 1
        return values

    def _descend(self, loss: Tensor) -> None:
        falling = 0.5 + 0.5 * math.cos(math.pi * min(self.step / self.config.training_steps, 1))
        for group in self._optimiser.param_groups:
            group["lr"] = self._rate * max(falling, 0.02)
        self._optimiser.zero_grad()
        loss.backward()
        self._optimiser.step()

    def bake(self) -> np.ndarray:
        """(T, h, w, 2) float32: the residual as trained, on the motion's lattice."""
        with torch.no_grad():
            return torch.stack([self._residual(t) for t in range(self.shape[0])]).cpu().numpy()

    def _residual(self, t: int) -> Tensor:
        """(h, w, 2) texels on the motion's lattice: aligned, and what the field adds."""
        added = self.field(lattice_xyt(self.shape, t, self.device))
        return self.aligned[t] + _sampled(added, self._points / self.stride_px)

    def _lattice_points(self) -> Tensor:
        """(h, w, 2) frame positions of the motion's lattice, pixels."""
        height, width = self.aligned.shape[1:3]
        points = pixel_grid(Size(height, width)) * np.float32(self.scene.motion.stride_px)
        return torch.from_numpy(points).to(self.device)

    def _terms(self, t: int) -> dict[str, Tensor]:
        """Weighted losses of one frame, and of its flow to the next or the previous one."""
        scene, store, step = self.scene, self.scene.store, self.step
        box = self.boxes[t]
        if box is None:
            return {}
        oy, ox = divmod(step % PIXEL_STEP**2, PIXEL_STEP)  # one of so many pixels at a time
        cut = (
            slice(box.top + oy, box.bottom, PIXEL_STEP),
            slice(box.left + ox, box.right, PIXEL_STEP),
        )
        inside = store.share(scene.layer, t)[cut] > PURE_SHARE
        if not inside.any():
            return {}
        at = np.ascontiguousarray(self.boxes.positions[cut])
        lattice = self._residual(t)
        uv = self._uv(t, lattice, torch.from_numpy(at).to(self.device))
        where = torch.from_numpy(inside).to(self.device)
        frame = torch.from_numpy(store.frame(t)[cut]).to(self.device).float() / 255
        gain = torch.from_numpy(np.ascontiguousarray(scene.gains(t)[cut])).to(self.device)
        seen = sample_torch(scene.texture, uv).permute(1, 2, 0) * gain
        terms = {
            "rgb": self.loss.rgb.weight * losses.rgb_loss(seen[where], frame[where]),
            "rigidity": self.loss.rigidity.weight * self._rigidity(t, lattice, box),
        }
        neighbours = [n for n in (t - 1, t + 1) if 0 <= n < store.frame_count]
        if neighbours:
            other = neighbours[step // PIXEL_STEP**2 % len(neighbours)]
            terms["flow"] = self.loss.flow.weight * self._flow((t, other), uv, (cut, at), inside)
        return terms

    def _uv(self, t: int, lattice: Tensor, at: Tensor) -> Tensor:
        """(H, W, 2) texels at positions (H, W, 2) px of frame `t`, by base motion and lattice."""
        return self._base(t, at) + _sampled(lattice, at / self.scene.motion.stride_px)

    def _base(self, t: int, at: Tensor) -> Tensor:
        matrix = torch.from_numpy(self.scene.motion.matrices[t]).to(self.device, at.dtype)
        moved = torch.cat([at, torch.ones_like(at[..., :1])], -1) @ matrix.T
        roll = self.scene.motion.roll
        return moved[..., :2] / moved[..., 2:] if roll is None else roll.tensor(t, moved)

    def _rigidity(self, t: int, lattice: Tensor, box: Box) -> Tensor:
        stride = self.scene.motion.stride_px
        cut = (
            slice(box.top // stride, -(-box.bottom // stride) + 1),
            slice(box.left // stride, -(-box.right // stride) + 1),
        )
        uv = self._base(t, self._points[cut]) + lattice[cut]
        here, right, down = uv[:-1, :-1], uv[:-1, 1:], uv[1:, :-1]
        here, right, down = (v.reshape(-1, 2) for v in (here, right, down))
        jacobian = losses.finite_jacobian(here, right, down, 1 / stride)
        return losses.rigidity_loss(jacobian, ridge=0.001)

    def _flow(
        self,
        pair: tuple[int, int],
        uv: Tensor,
        view: tuple[tuple[slice, slice], np.ndarray],
        inside: np.ndarray,
    ) -> Tensor:
        """The flow loss from frame pair[0] to pair[1] at the pixels of a view: cut, positions."""
        (t, other), (cut, at), store = pair, view, self.scene.store
        flow = store.flow(t, other)[cut].astype(np.float32)
        there = at + flow
        back = cv2.remap(store.flow(other, t).astype(np.float32), there, None, cv2.INTER_LINEAR)
        share = cv2.remap(store.share(self.scene.layer, other), there, None, cv2.INTER_LINEAR)
        cycle = np.hypot(flow[..., 0] + back[..., 0], flow[..., 1] + back[..., 1])
        matched = inside & (cycle < self.loss.flow.max_cycle_error_px) & (share > PURE_SHARE)
        ok = torch.from_numpy(matched).to(self.device)
        landed = torch.from_numpy(there[matched][None]).to(self.device)
        ends = self._uv(other, self._residual(other), landed)[0]
        return losses.flow_loss(uv[ok], ends, torch.ones_like(ends[:, :1]), 1.0)


def _sampled(lattice: Tensor, at: Tensor) -> Tensor:
    """(H, W, 2) bilinear samples of an (h, w, 2) lattice at (H, W, 2) lattice steps."""
    height, width = lattice.shape[:2]
    scale = torch.tensor([2 / max(width - 1, 1), 2 / max(height - 1, 1)], device=lattice.device)
    planes = lattice.permute(2, 0, 1)[None]
    sampled = F.grid_sample(
        planes, (at * scale - 1)[None], align_corners=True, padding_mode="border"
    )
    return sampled[0].permute(1, 2, 0)
