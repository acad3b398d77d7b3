"""Video in and out: counts, times, colour, sound, orientation, and what happens when it breaks."""

import logging
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from atlas import ffmpeg
from atlas.coords import Size
from atlas.errors import InputError
from atlas.video import VideoWriter, list_pictures, open_source, probe, resize_picture

SHARED = Path(__file__).resolve().parent.parent.parent / "shared" / "data" / "clips"
NTSC = Fraction(30000, 1001)


def run_ffmpeg(*arguments) -> bytes:
    command = [ffmpeg.executable(), "-y", "-v", "error", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True).stdout


def pcm(path: Path) -> np.ndarray:
    """The sound of a file as ffmpeg decodes it, (samples * channels,) int16."""
    return np.frombuffer(run_ffmpeg("-i", path, "-map", "0:a", "-f", "s16le", "-"), np.int16)


def noise_frames(count: int, size: Size, seed: int = 1) -> np.ndarray:
    """(T, H, W, 3) uint8: smooth noise, different in every frame and channel."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (count, 5, 7, 3), np.uint8)
    return np.stack([cv2.resize(f, size.wh, interpolation=cv2.INTER_CUBIC) for f in small])


def write_video(path: Path, frames: np.ndarray, **settings) -> Path:
    settings.setdefault("fps", 25)
    with VideoWriter(path, Size(*frames.shape[1:3]), **settings) as writer:
        for rgb in frames:
            writer.write(rgb)
    return path


def read_video(path: Path, **settings) -> np.ndarray:
    return np.stack(list(open_source(path, **settings).frames()))


@pytest.fixture(scope="session")
def sounding(tmp_path_factory) -> Path:
    """An mp4 of another program's making: 64x48, 30000/1001 fps, 41 frames, AAC stereo."""
    path = tmp_path_factory.mktemp("sounding") / "source.mp4"
    run_ffmpeg(
        *("-f", "lavfi", "-i", "testsrc2=s=64x48:r=30000/1001"),
        *("-f", "lavfi", "-i", "aevalsrc=sin(440*2*PI*t)|sin(660*2*PI*t):s=44100"),
        *("-frames:v", 41, "-t", 1.37, "-pix_fmt", "yuv420p", "-c:a", "aac", path),
    )
    return path


# ---- probing


def test_probe_of_a_constant_frame_rate(sounding):
    info = probe(sounding)
    assert (info.size, info.fps, info.frame_count) == (Size(48, 64), NTSC, 41)
    assert not info.variable_frame_rate
    assert info.frame_times_s == pytest.approx([t * 1001 / 30000 for t in range(41)], abs=1e-6)
    assert info.duration_s == pytest.approx(41 * 1001 / 30000, abs=1e-6)
    audio = {"codec": "aac", "sample_rate": 44100, "channels": 2, "layout": "stereo"}
    assert info.audio == audio
    assert (info.codec, info.pix_fmt) == ("h264", "yuv420p")


@pytest.mark.parametrize("suffix", [".mkv", ".ts", ".webm"])
def test_probe_of_other_containers(sounding, tmp_path, suffix):
    path = tmp_path / f"copy{suffix}"
    codecs = {
        ".webm": ["-c:v", "libvpx-vp9", "-an"],
        ".avi": ["-c:v", "mjpeg", "-pix_fmt", "yuvj420p"],
    }
    run_ffmpeg("-i", sounding, *codecs.get(suffix, ["-c", "copy"]), path)
    info = probe(path)
    assert (info.size, info.fps, info.frame_count) == (Size(48, 64), NTSC, 41)
    # mkv and webm keep whole milliseconds
    steps_s = np.diff(info.frame_times_s)
    assert steps_s == pytest.approx(np.full(40, 1001 / 30000), abs=1.001e-3)


def test_the_mean_rate_does_not_pass_for_a_constant_one(tmp_path):
    times_s = [0, 0.04, 0.08, 0.12, 0.1615, 0.2, 0.24]  # one frame 1.5 ms late
    path = write_video(tmp_path / "a.mp4", noise_frames(7, Size(20, 36)), frame_times_s=times_s)
    assert probe(path).variable_frame_rate
    assert probe(path).fps == 25


