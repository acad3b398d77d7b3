"""Whether a clip's mattes need mending against its known sky at all.

Mending trades a matte's own errors for those of a mixing model. A rough matte gains by that, a
matte that is exact already loses. What tells them apart needs no model: a pixel that a matte calls
solid scene, and that looks exactly as the bare sky behind it does, contradicts the matte; so does
one that it calls open sky and that does not look like the sky.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from atlas.known_sky import NOISE_RANGE, REACH_PX
from atlas.mapping import FrameMapping, LayerMapping
from atlas.plain_sky import plain_sky
from atlas.texture import Texture, sample

HUE_MARGIN = 0.25
"""More of a plain sky's hue than this above the matte's share contradicts the matte."""
CHECKED_FRAMES = 8
"""Frames at most that are looked at."""
MOST_WRONG = 0.015
"""Mattes are mended where a larger share of the pixels along their edges is wrong."""
FEWEST_SKY_PIXELS = 200
"""Open sky in a frame, without which its noise is not known."""


def mending_helps(
    mapping: LayerMapping,
    frames: Callable[[int], np.ndarray],
    sky: Texture,
    gains: Callable[[int], np.ndarray] | None,
) -> bool:
    """Whether more than `MOST_WRONG` of the pixels along the sky's edges contradict the mattes.

    Args:
        mapping: the clip's mapping with the mattes in question, sky last.
        frames: t -> (H, W, 3) uint8 RGB at the mapping's own size.
        sky: the sky's texture, with `bare`. gains: t -> (H, W, 3) shading of the sky, or None.
    """
    count = min(mapping.frame_count, CHECKED_FRAMES)
    wrong, looked_at = 0, 0
    for t in sorted({int(t) for t in np.linspace(0, mapping.frame_count - 1, count).round()}):
        gain = None if gains is None else gains(t)
        contradicted, edge = contradictions(frames(t), mapping.frame(t), sky, gain)
        wrong, looked_at = wrong + contradicted, looked_at + edge
    return looked_at > 0 and wrong > MOST_WRONG * looked_at


def contradictions(
    rgb: np.ndarray, found: FrameMapping, sky: Texture, gain: np.ndarray | None
) -> tuple[int, int]:
    """How many pixels along one frame's sky edges contradict its matte, and how many there are.

    Only pixels count whose sky some frame has seen bare and that no third layer touches. What
    looks like the sky within its noise, and what looks unlike it, is told by the RGB distance.
    A plain sky contradicts a matte by its hue as well (`plain_sky`).
    """
    if sky.bare is None:
        raise ValueError("sky must come with `bare`")
    share, uv = found.visible()[-1], found.uv[-1]
    old_sky = sample(sky.rgb, uv)
    old_sky = np.clip(old_sky if gain is None else old_sky * gain, 0, 1)
    distance = np.linalg.norm(rgb.astype(np.float32) / 255 - old_sky, axis=-1)
    known = cv2.remap(sky.bare, uv[..., 0], uv[..., 1], cv2.INTER_LINEAR) > 0.9
    if len(found.alpha) > 2:
        known &= found.alpha[:-2].max(0) < 0.02
    open_sky = known & (share > 0.98)
    if open_sky.sum() < FEWEST_SKY_PIXELS:
        return 0, 0
    noise = float(np.clip(np.median(distance[open_sky]), *NOISE_RANGE))
    edge = known & _along_edges(share)
    false_scene = edge & (share < 0.6) & (distance < 1.5 * noise)
    false_sky = edge & (share > 0.95) & (distance > 6 * noise)
    wrong, looked_at = false_scene | false_sky, edge
    plain = plain_sky(rgb.astype(np.float32) / 255, share)
    if plain is not None:  # crowns before a blue sky that no frame shows bare
        crown = plain.trust > 0.5
        wrong, looked_at = wrong | (crown & (plain.key > share + HUE_MARGIN)), edge | crown
    return int(wrong.sum()), int(looked_at.sum())


def _along_edges(share: np.ndarray) -> np.ndarray:
    """(H, W) bool: within `REACH_PX` of where the sky begins."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * REACH_PX + 1,) * 2)
    is_sky = (share > 0.5).astype(np.uint8)
    return cv2.dilate(is_sky, kernel) != cv2.erode(is_sky, kernel)
