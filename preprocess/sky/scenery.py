"""Training material that stands in front of a sky, with exact coverage: crowns, walls, water.

Every function draws from the `numpy.random.Generator` that it is given, so that a seed repeats a
picture. Colours are display-encoded RGB in [0, 1]. Skies: `procedural`; single twigs:
`thin_things`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from atlas.coords import Size
from preprocess.sky.procedural import fractal_noise
from preprocess.sky.thin_things import grow_tree, thin_coverage

_SUPERSAMPLING = 2
_TWIG_SUPERSAMPLING = 3
_TWIG_SHIFT = 3
"""cv2 draws lines at 1/8 px."""


@dataclass(frozen=True)
class Layer:
    """Something to lay over a picture; float32."""

    rgb: np.ndarray
    """(H, W, 3)."""
    coverage: np.ndarray
    """(H, W), 1 = hides what is behind."""


def laid_over(rgb: np.ndarray, layer: Layer) -> np.ndarray:
    """layer + (1 - coverage) * rgb, all (H, W, 3) float32."""
    return rgb + layer.coverage[..., None] * (layer.rgb - rgb)


def bare_crowns(rng: np.random.Generator, size: Size) -> np.ndarray:
    """Coverage of two to six leafless trees that stand in a row: (H, W) float32 in [0, 1]."""
    clear = np.ones((size.height, size.width), np.float32)
    for _ in range(int(rng.integers(2, 7))):
        clear *= 1 - thin_coverage(rng, size, "twigs")
    return 1 - clear


def sparse_crowns(rng: np.random.Generator, size: Size) -> np.ndarray:
    """Coverage of leafless crowns whose twigs are thinner than a pixel, a veil before the sky.

    Short curved twigs point away from the middle of an ellipse, in sheets of lines drawn at a share
    of full coverage; sheets lie one before the other: 1 - prod(1 - c). Stems and boughs carry them.

    Returns:
        (H, W) float32 in [0, 1].
    """
    large = Size(size.height * _TWIG_SUPERSAMPLING, size.width * _TWIG_SUPERSAMPLING)
    clear = np.ones((large.height, large.width), np.float32)
    for _ in range(int(rng.integers(1, 6))):
        middle = rng.uniform([-0.1, 0.0], [1.1, 0.75]) * large.wh
        radii = rng.uniform([0.1, 0.15], [0.4, 0.5]) * large.height
        boughs = np.zeros(clear.shape, np.uint8)
        foot = (float(middle[0]), float(middle[1] + radii[1] * rng.uniform(0.9, 1.3)))
        ground = (round(foot[0]), large.height)
        heading = math.radians(-90 + rng.normal(0, 6))
        thickness = rng.uniform(0.006, 0.03) * large.height
        trunk = (round(foot[0]), round(foot[1]))
        cv2.line(boughs, trunk, ground, 255, max(1, round(thickness)), cv2.LINE_AA)
        stem = (foot, heading, float(radii[1]) * rng.uniform(0.5, 0.8), thickness)
        grow_tree(rng, boughs, stem, int(rng.integers(10, 120)))
        clear *= 1 - boughs.astype(np.float32) / 255
        density = rng.uniform(0.15, 1.5)
        for _ in range(int(rng.integers(2, 5))):
            sheet = np.zeros(clear.shape, np.uint8)
            twigs = _twigs(rng, middle, radii, round(500 * density), large.height)
            level = int(rng.integers(40, 190))
            cv2.polylines(sheet, list(twigs), False, level, 1, cv2.LINE_AA, _TWIG_SHIFT)
            clear *= 1 - sheet.astype(np.float32) / 255
    return cv2.resize(1 - clear, size.wh, interpolation=cv2.INTER_AREA)


def _twigs(
    rng: np.random.Generator, middle: np.ndarray, radii: np.ndarray, count: int, height: int
) -> np.ndarray:
    """(N, 3, 1, 2) int32 points of bent twigs in an ellipse, in 1/8 px; denser in the middle."""
    angle = rng.uniform(0, 2 * np.pi, count)
    reach = rng.uniform(0, 1, count) ** rng.uniform(0.4, 0.8)
    root = middle + (np.stack([np.cos(angle), np.sin(angle)], axis=-1) * reach[:, None]) * radii
    heading = angle + rng.normal(0, 0.6, count)
    length = rng.uniform(0.02, 0.12) * height * rng.uniform(0.3, 1.0, count)
    bend = rng.normal(0, 0.5, count)
    points = [root]
    for turn in (0.0, 1.0):
        way = heading + turn * bend
        step = 0.5 * length[:, None] * np.stack([np.cos(way), np.sin(way) - 0.3], axis=-1)
        points.append(points[-1] + step)
    return np.round(np.stack(points, axis=1) * 8).astype(np.int32)[:, :, None]


def foliage(rng: np.random.Generator, size: Size) -> np.ndarray:
    """Coverage of leafy crowns with holes that the sky shows through: (H, W) float32 in [0, 1].

    A crown is an ellipse with a ragged outline; leaves are where fine noise is above a level that
    rises from the middle of the crown to its edge.
    """
    large = Size(size.height * _SUPERSAMPLING, size.width * _SUPERSAMPLING)
    y, x = np.mgrid[: large.height, : large.width].astype(np.float32)
    inside = np.full((large.height, large.width), -1.0, np.float32)
    for _ in range(int(rng.integers(1, 4))):
        radius_x, radius_y = rng.uniform(0.1, 0.35, 2) * large.height
        centre_x = rng.uniform(-0.1, 1.1) * large.width
        centre_y = rng.uniform(-0.05, 0.8) * large.height
        distance = np.hypot((x - centre_x) / radius_x, (y - centre_y) / radius_y)
        inside = np.maximum(inside, 1 - distance)
    clumps = fractal_noise(rng, large, 8, 3) - 0.5
    leaves = cv2.resize(
        rng.random((large.height // 2, large.width // 2), dtype=np.float32), large.wh
    )
    leaves = cv2.GaussianBlur(leaves, (0, 0), rng.uniform(0.8, 2.2))
    leaves = (leaves - leaves.mean()) / max(float(leaves.std()), 1e-6)
    density = rng.uniform(0.8, 4.0) * inside + rng.uniform(1.0, 4.0) * clumps
    covered = (density + rng.uniform(0.3, 1.0) * leaves > 0) & (inside > -0.4)
    return cv2.resize(covered.astype(np.float32), size.wh, interpolation=cv2.INTER_AREA)


def building(rng: np.random.Generator, size: Size, sky_colour: np.ndarray) -> Layer:
    """A plain wall up to a slanting roof line, often of nearly the sky's colour, with windows.

    Args:
        sky_colour: (3,) mean colour of the sky in the picture.
    """
    height, width = size.height, size.width
    left = rng.uniform(-0.3, 0.8) * width
    right = left + rng.uniform(0.2, 0.9) * width
    tops = rng.uniform(-0.4, 0.75) * height + rng.normal(0, 0.12, 2) * height
    scale = 8  # cv2 draws polygons at 1/8 px
    corners = [[left, height + 2], [left, tops[0]], [right, tops[1]], [right, height + 2]]
    outline = np.round(np.array([corners]) * scale).astype(np.int32)
    cover = np.zeros((height, width), np.uint8)
    cv2.fillPoly(cover, outline, 255, cv2.LINE_AA, 3)
    grey = rng.uniform(0.35, 1.0) * rng.uniform(0.7, 1.0, 3)
    likeness = rng.uniform(0.0, 1.0)
    wall = likeness * sky_colour * rng.uniform(0.8, 0.97) + (1 - likeness) * grey
    shade = 1 + rng.uniform(0.02, 0.25) * (fractal_noise(rng, size, 2, 5)[..., None] - 0.5)
    rgb = np.clip(wall * shade, 0, 1).astype(np.float32)
    if rng.random() < 0.75:
        _draw_windows(rng, rgb, sky_colour)
    if rng.random() < 0.6:
        edge = rng.uniform(0.2, 0.8) * wall
        cv2.polylines(rgb, outline, True, edge.tolist(), int(rng.integers(1, 4)), cv2.LINE_AA, 3)
    return Layer(rgb, cover.astype(np.float32) / 255)


def _draw_windows(rng: np.random.Generator, rgb: np.ndarray, sky_colour: np.ndarray) -> None:
    """Rows of panes, dark or mirroring the sky, over the whole picture."""
    height, width = rgb.shape[:2]
    pitch_x, pitch_y = rng.uniform(0.06, 0.35, 2) * height
    pane_w, pane_h = pitch_x * rng.uniform(0.3, 0.9), pitch_y * rng.uniform(0.3, 0.9)
    mirror = rng.random() < 0.4
    for y in np.arange(rng.uniform(0, pitch_y), height, pitch_y):
        for x in np.arange(rng.uniform(0, pitch_x), width, pitch_x):
            pane = rng.uniform(0.02, 0.4) * np.ones(3)
            if mirror and rng.random() < 0.8:
                pane = sky_colour * rng.uniform(0.6, 1.0)
            first = (round(float(x)), round(float(y)))
            last = (round(float(x + pane_w)), round(float(y + pane_h)))
            cv2.rectangle(rgb, first, last, pane.tolist(), -1)


def water(rng: np.random.Generator, size: Size, sky: np.ndarray) -> Layer:
    """Rippled water below a level horizon, in the colours of the sky that it mirrors.

    Ripples are noise drawn wide and flat, finer towards the horizon.

    Args:
        sky: (H, W, 3) picture of the sky above.
    """
    height, width = size.height, size.width
    horizon = int(rng.uniform(0.15, 0.85) * height)
    rows = height - horizon
    mirrored = sky[np.clip(horizon - 1 - np.arange(rows), 0, height - 1)]
    spread = 2 * (width // 8) + 1
    mirrored = cv2.blur(np.ascontiguousarray(mirrored), (spread, 2 * max(1, rows // 6) + 1))
    depth = np.arange(1, rows + 1, dtype=np.float32) / rows
    noise = fractal_noise(rng, Size(max(rows, 16), width), int(rng.integers(6, 16)), 4, 0.7)
    columns = np.tile(np.arange(width, dtype=np.float32), (rows, 1))
    place = np.log1p(9 * depth)[:, None] / np.log(10) * (noise.shape[0] - 1)
    source_x = (columns - width / 2) * 0.25 * (0.3 + depth[:, None]) + width / 2
    ripple = cv2.remap(
        noise,
        source_x,
        np.broadcast_to(place, source_x.shape).astype(np.float32),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REFLECT_101,
    )
    tint = rng.uniform(0.35, 0.95) * rng.uniform(0.85, 1.05, 3)
    gain = 1 + rng.uniform(0.05, 1.0) * (ripple[..., None] - 0.5)
    rgb = np.zeros((height, width, 3), np.float32)
    rgb[horizon:] = np.clip(mirrored * tint * gain, 0, 1)
    coverage = np.zeros((height, width), np.float32)
    coverage[horizon:] = 1
    return Layer(rgb, coverage)
