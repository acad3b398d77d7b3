"""What is drawn before training skies, labels of left-out sky, and training on from weights."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from atlas.coords import Size
from atlas.errors import InputError
from preprocess.sky.augment import AugmentConfig, Augmenter
from preprocess.sky.data import Pair, load_pairs
from preprocess.sky.network import SkyNetwork, load_network, save_weights
from preprocess.sky.procedural import sky_picture
from preprocess.sky.rough_labels import sky_left_out
from preprocess.sky.scenery import (
    Layer,
    bare_crowns,
    building,
    foliage,
    laid_over,
    sparse_crowns,
    water,
)
from preprocess.sky.thin_things import thin_coverage
from preprocess.sky.train import TrainConfig, Trainer
from tests.sky_networks import small_network

SIZE = Size(60, 90)
SKY = np.array([0.9, 0.93, 0.97], np.float32)


def test_a_layer_hides_by_its_coverage():
    rgb = np.full((1, 2, 3), 0.8, np.float32)
    layer = Layer(np.full((1, 2, 3), 0.2, np.float32), np.array([[0.25, 1.0]], np.float32))
    np.testing.assert_allclose(laid_over(rgb, layer)[0, :, 0], [0.65, 0.2], atol=1e-6)


@pytest.mark.parametrize("draw", [bare_crowns, foliage])
def test_crowns_have_gaps_and_parts_of_pixels(draw):
    cover = np.stack([draw(np.random.default_rng(seed), SIZE) for seed in range(12)])
    assert cover.shape == (12, 60, 90)
    assert cover.min() >= 0
    assert cover.max() <= 1
    assert 0.03 < cover.mean() < 0.7
    assert ((cover > 0.2) & (cover < 0.8)).mean() > 0.02


def test_sparse_crowns_are_mostly_parts_of_pixels():
    cover = np.stack([sparse_crowns(np.random.default_rng(seed), SIZE) for seed in range(12)])
    assert cover.min() >= 0
    assert cover.max() <= 1
    veil = ((cover > 0.1) & (cover < 0.9)).mean(axis=(1, 2))
    assert veil.mean() > 0.15  # bare crowns: 0.1
    assert (veil > 0.02).all()


def test_several_trees_hide_more_than_one():
    seeds = range(20)
    many = np.mean([bare_crowns(np.random.default_rng(s), SIZE).mean() for s in seeds])
    one = np.mean([thin_coverage(np.random.default_rng(s), SIZE, "twigs").mean() for s in seeds])
    assert many > 1.5 * one


def test_walls_stand_on_the_lower_edge_and_some_are_near_the_skys_colour():
    nearest = []
    for seed in range(30):
        layer = building(np.random.default_rng(seed), SIZE, SKY)
        held = layer.coverage > 0.99
        foot = held[-1]
        assert not (held.any(axis=0) & ~foot).any()  # nothing hangs in the air
        if held.any():
            nearest.append(np.median(np.abs(layer.rgb[held] - SKY).max(axis=1)))
    assert min(nearest) < 0.15
    assert max(nearest) > 0.3


def test_water_lies_below_a_level_line_and_mirrors_the_sky():
    sky = np.broadcast_to(SKY, (60, 90, 3)).astype(np.float32)
    for seed in range(8):
        layer = water(np.random.default_rng(seed), SIZE, sky)
        rows = layer.coverage.mean(axis=1)
        assert set(np.unique(rows)) == {0.0, 1.0}
        assert (np.diff(rows) >= 0).all()
        wet = layer.rgb[layer.coverage == 1]
        ratio = wet.mean(axis=0) / SKY
        assert ratio.max() / ratio.min() < 1.3  # tinted by at most 0.85 to 1.05
        assert wet.std() > 0.005


def test_white_skies_are_white_and_cumulus_is_not():
    white = np.stack([sky_picture(np.random.default_rng(s), SIZE, "white") for s in range(6)])
    heaped = np.stack([sky_picture(np.random.default_rng(s), SIZE, "cumulus") for s in range(6)])
    assert white.min() > 0.78
    assert white.mean() > 0.9
    assert heaped.std(axis=(1, 2)).mean() > 0.05


def crown_picture() -> tuple[np.ndarray, np.ndarray]:
    """A white sky over dark ground; twigs before the sky on the right, labelled ground whole."""
    rgb = np.full((120, 160, 3), 30, np.uint8)
    rgb[:60] = 240
    rgb[:60, 100:150:4] = 20
    label = np.zeros((120, 160), np.float32)
    label[:60, :98] = 1
    return rgb, label


def test_sky_between_twigs_is_unknown_and_twigs_are_not():
    rgb, label = crown_picture()
    unknown = sky_left_out(rgb, label)
    assert unknown[5:55, 102:118:4].mean() > 0.9
    assert not unknown[:, 100:150:4].any()
    assert not unknown[60:].any()
    assert not unknown[:, :98].any()


def test_twigs_that_the_sky_shines_through_are_unknown():
    rgb, label = crown_picture()
    rgb[:60, 100:150:4] = 150
    rgb[:60:12, 100:150] = 20
    unknown = sky_left_out(rgb, label)
    assert unknown[14:22, 104:116].mean() > 0.9
    assert not unknown[12:60:12, 104:146].any()  # dark ones are ground
    assert not unknown[64:].any()


def test_a_pale_wall_beyond_an_edge_stays_ground():
    rgb, label = crown_picture()
    rgb[:60, 96:102] = 20
    rgb[:90, 102:140] = 240
    assert sky_left_out(rgb, label)[:90, 104:120].mean() < 0.05


def test_unlabelled_sky_without_an_edge_is_unknown():
    rgb, label = crown_picture()
    label[:, 70:] = 0
    assert sky_left_out(rgb, label)[5:55, 72:88].mean() > 0.9


def test_nothing_is_left_out_where_no_sky_is_labelled():
    rgb, label = crown_picture()
    assert not sky_left_out(rgb, np.zeros_like(label)).any()


def test_left_out_sky_counts_nothing_in_training(tmp_path: Path):
    rgb, label = crown_picture()
    for folder in ("images", "masks"):
        (tmp_path / "train" / folder).mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "train" / "images" / "lmf_1.png"), rgb)
    cv2.imwrite(str(tmp_path / "train" / "masks" / "lmf_1.png"), np.uint8(label * 255))
    (pair,) = load_pairs(tmp_path, "train")
    assert (pair.weight[5:55, 106:118:4] == 0).all()
    assert (pair.weight[70:] == 255).all()


def test_ground_from_above_never_shows_the_sky():
    rgb = crown_picture()[0]
    rgb[:60] = (255, 0, 0)
    alpha = np.zeros((120, 160), np.uint8)
    alpha[:60] = 255
    pair = Pair("ade_1", rgb, alpha, np.full_like(alpha, 255))
    config = AugmentConfig(all_ground=1, all_sky=0, from_above=1, drawn_ground=0, high_up=0)
    augmenter = Augmenter([pair], [], np.random.default_rng(0), config)
    for _ in range(10):
        sample = augmenter._no_sky(SIZE)
        assert sample.alpha.max() == 0
        assert sample.rgb[..., 0].max() < 0.2


def test_training_on_starts_from_the_weights(tmp_path: Path):
    torch.manual_seed(5)
    first = SkyNetwork()
    save_weights(first, tmp_path / "w.safetensors")
    trainer = Trainer(TrainConfig(shards=1), torch.device("cpu"))
    trainer.start_from(tmp_path / "w.safetensors")
    wanted = load_network(tmp_path / "w.safetensors").state_dict()
    for network in (trainer.network, trainer.mean):
        for key, value in network.state_dict().items():
            torch.testing.assert_close(value, wanted[key])
    assert trainer.step == 0


def test_training_on_refuses_another_network(tmp_path: Path):
    save_weights(small_network(), tmp_path / "w.safetensors")
    with pytest.raises(InputError, match=r"w\.safetensors: a network of"):
        Trainer(TrainConfig(shards=1), torch.device("cpu")).start_from(tmp_path / "w.safetensors")


def test_early_share_is_checked():
    with pytest.raises(InputError, match="--early"):
        TrainConfig(early=1.5)
