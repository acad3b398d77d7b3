"""Temporal steadiness of the matte, both directions, and hand corrections."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest

from preprocess.sky.adapt import SkyColours
from preprocess.sky.offline import Corrections
from preprocess.sky.temporal import (
    FineSteadier,
    FlowSteadier,
    Motion,
    SteadyOptions,
    carry,
    small_flow,
    within_neighbours,
)

H, W = 96, 144


def scene(shift_x: int = 0, shift_y: int = 0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A textured ground below a pale sky with a ragged skyline, moved; and its true matte."""
    rng = np.random.default_rng(seed)
    pad = 48
    height, width = H + 2 * pad, W + 2 * pad
    noise = cv2.GaussianBlur(rng.random((height, width, 3)).astype(np.float32), (0, 0), 2.0)
    noise = (noise - noise.min()) / (noise.max() - noise.min())
    skyline = pad + H // 2 + np.cumsum(rng.integers(-1, 2, width)) // 2
    sky = np.arange(height)[:, None] < skyline[None]
    clouds = 200 + 40 * noise
    picture = np.where(sky[..., None], clouds, 130 * noise).astype(np.uint8)
    rows = slice(pad + shift_y, pad + shift_y + H)
    columns = slice(pad + shift_x, pad + shift_x + W)
    return np.ascontiguousarray(picture[rows, columns]), sky[rows, columns].astype(np.float32)


def doubtful(matte: np.ndarray) -> np.ndarray:
    """A matte less sure of itself, so that flicker added to it stays within [0, 1]."""
    return 0.3 + 0.4 * matte


def flicker(matte: np.ndarray, seed: int) -> np.ndarray:
    """The matte with blotches of up to +-0.3 that are new in every frame."""
    rng = np.random.default_rng(seed)
    return matte + cv2.resize(rng.uniform(-0.3, 0.3, (12, 18)).astype(np.float32), (W, H))


def test_carry_is_pinned():
    values = np.zeros((7, 9), np.float32)
    values[2, 5] = 1.0  # y 2, x 5
    flow = np.zeros((7, 9, 2), np.float32)
    flow[..., 0], flow[..., 1] = 3.0, -1.0  # each pixel was 3 right of and 1 above itself
    expected = np.zeros((7, 9), np.float32)
    expected[3, 2] = 1.0
    np.testing.assert_allclose(carry(values, flow), expected, atol=1e-6)


@pytest.mark.parametrize(("kind", "within_px"), [("half", 0.35), ("quick", 0.1), ("smooth", 0.1)])
def test_small_flow_points_to_where_the_pixel_was(kind, within_px):
    old, _ = scene(0, 0)
    new, _ = scene(5, -2)  # the window moved right and up: content moved left and down
    flow = small_flow(new, old, kind)[16:-16, 16:-16]
    np.testing.assert_allclose(np.median(flow, axis=(0, 1)), [5, -2], atol=within_px)


@pytest.mark.parametrize("kind", ["half", "quick", "smooth"])
@pytest.mark.parametrize("shape", [(1, 1), (5, 9), (3, 400), (12, 200), (200, 12)])
def test_flow_of_frames_of_a_few_pixels(shape, kind):
    """Sides that OpenCV refuses, and those at which it crashed."""
    rng = np.random.default_rng(0)
    new, old = (rng.integers(0, 255, shape).astype(np.uint8) for _ in range(2))
    flow = small_flow(new, old, kind)
    assert flow.shape == (*shape, 2)
    assert np.isfinite(flow).all()


def test_flow_at_the_frames_own_size_follows_thin_things():
    """Twigs two pixels wide, moved by 1.5 px: what half the size cannot tell is found."""
    rng = np.random.default_rng(4)
    wide = np.full((2 * H, 2 * W + 6, 3), 225, np.uint8)
    for x, lean in zip(range(6, 2 * W, 13), rng.integers(-12, 13, W), strict=False):
        cv2.line(wide, (int(x), 0), (int(x + lean), 2 * H), (40, 35, 30), 3, cv2.LINE_AA)
    old, new = (cv2.resize(wide[:, s : s + 2 * W], (W, H), interpolation=cv2.INTER_AREA)
                for s in (0, 3))  # fmt: skip
    inner = slice(12, -12)

    def left(kind: str) -> float:
        """Mean difference of the carried frame from the new one, 8-bit levels."""
        carried = carry(old.astype(np.float32), small_flow(new, old, kind))
        return float(np.abs(carried - new)[inner, inner].mean())

    assert left("quick") < 0.7 * left("half")


