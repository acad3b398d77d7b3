"""A whole clip as tensors on one device, and random pixels of it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from atlas.clip import Clip
from atlas.coords import Size, pixel_grid
from atlas.errors import InputError
from atlas.progress import progress


@dataclass(frozen=True)
class VideoData:
    """Frames, masks and flow of a clip; 8 bit where the files are.

    frames: (T, 3, H, W) uint8, RGB, display-encoded.
    masks: (L - 1, T, H, W) uint8, 255 = the layer, top to bottom without the bottom one.
    flow_fwd, flow_bwd: (T - 1, 2, H, W) float32 px; motion t -> t + 1 and t + 1 -> t.
    matched_fwd, matched_bwd: (T - 1, H, W) bool; where flow there and back returns home.
    """

    frames: Tensor
    masks: Tensor
    flow_fwd: Tensor
    flow_bwd: Tensor
    matched_fwd: Tensor
    matched_bwd: Tensor

    @property
    def frame_count(self) -> int:
        return self.frames.shape[0]

    @property
    def size(self) -> Size:
        return Size(*self.frames.shape[-2:])

    def rgb(self, xyt_px: Tensor) -> Tensor:
        """(N, 3) float, [0, 1]: colours at (N, 3) whole positions x, y, t."""
        x, y, t = xyt_px.unbind(-1)
        return self.frames[t, :, y, x].float() / 255

    def mask(self, xyt_px: Tensor) -> Tensor:
        """(L - 1, N, 1) float, [0, 1]: masks at (N, 3) whole positions."""
        x, y, t = xyt_px.unbind(-1)
        return self.masks[:, t, y, x].float()[..., None] / 255

    def color_step(self, xyt_px: Tensor, axis: int) -> tuple[Tensor, Tensor]:
        """Forward difference of colour along x (axis 0) or y (axis 1).

        Returns:
            (N, 3) float difference, and (N,) bool: whether the next pixel is in the frame.
        """
        limit = (self.size.width, self.size.height)[axis] - 1
        inside = xyt_px[:, axis] < limit
        following = xyt_px.clone()
        following[:, axis] = (xyt_px[:, axis] + 1).clamp_max(limit)
        return self.rgb(following) - self.rgb(xyt_px), inside

    def matches(self, xyt_px: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Where consistent flow takes whole positions in the next (step 1) or last (-1) frame.

        Returns:
            (M,) int64, which of the N positions have a match; (M, 3) float, the match's x, y, t.
        """
        if step not in (1, -1):
            raise ValueError(f"step must be 1 or -1, got {step}")
        flow, matched = (
            (self.flow_fwd, self.matched_fwd) if step == 1 else (self.flow_bwd, self.matched_bwd)
        )
        x, y, t = xyt_px.unbind(-1)
        pair = t if step == 1 else t - 1
        has_pair = (pair >= 0) & (pair < flow.shape[0])
        index = has_pair.nonzero().squeeze(-1)
        index = index[matched[pair[index], y[index], x[index]]]
        motion = flow[pair[index], :, y[index], x[index]]
        start = xyt_px[index].float()
        ends = torch.cat([start[:, :2] + motion, start[:, 2:] + step], dim=-1)
        return index, ends


def sample_positions(video: VideoData, count: int, generator: torch.Generator) -> Tensor:
    """(count, 3) int64 random whole positions x, y, t, uniform over the clip."""
    height, width = video.size.height, video.size.width
    flat = torch.randint(
        video.frame_count * height * width,
        (count,),
        generator=generator,
        device=video.frames.device,
    )
    return torch.stack([flat % width, flat // width % height, flat // (width * height)], dim=-1)


def load_video(clip: Clip, max_cycle_error_px: float, device: torch.device) -> VideoData:
    """Read a clip folder whole; raises `InputError` for the first part that is missing."""
    clip.check()
    if max(clip.size.height, clip.size.width) < 2:
        raise InputError(f"{clip.folder}: frames are {clip.size}; wanted at least 2 pixels a side")
    count, shape = clip.frame_count, (clip.size.height, clip.size.width)
    frames = np.empty((count, *shape, 3), np.uint8)
    masks = np.empty((len(clip.info.layers) - 1, count, *shape), np.uint8)
    flow = np.empty((2, count - 1, *shape, 2), np.float32)
    matched = np.empty((2, count - 1, *shape), bool)
    for t in progress(range(count), count, "reading the clip"):
        frames[t] = clip.frame(t)
        for layer in range(len(masks)):
            masks[layer, t] = np.rint(clip.mask(layer, t) * 255)
        if t + 1 < count:
            flow[0, t], flow[1, t] = clip.flow(t, t + 1), clip.flow(t + 1, t)
            matched[0, t] = cycle_error_px(flow[0, t], flow[1, t]) < max_cycle_error_px
            matched[1, t] = cycle_error_px(flow[1, t], flow[0, t]) < max_cycle_error_px

    def channels_first(values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(device).movedim(-1, 1).contiguous()

    return VideoData(
        frames=channels_first(frames),
        masks=torch.from_numpy(masks).to(device),
        flow_fwd=channels_first(flow[0]),
        flow_bwd=channels_first(flow[1]),
        matched_fwd=torch.from_numpy(matched[0]).to(device),
        matched_bwd=torch.from_numpy(matched[1]).to(device),
    )


def cycle_error_px(there: np.ndarray, back: np.ndarray) -> np.ndarray:
    """How far flow there and back ends from where it began: |f(x) + b(x + f(x))|.

    Args:
        there, back: (H, W, 2) float32 px, between the same two frames.
    Returns:
        (H, W) float32 px; infinite where `there` leaves the frame or is not finite.
    """
    height, width = there.shape[:2]
    ends = pixel_grid(Size(height, width)) + there
    inside = (ends >= 0).all(-1) & (ends[..., 0] <= width - 1) & (ends[..., 1] <= height - 1)
    ends = np.where(inside[..., None], ends, 0).astype(np.float32)
    returned = cv2.remap(back, ends, None, cv2.INTER_LINEAR)
    error = np.linalg.norm(there + returned, axis=-1)
    return np.where(inside & np.isfinite(error), error, np.inf).astype(np.float32)
