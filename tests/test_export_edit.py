"""Hand-over as people ask for it: paint as still pictures, and the command."""

import dataclasses
import logging

import cv2
import numpy as np
import pytest

import edit
from atlas.clip import write_rgb
from atlas.coords import Size
from atlas.errors import InputError
from atlas.mapping import Layer
from atlas.video import open_source
from edits.apply import RenderContext, Renderer
from edits.blend import BLEND_MODES, paint_over
from edits.blend_expressions import painted_over
from edits.deliver import Job
from edits.exr import read_exr
from edits.flatten import flat_paints, flatten
from edits.footage import Footage
from edits.openraster import StoredLayer, write_ora
from edits.paint import PicturePaint
from edits.picture import Picture
from edits.recipe import Recipe, RemoveLayer
from tests.compositor import read_rgba
from tests.handover_scene import LEAD, Exact

pytest.importorskip("OpenEXR", reason="hand-over needs the extra 'handover'")


@pytest.fixture(scope="module")
def exact(tmp_path_factory):
    return Exact(tmp_path_factory.mktemp("handover"))


@pytest.mark.parametrize("mode", sorted(BLEND_MODES))
def test_blend_expressions_agree_with_the_blend_modes(mode):
    rng = np.random.default_rng(0)
    backdrop, colour, alpha = rng.random((3, 2000))
    alpha[:50] = 0
    names = {"b": backdrop, "p": colour * alpha, "a": alpha}
    names |= {"min": np.minimum, "max": np.maximum, "sqrt": np.sqrt}
    found = eval(painted_over(mode, "b", "p", "a"), names)
    paint = np.dstack([(colour * alpha)[:, None].repeat(3, 1)[None], alpha[None]])[0]
    ours = paint_over(backdrop[:, None].repeat(3, 1), paint, mode)[:, 0]
    np.testing.assert_allclose(found, ours, atol=7e-4 if mode == "soft light" else 2e-5)


def test_flat_paints_keep_modes_and_order(exact):
    flat = flat_paints(Renderer(exact.mapping, exact.recipe, exact.context))
    modes = {name: [paint.blend for paint in paints] for name, paints in flat.items()}
    assert modes == {
        "object": ["normal", "overlay"],
        "sky": ["normal", "multiply", "screen"],
        "foreground": ["soft light", "add"],
    }
    canvas = exact.mapping.layers[-1].canvas
    first = flat["sky"][0].rgba
    assert first.shape == (2 * canvas.height, 2 * canvas.width, 4)
    given = exact.paints["sky"][0].rgba
    small = cv2.resize(first[..., :3] * first[..., 3:], canvas.wh, interpolation=cv2.INTER_AREA)
    expected = given[..., :3] * given[..., 3:]
    np.testing.assert_allclose(small[5:-5, 5:-5], expected[5:-5, 5:-5], atol=0.01)


def test_normal_paints_merge_into_one():
    canvas = Size(height=6, width=10)

    def solid(rgba):
        rgb = np.full((6, 10, 3), rgba[:3], np.float32)
        return PicturePaint(Picture(rgb, np.full((6, 10), rgba[3], np.float32)), canvas)

    (flat,) = flatten([solid((0.2, 0.4, 0.6, 0.5)), solid((1, 0, 0, 0.25))], Layer("a", canvas))
    alpha = 0.25 + 0.75 * 0.5
    red = (0.25 * 1 + 0.75 * 0.5 * 0.2) / alpha
    np.testing.assert_allclose(flat.rgba[6, 10, [0, 3]], [red, alpha], atol=1e-6)


def test_what_pictures_cannot_hold_is_said(exact, caplog):
    removed = Recipe(edits=(RemoveLayer(layer="object"),))
    with pytest.raises(InputError, match="removed layer cannot be handed over"):
        flat_paints(Renderer(exact.mapping, removed, exact.context))
    grainy = dataclasses.replace(exact.recipe, keep_grain=0.5)
    with caplog.at_level(logging.WARNING):
        flat_paints(Renderer(exact.mapping, grainy, exact.context))
    assert "without its keep_grain; the folder rendered has the finished frames" in caplog.text


@pytest.fixture
def command(exact, monkeypatch, tmp_path):
    """edit.py on frames on disk, with the exact mapping in place of a run's."""
    for t, rgb in enumerate(exact.frames):
        (tmp_path / "frames").mkdir(exist_ok=True)
        write_rgb(tmp_path / "frames" / f"{t:05d}.png", rgb)
    job = Job(Footage(open_source(tmp_path / "frames"), LEAD), exact.mapping, exact.context)
    monkeypatch.setattr(edit, "open_job", lambda args, footage: job)
    return lambda *options: edit.main([str(tmp_path / "frames"), *map(str, options)])


