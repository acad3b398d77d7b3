"""Training material without any sky: rooms, plain surfaces, backgrounds out of focus.

Walls, ceilings, paper, snow and sand are smooth and pale as many skies are; what tells them apart
is what stands around them. Every function draws from the `numpy.random.Generator` that it is given,
so that a seed repeats a picture. Colours are display-encoded RGB in [0, 1].
"""

from __future__ import annotations

import cv2
import numpy as np

from atlas.coords import Size
from preprocess.sky.procedural import fractal_noise

_SCALE = 8
"""cv2 draws polygons at 1/8 px."""


def room(rng: np.random.Generator, size: Size) -> np.ndarray:
    """A room seen from within: ceiling, walls and floor in perspective, windows, furniture, lamps.

    Mostly all of it, at times a part near the ceiling.

    Returns:
        (H, W, 3) float32.
    """
    zoom = 1.0 if rng.random() < 0.6 else rng.uniform(1.2, 2.5)
    large = Size(round(size.height * zoom), round(size.width * zoom))
    rgb = _shell(rng, large)
    for _ in range(int(rng.integers(0, 4))):
        _draw_window(rng, rgb)
    for _ in range(int(rng.integers(0, 4))):
        _draw_picture(rng, rgb)
    for _ in range(int(rng.integers(1, 8))):
        _draw_furniture(rng, rgb)
    for _ in range(int(rng.integers(0, 4))):
        _light_lamp(rng, rgb)
    top = int(rng.uniform(0, 0.5) * (large.height - size.height))
    left = int(rng.integers(0, large.width - size.width + 1))
    part = rgb[top : top + size.height, left : left + size.width]
    return np.clip(part, 0, 1).astype(np.float32)


def surface(rng: np.random.Generator, size: Size) -> np.ndarray:
    """Something near that fills the picture: snow, sand, asphalt, cloth, paper, tiles, a backdrop.

    A grain, creases, joints or writing, and small things lying about; some darken to the corners.

    Returns:
        (H, W, 3) float32.
    """
    colour = paint(rng)
    grain = fractal_noise(rng, size, int(rng.integers(6, 24)), 6, rng.uniform(0.75, 0.98))
    light = fractal_noise(rng, size, 1, 2)
    rough = rng.uniform(0.05, 0.6) if rng.random() < 0.6 else rng.uniform(0.0, 0.08)
    shade = 1 + rough * (grain - 0.5) + rng.uniform(0, 0.5) * (light - 0.5)
    rgb = colour * shade[..., None]
    kind = rng.random()
    if kind < 0.2:
        _draw_joints(rng, rgb)
    elif kind < 0.4:
        _draw_creases(rng, rgb)
    elif kind < 0.65:
        _draw_writing(rng, rgb)
    for _ in range(int(rng.integers(2, 14))):
        _draw_furniture(rng, rgb, largest=0.12)
    if rng.random() < 0.4:
        rgb *= _vignette(rng, size)
    if rng.random() < 0.06:
        _cut_out_disc(rng, rgb)
    return np.clip(rgb, 0, 1).astype(np.float32)


def bokeh(rng: np.random.Generator, size: Size) -> np.ndarray:
    """A background far out of focus: soft patches and overlapping discs of light, things before it.

    Returns:
        (H, W, 3) float32.
    """
    patches = [fractal_noise(rng, size, int(rng.integers(2, 6)), 3)[..., None] for _ in range(2)]
    first, second, third = (paint(rng) * rng.uniform(0.1, 0.9) for _ in range(3))
    rgb = first + patches[0] * (second - first)
    rgb = (rgb + patches[1] ** 2 * (third - rgb)).astype(np.float32)
    radius = rng.uniform(0.01, 0.12) * size.height
    for _ in range(int(rng.integers(0, 60))):
        disc = np.zeros((size.height, size.width), np.uint8)
        centre = (int(rng.integers(size.width)), int(rng.integers(size.height)))
        cv2.circle(disc, centre, round(radius * rng.uniform(0.6, 1.1)) + 1, 255, -1, cv2.LINE_AA)
        glow = rng.uniform(0.05, 0.6) * disc[..., None].astype(np.float32) / 255
        rgb += glow * (rng.uniform([0.7, 0.4, 0.2], [1.0, 1.0, 1.0]) - rgb)
    rgb = cv2.GaussianBlur(rgb, (0, 0), rng.uniform(0.5, 4.0))
    for _ in range(int(rng.integers(1, 6))):
        _draw_furniture(rng, rgb, largest=0.5)
    return np.clip(rgb, 0, 1).astype(np.float32)


