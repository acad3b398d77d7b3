"""Video in: counts, times, tags, orientation, pictures, and what happens with broken files."""

import logging
import subprocess
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from atlas import ffmpeg
from atlas.coords import Size
from atlas.errors import InputError
from atlas.video import list_pictures, open_source, probe, resize_picture
from atlas.video_writer import VideoWriter
from tests.video_files import noise_frames, pcm, read_video, run_ffmpeg, write_sounding, write_video

SHARED = Path(__file__).resolve().parent.parent.parent / "shared" / "data" / "clips"
NTSC = Fraction(30000, 1001)


@pytest.fixture(scope="module")
def sounding(tmp_path_factory) -> Path:
    return write_sounding(tmp_path_factory.mktemp("sounding") / "source.mp4")


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
    with pytest.raises(InputError, match=r"a\.mov: is cut off: its index"):
        probe(path)


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
@pytest.mark.parametrize(  # ends early, upside down, variable rate, portrait with a cover picture
    "name", ["selfie_walk", "street_sunset_walk", "dusk_path", "vertical_beach_sunset"]
)
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
