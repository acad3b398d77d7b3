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
    direction = np.ones((len(xy_px), 3))
    np.subtract(xy_px, camera[:2, 2], out=direction[:, :2])
    direction[:, :2] *= 1 / camera[0, 0]
    length2 = direction[:, 0] ** 2 + direction[:, 1] ** 2 + 1
    direction *= (1 / np.sqrt(length2))[:, None]
    return direction


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
    a, b = rays(source_px, camera), rays(target_px, camera)
    return fit_rays_robust(RayMatches(a, b, weight, source_px), camera, tolerance_px, start)


@dataclass(frozen=True)
class RayMatches:
    """Matches as rays: a and b (N, 3), their weight (N,), and where they lie in the source."""

    a: np.ndarray
    b: np.ndarray
    weight: np.ndarray
    source_px: np.ndarray

    def pick(self, which: np.ndarray) -> RayMatches:
        """Those selected by a mask."""
        return RayMatches(self.a[which], self.b[which], self.weight[which], self.source_px[which])


def fit_rays_robust(
    matches: RayMatches,
    camera: np.ndarray,
    tolerance_px: float,
    start: np.ndarray | None = None,
) -> RotationFit | None:
    """`fit_rotation_robust` of matches whose rays are known."""
    a, b, weight = matches.a, matches.b, matches.weight
    total = float(weight.sum())
    if len(a) < 3 or not total > 0:
        return None
    scale = (float(camera[0, 0]) / tolerance_px) ** 2  # squared errors are in tolerances
    rotation = start
    if rotation is None:
        candidates = _pair_rotations(a, b, weight)
        cosine = np.einsum("kni,ni->kn", a @ candidates.transpose(0, 2, 1), b)
        squared = 2 * scale * (1 - cosine)  # |R a - b|^2 = 2 - 2 b . R a
        rotation = candidates[int((np.minimum(squared, 1) @ weight).argmin())]
    moved = a @ rotation.T
    squared = _squared(moved, b, scale)
    for _ in range(_REFINEMENTS):
        pull = weight * (squared < 9) / (1 + 4 * squared)
        rotation = _nudged(rotation, moved, b, pull)
        moved = a @ rotation.T
        squared = _squared(moved, b, scale)
    inlier = squared < 1
    if not inlier.any():
        return None
    near_px = matches.source_px[inlier]
    deviation = near_px.std(axis=0)
    reach = deviation / (camera[:2, 2] + 1)  # 0.58 for an even spread
    spread = min(1.0, math.hypot(*reach.tolist()) / 0.58)
    share = float(weight[inlier].sum()) / total
    residual_px = tolerance_px * math.sqrt(float(np.median(squared[inlier])))
    return RotationFit(rotation, inlier, share, residual_px, spread)


def _squared(moved: np.ndarray, b: np.ndarray, scale: float) -> np.ndarray:
    """(N,) squared distance of rays times `scale`."""
    off = moved - b
    return scale * np.einsum("ni,ni->n", off, off)


def _nudged(
    rotation: np.ndarray, moved: np.ndarray, b: np.ndarray, weight: np.ndarray
) -> np.ndarray:
    """One Gauss-Newton step toward the least sum w |b - R a|^2: a tenth of the cost of an SVD.

    Args:
        moved: (N, 3), R a. b: (N, 3). weight: (N,).
    """
    weighted = (moved * weight[:, None]).T
    (xx, xy, xz), (_, yy, yz), (_, _, zz) = (weighted @ moved).tolist()
    (_, oxy, oxz), (oyx, _, oyz), (ozx, ozy, _) = (weighted @ b).tolist()
    turn = oyz - ozy, ozx - oxz, oxy - oyx
    tiny = 1e-12  # two rays that coincide leave one axis free
    step = _solved_symmetric((yy + zz + tiny, -xy, -xz, xx + zz + tiny, -yz, xx + yy + tiny), turn)
    return cv2.Rodrigues(np.array(step))[0] @ rotation


def _solved_symmetric(
    upper: tuple[float, ...], right: tuple[float, float, float]
) -> tuple[float, float, float]:
    """x of A x = right, by cofactors; `upper` is A's 00, 01, 02, 11, 12, 22. Zero where A is."""
    a, b, c, d, e, f = upper
    x, y, z = right
    aa, ab, ac = d * f - e * e, c * e - b * f, b * e - c * d
    dd, de, ff = a * f - c * c, b * c - a * e, a * d - b * b
    determinant = a * aa + b * ab + c * ac
    if not determinant > 0:
        return 0.0, 0.0, 0.0
    return (
        (aa * x + ab * y + ac * z) / determinant,
        (ab * x + dd * y + de * z) / determinant,
        (ac * x + de * y + ff * z) / determinant,
    )


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
    both = np.stack([a, b])
    first, second = both[:, pick[:, 0]], both[:, pick[:, 1]]
    # frame: half-way direction, difference and their cross product; the first two are orthogonal
    axes = np.empty((2, _TRIALS, 3, 3))
    along, across = axes[..., 0], axes[..., 1]
    np.add(first, second, out=along)
    np.subtract(first, second, out=across)
    for axis in (along, across):
        axis *= (1 / (np.sqrt(np.einsum("gki,gki->gk", axis, axis)) + 1e-12))[..., None]
    x, y, z = along[..., 0], along[..., 1], along[..., 2]
    u, v, w = across[..., 0], across[..., 1], across[..., 2]
    axes[..., 0, 2], axes[..., 1, 2], axes[..., 2, 2] = y * w - z * v, z * u - x * w, x * v - y * u
    return axes[1] @ axes[0].transpose(0, 2, 1)


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
