"""Camera rotation of a clip, frame by frame: what carries a sky that is infinitely far away.

Points are followed from frame to frame (motion), compared with where they were in a reference frame
half a second to a second ago (which of them are far: only those still agree on one rotation when
the camera travels), and matched with keyframes that saw the same direction (place: a pan out and
back returns to where it began). Two groups are fitted apart, sky
and far scene, under one rotation model K R K^-1: where they agree they are joined; where they do
not, either the clouds move by themselves (the scene fits one rotation well) or the scene is near
and shows parallax (it does not). What a frame cannot tell is held and eased: the angular velocity
may change only as fast as its measurement is trusted, so the sky never jumps.

The focal length is one per clip: told, or a usual field of view to begin with, found from views far
enough apart (`preprocess.lens`) and approached slowly so that nothing is seen of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import cv2
import numpy as np

from atlas.coords import Size, apply_homography, resize_positions
from atlas.planes import shrunk
from preprocess.camera_options import CameraOptions, CameraPose
from preprocess.keyframes import Keyframe, Keyframes
from preprocess.lens import PRIOR_SPREAD, FocalFound, LensFinder
from preprocess.rotation import (
    RayMatches,
    RotationFit,
    default_focal_px,
    fit_rays_robust,
    from_vector,
    intrinsics,
    nearest_rotation,
    rays,
    rescale,
    rotation_homography,
    to_vector,
)
from preprocess.tracks import (
    PointSet,
    StepMatches,
    expansion,
    find_corners,
    find_corners_evenly,
    follow,
    follow_on,
    working_size,
)

_LENS_FRAMES = 3
"""Views are compared for the lens once in so many frames."""
_JUDGE_FRAMES = 5
_CHECKED = 2
"""Points are followed back again, to see whether they were followed right, in one of so many."""
_SKY_SPACING = 40
"""Points of the sky keep the longer side over this apart."""
_TEXTURED = 0.55
"""A sky that yields less than this share of the points sought does not overrule the scene."""
_STRIPS = 6
_GROWS = 0.03
"""Points whose surroundings have grown by this much are near."""
_FAR = 0.3
"""Least weight by place of a point of the far scene."""


@dataclass
class _Shot:
    """What is known of the current shot; `rotation` and `velocity` are of the last frame."""

    rotation: np.ndarray = field(default_factory=lambda: np.eye(3))
    velocity: np.ndarray = field(default_factory=lambda: np.zeros(3))
    grey: np.ndarray | None = None
    points: PointSet | None = None
    pull: np.ndarray = field(default_factory=lambda: np.zeros(3))
    """Rotation vector by which keyframes pull in each frame."""
    age: int = 0
    """Frames seen of this shot before the current one."""
    old_rotation: np.ndarray = field(default_factory=lambda: np.eye(3))
    new_rotation: np.ndarray = field(default_factory=lambda: np.eye(3))
    keyframes: Keyframes = field(default_factory=Keyframes)
    sky_cover: float = 1.0
    """Share of the points sought in the sky that were found: low where it has no texture."""
    scene_trust: float = 0.7
    """How well the scene has fitted one rotation where sky and scene disagreed; [0, 1]."""


class CameraTracker:
    """Feed it the frames of a clip in order; it answers with a `CameraPose` each."""

    def __init__(self, size: Size, options: CameraOptions | None = None):
        self.size = size
        self.options = options or CameraOptions()
        self.work_size = working_size(size, self.options.long_side_px)
        self._scale = self.work_size.width / size.width
        self.focal_px = self.options.focal_px or default_focal_px(size)
        """Focal length believed now, pixels of the frame."""
        known = self.options.focal_known
        known = self.options.focal_px is not None if known is None else known
        prior = FocalFound(self.focal_px * self._scale, PRIOR_SPREAD)
        self._lens = None if known else LensFinder(self.work_size, prior)
        self._shot = _Shot(keyframes=Keyframes(self.options.keyframes))
        self.scene_matches = StepMatches(np.empty((0, 2)), np.empty((0, 2)))
        """Scene matches of the last step, for whoever wants the foreground's own motion."""

    def cut(self) -> None:
        """A new shot begins with the next frame; the focal length stays."""
        if self._lens is not None:
            self._lens.cut()
        self._shot = _Shot(keyframes=Keyframes(self.options.keyframes))

    def step(self, rgb: np.ndarray, sky: np.ndarray | None = None) -> CameraPose:
        """Pose of the next frame.

        Args:
            rgb: (H, W, 3) uint8 RGB. sky: (H, W) float matte, 1 = sky; None when there is none.
        """
        if rgb.shape[:2] != (self.size.height, self.size.width):
            raise ValueError(f"rgb must be {self.size}, got {Size(*rgb.shape[:2])}")
        return self.step_grey(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), sky)

    def step_grey(self, grey: np.ndarray, sky: np.ndarray | None = None) -> CameraPose:
        """The same from luma (H, W) uint8 and a matte, both of any size."""
        grey = shrunk(grey, self.work_size)
        sky_small = np.zeros(grey.shape, np.float32)
        if sky is not None:
            sky_small = cv2.resize(sky, self.work_size.wh, interpolation=cv2.INTER_LINEAR)
        shot = self._shot
        if self._lens is not None and shot.age % _LENS_FRAMES == 0:
            self._lens.see(grey)
        confidence = 1.0
        if shot.age > 0:
            confidence = self._advance(self._motion(grey, sky_small))
            if shot.age % 2:
                self._compare_with_reference()
            frames = self.options.anchor_frames
            if shot.age % frames == 0:
                shot.pull = self._anchor(grey, frames) / frames
            self._ease_focal()
            shot.rotation = nearest_rotation(shot.rotation @ from_vector(shot.pull))
        self._add_points(grey, sky_small)
        if shot.age % _JUDGE_FRAMES == 0:
            self._judge_texture(sky_small)
        self._take_reference()
        self._keep_keyframe(grey, confidence)
        shot.grey = grey
        shot.age += 1
        return self._pose(shot.rotation, confidence)

    def _pose(self, rotation: np.ndarray, confidence: float) -> CameraPose:
        homography = rotation_homography(rotation, intrinsics(self.size, self.focal_px))
        return CameraPose(homography, rotation.copy(), self.focal_px, confidence)

    @property
    def _camera(self) -> np.ndarray:
        return intrinsics(self.work_size, self.focal_px * self._scale)

    def _add_points(self, grey: np.ndarray, sky: np.ndarray) -> None:
        """Fill up each group (sky, far scene, near scene) where too few points are left.

        Args:
            sky: (h, w) float32 matte at the working size.
        """
        shot, count, long_side = self._shot, self.options.points, max(grey.shape)
        nothing = PointSet.fresh(np.empty((0, 2)), np.empty(0, bool), np.empty(0, np.float32))
        points = nothing if shot.points is None else shot.points
        far_points = ~points.in_sky & (points.weight > _FAR)
        present = [int(g.sum()) for g in (points.in_sky, far_points, ~points.in_sky & ~far_points)]
        wanted = [n < (0.7 if shot.age % 5 else 0.9) * count for n in present]
        if not any(wanted):
            return
        safe = cv2.erode(sky, np.ones((7, 7), np.uint8), borderType=cv2.BORDER_REFLECT) > 0.8
        scene = sky < 0.5
        weight_map = np.ones(grey.shape, np.float32)
        if scene.any() and not scene.all():
            below = cv2.distanceTransform(scene.astype(np.uint8), cv2.DIST_L2, 3)
            weight_map = np.exp(-below / (self.options.far_reach * long_side)).astype(np.float32)
        taken = np.zeros(grey.shape, np.uint8)
        for x, y in np.round(points.xy_px).astype(int).tolist():
            cv2.circle(taken, (x, y), long_side // 80, 1, -1)
        far = weight_map > _FAR
        masks = safe, scene & far, scene & ~far
        for i in np.flatnonzero(wanted):
            in_sky, missing = i == 0, count - present[i]
            distance_px = long_side / (80 if i == 1 else _SKY_SPACING)
            mask = masks[i]
            free = mask & (taken == 0)
            if i == 1:
                xy = find_corners_evenly(grey, free, missing, distance_px, _STRIPS)
            else:
                xy = find_corners(grey, free, missing, distance_px)
            columns, rows = np.round(xy).astype(int).T
            weight = np.ones(len(xy), np.float32) if in_sky else weight_map[rows, columns]
            points = points.joined(PointSet.fresh(xy, np.full(len(xy), in_sky), weight))
        shot.points = points

    def _judge_texture(self, sky: np.ndarray) -> None:
        """How many points the sky yields: what is found in a plain one are wires and branches.

        Args:
            sky: (h, w) float32 matte at the working size.
        """
        shot = self._shot
        assert shot.points is not None
        area_px = float((cv2.erode(sky, np.ones((7, 7), np.uint8)) > 0.8).sum())
        room = area_px / (1.5 * (max(sky.shape) / _SKY_SPACING) ** 2)
        cover = shot.points.in_sky.sum() / max(min(room, self.options.points), 1)
        shot.sky_cover = cover if shot.age == 0 else 0.5 * (shot.sky_cover + cover)

    def _motion(self, grey: np.ndarray, sky: np.ndarray) -> RotationFit | None:
        """Follow the points; rotation from this frame's rays to the last one's."""
        shot = self._shot
        assert shot.grey is not None
        assert shot.points is not None
        checked = shot.age % _CHECKED == 0
        there, good = (follow if checked else follow_on)(shot.grey, grey, shot.points.xy_px)
        before = shot.points.pick(good)
        after = replace(before, xy_px=there[good])
        scene = ~before.in_sky
        self.scene_matches = StepMatches(
            resize_positions(before.xy_px[scene], self.work_size, self.size),
            resize_positions(after.xy_px[scene], self.work_size, self.size),
        )
        weight = before.weight * (0.1 + before.far)
        matches = after.xy_px, before.xy_px, before.in_sky, weight
        fit = self._fit(*matches, self.options.tolerance_px)
        columns, rows = np.round(after.xy_px).astype(int).T
        matte = sky[rows, columns] if len(after) else np.empty(0, np.float32)
        shot.points = after.pick(np.where(after.in_sky, matte > 0.5, matte < 0.9))
        return fit

    def _compare_with_reference(self) -> None:
        """Learn which points are far, and pull the rotation toward what those say.

        Over a second of travel near things leave any one rotation; what still agrees is far.
        """
        shot = self._shot
        assert shot.points is not None
        known = np.isfinite(shot.points.old_px[:, 0])
        points = shot.points.pick(known)
        steady = self._steady(points.xy_px, points.old_px)
        weight = points.weight * (0.3 + points.far) * steady
        matches = points.xy_px, points.old_px, points.in_sky, weight
        fit = self._fit(*matches, self.options.tolerance_px)
        if fit is None or fit.count < 8 or fit.share < 0.15:
            return
        measured = rays(points.xy_px, self._camera) @ fit.rotation.T
        error = np.linalg.norm(measured - rays(points.old_px, self._camera), axis=1)
        agrees = (error * self._camera[0, 0] < self.options.tolerance_px) & (steady > 0.5)
        far = shot.points.far.copy()
        far[known] += 0.28 * (agrees - far[known])
        shot.points = replace(shot.points, far=far)
        step = self._pull(shot.old_rotation @ fit.rotation, 0.5 * min(1.0, fit.count / 25))
        shot.rotation = nearest_rotation(shot.rotation @ from_vector(step))

    def _steady(self, now_px: np.ndarray, then_px: np.ndarray) -> np.ndarray:
        """(N,) near 1 where the surroundings of a point have kept their size, else near 0."""
        camera = self._camera
        grown = expansion(rays(now_px, camera), rays(then_px, camera))
        return np.where(np.isnan(grown), 0.5, 0.03 + 0.97 * np.exp(-((grown / _GROWS) ** 2)))

    def _pull(self, wanted: np.ndarray, gain: float, frames: int = 1) -> np.ndarray:
        """(3,) a share `gain` of the way to the rotation `wanted`, as a rotation vector.

        At most `correction_px` for each of the frames over which it will be spread.
        """
        error = to_vector(self._shot.rotation.T @ wanted)
        most = frames * self.options.correction_px / self._camera[0, 0]
        return error * min(gain, most / (float(np.linalg.norm(error)) + 1e-12))

    def _take_reference(self) -> None:
        """Every so often the newer reference becomes the older one and this frame the newer."""
        shot = self._shot
        assert shot.points is not None
        if shot.age % self.options.reference_frames:
            return
        shot.points = replace(shot.points, old_px=shot.points.new_px, new_px=shot.points.xy_px)
        shot.old_rotation, shot.new_rotation = shot.new_rotation, shot.rotation.copy()
        if shot.age == 0:
            shot.points = replace(shot.points, old_px=shot.points.xy_px)

    def _fit(
        self,
        source_px: np.ndarray,
        target_px: np.ndarray,
        in_sky: np.ndarray,
        weight: np.ndarray,
        tolerance_px: float,
    ) -> RotationFit | None:
        """The camera's rotation from sky and scene matches, told apart where they disagree."""
        camera = self._camera
        matches = RayMatches(rays(source_px, camera), rays(target_px, camera), weight, source_px)
        sky, scene = (
            fit_rays_robust(matches.pick(which), camera, tolerance_px)
            for which in (in_sky, ~in_sky)
        )
        if sky is None or scene is None:
            return sky or scene
        if self._shot.sky_cover < _TEXTURED and scene.quality > 0.15:
            return scene
        turn = to_vector(sky.rotation.T @ scene.rotation)
        if min(sky.quality, scene.quality) < 0.3 * max(sky.quality, scene.quality):
            return max(sky, scene, key=lambda f: f.quality)
        if np.linalg.norm(turn) * camera[0, 0] < tolerance_px:
            return fit_rays_robust(matches, camera, tolerance_px, scene.rotation) or scene
        # Parallax leaves part of the scene off any one rotation; drifting clouds leave none.
        trust = self._shot.scene_trust + 0.1 * ((scene.share > 0.6) - self._shot.scene_trust)
        self._shot.scene_trust = max(trust, 0.25)
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
        shot.rotation = nearest_rotation(shot.rotation @ from_vector(shot.velocity))
        return confidence

    def _anchor(self, grey: np.ndarray, frames: int) -> np.ndarray:
        """(3,) pull toward what the oldest keyframe that can be matched says, for `frames`."""
        reach = 0.55 * min(self.work_size.wh) / self._camera[0, 0]
        for keyframe in self._shot.keyframes.toward(self._shot.rotation, reach)[:2]:
            fit = self._match(keyframe, grey)
            if fit is not None and fit.quality > 0.4 and fit.share > 0.45:
                keyframe.failures = 0
                gain = 1 - (1 - 0.3 * fit.quality) ** frames
                return self._pull(keyframe.rotation @ fit.rotation, gain, frames)
            keyframe.failures += 1
        return np.zeros(3)

    def _match(self, keyframe: Keyframe, grey: np.ndarray) -> RotationFit | None:
        """This frame's rays to the keyframe's."""
        relative = self._shot.rotation.T @ keyframe.rotation
        guess = apply_homography(rotation_homography(relative, self._camera), keyframe.xy_px)
        seen = (guess > 0).all(axis=1) & (guess < self.work_size.wh).all(axis=1)
        if seen.sum() < 8:
            return None
        xy, in_sky, weight = keyframe.xy_px[seen], keyframe.in_sky[seen], keyframe.weight[seen]
        there, good = follow(keyframe.grey, grey, xy, guess[seen])
        matches = there[good], xy[good], in_sky[good], weight[good]
        return self._fit(*matches, self.options.keyframe_tolerance_px)

    def _ease_focal(self) -> None:
        """Go a little toward the focal length that the views speak for."""
        wanted_px = None if self._lens is None else self._lens.best_px()
        if wanted_px is None:
            return
        factor = float(np.clip(wanted_px / (self.focal_px * self._scale), 0.97, 1.03))
        self.focal_px *= factor
        shot = self._shot
        shot.velocity = shot.velocity * [1 / factor, 1 / factor, 1]
        shot.rotation = rescale(shot.rotation, 1 / factor)
        for keyframe in shot.keyframes.held:
            keyframe.rotation = rescale(keyframe.rotation, 1 / factor)
        shot.old_rotation = rescale(shot.old_rotation, 1 / factor)
        shot.new_rotation = rescale(shot.new_rotation, 1 / factor)

    def _keep_keyframe(self, grey: np.ndarray, confidence: float) -> None:
        """Remember this frame when nothing remembered looks the same way."""
        shot, points = self._shot, self._shot.points
        assert points is not None
        near = 0.25 * min(self.work_size.wh) / self._camera[0, 0]
        if shot.keyframes.wants(shot.rotation, near, sure=confidence >= 0.5):
            weight = points.weight * (0.1 + points.far)
            here = points.xy_px, points.in_sky, weight
            shot.keyframes.add(Keyframe(grey, *here, shot.rotation.copy()))
