"""What a camera tracker is told, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class CameraOptions:
    """How `CameraTracker` works. Pixels are those of its working size."""

    focal_px: float | None = None
    """Focal length in pixels of the frame to begin with; None: a usual one."""
    focal_known: bool | None = None
    """Whether it is right; else it is refined from keyframes. None: where it is given."""
    long_side_px: int = 480
    """Working size: the frame's longer side; pixels."""
    tolerance_px: float = 0.8
    """Matches within this of a rotation support it."""
    points: int = 50
    """Corners sought per group: sky, far scene, near scene."""
    keyframe_tolerance_px: float = 2.0
    """The same for matches with keyframes, which lens distortion and small parallax displace."""
    far_reach: float = 0.05
    """Scene this far under the skyline counts 1/e as much as on it; share of the longer side."""
    reference_frames: int = 14
    """A new reference is taken this often; points are compared over once to twice as many."""
    keyframes: int = 24
    """Most keyframes kept."""
    correction_px: float = 0.8
    """Most that a keyframe may pull the sky in one frame."""
    anchor_frames: int = 3
    """Keyframes are matched once in so many frames; what they say is spread over as many."""


@dataclass(frozen=True)
class CameraPose:
    """Where a frame looks.

    homography: (3, 3) float64, frame pixels to pixels of the shot's first frame: K R K^-1.
    rotation: (3, 3) float64, rays of this frame to rays of the shot's first frame.
    focal_px: focal length believed at this frame, pixels of the frame.
    confidence: [0, 1]; 0 = held, nothing could be followed.
    """

    homography: np.ndarray
    rotation: np.ndarray
    focal_px: float
    confidence: float
