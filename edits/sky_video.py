"""A video that plays for ever: streamed, and looped by a cross-fade instead of a jump."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from atlas.coords import Size
from atlas.errors import InputError
from atlas.video import open_source

FADE_S = 1.0
"""Length of the cross-fade; at most a quarter of the video."""

_TIME_SLACK = 0.1
"""In frames: containers round times to 1 ms; that must not show one frame twice and skip one."""


class LoopedVideo:
    """Frames of an endless loop, read forward and never all held in memory.

    With n frames and a fade of f, the loop is n - f frames long: while its first f frames play
    again, the video's last f frames fade out over them.

    Args:
        open_frames: start index to an iterator of (H, W, 3) uint8 RGB from that frame on.
        count: frames in the video. fps: its frame rate.
    """

    def __init__(
        self, open_frames: Callable[[int], Iterator[np.ndarray]], count: int, fps: Fraction | float
    ):
        if count < 1:
            raise ValueError(f"count must be >= 1, got {count}")
        self._fps = float(fps)
        self.fade = min(round(FADE_S * self._fps), count // 4)
        self.period = count - self.fade
        self._playing = _Reader(open_frames)
        self._leaving = _Reader(open_frames)
        self._lap = 0
        first = self._playing.at(0)
        self.size = Size(*first.shape[:2])

    def at(self, time_s: float) -> np.ndarray:
        """(H, W, 3) uint8: the frame shown at a time; cheap when time only goes forward."""
        return self.frame(int(np.floor(max(time_s, 0) * self._fps + _TIME_SLACK)))

    def frame(self, index: int) -> np.ndarray:
        """(H, W, 3) uint8: frame `index` of the endless loop."""
        lap, at = divmod(index, self.period)
        if lap != self._lap:
            self._playing, self._leaving = self._leaving, self._playing
            self._lap = lap
        frame = self._playing.at(at)
        if lap == 0 or at >= self.fade:
            return frame
        share = (at + 1) / (self.fade + 1)
        leaving = self._leaving.at(self.period + at)
        return cv2.addWeighted(frame, share, leaving, 1 - share, 0)


class _Reader:
    """Reads one stream forward; starts again when asked for something behind it."""

    def __init__(self, open_frames: Callable[[int], Iterator[np.ndarray]]):
        self._open = open_frames
        self._frames: Iterator[np.ndarray] | None = None
        self._index = -1
        self._last: np.ndarray | None = None

    def at(self, index: int) -> np.ndarray:
        if self._frames is None or index < self._index:
            self._frames = self._open(index)
            self._index = index - 1
        while self._index < index:
            frame = next(self._frames, None)
            self._index += 1
            if frame is None:  # shorter than it says: its last frame stands in
                break
            self._last = frame
        if self._last is None:
            raise InputError("the sky video has no frames")
        return self._last


def open_looped(path: Path) -> LoopedVideo:
    """Open a video (or a folder of pictures) as an endless sky."""
    source = open_source(path, trusting=True)
    info = source.info
    if info.frame_count < 1:
        raise InputError(f"{path}: has no frames")
    return LoopedVideo(lambda start: source.frames(start=start), info.frame_count, info.fps)
