"""Painted skies and the noise they are made of."""

from pathlib import Path

import numpy as np
import pytest

from atlas.clip import read_rgb
from atlas.errors import InputError
from edits.skies import make_skies
from edits.skies.clouds import CloudLook, View, paint_clouds
from edits.skies.noise import gradient, sample_tile, smoothstep, spectral_noise, spectral_volume

FOLDER = Path(make_skies.__file__).parent


@pytest.mark.parametrize("slope", [1.2, 2.0])
def test_noise_has_the_stated_spectrum_and_tiles(slope):
    tile = spectral_noise(256, np.random.default_rng(3), slope=slope, longest=0.25)
    assert tile.mean() == pytest.approx(0, abs=1e-5)
    assert tile.std() == pytest.approx(1, abs=1e-4)
    power = abs(np.fft.fft2(tile)) ** 2
    f = np.hypot(*np.meshgrid(np.fft.fftfreq(256), np.fft.fftfreq(256))) * 256
    assert power[f < 3.99].max() < 1e-6 * power.max()  # nothing longer than a quarter of the tile
    rings = np.array([8.0, 16.0, 32.0, 64.0])
    mean = [np.log(power[abs(f - r) < r / 8].mean()) for r in rings]
    fitted = np.polyfit(np.log(rings), mean, 1)[0]
    assert fitted == pytest.approx(-2 * slope, abs=0.25)  # rings of 100 to 6000 samples
    # across the seam it is as smooth as inside
    seam, inside = abs(tile[:, 0] - tile[:, -1]).mean(), abs(np.diff(tile, axis=1)).mean()
    assert seam == pytest.approx(inside, rel=0.3)


def test_volume_tiles_in_depth_and_its_slices_differ_smoothly():
    volume = spectral_volume((24, 64, 48), np.random.default_rng(0), slope=1.8, longest=0.5)
    assert volume.shape == (24, 64, 48)
    assert volume.std() == pytest.approx(1, abs=1e-4)
    steps = abs(volume - np.roll(volume, 1, axis=0)).mean((1, 2))
    assert steps.max() < 1.6 * steps.mean()  # the wrap from the last slice to the first too
    far = abs(volume - np.roll(volume, 12, axis=0)).mean()
    assert steps.mean() < 0.6 * far


def test_tile_is_sampled_where_asked_and_wraps():
    tile = np.arange(12, dtype=np.float32).reshape(3, 4)
    x, y = np.array([[1.0, 3.5, -1.0, 8.0]]), np.array([[2.0, 0.0, 4.0, 0.5]])
    # (3.5, 0) is half way from column 3 to column 0; (-1, 4) is (3, 1); (8, .5) is (0, .5)
    np.testing.assert_allclose(sample_tile(tile, x, y), [[9, 1.5, 7, 2]], atol=1e-5)


def test_ramps():
    np.testing.assert_allclose(smoothstep(2, 4, np.array([1, 2.5, 3, 9])), [0, 0.15625, 0.5, 1])
    stops = [(0.0, (0, 0, 0)), (1.0, (255, 51, 0))]
    got = gradient(stops, np.array([0.5, 5.0]))
    np.testing.assert_allclose(got[0], [0.5, 0.1, 0], atol=0.01)  # 0.01: 512 steps, rounded
    np.testing.assert_allclose(got[1], [1, 0.2, 0], atol=0.03)  # its end is rounded too


def test_view_directions_are_pinned():
    view = View((80, 200), 100.0, 60.0, 99.5)
    right, up, ahead = view.directions()
    np.testing.assert_allclose(right**2 + up**2 + ahead**2, 1, atol=1e-5)
    assert up[60].max() == up[60].min() == 0  # the horizon
    assert up[0, 100] > 0 > up[79, 100]
    assert right[10, 199] > 0 > right[10, 0]
    sun = view.towards(0.75, 20)
    assert np.degrees(np.arcsin(sun[1])) == pytest.approx(20)
    assert sun[0] / sun[2] == pytest.approx((150 - 99.5) / 100)


def test_clouds_cover_more_with_more_cover_and_nothing_without():
    view = View((48, 90), 60.0, 44.0, 44.5)
    blue = np.broadcast_to(np.array([0.2, 0.4, 0.8], np.float32), (48, 90, 3))
    sun = view.towards(0.3, 30)

    def clouded(cover: float) -> np.ndarray:
        look = CloudLook(cover=cover, slices=6)
        return paint_clouds(blue, view, sun, look, np.random.default_rng(2))

    np.testing.assert_allclose(clouded(-9), blue, atol=1e-6)
    some, much = ((abs(clouded(c) - blue).max(-1) > 0.05).mean() for c in (-0.6, 0.6))
    assert 0.02 < some < 0.9 * much
    np.testing.assert_allclose(clouded(0.6)[45:], blue[45:], atol=1e-6)  # none below the horizon


@pytest.mark.parametrize("name", sorted(make_skies.SKIES))
def test_bundled_sky_is_what_the_script_paints(name):
    # The same seed at an eighth of the size has the same gradients and light: broad colours agree.
    bundled = read_rgb(FOLDER / f"{name}.jpg")
    assert bundled.shape == (1024, 2048, 3)
    assert (FOLDER / f"{name}.jpg").stat().st_size <= 400_000
    painted = make_skies.paint(name, 128, 256)
    broad = bundled.reshape(4, 256, 4, 512, 3).mean((1, 3))
    again = painted.reshape(4, 32, 4, 64, 3).mean((1, 3))
    assert abs(broad - again).mean() < 6  # levels; another sky is 30 or more away


def test_skies_differ_from_each_other():
    broad = {n: read_rgb(FOLDER / f"{n}.jpg").mean((0, 1)) for n in make_skies.SKIES}
    for a in broad:
        for b in broad:
            assert a == b or abs(broad[a] - broad[b]).max() > 12


def test_unknown_sky_is_named():
    with pytest.raises(InputError, match="no bundled sky 'aurora'; wanted one of clear, dawn"):
        make_skies.paint("aurora", 10, 20)
