"""Rain and snow: particles in layers of depth, falling through the picture as time goes by.

Every particle has a place of its own that is a function of the seed and the time alone, so any
frame can be made by itself and comes out the same. Near layers are larger, faster and blurrier;
all of them move against the camera as the far scene does, the near ones a little more. Streaks are
as long as a drop falls while the shutter is open. They are dimmed over what is bright, as SkyAR's
rain is: streak times (1 - local mean of the frame), then screened.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from atlas.planes import PlaneFormat, Planes

SHUTTER_S = 1 / 60
"""Exposure time that streaks are as long as."""
_DRAWN_DIAGONAL_PX = 1600
_SHIFT = 4
"""Binary places of a pixel with which OpenCV draws."""
_SUB = 1 << _SHIFT


@dataclass(frozen=True)
class WeatherOptions:
    """rain, snow: density, [0, 1]. wind_deg: slant from the vertical, to the right. seed: >= 0."""

    rain: float = 0.0
    snow: float = 0.0
    wind_deg: float = 8.0
    seed: int = 1


@dataclass(frozen=True)
class _Depth:
    """One layer. Lengths are shares of the picture's diagonal, speeds those per second.

    count: particles over the picture at density 1. speed: of fall. width: of a drop or flake.
    level: brightness, [0, 1]. blur: standard deviation. parallax: factor on the camera's motion.
    """

    count: int
    speed: float
    width: float
    level: float
    blur: float
    parallax: float


RAIN = (
    _Depth(1700, 1.2, 0.0007, 0.30, 0.0006, 1.00),
    _Depth(700, 1.9, 0.0009, 0.38, 0.0006, 1.05),
    _Depth(180, 2.8, 0.0013, 0.42, 0.0006, 1.12),
    _Depth(16, 4.4, 0.0024, 0.26, 0.0022, 1.30),
)
SNOW = (
    _Depth(1500, 0.045, 0.0015, 0.50, 0.0007, 1.00),
    _Depth(520, 0.075, 0.0026, 0.70, 0.0007, 1.05),
    _Depth(120, 0.13, 0.0050, 0.80, 0.0016, 1.12),
    _Depth(12, 0.24, 0.0120, 0.60, 0.0050, 1.30),
)
_MARGIN = 0.06
"""Particles live this far beyond the picture, share of its diagonal: none appears in sight."""
_BRIGHTNESS = ((0.0, 0.5, 0.55), (0.5, 0.85, 0.85), (0.85, 1.0, 1.35))
"""Drops catch the light differently: part of them (from, to) and factor on their level."""
_SNOW_SWAY = 0.008
_SNOW_WIND = 0.6


class Weather:
    """Rain or snow or both, for frames of any size at any time."""

    def __init__(self, options: WeatherOptions):
        self.options = options
        self._particles: dict[tuple[int, int, int], _Particles] = {}

    def apply(
        self, frame: np.ndarray, time_s: float, travel_px: tuple[float, float] = (0.0, 0.0)
    ) -> np.ndarray:
        """The frame with what falls in front of it.

        Args:
            frame: (H, W, 3) uint8 or uint16 RGB.
            time_s: seconds. travel_px: how far the view has turned to the right and down, pixels.
        Returns:
            (H, W, 3) of the same type.
        """
        small = cv2.resize(frame, _sixteenth(frame), interpolation=cv2.INTER_AREA)
        mean = cv2.cvtColor(cv2.blur(small, (3, 3)), cv2.COLOR_RGB2GRAY)
        light = self._dimmed(frame.shape[:2], mean / np.iinfo(frame.dtype).max, time_s, travel_px)
        if frame.dtype == np.uint8:
            light = cv2.merge([light] * 3)
            left = cv2.bitwise_not(frame)
            return cv2.add(frame, cv2.multiply(left, light, scale=1 / 255))
        peak = np.float32(np.iinfo(frame.dtype).max)
        values = frame / peak
        values += (1 - values) * (light[..., None] * np.float32(1 / 255))
        return np.rint(np.clip(values, 0, 1) * peak).astype(frame.dtype)

    def apply_planes(
        self,
        planes: Planes,
        form: PlaneFormat,
        time_s: float,
        travel_px: tuple[float, float] = (0.0, 0.0),
    ) -> Planes:
        """`apply` on planes: luma rises towards white, chroma fades towards grey."""
        low, high = form.luma_span
        small = cv2.resize(planes.y, _sixteenth(planes.y), interpolation=cv2.INTER_AREA)
        mean = (cv2.blur(small, (3, 3)).astype(np.float32) - low) / (high - low)
        light = self._dimmed(planes.y.shape, mean, time_s, travel_px)
        done = [_faded(planes.y, light, high)]
        light = cv2.resize(light, planes.u.shape[::-1], interpolation=cv2.INTER_AREA)
        grey = 1 << (form.bits - 1)
        for plane in (planes.u, planes.v):
            share = light.astype(plane.dtype, copy=False)
            left = cv2.subtract(np.full_like(share, 255), share)
            done.append(
                cv2.add(
                    cv2.multiply(left, plane, scale=1 / 255),
                    cv2.multiply(share, np.full_like(plane, grey), scale=1 / 255),
                )
            )
        return Planes(*done)

    def _dimmed(
        self,
        size: tuple[int, ...],
        mean: np.ndarray,
        time_s: float,
        travel_px: tuple[float, float],
    ) -> np.ndarray:
        """(H, W) uint8: `light`, less over what is bright. mean: (h, w) of the frame, [0, 1]."""
        light = self.light((size[0], size[1]), time_s, travel_px)
        dim = cv2.convertScaleAbs(np.clip(1 - mean, 0, 1).astype(np.float32), alpha=255)
        return cv2.multiply(light, cv2.resize(dim, light.shape[::-1]), scale=1 / 255)

    def light(
        self, size: tuple[int, int], time_s: float, travel_px: tuple[float, float] = (0.0, 0.0)
    ) -> np.ndarray:
        """(H, W) uint8: what falls, as light on black; large pictures are drawn at half size."""
        if np.hypot(*size) > _DRAWN_DIAGONAL_PX:
            half = ((size[0] + 1) // 2, (size[1] + 1) // 2)
            drawn = self.light(half, time_s, (travel_px[0] / 2, travel_px[1] / 2))
            return cv2.resize(drawn, size[::-1], interpolation=cv2.INTER_LINEAR)
        picture = np.zeros(size, np.uint8)
        for kind, depths, density in (
            ("rain", RAIN, self.options.rain),
            ("snow", SNOW, self.options.snow),
        ):
            drawn = np.zeros(size, np.uint8)
            for number, depth in enumerate(depths):
                count = round(depth.count * density)
                if count == 0:
                    continue
                seed = (self.options.seed, int(kind == "snow"), number)
                if seed not in self._particles:
                    self._particles[seed] = _Particles(np.random.default_rng(seed), count)
                particles, at = self._particles[seed], (time_s, travel_px)
                (_rain if kind == "rain" else _snow)(drawn, particles, depth, at, self)
                last = number + 1 == len(depths) or round(depths[number + 1].count * density) == 0
                if last or depths[number + 1].blur != depth.blur:  # equally blurred ones at once
                    sigma_px = max(depth.blur * float(np.hypot(*size)), 0.5)
                    picture = cv2.max(picture, _blurred(drawn, sigma_px))
                    drawn[:] = 0
        return picture

    @property
    def slant(self) -> float:
        """Sideways way per way down."""
        return float(np.tan(np.radians(self.options.wind_deg)))


def _sixteenth(frame: np.ndarray) -> tuple[int, int]:
    return max(frame.shape[1] // 16, 1), max(frame.shape[0] // 16, 1)


def _faded(plane: np.ndarray, light: np.ndarray, white: int) -> np.ndarray:
    """plane + light (white - plane), where it is below white."""
    left = cv2.subtract(np.full_like(plane, white), plane)
    return cv2.add(plane, cv2.multiply(left, light.astype(plane.dtype, copy=False), scale=1 / 255))


class _Particles:
    """What is drawn once for all time: (N,) float each, uniform in [0, 1)."""

    def __init__(self, rng: np.random.Generator, count: int):
        self.x, self.y, self.pace, self.phase = rng.random((4, count))


def _places(
    particles: _Particles,
    velocity: tuple[np.ndarray, np.ndarray],
    size: tuple[int, int],
    at: tuple[float, tuple[float, float]],
    parallax: float,
) -> tuple[np.ndarray, np.ndarray]:
    """(N,) x and y in pixels; what leaves on one side comes in on the other, out of sight."""
    height, width = size
    time_s, travel = at
    margin = _MARGIN * np.hypot(height, width)
    wide, high = width + 2 * margin, height + 2 * margin
    x = particles.x * wide + velocity[0] * time_s - parallax * travel[0]
    y = particles.y * high + velocity[1] * time_s - parallax * travel[1]
    return np.mod(x, wide) - margin, np.mod(y, high) - margin


def _rain(
    picture: np.ndarray,
    particles: _Particles,
    depth: _Depth,
    at: tuple[float, tuple[float, float]],
    weather: Weather,
) -> None:
    """Draw one layer over what is there."""
    size = (picture.shape[0], picture.shape[1])
    diagonal = float(np.hypot(*size))
    down = depth.speed * diagonal * (0.85 + 0.3 * particles.pace)
    side = down * weather.slant * (0.9 + 0.2 * particles.phase)
    x, y = _places(particles, (side, down), size, at, depth.parallax)
    half = SHUTTER_S / 2
    thickness = max(1, round(depth.width * diagonal))
    faint = min(1.0, depth.width * diagonal)  # a streak thinner than a pixel is dimmer
    centre, way = np.stack([x, y], -1), np.stack([side, down], -1) * half
    for low, high, bright in _BRIGHTNESS:
        some = (particles.phase >= low) & (particles.phase < high)
        for part, level in ((1.0, 0.5), (0.6, 1.0)):  # ends fade out
            ends = np.stack([centre[some] - part * way[some], centre[some] + part * way[some]], 1)
            _draw(picture, ends, thickness, 255 * depth.level * level * bright * faint)


def _snow(
    picture: np.ndarray,
    particles: _Particles,
    depth: _Depth,
    at: tuple[float, tuple[float, float]],
    weather: Weather,
) -> None:
    """Draw one layer over what is there."""
    size = (picture.shape[0], picture.shape[1])
    diagonal = float(np.hypot(*size))
    down = depth.speed * diagonal * (0.7 + 0.6 * particles.pace)
    side = _SNOW_WIND * depth.speed * diagonal * weather.slant * (0.5 + particles.phase) * 3
    x, y = _places(particles, (side, down), size, at, depth.parallax)
    turn = 2 * np.pi * (particles.phase + at[0] * (0.15 + 0.3 * particles.pace))
    x = x + _SNOW_SWAY * diagonal * np.sin(turn)
    wanted = depth.width * diagonal
    half = np.stack([side, down], -1) * (SHUTTER_S / 2)
    centre = np.stack([x, y], -1)
    for share, low, high in ((1.0, 0.0, 0.6), (1.35, 0.6, 1.0)):  # two sizes of flakes
        some = (particles.x >= low) & (particles.x < high)
        thickness = max(1, round(share * wanted))
        faint = min(1.0, (share * wanted) ** 2)
        ends = np.stack([centre[some] - half[some], centre[some] + half[some]], axis=1)
        _draw(picture, ends, thickness, 255 * depth.level * faint)


def _draw(picture: np.ndarray, ends: np.ndarray, thickness: int, level: float) -> None:
    """Draw (N, 2, 2) lines, x and y in pixels, over what is there."""
    lines = np.rint(ends * _SUB).astype(np.int32)
    cv2.polylines(picture, list(lines), False, level, thickness, cv2.LINE_AA, _SHIFT)


def _blurred(picture: np.ndarray, sigma_px: float) -> np.ndarray:
    side = 3 if sigma_px < 0.8 else 0  # a small one is many times faster
    return cv2.GaussianBlur(picture, (side, side), sigma_px)
