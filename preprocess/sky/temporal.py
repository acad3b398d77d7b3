"""Mattes that do not flicker: follow the picture's motion and average along it.

Causal (`FlowSteadier`): the matte so far is carried to the new frame by optical flow and blended
with the new one where the carried picture agrees with the new frame. Constant memory, no
look-ahead. It works on small frames, before refinement to full size; `FineSteadier` repeats it on
what the refinement gives. `preprocess.sky.offline` runs the first forward and backward and takes
the mean; there `preprocess.sky.around` stands in place of the second.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from atlas.guided import fit_linear

FLOWS = {
    "half": (cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST, 1, 12),
    "quick": (cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST, 0, 6),
    "smooth": (cv2.DISOPTICAL_FLOW_PRESET_MEDIUM, 1, 25),
}
"""How optical flow is found: preset, finest scale (1 is half size), steps of descent.

"quick" follows twigs in a frame of 256 px; in one of 512 px "smooth" does so better, no slower.
"""
_LEAST_FLOW_PX = 16
"""Sides below this are padded: OpenCV's DIS refuses them, or crashes where a patch fits no more."""
_REACH = 3 / 854
"""Of the longer side: how far a matte's values may come from when they are carried."""
_SLOPE_RADIUS_PX, _SLOPE_EPS = 2, 5e-4


@dataclass(frozen=True, kw_only=True)
class SteadyOptions:
    """How much of the past is kept, and where."""

    keep: float = 0.6
    """Largest share of the carried matte in the new one; [0, 1)."""
    tolerance: float = 12.0
    """Colour difference after carrying, 8-bit steps, at which the share has fallen to 1/e."""
    keep_fine: float = 0.97
    """The same for the refined matte at full size, which the picture's noise still moves; for
    mattes that never look ahead."""
    around: int = 3
    """Frames on either side over which refined mattes are averaged, where both are known; >= 0."""
    surprise: float = 0.5
    """Local mean difference of opacity at which the new matte wins though colours agree."""
    flow: str = "quick"
    """How motion is found: of `FLOWS`."""

    def __post_init__(self) -> None:
        if not 0 <= self.keep < 1:
            raise ValueError(f"keep must be in [0, 1), got {self.keep}")
        if not 0 <= self.keep_fine < 1:
            raise ValueError(f"keep_fine must be in [0, 1), got {self.keep_fine}")
        if self.around < 0:
            raise ValueError(f"around must be >= 0, got {self.around}")
        if not self.tolerance > 0:
            raise ValueError(f"tolerance must be > 0, got {self.tolerance}")
        if not self.surprise > 0:
            raise ValueError(f"surprise must be > 0, got {self.surprise}")
        if self.flow not in FLOWS:
            raise ValueError(f"flow must be one of {', '.join(FLOWS)}, got {self.flow!r}")


@dataclass(frozen=True)
class Motion:
    """How a small frame came from the one before."""

    flow: np.ndarray
    """(h, w, 2) px, from the new frame to the old one."""
    trust: np.ndarray
    """(h, w) float32 in [0, 1]: how well the carried frame and its matte fit."""


class FlowSteadier:
    """m_t = n_t + k (carried m_{t-1} - n_t), k per pixel from how well the carried frame fits.

    What is carried then follows the picture: see `followed`.

    k = keep * exp(-(d / tolerance)^2) * exp(-(s / surprise)^2): d is the locally averaged colour
    difference between the carried last frame and this one; s is the difference of the mattes,
    averaged over a neighbourhood, so that a matte that was wrong for long is given up soon while
    single flickering pixels are held.
    """

    def __init__(self, options: SteadyOptions | None = None) -> None:
        self.options = options or SteadyOptions()
        self._last: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None
        self.motion: Motion | None = None
        """From the last frame but one to the last; None at the start of a clip."""

    def reset(self) -> None:
        """Forget the past: the next matte is returned as it is."""
        self._last = None
        self.motion = None

    def __call__(self, rgb: np.ndarray, matte: np.ndarray) -> np.ndarray:
        """Steady the matte of the next frame.

        Args:
            rgb: (h, w, 3) uint8, the small frame.
            matte: (h, w) float32, what the network says of it.
        Returns:
            (h, w) float32.
        """
        if matte.shape != rgb.shape[:2]:
            raise ValueError(f"matte is {matte.shape}, rgb is {rgb.shape[:2]}: must be equal")
        grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
        colour = cv2.blur(rgb, (3, 3)).astype(np.float32)
        self.motion = None
        if self._last is not None and self._last[2].shape == matte.shape:
            matte = self._blend(grey, colour, matte)
        matte = matte.astype(np.float32, copy=False)
        self._last = (grey, colour, matte)
        return matte

    def take(self, rgb: np.ndarray, matte: np.ndarray) -> None:
        """Go on from a frame whose matte (h, w) was steadied elsewhere."""
        grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
        self._last = (grey, cv2.blur(rgb, (3, 3)).astype(np.float32), matte)

    def _blend(self, grey: np.ndarray, colour: np.ndarray, matte: np.ndarray) -> np.ndarray:
        assert self._last is not None
        last_grey, last_colour, last_matte = self._last
        flow = small_flow(grey, last_grey, self.options.flow)
        slope = (carry(matte_slope(last_grey, last_matte), flow) + matte_slope(grey, matte)) / 2
        moved = carry(last_grey.astype(np.float32), flow)
        carried = followed(carry(last_matte, flow), slope, grey - moved)
        change = largest_channel(cv2.absdiff(carry(last_colour, flow), colour))
        surprise = area_difference(carried, matte)
        options = self.options
        exponent = (change / options.tolerance) ** 2 + (surprise / options.surprise) ** 2
        self.motion = Motion(flow, np.exp(-exponent))
        return matte + options.keep * self.motion.trust * (carried - matte)


