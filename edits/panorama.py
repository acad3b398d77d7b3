"""Equirectangular skies: tone mapping and the perspective view that a camera has of them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from atlas.coords import Size
from atlas.errors import InputError
from edits.picture import read_checked

KEY = 0.5
"""Linear value on which the typical brightness of the sky lands; 0.5 is 74 % when displayed."""
WHITE = 6.0
"""Linear value, in exposed units, that is mapped to display white."""


def read_hdr(path: Path) -> np.ndarray:
    """(H, W, 3) float32 linear RGB of a Radiance .hdr file."""
    data = read_checked(path)
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.float32 or pixels.ndim != 3:
        raise InputError(f"{path}: not a readable Radiance .hdr picture")
    if not np.isfinite(pixels).all():
        raise InputError(f"{path}: holds values that are not finite; export it again")
    return np.ascontiguousarray(pixels[..., 2::-1])


def tone_map(linear: np.ndarray, exposure_ev: float = 0.0) -> np.ndarray:
    """Linear radiance to display-encoded colour.

    Exposed so that the median luminance of the upper half (the sky) lands on `KEY`; then the
    extended Reinhard curve on luminance (Reinhard et al. 2002, equation 4), x (1 + x / w^2) /
    (1 + x), with w = `WHITE`; then the sRGB transfer function (IEC 61966-2-1).

    Args:
        linear: (H, W, 3) float, >= 0.
    Returns:
        (H, W, 3) float32, [0, 1].
    """
    linear = np.maximum(linear, 0).astype(np.float32)
    luminance = linear @ np.array([0.2126, 0.7152, 0.0722], np.float32)
    sky = luminance[: max(1, luminance.shape[0] // 2)]
    middle = float(np.median(sky))
    if not middle > 0:
        middle = max(float(sky.mean()), 1e-6)
    exposure = KEY / (1 - KEY) / middle * 2.0**exposure_ev
    exposed = luminance * exposure
    curve = exposed * (1 + exposed / WHITE**2) / (1 + exposed)
    mapped = linear * (curve / np.maximum(luminance, 1e-12))[..., None]
    return encode_srgb(np.clip(mapped, 0, 1))


def encode_srgb(linear: np.ndarray) -> np.ndarray:
    """Linear light to display-encoded values, IEC 61966-2-1; both in [0, 1]."""
    low = 12.92 * linear
    high = 1.055 * np.maximum(linear, 1e-12) ** (1 / 2.4) - 0.055
    return np.where(linear <= 0.0031308, low, high).astype(np.float32)


def perspective_view(
    panorama: np.ndarray, size: Size, focal_px: float, centre_px: tuple[float, float], yaw_pitch_deg
) -> np.ndarray:
    """What a pinhole camera inside an equirectangular panorama sees.

    Convention: column 0 is longitude -180 degrees, the middle column straight ahead (yaw 0), the
    top row straight up. The camera looks along +z, x right, y down; pitch tilts it up, then yaw
    turns it to the right.

    Args:
        panorama: (H, W, 3) float32, 360 by 180 degrees.
        size: of the view, pixels. focal_px: focal length in pixels of the view.
        centre_px: (x, y) of the optical axis in the view, pixels; may lie outside.
        yaw_pitch_deg: (yaw, pitch), degrees.
    Returns:
        (size.height, size.width, 3) float32.
    """
    yaw, pitch = np.radians(yaw_pitch_deg)
    x = (np.arange(size.width, dtype=np.float32) - centre_px[0]) / focal_px
    y = (np.arange(size.height, dtype=np.float32)[:, None] - centre_px[1]) / focal_px
    up = np.sin(pitch) - y * np.cos(pitch)
    ahead = np.cos(pitch) + y * np.sin(pitch)
    longitude = np.arctan2(x, ahead) + yaw
    latitude = np.arctan2(up, np.hypot(x, ahead))
    height, width = panorama.shape[:2]
    column = (longitude / (2 * np.pi) + 0.5) * width - 0.5
    row = (0.5 - latitude / np.pi) * height - 0.5
    padded = np.concatenate([panorama[:, -1:], panorama, panorama[:, :1]], axis=1)
    column = np.mod(column + 0.5, width) + 0.5  # in the padded picture, one column to the right
    return cv2.remap(
        padded,
        column.astype(np.float32),
        np.broadcast_to(row, column.shape).astype(np.float32),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
