"""SkyMatter: the one interface of everything that tells sky from the rest.

A matter sees the frames of one clip in order and may learn from those it has seen (colours of this
sky, last frame's matte); `reset` makes it forget, at a shot cut or before another clip.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

import cv2
import numpy as np

NETWORK_WEIGHTS = Path(__file__).with_name("weights.safetensors")
"""The learned matte's weights, bundled with the project."""


class SkyMatter(ABC):
    """Frames of a clip in, soft sky mattes out; causal, deterministic, constant memory."""

    @abstractmethod
    def matte(self, rgb: np.ndarray) -> np.ndarray:
        """How much of each pixel of the clip's next frame is sky.

        Args:
            rgb: (H, W, 3) uint8 RGB.
        Returns:
            (H, W) float32, [0, 1], 1 = sky, soft at edges; near zero everywhere without a sky.
        """

    @abstractmethod
    def reset(self) -> None:
        """Forget the clip: the next frame is treated as the first one."""

    def fingerprint(self) -> str:
        """One line that changes when the same frames would get other mattes."""
        return type(self).__name__


def check_rgb(rgb: np.ndarray) -> None:
    """Raise `ValueError` unless `rgb` is (H, W, 3) uint8."""
    if rgb.ndim != 3 or rgb.shape[2] != 3:
        raise ValueError(f"rgb must be (H, W, 3), got {rgb.shape}")
    if rgb.dtype != np.uint8:
        raise ValueError(f"rgb must be uint8, got {rgb.dtype}")


class TemporalSmoother:
    """Steady a sequence of mattes without warping: old values stay where the picture stays.

    m_t = k m_{t-1} + (1 - k) n_t with k = strength * exp(-(d / tolerance)^2), d the change of the
    locally averaged colour since the last frame. Where something moved, d is large and the new
    value is taken as it is, so nothing trails; where nothing moved, noise averages out.
    """

    def __init__(self, strength: float = 0.7, tolerance: float = 6.0):
        """`strength` in [0, 1): most that is kept; `tolerance`: colour change, 8-bit steps."""
        if not 0 <= strength < 1:
            raise ValueError(f"strength must be in [0, 1), got {strength}")
        self.strength = strength
        self.tolerance = tolerance
        self._last: tuple[np.ndarray, np.ndarray] | None = None

    def reset(self) -> None:
        self._last = None

    def __call__(self, rgb: np.ndarray, matte: np.ndarray) -> np.ndarray:
        """Blend `matte` (H, W) float with its past, led by `rgb` (H, W, 3) of the same size."""
        colour = cv2.blur(rgb.astype(np.float32), (3, 3))
        if self._last is not None and self._last[1].shape == matte.shape:
            change = np.abs(colour - self._last[0]).max(axis=2)
            keep = self.strength * np.exp(-((change / self.tolerance) ** 2))
            matte = keep * self._last[1] + (1 - keep) * matte
        matte = matte.astype(np.float32)
        self._last = (colour, matte)
        return matte
