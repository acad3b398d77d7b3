"""The focal length found by looking ahead, on rendered pans whose camera is known."""

from __future__ import annotations

import logging
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from atlas import media_info
from atlas.coords import Size
from atlas.glimpse import glimpse_size, glimpses
from atlas.video import open_source
from preprocess.camera import CameraOptions, CameraTracker
from preprocess.keyframes import Keyframe
from preprocess.lens import PRIOR_SPREAD, FocalFound, ViewPair, pair_errors, weighed
from preprocess.lookahead import ForeseenCamera, look_ahead, noted_focal
from preprocess.rotation import default_focal_px, from_vector, intrinsics, rays
from tests.test_camera import SIZE, Pan, turn
from tests.video_files import run_ffmpeg, write_video


def swing(pan: Pan, count: int, step_deg: float, drift_px: float = 0.0) -> list[np.ndarray]:
    """(h, w) uint8 frames of a camera that turns by `step_deg` a frame."""
    shake = np.random.default_rng(5).normal(0, 0.1, (count, 2))
    turns = [turn(-step_deg * i + shake[i, 0], shake[i, 1], 0.1 * i) for i in range(count)]
    return [pan.render(r, drift_px * i)[0][..., 0] for i, r in enumerate(turns)]


@pytest.mark.parametrize(
    ("sky_texture", "drift_px", "factor"),
    [(20.0, 0.0, 1.5), (0.0, 0.0, 0.75), (20.0, 2.0, 1.5)],
)
def test_a_pan_tells_the_focal_length(sky_texture, drift_px, factor):
    true_px = factor * default_focal_px(SIZE)
    greys = swing(Pan(sky_texture, focal_px=true_px), 14, 1.3 / factor, drift_px)
    found = look_ahead([greys], SIZE)
    # 0.8 % of a turn of 12 degrees, half of a wide pan, is the 0.1 degree that a sky may be off
    assert found.focal_px == pytest.approx(true_px, rel=0.008)
    assert found.sure


def test_a_clip_that_hardly_turns_gets_a_usual_lens():
    true_px = 1.6 * default_focal_px(SIZE)
    found = look_ahead([swing(Pan(20.0, focal_px=true_px), 8, 0.1)], SIZE)
    assert found.focal_px == pytest.approx(default_focal_px(SIZE), rel=0.02)
    assert not found.sure
    assert found.spread == pytest.approx(PRIOR_SPREAD, rel=0.01)


def test_a_clip_that_shows_nothing_gets_a_usual_lens():
    noise = np.random.default_rng(0).integers(0, 255, (6, SIZE.height, SIZE.width), np.uint8)
    for greys in ([], [np.zeros((8, 12), np.uint8)] * 3, list(noise)):
        found = look_ahead([greys], SIZE)
        assert found.focal_px == pytest.approx(default_focal_px(SIZE), rel=1e-6)
        assert not found.sure


def test_a_camera_that_travels_tells_nothing():
    rng = np.random.default_rng(2)
    first = rng.uniform(0, 1, (80, 2)) * (SIZE.width, SIZE.height)
    depth = rng.uniform(1, 8, (80, 1))  # each point moves by its own depth
    pair = ViewPair(first, first + np.array([90.0, 4.0]) / depth)
    assert pair_errors(pair, SIZE, default_focal_px(SIZE) * np.array([0.6, 1, 1.6])) is None
    prior = FocalFound(default_focal_px(SIZE), PRIOR_SPREAD)
    assert weighed([pair], SIZE, prior).focal_px == pytest.approx(prior.focal_px, rel=0.01)


def test_the_errors_of_a_pair_are_those_of_the_best_rotation():
    rng = np.random.default_rng(4)
    focal_px, size = 300.0, Size(200, 300)
    camera, rotation = intrinsics(size, focal_px), from_vector(np.array([0.05, 0.3, 0.1]))
    first = rng.uniform(40, 160, (60, 2))
    moved = rays(first, camera) @ rotation.T @ camera.T
    second = moved[:, :2] / moved[:, 2:]
    second[:12] += 30  # a fifth is wrong: capped at 2 px each
    errors = pair_errors(ViewPair(first, second), size, np.array([200.0, 300.0, 450.0]))
    assert errors is not None
    assert errors[1] == pytest.approx(0.2 * 4, abs=1e-6)
    assert min(errors[0], errors[2]) > errors[1] + 0.3


def panning_video(folder: Path, focal_px: float) -> Path:
    frames = np.stack(
        [np.repeat(g[..., None], 3, 2) for g in swing(Pan(20.0, focal_px=focal_px), 45, 0.4)]
    )
    return write_video(folder / "pan.mp4", frames, fps=30, crf=10)


def test_a_file_is_looked_at_ahead_of_the_first_frame(tmp_path):
    true_px = 1.5 * default_focal_px(SIZE)
    info = open_source(panning_video(tmp_path, true_px), trusting=True).info
    camera = ForeseenCamera(info)
    assert camera.focal_px == pytest.approx(true_px, rel=0.01)
    few = list(glimpses(info, 100, 0.0, 10.0))
    assert {g.shape for g in few} == {(glimpse_size(SIZE, 100).height, 100)}
    assert 8 <= len(few) <= 15  # ten a second, of a second and a half
    assert all((a != b).any() for a, b in pairwise(few))


def test_a_lens_that_the_camera_noted_is_the_prior(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    source = write_video(tmp_path / "a.mp4", np.zeros((3, 90, 160, 3), np.uint8))
    noted = tmp_path / "noted.mov"
    key = "com.apple.quicktime.camera.focal_length.35mm_equivalent"
    tags = ("-movflags", "use_metadata_tags", "-metadata", f"{key}=26")
    run_ffmpeg("-i", source, "-c", "copy", *tags, noted)
    info = open_source(noted).info
    assert info.lens_35mm == 26
    found = noted_focal(info)
    assert found is not None
    assert found.focal_px == pytest.approx(26 / 43.27 * np.hypot(90, 160))
    assert noted_focal(replace(info, lens_35mm=None)) is None
    assert media_info.describe_file(source).lens_35mm is None


def test_every_shot_keeps_as_many_keyframes_as_asked():
    tracker = CameraTracker(SIZE, CameraOptions(keyframes=2))
    pan = Pan(20.0)
    for shot in range(2):
        if shot:
            tracker.cut()
        for i in range(22):
            rgb, matte = pan.render(turn(-1.4 * i))
            tracker.step(rgb, matte)
        held: list[Keyframe] = tracker._shot.keyframes.held
        assert len(held) == 2, shot
