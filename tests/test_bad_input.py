"""What users get wrong, for all four commands: the right result, or one line and status 2.

Every refusal must leave one line on stderr, exit status 2, and the disk as it was. Every clip that
is merely odd must come out of edit.py with the frames, times, size and sound that went in.
"""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

import edit
import evaluate
import preprocess.__main__ as preprocess
import train
from atlas.clip import Clip, write_rgb
from atlas.coords import Size
from atlas.errors import run_script
from atlas.video import probe
from edits.mipmap import Pyramid
from tests.mistakes import REFUSED
from tests.test_preprocess import scene
from tests.test_train_cli import TINY
from tests.video_files import pcm, run_ffmpeg, write_video

ROOT = Path(__file__).resolve().parent.parent
SIZE = Size(48, 80)
MAIN = {
    "preprocess": preprocess.main,
    "train": train.main,
    "edit": edit.main,
    "evaluate": evaluate.main,
}
SCRIPT = {
    "preprocess": ["-m", "preprocess"],
    "train": ["train.py"],
    "edit": ["edit.py"],
    "evaluate": ["evaluate.py"],
}
LNA = [word for setting in TINY for word in ("--set", setting)]


def call(monkeypatch, command: str, *arguments) -> int:
    """Exit status of a command that is run in this process."""
    monkeypatch.setattr(sys, "argv", [command, *map(str, arguments)])
    try:
        run_script(MAIN[command])
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def files(*folders: Path) -> dict[str, int]:
    """Everything in the folders, with sizes."""
    found = [p for folder in folders for p in folder.rglob("*")]
    return {str(p): p.stat().st_size if p.is_file() else -1 for p in found}


def make_pictures(root: Path) -> None:
    frames = scene(3, SIZE)
    for name in ("pictures", "damaged", "unequal"):
        (root / name).mkdir()
        for t, rgb in enumerate(frames):
            write_rgb(root / name / f"{t:05d}.png", rgb)
    (root / "damaged" / "00001.png").write_bytes(
        (root / "pictures" / "00001.png").read_bytes()[:300]
    )
    write_rgb(root / "unequal" / "00002.png", frames[0][:24])


