"""A long shot in overlapping windows that share one atlas per layer.

Base motion is estimated over the whole shot at once, frames streaming by. What needs many passes
over the frames (dense alignment, training) is done window by window, so that the working set does
not grow with the shot. A window is aligned to a texture that also holds what the windows before it
have settled, so that all of them share one atlas; in the overlap the maps are blended.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch

from atlas.align import History
from atlas.coords import Size
from atlas.layered import LayerMotion
from atlas.splat import SplatSum
from atlas.store import ClipStore

FEWEST_FRAMES = 16
"""A window is never shorter than this, however little memory there is."""


@dataclass(frozen=True)
class Window:
    """Frames [first, end) of a shot; the first `overlap` ones belong to the window before, too."""

    first: int
    end: int
    overlap: int = 0

    @property
    def settled(self) -> int:
        """Frames at the start that stay as the window before has left them."""
        return self.overlap // 2

    def share_of_new(self) -> np.ndarray:
        """(end - first,) float32: weight of this window's map against the one before.

        0 in the settled frames, rising evenly over the rest of the overlap, then 1.
        """
        share = np.ones(self.end - self.first, np.float32)
        rising = self.overlap - self.settled
        share[: self.settled] = 0
        share[self.settled : self.overlap] = (np.arange(rising) + 1) / (rising + 1)
        return share


def windows_of(frame_count: int, longest: int, overlap: int) -> list[Window]:
    """Windows of about one length, at most `longest`, that cover a shot."""
    if frame_count <= longest:
        return [Window(0, frame_count)]
    overlap = min(overlap, longest // 2)
    count = math.ceil((frame_count - overlap) / (longest - overlap))
    starts = [round(i * (frame_count - overlap) / count) for i in range(count + 1)]
    return [
        Window(a, min(b + overlap, frame_count), overlap if i else 0)
        for i, (a, b) in enumerate(itertools.pairwise(starts))
    ]


def frames_that_fit(size: Size, layers: int, memory_mb: float) -> int:
    """How many frames with flow and mattes, at full and at half size, `memory_mb` holds."""
    per_pixel = 3 + 1 + 2 * 4 + layers  # RGB, grey, flow there and back in float16, opacities
    frame_mb = 1.25 * per_pixel * size.width * size.height / 1e6
    return max(int(memory_mb / frame_mb), FEWEST_FRAMES)


def part_of(motion: LayerMotion, window: Window) -> LayerMotion:
    """A copy of a motion's frames in the window."""
    cut = slice(window.first, window.end)
    residual = None if motion.residual is None else np.array(motion.residual[cut])
    return replace(
        motion,
        matrices=motion.matrices[cut],
        residual=residual,
        confidence=motion.confidence[cut],
        roll=None if motion.roll is None else motion.roll.part(cut),
    )


def put_back(motion: LayerMotion, part: LayerMotion, window: Window) -> None:
    """Blend a window's residual into that of the whole shot, whose lattice becomes as fine."""
    assert motion.residual is not None
    assert part.residual is not None
    if part.stride_px < motion.stride_px:
        step = part.stride_px
        shape = part.residual.shape[1:3]
        motion.residual = np.stack(
            [_refined(r, motion.stride_px, step, shape) for r in motion.residual]
        )
        motion.stride_px = step
    elif part.stride_px > motion.stride_px:
        shape = motion.residual.shape[1:3]
        finer = [_refined(r, part.stride_px, motion.stride_px, shape) for r in part.residual]
        part = replace(part, residual=np.stack(finer), stride_px=motion.stride_px)
    assert part.residual is not None
    new = window.share_of_new()[:, None, None, None]
    cut = slice(window.first, window.end)
    motion.residual[cut] = (1 - new) * motion.residual[cut] + new * part.residual


def _refined(
    lattice: np.ndarray, stride_px: int, finer_px: int, shape: tuple[int, ...]
) -> np.ndarray:
    """(h, w, 2) float32: a lattice at the points of a finer one, bilinear."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32) * (finer_px / stride_px)
    return cv2.remap(lattice, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


class SettledTexture:
    """Splat sums of a layer's frames before a window; grows as windows are settled."""

    def __init__(self, store: ClipStore, layer: int, canvas: Size):
        self.store, self.layer = store, layer
        self.sum = SplatSum(canvas)
        self._frames = 0

    def before(self, window: Window, motion: LayerMotion) -> History | None:
        """What is settled before a window; None before the first. Windows come in order."""
        if window.first == 0:
            return None
        for t in range(self._frames, window.first):
            add_frame(self.sum, self.store, self.layer, t, motion.uv(t, self.store.size))
        self._frames = window.first
        return History(self.sum, window.settled)


def add_frame(total: SplatSum, store: ClipStore, layer: int, t: int, uv: np.ndarray) -> None:
    """Splat what frame `t` shows of a layer, by more than half, at (H, W, 2) texels `uv`."""
    share = store.share(layer, t)
    if not (share > 0.5).any():
        return
    weight = np.where(share > 0.5, share**2, 0).astype(np.float32)
    colours = torch.from_numpy(store.frame(t)).permute(2, 0, 1).float() / 255
    total.add(colours, torch.from_numpy(weight), torch.from_numpy(np.nan_to_num(uv, nan=-1e4)))
