"""Around the edit: ranges, previews, contact sheets, history, replay, watching, round trips."""

import dataclasses
import itertools
import json
import subprocess

import numpy as np
import pytest

import edit
from atlas import ffmpeg
from atlas.clip import Clip, ClipInfo, LayerInfo, SourceInfo, read_rgb, write_info, write_rgb
from atlas.coords import Size
from atlas.errors import InputError
from atlas.layered import LayerMotion
from atlas.layered_file import save_layered, write_mattes
from atlas.run import RunInfo, write_run_info
from atlas.texture import Texture
from atlas.video import open_source
from atlas.video_writer import VideoWriter
from edits.apply import Renderer
from edits.context import RenderContext
from edits.deliver import Delivery, Job, write_video
from edits.footage import Footage
from edits.history import kept_edits
from edits.kinds import Insert, LayerPaint
from edits.recipe import Recipe, read_recipe
from edits.watch import saved_files

SIZE = Size(height=46, width=64)
COUNT = 7


def pictures():
    rng = np.random.default_rng(1)
    base = rng.integers(40, 200, (SIZE.height, SIZE.width + COUNT, 3)).astype(np.uint8)
    return [np.ascontiguousarray(base[:, t : t + SIZE.width]) for t in range(COUNT)]


def upper_half(t):
    """(L, H, W): a foreground that fills the upper half."""
    alpha = np.ones((2, SIZE.height, SIZE.width), np.float32)
    alpha[0, SIZE.height // 2 :] = 0
    return alpha


def make_run(folder):
    """A clip folder and a run of it, whose layers both pan by one pixel a frame."""
    clip = folder / "data" / "clip"
    clip.mkdir(parents=True)
    for t, rgb in enumerate(pictures()):
        write_rgb(clip / f"{t:05d}.png", rgb)
    layers = [LayerInfo(name="foreground", mask_dir="clip_m"), LayerInfo(name="background")]
    info = ClipInfo(
        width=SIZE.width,
        height=SIZE.height,
        frame_count=COUNT,
        fps=24.0,
        frame_times_s=[t / 24 for t in range(COUNT)],
        layers=layers,
        shots=[[0, COUNT]],
    )
    write_info(clip, info)
    run = folder / "runs" / "clip"
    run.mkdir(parents=True)
    canvas = Size(SIZE.height, SIZE.width + COUNT)
    matrices = np.tile(np.eye(3), (COUNT, 1, 1))
    matrices[:, 0, 2] = np.arange(COUNT)
    motions = [
        LayerMotion(name, canvas, matrices, None, 8, np.ones(COUNT, np.float32))
        for name in ("foreground", "background")
    ]
    grey = Texture(np.full((*canvas.wh[::-1], 3), 0.5, np.float32), np.ones(canvas.wh[::-1]))
    save_layered(run, motions, [grey, grey], None, {})
    write_mattes(run, ("foreground", "background"), COUNT, upper_half)
    rows = [{"name": m.name, "height": canvas.height, "width": canvas.width} for m in motions]
    about = RunInfo(
        kind="layered",
        clip_folder=str(clip),
        clip_sha256="",
        frame_count=COUNT,
        width=SIZE.width,
        height=SIZE.height,
        layers=rows,
    )
    write_run_info(run, about)
    return run, canvas


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("session"))


@pytest.fixture
def run(made):
    return made[0]


@pytest.fixture
def paint(tmp_path, made):
    path = tmp_path / "paint.png"
    write_rgb(path, np.full((*made[1].wh[::-1], 4), (250, 10, 20, 255), np.uint8))
    return f"foreground={path}"


def call(*arguments):
    edit.main([str(a) for a in arguments])


def test_a_range_is_those_frames_of_the_whole(tmp_path, run, paint):
    call(run, "--layer", paint, "--out", tmp_path / "all", "--no-history")
    call(run, "--layer", paint, "--out", tmp_path / "some", "--range", "2:4", "--no-history")
    whole = list(open_source(tmp_path / "all").frames())
    some = list(open_source(tmp_path / "some").frames())
    assert len(whole) == COUNT
    assert [np.array_equal(a, b) for a, b in zip(some, whole[2:5], strict=True)] == [True] * 3
    for text in ("5:3", "0:7", "x:2", "3"):
        with pytest.raises(InputError, match=rf"--range {text}: wanted"):
            call(run, "--layer", paint, "--out", tmp_path / "no", "--range", text)


