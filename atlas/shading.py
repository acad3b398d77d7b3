"""A multiplicative shading per layer and frame, so that changing light is not motion.

A pixel of layer l in frame t is texture(uv) times gain_lt(x). The gain is smooth over a wide window
(light that changes over the clip, vignettes, exposure); finer windows add to its logarithm only
where they differ from it by much: the edge of a shadow passes, texture that is a little off does
not. That is wavelet shrinkage (Donoho and Johnstone 1994) of log gain; the fine parts are grey.
All this is on top of the light that is known of whole frames and layers (`atlas.camera_light`).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.lib.format import open_memmap

from atlas.camera_light import CameraLight, Light
from atlas.coords import Size
from atlas.layered import lattice_shape, sample_lattice
from atlas.mapping import LayerMapping
from atlas.store import ClipStore
from atlas.texture import Texture, sample

PRIOR = 0.004
"""Pull of the gain toward 1 against squared colour, so that black areas do not make it jump."""
STRIDE_PX = 4
"""Distance of the gain's lattice points."""
FINEST_PX = 6.0
"""Narrowest window that sharp light is looked for in; standard deviation, frame pixels."""
FLOORS = (0.03, 0.05, 0.07)
"""Change of log gain below which a finer window is taken for texture: at a half, a quarter, an
eighth of the widest window."""
ROBUST = 0.15
"""Residual at which a pixel counts half in the widest window (Geman-McClure); RGB in [0, 1]."""
GAINS = (0.1, 8.0)
"""Bounds on the gain."""


@dataclass(frozen=True)
class Shading:
    """gains: (L, T, h, w, 3) float16 or float32 at frame pixels (j * stride_px, i * stride_px).

    May lie on disk, memory-mapped, so that memory does not grow with the clip.
    camera: the part of it that is the camera's; None where that was not told apart.
    """

    gains: np.ndarray
    stride_px: int
    size: Size
    camera: CameraLight | None = None

    def __call__(self, t: int, view: Size | None = None) -> np.ndarray:
        """(L, H, W, 3) float32 gain of each layer's colours at every pixel of the view."""
        lattices = (np.asarray(g[t], np.float32) for g in self.gains)
        return np.stack([sample_lattice(g, self.stride_px, self.size, view) for g in lattices])


def unit_shading(layers: int, frame_count: int, size: Size, stride_px: int) -> Shading:
    """The shading that changes nothing."""
    shape = (layers, frame_count, *lattice_shape(size, stride_px), 3)
    return Shading(np.ones(shape, np.float32), stride_px, size)


def estimate_shading(
    mapping: LayerMapping,
    textures: list[Texture],
    store: ClipStore,
    sigma_px: float,
    path: Path | None = None,
    light: Light | None = None,
) -> Shading:
    """The gain that best turns the textures into the frames, closed form.

    Args:
        sigma_px: the widest window's standard deviation, frame pixels; 0: nothing but `light`.
        path: the .npy file that shall hold the gains, float16; None keeps them in memory.
        light: what is known already; the shading is that, times what is fitted.
    """
    shape = (len(textures), store.frame_count, *lattice_shape(store.size, STRIDE_PX), 3)
    if path is None:
        gains = np.empty(shape, np.float32)
    else:
        gains = open_memmap(path, "w+", np.float16, shape)
    shading = Shading(gains, STRIDE_PX, store.size, light.camera if light else None)

    def one_frame(t: int) -> None:
        m = mapping.frame(t)
        frame = store.frame(t).astype(np.float32) / 255
        known = None if light is None else light(t)
        for i, (share, texture) in enumerate(zip(m.visible(), textures, strict=True)):
            gain = 1 if light is None else light.on_lattice(i, t, STRIDE_PX)
            if sigma_px > 0 and (share > 0.5).any():
                seen = sample(texture.rgb, m.uv[i])
                seen = seen if known is None else seen * known[i]
                gain = gain * fit_gain(frame, seen, share, STRIDE_PX, sigma_px)
            gains[i, t] = gain

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(one_frame, range(store.frame_count)))
    return shading


def fit_gain(
    frame: np.ndarray, seen: np.ndarray, share: np.ndarray, stride_px: int, sigma_px: float
) -> np.ndarray:
    """(h, w, 3) float32: one layer's gain in one frame at the lattice's points.

    Least squares in a Gaussian window: g = (G * (w f r) + p) / (G * (w r^2) + p), f the frame,
    r the texture, w the layer's share (robust in the widest window), p a pull toward 1. Windows
    of a half, a quarter, an eighth of the width add what differs from it by more than `FLOORS`.

    Args:
        frame, seen: (H, W, 3) float32, the frame, and the layer's texture seen through the map.
        share: (H, W) float32, how much of each pixel shows the layer.
    """
    shape = lattice_shape(Size(*frame.shape[:2]), stride_px)
    weight = np.where(share > 0.5, share**2, 0)[..., None].astype(np.float32)
    both, square = frame * seen * weight, seen * seen * weight
    # a pixel that disagrees strongly is another surface or a moved edge, not light
    residual = ((frame - seen) ** 2).mean(-1, keepdims=True)
    robust = ROBUST**2 / (ROBUST**2 + residual)
    above, below = (
        _window(_on_lattice(x * robust, shape, stride_px), sigma_px / stride_px)
        for x in (both, square)
    )
    gain = (above + PRIOR) / (below + PRIOR)
    above = _on_lattice(both.sum(-1, keepdims=True), shape, stride_px)
    below = _on_lattice(square, shape, stride_px)
    narrowest = max(FINEST_PX, 1.5 * stride_px)
    for halvings, floor in enumerate(FLOORS, 1):
        width_px = sigma_px / 2**halvings
        if width_px < narrowest or sigma_px > max(frame.shape):
            break
        step = (_window(above, width_px / stride_px) + PRIOR) / (
            (_window(below, width_px / stride_px) * gain).sum(-1, keepdims=True) + PRIOR
        )
        gain = gain * np.exp(_garrote(np.log(step), floor))
    return gain.clip(*GAINS).astype(np.float32)


def _garrote(values: np.ndarray, floor: float) -> np.ndarray:
    """Shrink to 0 below the floor, leave what is far above it (Breiman 1995)."""
    return values * np.maximum(0, 1 - (floor / np.maximum(np.abs(values), 1e-9)) ** 2)


def _on_lattice(values: np.ndarray, shape: tuple[int, int], stride_px: int) -> np.ndarray:
    """(h, w, C) box averages of (H, W, C) values about the lattice points."""
    side = stride_px | 1
    means = cv2.blur(values, (side, side), borderType=cv2.BORDER_REFLECT_101)
    y = np.minimum(np.arange(shape[0]) * stride_px, values.shape[0] - 1)
    x = np.minimum(np.arange(shape[1]) * stride_px, values.shape[1] - 1)
    return np.ascontiguousarray(means.reshape(*values.shape[:2], -1)[np.ix_(y, x)])


def _window(values: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian of `sigma` lattice steps over (h, w, C <= 4); wide ones on a coarser lattice."""
    shape = values.shape
    if sigma > 6 and min(shape[:2]) > 8:
        half = cv2.resize(
            values, (-(-shape[1] // 2), -(-shape[0] // 2)), interpolation=cv2.INTER_AREA
        )
        wide = _window(half.reshape(*half.shape[:2], shape[2]), sigma / 2)
        out = cv2.resize(wide, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR)
    else:
        out = cv2.GaussianBlur(values, (0, 0), max(sigma, 0.3), borderType=cv2.BORDER_REFLECT_101)
    return out.reshape(shape)
