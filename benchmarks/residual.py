"""How well the sky moves with the far scene of real clips, in pixels of the frame.

Points of the scene close under the skyline are followed by themselves over half a second, frame
by frame, by corners and settings of their own. Where the sky's homography says that a far point
went is compared with where it was followed to; near things (parallax) fill the upper tail.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from atlas.coords import apply_homography
from atlas.planes import Planes
from atlas.video import open_source
from preprocess.camera_track import CameraChoice, open_camera
from preprocess.observer import SkyObserver

WINDOW_FRAMES = 15
_BAND = 0.08
"""Points this far under the skyline count as far; share of the frame's height."""
FAR_PLACES = {"solidWhiteRight": (0.37, 0.4, 0.56, 0.54)}
"""Where the far scene lies (left, top, right, bottom; shares) when trees stand before the rest."""
_RIDGE = 0.02
"""The band there: under the hills' ridge stand trees."""


def sky_residual(clip: Path, frame_count: int | None = None) -> dict[str, Any]:
    """One row for a clip."""
    source = open_source(clip, trusting=True)
    form = source.plane_format
    assert form is not None
    observer = SkyObserver(form, open_camera(form.size, CameraChoice(), source.info))
    count = min(frame_count or source.info.frame_count, source.info.frame_count)
    residuals: list[float] = []
    moves: list[float] = []
    start: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None
    before = np.empty((0, 0), np.uint8)
    for t, planes in enumerate(source.planes(form, 0, count)):
        seen = observer.look(planes)
        homography = observer.locate(planes, seen)
        grey = _grey(planes, form.peak)
        if start is not None and not seen.starts_shot:
            points, first, onto = start
            points, kept = _followed(before, grey, points)
            start = points, first[kept], onto
        if t % WINDOW_FRAMES == 0:
            if start is not None and not seen.starts_shot and len(start[0]):
                points, first, onto = start
                told = apply_homography(np.linalg.inv(onto) @ homography, points)
                residuals += np.linalg.norm(told - first, axis=1).tolist()
                moves += np.linalg.norm(points - first, axis=1).tolist()
            points = _far_points(grey, seen.sky, FAR_PLACES.get(clip.stem))
            start = points, points, homography
        before = grey
    return {
        "clip": clip.stem,
        "points": len(residuals),
        "moved_px": round(float(np.median(moves)), 1) if moves else None,
        "residual_px_median": round(float(np.median(residuals)), 2) if residuals else None,
        "residual_px_p75": round(float(np.percentile(residuals, 75)), 2) if residuals else None,
        "uncertain_frames": observer.uncertain_frames,
    }


def _grey(planes: Planes, peak: int) -> np.ndarray:
    return planes.y if peak == 255 else cv2.convertScaleAbs(planes.y, alpha=255 / peak)


def _far_points(
    grey: np.ndarray, sky: np.ndarray, place: tuple[float, float, float, float] | None
) -> np.ndarray:
    """(N, 2) float32 corners of the scene within `_BAND` of the sky, inside `place`."""
    height, width = grey.shape
    matte = cv2.resize(sky, (width, height)) > 0.5
    reach = max(1, round((_BAND if place is None else _RIDGE) * height))
    near = cv2.dilate(matte.astype(np.uint8), np.ones((2 * reach + 1, 1), np.uint8))
    inner = cv2.dilate(matte.astype(np.uint8), np.ones((5, 5), np.uint8))
    mask = (near > 0) & (inner == 0)
    if place is not None:
        left, top, right, bottom = np.multiply(place, (width, height, width, height)).astype(int)
        inside = np.zeros_like(mask)
        inside[top:bottom, left:right] = True
        mask &= inside
    found = cv2.goodFeaturesToTrack(grey, 150, 0.005, 4, mask=mask.astype(np.uint8))
    return np.empty((0, 2), np.float32) if found is None else found.reshape(-1, 2)


def _followed(before: np.ndarray, after: np.ndarray, xy: np.ndarray) -> tuple[np.ndarray, Any]:
    if not len(xy):
        return xy, np.zeros(0, bool)
    start = xy.reshape(-1, 1, 2)
    there, found, _ = cv2.calcOpticalFlowPyrLK(before, after, start, start.copy(), winSize=(21, 21))
    back, again, _ = cv2.calcOpticalFlowPyrLK(after, before, there, there.copy(), winSize=(21, 21))
    good = (found.ravel() > 0) & (again.ravel() > 0)
    good &= np.linalg.norm((back - start).reshape(-1, 2), axis=1) < 0.3
    return there.reshape(-1, 2)[good], good