def test_a_cover_picture_and_a_smaller_stream_are_not_the_video(sounding, tmp_path):
    cover, small, path = tmp_path / "c.png", tmp_path / "s.mp4", tmp_path / "all.mp4"
    cv2.imwrite(str(cover), np.full((300, 400, 3), 77, np.uint8))
    write_video(small, noise_frames(3, Size(16, 32)))
    run_ffmpeg(
        *("-i", cover, "-i", small, "-i", sounding, "-map", 0, "-map", 1, "-map", 2, "-c", "copy"),
        *("-disposition:v:0", "attached_pic", path),
    )
    info = probe(path)
    assert (info.size, info.frame_count) == (Size(48, 64), 41)
    assert np.array_equal(open_source(path).frame(30), open_source(sounding).frame(30))


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_rotation_tags_give_upright_frames(tmp_path, turn):
    frames = noise_frames(2, Size(24, 40))
    plain = write_video(tmp_path / "plain.mp4", frames, codec="lossless")
    path = tmp_path / "turned.mp4"
    run_ffmpeg("-display_rotation", turn, "-i", plain, "-c", "copy", path)
    source = open_source(path)
    upright = np.rot90(frames, turn // 90, axes=(1, 2))  # counter-clockwise, as the tag
    assert source.info.size == Size(*upright.shape[1:3])
    assert source.info.rotation_deg == turn
    assert np.array_equal(np.stack(list(source.frames())), upright)


def test_pixel_shape_is_kept_and_nothing_is_resampled(tmp_path):
    frames = noise_frames(2, Size(24, 40))
    path = tmp_path / "wide.mp4"
    write_video(path, frames, codec="lossless", sample_aspect=Fraction(16, 15))
    assert probe(path).sample_aspect == Fraction(16, 15)
    again = tmp_path / "again.mp4"
    with VideoWriter.like(probe(path), again) as writer:
        for rgb in frames:
            writer.write(rgb)
    assert probe(again).sample_aspect == Fraction(16, 15)
    assert np.array_equal(read_video(path), frames)


# ---- frames


@pytest.mark.parametrize("codec_suffix", ["lossless.mp4", "lossless.mkv", "ffv1.mkv"])
def test_lossless_codecs_return_every_value_at_odd_sizes(tmp_path, codec_suffix):
    codec, suffix = codec_suffix.split(".")
    frames = noise_frames(5, Size(21, 35))
    path = write_video(tmp_path / f"a.{suffix}", frames, codec=codec)
    assert np.array_equal(read_video(path), frames)


def test_16_bit_frames_return_exactly(tmp_path):
    frames = np.random.default_rng(3).integers(0, 65536, (3, 21, 34, 3), np.uint16)
    path = write_video(tmp_path / "deep.mkv", frames, codec="ffv1", pixel_format="rgb48")
    assert np.array_equal(read_video(path, pixel_format="rgb48"), frames)


def test_10_bit_video_is_read_in_8_and_in_16_bit(tmp_path):
    ramp = np.linspace(8000, 56000, 64).astype(np.uint16)
    frames = np.broadcast_to(ramp[None, None, :, None], (2, 36, 64, 3))
    path = tmp_path / "deep.mp4"
    write_video(path, frames, codec="h265", pixel_format="rgb48", crf=4)
    assert probe(path).pix_fmt == "yuv420p10le"
    # 10 bit limited range has 876 steps: half a step is 37 of 65535; coding at crf 4 adds a few.
    deep = read_video(path, pixel_format="rgb48").astype(int)
    assert np.abs(deep - frames).mean() < 120
    assert np.abs(read_video(path).astype(int) - np.round(frames / 257)).max() <= 2


def test_frames_from_the_middle_are_the_same_as_in_order(sounding):
    source = open_source(sounding)
    every = np.stack(list(source.frames()))
    for start, count in [(1, 3), (17, 5), (40, 1)]:
        assert np.array_equal(np.stack(list(source.frames(start, count))), every[start:][:count])
    assert list(source.frames(41)) == []
    assert list(source.frames(5, 0)) == []


def test_frames_are_not_one_buffer_used_again(sounding):
    first, second = open_source(sounding).frames(0, 2)
    assert not np.shares_memory(first, second)


@pytest.mark.parametrize(("start", "count", "name"), [(-1, 1, "start"), (42, 0, "start")])
def test_a_start_beyond_the_clip_is_a_mistake(sounding, start, count, name):
    with pytest.raises(ValueError, match=f"{name} must be in 0..41"):
        list(open_source(sounding).frames(start, count))


def test_a_count_beyond_the_clip_is_a_mistake(sounding):
    with pytest.raises(ValueError, match=r"count must be in 0\.\.11 from frame 30"):
        list(open_source(sounding).frames(30, 12))


def test_shrinking_is_the_mean_over_areas(tmp_path):
    frames = noise_frames(2, Size(24, 60))
    path = write_video(tmp_path / "a.mkv", frames, codec="ffv1")
    (small, _) = open_source(path).frames(size=Size(8, 30))
    blocks = frames[0].reshape(8, 3, 30, 2, 3).astype(float).mean((1, 3))
    assert np.abs(small - blocks).max() <= 0.5 + 1e-9  # rounding to 8 bit
    assert resize_picture(frames[0], Size(48, 120)).shape == (48, 120, 3)


def test_leaving_off_in_the_middle_ends_ffmpeg(sounding, monkeypatch):
    started = []
    real = subprocess.Popen
    monkeypatch.setattr(
        ffmpeg.subprocess, "Popen", lambda *a, **k: started.append(real(*a, **k)) or started[-1]
    )
    frames = open_source(sounding).frames()
    next(frames)
    (reader,) = started[-1:]
    frames.close()  # type: ignore[attr-defined]
    assert reader.returncode is not None


# ---- pictures


def test_a_folder_is_read_in_the_order_of_its_numbers(tmp_path):
    for n in (10, 9, 1):
        cv2.imwrite(str(tmp_path / f"shot_{n}.png"), np.full((6, 9, 3), n, np.uint8))
    (tmp_path / "notes.txt").write_text("not a picture")
    (tmp_path / "._shot_1.png").write_bytes(b"what macOS leaves behind")
    source = open_source(tmp_path)
    assert [int(rgb[0, 0, 0]) for rgb in source.frames()] == [1, 9, 10]
    assert (source.info.fps, source.info.frame_count, source.info.size) == (25, 3, Size(6, 9))
    assert [p.name for p in list_pictures(tmp_path)] == ["shot_1.png", "shot_9.png", "shot_10.png"]


def test_one_picture_is_a_clip_of_one_frame(tmp_path):
    bgr = np.zeros((7, 11, 3), np.uint8)
    bgr[..., 2] = 200  # red
    cv2.imwrite(str(tmp_path / "still.png"), bgr)
    source = open_source(tmp_path / "still.png")
    assert source.info.frame_count == 1
    assert tuple(source.frame(0)[3, 4]) == (200, 0, 0)


def test_pictures_of_unequal_size_are_named(tmp_path):
    cv2.imwrite(str(tmp_path / "0.png"), np.zeros((6, 9, 3), np.uint8))
    cv2.imwrite(str(tmp_path / "1.png"), np.zeros((6, 8, 3), np.uint8))
    with pytest.raises(InputError, match=r"1\.png: is 8x6, but 0\.png is 9x6"):
        list(open_source(tmp_path).frames())


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds no pictures"):
        open_source(tmp_path)


# ---- broken files


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"none\.mp4: not found"):
        probe(tmp_path / "none.mp4")


