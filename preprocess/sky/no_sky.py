"""Pictures that hold no sky, for training: photographs as they are, rooms out of panoramas.

Label sets of skies have few pictures without one. Here whole folders of such pictures can be given;
of an equirectangular panorama (twice as wide as high), the views that cameras would have in it.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from atlas.coords import Size
from atlas.errors import InputError
from atlas.video import PICTURE_SUFFIXES
from edits.exr import read_exr
from edits.panorama import encode_srgb, perspective_view, read_hdr
from preprocess.sky.data import Pair, fitting_size, read_rgb, to_bytes

DOMAIN = "none"
"""What the names of these pictures begin with."""
_SIDE_PX = 384
_VIEWS = 24
_VIEW = Size(192, 256)
_LUMINANCE = np.array([0.2126, 0.7152, 0.0722], np.float32)


def load_no_sky(folders: list[Path], rng: np.random.Generator) -> list[Pair]:
    """All pictures of the folders, labelled as ground everywhere.

    Of a panorama (`.hdr`, `.exr`) `_VIEWS` views are drawn, see `room_view`. Other files are passed
    over.
    """
    pairs = []
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder; wanted pictures without sky")
        for path in sorted(folder.iterdir()):
            suffix = path.suffix.lower()
            if suffix in (".hdr", ".exr"):
                light = _panorama(path)
                pictures = [room_view(light, rng) for _ in range(_VIEWS)]
            elif suffix in PICTURE_SUFFIXES:
                pictures = [_reduced(read_rgb(path))]
            else:
                continue
            pairs += [_ground(f"{DOMAIN}_{path.stem}_{n}", rgb) for n, rgb in enumerate(pictures)]
    return pairs


def room_view(light: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What a camera turned and exposed at random sees inside a panorama.

    Between a third and nothing of the view is burnt out; the camera's white balance takes some
    or all of the light's colour away.

    Args:
        light: (H, W, 3) float32, linear, equirectangular.
    Returns:
        (192, 256, 3) uint8.
    """
    wide_deg = rng.uniform(45, 100)
    focal_px = _VIEW.width / 2 / np.tan(np.deg2rad(wide_deg / 2))
    centre_px = ((_VIEW.width - 1) / 2, (_VIEW.height - 1) / 2)
    pitch_deg = float(np.clip(rng.normal(4, 18), -60, 70))
    turn_deg = (float(rng.uniform(-180, 180)), pitch_deg)
    seen = perspective_view(light, _VIEW, focal_px, centre_px, turn_deg)
    mean = seen.reshape(-1, 3).mean(axis=0)
    cast = mean / max(float(mean @ _LUMINANCE), 1e-6)
    seen = seen / np.maximum(cast, 0.2) ** rng.uniform(0, 1)
    white = np.percentile(seen @ _LUMINANCE, rng.uniform(65, 100))
    shown = encode_srgb(np.clip(seen / max(float(white), 1e-6), 0, 1))
    return to_bytes(shown)


def _panorama(path: Path) -> np.ndarray:
    """(H, W, 3) float32 >= 0, at most what half precision can hold."""
    light = read_hdr(path) if path.suffix.lower() == ".hdr" else read_exr(path)[..., :3]
    height, width = light.shape[:2]
    if width != 2 * height:
        raise InputError(f"{path}: {width}x{height}; wanted a panorama twice as wide as high")
    finite = np.nan_to_num(light.astype(np.float32), nan=6e4, posinf=6e4, neginf=0)
    return np.ascontiguousarray(np.clip(finite, 0, 6e4))


def _reduced(rgb: np.ndarray) -> np.ndarray:
    size = fitting_size(Size(*rgb.shape[:2]), _SIDE_PX)
    return cv2.resize(rgb, size.wh, interpolation=cv2.INTER_AREA)


def _ground(name: str, rgb: np.ndarray) -> Pair:
    shape = rgb.shape[:2]
    return Pair(name, rgb, np.zeros(shape, np.uint8), np.full(shape, 255, np.uint8))
