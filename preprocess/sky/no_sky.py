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
from atlas.panorama import perspective_view
from atlas.video import PICTURE_SUFFIXES
from preprocess.sky.data import Pair, fitting_size, read_rgb, to_bytes

DOMAIN = "none"
"""What the names of these pictures begin with."""
_SIDE_PX = 384
_VIEWS = 24
_VIEW = Size(192, 256)
_LUMINANCE = np.array([0.2126, 0.7152, 0.0722], np.float32)


def load_no_sky(folders: list[Path], rng: np.random.Generator) -> list[Pair]:
    """All pictures of the folders, labelled as ground everywhere.

    Of a panorama (Radiance `.hdr`) `_VIEWS` views are drawn, see `room_view`. Other files are
    passed over.
    """
    pairs = []
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder; wanted pictures without sky")
        for path in sorted(folder.iterdir()):
            suffix = path.suffix.lower()
            if suffix == ".hdr":
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
    pitch_deg = float(np.clip(rng.normal(4, 18), -60, 70))
    seen = _seen(light, wide_deg, rng.uniform(-180, 180), pitch_deg)
    mean = seen.reshape(-1, 3).mean(axis=0)
    cast = mean / max(float(mean @ _LUMINANCE), 1e-6)
    seen = seen / np.maximum(cast, 0.2) ** rng.uniform(0, 1)
    white = np.percentile(seen @ _LUMINANCE, rng.uniform(65, 100))
    shown = np.clip(seen / max(float(white), 1e-6), 0, 1) ** np.float32(1 / 2.2)
    return to_bytes(shown)


def _seen(light: np.ndarray, wide_deg: float, yaw_deg: float, pitch_deg: float) -> np.ndarray:
    """(192, 256, 3) float32: a camera's view inside a panorama; see `atlas.panorama.View`.

    wide_deg: angle across the view.
    """
    focal_px = _VIEW.width / 2 / np.tan(np.deg2rad(wide_deg / 2))
    centre_px = ((_VIEW.width - 1) / 2, (_VIEW.height - 1) / 2)
    return perspective_view(light, _VIEW, float(focal_px), centre_px, (yaw_deg, pitch_deg))


def _panorama(path: Path) -> np.ndarray:
    """(H, W, 3) float32 >= 0, at most what half precision can hold."""
    data = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if data is None or data.dtype != np.float32 or data.ndim != 3:
        raise InputError(f"{path}: not a readable Radiance .hdr picture")
    light = data[..., 2::-1]
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
