"""Frames, flow and layer shares of a clip, read through a cache of bounded size."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import cv2
import numpy as np

from atlas.clip import Clip
from atlas.coords import Size
from atlas.mapping import visible_shares

SMALLEST_PX = 64
"""Frames whose shorter side would fall below this are not halved."""


class ClipStore:
    """A clip's arrays on demand; the most recently used stay in memory up to `budget_mb`.

    Attributes:
        clip: the clip. size: size of what comes out, pixels. frame_count: number of frames.
    """

    def __init__(self, clip: Clip, budget_mb: float = 3000.0, size: Size | None = None):
        self.clip = clip
        self.size: Size = size or clip.size
        self.frame_count: int = clip.frame_count
        self.budget_mb = budget_mb
        self._half: ClipStore | None = None
        self._held_bytes = 0
        self._cache: OrderedDict[tuple[str, int, int], np.ndarray] = OrderedDict()

    def frame(self, t: int) -> np.ndarray:
        """(H, W, 3) uint8 RGB."""
        return self._get("frame", t, 0, lambda: self._fitted(self.clip.frame(t)))

    def grey(self, t: int) -> np.ndarray:
        """(H, W) uint8 luma."""
        return self._get("grey", t, 0, lambda: cv2.cvtColor(self.frame(t), cv2.COLOR_RGB2GRAY))

    def flow(self, source: int, target: int) -> np.ndarray:
        """(H, W, 2) float16 px of this store's size, adjacent frames; see `Clip.flow`."""

        def read() -> np.ndarray:
            full = self.clip.size
            scale = np.array([self.size.width / full.width, self.size.height / full.height])
            flow = self._fitted(self.clip.flow(source, target))
            return (flow * scale.astype(np.float32)).astype(np.float16)

        return self._get("flow", source, target, read)

    def alpha(self, t: int) -> np.ndarray:
        """(L, H, W) float32: the layers' own opacities as masked; see `Clip.alpha`."""

        def read() -> np.ndarray:
            planes = [self._fitted(plane) for plane in self.clip.alpha(t)]
            return np.rint(np.stack(planes) * 255).astype(np.uint8)

        return self._get("alpha", t, 0, read).astype(np.float32) / 255

    def share(self, layer: int, t: int) -> np.ndarray:
        """(H, W) float32: share of each pixel of frame `t` that shows the layer."""
        return visible_shares(self.alpha(t))[layer]

    @property
    def half(self) -> ClipStore:
        """The same clip at half the size, with a quarter of the memory; itself where tiny."""
        if self._half is None:
            half = Size(max(self.size.height // 2, 1), max(self.size.width // 2, 1))
            tiny = min(half.wh) < SMALLEST_PX
            self._half = self if tiny else ClipStore(self.clip, self.budget_mb / 4, half)
        return self._half

    def forget(self) -> None:
        """Let go of all that is held in memory."""
        self._cache.clear()
        self._held_bytes, self._half = 0, None

    def _fitted(self, picture: np.ndarray) -> np.ndarray:
        if picture.shape[:2] == (self.size.height, self.size.width):
            return picture
        return cv2.resize(picture, self.size.wh, interpolation=cv2.INTER_AREA)

    def _get(self, kind: str, a: int, b: int, read: Callable[[], np.ndarray]) -> np.ndarray:
        key = (kind, a, b)
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        value = read()
        self._cache[key] = value
        self._held_bytes += value.nbytes
        while self._held_bytes > self.budget_mb * 1e6 and len(self._cache) > 1:
            _, dropped = self._cache.popitem(last=False)
            self._held_bytes -= dropped.nbytes
        return value