def test_of_a_longer_source_the_fitted_frames_are_written(tmp_path, capsys):
    run, canvas = make_run(tmp_path)
    longer = [np.zeros_like(pictures()[0]), *pictures(), np.full_like(pictures()[0], 9)]
    (tmp_path / "source").mkdir()
    for t, rgb in enumerate(longer):
        write_rgb(tmp_path / "source" / f"{t:05d}.png", rgb)
    source = SourceInfo(
        path=str(tmp_path / "source"),
        sha256=None,
        width=SIZE.width,
        height=SIZE.height,
        frame_count=len(longer),
        first_frame=1,
        frame_times_s=[t / 24 for t in range(len(longer))],
    )
    clip = Clip(tmp_path / "data" / "clip")
    write_info(clip.folder, dataclasses.replace(clip.info, source=source))
    write_rgb(tmp_path / "p.png", np.full((*canvas.wh[::-1], 4), (250, 10, 20, 255), np.uint8))
    paint = ("--layer", f"foreground={tmp_path / 'p.png'}", "--no-history")
    call(run, *paint, "--out", tmp_path / "fitted")
    assert "frames 0 to 7 of 9, those fitted; --range 0: has all" in capsys.readouterr().out
    call(run, *paint, "--out", tmp_path / "all", "--range", "0:")
    assert "fitted" not in capsys.readouterr().out
    fitted = list(open_source(tmp_path / "fitted").frames())
    everything = list(open_source(tmp_path / "all").frames())
    assert all(np.array_equal(a, b) for a, b in zip(fitted, everything[:-1], strict=True))
    assert (everything[0] == 0).all()  # the black lead-in, which is not fitted
    assert (everything[-1] == 9).all()


