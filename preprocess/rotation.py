"""Rotation of a camera from matched pixels: rays, closed-form and robust fits, rotation vectors.

A camera that turns about its centre moves every pixel by the homography K R K^-1, whatever the
depth (Hartley and Zisserman 2004, section 8.4.2); the same holds for all that is far away.
K has one focal length in pixels, square pixels and the principal point in the picture's middle.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

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
) -> RotationFit | None:
    """Rotation between two views by MSAC over pairs of matches, then Cauchy-weighted least squares.

    Args:
        source_px, target_px: (N, 2) matched pixels. camera: K of both views.
        weight: (N,) how much each match is believed beforehand, >= 0.
        tolerance_px: matches within this of the model support it.
    Returns:
        The fit, or None with fewer than three matches.
    """
    if len(source_px) < 3 or not weight.sum() > 0:
        return None
    a, b, focal = rays(source_px, camera), rays(target_px, camera), camera[0, 0]
    candidates = _pair_rotations(a, b, weight)
    cosine = np.einsum("kni,ni->kn", a @ candidates.transpose(0, 2, 1), b)
    squared = (focal / tolerance_px) ** 2 * 2 * (1 - cosine)  # |R a - b|^2 = 2 - 2 b . R a
    cost = np.minimum(squared, 1) @ weight
    rotation = candidates[int(cost.argmin())]
    for _ in range(_REFINEMENTS):
        error = _distances(a, rotation, b, focal)
        near = error < 3 * tolerance_px
        if near.sum() < 2:
            break
        pull = np.where(near, weight / (1 + (error / (0.5 * tolerance_px)) ** 2), 0)
        rotation = fit_rotation(a, b, pull)
    error = _distances(a, rotation, b, focal)
    inlier = error < tolerance_px
    if not inlier.any():
        return None
    share = float(weight[inlier].sum() / weight.sum())
    reach = source_px[inlier].std(axis=0) / (camera[:2, 2] + 1)  # 0.58 for an even spread
    spread = float(min(1.0, np.hypot(*reach) / 0.58))
    return RotationFit(rotation, inlier, share, float(np.median(error[inlier])), spread)


def _distances(a: np.ndarray, rotation: np.ndarray, b: np.ndarray, focal: float) -> np.ndarray:
    """(N,) distance of R a from b, pixels near the picture's middle."""
    off = a @ rotation.T
    off -= b
    return focal * np.sqrt(np.einsum("ni,ni->n", off, off))


def _pair_rotations(
    a: np.ndarray, b: np.ndarray, weight: np.ndarray, count: int = _TRIALS
) -> np.ndarray:
    """(count, 3, 3): rotations that carry random pairs of rays `a` onto their partners in `b`."""
    rng = np.random.default_rng(len(a))  # the same matches give the same answer
    pick = rng.choice(len(a), (count, 2), p=weight / weight.sum())
    pick[:, 1] = np.where(pick[:, 0] == pick[:, 1], (pick[:, 1] + 1) % len(a), pick[:, 1])

    def frames(directions: np.ndarray) -> np.ndarray:
        first, second = directions[pick[:, 0]], directions[pick[:, 1]]
        along, across = first + second, first - second
        along /= np.linalg.norm(along, axis=1, keepdims=True)
        across -= (across * along).sum(axis=1, keepdims=True) * along
        across /= np.linalg.norm(across, axis=1, keepdims=True) + 1e-12
        return np.stack([along, across, np.cross(along, across)], axis=2)

    return frames(b) @ frames(a).transpose(0, 2, 1)


def rescale(rotation: np.ndarray, factor: float) -> np.ndarray:
    """`rotation` with pan and tilt times `factor` and roll kept.

    When the focal length turns out to be f' instead of f, factor f / f' leaves what the rotation
    does to the middle of the picture, in pixels, as it was.
    """
    vector = to_vector(rotation)
    return from_vector(vector * [factor, factor, 1])


def nearest_rotation(matrix: np.ndarray) -> np.ndarray:
    """The rotation nearest to a (3, 3) matrix that rounding has made not quite one."""
    u, _, vt = np.linalg.svd(matrix)
    return u @ vt
