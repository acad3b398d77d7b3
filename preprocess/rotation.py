"""Rotation of a camera from matched pixels: rays, closed-form and robust fits, rotation vectors.

A camera that turns about its centre moves every pixel by the homography K R K^-1, whatever the
depth (Hartley and Zisserman 2004, section 8.4.2); the same holds for all that is far away.
K has one focal length in pixels, square pixels and the principal point in the picture's middle.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from atlas.coords import Size

DEFAULT_VIEW_DEG = 65.0
"""Field of view along the longer side when nothing is known: phones and dashcams have 60 to 70."""

_TRIALS = 32
"""Pairs tried: with half of the matches wrong, all miss once in 10^4 fits."""
_REFINEMENTS = 4


def default_focal_px(size: Size, view_deg: float = DEFAULT_VIEW_DEG) -> float:
    """Focal length in pixels for a field of view of `view_deg` along the longer side."""
    return 0.5 * max(size.height, size.width) / math.tan(math.radians(view_deg) / 2)


def intrinsics(size: Size, focal_px: float) -> np.ndarray:
    """K, (3, 3) float64: rays (x right, y down, z forward) to pixels."""
    cx, cy = (size.width - 1) / 2, (size.height - 1) / 2
    return np.array([[focal_px, 0, cx], [0, focal_px, cy], [0, 0, 1]], np.float64)


def rays(xy_px: np.ndarray, camera: np.ndarray) -> np.ndarray:
    """(N, 3) float64 unit rays through (N, 2) pixels of a camera K."""
    direction = np.empty((len(xy_px), 3))
    direction[:, 0] = (xy_px[:, 0] - camera[0, 2]) / camera[0, 0]
    direction[:, 1] = (xy_px[:, 1] - camera[1, 2]) / camera[1, 1]
    direction[:, 2] = 1
    return direction / np.linalg.norm(direction, axis=1, keepdims=True)


def rotation_homography(rotation: np.ndarray, camera: np.ndarray) -> np.ndarray:
    """K R K^-1, (3, 3) float64, on pixels (x, y, 1)."""
    return camera @ rotation @ np.linalg.inv(camera)


def to_vector(rotation: np.ndarray) -> np.ndarray:
    """(3,) rotation vector, radians: axis times angle."""
    return cv2.Rodrigues(np.asarray(rotation, np.float64))[0].ravel()


def from_vector(vector: np.ndarray) -> np.ndarray:
    """(3, 3) rotation of a rotation vector in radians."""
    return cv2.Rodrigues(np.asarray(vector, np.float64).reshape(3, 1))[0]


def angle_between(a: np.ndarray, b: np.ndarray) -> float:
    """Angle of the rotation that leads from `a` to `b`, radians."""
    return float(np.linalg.norm(to_vector(a.T @ b)))


def fit_rotation(source: np.ndarray, target: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """R that minimises sum w |target - R source|^2 (Kabsch 1976): (3, 3) float64.

    Args:
        source, target: (N, 3) unit rays. weight: (N,) >= 0.
    """
    u, _, vt = np.linalg.svd((target * weight[:, None]).T @ source)
    rotation = u @ vt
    if np.linalg.det(rotation) < 0:
        u[:, 2] *= -1
        rotation = u @ vt
    return rotation


@dataclass(frozen=True)
class RotationFit:
    """A robust fit and how good it is.

    rotation: (3, 3) source rays to target rays. inlier: (N,) bool.
    share: weight of the inliers over all weight, [0, 1]. residual_px: median error of inliers.
    spread: how far the inliers reach over the picture, [0, 1]; 0 = one spot, about 1 = all of it.
    """

    rotation: np.ndarray
    inlier: np.ndarray
    share: float
    residual_px: float
    spread: float

    @property
    def count(self) -> int:
        return int(self.inlier.sum())

    @property
    def quality(self) -> float:
        """[0, 1]: many inliers, over much of the picture, and few that disagree."""
        many = min(1.0, max(0, self.count - 3) / 20)
        agreed = min(1.0, max(0.0, (self.share - 0.15) / 0.35))
        return many * agreed * min(1.0, self.spread / 0.35)


def fit_rotation_robust(
    source_px: np.ndarray,
    target_px: np.ndarray,
    camera: np.ndarray,
    weight: np.ndarray,
    tolerance_px: float = 1.0,
    start: np.ndarray | None = None,
) -> RotationFit | None:
    """Rotation between two views by MSAC over pairs of matches, then Cauchy-weighted least squares.

    Args:
        source_px, target_px: (N, 2) matched pixels. camera: K of both views.
        weight: (N,) how much each match is believed beforehand, >= 0.
        tolerance_px: matches within this of the model support it.
        start: (3, 3) a rotation close by; no pairs are tried then.
    Returns:
        The fit, or None with fewer than three matches.
    """
    total = float(weight.sum())
    if len(source_px) < 3 or not total > 0:
        return None
    a, b, focal = rays(source_px, camera), rays(target_px, camera), float(camera[0, 0])
    rotation = start
    if rotation is None:
        candidates = _pair_rotations(a, b, weight)
        cosine = np.einsum("kni,ni->kn", a @ candidates.transpose(0, 2, 1), b)
        squared = (focal / tolerance_px) ** 2 * 2 * (1 - cosine)  # |R a - b|^2 = 2 - 2 b . R a
        rotation = candidates[int((np.minimum(squared, 1) @ weight).argmin())]
    squared = _squared_px(a @ rotation.T, b, focal)
    for _ in range(_REFINEMENTS):
        near = squared < (3 * tolerance_px) ** 2
        if np.count_nonzero(near) < 2:
            break
        pull = weight * near / (1 + squared * (2 / tolerance_px) ** 2)
        rotation = _nudged(rotation, a @ rotation.T, b, pull)
        squared = _squared_px(a @ rotation.T, b, focal)
    inlier = squared < tolerance_px**2
    if not inlier.any():
        return None
    near_px = source_px[inlier]
    middle = near_px.mean(axis=0)
    deviation = np.sqrt(((near_px - middle) ** 2).mean(axis=0))
    reach = deviation / (camera[:2, 2] + 1)  # 0.58 for an even spread
    spread = float(min(1.0, math.hypot(*reach) / 0.58))
    share = float(weight[inlier].sum()) / total
    residual_px = math.sqrt(float(np.median(squared[inlier])))
    return RotationFit(rotation, inlier, share, residual_px, spread)


def _squared_px(moved: np.ndarray, b: np.ndarray, focal: float) -> np.ndarray:
    """(N,) squared distance of rays, pixels near the picture's middle."""
    off = moved - b
    return focal**2 * np.einsum("ni,ni->n", off, off)


