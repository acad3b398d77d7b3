"""The camera track on scenes whose rotation is known: error in degrees."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import cv2
import numpy as np

from atlas.coords import Size, apply_homography
from atlas.glimpse import glimpse_size
from preprocess.camera import CameraOptions, CameraTracker
from preprocess.lookahead import LONG_SIDE_PX, look_ahead
from preprocess.rotation import angle_between, intrinsics, rotation_homography
from tests.scene_presets import SceneOptions, make_scene
from tests.synthetic import Scene

CASES: dict[str, dict[str, Any]] = {
    "textured sky": {"camera": "hand"},
    "textureless sky": {"camera": "hand", "sky": "plain"},
    "moving clouds": {"camera": "hand", "drift_px": 0.6},
    "parallax foreground": {"camera": "hand", "parallax": True},
    "parallax, textureless sky": {"camera": "hand", "parallax": True, "sky": "plain"},
    "pan out and back": {"camera": "pan_back"},
    "pan out and back, textureless sky": {"camera": "pan_back", "sky": "plain"},
}


LENSES = ("told", "file", "live")
"""Focal length told; found by looking ahead, as in a file; found on the way, as of a live input."""


def measure_case(
    name: str, size: Size, frame_count: int, seeds: int, lens: str = "told"
) -> dict[str, Any]:
    """One row: errors over all frames of `seeds` scenes; the tracker is told the scene's matte.

    rotation: angle between found and true rotation. on screen: how far the sky then lies from
    its true place, mean over the picture, as an angle: what is seen where the focal length is
    found along the way too.
    """
    turns, shown, returns, focals = [], [], [], []
    reach_deg = 0.0
    for seed in range(seeds):
        scene, views = _rendered(name, size, frame_count, seed)
        focal_px = scene.sky_rotation(0)[1]
        tracker, camera = _tracker(scene, views, lens), intrinsics(size, focal_px)
        first = scene.sky_rotation(0)[0]
        for t, (grey, matte) in enumerate(views):
            pose = tracker.step_grey(grey, matte)
            true = first @ scene.sky_rotation(t)[0].T
            turns.append(float(np.degrees(angle_between(pose.rotation, true))))
            off_px = displacement_px(pose.homography, rotation_homography(true, camera), size)
            shown.append(float(np.degrees(off_px / focal_px)))
            reach_deg = max(reach_deg, float(np.degrees(angle_between(np.eye(3), true))))
        returns.append(shown[-1])
        focals.append(tracker.focal_px / focal_px - 1)
    return {
        "case": name,
        "focal length": lens,
        "turned_deg": round(reach_deg, 1),
        "rotation_median_deg": round(float(np.median(turns)), 3),
        "rotation_max_deg": round(float(np.max(turns)), 3),
        "screen_median_deg": round(float(np.median(shown)), 3),
        "screen_max_deg": round(float(np.max(shown)), 3),
        "return_deg": round(max(returns), 3) if CASES[name]["camera"] == "pan_back" else None,
        "focal_off_percent": round(100 * max(focals, key=abs), 2),
    }


@lru_cache(maxsize=2)
def _rendered(
    name: str, size: Size, frame_count: int, seed: int
) -> tuple[Scene, list[tuple[np.ndarray, np.ndarray]]]:
    """A scene, and luma and sky matte of its frames."""
    scene = make_scene(
        SceneOptions(
            size=size, frame_count=frame_count, pan_deg=25, grain=1.5, seed=seed, **CASES[name]
        )
    )
    greys = (cv2.cvtColor(scene.frames(t), cv2.COLOR_RGB2GRAY) for t in range(frame_count))
    return scene, [(grey, sky_matte(scene, t)) for t, grey in enumerate(greys)]


def _tracker(scene: Scene, views: list[tuple[np.ndarray, np.ndarray]], lens: str) -> CameraTracker:
    size = scene.size
    if lens == "told":
        return CameraTracker(size, CameraOptions(focal_px=scene.sky_rotation(0)[1]))
    if lens == "live":
        return CameraTracker(size)
    small = glimpse_size(size, LONG_SIDE_PX)
    greys = [cv2.resize(v[0], small.wh, interpolation=cv2.INTER_AREA) for v in views[::3]]
    found = look_ahead([greys], size)
    return CameraTracker(size, CameraOptions(focal_px=found.focal_px, focal_known=found.sure))


def sky_matte(scene: Scene, t: int) -> np.ndarray:
    """(H, W) float32: how much of each pixel shows sky or clouds, exactly."""
    shares = scene.mapping().frame(t).visible()
    names = [layer.name for layer in scene.layers]
    return shares[[i for i, name in enumerate(names) if name in ("sky", "clouds")]].sum(axis=0)


def displacement_px(found: np.ndarray, true: np.ndarray, size: Size) -> float:
    """Mean distance over the frame between where two homographies (frame to canvas) put the sky."""
    grid = np.stack(
        np.meshgrid(np.linspace(0, size.width - 1, 9), np.linspace(0, size.height - 1, 6)), -1
    ).reshape(-1, 2)
    back = np.linalg.inv(true) @ found  # where in the frame what is drawn here truly is
    return float(np.linalg.norm(apply_homography(back, grid) - grid, axis=1).mean())