def test_preview_and_contact_sheet(tmp_path, run, paint, capsys):
    call(run, "--layer", paint, "--preview", 5, "--out", tmp_path / "p.png")
    preview = read_rgb(tmp_path / "p.png")
    assert (preview[: SIZE.height // 2] == [250, 10, 20]).all()
    assert (preview[SIZE.height // 2 :] == pictures()[5][SIZE.height // 2 :]).all()
    call(run, "--preview", 5, "--out", tmp_path / "plain.png")  # no edit: the frame, to paint on
    assert (read_rgb(tmp_path / "plain.png") == pictures()[5]).all()
    call(run, "--layer", paint, "--contact-sheet", "--out", tmp_path / "sheet.png")
    assert read_rgb(tmp_path / "sheet.png").shape[1] > 6 * SIZE.width
    assert list(kept_edits(run)) == []  # looking is no edit
    with pytest.raises(InputError, match=r"there is no frame 7; the source has 0..6"):
        call(run, "--layer", paint, "--preview", 7, "--out", tmp_path / "q.png")
    with pytest.raises(InputError, match=r"q.mp4: wanted a picture"):
        call(run, "--layer", paint, "--preview", 1, "--out", tmp_path / "q.mp4")


def test_history_keeps_edits_that_replay_on_another_clip(tmp_path, paint, capsys):
    run, _ = make_run(tmp_path / "one")
    call(run, "--history")
    assert "no edits yet" in capsys.readouterr().out
    pin = "background@3:5,30 40,30 40,44 5,44=HI"
    call(run, "--layer", paint, "--text", pin, "--out", tmp_path / "out.mkv", "--codec", "ffv1")
    call(run, "--remove", "foreground", "--out", tmp_path / "bare.mp4")
    folders = [kept.folder.name for kept in kept_edits(run)]
    assert folders == ["001", "002"]
    first = next(iter(kept_edits(run)))
    assert first.facts is not None
    assert first.facts.frames == COUNT
    assert (first.folder / "result.mkv").read_bytes() == (tmp_path / "out.mkv").read_bytes()
    assert read_rgb(first.folder / "preview.jpg").shape == (SIZE.height, SIZE.width, 3)
    capsys.readouterr()
    call(run, "--history")
    shown = capsys.readouterr().out
    assert "layer paint foreground from 01_paint.png; insert 'HI' on background at frame 3" in shown
    assert "002" in shown
    # The picture that was painted may change or go; the kept edit has its own copy.
    (tmp_path / "paint.png").unlink()
    other, _ = make_run(tmp_path / "two")
    recipe = first.folder / "recipe.yaml"
    call(other, recipe, "--out", tmp_path / "again.mkv", "--codec", "ffv1", "--no-history")
    pairs = zip(
        open_source(tmp_path / "again.mkv").frames(),
        open_source(tmp_path / "out.mkv").frames(),
        strict=True,
    )
    assert all((a == b).all() for a, b in pairs)
    notes = json.loads((run / "edits" / "002" / "edit.json").read_text())["notes"]
    assert "0.0 % of the pixels" in notes[0]


def test_a_damaged_kept_edit_is_listed_as_such(tmp_path, paint, capsys):
    run, _ = make_run(tmp_path)
    call(run, "--layer", paint, "--out", tmp_path / "a.mp4")
    (run / "edits" / "001" / "edit.json").write_text("{")
    capsys.readouterr()
    call(run, "--history")
    assert "001  cannot be read" in capsys.readouterr().out
    call(run, "--layer", paint, "--out", tmp_path / "b.mp4")
    assert (run / "edits" / "002").is_dir()  # numbers are not used twice


def test_recipes_with_commands_need_leave(tmp_path, run):
    (tmp_path / "r.yaml").write_text(
        "version: 1\nedits:\n- {kind: filter, layer: background, command: 'cp {in} {out}'}\n"
    )
    out = tmp_path / "out"
    with pytest.raises(InputError, match=r"would run the command 'cp \{in\} \{out\}'; give --al"):
        call(run, tmp_path / "r.yaml", "--out", out)
    call(run, tmp_path / "r.yaml", "--allow-commands", "--out", out, "--no-history")
    # The atlas is grey; the filter's result replaces all of the background.
    assert np.abs(open_source(out).frame(2)[-5:].astype(int) - 128).max() <= 1


def test_an_empty_edit_of_a_lossless_clip_is_bit_exact_in_frames_sound_and_times(tmp_path):
    times_s = [0.0, 0.04, 0.12, 0.16, 0.28, 0.32, 0.36]  # not a constant rate
    silent = tmp_path / "silent.mkv"
    with VideoWriter(silent, SIZE, fps=25, frame_times_s=times_s, codec="ffv1") as writer:
        for rgb in pictures():
            writer.write(rgb)
    clip = tmp_path / "clip.mkv"
    sound = ["-f", "lavfi", "-i", "sine=frequency=440:duration=0.4", "-c:v", "copy"]
    command = [ffmpeg.executable(), "-v", "error", "-y", "-i", str(silent), *sound]
    subprocess.run([*command, "-c:a", "flac", str(clip)], check=True)
    source = open_source(clip)
    mapping = _still_mapping()
    context = RenderContext(read_frame=source.frame)
    for codec in ("lossless", "ffv1"):
        job = Job(Footage(source), mapping, context)
        out = tmp_path / f"{codec}.mkv"
        write_video(job, job.open(Recipe()), Delivery(out=out, codec=codec))
        copy = open_source(out)
        for a, b in zip(copy.frames(), source.frames(), strict=True):
            assert (a == b).all()
        assert copy.info.frame_times_s == source.info.frame_times_s
        assert copy.info.audio == source.info.audio
        assert _sound(out) == _sound(clip)


def _sound(path):
    """MD5 of the decoded samples."""
    command = [ffmpeg.executable(), "-v", "error", "-i", str(path), "-map", "0:a", "-f", "md5", "-"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _still_mapping():
    from tests.exact_mapping import AffineMapping

    return AffineMapping(np.zeros((SIZE.height, SIZE.width), np.float32), SIZE, COUNT)


def test_a_range_without_its_start_is_written_from_time_0(tmp_path):
    with VideoWriter(tmp_path / "v.mkv", SIZE, fps=25, codec="ffv1") as writer:
        for rgb in pictures():
            writer.write(rgb)
    source = open_source(tmp_path / "v.mkv")
    job = Job(Footage(source), _still_mapping(), RenderContext(read_frame=source.frame))
    count, middle = write_video(
        job, job.open(Recipe()), Delivery(out=tmp_path / "r.mkv", codec="ffv1", span=(3, 5))
    )
    found = open_source(tmp_path / "r.mkv").info
    assert (count, found.frame_count) == (3, 3)
    assert found.frame_times_s == pytest.approx((0, 0.04, 0.08), abs=1e-3)
    assert (middle == pictures()[4]).all()


# --- watching


def test_saved_files_waits_until_a_file_is_whole(tmp_path):
    a, b = tmp_path / "a.png", tmp_path / "b.png"
    a.write_text("1")
    steps = iter(
        [
            lambda: None,
            lambda: a.write_text("being wri"),
            lambda: a.write_text("being written"),
            lambda: None,  # the same as at the last look: whole
            lambda: b.write_text("new"),
            lambda: None,
            lambda: a.unlink(),
            lambda: None,  # gone for a moment
            lambda: a.write_text("saved again"),
            lambda: None,
        ]
    )
    looks = []

    def wait(_):
        looks.append(1)
        next(steps)()

    found = []
    for saved in itertools.islice(saved_files(lambda: [a, b], wait), 3):
        found.append((len(looks), saved))
    assert found == [(4, {a}), (6, {b}), (10, {a})]


def test_watch_renders_again_and_outlives_a_mistake(tmp_path, run, paint, monkeypatch, capsys):
    from edits import session

    picture = tmp_path / "paint.png"
    out = tmp_path / "p.png"
    shown = []

    def saves(files):
        assert files() == [picture]
        shown.append(read_rgb(out)[2, 2].tolist())
        write_rgb(picture, np.zeros((9, 9, 4), np.uint8))  # of the wrong shape
        yield {picture}
        write_rgb(picture, np.full((SIZE.height, SIZE.width + COUNT, 3), (0, 200, 0), np.uint8))
        yield {picture}
        shown.append(read_rgb(out)[2, 2].tolist())

    monkeypatch.setattr(session, "saved_files", saves)
    call(run, "--layer", paint, "--preview", 2, "--out", out, "--watch")
    assert shown == [[250, 10, 20], [0, 200, 0]]
    assert "error:" in capsys.readouterr().err


def test_command_line_edits_make_the_recipe_that_they_describe(tmp_path, run, paint):
    saved = tmp_path / "r.yaml"
    pin = "background@2:4,28 30,28 30.5,40 4,40=A=B"
    given = ["--layer", paint, "--text", pin, "--text-color", "#102030"]
    call(run, *given, "--preview", 0, "--out", tmp_path / "p.png", "--save-recipe", saved)
    paint_edit, text_edit = read_recipe(saved).edits
    assert isinstance(paint_edit, LayerPaint)
    assert isinstance(text_edit, Insert)
    assert dataclasses.asdict(text_edit) == {
        "layer": "background", "frame": 2, "corners": ((4, 28), (30, 28), (30.5, 40), (4, 40)),
        "path": None, "text": "A=B", "color": "#102030", "blend": "normal", "opacity": 1.0,
        "sha256": None,
    }  # fmt: skip
    wrong = {
        "--text": ["background@2:4,28 30,28 30,40=A", "background:4,28=A", "background@2:=A"],
        "--frame": ["x=a.png", "@3=a.png", "3"],
        "--filter": ["background", "background=sharpen"],
        "--pin": ["background@2:4,28 30,28 30,40 4,40"],
    }
    for option, values in wrong.items():
        for value in values:
            with pytest.raises(InputError, match=f"^{option}"):
                call(run, option, value, "--out", tmp_path / "o.mp4")


def test_renderer_reads_everything_before_the_first_frame(run, tmp_path):
    args = edit.parse([str(run), "--out", "x.mp4"])
    job = edit.open_job(args, edit.find_footage(args))
    gone = Recipe(edits=(LayerPaint(layer="foreground", path=str(tmp_path / "gone.png")),))
    with pytest.raises(InputError, match=r"gone\.png"):
        Renderer(job.mapping, gone, job.context)
