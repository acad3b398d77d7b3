"""The edge network of the sky matte: what it sees, how it is run, what the bundled one settles."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from atlas.coords import Size
from atlas.errors import InputError
from preprocess.sky.data import Pair
from preprocess.sky.edge_inputs import (
    CHANNELS,
    MOST_LOGIT,
    channels,
    logit_of,
    open_sky,
)
from preprocess.sky.edge_matte import (
    EDGE_WEIGHTS,
    TILE_PX,
    EdgeMatter,
    EdgeOptions,
    sky_kept,
    tile_starts,
)
from preprocess.sky.edge_network import EdgeNetwork, load_edge_network, save_edge_weights
from preprocess.sky.edge_train import Picture, crops, left_to_doubt, spoilt
from preprocess.sky.evaluate import score_picture
from preprocess.sky.refine import RefineOptions, refine_matte
from preprocess.sky.thin_things import thin_coverage

H, W = 96, 168
needs_bundled = pytest.mark.skipif(not EDGE_WEIGHTS.is_file(), reason="no bundled weights")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(5)
    path = tmp_path_factory.mktemp("edges") / "w.safetensors"
    save_edge_weights(EdgeNetwork(), path)
    return path


def graded(height: int = H, width: int = W) -> np.ndarray:
    """(H, W, 3) float32: a sky that pales towards the ground and darkens to the right."""
    y = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    x = np.linspace(0, 1, width, dtype=np.float32)[None, :, None]
    return np.array([0.3, 0.5, 0.8], np.float32) * (1 + 0.2 * y * y - 0.1 * x)


def to_picture(rgb: np.ndarray) -> np.ndarray:
    return np.round(255 * rgb).astype(np.uint8)


def test_the_sky_s_colour_is_known_behind_what_hides_it():
    sky = graded()
    frame, matte = sky.copy(), np.ones((H, W), np.float32)
    frame[50:, 40:120] = 0.2
    matte[50:, 40:120] = 0
    found = open_sky(to_picture(frame), matte)
    assert found is not None
    color, scatter = found
    assert np.abs(color - sky).max() < 0.012  # 8 bits, and a box mean of a bent surface
    assert scatter.max() < 0.01


def test_the_scatter_is_that_of_the_clouds_nearby():
    frame = graded()
    noise = np.random.default_rng(0).normal(0, 0.05, (H, 60, 1)).astype(np.float32)
    frame[:, :60] += noise
    found = open_sky(to_picture(frame.clip(0, 1)), np.ones((H, W), np.float32))
    assert found is not None
    scatter = found[1]
    assert scatter[20:80, 10:40].mean() == pytest.approx(0.05 * 3**0.5, rel=0.15)
    assert scatter[20:80, 110:].max() < 0.02


def test_without_open_sky_nothing_is_known():
    assert open_sky(to_picture(graded()), np.full((H, W), 0.5, np.float32)) is None


def test_logits_are_those_of_the_matte_within_bounds():
    matte = np.array([[0, 0.1, 0.5, 0.9, 1]], np.float32)
    got = logit_of(matte)[0]
    wanted = [-MOST_LOGIT, -np.log(9), 0, np.log(9), MOST_LOGIT]
    np.testing.assert_allclose(got, wanted, atol=1e-4)


def test_channels_are_pinned():
    rgb = np.zeros((2, 3, 3), np.float32)
    rgb[0, 1] = (0.5, 0.75, 1.0)
    planes = np.zeros((2, 3, 5), np.float32)
    planes[0, 1] = (0.4, 0.75, 0.2, 0.05, 6.0)
    first = np.full((2, 3), 0.75, np.float32)
    values = channels(rgb, planes, first)
    assert values.shape == (CHANNELS, 2, 3)
    np.testing.assert_allclose(values[:, 0, 1], [0, 1, 2, 0.8, 0, 3, 1, 1, 2], atol=1e-6)


def test_opencv_answers_as_torch(weights: Path):
    values = np.random.default_rng(0).normal(size=(CHANNELS, TILE_PX, TILE_PX)).astype(np.float32)
    with torch.inference_mode():
        wanted = load_edge_network(weights)(torch.from_numpy(values)[None])[0, 0].numpy()
    got = EdgeMatter(weights).logits(values)
    np.testing.assert_allclose(got, wanted, atol=1e-4)
    assert wanted.std() > 0.1


def test_tiles_cover_every_side():
    for length in (TILE_PX, TILE_PX + 1, 480, 854, 1280):
        covered = np.zeros(length, int)
        for start in tile_starts(length):
            covered[start : start + TILE_PX] += 1
        assert covered.min() >= 1
        assert len(tile_starts(length)) <= length // 100 + 1


def test_only_doubtful_places_change(weights: Path):
    rgb = to_picture(np.random.default_rng(1).random((200, 330, 3)))
    coarse = np.zeros((50, 82), np.float32)
    coarse[:20] = 1
    coarse[20] = 0.5
    first = cv2.resize(coarse, (330, 200), interpolation=cv2.INTER_LINEAR)
    matte = EdgeMatter(weights)(rgb, cv2.resize(rgb, (82, 50)), coarse, first)
    assert matte.shape == (200, 330)
    np.testing.assert_array_equal(matte[:60], first[:60])
    np.testing.assert_array_equal(matte[110:], first[110:])
    assert np.abs(matte - first)[76:88].mean() > 0.01


def test_a_frame_without_open_sky_keeps_its_matte(weights: Path):
    rgb = to_picture(graded(120, 200))
    first = np.full((120, 200), 0.4, np.float32)
    matte = EdgeMatter(weights)(rgb, cv2.resize(rgb, (64, 32)), np.full((32, 64), 0.4, "f4"), first)
    np.testing.assert_array_equal(matte, first)


def test_large_frames_are_settled_smaller(weights: Path):
    rgb = to_picture(graded(240, 420))
    coarse = np.zeros((60, 105), np.float32)
    coarse[:30] = 1
    first = cv2.resize(coarse, (420, 240), interpolation=cv2.INTER_LINEAR)
    options = EdgeOptions(most_px=210)
    matte = EdgeMatter(weights, options)(rgb, cv2.resize(rgb, (105, 60)), coarse, first)
    assert matte.shape == first.shape
    np.testing.assert_allclose(matte[:90], 1, atol=1e-3)
    np.testing.assert_allclose(matte[160:], 0, atol=1e-3)


def test_missing_and_foreign_weights_are_refused(tmp_path: Path):
    with pytest.raises(InputError, match="no such file"):
        EdgeMatter(tmp_path / "none.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"nothing")
    with pytest.raises(InputError, match="not a readable safetensors"):
        EdgeMatter(tmp_path / "bad.safetensors")


@pytest.mark.parametrize("options", [{"margin": 0.5}, {"sure_ground": 6.0}])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match="must be"):
        EdgeOptions(**options)


# --- training -------------------------------------------------------------------------------


def test_crops_keep_picture_and_matte_together():
    """The last channel carries the matte itself, so that a shift or flip of one would show."""
    rng = np.random.default_rng(0)
    alpha = rng.integers(0, 255, (130, 150)).astype(np.uint8)
    values = np.repeat(alpha[None].astype(np.float16) / 255, CHANNELS, 0)
    places = rng.integers([130, 150], size=(50, 2))
    picture = Picture(values, alpha, 255 - alpha, places)
    got, target, weight = crops([picture], 12, rng)
    np.testing.assert_allclose(got[:, 0], target[:, 0], atol=1e-3)
    np.testing.assert_allclose(weight, 1 - target, atol=1e-6)
    assert len({target[i].tobytes() for i in range(12)}) > 6


def test_spoilt_answers_lose_sky_grow_it_or_doubt():
    logits = np.full((60, 90), -6, np.float32)
    logits[:30] = 6
    truth = (logits > 0).astype(np.float32)
    shares = [(spoilt(logits, truth, np.random.default_rng(s)) > 0).mean() for s in range(40)]
    assert min(shares) < 0.47
    assert max(shares) > 0.5
    assert 0.4 < np.median(shares) < 0.55


def test_nothing_is_known_round_gaps_of_a_crown():
    weight = np.full((40, 40), 255, np.uint8)
    weight[20, 20] = 0
    alpha = np.zeros((40, 40), np.uint8)
    alpha[:, 24:] = 255
    doubted = left_to_doubt(Pair("camvid_x", np.zeros((40, 40, 3), np.uint8), alpha, weight))
    assert doubted.weight[20, 16] == 0
    assert doubted.weight[20, 25] == 255  # sky is sky
    assert doubted.weight[20, 10] == 255


# --- the bundled weights --------------------------------------------------------------------

SKIES = {"white": (1.0, 1.0, 1.0), "grey": (0.7, 0.71, 0.73), "blue": (0.35, 0.52, 0.85)}


def crown_scene(color: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A bare crown before a sky, its exact matte, and a small matte that calls the crown ground."""
    size = Size(240, 400)
    rng = np.random.default_rng(3)
    cover = np.zeros((240, 400), np.float32)
    for _ in range(5):
        cover = 1 - (1 - cover) * (1 - thin_coverage(rng, size, "twigs"))
    cover[:, :120] = 0
    cover[200:] = 1
    sky = np.broadcast_to(np.array(color, np.float32), (240, 400, 3))
    rgb = sky + cover[..., None] * (np.array([0.2, 0.17, 0.15], np.float32) - sky)
    rgb = rgb + rng.normal(0, 0.006, rgb.shape)
    solid = cv2.blur(cover, (31, 31)) > 0.12
    small = cv2.resize(1 - solid.astype(np.float32), (224, 128), interpolation=cv2.INTER_AREA)
    logits = cv2.GaussianBlur(np.where(small > 0.5, 7.0, -3.5).astype(np.float32), (0, 0), 1.5)
    return to_picture(rgb.clip(0, 1)), 1 - cover, 1 / (1 + np.exp(-logits))


