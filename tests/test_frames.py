"""Frames into the clip folder: size, black start, times, resume, refusal, whole or nothing."""

import errno
import json
import logging
import os
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from atlas.clip import Clip, read_rgb, write_rgb
from atlas.coords import Size
from atlas.errors import InputError
from atlas.video_writer import VideoWriter
from preprocess import frames as module
from preprocess.frames import FrameOptions, fit_size, is_black, make_frames
from tests.video_files import noise_frames, write_video


@pytest.fixture
def pictures() -> np.ndarray:
    """(7, 24, 60, 3) uint8."""
    return noise_frames(7, Size(24, 60))


def stored(clip: Clip) -> np.ndarray:
    return np.stack([clip.frame(t) for t in range(clip.frame_count)])


@pytest.mark.parametrize(
    ("source", "fitted"),
    [
        (Size(544, 960), Size(435, 768)),
        (Size(1920, 1080), Size(768, 432)),  # portrait
        (Size(480, 640), Size(480, 640)),  # never enlarged
        (Size(1, 4000), Size(1, 768)),
    ],
)
def test_fit_size(source, fitted):
    assert fit_size(source) == fitted


def test_frames_of_a_video(tmp_path, pictures):
    times_s = [0, 0.05, 0.09, 0.2, 0.23, 0.31, 0.4]
    video = tmp_path / "in.mkv"
    write_video(video, pictures, codec="ffv1", fps=Fraction(35, 2), frame_times_s=times_s)
    clip, kept = make_frames(video, tmp_path / "data" / "swan", FrameOptions(size=Size(8, 30)))
    assert not kept
    assert clip.frame_names == [f"0000{t}.png" for t in range(7)]
    blocks = pictures.reshape(7, 8, 3, 30, 2, 3).astype(float).mean((2, 4))
    assert np.abs(stored(clip) - blocks).max() <= 0.5 + 1e-9  # rounding to 8 bit
    info, source = clip.info, clip.info.source
    assert (info.width, info.height, info.frame_count) == (30, 8, 7)
    assert info.frame_times_s == pytest.approx(times_s, abs=1e-3)
    assert source is not None
    assert (source.width, source.height, source.frame_count) == (60, 24, 7)
    assert source.variable_frame_rate
    assert source.path == str(video)
    assert len(source.sha256 or "") == 64
    assert info.shots[0][0] == 0
    assert info.shots[-1][1] == 7


def test_training_refuses_a_folder_without_masks_and_flow(tmp_path, pictures):
    video = write_video(tmp_path / "in.mkv", pictures, codec="ffv1")
    clip, _ = make_frames(video, tmp_path / "swan", FrameOptions())
    with pytest.raises(InputError, match="masks_not_made_yet: mask folder not found"):
        clip.check()


def test_leading_black_is_left_out_and_recorded(tmp_path, pictures, caplog):
    rng = np.random.default_rng(1)
    dark = rng.integers(0, 6, (2, 24, 60, 3)).astype(np.uint8)  # black, with noise
    end = np.zeros((1, 24, 60, 3), np.uint8)  # black elsewhere stays
    video = write_video(
        tmp_path / "in.mkv", np.concatenate([dark, pictures, end]), codec="ffv1", fps=10
    )
    with caplog.at_level(logging.INFO):
        clip, _ = make_frames(video, tmp_path / "swan", FrameOptions(max_frames=5))
    assert np.array_equal(stored(clip), pictures[:5])
    assert clip.info.frame_times_s == pytest.approx([0.2, 0.3, 0.4, 0.5, 0.6], abs=1e-6)
    source = clip.info.source
    assert source is not None
    assert (source.first_frame, source.leading_black, source.frame_count) == (2, 2, 10)
    assert len(source.frame_times_s) == 10
    assert "first 2 are black" in caplog.text


def test_a_clip_that_is_black_throughout_is_kept(tmp_path):
    video = write_video(tmp_path / "in.mkv", np.zeros((4, 24, 60, 3), np.uint8), codec="ffv1")
    clip, _ = make_frames(video, tmp_path / "night", FrameOptions())
    source = clip.info.source
    assert source is not None
    assert (clip.frame_count, source.first_frame, source.leading_black) == (4, 0, 4)


