"""Land drawn for training: what covers what, by how much, and in whose colours."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from atlas.coords import Size
from preprocess.sky.augment import AugmentConfig, Augmenter, Sample
from preprocess.sky.data import Pair
from preprocess.sky.landscape import (
    _before,
    _ridge,
    grove,
    night_lights,
    plain_things,
    ridges,
    shore,
    town,
)
from preprocess.sky.procedural import sky_picture
from preprocess.sky.scenery import Layer

SIZE = Size(60, 90)
BLUE = np.broadcast_to(np.array([0.5, 0.7, 0.9], np.float32), (60, 90, 3))


def seeds(count: int):
    return (np.random.default_rng(seed) for seed in range(count))


def test_a_ridge_covers_the_part_of_a_pixel_below_its_line():
    outline = np.full(4 * 90, 10.25)
    outline[4 * 45 :] = 20.5
    own = np.array([0.1, 0.2, 0.1])
    layer = _ridge(np.random.default_rng(0), BLUE, outline, own, 0.5)
    np.testing.assert_allclose(layer.coverage[9:12, 0], [0, 0.75, 1], atol=1e-6)
    np.testing.assert_allclose(layer.coverage[19:22, 60], [0, 0.5, 1], atol=1e-6)


def test_a_far_ridge_is_nearly_as_the_sky_and_a_clear_one_has_its_own_colour():
    outline, own = np.full(4 * 90, 30.0), np.array([0.1, 0.2, 0.1])
    far, near = (
        _ridge(np.random.default_rng(3), BLUE, outline, own, clear) for clear in (0.1, 1.0)
    )
    top = slice(30, 33)
    assert 0.02 < np.abs(far.rgb[top] - BLUE[top]).mean() < 0.1
    assert np.abs(near.rgb[top].mean((0, 1)) - own).max() < 0.1


@pytest.mark.parametrize("draw", [ridges, town])
def test_land_reaches_down_to_the_lower_edge(draw):
    for rng in seeds(12):
        cover = draw(rng, SIZE, BLUE).coverage
        assert cover.min() >= 0
        assert cover.max() <= 1
        assert (np.diff(cover, axis=0) > -0.3).all()  # a slanted gable may thin out below its tip
        assert cover[-1].mean() > 0.9 or cover.mean() < 0.2


def test_shores_mirror_the_sky_below_a_level_horizon():
    burning = BLUE[..., ::-1]
    for rng in seeds(12):
        layer = shore(rng, SIZE, burning)
        rows = layer.coverage.mean(axis=1)
        assert set(np.unique(rows)) == {0.0, 1.0}
        assert (np.diff(rows) >= 0).all()
        wet = layer.rgb[layer.coverage == 1].mean(axis=0)
        assert wet[0] > wet[2]


def test_two_layers_as_one_are_as_laid_in_turn():
    rng = np.random.default_rng(0)
    behind, front = (
        Layer(rng.random((4, 5, 3)).astype(np.float32), rng.random((4, 5)).astype(np.float32))
        for _ in range(2)
    )
    behind.coverage[:] = behind.coverage > 0.5  # the stated case: nothing or all behind
    rgb = rng.random((4, 5, 3))
    both = _before(behind, front)
    in_turn = rgb + behind.coverage[..., None] * (behind.rgb - rgb)
    in_turn = in_turn + front.coverage[..., None] * (front.rgb - in_turn)
    found = rgb + both.coverage[..., None] * (both.rgb - rgb)
    bare = behind.coverage == 0
    np.testing.assert_allclose(found[bare], in_turn[bare], atol=1e-6)
    np.testing.assert_allclose(found[~bare], in_turn[~bare], atol=1e-6)


def test_groves_leave_gaps_between_their_stems():
    cover = np.stack([grove(rng, SIZE) for rng in seeds(12)])
    assert cover.min() >= 0
    assert cover.max() <= 1
    assert 0.05 < cover.mean() < 0.7
    assert ((cover > 0.2) & (cover < 0.8)).mean() > 0.02


def test_plain_things_are_plain_and_some_touch_the_upper_edge():
    touching, spread = 0, []
    for rng in seeds(30):
        layer = plain_things(rng, SIZE)
        held = layer.coverage > 0.99
        touching += bool(held[0].any())
        if held.any():
            change = np.abs(np.diff(layer.rgb, axis=1)).max(axis=2)
            spread.append(np.median(change[held[:, 1:]]))
    assert 8 < touching < 30
    assert np.median(spread) < 0.02


def test_lamps_are_lit_on_the_ground_alone():
    alpha = np.zeros((60, 90), np.float32)
    alpha[:, :45] = 1
    lit = night_lights(np.random.default_rng(0), SIZE, alpha)
    assert lit[:, :45].max() == 0
    assert lit[:, 45:].max() > 0.1


def test_dusk_is_red_above_all_and_city_glow_is_dark():
    dusk = np.stack([sky_picture(rng, SIZE, "dusk")[40:] for rng in seeds(12)])
    assert (dusk[..., 0] > dusk[..., 2]).mean() > 0.95
    glow = np.stack([sky_picture(rng, SIZE, "city_glow") for rng in seeds(12)])
    assert glow.mean() < 0.35
    assert glow[..., 0].mean() > glow[..., 2].mean()


def one_picture(sky: int = 200) -> Pair:
    """Grey sky over dark ground, the row between half of each."""
    rgb = np.full((80, 120, 3), 40, np.uint8)
    rgb[:30] = sky
    alpha = np.zeros((80, 120), np.uint8)
    alpha[:30] = 255
    return Pair("ade_1", rgb, alpha, np.full_like(alpha, 255))


def test_mountains_behind_the_ground_replace_the_sky_alone():
    """rgb + a c (layer - sky) by hand, for a = 1, 0.5, 0 and c = 1, and c = 0.25."""
    augmenter = Augmenter([one_picture()], [], np.random.default_rng(0))
    rgb = np.array([[0.8, 0.5, 0.2, 0.8]], np.float32)[..., None].repeat(3, axis=2)
    alpha = np.array([[1.0, 0.5, 0.0, 1.0]], np.float32)
    sample = Sample(rgb.copy(), alpha.copy(), np.ones_like(alpha))
    cover = np.array([[1.0, 1.0, 1.0, 0.25]], np.float32)
    layer = Layer(np.full((1, 4, 3), 0.4, np.float32), cover)
    augmenter.lay_behind(sample, layer, np.full((1, 4, 3), 0.8, np.float32))
    np.testing.assert_allclose(sample.rgb[0, :, 0], [0.4, 0.3, 0.2, 0.7], atol=1e-6)
    np.testing.assert_allclose(sample.alpha[0], [0, 0, 0, 0.75], atol=1e-6)


def test_land_is_drawn_before_skies_alone():
    config = AugmentConfig(all_sky=1, all_ground=0, drawn_land=1, mirrored=0)
    augmenter = Augmenter([one_picture()], [], np.random.default_rng(1), config)
    drawn = np.stack([augmenter.sample(SIZE).alpha for _ in range(20)])
    bare = Augmenter([one_picture()], [], np.random.default_rng(1), replace(config, drawn_land=0))
    alone = np.stack([bare.sample(SIZE).alpha for _ in range(20)])
    assert drawn.mean() < alone.mean() - 0.25
    assert drawn[:, -5:].mean() < 0.4


def test_plain_things_in_a_picture_of_ground_are_no_sky():
    config = AugmentConfig(all_sky=0, all_ground=1, plain_thing_ground=1)
    augmenter = Augmenter([one_picture()], [], np.random.default_rng(2), config)
    samples = [augmenter.sample(SIZE) for _ in range(12)]
    assert max(sample.alpha.max() for sample in samples) == 0
    assert np.mean([sample.rgb.std() for sample in samples]) > 0.05  # the ground alone: 0
