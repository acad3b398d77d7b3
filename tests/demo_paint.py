"""Painting the demo clip's land: far mountains, wooded hills, a meadow with a path, a cottage."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from atlas.coords import Size
from edits.skies.noise import mix, sample_tile, smoothstep, spectral_noise

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Easel:
    """A canvas being painted.

    rgb: (H, W, 3) uint8. alpha: (H, W) float32. unit: texels per hundredth of the frame's height.
    horizon: row of the horizon, texels. rng: source of all chance.
    """

    rgb: np.ndarray
    alpha: np.ndarray
    unit: float
    horizon: float
    rng: np.random.Generator

    @property
    def size(self) -> Size:
        return Size(*self.alpha.shape)

    def lay(self, rgb: np.ndarray, share: np.ndarray) -> None:
        """Paint float colours (H, W, 3) in [0, 1] over the canvas by `share` (H, W)."""
        share = share.astype(np.float32)
        before = self.rgb.astype(np.float32) / 255
        after = self.alpha + share * (1 - self.alpha)
        weight = np.divide(share, after, out=np.zeros_like(share), where=after > 0)
        self.rgb[:] = np.rint(np.clip(mix(before, rgb, weight), 0, 1) * 255)
        self.alpha[:] = after


def skyline(easel: Easel, height: float, roughness: float, longest: float) -> np.ndarray:
    """(W,) float: rows of a hill's outline, `height` units above the horizon on average."""
    width = easel.size.width
    noise = spectral_noise(1024, easel.rng, slope=roughness, longest=0.5)[7]
    x = np.arange(width) / (easel.unit * longest) * 512
    at = np.mod(x, 1024)
    line = np.interp(at, np.arange(1025), np.append(noise, noise[0]))
    return easel.horizon - easel.unit * height * (1 + 0.45 * line)


def below(easel: Easel, rows: np.ndarray) -> np.ndarray:
    """(H, W) float32: exact share of each texel that lies below an outline."""
    y = np.arange(easel.size.height)[:, None]
    return np.clip(y - rows[None] + 0.5, 0, 1).astype(np.float32)


def mountains(easel: Easel, rows: np.ndarray, lit: Colour, shaded: Colour, haze: Colour) -> None:
    """A far range: slopes lit from the left, fading into haze at its foot."""
    size, tile = easel.size, spectral_noise(1024, easel.rng, slope=1.55, longest=0.3)
    y, x = np.mgrid[: size.height, : size.width].astype(np.float32)
    down = y - rows[None].astype(np.float32)
    # ridges run down from the outline: stretch the noise along the fall line
    scale = 5.0 / easel.unit
    relief = sample_tile(tile, (x + 0.5 * down) * scale, down * scale * 0.45)
    slope = relief - sample_tile(tile, (x + 0.5 * down) * scale - 7, down * scale * 0.45 - 2)
    light = smoothstep(-0.5, 0.6, slope)
    colours = [np.array(c, np.float32) / 255 for c in (lit, shaded, haze)]
    rgb = mix(np.broadcast_to(colours[1], (*light.shape, 3)), colours[0], light)
    rgb = mix(rgb, colours[2], smoothstep(0, 15 * easel.unit, down) * 0.85)
    easel.lay(rgb, below(easel, rows))


def woods(
    easel: Easel, rows: np.ndarray, look: tuple[Colour, Colour], crown: float, haze: float
) -> None:
    """A hill covered with trees: crowns painted one by one from the ridge down.

    look: colours of lit and shaded leaves. crown: radius of a crown, units. haze: share of air.
    """
    rng, unit, size = easel.rng, easel.unit, easel.size
    air = np.array([176, 200, 222], np.float32)
    lit, shaded = (np.array(c, np.float32) * (1 - haze) + air * haze for c in look)
    ground = np.broadcast_to(shaded / 255, (size.height, size.width, 3))
    easel.lay(ground, below(easel, rows + 0.5 * crown * unit))
    drop = 26 * unit
    count = int(size.width * drop / (crown * unit) ** 2 * 0.85)
    x, fall = rng.uniform(0, size.width, count), rng.uniform(0, 1, count) ** 1.3
    glade = spectral_noise(512, rng, slope=2.0, longest=0.4)
    ink, cover = easel.rgb.copy(), np.zeros((size.height, size.width), np.uint8)
    for i in np.argsort(fall):
        row = rows[int(x[i])] + fall[i] * drop
        if glade[int(row * 1.7) % 512, int(x[i] * 0.7) % 512] > 0.9 and fall[i] > 0.05:
            continue
        radius = crown * unit * rng.uniform(0.7, 1.25) * (1 + 0.5 * fall[i])
        tone = rng.normal(0, 0.12) + 0.12
        shape = (int(16 * radius), int(16 * radius * rng.uniform(0.95, 1.5)))
        warm = rng.normal(0, 9)
        for dx, dy, share, light in (
            (0, 0, 1.0, 0.0),
            (-0.22, -0.3, 0.72, 0.5),
            (-0.35, -0.5, 0.4, 0.95),
        ):
            colour = shaded + (lit - shaded) * np.clip(light + tone, -0.15, 1.15)
            colour = (colour + warm * np.array([1, 0.4, 0])).clip(0, 255)
            at = (int(16 * (x[i] + dx * radius)), int(16 * (row + dy * radius)))
            axes = (int(shape[0] * share), int(shape[1] * share))
            cv2.ellipse(ink, at, axes, 0, 0, 360, colour.tolist(), -1, cv2.LINE_AA, 4)
            if light == 0:
                cv2.ellipse(cover, at, axes, 0, 0, 360, 255, -1, cv2.LINE_AA, 4)
    easel.lay(ink.astype(np.float32) / 255, cover.astype(np.float32) / 255)


