"""Adaptive evaluation: exact where it asks, within its tolerance elsewhere, and far fewer asked."""

import numpy as np
import pytest

from atlas.adaptive import evaluate_adaptively
from atlas.coords import Size

SIZE = Size(height=50, width=83)


def grid():
    y, x = np.mgrid[: SIZE.height, : SIZE.width].astype(np.float32)
    return np.stack([x, y], axis=-1)


class Counted:
    """A function of positions that counts how many it was asked for."""

    def __init__(self, function):
        self.function, self.count = function, 0

    def __call__(self, xy):
        assert xy.dtype == np.float32
        assert (xy >= 0).all()
        assert (xy <= [SIZE.width + 7, SIZE.height + 7]).all()
        self.count += len(xy)
        return self.function(xy)


def smooth(xy):
    """Two channels, lopsided: a bent plane and a slow wave."""
    x, y = xy[:, 0], xy[:, 1]
    return np.stack([3 * x - y + 5, 4 * np.sin(x / 60) * np.cos(y / 45)], -1).astype(np.float32)


def edge(xy):
    """0 on one side of a slanted line, 1 on the other, 2 px soft."""
    return np.clip((xy[:, :1] * 0.8 + xy[:, 1:] * 0.6 - 40) / 2 + 0.5, 0, 1).astype(np.float32)


def test_a_plane_needs_only_the_lattice():
    ask = Counted(lambda xy: smooth(xy)[:, :1])
    found = evaluate_adaptively(ask, SIZE, 0.01)
    assert np.abs(found - smooth(grid().reshape(-1, 2))[:, :1].reshape(found.shape)).max() < 1e-4
    assert ask.count < SIZE.height * SIZE.width / 10


def test_a_bent_surface_stays_within_the_tolerance():
    ask = Counted(smooth)
    found = evaluate_adaptively(ask, SIZE, 0.02)
    error = np.abs(found - smooth(grid().reshape(-1, 2)).reshape(found.shape)).max()
    assert error < 0.02
    assert ask.count < SIZE.height * SIZE.width / 4


def test_an_edge_is_asked_pixel_by_pixel_and_nothing_else_is():
    ask = Counted(edge)
    found = evaluate_adaptively(ask, SIZE, 0.01)
    assert np.abs(found - edge(grid().reshape(-1, 2)).reshape(found.shape)).max() < 0.01
    assert ask.count < SIZE.height * SIZE.width / 2


def test_tolerance_zero_asks_everything_once():
    ask = Counted(edge)
    found = evaluate_adaptively(ask, SIZE, 0)
    assert ask.count == SIZE.height * SIZE.width
    assert (found == edge(grid().reshape(-1, 2)).reshape(found.shape)).all()


@pytest.mark.parametrize("size", [Size(1, 1), Size(1, 9), Size(8, 3), Size(17, 16)])
def test_small_and_awkward_sizes(size):
    y, x = np.mgrid[: size.height, : size.width].astype(np.float32)
    found = evaluate_adaptively(smooth, size, 0.01)
    assert found.shape == (size.height, size.width, 2)
    wanted = smooth(np.stack([x, y], -1).reshape(-1, 2)).reshape(found.shape)
    assert np.abs(found - wanted).max() < 0.01


def test_a_negative_tolerance_is_refused():
    with pytest.raises(ValueError, match="tolerance must be >= 0, got -1"):
        evaluate_adaptively(smooth, SIZE, -1)
