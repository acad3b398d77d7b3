"""A sky bends as a lens does, and in no other way."""

import numpy as np

from atlas.lens_bend import quadratic_part

ROWS, COLUMNS = 28, 49


def quadratic(rng):
    y, x = np.mgrid[-1:1:28j, -1:1:49j]
    terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], -1)
    return (terms @ rng.normal(0, 2, (6, 2))).astype(np.float32)


def test_a_quadratic_stays_as_it_is_but_for_the_pull():
    lattice = quadratic(np.random.default_rng(0))
    found = quadratic_part(lattice, np.ones((ROWS, COLUMNS), bool))
    assert np.abs(found - lattice).max() < 0.2 * np.abs(lattice).max()
    assert np.corrcoef(found.ravel(), lattice.ravel())[0, 1] > 0.99


def test_a_shift_stays_and_jelly_goes():
    y, x = np.mgrid[:ROWS, :COLUMNS]
    jelly = 3 * np.sin(x / 2)[..., None] * np.cos(y / 2)[..., None] * np.ones(2)
    lattice = (jelly + np.array([5.0, -2.0])).astype(np.float32)
    found = quadratic_part(lattice, np.ones((ROWS, COLUMNS), bool))
    assert np.abs(found - [5.0, -2.0]).max() < 0.4


def test_what_is_not_seen_has_no_say_and_goes_on_calmly():
    seen = np.zeros((ROWS, COLUMNS), bool)
    seen[:9] = True
    lattice = quadratic(np.random.default_rng(1))
    wild = lattice.copy()
    wild[9:] = 1e3
    found = quadratic_part(wild, seen)
    assert np.array_equal(found, quadratic_part(lattice, seen))
    assert np.abs(found[9:]).max() < 2 * np.abs(lattice[:9]).max()
    assert np.array_equal(found[20], found[-1])


def test_too_little_seen_is_no_bending():
    seen = np.zeros((ROWS, COLUMNS), bool)
    seen[3, :5] = True
    assert not quadratic_part(quadratic(np.random.default_rng(2)), seen).any()
