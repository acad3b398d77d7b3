"""Training material with little sky: plain walls on both sides of a lane, a corner of a house.

The counterpart of `indoors`: walls as plain as those of a room, and yet there is sky above them.
Everything is drawn from the `numpy.random.Generator` that is given, so that a seed repeats a
picture. Colours are display-encoded RGB in [0, 1].
"""

from __future__ import annotations

import cv2
import numpy as np

from atlas.coords import Size
from preprocess.sky.indoors import covered, lit, paint
from preprocess.sky.scenery import Layer


def lane(rng: np.random.Generator, size: Size) -> Layer:
    """Walls of a lane in perspective, or of one side alone, and its floor, to lay before a sky.

    What is left of the sky lies between the walls' tops.
    """
    height, width = size.height, size.width
    end_x, eye_y = rng.uniform(0.1, 0.9) * width, rng.uniform(0.45, 0.8) * height
    rgb = np.zeros((height, width, 3), np.float32)
    cover = np.zeros((height, width, 1), np.float32)
    floor = eye_y + rng.uniform(0.0, 0.1) * height
    ground = (rng.uniform(0.2, 0.8) * paint(rng) * lit(rng, size)).astype(np.float32)
    _lay(rgb, cover, ground, [(-1, floor), (width, floor), (width, height), (-1, height)])
    sides = ((-1, 1), (1, -1), (1,), (-1,))[rng.choice(4, p=[0.4, 0.3, 0.15, 0.15])]
    for side in sides:
        for _ in range(int(rng.integers(1, 4))):
            _draw_wall(rng, (rgb, cover), side, (end_x, eye_y))
    if rng.random() < 0.5:  # what closes the lane
        half, tall = rng.uniform(0.02, 0.2) * width, rng.uniform(0.02, 0.25) * height
        left, right, top = end_x - half, end_x + half, eye_y - tall
        wall = (paint(rng) * lit(rng, size)).astype(np.float32)
        corners = [
            (left, height),
            (left, top),
            (right, top * rng.uniform(0.9, 1.1)),
            (right, height),
        ]
        _lay(rgb, cover, wall, [(float(x), float(y)) for x, y in corners])
        _lay(rgb, cover, ground, [(-1, floor), (width, floor), (width, height), (-1, height)])
    return Layer(np.clip(rgb, 0, 1), cover[..., 0])


def _lay(
    rgb: np.ndarray, cover: np.ndarray, part: np.ndarray, corners_px: list[tuple[float, float]]
) -> None:
    """Paint a polygon of `part` over `rgb`, both (H, W, 3), and add it to `cover` (H, W, 1)."""
    inside = covered(Size(*rgb.shape[:2]), corners_px)
    rgb += inside * (part - rgb)
    np.maximum(cover, inside, out=cover)


def _draw_wall(
    rng: np.random.Generator,
    canvas: tuple[np.ndarray, np.ndarray],
    side: int,
    end: tuple[float, float],
) -> None:
    """A wall that runs from beyond the frame's left (-1) or right (1) edge towards `end`, px."""
    rgb, cover = canvas
    height, width = rgb.shape[:2]
    near_x = -0.02 * width if side < 0 else 1.02 * width
    share = rng.uniform(0.15, 0.95)
    far_x = near_x + share * (end[0] - near_x)
    near_top = end[1] - rng.uniform(0.3, 2.5) * height
    near_foot = end[1] + rng.uniform(0.1, 0.8) * height
    far_top = near_top + share * (end[1] - near_top)
    far_foot = near_foot + share * (end[1] - near_foot)
    corners = [(near_x, near_foot), (near_x, near_top), (far_x, far_top), (far_x, far_foot)]
    size = Size(height, width)
    wall = (paint(rng) * lit(rng, size)).astype(np.float32)
    _lay(rgb, cover, wall, [(float(x), float(y)) for x, y in corners])
    for _ in range(int(rng.integers(0, 8))):  # windows and doors, in the wall's perspective
        along = np.sort(rng.uniform(0, 1, 2))
        up = np.sort(rng.uniform(0, 1, 2))
        pane = (rng.uniform(0.05, 1.0) * paint(rng) * lit(rng, size)).astype(np.float32)
        points = [
            (
                float(near_x + a * (far_x - near_x)),
                float(
                    near_top
                    + a * (far_top - near_top)
                    + u * (near_foot - near_top + a * (far_foot - far_top - near_foot + near_top))
                ),
            )
            for a, u in ((along[0], up[0]), (along[1], up[0]), (along[1], up[1]), (along[0], up[1]))
        ]
        if rng.random() < 0.6:
            points = [points[0], *(_shrunk(points, i) for i in range(1, 4))]
        _lay(rgb, cover, pane, points)
    if rng.random() < 0.4:
        edge = (rng.uniform(0.3, 1.0) * wall.mean((0, 1))).clip(0, 1).tolist()
        ends = [(int(x), int(y)) for x, y in (corners[1], corners[2])]
        cv2.line(rgb, *ends, edge, int(rng.integers(1, 4)), cv2.LINE_AA)


def _shrunk(points: list[tuple[float, float]], index: int) -> tuple[float, float]:
    """Corner `index`, drawn to a third of its way from corner 0: windows are small."""
    (x0, y0), (x, y) = points[0], points[index]
    return x0 + (x - x0) / 3, y0 + (y - y0) / 3
