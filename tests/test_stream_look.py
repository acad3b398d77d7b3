"""Looks on planes against the sums in floating point, in 8 and 10 bit, whole and halved chroma."""

import cv2
import numpy as np
import pytest

from atlas.coords import Size
from atlas.planes import PlaneFormat, Planes
from edits.look_pass import NO_AIR, Air
from edits.relight import ToneTable
from edits.stream_composite import sky_rows
from edits.stream_look import Laid, PlaneLook
from edits.weather import Weather, WeatherOptions

SIZE = Size(96, 144)
STOPS = np.array([[-1.2, -1.0, -0.6], [-0.8, -0.6, -0.2], [0.5, 0.3, 0.1]], np.float32)
NEW = np.array([0.8, 0.5, 0.4], np.float32)
OLD = np.array([0.45, 0.6, 0.85], np.float32)


def scene() -> tuple[np.ndarray, np.ndarray]:
    """(H, W, 3) float32 scene without its sky, with soft colours and fine grey grain, and (H, W)
    share of the sky: rows of sky alone, of both, and of the scene alone."""
    y, x = np.mgrid[: SIZE.height, : SIZE.width].astype(np.float32)
    rgb = np.stack([0.3 + 0.3 * x / 144, 0.45 + 0.2 * y / 96, 0.3 + 0.1 * x / 144], -1)
    rgb += 0.05 * np.random.default_rng(0).standard_normal((*rgb.shape[:2], 1)).astype(np.float32)
    share = np.clip((46 + 8 * np.sin(x / 18) - y) / 12, 0, 1)
    return np.clip(rgb, 0.02, 0.98).astype(np.float32), share


def air(glow: bool = False) -> Air:
    y, x = np.mgrid[:24, :36].astype(np.float32)
    opacity = np.repeat((0.3 * np.exp(-((y - 12) ** 2) / 40))[..., None], 3, axis=2)
    light = (
        0.4
        * np.exp(-((x - 20) ** 2 + (y - 6) ** 2) / 60)[..., None]
        * np.array([1, 0.8, 0.6], np.float32)
    )
    veil = (opacity, opacity * NEW)
    return Air(
        np.zeros((24, 36, 3), np.float32), ToneTable.build(STOPS), veil, light if glow else None
    )


def wanted(given: Air) -> np.ndarray:
    """(H, W, 3) float32, the sums as the page of the look has them."""
    own, share = scene()
    assert given.table is not None
    assert given.veil is not None
    opacity, color = (cv2.resize(field, SIZE.wh) for field in given.veil)
    own = given.table.apply_float(own) * (1 - opacity) + color
    out = own + share[..., None] * (NEW - own)
    return out if given.glow is None else out + cv2.resize(given.glow, SIZE.wh) * (1 - out)


def done(form: PlaneFormat, given: Air) -> np.ndarray:
    """(H, W, 3) float32: the same by `PlaneLook`, from the frame under its old sky."""
    own, share = scene()
    planes = form.planes_of(own + share[..., None] * (OLD - own))
    alpha = np.rint(share * 255).astype(np.uint8)
    rows = sky_rows(alpha)
    assert rows is not None
    new = form.with_size(Size(rows.count, SIZE.width)).planes_of(np.tile(NEW, (rows.count, 144, 1)))
    old = np.tile(form.yuv_of(OLD[None, None])[0, 0].astype(np.float32), (48, 72, 1))
    result = PlaneLook(form).apply(planes, alpha, Laid(rows, list(new.all), old), given)
    return form.rgb_of(result, np.uint16).astype(np.float32) / 65535


@pytest.mark.parametrize("name", ["yuv444p", "yuv420p", "yuv444p10le", "yuv420p10le"])
@pytest.mark.parametrize("glow", [False, True])
def test_looks_on_planes_agree_with_the_sums_in_floating_point(name, glow):
    form, given = PlaneFormat(name, SIZE, "bt709", full=False), air(glow)
    error = 255 * np.abs(done(form, given) - wanted(given))
    _, share = scene()
    assert error[share == 0].mean() < (0.8 if form.step == 1 else 1.3)
    # a level of chroma is 2 of blue, and the table is of 8 bits
    assert np.percentile(error[(share == 0) | (share == 1)], 99) < 4
    assert np.percentile(error[(share > 0) & (share < 1)], 99) < 5  # divided by what is left of it
    untoned = 255 * np.abs(done(form, Air(given.sky, None, None, None)) - wanted(given))
    assert untoned[share == 0].mean() > 12


def test_without_a_look_or_a_sky_nothing_changes():
    form = PlaneFormat("yuv420p", SIZE, "bt709", full=False)
    planes = form.planes_of(scene()[0])
    alpha = np.rint(scene()[1] * 255).astype(np.uint8)
    for sky_alpha in (alpha, np.zeros_like(alpha), np.full_like(alpha, 255)):
        same = PlaneLook(form).apply(planes, sky_alpha, None, NO_AIR)
        for before, after in zip(planes.all, same.all, strict=True):
            assert np.abs(before.astype(int) - after).max() <= 1  # two roundings where it is mixed
    still = PlaneLook(form).apply(planes, np.zeros_like(alpha), None, NO_AIR)
    for before, after in zip(planes.all, still.all, strict=True):
        np.testing.assert_array_equal(before, after)


def test_a_sky_alone_is_laid_as_it_is():
    form = PlaneFormat("yuv420p", SIZE, "bt709", full=False)
    planes = form.planes_of(scene()[0])
    alpha = np.full((SIZE.height, SIZE.width), 255, np.uint8)
    rows = sky_rows(alpha)
    assert rows is not None
    new = form.planes_of(np.random.default_rng(2).random((96, 144, 3), np.float32))
    found = PlaneLook(form).apply(planes, alpha, Laid(rows, list(new.all), None), air())
    for after, sky in zip(found.all, new.all, strict=True):
        np.testing.assert_array_equal(after, sky)


@pytest.mark.parametrize("name", ["yuv444p", "yuv420p10le"])
def test_weather_falls_on_planes_as_on_rgb(name):
    form = PlaneFormat(name, SIZE, "bt709", full=False)
    rgb = np.rint(scene()[0] * 60).astype(np.uint8)
    weather = Weather(WeatherOptions(rain=1.0, snow=0.5))
    planes = weather.apply_planes(form.planes_of(rgb), form, 0.4, (3.0, 1.0))
    found = form.rgb_of(planes).astype(int)
    error = np.abs(found - weather.apply(rgb, 0.4, (3.0, 1.0)))
    fallen = np.abs(found - rgb).mean()
    assert fallen > 5
    assert error.mean() < 0.2 * fallen


def test_planes_keep_their_own_memory():
    form = PlaneFormat("yuv420p", SIZE, "bt709", full=False)
    planes = form.planes_of(scene()[0])
    before = Planes(*(plane.copy() for plane in planes.all))
    PlaneLook(form).apply(planes, np.rint(scene()[1] * 255).astype(np.uint8), None, air(glow=True))
    for kept, plane in zip(before.all, planes.all, strict=True):
        np.testing.assert_array_equal(kept, plane)
