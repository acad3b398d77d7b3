"""Exact motion for synthetic scenes: a rotating camera, planes at a depth, objects that bend.

Every motion maps frame pixels to canvas texels and back in closed form, in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from atlas.coords import Size, apply_homography


@dataclass(frozen=True)
class Camera:
    """A pinhole camera that turns, and may move a little.

    Convention: a direction d in the world is R[t] @ d in camera t; x right, y down, z forward. A
    pixel at infinity moves from the world's own view to frame t by K R[t] K^-1.

    rotations: (T, 3, 3) float64. centres: (T, 3) float64, camera positions in units in which
    depths are given. focal_px: focal length, pixels, same in x and y, centre in mid-frame.
    """

    size: Size
    focal_px: float
    rotations: np.ndarray
    centres: np.ndarray

    @property
    def k(self) -> np.ndarray:
        """(3, 3) float64: intrinsics in pixels of `size`."""
        cx, cy = (self.size.width - 1) / 2, (self.size.height - 1) / 2
        return np.array([[self.focal_px, 0, cx], [0, self.focal_px, cy], [0, 0, 1.0]])

    def world_to_frame(self, t: int, depth: float = np.inf) -> np.ndarray:
        """(3, 3): homography from the unrotated view's pixels to those of frame `t`.

        For the plane z = depth: K R (I - c n^T / depth) K^-1 with n = (0, 0, 1) (Hartley and
        Zisserman 2004, eq. 13.2); an infinite depth leaves K R K^-1.
        """
        shift = np.eye(3)
        if np.isfinite(depth):
            shift[:, 2] -= self.centres[t] / depth
        return self.k @ self.rotations[t] @ shift @ np.linalg.inv(self.k)


def rotation(yaw_deg: float, pitch_deg: float, roll_deg: float) -> np.ndarray:
    """(3, 3): world to camera; yaw turns the view right, pitch up, roll clockwise."""
    y, p, r = np.radians([-yaw_deg, pitch_deg, -roll_deg])
    about_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(p), np.sin(p)], [0, -np.sin(p), np.cos(p)]])
    about_z = np.array([[np.cos(r), -np.sin(r), 0], [np.sin(r), np.cos(r), 0], [0, 0, 1]])
    return about_z @ about_x @ about_y


def wander(rng: np.random.Generator, frame_count: int, period_frames: float) -> np.ndarray:
    """(T,) float64: a smooth seeded wobble of standard deviation about 1, seven sinusoids."""
    t = np.arange(frame_count)
    rates = rng.uniform(0.4, 1.8, 7) * 2 * np.pi / period_frames
    phases = rng.uniform(0, 2 * np.pi, 7)
    return np.sin(t[:, None] * rates + phases).sum(1) * (2 / 7) ** 0.5


ABOUT_FRAMES = 200.0
"""A camera that looks about comes back about this often."""
CAMERA_KINDS = ("still", "pan", "pan_back", "hand", "around", "shake")


def move_camera(size: Size, frame_count: int, kind: str, pan_deg: float, seed: int) -> Camera:
    """A camera of one of `CAMERA_KINDS`.

    still: no motion. pan: turns by `pan_deg` at an even rate. pan_back: out by `pan_deg` and back
    to where it began. hand: a pan held by hand: smooth wobble in yaw, pitch and roll. around:
    looks about by hand, to and fro within some `pan_deg`, without an aim. shake: no pan, fast
    wobble of about a degree. All but `still` also move sideways, in proportion to the yaw, which
    only layers at a finite depth notice.
    """
    if kind not in CAMERA_KINDS:
        raise ValueError(f"kind must be one of {CAMERA_KINDS}, got {kind!r}")
    rng = np.random.default_rng([seed, 77])
    s = np.arange(frame_count) / max(frame_count - 1, 1)
    yaw, pitch, roll = (np.zeros(frame_count) for _ in range(3))
    if kind in ("pan", "hand"):
        yaw = pan_deg * (s - 0.5)
        pitch = 0.12 * yaw
    elif kind == "pan_back":
        yaw = pan_deg * (0.5 - 0.5 * np.cos(2 * np.pi * s) - 0.5)
        pitch = 0.05 * pan_deg * np.sin(2 * np.pi * s)
    elif kind == "around":
        yaw = 0.25 * pan_deg * wander(rng, frame_count, ABOUT_FRAMES)
        pitch = 0.04 * pan_deg * wander(rng, frame_count, ABOUT_FRAMES)
    if kind in ("hand", "around", "shake"):
        period = 6.0 if kind == "shake" else 36.0
        wobble_deg = 0.7 if kind == "shake" else 0.22
        yaw = yaw + wobble_deg * wander(rng, frame_count, period)
        pitch = pitch + wobble_deg * wander(rng, frame_count, period)
        roll = roll + 0.6 * wobble_deg * wander(rng, frame_count, 1.5 * period)
    rotations = np.stack([rotation(*angles) for angles in zip(yaw, pitch, roll, strict=True)])
    centres = np.zeros((frame_count, 3))
    centres[:, 0] = 0.05 * np.radians(yaw) / np.radians(10)
    centres[:, 1] = -0.02 * np.radians(pitch) / np.radians(10)
    return Camera(size, 1.15 * size.width, rotations, centres)


@dataclass(frozen=True)
class Bend:
    """A smooth bend of the canvas with an exact inverse: two shears by sines, one after the other.

    u' = u + a sin(2 pi v / period + phase), then v' = v + b sin(2 pi u' / period - phase).

    a, b: (T,) float64, texels. period: texels. phase: (T,) radians.
    """

    a: np.ndarray
    b: np.ndarray
    period: float
    phase: np.ndarray

    def forward(self, t: int, uv: np.ndarray) -> np.ndarray:
        """(..., 2) texels of the rigid canvas to (..., 2) texels of the bent one."""
        rate = 2 * np.pi / self.period
        u = uv[..., 0] + self.a[t] * np.sin(rate * uv[..., 1] + self.phase[t])
        v = uv[..., 1] + self.b[t] * np.sin(rate * u - self.phase[t])
        return np.stack([u, v], axis=-1)

    def inverse(self, t: int, uv: np.ndarray) -> np.ndarray:
        """Undo `forward`."""
        rate = 2 * np.pi / self.period
        v = uv[..., 1] - self.b[t] * np.sin(rate * uv[..., 0] - self.phase[t])
        u = uv[..., 0] - self.a[t] * np.sin(rate * v + self.phase[t])
        return np.stack([u, v], axis=-1)


@dataclass(frozen=True)
class Motion:
    """Frame pixels to canvas texels: a homography per frame, then maybe a bend.

    matrices: (T, 3, 3) float64, pixels of the frame to texels of the canvas.
    """

    matrices: np.ndarray
    bend: Bend | None = None

    def to_canvas(self, t: int, xy_px: np.ndarray) -> np.ndarray:
        """(..., 2) pixels of frame `t` to (..., 2) float64 texels."""
        uv = apply_homography(self.matrices[t], np.asarray(xy_px, np.float64))
        return uv if self.bend is None else self.bend.forward(t, uv)

    def to_frame(self, t: int, uv: np.ndarray) -> np.ndarray:
        """(..., 2) texels to (..., 2) float64 pixels of frame `t`; the inverse of `to_canvas`."""
        uv = np.asarray(uv, np.float64)
        rigid = uv if self.bend is None else self.bend.inverse(t, uv)
        return apply_homography(np.linalg.inv(self.matrices[t]), rigid)


def fit_canvas(
    camera: Camera, texels_per_px: float, margin_px: float, depth: float = np.inf
) -> tuple[Size, np.ndarray, np.ndarray]:
    """A canvas on the unrotated view's plane that holds every frame, and where it lies.

    Returns:
        canvas size; (3, 3) matrix from unrotated pixels to texels; (T, 3, 3) matrices from the
        pixels of each frame to texels.
    """
    width, height = camera.size.width, camera.size.height
    corners = np.array([[-0.5, -0.5], [width - 0.5, -0.5], [-0.5, height - 0.5]])
    corners = np.concatenate([corners, [[width - 0.5, height - 0.5]]])
    count = len(camera.rotations)
    to_world = np.stack([np.linalg.inv(camera.world_to_frame(t, depth)) for t in range(count)])
    seen = np.concatenate([apply_homography(m, corners) for m in to_world])
    low, high = seen.min(0) - margin_px, seen.max(0) + margin_px
    scale = texels_per_px
    place = np.array([[scale, 0, -low[0] * scale], [0, scale, -low[1] * scale], [0, 0, 1.0]])
    size_wh = np.ceil((high - low) * texels_per_px).astype(int) + 1
    return Size(int(size_wh[1]), int(size_wh[0])), place, place @ to_world


def carried(
    camera: Camera, place: Callable[[int], np.ndarray], depth: float = np.inf
) -> np.ndarray:
    """(T, 3, 3) pixels to texels of a thing that moves.

    place(t): (3, 3), texels to pixels of the unrotated view.
    """
    count = len(camera.rotations)
    return np.stack(
        [np.linalg.inv(camera.world_to_frame(t, depth) @ place(t)) for t in range(count)]
    )
