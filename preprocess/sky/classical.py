"""A sky matte from colour, texture and place alone: no network, nothing to download.

At low resolution, twice over, a quadratic logistic model of the log odds of sky:

1. appearance: place, colour and texture of the pixel, and how much edge lies between it and the
   top of the picture;
2. context (after Tu, "Auto-context", CVPR 2008): the first answer, blurred at two scales, its
   extremes along the column, and the ratio of colour histograms of what is sky and what is not in
   this clip, gathered over the frames seen so far.

Then causal smoothing in time, and a guided filter up to full size. The 600-odd coefficients lie in
`classical.safetensors`; `preprocess.sky.classical_fit` computes them from pairs of pictures and
mattes.

Known failures: large nearby cumulus is taken for ground, and so are deep orange skies.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from safetensors.numpy import load_file

from atlas.guided import guided_upsample
from preprocess.sky.matte import SkyMatter, TemporalSmoother, check_rgb

COEFFICIENTS = Path(__file__).with_name("classical.safetensors")
LONG_SIDE_PX = 256
"""Working size of the models."""
_BINS = 16
_MAX_LOGIT = 8.0


@dataclass(frozen=True)
class QuadraticLogit:
    """Log odds l = z~' A z~ with z~ = ((x - mean) / scale, 1): a logistic model of second order.

    mean, scale: (F,) float32. matrix: (F + 1, F + 1) float32.
    """

    mean: np.ndarray
    scale: np.ndarray
    matrix: np.ndarray

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """(..., F) float32 features to (...) float32 log odds within +-8."""
        flat = features.reshape(-1, features.shape[-1])
        z = np.ones((len(flat), flat.shape[1] + 1), np.float32)
        np.subtract(flat, self.mean, out=z[:, :-1])
        z[:, :-1] *= 1 / self.scale
        logit = np.einsum("nf,nf->n", z @ self.matrix, z)
        return np.clip(logit, -_MAX_LOGIT, _MAX_LOGIT).reshape(features.shape[:-1])


def load_models(path: Path = COEFFICIENTS) -> tuple[QuadraticLogit, QuadraticLogit]:
    """The models of step 1 and step 2."""
    data = load_file(path)
    appearance, context = (
        QuadraticLogit(*(data[f"{name}.{part}"] for part in ("mean", "scale", "matrix")))
        for name in ("appearance", "context")
    )
    return appearance, context


@dataclass(frozen=True)
class ClassicalOptions:
    """How `ClassicalMatter` works; the defaults are what the coefficients were made for."""

    steadiness: float = 0.6
    """Share of the last frame's matte kept where the picture does not change; [0, 1)."""
    memory: float = 0.9
    """Factor per frame on the colour counts of the frames before; [0, 1)."""
    radius_px: int = 6
    """Guided filter window radius at the working size, pixels."""
    eps: float = 1e-3
    """Guided filter regularisation, squared colour units of [0, 1]."""


class ClassicalMatter(SkyMatter):
    """See the module. Deterministic: the same frames after `reset` give the same mattes."""

    def __init__(self, options: ClassicalOptions | None = None):
        self.options = options or ClassicalOptions()
        self._appearance, self._context = load_models()
        self._smoother = TemporalSmoother(self.options.steadiness)
        self._colours = ColourCounts.empty()

    def reset(self) -> None:
        self._smoother.reset()
        self._colours = ColourCounts.empty()

    def matte(self, rgb: np.ndarray) -> np.ndarray:
        check_rgb(rgb)
        small = shrink(rgb)
        place = describe(small)
        first = self._appearance(place)
        colours = self._colours.plus(small, sigmoid(first))
        sky = sigmoid(self._context(relate(small, place, first, colours)))
        self._colours = self._colours.plus(small, sky).faded(self.options.memory)
        sky = self._smoother(small, sky)
        fine = guided_upsample(rgb, small, sky, self.options.radius_px, self.options.eps)
        return stretch(fine)