def test_an_empty_file_is_refused(tmp_path):
    (tmp_path / "a.mp4").touch()
    with pytest.raises(InputError, match="is empty"):
        probe(tmp_path / "a.mp4")


def test_text_called_mp4_is_refused(tmp_path):
    (tmp_path / "a.mp4").write_text("this is no video\n" * 100)
    with pytest.raises(InputError, match=r"a\.mp4: not a video that ffmpeg can read"):
        probe(tmp_path / "a.mp4")


def test_sound_alone_is_refused(sounding, tmp_path):
    run_ffmpeg("-i", sounding, "-vn", "-c", "copy", tmp_path / "a.m4a")
    with pytest.raises(InputError, match=r"no video stream \(found: audio\)"):
        probe(tmp_path / "a.m4a")


def test_of_a_truncated_file_what_decodes_is_used_with_a_warning(tmp_path, caplog):
    whole = write_video(tmp_path / "whole.mp4", noise_frames(90, Size(90, 160)))
    data = whole.read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(data[: len(data) * 6 // 10])  # the index is at the start: faststart
    with caplog.at_level(logging.WARNING):
        source = open_source(cut)
    assert 20 < source.info.frame_count < 80
    assert "damaged" in caplog.text
    frames = np.stack(list(source.frames()))
    assert len(frames) == source.info.frame_count
    # all but the cut frame itself are intact
    assert np.array_equal(frames[:-3], read_video(whole)[: len(frames) - 3])


def test_a_file_cut_before_its_index_is_refused(tmp_path):
    path = tmp_path / "a.mov"
    run_ffmpeg("-f", "lavfi", "-i", "testsrc2=s=64x48", "-frames:v", 30, path)
    path.write_bytes(path.read_bytes()[:-1500])  # without faststart the index is at the end
    with pytest.raises(InputError, match=r"a\.mov: (not a video|no frame)"):
        probe(path)


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
    (tmp_path / f"a.mp4.{os.getpid()}.tmp").symlink_to("/dev/full")
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


# ---- real clips

COUNTS = {  # frames that OpenCV decodes
    "annarbor": (960, 544, 206),
    "solidWhiteRight": (960, 540, 221),
    "gopro_walk": (848, 480, 315),
    "antenna_pan": (640, 512, 304),
    "vertical_beach_sunset": (480, 854, 327),
    "selfie_walk": (854, 480, 133),
    "street_sunset_walk": (848, 480, 186),
    "dusk_path": (848, 480, 315),
}


@pytest.mark.shared
@pytest.mark.parametrize("name", sorted(COUNTS))
def test_real_clips(name):
    path = SHARED / f"{name}.mp4"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    info = probe(path)
    assert (info.size.width, info.size.height, info.frame_count) == COUNTS[name]
    assert info.variable_frame_rate == (name == "dusk_path")


@pytest.mark.shared
@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(COUNTS))
def test_real_clips_go_through(name, tmp_path):
    path = SHARED / f"{name}.mp4"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    source, out = open_source(path), tmp_path / "out.mp4"
    with VideoWriter.like(source.info, out, preset="ultrafast") as writer:
        for rgb in source.frames():
            writer.write(rgb)
    before, after = source.info, probe(out)
    assert (after.size, after.fps, after.frame_count) == (before.size, before.fps, COUNTS[name][2])
    assert after.frame_times_s == pytest.approx(before.frame_times_s, abs=2e-5)
    assert after.duration_s == pytest.approx(before.duration_s, abs=2e-5)
    if before.audio:
        assert np.array_equal(pcm(out), pcm(path))
