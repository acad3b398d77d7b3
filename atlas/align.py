"""Dense alignment of one layer's frames to its atlas, coarse to fine.

Each round: the layer's texture is splatted from all frames; every frame is compared with the
texture seen through its present map by optical flow; the flow, smoothed inside the layer, moves
the map. What the flow cannot know (no texture, other layers in front) is filled from around.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
import torch

from atlas.config import AlignConfig
from atlas.coords import Size, pixel_grid, resize_positions
from atlas.layered import LayerMotion, lattice_shape
from atlas.matches import texture_measure
from atlas.store import ClipStore
from atlas.texture import SplatSum, fill_unseen, sample

log = logging.getLogger(__name__)


HALF_SIZE_SIGMA_PX = 8.0
"""Rounds that smooth the flow at least this widely work at half the frame size."""


HISTORY_FRAMES = 24.0
"""Earlier frames of a long shot count in a window's texture at most as much as this many."""


@dataclass(frozen=True)
class History:
    """What earlier windows of a shot have settled.

    texture: sums over the frames before this window, on the layer's canvas.
    settled: the window's first frames that an earlier window has aligned for good.
    """

    texture: SplatSum
    settled: int

    def sums_on(self, canvas: Size) -> torch.Tensor:
        """(4, h, w): the sums on a coarser canvas, their weight limited to `HISTORY_FRAMES`."""
        sums = self.texture.sums
        if self.texture.canvas != canvas:
            planes = cv2.resize(
                sums.permute(1, 2, 0).numpy(), canvas.wh, interpolation=cv2.INTER_AREA
            )
            sums = torch.from_numpy(planes).permute(2, 0, 1)
        return sums * (HISTORY_FRAMES / sums[3].clamp_min(HISTORY_FRAMES))


