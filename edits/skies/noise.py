"""Seeded, seamlessly tiling noise: the raw material of painted skies, hills and test textures."""

from __future__ import annotations

import cv2
import numpy as np
import scipy.fft


def spectral_noise(
    side: int, rng: np.random.Generator, *, slope: float = 1.6, longest: float = 0.5
) -> np.ndarray:
    """Tiling fractal noise: white noise whose spectrum falls as 1 / frequency ** slope.

    Fractional Brownian motion by spectral synthesis (Voss 1985, eq. 1.20).

    Args:
        side: height and width of the tile, pixels.
        slope: falloff of the amplitude; 1 is rough and sharp, 2 is smooth.
        longest: longest wavelength, as a share of the tile.
    Returns:
        (side, side) float32, mean 0, standard deviation 1; wraps round in x and y.
    """
    fy, fx = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None]
    frequency = np.hypot(fx, fy) * side
    frequency[0, 0] = 1
    amplitude = frequency**-slope * (frequency >= 1 / longest - 1e-9)
    amplitude[0, 0] = 0
    spectrum = np.fft.rfft2(rng.standard_normal((side, side))) * amplitude
    noise = np.fft.irfft2(spectrum, s=(side, side))
    return (noise / noise.std()).astype(np.float32)


def spectral_volume(
    shape: tuple[int, int, int], rng: np.random.Generator, *, slope: float, longest: float
) -> np.ndarray:
    """`spectral_noise` in three dimensions: (D, S, S) float32, mean 0, deviation 1, tiling.

    A slice through it looks like `spectral_noise` of the same slope and `longest` (share of S).
    """
    side = shape[2]
    axes = [np.fft.fftfreq(n).astype(np.float32) for n in shape[:2]]
    fx = np.fft.rfftfreq(side).astype(np.float32)
    squared = axes[0][:, None, None] ** 2 + axes[1][None, :, None] ** 2 + fx**2
    squared[0, 0, 0] = 1
    amplitude = squared ** (-(slope + 0.5) / 2) * (squared >= (1 / (longest * side)) ** 2)
    amplitude[0, 0, 0] = 0
    white = rng.standard_normal(shape, np.float32)
    spectrum = np.asarray(scipy.fft.rfftn(white, workers=2)) * amplitude
    noise = np.asarray(scipy.fft.irfftn(spectrum, s=shape, workers=2))
    return (noise / noise.std()).astype(np.float32)


def sample_tile(tile: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Bilinear samples of a tiling picture at tile positions (x, y), pixels; wraps round.

    Args:
        tile: (S, S) or (S, S, C) float32.
        x, y: (H, W) float, any values.
    Returns:
        (H, W) or (H, W, C) float32.
    """
    height, width = tile.shape[:2]
    padded = np.pad(tile, [(0, 1), (0, 1)] + [(0, 0)] * (tile.ndim - 2), mode="wrap")
    at_x = np.mod(x, width).astype(np.float32)
    at_y = np.mod(y, height).astype(np.float32)
    return cv2.remap(padded, at_x, at_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def smoothstep(low: float, high: float, x: np.ndarray) -> np.ndarray:
    """0 below `low`, 1 above `high`, a cubic between (Perlin 1985)."""
    s = np.clip((x - low) / (high - low), 0, 1)
    return s * s * (3 - 2 * s)


def mix(a: np.ndarray, b: np.ndarray, share: np.ndarray | float) -> np.ndarray:
    """Linear blend of colours (..., 3): 0 gives `a`, 1 gives `b`; `share` is (...) or a number."""
    weight = share[..., None] if isinstance(share, np.ndarray) else share
    return a + (b - a) * weight


def gradient(stops: list[tuple[float, tuple[int, int, int]]], at: np.ndarray) -> np.ndarray:
    """Colour ramp with rounded corners through `stops`, sampled at `at`.

    Args:
        stops: (position, sRGB 0..255) rising in position.
        at: (...) float positions.
    Returns:
        (..., 3) float32, [0, 1].
    """
    positions = np.array([s[0] for s in stops])
    colours = np.array([s[1] for s in stops], np.float32) / 255
    fine = np.linspace(positions[0], positions[-1], 512)
    ramp = np.stack([np.interp(fine, positions, c) for c in colours.T], axis=-1)
    ramp = cv2.GaussianBlur(ramp, (1, 0), sigmaX=0.1, sigmaY=14, borderType=cv2.BORDER_REPLICATE)
    return np.stack([np.interp(at, fine, c) for c in ramp.T], axis=-1).astype(np.float32)
