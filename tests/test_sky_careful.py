"""Work that may take its time: closed-form edges, several looks, a survey of the clip, shots."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from atlas.coords import Size
from preprocess.sky import __main__ as command
from preprocess.sky.choose import open_matter
from preprocess.sky.closed_form import (
    BandOptions,
    closed_form_matte,
    doubtful_band,
    matting_laplacian,
)
from preprocess.sky.evaluate import score_picture
from preprocess.sky.infer import CAREFUL, MatteOptions, NetworkMatter, joined_logits, with_upper
from preprocess.sky.matte import NETWORK_WEIGHTS
from preprocess.sky.network import SkyNetwork, save_weights
from preprocess.sky.offline import clip_mattes, survey_times
from preprocess.sky.thin_things import thin_coverage

needs_bundled = pytest.mark.skipif(not NETWORK_WEIGHTS.is_file(), reason="no bundled weights")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    save_weights(SkyNetwork(), path)
    return path


def iou_of(matte: np.ndarray, truth: np.ndarray) -> float:
    iou = score_picture("x", matte, truth).iou
    assert iou is not None
    return iou


def laplacian_by_definition(rgb: np.ndarray, eps: float) -> np.ndarray:
    """Levin eq 12, pixel pair by pixel pair."""
    height, width = rgb.shape[:2]
    flat = rgb.reshape(-1, 3)
    result = np.zeros((height * width, height * width))
    for y, x in itertools.product(range(1, height - 1), range(1, width - 1)):
        window = [(y + dy) * width + x + dx for dy, dx in itertools.product((-1, 0, 1), (-1, 0, 1))]
        mean = flat[window].mean(axis=0)
        spread = np.cov(flat[window].T, bias=True) + eps / 9 * np.eye(3)
        for i, j in itertools.product(window, window):
            likeness = (flat[i] - mean) @ np.linalg.solve(spread, flat[j] - mean)
            result[i, j] += (i == j) - (1 + likeness) / 9
    return result


def test_laplacian_is_that_of_the_paper():
    rgb = np.random.default_rng(0).random((4, 5, 3))
    centres = np.array([[y, x] for y in (1, 2) for x in (1, 2, 3)])
    got = matting_laplacian(rgb, centres, 1e-3).toarray()
    np.testing.assert_allclose(got, laplacian_by_definition(rgb, 1e-3), atol=1e-9)


def test_laplacian_of_a_matte_linear_in_colour_is_zero():
    rng = np.random.default_rng(1)
    alpha = rng.random((8, 9))
    rgb = alpha[..., None] * [0.7, 0.8, 1.0] + (1 - alpha[..., None]) * [0.1, 0.2, 0.05]
    centres = np.argwhere(np.ones((6, 7))) + 1
    cost = alpha.ravel() @ matting_laplacian(rgb, centres, 1e-9) @ alpha.ravel()
    assert cost < 1e-6


def twigs(height: int = 96, width: int = 128) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Dark twigs and ground before a graded sky, the exact matte, and one that is blurred."""
    cover = thin_coverage(np.random.default_rng(4), Size(height, width), "twigs")
    cover[80:] = 1
    sky = np.linspace([0.45, 0.6, 0.85], [0.8, 0.85, 0.9], height)[:, None]
    rgb = (1 - cover[..., None]) * sky + cover[..., None] * [0.12, 0.1, 0.08]
    truth = (1 - cover).astype(np.float32)
    blurred = cv2.GaussianBlur(truth, (0, 0), 2.0)
    return np.round(255 * rgb).astype(np.uint8), truth, blurred


def test_closed_form_brings_back_twigs():
    rgb, truth, blurred = twigs()
    solved = closed_form_matte(rgb, blurred, BandOptions(prior=0.01))  # little of the blur is held
    before, after = (score_picture("x", m, truth).mae for m in (blurred, solved))
    assert after < 0.6 * before