def make_skies(root: Path) -> None:
    rng = np.random.default_rng(0)
    sky = cv2.resize(rng.integers(0, 256, (5, 8, 3), np.uint8), (72, 40))
    write_rgb(root / "sky.png", sky)
    write_rgb(root / "one.png", sky[:1, :1])
    write_rgb(root / "deep.png", sky.astype(np.uint16) * 257)
    write_rgb(root / "grey.png", sky[..., 0])
    whole = (root / "sky.png").read_bytes()
    (root / "cut.png").write_bytes(whole[: len(whole) // 2])
    flipped = bytearray(whole)
    flipped[100] ^= 255
    (root / "flipped.png").write_bytes(flipped)
    jpeg = bytearray(cv2.imencode(".jpg", sky)[1].tobytes())
    jpeg[jpeg.index(b"\xff\xc0") + 9] = 4  # four components: what a CMYK file says
    (root / "cmyk.jpg").write_bytes(jpeg)


@pytest.fixture(scope="module")
def stuff(tmp_path_factory):
    """Clips, pictures, skies, a clip folder and a run of it; tests only read them."""
    root = tmp_path_factory.mktemp("stuff")
    frames = scene(3, SIZE)
    write_video(root / "clip.mp4", frames)
    write_video(root / "late.mp4", frames)
    run_ffmpeg("-i", root / "clip.mp4", "-c", "copy", root / "plain.mp4")
    whole = (root / "plain.mp4").read_bytes()  # ffmpeg's own layout: the index is at the end
    (root / "cut.mp4").write_bytes(whole[: len(whole) * 2 // 3])
    (root / "text.mp4").write_text("a shopping list\n" * 40)
    (root / "nothing.mp4").touch()
    (root / "empty").mkdir()
    (root / "bad.yaml").write_text("loss: {flw: 1}\n")
    make_pictures(root)
    make_skies(root)
    with pytest.MonkeyPatch.context() as patch:
        assert call(patch, "preprocess", root / "clip.mp4", "--out", root / "data" / "c") == 0
        assert call(patch, "train", root / "data" / "c", "--out", root / "run", *LNA) == 0
    shutil.copytree(root / "run", root / "moved")
    text = (root / "moved" / "run.json").read_text()
    here, gone = str(root / "data" / "c"), str(root / "gone" / "c")
    moved = json.loads(text.replace(here, gone)) | {"clip_folder_from_run": "../gone"}
    (root / "moved" / "run.json").write_text(json.dumps(moved))
    shutil.copytree(root / "run", root / "broken")
    checkpoint = root / "broken" / "checkpoint.safetensors"
    checkpoint.write_bytes(checkpoint.read_bytes()[:-50])
    return root


# --- refused: one line, status 2, nothing written


@pytest.mark.parametrize(("command", "line", "message"), REFUSED)
def test_a_mistake_is_one_line_and_leaves_nothing(
    command, line, message, stuff, tmp_path, monkeypatch, capfd
):
    monkeypatch.chdir(tmp_path)
    before = files(stuff, tmp_path)
    capfd.readouterr()
    status = call(
        monkeypatch, command, *[word.format(s=stuff, o=tmp_path) for word in line.split()]
    )
    lines = capfd.readouterr().err.splitlines()
    assert status == 2, lines
    assert [said for said in lines if said.startswith("error: ")] == lines[-1:], lines
    assert message in lines[-1]
    assert not any("libpng" in said or "WARN" in said or "usage" in said for said in lines), lines
    assert files(stuff, tmp_path) == before


# --- odd, but right


def make_odd_clip(name: str, folder: Path) -> Path:
    """A clip that is unusual in the one way that its name says."""
    frames = scene(4, SIZE)
    path = folder / f"{name}.mp4"
    if name == "rotated":
        write_video(folder / "flat.mp4", frames)
        run_ffmpeg("-display_rotation", 90, "-i", folder / "flat.mp4", "-c", "copy", path)
        return path
    if name in ("long sound", "short sound"):
        write_video(folder / "silent.mp4", frames)
        tone = f"sine=frequency=440:duration={0.6 if name == 'long sound' else 0.06}"
        sound = ["-f", "lavfi", "-i", tone, "-map", "0:v", "-map", "1:a", "-c:v", "copy"]
        run_ffmpeg("-i", folder / "silent.mp4", *sound, "-c:a", "aac", path)
        return path
    if name == "half a file":
        whole = write_video(folder / "whole.mkv", scene(12, SIZE), codec="ffv1").read_bytes()
        (folder / "half a file.mkv").write_bytes(whole[: len(whole) // 2])
        return folder / "half a file.mkv"
    settings = {"frame_times_s": [0, 0.05, 0.2, 0.25]} if name == "variable rate" else {}
    pictures = {
        "1 frame": frames[:1],
        "2 frames": frames[:2],
        "portrait": scene(4, Size(80, 48)),
        "odd size": scene(4, Size(49, 81)),
        "no sky": scene(4, SIZE, sky=0),
        "all sky": scene(4, Size(200, 80))[:, :48],
        "black at first": np.concatenate([np.zeros((2, 48, 80, 3), np.uint8), frames]),
        "all black": np.zeros((3, 48, 80, 3), np.uint8),
    }
    return write_video(path, pictures.get(name, frames), **settings)


ODD = ["1 frame", "2 frames", "portrait", "odd size", "no sky", "all sky", "black at first"]
ODD += ["all black", "rotated", "long sound", "short sound", "variable rate", "half a file"]
ODD += ["été 空 clip"]


@pytest.mark.parametrize("name", ODD)
def test_an_odd_clip_is_edited_with_all_its_frames_times_and_sound(
    name, stuff, tmp_path, monkeypatch
):
    clip = make_odd_clip(name, tmp_path)
    out = tmp_path / f"edited{clip.suffix}"
    assert call(monkeypatch, "edit", clip, "--sky", stuff / "sky.png", "--out", out) == 0
    before, after = probe(clip), probe(out)
    assert after.size == before.size
    assert (after.frame_count, after.fps) == (before.frame_count, before.fps)
    assert after.frame_times_s == pytest.approx(before.frame_times_s, abs=1e-3)  # mkv keeps 1 ms
    assert after.duration_s == pytest.approx(before.duration_s, abs=2e-3)
    assert after.audio == before.audio
    if before.audio is not None:
        assert np.array_equal(pcm(out), pcm(clip))


SLOW = [pytest.param(n, marks=pytest.mark.slow) for n in ODD if n not in ("1 frame", "odd size")]


@pytest.mark.parametrize("name", ["1 frame", "odd size", *SLOW])
def test_an_odd_clip_goes_through_all_four_commands(name, stuff, tmp_path, monkeypatch):
    clip = make_odd_clip(name, tmp_path)
    data, run, out = tmp_path / "data" / "odd", tmp_path / "run", tmp_path / "edited.mkv"
    assert call(monkeypatch, "preprocess", clip, "--out", data) == 0
    Clip(data).check()
    assert call(monkeypatch, "train", data, "--out", run, *LNA) == 0
    bottom = Clip(data).layer_names[-1]
    change = ["--sky", stuff / "sky.png"] if bottom == "sky" else ["--remove", "foreground"]
    assert call(monkeypatch, "edit", run, *change, "--out", out) == 0
    assert probe(out).frame_times_s == pytest.approx(probe(clip).frame_times_s, abs=1e-3)
    assert probe(out).size == probe(clip).size
    assert call(monkeypatch, "evaluate", run, "--out", tmp_path / "report") == 0
    assert (tmp_path / "report" / "report.json").is_file()
    assert not [name for name in files(tmp_path) if name.endswith(".tmp")]


@pytest.mark.parametrize("sky", ["one.png", "deep.png", "grey.png", "pictures", "clip.mp4"])
def test_an_odd_sky_is_taken(sky, stuff, tmp_path, monkeypatch):
    out = tmp_path / "out.mkv"
    arguments = [stuff / "clip.mp4", "--sky", stuff / sky, "--out", out, "--codec", "ffv1"]
    assert call(monkeypatch, "edit", *arguments) == 0
    first = cv2.cvtColor(next(frame for frame in _frames(out)), cv2.COLOR_RGB2HSV)
    if sky == "grey.png":  # the blue of the sky is gone from its upper part
        assert np.median(first[:10, :, 1]) < 40


def _frames(path: Path):
    from atlas.video import open_source

    return open_source(path).frames()


def test_a_moved_clip_folder_can_be_named(stuff, tmp_path, monkeypatch):
    clip, sky = stuff / "data" / "c", stuff / "sky.png"
    out = tmp_path / "out.mp4"
    arguments = [stuff / "moved", "--clip", clip, "--sky", sky, "--out", out]
    assert call(monkeypatch, "edit", *arguments) == 0
    assert probe(out).frame_count == 3


def test_frames_found_damaged_are_made_anew(stuff, tmp_path, monkeypatch, caplog):
    out = tmp_path / "c"
    assert call(monkeypatch, "preprocess", stuff / "clip.mp4", "--out", out) == 0
    whole = (out / "00001.png").read_bytes()
    (out / "00001.png").write_bytes(whole[: len(whole) // 2])
    assert call(monkeypatch, "preprocess", stuff / "clip.mp4", "--out", out) == 0
    assert (out / "00001.png").read_bytes() == whole
    assert "00001.png: the PNG is cut off" in caplog.text


def test_positions_far_away_take_no_time():
    """OpenCV walks to a mirrored position one length at a time: 1e9 of 2 texels took minutes."""
    texture = np.zeros((2, 2, 3), np.float32)
    xy = np.full((64, 64, 2), 1e9, np.float32)
    start_s = time.perf_counter()
    assert np.isfinite(Pyramid(texture).sample(xy)).all()
    assert time.perf_counter() - start_s < 1  # it takes 1 ms


# --- disks and interruptions


@pytest.mark.parametrize("whole_files", [0, 2])
@pytest.mark.parametrize("command", ["preprocess", "train", "edit", "evaluate"])
def test_a_full_disk_is_one_line_that_names_the_file(
    command, whole_files, stuff, tmp_path, monkeypatch, capfd
):
    written = 0
    original = Path.write_bytes

    def fills_up(path: Path, data: bytes) -> int:
        nonlocal written
        written += 1
        if written > whole_files:
            original(path, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return original(path, data)

    lines = {
        "preprocess": [stuff / "clip.mp4", "--out", tmp_path / "x"],
        "train": [stuff / "data" / "c", "--out", tmp_path / "x", *LNA],
        "edit": [stuff / "clip.mp4", "--sky", stuff / "sky.png", "--out", tmp_path / "x"],
        "evaluate": [stuff / "run", "--out", tmp_path / "x", "--no-fast"],
    }
    monkeypatch.setattr(Path, "write_bytes", fills_up)
    status = call(monkeypatch, command, *lines[command])
    monkeypatch.undo()
    said = capfd.readouterr().err.splitlines()
    assert status == 2
    assert said[-1].startswith(f"error: {tmp_path}")
    assert said[-1].endswith("No space left on device")
    assert not [name for name in files(tmp_path) if name.endswith(".tmp")]
    if command in ("edit", "evaluate"):
        assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("command", ["preprocess", "edit"])
def test_a_command_that_is_killed_and_run_again_gives_the_same(
    command, share, sent, stuff, tmp_path
):
    video = write_video(tmp_path / "long.mp4", scene(24, SIZE))

    def start(folder: Path) -> subprocess.Popen:
        out = ["--out", str(folder / ("clip" if command == "preprocess" else "out.mp4"))]
        sky = [] if command == "preprocess" else ["--sky", str(stuff / "sky.png")]
        line = [sys.executable, *SCRIPT[command], str(video), *out, *sky]
        return subprocess.Popen(line, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE)

    def contents(folder: Path) -> dict[str, bytes]:
        found = [p for p in folder.rglob("*") if p.is_file() and p.name != "clip.json"]
        return {str(p.relative_to(folder)): p.read_bytes() for p in found}

    begun_s = time.monotonic()
    assert start(tmp_path / "whole").wait() == 0
    taken_s = time.monotonic() - begun_s
    process = start(tmp_path / "again")
    time.sleep(share * taken_s)
    process.send_signal(sent)
    process.communicate()
    if sent == signal.SIGINT and process.returncode != 0:
        assert not list((tmp_path / "again").rglob("*.tmp"))
    assert start(tmp_path / "again").wait() == 0
    assert contents(tmp_path / "again") == contents(tmp_path / "whole")


# --- help


@pytest.mark.parametrize("command", sorted(SCRIPT))
def test_help_needs_no_torch_and_explains_every_option(command):
    script = SCRIPT[command]
    run = (
        "runpy.run_module('preprocess', run_name='__main__')"
        if command == "preprocess"
        else f"runpy.run_path({script[0]!r}, run_name='__main__')"
    )
    code = (
        "import argparse, runpy, sys\n"
        "print_help = argparse.ArgumentParser.print_help\n"
        "def check(self, file=None):\n"
        "    print_help(self, file)\n"
        "    silent = [a.option_strings or a.dest for a in self._actions if not a.help]\n"
        "    heavy = {'torch', 'torchvision', 'scipy', 'tensorboard'} & set(sys.modules)\n"
        "    sys.exit(f'no help: {silent}; imported: {heavy}' if silent or heavy else 0)\n"
        "argparse.ArgumentParser.print_help = check\n"
        f"sys.argv = [{script[0]!r}, '--help']\n{run}\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "examples:" in done.stdout
