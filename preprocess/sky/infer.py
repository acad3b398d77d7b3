"""The learned sky matte of a frame: small network, steadied in time, refined to full size.

matter = NetworkMatter()
for rgb in frames:
    matte = matter.matte(rgb)        # (H, W) float32, 1 = sky
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import torch

from atlas.coords import Size
from preprocess.sky.data import fitting_size
from preprocess.sky.guided import guided_upsample
from preprocess.sky.matte import NETWORK_WEIGHTS, SkyMatter, check_rgb
from preprocess.sky.network import STRIDE_PX, SkyNetwork, load_network
from preprocess.sky.temporal import FlowSteadier, SteadyOptions


@dataclass(frozen=True, kw_only=True)
class MatteOptions:
    """How `NetworkMatter` works."""

    side_px: int = 320
    """Longer side of the picture that the network sees, rounded to multiples of 32."""
    refine: bool = True
    """Refine to full size by a guided filter; else bilinear."""
    radius_px: int = 4
    """Window radius of the guided filter, pixels at the network's size."""
    eps: float = 1e-3
    """Regularisation of the guided filter, squared colour units of [0, 1]."""
    margin: float = 0.05
    """Opacities within this of 0 and 1 become 0 and 1; those between are stretched."""
    steady: SteadyOptions | None = field(default_factory=SteadyOptions)
    """Temporal filter; None treats each frame alone."""

    def __post_init__(self) -> None:
        if self.side_px < STRIDE_PX:
            raise ValueError(f"side_px must be >= {STRIDE_PX}, got {self.side_px}")
        if not 0 <= self.margin < 0.5:
            raise ValueError(f"margin must be in [0, 0.5), got {self.margin}")


class NetworkMatter(SkyMatter):
    """The bundled network's matte; causal, deterministic, constant memory."""

    def __init__(self, weights: Path | None = None, options: MatteOptions | None = None) -> None:
        self.options = options or MatteOptions()
        self.weights = weights or NETWORK_WEIGHTS
        network = load_network(self.weights)
        self._network = network.to(memory_format=torch.channels_last)
        self._size: Size | None = None
        self._compiled: dict[Size, torch.jit.ScriptModule] = {}
        self._steadier = FlowSteadier(self.options.steady) if self.options.steady else None

    def reset(self) -> None:
        if self._steadier is not None:
            self._steadier.reset()

    def matte(self, rgb: np.ndarray) -> np.ndarray:
        check_rgb(rgb)
        small, coarse = self.coarse(rgb)
        if self._steadier is not None:
            coarse = self._steadier(small, coarse)
        return self.refine(rgb, small, coarse)

    def coarse(self, rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What the network sees and says of a frame alone.

        Returns:
            (h, w, 3) uint8 small frame; (h, w) float32 matte in [0, 1].
        """
        size = fitting_size(Size(*rgb.shape[:2]), self.options.side_px, STRIDE_PX)
        small = cv2.resize(rgb, size.wh, interpolation=cv2.INTER_AREA)
        with torch.inference_mode():
            levels = torch.from_numpy(small).permute(2, 0, 1)[None]
            logits = self._at_size(size)(levels.float() / 255)
            return small, torch.sigmoid(logits)[0, 0].numpy()

    def refine(self, rgb: np.ndarray, small: np.ndarray, coarse: np.ndarray) -> np.ndarray:
        """A small matte (h, w) at the full size of `rgb`, along the edges of the picture."""
        options = self.options
        if options.refine:
            matte = guided_upsample(rgb, small, coarse, options.radius_px, options.eps)
        else:
            wh = (rgb.shape[1], rgb.shape[0])
            matte = cv2.resize(coarse, wh, interpolation=cv2.INTER_LINEAR)
        span = 1 - 2 * options.margin
        matte = cv2.addWeighted(matte, 1 / span, matte, 0, -options.margin / span)
        return np.clip(matte, 0, 1, out=matte)

    def _at_size(self, size: Size) -> SkyNetwork | torch.jit.ScriptModule:
        """The network, compiled for a picture size when that comes a second time.

        Compiling costs as much as a hundred frames, too much for a single picture.
        """
        if size != self._size:
            self._size = size
            return self._network
        if size not in self._compiled:
            self._compiled = {size: compile_for(self._network, size)}
        return self._compiled[size]


def compile_for(network: SkyNetwork, size: Size) -> torch.jit.ScriptModule:
    """Trace, freeze and fold; for (1, 3, size.height, size.width) float32 input."""
    example = torch.zeros(1, 3, size.height, size.width)
    network = network.eval().to(memory_format=torch.channels_last)
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # tracing is called deprecated; frozen it is the fastest
        traced = torch.jit.trace(network, example.to(memory_format=torch.channels_last))
        return torch.jit.optimize_for_inference(torch.jit.freeze(traced))