def _vignette(rng: np.random.Generator, size: Size) -> np.ndarray:
    """(H, W, 1) float32 factor that falls from a middle to the corners."""
    y = np.linspace(-1, 1, size.height, dtype=np.float32)[:, None] - rng.normal(0, 0.3)
    x = np.linspace(-1, 1, size.width, dtype=np.float32)[None] - rng.normal(0, 0.3)
    fall = rng.uniform(0.2, 1.0) * np.hypot(x, y) ** rng.uniform(1, 4) / 2
    return np.clip(1 - fall, 0.05, 1)[..., None].astype(np.float32)


def _cut_out_disc(rng: np.random.Generator, rgb: np.ndarray) -> None:
    """Black round a disc, as through an eyepiece."""
    height, width = rgb.shape[:2]
    disc = np.zeros((height, width), np.uint8)
    radius = round(rng.uniform(0.35, 0.6) * height)
    cv2.circle(disc, (width // 2, height // 2), radius, 255, -1, cv2.LINE_AA)
    rgb *= disc[..., None].astype(np.float32) / 255


def paint(rng: np.random.Generator) -> np.ndarray:
    """(3,) colour of a wall or a floor: mostly pale, some blue or grey, some dark."""
    kind = rng.random()
    if kind < 0.55:
        return rng.uniform(0.65, 1.02) * rng.uniform([0.92, 0.88, 0.78], [1.0, 1.0, 1.0])
    if kind < 0.7:
        return rng.uniform(0.4, 0.95) * rng.uniform([0.6, 0.8, 0.95], [0.95, 1.0, 1.0])
    if kind < 0.85:
        return rng.uniform(0.3, 0.9) * rng.uniform([0.9, 0.6, 0.3], [1.0, 0.95, 0.8])
    return rng.uniform(0.1, 0.8) * rng.uniform(0.4, 1.0, 3)


def _shell(rng: np.random.Generator, size: Size) -> np.ndarray:
    """Ceiling, floor and three walls; each lit smoothly in its own way."""
    height, width = size.height, size.width
    left, right = rng.uniform(-0.2, 0.4) * width, rng.uniform(0.6, 1.2) * width
    top, bottom = rng.uniform(-0.15, 0.35) * height, rng.uniform(0.5, 0.95) * height
    steep = rng.uniform(0.2, 1.0)
    far = 2.0 * max(size.wh)
    corners = {
        "top left": (left, top, -1, -steep),
        "top right": (right, top, 1, -steep),
        "bottom left": (left, bottom, -1, steep),
        "bottom right": (right, bottom, 1, steep),
    }
    near = {name: (x, y) for name, (x, y, _, _) in corners.items()}
    out = {name: (x + far * dx, y + far * dy) for name, (x, y, dx, dy) in corners.items()}
    wall = paint(rng)
    ceiling = rng.uniform(0.75, 1.05) * wall if rng.random() < 0.4 else paint(rng)
    rgb = (wall * lit(rng, size)).astype(np.float32)
    sides = (
        (("top left", "top right"), ceiling),
        (("bottom left", "bottom right"), rng.uniform(0.3, 1.0) * paint(rng)),
        (("top left", "bottom left"), rng.uniform(0.75, 1.1) * wall),
        (("top right", "bottom right"), rng.uniform(0.75, 1.1) * wall),
    )
    for (first, second), colour in sides:
        corners_px = [near[first], out[first], out[second], near[second]]
        rgb += covered(size, corners_px) * ((colour * lit(rng, size)).astype(np.float32) - rgb)
        if rng.random() < 0.4:
            shade = (rng.uniform(0.5, 1.1) * colour).clip(0, 1).tolist()
            ends = [tuple(int(v) for v in near[name]) for name in (first, second)]
            cv2.line(rgb, ends[0], ends[1], shade, int(rng.integers(1, 5)), cv2.LINE_AA)
    if rng.random() < 0.25:
        _draw_joints(rng, rgb)
    if rng.random() < 0.15:
        _draw_ribs(rng, rgb)
    return rgb


def _draw_ribs(rng: np.random.Generator, rgb: np.ndarray) -> None:
    """Ribs and steel arches of a vault: rings of ellipses round a low middle."""
    height, width = rgb.shape[:2]
    centre = (int(rng.uniform(0.2, 0.8) * width), int(rng.uniform(0.4, 1.2) * height))
    rgb *= rng.uniform(0.15, 1.0)
    shade = (rng.uniform(0.3, 1.6) * rgb.mean((0, 1))).clip(0, 1).tolist()
    reach = rng.uniform(0.15, 0.4) * height
    for _ in range(int(rng.integers(3, 10))):
        axes = (round(reach * rng.uniform(0.9, 1.6)), round(reach))
        thick = int(rng.integers(1, 4))
        cv2.ellipse(rgb, centre, axes, 0, 180, 360, shade, thick, cv2.LINE_AA)
        reach *= rng.uniform(1.1, 1.5)
    for angle in np.linspace(np.pi, 2 * np.pi, int(rng.integers(2, 12))):
        tip = (int(centre[0] + 2 * width * np.cos(angle)), int(centre[1] + width * np.sin(angle)))
        cv2.line(rgb, centre, tip, shade, 1, cv2.LINE_AA)


def lit(rng: np.random.Generator, size: Size) -> np.ndarray:
    """Brightness of a wall, (H, W, 1) float32: a slope and a soft spot of light."""
    y = np.linspace(-1, 1, size.height, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, size.width, dtype=np.float32)[None]
    turn = rng.uniform(0, 2 * np.pi)
    light = 1 + rng.uniform(0, 0.35) * (np.cos(turn) * x + np.sin(turn) * y)
    distance = np.hypot(x - rng.uniform(-1, 1), y - rng.uniform(-1, 1))
    light += rng.uniform(-0.2, 0.5) * np.exp(-((distance / rng.uniform(0.2, 1.0)) ** 2))
    return light[..., None].astype(np.float32)


def covered(size: Size, corners_px: list[tuple[float, float]]) -> np.ndarray:
    """(H, W, 1) float32: inside of a polygon."""
    cover = np.zeros((size.height, size.width), np.uint8)
    points = np.round(np.array([corners_px]) * _SCALE).astype(np.int32)
    cv2.fillPoly(cover, points, 255, cv2.LINE_AA, 3)
    return cover[..., None].astype(np.float32) / 255


def _box(
    rng: np.random.Generator, shape: tuple[int, ...], low: float, high: float
) -> tuple[int, int, int, int]:
    """x, y, width and height, px, of a box `low` to `high` frame heights wide and high."""
    height, width = shape[:2]
    across, down = (max(3, int(v)) for v in rng.uniform(low, high, 2) * height)
    x = int(rng.uniform(-0.2, 1.0) * width)
    y = int(rng.uniform(-0.1, 0.8) * height)
    return x, y, across, down


def _draw_window(rng: np.random.Generator, rgb: np.ndarray) -> None:
    """Daylight in a frame: burnt-out white, pale blue or green, with bars, blinds or curtains."""
    x, y, across, down = _box(rng, rgb.shape, 0.1, 0.55)
    size = Size(down, across)
    white = np.ones(3) if rng.random() < 0.6 else rng.uniform([0.6, 0.75, 0.7], [0.9, 0.95, 1.0])
    pane = np.ones((down, across, 3), np.float32) * white.astype(np.float32)
    if rng.random() < 0.4:  # leaves outside
        leaves = fractal_noise(rng, Size(max(16, down), max(16, across)), 4, 4)[:down, :across]
        share = np.clip(4 * (leaves - rng.uniform(0.3, 0.7)), 0, 1)[..., None]
        pane = pane + share * (rng.uniform([0.1, 0.2, 0.05], [0.6, 0.8, 0.4]) - pane)
    frame = rng.uniform(0.3, 1.0) * rng.uniform(0.7, 1.0, 3)
    thick = int(rng.integers(1, max(2, down // 12) + 1))
    for part in range(int(rng.integers(1, 5)) + 1):
        place = part * (across - 1) // max(1, int(rng.integers(1, 5)))
        pane[:, place : place + thick] = frame
    if rng.random() < 0.4:
        pitch = int(rng.integers(2, max(3, down // 4) + 1))
        for row in range(0, down, pitch):
            pane[row : row + max(1, pitch // 3)] = frame
    if rng.random() < 0.4:
        folds = 1 + 0.4 * np.sin(np.linspace(0, rng.uniform(20, 80), across))
        cloth = paint(rng) * folds[:, None]
        drawn = int(rng.uniform(0.1, 0.6) * across)
        pane[:, :drawn] = cloth[:drawn]
    pane[:thick], pane[-thick:] = frame, frame
    _paste(rgb, pane, x, y)
    if rng.random() < 0.5:
        glow = np.zeros(rgb.shape[:2], np.float32)
        glow[max(0, y) : max(0, y + size.height), max(0, x) : max(0, x + size.width)] = 1
        spread = rng.uniform(0.02, 0.15) * rgb.shape[0]
        rgb += rng.uniform(0, 0.5) * cv2.GaussianBlur(glow, (0, 0), spread)[..., None]


def _draw_picture(rng: np.random.Generator, rgb: np.ndarray) -> None:
    """A framed picture, a mirror or a door: a box with a rim."""
    x, y, across, down = _box(rng, rgb.shape, 0.06, 0.4)
    inner = paint(rng) * rng.uniform(0.3, 1.0)
    noise = fractal_noise(rng, Size(max(16, down), max(16, across)), 2, 4)[:down, :across, None]
    box = (inner * (1 + rng.uniform(0, 0.8) * (noise - 0.5))).astype(np.float32)
    rim = max(1, int(rng.uniform(0.02, 0.1) * min(across, down)))
    colour = rng.uniform(0.05, 1.0) * rng.uniform(0.5, 1.0, 3)
    box[:rim], box[-rim:], box[:, :rim], box[:, -rim:] = colour, colour, colour, colour
    _paste(rgb, box, x, y)


def _draw_furniture(rng: np.random.Generator, rgb: np.ndarray, largest: float = 0.3) -> None:
    """A shaded block, a round thing or a leaning board, mostly low in the picture."""
    height, width = rgb.shape[:2]
    half = rng.uniform(0.02, largest, 2) * height
    centre = np.array([rng.uniform(0, 1) * width, (1 - 0.8 * rng.random() ** 2) * height])
    if rng.random() < 0.7:
        slant = rng.normal(0, 0.15, (4, 2))
        corners = (np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) + slant) * half + centre
    else:
        angle = np.linspace(0, 2 * np.pi, 30, endpoint=False)
        corners = np.stack([np.cos(angle), np.sin(angle)], axis=-1) * half + centre
    left, top = np.maximum(np.floor(corners.min(axis=0)).astype(int), 0)
    right, bottom = np.minimum(np.ceil(corners.max(axis=0)).astype(int) + 1, (width, height))
    if left >= right or top >= bottom:
        return
    size = Size(int(bottom - top), int(right - left))
    inside = [(float(x - left), float(y - top)) for x, y in corners]
    cover = covered(size, inside)
    colour = rng.uniform(0.05, 1.0) * rng.uniform([0.6, 0.4, 0.25], [1.0, 1.0, 1.0])
    grain = rng.random((8, 8), dtype=np.float32)
    noise = cv2.resize(grain, size.wh, interpolation=cv2.INTER_CUBIC)[..., None]
    shaded = colour * lit(rng, size) * (1 + rng.uniform(0, 0.6) * (noise - 0.5))
    part = rgb[top:bottom, left:right]
    part += cover * (shaded - part)


def _light_lamp(rng: np.random.Generator, rgb: np.ndarray) -> None:
    """A small burnt-out light and its glow."""
    height, width = rgb.shape[:2]
    spot = np.zeros((height, width), np.float32)
    centre = (int(rng.integers(width)), int(rng.uniform(0, 0.7) * height))
    cv2.circle(spot, centre, int(rng.uniform(0.005, 0.05) * height) + 1, 1.0, -1, cv2.LINE_AA)
    glow = cv2.GaussianBlur(spot, (0, 0), rng.uniform(0.05, 0.2) * height)
    glow *= rng.uniform(0.1, 0.6) / max(float(glow.max()), 1e-6)
    warm = rng.uniform([0.9, 0.7, 0.4], [1.0, 1.0, 1.0])
    rgb += (spot + glow)[..., None] * warm.astype(np.float32)


def _draw_joints(rng: np.random.Generator, rgb: np.ndarray) -> None:
    """Tiles, boards or bricks: dark or pale lines at even distances."""
    height, width = rgb.shape[:2]
    pitch = rng.uniform(0.04, 0.3, 2) * height
    shade = float(rng.uniform(0.6, 1.15))
    thick = int(rng.integers(1, 3))
    for y in np.arange(rng.uniform(0, pitch[0]), height, pitch[0]):
        rgb[int(y) : int(y) + thick] *= shade
    if rng.random() < 0.6:
        for x in np.arange(rng.uniform(0, pitch[1]), width, pitch[1]):
            rgb[:, int(x) : int(x) + thick] *= shade


def _draw_creases(rng: np.random.Generator, rgb: np.ndarray) -> None:
    """Folds of cloth, tracks in snow: soft dark and bright lines."""
    height, width = rgb.shape[:2]
    lines = np.zeros((height, width), np.float32)
    for _ in range(int(rng.integers(2, 20))):
        ends = (rng.uniform(-0.2, 1.2, (2, 2)) * (width, height)).astype(int)
        weight = float(rng.uniform(-1, 1))
        cv2.line(lines, ends[0].tolist(), ends[1].tolist(), weight, int(rng.integers(1, 5)))
    soft = cv2.GaussianBlur(lines, (0, 0), rng.uniform(0.6, 5.0))
    rgb *= 1 + rng.uniform(0.2, 0.8) * soft[..., None]


def _draw_writing(rng: np.random.Generator, rgb: np.ndarray) -> None:
    """Lines of dark dashes, as of text on a page."""
    height, width = rgb.shape[:2]
    pitch = rng.uniform(0.03, 0.12) * height
    ink = rng.uniform(0.0, 0.5)
    for y in np.arange(rng.uniform(0.02, 0.3) * height, height, pitch):
        x = rng.uniform(0.02, 0.15) * width
        while x < rng.uniform(0.6, 0.95) * width:
            dash = rng.uniform(0.2, 1.5) * pitch
            tall = max(1, int(0.4 * pitch))
            rgb[int(y) : int(y) + tall, int(x) : int(x + dash)] *= ink
            x += dash + 0.4 * pitch


def _paste(rgb: np.ndarray, part: np.ndarray, x: int, y: int) -> None:
    """Put `part` (h, w, 3) at column `x`, row `y` of `rgb`; what lies outside is left away."""
    height, width = rgb.shape[:2]
    top, left = max(0, y), max(0, x)
    bottom, right = min(height, y + part.shape[0]), min(width, x + part.shape[1])
    if top < bottom and left < right:
        rgb[top:bottom, left:right] = part[top - y : bottom - y, left - x : right - x]
