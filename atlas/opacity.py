"""Clean mattes from rough masks: what lies in front and what lies behind are both known.

Once textures are fitted, both colours that meet at a layer's edge are known at every pixel: F of
the layer, B of all that is below. Where a mask runs beside the true edge, a strip of pixels shows
the one where the mask says the other. The mask's edge is moved, by an offset that is even along it,
to where the composite explains the frame best (a level set moved by what both sides predict: Chan
and Vese 2001, with pictures for their constants). A matte solved pixel by pixel (difference
matting) explains the frame better still, but every error of the textures ends up in it.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from atlas.boxes import box_about
from atlas.mapping import FrameMapping, visible_shares
from atlas.texture import Texture, sample

REACH_PX = 7
"""How far the edge may move at most, pixels."""
SOFT_PX = 1.6
"""Width of the ramp from clear to opaque across the edge, pixels."""
WINDOW_PX = 13
"""Side of the window in which the edge moves as one; pixels, odd."""
PENALTY = 7e-4
"""What a move of one pixel must gain: mean squared RGB error over the window."""
ENOUGH_PX = 0.7
"""Moves shorter than this leave the mask as it is."""


SOFTNESS_PX = (0.0, 0.5, 0.8, 1.2)
"""How much the edges of masks may be blurred, standard deviations in pixels."""
EDGE_PX = 4
"""How far from an edge its softness is judged."""


@dataclass(frozen=True)
class _Sides:
    """What one layer's edge is judged by; all (h, w, 3) float32."""

    frame: np.ndarray
    front: np.ndarray
    behind: np.ndarray


def refine_opacity(
    rgb: np.ndarray,
    found: FrameMapping,
    textures: list[Texture],
    gains: np.ndarray | None,
    keep: int,
) -> np.ndarray:
    """(L, H, W) float32: the layers' opacity, the edges of the upper ones moved into place.

    Args:
        rgb: (H, W, 3) uint8. found: the frame's mapping with its rough opacity.
        gains: (L, H, W, 3) float32 shading; None = 1.
        keep: how many of the lowest layers keep their opacity; >= 1.
    """
    frame = rgb.astype(np.float32) / 255
    colours = [sample(texture.rgb, uv) for texture, uv in zip(textures, found.uv, strict=True)]
    if gains is not None:
        colours = [colour * gain for colour, gain in zip(colours, gains, strict=True)]
    alpha = found.alpha.copy()
    behind = colours[-1]
    for i in range(len(textures) - 2, -1, -1):
        if i < len(textures) - keep:
            open_here = np.prod(1 - found.alpha[:i], axis=0) if i else np.ones_like(alpha[i])
            box = box_about(alpha[i] > 0.02, 2 * REACH_PX)
            if box is not None:
                sides = _Sides(frame[box.cut], colours[i][box.cut], behind[box.cut])
                alpha[i][box.cut] = move_edge(sides, alpha[i][box.cut], open_here[box.cut])
        behind = behind + alpha[i][..., None] * (colours[i] - behind)
    return alpha


def softened(alpha: np.ndarray, sigma_px: float, keep: int) -> np.ndarray:
    """(L, H, W) float32 opacities, edges of all but the `keep` lowest layers blurred."""
    out = alpha.copy()
    if sigma_px > 0:
        for i in range(len(alpha) - keep):
            out[i] = cv2.GaussianBlur(alpha[i], (0, 0), sigma_px)
    return out


def softness_errors(
    rgb: np.ndarray,
    found: FrameMapping,
    textures: list[Texture],
    gains: np.ndarray | None,
    keep: int,
) -> np.ndarray:
    """(len(SOFTNESS_PX),) squared RGB error near the edges under each softness; see `softened`.

    A mask's edge is hard; the camera's is a pixel wide or, where things move, wider.
    """
    frame = rgb.astype(np.float32) / 255
    colours = [sample(texture.rgb, uv) for texture, uv in zip(textures, found.uv, strict=True)]
    if gains is not None:
        colours = [colour * gain for colour, gain in zip(colours, gains, strict=True)]
    near = np.zeros(frame.shape[:2], bool)
    for plane in found.alpha[: len(textures) - keep]:
        inside = (plane > 0.5).astype(np.uint8)
        if inside.any() and not inside.all():
            near |= np.abs(signed_distance(inside)) < EDGE_PX
    errors = np.zeros(len(SOFTNESS_PX))
    if near.any():
        colours = [colour[near] for colour in colours]
        for i, sigma_px in enumerate(SOFTNESS_PX):
            shares = visible_shares(softened(found.alpha, sigma_px, keep))
            seen = sum(s[near][:, None] * c for s, c in zip(shares, colours, strict=True))
            errors[i] = np.square(frame[near] - seen).sum(dtype=np.float64)
    return errors


def move_edge(sides: _Sides, mask: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """(H, W) float32: the mask, its edge moved to where the composite explains the frame.

    Args:
        mask: (H, W) float32. weight: (H, W) float32, how much of the pixel nothing in front hides.
    """
    inside = (mask > 0.5).astype(np.uint8)
    if not inside.any() or inside.all():
        return mask
    signed = signed_distance(inside)
    near = (np.abs(signed) < REACH_PX + 2).astype(np.float32) * weight
    offset = _best_offset(sides, signed, near)
    moved = np.abs(offset) - ENOUGH_PX
    shifted = np.clip(0.5 + (signed + offset) / SOFT_PX, 0, 1)
    change = np.clip(moved / 0.4, 0, 1) * (np.abs(signed) < REACH_PX + 2)
    return (mask + change * (shifted - mask)).astype(np.float32)


def signed_distance(inside: np.ndarray) -> np.ndarray:
    """(H, W) float32: pixels to the edge of a (H, W) uint8 mask of 0 and 1, positive inside."""
    within = cv2.distanceTransform(inside, cv2.DIST_L2, 5)
    without = cv2.distanceTransform(1 - inside, cv2.DIST_L2, 5)
    return np.where(inside > 0, within - 0.5, 0.5 - without).astype(np.float32)


def _best_offset(sides: _Sides, signed: np.ndarray, near: np.ndarray) -> np.ndarray:
    """(H, W) float32 pixels: how far the edge near by should move outward."""
    window = (WINDOW_PX, WINDOW_PX)
    base, axis = sides.frame - sides.behind, sides.front - sides.behind
    # |I - B - a (F - B)|^2 as a polynomial of a
    constant, linear, square = _dot(base, base), _dot(base, axis), _dot(axis, axis)
    robust = near / (1 + np.minimum(constant, constant - 2 * linear + square) / 0.02)
    length = cv2.blur(near * (np.abs(signed) < 1), window) + 1e-6  # of the edge in the window
    best = np.full(signed.shape, np.inf, np.float32)
    offset = np.zeros_like(best)
    for move in sorted(range(-REACH_PX, REACH_PX + 1), key=abs):
        a = np.clip(0.5 + (signed + move) / SOFT_PX, 0, 1)
        error = cv2.blur(robust * (a * a * square - 2 * a * linear), window)
        cost = error / length + PENALTY * abs(move) * 3
        better = cost < best
        best[better], offset[better] = cost[better], move
    total = cv2.GaussianBlur(np.dstack([near * offset, near]), (0, 0), 3.0)
    return total[..., 0] / (total[..., 1] + 1e-3)


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(H, W) sum over channels of two (H, W, 3) pictures' product."""
    return cv2.transform(a * b, np.ones((1, 3), np.float32))
