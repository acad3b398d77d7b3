"""`python -m preprocess` end to end: what it writes, what it keeps, how it refuses."""

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from atlas.clip import Clip
from atlas.coords import Size
from atlas.errors import InputError, run_script
from preprocess import __main__ as command
from tests.video_files import write_video


def scene(count: int, size: Size, sky: float = 0.4) -> np.ndarray:
    """(T, H, W, 3) uint8: textured ground under a blue gradient, panning; a red block moves."""
    rng = np.random.default_rng(8)
    height, width = size.height, size.width
    horizon = round(height * sky)
    ground = cv2.resize(
        rng.integers(20, 120, (height // 3 + 2, width // 2 + 20, 3), np.uint8),
        (width + 3 * count + 20, height),
        interpolation=cv2.INTER_CUBIC,
    )
    ground = (ground * (0.7, 0.9, 0.4)).astype(np.uint8)
    blue = np.linspace(0, 1, height)[:, None, None] * (60, 50, 10) + (90, 150, 235)
    frames = []
    for t in range(count):
        frame = np.broadcast_to(blue, (height, width, 3)).clip(0, 255).astype(np.uint8)
        frame[horizon:] = ground[horizon:, 2 * t : 2 * t + width]
        top, left = round(height * 0.6), round(width * 0.2) + 3 * t
        frame[top : top + height // 4, left : left + width // 6] = (200, 30, 20)
        frames.append(frame)
    return np.stack(frames)


def run(*arguments, capsys=None) -> tuple[int, list[str]]:
    """Exit status and stderr lines of the command, run in this process."""
    old, sys.argv = sys.argv, ["preprocess", *map(str, arguments)]
    status = 0
    try:
        run_script(command.main)
    except SystemExit as err:
        status = int(err.code or 0)
    finally:
        sys.argv = old
    return status, capsys.readouterr().err.splitlines() if capsys else []


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory) -> Path:
    """A finished clip folder with the defaults, from a video of 6 frames with sky."""
    root = tmp_path_factory.mktemp("preprocess")
    write_video(root / "in.mkv", scene(6, Size(72, 128)), codec="ffv1", fps=20)
    assert run(root / "in.mkv", "--out", root / "data" / "walk", "--flow", "dis")[0] == 0
    return root / "data" / "walk"


def test_the_folder_is_whole_and_opens(clip_folder):
    clip = Clip(clip_folder)
    clip.check()
    assert (clip.frame_count, clip.size) == (6, Size(72, 128))
    assert clip.layer_names == ("foreground", "sky")  # sky was found
    assert set(clip.info.tools) == {"frames", "flow", "masks"}
    assert set(clip.info.seconds) == {"frames", "flow", "masks"}
    assert clip.alpha(2)[0, 5:20].mean() < 0.1  # the foreground is not the sky ...
    assert clip.alpha(2)[0, 40:].mean() > 0.9  # ... but the ground
    ground = clip.flow(2, 3)[32:42, 20:-20]
    assert np.median(ground[..., 0]) == pytest.approx(-2, abs=0.2)  # the pan


def test_a_rerun_keeps_all_and_says_so(clip_folder, caplog):
    everything = [p for p in clip_folder.parent.rglob("*.*") if p.suffix in (".png", ".npy")]
    before = {p: p.stat().st_mtime_ns for p in everything}
    with caplog.at_level("INFO"):
        status, _ = run(clip_folder.parent.parent / "in.mkv", "--out", clip_folder)
    assert status == 0
    assert {p: p.stat().st_mtime_ns for p in everything} == before
    for part in ("frames: 6 frames, 128x72, 20 fps (kept", "flow: kept", "masks: kept"):
        assert part in caplog.text
    assert Clip(clip_folder).layer_names == ("foreground", "sky")


def test_an_interrupted_run_goes_on(clip_folder, tmp_path, caplog):
    missing = clip_folder.parent / "walk_flow" / "00003.png_00004.png.npy"
    whole = missing.read_bytes()
    missing.write_bytes(whole[: len(whole) // 2])
    with caplog.at_level("INFO"):
        status, _ = run(clip_folder.parent.parent / "in.mkv", "--out", clip_folder)
    assert status == 0
    assert missing.read_bytes() == whole  # dis gives the same again
    assert "flow: 9 of 10 files were there already" in caplog.text


@pytest.mark.parametrize(
    ("name", "count", "size", "sky", "layers"),
    [
        ("one frame", 1, Size(48, 80), 0.4, {"sky", "background"}),
        ("two frames", 2, Size(48, 80), 0.4, {"sky", "background"}),
        ("portrait", 4, Size(96, 54), 0.4, {"sky", "background"}),
        ("odd", 4, Size(47, 81), 0.4, {"sky", "background"}),
        ("no sky", 4, Size(48, 80), 0.0, {"background"}),
        ("all sky", 4, Size(48, 80), 1.0, {"sky", "background"}),
    ],
)
def test_unusual_clips_go_through(tmp_path, name, count, size, sky, layers):
    video = write_video(tmp_path / "in.mkv", scene(count, size, sky), codec="ffv1")
    assert run(video, "--out", tmp_path / "clip")[0] == 0, name
    clip = Clip(tmp_path / "clip")
    clip.check()
    assert (clip.frame_count, clip.size) == (count, size)
    assert clip.layer_names[-1] in layers
    assert clip.alpha(count - 1).shape == (2, size.height, size.width)


def test_own_masks_make_the_layers(tmp_path):
    frames = scene(3, Size(48, 80))
    write_video(tmp_path / "frames", frames)
    masks = np.zeros_like(frames)
    masks[:, 10:20, 30:50] = 255
    write_video(tmp_path / "cars", masks)
    out = tmp_path / "clip"
    assert run(tmp_path / "frames", "--out", out, "--masks", tmp_path / "cars", "sky")[0] == 0
    clip = Clip(out)
    assert len(clip.layer_names) == 3
    assert clip.layer_names[1:] == ("scene", "sky")
    assert np.array_equal(clip.alpha(1)[0], masks[1, ..., 0] / 255)


def test_size_and_max_frames(tmp_path):
    video = write_video(tmp_path / "in.mkv", scene(5, Size(48, 80)), codec="ffv1")
    out = tmp_path / "clip"
    arguments = ["--size", "60x31", "--max-frames", 2, "--masks", "motion", "--flow", "dis"]
    assert run(video, "--out", out, *arguments)[0] == 0
    assert (Clip(out).size, Clip(out).frame_count) == (Size(31, 60), 2)


# ---- refusals: one line, exit 2, nothing written


def broken(tmp_path: Path, kind: str) -> Path:
    path = tmp_path / "in.mp4"
    if kind == "text":
        path.write_text("no video\n" * 50)
    elif kind == "empty file":
        path.touch()
    elif kind == "empty folder":
        path.mkdir()
    elif kind == "cut before its index":
        whole = write_video(tmp_path / "whole.mkv", scene(3, Size(48, 80)), codec="ffv1")
        path.write_bytes(whole.read_bytes()[:300])
        whole.unlink()
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("text", "in.mp4: not a video that ffmpeg can read"),
        ("empty file", "in.mp4: is empty"),
        ("empty folder", "in.mp4: holds no pictures"),
        ("cut before its index", "in.mp4: "),
        ("missing", "in.mp4: not found"),
    ],
)
def test_broken_input_is_one_line_and_exit_2(tmp_path, capsys, kind, message):
    path = broken(tmp_path, kind)
    status, lines = run(path, "--out", tmp_path / "clip", capsys=capsys)
    assert status == 2
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert message in lines[0]
    assert not (tmp_path / "clip").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--masks", "skyy"], "--masks skyy: neither a folder nor one of sky, motion"),
        (["--masks", "sky", "motion"], "--masks: sky must come last"),
        (["--max-frames", "0"], "--max-frames must be at least 1, got 0"),
        (["--device", "toaster"], "--device toaster: not usable here"),
    ],
)
def test_wrong_options_are_refused_before_the_work(tmp_path, capsys, arguments, message):
    video = write_video(tmp_path / "in.mkv", scene(3, Size(48, 80)), codec="ffv1")
    status, lines = run(video, "--out", tmp_path / "clip", *arguments, capsys=capsys)
    assert status == 2
    assert message in lines[-1]
    assert not (tmp_path / "clip").exists()


