"""Relighting, halo, haze and glow: identities, hand-made skies, nothing clips, causal in time."""

import cv2
import numpy as np
import pytest

from atlas.coords import Size, pixel_grid
from atlas.errors import InputError
from atlas.mapping import FrameMapping, Layer, LayerMapping
from edits.apply import RenderContext, render
from edits.halo import screen, spill
from edits.haze import find_sun, haze_weight, horizon_color, skyline, sun_glow
from edits.look import Look
from edits.look_pass import LookFrame, LookPass, relit, veiled
from edits.recipe import Recipe
from edits.relight import RangeRelight, SkyLight, ToneTable, decode_srgb, log_gains

HEIGHT, WIDTH = 96, 160


def scene(rng: np.random.Generator, skyline_row: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """(H, W, 3) uint8 frame with a sky on top, and the sky's share, soft over a few rows."""
    rows = np.arange(HEIGHT, dtype=np.float32)[:, None]
    share = np.clip((skyline_row + 2 - rows) / 4, 0, 1) * np.ones((1, WIDTH), np.float32)
    ground = cv2.resize(rng.random((12, 20, 3)).astype(np.float32), (WIDTH, HEIGHT))
    sky = np.linspace(0.5, 0.8, HEIGHT)[:, None, None] * np.ones((1, WIDTH, 3))
    frame = share[..., None] * sky + (1 - share[..., None]) * ground
    return np.rint(frame * 255).astype(np.uint8), share.astype(np.float32)


def look_frame(rgb, share, sky_rgb=None, time_s=0.0, before=None) -> LookFrame:
    sky = None
    if sky_rgb is not None:
        colour = np.asarray(sky_rgb, np.float32)
        sky = lambda uv: np.broadcast_to(colour, (*uv.shape[:2], 3))  # noqa: E731
    uv = pixel_grid(Size(*share.shape))
    return LookFrame(rgb if before is None else before, rgb, share, uv, sky, time_s)


def test_a_sky_replaced_by_itself_changes_nothing():
    rng = np.random.default_rng(1)
    rgb = rng.integers(0, 255, (20, 30, 3), np.uint8)
    weight = np.ones((20, 30), np.float32)
    light = SkyLight.of(rgb, weight)
    assert light is not None
    np.testing.assert_allclose(log_gains(light, light, 0.8, 0.9), 0, atol=1e-6)
    table = ToneTable.build(np.zeros((3, 3), np.float32))
    np.testing.assert_array_equal(table.apply(rgb), rgb)


def test_thirds_are_sorted_by_luminance_and_linear():
    rgb = np.zeros((3, 40, 3), np.uint8)
    rgb[0], rgb[1], rgb[2] = 200, 20, 100
    light = SkyLight.of(rgb, np.ones((3, 40), np.float32))
    assert light is not None
    expected = decode_srgb(np.float32([20, 100, 200]) / 255)
    np.testing.assert_allclose(light.thirds[:, 1], expected, rtol=1e-5)
    assert SkyLight.of(rgb, np.zeros((3, 40), np.float32)) is None


def uniform(red: float, green: float, blue: float) -> SkyLight:
    return SkyLight(np.tile(np.float32([red, green, blue]), (3, 1)))


def test_colour_gains_keep_the_luminance_of_grey():
    stops = log_gains(uniform(0.4, 0.5, 0.8), uniform(0.9, 0.4, 0.2), recolor=0.7, relight=0.0)
    luminance = np.exp2(stops) @ np.float32([0.2126, 0.7152, 0.0722])
    np.testing.assert_allclose(luminance, 1, rtol=1e-5)
    assert stops[0, 0] > 0.2  # redder
    assert stops[0, 2] < -0.2  # less blue


def test_brightness_follows_by_its_strength_and_is_limited():
    old = uniform(0.4, 0.4, 0.4)
    halved = log_gains(old, uniform(0.2, 0.2, 0.2), recolor=0.0, relight=0.5)
    # Half of one stop, which the limit at -3.5 stops takes less than 1 % from.
    np.testing.assert_allclose(halved, -0.5, atol=0.005)
    night = log_gains(old, uniform(0.0, 0.0, 0.0), recolor=0.0, relight=1.0)
    assert -3.5 <= night.min() <= night.max() < -3.2
    dazzle = log_gains(uniform(0.003, 0.003, 0.003), uniform(1, 1, 1), recolor=0.0, relight=1.0)
    assert 1.19 < dazzle.max() <= 1.2


def test_shadows_and_highlights_follow_their_own_part_of_the_sky():
    old = SkyLight(np.repeat(np.float32([[0.2], [0.4], [0.8]]), 3, axis=1))
    new = SkyLight(np.repeat(np.float32([[0.05], [0.4], [0.8]]), 3, axis=1))
    table = ToneTable.build(log_gains(old, new, recolor=0.0, relight=0.6))
    greys = np.repeat(np.uint8([[[10], [128], [250]]]), 3, axis=2)
    dark, middle, bright = table.apply(greys)[0, :, 0].astype(int) - greys[0, :, 0]
    assert dark < -1
    assert (middle, bright) == (0, 0)


@pytest.mark.parametrize("gain_stops", [-3.0, -0.7, 0.6, 1.2])
def test_tones_are_monotone_and_never_clip(gain_stops):
    stops = np.float32([[1.1, 1.0, 0.8], [1, 1, 1], [0.9, 1.0, 1.2]]) * gain_stops
    levels = ToneTable.build(stops).levels.astype(int)
    assert (np.diff(levels, axis=1) >= 0).all()
    assert (levels[:, 0] == 0).all()
    bright = levels[:, 225:250]  # near white: below it still, and not all the same
    assert bright.max() < 255
    assert (bright[:, -1] > bright[:, 0]).all()


def test_tables_agree_with_the_formula():
    stops = np.full((3, 3), -1.0, np.float32)
    table = ToneTable.build(stops)
    grey = np.full((4, 6, 3), 180, np.uint8)
    light = decode_srgb(np.float32(180 / 255)) / 2
    encoded = 255 * (1.055 * light ** (1 / 2.4) - 0.055)
    assert table.apply(grey)[0, 0, 0] == round(float(encoded))
    as_float = table.apply_float(grey.astype(np.float32) / 255) * 255
    assert as_float[0, 0, 0] == pytest.approx(encoded, abs=0.75)  # a level of the table, and luma


def test_sixteen_bits_are_toned_as_eight():
    rng = np.random.default_rng(2)
    rgb = rng.integers(0, 256, (30, 40, 3), np.uint8)
    table = ToneTable.build(np.float32([[-1, -0.8, -0.5]] * 3), saturation=0.7)
    difference = table.apply(rgb.astype(np.uint16) * 257) / 257 - table.apply(rgb)
    assert np.abs(difference).max() < 1.6  # luma rounded in one and not in the other


def test_saturation_zero_is_grey():
    rng = np.random.default_rng(3)
    rgb = rng.integers(0, 256, (30, 40, 3), np.uint8)
    grey = ToneTable.build(np.zeros((3, 3), np.float32), saturation=0.0).apply(rgb)
    assert np.ptp(grey.astype(int), axis=2).max() == 0


def test_mixed_pixels_tone_the_foreground_alone():
    new_sky, ground = 0.9, 0.3
    share = np.tile(np.linspace(0, 1, 40, dtype=np.float32), (12, 1))
    frame = share * new_sky + (1 - share) * ground
    rgb = np.repeat(np.rint(frame * 255)[..., None], 3, axis=2).astype(np.uint8)
    table = ToneTable.build(np.full((3, 3), -2.0, np.float32))
    toned = relit(rgb, share, np.full((4, 8, 3), new_sky, np.float32), table)
    dark = float(table.apply_float(np.full((1, 1, 3), ground, np.float32))[0, 0, 0])
    expected = (share * new_sky + (1 - share) * dark) * 255
    # Two roundings of half a level each, and the ground read off through the rounding of the frame.
    assert np.abs(toned[..., 1] - expected).max() < 1.6
    np.testing.assert_array_equal(toned[share == 1], rgb[share == 1])


# --- over time


def test_light_is_eased_causally_and_follows_a_cut_at_once():
    grey, dim = uniform(0.5, 0.5, 0.5), uniform(0.35, 0.35, 0.35)
    relight = RangeRelight(recolor=0.0, relight=1.0, smooth_s=0.5)
    first = relight.step(grey, grey, 0.0)
    np.testing.assert_allclose(first, 0, atol=1e-6)
    target = log_gains(grey, dim, 0.0, 1.0)
    after = relight.step(grey, dim, 0.5)  # one time constant
    np.testing.assert_allclose(after, target * (1 - np.exp(-1)), rtol=1e-5)
    hidden = relight.step(None, None, 0.6)
    np.testing.assert_allclose(hidden, after)  # no sky in sight: hold
    night = uniform(0.02, 0.02, 0.02)
    jumped = relight.step(grey, night, 0.7)
    np.testing.assert_allclose(jumped, log_gains(grey, night, 0.0, 1.0))


def test_a_look_never_looks_ahead():
    rng = np.random.default_rng(4)
    frames = [scene(rng) for _ in range(4)]
    look = Look(recolor=0.6, relight=0.6, halo=0.4, haze=0.4)

    def run(count):
        looks = LookPass(look)
        skies = [(0.9, 0.5, 0.3), (0.8, 0.5, 0.4), (0.7, 0.4, 0.4), (0.9, 0.4, 0.3)]
        return [
            looks.apply(look_frame(rgb, share, skies[i], i / 25))
            for i, (rgb, share) in enumerate(frames[:count])
        ]

    for short, long in zip(run(2), run(4), strict=False):
        np.testing.assert_array_equal(short, long)


# --- halo, haze, glow


def test_off_means_untouched():
    rgb, share = scene(np.random.default_rng(5))
    assert not Look().active
    out = LookPass(Look(rain=0.0)).apply(look_frame(rgb, share, (1, 0, 0)))
    np.testing.assert_array_equal(out, rgb)


@pytest.mark.parametrize(
    "strength", [{"recolor": 0.8}, {"relight": 0.8}, {"halo": 0.8}, {"haze": 0.8}]
)
def test_the_sky_itself_keeps_its_pixels(strength):
    rgb, share = scene(np.random.default_rng(6))
    out = LookPass(Look(**strength)).apply(look_frame(rgb, share, (0.9, 0.4, 0.2)))
    sky = share == 1
    np.testing.assert_array_equal(out[sky], rgb[sky])
    assert np.abs(out.astype(int) - rgb)[share == 0].max() > 3  # and the scene does not


def test_spill_is_never_brighter_than_the_sky_and_fades_away_from_it():
    share = np.zeros((60, 100), np.float32)
    share[:20] = 1
    light = spill(np.full((60, 100, 3), 0.7, np.float32), share)
    assert light.max() <= 0.7 + 1e-5
    column = light[:, 50, 0]
    assert (np.diff(column[22:]) <= 1e-6).all()
    assert column[22] > 3 * column[32] > 0


def test_screen_adds_light_and_keeps_white():
    assert screen(np.float32(0.25), np.float32(0.4)) == pytest.approx(1 - 0.75 * 0.6)
    assert screen(np.float32(1.0), np.float32(0.4)) == 1


def test_a_veil_is_the_same_in_eight_and_sixteen_bits():
    rng = np.random.default_rng(7)
    rgb, share = scene(rng)
    opacity = rng.random((12, 20, 3)).astype(np.float32) * 0.6
    color = opacity * np.float32([0.9, 0.5, 0.2])
    eight = veiled(rgb, opacity, color, share)
    sixteen = veiled(rgb.astype(np.uint16) * 257, opacity, color, share)
    assert np.abs(sixteen / 257 - eight).max() < 2.5  # five roundings of 8-bit arithmetic


def test_the_skyline_ignores_a_pole_and_haze_thins_below_it():
    share = np.zeros((60, 120), np.float32)
    share[:30] = 1
    share[10:, 58:61] = 0  # a mast before the sky
    rows = skyline(share)
    np.testing.assert_allclose(rows, 30, atol=0.5)
    weight = haze_weight(rows, share.shape, 0.2)
    assert weight[30, 10] == pytest.approx(1, abs=0.05)
    assert weight[42, 10] == pytest.approx(np.exp(-1), abs=0.03)  # 12 rows are 0.2 of the height
    assert weight[12, 59] == pytest.approx(0.35, abs=0.03)
    assert (haze_weight(skyline(0 * share), share.shape, 0.2) == 0).all()


def test_haze_takes_the_colour_over_the_horizon():
    sky = np.zeros((60, 80, 3), np.float32)
    sky[:20] = (0.1, 0.2, 0.9)
    sky[20:] = (0.9, 0.5, 0.3)
    share = np.zeros((60, 80), np.float32)
    share[:30] = 1
    color = horizon_color(sky, share, skyline(share))
    assert color is not None
    assert color[0] > 0.65
    assert color[2] < 0.5
    assert horizon_color(sky, 0 * share, skyline(share)) is None


def test_haze_is_of_the_colour_that_is_asked_for():
    rgb, share = scene(np.random.default_rng(8))
    out = LookPass(Look(haze=1.0, haze_height=2.0, haze_color="#ff0000")).apply(
        look_frame(rgb, share, (0.2, 0.5, 0.9))
    )
    assert (out[46, :, 0] > 235).all()
    assert (out[46, :, 2] < 30).all()


def test_the_sun_is_found_and_a_bright_cloud_cover_is_none():
    share = np.ones((60, 100), np.float32)
    sky = np.full((60, 100, 3), 0.4, np.float32)
    cv2.circle(sky, (70, 25), 3, (1.0, 0.95, 0.8), -1)
    sun = find_sun(sky, share)
    assert sun is not None
    assert (sun.x, sun.y) == pytest.approx((70, 25), abs=0.5)
    glow = sun_glow(sun, (60, 100))
    assert np.unravel_index(glow[..., 0].argmax(), (60, 100)) == (25, 70)
    assert glow.max() <= 1
    assert find_sun(np.full_like(sky, 0.97), share) is None
    assert find_sun(np.full_like(sky, 0.3), share) is None
    hidden = share.copy()
    hidden[:40] = 0
    behind = find_sun(sky, hidden)
    assert behind is None or behind.strength < 0.01


# --- the field's checks, and the whole path


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"haze": 1.2}, "haze is 1.2, wanted 0 to 1"),
        ({"rain": float("nan")}, "rain is nan"),
        ({"haze_color": "red"}, "haze_color is 'red', wanted #rrggbb"),
        ({"wind_deg": 80.0}, "wind_deg is 80.0, wanted -60 to 60"),
    ],
)
def test_bad_looks_are_refused(values, message):
    with pytest.raises(InputError, match=message):
        Look(**values)


