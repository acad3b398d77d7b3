"""Training material that is thin: twigs, wires, poles and hair with exact coverage.

Every function draws from the `numpy.random.Generator` that it is given, so that a seed repeats a
picture.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from atlas.coords import Size

THIN_KINDS = ("twigs", "wires", "pole", "hair")

_SUPERSAMPLING = 3


def thin_coverage(rng: np.random.Generator, size: Size, kind: str) -> np.ndarray:
    """How much of each pixel a thin thing covers: lines drawn 3x larger, averaged down.

    Args:
        size: of the picture, pixels.
        kind: one of `THIN_KINDS`.
    Returns:
        (H, W) float32 in [0, 1], 1 = the thing hides the pixel.
    """
    scale = _SUPERSAMPLING
    canvas = np.zeros((size.height * scale, size.width * scale), np.uint8)
    if kind == "twigs":
        _draw_tree(rng, canvas)
    elif kind == "wires":
        _draw_wires(rng, canvas)
    elif kind == "pole":
        _draw_pole(rng, canvas)
    elif kind == "hair":
        _draw_hair(rng, canvas)
    else:
        raise ValueError(f"kind must be one of {THIN_KINDS}, got {kind!r}")
    return cv2.resize(canvas, size.wh, interpolation=cv2.INTER_AREA).astype(np.float32) / 255


def _line_px(rng: np.random.Generator, low: float, high: float) -> int:
    """A line width in supersampled pixels for a width of `low` to `high` final pixels."""
    return max(1, round(rng.uniform(low, high) * _SUPERSAMPLING))


def _draw_tree(rng: np.random.Generator, canvas: np.ndarray) -> None:
    """Recursive branches that grow in from an edge of the picture."""
    height, width = canvas.shape
    side = rng.choice(["bottom", "left", "right", "top"], p=[0.5, 0.2, 0.2, 0.1])
    heading_deg = {"bottom": -90, "left": -20, "right": 200, "top": 90}[str(side)]
    start = {
        "bottom": (rng.uniform(0, width), height * rng.uniform(0.6, 1.0)),
        "left": (0.0, rng.uniform(0.1, 0.9) * height),
        "right": (float(width), rng.uniform(0.1, 0.9) * height),
        "top": (rng.uniform(0, width), 0.0),
    }[str(side)]
    length = rng.uniform(0.15, 0.4) * height
    thickness = rng.uniform(1.0, 6.0) * _SUPERSAMPLING
    heading = math.radians(heading_deg + rng.uniform(-25, 25))
    grow_tree(rng, canvas, (start, heading, length, thickness), int(rng.integers(60, 400)))


def grow_tree(
    rng: np.random.Generator,
    canvas: np.ndarray,
    stem: tuple[tuple[float, float], float, float, float],
    budget: int,
) -> None:
    """Draw a stem that parts into branches, and those again, in 255 on an (H, W) uint8 canvas.

    Args:
        stem: foot (x, y) px, heading in radians, length px, thickness px.
        budget: largest number of branches.
    """
    spread_deg = rng.uniform(20, 45)
    branches = [(*stem, 0)]
    while branches and budget > 0:
        (x, y), angle, step, width_px, level = branches.pop(0)
        budget -= 1
        bend = angle + math.radians(rng.uniform(-15, 15))
        middle = (x + step / 2 * math.cos(angle), y + step / 2 * math.sin(angle))
        end = (middle[0] + step / 2 * math.cos(bend), middle[1] + step / 2 * math.sin(bend))
        points = np.round([[(x, y), middle, end]]).astype(np.int32)
        cv2.polylines(canvas, [points], False, 255, max(1, round(width_px)), cv2.LINE_AA)
        if level >= 6 or step < 2 * _SUPERSAMPLING:
            continue
        for _ in range(int(rng.integers(2, 4))):
            turn = math.radians(rng.normal(0, spread_deg))
            branches.append(
                (end, bend + turn, step * rng.uniform(0.55, 0.85), width_px * 0.65, level + 1)
            )


def _draw_wires(rng: np.random.Generator, canvas: np.ndarray) -> None:
    """Hanging wires across the picture (a parabola each)."""
    height, width = canvas.shape
    x = np.linspace(-0.05 * width, 1.05 * width, 24)
    left, right = rng.uniform(0, 0.8, 2) * height
    sag = rng.uniform(0, 0.2) * height
    gap = rng.uniform(0.01, 0.08) * height
    thickness = _line_px(rng, 0.3, 2.0)
    unit = x / width
    for wire in range(int(rng.integers(1, 6))):
        y = left + (right - left) * unit + 4 * sag * unit * (1 - unit) + wire * gap
        points = np.round(np.stack([x, y + rng.normal(0, gap / 4)], axis=-1)).astype(np.int32)
        cv2.polylines(canvas, [points], False, 255, thickness, cv2.LINE_AA)


def _draw_pole(rng: np.random.Generator, canvas: np.ndarray) -> None:
    """An upright mast from the lower edge, with arms."""
    height, width = canvas.shape
    foot_x = rng.uniform(0, width)
    top = (foot_x + rng.normal(0, 0.03) * width, rng.uniform(0.0, 0.6) * height)
    thickness = _line_px(rng, 0.5, 5.0)
    foot = (round(foot_x), height)
    head = (round(top[0]), round(top[1]))
    cv2.line(canvas, foot, head, 255, thickness, cv2.LINE_AA)
    for _ in range(int(rng.integers(0, 5))):
        along = rng.uniform(0, 0.5)
        x, y = (a + along * (b - a) for a, b in zip(head, foot, strict=True))
        reach = rng.uniform(-0.15, 0.15) * width
        tip = (round(x + reach), round(y + rng.normal(0, 0.02) * height))
        arm = max(1, round(thickness * rng.uniform(0.3, 0.8)))
        cv2.line(canvas, (round(x), round(y)), tip, 255, arm, cv2.LINE_AA)


def _draw_hair(rng: np.random.Generator, canvas: np.ndarray) -> None:
    """A round head-like shape with curved single hairs standing out."""
    height, width = canvas.shape
    centre = np.array([rng.uniform(0.1, 0.9) * width, rng.uniform(0.5, 1.0) * height])
    radius = rng.uniform(0.12, 0.4) * height
    axes = (round(radius * rng.uniform(0.7, 1.0)), round(radius))
    centre_px = (round(float(centre[0])), round(float(centre[1])))
    cv2.ellipse(canvas, centre_px, axes, rng.uniform(-15, 15), 0, 360, 255, -1, cv2.LINE_AA)
    shoulders = (centre_px[0], round(centre_px[1] + 2.1 * radius))
    cv2.ellipse(canvas, shoulders, (round(1.8 * radius), round(1.2 * radius)), 0, 0, 360, 255, -1)
    for _ in range(int(rng.integers(20, 150))):
        angle = rng.uniform(0, 2 * math.pi)
        turn = rng.normal(0, 0.8)
        length = radius * rng.uniform(0.05, 0.5)
        root = centre + np.array([math.cos(angle) * axes[0], math.sin(angle) * axes[1]]) * 0.97
        middle = root + 0.5 * length * np.array([math.cos(angle), math.sin(angle)])
        tip = middle + 0.5 * length * np.array([math.cos(angle + turn), math.sin(angle + turn)])
        points = np.round([root, middle, tip]).astype(np.int32)
        cv2.polylines(canvas, [points], False, 255, 1 + int(rng.random() < 0.3), cv2.LINE_AA)
