"""Exact edges from the known old sky: what lies before a sky is told from the sky's own atlas.

A camera that pans sees most of the sky bare in some frame. Where the atlas knows the sky behind a
pixel, the matte need not be guessed: the pixel is a mixture I = a F + (1 - a) S of a colour F of
the scene near by and the sky S, and a follows (difference matting with a known background: Smith
and Blinn 1996; Qian and Sezan 1999). A coarse matte that calls the whole crown of a tree "scene"
comes out as twigs.
"""

from __future__ import annotations

import cv2
import numpy as np

from atlas.channels import length
from atlas.mapping import FrameMapping
from atlas.plain_sky import plain_sky
from atlas.texture import Texture, fill_unseen, sample

NOISE_RANGE = (0.012, 0.05)
"""Bounds on the noise between atlas and frame, RGB distance with colours in [0, 1]."""
SCENE_WINDOW_PX = 25
"""Width of the window in which the scene's own colour is looked for; pixels."""
GROSS_ERROR = (0.05, 0.2)
"""Differences of share below the first are left alone, above the second mended whole."""
REACH_PX = 5
"""How far beyond what the matte calls scene its edges may lie, pixels."""


def refine_sky_share(
    rgb: np.ndarray,
    mapping: FrameMapping,
    sky: Texture,
    gain: np.ndarray | None,
    scale: float = 1.0,
) -> np.ndarray:
    """The share of each pixel that shows the bottom layer, a sky, mended where the atlas knows it.

    Only pixels at or inside what the matte calls scene change; the open sky, where clouds may have
    moved, and pixels whose sky no frame has seen bare keep their share, as do those whose sky and
    scene have one colour.

    Args:
        rgb: (H, W, 3) uint8. mapping: the frame's mapping, sky last.
        sky: the sky's texture, with `bare`.
        gain: (H, W, 3) float32 shading of the sky in this frame; None = 1.
        scale: how much larger the frame is than the one that the matte was made for, >= 1; the
            distances that this works with grow with it.
    Returns:
        (H, W) float32, [0, 1].
    """
    if sky.bare is None:
        raise ValueError("sky must come with `bare`")
    share = mapping.visible()[-1]
    above = mapping.alpha[:-2].max(0) if len(mapping.alpha) > 2 else np.zeros_like(share)
    frame = rgb.astype(np.float32) / 255
    uv = mapping.uv[-1]
    old_sky = sample(sky.rgb, uv)
    old_sky = np.clip(old_sky if gain is None else old_sky * gain, 0, 1)
    known = cv2.remap(sky.bare, uv[..., 0], uv[..., 1], cv2.INTER_LINEAR)  # 0 off the canvas
    plain = plain_sky(frame, share)
    if plain is not None:
        old_sky += plain.trust[..., None] * (plain.color - old_sky)
        known = np.maximum(known, plain.trust)
    distance = length(frame - old_sky)
    open_sky = (share > 0.98) & (known > 0.9)
    if open_sky.sum() < 200:
        return share
    noise = float(np.clip(np.median(distance[open_sky]), *NOISE_RANGE))
    near_doubt, near_scene = _near(share < 0.98, scale), _near(share < 0.5, scale)
    # all others stay as they are: `GROSS_ERROR` leaves alone what could change by the rest of 0.98
    at = np.nonzero((known > 0) & ((share < 0.98) | (near_scene > 0)))
    if not len(at[0]):
        return share
    scene = _scene_color(frame, distance, share, noise, scale)[at]
    mixing, solid, told_apart = _mixing(frame[at], old_sky[at], scene, distance[at], noise)
    before, bare_above = share[at], 1 - above[at]
    most = bare_above * (1 - np.maximum(mixing, solid))
    least = bare_above * (1 - mixing * (1 - solid))
    if plain is not None:  # a hue tells more than a colour among twigs finer than a pixel
        seen_through, by_hue = plain.trust[at] > 0, bare_above * plain.key[at]
        most, least = (np.where(seen_through, by_hue, x) for x in (most, least))
        told_apart = np.maximum(told_apart, seen_through)
    # More sky wherever the matte has any doubt. Less of it only where the matte sees a scene near
    # by and a mixture explains the pixel, since clouds that moved look like things before a sky.
    gain_of_sky = near_doubt[at] * np.maximum(most - before, 0)
    loss_of_sky = near_scene[at] * np.maximum(before - least, 0)
    change = known[at] * bare_above * told_apart * (gain_of_sky - loss_of_sky)
    # A matte that is nearly right is more right than this: it overrules gross errors only.
    low, high = GROSS_ERROR
    change *= np.clip((np.abs(change) - low) / (high - low), 0, 1)
    out = share.copy()
    out[at] = (before + change).clip(0, 1)
    return out