def test_still_scene_flickers_much_less():
    rgb, truth = scene()
    truth = doubtful(truth)
    steadier = FlowSteadier()
    rough = [flicker(truth, seed) for seed in range(24)]
    steady = [steadier(rgb, matte) for matte in rough]
    before = np.mean([np.abs(a - b).mean() for a, b in itertools.pairwise(rough)])
    after = np.mean([np.abs(a - b).mean() for a, b in itertools.pairwise(steady)])
    assert after < 0.5 * before
    error = np.abs(steady[-1] - truth).mean()
    assert error < 0.6 * np.abs(rough[-1] - truth).mean()


def test_moving_scene_is_followed():
    """The skyline moves 3 px a frame; a filter that did not follow would smear it."""
    steadier = FlowSteadier()
    errors, raw_errors = [], []
    for t in range(14):
        rgb, truth = scene(3 * t, 0)
        truth = doubtful(truth)
        rough = flicker(truth, t)
        steady = steadier(rgb, rough)
        inner = slice(8, -8)
        errors.append(np.abs(steady - truth)[inner, inner].mean())
        raw_errors.append(np.abs(rough - truth)[inner, inner].mean())
    assert np.mean(errors[5:]) < 0.8 * np.mean(raw_errors[5:])


def test_a_cut_takes_the_new_matte():
    steadier = FlowSteadier()
    first, truth = scene()
    steadier(first, truth)
    other = 255 - first
    new = steadier(other, 1 - truth)
    assert np.abs(new - (1 - truth)).mean() < 0.03  # hardly anything of the old shot is left


def test_a_lasting_change_wins_soon():
    """The network calls a whole wall sky in one frame, then corrects itself for good."""
    rgb, truth = scene()
    steadier = FlowSteadier()
    for _ in range(10):
        steadier(rgb, np.ones_like(truth))
    after = [np.abs(steadier(rgb, truth) - truth).mean() for _ in range(20)]
    assert after[19] < 0.05 * np.abs(1 - truth).mean()
    assert all(b <= a for a, b in itertools.pairwise(after))


def test_fine_matte_follows_the_small_motion():
    """Content moves 6 px right a frame at full size, 3 px at the small one."""
    flow = np.zeros((12, 20, 2), np.float32)
    flow[..., 0] = -3.0
    motion = Motion(flow, np.ones((12, 20), np.float32))
    first, second = np.zeros((24, 40), np.float32), np.zeros((24, 40), np.float32)
    first[:, 10:], second[:, 15:] = 1.0, 1.0
    fine = FineSteadier(SteadyOptions(keep_fine=0.75, surprise=1e6))
    np.testing.assert_array_equal(fine(first, None), first)
    got = fine(second, motion)
    expected = second.copy()
    expected[:, 15] = 0.25  # the carried edge is at 16: three parts of it, one of the new
    np.testing.assert_allclose(got, expected, atol=1e-6)
    np.testing.assert_array_equal(fine(second, None), second)


def test_fine_matte_is_new_where_the_motion_is_not_trusted():
    motion = Motion(np.zeros((12, 20, 2), np.float32), np.zeros((12, 20), np.float32))
    fine = FineSteadier()
    fine(np.ones((24, 40), np.float32), None)
    np.testing.assert_array_equal(fine(np.zeros((24, 40), np.float32), motion), 0)


def test_fine_matte_gives_way_over_an_area_and_holds_single_pixels():
    still = Motion(np.zeros((60, 90, 2), np.float32), np.ones((60, 90), np.float32))
    fine = FineSteadier()
    wrong, right = np.full((120, 180), 0.5, np.float32), np.full((120, 180), 0.5, np.float32)
    wrong[30:90, 40:140] = 1.0
    right[30:90, 40:140] = 0.0
    right[::8, :20] = 1.0  # flickers, a pixel here and there
    fine(wrong, None)
    got = fine(right, still)
    assert got[50:70, 60:120].max() < 0.05
    assert got[::8, :14].max() < 0.55


def test_a_thing_that_flies_past_leaves_no_trail():
    """The flow misses it (nothing moves, all is trusted): where it was, the sky is open at once."""
    still = Motion(np.zeros((60, 90, 2), np.float32), np.ones((60, 90), np.float32))
    fine = FineSteadier(SteadyOptions(keep_fine=0.97))
    mattes = [np.ones((240, 360), np.float32) for _ in range(3)]
    for t, matte in enumerate(mattes):
        matte[100:104, 60 + 40 * t : 70 + 40 * t] = 0.0
    for t, matte in enumerate(mattes):
        got = fine(matte, still if t else None)
    np.testing.assert_array_equal(got[:, :130], 1.0)
    np.testing.assert_array_equal(got[:, 165:], 1.0)


