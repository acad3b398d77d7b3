"""The camera's light: exposures and a vignette are found, and told from layers and from nothing."""

import cv2
import numpy as np
import pytest

from atlas import camera_light
from atlas.camera_light import CameraLight, estimate_light, radial_powers
from atlas.coords import Size, pixel_grid
from atlas.layered import LayerMotion
from atlas.store import ClipStore

SIZE, COUNT = Size(96, 160), 9
STEP_PX = 12
EXPOSURE = np.array([1.0, 1.1, 1.2, 1.0, 0.9, 0.85, 1.0, 1.15, 0.95])
TINT = np.array([1.0, 1.0, 1.05])
"""White balance of the odd frames."""
VIGNETTE = np.array([-0.25, 0.0, -0.1])


class Moving(ClipStore):
    """A wide picture that the camera passes over; a patch in front moves on its own."""

    def __init__(self, light, patch_gain=None, step_px=STEP_PX):
        self.size, self.frame_count, self.budget_mb = SIZE, COUNT, 100.0
        rng = np.random.default_rng(5)
        noise = rng.random((SIZE.height, SIZE.width + STEP_PX * COUNT, 3)).astype(np.float32)
        wide = cv2.GaussianBlur(noise, (0, 0), 6)
        self.wide = 0.25 + 0.35 * (wide - wide.min()) / np.ptp(wide)
        self.light, self.patch_gain, self.step_px = light, patch_gain, step_px

    @property
    def half(self):
        return self

    def alpha(self, t):
        out = np.ones((2, SIZE.height, SIZE.width), np.float32)
        out[0] = 0
        if self.patch_gain is not None:
            out[0, 20:70, 30 + 4 * t : 80 + 4 * t] = 1
        return out

    def frame(self, t):
        rgb = self.wide[:, self.step_px * t : self.step_px * t + SIZE.width].copy()
        if self.patch_gain is not None:
            patch = self.wide[40:90, 60:110] * self.patch_gain[t]
            rgb[20:70, 30 + 4 * t : 80 + 4 * t] = patch
        return np.rint((rgb * self.light(t)).clip(0, 1) * 255).astype(np.uint8)

    def motions(self):
        shifts = np.tile(np.eye(3), (2, COUNT, 1, 1))
        shifts[0, :, 0, 2] = -4 * np.arange(COUNT)
        shifts[1, :, 0, 2] = self.step_px * np.arange(COUNT)
        canvas = Size(SIZE.height, SIZE.width + STEP_PX * COUNT)
        sure = np.ones(COUNT, np.float32)
        return [LayerMotion(n, canvas, m, None, 4, sure) for n, m in zip("ab", shifts, strict=True)]


def true_light(t):
    field = np.exp(radial_powers(pixel_grid(SIZE), SIZE) @ VIGNETTE)[..., None]
    return (field * EXPOSURE[t] * (TINT if t % 2 else 1)).astype(np.float32)


def error(found, true, times=range(COUNT)):
    """Largest difference of logarithms, but for one factor by channel over all."""
    off = np.stack([np.log(found(t)) - np.log(true(t)) for t in times])
    return float(np.abs(off - off.mean((0, 1, 2))).max())


def test_samples_some_at_a_time_give_the_light_of_all_at_once(monkeypatch):
    store = Moving(true_light, patch_gain=np.linspace(0.9, 1.1, COUNT))
    monkeypatch.setattr(camera_light, "CHUNK", 10**9)
    whole = estimate_light(store, store.motions())
    monkeypatch.setattr(camera_light, "CHUNK", 300)
    parts = estimate_light(store, store.motions())
    for a, b in ((whole.camera.exposure, parts.camera.exposure), (whole.layers, parts.layers)):
        np.testing.assert_allclose(a, b, atol=1e-5)
    assert np.ptp(whole.layers[0]) > 0.1


def test_long_shots_are_told_by_no_more_samples(monkeypatch):
    store, taken = Moving(true_light), []
    for many in (COUNT, 2):  # a shot as long as it may be in full, and 4.5 times that
        monkeypatch.setattr(camera_light, "MANY_FRAMES", many)
        samples = camera_light._gathered(store, store.motions())
        assert samples is not None
        taken.append(len(samples.weight))
    assert taken[1] < 0.35 * taken[0]


def test_exposure_white_balance_and_vignette_are_found():
    store = Moving(true_light)
    camera = estimate_light(store, store.motions()).camera
    assert error(lambda t: camera(t), true_light) < 0.03  # 0.35 at the corners, were it 1
    mean = np.mean([np.log(camera(t)) for t in range(COUNT)])
    assert mean == pytest.approx(0, abs=1e-4)


def test_a_layer_lit_on_its_own_is_no_exposure():
    gain = np.linspace(0.8, 1.25, COUNT)
    store = Moving(true_light, gain)
    light = estimate_light(store, store.motions())
    assert error(lambda t: light.camera(t), true_light) < 0.04
    beside = np.log(light.layers[0].mean(-1))
    expected = np.log(gain) - np.log(gain).mean()
    assert np.abs(beside - expected).max() < 0.05  # the patch's gains span 0.45
    assert np.abs(np.log(light.layers[1])).max() < 0.02
    np.testing.assert_array_equal(light.of_camera().layers, 1)


def test_even_light_stays_even():
    store = Moving(lambda t: np.float32(1))
    camera = estimate_light(store, store.motions()).camera
    assert error(lambda t: camera(t), lambda t: np.float32(1)) < 0.01


def test_a_camera_that_stands_still_tells_no_vignette():
    store = Moving(true_light, step_px=0)
    camera = estimate_light(store, store.motions()).camera
    assert np.abs(camera.vignette).max() < 0.005  # the picture has it
    steps = np.log(camera.exposure[:, 0] / camera.exposure[0, 0])
    assert np.abs(steps - np.log(EXPOSURE)).max() < 0.01


def test_lattice_and_views_agree():
    camera = CameraLight(np.ones((1, 3), np.float32), np.float32([-0.2, -0.1, 0]), SIZE)
    np.testing.assert_allclose(camera.on_lattice(0, 4)[3, 5], camera(0)[12, 20], rtol=1e-6)
    assert camera(0).argmax() // 3 in {(47 + i) * 160 + 79 + j for i in (0, 1) for j in (0, 1)}
    corner = np.exp(-0.3)
    np.testing.assert_allclose(camera(0)[0, 0], corner, rtol=1e-5)
    half = camera(0, Size(48, 80))
    assert half[24, 40].mean() == pytest.approx(camera(0)[48, 80].mean(), abs=1e-3)
