"""The fast path as a stream: what is untouched, what agrees with the frame-by-frame renderer."""

# pyright: reportOptionalSubscript=false, reportOptionalMemberAccess=false, reportArgumentType=false
# pyright: reportAttributeAccessIssue=false

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import edit
from atlas import ffmpeg
from atlas.coords import Size
from atlas.errors import InputError
from atlas.pipeline import Pipeline
from atlas.planes import PlaneFormat, Planes, enlarged_chroma, shrunk_chroma
from atlas.video import open_source
from atlas.video_writer import VideoWriter
from edits.kinds import SkyEdit
from edits.recipe import Recipe
from edits.stream import SkyStream, can_stream
from edits.stream_composite import landed
from edits.unmix import own_color
from preprocess.observer import SkyObserver
from preprocess.sky.matte import NETWORK_WEIGHTS
from preprocess.sky.network import folded, load_network
from preprocess.sky.opencv_network import OpenCvNetwork
from tests.test_camera import Pan, turn

ROOT = Path(__file__).resolve().parent.parent
SIZE = Size(height=200, width=356)


@pytest.mark.parametrize("name", ["yuv420p", "yuv444p10le"])
@pytest.mark.parametrize(("matrix", "full"), [("bt709", False), ("smpte170m", True)])
def test_planes_have_the_levels_of_the_standard(name, matrix, full):
    """ITU-T H.273: white, black and mid chroma; full-range blue of BT.601 has U = 255 of 8 bit."""
    form = PlaneFormat(name, Size(4, 6), matrix, full)
    scale = 1 << (form.bits - 8)
    white = form.planes_of(np.full((4, 6, 3), 255, np.uint8))
    assert (white.y == (form.peak if full else 235 * scale)).all()
    assert (white.u == 128 * scale).all()
    blue = form.planes_of(np.tile(np.uint8([0, 0, 255]), (4, 6, 1)))
    assert (blue.u == (form.peak if full else 240 * scale)).all()
    assert (form.planes_of(np.zeros((4, 6, 3), np.uint8)).y == (0 if full else 16 * scale)).all()


def test_planes_and_rgb_undo_each_other():
    form = PlaneFormat("yuv444p10le", Size(48, 64), "bt709", full=False)
    rgb = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    assert np.abs(form.rgb_of(form.planes_of(rgb)).astype(int) - rgb).max() <= 1


def test_chroma_lies_level_with_the_left_of_two_columns():
    """A ramp in x: its value at chroma sample i is that of column 2 i; rows average in twos."""
    ramp = np.tile(np.arange(0, 60, 2, dtype=np.uint8)[None], (8, 1))
    assert (shrunk_chroma(ramp)[:, 1:-1] == ramp[:4, 2:-2:2]).all()
    assert np.abs(enlarged_chroma(shrunk_chroma(ramp), (30, 8))[:, 2:-3].astype(int)
                  - ramp[:, 2:-3]).max() <= 1  # fmt: skip


def test_landing_keeps_and_replaces_exactly_and_agrees_with_the_formula():
    rng = np.random.default_rng(1)
    plane, new, own = rng.integers(16, 236, (3, 40, 50)).astype(np.uint8)
    share = rng.integers(0, 256, (40, 50)).astype(np.uint8)
    share[:10], share[10:20] = 0, 255
    done = landed(plane, share, new, own, (16, 235))
    np.testing.assert_array_equal(done[:10], plane[:10])
    np.testing.assert_array_equal(done[10:20], new[10:20])
    unit = [(v.astype(float) - 16) / 219 for v in (plane, new, own)]
    a = share[..., None] / 255.0
    mixed = own_color(unit[0][..., None], a, unit[2][..., None])
    exact = (unit[0][..., None] + a * (unit[1][..., None] - mixed))[..., 0] * 219 + 16
    assert np.abs(done - exact)[20:].max() < 2.6  # each of five products is rounded


class _Told:
    """An observer that is told the matte and sees a camera that stands still."""

    def __init__(self, form: PlaneFormat, matte: np.ndarray):
        self.form, self._matte, self.focal_px = form, matte, 300.0

    def look(self, planes: Planes):
        small = (64, 32)
        rgb = cv2.resize(self.form.rgb_of(planes), small)
        sky = cv2.resize(self._matte, small).astype(np.float32) / 255
        return type("Seen", (), {"rgb": rgb, "sky": sky, "starts_shot": False})()

    def locate(self, planes: Planes, seen):
        return np.eye(3)

    def matte(self, planes: Planes, seen):
        return self._matte


