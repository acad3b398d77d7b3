"""A smooth function on a pixel grid, asked only where interpolation would not do."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from atlas.coords import Size

COARSEST_STEP = 8
"""Pixels between the first nodes; a power of two."""


def evaluate_adaptively(
    ask: Callable[[np.ndarray], np.ndarray], size: Size, tolerance: float
) -> np.ndarray:
    """The function at every pixel: asked on a lattice, and more finely where that was not enough.

    Nodes lie 8 px apart at first. At each halving of the step, new nodes are asked wherever, one
    level up, some node near by was off what its neighbours interpolate to by more than
    `tolerance`; elsewhere they are interpolated bilinearly. The first halving asks everywhere, so
    every cell is tested. What is accepted is off by about a quarter of the tolerance, since the
    nodes that tested it are used as well.

    Args:
        ask: (N, 2) float32 pixel positions, x and y, which may lie up to 7 px beyond the grid ->
            (N, C) float32.
        size: of the grid. tolerance: in the function's own unit, > 0; 0 asks every pixel.
    Returns:
        (H, W, C) float32.
    """
    if tolerance < 0:
        raise ValueError(f"tolerance must be >= 0, got {tolerance}")
    step = COARSEST_STEP if tolerance > 0 else 1
    rows, columns = ((n - 1 + step - 1) // step + 1 for n in (size.height, size.width))
    wanted = np.ones((rows, columns), bool)
    values = _asked(ask, wanted, step).reshape(rows, columns, -1)
    wanted = np.ones((2 * rows - 1, 2 * columns - 1), bool)
    while step > 1:
        step //= 2
        known = np.zeros(wanted.shape, bool)
        known[::2, ::2] = True
        values = _doubled(values)
        at = wanted & ~known
        found = _asked(ask, at, step)
        off = np.zeros(wanted.shape, np.uint8)
        off[at] = np.abs(found - values[at]).max(-1) > tolerance
        values[at] = found
        near = cv2.dilate(off, np.ones((3, 3), np.uint8)) > 0
        wanted = np.zeros((2 * off.shape[0] - 1, 2 * off.shape[1] - 1), np.uint8)
        wanted[::2, ::2] = near
        wanted = cv2.dilate(wanted, np.ones((3, 3), np.uint8)) > 0
    return np.ascontiguousarray(values[: size.height, : size.width])


def _asked(ask: Callable[[np.ndarray], np.ndarray], where: np.ndarray, step: int) -> np.ndarray:
    """(N, C): the function at the marked nodes of a lattice, row by row."""
    y, x = np.nonzero(where)
    return ask(np.stack([x, y], axis=-1).astype(np.float32) * step)


def _doubled(values: np.ndarray) -> np.ndarray:
    """(2 h - 1, 2 w - 1, C): nodes and the means of neighbours between them."""
    height, width, channels = values.shape
    out = np.empty((2 * height - 1, 2 * width - 1, channels), np.float32)
    out[::2, ::2] = values
    out[1::2, ::2] = (values[:-1] + values[1:]) / 2
    out[:, 1::2] = (out[:, :-1:2] + out[:, 2::2]) / 2
    return out