def stretch(matte: np.ndarray, margin: float = 0.12) -> np.ndarray:
    """Contrast that brings what the filter left nearly 0 and nearly 1 to 0 and 1; clips to [0, 1].

    `matte` is changed in place and returned.
    """
    matte -= margin
    matte *= 1 / (1 - 2 * margin)
    return np.clip(matte, 0, 1, out=matte)


def sigmoid(logit: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logit))


def shrink(picture: np.ndarray, long_side_px: int = LONG_SIDE_PX) -> np.ndarray:
    """`picture` with its longer side at most `long_side_px`, averaged over areas."""
    height, width = picture.shape[:2]
    factor = min(1.0, long_side_px / max(height, width))
    wh = (max(1, round(width * factor)), max(1, round(height * factor)))
    return cv2.resize(picture, wh, interpolation=cv2.INTER_AREA)


def describe(rgb: np.ndarray) -> np.ndarray:
    """Step 1's features of every pixel: (h, w, 15) float32.

    In order: height in the picture (0 top, 1 bottom), luma, luma between the 2nd and 98th
    percentile, blue - yellow, green - magenta, red - green, saturation, log edge strength near and
    far, log of the edges met from the top down, mean edge strength of the row; and for the whole
    picture: the edges met at its top, contrast, brightness, mean texture.

    Args:
        rgb: (h, w, 3) uint8 RGB at the working size.
    """
    height, width = rgb.shape[:2]
    colour = cv2.GaussianBlur(rgb.astype(np.float32) * np.float32(1 / 255), (0, 0), 1.0)
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).astype(np.float32) * np.float32(1 / 255)
    red, green, blue = cv2.split(colour)
    luma = cv2.GaussianBlur(grey, (0, 0), 1.0)
    low, high = np.percentile(luma[::2, ::2], (2, 98))
    gain = 1 / max(high - low, 0.2)
    edge = cv2.magnitude(
        cv2.Sobel(grey, cv2.CV_32F, 1, 0, ksize=3, scale=0.25 * gain),
        cv2.Sobel(grey, cv2.CV_32F, 0, 1, ksize=3, scale=0.25 * gain),
    )
    near = cv2.log(cv2.GaussianBlur(edge, (0, 0), 1.2) + 0.003)
    far = cv2.log(cv2.GaussianBlur(edge, (0, 0), 5.0) + 0.003)
    cost = np.clip(edge - 0.02 * gain, 0, 0.25) * (160 / max(height, width))
    from_top = cv2.log(edges_from_top(cost) + 0.05)
    largest, smallest = cv2.max(cv2.max(red, green), blue), cv2.min(cv2.min(red, green), blue)
    rows = ((np.arange(height, dtype=np.float32) + 0.5) / height)[:, None]
    planes = [
        rows,
        luma,
        (luma - low) / max(high - low, 0.05),
        blue - 0.5 * (red + green),
        green - 0.5 * (red + blue),
        red - green,
        (largest - smallest) / (largest + 0.05),
        near,
        far,
        from_top,
        np.log(edge.mean(axis=1, keepdims=True) + 0.003),
        np.percentile(from_top[: max(1, height // 6)], 30),
        high - low,
        high,
        far.mean(),
    ]
    return _stack(planes, height, width)


def edges_from_top(cost: np.ndarray) -> np.ndarray:
    """Least sum of `cost` on a path from the top row down to each pixel (straight or diagonal).

    Args:
        cost: (h, w) float32, >= 0.
    Returns:
        (h, w) float32.
    """
    total = np.empty_like(cost)
    total[0] = cost[0]
    above = np.full(cost.shape[1] + 2, np.inf, np.float32)
    for y in range(1, len(cost)):
        above[1:-1] = total[y - 1]
        np.minimum(above[:-2], above[2:], out=total[y])
        np.minimum(total[y], above[1:-1], out=total[y])
        total[y] += cost[y]
    return total


@dataclass(frozen=True)
class ColourCounts:
    """Histograms of the colours of sky and ground, each (16^3,) float32, in pixels."""

    sky: np.ndarray
    ground: np.ndarray

    @staticmethod
    def empty() -> ColourCounts:
        zeros = np.zeros(_BINS**3, np.float32)
        return ColourCounts(zeros, zeros)

    def plus(self, rgb: np.ndarray, sky: np.ndarray) -> ColourCounts:
        """These and a frame: (h, w, 3) uint8, counted by its (h, w) share of sky."""
        bins = colour_bins(rgb).ravel()
        as_sky = np.bincount(bins, sky.ravel(), _BINS**3).astype(np.float32)
        every = np.bincount(bins, minlength=_BINS**3).astype(np.float32)
        return replace(self, sky=self.sky + as_sky, ground=self.ground + (every - as_sky))

    def faded(self, factor: float) -> ColourCounts:
        return replace(self, sky=self.sky * factor, ground=self.ground * factor)

    def log_ratio(self) -> tuple[np.ndarray, float]:
        """Log of sky over ground count per bin, smoothed: (16^3,) float32; and that of the sums."""
        sky, ground = _smooth_bins(self.sky), _smooth_bins(self.ground)
        sky += 2e-4 * sky.sum() + 1e-3
        ground += 2e-4 * ground.sum() + 1e-3
        return np.log(sky / ground).ravel(), float(np.log(sky.sum() / ground.sum()))


def colour_bins(rgb: np.ndarray) -> np.ndarray:
    """(h, w) int32: number of the colour bin of each pixel of a (h, w, 3) uint8 picture."""
    q = (rgb >> 4).astype(np.int32)
    return (q[..., 0] * _BINS + q[..., 1]) * _BINS + q[..., 2]


def _smooth_bins(counts: np.ndarray) -> np.ndarray:
    """Binomial (1, 2, 1) / 4 along each colour axis of a (16^3,) histogram: (16, 16, 16)."""
    cube = counts.reshape(_BINS, _BINS, _BINS)
    for axis in range(3):
        lines = np.moveaxis(cube, axis, 0)
        out = lines * np.float32(0.5)
        out[1:] += lines[:-1] * np.float32(0.25)
        out[:-1] += lines[1:] * np.float32(0.25)
        cube = np.moveaxis(out, 0, axis)
    return cube


def relate(
    rgb: np.ndarray, place: np.ndarray, first: np.ndarray, colours: ColourCounts
) -> np.ndarray:
    """Step 2's features of every pixel: (h, w, 19) float32.

    In order: step 1's log odds, blurred near and far; log ratio of the colour's counts, the same
    for equal areas, the first blurred; least log odds at or above in the column; mean of the row;
    and for the whole picture: share of sky, log odds at the top (median and 95th percentile) and
    at its 97th percentile; then features 0, 1, 3, 4, 7, 8, 9 of `describe`.

    Args:
        rgb: (h, w, 3) uint8. place: (h, w, 15), its `describe`. first: (h, w) log odds of step 1.
    """
    height, width = first.shape
    near = cv2.GaussianBlur(first, (0, 0), 3.0)
    table, balance = colours.log_ratio()
    ratio = table[colour_bins(rgb)]
    top = near[: max(1, height // 10)]
    planes = [
        first,
        near,
        cv2.GaussianBlur(first, (0, 0), 14.0),
        ratio,
        ratio - balance,
        cv2.GaussianBlur(np.clip(ratio, -_MAX_LOGIT, _MAX_LOGIT), (0, 0), 2.0),
        np.minimum.accumulate(cv2.GaussianBlur(first, (0, 0), 1.5), axis=0),
        near.mean(axis=1, keepdims=True),
        sigmoid(first).mean(),
        *np.percentile(top, (50, 95)),
        np.percentile(near, 97),
        *(place[..., i] for i in (0, 1, 3, 4, 7, 8, 9)),
    ]
    return _stack(planes, height, width)


def _stack(planes: list, height: int, width: int) -> np.ndarray:
    """Planes, rows, columns or numbers, each repeated to (height, width): (height, width, N)."""
    out = np.empty((height, width, len(planes)), np.float32)
    for i, plane in enumerate(planes):
        out[..., i] = plane
    return out