@pytest.mark.parametrize("name", ["yuv420p", "yuv420p10le"])
def test_what_shows_no_sky_keeps_its_levels_and_sky_becomes_the_picture(tmp_path, name):
    form = PlaneFormat(name, Size(96, 160), "bt709", full=False)
    rng = np.random.default_rng(2)
    matte = np.zeros((96, 160), np.uint8)
    matte[:50] = 255
    frame = Planes(*(rng.integers(70, 200, s).astype(form.dtype) * (4 if form.bits > 8 else 1)
                     for s in ((96, 160), (48, 80), (48, 80))))  # fmt: skip
    sky = tmp_path / "sky.png"
    cv2.imwrite(str(sky), np.full((60, 120, 3), (200, 60, 20), np.uint8))  # BGR
    stream = SkyStream(Recipe(edits=(SkyEdit(source=str(sky)),)), _Told(form, matte))
    (got,) = [f.done for f in stream.run([(0, 0.0, frame)])]
    np.testing.assert_array_equal(got.y[50:], frame.y[50:])
    np.testing.assert_array_equal(got.u[26:], frame.u[26:])
    exact = form.planes_of(np.tile(np.uint8([20, 60, 200]), (96, 160, 1)))
    for found, wanted in zip(got.all, exact.all, strict=True):
        rows = slice(0, 24)
        assert np.abs(found[rows].astype(int) - wanted[rows]).max() <= 1


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """A pan under clouds, 20 frames, with sky enough for the network."""
    pan, path = Pan(sky_texture=12.0), tmp_path_factory.mktemp("clip") / "pan.mp4"
    tint_sky, tint_ground = np.array([0.75, 0.9, 1.15]), np.array([0.9, 1.0, 0.6])
    with VideoWriter(path, SIZE, fps=25, crf=8) as writer:
        for t in range(20):
            rgb, matte = pan.render(turn(-0.4 * t, 0.05 * t))
            part = matte[..., None]
            tinted = rgb * (part * tint_sky + (1 - part) * tint_ground * 0.7)
            writer.write(tinted.clip(0, 255).astype(np.uint8))
    return path


def test_camera_and_matte_of_a_stream(clip):
    source = open_source(clip, trusting=True)
    observer = SkyObserver(source.plane_format)
    stream = SkyStream(Recipe(edits=(SkyEdit(source="edits/skies/clear.jpg"),)), observer)
    frames = ((i, i / 25, p) for i, p in enumerate(source.planes(stream.form, 0, 20)))
    got = list(stream.run(frames))
    assert [f.index for f in got] == list(range(20))
    middle = np.array([177.5, 99.5, 1.0])
    moved = got[-1].homography @ middle
    true_px = observer.focal_px * np.tan(np.radians(0.4 * 19))
    assert abs(moved[0] / moved[2] - 177.5) == pytest.approx(true_px, rel=0.03)
    assert got[-1].alpha[:60].mean() > 230
    assert got[-1].alpha[150:].mean() < 20
    assert len(observer.track.frames) == 20


def test_only_skies_and_looks_are_streamed():
    sky = SkyEdit(source="edits/skies/clear.jpg")
    assert can_stream(Recipe(edits=(sky,)))
    assert not can_stream(Recipe(edits=(sky, sky)))
    assert not can_stream(Recipe(edits=(sky,), keep_grain=0.5))
    assert not can_stream(Recipe(edits=(SkyEdit(source="x.jpg", fit="atlas"),)))


def test_a_pipeline_keeps_order_and_hands_errors_on():
    double = Pipeline(range(50), [("a", lambda x: x + 1), ("b", lambda x: 2 * x)], depth=2)
    assert list(double) == [2 * (x + 1) for x in range(50)]

    def fail(x):
        if x == 3:
            raise KeyError("third")
        return x

    got, broken = [], Pipeline(iter(range(10)), [("a", fail)])
    with pytest.raises(KeyError, match="third"):
        got.extend(broken)
    closed = []

    def endless():
        try:
            while True:
                yield 1
        finally:
            closed.append(True)

    lazy = iter(Pipeline(endless(), [("a", lambda x: x)]))
    assert next(lazy) == 1
    lazy.close()
    assert closed == [True]