def test_large_pictures_are_solved_smaller_and_keep_their_edges():
    rgb, truth, blurred = twigs(192, 256)
    solved = closed_form_matte(rgb, blurred, BandOptions(most_px=128))
    assert solved.shape == truth.shape
    before, after = (score_picture("x", m, truth).mae for m in (blurred, solved))
    assert after < 0.8 * before
    band = doubtful_band(blurred, BandOptions())
    np.testing.assert_array_equal(solved[~band], blurred[~band])


def test_outside_the_band_nothing_changes():
    rgb, _, blurred = twigs()
    band = doubtful_band(blurred, BandOptions())
    solved = closed_form_matte(rgb, blurred)
    assert 0.02 < band.mean() < 0.9
    np.testing.assert_array_equal(solved[~band], blurred[~band])
    assert np.abs(solved - blurred)[band].max() > 0.1


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_without_an_edge_the_matte_stays(value):
    rgb = np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)
    matte = np.full((20, 30), value, np.float32)
    np.testing.assert_array_equal(closed_form_matte(rgb, matte), matte)


@pytest.mark.parametrize("options", [{"reach": 0}, {"sure": 0.5}, {"prior": 0}])
def test_band_options_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match="must be"):
        BandOptions(**options)


def test_a_mirrored_frame_gets_the_mirrored_matte(weights: Path):
    """True of the mean over both looks only."""
    rgb = np.random.default_rng(0).integers(0, 255, (64, 96, 3), np.uint8)
    flipped = np.ascontiguousarray(rgb[:, ::-1])
    gaps = {}
    for mirrored in (False, True):
        options = MatteOptions(side_px=96, mirrored=mirrored, adapt=False)
        matter = NetworkMatter(weights, options)
        gaps[mirrored] = np.abs(matter.coarse(rgb)[1] - matter.coarse(flipped)[1][:, ::-1]).max()
    assert gaps[True] < 1e-5
    assert gaps[False] > 1e-3


def test_the_smallest_look_says_what_is_ground_and_all_looks_what_is_sky_and_where_it_ends():
    first = np.full((128, 256), -12, np.float32)
    first[:64] = 12  # the upper half is sky, the edge above row 64
    mean = np.full_like(first, 3)
    joined = joined_logits([first, 2 * mean - first])
    np.testing.assert_allclose(joined[:66], 3, atol=1e-4)  # sky and edge: the mean of both
    np.testing.assert_array_equal(joined[88:], -12)  # ground far from it: whatever the larger says


def test_where_the_smallest_look_doubts_all_count():
    first = np.full((64, 96), 0.1, np.float32)
    joined = joined_logits([first, first + 3, first - 9])
    np.testing.assert_allclose(joined, 0.1 - 2, atol=1e-5)


def test_the_look_at_the_upper_part_adds_sky_and_takes_none():
    whole = np.full((100, 60), -4.0, np.float32)
    whole[:, 30:] = 6.0
    upper = np.full((16, 24), 6.0, np.float32)  # of another size
    joined = with_upper(whole, upper)
    np.testing.assert_allclose(joined[:24, :30], -4 + 0.7 * 10, atol=1e-5)
    assert (np.diff(joined[28:40, 0]) < 0).all()  # fades out towards the rows that it did not see
    np.testing.assert_array_equal(joined[40:], whole[40:])
    np.testing.assert_array_equal(joined[:, 30:], whole[:, 30:])
    np.testing.assert_array_equal(with_upper(whole, upper - 20), whole)


def looks_of(weights: Path, options: MatteOptions, *frames: np.ndarray) -> list[np.ndarray]:
    """The pictures that the network is shown of frames, in order."""
    seen = []

    class Watched(NetworkMatter):
        def _logits(self, picture: np.ndarray, size: Size) -> np.ndarray:
            seen.append(picture)
            return super()._logits(picture, size)

    matter = Watched(weights, options)
    for rgb in frames:
        matter.matte(rgb)
    return seen


