"""Frames that a camera track remembers, so that a pan out and back returns to where it began."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from preprocess.rotation import to_vector

_HOPELESS = 15
"""A keyframe that could not be matched so many times in a row is dropped."""
_LEAST_GAP = 6
"""Frames between two keyframes at least."""


@dataclass
class Keyframe:
    """One frame that is remembered.

    grey: (h, w) uint8. xy_px: (N, 2) points in it. in_sky: (N,) bool. weight: (N,) how far away
    they may be. rotation: (3, 3), rays of this frame to rays of the shot's first frame.
    """

    grey: np.ndarray
    xy_px: np.ndarray
    in_sky: np.ndarray
    weight: np.ndarray
    rotation: np.ndarray
    failures: int = 0


@dataclass
class Keyframes:
    """Those of one shot, oldest first, `most` of them."""

    most: int = 24
    held: list[Keyframe] = field(default_factory=list)
    _since: int = 0

    def toward(self, rotation: np.ndarray, reach: float) -> list[Keyframe]:
        """Those that look within `reach` radians of a rotation; hopeless ones are dropped."""
        self.held = [k for k in self.held if k.failures < _HOPELESS]
        return [k for k in self.held if _turn(k.rotation, rotation) < reach]

    def wants(self, rotation: np.ndarray, near: float, *, sure: bool) -> bool:
        """Whether the next frame should be remembered: nothing held looks the same way.

        Args:
            near: radians that count as the same way. sure: whether its rotation can be trusted.
        """
        self._since += 1
        if self.held and (not sure or self._since < _LEAST_GAP):
            return False
        held = (k for k in self.held if k.failures < 3)
        return all(_turn(k.rotation, rotation) >= near for k in held)

    def add(self, keyframe: Keyframe) -> None:
        """Remember a frame; the most redundant one, not the first, makes room."""
        self._since = 0
        self.held.append(keyframe)
        if len(self.held) > self.most:
            del self.held[self._most_redundant()]

    def _most_redundant(self) -> int:
        """Index of the keyframe, not the first one, whose nearest older neighbour is nearest."""
        rotations = [k.rotation for k in self.held]
        gaps = [
            min(_turn(old, new) for old in rotations[:i]) for i, new in enumerate(rotations) if i
        ]
        return 1 + int(np.argmin(gaps))


def _turn(a: np.ndarray, b: np.ndarray) -> float:
    """Radians between two rotations."""
    return float(np.linalg.norm(to_vector(a.T @ b)))
