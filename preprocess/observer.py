"""What the fast path sees in a stream of planes: shots, the sky's matte, where the camera looks.

Three steps, so that they can run in threads of their own, each in the order of the frames:
`look`, `locate`, `matte`.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from atlas.coords import Size
from atlas.errors import InputError
from atlas.planes import PlaneFormat, Planes
from preprocess.camera import CameraPose, CameraTracker
from preprocess.camera_track import CameraSource, CameraTrack
from preprocess.fastpath import looks_like_cut
from preprocess.stream_matte import SmallMatte, StreamMatter

LOW_CONFIDENCE = 0.25
"""Frames whose camera is less sure than this are counted as uncertain."""


@dataclass(frozen=True)
class Seen:
    """One frame at the network's size: rgb (h, w, 3) uint8, sky (h, w) float32, 1 = sky."""

    small: SmallMatte
    starts_shot: bool

    @property
    def rgb(self) -> np.ndarray:
        return self.small.rgb

    @property
    def sky(self) -> np.ndarray:
        return self.small.sky


class SkyObserver:
    """Matte and camera of one clip; constant memory but for the camera's track."""

    def __init__(self, form: PlaneFormat, camera: CameraSource | None = None):
        """`camera` None finds the camera's motion."""
        self.form = form
        self.track = CameraTrack(form.size)
        self.uncertain_frames = 0
        self._camera = camera or CameraTracker(form.size)
        self._matter = StreamMatter(form)
        self._thumbnail: np.ndarray | None = None

    @property
    def focal_px(self) -> float:
        """Focal length believed now, pixels of the frame."""
        return self._camera.focal_px

    def look(self, planes: Planes) -> Seen:
        """The next frame's small matte, and whether it begins a shot."""
        rgb = self._matter.small_rgb(planes)
        thumbnail = cv2.resize(rgb, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)
        before, self._thumbnail = self._thumbnail, thumbnail
        starts = before is None or looks_like_cut(before, thumbnail)
        if starts:
            self._matter.reset()
        return Seen(self._matter.small(rgb), starts)

    def locate(self, planes: Planes, seen: Seen) -> np.ndarray:
        """(3, 3) float64: pixels of the next frame to pixels of its shot's first frame."""
        if seen.starts_shot:
            self._camera.cut()
        grey = planes.y
        if grey.dtype != np.uint8:
            grey = cv2.convertScaleAbs(grey, alpha=255 / self.form.peak)
        pose: CameraPose = self._camera.step_grey(grey, seen.sky)
        self.uncertain_frames += pose.confidence < LOW_CONFIDENCE
        self.track.add(pose, starts_shot=seen.starts_shot)
        return pose.homography

    def matte(self, planes: Planes, seen: Seen) -> np.ndarray:
        """(H, W) uint8, 255 = sky, of the next frame."""
        if seen.starts_shot:
            self._matter.forget_fine()
        return self._matter.full(planes, seen.small)


def matte_of_photo(rgb: np.ndarray) -> np.ndarray:
    """(H, W) float32, 1 = sky, of one (H, W, 3) uint8 picture."""
    if rgb.shape[0] < 2 or rgb.shape[1] < 2:
        raise InputError(f"a picture of {rgb.shape[1]}x{rgb.shape[0]} is too small for a sky")
    form = PlaneFormat("yuv444p", Size(*rgb.shape[:2]), "bt709", full=True)
    planes, matter = form.planes_of(rgb), StreamMatter(form)
    return matter.full(planes, matter.small(matter.small_rgb(planes))).astype(np.float32) / 255
