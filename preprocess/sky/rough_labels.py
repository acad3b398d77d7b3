"""What is made of sky labels that are polygons only.

In a band round their edges they are decided anew by colour and a guided filter, and count less,
because the truth there is not known; sky that they leave out counts nothing.
"""

from __future__ import annotations

import cv2
import numpy as np

from atlas.guided import guided_filter

_BAND_PX = 5
_BAND_WEIGHT = 0.3
_GUIDED_RADIUS_PX = 6
_GUIDED_EPS = 1e-3
REACH_SHARE = 0.16
"""How far from labelled sky left-out sky is looked for, and its colour taken; in longer sides."""
_SKY_LIKE = 0.13
"""Largest difference of a colour channel from the sky nearby, where that is white."""
_GAP_SHARE = 0.004
"""Largest patch between twigs, in shares of the picture."""
_CROWN_PX = 9
_CROWN_GAPS = 0.06
"""Share of small sky-like patches in a window of `_CROWN_PX` from which it is a crown with gaps."""
_VEIL = 0.35
"""Brightness of a twig, in shares of the sky's nearby, above which the sky may shine through it."""
_ALIKE = 0.02
"""Squared colour distance of sky and ground at which colour and guided filter count alike."""


def refine_rough_label(rgb: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A matte that follows the picture's edges near those of a polygon, and its trust.

    Within `_BAND_PX` of the polygon's edge the colour c of a pixel decides between the mean colours
    s and g of sky and ground beyond the band, nearby: a = (c - g).(s - g) / |s - g|^2; where s and
    g are alike, the guided filtering of the label does. There the trust is `_BAND_WEIGHT`, else 1.

    Args:
        rgb: (H, W, 3) uint8.
        label: (H, W) float32, 1 = sky.
    Returns:
        matte and weight, both (H, W) float32 in [0, 1].
    """
    sky = (label > 0.5).astype(np.uint8)
    kernel = np.ones((3, 3), np.uint8)
    grown = cv2.dilate(sky, kernel, iterations=_BAND_PX, borderValue=0)
    shrunk = cv2.erode(sky, kernel, iterations=_BAND_PX, borderValue=1)
    band = grown != shrunk
    refined = guided_filter(rgb, label.astype(np.float32), _GUIDED_RADIUS_PX, _GUIDED_EPS)
    colours = rgb.astype(np.float32) / 255
    sky_colour = smooth_under(colours, shrunk.astype(np.float32), 3 * _BAND_PX)
    ground_colour = smooth_under(colours, 1 - grown.astype(np.float32), 3 * _BAND_PX)
    axis = sky_colour - ground_colour
    length2 = (axis * axis).sum(axis=2)
    place = ((colours - ground_colour) * axis).sum(axis=2) / np.maximum(length2, 1e-6)
    by_colour = length2 / (length2 + _ALIKE)
    refined += by_colour * (np.clip(1.4 * place - 0.2, 0, 1) - refined)
    matte = np.where(band, np.clip(refined, 0, 1), sky.astype(np.float32))
    return matte.astype(np.float32), np.where(band, _BAND_WEIGHT, 1.0).astype(np.float32)


def sky_left_out(rgb: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Where a polygon calls ground what looks like the sky beside it: nothing is known there.

    Two cases: gaps between the twigs of a crown that the polygon counted as ground whole, that is
    small patches of the sky's colour near the sky, and the paler twigs beside them, which the sky
    shines through; and parts that run into the labelled sky without an edge between. Large patches
    beyond an edge (a pale wall) stay ground.

    Args:
        rgb: (H, W, 3) uint8.
        label: (H, W) float32, 1 = sky.
    Returns:
        (H, W) bool.
    """
    sky = label > 0.5
    if not sky.any():
        return np.zeros(label.shape, bool)
    reach = round(REACH_SHARE * max(label.shape))
    colours = cv2.GaussianBlur(rgb, (0, 0), 0.7).astype(np.float32) / 255
    local = sky_nearby(colours, sky)
    limit = _SKY_LIKE * np.clip(local.max(axis=2), 0.2, 1)
    alike = (np.abs(colours - local).max(axis=2) < limit) & ~sky
    nearness = cv2.distanceTransform((~sky).astype(np.uint8), cv2.DIST_L2, 3)
    alike &= nearness < reach
    count, patches, stats, _ = cv2.connectedComponentsWithStats(alike.astype(np.uint8), None, 4)
    small = stats[:, cv2.CC_STAT_AREA] < _GAP_SHARE * label.size
    touching = np.bincount(patches[alike & (nearness < 2)], minlength=count)
    joined = touching > 0.5 * np.sqrt(stats[:, cv2.CC_STAT_AREA])
    small[0] = joined[0] = False
    gaps = small[patches]
    crown = cv2.blur(gaps.astype(np.float32), (_CROWN_PX, _CROWN_PX)) > _CROWN_GAPS
    veiled = crown & ~sky & (rgb.mean(axis=2) > 255 * _VEIL * local.mean(axis=2))
    return gaps | joined[patches] | veiled


def sky_nearby(colours: np.ndarray, sky: np.ndarray) -> np.ndarray:
    """(H, W, 3) float32: mean colour of the labelled sky within `REACH_SHARE`, its rim left out.

    Args:
        colours: (H, W, 3) float32. sky: (H, W) bool.
    """
    inner = cv2.erode(sky.astype(np.uint8), np.ones((3, 3), np.uint8), iterations=2)
    return smooth_under(colours, inner.astype(np.float32), round(REACH_SHARE * max(sky.shape)))


def smooth_under(rgb: np.ndarray, alpha: np.ndarray, radius_px: int) -> np.ndarray:
    """Local mean colour of what `alpha` marks (normalised convolution): (H, W, 3) float32.

    Far from any marked pixel it falls back to the mean over the picture.
    """
    window = (2 * radius_px + 1, 2 * radius_px + 1)
    marked = np.clip(alpha * 2 - 1, 0, 1)[..., None]
    total = marked.sum()
    mean = (rgb * marked).sum((0, 1)) / total if total > 1 else rgb.mean((0, 1))
    local = cv2.blur(rgb * marked, window) + 1e-3 * mean.astype(np.float32)
    return local / (cv2.blur(marked, window)[..., None] + 1e-3)
