"""Motion of a layer of near things: that of the scene behind, and each thing's own parallax.

A pole alone cannot tell a homography: its flow says where it goes across, and little else. The
scene behind tells how the camera turns, for near and far alike; what is left is parallax, nearly
one shift for each thing and frame. Things are the connected parts of the layer's mask. Each is
carried from frame to frame along flow, and its shift is the median of what its pixels say, so that
pixels of the scene within the mask have no say. Alignment to the texture does the rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import cv2
import numpy as np

from atlas.base_motion import CANVAS_LIMIT, CANVAS_MARGIN
from atlas.coords import Size, pixel_grid
from atlas.layered import LayerMotion, lattice_shape
from atlas.store import ClipStore

NEAR_NAME = "near"
"""The layer of this name moves past the one below it."""
SHOWN = 0.5
"""A pixel belongs to a thing if it shows at least this much of it."""
LEAST_PIXELS = 24
"""Pixels at half the frame size by which a thing must be known in both frames."""
MOST_SHIFT_PX = 16.0
"""A thing's shift changes by less than this over one frame, or its flow was wrong; frame pixels."""
BLEND_POINTS = 1.5
"""How far one thing's shift blends into the next one's; points of the lattice."""


def motion_beside(
    store: ClipStore, layer: int, scene: LayerMotion
) -> tuple[LayerMotion, Iterator[np.ndarray]]:
    """The layer's motion without a residual, and the residual that holds its parallax.

    Args:
        scene: base motion of the layer behind.
    Returns:
        The motion on a canvas of its own; the residual, (h, w, 2) float32 texels frame by frame.
    """
    base = replace(scene, name=store.clip.layer_names[layer], residual=None)
    things = [_things(store.half, layer, t) for t in range(store.frame_count)]
    shifts = _shifts(store.half, store.size, things, base)
    at = pixel_grid(store.size, store.half.size)
    low, high = np.full(2, np.inf), np.full(2, -np.inf)
    for t, labels in enumerate(things):
        uv = (base.uv_at(t, at) + shifts[t][labels])[labels > 0]
        uv = uv[np.isfinite(uv).all(1)]
        if len(uv):
            low, high = np.minimum(low, uv.min(0)), np.maximum(high, uv.max(0))
    motion = _placed(base, low, high) if np.isfinite(low).all() else base
    scale = store.size.width / store.half.size.width
    shape = lattice_shape(store.size, base.stride_px)
    lattices = (
        _on_lattice(labels, one, shape, base.stride_px / scale)
        for labels, one in zip(things, shifts, strict=True)
    )
    return motion, lattices


def _things(half: ClipStore, layer: int, t: int) -> np.ndarray:
    """(h, w) uint16: the number of the thing that each pixel shows, 0 = none."""
    shown = (half.share(layer, t) >= SHOWN).astype(np.uint8)
    return cv2.connectedComponents(shown, connectivity=8, ltype=cv2.CV_16U)[1]


def _shifts(
    half: ClipStore, full: Size, things: list[np.ndarray], base: LayerMotion
) -> list[np.ndarray]:
    """Per frame, (things + 1, 2) float32 texels by which each thing lies off the scene's motion.

    The middle frame's are 0; from there forward and backward in time. A thing that comes into view
    alone takes the usual shift of those before.
    """
    count = half.frame_count
    middle = count // 2
    out = [np.zeros((int(labels.max()) + 1, 2), np.float32) for labels in things]
    to_full = np.float32(full.width / half.size.width)
    at = pixel_grid(full, half.size)
    for order in (range(middle + 1, count), range(middle - 1, -1, -1)):
        usual = np.zeros(2, np.float32)
        for t in order:
            other = t - 1 if t > middle else t + 1
            flow = half.flow(t, other).astype(np.float32)
            where = pixel_grid(half.size) + flow
            known = cv2.remap(things[other].astype(np.float32), where, None, cv2.INTER_NEAREST)
            carried = out[other][known.astype(int)]
            moved = base.uv_at(other, at + flow * to_full) - base.uv_at(t, at)
            known[~np.isfinite(moved).all(-1)] = 0
            found = [
                _shift(moved[pixels], carried[pixels])
                for pixels in (
                    (things[t] == thing) & (known > 0) for thing in range(1, len(out[t]))
                )
            ]
            seen = [shift for shift in found if shift is not None]
            usual = np.median(seen, 0) if seen else usual
            out[t][1:] = np.array([usual if shift is None else shift for shift in found]).reshape(
                -1, 2
            )
    return out


def _shift(moved: np.ndarray, carried: np.ndarray) -> np.ndarray | None:
    """(2,) a thing's shift by what its pixels say; None where they are too few.

    Args:
        moved: (N, 2) texels by which the scene's motion misses the flow. carried: (N, 2), the
            shifts of the things that the pixels showed in the frame before.
    """
    if len(moved) < LEAST_PIXELS:
        return None
    before = np.median(carried, 0)
    change = np.median(moved + carried, 0) - before
    return before + change * min(1.0, MOST_SHIFT_PX / max(float(np.linalg.norm(change)), 1e-6))


def _on_lattice(
    labels: np.ndarray, shifts: np.ndarray, shape: tuple[int, int], stride: float
) -> np.ndarray:
    """(h, w, 2) float32: the nearest thing's shift at every lattice point, blended between.

    Args:
        labels: (H, W) uint16. shape: (h, w) of the lattice. stride: its points' distance in labels.
    """
    if len(shifts) < 2:
        return np.zeros((*shape, 2), np.float32)
    _, nearest = cv2.distanceTransformWithLabels(
        (labels == 0).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    owner = np.zeros(int(nearest.max()) + 1, np.int32)
    owner[nearest[labels > 0]] = labels[labels > 0]
    y, x = (
        np.minimum(np.rint(np.arange(n) * stride).astype(int), most - 1)
        for n, most in zip(shape, labels.shape, strict=True)
    )
    lattice = np.ascontiguousarray(shifts[owner[nearest[np.ix_(y, x)]]].astype(np.float32))
    return cv2.GaussianBlur(lattice, (0, 0), BLEND_POINTS)


def _placed(base: LayerMotion, low: np.ndarray, high: np.ndarray) -> LayerMotion:
    """The motion, its canvas cut to texels from `low` to `high`."""
    low = np.floor(low) - CANVAS_MARGIN
    width, height = np.minimum(np.ceil(high) + CANVAS_MARGIN - low, CANVAS_LIMIT).astype(int) + 1
    canvas = Size(int(height), int(width))
    if base.roll is not None:
        u, v = base.roll.origin
        roll = replace(base.roll, origin=(u - float(low[0]), v - float(low[1])))
        return replace(base, canvas=canvas, roll=roll)
    shift = np.eye(3)
    shift[:2, 2] = -low
    return replace(base, canvas=canvas, matrices=shift @ base.matrices)
