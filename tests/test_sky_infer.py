"""From a network's weights to full-size mattes, the scores, and the two commands."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from atlas.coords import Size
from atlas.errors import InputError
from preprocess.sky import __main__ as command
from preprocess.sky import evaluate
from preprocess.sky.adapt import HandMattes
from preprocess.sky.evaluate import alone, edge_band, score_picture, summarize
from preprocess.sky.infer import MatteOptions, NetworkMatter
from preprocess.sky.matte import NETWORK_WEIGHTS, SkyMatter
from preprocess.sky.network import save_weights
from preprocess.sky.offline import clip_mattes
from preprocess.sky.procedural import fractal_noise, sky_picture
from preprocess.sky.refine import RefineOptions, colour_line, refine_matte, stretch
from preprocess.sky.thin_things import thin_coverage
from tests.sky_networks import small_network
from tests.video_files import write_video

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
needs_bundled = pytest.mark.skipif(not NETWORK_WEIGHTS.is_file(), reason="weights not bundled")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network with random weights: enough to tell whether its answers are handled well."""
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    save_weights(small_network(4), path)
    return path


def landscape(height: int = 120, width: int = 184, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A computed sky with twigs above textured ground, (H, W, 3) uint8, and its exact matte."""
    rng = np.random.default_rng(seed)
    size = Size(height, width)
    sky = sky_picture(rng, size, "clear")
    ground = 0.45 * fractal_noise(rng, size, 6, 6)[..., None] * np.array([0.7, 0.8, 0.5])
    skyline = height * (0.45 + 0.2 * fractal_noise(rng, size, 2, 4)[0])
    matte = np.clip(skyline[None] - np.arange(height)[:, None], 0, 1)
    matte = matte * (1 - thin_coverage(rng, size, "twigs"))
    rgb = matte[..., None] * sky + (1 - matte[..., None]) * ground
    return np.round(255 * rgb).astype(np.uint8), matte.astype(np.float32)


class Constant(SkyMatter):
    """Says the same of every pixel."""

    def __init__(self, value: float) -> None:
        self.value = value

    def matte(self, rgb: np.ndarray) -> np.ndarray:
        return np.full(rgb.shape[:2], self.value, np.float32)

    def reset(self) -> None:
        pass


def test_matte_has_the_frame_size_and_range(weights: Path):
    matter = NetworkMatter(weights)
    for height, width in ((90, 161), (161, 90), (30, 400)):
        matte = matter.matte(
            np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
        )
        assert matte.shape == (height, width)
        assert matte.dtype == np.float32
        assert matte.min() >= 0
        assert matte.max() <= 1


def test_reset_repeats_the_clip(weights: Path):
    matter = NetworkMatter(weights)
    frames = [landscape(seed=seed)[0] for seed in (0, 0, 1)]
    first = [matter.matte(frame) for frame in frames]
    matter.reset()
    again = [matter.matte(frame) for frame in frames]
    for one, same in zip(first, again, strict=True):
        np.testing.assert_allclose(one, same, atol=1e-6)


def test_the_future_changes_nothing(weights: Path):
    frames = [landscape(seed=seed)[0] for seed in (0, 0, 1)]
    matter = NetworkMatter(weights)
    before = [matter.matte(frame) for frame in frames[:2]]
    matter.reset()
    with_future = [matter.matte(frame) for frame in frames][:2]
    for one, same in zip(before, with_future, strict=True):
        np.testing.assert_allclose(one, same, atol=1e-6)


def test_refinement_brings_back_edges_and_partial_twigs(weights: Path):
    """From the exact matte made small: at least 25 % less error in the band than enlarging it."""
    rgb, truth = landscape(240, 368)
    refined_by, enlarged_by = (
        NetworkMatter(weights, MatteOptions(refine=refine)) for refine in (RefineOptions(), None)
    )
    small = cv2.resize(rgb, (128, 96), interpolation=cv2.INTER_AREA)
    coarse = cv2.resize(truth, (128, 96), interpolation=cv2.INTER_AREA)
    refined = refined_by.refine(rgb, small, coarse)
    enlarged = enlarged_by.refine(rgb, small, coarse)
    band = edge_band(truth)
    assert np.abs(refined - truth)[band].mean() < 0.75 * np.abs(enlarged - truth)[band].mean()


def test_margin_makes_nearly_nothing_nothing():
    matte = np.array([[0.05, 0.1, 0.5, 0.9, 0.97]], np.float32)
    np.testing.assert_allclose(stretch(matte, 0.1), [[0, 0, 0.5, 1, 1]], atol=1e-6)


def test_colour_line_solves_the_matting_equation():
    """c = alpha s + (1 - alpha) g between flat sky and ground: alpha comes back, made steeper."""
    sky, ground = np.array([200.0, 210.0, 230.0]), np.array([40.0, 60.0, 30.0])
    alpha = np.concatenate([np.ones(20), np.linspace(1, 0, 11), np.zeros(20)])
    alpha = np.tile(alpha[:, None], (1, 30))
    colours = alpha[..., None] * sky + (1 - alpha[..., None]) * ground
    options = RefineOptions(sure=0.01, ground_to=0.02, sky_to=0.02)
    line, trust = colour_line(np.round(colours).astype(np.uint8), alpha.astype(np.float32), options)
    middle = (slice(23, 28), slice(10, 20))  # both sides within the window
    found = line.apply(np.round(colours).astype(np.uint8))
    np.testing.assert_allclose(
        found[middle], (0.5 + 1.1 * (alpha - 0.5))[middle], atol=0.01
    )  # 0.01: colours rounded to 8 bit
    assert trust[middle].min() > 0.5
    assert trust[:10].max() == 0
    assert trust[-10:].max() == 0


def test_a_bird_that_the_small_matte_half_sees_is_whole():
    """No sure ground is near: what is least sky lends its colour."""
    full = np.full((240, 320, 3), (120, 160, 220), np.uint8)
    cv2.ellipse(full, (160, 120), (14, 5), 20, 0, 360, (40, 40, 45), -1, cv2.LINE_AA)
    bird = (full[..., 2] < 60).astype(np.float32)
    small = cv2.resize(full, (80, 60), interpolation=cv2.INTER_AREA)
    half_seen = 1 - 0.5 * cv2.resize(bird, (80, 60), interpolation=cv2.INTER_AREA)
    matte = refine_matte(full, small, cv2.GaussianBlur(half_seen, (0, 0), 0.7), RefineOptions())
    assert matte[bird > 0].mean() < 0.1
    away = cv2.dilate(bird, np.ones((25, 25))) == 0
    assert matte[away].min() > 0.97


def test_gaps_in_a_crown_are_open_where_no_sky_is_sure():
    """A crown of twigs of exact cover fills the window; the small matte has 0.5 all over it."""
    rng = np.random.default_rng(3)
    large = np.ones((4 * 120, 4 * 160), np.float32)
    for _ in range(260):
        x0, y0, x1, y1 = (int(v) for v in rng.integers(0, 640, 4))
        cv2.line(large, (x0, y0), (x1, y1), 0.0, 4)
    truth = cv2.resize(large, (160, 120), interpolation=cv2.INTER_AREA)
    rgb = 50 + truth[..., None] * np.array([100, 140, 190], np.float32)
    rgb = np.round(rgb).astype(np.uint8)
    coarse = np.clip(0.5 + 0.5 * (truth - truth.mean()), 0.35, 0.65).astype(np.float32)
    refined = refine_matte(rgb, rgb, coarse, RefineOptions())
    nearly_old = RefineOptions(ground_to=0.301, sky_to=0.301)
    before = refine_matte(rgb, rgb, coarse, nearly_old)
    assert np.abs(refined - truth).mean() < 0.6 * np.abs(before - truth).mean()


def test_no_line_where_sky_and_ground_look_alike():
    rgb = np.full((40, 50, 3), 200, np.uint8)
    coarse = np.zeros((40, 50), np.float32)
    coarse[:20] = 1
    assert colour_line(rgb, coarse, RefineOptions())[1].max() < 1e-3
    # the border of the small matte stays where the network has put it
    refined = refine_matte(rgb, rgb, coarse, RefineOptions())
    assert refined[:8].min() == 1
    assert refined[32:].max() == 0


@pytest.mark.parametrize(
    "options", [{"sure": 0.0}, {"sure": 0.5}, {"margin": 0.5}, {"ground_to": 0.3}, {"sky_to": 1.1}]
)
def test_refinement_out_of_range_is_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        RefineOptions(**options)


def test_too_small_a_side_is_refused():
    with pytest.raises(ValueError, match="side_px"):
        MatteOptions(side_px=16)


def test_wrong_frames_are_refused(weights: Path):
    with pytest.raises(ValueError, match="uint8"):
        NetworkMatter(weights).matte(np.zeros((8, 9, 3), np.float32))


# --- a clip at once -------------------------------------------------------------------------


def test_clip_mattes_come_in_order_and_number(weights: Path):
    """60 frames: two whole blocks and a part; a still clip of one picture has one matte."""
    frame = landscape(60, 92)[0]
    matter = NetworkMatter(weights, MatteOptions(side_px=64))
    mattes = list(clip_mattes(matter, (frame for _ in range(60))))
    assert len(mattes) == 60
    for matte in mattes[1:]:
        np.testing.assert_allclose(matte, mattes[0], atol=1e-3)


def test_causal_clip_mattes_are_those_of_the_matter(weights: Path):
    frames = [landscape(60, 92, seed)[0] for seed in (0, 0, 1, 1)]
    matter = NetworkMatter(weights, MatteOptions(side_px=64))
    expected = [matter.matte(frame) for frame in frames]
    got = list(clip_mattes(matter, frames, causal=True))
    for one, same in zip(got, expected, strict=True):
        np.testing.assert_allclose(one, same, atol=1e-6)


def test_a_clip_may_change_its_size(weights: Path):
    frames = [landscape(60, 92)[0], landscape(92, 60)[0]]
    matter = NetworkMatter(weights, MatteOptions(side_px=64))
    assert [m.shape for m in clip_mattes(matter, frames)] == [(60, 92), (92, 60)]


def test_hand_mattes_are_the_truth_on_their_frames(weights: Path, tmp_path: Path):
    rgb, truth = landscape(60, 92)
    painted = np.round(255 * truth).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "00002.png"), painted)
    names = [f"{t:05d}.png" for t in range(5)]
    matter = NetworkMatter(weights, MatteOptions(side_px=64))
    plain = list(clip_mattes(matter, [rgb] * 5))
    helped = list(clip_mattes(matter, [rgb] * 5, hand=HandMattes(tmp_path, names)))
    np.testing.assert_array_equal(helped[2], painted.astype(np.float32) / 255)
    for t in (0, 1, 3, 4):  # both directions: the correction reaches back too
        assert np.abs(helped[t] - truth).mean() < 0.5 * np.abs(plain[t] - truth).mean()


def test_hand_mattes_must_fit(tmp_path: Path):
    with pytest.raises(InputError, match="no such folder"):
        HandMattes(tmp_path / "none", ["00000.png"])
    cv2.imwrite(str(tmp_path / "cover.png"), np.zeros((4, 5), np.uint8))
    with pytest.raises(InputError, match="named like a frame"):
        HandMattes(tmp_path, ["00000.png"])
    cv2.imwrite(str(tmp_path / "00000.png"), np.zeros((4, 5), np.uint8))
    hand = HandMattes(tmp_path, ["00000.png"])
    assert hand.matte(1, (4, 5)) is None
    with pytest.raises(InputError, match="5x4, but the frame is 6x4"):
        hand.matte(0, (4, 6))


# --- commands -------------------------------------------------------------------------------


def write_pairs(root: Path, count: int = 2) -> tuple[Path, Path]:
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for seed in range(count):
        rgb, matte = landscape(60, 92, seed)
        cv2.imwrite(str(root / "images" / f"x_{seed}.jpg"), rgb[..., ::-1])
        cv2.imwrite(str(root / "masks" / f"x_{seed}.png"), np.round(255 * matte).astype(np.uint8))
    return root / "images", root / "masks"


def test_evaluate_writes_its_keys(weights: Path, tmp_path: Path, monkeypatch, capsys):
    images, masks = write_pairs(tmp_path)
    out = tmp_path / "scores.json"
    arguments = ["evaluate", "--images", str(images), "--masks", str(masks), "--json", str(out)]
    monkeypatch.setattr(sys, "argv", [*arguments, "--matter", str(weights)])
    evaluate.main()
    result = json.loads(out.read_text())
    assert {"iou_mean", "mae_mean", "band_mae_mean", "false_sky_mean"} <= result.keys()
    assert 0 <= result["iou_mean"] <= 1
    assert result["false_sky_mean"] is None
    assert "iou_mean" in capsys.readouterr().out


def test_evaluate_needs_a_place_for_its_json(tmp_path: Path, monkeypatch):
    images, masks = write_pairs(tmp_path, 1)
    arguments = ["evaluate", "--images", str(images), "--masks", str(masks)]
    monkeypatch.setattr(sys, "argv", [*arguments, "--json", str(tmp_path / "no" / "s.json")])
    with pytest.raises(InputError, match="does not exist"):
        evaluate.main()


def test_pictures_are_scored_alone(weights: Path):
    matte_of = alone(NetworkMatter(weights))
    first = matte_of(landscape(60, 92, 0)[0])
    matte_of(landscape(60, 92, 1)[0])
    np.testing.assert_allclose(matte_of(landscape(60, 92, 0)[0]), first, atol=1e-6)


def test_command_writes_a_matte_for_each_picture(weights: Path, tmp_path: Path, monkeypatch):
    images, _ = write_pairs(tmp_path)
    out = tmp_path / "mattes"
    monkeypatch.setattr(
        sys, "argv", ["sky", str(images), "--out", str(out), "--matter", str(weights)]
    )
    command.main()
    assert sorted(p.name for p in out.iterdir()) == ["x_0.png", "x_1.png"]
    written = cv2.imread(str(out / "x_1.png"), cv2.IMREAD_UNCHANGED)
    assert written.shape == (60, 92)
    assert written.dtype == np.uint8


def test_command_says_when_there_is_no_sky(tmp_path: Path, monkeypatch, capsys):
    images, _ = write_pairs(tmp_path)
    monkeypatch.setattr(command, "open_matter", lambda name, careful: Constant(0.0))
    monkeypatch.setattr(sys, "argv", ["sky", str(images), "--out", str(tmp_path / "mattes")])
    command.main()
    assert "no sky found in 2 frame(s); the mattes are black" in capsys.readouterr().out
    written = cv2.imread(str(tmp_path / "mattes" / "x_0.png"), cv2.IMREAD_UNCHANGED)
    assert not written.any()


@pytest.mark.parametrize("name", ["photo.tif", "photo.bmp", "photo.webp"])
def test_a_picture_of_any_format_lends_its_matte_its_name(name, tmp_path: Path):
    assert cv2.imwrite(str(tmp_path / name), np.zeros((20, 30, 3), np.uint8))
    assert command.open_frames(tmp_path / name).names == ["photo.png"]


def test_a_part_of_a_video_is_that_part(tmp_path: Path):
    """Each shot of a video is read by itself: from its first frame to before the next shot's."""
    grey = np.arange(7, dtype=np.uint8)[:, None, None, None] * 30 + 20
    path = write_video(tmp_path / "cut.mp4", np.tile(grey, (1, 48, 64, 3)))
    source = command.open_frames(path)
    assert source.frame_count == 7
    part = [int(rgb.mean().round()) for rgb in source.frames(2, 5)]
    np.testing.assert_allclose(part, [80, 110, 140], atol=3)  # coding moves a level or two
    surveyed = [int(rgb.mean().round()) for rgb in source.survey(5, 7)]
    np.testing.assert_allclose(surveyed, [170, 200], atol=3)


def test_pictures_whose_mattes_would_share_a_name_are_refused(tmp_path: Path):
    for name in ("a.png", "a.jpg", "b.png"):
        cv2.imwrite(str(tmp_path / name), np.zeros((20, 30, 3), np.uint8))
    with pytest.raises(InputError, match=r"a\.jpg and a\.png|a\.png and a\.jpg"):
        command.open_frames(tmp_path)


def test_command_names_what_is_missing(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["sky", str(tmp_path / "x.mp4"), "--out", str(tmp_path)])
    with pytest.raises(InputError, match="not found"):
        command.main()


# --- the bundled weights --------------------------------------------------------------------


@needs_bundled
@pytest.mark.parametrize("seed", range(3))
def test_bundled_network_finds_a_computed_sky(seed):
    """Skies and ground of formulas, unlike any photo; 0.85 leaves room for the drawn twigs."""
    rgb, truth = landscape(240, 368, seed)
    iou = score_picture("x", NetworkMatter().matte(rgb), truth).iou
    assert iou is not None
    assert iou > 0.85


@needs_bundled
@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason="the real pictures are not here")
def test_bundled_network_holds_its_scores():
    """Every fourth picture of val; the whole split is what the model card states."""
    root = SHARED / "sky_segmentation" / "val"
    matte_of = alone(NetworkMatter())
    scores = []
    for picture in sorted((root / "images").iterdir())[::4]:
        rgb = cv2.imread(str(picture))[..., ::-1]
        truth = cv2.imread(str(root / "masks" / f"{picture.stem}.png"), -1) / np.float32(255)
        scores.append(score_picture(picture.stem, matte_of(np.ascontiguousarray(rgb)), truth))
    assert summarize(scores)["iou_mean"] > 0.85
