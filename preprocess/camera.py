"""Camera rotation of a clip, frame by frame: what carries a sky that is infinitely far away.

Each frame's points are followed from the frame before (motion) and from keyframes that saw the same
direction (place: a pan out and back returns to where it began). Two groups are fitted apart, sky
and far scene, under one rotation model K R K^-1: where they agree they are joined; where they do
not, either the clouds move by themselves (the scene fits one rotation well) or the scene is near
and shows parallax (it does not). What a frame cannot tell is held and eased: the angular velocity
may change only as fast as its measurement is trusted, so the sky never jumps.

The focal length is one per clip: a usual field of view to begin with, refined from keyframe
matches far enough apart, and approached slowly so that nothing is seen of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np

from atlas.coords import Size, apply_homography, resize_positions
from preprocess.focal import FocalSearch
from preprocess.rotation import (
    RotationFit,
    default_focal_px,
    fit_rotation_robust,
    from_vector,
    intrinsics,
    rescale,
    rotation_homography,
    to_vector,
)
from preprocess.tracks import find_corners, follow


@dataclass(frozen=True, kw_only=True)
class CameraOptions:
    """How `CameraTracker` works. Pixels are those of its working size."""

    focal_px: float | None = None
    """Focal length in pixels of the frame; None starts from a usual one and refines it."""
    long_side_px: int = 480
    """Working size: the frame's longer side; pixels."""
    tolerance_px: float = 0.8
    """Matches within this of a rotation support it."""
    points: int = 140
    """Corners sought per group (sky, far scene)."""
    far_reach: float = 0.12
    """Scene this far under the skyline counts 1/e as much as on it; share of the longer side."""
    keyframes: int = 24
    """Most keyframes kept."""
    correction_px: float = 0.8
    """Most that a keyframe may pull the sky in one frame."""


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


@dataclass
class _Keyframe:
    grey: np.ndarray
    xy_px: np.ndarray
    in_sky: np.ndarray
    weight: np.ndarray
    rotation: np.ndarray
    failures: int = 0


@dataclass(frozen=True)
class _Points:
    """Corners of one frame, (N, 2) px; whether each lies in the sky; how far away it may be."""

    xy_px: np.ndarray
    in_sky: np.ndarray
    weight: np.ndarray


@dataclass(frozen=True)
class StepMatches:
    """Matches between the frame before and this one outside the sky, pixels of the frame."""

    before_px: np.ndarray
    after_px: np.ndarray


@dataclass
class _Shot:
    """What is known of the current shot; `rotation` and `velocity` are of the last frame."""

    rotation: np.ndarray = field(default_factory=lambda: np.eye(3))
    velocity: np.ndarray = field(default_factory=lambda: np.zeros(3))
    keyframes: list[_Keyframe] = field(default_factory=list)
    since_keyframe: int = 0
    scene_trust: float = 0.7
    """How well the scene has fitted one rotation where sky and scene disagreed; [0, 1]."""


