"""Painting layers of synthetic scenes: textures, twigs, wires, poles; all seeded."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np

from atlas.coords import Size
from edits.skies.noise import sample_tile, spectral_noise


def picture_noise(
    size: Size, rng: np.random.Generator, slope: float, longest_px: float
) -> np.ndarray:
    """(H, W) float32 fractal noise, mean 0, deviation 1, with structure up to `longest_px`."""
    side = 2 ** int(np.ceil(np.log2(max(size.height, size.width, 64))))
    tile = spectral_noise(side, rng, slope=slope, longest=min(longest_px / side, 1.0))
    return tile[: size.height, : size.width]


def rich_texture(
    size: Size, rng: np.random.Generator, colours: list[tuple[int, int, int]]
) -> np.ndarray:
    """(H, W, 3) float32: coloured noise with detail at every scale down to about 3 texels.

    Smooth enough that bilinear sampling and a 2 x 2 supersampled pixel agree closely.
    """
    base, top, spots = (np.array(c, np.float32) / 255 for c in colours)
    broad = picture_noise(size, rng, 1.5, size.width / 3)
    fine = cv2.GaussianBlur(picture_noise(size, rng, 0.9, 24.0), (0, 0), 0.8)
    fine /= fine.std()
    share = np.clip(0.5 + 0.28 * broad + 0.14 * fine, 0, 1)[..., None]
    mark = np.clip(picture_noise(size, rng, 1.6, 48.0) - 1.0, 0, 1)[..., None]
    rgb = base + (top - base) * share + 0.7 * (spots - base) * mark
    return np.clip(rgb + 0.05 * fine[..., None], 0, 1).astype(np.float32)


@dataclass(frozen=True)
class Branch:
    """A straight piece of a branch, tapering: ends (x, y) and widths there, texels."""

    start: tuple[float, float]
    end: tuple[float, float]
    start_width: float
    end_width: float


def coverage(branches: list[Branch], size: Size) -> np.ndarray:
    """(H, W) float32 in [0, 1]: how much of each texel the branches cover.

    Across a branch the overlap of a texel-wide box with its width is exact, so that a branch
    thinner than a texel has its true share; pieces unite by their maximum.
    """
    out = np.zeros((size.height, size.width), np.float32)
    for b in branches:
        (x0, y0), (x1, y1) = b.start, b.end
        reach = max(b.start_width, b.end_width) / 2 + 1
        left, right = int(max(min(x0, x1) - reach, 0)), int(max(x0, x1) + reach) + 2
        top, bottom = int(max(min(y0, y1) - reach, 0)), int(max(y0, y1) + reach) + 2
        right, bottom = min(right, size.width), min(bottom, size.height)
        if right <= left or bottom <= top:
            continue
        x, y = np.arange(left, right), np.arange(top, bottom)[:, None]
        dx, dy = x1 - x0, y1 - y0
        along = np.clip(((x - x0) * dx + (y - y0) * dy) / max(dx * dx + dy * dy, 1e-9), 0, 1)
        distance = np.hypot(x - x0 - along * dx, y - y0 - along * dy)
        radius = (b.start_width + along * (b.end_width - b.start_width)) / 2
        share = np.clip(distance + 0.5, -radius, radius) - np.clip(distance - 0.5, -radius, radius)
        patch = out[top:bottom, left:right]
        np.maximum(patch, share, out=patch, casting="same_kind")
    return out


@dataclass(frozen=True)
class TreeShape:
    """How a tree grows. Lengths in texels, angles in degrees."""

    height: float = 200.0
    trunk_width: float = 12.0
    thinnest: float = 1.0
    """Branches end when they would get thinner than this."""
    spread_deg: float = 28.0
    shrink: float = 0.78
    lean_deg: float = 0.0


def grow_tree(
    foot: tuple[float, float], shape: TreeShape, rng: np.random.Generator
) -> list[Branch]:
    """Branches of a bare tree standing at `foot`, by recursive forking; long pieces curve."""
    branches: list[Branch] = []
    first = 0.24 * shape.height
    stack = [(foot, -90.0 + shape.lean_deg, first, shape.trunk_width)]
    while stack:
        (x, y), angle, length, width = stack.pop()
        if width < shape.thinnest or len(branches) > 40_000:
            continue
        curl, pieces = rng.normal(0, 9), 3
        for k in range(pieces):
            turned = np.radians(angle + curl * k)
            x1 = x + np.cos(turned) * length / pieces
            y1 = y + np.sin(turned) * length / pieces
            w0, w1 = width * (1 - 0.22 * k / pieces), width * (1 - 0.22 * (k + 1) / pieces)
            branches.append(Branch((x, y), (x1, y1), w0, w1))
            if k == 1 and rng.random() < 0.75:  # a side shoot half way along
                side = rng.choice([-1, 1]) * rng.uniform(0.8, 1.7) * shape.spread_deg
                stack.append(
                    ((x1, y1), angle + side, length * rng.uniform(0.55, 0.8), width * 0.45)
                )
            x, y = x1, y1
        angle += curl * (pieces - 1)
        tip = width * 0.78
        balance = rng.uniform(0.35, 0.65)
        for sign, share in ((-1, balance), (1, 1 - balance)):
            # Leonardo's rule: cross sections add up over a fork
            child = tip * share**0.5
            turn = sign * shape.spread_deg * rng.uniform(0.5, 1.2) * (1.3 - share)
            up = 0.06 * (-90 - angle)  # twigs reach for the light
            stack.append(
                ((x, y), angle + turn + up, length * shape.shrink * rng.uniform(0.8, 1.15), child)
            )
    return branches


def wire(
    start: tuple[float, float], end: tuple[float, float], sag: float, width: float
) -> list[Branch]:
    """A hanging wire between two points, as a parabola of 24 pieces; texels."""
    s = np.linspace(0, 1, 25)
    x = start[0] + (end[0] - start[0]) * s
    y = start[1] + (end[1] - start[1]) * s + 4 * sag * s * (1 - s)
    points = list(zip(x.tolist(), y.tolist(), strict=True))
    return [Branch(a, b, width, width) for a, b in pairwise(points)]


def disc(size: Size, radius_share: float) -> np.ndarray:
    """(H, W) float32: an oval that fills `radius_share` of the canvas, 1.5 texels soft."""
    y, x = np.mgrid[: size.height, : size.width].astype(np.float32)
    cx, cy = (size.width - 1) / 2, (size.height - 1) / 2
    radius = radius_share * min(size.width, size.height) / 2
    distance = np.hypot(
        (x - cx) * size.height / size.width if size.width > size.height else x - cx, y - cy
    )
    return np.clip((radius - distance) / 1.5 + 0.5, 0, 1)


def bumpy_sky(size: Size, rng: np.random.Generator) -> np.ndarray:
    """(H, W, 3) float32: blue with soft white clouds, enough texture to be tracked."""
    tile = spectral_noise(512, rng, slope=1.5, longest=0.5)
    y, x = np.mgrid[: size.height, : size.width].astype(np.float32)
    scale = 512 / max(size.width, 256)
    noise = cv2.GaussianBlur(sample_tile(tile, x * scale, y * 1.4 * scale), (0, 0), 0.8)
    blue = np.array([0.33, 0.55, 0.85], np.float32) + 0.25 * (y / size.height)[..., None]
    cloud = np.clip(0.25 + 0.45 * noise, 0, 1)[..., None]
    return (blue + (0.96 - blue) * cloud).astype(np.float32)
