"""Equirectangular skies: tone mapping, and a panorama as paint on a canvas."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from atlas.coords import Size, resize_positions
from atlas.errors import InputError
from atlas.panorama import View
from edits.mipmap import LEVEL_BIAS, Pyramid, levels_of
from edits.picture import read_checked

KEY = 0.26
"""Linear value on which the sky's median luminance lands if it is `USUAL`; 55 % when displayed."""
USUAL = 0.5
"""Median luminance of the sky in a panorama exposed for daylight."""
ADAPTATION = 0.5
"""How far brighter and darker panoramas are brought there, in stops per stop: half the way, so
that nights stay nights."""
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

    Exposed so that the median luminance m of the upper half (the sky) lands on KEY (m /
    USUAL)^(1 - ADAPTATION); then the extended Reinhard curve on luminance (Reinhard et al. 2002,
    equation 4), x (1 + x / w^2) / (1 + x), with w = `WHITE`; colours too bright for the display
    lose saturation, not hue; then the sRGB transfer function (IEC 61966-2-1).

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
    key = float(np.clip(KEY * (middle / USUAL) ** (1 - ADAPTATION), 0.04, 0.6))
    exposure = key / (1 - key) / middle * 2.0**exposure_ev
    exposed = luminance * exposure
    curve = np.minimum(exposed * (1 + exposed / WHITE**2) / (1 + exposed), 1)
    mapped = linear * (curve / np.maximum(luminance, 1e-12))[..., None]
    over = mapped.max(-1) - curve
    share = np.minimum(1, (1 - curve) / np.maximum(over, 1e-6))[..., None]
    mapped = curve[..., None] + share * (mapped - curve[..., None])
    return encode_srgb(np.clip(mapped, 0, 1))


def encode_srgb(linear: np.ndarray) -> np.ndarray:
    """Linear light to display-encoded values, IEC 61966-2-1; both in [0, 1]."""
    low = 12.92 * linear
    high = 1.055 * np.maximum(linear, 1e-12) ** (1 / 2.4) - 0.055
    return np.where(linear <= 0.0031308, low, high).astype(np.float32)


class PanoramaPaint:
    """A panorama on the canvas of a tracked sky, which is the image plane of one camera.

    Rays are computed on every `_STEP_PX`th pixel and interpolated: a rotating camera's positions
    bend by less than 0.01 texels in between. Where the zenith comes into the picture, longitudes
    run together and every pixel gets its own ray.

    Args:
        panorama: (H, W, 3) float32 or uint8, 360 by 180 degrees.
        drift_deg: by which the panorama turns to the right in a second.
    """

    blend = "normal"
    takes_shading = False
    opaque = True
    _STEP_PX = 8
    _STEEP = 0.12

    def __init__(self, panorama: np.ndarray, view: View, drift_deg: float = 0.0):
        opaque = np.ones(panorama.shape[:2], panorama.dtype)
        opaque *= 255 if panorama.dtype == np.uint8 else 1
        self._pyramid = Pyramid(np.dstack([panorama, opaque]), cv2.BORDER_WRAP)
        self._view, self._drift_deg = view, drift_deg

    @property
    def pyramid(self) -> Pyramid:
        """The panorama with opacity, (H, W, 4), and its halvings."""
        return self._pyramid

    def view_at(self, time_s: float) -> View:
        """The camera at that time: a drifting panorama turns."""
        return replace(self._view, yaw_deg=self._view.yaw_deg - self._drift_deg * time_s)

    def positions(self, uv: np.ndarray, time_s: float) -> np.ndarray:
        """(H, W, 2) panorama pixels of canvas texels: `View.panorama_positions` at that time."""
        return self._near(self.view_at(time_s).panorama_positions(uv, self._pyramid.size))

    def positions_in_frame(
        self, homography: np.ndarray, xy_px: np.ndarray, time_s: float
    ) -> np.ndarray:
        """(H, W, 2) panorama pixels of pixels of a frame: `View.of_frame` at that time."""
        view = self.view_at(time_s)
        return self._near(view.of_frame(homography, xy_px, self._pyramid.size))

    def _near(self, at: np.ndarray) -> np.ndarray:
        """The same places by columns near the middle: far positions lose precision."""
        width = self._pyramid.size.width
        at[..., 0] -= np.floor(np.median(at[..., 0]) / width) * width
        return at

    def is_steep(self, at: np.ndarray) -> bool:
        """Whether these panorama positions come so near a pole that longitudes run together."""
        height = self._pyramid.size.height
        return bool(np.abs(at[..., 1] - (height - 1) / 2).max() > (0.5 - self._STEEP) * height)

    def sample(self, uv: np.ndarray, time_s: float) -> np.ndarray:
        view, size = self.view_at(time_s), self._pyramid.size
        height, width = uv.shape[:2]
        step = min(self._STEP_PX, max(1, min(height, width) // 40))
        rows, columns = _every(height, step), _every(width, step)
        few = self.positions(uv[np.ix_(rows, columns)], time_s)
        if self.is_steep(few):
            return self._sample_pole(view.panorama_positions(uv, size))
        x = np.interp(np.arange(width), columns, np.arange(len(columns))).astype(np.float32)
        y = np.interp(np.arange(height), rows, np.arange(len(rows))).astype(np.float32)
        border = cv2.BORDER_REPLICATE
        return self._pyramid.sample(
            cv2.remap(few, *np.meshgrid(x, y), cv2.INTER_LINEAR, borderMode=border)
        )

    def _sample_pole(self, positions: np.ndarray) -> np.ndarray:
        """At one level for all: positions that jump a turn at some neighbour tell no level."""
        wanted = float(np.median(levels_of(positions))) + LEVEL_BIAS
        top = int(np.log2(max(1, min(self._pyramid.size.wh))))
        texels = self._pyramid.level(int(np.clip(round(wanted), 0, top)))
        at = resize_positions(positions, self._pyramid.size, Size(*texels.shape[:2]))
        x, y = np.ascontiguousarray(at[..., 0]), np.ascontiguousarray(at[..., 1])
        return cv2.remap(texels, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)


def _every(count: int, step: int) -> np.ndarray:
    """0, step, 2 step, ... and the last index."""
    return np.unique(np.append(np.arange(0, count, step), count - 1))
