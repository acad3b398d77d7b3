"""Training material that is land: mountains in haze, towns, shores, groves, plain things.

All of it is drawn with exact coverage, to lie before a sky or over a picture. Every function draws
from the `numpy.random.Generator` that it is given, so that a seed repeats a picture. Colours are
display-encoded RGB in [0, 1].
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from atlas.coords import Size
from preprocess.sky.procedural import fractal_noise
from preprocess.sky.scenery import Layer
from preprocess.sky.thin_things import grow_tree

_COLUMNS_PER_PX = 4
"""Samples of a skyline across one pixel, averaged for its coverage."""
_SCALE = 8
"""cv2 draws polygons at 1/8 px."""
_TREE_SUPERSAMPLING = 2


def ridges(rng: np.random.Generator, size: Size, sky: np.ndarray) -> Layer:
    """One to five mountain ridges, the far ones faded into the sky above them.

    A ridge's colour is (1 - c) haze + c own, c its clearness, growing from the farthest to the
    nearest; haze is the sky's colour just above the ridge. Mist may thicken below each skyline.

    Args:
        sky: (H, W, 3) float32, the sky in the picture.
    """
    height, width = size.height, size.width
    count = int(rng.integers(1, 6))
    top = rng.uniform(0.1, 0.9) * height
    bases = np.linspace(top, rng.uniform(top, 1.05 * height), count)
    far = rng.uniform(0.05, 0.5)
    clearness = np.linspace(far, rng.uniform(far, 1.0), count)
    bright = rng.uniform(0.0, 0.6) if rng.random() < 0.65 else rng.uniform(0.5, 1.0)
    own = bright * rng.uniform([0.5, 0.65, 0.6], [1.1, 1.05, 1.3])
    relief = rng.uniform(0.02, 0.5) * height
    roughness = rng.uniform(0.3, 0.65)
    above = cv2.blur(sky, (2 * (width // 4) + 1, 2 * (height // 12) + 1))
    picture = Layer(np.zeros_like(sky), np.zeros(sky.shape[:2], np.float32))
    for base, clear in zip(bases, clearness, strict=True):
        outline = base - relief * rng.uniform(0.4, 1.0) * _skyline(
            rng, _COLUMNS_PER_PX * width, roughness
        )
        nearer = own * rng.uniform(0.8, 1.2, 3)
        picture = _before(picture, _ridge(rng, above, outline, nearer, float(clear)))
    return picture


def town(rng: np.random.Generator, size: Size, sky: np.ndarray) -> Layer:
    """A row of houses and towers, mostly dark against the sky, some windows lit."""
    height, width = size.height, size.width
    base = (1 - 0.7 * rng.random() ** 1.5) * height
    tall = rng.uniform(0.03, 0.35) * height
    cover = np.zeros((height, width), np.uint8)
    x = -rng.uniform(0, 0.1) * width
    while x < width:
        across = rng.uniform(0.01, 0.12) * width
        roof = base - tall * rng.uniform(0, 1) ** 2
        gable = rng.uniform(0, 0.5) * across if rng.random() < 0.3 else 0.0
        right = x + across
        roof_line = [(x, roof), (x + across / 2, roof - gable), (right, roof)]
        _fill(cover, [(x, height), *roof_line, (right, height)])
        if rng.random() < 0.12:
            mast = across * rng.uniform(0.02, 0.15)
            peak = roof - rng.uniform(0.2, 1.0) * tall
            _fill(cover, [(x, roof), (x + mast, peak), (x + 2 * mast, roof)])
        x += across * rng.uniform(0.6, 1.3)
    _fill(cover, [(-1, base), (width, base), (width, height), (-1, height)])
    haze = sky.reshape(-1, 3).mean(axis=0)
    colour = rng.uniform(0.0, 0.35) * haze + rng.uniform(0.0, 0.25) * rng.uniform(0.6, 1.1, 3)
    shade = 0.6 + 0.8 * fractal_noise(rng, size, 12, 4)[..., None]
    rgb = (colour * shade).astype(np.float32)
    rgb += _lights(rng, size, int(rng.integers(0, 120)))
    return Layer(np.clip(rgb, 0, 1), cover.astype(np.float32) / 255)


def shore(rng: np.random.Generator, size: Size, sky: np.ndarray) -> Layer:
    """Calm water to a level horizon, and wet sand before it: both mirror the sky above.

    What is mirrored is dimmed, smeared down and sideways; sand is darker and duller than water.
    """
    height, width = size.height, size.width
    horizon = round(rng.uniform(0.2, 0.85) * height)
    rows = height - horizon
    squeeze = rng.uniform(0.6, 1.4)
    source = np.clip(horizon - 1 - np.arange(rows) * squeeze, 0, height - 1).astype(int)
    smear = (2 * int(rng.integers(0, width // 10)) + 1, 2 * int(rng.integers(1, height // 8)) + 1)
    mirrored = cv2.blur(np.ascontiguousarray(sky[source]), smear)
    sea = mirrored * rng.uniform(0.45, 1.0) * rng.uniform(0.85, 1.1, 3)
    waves = fractal_noise(rng, Size(max(16, 4 * rows), max(16, width // 4)), 10, 4, 0.7)
    waves = cv2.resize(waves, (width, rows), interpolation=cv2.INTER_AREA)[..., None]
    sea = sea * (1 + rng.uniform(0.02, 0.7) * (waves - 0.5))
    y = np.arange(rows, dtype=np.float32)[:, None]
    line = rng.uniform(0.0, 1.3) * rows + rng.uniform(-0.6, 0.6) * rows * np.linspace(-1, 1, width)
    line = line + rng.uniform(0, 0.15) * rows * _skyline(rng, width, 0.4)
    sand_share = np.clip((y - line) / rng.uniform(1, 12), 0, 1)[..., None]
    dry = rng.uniform(0.05, 0.6) * rng.uniform([0.8, 0.65, 0.5], [1.0, 0.95, 0.9])
    sand = mirrored * rng.uniform(0.2, 0.85) + dry * rng.uniform(0.1, 0.6)
    grain = fractal_noise(rng, Size(max(rows, 16), width), 8, 5, 0.8)[:rows, :, None]
    sand = sand * (1 + rng.uniform(0, 0.3) * (grain - 0.5))
    rgb = np.zeros((height, width, 3), np.float32)
    rgb[horizon:] = np.clip(sea + sand_share * (sand - sea), 0, 1)
    cover = np.zeros((height, width), np.float32)
    cover[horizon:] = 1
    return Layer(rgb, cover)


def grove(rng: np.random.Generator, size: Size) -> np.ndarray:
    """Coverage of trees that stand close, on one side or all over, with the sky between stems.

    Returns:
        (H, W) float32 in [0, 1].
    """
    scale = _TREE_SUPERSAMPLING
    height, width = size.height * scale, size.width * scale
    canvas = np.zeros((height, width), np.uint8)
    left, right = sorted(rng.uniform(-0.1, 1.1, 2))
    if rng.random() < 0.4:
        left, right = -0.1, 1.1
    ground = rng.uniform(0.75, 1.15) * height
    for _ in range(int(rng.integers(4, 16))):
        foot = (rng.uniform(left, right) * width, ground + rng.uniform(-0.05, 0.1) * height)
        stem = rng.uniform(0.15, 0.5) * height
        thickness = rng.uniform(0.006, 0.035) * height
        heading = math.radians(-90 + rng.normal(0, 7))
        grow_tree(rng, canvas, (foot, heading, stem, thickness), int(rng.integers(20, 90)))
    if ground < height:
        hedge = ground - rng.uniform(0, 0.2) * height * _skyline(rng, width, 0.7)
        rows = np.arange(height)[:, None]
        canvas[rows >= hedge] = 255
    return cv2.resize(canvas, size.wh, interpolation=cv2.INTER_AREA).astype(np.float32) / 255


def plain_things(rng: np.random.Generator, size: Size) -> Layer:
    """One to four things, plain or striped, as cars, boats, walls, balloons and awnings are.

    Boxes, rounded shapes and polygons anywhere, often cut off by the upper edge; lightly shaded,
    some with seams or a rim.
    """
    picture = Layer(
        np.zeros((size.height, size.width, 3), np.float32),
        np.zeros((size.height, size.width), np.float32),
    )
    for _ in range(int(rng.integers(1, 5))):
        picture = _before(picture, _plain_thing(rng, size))
    return picture


def night_lights(rng: np.random.Generator, size: Size, alpha: np.ndarray) -> np.ndarray:
    """Lamps and windows to add to ground by night: (H, W, 3) float32, nothing in the sky."""
    return _lights(rng, size, int(rng.integers(3, 150))) * (1 - alpha[..., None])


def _ridge(
    rng: np.random.Generator, sky: np.ndarray, outline: np.ndarray, own: np.ndarray, clear: float
) -> Layer:
    """One ridge below `outline` (4 W,) rows, of colour `own` seen with clearness `clear`."""
    height, width = sky.shape[:2]
    fine = np.repeat(np.arange(width), _COLUMNS_PER_PX)
    y = np.arange(height, dtype=np.float32)[:, None]
    cover = np.clip(y + 1 - outline, 0, 1).reshape(height, width, _COLUMNS_PER_PX).mean(axis=2)
    row = np.clip(outline, 0, height - 1).astype(int)
    haze = sky[row, fine].reshape(width, _COLUMNS_PER_PX, 3).mean(axis=1)
    below = np.clip((y - outline.reshape(width, -1).mean(axis=1)) / (0.3 * height), 0, 1)
    seen = clear * (1 - rng.uniform(0, 0.8) * below)[..., None]
    size = Size(height, width)
    relief = fractal_noise(rng, size, int(rng.integers(2, 8)), 5, 0.65)[..., None]
    if rng.random() < 0.6:
        relief = relief + rng.uniform(0.3, 2.0) * (_faces(rng, size)[..., None] - 0.5)
    lit = np.clip(own * (1 + rng.uniform(0, 0.8) * (relief - 0.5)), 0, 1)
    if rng.random() < 0.15:
        snow = np.clip((relief - rng.uniform(0.3, 0.6)) * 8, 0, 1) * (1 - below[..., None]) ** 3
        lit = lit + snow * (rng.uniform(0.7, 1.0) - lit)
    least = 0.03 * np.sign(own.mean() - haze.mean())
    rgb = haze[None] + seen * (lit - haze[None]) + least
    return Layer(np.clip(rgb, 0, 1).astype(np.float32), cover.astype(np.float32))


def _faces(rng: np.random.Generator, size: Size) -> np.ndarray:
    """Lit and shaded faces that run down slopes, as slanting streaks: (H, W) float32 in [0, 1]."""
    flat = Size(max(8, size.height // int(rng.integers(2, 8))), 2 * size.width)
    noise = fractal_noise(rng, flat, int(rng.integers(2, 8)), 5, 0.7)
    noise = cv2.resize(noise, (2 * size.width, size.height), interpolation=cv2.INTER_LINEAR)
    slant = rng.uniform(-1.0, 1.0) * size.width / (2 * size.height)
    shear = np.array([[1, slant, size.width / 2], [0, 1, 0]], np.float32)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    streaks = cv2.warpAffine(noise, shear, size.wh, flags=flags, borderMode=cv2.BORDER_REFLECT)
    return np.clip(0.5 + rng.uniform(1, 6) * (streaks - np.median(streaks)), 0, 1)


def _skyline(rng: np.random.Generator, columns: int, roughness: float) -> np.ndarray:
    """A random outline, 0 low to 1 high: (columns,).

    Octaves of smooth noise; half of the time folded, which makes peaks.
    """
    x = np.linspace(0, 1, columns)
    total = np.zeros_like(x)
    weight, cells = 1.0, int(rng.integers(1, 6))
    peaks = rng.random() < 0.5
    smooth = rng.random() < 0.6
    for _ in range(int(rng.integers(1, 7))):
        place = x * cells + rng.random()
        whole = place.astype(int)
        part = place - whole
        if smooth:
            part = part * part * (3 - 2 * part)
        values = rng.random(cells + 3)
        octave = values[whole] + part * (values[whole + 1] - values[whole])
        total += weight * (1 - np.abs(2 * octave - 1) if peaks else octave)
        weight *= roughness
        cells *= 2
    span = float(total.max() - total.min())
    return (total - total.min()) / max(span, 1e-6)


def _before(behind: Layer, front: Layer) -> Layer:
    """Two layers as one; straight colours, exact where the front one covers wholly or nothing."""
    cover = front.coverage + behind.coverage * (1 - front.coverage)
    share = front.coverage / np.maximum(cover, 1e-6)
    rgb = behind.rgb + share[..., None] * (front.rgb - behind.rgb)
    return Layer(rgb.astype(np.float32), cover.astype(np.float32))


def _fill(cover: np.ndarray, corners: list[tuple[float, float]]) -> None:
    points = np.round(np.array([corners]) * _SCALE).astype(np.int32)
    cv2.fillPoly(cover, points, 255, cv2.LINE_AA, 3)


def _lights(rng: np.random.Generator, size: Size, count: int) -> np.ndarray:
    """Small warm and cold lights with their bloom: (H, W, 3) float32 to add."""
    points = np.zeros((size.height, size.width, 3), np.float32)
    low, high = sorted(rng.uniform(0.2, 1.0, 2))
    for _ in range(count):
        x, y = int(rng.integers(size.width)), int(rng.uniform(low, high) * (size.height - 1))
        colour = rng.uniform(0.4, 1.0) * rng.uniform([0.8, 0.5, 0.2], [1.0, 0.95, 1.0])
        side = int(rng.integers(0, 2))
        points[y : y + 1 + side, x : x + 1 + int(rng.integers(0, 2))] = colour
    bloom = cv2.GaussianBlur(points, (0, 0), rng.uniform(1, 4))
    return points + rng.uniform(0, 4) * bloom


def _plain_colour(rng: np.random.Generator) -> np.ndarray:
    """(3,) of a painted or plastered thing: red, orange, cream, blue, any other, grey."""
    low, high = _PAINTS[int(rng.integers(len(_PAINTS)))]
    return rng.uniform(0.35, 1.0) * rng.uniform(low, high)


_PAINTS = (
    ([0.8, 0.0, 0.0], [1.0, 0.25, 0.25]),
    ([0.85, 0.3, 0.0], [1.0, 0.65, 0.3]),
    ([0.9, 0.8, 0.55], [1.0, 0.97, 0.85]),
    ([0.0, 0.15, 0.5], [0.5, 0.75, 1.0]),
    ([0.55, 0.45, 0.6], [0.9, 0.8, 1.0]),
    ([0.0, 0.0, 0.0], [1.0, 1.0, 1.0]),
    ([0.85, 0.87, 0.88], [1.0, 1.0, 1.0]),
)


def _plain_thing(rng: np.random.Generator, size: Size) -> Layer:
    height, width = size.height, size.width
    half = rng.uniform(0.08, 0.6, 2) * height
    centre = np.array([rng.uniform(0, 1) * width, rng.uniform(0, 1.05) * height])
    if rng.random() < 0.35:
        centre[1] = rng.uniform(-0.3, 0.6) * half[1]  # cut off by the upper edge
    corners = _outline(rng) * half + centre
    cover = np.zeros((height, width), np.uint8)
    _fill(cover, [(float(x), float(y)) for x, y in corners])
    colour = _plain_colour(rng)
    x, y = np.meshgrid(np.linspace(-1, 1, width), np.linspace(-1, 1, height))
    turn = rng.uniform(0, 2 * np.pi)
    if rng.random() < 0.35:
        colour = _stripes(rng, colour, x, y)
    light = 1 + rng.uniform(0, 0.3) * (np.cos(turn) * x + np.sin(turn) * y)
    light = light + rng.uniform(0, 0.15) * (fractal_noise(rng, size, 2, 5) - 0.5)
    rgb = np.clip(colour * light[..., None], 0, 1).astype(np.float32)
    colour = rgb.mean((0, 1))
    rim = np.round(corners[None] * _SCALE).astype(np.int32)
    if rng.random() < 0.4:
        shade = (rng.uniform(0.2, 0.85) * colour).tolist()
        cv2.polylines(rgb, rim, True, shade, int(rng.integers(1, 4)), cv2.LINE_AA, 3)
    if rng.random() < 0.35:
        shade = (rng.uniform(0.3, 1.1) * colour).clip(0, 1).tolist()
        for _ in range(int(rng.integers(1, 8))):
            ends = (centre + rng.uniform(-1, 1, (2, 2)) * half).round().astype(int)
            if rng.random() < 0.6:
                ends[1, int(rng.integers(2))] = ends[0, int(rng.integers(2))]
            thick = int(rng.integers(1, 4))
            cv2.line(rgb, ends[0].tolist(), ends[1].tolist(), shade, thick, cv2.LINE_AA)
    return Layer(rgb, cover.astype(np.float32) / 255)


def _stripes(
    rng: np.random.Generator, colour: np.ndarray, x: np.ndarray, y: np.ndarray
) -> np.ndarray:
    """Stripes of a colour (3,) and another, often white, straight or bent: (H, W, 3)."""
    other = rng.uniform(0.7, 1.0) * np.ones(3) if rng.random() < 0.5 else _plain_colour(rng)
    turn = rng.uniform(0, np.pi)
    across = np.cos(turn) * x + np.sin(turn) * y
    along = np.cos(turn) * y - np.sin(turn) * x
    across = across * (1 + rng.uniform(0, 1.5) * along**2) * rng.uniform(4, 25)
    share = np.clip(0.5 + 4 * (np.sin(across) + rng.uniform(-0.6, 0.6)), 0, 1)[..., None]
    return colour + share * (other - colour)


def _outline(rng: np.random.Generator) -> np.ndarray:
    """A closed outline within about [-1, 1]: box, rounded box or star-shaped polygon; (N, 2)."""
    kind = rng.random()
    if kind < 0.35:
        points = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) + rng.normal(0, 0.12, (4, 2))
    elif kind < 0.7:
        angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
        power = rng.uniform(0.3, 1.0)
        ring = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
        points = np.sign(ring) * np.abs(ring) ** power
    else:
        count = int(rng.integers(3, 8))
        angle = np.sort(rng.uniform(0, 2 * np.pi, count))
        reach = rng.uniform(0.5, 1.2, count)
        points = np.stack([reach * np.cos(angle), reach * np.sin(angle)], axis=-1)
    turn = rng.normal(0, 0.25)
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return points @ matrix.T