def test_the_upper_part_is_what_the_closer_look_sees(weights: Path):
    """What lies below it does not change what that look adds."""
    rgb = np.random.default_rng(0).integers(0, 255, (100, 160, 3), np.uint8)
    other = rgb.copy()
    other[40:] = 255 - other[40:]
    options = MatteOptions(side_px=128, upper_side_px=128, refine=None, steady=None)
    seen = looks_of(weights, options, rgb, other)
    np.testing.assert_array_equal(seen[1], seen[3])
    assert seen[1].shape == (64, 128, 3)
    assert not np.array_equal(seen[0], seen[2])


@pytest.mark.parametrize(
    ("shape", "sides"), [((200, 300, 3), [256, 288, 288]), ((400, 600, 3), [256, 512, 384])]
)
def test_no_further_look_is_larger_than_the_frame(weights: Path, shape, sides):
    rgb = np.random.default_rng(0).integers(0, 255, shape, np.uint8)
    options = MatteOptions(more_sides_px=(512,), upper_side_px=384, refine=None, steady=None)
    assert [max(picture.shape) for picture in looks_of(weights, options, rgb)] == sides


def test_a_black_frame_has_no_sky_and_teaches_nothing(weights: Path):
    matter = NetworkMatter(weights, MatteOptions(steady=None))
    black = np.full((48, 64, 3), 3, np.uint8)
    assert not matter.matte(black).any()
    rgb = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    after_black = matter.matte(rgb)
    matter.reset()
    np.testing.assert_allclose(after_black, matter.matte(rgb), atol=1e-6)


@needs_bundled
def test_the_matte_is_back_a_few_frames_after_a_fade_from_black():
    scene = np.zeros((144, 256, 3), np.float32)
    scene[:90] = np.linspace([90, 140, 220], [190, 210, 235], 90)[:, None]
    scene[90:] = np.random.default_rng(0).integers(20, 90, (54, 256, 3))
    levels = [0.0, 0.0, 0.0, 0.1, 0.25, 0.45, 0.7, 1.0, 1.0, 1.0, 1.0]
    matter = NetworkMatter()
    mattes = [matter.matte((scene * level).astype(np.uint8)) for level in levels]
    truth = np.zeros((144, 256), np.float32)
    truth[:90] = 1
    assert not mattes[0].any()
    assert iou_of(mattes[-1], truth) > 0.95  # the fourth frame at full light


def test_a_survey_settles_doubt_alike_in_all_frames(weights: Path, monkeypatch):
    """A wall of the sky's colour in one half of the clip is learnt as ground from the other."""
    wall, sky, ground = (200, 190, 170), (120, 160, 230), (60, 70, 50)
    frame = np.zeros((64, 96, 3), np.uint8)
    frame[:20], frame[20:40], frame[40:] = sky, wall, ground
    answers = iter([0.5, 0.5, 0.02, 0.02])  # what the network says of the wall, frame by frame

    def answer(self, rgb):
        coarse = np.full((64, 96), 0.001, np.float32)
        coarse[:20] = 0.999
        coarse[20:40] = next(answers)
        return rgb, coarse

    monkeypatch.setattr(NetworkMatter, "_answer", answer)
    matter = NetworkMatter(weights, MatteOptions(refine=None, steady=None))
    alone = [matter.coarse(frame)[1][30, 50] for _ in range(4)]
    assert alone[0] > 0.4  # nothing known yet
    matter.reset()
    answers = iter([0.5, 0.02, 0.5, 0.5])
    matter.survey([frame] * 2)
    told = [matter.coarse(frame)[1][30, 50] for _ in range(2)]
    assert max(told) < 0.2
    assert told[0] == told[1]


def test_survey_is_spread_over_the_clip():
    assert survey_times(1) == [0]
    assert survey_times(5) == [0, 1, 2, 3, 4]
    many = survey_times(1000)
    assert many[0] == 0
    assert many[-1] == 999
    assert len(many) == 32


