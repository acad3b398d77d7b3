"""What the edge network sees: the frame at full size, the sky's colour, and the matte so far.

Behind a crown, a wire or a roof the sky has a colour that the open sky round it gives, a smooth
function of the place (`atlas.plain_sky.smooth_sky`, and the mean of what is left near by). Where
the frame has that colour, in small patches among dark things, it shows sky; that a pale wall may
have it too, and how the patches then look, is for the network to learn.
"""

from __future__ import annotations

import cv2
import numpy as np

from atlas.plain_sky import smooth_sky

CHANNELS = 9
LEAST_OPEN = 0.004
"""Share of the frame that must show open sky for its colour to be known."""
MOST_LOGIT = 7.0
"""Surer than this the small matte never counts."""
_OPEN = 0.95
_WINDOWS = ((1 / 16, 1.0), (1 / 6, 0.05), (1 / 2, 0.0025))
"""Half width of each window, in widths of the frame, and what a sky pixel in it weighs."""


def open_sky(small: np.ndarray, coarse: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """The colour of the sky at every place, also behind things, and how far it scatters there.

    Args:
        small: (h, w, 3) uint8. coarse: (h, w) float32, its matte.
    Returns:
        (h, w, 3) float32 in [0, 1]; (h, w) float32, standard deviation as an RGB distance. None
        without open sky.
    """
    seen = cv2.erode((coarse > _OPEN).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    if seen.mean() < LEAST_OPEN:
        return None
    frame = small.astype(np.float32) * np.float32(1 / 255)
    smooth = smooth_sky(frame, seen).color()
    mask = seen.astype(np.float32)
    left = (frame - smooth) * mask[..., None]
    # planes: what is left over of three colours, its square, the mask
    planes = cv2.merge([*cv2.split(left), np.einsum("hwc,hwc->hw", left, left), mask])
    total = np.zeros((*mask.shape, 5), np.float32)
    total[..., 4] = 1e-6
    for half, weight in _WINDOWS:
        side = 2 * round(half * mask.shape[1]) + 1
        total += weight * cv2.blur(planes, (side, side), borderType=cv2.BORDER_CONSTANT)
    total /= total[..., 4:]
    mean = total[..., :3]
    variance = total[..., 3] - np.einsum("hwc,hwc->hw", mean, mean)
    return np.clip(smooth + mean, 0, 1), np.sqrt(np.maximum(variance, 0))


def small_planes(small: np.ndarray, coarse: np.ndarray) -> np.ndarray | None:
    """The open sky's colour, its scatter and the matte's logit: (h, w, 5) float32.

    None where no open sky is seen.
    """
    found = open_sky(small, coarse)
    if found is None:
        return None
    return cv2.merge([*cv2.split(found[0]), found[1], logit_of(coarse)])


def logit_of(coarse: np.ndarray) -> np.ndarray:
    """The logit of a matte (h, w), within `MOST_LOGIT`."""
    least = 1 / (1 + np.exp(MOST_LOGIT))
    inner = np.clip(coarse, least, 1 - least)
    return np.log(inner / (1 - inner)).astype(np.float32)


def channels(rgb: np.ndarray, planes: np.ndarray, first: np.ndarray) -> np.ndarray:
    """The network's input (9, H, W) float32.

    The frame, what it is off the open sky's colour, the scatter of that, the matte as refined by
    `refine.refine_matte`, the small matte's logit.

    Args:
        rgb: (H, W, 3) float32 in [0, 1]. planes: (H, W, 5) float32, `small_planes` enlarged.
        first: (H, W) float32 in [0, 1].
    """
    off = np.clip((rgb - planes[..., :3]) * 8, -3, 3)
    scatter = np.minimum(planes[..., 3] * 20, 3)
    return np.concatenate(
        [
            ((rgb - 0.5) * 4).transpose(2, 0, 1),
            off.transpose(2, 0, 1),
            scatter[None],
            (first[None] - 0.5) * 4,
            planes[None, ..., 4] / 3,
        ]
    ).astype(np.float32)