def test_a_night_sky_with_lamps_is_not_black():
    rgb = np.full((100, 200, 3), 6, np.uint8)
    assert is_black(rgb)
    rgb[10:20, 30:40] = (240, 200, 120)
    assert not is_black(rgb)


def test_a_folder_of_pictures(tmp_path, pictures):
    (tmp_path / "given").mkdir()
    for t, rgb in enumerate(pictures):
        write_rgb(tmp_path / "given" / f"img_{t + 8}.png", rgb)  # 8, 9, 10 ...: not by letters
    clip, _ = make_frames(tmp_path / "given", tmp_path / "swan", FrameOptions())
    assert np.array_equal(stored(clip), pictures)
    assert clip.info.fps == 25
    assert clip.info.source is not None
    assert clip.info.source.sha256 is None


def snapshot(folder: Path) -> dict[str, int]:
    return {p.name: p.stat().st_mtime_ns for p in folder.iterdir()}


@pytest.mark.parametrize("kind", ["video", "folder"])
def test_a_rerun_keeps_what_is_there(tmp_path, pictures, kind):
    given = tmp_path / ("in.mkv" if kind == "video" else "given")
    write_video(given, pictures, codec="ffv1" if kind == "video" else "png")
    clip, _ = make_frames(given, tmp_path / "swan", FrameOptions(max_frames=6))
    before = snapshot(clip.folder)
    again, kept = make_frames(given, tmp_path / "swan", FrameOptions(max_frames=6))
    assert kept
    assert snapshot(again.folder) == before


@pytest.mark.parametrize(
    "what", ["other size", "other count", "other input", "frame missing", "clip.json broken"]
)
def test_a_rerun_that_asks_for_something_else_makes_it_anew(tmp_path, pictures, what):
    given, out = tmp_path / "in.mkv", tmp_path / "swan"
    write_video(given, pictures, codec="ffv1")
    make_frames(given, out, FrameOptions())
    options = FrameOptions()
    if what == "other size":
        options = FrameOptions(size=Size(12, 30))
    elif what == "other count":
        options = FrameOptions(max_frames=3)
    elif what == "other input":
        write_video(given, pictures[::-1], codec="ffv1")
    elif what == "frame missing":
        (out / "00003.png").unlink()
    else:
        (out / "clip.json").write_text("{")
    clip, kept = make_frames(given, out, options)
    assert not kept
    assert clip.size == (options.size or Size(24, 60))
    assert clip.frame_count == (options.max_frames or 7)
    first = pictures[::-1][0] if what == "other input" else pictures[0]
    if options.size is None:
        assert np.array_equal(clip.frame(0), first)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.mkv", "swan"]


def test_new_frames_remove_the_flow_and_masks_of_the_old_but_nothing_else(tmp_path, pictures):
    given, out = tmp_path / "in.mkv", tmp_path / "swan"
    write_video(given, pictures, codec="ffv1")
    make_frames(given, out, FrameOptions())
    for name, tag in [("flow", "flow.json"), ("sky", "masks.json"), ("hand", "notes.json")]:
        (tmp_path / f"swan_{name}").mkdir()
        (tmp_path / f"swan_{name}" / tag).write_text("{}")
    make_frames(given, out, FrameOptions(max_frames=2))
    left = sorted(p.name for p in tmp_path.iterdir())
    assert left == ["in.mkv", "swan", "swan_hand"]


def test_one_frame(tmp_path, pictures):
    write_rgb(tmp_path / "still.png", pictures[0])
    clip, _ = make_frames(tmp_path / "still.png", tmp_path / "swan", FrameOptions())
    assert (clip.frame_count, clip.info.shots) == (1, [[0, 1]])
    assert np.array_equal(clip.frame(0), pictures[0])


# ---- refusals