class TwoLayers(LayerMapping):
    """A still camera; the sky's share as given."""

    frame_count = 3

    def __init__(self, share: np.ndarray, names: tuple[str, str] = ("foreground", "sky")):
        self._share = share
        self.frame_size = Size(*share.shape)
        self.layers = tuple(Layer(name, self.frame_size) for name in names)

    def frame(self, t, size=None):
        uv = np.stack([pixel_grid(self.frame_size)] * 2)
        alpha = np.stack([1 - self._share, np.ones_like(self._share)])
        return FrameMapping(uv, alpha, np.ones(2, np.float32))


def test_a_recipe_with_a_look_alone_is_rendered():
    rgb, share = scene(np.random.default_rng(9))
    recipe = Recipe(look=Look(haze=0.6, haze_height=0.3))
    out = list(render(TwoLayers(share), [rgb] * 3, recipe, RenderContext()))
    assert len(out) == 3
    np.testing.assert_array_equal(out[0][share == 1], rgb[share == 1])
    assert np.abs(out[0].astype(int) - rgb)[48].max() > 10


def test_rain_needs_no_sky_but_haze_does():
    rgb, share = scene(np.random.default_rng(10))
    mapping = TwoLayers(share, ("foreground", "background"))
    (out,) = render(mapping, [rgb], Recipe(look=Look(rain=1.0)), RenderContext())
    assert (out >= rgb).all()
    assert (out > rgb).any()
    with pytest.raises(InputError, match="no layer called 'sky'"):
        list(render(mapping, [rgb], Recipe(look=Look(haze=0.4)), RenderContext()))


def test_soft_mattes_are_toned_in_proportion():
    """A matte that is soft everywhere: nothing where it is sky, all where it is not."""
    rng = np.random.default_rng(3)
    after = rng.integers(0, 256, (720, 60, 3), np.uint8)
    share = np.tile(np.linspace(1, 0, 60, dtype=np.float32), (720, 1))
    table = ToneTable.build(np.full((3, 3), -1.0, np.float32))
    got = relit(after, share, np.zeros((4, 6, 3), np.float32), table)
    np.testing.assert_array_equal(got[:, 0], after[:, 0])
    np.testing.assert_array_equal(got[:, -1], table.apply(after)[:, -1])
    exact = after + (1 - share[..., None]) * (table.apply(after).astype(float) - after)
    assert np.abs(got - exact).max() <= 1.01
