"""Composites with known truth: exact where all is known, safe where the atlas is wrong."""

import numpy as np
import pytest

from edits.composite import (
    LayerEdit,
    bounding_box,
    composite_frame,
    grain_of,
    replace_layer,
    side_by_side,
)
from edits.unmix import estimate_color, own_color, push_pull


class Flat:
    """Paint of one straight colour and opacity everywhere."""

    takes_shading = True

    def __init__(self, rgb, alpha=1.0, blend="normal", opaque=None):
        self.blend = blend
        self.opaque = alpha == 1 if opaque is None else opaque
        self._texel = np.float32([*(np.float32(rgb) * alpha), alpha])

    def sample(self, uv, time_s):
        return np.broadcast_to(self._texel, (*uv.shape[:2], 4)).copy()


def edit_of(share, *paints, **more):
    share = np.float32(share)
    return LayerEdit(share=share, uv=np.zeros((*share.shape, 2), np.float32), paints=paints, **more)


def twig_scene(seed=0, height=60, width=90):
    """Dark twigs over a bright, smooth sky: alpha, fg, old and new sky, all known exactly."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    share = np.clip(np.abs(np.sin(x * 0.7 + y * 0.2)) * 2.4 - 0.25, 0, 1)
    share[: height // 4] = 1
    old = np.stack([0.75 - 0.001 * x, 0.8 - 0.0012 * y, 0.9 + 0 * x], -1)
    fg = np.float32([0.12, 0.09, 0.06]) + 0.05 * rng.random((height, width, 3), np.float32)
    new = np.stack([0.5 + 0.004 * x, 0.25 + 0 * x, 0.1 + 0.003 * y], -1).astype(np.float32)
    mixed = fg * (1 - share[..., None]) + old * share[..., None]
    truth = fg * (1 - share[..., None]) + new * share[..., None]
    return share.astype(np.float32), old.astype(np.float32), new, mixed, truth


def psnr(a, b):
    return -10 * np.log10(np.mean((a.astype(np.float64) - b) ** 2))


# --- exact cases


def test_known_old_sky_gives_the_true_new_frame():
    share, old, new, mixed, truth = twig_scene()
    assert replace_layer(mixed, share, old, new) == pytest.approx(truth, abs=1e-5)


def test_in_8_bit_the_result_is_within_one_level_of_the_truth():
    share, old, new, mixed, truth = twig_scene()
    frame = np.rint(mixed * 255).astype(np.uint8)

    class Known(Flat):
        def sample(self, uv, time_s):
            return np.dstack([new, np.ones(new.shape[:2], np.float32)])

    found = composite_frame(frame, [edit_of(share, Known((0, 0, 0)), prior=old)])
    # Half a level from rounding the frame, half from rounding the result.
    assert np.abs(found.astype(int) - np.rint(truth * 255)).max() <= 1


def test_known_old_sky_beats_plain_alpha_compositing_at_the_edges():
    share, old, new, mixed, truth = twig_scene()
    frame = np.rint(mixed * 255).astype(np.uint8)
    edge = (share > 0.02) & (share < 0.98)
    plain = mixed + share[..., None] * (new - mixed)

    class Known(Flat):
        def sample(self, uv, time_s):
            return np.dstack([new, np.ones(new.shape[:2], np.float32)])

    known = composite_frame(frame, [edit_of(share, Known((0, 0, 0)), prior=old)]) / 255
    local = composite_frame(frame, [edit_of(share, Known((0, 0, 0)))]) / 255
    fringed = psnr(plain[edge], truth[edge])
    assert psnr(known[edge], truth[edge]) > fringed + 20
    assert psnr(local[edge], truth[edge]) > fringed + 10  # no atlas: old sky from its surroundings


def test_share_one_is_the_new_layer_and_share_zero_is_the_frame():
    rng = np.random.default_rng(0)
    frame, old, new = rng.random((3, 8, 9, 3), np.float32)
    share = np.zeros((8, 9), np.float32)
    share[:, 4:] = 1
    out = replace_layer(frame, share, old, new)
    assert (out[:, :4] == frame[:, :4]).all()
    assert out[:, 4:] == pytest.approx(new[:, 4:], abs=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_a_wrong_atlas_never_leaves_the_range_of_what_is_possible(seed):
    # Whatever is claimed of the old sky: 0 <= rest <= 1 - share, so the result lies between
    # share * new and share * new + 1 - share.
    rng = np.random.default_rng(seed)
    frame, old, new = rng.random((3, 30, 20, 3))
    share = rng.random((30, 20))
    out = replace_layer(frame, share, old, new)
    assert (out >= share[..., None] * new - 1e-9).all()
    assert (out <= share[..., None] * new + 1 - share[..., None] + 1e-9).all()


@pytest.mark.parametrize("seed", range(5))
def test_own_color_explains_the_pixel(seed):
    rng = np.random.default_rng(seed)
    frame, estimate = rng.random((2, 200, 3))
    share = rng.random((200, 1))
    own = own_color(frame, share, estimate)
    rest = frame - share * own
    assert own.min() >= 0
    assert own.max() <= 1
    assert (rest >= -1e-9).all()
    assert (rest <= 1 - share + 1e-9).all()
    believable = (rest > 1e-6) & (rest < 1 - share - 1e-6) & (own > 1e-6) & (own < 1 - 1e-6)
    assert own[believable] == pytest.approx(estimate[believable])  # kept where it is possible
    assert own_color(frame, np.ones((200, 1)), estimate) == pytest.approx(frame)


# --- frames


def test_no_edit_and_transparent_paint_are_bit_exact():
    frame = np.random.default_rng(1).integers(0, 256, (33, 47, 3), dtype=np.uint8)
    share = np.random.default_rng(2).random((33, 47), np.float32)
    assert (composite_frame(frame, []) == frame).all()
    assert (composite_frame(frame, [edit_of(share)]) == frame).all()
    for blend in ("normal", "multiply", "soft light"):
        invisible = Flat((0.9, 0.1, 0.4), alpha=0.0, blend=blend)
        prior = np.random.default_rng(3).random((33, 47, 3), np.float32)  # wrong on purpose
        assert (composite_frame(frame, [edit_of(share, invisible, prior=prior)]) == frame).all()
        unseen = edit_of(np.zeros((33, 47)), Flat((1, 0, 0), blend=blend))
        assert (composite_frame(frame, [unseen]) == frame).all()


def test_half_opaque_paint_is_half_way():
    frame = np.full((6, 7, 3), (100, 150, 200), np.uint8)
    paint = Flat((0, 1, 0), alpha=0.5)
    out = composite_frame(frame, [edit_of(np.ones((6, 7)), paint)])
    assert np.abs(out - np.float32([50, 202.5, 100])).max() <= 0.5


def test_a_partly_hidden_layer_takes_paint_by_its_share():
    # share 0.25; own colour 0.8 known; rest 0.3. new = rest + 0.25 * 0.2
    frame = np.full((5, 4, 3), round(255 * (0.3 + 0.25 * 0.8)), np.uint8)
    edit = edit_of(
        np.full((5, 4), 0.25), Flat((0.2,) * 3), prior=np.full((5, 4, 3), 0.8, np.float32)
    )
    assert np.abs(composite_frame(frame, [edit]).astype(int) - round(255 * 0.35)).max() <= 1


def test_paints_stack_in_order():
    frame = np.full((3, 4, 3), 200, np.uint8)
    share = np.ones((3, 4))
    red, blue = Flat((1, 0, 0)), Flat((0, 0, 1), alpha=0.5)
    assert (composite_frame(frame, [edit_of(share, red, blue)])[0, 0] == [128, 0, 128]).all()
    assert (composite_frame(frame, [edit_of(share, blue, red)])[0, 0] == [255, 0, 0]).all()


def test_two_layers_add_up_where_they_share_a_pixel():
    frame = np.full((4, 5, 3), 100, np.uint8)
    share = np.full((4, 5), 0.5, np.float32)
    prior = np.full((4, 5, 3), 100 / 255, np.float32)
    both = [
        edit_of(share, Flat((1, 1, 1)), prior=prior),
        edit_of(1 - share, Flat((0, 0, 0)), prior=prior),
    ]
    assert np.abs(composite_frame(frame, both).astype(int) - 127.5).max() <= 1


def test_shading_falls_on_paint():
    frame = np.full((4, 5, 3), 100, np.uint8)
    gain = np.full((4, 5, 3), 0.5, np.float32)
    paint = Flat((0.8, 0.4, 0.2))
    out = composite_frame(frame, [edit_of(np.ones((4, 5)), paint, gain=gain)])
    assert out[0, 0] == pytest.approx([102, 51, 25.5], abs=1)


def test_16_bit_frames_stay_16_bit():
    frame = np.full((3, 4, 3), 40000, np.uint16)
    out = composite_frame(frame, [edit_of(np.ones((3, 4)), Flat((0.25, 0.5, 1)))])
    assert out.dtype == np.uint16
    assert out[0, 0] == pytest.approx([16384, 32768, 65535], abs=1)


@pytest.mark.parametrize("seed", range(8))
def test_results_stay_between_the_layers(seed):
    # frame = (1 - a) fg + a old; the edited frame is a mix of fg and new, so it lies between
    # them (2 levels: the frame is rounded, and 1 / share magnifies nothing here).
    rng = np.random.default_rng(seed)
    share = rng.random((20, 30), np.float32)
    fg, old, new = rng.random((3, 3))
    mixed = (1 - share[..., None]) * fg + share[..., None] * old
    frame = np.rint(mixed * 255).astype(np.uint8)
    prior = np.broadcast_to(np.float32(old), frame.shape).copy()
    out = composite_frame(frame, [edit_of(share, Flat(new), prior=prior)]) / 255
    assert (out <= np.maximum(fg, new) + 2 / 255).all()
    assert (out >= np.minimum(fg, new) - 2 / 255).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("seed", range(3))
def test_the_short_way_for_opaque_paint_equals_the_long_way(seed, dtype):
    rng = np.random.default_rng(seed)
    share = np.clip(rng.normal(0.5, 0.6, (31, 44)), 0, 1).astype(np.float32)
    share[:3], share[:, -5:] = 0, 0
    frame = rng.integers(0, np.iinfo(dtype).max, (31, 44, 3), dtype=dtype)
    color = rng.random(3)
    for prior in (None, rng.random((31, 44, 3), np.float32)):
        short = composite_frame(frame, [edit_of(share, Flat(color), prior=prior)])
        long = composite_frame(frame, [edit_of(share, Flat(color, opaque=False), prior=prior)])
        # The last bit of float32 decides roundings at 16 bit; at 8 bit nothing is that close.
        assert np.abs(short.astype(int) - long).max() <= (0 if dtype == np.uint8 else 1)


# --- estimates


def test_estimate_keeps_a_prior_that_fits_and_follows_light_that_changed():
    share, old, _, mixed, _ = twig_scene()
    assert estimate_color(mixed, share, old) == pytest.approx(old, abs=1e-5)
    # The light went down by 0.2 since the atlas was made; only lone sky pixels can tell.
    brighter = old + 0.2
    # 3e-3: pixels of share 0.98 count as lone, and admit a little of the twig.
    assert estimate_color(mixed, share, brighter) == pytest.approx(old, abs=3e-3)


def test_estimate_without_any_lone_pixel_falls_back():
    frame = np.full((9, 11, 3), 0.3, np.float32)
    share = np.full((9, 11), 0.2, np.float32)
    assert (estimate_color(frame, share) == frame).all()
    prior = np.full((9, 11, 3), 0.7, np.float32)
    assert (estimate_color(frame, share, prior) == prior).all()


def test_push_pull_reproduces_what_is_known_and_a_constant_everywhere():
    weighted = np.zeros((13, 22, 4), np.float32)
    weighted[3, 4] = (0.2, 0.4, 0.6, 1)
    filled = push_pull(weighted)
    assert filled == pytest.approx(np.broadcast_to([0.2, 0.4, 0.6], (13, 22, 3)), abs=1e-5)
    rng = np.random.default_rng(0)
    known = rng.random((13, 22, 3), np.float32)
    assert push_pull(np.dstack([known, np.ones((13, 22), np.float32)])) == pytest.approx(known)
    assert push_pull(np.zeros((5, 6, 4), np.float32)) is None


def test_push_pull_takes_the_nearest_colour():
    weighted = np.zeros((16, 64, 4), np.float32)
    weighted[:, :4] = (1, 0, 0, 1)
    weighted[:, -4:] = (0, 0, 1, 1)
    filled = push_pull(weighted)
    assert filled[8, 6, 0] > 0.9
    assert filled[8, -7, 2] > 0.9


# --- grain


def test_grain_is_put_back_at_its_own_strength():
    rng = np.random.default_rng(4)
    noise = rng.normal(0, 4 / 255, (80, 100, 3)).astype(np.float32)
    old = np.full((80, 100, 3), 0.6, np.float32)
    frame = np.rint((old + noise) * 255).astype(np.uint8)
    share = np.ones((80, 100), np.float32)
    flat = composite_frame(frame, [edit_of(share, Flat((0.2,) * 3), prior=old)])
    assert flat.std() == 0
    grainy = composite_frame(frame, [edit_of(share, Flat((0.2,) * 3), prior=old, keep_grain=1.0)])
    # Noise less its Gaussian blur keeps 1 - 1 / (pi s^2) + 1 / (4 pi s^2) of the energy: 0.89 for
    # s = 1.5, so 0.95 of 4 levels; the cut at 3 sigma takes a little, rounding adds a little.
    assert grainy.std() == pytest.approx(0.945 * 4, rel=0.03)
    assert np.corrcoef((grainy - 51.0).ravel(), noise.ravel())[0, 1] > 0.9


def test_grain_leaves_structure_and_edges_alone():
    residual = np.zeros((40, 50, 3), np.float32)
    residual[:, 25:] = 0.5  # a cloud that moved, not grain
    share = np.ones((40, 50), np.float32)
    assert np.abs(grain_of(residual, share)).max() == 0  # the median deviation is 0
    assert (grain_of(residual, np.full((40, 50), 0.5, np.float32)) == 0).all()


# --- small parts


def test_bounding_box_is_tight():
    share = np.zeros((9, 14), np.float32)
    share[2, 5] = share[6, 11] = 0.5
    share[0, 0] = 1e-4  # less than half a grey level
    assert bounding_box(share) == (slice(2, 7), slice(5, 12))
    assert bounding_box(np.zeros((3, 4), np.float32)) is None


def test_side_by_side_puts_the_original_left():
    before, after = np.zeros((2, 3, 3), np.uint8), np.ones((2, 3, 3), np.uint8)
    both = side_by_side(before, after)
    assert both.shape == (2, 6, 3)
    assert both[:, :3].max() == 0
    assert both[:, 3:].min() == 1
