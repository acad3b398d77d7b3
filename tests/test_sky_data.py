"""Reading pairs, refining rough labels, and what augmentation makes of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from atlas.coords import Size
from atlas.errors import InputError
from preprocess.sky.augment import AugmentConfig, Augmenter
from preprocess.sky.data import (
    Pair,
    find_pairs,
    fitting_size,
    hold_out,
    load_pairs,
    read_matte,
    read_pairs,
    sky_strip,
    to_bytes,
)
from preprocess.sky.procedural import SKY_KINDS, fractal_noise, sky_picture
from preprocess.sky.rough_labels import refine_rough_label, smooth_under
from preprocess.sky.sky_sources import load_skies
from preprocess.sky.thin_things import THIN_KINDS
from preprocess.sky.thin_things import thin_coverage as draw_thin

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


def write_pair(root: Path, name: str, rgb: np.ndarray, mask: np.ndarray, suffix=".png") -> None:
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(root / "images" / f"{name}{suffix}"), rgb[..., ::-1])
    cv2.imwrite(str(root / "masks" / f"{name}.png"), mask)


def street(height: int = 90, width: int = 120, skyline: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """A pale sky above darker textured ground, and its exact mask."""
    rng = np.random.default_rng(3)
    rgb = np.empty((height, width, 3), np.uint8)
    rgb[:skyline] = (180, 200, 230)
    rgb[skyline:] = rng.integers(20, 110, (height - skyline, width, 3))
    mask = np.zeros((height, width), np.uint8)
    mask[:skyline] = 255
    return rgb, mask


def pair(name: str = "ade_1", **sizes: int) -> Pair:
    rgb, mask = street(**sizes)
    return Pair(name, rgb, mask, np.full_like(mask, 255))


def test_pairs_are_matched_by_name_without_suffix(tmp_path: Path):
    rgb, mask = street(30, 40, 10)
    write_pair(tmp_path, "b_2", rgb, mask, ".jpg")
    write_pair(tmp_path, "a_1", rgb, mask)
    (tmp_path / "images" / "notes.txt").write_text("no picture")
    found = find_pairs(tmp_path / "images", tmp_path / "masks")
    assert [(i.name, m.name) for i, m in found] == [("a_1.png", "a_1.png"), ("b_2.jpg", "b_2.png")]


def test_colours_are_rgb_and_mattes_span_zero_to_one(tmp_path: Path):
    rgb, mask = street(30, 40, 10)
    write_pair(tmp_path, "a", rgb, mask)
    ((name, read, matte),) = read_pairs(tmp_path / "images", tmp_path / "masks")
    assert name == "a"
    np.testing.assert_array_equal(read, rgb)
    np.testing.assert_array_equal(matte, mask / 255)


def test_sixteen_bit_mattes_are_read(tmp_path: Path):
    values = np.array([[0, 32768, 65535]], np.uint16)
    cv2.imwrite(str(tmp_path / "m.png"), values)
    np.testing.assert_allclose(read_matte(tmp_path / "m.png"), [[0, 32768 / 65535, 1]], atol=1e-6)


def test_a_missing_folder_is_named(tmp_path: Path):
    with pytest.raises(InputError, match="no such folder"):
        find_pairs(tmp_path / "images", tmp_path)


def test_no_equal_names_is_said(tmp_path: Path):
    rgb, mask = street(30, 40, 10)
    write_pair(tmp_path, "a", rgb, mask)
    (tmp_path / "masks" / "a.png").rename(tmp_path / "masks" / "b.png")
    with pytest.raises(InputError, match="none of its 1 pictures"):
        find_pairs(tmp_path / "images", tmp_path / "masks")


def test_unequal_sizes_are_said(tmp_path: Path):
    rgb, mask = street(30, 40, 10)
    write_pair(tmp_path, "a", rgb, mask[:, :-1])
    with pytest.raises(InputError, match="39x30, but its picture is 40x30"):
        list(read_pairs(tmp_path / "images", tmp_path / "masks"))


def test_an_unreadable_picture_is_said(tmp_path: Path):
    rgb, mask = street(30, 40, 10)
    write_pair(tmp_path, "a", rgb, mask)
    (tmp_path / "images" / "a.png").write_bytes(b"broken")
    with pytest.raises(InputError, match="not a readable picture"):
        list(read_pairs(tmp_path / "images", tmp_path / "masks"))


@pytest.mark.parametrize(
    ("size", "side", "multiple", "expected"),
    [
        (Size(480, 854), 320, 32, Size(192, 320)),
        (Size(854, 480), 320, 32, Size(320, 192)),
        (Size(100, 50), 320, 32, Size(320, 160)),  # small pictures are enlarged for the network
        (Size(100, 50), 320, 1, Size(100, 50)),  # but not for the training set
        (Size(500, 1000), 384, 1, Size(192, 384)),
        (Size(10, 2000), 320, 32, Size(64, 320)),
    ],
)
def test_fitting_size(size, side, multiple, expected):
    assert fitting_size(size, side, multiple) == expected


def test_rough_label_moves_to_the_edge_of_the_picture():
    """A polygon 3 px too low is pulled up to the skyline, and its band is trusted less."""
    rgb, mask = street(90, 120, 40)
    rough = np.zeros(mask.shape, np.float32)
    rough[:43] = 1
    matte, weight = refine_rough_label(rgb, rough)
    truth = mask / 255
    rows = slice(38, 48)  # the band of 5 px round the polygon's edge at row 43
    assert np.abs(matte - truth)[rows].mean() < 0.6 * np.abs(rough - truth)[rows].mean()
    np.testing.assert_array_equal(weight[38:48], np.float32(0.3))
    assert (weight[:38] == 1).all()
    assert (weight[48:] == 1).all()
    np.testing.assert_array_equal(matte[:38], 1)
    np.testing.assert_array_equal(matte[48:], 0)


def test_only_polygons_are_refined(tmp_path: Path):
    rgb, mask = street(90, 120, 40)
    for name in ("ade_1", "lmf_1"):
        write_pair(tmp_path / "train", name, rgb, mask)
    soft, rough = load_pairs(tmp_path, "train")
    np.testing.assert_array_equal(soft.alpha, mask)
    assert (soft.weight == 255).all()
    assert (rough.weight[35:45] < 128).all()


def test_held_out_pairs_are_the_last_tenth_of_each_domain():
    pairs = [pair(f"{domain}_{i:02d}") for domain in ("lmf", "ade") for i in range(20)]
    kept, held = hold_out(pairs[::-1])
    assert [p.name for p in held] == ["ade_18", "ade_19", "lmf_18", "lmf_19"]
    assert {p.name for p in kept} | {p.name for p in held} == {p.name for p in pairs}
    assert len(kept) == 36


@pytest.mark.parametrize("kind", SKY_KINDS)
def test_computed_skies_are_colours_and_repeat(kind):
    one, same, other = (
        sky_picture(np.random.default_rng(s), Size(40, 65), kind) for s in (1, 1, 2)
    )
    assert one.shape == (40, 65, 3)
    assert one.min() >= 0
    assert one.max() <= 1
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).mean() > 0.005


@pytest.mark.parametrize("kind", THIN_KINDS)
def test_thin_things_cover_little_and_partly(kind):
    coverages = [draw_thin(np.random.default_rng(s), Size(120, 160), kind) for s in range(12)]
    covered = np.stack(coverages)
    assert covered.min() >= 0
    assert covered.max() <= 1
    assert 0.001 < covered.mean() < 0.5
    assert ((covered > 0.05) & (covered < 0.95)).any()  # soft edges


def test_unknown_kinds_are_refused():
    with pytest.raises(ValueError, match="kind must be one of"):
        sky_picture(np.random.default_rng(0), Size(4, 5), "plaid")
    with pytest.raises(ValueError, match="kind must be one of"):
        draw_thin(np.random.default_rng(0), Size(4, 5), "rope")


def test_fractal_noise_spans_zero_to_one():
    noise = fractal_noise(np.random.default_rng(0), Size(33, 47))
    assert noise.shape == (33, 47)
    assert noise.min() == 0
    assert noise.max() == pytest.approx(1)


def test_colour_under_the_matte_is_that_of_the_sky_alone():
    rgb, mask = street(60, 80, 30)
    sky = smooth_under(rgb.astype(np.float32) / 255, mask.astype(np.float32) / 255, 8)
    expected = np.array([180, 200, 230]) / 255
    np.testing.assert_allclose(sky, np.broadcast_to(expected, sky.shape), atol=1e-3)


def test_sky_strip_is_sky_only():
    strip = sky_strip(pair(skyline=44))
    assert strip is not None
    np.testing.assert_array_equal(strip, street(skyline=44)[0][:44])
    assert sky_strip(pair(skyline=30)) is None
    assert sky_strip(pair("lmf_1", skyline=44)) is None


def test_bytes_round_and_saturate():
    values = np.array([[-0.5, 0.0, 0.5, 1.0, 2.0]], np.float32)
    np.testing.assert_array_equal(to_bytes(values), [[0, 0, 128, 255, 255]])


NEVER = ("all_ground", "all_sky", "other_sky_soft", "thin_thing", "crowns", "building", "water")
NOR = ("crowns_white", "ridges", "plain_thing", "plain_thing_ground", "faded", "burnt", "fog")
PLAIN = AugmentConfig(**dict.fromkeys((*NEVER, *NOR, "mirrored"), 0.0))


def test_samples_repeat_with_their_seed():
    size = Size(48, 80)
    batches = [Augmenter([pair()], [], np.random.default_rng(s)).batch(6, size) for s in (5, 5, 6)]
    for one, same in zip(batches[0], batches[1], strict=True):
        np.testing.assert_array_equal(one, same)
    assert np.abs(batches[0][0].astype(int) - batches[2][0]).mean() > 5
    assert batches[0][0].shape == (6, 48, 80, 3)
    assert batches[0][1].shape == batches[0][2].shape == (6, 48, 80)


def test_label_moves_with_its_picture():
    """The picture is its own label, so after crop, turn, flip and camera both still agree."""
    mask = street(skyline=40)[1]
    source = Pair("ade_1", np.repeat(mask[..., None], 3, axis=2), mask, np.full_like(mask, 255))
    augmenter = Augmenter([source], [], np.random.default_rng(0), PLAIN)
    agreements = []
    for _ in range(40):
        rgb, alpha, _ = augmenter.batch(1, Size(64, 96))
        grey, sky = rgb[0].mean(axis=2), alpha[0] > 127
        if 0.1 < sky.mean() < 0.9:
            agreements.append((grey > (grey[sky].mean() + grey[~sky].mean()) / 2) == sky)
    assert len(agreements) > 20
    # 0.97: noise of up to 6 % and blurred edges flip a few pixels; a shifted label, whole rows
    assert np.mean(agreements) > 0.97


def test_thin_things_take_exactly_their_coverage_from_the_matte():
    config = replace(PLAIN, thin_thing=0.5)
    with_things = Augmenter([pair(skyline=80)], [], np.random.default_rng(1), config)
    shares = [with_things.batch(1, Size(64, 96))[1].mean() for _ in range(60)]
    without = Augmenter([pair(skyline=80)], [], np.random.default_rng(1), PLAIN)
    plain = [without.batch(1, Size(64, 96))[1].mean() for _ in range(60)]
    assert np.mean(shares) < np.mean(plain)


def test_another_sky_leaves_the_ground_and_the_label():
    """With a dark night sky put in, pixels of the ground keep their contrast; the label stays."""
    config = replace(PLAIN, other_sky_soft=1, white_sky=0, dusk=0, afterglow=0)
    green = np.zeros((60, 80, 3), np.uint8)
    green[..., 1] = 255
    augmenter = Augmenter([pair()], [green] * 9, np.random.default_rng(2), config)
    changed = 0
    for _ in range(20):
        rgb, alpha, _ = augmenter.batch(1, Size(64, 96))
        sky = alpha[0] > 250
        if sky.mean() > 0.1:
            colour = rgb[0][sky].astype(int).mean(axis=0)
            changed += bool(colour[1] > 1.3 * max(colour[0], colour[2]))
    assert changed >= 5  # half of the skies are computed, half of the rest is green


def test_no_usable_domain_is_refused():
    with pytest.raises(ValueError, match="no picture of a domain"):
        Augmenter([pair("moon_1")], [], np.random.default_rng(0))


def test_sky_sources_read_pictures_and_panoramas(tmp_path: Path):
    cv2.imwrite(str(tmp_path / "a.png"), np.full((20, 30, 3), (255, 0, 10), np.uint8))
    panorama = np.zeros((180, 360, 3), np.float32)
    panorama[:90] = (4.0, 2.0, 1.0)  # bright blue sky in BGR, black ground
    cv2.imwrite(str(tmp_path / "b.hdr"), panorama)
    (tmp_path / "c.txt").write_text("passed over")
    flat, sky = load_skies([tmp_path])
    np.testing.assert_array_equal(flat[5, 5], [10, 0, 255])
    assert sky.shape == (60, 360, 3)
    red, green, blue = sky[30, 100].astype(int)
    assert 60 < red < green < blue  # RGB order, exposed to mid grey, and no black ground


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason="the real pictures are not here")
def test_train_and_val_share_no_picture():
    names = [
        {p.stem for p in (SHARED / "sky_segmentation" / split / "images").iterdir()}
        for split in ("train", "val")
    ]
    assert len(names[0]) == 466
    assert len(names[1]) == 82
    assert not names[0] & names[1]
