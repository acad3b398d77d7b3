"""Video out: frame times, colour, sound, codecs; whole files or none."""

import logging
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from atlas import ffmpeg
from atlas.color import color_matrix
from atlas.coords import Size
from atlas.errors import InputError
from atlas.video import open_source, probe
from atlas.video_writer import VideoWriter
from tests.video_files import noise_frames, pcm, read_video, run_ffmpeg, write_sounding, write_video

NTSC = Fraction(30000, 1001)


@pytest.fixture(scope="module")
def sounding(tmp_path_factory) -> Path:
    return write_sounding(tmp_path_factory.mktemp("sounding") / "source.mp4")


# ---- times


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_variable_frame_times_survive(tmp_path, suffix):
    steps_s = np.random.default_rng(5).uniform(0.008, 0.4, 37)
    times_s = [0.25, *(0.25 + np.cumsum(steps_s))]
    path = tmp_path / f"vfr{suffix}"
    frames = noise_frames(38, Size(20, 36))
    write_video(path, frames, fps=12.5, frame_times_s=times_s, end_s=times_s[-1] + 0.5)
    info = probe(path)
    times_s = np.subtract(times_s, 0.25)  # a file without sound starts with its first picture
    assert info.frame_count == 38
    assert info.variable_frame_rate
    assert info.frame_times_s == pytest.approx(times_s, abs=1e-3 if suffix == ".mkv" else 2e-5)
    assert info.duration_s == pytest.approx(times_s[-1] + 0.5, abs=1e-3)


@pytest.mark.parametrize(
    "fps", [Fraction(25), NTSC, Fraction(2813, 100), Fraction(24000, 1001), Fraction(7)]
)
def test_constant_rates_are_exact(tmp_path, fps):
    info = probe(write_video(tmp_path / "a.mp4", noise_frames(50, Size(20, 36)), fps=fps))
    assert (info.fps, info.frame_count, info.variable_frame_rate) == (fps, 50, False)
    assert info.frame_times_s == pytest.approx([float(t / fps) for t in range(50)], abs=1e-9)


def test_a_float_near_an_ntsc_rate_is_that_rate(tmp_path):
    info = probe(write_video(tmp_path / "a.mp4", noise_frames(9, Size(20, 36)), fps=29.97))
    assert info.fps == NTSC


def test_one_frame_keeps_rate_and_duration(tmp_path):
    info = probe(write_video(tmp_path / "a.mp4", noise_frames(1, Size(20, 36)), fps=NTSC))
    assert (info.frame_count, info.fps) == (1, NTSC)
    assert info.duration_s == pytest.approx(1001 / 30000, abs=1e-6)


@pytest.mark.parametrize(
    ("times_s", "message"), [([0, 0.1, 0.1], "must rise"), ([-0.1, 0, 0.1], "start at 0")]
)
def test_times_that_cannot_be(tmp_path, times_s, message):
    with pytest.raises(ValueError, match=message):
        VideoWriter(tmp_path / "a.mp4", Size(20, 36), fps=25, frame_times_s=times_s)


@pytest.mark.parametrize("count", [2, 4])
def test_as_many_frames_as_times(tmp_path, count):
    with pytest.raises(ValueError, match="frame_times_s"):
        write_video(
            tmp_path / "a.mp4", noise_frames(count, Size(20, 36)), frame_times_s=[0, 0.1, 0.2]
        )
    assert list(tmp_path.iterdir()) == []


# ---- colour

PATCHES = np.array(
    [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [0, 0, 0], [200, 100, 50]], np.uint8
)
LUMA = {"bt709": (0.2126, 0.0722), "smpte170m": (0.299, 0.114), "bt2020nc": (0.2627, 0.0593)}


def expected_yuv(rgb: np.ndarray, space: str, full: bool) -> np.ndarray:
    """Y'CbCr in 8 bit from R'G'B': ITU-R BT.601, BT.709, BT.2020, section on quantisation."""
    kr, kb = LUMA[space]
    r, g, b = np.moveaxis(rgb / 255, -1, 0)
    y = kr * r + (1 - kr - kb) * g + kb * b
    cb, cr = (b - y) / (2 * (1 - kb)), (r - y) / (2 * (1 - kr))
    if full:
        return np.stack([255 * y, 255 * cb + 128, 255 * cr + 128], -1)
    return np.stack([219 * y + 16, 224 * cb + 128, 224 * cr + 128], -1)


