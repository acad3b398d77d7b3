"""The table of drawn skies has the mattes that it claims, its means are right; sheets of clips."""

from __future__ import annotations

import numpy as np
import pytest

from atlas.errors import InputError
from benchmarks.sky_drawn import FRAME, PLAIN_SKIES, cases, held_out_pictures, score
from benchmarks.sky_refine import clip_row
from preprocess.sky.data import Pair
from preprocess.sky.matte import SkyMatter
from tests.video_files import write_video


def picture(name: str, skyline: int) -> Pair:
    """Grey sky over dark ground."""
    rgb = np.full((160, 240, 3), 40, np.uint8)
    rgb[:skyline] = 200
    alpha = np.zeros((160, 240), np.uint8)
    alpha[:skyline] = 255
    return Pair(name, rgb, alpha, np.full_like(alpha, 255))


@pytest.fixture(scope="module")
def table() -> dict[str, list]:
    return dict(cases([picture("ade_1", 48), picture("ade_2", 0)], 1, demo=False))


def test_each_picture_has_a_matte_of_its_size(table):
    assert len(table) > 15
    for name, pictures in table.items():
        assert pictures, name
        for rgb, truth in pictures:
            assert rgb.dtype == np.uint8
            assert truth.dtype == np.float32
            assert rgb.shape == (*truth.shape, 3)
            assert truth.min() >= 0
            assert truth.max() <= 1


def test_what_is_put_in_lies_where_the_matte_says(table):
    for name, colour in PLAIN_SKIES.items():
        rgb, truth = table[name][0]
        np.testing.assert_allclose(
            rgb[truth == 1], np.broadcast_to(np.array(colour) * 255, (48 * 240, 3)), atol=0.51
        )
        assert (rgb[truth == 0] == 40).all()
    assert (table["white"][0][0][:48] > 200).all()


def test_pictures_without_sky_have_none_and_drawn_ones_some(table):
    for name in (name for name in table if name.startswith("no sky")):
        assert max(truth.max() for _, truth in table[name]) == 0
    assert min(truth.min() for _, truth in table["sky alone"]) == 1
    assert [truth.mean() for _, truth in table["little sky"]] == [pytest.approx(0.02, abs=0.01)]
    land = [truth.mean() for _, truth in table["mountains in haze"]]
    assert 0.1 < np.mean(land) < 0.9
    assert table["mountains in haze"][0][1].shape == (FRAME.height, FRAME.width)


def test_scores_are_iou_or_the_share_taken_for_sky():
    half = np.zeros((4, 8), np.float32)
    half[:2] = 1
    rgb = np.zeros((4, 8, 3), np.uint8)
    found = np.zeros((4, 8), np.float32)
    found[:1] = 1
    assert score(lambda _: found, [(rgb, half), (rgb, found)]) == pytest.approx(0.75)
    assert score(lambda _: found, [(rgb, np.zeros_like(half))]) == pytest.approx(0.25)


def test_data_without_sky_is_refused():
    with pytest.raises(InputError, match="no held-out picture with both"):
        list(cases([picture("ade_1", 0)], 1, demo=False))


def test_data_must_be_there(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        held_out_pictures(tmp_path)


class UpperHalf(SkyMatter):
    """Calls the upper half sky."""

    def matte(self, rgb: np.ndarray) -> np.ndarray:
        matte = np.zeros(rgb.shape[:2], np.float32)
        matte[: rgb.shape[0] // 2] = 1
        return matte

    def reset(self) -> None:
        pass


def test_sheet_shows_four_frames_of_a_clip_each_above_its_matte(tmp_path):
    grey = np.arange(9, dtype=np.uint8)[:, None, None, None] * 20 + 40
    clip = write_video(tmp_path / "clip.mp4", np.tile(grey, (1, 48, 64, 3)))
    row = clip_row(clip, UpperHalf())
    assert row.shape == (2 * 270, 4 * 360, 3)
    shown = [int(row[135, 360 * i + 180].mean().round()) for i in range(4)]
    np.testing.assert_allclose(shown, [60, 100, 140, 180], atol=4)  # frames 1, 3, 5, 7 of 9
    below = row[270:, 180].astype(int)
    assert below[60, 2] > below[60, 1] + 60  # violet
    assert np.ptp(below[200]) == 0  # grey
