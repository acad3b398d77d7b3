"""What a streamed edit takes over from its source: times, sound, upright size, tags; cuts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import edit
from atlas.coords import Size
from atlas.video import open_source
from atlas.video_writer import VideoWriter
from preprocess.observer import SkyObserver
from tests.test_camera import SIZE, Pan, turn
from tests.video_files import run_ffmpeg, write_sounding

TIMES_S = (0.0, 0.04, 0.08, 0.2, 0.24, 0.28, 0.4)
"""As of a camera that drops frames in the dark."""
COLOR = {"range": "tv", "space": "bt709", "primaries": "bt709", "transfer": "smpte170m"}


def tinted(pan: Pan, yaw_deg: float) -> np.ndarray:
    """(H, W, 3) uint8: blue above, green below."""
    rgb, matte = pan.render(turn(yaw_deg))
    part = matte[..., None]
    sky, ground = np.array([0.75, 0.9, 1.15]), np.array([0.63, 0.7, 0.42])
    return (rgb * (part * sky + (1 - part) * ground)).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """Frames at uneven times, stored on their side with a rotation tag, tags of colour, sound."""
    folder, pan = tmp_path_factory.mktemp("source"), Pan(sky_texture=12.0)
    sound = write_sounding(folder / "sound.mp4")
    made = folder / "made.mp4"
    settings = {"frame_times_s": TIMES_S, "end_s": 0.44, "color": COLOR, "audio_from": sound}
    with VideoWriter(made, Size(SIZE.width, SIZE.height), fps=25, crf=8, **settings) as writer:
        for t in range(len(TIMES_S)):
            writer.write(np.rot90(tinted(pan, -0.4 * t)))
    turned = folder / "turned.mp4"
    run_ffmpeg("-display_rotation", "-90", "-i", made, "-map", 0, "-c", "copy", turned)
    return turned


def edited(source: Path, out: Path, *options: str) -> Path:
    edit.main([str(source), "--sky", "edits/skies/clear.jpg", "--out", str(out), *options])
    return out


@pytest.mark.parametrize(
    ("name", "options", "codec"),
    [("a.mp4", (), "h264"), ("b.mov", ("--codec", "h265", "--bits", "10"), "hevc")],
)
def test_a_streamed_edit_keeps_what_the_source_has(source, tmp_path, name, options, codec):
    before = open_source(source).info
    assert (before.size, before.rotation_deg, before.variable_frame_rate) == (SIZE, 270, True)
    out = edited(source, tmp_path / name, *options)
    after = open_source(out).info
    assert (after.size, after.codec, after.rotation_deg) == (SIZE, codec, 0)  # it stands upright
    assert after.pix_fmt == ("yuv420p10le" if options else "yuv420p")
    np.testing.assert_allclose(after.frame_times_s, before.frame_times_s, atol=2e-5)
    assert after.variable_frame_rate
    assert {k: after.color.get(k) for k in COLOR} == COLOR
    sounds = [
        run_ffmpeg("-i", path, "-map", "0:a", "-c", "copy", "-f", "md5", "-")
        for path in (source, out)
    ]
    assert sounds[0] == sounds[1]
    old, new = (next(iter(open_source(p).frames(3, 1))).astype(int) for p in (source, out))
    assert np.abs(old - new)[160:].mean() < 2.5  # the ground, but for coding it again
    assert np.abs(old - new)[:60].mean() > 15  # another sky


def test_pictures_as_a_result(source, tmp_path):
    out = edited(source, tmp_path / "pictures", "--codec", "png", "--range", "1:3")
    names = sorted(path.name for path in out.glob("*.png"))
    assert names == ["00000.png", "00001.png", "00002.png"]
    old = next(iter(open_source(source).frames(2, 1)))
    new = next(iter(open_source(out).frames(1, 1)))
    ground = np.s_[165:]
    assert np.array_equal(old[ground], new[ground])  # original pixels, to the bit
    assert np.abs(old.astype(int) - new)[:60].mean() > 15


def test_a_cut_starts_the_camera_anew(tmp_path):
    path = tmp_path / "cut.mp4"
    pans = [Pan(sky_texture=12.0), Pan(sky_texture=12.0, seed=9)]
    with VideoWriter(path, SIZE, fps=25, crf=10) as writer:
        for t in range(14):
            rgb = tinted(pans[t // 7], -0.5 * (t % 7))
            writer.write(rgb if t < 7 else rgb[:, ::-1, [2, 1, 0]])
    source = open_source(path, trusting=True)
    form = source.plane_format
    assert form is not None
    observer = SkyObserver(form)
    for planes in source.planes(form, 0, 14):
        observer.locate(planes, observer.look(planes))
    frames = observer.track.frames
    assert [t for t, frame in enumerate(frames) if frame.starts_shot] == [0, 7]
    np.testing.assert_array_equal(frames[7].homography, np.eye(3))
    assert (
        frames[6].homography[0, 2] * frames[13].homography[0, 2] < 0
    )  # the mirrored one turns back
