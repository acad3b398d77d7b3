"""What colour a layer has of its own where a pixel shows several layers at once.

Along hair, leaves and wires a pixel is share * own + rest. To change the layer without a fringe,
its own colour there must be known: from the atlas, from the layer's pixels near by, or from both.
"""

from __future__ import annotations

from collections.abc import Callable
from types import EllipsisType

import cv2
import numpy as np

Index = tuple[slice | np.ndarray, slice | np.ndarray] | EllipsisType
"""Some pixels of a picture, by its first two axes."""
WORK_WIDTH_PX = 320
"""Colours are diffused at about this width: what is not seen can only be guessed smoothly."""
_TRUST_DOUBLINGS = 5
"""A pixel's say in what the layer's colour is: its share to the power 2^5, half at 0.98."""
_EMPTY = 1e-5


def own_color(frame: np.ndarray, share: np.ndarray, estimate: np.ndarray) -> np.ndarray:
    """The layer's own colour nearest to `estimate` that can have made these pixels.

    frame = share * own + rest, where the rest (the other layers, premultiplied) must lie in
    [0, 1 - share]; so own lies in [(frame - 1 + share) / share, frame / share]. Where the share is
    1 that leaves the frame's colour itself. This keeps composites in range however wrong the
    estimate is (clouds that moved, light that changed).

    Args:
        frame: (..., 3) float, [0, 1]. share: (..., 1) float, [0, 1].
        estimate: (..., 3) float.
    Returns:
        (..., 3) float, [0, 1]; where the share is 0, the estimate.
    """
    safe = np.maximum(share, 1e-6)
    low = np.maximum((frame - 1 + share) / safe, 0)
    high = np.minimum(frame / safe, 1)
    return np.clip(estimate, low, np.maximum(high, low))


def estimate_color(
    frame: np.ndarray, share: np.ndarray, prior: np.ndarray | None = None
) -> np.ndarray:
    """Guess the layer's own colour at every pixel from pixels that show nothing else.

    Without a prior the colours of those pixels are diffused into the others. With a prior (the
    atlas seen through the mapping) the least change to it that explains the pixel is diffused
    instead: it takes up what the light has done since, and is nothing where the prior is right.

    Args:
        frame: (H, W, 3) float32, [0, 1]. share: (H, W) float32, [0, 1].
        prior: (H, W, 3) float32 or None.
    Returns:
        (H, W, 3) float32; `prior` (or `frame`) itself where no pixel shows the layer alone.
    """
    return estimate_at(frame, share, lambda at: None if prior is None else prior[at], ...)


def estimate_at(
    frame: np.ndarray,
    share: np.ndarray,
    prior: Callable[[Index], np.ndarray | None],
    at: Index,
) -> np.ndarray:
    """`estimate_color` of the pixels `at`, for a prior that is made where it is needed."""
    height, width = share.shape
    factor = max(1.0, width / WORK_WIDTH_PX)
    small = (max(1, round(width / factor)), max(1, round(height / factor)))
    step = int(factor)  # every pixel has no more to say than every second or third
    few = slice(None, None, step), slice(None, None, step)
    some, weight, some_prior = frame[few], share[few].copy(), prior(few)
    if some_prior is not None:
        some = own_color(some, weight[..., None], some_prior) - some_prior
    for _ in range(_TRUST_DOUBLINGS):
        np.multiply(weight, weight, out=weight)
    weighted = some * cv2.merge([weight] * 3)
    filled = push_pull(
        np.dstack(
            [
                cv2.resize(weighted, small, interpolation=cv2.INTER_AREA),
                cv2.resize(weight, small, interpolation=cv2.INTER_AREA),
            ]
        )
    )
    wanted = None if some_prior is None else prior(at)
    if filled is None:
        return frame[at] if wanted is None else wanted
    spread = cv2.resize(filled, (width, height), interpolation=cv2.INTER_LINEAR)[at]
    return spread if wanted is None else wanted + spread


def push_pull(weighted: np.ndarray) -> np.ndarray | None:
    """Fill in what is missing from ever coarser averages (Gortler et al. 1996, section 3.4.2).

    Args:
        weighted: (H, W, 4) float32, values times weight, and weight in [0, 1].
    Returns:
        (H, W, 3) float32 values everywhere; None when no weight is given at all.
    """
    levels = [weighted]
    while max(levels[-1].shape[:2]) > 1:
        height, width = levels[-1].shape[:2]
        half = (max(1, (width + 1) // 2), max(1, (height + 1) // 2))
        coarse = cv2.resize(levels[-1], half, interpolation=cv2.INTER_AREA)
        # Four texels became one: their joint evidence is their sum, but never more than certain.
        gain = np.minimum(4, 1 / np.maximum(coarse[..., 3:], _EMPTY))
        levels.append(coarse * gain)
    if levels[-1][0, 0, 3] < _EMPTY:
        return None
    filled = levels[-1][..., :3] / np.maximum(levels[-1][..., 3:], _EMPTY)
    for level in reversed(levels[:-1]):
        height, width = level.shape[:2]
        above = cv2.resize(filled, (width, height), interpolation=cv2.INTER_LINEAR)
        filled = level[..., :3] + (1 - level[..., 3:]) * above
    return filled