def _near(where: np.ndarray, scale: float) -> np.ndarray:
    """(H, W) float32: 1 within `REACH_PX` of the pixels given, falling off softly."""
    height, width = where.shape
    small = (max(round(width / scale), 1), max(round(height / scale), 1))
    marked = where.astype(np.float32)
    if small != (width, height):  # what is near is told as well on a grid as coarse as the matte's
        marked = cv2.resize(marked, small, interpolation=cv2.INTER_AREA)
        marked = (marked > 0).astype(np.float32)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * REACH_PX + 1,) * 2)
    soft = cv2.GaussianBlur(cv2.dilate(marked, kernel), (0, 0), 1.5)
    return cv2.resize(soft, (width, height), interpolation=cv2.INTER_LINEAR)


def _mixing(
    frame: np.ndarray, old_sky: np.ndarray, scene: np.ndarray, distance: np.ndarray, noise: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What each of N pixels says of the scene's share in it, three times (N,).

    mixing: its place between the sky's colour (0) and the scene's (1). solid: how surely no such
    mixture explains it: a thing of another colour. told_apart: whether the two colours differ.

    Args:
        frame, old_sky, scene: (N, 3) colours of the pixel, the sky behind it, the scene about it.
        distance: (N,) of the first two.
    """
    axis = old_sky - scene
    length2 = np.einsum("ni,ni->n", axis, axis)
    along = np.einsum("ni,ni->n", old_sky - frame, axis) / np.maximum(length2, 1e-6)
    mixing = np.clip(along, 0, 1)
    unexplained = frame - old_sky + mixing[:, None] * axis
    beside = np.sqrt(np.einsum("ni,ni->n", unexplained, unexplained)) / noise
    # what lies on the sky's far side of the scene is sky: there the atlas is a little off
    solid = np.clip((beside - 4) / 4, 0, 1) * np.clip((along - 0.1) / 0.2, 0, 1)
    # within the noise of the sky's own colour it is sky, however short the axis is
    differs = np.clip((distance / noise - 1.5) / 1.5, 0, 1)
    told_apart = (length2 > (6 * noise) ** 2) | (distance < 1.5 * noise)
    return mixing * differs, solid * differs, told_apart


def _scene_color(
    frame: np.ndarray, distance: np.ndarray, share: np.ndarray, noise: float, scale: float
) -> np.ndarray:
    """(H, W, 3) the scene's own colour about each pixel: that of pixels farthest from the sky's.

    A mean over `SCENE_WINDOW_PX` in which a pixel's weight grows with the fourth power of its
    distance to the sky, so that the middle of a branch counts and its mixed edges do not.
    """
    squared = np.square(np.maximum(distance - 4 * noise, 0))
    weight = ((1 - share) * squared * squared).astype(np.float32)
    side = 2 * round(SCENE_WINDOW_PX * scale / 2) + 1
    window = (side, side)
    total = cv2.blur(weight, window)
    mean = cv2.blur(frame * cv2.merge([weight] * 3), window)
    mean /= cv2.merge([np.maximum(total, 1e-12)] * 3)
    return fill_unseen(mean, (total > 1e-9).astype(np.float32))


def layer_above(mapping: FrameMapping, sky_share: np.ndarray) -> np.ndarray:
    """(L, H, W) alpha with that of the layer just above the bottom changed to leave `sky_share`."""
    alpha = mapping.alpha.copy()
    through = np.prod(1 - alpha[:-2], axis=0) if len(alpha) > 2 else np.ones_like(sky_share)
    open_enough = through > 0.05
    wanted = 1 - sky_share / np.where(open_enough, through, 1)
    alpha[-2] = np.where(open_enough, wanted.clip(0, 1), alpha[-2])
    return alpha
