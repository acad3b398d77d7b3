"""The view that a camera has of the inside of an equirectangular panorama."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from atlas.coords import Size, pixel_grid
from atlas.wide_canvas import Roll


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
