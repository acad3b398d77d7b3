"""Blend modes: how paint mixes with what it is painted on.

Source: W3C, Compositing and Blending Level 1, section 10.1 (separable blend modes), and "plus
lighter" of Level 2 for `add`. Colours are display-encoded, as in paint programs.
"""

from __future__ import annotations

import numpy as np


def normal(backdrop: np.ndarray, source: np.ndarray) -> np.ndarray:
    return source


def multiply(backdrop: np.ndarray, source: np.ndarray) -> np.ndarray:
    return backdrop * source


def screen(backdrop: np.ndarray, source: np.ndarray) -> np.ndarray:
    return backdrop + source - backdrop * source


def overlay(backdrop: np.ndarray, source: np.ndarray) -> np.ndarray:
    """Hard light with the two colours exchanged: the backdrop chooses multiply or screen."""
    low = multiply(source, 2 * backdrop)
    high = screen(source, 2 * backdrop - 1)
    return np.where(backdrop <= 0.5, low, high)


def soft_light(backdrop: np.ndarray, source: np.ndarray) -> np.ndarray:
    d = np.where(
        backdrop <= 0.25,
        ((16 * backdrop - 12) * backdrop + 4) * backdrop,
        np.sqrt(np.maximum(backdrop, 0)),
    )
    darker = backdrop - (1 - 2 * source) * backdrop * (1 - backdrop)
    lighter = backdrop + (2 * source - 1) * (d - backdrop)
    return np.where(source <= 0.5, darker, lighter)


def add(backdrop: np.ndarray, source: np.ndarray) -> np.ndarray:
    return np.minimum(backdrop + source, 1)


BLEND_MODES = {
    "normal": normal,
    "multiply": multiply,
    "screen": screen,
    "overlay": overlay,
    "soft light": soft_light,
    "add": add,
}
"""Name to B(backdrop, source): (..., 3) float straight colours in [0, 1] to the same."""


def paint_over(base: np.ndarray, paint: np.ndarray, mode: str) -> np.ndarray:
    """Cs = base + alpha (B(base, paint) - base): paint on an opaque base (section 5.8 with ab = 1).

    Args:
        base: (..., 3) float, straight colours, [0, 1].
        paint: (..., 4) float, colour times opacity, and opacity.
        mode: a key of `BLEND_MODES`.
    Returns:
        (..., 3) float; exactly `base` where the paint's opacity is 0.
    """
    if mode not in BLEND_MODES:
        raise ValueError(f"mode must be one of {', '.join(BLEND_MODES)}, got {mode!r}")
    colour, alpha = paint[..., :3], paint[..., 3:]
    if mode == "normal":
        return base + (colour - alpha * base)
    straight = np.clip(colour / np.maximum(alpha, 1e-6), 0, 1)
    return base + alpha * (BLEND_MODES[mode](base, straight) - base)