def stored_yuv(path: Path, size: Size, full: bool) -> np.ndarray:
    """(6, 3): the middle of each patch as stored, without any conversion."""
    form = "yuvj420p" if full else "yuv420p"
    raw = run_ffmpeg("-i", path, "-frames:v", 1, "-pix_fmt", form, "-f", "rawvideo", "-")
    area = size.height * size.width
    y = np.frombuffer(raw, np.uint8, area).reshape(size.height, size.width)
    c = np.frombuffer(raw, np.uint8, area // 2, area)
    cb, cr = c.reshape(2, size.height // 2, size.width // 2)
    at, half = slice(16, None, 32), slice(8, None, 16)
    return np.stack([y[16, at], cb[8, half], cr[8, half]], -1)


def tags(space, range_="tv", primaries=None, transfer=None):
    names = {"range": range_, "space": space, "primaries": primaries, "transfer": transfer}
    return {key: value for key, value in names.items() if value}


@pytest.mark.parametrize(
    ("color", "height", "space"),
    [
        (tags("bt709", "tv", "bt709", "bt709"), 32, "bt709"),
        (tags("smpte170m", "tv", "smpte170m", "smpte170m"), 32, "smpte170m"),
        (tags("bt709", "pc", "bt709", "bt709"), 32, "bt709"),
        (tags("bt2020nc", "tv", "bt2020", "arib-std-b67"), 32, "bt2020nc"),
        ({}, 32, "smpte170m"),  # untagged and small: SD
        ({}, 720, "bt709"),  # untagged and large: HD
    ],
)
def test_colour_is_stored_by_its_matrix_and_read_back(tmp_path, color, height, space):
    size = Size(height, 32 * len(PATCHES))
    rgb = np.repeat(np.broadcast_to(PATCHES, (height, *PATCHES.shape)), 32, axis=1)
    path = write_video(tmp_path / "a.mp4", rgb[None], color=color, crf=1)
    full = color.get("range") == "pc"
    # One step: rounding to 8 bit and the encoder's at crf 1. The wrong matrix is 10 and more off.
    assert stored_yuv(path, size, full) == pytest.approx(expected_yuv(PATCHES, space, full), abs=1)
    assert probe(path).color == color
    back = open_source(path).frame(0)[16, 16::32].astype(int)
    assert np.abs(back - PATCHES).max() <= 2  # 8 bit limited range: steps of 255 / 219


@pytest.mark.parametrize(
    ("size", "matrix"),
    [
        (Size(576, 720), "smpte170m"),
        (Size(577, 720), "bt709"),
        (Size(540, 1280), "bt709"),
        (Size(540, 1279), "smpte170m"),
    ],
)
def test_what_is_not_tagged_is_guessed_as_players_do(size, matrix):
    assert color_matrix({}, size) == matrix
    assert color_matrix({"space": "bt2020nc"}, size) == "bt2020"


def test_odd_sizes_are_kept_and_said(tmp_path, caplog):
    frames = noise_frames(3, Size(35, 51))
    with caplog.at_level(logging.INFO):
        path = write_video(tmp_path / "odd.mp4", frames, crf=4)
    assert (probe(path).size, probe(path).pix_fmt) == (Size(35, 51), "yuv444p")
    assert "51x35 is odd" in caplog.text
    assert np.abs(read_video(path).astype(int) - frames).mean() < 3


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [
        ("a.mp4", "h264", "yuv420p"),
        ("a.mp4", "h265", "yuv420p"),
        ("a.mov", "prores", "yuv444p12le"),  # ffmpeg reads every 4444 as 12 bit
        ("a.webm", "auto", "yuv420p"),
    ],
)
def test_each_codec_gives_the_picture_back(tmp_path, name, codec, pix_fmt):
    frames = noise_frames(4, Size(48, 80))
    color = tags("bt709", "tv", "bt709", "bt709")
    info = probe(write_video(tmp_path / name, frames, codec=codec, color=color))
    assert (info.frame_count, info.size, info.pix_fmt) == (4, Size(48, 80), pix_fmt)
    error = read_video(tmp_path / name).astype(int) - frames
    assert np.abs(error).mean() < 3  # lossy, chroma at half size
    assert np.abs(error.mean((0, 1, 2))).max() < 0.6  # no shift of colour


# ---- sound


def test_video_in_is_video_out(sounding, tmp_path):
    source, path = open_source(sounding), tmp_path / "out.mp4"
    with VideoWriter.like(source.info, path) as writer:
        for rgb in source.frames():
            writer.write(rgb)
    before, after = source.info, probe(path)
    assert (after.size, after.fps, after.frame_count) == (before.size, before.fps, 41)
    assert after.frame_times_s == before.frame_times_s
    assert after.duration_s == before.duration_s
    assert after.audio == before.audio
    assert len(pcm(path)) > 2 * 44100
    assert np.array_equal(pcm(path), pcm(sounding))


def test_a_late_picture_stays_in_step_with_the_sound(sounding, tmp_path):
    path = tmp_path / "late.mp4"
    times_s = [0.071 + t / 25 for t in range(10)]
    frames = noise_frames(10, Size(20, 36))
    write_video(path, frames, frame_times_s=times_s, audio_from=sounding)
    assert probe(path).frame_times_s == pytest.approx(times_s, abs=2e-5)
    assert np.array_equal(pcm(path), pcm(sounding))


def test_uncompressed_sound_is_copied_into_mov_and_encoded_for_mp4(tmp_path, caplog):
    wav = tmp_path / "a.wav"
    run_ffmpeg("-f", "lavfi", "-i", "sine=f=500:d=0.7:sample_rate=48000", "-ac", 2, wav)
    frames = noise_frames(18, Size(20, 36))
    mov = write_video(tmp_path / "a.mov", frames, audio_from=wav)
    assert np.array_equal(pcm(mov), pcm(wav))
    assert caplog.text == ""
    with caplog.at_level(logging.INFO):
        mp4 = write_video(tmp_path / "a.mp4", frames, audio_from=wav)
    assert "pcm_s16le sound; encoded again as aac" in caplog.text
    assert probe(mp4).audio["codec"] == "aac"
    assert len(pcm(mp4)) == len(pcm(wav))


def test_sound_for_webm_is_encoded_as_opus(sounding, tmp_path):
    path = write_video(tmp_path / "a.webm", noise_frames(9, Size(20, 36)), audio_from=sounding)
    assert probe(path).audio["codec"] == "opus"


def test_a_silent_source_gives_a_silent_video(tmp_path):
    silent = write_video(tmp_path / "silent.mp4", noise_frames(3, Size(20, 36)))
    path = write_video(tmp_path / "a.mp4", noise_frames(3, Size(20, 36)), audio_from=silent)
    assert probe(path).audio is None


# ---- writing: whole or not at all


def write_then_fail(path: Path) -> None:
    with VideoWriter(path, Size(20, 36), fps=25) as writer:
        for rgb in noise_frames(3, Size(20, 36)):
            writer.write(rgb)
        raise RuntimeError("stop")


def test_nothing_is_left_after_an_exception(tmp_path):
    with pytest.raises(RuntimeError, match="stop"):
        write_then_fail(tmp_path / "a.mp4")
    assert list(tmp_path.iterdir()) == []


def test_an_older_file_stays_when_the_new_one_fails(tmp_path):
    path = write_video(tmp_path / "a.mp4", noise_frames(5, Size(20, 36)))
    before = path.read_bytes()
    with pytest.raises(RuntimeError, match="stop"):
        write_then_fail(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("rgb", "message"),
    [
        (np.zeros((36, 20, 3), np.uint8), r"shape \(36, 20, 3\), wanted \(20, 36, 3\)"),
        (np.zeros((20, 36, 3), np.float32), "is float32, wanted uint8"),
    ],
)
def test_a_frame_of_another_kind_is_a_mistake(tmp_path, rgb, message):
    with pytest.raises(ValueError, match=message):
        write_video_of_one(tmp_path / "a.mp4", rgb)


def write_video_of_one(path: Path, rgb: np.ndarray) -> None:
    with VideoWriter(path, Size(20, 36), fps=25) as writer:
        writer.write(rgb)


def test_no_frame_at_all_is_a_mistake(tmp_path):
    with pytest.raises(ValueError, match="no frame"):
        write_video(tmp_path / "a.mp4", np.zeros((0, 20, 36, 3), np.uint8))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_full_disk_is_one_clear_error(tmp_path):
    path = tmp_path / "a.mp4"
    (tmp_path / "a.mp4.tmp").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left on device") as caught:
        write_video(path, noise_frames(40, Size(144, 256)))
    assert caught.value.filename == str(path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")
def test_ffmpeg_dying_mid_write_is_one_clear_error(tmp_path, monkeypatch):
    fake = tmp_path / "ffmpeg"
    fake.write_text("#!/bin/sh\nhead -c 3000 >/dev/null\necho '[x @ 0x1] it broke' >&2\nexit 3\n")
    fake.chmod(0o755)
    monkeypatch.setattr(ffmpeg, "executable", lambda: str(fake))
    with pytest.raises(InputError, match=r"out/a\.mp4: ffmpeg could not write it: it broke"):
        write_video(tmp_path / "out" / "a.mp4", noise_frames(40, Size(144, 256)))
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")
def test_a_chatty_ffmpeg_cannot_stall_the_writer(tmp_path, monkeypatch):
    fake = tmp_path / "ffmpeg"  # 1 MB on stderr before it reads: a pipe holds 64 kB
    fake.write_text("#!/bin/sh\nyes complaint | head -c 1000000 >&2\ncat >/dev/null\nexit 0\n")
    fake.chmod(0o755)
    monkeypatch.setattr(ffmpeg, "executable", lambda: str(fake))
    write_video(tmp_path / "a.mp4", noise_frames(5, Size(144, 256)))
    assert (tmp_path / "a.mp4").exists()


@pytest.mark.parametrize(
    ("name", "codec", "message"),
    [
        ("a.avi", "auto", r"cannot write \.avi; wanted \.mp4 .*\.mkv"),
        ("a.mp4", "prores", r"prores cannot be put in \.mp4; wanted \.mov"),
        ("a.webm", "h264", r"h264 cannot be put in \.webm"),
        ("a.mp4", "divx", "no codec 'divx'; wanted one of"),
        ("plain", "h264", "cannot write a video without a suffix"),
    ],
)
def test_what_cannot_be_written_is_said_at_once(tmp_path, name, codec, message):
    with pytest.raises(InputError, match=message):
        VideoWriter(tmp_path / name, Size(20, 36), fps=25, codec=codec)


def test_a_folder_of_pngs(tmp_path):
    frames = noise_frames(3, Size(21, 35))
    for _ in range(2):  # a folder of its own making is replaced
        write_video(tmp_path / "frames", frames)
    assert sorted(p.name for p in tmp_path.rglob("*.png")) == [f"0000{t}.png" for t in range(3)]
    assert np.array_equal(read_video(tmp_path / "frames"), frames)
    assert [p.name for p in tmp_path.iterdir()] == ["frames"]


def test_a_folder_with_other_things_is_not_replaced(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "holiday.png").touch()
    with pytest.raises(InputError, match=r"holds holiday\.png"):
        write_video(tmp_path / "photos", noise_frames(1, Size(21, 35)))
    assert (tmp_path / "photos" / "holiday.png").exists()


def test_one_frame_as_a_picture_and_no_more(tmp_path):
    frames = noise_frames(2, Size(21, 35))
    write_video(tmp_path / "one.png", frames[:1])
    assert np.array_equal(open_source(tmp_path / "one.png").frame(0), frames[0])
    with pytest.raises(InputError, match="a picture holds one frame"):
        write_video(tmp_path / "two.png", frames)
    assert not (tmp_path / "two.png").exists()


def test_names_that_ffmpeg_would_take_for_something_else(tmp_path):
    frames = noise_frames(2, Size(20, 36))
    path = write_video(tmp_path / "a%03d: -y 'q' ü.mp4", frames)
    assert probe(path).frame_count == 2


def test_the_sound_can_end_early(sounding, tmp_path):
    path = tmp_path / "part.mp4"
    write_video(path, noise_frames(10, Size(20, 36)), audio_from=sounding, sound_until_s=0.4)
    whole, part = pcm(sounding), pcm(path)
    # whole AAC packets of 1024 samples are copied
    assert 0 <= len(part) / 2 / 44100 - 0.4 < 2 * 1024 / 44100
    assert np.array_equal(part[: 2 * 15000], whole[: 2 * 15000])
