"""Equirectangular skies: tone mapping and the perspective view that a camera has of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from atlas.coords import Size, pixel_grid, resize_positions
from atlas.errors import InputError
from atlas.wide_canvas import Roll
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


def perspective_view(
    panorama: np.ndarray, size: Size, focal_px: float, centre_px: tuple[float, float], yaw_pitch_deg
) -> np.ndarray:
    """What a pinhole camera inside an equirectangular panorama sees; see `View`.

    Args:
        panorama: (H, W, 3) float32, 360 by 180 degrees.
        size: of the view, pixels. focal_px: focal length in pixels of the view.
        centre_px: (x, y) of the optical axis in the view, pixels; may lie outside.
        yaw_pitch_deg: (yaw, pitch), degrees.
    Returns:
        (size.height, size.width, 3) float32.
    """
    view = View(focal_px, centre_px, *yaw_pitch_deg)
    at = view.panorama_positions(pixel_grid(size), Size(*panorama.shape[:2]))
    return cv2.remap(panorama, at[..., 0], at[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)


@dataclass(frozen=True)
class View:
    """A pinhole camera inside an equirectangular panorama.

    Convention: column 0 of the panorama is longitude -180 degrees, the middle column straight
    ahead (yaw 0), the top row straight up. The camera looks along +z, x right, y down; roll turns
    it clockwise about its axis (the horizon then falls to the left), pitch tilts it up, then yaw
    turns it to the right.

    focal: focal length in texels of the image plane. centre: (x, y) of the optical axis there.
    roll: where that is no plane, but rolled out from a cylinder about the camera.
    """

    focal: float
    centre: tuple[float, float]
    yaw_deg: float = 0.0
    pitch_deg: float = 0.0
    roll_deg: float = 0.0
    roll: Roll | None = None

    def panorama_positions(self, uv: np.ndarray, panorama: Size) -> np.ndarray:
        """Where rays through the image plane meet the panorama.

        Longitudes are unwound along the rows, so neighbours lie side by side also across the
        panorama's seam; columns outside of it are meant modulo its width.

        Args:
            uv: (H, W, 2) float, texels of the image plane.
        Returns:
            (H, W, 2) float32, (column, row) in panorama pixels.
        """
        if self.roll is not None:
            right, down, ahead = np.moveaxis(self._cylinder().rays(uv, self.centre), -1, 0)
            return self.of_rays(right, down, ahead, panorama)
        flat = (uv.astype(np.float64) - self.centre) / self.focal
        return self.of_rays(flat[..., 0], flat[..., 1], np.ones(uv.shape[:2]), panorama)

    def _cylinder(self) -> Roll:
        """The canvas's cylinder, as wide as the view's focal length says."""
        assert self.roll is not None
        return replace(self.roll, focal=self.focal)

    def of_frame(self, homography: np.ndarray, xy_px: np.ndarray, panorama: Size) -> np.ndarray:
        """`panorama_positions` of the pixels of a frame, also of what lies behind the plane.

        Args:
            homography: (3, 3), pixels to texels of the image plane; its third row is depth, > 0
                ahead. xy_px: (H, W, 2), pixels.
        """
        across, down, depth = np.moveaxis(xy_px @ homography[:, :2].T + homography[:, 2], -1, 0)
        x, y = self.centre
        return self.of_rays(
            (across - x * depth) / self.focal, (down - y * depth) / self.focal, depth, panorama
        )

    def of_rays(self, x: np.ndarray, y: np.ndarray, z: np.ndarray, panorama: Size) -> np.ndarray:
        """(H, W, 2) float32: `panorama_positions` of rays (right, down, ahead), (H, W) each."""
        yaw, pitch, roll = np.radians((self.yaw_deg, self.pitch_deg, self.roll_deg))
        x, y = x * np.cos(roll) - y * np.sin(roll), x * np.sin(roll) + y * np.cos(roll)
        up = z * np.sin(pitch) - y * np.cos(pitch)
        ahead = z * np.cos(pitch) + y * np.sin(pitch)
        longitude = np.unwrap(np.arctan2(x, ahead) + yaw, axis=1)
        latitude = np.arctan2(up, np.hypot(x, ahead))
        first = longitude[:, :1]
        longitude += np.unwrap(first, axis=0) - first
        column = (longitude / (2 * np.pi) + 0.5) * panorama.width - 0.5
        row = np.clip((0.5 - latitude / np.pi) * panorama.height - 0.5, 0, panorama.height - 1)
        return np.stack([column, row], axis=-1).astype(np.float32)


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