class FineSteadier:
    """The same average for refined mattes at full size, with the motion of the small frames."""

    def __init__(self, options: SteadyOptions | None = None) -> None:
        self.options = options or SteadyOptions()
        self._last: np.ndarray | None = None

    def reset(self) -> None:
        """Forget the past: the next matte is returned as it is."""
        self._last = None

    def __call__(self, matte: np.ndarray, motion: Motion | None) -> np.ndarray:
        """Steady the next frame's matte (H, W) float32; `motion` None begins anew."""
        last, self._last = self._last, matte
        if motion is None or last is None or last.shape != matte.shape:
            return matte
        wh = (matte.shape[1], matte.shape[0])
        scale = np.divide(wh, motion.flow.shape[1::-1]).astype(np.float32)
        flow = cv2.resize(motion.flow * scale, wh, interpolation=cv2.INTER_LINEAR)
        keep = self.options.keep_fine * motion.trust * self._unsurprised(last, matte, motion.flow)
        keep = cv2.resize(keep, wh, interpolation=cv2.INTER_LINEAR)
        before = within_neighbours(carry(last, flow), matte)
        change = cv2.subtract(before, matte)
        steady = cv2.add(matte, cv2.multiply(change, keep))
        self._last = steady
        return steady

    def _unsurprised(self, last: np.ndarray, matte: np.ndarray, flow: np.ndarray) -> np.ndarray:
        """(h, w) in [0, 1]: low where the new matte disagrees with the last one over an area."""
        last, matte = (
            cv2.resize(m, flow.shape[1::-1], interpolation=cv2.INTER_AREA) for m in (last, matte)
        )
        return np.exp(-((area_difference(carry(last, flow), matte) / self.options.surprise) ** 2))


def matte_slope(grey: np.ndarray, matte: np.ndarray) -> np.ndarray:
    """(h, w) float32: how opacity changes with grey near each pixel; per whole range of grey.

    The slope of a guided filter's local linear model (He et al., "Guided Image Filtering", eq 5).

    Args:
        grey: (h, w) uint8. matte: (h, w) float32.
    """
    return fit_linear(grey, matte, _SLOPE_RADIUS_PX, _SLOPE_EPS).slope


def followed(carried: np.ndarray, slope: np.ndarray, change: np.ndarray) -> np.ndarray:
    """A carried matte (h, w), changed as far as the picture did where flow brought it.

    Flow misses by a part of a pixel, and twigs are no wider: where grey differs from that of the
    carried frame, opacity does so too, by the local `slope`.

    Args:
        slope: (h, w), as `matte_slope` gives. change: (h, w) float32, the frame's grey less the
            carried one, 8-bit levels.
    Returns:
        (h, w) float32 in [0, 1].
    """
    return np.clip(carried + slope * (change / 255), 0, 1).astype(np.float32, copy=False)


def within_neighbours(values: np.ndarray, matte: np.ndarray) -> np.ndarray:
    """`values` (H, W) held between the least and the most of `matte` near by, 3 px in 854.

    What was carried astray, a trail of a thing that flew past, goes; what moved by a pixel stays.
    (Neighbourhood clamping, as in Karis, "High-Quality Temporal Supersampling", 2014.)
    """
    reach_px = max(1, round(max(matte.shape) * _REACH))
    window = np.ones((2 * reach_px + 1, 2 * reach_px + 1), np.uint8)
    return cv2.max(cv2.min(values, cv2.dilate(matte, window)), cv2.erode(matte, window))


def area_difference(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(h, w) >= 0: |mean over 15x15 px of first - second|; what flickers pixel by pixel is none."""
    return np.abs(cv2.blur(first - second, (15, 15)))


def small_flow(new: np.ndarray, old: np.ndarray, kind: str = "quick") -> np.ndarray:
    """Optical flow (DIS, arXiv 1603.03590) of small frames, in milliseconds.

    Args:
        new, old: (h, w) grey or (h, w, 3) RGB, uint8.
        kind: of `FLOWS`.
    Returns:
        (h, w, 2) float32 px: where in `old` each pixel of `new` was, relative to itself.
    """
    grey = [p if p.ndim == 2 else cv2.cvtColor(p, cv2.COLOR_RGB2GRAY) for p in (new, old)]
    height, width = grey[0].shape
    more = (0, max(0, _LEAST_FLOW_PX - height), 0, max(0, _LEAST_FLOW_PX - width))
    if any(more):
        grey = [cv2.copyMakeBorder(p, *more, cv2.BORDER_REPLICATE) for p in grey]
    preset, finest, iterations = FLOWS[kind]
    flow = cv2.DISOpticalFlow.create(preset)
    flow.setFinestScale(finest)
    flow.setGradientDescentIterations(iterations)
    return flow.calc(grey[0], grey[1], None)[:height, :width]


def largest_channel(values: np.ndarray) -> np.ndarray:
    """(h, w): the largest of three channels, in a tenth of the time of `max(axis=2)`."""
    first, second, third = cv2.split(values)
    return cv2.max(cv2.max(first, second), third)


def carry(values: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """Sample `values` (h, w) or (h, w, C) at each pixel's own place plus `flow` (h, w, 2) px.

    With the flow from the new frame to the old one this brings the old frame's values to the new.
    Outside the picture the nearest edge value is taken.
    """
    height, width = flow.shape[:2]
    x = flow[..., 0] + np.arange(width, dtype=np.float32)
    y = flow[..., 1] + np.arange(height, dtype=np.float32)[:, None]
    return cv2.remap(values, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
