"""Gauge: an atlas is known only up to a reparametrisation of its canvas; find it and undo it.

Two mappings of one clip put the same spot of a layer at different places of different canvases, and
neither is wrong. The gauge G carries canvas a to canvas b so that G(uv_a) = uv_b as well as one map
for the whole clip can: a homography, and optionally a smooth residual on top. What is left of
|G(uv_a) - uv_b| is real disagreement; and an edit painted on one canvas can be seen through the
other mapping (`Regauged`) or carried over as a picture (`transfer_texture`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from atlas.coords import Size, apply_homography
from atlas.gauge_fit import (
    Correspondences,
    bilinear_grid,
    first_homography,
    refine_homography,
    smooth_residual,
)
from atlas.mapping import FrameMapping, Layer, LayerMapping
from atlas.metrics import local_jacobian, texels_to_px

SAMPLES_PER_FRAME = 200
"""Correspondences a frame gives at most, so that every frame counts alike."""
FRAMES_AT_MOST = 100
"""Frames looked at by `fit_gauge`, evenly spread."""
_VISIBLE = 0.9


@dataclass(frozen=True)
class Gauge:
    """Carries texel positions of canvas a to canvas b.

    matrix: (3, 3) float64 homography. a, b: the canvases' sizes.
    residual: (G, G, 2) float32 texels of b, added after the homography: bilinear over a's canvas,
        corner nodes at its corner texels; None for none.
    """

    matrix: np.ndarray
    a: Size
    b: Size
    residual: np.ndarray | None = None

    def __call__(self, uv: np.ndarray) -> np.ndarray:
        """(..., 2) texels on canvas a to (..., 2) float32 texels on canvas b; nan past infinity."""
        out = apply_homography(self.matrix, uv.astype(np.float64))
        if self.residual is not None:
            out += bilinear_grid(self.residual, uv, self.a)
        return out.astype(np.float32)

    def inverse(self, uv: np.ndarray) -> np.ndarray:
        """(..., 2) texels on canvas b to (..., 2) float32 texels on canvas a.

        With a residual r, the fixed point of uv_a = H^-1 (uv_b - r(uv_a)): r is small and smooth.
        """
        back = np.linalg.inv(self.matrix)
        back /= back[2, 2]
        uv = uv.astype(np.float64)
        found = apply_homography(back, uv)
        if self.residual is not None:
            for _ in range(20):
                found = apply_homography(back, uv - bilinear_grid(self.residual, found, self.a))
        return found.astype(np.float32)


class GaugeFit:
    """Gathers correspondences frame by frame, so that streaming mappings can be compared too."""

    def __init__(self, a: Layer, b: Layer, frame_size: Size, seed: int = 0):
        self._a, self._b = a, b
        self._frame_size = frame_size
        self._rng = np.random.default_rng(seed)
        self._parts: list[Correspondences] = []

    def add(
        self, uv_a: np.ndarray, uv_b: np.ndarray, where: np.ndarray, samples: int | None = None
    ) -> None:
        """Add one frame.

        Args:
            uv_a, uv_b: (H, W, 2) texels on either canvas at the same pixels of the frame.
            where: (H, W) bool, the layer is visible in both.
            samples: how many pixels to draw at random.
        """
        height, width = where.shape
        scale = np.array([self._frame_size.width / width, self._frame_size.height / height])
        good = where & np.isfinite(uv_a).all(-1) & np.isfinite(uv_b).all(-1)
        if height < 2 or width < 2:
            return
        jacobian = local_jacobian(uv_b.astype(np.float64)) / scale
        det = np.linalg.det(jacobian)
        y, x = np.nonzero(good & np.isfinite(det) & (np.abs(det) > 1e-9))
        chosen = min(samples or SAMPLES_PER_FRAME, len(x))
        if chosen == 0:
            return
        pick = self._rng.choice(len(x), chosen, replace=False)
        y, x = y[pick], x[pick]
        self._parts.append(
            Correspondences(
                uv_a[y, x].astype(np.float64), uv_b[y, x].astype(np.float64), jacobian[y, x]
            )
        )

    def correspondences(self) -> Correspondences:
        """Everything added so far."""
        if not self._parts:
            return Correspondences(np.zeros((0, 2)), np.zeros((0, 2)), np.zeros((0, 2, 2)))
        return Correspondences(
            np.concatenate([p.uv_a for p in self._parts]),
            np.concatenate([p.uv_b for p in self._parts]),
            np.concatenate([p.jacobian_b for p in self._parts]),
        )

    def solve(self, smooth: bool = False) -> Gauge | None:
        """The gauge from a to b; None where the layer was never seen in both.

        Args:
            smooth: let a residual on a 9x9 grid follow the homography.
        """
        pairs = self.correspondences()
        if len(pairs.uv_a) < 8:
            return None
        matrix = refine_homography(pairs, first_homography(pairs))
        gauge = Gauge(matrix, self._a.canvas, self._b.canvas)
        if not smooth:
            return gauge
        return Gauge(matrix, gauge.a, gauge.b, smooth_residual(pairs, matrix, gauge.a))


def fit_gauge(
    a: LayerMapping,
    b: LayerMapping,
    layer_a: str,
    layer_b: str,
    frames: Callable[[int], np.ndarray] | None = None,
    smooth: bool = False,
) -> Gauge | None:
    """Gauge from layer `layer_a` of mapping a to `layer_b` of mapping b of the same clip.

    Args:
        frames: t -> (H, W, 3) uint8 RGB, for mappings that must observe them; every frame is shown.
        smooth: see `GaugeFit.solve`.
    Returns:
        None where no pixel shows the layer in both mappings.
    """
    i, j = a.layer_index(layer_a), b.layer_index(layer_b)
    count = min(a.frame_count, b.frame_count)
    fit = GaugeFit(a.layers[i], b.layers[j], b.frame_size)
    looked_at = set(spread(count, FRAMES_AT_MOST))
    for t in range(count):
        if frames is not None:
            rgb = frames(t)
            a.observe(t, rgb)
            b.observe(t, rgb)
        if t in looked_at:
            of_a, of_b = a.frame(t, b.frame_size), b.frame(t)
            fit.add(of_a.uv[i], of_b.uv[j], both_visible(of_a, i, of_b, j))
    return fit.solve(smooth)


def both_visible(a: FrameMapping, layer_a: int, b: FrameMapping, layer_b: int) -> np.ndarray:
    """(H, W) bool: the layer has at least 0.9 of the pixel in either mapping."""
    return (a.visible()[layer_a] >= _VISIBLE) & (b.visible()[layer_b] >= _VISIBLE)


def uv_error_px(
    gauge: Gauge, uv_a: np.ndarray, uv_b: np.ndarray, jacobian_b: np.ndarray
) -> np.ndarray:
    """|G(uv_a) - uv_b| in frame pixels, through the local Jacobian of b: (...) float32.

    Args:
        uv_a, uv_b: (..., 2) texels of the same pixels. jacobian_b: (..., 2, 2), texels per pixel.
    """
    return texels_to_px(gauge(uv_a) - uv_b, jacobian_b)


def transfer_texture(rgba: np.ndarray, gauge: Gauge, target: Size | None = None) -> np.ndarray:
    """Carry a picture painted on canvas a to canvas b, so that both mappings show the same edit.

    Sampled premultiplied and bilinear; where canvas b is coarser the picture is blurred first.
    Beyond canvas a the result is transparent.

    Args:
        rgba: (H, W, 4) uint8 or float32 in [0, 1], straight alpha, the size of canvas a.
        target: size of the result; None takes canvas b's.
    Returns:
        (target.height, target.width, 4), straight alpha, of `rgba`'s type.
    """
    if rgba.ndim != 3 or rgba.shape[2] != 4:
        raise ValueError(f"rgba must be (H, W, 4), got {rgba.shape}")
    if rgba.shape[:2] != (gauge.a.height, gauge.a.width):
        raise ValueError(f"rgba must have the size of canvas a, {gauge.a}, got {rgba.shape[:2]}")
    target = target or gauge.b
    unit = 255 if rgba.dtype == np.uint8 else 1
    straight = rgba.astype(np.float32) / unit
    premultiplied = np.dstack([straight[..., :3] * straight[..., 3:], straight[..., 3]])
    x, y = np.meshgrid(np.arange(target.width), np.arange(target.height))
    at = gauge.inverse(np.stack([x, y], axis=-1))
    if min(target.height, target.width) > 1:
        scale = float(np.sqrt(np.nanmedian(np.abs(np.linalg.det(local_jacobian(at))))))
        if scale > 1.5:  # 0.5 px is what a box of one texel has; blur by what is missing
            sigma = 0.5 * float(np.sqrt(scale**2 - 1))
            premultiplied = cv2.GaussianBlur(premultiplied, (0, 0), sigma)
    at = np.nan_to_num(at, nan=-1e4)
    out = cv2.remap(premultiplied, at, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    out[..., :3] /= np.maximum(out[..., 3:], 1e-6)
    out = np.clip(out, 0, 1)
    return np.rint(out * 255).astype(np.uint8) if unit == 255 else out


class Regauged(LayerMapping):
    """A mapping seen on other canvases: each layer's uv goes through its gauge.

    One edit painted for those canvases then lands on this mapping's frames, with no resampling of
    the picture in between. Layers without a gauge keep their own canvas.
    """

    def __init__(self, mapping: LayerMapping, gauges: dict[str, Gauge]):
        self.mapping = mapping
        self.frame_count, self.frame_size = mapping.frame_count, mapping.frame_size
        self._gauges = [gauges.get(layer.name) for layer in mapping.layers]
        self.layers = tuple(
            Layer(layer.name, gauge.b) if gauge else layer
            for layer, gauge in zip(mapping.layers, self._gauges, strict=True)
        )

    def observe(self, t: int, rgb: np.ndarray) -> None:
        self.mapping.observe(t, rgb)

    def frame(self, t: int, size: Size | None = None) -> FrameMapping:
        return self.carry(self.mapping.frame(t, size))

    def carry(self, own: FrameMapping) -> FrameMapping:
        """The mapping's own answer for a frame, on the other canvases."""
        uv = [
            gauge(plane) if gauge else plane
            for gauge, plane in zip(self._gauges, own.uv, strict=True)
        ]
        return FrameMapping(np.stack(uv), own.alpha, own.confidence)


def spread(count: int, at_most: int) -> list[int]:
    """At most `at_most` of the numbers 0 .. count - 1, evenly spread, the ends among them."""
    if count <= at_most:
        return list(range(count))
    return sorted({round(i) for i in np.linspace(0, count - 1, at_most)})
