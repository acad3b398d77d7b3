"""The sky matte of a stream of planes, in two steps: a small matte, then the planes' own size.

The same network, colours, steadying and refinement as `preprocess.sky.infer.NetworkMatter`, cut
down to what a frame a moment later still needs: the network looks at every second to fourth frame,
in between its matte is carried along optical flow; models of opacity are fitted to the small
picture and applied to Y, U and V themselves; arithmetic at full size is in 8 bit.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from atlas.coords import Size
from atlas.guided import LinearModel, fit_linear
from atlas.planes import PlaneFormat, Planes
from preprocess.sky.adapt import SkyColours
from preprocess.sky.matte import NETWORK_WEIGHTS
from preprocess.sky.opencv_network import OpenCvNetwork
from preprocess.sky.refine import RefineOptions, colour_line
from preprocess.sky.temporal import (
    FlowSteadier,
    Motion,
    SteadyOptions,
    carry,
    largest_channel,
    small_flow,
)

_BLACK = 24
"""A picture without a brighter level than this is a fade, not a night: it shows no sky."""
_STEADY = SteadyOptions(keep=0.95, tolerance=10.0, keep_fine=0.92, flow="half")
"""The coarse flow costs a frame next to nothing; what it misses is not trusted for long."""


@dataclass(frozen=True, kw_only=True)
class StreamMatteOptions:
    """How `StreamMatter` works."""

    side_px: int = 256
    """Longer side of the picture that the network sees, rounded to multiples of 32."""
    every: int = 4
    """The network looks at one frame in so many at least."""
    most_doubtful: float = 0.1
    """It looks at the next frame as well where more of the picture than this has changed,"""
    most_doubtful_later: float = 0.02
    """and at any after that where more than this has."""
    learn_every: int = 4
    """Colours of the clip are learnt from one frame in so many."""
    steady: SteadyOptions = field(default_factory=lambda: _STEADY)
    refine: RefineOptions = field(default_factory=RefineOptions)


@dataclass(frozen=True)
class SmallMatte:
    """What is known of a frame at the network's size.

    rgb: (h, w, 3) uint8. sky: (h, w) float32, 1 = sky. motion: from the last frame; None after a
    cut.
    """

    rgb: np.ndarray
    sky: np.ndarray
    motion: Motion | None


class StreamMatter:
    """Feed it the frames of a clip in order; causal, deterministic, constant memory."""

    def __init__(self, form: PlaneFormat, options: StreamMatteOptions | None = None,
                 weights: Path | None = None):  # fmt: skip
        self.options = options or StreamMatteOptions()
        self._form = form
        self._size = network_size(form.size, self.options.side_px)
        pool = ThreadPoolExecutor(1)  # the network is made while the sky is read
        self._made = pool.submit(OpenCvNetwork, weights or NETWORK_WEIGHTS, self._size)
        pool.shutdown(wait=False)
        self._colours = SkyColours()
        self._steadier = FlowSteadier(self.options.steady)
        levels = np.arange(256, dtype=np.float32) / np.float32(self.options.steady.tolerance)
        self._trust_of = np.exp(-(levels**2))
        self._last: SmallMatte | None = None
        self._fine: np.ndarray | None = None
        self._grid: np.ndarray | None = None
        self._age = self._looked = self._learnt = 0

    def reset(self) -> None:
        """A new shot begins with the next frame."""
        self._colours.reset()
        self._steadier.reset()
        self._last, self._age, self._looked, self._learnt = None, 0, 0, 0

    def forget_fine(self) -> None:
        """The same for `full`, which may run behind `small` in another thread."""
        self._fine = None

    def small_rgb(self, planes: Planes) -> np.ndarray:
        """(h, w, 3) uint8: a frame as the network sees it."""
        return self._form.small_rgb(planes, self._size)

    def small(self, rgb: np.ndarray) -> SmallMatte:
        """The next frame's small matte, from its `small_rgb`."""
        found, between = None, self._age - self._looked
        if self._last is not None and between < self.options.every:
            options = self.options
            most = options.most_doubtful if between == 1 else options.most_doubtful_later
            found = self._carried(self._last, rgb, most)
        if found is None:
            self._looked = self._age
            dark = int(rgb.max()) < _BLACK
            sky = np.zeros(rgb.shape[:2], np.float32) if dark else self._made.result().opacity(rgb)
            if self._age == 0 or self._age - self._learnt >= self.options.learn_every:
                self._learnt = self._age
                self._colours.learn(rgb, sky)
            sky = self._steadier(rgb, self._colours.decide(rgb, sky))
            found = SmallMatte(rgb, sky, self._steadier.motion)
        self._age += 1
        self._last = found
        return found

    def _carried(self, last: SmallMatte, rgb: np.ndarray, most: float) -> SmallMatte | None:
        """The last matte at its new place; where colours changed, what the clip's colours say.

        None where more than a share `most` of the picture has changed.
        """
        flow = small_flow(rgb, last.rgb, self.options.steady.flow)
        sky, colour = carry(last.sky, flow), carry(last.rgb, flow)
        change = largest_channel(cv2.absdiff(cv2.blur(colour, (3, 3)), cv2.blur(rgb, (3, 3))))
        trust = cv2.LUT(change, self._trust_of)
        doubtful = trust < 0.5
        if np.count_nonzero(doubtful) > most * doubtful.size:
            return None
        if doubtful.any():
            there = cv2.blur(sky, (9, 9))
            sky = np.where(doubtful, self._colours.decide(rgb, there), sky)
        self._steadier.take(rgb, sky)
        return SmallMatte(rgb, sky, Motion(flow, trust))

    def full(self, planes: Planes, found: SmallMatte) -> np.ndarray:
        """(H, W) uint8, 255 = sky: the small matte along the edges of the planes."""
        model = self._model(found)
        alpha = apply_to_planes(model, self._form, planes)
        alpha = self._steady_fine(alpha, found.motion)
        self._fine = alpha
        return alpha

    def _model(self, found: SmallMatte) -> LinearModel:
        """Opacity as a linear function of RGB in [0, 1]: `preprocess.sky.refine`, grey guide.

        Fitted at half the network's size: what varies slowly needs no more (He and Sun, "Fast
        Guided Filter", arXiv 1505.00996), and it costs a quarter.
        """
        options = self.options.refine
        half = (found.rgb.shape[1] // 2, found.rgb.shape[0] // 2)
        rgb = cv2.resize(found.rgb, half, interpolation=cv2.INTER_AREA)
        sky = cv2.resize(found.sky, half, interpolation=cv2.INTER_AREA)
        grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
        guided = fit_linear(grey, sky, options.guided_radius_px // 2, options.guided_eps)
        near = replace(options, line_radius_px=options.line_radius_px // 2)
        line, trust = colour_line(rgb, sky, near)
        rest = 1 - trust
        share = guided.slope * rest
        weights = np.array([0.299, 0.587, 0.114], np.float32)
        slope = cv2.merge([share * w for w in weights]) + trust[..., None] * line.slope
        return LinearModel(slope, guided.offset * rest + trust * line.offset)

    def _steady_fine(self, alpha: np.ndarray, motion: Motion | None) -> np.ndarray:
        """`preprocess.sky.temporal.FineSteadier` in 8 bit, on the rows that hold an edge."""
        last = self._fine
        if motion is None or last is None:
            return alpha
        rows = edge_rows(alpha, last)
        if rows is None:
            return alpha
        top, bottom = rows
        wh = (alpha.shape[1], alpha.shape[0])
        scale = np.divide(wh, motion.flow.shape[1::-1]).astype(np.float32)
        at = enlarged_rows(motion.flow * scale, wh, rows)
        at = cv2.add(at, self._pixels(wh)[top:bottom])
        keep = np.float32(255 * self.options.steady.keep_fine) * motion.trust
        keep = enlarged_rows(cv2.convertScaleAbs(keep), wh, rows)
        none: Any = None  # the stubs want a second map
        before = cv2.remap(last, at, none, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        band = alpha[top:bottom]
        gain = cv2.multiply(cv2.subtract(before, band), keep, scale=1 / 255)
        loss = cv2.multiply(cv2.subtract(band, before), keep, scale=1 / 255)
        alpha = alpha.copy()
        alpha[top:bottom] = cv2.subtract(cv2.add(band, gain), loss)
        return alpha

    def _pixels(self, wh: tuple[int, int]) -> np.ndarray:
        """(H, W, 2) float32: the position of every pixel."""
        if self._grid is None:
            x, y = np.meshgrid(*(np.arange(n, dtype=np.float32) for n in wh))
            self._grid = np.stack([x, y], axis=-1)
        return self._grid


def enlarged_rows(field: np.ndarray, wh: tuple[int, int], rows: tuple[int, int]) -> np.ndarray:
    """Rows [first, last) of a small field enlarged to (width, height), and no others made."""
    width, height = wh
    few = field.shape[0]
    step = few // math.gcd(few, height)  # so many rows become a whole number of rows
    each = step * height // few
    start = max(0, rows[0] // each - 1)
    end = min(-(-few // step), -(-rows[1] // each) + 1)
    part = np.ascontiguousarray(field[start * step : end * step])
    large = cv2.resize(part, (width, (end - start) * each), interpolation=cv2.INTER_LINEAR)
    return large[rows[0] - start * each : rows[1] - start * each]


def apply_to_planes(model: LinearModel, form: PlaneFormat, planes: Planes) -> np.ndarray:
    """(H, W) uint8: an opacity model in RGB, stretched as `refine.stretch`, at every pixel.

    RGB is linear in the planes, so the model is too. What chroma adds is made at chroma's size.
    """
    options = RefineOptions()
    to_rgb = form.to_rgb
    gain = 255 / (1 - 2 * options.margin)
    slope = cv2.transform(model.slope, gain * to_rgb[:, :3].T)
    shift = (gain * to_rgb[:, 3]).astype(np.float32)
    offset = cv2.transform(model.slope, shift[None]) + gain * model.offset
    offset -= np.float32(gain * options.margin)
    few, height = offset.shape[0], planes.y.shape[0]
    first, last, above, below = _doubtful_rows(slope, offset, planes, form.step)
    top, bottom = first * height // few, last * height // few
    alpha = np.empty(planes.y.shape, np.uint8)
    alpha[:top], alpha[bottom:] = above, below
    if top < bottom:
        part = [
            p[top // s : bottom // s]
            for p, s in zip(planes.all, (1, form.step, form.step), strict=True)
        ]
        alpha[top:bottom] = _applied(slope[first:last], offset[first:last], Planes(*part))
    return alpha


def _applied(slope: np.ndarray, offset: np.ndarray, planes: Planes) -> np.ndarray:
    """(H, W) uint8: slope . (y, u, v) + offset, both enlarged to the planes."""
    chroma, luma = planes.u.shape[::-1], planes.y.shape[::-1]
    parts = [cv2.resize(cv2.extractChannel(slope, c), chroma) for c in (1, 2)]
    rest = cv2.resize(offset, chroma)
    for part, plane in zip(parts, (planes.u, planes.v), strict=True):
        rest += cv2.multiply(plane, part, dtype=cv2.CV_32F)
    rest = cv2.resize(rest, luma)
    product = cv2.multiply(
        planes.y, cv2.resize(cv2.extractChannel(slope, 0), luma), dtype=cv2.CV_32F
    )
    return cv2.add(product, rest, dtype=cv2.CV_8U)


def _doubtful_rows(
    slope: np.ndarray, offset: np.ndarray, planes: Planes, step: int
) -> tuple[int, int, int, int]:
    """Rows [first, last) of a model outside which all is sky or nothing is, whatever the levels.

    Returns:
        Both, chosen so that they are whole even rows of the planes; and the opacity, 0 or 255, of
        all above and of all below.
    """
    low, high = np.array([cv2.minMaxLoc(plane)[:2] for plane in planes.all]).T[:, None]
    rising, falling = cv2.max(slope, 0), cv2.min(slope, 0)
    most = cv2.add(cv2.transform(rising, high), cv2.transform(falling, low))
    least = cv2.add(cv2.transform(rising, low), cv2.transform(falling, high))
    most = cv2.reduce(cv2.add(offset, most), 1, cv2.REDUCE_MAX).ravel()
    least = cv2.reduce(cv2.add(offset, least), 1, cv2.REDUCE_MIN).ravel()
    few = len(most)
    whole = few * step // math.gcd(planes.y.shape[0], few * step)
    found = []
    for way in (1, -1):
        kinds = (least[::way] >= 255, 255), (most[::way] <= 0, 0)
        kept = [(int(np.argmin(np.append(sure, False))), value) for sure, value in kinds]
        found.append(max(kept))
    (above, above_value), (below, below_value) = found
    first = max(0, above - 2) // whole * whole  # one sure row stays in: it is interpolated with
    last = few - max(0, below - 2) // whole * whole
    if above == few:
        return few, few, above_value, above_value
    return (first, last, above_value, below_value) if first < last else (0, few, 0, 0)


def edge_rows(*mattes: np.ndarray) -> tuple[int, int] | None:
    """First row and the one after the last in which some matte is neither 0 nor 255 throughout."""
    first, last = mattes[0].shape[0], 0
    for matte in mattes:
        edge = cv2.inRange(matte, 1, 254)
        _, top, _, height = cv2.boundingRect(edge)
        if height:
            first, last = min(first, top), max(last, top + height)
    return (first, last) if last > first else None


def network_size(size: Size, side_px: int) -> Size:
    """What the network sees of frames of this size, as `preprocess.sky.data.fitting_size`."""
    scale = side_px / max(size.height, size.width)
    fit = [max(64, round(side * scale / 32) * 32) for side in (size.height, size.width)]
    return Size(*fit)