def test_export_command(command, exact, tmp_path, capsys):
    paint = exact.folder.parent / "2.png"
    command("--layer", f"sky={paint}", "--export", "stmap", tmp_path / "out", "--range", "2:3")
    assert "2 frames of object, foreground, sky; open rebuild.nk" in capsys.readouterr().out
    names = sorted(p.name for p in (tmp_path / "out/plate").iterdir())
    assert names == ["plate.00002.png", "plate.00003.png"]
    same = exact.folder / "stmap/object/object.00003.exr"
    np.testing.assert_array_equal(
        read_exr(tmp_path / "out/stmap/object/object.00003.exr"), read_exr(same)
    )
    assert read_rgba(tmp_path / "out/paint/sky.png")[..., 3].max() > 0.9


def test_finished_frames_come_along_where_scripts_cannot_rebuild_them(command, exact, tmp_path):
    paint = exact.folder.parent / "2.png"
    given = ("--layer", f"sky={paint}", "--keep-grain", "0.5")
    command(*given, "--export", "stmap", tmp_path / "out", "--range", "2:3")
    command(*given, "--range", "2:3", "--format", "png", "--out", tmp_path / "ours")
    names = sorted(p.name for p in (tmp_path / "out/rendered").iterdir())
    assert names == ["rendered.00002.png", "rendered.00003.png"]
    for name, ours in zip(names, ("00000.png", "00001.png"), strict=True):
        finished = read_rgba(tmp_path / "out/rendered" / name)
        np.testing.assert_array_equal(finished, read_rgba(tmp_path / "ours" / ours))
    assert not (exact.folder / "rendered").exists()  # plain paint needs none


def test_mattes_as_movies(command, exact, tmp_path):
    command("--export", "stmap", tmp_path / "out", "--codec", "prores", "--range", "2:3")
    for name, share in zip(exact.names, exact.mapping.frame(3 - LEAD).visible(), strict=True):
        movie = open_source(tmp_path / f"out/matte/{name}.mov")
        assert movie.info.frame_count == 2
        assert float(movie.info.fps) == pytest.approx(24000 / 1001, abs=0.01)
        decoded = movie.frame(1)[..., 1] / 255
        assert np.abs(decoded - share).mean() < 0.004  # 10 bit, limited range, lossy
        assert np.abs(decoded - share).max() < 0.06


def test_painting_on_exported_atlases(command, exact, tmp_path, capsys):
    """Export, paint on the layer "paint" and on one named like another atlas, and render."""
    command("--export-atlas", tmp_path / "out")
    assert "atlases of object, foreground, sky" in capsys.readouterr().out
    canvas = exact.mapping.layers[-1].canvas
    red = np.full((canvas.height, canvas.width, 4), (255, 0, 0, 255), np.uint8)
    same = StoredLayer(name="Foreground 2", rgba=red, opacity=0.5, blend="multiply")
    layers = [same, StoredLayer(name="paint", rgba=red), StoredLayer(name="atlas", rgba=red)]
    write_ora(tmp_path / "sky.ora", canvas, layers)
    command("--layer", f"sky={tmp_path / 'sky.ora'}", "--out", tmp_path / "frames_out")
    frame = read_rgba(tmp_path / "frames_out/00002.png")[..., :3]
    shares = exact.mapping.frame(2 - LEAD).visible()
    before, gain = exact.frames[2] / 255, exact.gains[2 - LEAD]
    sky, ground = shares[2] == 1, shares[1] == 1
    expected = np.minimum(gain[2] * [1, 0, 0], 1)
    np.testing.assert_allclose(frame[sky], expected[sky], atol=0.003)
    light = np.minimum(gain[1] * [1, 0, 0] * 0.5, 0.5) / 0.5
    expected = before * (1 + light) / 2
    np.testing.assert_allclose(frame[ground], expected[ground], atol=0.01)
    np.testing.assert_array_equal(frame[shares[0] == 1], before[shares[0] == 1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--export", "movie", "x"], "--export movie: wanted stmap, then a folder"),
        (["--export", "stmap", "x", "--export-atlas", "y"], "two jobs"),
        (["--export", "stmap", "x", "--out", "y.mp4"], "--export does not go with --out"),
        (["--export-atlas", "x", "--preview", "0"], "--export-atlas does not go with --preview"),
        (["--export", "stmap", "x", "--compose", "lna"], "leave out --compose"),
        (["--export", "stmap", "."], "not empty; name a new folder"),
        (["--export", "stmap", "x", "--layer", "sky=none.png"], "none.png: not found"),
    ],
)
def test_export_mistakes(command, monkeypatch, tmp_path, options, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        command(*options)
    assert [p.name for p in tmp_path.iterdir()] == ["frames"]


def test_atlases_of_a_video_are_refused(command, exact, monkeypatch, tmp_path):
    bare = Job(Footage(open_source(tmp_path / "frames")), exact.mapping, RenderContext())
    monkeypatch.setattr(edit, "open_job", lambda args, footage: bare)
    with pytest.raises(InputError, match=r"--export-atlas needs a run of train\.py"):
        command("--export-atlas", tmp_path / "x")