class LayerAligner:
    """Holds one layer's growing residual and does the rounds.

    Args:
        store: the frames to align: a whole shot or a window of one.
        history: for a later window of a shot, what the earlier ones have settled.
    """

    def __init__(
        self,
        store: ClipStore,
        layer: int,
        motion: LayerMotion,
        options: AlignConfig,
        history: History | None = None,
    ):
        self.history = history
        self.full = store
        self.half = store.half
        self.store = store  # the one of the present round
        self.layer = layer
        self.options = options
        self.motion = motion
        if motion.residual is None:
            shape = (store.frame_count, *lattice_shape(store.size, motion.stride_px), 2)
            motion.residual = np.zeros(shape, np.float32)
        self._texture: np.ndarray | None = None

    def run(self) -> Iterator[int]:
        """Do all rounds; yields after each one its number, from 0."""
        for number, sigma_px in enumerate(self.options.sigmas_px):
            self.round(sigma_px)
            yield number

    def round(self, sigma_px: float) -> None:
        """One round, the flow smoothed by `sigma_px`."""
        # a wide window needs no fine flow: half the size costs a quarter
        self.store = self.half if sigma_px >= HALF_SIZE_SIGMA_PX else self.full
        self._identity = pixel_grid(self.store.size)
        self._canvas = self._scaled_canvas()
        self._texture = self.splat_texture()
        self._move(self._every_frame(partial(self._delta, sigma_px=sigma_px)))
        if self.options.neighbour_weight > 0:
            self._relax_along_flow(sigma_px)

    def _move(self, change: np.ndarray) -> None:
        """Add (T, h, w, 2) texels to the residual of the frames that are free to move."""
        assert self.motion.residual is not None
        free = slice(self.history.settled if self.history else 0, None)
        self.motion.residual[free] += change[free]

    def _uv(self, t: int) -> np.ndarray:
        """(H, W, 2) texels of frame `t` at the present round's size."""
        return self.motion.uv(t, self.full.size, self.store.size)

    def _scaled_canvas(self) -> Size:
        """The canvas at the scale of the present round's frames."""
        scale = self.store.size.width / self.full.size.width
        canvas = self.motion.canvas
        return Size(max(round(canvas.height * scale), 1), max(round(canvas.width * scale), 1))

    def _on_canvas(self, uv: np.ndarray) -> np.ndarray:
        """Texels of the layer's canvas as texels of the present round's."""
        return resize_positions(uv, self.motion.canvas, self._canvas)

    def splat_texture(self) -> np.ndarray:
        """(h, w, 3) float32 robust mean of the frames on the canvas, holes filled."""
        total = SplatSum(self._canvas)
        if self.history is not None:
            total.sums += self.history.sums_on(self._canvas)
        for t in range(self.store.frame_count):
            share = self.store.share(self.layer, t)
            if not (share > 0.5).any():
                continue
            uv = self._on_canvas(self._uv(t))
            frame = self.store.frame(t).astype(np.float32) / 255
            weight = np.where(share > 0.5, share**2, 0)
            if self._texture is not None and Size(*self._texture.shape[:2]) == self._canvas:
                residual = ((frame - sample(self._texture, uv)) ** 2).mean(-1)
                weight = weight * (1 / (1 + residual / self.options.robust_sigma**2))
            total.add(
                torch.from_numpy(frame).permute(2, 0, 1),
                torch.from_numpy(weight.astype(np.float32)),
                torch.from_numpy(uv),
            )
        mean, weight = total.mean()
        return fill_unseen(np.ascontiguousarray(mean.permute(1, 2, 0).numpy()), weight.numpy())

    def _delta(self, t: int, sigma_px: float) -> np.ndarray:
        """(h, w, 2) float32: how far frame `t`'s lattice should move, texels."""
        assert self._texture is not None
        assert self.motion.residual is not None
        share = self.store.share(self.layer, t)
        if not (share > 0.5).any():
            return np.zeros_like(self.motion.residual[t])
        uv = self._uv(t)
        seen = (
            np.rint(sample(self._texture, self._on_canvas(uv)) * 255).clip(0, 255).astype(np.uint8)
        )
        seen = cv2.cvtColor(seen, cv2.COLOR_RGB2GRAY)
        own = share * self.store.grey(t) + (1 - share) * seen
        own = np.rint(own).astype(np.uint8)
        flow = _dis().calc(own, seen, None)
        limit = self.options.max_step_px * self.store.size.width / self.full.size.width
        length = np.linalg.norm(flow, axis=-1)
        flow *= np.minimum(1, limit / np.maximum(length, 1e-6))[..., None]
        moved = cv2.remap(
            uv, self._identity + flow, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        texture = texture_measure(own)
        weight = (share**2 * texture / (texture + 2.0)).astype(np.float32)
        return self._smooth_to_lattice(moved - uv, weight, sigma_px)

    def _smooth_to_lattice(
        self, delta: np.ndarray, weight: np.ndarray, sigma_px: float
    ) -> np.ndarray:
        """Normalised Gaussian averages of (H, W, 2) `delta` at the lattice points."""
        stride = self.motion.stride_px
        stacked = np.dstack([delta * weight[..., None], weight])
        lattice = _to_lattice(stacked, stride, self.full.size)
        sigma = max(sigma_px / stride, 0.3)
        lattice = cv2.GaussianBlur(lattice, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101)
        return lattice[..., :2] / (lattice[..., 2:] + 0.02)

    def _relax_along_flow(self, sigma_px: float) -> None:
        """Pull every frame's map toward what its neighbours say of the same surface point.

        Where the flow is consistent, uv_t(x) should equal uv_{t+1}(x + flow): the flow loss of
        Kasten et al. 2021 (eq. 8), here as one step of Jacobi relaxation.
        """
        pulls = self._every_frame(partial(self._pull, sigma_px=sigma_px))
        self._move(self.options.neighbour_weight * pulls)

    def _every_frame(self, change: Callable[[int], np.ndarray]) -> np.ndarray:
        """(T, h, w, 2): `change` of every frame; OpenCV lets go of the interpreter, so threads."""
        with ThreadPoolExecutor(2) as pool:
            return np.stack(list(pool.map(change, range(self.store.frame_count))))

    def _pull(self, t: int, sigma_px: float) -> np.ndarray:
        uv = self._uv(t)
        share = self.store.share(self.layer, t)
        total, weight = np.zeros_like(uv), np.full(uv.shape[:2], 1e-3, np.float32)
        for other in (t - 1, t + 1):
            if not 0 <= other < self.store.frame_count:
                continue
            there = self._identity + self.store.flow(t, other).astype(np.float32)
            stacked = np.dstack(
                [
                    self._uv(other),
                    self.store.flow(other, t).astype(np.float32),
                    self.store.share(self.layer, other),
                ]
            ).astype(np.float32)
            stacked = cv2.remap(stacked, there, None, cv2.INTER_LINEAR)
            cycle2 = ((there - self._identity + stacked[..., 2:4]) ** 2).sum(-1)
            w = share * (stacked[..., 4] > 0.9) * (cycle2 < 1.0)
            total += (stacked[..., :2] - uv) * w[..., None]
            weight += w
        return self._smooth_to_lattice(
            total / weight[..., None], np.minimum(weight, 1).astype(np.float32), min(sigma_px, 4.0)
        )


def _to_lattice(values: np.ndarray, stride_px: int, size: Size) -> np.ndarray:
    """Area averages of (H, W, C) values about the lattice points of a frame of `size`.

    The values may come at a smaller size of the same frame.
    """
    height, width = values.shape[:2]
    h, w = lattice_shape(size, stride_px)
    reach = max(round(stride_px * width / size.width), 1) | 1
    blurred = cv2.blur(values, (reach, reach), borderType=cv2.BORDER_REFLECT_101)
    y = np.rint((np.arange(h) * stride_px + 0.5) * height / size.height - 0.5).astype(int)
    x = np.rint((np.arange(w) * stride_px + 0.5) * width / size.width - 0.5).astype(int)
    return np.ascontiguousarray(blurred[np.ix_(y.clip(0, height - 1), x.clip(0, width - 1))])


def _dis() -> cv2.DISOpticalFlow:
    return cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
