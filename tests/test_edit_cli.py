"""edit.py as people call it: results, and one clear line with exit 2 for each mistake."""

import dataclasses
import hashlib
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import edit
from atlas import ffmpeg
from atlas.clip import Clip, ClipInfo, LayerInfo, SourceInfo, write_info, write_rgb
from atlas.coords import Size
from atlas.errors import InputError
from atlas.video import open_source
from atlas.video_writer import VideoWriter
from edits.apply import RenderContext
from edits.deliver import Job
from edits.footage import open_footage
from edits.look import NAMED
from tests.exact_mapping import AffineMapping

ROOT = Path(__file__).resolve().parent.parent
SIZE = Size(height=46, width=64)
COUNT = 9
FPS = Fraction(24)


def pictures(size=SIZE):
    rng = np.random.default_rng(0)
    base = rng.integers(60, 200, (size.height // 2, size.width // 2, 3)).repeat(2, 0).repeat(2, 1)
    return [np.roll(base, 2 * t, axis=1).astype(np.uint8) for t in range(COUNT)]


def write_video(path, codec="auto"):
    with VideoWriter(path, SIZE, fps=FPS, codec=codec) as writer:
        for rgb in pictures():
            writer.write(rgb)
    return path


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """A losslessly coded clip with a sound track."""
    folder = tmp_path_factory.mktemp("video")
    silent = write_video(folder / "silent.mkv", "ffv1")
    path = folder / "clip.mkv"
    sound = ["-f", "lavfi", "-i", "sine=frequency=440:duration=0.375", "-c:v", "copy"]
    command = [ffmpeg.executable(), "-v", "error", "-y", "-i", str(silent), *sound]
    subprocess.run([*command, "-c:a", "aac", str(path)], check=True)
    return path


@pytest.fixture
def exact(monkeypatch):
    """Edit through an exact mapping, whose upper half is sky, in place of the fast path."""
    alpha = np.zeros((SIZE.height, SIZE.width), np.float32)
    alpha[SIZE.height // 2 :] = 1
    mapping = AffineMapping(alpha, SIZE, COUNT)
    mapping.step = np.zeros(2, np.float32)

    def open_job(args, footage):
        info = footage.source.info
        context = RenderContext(times_s=info.frame_times_s, fps=float(info.fps))
        return Job(footage, mapping, context)

    monkeypatch.setattr(edit, "open_job", open_job)
    return mapping


@pytest.fixture
def sky(tmp_path):
    write_rgb(tmp_path / "sky.png", np.full((SIZE.height, SIZE.width, 3), (10, 20, 250), np.uint8))
    return tmp_path / "sky.png"


def call(*arguments):
    edit.main([str(a) for a in arguments])


# --- results


def test_sky_edit_keeps_times_sound_and_every_untouched_pixel(tmp_path, video, sky, exact, capsys):
    out = tmp_path / "new folder" / "out.mkv"
    call(video, "--sky", sky, "--out", out, "--codec", "ffv1")
    assert f"{out}: {COUNT} frames" in capsys.readouterr().out
    before, after = open_source(video), open_source(out)
    assert (after.info.frame_count, after.info.fps, after.info.size) == (COUNT, FPS, SIZE)
    assert after.info.frame_times_s == pytest.approx(before.info.frame_times_s, abs=1e-3)
    assert after.info.audio == before.info.audio
    for a, b in zip(after.frames(), before.frames(), strict=True):
        assert (a[SIZE.height // 2 :] == b[SIZE.height // 2 :]).all()
        assert (a[: SIZE.height // 2] == [10, 20, 250]).all()


def test_side_by_side_and_recipe_round_trip(tmp_path, video, sky, exact):
    saved = tmp_path / "edit.yaml"
    call(video, "--sky", sky, "--out", tmp_path / "a", "--side-by-side", "--save-recipe", saved)
    call(video, saved, "--out", tmp_path / "b")
    for a, b in zip(open_source(tmp_path / "a").frames(), open_source(tmp_path / "b").frames(),
                    strict=True):  # fmt: skip
        assert a.shape == (SIZE.height, 2 * SIZE.width, 3)
        assert (a[:, SIZE.width :] == b).all()
    original = next(iter(open_source(video).frames()))
    assert (next(iter(open_source(tmp_path / "a").frames()))[:, : SIZE.width] == original).all()


def test_layers_are_painted_after_the_sky(tmp_path, video, sky, exact):
    half = np.full((SIZE.height, SIZE.width, 4), (255, 0, 0, 255), np.uint8)
    half[:, SIZE.width // 2 :, 3] = 0
    write_rgb(tmp_path / "red.png", half)
    out = tmp_path / "out"
    call(video, "--sky", sky, "--layer", f"sky={tmp_path / 'red.png'}", "--out", out)
    first = open_source(out).frame(0)
    assert (first[5, 5] == [255, 0, 0]).all()
    assert (first[5, -5] == [10, 20, 250]).all()


def test_a_sky_video_plays_in_step_with_the_clip(tmp_path, video, exact):
    with VideoWriter(tmp_path / "sky.mkv", SIZE, fps=12, codec="ffv1") as writer:
        for i in range(6):
            writer.write(np.full((SIZE.height, SIZE.width, 3), 40 * i, np.uint8))
    call(video, "--sky", tmp_path / "sky.mkv", "--out", tmp_path / "out")
    shown = [int(f[2, 2, 0]) for f in open_source(tmp_path / "out").frames()]
    # 24 frames of the clip a second, 12 of the sky: each is shown twice. The loop of 5 (a fade
    # of 1) is not reached before frame 10.
    assert shown == [40 * (t // 2) for t in range(COUNT)]


# --- mistakes


def test_mistakes_are_one_line_and_leave_nothing(tmp_path, video, sky, exact):
    write_rgb(tmp_path / "rgba.png", np.zeros((SIZE.height, SIZE.width, 4), np.uint8))
    write_rgb(tmp_path / "tall.png", np.zeros((90, 20, 4), np.uint8))
    (tmp_path / "file").write_text("not a folder")
    (tmp_path / "text.mp4").write_text("hello")
    (tmp_path / "empty").mkdir()
    out = tmp_path / "out.mp4"
    paint = tmp_path / "rgba.png"
    cases = [
        ([video, "--out", out], "nothing to change: give --sky"),
        ([video, "--sky", sky], "required: --out"),
        ([tmp_path / "gone.mp4", "--sky", sky, "--out", out], "gone.mp4: not found"),
        ([video, "--sky", tmp_path / "gone.png", "--out", out], "gone.png: not found"),
        ([video, tmp_path / "gone.yaml", "--out", out], "gone.yaml: not found"),
        ([video, "--layer", f"swan={paint}", "--out", out], "this clip has foreground, sky"),
        ([video, "--layer", paint, "--out", out], "wanted NAME=RGBA.png"),
        ([video, "--layer", f"sky={tmp_path / 'tall.png'}", "--out", out], "is 20x90, but the"),
        ([video, "--layer", f"sky={paint}", "--blend", "burn", "--out", out], "blend is 'burn'"),
        ([video, "--sky", sky, "--sky-scale", "0", "--out", out], "--sky: scale is 0.0"),
        ([video, "--layer", f"sky={paint}", "--flip", "--out", out], "--flip need --sky"),
        ([video, "--sky", sky, "--keep-grain", "3", "--out", out], "keep_grain is 3.0"),
        ([video, "--sky", sky, "--out", video], "is an input of this edit"),
        ([video, "--sky", sky, "--out", sky], "is an input of this edit"),
        ([video, "--sky", sky, "--out", tmp_path / "out.docx"], "cannot write .docx"),
        ([video, "--sky", sky, "--out", tmp_path / "file" / "out.mp4"], "is a file; wanted"),
        ([video, "--sky", sky, "--codec", "xvid", "--out", out], "no codec 'xvid'"),
        ([video, "--sky", sky, "--crf", "99", "--out", out], "--crf is 99"),
        ([video, "--sky", sky, "--crf", "good", "--out", out], "invalid int value"),
        ([tmp_path / "text.mp4", "--sky", sky, "--out", out], "text.mp4"),
        ([tmp_path / "empty", "--sky", sky, "--out", out], "holds no pictures"),
        ([video, "--sky", sky, "--source", video, "--out", out], "--source is for run folders"),
    ]  # fmt: skip
    before = sorted(p.name for p in tmp_path.iterdir())
    for arguments, message in cases:
        with pytest.raises(InputError) as caught:
            call(*arguments)
        assert message in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_a_read_only_folder_is_refused_before_any_work(tmp_path, video, sky, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: False)  # root may write anywhere
    monkeypatch.setattr(edit, "open_job", lambda *_: pytest.fail("work began"))
    with pytest.raises(InputError, match="is read-only"):
        call(video, "--sky", sky, "--out", tmp_path / "out.mp4")


def test_the_script_prints_one_line_and_exits_2(tmp_path):
    command = [sys.executable, "edit.py", str(tmp_path / "gone.mp4"), "--out", "x.mp4"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: nothing to change")
    assert done.stderr.count("\n") == 1


def test_help_names_every_option():
    command = [sys.executable, "edit.py", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    for option in ("--sky", "--layer", "--fast", "--out", "--side-by-side", "--crf", "--codec"):
        assert option in done.stdout
    assert "examples:" in done.stdout


# --- where a clip's source lies


@pytest.fixture
def clip(tmp_path, video):
    """A clip folder made from frames 2 .. 6 of the video, at half its size."""
    folder = tmp_path / "data" / "swan"
    folder.mkdir(parents=True)
    small = [rgb[::2, ::2] for rgb in pictures()[2:7]]
    for t, rgb in enumerate(small):
        write_rgb(folder / f"{t:05d}.png", rgb)
    info = open_source(video).info
    source = SourceInfo(
        path=str(video),
        sha256=hashlib.sha256(video.read_bytes()).hexdigest(),
        width=SIZE.width,
        height=SIZE.height,
        frame_count=COUNT,
        first_frame=2,
        frame_times_s=list(info.frame_times_s),
    )
    height, width = small[0].shape[:2]
    clip_info = ClipInfo(
        width=width,
        height=height,
        frame_count=5,
        fps=24.0,
        frame_times_s=list(info.frame_times_s[2:7]),
        layers=[LayerInfo(name="foreground", mask_dir="swan_sky"), LayerInfo(name="sky")],
        source=source,
    )
    write_info(folder, clip_info)
    return Clip(folder)


def with_source(clip, **changes):
    assert clip.info.source is not None
    source = dataclasses.replace(clip.info.source, **changes)
    write_info(clip.folder, dataclasses.replace(clip.info, source=source))
    return Clip(clip.folder)


def test_the_source_is_found_at_its_own_size(clip, video):
    footage = open_footage(clip)
    assert footage.source.info.size == SIZE
    assert footage.first_frame == 2


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"path": "/nowhere/clip.mp4"}, "no longer there"),
        ({"sha256": "0" * 64}, "its hash differs"),
        ({"sha256": None, "width": 65}, "the clip was made from 65x46"),
        ({"sha256": None, "frame_count": 10}, "has 9 frames, the clip's source had 10"),
    ],
)
def test_a_source_that_moved_or_changed_is_said_and_the_folder_used(clip, changes, reason, caplog):
    footage = open_footage(with_source(clip, **changes))
    assert footage.source.info.size == Size(23, 32)
    assert footage.first_frame == 0
    assert len(caplog.records) == 1
    assert reason in caplog.text


def test_source_option_names_the_new_place(clip, video):
    moved = with_source(clip, path="/nowhere/clip.mp4")
    footage = open_footage(moved, video)
    assert (footage.source.info.size, footage.first_frame) == (SIZE, 2)


def test_presets_looks_and_sky_options_reach_the_recipe(tmp_path):
    from argparse import ArgumentParser

    from edits.look import Look
    from edits.preset import preset_names
    from edits.recipe import Recipe
    from edits.sky_options import add_sky_options, with_sky

    def made(*arguments: str) -> Recipe:
        parser = ArgumentParser()
        add_sky_options(parser)
        return with_sky(parser.parse_args(arguments), Recipe())

    assert preset_names() == ["clear", "dawn", "galaxy", "overcast", "storm", "sunset"]
    for name in preset_names():
        recipe = made("--preset", name)
        (edit,) = recipe.edits
        assert Path(edit.source).is_file()
        assert recipe.look is not None
        assert recipe.look.active
        assert (recipe.look.rain > 0) == (name == "storm")
    storm = made("--preset", "storm", "--look", "rain=0.25", "--flip", "--drift", "0.02,-0.01")
    assert storm.look is not None
    assert (storm.look.rain, storm.look.haze) == (0.25, 0.55)
    assert (storm.edits[0].flip, storm.edits[0].drift_x) == (True, 0.02)
    own = made("--sky", "mine.jpg", "--preset", "sunset")
    assert [edit.source for edit in own.edits] == ["mine.jpg"]
    assert own.look == made("--preset", "sunset").look
    assert made("--look", "haze_color=#ff8800", "--look", "haze=0.3").look == Look(
        haze=0.3, haze_color="#ff8800"
    )
    assert made("--preset", "storm", "--look", "off").look is None
    natural = made("--preset", "storm", "--look", "natural", "--look", "halo=0.4").look
    assert natural == dataclasses.replace(NAMED["natural"], halo=0.4)  # no rain of the storm's
    for bad, message in (
        (["--preset", "fog"], "preset 'fog' is not known; wanted one of clear"),
        (["--look", "rain"], "--look rain: wanted KEY=VALUE"),
        (["--look", "wet=1"], "--look: unknown key 'wet'"),
        (["--look", "rain=much"], "rain is 'much', wanted a number"),
        (["--sky", "a", "--sky-fit", "stretch"], "--sky-fit is 'stretch', wanted one of auto"),
        (["--sky", "a", "--drift", "left"], "--drift left: wanted X or X,Y"),
        (["--drift", "0.1"], "need --sky FILE or --preset NAME"),
    ):
        with pytest.raises(InputError) as caught:
            made(*bad)
        assert message in str(caught.value)