def test_a_carried_matte_is_held_between_its_neighbours():
    matte = np.tile(np.repeat([0.0, 0.4, 1.0], [20, 20, 20]).astype(np.float32), (60, 1))
    low, high = (within_neighbours(np.full_like(matte, v), matte)[30] for v in (0.0, 1.0))
    np.testing.assert_allclose(low[[10, 30, 50]], [0.0, 0.4, 1.0])
    np.testing.assert_allclose(high[[10, 30, 50]], [0.0, 0.4, 1.0])
    assert low[20] == 0.0  # one pixel from the ground
    np.testing.assert_allclose(high[19], 0.4)


def test_reset_forgets():
    rgb, truth = scene()
    steadier = FlowSteadier()
    steadier(rgb, np.ones_like(truth))
    steadier.reset()
    np.testing.assert_array_equal(steadier(rgb, truth), truth)


def test_no_keeping_returns_the_input():
    rgb, truth = scene()
    steadier = FlowSteadier(SteadyOptions(keep=0.0))
    steadier(rgb, np.zeros_like(truth))
    np.testing.assert_array_equal(steadier(rgb, truth), truth)


@pytest.mark.parametrize(
    ("field", "value"), [("keep", 1.0), ("keep_fine", 1.0), ("tolerance", 0.0), ("surprise", 0.0)]
)
def test_options_out_of_range_are_refused(field, value):
    with pytest.raises(ValueError, match=field):
        SteadyOptions(**{field: value})


def test_an_unknown_kind_of_flow_is_refused():
    with pytest.raises(ValueError, match="half, quick, smooth"):
        SteadyOptions(flow="best")


def test_unequal_shapes_are_refused():
    with pytest.raises(ValueError, match="must be equal"):
        FlowSteadier()(np.zeros((8, 9, 3), np.uint8), np.zeros((8, 8), np.float32))


def test_hand_matte_is_taken_and_its_correction_moves_with_the_picture():
    """The network misses the left half of the sky; a hand matte for frame 0 restores it."""
    corrections = Corrections()
    for t in range(6):
        rgb, truth = scene(0, -2 * t)
        wrong = truth.copy()
        wrong[:, : W // 2] = 0
        got = corrections(rgb, wrong, truth if t == 0 else None)
        if t == 0:
            np.testing.assert_array_equal(got, truth)
    # without carrying, the error is that of `wrong`; 0.35: edges and the frame's border remain
    assert np.abs(got - truth).mean() < 0.35 * np.abs(wrong - truth).mean()


def test_corrections_change_nothing_before_the_first_hand_matte():
    rgb, truth = scene()
    assert Corrections()(rgb, truth, None) is truth


def test_colours_of_the_clip_tell_sky_from_ground():
    rgb, truth = scene()
    colours = SkyColours()
    assert not colours.log_odds(rgb).any()
    colours.learn(rgb, truth)
    odds = colours.log_odds(scene(20, 0)[0])
    moved = scene(20, 0)[1] > 0.5
    assert odds[moved].mean() > 1.0
    assert odds[~moved].mean() < -1.0
    colours.reset()
    assert not colours.log_odds(rgb).any()


def test_doubt_is_settled_by_the_clips_colours():
    """A network that is sure of the upper and lower quarter only leaves the middle to colour."""
    rgb, truth = scene()
    said = np.full_like(truth, 0.5)
    said[: H // 4], said[-H // 4 :] = 1.0, 0.0
    settled = SkyColours().settle(rgb, said)
    middle = slice(H // 4, -H // 4)
    # 0.9: some colours of the ground are not in its lowest quarter
    assert ((settled > 0.5) == (truth > 0.5))[middle].mean() > 0.9
    assert settled[: H // 4].min() > 0.99


def test_a_clip_without_sure_sky_teaches_nothing():
    rgb, truth = scene()
    said = 0.6 * truth
    np.testing.assert_allclose(SkyColours().settle(rgb, said), said, atol=2e-5)


def test_unseen_colours_decide_nothing():
    colours = SkyColours()
    colours.learn(*scene())
    unseen = np.zeros((4, 5, 3), np.uint8)
    unseen[..., 0], unseen[..., 2] = 255, 0
    np.testing.assert_allclose(colours.log_odds(unseen), 0, atol=0.05)