def test_the_input_is_never_the_output(tmp_path, pictures):
    write_video(tmp_path / "given", pictures)
    with pytest.raises(InputError, match="--out is the input itself"):
        make_frames(tmp_path / "given", tmp_path / "given", FrameOptions())
    with pytest.raises(InputError, match="--out holds the input"):
        make_frames(tmp_path / "given", tmp_path, FrameOptions())
    assert np.array_equal(read_rgb(tmp_path / "given" / "00006.png"), pictures[6])


def test_a_folder_that_preprocess_did_not_write_is_left_alone(tmp_path, pictures):
    video = write_video(tmp_path / "in.mkv", pictures, codec="ffv1")
    (tmp_path / "photos").mkdir()
    write_rgb(tmp_path / "photos" / "00000.png", pictures[3])
    with pytest.raises(InputError, match=r"holds 00000\.png and no clip\.json"):
        make_frames(video, tmp_path / "photos", FrameOptions())
    assert [p.name for p in (tmp_path / "photos").iterdir()] == ["00000.png"]


def test_a_clip_folder_with_something_of_the_users_is_left_alone(tmp_path, pictures):
    video = write_video(tmp_path / "in.mkv", pictures, codec="ffv1")
    make_frames(video, tmp_path / "swan", FrameOptions())
    (tmp_path / "swan" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"holds notes\.txt, which is no frame"):
        make_frames(video, tmp_path / "swan", FrameOptions(max_frames=2))


def test_out_may_not_be_a_file(tmp_path, pictures):
    video = write_video(tmp_path / "in.mkv", pictures, codec="ffv1")
    (tmp_path / "swan").touch()
    with pytest.raises(InputError, match="is a file"):
        make_frames(video, tmp_path / "swan", FrameOptions())


def test_at_least_one_frame():
    with pytest.raises(InputError, match="at least 1, got 0"):
        FrameOptions(max_frames=0)


# ---- whole or nothing


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt()])
@pytest.mark.parametrize("older", [False, True])
def test_a_failure_leaves_nothing_half_written(tmp_path, pictures, monkeypatch, error, older):
    video, out = write_video(tmp_path / "in.mkv", pictures, codec="ffv1"), tmp_path / "swan"
    before = None
    if older:
        make_frames(video, out, FrameOptions(max_frames=3))
        before = snapshot(out)

    def failing(path: Path, rgb: np.ndarray) -> None:
        if path.name == "00004.png":
            raise error
        write_rgb(path, rgb)

    monkeypatch.setattr(module, "write_rgb", failing)
    with pytest.raises(type(error)):
        make_frames(video, out, FrameOptions())
    assert (snapshot(out) if out.exists() else None) == before
    assert not list(tmp_path.glob("*.tmp"))


def test_what_a_killed_run_left_does_not_get_in_the_way(tmp_path, pictures):
    video = write_video(tmp_path / "in.mkv", pictures, codec="ffv1")
    (tmp_path / "swan.tmp").mkdir()
    (tmp_path / "swan.tmp" / "00099.png").write_bytes(b"half")
    clip, _ = make_frames(video, tmp_path / "swan", FrameOptions())
    assert clip.frame_count == 7
    assert not (tmp_path / "swan.tmp").exists()


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_parent_is_one_clear_error(tmp_path, pictures):
    video = write_video(tmp_path / "in.mkv", pictures, codec="ffv1")
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(PermissionError) as caught:
        make_frames(video, tmp_path / "locked" / "swan", FrameOptions())
    assert "locked" in str(caught.value.filename)


def test_clip_json_is_plain_json(tmp_path, pictures):
    video = tmp_path / "in.mp4"
    with VideoWriter(video, Size(24, 60), fps=30) as writer:
        for rgb in pictures:
            writer.write(rgb)
    clip, _ = make_frames(video, tmp_path / "swan", FrameOptions())
    data = json.loads((clip.folder / "clip.json").read_text())
    assert data["source"]["codec"] == "h264"
    assert data["tools"]["frames"].startswith("frames 1")
    assert data["seconds"]["frames"] > 0
