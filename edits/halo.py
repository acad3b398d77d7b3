"""Light of the sky that spills over the edges of what stands before it."""

from __future__ import annotations

import cv2
import numpy as np

WIDE = 0.2
"""Width of the spill, as a share of the frame's width; SkyAR's."""
TIGHT = 0.025
"""Width of the bright rim close to the edge."""
_TIGHT_SHARE = 0.45


def screen(frame: np.ndarray, light: np.ndarray) -> np.ndarray:
    """1 - (1 - frame) (1 - light): light adds, white stays white; [0, 1]."""
    return 1 - (1 - frame) * (1 - light)


def skyar_halo(blend: np.ndarray, sky: np.ndarray, share: np.ndarray) -> np.ndarray:
    """SkyAR's halo, 1 - (1 - s) (1 - 0.5 blur(sky matte, W / 5)), over sky and foreground alike.

    Args:
        blend, sky: (H, W, 3) float32. share: (H, W) float32.
    """
    width = blend.shape[1] // 5
    return screen(blend, 0.5 * cv2.blur(sky * share[..., None], (width, width)))


def spill(sky: np.ndarray, share: np.ndarray) -> np.ndarray:
    """The light that the sky spills, at the resolution of its arguments.

    A wide veil and a tight rim, both blurs of the sky as it shows; sum of the kernels is 1, so no
    place gets more light than the sky next to it has.

    Args:
        sky: (h, w, 3) float32, [0, 1]. share: (h, w) float32.
    Returns:
        (h, w, 3) float32, [0, 1].
    """
    light = sky * share[..., None]
    width = share.shape[1]
    wide = cv2.GaussianBlur(light, (0, 0), max(WIDE * width / 3.46, 0.5))  # a box's deviation
    tight = cv2.GaussianBlur(light, (0, 0), max(TIGHT * width / 2, 0.5))
    return (1 - _TIGHT_SHARE) * wide + _TIGHT_SHARE * tight
