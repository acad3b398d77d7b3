"""Training material that is computed: skies of many kinds, and the noise they are made of.

Every function draws from the `numpy.random.Generator` that it is given, so that a seed repeats a
picture. Colours are display-encoded RGB in [0, 1].
"""

from __future__ import annotations

import cv2
import numpy as np

from atlas.coords import Size

DAY_KINDS = ("clear", "clouds", "cumulus", "overcast", "white", "haze")
SKY_KINDS = (*DAY_KINDS, "sunset", "dusk", "twilight", "night", "city_glow")


def fractal_noise(
    rng: np.random.Generator, size: Size, cells: int = 3, octaves: int = 5, roughness: float = 0.55
) -> np.ndarray:
    """Sum of smooth random fields, each octave with twice the cells and `roughness` the weight.

    Args:
        size: of the result, pixels.
        cells: random values across the shorter side in the coarsest octave, >= 1.
        octaves: number of fields, >= 1.
        roughness: weight of each octave relative to the one before, (0, 1].
    Returns:
        (H, W) float32, scaled to span [0, 1].
    """
    total = np.zeros((size.height, size.width), np.float32)
    aspect = size.width / size.height
    weight = 1.0
    for octave in range(octaves):
        rows = cells * 2**octave + 1
        columns = max(2, round(rows * aspect))
        if rows > 2 * size.height:
            break
        field = rng.random((rows, columns), dtype=np.float32)
        total += weight * cv2.resize(field, size.wh, interpolation=cv2.INTER_CUBIC)
        weight *= roughness
    low, high = float(total.min()), float(total.max())
    return (total - low) / max(high - low, 1e-6)


def sky_picture(rng: np.random.Generator, size: Size, kind: str) -> np.ndarray:
    """A sky without ground.

    Args:
        size: of the picture, pixels.
        kind: one of `SKY_KINDS`.
    Returns:
        (H, W, 3) float32 in [0, 1].
    """
    if kind == "clear":
        sky = _clear(rng, size)
    elif kind == "clouds":
        sky = _clouds(rng, size)
    elif kind == "cumulus":
        sky = _cumulus(rng, size)
    elif kind == "overcast":
        sky = _overcast(rng, size)
    elif kind == "white":
        sky = _white(rng, size)
    elif kind == "sunset":
        sky = _sunset(rng, size)
    elif kind == "dusk":
        sky = _dusk(rng, size)
    elif kind == "twilight":
        sky = _twilight(rng, size)
    elif kind == "night":
        sky = _night(rng, size)
    elif kind == "city_glow":
        sky = _city_glow(rng, size)
    elif kind == "haze":
        sky = _haze(rng, size)
    else:
        raise ValueError(f"kind must be one of {SKY_KINDS}, got {kind!r}")
    return np.clip(sky, 0, 1).astype(np.float32)


def afterglow(rng: np.random.Generator, sky: np.ndarray) -> np.ndarray:
    """A sky's clouds as a low sun lights them: brightness mapped to dark, burning, pale colours.

    Args:
        sky: (H, W, 3) float32, any sky.
    Returns:
        (H, W, 3) float32 in [0, 1].
    """
    height = sky.shape[0]
    grey = sky.mean(axis=2)
    low, high = np.quantile(grey, [0.02, 0.98])
    light = np.clip((grey - low) / max(float(high - low), 0.03), 0, 1)
    fall = np.linspace(rng.uniform(-0.6, 0.2), rng.uniform(-0.1, 0.6), height, dtype=np.float32)
    place = np.clip(light * rng.uniform(0.4, 1.0) + fall[:, None] + rng.uniform(0, 0.3), 0, 1)
    dark = _uniform(rng, [0.03, 0.01, 0.02], [0.4, 0.3, 0.4])
    burning = _uniform(rng, [0.7, 0.2, 0.0], [1.0, 0.6, 0.55])
    pale = _uniform(rng, [0.95, 0.6, 0.2], [1.0, 0.95, 0.9])
    stops = [0.0, rng.uniform(0.35, 0.7), 1.0]
    colours = (dark, burning, pale)
    channels = [np.interp(place, stops, [colour[c] for colour in colours]) for c in range(3)]
    glowing = rng.uniform(0.25, 1.0) * np.stack(channels, axis=-1)
    return np.clip(glowing + rng.uniform(0, 0.3) * (sky - glowing), 0, 1).astype(np.float32)


def _gradient(size: Size, stops: list[tuple[float, np.ndarray]], tilt: float) -> np.ndarray:
    """Colour stops (position 0 top .. 1 bottom, RGB) over a slightly tilted vertical axis."""
    y = np.linspace(0, 1, size.height, dtype=np.float32)[:, None]
    x = np.linspace(-0.5, 0.5, size.width, dtype=np.float32)[None]
    position = y + tilt * x
    places = [stop[0] for stop in stops]
    channels = [np.interp(position, places, [stop[1][c] for stop in stops]) for c in range(3)]
    return np.stack(channels, axis=-1).astype(np.float32)


