"""The demo clip: an exact scene like the small ones, written as a video with sound."""

import sys

import numpy as np
import pytest

from atlas.coords import Size
from atlas.errors import run_script
from atlas.mapping import visible_shares
from atlas.video import open_source, probe
from tests.demo_scene import demo_scene, write_demo
from tests.demo_sound import RATE_HZ, demo_sound
from tests.synthetic import Scene, main

SIZE = Size(72, 118)


@pytest.fixture(scope="module")
def demo() -> Scene:
    return demo_scene(SIZE, 5, 12.0)


def test_demo_shows_all_its_layers(demo):
    shares = demo.mapping().frame(2).visible().mean((1, 2))
    names = [layer.name for layer in demo.layers]
    assert names == ["near", "balloon", "foreground", "sky"]
    share = dict(zip(names, shares, strict=True))
    assert 0.02 < share["near"] < 0.25
    assert 0.02 < share["balloon"] < 0.15
    assert 0.25 < share["foreground"] < 0.5
    assert 0.35 < share["sky"] < 0.7


def test_no_layer_ends_inside_a_frame(demo):
    # Canvases made for the camera's path hold every frame: no bare edge comes into sight.
    for t in range(demo.frame_count):
        m = demo.mapping().frame(t)
        for i in (0, 2, 3):
            canvas = demo.layers[i].canvas
            assert (m.uv[i] >= 0).all()
            assert (m.uv[i] <= [canvas.width - 1, canvas.height - 1]).all()
        # from the meadow's rim down the land is solid
        assert demo.mapping().frame(t).alpha[2][-SIZE.height // 4 :].min() == pytest.approx(1)


def test_demo_has_twigs_that_need_a_soft_matte(demo):
    alpha = demo.mapping().frame(1).alpha
    sky = visible_shares(alpha)[-1]
    assert ((sky > 0.1) & (sky < 0.9)).mean() > 0.05


def test_demo_pans_and_the_balloon_goes_its_own_way(demo):
    xy = np.array([[SIZE.width / 2, 30.0]])
    moved = {}
    for layer in demo.layers:
        motion = layer.motion
        moved[layer.name] = (motion.to_frame(4, motion.to_canvas(0, xy)) - xy)[0]
    assert moved["sky"][0] < -0.2 * SIZE.width
    np.testing.assert_allclose(moved["foreground"], moved["sky"], atol=1e-6)
    assert abs(moved["balloon"][0] - moved["sky"][0]) > 0.1 * SIZE.width
    assert moved["near"][0] < moved["sky"][0] - 1  # what is near moves faster


def test_video_holds_the_frames_and_the_sound(demo, tmp_path):
    path = tmp_path / "demo.mp4"
    write_demo(demo, path)
    info = probe(path)
    assert (info.size, info.frame_count, info.fps) == (SIZE, 5, 12)
    assert info.audio is not None
    assert (info.audio["sample_rate"], info.audio["channels"]) == (RATE_HZ, 2)
    assert info.color["space"] == "bt709"
    for t, rgb in enumerate(open_source(path).frames()):
        # x264 at crf 16 keeps 36 dB or more of a frame with grain; the wrong frame has about 15
        error = (rgb.astype(float) - demo.frames(t)) ** 2
        assert 10 * np.log10(255**2 / error.mean()) > 30


def test_sound_is_exact_in_length_stereo_and_does_not_clip():
    sound = demo_sound(1.25, seed=1)
    assert sound.shape == (round(1.25 * RATE_HZ), 2)
    assert 0.05 < abs(sound).max() < 0.9
    assert sound.std() > 0.01
    assert abs(sound[[0, -1]]).max() < 1e-4  # no click at the ends
    assert np.corrcoef(sound.T)[0, 1] < 0.95  # two sides, not one twice
    np.testing.assert_array_equal(sound, demo_sound(1.25, seed=1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--size", "big"], "--size: found 'big'"),
        (["--size", "20x300"], "wanted at least 64 pixels"),
        (["--frames", "0"], "--frames: found 0"),
        (["--fps", "nan"], "--fps: found nan"),
    ],
)
def test_bad_options_end_in_one_line(tmp_path, monkeypatch, capsys, options, message):
    command = ["synthetic", "--out", str(tmp_path / "a.mp4"), *options]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as ended:
        run_script(main)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not list(tmp_path.iterdir())
