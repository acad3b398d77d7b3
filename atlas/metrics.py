"""How good a reconstruction, a matte and an edit are: pure functions and streaming measures.

PSNR and SSIM say how sharp a reconstruction is; the warping error and the drift say whether an
edit stays on what it was painted on. A mapping that overfits every frame has a fine PSNR and
wobbling edits, so a report carries both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from scipy.ndimage import map_coordinates

from atlas.mapping import FrameMapping

PSNR_LIMIT_DB = 100.0
"""What a perfect frame counts for in a mean over frames (1e-5 RMS, far below 8 bit)."""
CHECKERBOARD_SQUARES = 24
"""Squares of the test checkerboard across the frame's width."""
CHECKERBOARD_BLUR_PX = 2.0
"""Width of the box that softens the checkerboard's edges, frame pixels."""
PAIR_STEP = 2
"""Frames between the two ends of a held-out pair; fits see neighbours only."""
_VISIBLE = 0.9
_MARGIN_PX = 5


def psnr_db(a: np.ndarray, b: np.ndarray) -> float:
    """Peak signal-to-noise ratio 10 log10(1 / mean((a - b)^2)) of pictures in [0, 1].

    Args:
        a, b: (H, W) or (H, W, C) float in [0, 1], or uint8, which is divided by 255.
    Returns:
        dB; infinite where the pictures are equal.
    """
    a, b = _pair(a, b)
    mse = float(np.mean(np.square(a - b, dtype=np.float32), dtype=np.float64))
    return math.inf if mse == 0 else -10 * math.log10(mse)


def ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Mean structural similarity, Wang et al. 2004, eq. 13, averaged over channels.

    Gaussian window 11x11, sigma 1.5 px, K1 = 0.01, K2 = 0.03, range 1; population (co)variances;
    averaged over the pixels whose whole window lies inside the picture, as in the authors' code.

    Args:
        a, b: (H, W) or (H, W, C) float in [0, 1], or uint8; both sides at least 11 px.
    Returns:
        in [-1, 1]; nan for a picture smaller than the window.
    """
    a, b = _pair(a, b)
    if min(a.shape[:2]) < 11:
        return math.nan

    def blur(values: np.ndarray) -> np.ndarray:
        return cv2.GaussianBlur(values, (11, 11), 1.5)[5:-5, 5:-5]

    mu_a, mu_b = blur(a), blur(b)
    var_a, var_b = blur(a * a) - mu_a * mu_a, blur(b * b) - mu_b * mu_b
    cov = blur(a * b) - mu_a * mu_b
    c1, c2 = 0.01**2, 0.03**2
    similarity = (2 * mu_a * mu_b + c1) * (2 * cov + c2)
    similarity /= (mu_a * mu_a + mu_b * mu_b + c1) * (var_a + var_b + c2)
    return float(similarity.mean(dtype=np.float64))


def mask_iou(a: np.ndarray, b: np.ndarray, threshold: float = 0.5) -> float:
    """Intersection over union of two mattes cut at `threshold` (the J of DAVIS, Perazzi 2016).

    Args:
        a, b: (H, W) float in [0, 1]; a value above the threshold is inside.
    Returns:
        in [0, 1]; two empty masks agree: 1.
    """
    if a.shape != b.shape:
        raise ValueError(f"a and b must have one shape, got {a.shape} and {b.shape}")
    inside_a, inside_b = a > threshold, b > threshold
    union = int(np.count_nonzero(inside_a | inside_b))
    return int(np.count_nonzero(inside_a & inside_b)) / union if union else 1.0


def checkerboard(uv: np.ndarray, square: float, blur: float) -> np.ndarray:
    """A checkerboard of `square` texels, softened by a `blur` wide box, evaluated at `uv`.

    0.5 + 0.5 q(u) q(v), q the square wave of period 2 `square` convolved with the box; edges lie at
    multiples of `square`. Exact at every position, so no texture is sampled and none runs out.

    Args:
        uv: (..., 2) float, texels. square: texels, > 0. blur: texels, 0 < blur <= square.
    Returns:
        (...) float32 in [0, 1].
    """
    if not 0 < blur <= square:
        raise ValueError(f"blur must be in (0, square = {square}], got {blur}")
    phase = np.mod(uv / square, 2)  # 0..1 is a white square, 1..2 a black one
    to_edge = np.minimum(np.minimum(phase, 2 - phase), np.abs(1 - phase)) * square
    wave = np.where(phase < 1, 1, -1) * np.minimum(to_edge * (2 / blur), 1)
    return (0.5 + 0.5 * wave[..., 0] * wave[..., 1]).astype(np.float32)


def local_jacobian(uv: np.ndarray) -> np.ndarray:
    """(H, W, 2, 2) of uv's type: d uv / d pixel, [i, j] = d uv_i / d (x, y)_j, central differences.

    Args:
        uv: (H, W, 2) texels at the pixel centres; H, W >= 2.
    """
    dy, dx = np.gradient(uv, axis=(0, 1))
    return np.stack([dx, dy], axis=-1)


def texels_to_px(difference: np.ndarray, jacobian: np.ndarray) -> np.ndarray:
    """Length in frame pixels of small displacements on the canvas: |J^-1 d|.

    Args:
        difference: (..., 2) texels. jacobian: (..., 2, 2) texels per pixel.
    Returns:
        (...) float32 px; infinite where the mapping is singular.
    """
    a, b = jacobian[..., 0, 0], jacobian[..., 0, 1]
    c, d = jacobian[..., 1, 0], jacobian[..., 1, 1]
    det = a * d - b * c
    du, dv = difference[..., 0], difference[..., 1]
    with np.errstate(divide="ignore", invalid="ignore"):
        length = np.hypot(d * du - b * dv, a * dv - c * du) / np.abs(det)
    return np.where(np.abs(det) > 1e-9, length, np.inf).astype(np.float32)


def texel_scale(uv: np.ndarray, where: np.ndarray) -> float:
    """Texels per frame pixel: the median of sqrt |det J| over the pixels `where`; nan for none.

    Args:
        uv: (H, W, 2) texels at the centres of the frame's pixels. where: (H, W) bool.
    """
    if not where.any():
        return math.nan
    det = np.linalg.det(local_jacobian(uv)[where])
    return float(np.median(np.sqrt(np.abs(det))))


@dataclass(frozen=True)
class HeldOutFlow:
    """Motion between two frames that no fit has used.

    flow: (H, W, 2) float32 px, from the first frame to the second.
    trusted: (H, W) bool: consistent forward and backward, and enough texture to be known at all.
    """

    flow: np.ndarray
    trusted: np.ndarray


def held_out_flow(first: np.ndarray, second: np.ndarray) -> HeldOutFlow:
    """DIS flow (Kroeger et al. 2016) straight from `first` to `second`, and where to trust it.

    Trusted: `cycle_consistent` (Lai et al. 2018 take it too), and `corner_strength` is at least 1:
    in a clear sky flow is a guess.

    Args:
        first, second: (H, W, 3) uint8 RGB.
    """
    grey_a = cv2.cvtColor(first, cv2.COLOR_RGB2GRAY)
    grey_b = cv2.cvtColor(second, cv2.COLOR_RGB2GRAY)
    if min(grey_a.shape) < 16:  # smaller than DIS can work with
        return HeldOutFlow(np.zeros((*grey_a.shape, 2), np.float32), np.zeros(grey_a.shape, bool))
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    forward = dis.calc(grey_a, grey_b, None)  # pyright: ignore[reportCallIssue, reportArgumentType]
    backward = dis.calc(grey_b, grey_a, None)  # pyright: ignore[reportCallIssue, reportArgumentType]
    trusted = cycle_consistent(forward, backward) & (corner_strength(grey_a) >= 1)
    return HeldOutFlow(forward, trusted)


def cycle_consistent(forward: np.ndarray, backward: np.ndarray) -> np.ndarray:
    """(H, W) bool: |f + b(x + f)|^2 < 0.01 (|f|^2 + |b|^2) + 0.5, and x + f within the frame.

    Sundaram et al. 2010. Both (H, W, 2) float32 px.
    """
    height, width = forward.shape[:2]
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    at = np.stack([x + forward[..., 0], y + forward[..., 1]], axis=-1)
    inside = (at >= 0).all(-1) & (at[..., 0] <= width - 1) & (at[..., 1] <= height - 1)
    back = sample_bilinear(backward, at.reshape(-1, 2)).reshape(at.shape)
    cycle = np.square(forward + back).sum(-1)
    return inside & (cycle < 0.01 * (np.square(forward).sum(-1) + np.square(back).sum(-1)) + 0.5)


def corner_strength(grey: np.ndarray) -> np.ndarray:
    """Smaller eigenvalue of the structure tensor averaged over 15x15 px (Shi and Tomasi 1994).

    Args:
        grey: (H, W) uint8.
    Returns:
        (H, W) float32, (grey levels per pixel)^2: 0 on flat ground and along a straight edge.
    """
    values = grey.astype(np.float32)
    gx, gy = (cv2.Sobel(values, cv2.CV_32F, i, 1 - i, ksize=3, scale=1 / 8) for i in (1, 0))
    xx, yy, xy = (cv2.blur(product, (15, 15)) for product in (gx * gx, gy * gy, gx * gy))
    return (xx + yy) / 2 - np.sqrt(np.square((xx - yy) / 2) + xy * xy)


def sample_bilinear(plane: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """(N, C) float32: (H, W, C) `plane` at (N, 2) pixel positions, bilinear, border repeated.

    Unlike `cv2.remap`, whose weights are rounded to 1/32 px, exact for positions.
    """
    at = [xy[:, 1], xy[:, 0]]
    channels = [
        map_coordinates(plane[..., c], at, np.float32, order=1, mode="nearest", prefilter=False)
        for c in range(plane.shape[-1])
    ]
    return np.stack(channels, axis=-1)


class Quantiles:
    """Quantiles of a stream of non-negative numbers in constant memory: a histogram of logarithms.

    Relative error below 0.3 %; values under 1e-5 count as 0, over 1e6 as infinite.
    """

    _LOW, _HIGH, _PER_DECADE = -5, 6, 400

    def __init__(self) -> None:
        self._counts = np.zeros((self._HIGH - self._LOW) * self._PER_DECADE + 2, np.int64)

    def add(self, values: np.ndarray) -> None:
        """Add any number of values; nan is a caller's mistake."""
        if np.isnan(values).any():
            raise ValueError("values must not be nan")
        with np.errstate(divide="ignore"):
            place = (np.log10(values.ravel().astype(np.float64)) - self._LOW) * self._PER_DECADE
        index = np.clip(np.floor(place) + 1, 0, len(self._counts) - 1).astype(np.int64)
        self._counts += np.bincount(index, minlength=len(self._counts))

    @property
    def count(self) -> int:
        return int(self._counts.sum())

    def quantile(self, q: float) -> float | None:
        """The value below which a share `q` lies; None without any values."""
        if self.count == 0:
            return None
        index = int(np.searchsorted(np.cumsum(self._counts), max(q * self.count, 1)))
        if index == 0:
            return 0.0
        if index == len(self._counts) - 1:
            return math.inf
        return 10 ** (self._LOW + (index - 0.5) / self._PER_DECADE)


