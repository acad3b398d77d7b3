"""Frames, flow and layer shares of a clip, read through a cache of bounded size."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import cv2
import numpy as np

from atlas.clip import Clip
from atlas.coords import Size
from atlas.mapping import visible_shares


class ClipStore:
    """A clip's arrays on demand; the most recently used stay in memory up to `budget_mb`.

    Attributes:
        clip: the clip. size: frame size, pixels. frame_count: number of frames.
    """

    def __init__(self, clip: Clip, budget_mb: float = 3000.0):
        self.clip = clip
        self.size: Size = clip.size
        self.frame_count: int = clip.frame_count
        self._budget_bytes = budget_mb * 1e6
        self._held_bytes = 0
        self._cache: OrderedDict[tuple[str, int, int], np.ndarray] = OrderedDict()

    def frame(self, t: int) -> np.ndarray:
        """(H, W, 3) uint8 RGB."""
        return self._get("frame", t, 0, lambda: self.clip.frame(t))

    def grey(self, t: int) -> np.ndarray:
        """(H, W) uint8 luma."""
        return self._get("grey", t, 0, lambda: cv2.cvtColor(self.frame(t), cv2.COLOR_RGB2GRAY))

    def flow(self, source: int, target: int) -> np.ndarray:
        """(H, W, 2) float16 px, adjacent frames; see `Clip.flow`."""
        read = lambda: self.clip.flow(source, target).astype(np.float16)  # noqa: E731
        return self._get("flow", source, target, read)

    def alpha(self, t: int) -> np.ndarray:
        """(L, H, W) float32: the layers' own opacities as masked; see `Clip.alpha`."""
        read = lambda: np.rint(self.clip.alpha(t) * 255).astype(np.uint8)  # noqa: E731
        return self._get("alpha", t, 0, read).astype(np.float32) / 255

    def share(self, layer: int, t: int) -> np.ndarray:
        """(H, W) float32: share of each pixel of frame `t` that shows the layer."""
        return visible_shares(self.alpha(t))[layer]

    def _get(self, kind: str, a: int, b: int, read: Callable[[], np.ndarray]) -> np.ndarray:
        key = (kind, a, b)
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        value = read()
        self._cache[key] = value
        self._held_bytes += value.nbytes
        while self._held_bytes > self._budget_bytes and len(self._cache) > 1:
            _, dropped = self._cache.popitem(last=False)
            self._held_bytes -= dropped.nbytes
        return value
