"""A sky on a plane that is bent round the viewer beyond 35 degrees."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from atlas.coords import apply_homography
from edits.bend import FLAT_DEG, Bend

FOCAL = 300.0
BEND = Bend((210.5, 95.0), FOCAL)


def looking(yaw_deg: float, pitch_deg: float = 0.0) -> np.ndarray:
    """(3, 3): pixels of a frame whose middle is (160, 90) to canvas texels, for a turned camera."""
    camera = np.array([[FOCAL, 0, 160], [0, FOCAL, 90], [0, 0, 1]])
    canvas = np.array([[FOCAL, 0, BEND.centre[0]], [0, FOCAL, BEND.centre[1]], [0, 0, 1]])
    yaw = cv2.Rodrigues(np.radians([0.0, yaw_deg, 0.0]))[0]
    pitch = cv2.Rodrigues(np.radians([pitch_deg, 0.0, 0.0]))[0]
    return canvas @ yaw @ pitch @ np.linalg.inv(camera)


def along(yaw_deg: float) -> float:
    """Where the middle of a frame that looks there lies, texels to the right of the centre."""
    at = BEND.of_frame(looking(yaw_deg), np.array([[160.0, 90.0]]))[0]
    assert at[1] == pytest.approx(BEND.centre[1])
    return float(at[0] - BEND.centre[0])


def test_what_the_first_frame_sees_stays_a_plane():
    xy = np.stack(np.meshgrid(np.linspace(0, 320, 9), np.linspace(0, 180, 7)), axis=-1)
    homography = looking(4, 3)  # at most 32 and 20 degrees off
    flat = apply_homography(homography, xy.reshape(-1, 2)).reshape(xy.shape)
    np.testing.assert_allclose(BEND.of_frame(homography, xy), flat, atol=1e-9)
    uv = flat.astype(np.float32)
    assert BEND.of_canvas(uv) is uv


def test_beyond_equal_angles_take_equal_lengths_all_the_way_round():
    lengths = np.diff([along(yaw) for yaw in range(40, 180, 10)])
    slope = FOCAL / math.cos(math.radians(FLAT_DEG)) ** 2  # the tangent's where they meet
    np.testing.assert_allclose(lengths, math.radians(10) * slope, rtol=1e-9)
    assert along(FLAT_DEG + 1e-6) == pytest.approx(along(FLAT_DEG - 1e-6), abs=1e-3)
    assert along(-120) == pytest.approx(-along(120))


def test_heights_meet_without_a_step_where_the_bend_begins():
    low = [
        BEND.of_frame(looking(FLAT_DEG + off), np.array([[160.0, 30.0]]))[0, 1]
        for off in (-1e-6, 1e-6)
    ]
    assert low[0] == pytest.approx(low[1], abs=1e-3)
    assert low[0] != pytest.approx(BEND.centre[1], abs=50)


def test_a_frame_and_its_canvas_positions_are_bent_alike():
    xy = np.stack(np.meshgrid(np.linspace(0, 320, 9), np.linspace(0, 180, 7)), axis=-1)
    homography = looking(50, 5)  # all of it still ahead
    flat = apply_homography(homography, xy.reshape(-1, 2)).reshape(xy.shape)
    assert BEND.needed(homography, xy)
    np.testing.assert_allclose(BEND.of_frame(homography, xy), BEND.of_canvas(flat), atol=1e-6)


def test_only_frames_that_look_beyond_the_plane_need_it():
    corners = np.array([[0.0, 0.0], [320.0, 0.0], [320.0, 180.0], [0.0, 180.0]])
    assert not BEND.needed(looking(2), corners)
    assert BEND.needed(looking(20), corners)
    assert BEND.needed(looking(150), corners)  # where nothing is left ahead


@pytest.mark.parametrize("period", [200.0, 333.0, 512.0, 700.0])
def test_a_sky_that_repeats_meets_itself_behind_the_viewer(period):
    bend = Bend(BEND.centre, FOCAL, period)
    just = np.array([[160.0, 90.0]])
    left, right = (bend.of_frame(looking(yaw), just)[0, 0] for yaw in (-180 + 1e-7, 180 - 1e-7))
    assert (right - left) / period == pytest.approx(round((right - left) / period), abs=1e-5)
    assert bend.slope == pytest.approx(BEND.slope, rel=0.25)
    near = bend.of_frame(looking(FLAT_DEG + 1e-6), just)[0, 0]
    assert near == pytest.approx(bend.of_frame(looking(FLAT_DEG - 1e-6), just)[0, 0], abs=1e-3)


def test_neighbours_stay_neighbours_straight_behind_the_viewer():
    period = 333.0
    bend = Bend(BEND.centre, FOCAL, period)
    grid = np.stack(np.meshgrid(np.linspace(0, 320, 41), np.linspace(0, 180, 7)), axis=-1)
    at = bend.of_frame(looking(176, 4), grid)
    steps = np.diff(at[..., 0], axis=1)
    assert steps.min() > 0
    assert steps.max() < 3 * steps.min()
    alone = np.array([[bend.of_frame(looking(176, 4), xy[None])[0] for xy in row] for row in grid])
    apart = (at[..., 0] - alone[..., 0]) / period
    np.testing.assert_allclose(apart, np.rint(apart), atol=1e-6)
    np.testing.assert_allclose(at[..., 1], alone[..., 1], atol=1e-9)
