"""Fit the matte to one clip: what its confident pixels teach, and what the user corrects by hand.

`SkyColours`: colours of this clip's sky and of its ground, counted where the network is sure,
decide where it is not. `HandMattes`: mattes that the user painted for some frames.
"""

from __future__ import annotations

import copy
import hashlib
from pathlib import Path

import cv2
import numpy as np

from atlas.errors import InputError
from atlas.video import PICTURE_SUFFIXES
from preprocess.sky.data import read_matte

_BINS = 24
_STEPS = [(np.arange(256) * _BINS // 256 * _BINS**power).astype(np.uint16) for power in (2, 1, 0)]
"""What each level of red, green and blue adds to the number of a colour's bin."""
_SURE = 0.06
_HALF_LIFE_FRAMES = 60.0
_ENOUGH_SKY = 0.03


class SkyColours:
    """Running colour counts of sky and ground; constant memory, causal.

    A pixel of colour c is sky with log odds log(n_sky(c) + s) - log(n_ground(c) + s), counts
    smoothed over neighbouring colours and normalised to shares of the frame, s = `slack`.
    """

    def __init__(self, slack: float = 2e-4, limit: float = 2.5) -> None:
        """`slack` in shares of a frame; `limit`: largest log odds given, both signs."""
        self.slack = slack
        self.limit = limit
        self.reset()

    def reset(self) -> None:
        self._counts = np.zeros((2, _BINS, _BINS, _BINS), np.float32)
        self._frames = 0.0
        self._odds: np.ndarray | None = None

    def learn(self, rgb: np.ndarray, matte: np.ndarray) -> None:
        """Count the colours of the frame (h, w, 3) uint8 where `matte` (h, w) is sure."""
        bins = _bins_of(rgb)
        fade = 0.5 ** (1 / _HALF_LIFE_FRAMES)
        for index, sure in enumerate((matte < _SURE, matte > 1 - _SURE)):
            counts = np.bincount(bins[sure], minlength=_BINS**3).astype(np.float32)
            counts = counts.reshape(_BINS, _BINS, _BINS) / matte.size
            self._counts[index] = fade * self._counts[index] + _smooth(counts)
        self._frames = fade * self._frames + 1
        self._odds = None

    def log_odds(self, rgb: np.ndarray) -> np.ndarray:
        """(h, w) float32: how much likelier sky is than ground for each pixel's colour.

        Fades to zero where less than `_ENOUGH_SKY` of the frames was surely sky: from no examples
        nothing is learnt.
        """
        if not self._frames:
            return np.zeros(rgb.shape[:2], np.float32)
        odds = self._odds
        if odds is None:
            ground, sky = self._counts / self._frames
            trust = min(1.0, float(sky.sum()) / _ENOUGH_SKY)
            odds = np.log(sky + self.slack) - np.log(ground + self.slack)
            odds = trust * np.clip(odds, -self.limit, self.limit)
            self._odds = odds = odds.astype(np.float32).ravel()
        return odds[_bins_of(rgb)]

    def settle(self, rgb: np.ndarray, matte: np.ndarray) -> np.ndarray:
        """Learn from the next frame, then decide its doubtful pixels: their logit plus log odds.

        What is learnt is what the network said, never what was decided here, so that no mistake
        feeds itself.

        Args:
            rgb: (h, w, 3) uint8. matte: (h, w) float32 in [0, 1].
        Returns:
            (h, w) float32.
        """
        self.learn(rgb, matte)
        return self.decide(rgb, matte)

    def decide(self, rgb: np.ndarray, matte: np.ndarray) -> np.ndarray:
        """`settle` by what has been learnt so far, this frame not among it."""
        inner = np.clip(matte, 1e-5, 1 - 1e-5)
        odds = inner / (1 - inner) * np.exp(self.log_odds(rgb))
        return odds / (1 + odds)


def _bins_of(rgb: np.ndarray) -> np.ndarray:
    red, green, blue = (
        cv2.LUT(plane, steps) for plane, steps in zip(cv2.split(rgb), _STEPS, strict=True)
    )
    return cv2.add(cv2.add(red, green), blue)


def _smooth(counts: np.ndarray) -> np.ndarray:
    """Spread counts over neighbouring bins along each axis by (1, 2, 1) / 4."""
    for axis in range(3):
        padded = np.pad(counts, [(1, 1) if a == axis else (0, 0) for a in range(3)], "edge")
        counts = 0.25 * np.take(padded, range(_BINS), axis)
        counts += 0.5 * np.take(padded, range(1, _BINS + 1), axis)
        counts += 0.25 * np.take(padded, range(2, _BINS + 2), axis)
    return counts


class HandMattes:
    """Mattes that the user painted for some frames of a clip; read when they are asked for."""

    def __init__(self, folder: Path, names: list[str]) -> None:
        """`names`: the mattes that will be written, in order of frames; matched by stem."""
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder; wanted hand mattes named like the output")
        order = {Path(name).stem: t for t, name in enumerate(names)}
        self._paths = {
            order[path.stem]: path
            for path in sorted(folder.iterdir())
            if path.suffix.lower() in PICTURE_SUFFIXES and path.stem in order
        }
        if not self._paths:
            raise InputError(
                f"{folder}: no picture in it is named like a frame; wanted names such as {names[0]}"
            )

    def part(self, first: int) -> HandMattes:
        """The same for a clip that begins at frame `first`."""
        later = copy.copy(self)
        later._paths = {t - first: path for t, path in self._paths.items() if t >= first}
        return later

    def fingerprint(self) -> str:
        """One line that changes with the mattes' contents."""
        digest = hashlib.blake2b(digest_size=8)
        for t, path in self._paths.items():
            digest.update(f"{t} ".encode() + path.read_bytes())
        return digest.hexdigest()

    def matte(self, t: int, shape: tuple[int, int]) -> np.ndarray | None:
        """The hand matte of frame `t`, (H, W) float32, or None; its size must be `shape`."""
        if t not in self._paths:
            return None
        matte = read_matte(self._paths[t])
        if matte.shape != shape:
            raise InputError(
                f"{self._paths[t]}: {matte.shape[1]}x{matte.shape[0]}, but the frame is "
                f"{shape[1]}x{shape[0]}; wanted equal sizes"
            )
        return matte

    def small(self, t: int, shape: tuple[int, int], small: tuple[int, int]) -> np.ndarray | None:
        """The same reduced to `small` (h, w)."""
        matte = self.matte(t, shape)
        if matte is None:
            return None
        return cv2.resize(matte, small[::-1], interpolation=cv2.INTER_AREA)