@pytest.mark.slow
@pytest.mark.parametrize("keep", [False, True])
def test_an_interrupt_leaves_nothing_or_a_playable_part(clip, tmp_path, keep):
    long, out = tmp_path / "long.mp4", tmp_path / "out.mp4"
    with VideoWriter(long, SIZE, fps=25) as writer:
        frames = list(open_source(clip).frames())
        for t in range(600):
            writer.write(frames[t % 20])
    line = [sys.executable, "edit.py", str(long), "--sky", "edits/skies/clear.jpg", "--out",
            str(out), *(["--keep-partial"] if keep else [])]  # fmt: skip
    process = subprocess.Popen(line, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    partial = out.with_name("out.mp4.tmp")
    until_s = time.monotonic() + 120
    while time.monotonic() < until_s and not (partial.exists() and partial.stat().st_size > 20000):
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert not partial.exists()
    assert out.exists() == keep
    if keep:
        count = open_source(out).info.frame_count
        assert 10 < count < 600


def _edited(clip: Path, out: Path, *options: str) -> Path:
    edit.main([str(clip), "--sky", "edits/skies/clear.jpg", "--out", str(out), *options])
    return out


def test_ten_bits_pass_from_source_to_result(clip, tmp_path):
    """The ground of a 10-bit source: as near as an encoder at crf 4 leaves 10-bit levels."""
    deep = tmp_path / "deep.mkv"
    frames = [rgb.astype(np.uint16) * 257 for rgb in open_source(clip).frames(0, 6)]
    with VideoWriter(deep, SIZE, fps=25, codec="h265", crf=4, pixel_format="rgb48") as writer:
        for rgb in frames:
            writer.write(rgb + np.arange(356, dtype=np.uint16)[:, None] % 4 * 64)
    out = _edited(deep, tmp_path / "out.mkv", "--codec", "h265", "--crf", "4")
    source, result = open_source(deep), open_source(out)
    assert source.info.pix_fmt == result.info.pix_fmt == "yuv420p10le"
    form = source.plane_format
    before, after = (next(iter(s.planes(form, 2, 1))).y[170:] for s in (source, result))
    assert (before % 4 != 0).any()
    assert np.abs(before.astype(int) - after.astype(int)).mean() < 2.5  # of 1023
    eight = _edited(deep, tmp_path / "eight.mp4")
    assert open_source(eight).info.pix_fmt == "yuv420p"  # h264 of few players' taste otherwise


def test_prores_carries_the_matte_as_alpha(clip, tmp_path):
    out = _edited(clip, tmp_path / "a.mov", "--codec", "prores", "--with-alpha", "--range", "0:2")
    assert "yuva444p" in open_source(out).info.pix_fmt
    line = ["-v", "error", "-i", str(out), "-vf", "alphaextract,format=gray", "-frames:v", "1"]
    process = ffmpeg.Process([*line, "-f", "rawvideo", "-"], read=True)
    alpha = np.frombuffer(process.read_all(), np.uint8).reshape(200, 356)
    process.finish()
    assert alpha[:50].mean() < 40
    assert alpha[160:].mean() > 230
    with pytest.raises(InputError, match="--with-alpha needs --codec prores"):
        _edited(clip, tmp_path / "a.mp4", "--with-alpha")


def test_a_track_that_was_written_gives_the_same_video(clip, tmp_path):
    track = tmp_path / "track.json"
    first = _edited(clip, tmp_path / "a.mp4", "--export-track", str(track))
    again = _edited(clip, tmp_path / "b.mp4", "--track", str(track))
    still = _edited(clip, tmp_path / "c.mp4", "--still")
    last = [open_source(path).frame(19).astype(int)[:60] for path in (first, again, still)]
    assert np.abs(last[0] - last[1]).mean() < 1.0
    assert np.abs(last[0] - last[2]).mean() > 3.0


def test_streamed_and_frame_by_frame_agree(clip, tmp_path):
    first = _edited(clip, tmp_path / "a.mp4", "--crf", "4")
    other = _edited(clip, tmp_path / "b.mp4", "--frame-by-frame", "--crf", "4")
    for t in (0, 10, 19):
        a, b = (open_source(path).frame(t).astype(float) for path in (first, other))
        assert 10 * np.log10(255**2 / ((a - b)[:60] ** 2).mean()) > 30
        assert 10 * np.log10(255**2 / ((a - b)[150:] ** 2).mean()) > 34


def test_a_stream_starts_without_torch():
    """Importing torch takes longer than editing two seconds of video."""
    line = "import sys, edit, edits.stream_session, edits.live, preprocess.observer; "
    line += "sys.exit('torch' in sys.modules or 'scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", line], cwd=ROOT).returncode == 0


def test_opencv_and_torch_agree_on_the_network():
    """Both run the bundled weights; 1e-4 is a fortieth of a grey level, rounding is 1e-6."""
    rgb = np.random.default_rng(5).integers(0, 256, (96, 160, 3), np.uint8)
    rgb = cv2.GaussianBlur(rgb, (0, 0), 6)
    told = OpenCvNetwork(NETWORK_WEIGHTS, Size(96, 160)).opacity(rgb)
    network = folded(load_network(NETWORK_WEIGHTS))
    with torch.inference_mode():
        levels = torch.from_numpy(rgb).permute(2, 0, 1)[None].float() / 255
        exact = torch.sigmoid(network(levels))[0, 0].numpy()
    assert np.abs(told - exact).max() < 1e-4