@needs_bundled
@pytest.mark.parametrize("name", SKIES)
def test_a_bare_crown_called_ground_lets_the_sky_through(name):
    rgb, truth, coarse = crown_scene(SKIES[name])
    small = cv2.resize(rgb, (224, 128), interpolation=cv2.INTER_AREA)
    first = cv2.resize(coarse, (400, 240), interpolation=cv2.INTER_LINEAR)
    matte = EdgeMatter()(rgb, small, coarse, first)
    before, after = (score_picture("x", m, truth).mae for m in (first, matte))
    assert before > 0.1
    assert after < 0.75 * before


@needs_bundled
def test_a_white_wall_with_windows_under_a_white_sky_stays_ground():
    rgb = np.full((240, 400, 3), 1.0, np.float32)
    rgb[60:, 150:] = (0.97, 0.97, 0.96)
    rgb[60:63, 150:] = 0.6
    rgb[60:, 150:153] = 0.5
    for y in range(80, 220, 50):
        for x in range(170, 390, 45):
            rgb[y : y + 28, x : x + 20] = 0.25
    rgb[220:] = 0.35
    wall = np.zeros((240, 400), np.float32)
    wall[60:, 150:] = wall[220:] = 1
    small = cv2.resize(wall, (224, 128), interpolation=cv2.INTER_AREA)
    logits = cv2.GaussianBlur(np.where(small > 0.5, -4.5, 7.0).astype(np.float32), (0, 0), 1.5)
    coarse = 1 / (1 + np.exp(-logits))
    first = cv2.resize(coarse, (400, 240), interpolation=cv2.INTER_LINEAR)
    picture = to_picture(rgb)
    matte = EdgeMatter()(picture, cv2.resize(picture, (224, 128)), coarse, first)
    assert matte[75:, 165:].mean() < 0.03


