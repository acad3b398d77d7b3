"""Dense alignment of one layer's frames to its atlas, coarse to fine.

Each round: the layer's texture is splatted from all frames; every frame is compared with the
texture seen through its present map; what differs moves the map. Coarse rounds take optical flow,
smoothed inside the layer; fine ones one step of Gauss and Newton on the lattice's points, which
weighs every pixel by what it says about motion. What neither can know (no texture, other layers in
front) is filled from around.
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

from atlas.boxes import Box, LayerBoxes
from atlas.config import AlignConfig
from atlas.coords import Size, pixel_grid, resize_positions
from atlas.layered import LayerMotion, lattice_shape
from atlas.matches import texture_measure
from atlas.splat import SplatSum
from atlas.store import ClipStore
from atlas.texture import fill_unseen, sample

log = logging.getLogger(__name__)


HALF_SIZE_SIGMA_PX = 8.0
"""Rounds that smooth the motion at least this widely work at half the frame size, by flow."""
HISTORY_FRAMES = 24.0
"""Earlier frames of a long shot count in a window's texture at most as much as this many."""
MARGIN_SIGMAS = 2.5
"""How far the work on a layer reaches beyond it, in the round's sigma."""
FINE_LIMIT_PX = 2.0
"""Longest move of a point in one step of Gauss and Newton."""
LIGHT_PX = 27
"""Differences that are even over this width are light, not motion; odd."""
NOISE = 1e-4
"""Squared colour gradient that noise makes; holds lattice points still that see no more."""


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
        """One round, the motion smoothed by `sigma_px`."""
        coarse = sigma_px >= HALF_SIZE_SIGMA_PX
        # a wide window needs no fine flow: half the size costs a quarter
        self.store = self.half if coarse else self.full
        scale = self.store.size.width / self.full.size.width
        margin_px = max(8, round(MARGIN_SIGMAS * sigma_px * scale))
        self._boxes = LayerBoxes(self.store, self.layer, self.full.size, margin_px)
        self._canvas = self._scaled_canvas()
        self._texture = self.splat_texture()
        change = self._by_flow if coarse else self._by_gradients
        self._move(self._every_frame(partial(change, sigma_px=sigma_px)))
        if self.options.neighbour_weight > 0:
            self._relax_along_flow(sigma_px)

    def _move(self, change: np.ndarray) -> None:
        """Add (T, h, w, 2) texels to the residual of the frames that are free to move."""
        assert self.motion.residual is not None
        free = slice(self.history.settled if self.history else 0, None)
        self.motion.residual[free] += change[free]

    def _scaled_canvas(self) -> Size:
        """The canvas at the scale of the present round's frames."""
        scale = self.store.size.width / self.full.size.width
        canvas = self.motion.canvas
        return Size(max(round(canvas.height * scale), 1), max(round(canvas.width * scale), 1))

    def _on_canvas(self, uv: np.ndarray) -> np.ndarray:
        """Texels of the layer's canvas as texels of the present round's."""
        if self._canvas == self.motion.canvas:
            return uv
        return resize_positions(uv, self.motion.canvas, self._canvas)

    def splat_texture(self) -> np.ndarray:
        """(h, w, 3) float32 robust mean of the frames on the canvas, holes filled."""
        total = SplatSum(self._canvas)
        if self.history is not None:
            total.sums += self.history.sums_on(self._canvas)
        before = self._texture
        if before is not None and before.shape[:2] != self._canvas.wh[::-1]:
            before = cv2.resize(before, self._canvas.wh, interpolation=cv2.INTER_LINEAR)

        def share_of(first: int) -> SplatSum:
            part = SplatSum(self._canvas)
            for t in range(first, self.store.frame_count, 2):
                self._splat(t, part, before)
            return part

        with ThreadPoolExecutor(2) as pool:
            for part in pool.map(share_of, (0, 1)):
                total.sums += part.sums
        mean, weight = total.mean()
        return fill_unseen(np.ascontiguousarray(mean.permute(1, 2, 0).numpy()), weight.numpy())

    def _splat(self, t: int, total: SplatSum, before: np.ndarray | None) -> None:
        """Add frame `t`, its pixels weighed by how well they agree with the texture before."""
        box = self._boxes[t]
        if box is None:
            return
        uv = self._on_canvas(self.motion.uv_at(t, self._boxes.at(box)))
        share = self.store.share(self.layer, t)[box.cut]
        frame = self.store.frame(t)[box.cut].astype(np.float32) / 255
        weight = np.where(share > 0.5, share**2, 0)
        if before is not None:
            residual = frame - sample(before, uv)
            weight = weight / (1 + _dot(residual, residual) / (3 * self.options.robust_sigma**2))
        total.add(
            torch.from_numpy(frame).permute(2, 0, 1),
            torch.from_numpy(weight.astype(np.float32)),
            torch.from_numpy(uv),
        )

    def _every_frame(self, change: Callable[[int, Box], np.ndarray]) -> np.ndarray:
        """(T, h, w, 2): `change` of every frame; OpenCV lets go of the interpreter, so threads."""
        assert self.motion.residual is not None
        still = np.zeros_like(self.motion.residual[0])

        def one(t: int) -> np.ndarray:
            box = self._boxes[t]
            return still if box is None else change(t, box)

        with ThreadPoolExecutor(2) as pool:
            return np.stack(list(pool.map(one, range(self.store.frame_count))))

    def _by_flow(self, t: int, box: Box, sigma_px: float) -> np.ndarray:
        """(h, w, 2) float32: how far optical flow says frame `t`'s lattice should move, texels."""
        assert self._texture is not None
        share = self.store.share(self.layer, t)[box.cut]
        at = self._boxes.at(box)
        uv = self.motion.uv_at(t, at)
        seen = sample(self._texture, self._on_canvas(uv))
        seen = np.rint(seen * 255).clip(0, 255).astype(np.uint8)
        seen = cv2.cvtColor(seen, cv2.COLOR_RGB2GRAY)
        own = np.rint(share * self.store.grey(t)[box.cut] + (1 - share) * seen).astype(np.uint8)
        dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        flow = dis.calc(own, seen, None) * (self.full.size.width / self.store.size.width)
        moved = self.motion.uv_at(t, at + _limited(flow, self.options.max_step_px))
        texture = texture_measure(own)
        weight = (share**2 * texture / (texture + 2.0)).astype(np.float32)
        sums = self._on_lattice(
            np.dstack([(moved - uv) * weight[..., None], weight]), box, sigma_px
        )
        return sums[..., :2] / (sums[..., 2:] + 0.02)

    def _by_gradients(self, t: int, box: Box, sigma_px: float) -> np.ndarray:
        """(h, w, 2) float32: a step of Gauss and Newton on frame `t`'s lattice, texels.

        Lucas and Kanade 1981 with a Gaussian window at every lattice point, the gradient that of
        the mean of both pictures (Malis 2004), robust weights (Geman-McClure).
        """
        assert self._texture is not None
        uv = self.motion.uv_at(t, self._boxes.at(box))
        seen = sample(self._texture, self._on_canvas(uv))
        frame = self.store.frame(t)[box.cut].astype(np.float32) / 255
        inside = (self.store.share(self.layer, t)[box.cut] > 0.9).astype(np.float32)
        difference = (frame - seen) * inside[..., None]
        even = cv2.blur(np.dstack([difference, inside]), (LIGHT_PX, LIGHT_PX))
        difference -= even[..., :3] / (even[..., 3:] + 1e-3)
        both = 0.5 * (seen + frame)
        gx, gy = (cv2.Sobel(both, cv2.CV_32F, i, 1 - i, ksize=3, scale=1 / 8) for i in (1, 0))
        # a gradient across the layer's edge tells the edge's motion, not the surface's
        weight = cv2.erode(inside, np.ones((3, 3), np.uint8))
        weight /= 1 + _dot(difference, difference) / (3 * self.options.robust_sigma**2)
        pairs = ((gx, gx), (gx, gy), (gy, gy), (gx, difference), (gy, difference))
        products = np.dstack([_dot(a, b) * weight for a, b in pairs])
        xx, xy, yy, xd, yd = np.moveaxis(self._on_lattice(products, box, sigma_px), -1, 0)
        xx, yy = xx + NOISE, yy + NOISE
        step = np.stack([yy * xd - xy * yd, xx * yd - xy * xd], -1)
        step = _limited(step / (xx * yy - xy * xy)[..., None], FINE_LIMIT_PX)
        height, width = step.shape[:2]
        points = pixel_grid(Size(height, width)) * np.float32(self.motion.stride_px)
        return self.motion.uv_at(t, points + step) - self.motion.uv_at(t, points)

    def _on_lattice(self, values: np.ndarray, box: Box, sigma_px: float) -> np.ndarray:
        """(h, w, C) Gaussian averages of a box's (H, W, C) values at all lattice points.

        Beyond the box values count as 0. The box may be one of a smaller picture of the frame.
        """
        stride, full, size = self.motion.stride_px, self.full.size, self.store.size
        h, w = lattice_shape(full, stride)
        reach = max(round(stride * size.width / full.width), 1) | 1
        means = cv2.blur(values, (reach, reach), borderType=cv2.BORDER_REFLECT_101)
        y = np.rint((np.arange(h) * stride + 0.5) * size.height / full.height - 0.5).astype(int)
        x = np.rint((np.arange(w) * stride + 0.5) * size.width / full.width - 0.5).astype(int)
        y, x = y.clip(0, size.height - 1) - box.top, x.clip(0, size.width - 1) - box.left
        rows, columns = (y >= 0) & (y < values.shape[0]), (x >= 0) & (x < values.shape[1])
        lattice = np.zeros((h, w, values.shape[2]), np.float32)
        lattice[np.ix_(rows, columns)] = means[np.ix_(y[rows], x[columns])]
        sigma = max(sigma_px / stride, 0.3)
        return cv2.GaussianBlur(lattice, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101)

    def _relax_along_flow(self, sigma_px: float) -> None:
        """Pull every frame's map toward what its neighbours say of the same surface point.

        Where the flow is consistent, uv_t(x) should equal uv_{t+1}(x + flow): the flow loss of
        Kasten et al. 2021 (eq. 8), here as one step of Jacobi relaxation. At half the size: what
        neighbours say is smoothed anyway.
        """
        self.store = self.half
        margin_px = max(4, round(MARGIN_SIGMAS * min(sigma_px, 4.0) / 2))
        self._boxes = LayerBoxes(self.half, self.layer, self.full.size, margin_px)
        pulls = self._every_frame(partial(self._pull, sigma_px=min(sigma_px, 4.0)))
        self._move(self.options.neighbour_weight * pulls)

    def _pull(self, t: int, box: Box, sigma_px: float) -> np.ndarray:
        store = self.store
        to_full = self.full.size.width / store.size.width
        at = self._boxes.at(box)
        uv, share = self.motion.uv_at(t, at), store.share(self.layer, t)[box.cut]
        grid = pixel_grid(store.size)[box.cut]
        total, weight = np.zeros_like(uv), np.full(uv.shape[:2], 1e-3, np.float32)
        for other in (t - 1, t + 1):
            if not 0 <= other < store.frame_count:
                continue
            flow = store.flow(t, other)[box.cut].astype(np.float32)
            back = np.dstack(
                [store.flow(other, t).astype(np.float32), store.share(self.layer, other)]
            )
            back = cv2.remap(back, grid + flow, None, cv2.INTER_LINEAR)
            cycle = flow + back[..., :2]
            cycle2 = (cycle[..., 0] ** 2 + cycle[..., 1] ** 2) * to_full**2
            w = share * (back[..., 2] > 0.9) * (cycle2 < 1.0)
            there = self.motion.uv_at(other, at + flow * np.float32(to_full))
            total += (there - uv) * w[..., None]
            weight += w
        sure = np.minimum(weight, 1)
        sums = np.dstack([total * (sure / weight)[..., None], sure])
        sums = self._on_lattice(sums.astype(np.float32), box, sigma_px)
        return sums[..., :2] / (sums[..., 2:] + 0.02)


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(H, W) sum over the channels of two (H, W, 3) pictures' product."""
    return cv2.transform(a * b, np.ones((1, 3), np.float32))


def _limited(move: np.ndarray, most: float) -> np.ndarray:
    """(..., 2) float32: `move`, cut to the length `most`."""
    length = np.hypot(move[..., 0], move[..., 1])[..., None]
    return (move * np.minimum(1, most / np.maximum(length, 1e-6))).astype(np.float32)
