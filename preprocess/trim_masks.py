"""Masks of things before a sky, cut along the sky's matte, which knows their edges better.

Masks from flow or from a detector run some pixels beside a thing. Before the sky that strip would
keep its old sky under a new one: as a patch beside a balloon, between the ropes of its basket.
"""

from __future__ import annotations

import cv2
import numpy as np

SURE_SKY = 0.85
RIM_PX = 3
"""How far from sure sky a thing's own opacity may be what the matte leaves."""
SEEN_SHARE = 0.5
"""A thing of which the matte calls this share sky, or more, is one that it has not seen."""


def without_sky(mask: np.ndarray, sky: np.ndarray) -> np.ndarray:
    """A mask less the sky beside its things; things that the matte takes for sky stay whole.

    Args:
        mask: (H, W) float, [0, 1]. sky: (H, W) float, [0, 1], 1 = sky.
    Returns:
        (H, W) float32.
    """
    mask, sky = mask.astype(np.float32), sky.astype(np.float32)
    kernel = np.ones((2 * RIM_PX + 1, 2 * RIM_PX + 1), np.uint8)
    near = cv2.dilate((sky > SURE_SKY).astype(np.uint8), kernel) > 0
    count, things = cv2.connectedComponents((mask > 0).astype(np.uint8), connectivity=8)
    solid = (mask > 0.5).ravel()
    sizes = np.bincount(things.ravel(), solid, count)
    skies = np.bincount(things.ravel(), solid * sky.ravel(), count)
    seen = skies < SEEN_SHARE * np.maximum(sizes, 1e-6)
    seen[0] = False
    return np.where(near & seen[things], np.minimum(mask, 1 - sky), mask)