class WarpError:
    """Temporal warping error of a checkerboard edit along held-out flow, one layer at a time.

    After the warping error of Lai et al. 2018: sqrt(sum M (C_t(x) - C_s(x + f))^2 / sum M) with
    s = t + 2, f the held-out flow, C the layer's checkerboard seen through the mapping, M the
    pixels where f is trusted and the layer is visible (share >= 0.9, 5 px inside its edge) at both
    ends. One RMS over all pairs and pixels, in [0, 1]. The checkerboard has 24 squares across the
    frame, whatever the canvas's scale, so mappings compare. It is evaluated at uv_s(x + f), which
    is the warp without the blur of resampling a picture.

    The drift is |J^-1 (uv_s(x + f) - uv_t(x))| with J = d uv_t / d x: by how many frame pixels an
    edit slides off what it was painted on within two frames.
    """

    def __init__(self, layer: int, frame_width: int, texels_per_px: float):
        self.layer = layer
        self._texels_per_px = texels_per_px
        self._square = texels_per_px * frame_width / CHECKERBOARD_SQUARES
        self._blur = min(texels_per_px * CHECKERBOARD_BLUR_PX, self._square)
        self.squared_sum, self.pixel_count = 0.0, 0
        self.drift_px = Quantiles()

    @property
    def usable(self) -> bool:
        """False where the layer is never seen (scale nan) or has collapsed (scale 0)."""
        return self._texels_per_px > 0

    def picture(self, uv: np.ndarray) -> np.ndarray:
        """(H, W) float32: the checkerboard seen through one layer's (H, W, 2) uv."""
        return checkerboard(uv, self._square, self._blur)

    def add(self, first: FrameMapping, second: FrameMapping, motion: HeldOutFlow) -> None:
        """Add one pair of frames; all at one size."""
        if not self.usable:
            return
        uv_a, uv_b = first.uv[self.layer], second.uv[self.layer]
        seen_a, seen_b = clearly_visible(first, self.layer), clearly_visible(second, self.layer)
        y, x = np.nonzero(motion.trusted & seen_a)
        at = np.stack([x, y], axis=-1) + motion.flow[y, x]
        nearest = np.rint(at).astype(int)
        keep = seen_b[nearest[:, 1], nearest[:, 0]]
        y, x, at = y[keep], x[keep], at[keep]
        if len(x) == 0:
            return
        uv_at, uv_here = sample_bilinear(uv_b, at), uv_a[y, x]
        drift_px = texels_to_px(uv_at - uv_here, local_jacobian(uv_a)[y, x])
        self.drift_px.add(np.nan_to_num(drift_px, nan=np.inf))
        finite = np.isfinite(uv_at).all(-1) & np.isfinite(uv_here).all(-1)
        difference = self.picture(uv_at[finite]) - self.picture(uv_here[finite])
        self.squared_sum += float(np.square(difference, dtype=np.float64).sum())
        self.pixel_count += len(difference)

    @property
    def rms(self) -> float | None:
        """The warping error in [0, 1]; None where nothing could be compared."""
        return pooled_rms([self])


def pooled_rms(parts: list[WarpError]) -> float | None:
    """One warping error over the pixels of several layers; None where there are none."""
    count = sum(part.pixel_count for part in parts)
    return math.sqrt(sum(part.squared_sum for part in parts) / count) if count else None


def clearly_visible(mapping: FrameMapping, layer: int) -> np.ndarray:
    """(H, W) bool: the layer's share is >= 0.9 here and within 5 px, so no edge of it is near."""
    side = 2 * _MARGIN_PX + 1
    share = mapping.visible()[layer]
    return cv2.erode(share, np.ones((side, side), np.uint8)) >= _VISIBLE


def _pair(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if a.shape != b.shape:
        raise ValueError(f"a and b must have one shape, got {a.shape} and {b.shape}")
    return _unit(a), _unit(b)


def _unit(picture: np.ndarray) -> np.ndarray:
    if picture.dtype == np.uint8:
        return picture.astype(np.float32) / 255
    if picture.dtype.kind != "f":
        raise ValueError(f"pictures must be float or uint8, got {picture.dtype}")
    return picture.astype(np.float32, copy=False)
