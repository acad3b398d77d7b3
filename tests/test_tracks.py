"""Points to follow: which of them are far away, and that dull places get their share."""

from __future__ import annotations

import numpy as np

from preprocess.rotation import from_vector
from preprocess.tracks import expansion, find_corners, find_corners_evenly


def seen_from(points: np.ndarray, rotation: np.ndarray, place: np.ndarray) -> np.ndarray:
    """(N, 3) unit rays to points in space."""
    rays = (points - place) @ rotation.T
    return rays / np.linalg.norm(rays, axis=1, keepdims=True)


def test_what_is_far_keeps_its_size_however_the_camera_turns():
    rng = np.random.default_rng(3)
    hills = np.column_stack(
        [rng.uniform(-900, 900, 40), rng.uniform(-90, 90, 40), np.full(40, 2e3)]
    )
    trees = np.column_stack([rng.uniform(8, 16, 40), rng.uniform(-4, 4, 40), np.full(40, 30.0)])
    points = np.concatenate([hills, trees])
    then = seen_from(points, np.eye(3), np.zeros(3))
    turned = from_vector(np.array([0.1, -0.5, 0.2]))
    np.testing.assert_allclose(
        expansion(seen_from(points, turned, np.zeros(3)), then), 0, atol=1e-9
    )
    nearer = expansion(seen_from(points, turned, np.array([0, 0, 6.0])), then)
    assert np.mean(np.abs(nearer[:40]) < 0.01) > 0.8  # some lie next to the trees
    # a wall at 30 m is seen larger by 30 / 24 from 6 m nearer, less what it moves to the side
    assert 0.5 * np.log(30 / 24) < np.median(nearer[40:]) < np.log(30 / 24)


def test_too_few_points_tell_nothing():
    rays = seen_from(np.eye(3) + 1, np.eye(3), np.zeros(3))
    assert np.isnan(expansion(rays, rays)).all()


def test_dull_places_get_their_share_of_corners():
    rng = np.random.default_rng(1)
    grey = rng.integers(0, 255, (60, 240), np.uint8)
    grey[:, 120:] = 128 + (grey[:, 120:].astype(int) - 128) // 6
    mask = np.ones(grey.shape, bool)
    assert (find_corners(grey, mask, 30, 4)[:, 0] < 118).all()
    evenly = find_corners_evenly(grey, mask, 30, 4, strips=6)
    assert len(evenly) == 30
    assert np.histogram(evenly[:, 0], 6, (0, 240))[0].tolist() == [5] * 6
