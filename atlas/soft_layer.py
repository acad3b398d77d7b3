"""Base motion of a layer that is nowhere opaque, such as a shadow, a reflection or smoke.

Its pixels show mostly what lies below, so that matching them would follow that. What tells where
it goes is its matte: the matte's centre, and how wide and high it is, are brought onto those of
the frame that shows most of it.
"""

from __future__ import annotations

import numpy as np

from atlas.base_motion import BaseMotion, place_on_canvas
from atlas.coords import pixel_grid
from atlas.store import ClipStore

SOLID = 0.5
SEEN = 0.05
LEAST_SOLID = 0.1
"""A layer is soft if less than this part of the pixels that it touches shows it by half."""
LEAST_PIXELS = 20.0
"""Opacity summed over the frame, without which a frame says nothing of the layer's place."""


def is_soft(store: ClipStore, layer: int) -> bool:
    """Whether the layer's matte hardly ever hides what is below."""
    solid, touched = 0, 0
    for t in range(0, store.frame_count, max(store.frame_count // 12, 1)):
        share = store.share(layer, t)
        solid += int((share > SOLID).sum())
        touched += int((share > SEEN).sum())
    return touched > 0 and solid < LEAST_SOLID * touched


def motion_of_matte(store: ClipStore, layer: int) -> BaseMotion:
    """Translation and scale along x and y by the matte's first and second moments.

    Frames that show too little of the layer take the motion of the nearest one that shows more.
    """
    rows = [_moments(store, layer, t) for t in range(store.frame_count)]
    shown = [t for t, row in enumerate(rows) if row[0] >= LEAST_PIXELS]
    matrices = np.tile(np.eye(3), (store.frame_count, 1, 1))
    confidence = np.zeros(store.frame_count, np.float32)
    if shown:
        reference = max(shown, key=lambda t: rows[t][0])
        _, centre, spread = rows[reference]
        for t in range(store.frame_count):
            nearest = min(shown, key=lambda other: abs(other - t))
            _, own_centre, own_spread = rows[nearest]
            scale = spread / own_spread
            matrices[t] = np.diag([*scale, 1.0])
            matrices[t, :2, 2] = centre - scale * own_centre
            confidence[t] = 1.0 if nearest == t else 0.0
    matrices, canvas = place_on_canvas(store, layer, matrices)
    return BaseMotion(matrices, canvas, confidence, "matte")


def _moments(store: ClipStore, layer: int, t: int) -> tuple[float, np.ndarray, np.ndarray]:
    """Total opacity, centre (x, y) px, standard deviations along x and y px."""
    share = np.where(store.share(layer, t) > SEEN, store.share(layer, t), 0).astype(np.float64)
    total = float(share.sum())
    if total < LEAST_PIXELS:
        return total, np.zeros(2), np.ones(2)
    at = pixel_grid(store.size).astype(np.float64)
    centre = (at * share[..., None]).sum((0, 1)) / total
    variance = (((at - centre) ** 2) * share[..., None]).sum((0, 1)) / total
    return total, centre, np.sqrt(np.maximum(variance, 1.0))
