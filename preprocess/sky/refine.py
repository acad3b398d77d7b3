"""From the network's small matte to the frame's size, with the frame's own edges.

Two models of opacity as a linear function of colour are fitted at the small size and applied at
full size, alpha = slope . colour + offset:

guided   the guided filter's (atlas.guided): smooth, right where the small matte is right.
line     near the skyline a pixel's colour c is placed on the line from the mean colour g of the
         ground nearby to that of the sky nearby, s, surer pixels counting more: (c - g).(s - g) /
         |s - g|^2, the least-squares opacity of the matting equation c = alpha s + (1 - alpha) g.
         It follows twigs and wires that the small matte has lost, and does not spread.

The line counts in the doubtful band, as far as sky and ground differ there and the small matte is
not sure of ground; elsewhere guided does.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from atlas.guided import LinearModel, fit_linear


@dataclass(frozen=True, kw_only=True)
class RefineOptions:
    """Windows and trust; lengths in pixels of the small matte."""

    guided_radius_px: int = 8
    guided_eps: float = 1e-4
    """Squared colour units of [0, 1]."""
    line_radius_px: int = 7
    """Window of the mean colours of sky and ground."""
    sure: float = 0.3
    """Opacity below which a pixel counts wholly as ground, above 1 minus which as sky; (0, 0.5)."""
    ground_to: float = 0.9
    """Opacity up to which it still counts as ground, ever less: a bird or a twig of which the small
    matte is not sure lends its colour where nothing surer is near; (sure, 1]."""
    sky_to: float = 0.7
    """The same for 1 minus opacity and sky, seen through crowns; (sure, 1]."""
    alike: float = 0.15
    """Squared distance of s and g at which line and guided count alike."""
    line_least: float = 0.3
    """Opacity below which the line's trust falls, by the square: what the small matte is sure of as
    ground, a pale gable just under the skyline, is not asked for its colour; > 0."""
    ground: float = 0.05
    """Where all of the small matte near by is below this, its own opacity counts in place of both
    models, the more the lower it is; > 0."""
    margin: float = 0.15
    """Opacities within this of 0 and 1 become 0 and 1; those between are stretched; [0, 0.5)."""

    def __post_init__(self) -> None:
        if not 0 < self.sure < 0.5:
            raise ValueError(f"sure must be in (0, 0.5), got {self.sure}")
        for name in ("ground_to", "sky_to"):
            if not self.sure < getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in (sure, 1], got {getattr(self, name)}")
        if not self.line_least > 0:
            raise ValueError(f"line_least must be > 0, got {self.line_least}")
        if not self.ground > 0:
            raise ValueError(f"ground must be > 0, got {self.ground}")
        if not 0 <= self.margin < 0.5:
            raise ValueError(f"margin must be in [0, 0.5), got {self.margin}")


_LINE_CONTRAST = 1.1
_ENOUGH = 0.01
"""Share of a window that must be sky, and ground, for the line to count fully."""


def refine_matte(
    rgb: np.ndarray, small: np.ndarray, coarse: np.ndarray, options: RefineOptions
) -> np.ndarray:
    """Refine a small matte along the edges of the full picture.

    Args:
        rgb: (H, W, 3) uint8, the frame.
        small: (h, w, 3) uint8, the frame made small.
        coarse: (h, w) float32 in [0, 1], its matte.
    Returns:
        (H, W) float32 in [0, 1].
    """
    guided = fit_linear(small, coarse, options.guided_radius_px, options.guided_eps)
    line, trust = colour_line(small, coarse, options)
    slope = guided.slope + trust[..., None] * (line.slope - guided.slope)
    offset = guided.offset + trust * (line.offset - guided.offset)
    asked = np.minimum(cv2.dilate(coarse, np.ones((3, 3), np.uint8)) / options.ground, 1)
    model = LinearModel(slope * asked[..., None], coarse + asked * (offset - coarse))
    return stretch(model.apply(rgb), options.margin)


def colour_line(
    small: np.ndarray, coarse: np.ndarray, options: RefineOptions
) -> tuple[LinearModel, np.ndarray]:
    """The line model of the module's docstring, and how far to trust it.

    Args:
        small: (h, w, 3) uint8. coarse: (h, w) float32.
    Returns:
        slope (h, w, 3) and offset (h, w); trust (h, w) float32 in [0, 1].
    """
    colours = small.astype(np.float32) * np.float32(1 / 255)
    side_px = 2 * options.line_radius_px + 1
    window = (side_px, side_px)
    sky, sky_share = _mean_of(colours, _counts(1 - coarse, options.sure, options.sky_to), window)
    is_ground = _counts(coarse, options.sure, options.ground_to)
    ground, ground_share = _mean_of(colours, is_ground, window)
    axis = sky - ground
    length2 = np.einsum("hwc,hwc->hw", axis, axis)
    slope = axis * (_LINE_CONTRAST / np.maximum(length2, 1e-4))[..., None]
    offset = 0.5 * (1 - _LINE_CONTRAST) - np.einsum("hwc,hwc->hw", ground, slope)
    near = cv2.blur(coarse, (5, 5))
    doubt = np.clip(12 * near * (1 - near), 0, 1)
    known = np.clip(np.minimum(sky_share, ground_share) / _ENOUGH, 0, 1)
    trust = cv2.blur(doubt * known * length2 / (length2 + options.alike), (5, 5))
    return LinearModel(slope, offset), trust * np.minimum(coarse / options.line_least, 1) ** 2


def _counts(opacity: np.ndarray, wholly: float, at_all: float) -> np.ndarray:
    """(h, w) float32 in [0, 1]: 1 below `wholly`, falling to 0 at `at_all`."""
    return np.clip((at_all - opacity) / (at_all - wholly), 0, 1).astype(np.float32, copy=False)


def _mean_of(
    colours: np.ndarray, weight: np.ndarray, window: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Weighted mean colour in each window (h, w, 3), and the mean weight (h, w)."""
    share = cv2.blur(weight, window)
    total = cv2.blur(colours * weight[..., None], window)
    return total / np.maximum(share, 1e-4)[..., None], share


def stretch(matte: np.ndarray, margin: float) -> np.ndarray:
    """Map [margin, 1 - margin] to [0, 1] and clip; a new (H, W) float32."""
    span = 1 - 2 * margin
    matte = cv2.addWeighted(matte, 1 / span, matte, 0, -margin / span)
    return np.clip(matte, 0, 1, out=matte)