class CameraTracker:
    """Feed it the frames of a clip in order; it answers with a `CameraPose` each."""

    def __init__(self, size: Size, options: CameraOptions | None = None):
        self.size = size
        self.options = options or CameraOptions()
        factor = min(1.0, self.options.long_side_px / max(size.height, size.width))
        self.work_size = Size(
            max(1, round(size.height * factor)), max(1, round(size.width * factor))
        )
        self._scale = self.work_size.width / size.width
        self.focal_px = self.options.focal_px or default_focal_px(size)
        """Focal length believed now, pixels of the frame."""
        self._search = FocalSearch() if self.options.focal_px is None else None
        self._shot = _Shot()
        self._before: tuple[np.ndarray, _Points] | None = None
        self.scene_matches = StepMatches(np.empty((0, 2)), np.empty((0, 2)))
        """Scene matches of the last step, for whoever wants the foreground's own motion."""

    def cut(self) -> None:
        """A new shot begins with the next frame; the focal length stays."""
        self._shot = _Shot()
        self._before = None

    def step(self, rgb: np.ndarray, sky: np.ndarray | None = None) -> CameraPose:
        """Pose of the next frame.

        Args:
            rgb: (H, W, 3) uint8 RGB. sky: (H, W) float matte, 1 = sky; None when there is none.
        """
        if rgb.shape[:2] != (self.size.height, self.size.width):
            raise ValueError(f"rgb must be {self.size}, got {Size(*rgb.shape[:2])}")
        small = cv2.resize(rgb, self.work_size.wh, interpolation=cv2.INTER_AREA)
        grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
        points = self._choose_points(grey, sky)
        shot = self._shot
        if self._before is None:
            confidence = 1.0
        else:
            fit = self._motion(grey)
            confidence = self._advance(fit)
            self._anchor(grey)
        self._before = (grey, points)
        self._keep_keyframe(grey, points, confidence)
        return self._pose(shot.rotation, confidence)

    def _pose(self, rotation: np.ndarray, confidence: float) -> CameraPose:
        homography = rotation_homography(rotation, intrinsics(self.size, self.focal_px))
        return CameraPose(homography, rotation.copy(), self.focal_px, confidence)

    @property
    def _camera(self) -> np.ndarray:
        return intrinsics(self.work_size, self.focal_px * self._scale)

    def _choose_points(self, grey: np.ndarray, sky: np.ndarray | None) -> _Points:
        """Corners well inside the sky, and corners of the scene with their weight as far ones."""
        count, long_side = self.options.points, max(grey.shape)
        distance_px = long_side / 40
        if sky is None:
            sky_small = np.zeros(grey.shape, np.float32)
        else:
            sky_small = cv2.resize(sky, self.work_size.wh, interpolation=cv2.INTER_AREA)
        safe = cv2.erode(sky_small, np.ones((9, 9), np.uint8), borderType=cv2.BORDER_REFLECT) > 0.95
        scene = sky_small < 0.5
        in_sky = find_corners(grey, safe, count, distance_px)
        if scene.all() or not scene.any():
            weight_map = np.ones(grey.shape, np.float32)
        else:
            below = cv2.distanceTransform(scene.astype(np.uint8), cv2.DIST_L2, 3)
            weight_map = np.exp(-below / (self.options.far_reach * long_side)).astype(np.float32)
        far = find_corners(grey, scene & (weight_map > 0.3), count, distance_px / 2)
        near = find_corners(grey, scene & (weight_map <= 0.3), count, distance_px)
        xy = np.concatenate([in_sky, far, near])
        label = np.arange(len(xy)) < len(in_sky)
        columns, rows = np.round(xy).astype(int).T
        return _Points(xy, label, np.where(label, 1, weight_map[rows, columns]))

    def _motion(self, grey: np.ndarray) -> RotationFit | None:
        """Rotation from the frame before to this one, this frame's rays to the last one's."""
        assert self._before is not None
        last_grey, last = self._before
        there, good = follow(last_grey, grey, last.xy_px)
        scene = good & ~last.in_sky
        self.scene_matches = StepMatches(
            resize_positions(last.xy_px[scene], self.work_size, self.size),
            resize_positions(there[scene], self.work_size, self.size),
        )
        return self._fit(there[good], last.xy_px[good], last.in_sky[good], last.weight[good])

    def _fit(
        self, source_px: np.ndarray, target_px: np.ndarray, in_sky: np.ndarray, weight: np.ndarray
    ) -> RotationFit | None:
        """The camera's rotation from sky and scene matches, told apart where they disagree."""
        camera, tolerance = self._camera, self.options.tolerance_px

        def fit(which: np.ndarray) -> RotationFit | None:
            return fit_rotation_robust(
                source_px[which], target_px[which], camera, weight[which], tolerance
            )

        sky, scene = fit(in_sky), fit(~in_sky)
        if sky is None or scene is None:
            return sky or scene
        turn = to_vector(sky.rotation.T @ scene.rotation)
        if np.linalg.norm(turn) * camera[0, 0] < tolerance or min(sky.quality, scene.quality) < 0.1:
            if min(sky.quality, scene.quality) < 0.1:
                return max(sky, scene, key=lambda f: f.quality)
            joint = fit(np.ones(len(in_sky), bool))
            return joint or scene
        # Parallax leaves part of the scene off any one rotation; drifting clouds leave none.
        self._shot.scene_trust += 0.1 * ((scene.share > 0.6) - self._shot.scene_trust)
        return scene if self._shot.scene_trust * scene.quality > 0.5 * sky.quality else sky

    def _advance(self, fit: RotationFit | None) -> float:
        """Turn on by the measured velocity as far as it is trusted; returns the confidence."""
        shot = self._shot
        held = 0.9 * shot.velocity
        confidence = fit.quality if fit else 0.0
        if fit is None or confidence < 0.02:
            shot.velocity = held
        else:
            gain = min(1.0, confidence / 0.5) ** 2
            change = gain * (to_vector(fit.rotation) - held)
            if gain < 1:  # a poor measurement may not throw the sky about
                most = (0.3 + 4 * gain) / self._camera[0, 0]
                change *= min(1.0, most / (np.linalg.norm(change) + 1e-12))
            shot.velocity = held + change
        shot.rotation = _tidy(shot.rotation @ from_vector(shot.velocity))
        return confidence

    def _anchor(self, grey: np.ndarray) -> None:
        """Pull the rotation toward what the oldest keyframe that can be matched says."""
        shot, focal = self._shot, self._camera[0, 0]
        for keyframe in self._nearby()[:2]:
            fit = self._match(keyframe, grey)
            if fit is not None and fit.quality > 0.4 and fit.share > 0.45:
                keyframe.failures = 0
                error = to_vector(shot.rotation.T @ keyframe.rotation @ fit.rotation)
                most = self.options.correction_px / focal
                length = np.linalg.norm(error) + 1e-12
                step = error * min(0.5 * fit.quality, most / length)
                shot.rotation = _tidy(shot.rotation @ from_vector(step))
                return
            keyframe.failures += 1

    def _nearby(self) -> list[_Keyframe]:
        """Keyframes that look where this frame looks, oldest first; hopeless ones are dropped."""
        shot = self._shot
        shot.keyframes = [k for k in shot.keyframes if k.failures < 15]
        reach = 0.55 * min(self.work_size.wh) / self._camera[0, 0]
        turns = [np.linalg.norm(to_vector(k.rotation.T @ shot.rotation)) for k in shot.keyframes]
        return [k for k, turn in zip(shot.keyframes, turns, strict=True) if turn < reach]

    def _match(self, keyframe: _Keyframe, grey: np.ndarray) -> RotationFit | None:
        """This frame's rays to the keyframe's."""
        relative = self._shot.rotation.T @ keyframe.rotation
        guess = apply_homography(rotation_homography(relative, self._camera), keyframe.xy_px)
        seen = (guess > 0).all(axis=1) & (guess < self.work_size.wh).all(axis=1)
        if seen.sum() < 8:
            return None
        xy, in_sky, weight = keyframe.xy_px[seen], keyframe.in_sky[seen], keyframe.weight[seen]
        there, good = follow(keyframe.grey, grey, xy, guess[seen])
        fit = self._fit(there[good], xy[good], in_sky[good], weight[good])
        if fit is not None and self._search is not None:
            self._refine_focal(there[good], xy[good], weight[good], fit)
        return fit

    def _refine_focal(
        self, source_px: np.ndarray, target_px: np.ndarray, weight: np.ndarray, fit: RotationFit
    ) -> None:
        """Let a match far enough apart speak for a focal length, and ease toward the best one."""
        assert self._search is not None
        if fit.quality < 0.6:
            return
        self._search.add(source_px, target_px, weight, self._camera)
        wanted_px = self._search.best_px()
        if wanted_px is None:
            return
        factor = float(np.clip(wanted_px / (self.focal_px * self._scale), 0.98, 1.02))
        self.focal_px *= factor
        shot = self._shot
        shot.velocity = shot.velocity * [1 / factor, 1 / factor, 1]
        shot.rotation = rescale(shot.rotation, 1 / factor)
        for keyframe in shot.keyframes:
            keyframe.rotation = rescale(keyframe.rotation, 1 / factor)

    def _keep_keyframe(self, grey: np.ndarray, points: _Points, confidence: float) -> None:
        """Remember this frame when nothing remembered looks the same way."""
        shot = self._shot
        shot.since_keyframe += 1
        if shot.keyframes and (confidence < 0.5 or shot.since_keyframe < 6):
            return
        near = 0.25 * min(self.work_size.wh) / self._camera[0, 0]
        for keyframe in shot.keyframes:
            turn = np.linalg.norm(to_vector(keyframe.rotation.T @ shot.rotation))
            if turn < near and keyframe.failures < 3:
                return
        shot.since_keyframe = 0
        shot.keyframes.append(
            _Keyframe(grey, points.xy_px, points.in_sky, points.weight, shot.rotation.copy())
        )
        if len(shot.keyframes) > self.options.keyframes:
            del shot.keyframes[self._most_redundant()]

    def _most_redundant(self) -> int:
        """Index of the keyframe, not the first one, whose nearest older neighbour is nearest."""
        rotations = [k.rotation for k in self._shot.keyframes]
        gaps = [
            min(float(np.linalg.norm(to_vector(old.T @ new))) for old in rotations[:i])
            for i, new in enumerate(rotations)
            if i
        ]
        return 1 + int(np.argmin(gaps))


def _tidy(rotation: np.ndarray) -> np.ndarray:
    """The nearest rotation matrix."""
    u, _, vt = np.linalg.svd(rotation)
    return u @ vt
