"""A look ahead over a file for what tracking cannot know at once: the focal length."""

from __future__ import annotations

import math
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from atlas.coords import Size
from atlas.glimpse import glimpses
from atlas.video import VideoInfo
from preprocess.camera import CameraTracker
from preprocess.camera_options import CameraOptions, CameraPose
from preprocess.lens import PRIOR_SPREAD, FocalFound, PairCollector, ViewPair, weighed
from preprocess.rotation import default_focal_px
from preprocess.tracks import StepMatches

LONG_SIDE_PX = 400
"""Size of the frames that are looked at."""
STRETCH_S = 6.0
"""A stretch of a clip that is looked at; less where the lens is soon clear."""
_LOOK_PAIRS = 3
"""What has been seen is weighed whenever so many pairs of views have been added."""
_ENOUGH_SPREAD = 0.025
"""Nothing more is looked at when the lens is known to this."""
_LONG_S = (12, 40, 120)
"""Clips longer than these are looked at in one more place each."""
_FILM_DIAGONAL_MM = 43.27
_NOTED_SPREAD = 0.12


def look_ahead(
    stretches: Iterable[Iterable[np.ndarray]], size: Size, prior: FocalFound | None = None
) -> FocalFound:
    """The focal length of the camera of a clip.

    Args:
        stretches: parts of the clip, each (h, w) uint8 frames in order, near enough to follow what
            they show; all of one size. size: of the clip's frames.
        prior: what is believed beforehand.
    """
    prior = prior or FocalFound(default_focal_px(size), PRIOR_SPREAD)
    pairs: list[ViewPair] = []
    small, next_look = size, _LOOK_PAIRS
    for greys in stretches:
        collector = PairCollector()
        for grey in greys:
            small = Size(*grey.shape)
            pairs += collector.see(grey)
            if len(pairs) >= next_look:
                next_look = len(pairs) + _LOOK_PAIRS
                best = _told(pairs, small, size, prior)
                if best.spread < _ENOUGH_SPREAD:
                    return best
    return _told(pairs, small, size, prior)


def _told(pairs: list[ViewPair], small: Size, size: Size, prior: FocalFound) -> FocalFound:
    """What pairs of views in small frames say of the lens, in pixels of the frames."""
    scale = small.width / size.width
    best = weighed(pairs, small, FocalFound(prior.focal_px * scale, prior.spread))
    return FocalFound(best.focal_px / scale, best.spread)


def look_ahead_in(info: VideoInfo) -> FocalFound:
    """The same of a video file."""
    start_s, end_s = info.frame_times_s[0], info.duration_s
    count = 1 + sum(end_s - start_s > long for long in _LONG_S)
    starts = [start_s + (end_s - start_s) * i / count for i in range(count)]
    parts = (glimpses(info, LONG_SIDE_PX, first_s, STRETCH_S) for first_s in starts)
    return look_ahead(parts, info.size, noted_focal(info))


def noted_focal(info: VideoInfo) -> FocalFound | None:
    """What the camera itself says of its lens; None where it says nothing.

    Equivalents are of the diagonal, and video uses a part of the sensor only.
    """
    if info.lens_35mm is None:
        return None
    diagonal_px = math.hypot(info.size.height, info.size.width)
    return FocalFound(info.lens_35mm * diagonal_px / _FILM_DIAGONAL_MM, _NOTED_SPREAD)


class ForeseenCamera:
    """A `CameraTracker` that begins with what a look ahead over the file says of the lens.

    The look is taken in a thread from the start on; the first frame waits for it.
    """

    def __init__(self, info: VideoInfo, options: CameraOptions | None = None):
        self._size, self._options = info.size, options or CameraOptions()
        self._pool = ThreadPoolExecutor(1)
        self._ahead = self._pool.submit(look_ahead_in, info)
        self._pool.shutdown(wait=False)
        self._found: CameraTracker | None = None

    @property
    def _tracker(self) -> CameraTracker:
        if self._found is None:
            ahead = self._ahead.result()
            options = replace(self._options, focal_px=ahead.focal_px, focal_known=ahead.sure)
            self._found = CameraTracker(self._size, options)
        return self._found

    @property
    def focal_px(self) -> float:
        """Focal length believed now, pixels of the frame."""
        return self._tracker.focal_px

    @property
    def scene_matches(self) -> StepMatches:
        """As `CameraTracker.scene_matches`."""
        return self._tracker.scene_matches

    def cut(self) -> None:
        """A new shot begins with the next frame."""
        self._tracker.cut()

    def step_grey(self, grey: np.ndarray, sky: np.ndarray | None = None) -> CameraPose:
        """The pose of the next frame."""
        return self._tracker.step_grey(grey, sky)