def test_fingerprint_changes_with_weights_and_options(weights: Path, tmp_path: Path):
    torch.manual_seed(9)
    save_weights(SkyNetwork(), tmp_path / "other.safetensors")
    marks = {
        NetworkMatter(weights).fingerprint(),
        NetworkMatter(tmp_path / "other.safetensors").fingerprint(),
        NetworkMatter(weights, CAREFUL).fingerprint(),
        open_matter("classical").fingerprint(),
    }
    assert len(marks) == 4
    assert NetworkMatter(weights).fingerprint() in marks


# --- the command ----------------------------------------------------------------------------


def write_pictures(folder: Path, pictures: list[np.ndarray]) -> None:
    folder.mkdir()
    for t, rgb in enumerate(pictures):
        cv2.imwrite(str(folder / f"{t:02d}.png"), rgb[..., ::-1])


def strangers(count: int = 4) -> list[np.ndarray]:
    """Pictures that have nothing to do with each other."""
    rng = np.random.default_rng(0)
    pictures = []
    for hue in np.linspace(0, 150, count):
        small = rng.integers(0, 255, (6, 8, 3), np.uint8)
        small[..., 0] = hue
        coloured = cv2.cvtColor(small, cv2.COLOR_HSV2RGB)
        pictures.append(cv2.resize(coloured, (96, 72), interpolation=cv2.INTER_NEAREST))
    return pictures


def test_strangers_in_a_folder_are_treated_alone(tmp_path: Path):
    write_pictures(tmp_path / "in", strangers())
    source = command.open_frames(tmp_path / "in")
    assert command.shots(source) == [(0, 1), (1, 2), (2, 3), (3, 4)]


def test_neighbours_in_a_folder_are_one_clip(tmp_path: Path):
    picture = strangers()[0]
    write_pictures(tmp_path / "in", [np.roll(picture, t, axis=1) for t in range(5)])
    assert command.shots(command.open_frames(tmp_path / "in")) == [(0, 5)]


def test_another_size_begins_another_clip(tmp_path: Path):
    picture = strangers()[0]
    write_pictures(tmp_path / "in", [picture, picture, picture[:60], picture[:60]])
    assert command.shots(command.open_frames(tmp_path / "in")) == [(0, 2), (2, 4)]


def test_hand_mattes_serve_the_command(tmp_path: Path, weights: Path, monkeypatch):
    """Between two hand mattes the correction holds; without them the network says otherwise."""
    picture = strangers()[1]
    write_pictures(tmp_path / "in", [picture] * 5)
    truth = np.zeros((72, 96), np.uint8)
    truth[:30] = 255
    (tmp_path / "hand").mkdir()
    for t in (0, 4):
        cv2.imwrite(str(tmp_path / "hand" / f"{t:02d}.png"), truth)
    arguments = [str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--matter", str(weights)]
    monkeypatch.setattr(sys, "argv", ["sky", *arguments, "--hand-mattes", str(tmp_path / "hand")])
    command.main()
    written = [cv2.imread(str(tmp_path / "out" / f"{t:02d}.png"), -1) for t in range(5)]
    np.testing.assert_array_equal(written[0], truth)
    np.testing.assert_array_equal(written[4], truth)
    assert iou_of(written[2] / np.float32(255), truth / np.float32(255)) > 0.9
    (plain,) = clip_mattes(open_matter(str(weights), careful=True), [picture])
    assert iou_of(plain, truth / np.float32(255)) < 0.7


def test_hand_mattes_of_a_later_shot_keep_their_frames(tmp_path: Path):
    from preprocess.sky.adapt import HandMattes

    cv2.imwrite(str(tmp_path / "b.png"), np.full((4, 5), 255, np.uint8))
    hand = HandMattes(tmp_path, ["a.png", "b.png", "c.png"])
    assert hand.part(1).matte(0, (4, 5)) is not None
    assert hand.part(1).matte(1, (4, 5)) is None
    assert hand.part(2).matte(0, (4, 5)) is None
    assert hand.matte(1, (4, 5)) is not None
