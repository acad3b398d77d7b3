"""The learned sky matte of a frame: small network, steadied in time, refined to full size.

matter = NetworkMatter()
for rgb in frames:
    matte = matter.matte(rgb)        # (H, W) float32, 1 = sky
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import torch

from atlas.coords import Size
from preprocess.sky.adapt import SkyColours
from preprocess.sky.data import fitting_size
from preprocess.sky.matte import NETWORK_WEIGHTS, SkyMatter, check_rgb
from preprocess.sky.network import STRIDE_PX, folded, load_network
from preprocess.sky.refine import RefineOptions, refine_matte
from preprocess.sky.temporal import FineSteadier, FlowSteadier, SteadyOptions


@dataclass(frozen=True, kw_only=True)
class MatteOptions:
    """How `NetworkMatter` works."""

    side_px: int = 256
    """Longer side of the picture that the network sees, rounded to multiples of 32."""
    refine: RefineOptions | None = field(default_factory=RefineOptions)
    """Refinement to full size; None enlarges the small matte bilinearly."""
    adapt: bool = True
    """Let the clip's own colours decide doubtful pixels (`adapt.SkyColours`)."""
    steady: SteadyOptions | None = field(default_factory=SteadyOptions)
    """Temporal filter; None treats each frame alone."""

    def __post_init__(self) -> None:
        if self.side_px < STRIDE_PX:
            raise ValueError(f"side_px must be >= {STRIDE_PX}, got {self.side_px}")


class NetworkMatter(SkyMatter):
    """The bundled network's matte; causal, deterministic, constant memory."""

    def __init__(self, weights: Path | None = None, options: MatteOptions | None = None) -> None:
        self.options = options or MatteOptions()
        self.weights = weights or NETWORK_WEIGHTS
        self._network = folded(load_network(self.weights))
        self._colours = SkyColours()
        self._fine = FineSteadier(self.options.steady)
        self._steadier = FlowSteadier(self.options.steady) if self.options.steady else None

    def reset(self) -> None:
        self._colours.reset()
        if self._steadier is not None:
            self._steadier.reset()
        self._fine.reset()

    def matte(self, rgb: np.ndarray) -> np.ndarray:
        check_rgb(rgb)
        small, coarse = self.coarse(rgb)
        if self._steadier is None:
            return self.refine(rgb, small, coarse)
        coarse = self._steadier(small, coarse)
        return self._fine(self.refine(rgb, small, coarse), self._steadier.motion)

    def coarse(self, rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What the network sees of the next frame, and says; settled by the clip's colours.

        Returns:
            (h, w, 3) uint8 small frame; (h, w) float32 matte in [0, 1].
        """
        size = fitting_size(Size(*rgb.shape[:2]), self.options.side_px, STRIDE_PX)
        small = cv2.resize(rgb, size.wh, interpolation=cv2.INTER_AREA)
        with torch.inference_mode():
            levels = torch.from_numpy(small).permute(2, 0, 1)[None]
            logits = self._network(levels.float() / 255)
            coarse = torch.sigmoid(logits)[0, 0].numpy()
        return small, self._colours.settle(small, coarse) if self.options.adapt else coarse

    def refine(self, rgb: np.ndarray, small: np.ndarray, coarse: np.ndarray) -> np.ndarray:
        """A small matte (h, w) at the full size of `rgb`, along the edges of the picture."""
        if self.options.refine is not None:
            return refine_matte(rgb, small, coarse, self.options.refine)
        return cv2.resize(coarse, (rgb.shape[1], rgb.shape[0]), interpolation=cv2.INTER_LINEAR)
