"""Painting clouds: a slab of fractal density, cut into level slices and lit by one sun.

The eye stands below the slab; each view ray meets the slices from the lowest up, and colours are
composited in that order. It is a sketch of volume rendering (Max 1995, eq. 5, by slices) with
single scattering: light reaches a point through what stands between it and the sun.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from edits.skies.noise import mix, sample_tile, smoothstep, spectral_noise, spectral_volume

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class View:
    """A pinhole's picture of the sky.

    size: (height, width), pixels. focal_px. horizon_px: row of the horizon. All rows above it see
    the sky. centre_px: column straight ahead.
    """

    size: tuple[int, int]
    focal_px: float
    horizon_px: float
    centre_px: float

    def directions(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Unit view directions (right, up, ahead), each (H, W) float32."""
        height, width = self.size
        x = (np.arange(width, dtype=np.float32) - self.centre_px) / self.focal_px
        y = (self.horizon_px - np.arange(height, dtype=np.float32)[:, None]) / self.focal_px
        length = np.sqrt(x * x + y * y + 1)
        return x / length, y / length, 1 / length

    def towards(self, x_share: float, elevation_deg: float) -> np.ndarray:
        """(3,) unit direction of what is seen at that share of the width, at that elevation."""
        x = (x_share * self.size[1] - self.centre_px) / self.focal_px
        d = np.array([x, np.tan(np.radians(elevation_deg)) * np.hypot(x, 1), 1.0])
        return d / np.linalg.norm(d)


@dataclass(frozen=True, kw_only=True)
class CloudLook:
    """How the clouds of one sky look. Lengths are in heights of the cloud base above the eye."""

    cover: float = 0.0
    """Added to the density: 0 covers about half of the sky, negative less."""
    thickness: float = 0.45
    """Height of the slab."""
    extent: float = 9.0
    """Length after which the pattern repeats; larger means larger clouds."""
    rough: float = 0.5
    """Weight of the fine noise that frays the edges."""
    sharp: float = 1.7
    """How fast density rises inside an edge."""
    opacity: float = 12.0
    """Extinction of full density, per length."""
    shade: float = 9.0
    """Extinction on the way to the sun, per length."""
    lit: Colour = (255, 250, 240)
    shadow: Colour = (120, 135, 160)
    base: Colour = (150, 160, 180)
    """Light from below, which colours the undersides."""
    rim: float = 0.8
    """Brightening of thin parts towards the sun."""
    haze: Colour = (200, 215, 230)
    """Colour of the air, which far clouds fade into."""
    haze_length: float = 9.0
    """Distance over which they do."""
    slices: int = 28


class Slab:
    """The density of a cloud layer as a function of place."""

    def __init__(self, look: CloudLook, rng: np.random.Generator, side: int = 1024):
        self.look = look
        self.shape = spectral_noise(side, rng, slope=2.1, longest=0.34)
        lumps = spectral_volume((40, 384, 384), rng, slope=1.9, longest=0.22)
        # Folded noise makes heaps: round outside, creased between (Ebert et al. 2003, "billow").
        self.lumps = 0.8 - np.abs(spectral_volume((40, 384, 384), rng, slope=1.9, longest=0.22))
        self.lumps = 0.55 * lumps - 1.0 * self.lumps

    def density(self, x: np.ndarray, z: np.ndarray, rise: float) -> np.ndarray:
        """(H, W) float32 in [0, 1] at plane positions (x, z), `rise` of the way up the slab."""
        look = self.look
        scale = self.shape.shape[0] / look.extent
        per_height = 1.25 * scale  # texels of the volume, the same across and up
        level = rise * look.thickness * per_height
        k, f = int(level), np.float32(level % 1)
        depth = len(self.lumps)
        lumps = self.lumps[k % depth] * (1 - f) + self.lumps[(k + 1) % depth] * f
        fine = sample_tile(lumps, x * per_height, z * per_height)
        shape = sample_tile(self.shape, x * scale, z * scale)
        foot = 2.2 * max(0.1 - rise, 0)  # a flat, slightly frayed underside
        belly = 1.1 * rise**1.5 + foot
        return np.clip((shape + look.rough * fine + look.cover - belly) * look.sharp, 0, 1)


