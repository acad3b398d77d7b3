"""What a camera does to a training picture: exposure, colour, blur, noise, compression."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import cv2
import numpy as np

from preprocess.sky.data import to_bytes

Result = TypeVar("Result")

_GREY = np.array([0.299, 0.587, 0.114], np.float32)


def photographed(
    rgb: np.ndarray,
    alpha: np.ndarray,
    weight: np.ndarray,
    rng: np.random.Generator,
    make: Callable[[np.ndarray, np.ndarray, np.ndarray], Result],
) -> Result:
    """Pass a picture through a random camera; blur that moves edges blurs the matte alike.

    Args:
        rgb: (H, W, 3) float32 in [0, 1].
        alpha, weight: (H, W) float32.
        make: builds the result from the new rgb, alpha and weight.
    """
    if rng.random() < 0.12:
        kernel = _motion_kernel(rng)
        rgb, alpha = cv2.filter2D(rgb, -1, kernel), cv2.filter2D(alpha, -1, kernel)
    elif rng.random() < 0.2:
        sigma_px = rng.uniform(0.4, 1.6)
        rgb = cv2.GaussianBlur(rgb, (0, 0), sigma_px)
        alpha = cv2.GaussianBlur(alpha, (0, 0), sigma_px)
    rgb = _colours(rgb, rng)
    if rng.random() < 0.35:
        rgb = rgb + _grain(rng, alpha.shape)
    if rng.random() < 0.15:
        height, width = alpha.shape
        factor = rng.uniform(0.35, 0.8)
        small = cv2.resize(rgb, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        rgb = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    if rng.random() < 0.3:
        rgb = _compressed(rgb, int(rng.integers(20, 95)))
    return make(np.clip(rgb, 0, 1), alpha, weight)


def veiled(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Ground seen through much air, as from an aircraft: (H, W, 3) float32 drawn to a pale blue."""
    air = rng.uniform(0.4, 1.0) * rng.uniform([0.6, 0.7, 0.75], [1.0, 1.0, 1.0])
    seen = rng.uniform(0.15, 0.7)
    return (air + seen * (rgb - air)).astype(np.float32)


def panned(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Ground behind what a camera follows: (H, W, 3) float32 smeared to level streaks."""
    reach = int(rng.uniform(0.1, 0.6) * rgb.shape[1])
    smeared = cv2.blur(rgb, (2 * (reach // 2) + 1, 1))
    return cv2.GaussianBlur(smeared, (0, 0), sigmaX=0.2 * reach + 0.5, sigmaY=rng.uniform(0.3, 2))


def _colours(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Gamma, exposure, contrast and white balance, then saturation; clips as a sensor does."""
    if rng.random() < 0.1:
        return rgb
    strong = 1.0 if rng.random() < 0.4 else 0.5
    gamma = np.exp(strong * rng.uniform(-0.7, 0.8))
    exposure = np.exp(strong * rng.uniform(-0.9, 0.5))
    balance = np.exp(strong * rng.uniform(-0.25, 0.25, 3))
    black = strong * rng.uniform(-0.08, 0.1)
    ramp = np.linspace(0, 1, 256)[:, None] ** gamma
    curve = np.clip(black + (1 - black) * exposure * balance * ramp, 0, 1)
    levels = to_bytes(rgb)
    table = np.round(curve * 255).astype(np.uint8)[None]
    mapped = cv2.LUT(levels, table).astype(np.float32) / 255
    saturation = 0.0 if rng.random() < 0.1 else np.exp(strong * rng.uniform(-0.9, 0.6))
    matrix = saturation * np.eye(3) + (1 - saturation) * np.tile(_GREY, (3, 1))
    if rng.random() < 0.1:
        matrix = matrix + strong * rng.normal(0, 0.08, (3, 3))
    return np.clip(cv2.transform(mapped, matrix.astype(np.float32)), 0, 1)


def _grain(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Noise (H, W, 3) of 0.004 to 0.06: of single pixels, or coarse as in an enlarged picture."""
    coarse = rng.uniform(1, 4) if rng.random() < 0.5 else 1.0
    height, width = (max(1, round(side / coarse)) for side in shape)
    noise = np.empty((height, 3 * width), np.float32)  # of three channels randn fills one alone
    cv2.setRNGSeed(int(rng.integers(2**31)))
    cv2.randn(noise, 0, rng.uniform(0.004, 0.06))
    noise = noise.reshape(height, width, 3)
    if rng.random() < 0.2:
        noise = cv2.blur(noise, (2, 2)) * 1.5
    return cv2.resize(noise, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR)


def _motion_kernel(rng: np.random.Generator) -> np.ndarray:
    """A straight smear of 3 to 9 pixels at any angle, summing to 1."""
    length = int(rng.integers(3, 10))
    kernel = np.zeros((length, length), np.float32)
    angle = rng.uniform(0, np.pi)
    half = (length - 1) / 2
    step = np.array([np.cos(angle), np.sin(angle)]) * half
    start = tuple(int(v) for v in np.round(half - step))
    end = tuple(int(v) for v in np.round(half + step))
    cv2.line(kernel, start, end, 1.0, 1)
    return kernel / kernel.sum()


def _compressed(rgb: np.ndarray, quality: int) -> np.ndarray:
    _, coded = cv2.imencode(".jpg", to_bytes(rgb), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return cv2.imdecode(coded, cv2.IMREAD_COLOR).astype(np.float32) / 255