def _nudged(
    rotation: np.ndarray, moved: np.ndarray, b: np.ndarray, weight: np.ndarray
) -> np.ndarray:
    """One Gauss-Newton step toward the least sum w |b - R a|^2: a tenth of the cost of an SVD.

    Args:
        moved: (N, 3), R a. b: (N, 3). weight: (N,).
    """
    weighted = (moved * weight[:, None]).T
    own, other = weighted @ moved, weighted @ b
    turn = np.array(
        [other[1, 2] - other[2, 1], other[2, 0] - other[0, 2], other[0, 1] - other[1, 0]]
    )
    inertia = np.trace(own) * np.eye(3) - own
    inertia[[0, 1, 2], [0, 1, 2]] += 1e-12  # two rays that coincide leave one axis free
    return nearest_rotation(from_vector(np.linalg.solve(inertia, turn)) @ rotation)


@lru_cache(maxsize=1)
def _draws() -> np.ndarray:
    """(_TRIALS, 2) uniform in [0, 1): always the same, so the same matches give the same answer."""
    return np.random.default_rng(7).random((_TRIALS, 2))


def _pair_rotations(a: np.ndarray, b: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """(_TRIALS, 3, 3): rotations that carry pairs of rays, drawn by weight, onto their partners."""
    rising = np.cumsum(weight)
    pick = np.searchsorted(rising, _draws() * rising[-1], side="right").clip(max=len(a) - 1)
    same = pick[:, 0] == pick[:, 1]
    pick[same, 1] = (pick[same, 1] + 1) % len(a)

    def frames(directions: np.ndarray) -> np.ndarray:
        first, second = directions[pick[:, 0]], directions[pick[:, 1]]
        along, across = first + second, first - second
        along /= np.sqrt(np.einsum("ni,ni->n", along, along))[:, None]
        across -= np.einsum("ni,ni->n", across, along)[:, None] * along
        across /= np.sqrt(np.einsum("ni,ni->n", across, across))[:, None] + 1e-12
        (x, y, z), (u, v, w) = along.T, across.T
        third = np.stack([y * w - z * v, z * u - x * w, x * v - y * u], axis=1)
        return np.stack([along, across, third], axis=2)

    return frames(b) @ frames(a).transpose(0, 2, 1)


def rescale(rotation: np.ndarray, factor: float) -> np.ndarray:
    """`rotation` with pan and tilt times `factor` and roll kept.

    When the focal length turns out to be f' instead of f, factor f / f' leaves what the rotation
    does to the middle of the picture, in pixels, as it was.
    """
    vector = to_vector(rotation)
    return from_vector(vector * [factor, factor, 1])


def nearest_rotation(matrix: np.ndarray) -> np.ndarray:
    """The rotation nearest to a (3, 3) matrix that rounding has made not quite one.

    One Newton step of the polar decomposition (Higham 1986), which doubles the right digits.
    """
    return 0.5 * matrix @ (3 * np.eye(3) - matrix.T @ matrix)