def paint_clouds(
    sky: np.ndarray, view: View, sun: np.ndarray, look: CloudLook, rng: np.random.Generator
) -> np.ndarray:
    """Lay clouds over a painted sky.

    Args:
        sky: (H, W, 3) float32, [0, 1], display-encoded.
        sun: (3,) unit direction (right, up, ahead) to the sun.
    Returns:
        (H, W, 3) float32.
    """
    rows = min(max(int(np.ceil(view.horizon_px)), 1), view.size[0])  # no clouds below the horizon
    whole, sky = sky, sky[:rows]
    view = replace(view, size=(rows, view.size[1]))
    right, up, ahead = view.directions()
    slab = Slab(look, rng)
    steep = np.maximum(up, 0.012)
    lit, shadow, base, haze = (
        np.array(c, np.float32) / 255 for c in (look.lit, look.shadow, look.base, look.haze)
    )
    facing = np.clip(right * sun[0] + up * sun[1] + ahead * sun[2], 0, 1)
    glow = 0.25 * facing**3 + 0.9 * facing**24
    through = np.ones(view.size, np.float32)
    colour = np.zeros((*view.size, 3), np.float32)
    step = look.thickness / look.slices
    jitter = (dither(view.size) - 0.5) * step  # slices shifted per pixel show no edges
    # the light's way out of the slab, not longer than a few cloud heights when the sun is low
    sun_step = sun / max(sun[1], 0.35) * look.thickness * 0.22
    for i in range(look.slices):
        rise = (i + 0.5) / look.slices
        height = 1 + rise * look.thickness + jitter
        distance = height / steep
        x, z = right * distance, ahead * distance
        density = slab.density(x, z, rise)
        depth = np.zeros(view.size, np.float32)
        for reach in (0.6, 1.8):
            up_there = rise + reach * sun_step[1] / look.thickness
            if up_there < 1.3:
                depth += slab.density(
                    x + reach * sun_step[0], z + reach * sun_step[2], min(up_there, 1)
                )
        light = np.exp(-depth * look.shade * look.thickness * 0.24)
        shade = smoothstep(0.0, 0.5, np.asarray(rise, np.float32))
        tone = mix(mix(base, shadow, shade), lit, light)
        silver = look.rim * glow * (1 - density) * light
        tone = tone + silver[..., None] * lit
        air = np.exp(-np.maximum(distance - 1, 0) / look.haze_length)
        # slanted rays stay longer in a slice, up to a point
        opacity = 1 - np.exp(-density * look.opacity * step * np.minimum(1 / steep, 4.0))
        # far away the slices thin out into the haze
        opacity *= smoothstep(0.0, 0.22, air)
        tone = mix(np.broadcast_to(haze, tone.shape), tone, air)
        colour += (through * opacity)[..., None] * tone
        through *= 1 - opacity
    colour, through = soften(colour, 0.7), soften(through, 0.7)  # evens the jitter out
    painted = colour + through[..., None] * sky
    return np.clip(np.concatenate([painted, whole[rows:]]), 0, 1)


def streaks(
    view: View, rng: np.random.Generator, *, height: float = 3.0, cover: float = 0.0
) -> np.ndarray:
    """(H, W) float32 in [0, 1]: opacity of high, thin, combed clouds (cirrus)."""
    right, up, ahead = view.directions()
    distance = height / np.maximum(up, 0.02)
    x, z = right * distance * 38, ahead * distance * 38
    turned_x, turned_z = 0.9 * x + 0.44 * z, -0.44 * x + 0.9 * z
    bend = sample_tile(spectral_noise(1024, rng, slope=2.0, longest=0.3), x, z) * 26
    combed = sample_tile(
        spectral_noise(1024, rng, slope=1.35, longest=0.25),
        turned_x * 0.32 + bend,
        turned_z * 1.8 + bend,
    )
    patch = sample_tile(spectral_noise(1024, rng, slope=2.0, longest=0.4), x * 0.6, z * 0.6)
    air = smoothstep(0.02, 0.2, up)
    return np.clip(0.3 * combed + 0.32 * patch + cover, 0, 1) * air


def sun_glow(view: View, sun: np.ndarray, width_deg: float) -> np.ndarray:
    """(H, W) float32: a soft glow round the sun, 1 at its centre, half at `width_deg`."""
    right, up, ahead = view.directions()
    cosine = np.clip(right * sun[0] + up * sun[1] + ahead * sun[2], -1, 1)
    angle = np.degrees(np.arccos(cosine))
    return 1 / (1 + (angle / width_deg) ** 2)


def dither(size: tuple[int, int]) -> np.ndarray:
    """(H, W) float32 in [0, 1): interleaved gradient noise (Jimenez 2014), even over 3 x 3."""
    y, x = np.mgrid[: size[0], : size[1]]
    return (np.mod(52.9829189 * np.mod(0.06711056 * x + 0.00583715 * y, 1), 1)).astype(np.float32)


def soften(picture: np.ndarray, sigma_px: float) -> np.ndarray:
    """Gaussian blur."""
    return cv2.GaussianBlur(picture, (0, 0), sigma_px)
