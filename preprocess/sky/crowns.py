"""Bare crowns that a polygon calls ground whole: where they are, and how much sky shows in them.

Polygons of street scenes go round crowns, not round twigs. A crown before the sky is many small
patches of the sky's own colour among darker lines, and such patches lead from it to the labelled
sky in small steps. White cars, windows and shop fronts are no less like a white sky, but walls and
roofs lie between.
"""

from __future__ import annotations

import cv2
import numpy as np

from preprocess.sky.rough_labels import sky_nearby

_ALIKE = 0.08
"""Largest difference of a colour channel from the sky nearby, where that is white."""
_WINDOW_SHARE = 0.048
"""Side of the window in which patches are counted, in longer sides of the picture."""
_PATCHES = 6
"""Patches in that window from which it may be a crown."""
_SMALL_SHARE = 4e-4
"""Largest patch that is counted, in shares of the picture."""
_LARGE_SHARE = 4e-3
"""Largest patch that is taken for a gap at all."""
_DARK = 0.8
"""Brightness of a twig, in shares of the sky's nearby, below which it is one."""
_DARK_SHARE = 0.2
_STEP_SHARE = 0.014
"""Longest way from one patch to the next, in longer sides."""
_STEPS = 60
_TWIG_SHARE = 0.02
"""Radius in which the darkest colour is taken for that of the twigs, in longer sides."""


def crown_sky(rgb: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How much sky shows in crowns that a polygon calls ground.

    In a crown the opacity of a pixel of colour c is (c - t) . (s - t) / |s - t|^2, s the colour of
    the labelled sky nearby and t that of the darkest twig.

    Args:
        rgb: (H, W, 3) uint8.
        label: (H, W) float32, 1 = sky; hard.
    Returns:
        crown (H, W) bool: pixels of crowns, outside the labelled sky; alpha (H, W) float32: the
        share of sky in them, 0 elsewhere.
    """
    sky = label > 0.5
    if not sky.any():
        return np.zeros(label.shape, bool), np.zeros(label.shape, np.float32)
    side = max(label.shape)
    colours = rgb.astype(np.float32) / 255
    local = sky_nearby(colours, sky)
    limit = _ALIKE * np.clip(local.max(axis=2), 0.2, 1)
    alike = (np.abs(colours - local).max(axis=2) < limit) & ~sky
    _, patches, stats, centres = cv2.connectedComponentsWithStats(alike.astype(np.uint8), None, 4)
    area = stats[:, cv2.CC_STAT_AREA]
    marks = np.zeros(label.shape, np.float32)
    for x, y in centres[1:][area[1:] < _SMALL_SHARE * label.size]:
        marks[int(y), int(x)] += 1
    window = 2 * round(_WINDOW_SHARE * side / 2) + 1
    twigs = (colours.max(axis=2) < _DARK * local.max(axis=2)).astype(np.float32)
    dense = cv2.boxFilter(marks, -1, (window, window), normalize=False) > _PATCHES
    dense &= cv2.blur(twigs, (window, window)) > _DARK_SHARE
    step_px = max(1, round(_STEP_SHARE * side))
    dense = cv2.dilate(dense.astype(np.uint8), _disc(step_px)) > 0
    gaps = alike & dense & (area[patches] < _LARGE_SHARE * label.size)
    reached = _reached(sky, gaps, step_px)
    near = cv2.dilate(reached.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    crown = near & dense & ~sky
    radius = max(1, round(_TWIG_SHARE * side))
    twig = cv2.erode(colours, np.ones((2 * radius + 1, 2 * radius + 1), np.uint8))
    axis = local - twig
    place = ((colours - twig) * axis).sum(axis=2) / np.maximum((axis * axis).sum(axis=2), 1e-3)
    return crown, np.where(crown, np.clip(place, 0, 1), 0).astype(np.float32)


def _reached(sky: np.ndarray, gaps: np.ndarray, step_px: int) -> np.ndarray:
    """(H, W) bool: the gaps that steps of `step_px` from gap to gap reach from `sky`."""
    disc = _disc(step_px)
    reached = sky.copy()
    for _ in range(_STEPS):
        grown = cv2.dilate(reached.astype(np.uint8), disc) > 0
        more = gaps & grown & ~reached
        if not more.any():
            break
        reached |= more
    return reached & ~sky


def _disc(radius_px: int) -> np.ndarray:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius_px + 1, 2 * radius_px + 1))
