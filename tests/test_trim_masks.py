"""Masks before a sky: edges where the matte has them, things that it misses kept whole."""

import numpy as np

from preprocess.trim_masks import without_sky


def disc(centre, radius, soft=0.0):
    y, x = np.mgrid[:80, :120]
    away = np.hypot(x - centre[0], y - centre[1]) - radius
    return (0.5 - away / max(soft, 1e-6)).clip(0, 1).astype(np.float32)


def test_a_swollen_mask_gets_the_edge_of_the_matte():
    thing = disc((60, 40), 15, soft=2)
    found = without_sky(disc((62, 40), 21), 1 - thing)
    assert np.abs(found - thing).max() < 1e-6


def test_what_stands_before_the_ground_is_left_alone():
    mask = disc((60, 60), 12)
    sky = np.zeros((80, 120), np.float32)
    sky[:30] = 1
    assert np.array_equal(without_sky(mask, sky), mask)


def test_a_bright_stripe_inside_a_thing_stays_solid():
    thing = disc((60, 40), 15)
    sky = 1 - thing
    sky[30:50, 58:62] = 0.7  # the matte half takes it for sky
    found = without_sky(disc((60, 40), 18), sky)
    assert np.array_equal(found, thing)


def test_a_thing_that_the_matte_has_not_seen_stays_whole():
    bird = disc((20, 20), 5)
    balloon = disc((80, 40), 15)
    found = without_sky(np.maximum(bird, disc((80, 40), 19)), 1 - balloon)
    assert np.array_equal(found[:, :40], bird[:, :40])
    assert np.array_equal(found[:, 40:], balloon[:, 40:])


def test_nothing_masked_and_no_sky():
    nothing = np.zeros((80, 120), np.float32)
    assert not without_sky(nothing, np.ones_like(nothing)).any()
    mask = disc((60, 40), 15)
    assert np.array_equal(without_sky(mask, nothing), mask)


def test_a_gap_that_the_matte_is_only_nearly_sure_of_is_cut_out():
    """Between the ropes under a balloon: sky, seen at nine tenths."""
    sky = np.zeros((80, 120), np.float32)
    sky[:20] = 1
    sky[50:62, 54:60] = 0.9
    mask = disc((57, 45), 20)
    found = without_sky(mask, sky)
    assert found[50:62, 54:60].max() < 0.11
    assert found[40, 57] == 1