def _uniform(rng: np.random.Generator, low: list[float], high: list[float]) -> np.ndarray:
    return rng.uniform(low, high).astype(np.float32)


def _glow(rng: np.random.Generator, size: Size) -> np.ndarray:
    """A soft round light somewhere in or beside the picture: (H, W, 1) in [0, 1]."""
    centre_x = rng.uniform(-0.2, 1.2) * size.width
    centre_y = rng.uniform(-0.2, 1.1) * size.height
    radius_px = rng.uniform(0.05, 0.6) * size.height
    y, x = np.mgrid[: size.height, : size.width].astype(np.float32)
    distance = np.hypot(x - centre_x, y - centre_y)
    return np.exp(-((distance / radius_px) ** rng.uniform(0.8, 2.0)))[..., None]


def _clear(rng: np.random.Generator, size: Size) -> np.ndarray:
    zenith = _uniform(rng, [0.05, 0.22, 0.5], [0.45, 0.62, 0.95])
    pale = _uniform(rng, [0.6, 0.7, 0.8], [0.95, 0.97, 1.0])
    horizon = zenith + (pale - zenith) * rng.uniform(0.05, 0.95)
    sky = _gradient(size, [(0.0, zenith), (1.0, horizon)], rng.uniform(-0.4, 0.4))
    if rng.random() < 0.4:
        sky += (1 - sky) * _glow(rng, size) * rng.uniform(0.3, 1.0)
    return sky


def _clouds(rng: np.random.Generator, size: Size) -> np.ndarray:
    sky = _clear(rng, size)
    noise = fractal_noise(
        rng, size, int(rng.integers(1, 5)), int(rng.integers(4, 7)), rng.uniform(0.4, 0.65)
    )
    low = rng.uniform(0.25, 0.6)
    opacity = np.clip((noise - low) / rng.uniform(0.08, 0.5), 0, 1)[..., None]
    light = _uniform(rng, [0.85, 0.85, 0.85], [1.0, 1.0, 1.0])
    shade = light * rng.uniform(0.45, 0.95)
    depth = fractal_noise(rng, size, 3, 4)[..., None]
    return sky + opacity * rng.uniform(0.5, 1.0) * (shade + (light - shade) * depth - sky)


def _cumulus(rng: np.random.Generator, size: Size) -> np.ndarray:
    """Heaped clouds, lit from one side; they may fill the picture."""
    sky = _clear(rng, size)
    noise = fractal_noise(rng, size, int(rng.integers(1, 4)), 7, rng.uniform(0.45, 0.6))
    opacity = np.clip((noise - rng.uniform(0.05, 0.5)) / rng.uniform(0.03, 0.2), 0, 1)[..., None]
    reach = max(1, round(rng.uniform(0.02, 0.1) * size.height))
    across, down = int(rng.integers(-reach, reach + 1)), int(rng.integers(1, reach + 1))
    light = np.array([[1, 0, across], [0, 1, down]], np.float32)
    lower = cv2.warpAffine(noise, light, size.wh, borderMode=cv2.BORDER_REFLECT_101)
    relief = rng.uniform(0.5, 3.0) * (noise - lower) + rng.uniform(0, 0.6) * (noise - 0.5)
    grey = np.clip(rng.uniform(0.45, 1.0) + relief, rng.uniform(0.2, 0.6), 1.0)[..., None]
    return sky + opacity * (grey * _uniform(rng, [0.9, 0.94, 0.95], [1.0, 1.0, 1.03]) - sky)


def _white(rng: np.random.Generator, size: Size) -> np.ndarray:
    """Burnt out: white or nearly so, with hardly any drawing."""
    pale = rng.uniform(0.9, 1.05) * _uniform(rng, [0.95, 0.97, 0.97], [1.0, 1.0, 1.0])
    other = pale * rng.uniform(0.93, 1.05)
    return _gradient(size, [(0.0, pale), (1.0, other)], rng.uniform(-0.3, 0.3))


def _overcast(rng: np.random.Generator, size: Size) -> np.ndarray:
    grey = rng.uniform(0.3, 1.0) * _uniform(rng, [0.9, 0.94, 0.96], [1.0, 1.0, 1.05])
    lower = grey * rng.uniform(0.75, 1.3)
    sky = _gradient(size, [(0.0, grey), (1.0, lower)], rng.uniform(-0.3, 0.3))
    noise = fractal_noise(rng, size, int(rng.integers(1, 4)), int(rng.integers(3, 6)))
    return sky * (1 + rng.uniform(0.0, 0.5) * (noise[..., None] - 0.5))


