"""A clip of two shots: fitted apart, edited and written as one."""

from dataclasses import replace

import numpy as np
import pytest

import edit
from atlas.clip import Clip, read_rgb, write_info, write_rgb
from atlas.config import load_config
from atlas.coords import Size
from atlas.errors import InputError
from atlas.evaluation import Measurement
from atlas.fit import fit_layered
from atlas.fit_job import FitJob
from atlas.metrics import psnr_db
from atlas.run import open_run
from atlas.shots import lay_out
from atlas.survey import Contender, survey
from atlas.texture import render
from edits.context import RenderContext
from edits.footage import find_clip
from edits.kinds import FramePaint, LayerPaint, SkyEdit
from edits.recipe import Recipe
from edits.shots import ShotsRenderer
from tests.scene_presets import SceneOptions, make_scene
from tests.synthetic import write_clip

SIZE = Size(72, 128)
COUNTS = (4, 3)


def two_shots(root):
    """Two unlike scenes cut together, each 0.1 px of flow right; their clip folder."""
    scenes = [
        make_scene(SceneOptions(size=SIZE, frame_count=n, pan_deg=4, seed=seed, camera=camera))
        for n, seed, camera in ((COUNTS[0], 1, "pan"), (COUNTS[1], 9, "hand"))
    ]
    folders = [write_clip(s, root / f"scene{i}", merged=True) for i, s in enumerate(scenes)]
    target, offset = root / "film", 0
    for name in ("film", "film_flow", "film_foreground"):
        (root / name).mkdir()
    for folder, scene in zip(folders, scenes, strict=True):
        clip = Clip(folder)
        for t in range(scene.frame_count):
            to = offset + t
            write_rgb(target / f"{to:05d}.png", clip.frame(t))
            mask = np.rint(clip.mask(0, t) * 255).astype(np.uint8)
            write_rgb(root / "film_foreground" / f"{to:05d}.png", mask)
            for other in (t - 1, t + 1):
                if 0 <= other < scene.frame_count:
                    name = f"{to:05d}.png_{offset + other:05d}.png.npy"
                    np.save(root / "film_flow" / name, clip.flow(t, other))
        offset += scene.frame_count
    cut = COUNTS[0]
    for a, b in ((cut - 1, cut), (cut, cut - 1)):  # flow over a cut says nothing
        flow = np.full((SIZE.height, SIZE.width, 2), 40, np.float32)
        np.save(root / "film_flow" / f"{a:05d}.png_{b:05d}.png.npy", flow)
    info = Clip(folders[0]).info
    layers = [replace(info.layers[0], mask_dir="film_foreground"), info.layers[1]]
    info = replace(
        info,
        frame_count=sum(COUNTS),
        frame_times_s=[t / 25 for t in range(sum(COUNTS))],
        layers=layers,
        shots=[[0, cut], [cut, sum(COUNTS)]],
        truth=None,
    )
    write_info(target, info)
    return target


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    root = tmp_path_factory.mktemp("shots")
    clip, folder = Clip(two_shots(root)), root / "run"
    folder.mkdir()
    config = load_config(None, ["quality=draft", "layered.align.sigmas_px=[10]"])
    fit_layered(FitJob(clip, config, folder))
    return clip, open_run(folder)


def test_every_shot_is_rebuilt_from_atlases_of_its_own(film):
    clip, run = film
    assert [shot.first for shot in run.shots] == [0, COUNTS[0]]
    for t in range(clip.frame_count):
        picture = render(run.mapping, run.textures, t, gains=run.shading)
        assert psnr_db(picture, clip.frame(t).astype(np.float32) / 255) > 27
    for layer in range(2):  # no frame of one shot looks at the other's part of the picture
        first, second = run.shots
        assert not (
            (first.textures[layer].coverage > 0) & (second.textures[layer].coverage > 0)
        ).any()


def test_the_run_folder_holds_one_picture_a_layer_and_a_whole_run_a_shot(film):
    clip, run = film
    assert (run.info.kind, run.info.shots) == ("shots", [[0, 4], [4, 7]])
    assert run.info.frame_count == clip.frame_count
    assert (run.folder / "atlas_sky.png").is_file()
    second = open_run(run.folder / "shots" / "02")
    assert np.array_equal(second.clip().frame(0), clip.frame(COUNTS[0]))
    assert second.mapping.frame_count == COUNTS[1]