@pytest.mark.parametrize("text", ["640", "640x", "0x30", "1x1", "640x360x2"])
def test_a_size_that_is_none(text):
    with pytest.raises(command.argparse.ArgumentTypeError, match="wanted WxH such as"):
        command.parse_size(text)


def test_size_is_width_by_height():
    assert command.parse_size("640x360") == Size(height=360, width=640)


def test_an_out_that_cannot_be_written_is_one_line(tmp_path, capsys):
    video = write_video(tmp_path / "in.mkv", scene(2, Size(48, 80)), codec="ffv1")
    (tmp_path / "file").touch()
    status, lines = run(video, "--out", tmp_path / "file" / "clip", capsys=capsys)
    assert status == 2
    assert lines[-1].startswith("error: ")
    assert str(tmp_path / "file") in lines[-1]


def test_masks_by_default_follow_what_is_seen(clip_folder, monkeypatch):
    clip = Clip(clip_folder)
    options = command.parse(["in.mp4", "--out", "out"])
    assert command.pick_masks(clip, options) == ["sky"]
    monkeypatch.setattr(clip, "frame", lambda t: scene(1, Size(72, 128), sky=0.0)[0])
    assert command.pick_masks(clip, options) == ["motion"]


def test_sky_counts_from_above_only():
    matte = np.zeros((60, 40), np.float32)
    matte[35:55, 5:25] = 1  # a plain wall, say
    assert command.share_from_above(matte) == 0
    matte[8:20] = 1  # under the bar of a letterboxed picture
    assert command.share_from_above(matte) == pytest.approx(12 / 60)


def test_an_unknown_device_is_refused():
    with pytest.raises(InputError, match="--device cuda:97"):
        command.pick_device("cuda:97")


def test_help_is_complete(capsys):
    with pytest.raises(SystemExit) as caught:
        command.parse(["--help"])
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    options = ("--out", "--size", "--max-frames", "--flow", "--flow-weights", "--masks")
    for option in (*options, "--class-name", "--mask-weights", "--device", "examples:"):
        assert option in shown