def _sunset(rng: np.random.Generator, size: Size) -> np.ndarray:
    dim = rng.uniform(0.5, 1.0)
    stops = [
        (0.0, dim * _uniform(rng, [0.1, 0.1, 0.25], [0.45, 0.45, 0.7])),
        (rng.uniform(0.3, 0.6), dim * _uniform(rng, [0.4, 0.25, 0.3], [0.9, 0.6, 0.65])),
        (rng.uniform(0.7, 1.0), dim * _uniform(rng, [0.85, 0.4, 0.1], [1.0, 0.8, 0.5])),
    ]
    if rng.random() < 0.35:  # aglow up to the zenith
        stops[0] = (0.0, dim * _uniform(rng, [0.6, 0.2, 0.05], [1.0, 0.6, 0.4]))
        stops[1] = (stops[1][0], dim * _uniform(rng, [0.8, 0.3, 0.05], [1.0, 0.65, 0.4]))
    sky = _gradient(size, stops, rng.uniform(-0.3, 0.3))
    if rng.random() < 0.6:
        sky += _glow(rng, size) * _uniform(rng, [0.3, 0.15, 0.0], [0.8, 0.6, 0.3])
    noise = fractal_noise(rng, size, int(rng.integers(1, 4)), 5)[..., None]
    opacity = np.clip((noise - rng.uniform(0.3, 0.7)) / rng.uniform(0.1, 0.4), 0, 1)
    cloud = _uniform(rng, [0.1, 0.08, 0.12], [1.0, 0.7, 0.6]) * dim
    return sky + rng.uniform(0, 0.9) * opacity * (cloud - sky)


def _dusk(rng: np.random.Generator, size: Size) -> np.ndarray:
    """Deep orange, red and purple, mostly smooth: the sun's disc and glow, dark bars of cloud."""
    low = rng.uniform(0.4, 1.0) * _uniform(rng, [0.9, 0.2, 0.0], [1.0, 0.6, 0.25])
    high = rng.uniform(0.05, 0.8) * _uniform(rng, [0.3, 0.1, 0.1], [1.0, 0.55, 0.9])
    if rng.random() < 0.35:
        high = low * rng.uniform(0.15, 0.9)  # one hue up to the zenith
    elif rng.random() < 0.4:
        high = rng.uniform(0.2, 0.95) * _uniform(rng, [0.9, 0.85, 0.85], [1.0, 1.0, 1.0])
    middle = high + rng.uniform(0.2, 0.8) * (low - high)
    middle = middle * _uniform(rng, [0.9, 0.8, 0.8], [1.1, 1.1, 1.3])
    stops = [(0.0, high), (rng.uniform(0.25, 0.65), middle), (rng.uniform(0.7, 1.1), low)]
    sky = _gradient(size, stops, rng.uniform(-0.25, 0.25))
    glow = _uniform(rng, [0.8, 0.4, 0.05], [1.0, 0.9, 0.6])
    if rng.random() < 0.7:
        sky = sky + _glow(rng, size) * rng.uniform(0.2, 1.0) * (glow - sky)
    if rng.random() < 0.45:
        centre = (rng.uniform(0, size.width), rng.uniform(0.2, 1.0) * size.height)
        disc = np.zeros((size.height, size.width), np.float32)
        radius = round(rng.uniform(0.01, 0.12) * size.height * 8)
        cv2.circle(disc, (round(centre[0] * 8), round(centre[1] * 8)), radius, 1.0, -1, 16, 3)
        halo = cv2.GaussianBlur(disc, (0, 0), rng.uniform(0.05, 0.3) * size.height)
        halo *= rng.uniform(0.3, 1.0) / max(float(halo.max()), 1e-6)
        pale = _uniform(rng, [0.9, 0.6, 0.2], [1.0, 1.0, 0.95])
        sky = sky + halo[..., None] * (glow - sky)
        sky = sky + cv2.GaussianBlur(disc, (0, 0), 0.7)[..., None] * (pale - sky)
    if rng.random() < 0.75:
        sky = _with_bars(rng, size, sky)
    return sky


def _twilight(rng: np.random.Generator, size: Size) -> np.ndarray:
    """Before sunrise and after sunset: smooth, from blue or violet to pink or peach, no cloud."""
    light = rng.uniform(0.35, 1.0)
    high = _uniform(rng, [0.15, 0.2, 0.4], [0.7, 0.65, 1.0])
    low = _uniform(rng, [0.7, 0.45, 0.5], [1.0, 0.85, 0.95])
    middle = high + rng.uniform(0.2, 0.8) * (low - high)
    middle = middle * _uniform(rng, [0.95, 0.85, 0.95], [1.1, 1.0, 1.1])
    stops = [(0.0, high), (rng.uniform(0.3, 0.7), middle), (rng.uniform(0.75, 1.2), low)]
    sky = light * _gradient(size, stops, rng.uniform(-0.2, 0.2))
    if rng.random() < 0.4:
        sky = sky + (1 - sky) * _glow(rng, size) * rng.uniform(0.1, 0.7)
    return sky


