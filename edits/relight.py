"""Light and colour of what stands under the sky, following the light that the sky gives.

Two ways: SkyAR's mean transfer (`mean_transfer`), and gains per luminance range (`RangeRelight`):
what lights the shadows is the dark side of the sky, what lights the highlights its bright side, so
each range of the foreground follows its own part of the sky,

    gain_range = (light of the new sky in that range / light of the old one) ^ strength.

A sky replaced by itself changes nothing. Statistics are of light (linear), gains are applied to
light, tables are of display-encoded levels.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from edits.panorama import encode_srgb

LUMINANCE = np.array([0.2126, 0.7152, 0.0722], np.float32)
"""Rec. 709 luminance of linear RGB."""
SKY_TINT = 0.6
"""How much of a sky's colour is in its light: the rest is the sun, or white balanced away."""
MAX_STOPS = (-3.5, 1.2)
"""Gains approach these and do not pass them; scenes bear to be darkened more than brightened."""
_LEAST_SKY = 0.004
"""Share of the frame that must show sky for its colours to say anything."""
_BLACK = 2e-3
_NODES = 33


def decode_srgb(encoded: np.ndarray) -> np.ndarray:
    """Display-encoded values to linear light, IEC 61966-2-1; both in [0, 1]."""
    low = encoded / 12.92
    high = ((np.maximum(encoded, 0) + 0.055) / 1.055) ** 2.4
    return np.where(encoded <= 0.04045, low, high).astype(np.float32)


_TO_LIGHT = decode_srgb(np.arange(256, dtype=np.float32) / 255)