def renderer(film, *edits):
    clip, run = film
    context = RenderContext(
        textures=run.textures, shading=run.shading, times_s=clip.info.frame_times_s,
        read_frame=clip.frame,
    )  # fmt: skip
    return ShotsRenderer(run.mapping, run.shots, Recipe(edits=edits), context)


def test_a_sky_goes_into_every_shot_and_is_placed_for_each(film, tmp_path):
    clip, _ = film
    red = np.zeros((60, 100, 3), np.uint8)
    red[..., 0] = np.linspace(120, 255, 100)
    write_rgb(tmp_path / "red.png", red)
    made = renderer(film, SkyEdit(source=str(tmp_path / "red.png")))
    for t in range(clip.frame_count):
        sky = clip.alpha(t)[0] < 0.02
        after = made.frame(t, clip.frame(t))
        assert after[sky][:, 0].mean() > 100
        assert after[sky][:, 1:].mean() < 12
        ground = clip.alpha(t)[0] == 1
        assert np.array_equal(after[ground], clip.frame(t)[ground])
        if t in (0, COUNTS[0]):  # both shots' first frames show the picture's whole width
            assert np.ptp(after[sky][:, 0].astype(int)) > 60


def test_paint_on_one_frame_stays_in_its_shot(film, tmp_path):
    clip, _ = film
    painted = clip.frame(5).copy()
    painted[30:40, 40:70] = (0, 255, 0)
    write_rgb(tmp_path / "f.png", painted)
    made = renderer(film, FramePaint(frame=5, path=str(tmp_path / "f.png")))
    changed = [(made.frame(t, clip.frame(t)) != clip.frame(t)).any() for t in range(7)]
    assert changed == [False] * 4 + [True] * 3
    with pytest.raises(InputError, match="there is no frame 9"):
        renderer(film, FramePaint(frame=9, path=str(tmp_path / "f.png")))


def test_paint_on_the_common_picture_lands_in_the_shot_it_lies_on(film, tmp_path):
    clip, run = film
    canvas = run.mapping.layers[1].canvas
    paint = np.zeros((canvas.height, canvas.width, 4), np.uint8)
    x, y = (int(v) for v in run.shots[1].part.frame(0).uv[1][5, 5])
    paint[y : y + 6, x : x + 20] = (255, 0, 255, 255)
    write_rgb(tmp_path / "paint.png", paint)
    made = renderer(film, LayerPaint(layer="sky", path=str(tmp_path / "paint.png")))
    changed = [(made.frame(t, clip.frame(t)) != clip.frame(t)).any() for t in range(7)]
    assert changed == [False] * 4 + [True] * 3


def test_one_shot_s_run_is_one_to_edit_and_export(film, tmp_path):
    clip, run = film
    assert find_clip(run.folder / "shots" / "02").folder == clip.folder
    red = tmp_path / "red.png"
    write_rgb(red, np.full((9, 16, 3), (200, 0, 0), np.uint8))
    out, shot = tmp_path / "edited", run.folder / "shots" / "02"
    edit.main([str(word) for word in (shot, "--sky", red, "--out", out, "--no-history")])
    pictures = sorted(out.glob("*.png"))
    changed = [(read_rgb(p) != clip.frame(4 + i)).any() for i, p in enumerate(pictures)]
    assert changed == [True] * 3  # the frames of the shot, 4 to 6
    with pytest.raises(InputError, match="export the shots one by one"):
        edit.main(
            [str(word) for word in (run.folder, "--sky", red, "--export", "stmap", out / "x")]
        )


def test_nothing_is_measured_over_a_cut(film):
    clip, run = film
    contender = Contender("atlas", run.mapping, run.textures, run.shading)
    known = survey(clip, [contender], None, clip.frame_count)
    found = []
    for forget_cuts in (False, True):
        measurement = Measurement(clip, [contender], known)
        if forget_cuts:
            measurement._cuts = set()
        for t in range(clip.frame_count):
            measurement.step(t)
        found.append(measurement.scores["atlas"].as_json()["warp_error"])
    assert found[0] < 0.05
    assert found[0] < found[1]


def test_pictures_are_laid_out_without_overlap():
    sizes = [Size(5000, 300), Size(4000, 500), Size(5000, 200), Size(100, 900)]
    sheet = lay_out(sizes)
    assert sheet.places == ((0, 0), (0, 5000), (500, 0), (500, 5000))
    assert sheet.canvas == Size(9000, 1400)
