"""Pictures of skies without ground, for putting into training pictures."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from atlas.video import PICTURE_SUFFIXES
from preprocess.sky.data import read_rgb

_SIDE_PX = 512
_VIDEO_FRAMES = 12


def load_skies(folders: list[Path]) -> list[np.ndarray]:
    """Skies of all files of the folders: flat pictures, HDR panoramas, videos.

    Of an equirectangular `.hdr` the part 5 to 65 degrees above the horizon is taken; of a video
    `_VIDEO_FRAMES` frames evenly spread. Other files are passed over.

    Returns:
        list of (H, W, 3) uint8 RGB, longer side at most 512.
    """
    skies = []
    for path in (path for folder in folders for path in sorted(folder.iterdir())):
        suffix = path.suffix.lower()
        if suffix == ".hdr":
            skies.append(_panorama_sky(path))
        elif suffix in PICTURE_SUFFIXES:
            skies.append(_reduced(read_rgb(path)))
        elif suffix in (".mp4", ".mov"):
            skies += _video_frames(path)
    return skies


def _reduced(rgb: np.ndarray) -> np.ndarray:
    scale = min(1.0, _SIDE_PX / max(rgb.shape[:2]))
    return cv2.resize(rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def _panorama_sky(path: Path) -> np.ndarray:
    """Expose so that the sky's median is a middle grey, then encode for display."""
    bgr = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    height = bgr.shape[0]
    light = bgr[height * 25 // 180 : height * 85 // 180, :, ::-1]
    exposed = 0.35 * light / max(float(np.median(light)), 1e-6)
    shown = np.clip(exposed / (1 + 0.5 * exposed), 0, 1) ** (1 / 2.2)
    return _reduced(np.round(shown * 255).astype(np.uint8))


def _video_frames(path: Path) -> list[np.ndarray]:
    capture = cv2.VideoCapture(str(path))
    count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    frames = []
    for index in np.linspace(0, count - 1, _VIDEO_FRAMES).astype(int):
        capture.set(cv2.CAP_PROP_POS_FRAMES, int(index))
        shown, bgr = capture.read()
        if shown:
            frames.append(_reduced(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)))
    capture.release()
    return frames