def _with_bars(rng: np.random.Generator, size: Size, sky: np.ndarray) -> np.ndarray:
    """Long level bars of cloud, darker than the sky or lit from below."""
    tall = Size(size.height, max(8, size.width // int(rng.integers(3, 24))))
    noise = fractal_noise(rng, tall, int(rng.integers(3, 10)), int(rng.integers(2, 6)))
    noise = cv2.resize(noise, size.wh, interpolation=cv2.INTER_CUBIC)
    above = (noise - rng.uniform(0.25, 0.7)) / rng.uniform(0.02, 0.4)
    where = np.interp(np.linspace(0, 1, size.height), np.linspace(0, 1, 4), rng.random(4))
    where = where.astype(np.float32)[:, None, None]
    dark = _uniform(rng, [0.6, 0.4, 0.5], [1.0, 0.8, 1.0])
    cloud = sky * rng.uniform(0.1, 0.9) + rng.uniform(0, 0.15) * dark
    clouded = sky + rng.uniform(0.4, 1.0) * where * np.clip(above, 0, 1)[..., None] * (cloud - sky)
    if rng.random() < 0.5:
        fringe = np.exp(-((above / rng.uniform(0.2, 1.0)) ** 2))[..., None] * where
        lit = _uniform(rng, [0.95, 0.4, 0.1], [1.0, 0.9, 0.6])
        clouded = clouded + rng.uniform(0.1, 0.8) * fringe * (lit - clouded)
    return clouded


def _city_glow(rng: np.random.Generator, size: Size) -> np.ndarray:
    """Night over lamps: brown, grey or violet, paler towards the skyline, with haze and cloud."""
    tint = _uniform(rng, [0.6, 0.4, 0.25], [1.0, 0.85, 0.8])
    top = rng.uniform(0.02, 0.25) * tint
    low = top * rng.uniform(0.8, 3.0) * _uniform(rng, [0.9, 0.85, 0.8], [1.1, 1.0, 1.0])
    sky = _gradient(size, [(0.0, top), (1.0, low)], rng.uniform(-0.3, 0.3))
    noise = fractal_noise(rng, size, int(rng.integers(1, 4)), 5)[..., None]
    return sky * (1 + rng.uniform(0, 0.9) * (noise - 0.4))


def _night(rng: np.random.Generator, size: Size) -> np.ndarray:
    top = rng.uniform(0.0, 0.25) * _uniform(rng, [0.3, 0.4, 0.6], [0.9, 0.9, 1.0])
    glow = top + rng.uniform(0.0, 0.35) * _uniform(rng, [0.3, 0.3, 0.3], [1.0, 0.8, 0.7])
    sky = _gradient(size, [(0.0, top), (1.0, glow)], rng.uniform(-0.3, 0.3))
    if rng.random() < 0.3:
        noise = fractal_noise(rng, size, int(rng.integers(1, 4)), 5)[..., None]
        sky = sky * (1 + rng.uniform(0, 1.2) * (noise - 0.4))
    if rng.random() < 0.6:
        stars = (rng.random((size.height, size.width)) < rng.uniform(0.0005, 0.01)).astype(
            np.float32
        )
        stars *= rng.random(stars.shape, dtype=np.float32) ** 2 * rng.uniform(0.5, 3.0)
        sky = sky + cv2.GaussianBlur(stars, (0, 0), rng.uniform(0.4, 0.8))[..., None]
    if rng.random() < 0.15:
        centre = (int(rng.integers(size.width)), int(rng.integers(size.height)))
        moon = np.zeros((size.height, size.width), np.float32)
        cv2.circle(moon, centre, int(rng.integers(2, max(3, size.height // 12))), 1.0, -1)
        sky = sky + cv2.GaussianBlur(moon, (0, 0), 0.8)[..., None] * rng.uniform(0.5, 1.0)
    return sky


def _haze(rng: np.random.Generator, size: Size) -> np.ndarray:
    grey = rng.uniform(0.35, 1.0) * _uniform(rng, [0.88, 0.92, 0.94], [1.0, 1.0, 1.0])
    other = np.clip(grey * _uniform(rng, [0.9, 0.92, 0.95], [1.08, 1.06, 1.05]), 0, 1)
    return _gradient(size, [(0.0, grey), (1.0, other)], rng.uniform(-0.2, 0.2))
