"""Refined mattes averaged over the frames before and after each, as the picture moves.

A neighbour's say is its own matte, carried by optical flow and made to follow the picture
(`temporal.followed`); it counts where the carried frame looks like this one and mattes agree over
areas. Each neighbour is carried once, straight from its own frame: nothing drifts, nothing trails,
and twigs stay as sharp as they are in single frames.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from preprocess.sky.temporal import (
    SteadyOptions,
    area_difference,
    carry,
    followed,
    largest_channel,
    matte_slope,
    small_flow,
)

_NOISE = 15.0
"""8-bit levels: changes of grey small against this are taken for noise, not for another cover."""
_TOLERANCE = 30.0
"""Colour difference after carrying, 8-bit levels, at which a neighbour counts 1/e."""


@dataclass(frozen=True)
class RefinedFrame:
    """A frame and its matte at full size."""

    rgb: np.ndarray
    """(H, W, 3) uint8."""
    matte: np.ndarray
    """(H, W) float32."""
    settled: bool = False
    """The matte is the user's own: it counts for its neighbours and stays as it is."""

    @cached_property
    def half_grey(self) -> np.ndarray:
        """(h, w) uint8 at half the size: fine enough for the flow and the slope."""
        return _half(cv2.cvtColor(self.rgb, cv2.COLOR_RGB2GRAY))

    @cached_property
    def half_slope(self) -> np.ndarray:
        """(h, w) float32: `matte_slope`."""
        return matte_slope(self.half_grey, _half(self.matte))


def averaged_around(frames: Iterable[RefinedFrame], options: SteadyOptions) -> Iterator[np.ndarray]:
    """Each frame's matte averaged with those of up to `options.around` frames on either side.

    Frames of another size are of another clip and have no say.

    Yields:
        (H, W) float32, in order, `around` frames behind; memory holds 2 around + 1 frames.
    """
    window: deque[RefinedFrame] = deque()
    at = 0  # of the next frame to give, in the window
    for frame in frames:
        window.append(frame)
        if len(window) > at + options.around:
            yield _averaged(window, at, options)
            if at == options.around:
                window.popleft()
            else:
                at += 1
    while at < len(window):
        yield _averaged(window, at, options)
        at += 1
        if at > options.around:
            window.popleft()
            at -= 1


def _averaged(window: deque[RefinedFrame], at: int, options: SteadyOptions) -> np.ndarray:
    """(H, W) float32: the matte of `window[at]` and what the others say of it, weighted."""
    frame = window[at]
    if frame.settled:
        return frame.matte
    total, weight = frame.matte.copy(), np.ones_like(frame.matte)
    for i, other in enumerate(window):
        if i != at and other.rgb.shape == frame.rgb.shape:
            matte, share = _said_by(other, frame, options)
            total += share * matte
            weight += share
    return total / weight


def _said_by(
    other: RefinedFrame, frame: RefinedFrame, options: SteadyOptions
) -> tuple[np.ndarray, np.ndarray]:
    """What a neighbour says of a frame's matte (H, W), and how much it counts (H, W)."""
    half_flow = small_flow(frame.half_grey, other.half_grey, options.flow)
    half_slope = (carry(other.half_slope, half_flow) + frame.half_slope) / 2
    scale = np.divide(frame.matte.shape[::-1], half_flow.shape[1::-1]).astype(np.float32)
    flow = _enlarged(half_flow * scale, frame.matte)
    rgb = carry(other.rgb, flow)
    grey, was = (cv2.cvtColor(p, cv2.COLOR_RGB2GRAY) for p in (frame.rgb, rgb))
    change = cv2.subtract(grey, was, dtype=cv2.CV_32F)
    change *= 1 - cv2.exp(-((change / _NOISE) ** 2))
    matte = followed(carry(other.matte, flow), _enlarged(half_slope, frame.matte), change)
    colours = largest_channel(cv2.absdiff(rgb, frame.rgb)).astype(np.float32)
    surprise = area_difference(matte, frame.matte)
    share = cv2.exp(-((colours / _TOLERANCE) ** 2 + (surprise / options.surprise) ** 2))
    return matte, share


def _half(values: np.ndarray) -> np.ndarray:
    """`values` (H, W) at half the size."""
    wh = (max(1, values.shape[1] // 2), max(1, values.shape[0] // 2))
    return cv2.resize(values, wh, interpolation=cv2.INTER_AREA)


def _enlarged(values: np.ndarray, like: np.ndarray) -> np.ndarray:
    """`values` (h, w) or (h, w, C) at the size of `like` (H, W)."""
    return cv2.resize(values, like.shape[1::-1], interpolation=cv2.INTER_LINEAR)
