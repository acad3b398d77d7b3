"""The demo clip's sound, synthesised: a light wind, two birds and a slow chord."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import scipy.signal

RATE_HZ = 48_000


def demo_sound(seconds: float, seed: int) -> np.ndarray:
    """(N, 2) float32 in [-1, 1]: stereo at `RATE_HZ`, exactly `seconds` long."""
    count = round(seconds * RATE_HZ)
    rng = np.random.default_rng([seed, 9])
    sound = _wind(count, rng) + _chord(count, rng) + _birds(count, rng)
    ramp = np.minimum(np.arange(count), np.arange(count)[::-1]) / (0.25 * RATE_HZ)
    sound *= np.clip(ramp, 0, 1)[:, None] ** 2
    return (0.8 * np.tanh(sound)).astype(np.float32)


def write_wav(path: Path, sound: np.ndarray) -> None:
    """Write (N, 2) float32 as 16-bit stereo PCM."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(RATE_HZ)
        file.writeframes(np.rint(sound * 32767).astype("<i2").tobytes())


def _wind(count: int, rng: np.random.Generator) -> np.ndarray:
    """Band-passed noise, its loudness wandering over seconds; left and right apart."""
    low = scipy.signal.butter(2, [180, 700], "bandpass", fs=RATE_HZ, output="sos")
    noise = np.asarray(scipy.signal.sosfilt(low, rng.standard_normal((count, 2)), axis=0))
    s = np.arange(count)[:, None] / RATE_HZ
    gust = 0.6 + 0.3 * np.sin(2 * np.pi * 0.23 * s + rng.uniform(0, 6, 2))
    return 0.16 * noise / max(float(noise.std()), 1e-9) * gust * 0.35


def _chord(count: int, rng: np.random.Generator) -> np.ndarray:
    """A soft, open D major chord of slightly detuned partials."""
    s = np.arange(count) / RATE_HZ
    out = np.zeros((count, 2))
    for note_hz, level in (
        (146.83, 1.0),
        (220.0, 0.8),
        (293.66, 0.6),
        (369.99, 0.45),
        (440.0, 0.3),
    ):
        for side in (0, 1):
            detune = 1 + 0.0015 * rng.standard_normal()
            swell = 0.75 + 0.25 * np.sin(2 * np.pi * rng.uniform(0.1, 0.3) * s + rng.uniform(0, 6))
            tone = np.sin(2 * np.pi * note_hz * detune * s + rng.uniform(0, 6))
            tone += 0.25 * np.sin(4 * np.pi * note_hz * detune * s)
            out[:, side] += 0.055 * level * swell * tone
    return out


def _birds(count: int, rng: np.random.Generator) -> np.ndarray:
    """Short phrases of falling and rising chirps, now left, now right."""
    out = np.zeros((count, 2))
    start_s = 0.3
    while start_s * RATE_HZ < count:
        side, high_hz = rng.uniform(0.15, 0.85), rng.uniform(3200, 5200)
        for k in range(int(rng.integers(2, 6))):
            length = int(rng.uniform(0.05, 0.11) * RATE_HZ)
            begin = int((start_s + 0.14 * k) * RATE_HZ)
            length = min(length, count - begin)
            if length <= 0:
                break
            s = np.linspace(0, 1, length)
            pitch_hz = high_hz * (1 + rng.uniform(-0.25, 0.3) * s + 0.06 * np.sin(9 * np.pi * s))
            chirp = np.sin(2 * np.pi * np.cumsum(pitch_hz) / RATE_HZ) * np.sin(np.pi * s) ** 2
            level = 0.05 * rng.uniform(0.6, 1.0)
            out[begin : begin + length] += level * chirp[:, None] * [1 - side, side]
        start_s += rng.uniform(0.8, 1.6)
    return out
