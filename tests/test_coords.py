"""Coordinates: pinned conventions, round trips, refused shapes."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from atlas.coords import (
    Size,
    apply_homography,
    frame_to_unit,
    pixel_grid,
    pixel_to_unit,
    resize_matrix,
    resize_positions,
    unit_to_pixel,
)


def test_unit_coordinates_are_pinned():
    corners_px = torch.tensor([[0.0, 0.0], [31.0, 23.0]])
    expected = torch.tensor([[-1.0, -1.0], [1.0, 2 * 23 / 31 - 1]])  # y uses the scale of x
    assert_close(pixel_to_unit(corners_px, Size(height=24, width=32)), expected)


def test_unit_coordinates_of_a_portrait_frame_are_pinned():
    corner_px = np.array([[23.0, 31.0]])
    assert np.allclose(pixel_to_unit(corner_px, Size(32, 24)), [[2 * 23 / 31 - 1, 1.0]])


@pytest.mark.parametrize("seed", range(5))
def test_unit_round_trip(seed):
    xy = np.random.default_rng(seed).uniform(-20, 200, (7, 3, 2))
    size = Size(90 + seed, 131)
    assert np.allclose(unit_to_pixel(pixel_to_unit(xy, size), size), xy)


def test_frames_span_minus_one_to_one():
    assert frame_to_unit(np.array([0.0, 2.0, 4.0]), 5).tolist() == [-1, 0, 1]
    assert frame_to_unit(np.array([0.0]), 1).tolist() == [-1]


def test_resizing_scales_each_axis_on_its_own_and_keeps_outer_edges():
    source, target = Size(10, 20), Size(30, 40)  # y times 3, x times 2
    edges = np.array([[-0.5, -0.5], [19.5, 9.5]])
    assert np.allclose(resize_positions(edges, source, target), [[-0.5, -0.5], [39.5, 29.5]])


def test_resize_matrix_does_what_resize_positions_does():
    source, target = Size(10, 21), Size(33, 40)
    xy = np.array([[3.0, 7.0], [-2.0, 11.5]])
    by_matrix = apply_homography(resize_matrix(source, target), xy)
    assert np.allclose(by_matrix, resize_positions(xy, source, target))


def test_pixel_grid_of_another_view_agrees_with_resize_positions():
    size, view = Size(6, 9), Size(12, 27)
    own = pixel_grid(view)
    assert np.allclose(pixel_grid(size, view), resize_positions(own, view, size), atol=1e-5)
    assert pixel_grid(size)[4, 7].tolist() == [7, 4]


def test_homography_is_pinned_and_marks_points_behind_infinity():
    m = np.array([[2.0, 0, 1], [0, 3, -1], [0.1, 0, 1]])
    out = apply_homography(m, np.array([[5.0, 2.0], [-20.0, 0.0]]))
    assert np.allclose(out[0], [11 / 1.5, 5 / 1.5])
    assert np.isnan(out[1]).all()


@pytest.mark.parametrize(("height", "width", "match"), [(0, 5, "height"), (5, 0, "width")])
def test_a_size_refuses_each_side_on_its_own(height, width, match):
    with pytest.raises(ValueError, match=match):
        Size(height, width)


def test_a_one_pixel_frame_has_no_unit_coordinates():
    with pytest.raises(ValueError, match="longer side"):
        pixel_to_unit(np.zeros((1, 2)), Size(1, 1))


def test_positions_must_be_pairs():
    with pytest.raises(ValueError, match="dimension of 2"):
        pixel_to_unit(np.zeros((4, 3)), Size(4, 5))