def ground_place(easel: Easel, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distances and sideways positions on a meadow below an outline, (H, W), eye heights."""
    size = easel.size
    y, x = np.mgrid[: size.height, : size.width].astype(np.float32)
    down = np.maximum(y - rows[None].astype(np.float32), 0) / easel.unit
    far = 260 / (down + 4.5)
    return far, (x - size.width / 2) / easel.unit / (down + 4.5) * 2.6


def meadow(easel: Easel, rows: np.ndarray) -> None:
    """Rolling grass in perspective, with patches of colour, strokes of grass and flowers."""
    rng, unit, size = easel.rng, easel.unit, easel.size
    far, side = ground_place(easel, rows)
    broad = spectral_noise(1024, rng, slope=1.7, longest=0.3)
    fine = spectral_noise(1024, rng, slope=1.1, longest=0.12)
    tone = sample_tile(broad, side * 26, far * 26)
    detail = sample_tile(fine, side * 90, far * 60)
    dark, mid, dry = (
        np.array(c, np.float32) / 255 for c in ((54, 84, 34), (118, 146, 54), (206, 190, 98))
    )
    rgb = mix(
        np.broadcast_to(dark, (*far.shape, 3)), mid, smoothstep(-1.8, 0.9, tone + 0.35 * detail)
    )
    rgb = mix(rgb, dry, 0.75 * smoothstep(0.5, 1.9, tone + 0.4 * detail))
    rgb = mix(rgb, np.array([0.66, 0.74, 0.56], np.float32), 0.5 * smoothstep(22, 58, far))
    rgb *= (1 + 0.07 * np.clip(detail, -2, 2))[..., None]
    easel.lay(rgb, below(easel, rows))
    path(easel, rows)
    strokes(easel, rows, 26_000, flowers=False)
    strokes(easel, rows, 2_800, flowers=True)
    shade = smoothstep(10, 62, (np.arange(size.height) - easel.horizon) / unit)
    easel.rgb[:] = np.rint(easel.rgb * (1 - 0.28 * shade)[:, None, None])


def path(easel: Easel, rows: np.ndarray) -> None:
    """A trodden path that winds from the foreground over the hill."""
    far, side = ground_place(easel, rows)
    centre = 1.1 + 2.6 * np.sin(0.105 * far + 0.35) - 0.035 * far
    off = np.abs(side - centre)
    fray = sample_tile(spectral_noise(512, easel.rng, slope=1.2, longest=0.2), side * 80, far * 50)
    share = 1 - smoothstep(0.42, 0.75, off + 0.09 * fray)
    ruts = np.exp(-(((off - 0.27) / 0.09) ** 2))
    earth = mix(
        np.array([0.80, 0.70, 0.50], np.float32) + 0 * side[..., None],
        np.array([0.62, 0.51, 0.35], np.float32),
        0.7 * ruts,
    )
    earth *= (1 + 0.06 * fray)[..., None]
    easel.lay(earth, 0.85 * share * below(easel, rows + 1))


def strokes(easel: Easel, rows: np.ndarray, count: int, *, flowers: bool) -> None:
    """Blades of grass, or flowers on the meadow; larger where nearer."""
    rng, unit, size = easel.rng, easel.unit, easel.size
    x = rng.uniform(0, size.width - 1, count)
    depth = rng.uniform(0.02, 1, count) ** (1.25 if flowers else 0.9)
    top = rows[x.astype(int)]
    y = top + depth * (size.height - top)
    near = (y - top) / unit
    palette = np.array([(250, 246, 232), (244, 206, 62), (196, 62, 54), (150, 110, 190)])
    patches = spectral_noise(256, rng, slope=1.8, longest=0.5)
    order = np.argsort(y)
    for i in order:
        column, row = int(x[i]), min(int(y[i]), size.height - 1)
        if flowers:
            kind = patches[int(y[i] * 0.9) % 256, int(x[i] * 0.35) % 256]
            if abs(kind) < rng.uniform(0.3, 1.6):
                continue
            colour = palette[(kind > 0) * 1 + 2 * (abs(kind) > 1.1)] * rng.uniform(0.85, 1.0)
            radius = int(16 * unit * (0.10 + 0.009 * near[i]) * rng.uniform(0.7, 1.3))
            cv2.circle(
                easel.rgb,
                (int(x[i] * 16), int(y[i] * 16)),
                radius,
                colour.tolist(),
                -1,
                cv2.LINE_AA,
                4,
            )
            continue
        around = easel.rgb[row, column].astype(np.float32)
        if around[0] > around[1]:  # leave the path and dry earth free of grass
            continue
        colour = (around * rng.uniform(0.72, 1.32) + rng.normal(0, 4, 3)).clip(0, 255)
        length = unit * (0.35 + 0.075 * near[i]) * rng.uniform(0.6, 1.5)
        lean = rng.normal(0.25, 0.35)
        tip = (int(16 * (x[i] + lean * length)), int(16 * (y[i] - length)))
        thick = 1 if near[i] < 30 else 2
        cv2.line(
            easel.rgb, (int(x[i] * 16), int(y[i] * 16)), tip, colour.tolist(), thick, cv2.LINE_AA, 4
        )


def cottage(easel: Easel, x: float, y: float, scale: float) -> None:
    """A small white house with a red roof and a chimney, its foot at (x, y), texels."""
    s = scale * easel.unit

    def area(points: list[tuple[float, float]], colour: Colour) -> None:
        at = np.array([[(x + px * s) * 16, (y + py * s) * 16] for px, py in points])
        at = np.rint(at).astype(np.int32)
        cv2.fillPoly(easel.rgb, [at], colour, cv2.LINE_AA, 4)
        cover = np.zeros(easel.alpha.shape, np.uint8)
        cv2.fillPoly(cover, [at], 255, cv2.LINE_AA, 4)
        np.maximum(easel.alpha, cover / 255, out=easel.alpha, casting="same_kind")

    area([(1.2, -2.9), (1.5, -2.9), (1.5, -1.8), (1.2, -1.8)], (150, 100, 84))
    area([(-1, 0), (-1, -1.15), (-0.3, -2.1), (0.4, -1.15), (0.4, 0)], (250, 240, 222))
    area([(0.4, 0), (0.4, -1.15), (2.3, -1.15), (2.3, 0)], (206, 194, 184))
    area([(-0.3, -2.2), (1.7, -2.2), (2.5, -1.1), (0.45, -1.1)], (186, 74, 54))
    area([(-0.3, -2.2), (-0.18, -2.02), (-1.02, -1.05), (-1.18, -1.1)], (142, 52, 42))
    for wx, wy in ((0.75, -0.8), (1.6, -0.8), (-0.45, -0.85)):
        area([(wx, wy), (wx + 0.32, wy), (wx + 0.32, wy + 0.42), (wx, wy + 0.42)], (62, 72, 92))
    area([(-0.4, 0), (-0.4, -0.0), (-0.1, -0.0), (-0.1, 0)], (90, 60, 44))


def fence(easel: Easel, rows: np.ndarray, x0: float, x1: float, drop: float) -> None:
    """Posts and two rails on the meadow, columns x0 to x1, `drop` units below its rim."""
    u = easel.unit
    posts = np.arange(x0, x1, 4.2 * u)
    feet = np.interp(posts, np.arange(easel.size.width), rows) + drop * u
    feet += u * easel.rng.normal(0, 0.12, len(posts))
    for x, y in zip(posts, feet, strict=True):
        cv2.line(
            easel.rgb,
            (int(16 * x), int(16 * y)),
            (int(16 * x), int(16 * (y - 2.4 * u))),
            (86, 68, 50),
            max(int(0.42 * u), 1),
            cv2.LINE_AA,
            4,
        )
    for up in (1.0, 1.9):
        line = np.stack([posts, feet - up * u], axis=-1)
        cv2.polylines(
            easel.rgb,
            [np.rint(line * 16).astype(np.int32)],
            False,
            (112, 92, 70),
            1,
            cv2.LINE_AA,
            4,
        )
