"""Pictures without sky for training: whole photographs, and views of rooms out of panoramas."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from atlas.errors import InputError
from preprocess.sky import no_sky
from preprocess.sky.no_sky import load_no_sky, room_view


def write_hdr(path: Path, light: np.ndarray) -> None:
    cv2.imwrite(str(path), np.ascontiguousarray(light[..., ::-1], np.float32))


def test_a_folder_of_rooms_and_photographs_is_all_ground(tmp_path: Path):
    rng = np.random.default_rng(0)
    write_hdr(tmp_path / "hall.hdr", rng.uniform(0.1, 2.0, (32, 64, 3)))
    cv2.imwrite(str(tmp_path / "page.jpg"), np.full((600, 800, 3), 200, np.uint8))
    (tmp_path / "notes.txt").write_text("not a picture")
    pairs = load_no_sky([tmp_path], rng)
    assert sum(pair.name.startswith("none_hall") for pair in pairs) == len(pairs) - 1
    assert pairs[-1].name == "none_page_0"
    assert pairs[-1].rgb.shape == (288, 384, 3)
    for pair in pairs:
        assert pair.rgb.shape[:2] == pair.alpha.shape == pair.weight.shape
        assert pair.alpha.max() == 0
        assert pair.weight.min() == 255


def test_the_light_of_a_lamp_is_white_and_what_it_lights_is_not():
    light = np.full((64, 128, 3), 0.2, np.float32)
    light[:16] = 5.0  # a shining ceiling, more than 45 degrees up
    views = [room_view(light, np.random.default_rng(seed)) for seed in range(12)]
    assert all(view.dtype == np.uint8 and view.shape == (192, 256, 3) for view in views)
    up = [view for view in views if int(view.max()) > 2 * int(view.min())]
    assert up, "some views look up"
    for view in up:
        assert view.max() == 255
        assert view[:, :, 0].mean(axis=1).argmax() < 96  # the ceiling is above


def test_white_balance_takes_a_cast_away_in_part():
    light = np.ones((64, 128, 3), np.float32) * (2.0, 1.0, 0.4)
    ratios = [
        float(np.divide(*room_view(light, np.random.default_rng(seed))[96, 128, [0, 2]] / 1.0))
        for seed in range(8)
    ]
    assert min(ratios) < 1.6 < max(ratios)


def test_a_panorama_must_be_twice_as_wide_as_high(tmp_path: Path):
    write_hdr(tmp_path / "a.hdr", np.ones((32, 48, 3)))
    with pytest.raises(InputError, match=r"a\.hdr: 48x32; wanted a panorama twice as wide"):
        load_no_sky([tmp_path], np.random.default_rng(0))


def test_a_missing_folder_is_named(tmp_path: Path):
    with pytest.raises(InputError, match="none: no such folder"):
        load_no_sky([tmp_path / "none"], np.random.default_rng(0))


def test_a_broken_panorama_is_named(tmp_path: Path):
    (tmp_path / "a.hdr").write_bytes(b"#?RADIANCE")
    with pytest.raises(InputError, match=r"a\.hdr: not a readable Radiance"):
        load_no_sky([tmp_path], np.random.default_rng(0))


def test_a_view_looks_where_it_is_turned():
    """Straight ahead is the middle of the panorama, right of it to the right, above it above."""
    light = np.zeros((180, 360, 3), np.float32)
    light[..., 0] = np.linspace(-180, 180, 360, endpoint=False)[None] + 0.5
    light[..., 1] = np.linspace(90, -90, 180, endpoint=False)[:, None] - 0.5
    seen = no_sky._seen(light, 60.0, 20.0, 10.0)
    middle = seen[95:97, 127:129].mean(axis=(0, 1))
    np.testing.assert_allclose(middle[:2], (20, 10), atol=0.2)
    assert seen[96, -1, 0] > seen[96, 0, 0] + 55
    assert seen[0, 128, 1] > 30 > 10 > -10 > seen[-1, 128, 1]