@dataclass(frozen=True)
class MeanTransfer:
    """SkyAR's relighting, as its page describes it.

    recoloring: share of the difference of means that is added. light: factor on the result; None
    lets the brightness follow the sky (its `auto_light_matching`).
    """

    recoloring: float
    light: float | None

    def apply(self, frame: np.ndarray, share: np.ndarray, sky: np.ndarray) -> np.ndarray:
        """c = frame + recoloring d, d = mean(sky) - mean of the foreground; then

            c                                         where the light follows the sky
            light (c + mean(frame) - mean(c))         otherwise

        d is a colour, taken from every (H // 20)th pixel; the last two means are scalars.

        Args:
            frame, sky: (H, W, 3) float32, [0, 1]; the sky also where it is hidden.
            share: (H, W) float32, of the sky.
        Returns:
            (H, W, 3) float32, not limited to [0, 1].
        """
        step = max(1, frame.shape[0] // 20)
        weight = 1 - share[::step, ::step, None]
        seen = (frame[::step, ::step] * weight).sum((0, 1)) / (weight.sum() + 1e-9)
        difference = sky[::step, ::step].mean((0, 1)) - seen
        toned = frame + self.recoloring * difference
        if self.light is None:
            return toned
        return self.light * (toned + (frame.mean() - toned.mean()))


@dataclass(frozen=True)
class SkyLight:
    """What light a sky gives: (3, 3) float32, linear RGB of its dark, middle and bright third."""

    thirds: np.ndarray

    @staticmethod
    def of(rgb: np.ndarray, weight: np.ndarray) -> SkyLight | None:
        """Measure a sky; None when too little of it shows.

        Args:
            rgb: (h, w, 3) uint8, a small picture. weight: (h, w) float, how far a pixel is sky.
        """
        at = weight > 0.5
        if at.sum() < _LEAST_SKY * weight.size:
            return None
        light = _TO_LIGHT[rgb[at]]
        order = np.argsort(light @ LUMINANCE)
        thirds = [part.mean(0) for part in np.array_split(light[order], 3) if len(part)]
        while len(thirds) < 3:
            thirds.append(thirds[-1])
        return SkyLight(np.stack(thirds).astype(np.float32))


def log_gains(old: SkyLight, new: SkyLight, recolor: float, relight: float) -> np.ndarray:
    """(3, 3) float32 stops: gain of shadows, middle tones and highlights, per channel.

    Colour and brightness apart: the colour's gain leaves the luminance of grey as it is.

    Args:
        recolor, relight: [0, 1], share of the sky's change in colour and in brightness.
    """
    lights = []
    for sky in (old, new):
        luminance = np.maximum(sky.thirds @ LUMINANCE, _BLACK)[:, None]
        lights.append((luminance, SKY_TINT * sky.thirds / luminance + (1 - SKY_TINT)))
    (old_level, old_tint), (new_level, new_tint) = lights
    tint = (new_tint / old_tint) ** recolor
    tint /= (tint @ LUMINANCE)[:, None]
    stops = relight * np.log2(new_level / old_level)
    return (np.log2(tint) + _limited(stops)).astype(np.float32)


def _limited(stops: np.ndarray) -> np.ndarray:
    low, high = MAX_STOPS
    return np.where(stops < 0, low * np.tanh(stops / low), high * np.tanh(stops / high))


@dataclass(frozen=True)
class ToneTable:
    """What becomes of a channel's level, given the pixel's luma: (256 luma, 256 level, 3) uint8.

    Light is multiplied where the gain is below 1 and follows g x / (1 + (g - 1) x) above it: slope
    g in the dark, white stays white. So nothing clips, whatever the gain, and skin and saturated
    colours keep their shading.
    """

    levels: np.ndarray

    @staticmethod
    def build(stops: np.ndarray, exposure_ev: float = 0.0, saturation: float = 1.0) -> ToneTable:
        """From gains per range.

        Args:
            stops: (3, 3) float, of shadows, middle tones, highlights.
            exposure_ev: added to all. saturation: factor on the distance from grey.
        """
        luma = np.linspace(0, 1, _NODES, dtype=np.float32)
        high = np.clip(2 * luma - 1, 0, 1)
        low = np.clip(1 - 2 * luma, 0, 1)
        high, low = (w * w * (3 - 2 * w) for w in (high, low))
        weights = np.stack([low, 1 - low - high, high], axis=1)
        gain = np.exp2(weights @ stops + exposure_ev).astype(np.float32)[:, None, :]
        light = np.broadcast_to(_TO_LIGHT[None, :, None], (_NODES, 256, 3))
        toned = encode_srgb(_gained(light, gain))
        if saturation != 1:
            grey = decode_srgb(luma)[:, None, None]
            middle = encode_srgb(_gained(grey, gain) @ LUMINANCE[:, None])
            toned = middle + saturation * (toned - middle)
        nodes = np.clip(toned * 255, 0, 255).astype(np.float32)
        rows = np.arange(256, dtype=np.float32) * ((_NODES - 1) / 255)
        below = np.minimum(rows.astype(int), _NODES - 2)
        part = (rows - below)[:, None, None]
        full = nodes[below] * (1 - part) + nodes[below + 1] * part
        return ToneTable(np.rint(full).astype(np.uint8))

    def apply(self, rgb: np.ndarray) -> np.ndarray:
        """The toned picture.

        Args:
            rgb: (H, W, 3) uint8, or any other type of integer with more levels.
        """
        if rgb.dtype != np.uint8:
            peak = np.float32(np.iinfo(rgb.dtype).max)
            toned = self.apply_float(rgb.astype(np.float32) * (1 / peak))
            return np.rint(toned * peak).astype(rgb.dtype)
        luma = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).astype(np.uint16)
        np.left_shift(luma, 8, out=luma)
        out = [self.levels[..., c].ravel().take(luma | rgb[..., c]) for c in range(3)]
        return cv2.merge(out)

    def apply_float(self, rgb: np.ndarray) -> np.ndarray:
        """The same for (H, W, 3) float32 in [0, 1], interpolated between the levels."""
        luma = cv2.cvtColor(np.ascontiguousarray(rgb), cv2.COLOR_RGB2GRAY) * 255
        out = []
        for c in range(3):
            table = self.levels[..., c].astype(np.float32)
            level = np.ascontiguousarray(rgb[..., c]) * 255
            out.append(
                cv2.remap(table, level, luma, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            )
        return np.clip(cv2.merge(out) * np.float32(1 / 255), 0, 1)


def _gained(light: np.ndarray, gain: np.ndarray) -> np.ndarray:
    return gain * light / (1 + np.maximum(gain - 1, 0) * light)


class RangeRelight:
    """`log_gains` over time: measured in every frame, eased toward, never looking ahead.

    After a time constant of `smooth_s`, 63 % of a change has come through. A change of more than
    `CUT_STOPS` from one frame to the next is another shot and is taken at once.
    """

    CUT_STOPS = 0.8

    def __init__(self, recolor: float, relight: float, smooth_s: float):
        self.strengths = (recolor, relight)
        self.smooth_s = smooth_s
        self._stops: np.ndarray | None = None
        self._measured: np.ndarray | None = None
        self._time_s = 0.0

    def step(self, old: SkyLight | None, new: SkyLight | None, time_s: float) -> np.ndarray:
        """(3, 3) float32 stops for the frame at `time_s`; None where a sky does not show."""
        if old is not None and new is not None:
            measured = log_gains(old, new, *self.strengths)
            if self._stops is None or self._measured is None or self._jumped(measured):
                self._stops = measured
            else:
                elapsed = max(time_s - self._time_s, 0)
                keep = np.exp(-elapsed / self.smooth_s) if self.smooth_s > 0 else 0
                self._stops = keep * self._stops + (1 - keep) * measured
            self._measured = measured
        self._time_s = time_s
        return np.zeros((3, 3), np.float32) if self._stops is None else self._stops

    def _jumped(self, measured: np.ndarray) -> bool:
        return bool(np.abs(measured - self._measured).max() > self.CUT_STOPS)
