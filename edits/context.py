"""What rendering knows beside the mapping, and one frame with all that is known about it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from atlas.coords import Size, folded
from atlas.errors import InputError
from atlas.mapping import FrameMapping, LayerMapping
from atlas.texture import Texture, sample
from edits.unmix import Index


@dataclass(frozen=True, kw_only=True)
class RenderContext:
    """What rendering needs to know beside the mapping.

    textures: what each layer looked like, top to bottom; None where nothing is known (fast path).
    shading: frame -> (L, H, W, 3) float32 gain of each layer's colours, at any size; or None.
    first_frame: source frame that is frame 0 of the mapping; frames before it pass unchanged.
    times_s: presentation time of each source frame; sky videos play by it.
    fps: frame rate for frames that `times_s` does not cover.
    read_frame: source frame number -> (H, W, 3) uint8 RGB; edits that refer to one frame need it.
    fresh_mapping: for mappings that learn from the frames as they pass: another one, which has
        seen none; None for those that know every frame at once.
    focal: focal length of the camera, texels of the canvas, where the mapping knows it.
    sky_matte: (H, W, 3) uint8 RGB to (H, W) float32, 1 = sky; skies cut out of photos need it.
    """

    textures: Sequence[Texture] | None = None
    shading: Callable[[int], np.ndarray] | None = None
    first_frame: int = 0
    times_s: Sequence[float] = ()
    fps: float = 25.0
    read_frame: Callable[[int], np.ndarray] | None = None
    fresh_mapping: Callable[[], LayerMapping] | None = None
    focal: float | None = None
    sky_matte: Callable[[np.ndarray], np.ndarray] | None = None

    def time_s(self, source_frame: int) -> float:
        """Seconds since the first frame that the mapping covers."""
        if source_frame < len(self.times_s):
            start = self.times_s[min(self.first_frame, source_frame)]
            return float(self.times_s[source_frame]) - float(start)
        return (source_frame - self.first_frame) / self.fps


@dataclass(frozen=True)
class Sight:
    """One frame and where its pixels lie.

    rgb: (H, W, 3) float32, [0, 1]. found: its mapping, at the same size.
    gains: (L, H, W, 3) float32 shading, or None.
    """

    rgb: np.ndarray
    found: FrameMapping
    gains: np.ndarray | None

    @property
    def size(self) -> Size:
        return Size(*self.rgb.shape[:2])


def read_source_frame(context: RenderContext, frame: int) -> np.ndarray:
    """(H, W, 3) uint8 RGB: source frame number `frame`."""
    if context.read_frame is None:
        raise ValueError("context.read_frame is None, but an edit refers to a frame")
    return context.read_frame(frame)


def look_at(
    mapping: LayerMapping, context: RenderContext, frame: int, size: Size | None = None
) -> Sight:
    """Source frame number `frame`, at its own size or `size`, and its mapping.

    A mapping that learns as frames pass is asked by a fresh one that is shown all frames up to it.
    """
    t = check_frame(mapping, context, frame)
    if context.fresh_mapping is not None:
        mapping = context.fresh_mapping()
        for earlier in range(t):
            mapping.observe(earlier, read_source_frame(context, context.first_frame + earlier))
    rgb = read_source_frame(context, frame)
    mapping.observe(t, rgb)
    if size is not None and size != Size(*rgb.shape[:2]):
        rgb = cv2.resize(rgb, size.wh, interpolation=cv2.INTER_AREA)
    size = Size(*rgb.shape[:2])
    gains = None if context.shading is None else fitted_gains(context.shading(t), size)
    return Sight(rgb.astype(np.float32) / 255, mapping.frame(t, size), gains)


def check_frame(mapping: LayerMapping, context: RenderContext, frame: int) -> int:
    """Number within the mapping of a source frame; refuses those that it does not cover."""
    t = frame - context.first_frame
    if not 0 <= t < mapping.frame_count:
        last = context.first_frame + mapping.frame_count - 1
        raise InputError(f"there is no frame {frame} to edit; wanted {context.first_frame}..{last}")
    return t


def fitted_gains(gains: np.ndarray, size: Size) -> np.ndarray:
    """(L, H, W, 3) gains at another size."""
    if gains.shape[1:3] == (size.height, size.width):
        return gains
    return np.stack([cv2.resize(g, size.wh, interpolation=cv2.INTER_LINEAR) for g in gains])


def atlas_color(
    context: RenderContext,
    found: FrameMapping,
    layer: int,
    gain: np.ndarray | None,
    at: Index = ...,
) -> np.ndarray | None:
    """(H, W, 3) float32: the layer's colour as the atlas has it, shaded; None if unknown.

    at: which pixels; of those that two arrays of indices pick, (N, 3).
    """
    if context.textures is None:
        return None
    rgb, uv = context.textures[layer].rgb, found.uv[layer][at]
    if uv.ndim == 2:
        seen = sample(rgb, folded(uv)).reshape(-1, 3)[: len(uv)]
    else:
        seen = sample(rgb, np.ascontiguousarray(uv))
    return seen if gain is None else seen * gain[at]
