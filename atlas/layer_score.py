"""One fixed score of a layer's motion, by which a fit keeps the better of two.

The PSNR, in dB, of the pixels that show the layer alone, rebuilt from the mean texture that the
motion gives and a smooth shading, at half the frame size and in frames spread over the window.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from atlas.align import History
from atlas.coords import Size, resize_positions
from atlas.layered import LayerMotion, lattice_shape, sample_lattice
from atlas.refine import PURE_SHARE
from atlas.shading import fit_gain
from atlas.splat import SplatSum
from atlas.store import ClipStore
from atlas.texture import fill_unseen, sample
from atlas.windows import add_frame

SCORED_FRAMES = 12
"""Frames at most that a score looks at."""


@dataclass(frozen=True)
class LayerScorer:
    """Scores motions of one layer over one window.

    store: the window's frames at the fit's size. sigma_px: window of the shading, 0 = none.
    """

    store: ClipStore
    layer: int
    history: History | None
    sigma_px: float

    def score(self, motion: LayerMotion) -> float | None:
        """dB; None where no scored frame shows the layer alone."""
        small = self.store.half
        texture, canvas = layer_texture(small, self.store.size, self.layer, motion, self.history)
        errors, count = 0.0, 0
        for t in scored_frames(small.frame_count):
            pure = small.share(self.layer, t) > PURE_SHARE
            if pure.any():
                error = self._error(motion, t, texture, canvas)[pure]
                errors += float(error.sum(dtype=np.float64))
                count += int(pure.sum())
        return -10 * float(np.log10(max(errors / count, 1e-10))) if count else None

    def _error(self, motion: LayerMotion, t: int, texture: np.ndarray, canvas: Size) -> np.ndarray:
        """(H, W) float32 mean squared error of the layer's colours in frame `t`."""
        small = self.store.half
        uv = resize_positions(motion.uv(t, self.store.size, small.size), motion.canvas, canvas)
        frame = small.frame(t).astype(np.float32) / 255
        seen = sample(texture, uv)
        if self.sigma_px > 0:
            sigma_px = self.sigma_px * small.size.width / self.store.size.width
            stride = max(4, int(sigma_px / 2.5))  # too wide for the finer windows: smooth light
            gain = fit_gain(frame, seen, small.share(self.layer, t), stride, sigma_px)
            assert gain.shape[:2] == lattice_shape(small.size, stride)
            seen = seen * sample_lattice(gain, stride, small.size)
        return ((seen - frame) ** 2).mean(-1)


def scored_frames(frame_count: int) -> list[int]:
    """Frames spread evenly over a window."""
    some = np.linspace(0, frame_count - 1, min(frame_count, SCORED_FRAMES))
    return sorted({int(t) for t in some.round()})


def layer_texture(
    store: ClipStore, fitted: Size, layer: int, motion: LayerMotion, history: History | None
) -> tuple[np.ndarray, Size]:
    """(h, w, 3) float32 mean texture of a layer at the scale of the store's frames; its canvas.

    Args:
        store: frames at the size that the texture is wanted for.
        fitted: the size that the motion is known for.
    """
    scale = store.size.width / fitted.width
    canvas = Size(
        max(round(motion.canvas.height * scale), 1), max(round(motion.canvas.width * scale), 1)
    )
    total = SplatSum(canvas)
    if history is not None:
        total.sums += history.sums_on(canvas)
    for t in range(store.frame_count):
        uv = resize_positions(motion.uv(t, fitted, store.size), motion.canvas, canvas)
        add_frame(total, store, layer, t, uv)
    mean, weight = total.mean()
    rgb = fill_unseen(np.ascontiguousarray(mean.permute(1, 2, 0).numpy()), weight.numpy())
    return rgb, canvas