def test_a_pale_gable_that_the_small_matte_knows_as_ground_gets_little_sky():
    rgb = np.full((240, 400, 3), (0.75, 0.82, 0.92), np.float32)
    rgb[120:] = (0.2, 0.25, 0.15)
    rgb[122:160, 196:206] = (0.62, 0.64, 0.68)
    truth = np.zeros((240, 400), np.float32)
    truth[:120] = 1
    picture = to_picture(rgb)
    small = cv2.resize(picture, (200, 120), interpolation=cv2.INTER_AREA)
    coarse = cv2.GaussianBlur(cv2.resize(truth, (200, 120)), (0, 0), 1.0)
    coarse = np.maximum(coarse, np.float32(1e-3))  # a network is never surer

    def gable(line_least: float = 0.3, ground: float = 0.05) -> np.ndarray:
        options = RefineOptions(line_least=line_least, ground=ground)
        matte = refine_matte(picture, small, coarse, options)
        return matte[124:140, 201]

    by_colour = gable(line_least=1e-6, ground=1e-6)
    assert by_colour[:2].min() > 0.3
    assert gable(ground=1e-6)[:2].max() < 0.15
    assert gable(ground=1e-6)[2] > 0.03
    assert gable()[2:].max() < 0.01


def test_the_sun_and_gaps_of_clouds_are_not_taken_from_the_sky():
    planes = np.zeros((1, 6, 5), np.float32)
    planes[..., :3] = 0.5
    planes[..., 3] = 0.01
    planes[..., 4] = 3
    planes[0, 2, 4] = planes[0, 4, 4] = 0.0  # the small matte doubts
    planes[0, 3:5, 3] = 0.2  # among clouds
    rgb = np.full((1, 6, 3), 128, np.uint8)
    rgb[0, 1:3] = 200  # brighter than the open sky
    rgb[0, 5] = 60
    np.testing.assert_allclose(sky_kept(rgb, planes)[0], [0, 1, 0, 1, 0, 0], atol=1e-6)
