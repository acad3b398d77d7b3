"""Rain and snow: any frame by itself, falling the right way, dimmed over what is bright."""

import cv2
import numpy as np
import pytest

from edits.weather import Weather, WeatherOptions

SIZE = (180, 260)


def grey(level: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.full((*size, 3), level, np.uint8)


@pytest.mark.parametrize("kind", ["rain", "snow"])
def test_any_frame_can_be_made_alone(kind):
    options = WeatherOptions(**{kind: 0.7}, seed=4)
    in_order = Weather(options)
    frames = [in_order.apply(grey(40), t / 25, (3.0 * t, -t)) for t in range(6)]
    alone = Weather(options).apply(grey(40), 5 / 25, (15.0, -5.0))
    np.testing.assert_array_equal(alone, frames[5])
    other = Weather(WeatherOptions(**{kind: 0.7}, seed=5)).apply(grey(40), 5 / 25, (15.0, -5.0))
    assert (other != alone).mean() > 0.01


def motion(kind: str, step_s: float, travel_px: tuple[float, float], wind_deg: float = 0.0):
    """(x, y) in px by which the picture of what falls moves in a step; its far layer prevails."""
    weather = Weather(WeatherOptions(**{kind: 1.0}, wind_deg=wind_deg))
    size = (512, 512)
    before = weather.light(size, 2.0).astype(np.float32)
    after = weather.light(size, 2.0 + step_s, travel_px).astype(np.float32)
    (x, y), _ = cv2.phaseCorrelate(before, after, cv2.createHanningWindow(size, cv2.CV_32F))
    return x, y


def drop_at(weather: Weather, time_s: float) -> tuple[float, float]:
    """(x, y) in px of the middle of all that falls."""
    light = weather.light((600, 800), time_s).astype(float)
    rows, columns = np.mgrid[:600, :800]
    return (columns * light).sum() / light.sum(), (rows * light).sum() / light.sum()


@pytest.mark.parametrize("wind_deg", [0.0, 30.0, -20.0])
def test_one_drop_falls_at_its_pace_and_slant(wind_deg):
    # A density of 0.0006 leaves one drop, of the far layer: 1.2 diagonals of 1000 px a second,
    # give or take 15 % in pace and 10 % in slant. Seeds with the drop well inside the picture.
    seen = 0
    for seed in range(40):
        weather = Weather(WeatherOptions(rain=0.0006, wind_deg=wind_deg, seed=seed))
        light = weather.light((600, 800), 0.0)
        if light.max() == 0 or light[:60].any() or light[-120:].any():
            continue
        if light[:, :120].any() or light[:, -120:].any():
            continue
        (x0, y0), (x1, y1) = drop_at(weather, 0.0), drop_at(weather, 0.04)
        assert 0.84 * 48 < y1 - y0 < 1.16 * 48
        slant = np.tan(np.radians(wind_deg))
        assert x1 - x0 == pytest.approx(slant * (y1 - y0), abs=0.11 * abs(slant) * 48 + 0.3)
        seen += 1
    assert seen >= 5


@pytest.mark.parametrize("kind", ["rain", "snow"])
def test_what_falls_stays_in_the_world_when_the_camera_turns(kind):
    # The view turns 6 px right and 3 px down: all moves left and up, the far layer by just that.
    x, y = motion(kind, 0.0, (6.0, 3.0))
    assert (x, y) == pytest.approx((-6.0, -3.0), abs=0.7)  # near layers move up to 30 % more


def test_streaks_are_dimmed_over_bright_pictures_and_never_darken():
    weather = Weather(WeatherOptions(rain=1.0, snow=0.4))
    gain = []
    for level in (0, 100, 200, 255):
        frame = grey(level)
        after = weather.apply(frame, 1.0)
        assert (after >= frame).all()
        gain.append(float(after.astype(float).mean() - level))
    assert gain[0] > gain[1] > gain[2] > gain[3] == 0.0
    # light (1 - mean), screened: gain at level v is (1 - v / 255)^2 of that over black.
    assert gain[1] / gain[0] == pytest.approx((1 - 100 / 255) ** 2, rel=0.05)


def test_density_is_a_matter_of_degree():
    covered = [
        (Weather(WeatherOptions(rain=density)).light(SIZE, 0.5) > 8).mean()
        for density in (0.0, 0.2, 0.6, 1.0)
    ]
    assert covered[0] == 0
    assert covered[1] < covered[2] < covered[3]


def test_sixteen_bit_frames_get_the_same_weather():
    weather = Weather(WeatherOptions(rain=0.8))
    eight = weather.apply(grey(60), 0.3)
    sixteen = weather.apply(grey(60).astype(np.uint16) * 257, 0.3)
    assert sixteen.dtype == np.uint16
    assert np.abs(sixteen / 257 - eight).max() <= 1.5  # two roundings of half a level, and one


def test_larger_pictures_show_the_same_particles():
    weather = Weather(WeatherOptions(snow=0.5))
    small = weather.light((360, 520), 0.7).astype(np.float32)
    large = weather.light((1080, 1560), 0.7).astype(np.float32)
    shrunk = cv2.resize(large, (520, 360), interpolation=cv2.INTER_AREA)
    # Lines have whole widths in pixels, so they are not the same picture, but they correlate.
    assert np.corrcoef(small.ravel(), shrunk.ravel())[0, 1] > 0.7
