"""The default recipe end to end on exact scenes, and its parts."""

import dataclasses
import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from atlas.clip import Clip, write_rgb
from atlas.config import load_config
from atlas.coords import Size
from atlas.errors import InputError
from atlas.fit import fit_layered
from atlas.fit_job import FitJob
from atlas.gauge import both_visible, fit_gauge, uv_error_px
from atlas.layered import LayeredMapping, LayerMotion, lattice_shape, sample_lattice
from atlas.metrics import local_jacobian, psnr_db
from atlas.run import open_run, read_run_info
from atlas.shading import estimate_shading
from atlas.store import ClipStore
from atlas.texture import Texture, render
from tests.scene_presets import SceneOptions, make_scene
from tests.synthetic import write_clip

SIZE = Size(120, 208)
FAST = [
    "layered.align.sigmas_px=[12,8,5]",
    "layered.residual_field.training_steps=40",
    "layered.residual_field.width=24",
]


def fit(clip_folder, run, *overrides, resume=False):
    run.mkdir(exist_ok=True)
    config = load_config(None, [*FAST, *overrides])
    fit_layered(FitJob(Clip(clip_folder), config, run), resume)
    return open_run(run) if (run / "run.json").is_file() else None


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    root = tmp_path_factory.mktemp("fit")
    options = SceneOptions(size=SIZE, frame_count=9, pan_deg=8, camera="hand", light=0.2)
    scene = make_scene(options)
    folder = write_clip(scene, root / "scene", merged=True)
    return scene, folder, fit(folder, root / "run")


def reconstruction_db(run, gains=True):
    clip = run.clip()
    shading = run.shading if gains else None
    values = [
        psnr_db(
            render(run.mapping, run.textures, t, gains=shading),
            clip.frame(t).astype(np.float32) / 255,
        )
        for t in range(clip.frame_count)
    ]
    return float(np.mean(values))


def test_the_fit_beats_the_mean_frame_by_far(fitted):
    _, folder, run = fitted
    clip = Clip(folder)
    frames = np.stack([clip.frame(t) for t in range(clip.frame_count)]).astype(np.float32) / 255
    mean_frame_db = float(np.mean([psnr_db(frames.mean(0), f) for f in frames]))
    assert reconstruction_db(run) > mean_frame_db + 8
    assert run.info.metrics["psnr_db"] == pytest.approx(reconstruction_db(run), abs=0.1)


def test_shading_explains_light_that_changes(fitted):
    _, _, run = fitted
    assert reconstruction_db(run) > reconstruction_db(run, gains=False) + 1


@pytest.mark.parametrize("layer", ["sky", "foreground"])
def test_uv_agrees_with_the_truth_up_to_a_gauge(fitted, layer):
    scene, _, run = fitted
    truth = scene.mapping()
    ours, theirs = run.mapping.layer_index(layer), truth.layer_index(layer)
    gauge = fit_gauge(run.mapping, truth, layer, layer)
    errors = []
    for t in range(scene.frame_count):
        a, b = run.mapping.frame(t), truth.frame(t)
        seen = both_visible(a, ours, b, theirs)
        error = uv_error_px(gauge, a.uv[ours], b.uv[theirs], local_jacobian(b.uv[theirs]))
        errors.append(error[seen])
    assert np.median(np.concatenate(errors)) < 0.5


def test_the_run_folder_is_complete_and_self_contained(fitted):
    _, _, run = fitted
    names = {p.name for p in run.folder.iterdir()}
    wanted = {"run.json", "checkpoint.safetensors", "atlas_sky.png", "contact.png", "mattes"}
    assert wanted <= names
    assert not [n for n in names if n.endswith(".tmp") or n == "stages"]
    assert [layer.name for layer in run.mapping.layers] == ["foreground", "sky"]
    assert run.base is not None
    assert run.base.frame(3).uv.shape == run.mapping.frame(3).uv.shape


def test_a_finished_run_is_left_alone_and_an_interrupted_one_goes_on(fitted, tmp_path, caplog):
    _, folder, run = fitted
    before = (run.folder / "checkpoint.safetensors").stat().st_mtime_ns
    with caplog.at_level("INFO"):
        fit(folder, run.folder, resume=True)
    assert "nothing to do" in caplog.text
    assert (run.folder / "checkpoint.safetensors").stat().st_mtime_ns == before


def test_stages_of_an_interrupted_fit_are_used_again(tmp_path, monkeypatch, caplog):
    scene = make_scene(SceneOptions(size=Size(80, 136), frame_count=3))
    folder = write_clip(scene, tmp_path / "scene", merged=True)

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("atlas.shot_fit.ShotFit._train", stop)
        with pytest.raises(KeyboardInterrupt):
            fit(folder, tmp_path / "run")
    assert not (tmp_path / "run" / "run.json").exists()
    with caplog.at_level("INFO"):
        run = fit(folder, tmp_path / "run", resume=True)
    assert "fine/0: taken from the earlier run" in caplog.text
    assert not (run.folder / "stages").exists()
    whole = fit(folder, tmp_path / "whole")
    assert np.array_equal(run.mapping.frame(1).uv, whole.mapping.frame(1).uv)
    assert np.array_equal(run.textures[0].rgb, whole.textures[0].rgb)


def test_two_runs_with_one_seed_are_equal(tmp_path):
    scene = make_scene(SceneOptions(size=Size(80, 136), frame_count=3))
    folder = write_clip(scene, tmp_path / "scene", merged=True)
    uv = [fit(folder, tmp_path / name).mapping.frame(1).uv for name in ("a", "b")]
    assert np.array_equal(uv[0], uv[1])


@pytest.mark.parametrize("frames", [1, 2])
def test_clips_of_one_and_two_frames_are_fitted(tmp_path, frames):
    scene = make_scene(SceneOptions(size=Size(80, 136), frame_count=frames))
    run = fit(write_clip(scene, tmp_path / "scene", merged=True), tmp_path / "run")
    assert reconstruction_db(run) > 28


@pytest.mark.parametrize("share", [0, 255])
def test_a_layer_that_hides_all_or_is_never_seen_is_fitted(tmp_path, share):
    scene = make_scene(SceneOptions(size=Size(80, 136), frame_count=3))
    folder = write_clip(scene, tmp_path / "scene", merged=True)
    for path in (tmp_path / "scene_foreground").glob("*.png"):
        write_rgb(path, np.full((80, 136), share, np.uint8))
    run = fit(folder, tmp_path / "run")
    assert reconstruction_db(run) > 20


def test_black_frames_count_as_perfect_not_as_infinite(tmp_path):
    scene = make_scene(SceneOptions(size=Size(80, 136), frame_count=2))
    folder = write_clip(scene, tmp_path / "scene", merged=True)
    for path in folder.glob("*.png"):
        write_rgb(path, np.zeros((80, 136, 3), np.uint8))
    assert fit(folder, tmp_path / "run").info.metrics["psnr_db"] == 100


def test_a_damaged_checkpoint_is_named(fitted, tmp_path):
    _, _, run = fitted
    info = dataclasses.asdict(run.info)
    (tmp_path / "run.json").write_text(json.dumps(info))
    (tmp_path / "checkpoint.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")
    with pytest.raises(InputError, match="not a checkpoint"):
        open_run(tmp_path)
    assert read_run_info(tmp_path).kind == "layered"


def test_lattice_samples_are_pinned():
    size = Size(17, 25)
    assert lattice_shape(size, 8) == (3, 4)
    lattice = np.zeros((3, 4, 2), np.float32)
    lattice[1, 2] = (4, -8)
    out = sample_lattice(lattice, 8, size)
    assert out[8, 16].tolist() == [4, -8]
    assert np.allclose(out[8, 12], [2, -4], atol=0.02)
    view = sample_lattice(lattice, 8, size, Size(34, 50))  # twice as fine: pixel 33 is at 16.25
    assert np.allclose(
        view[16, 33], [4 * (1 - 0.25 / 8) * (1 - 0.25 / 8)] * np.array([1, -2]), 0.02
    )


def test_a_view_of_a_layered_mapping_is_its_pixels_in_between():
    size = Size(20, 30)
    matrix = np.array([[1.1, 0.05, 3], [0.02, 0.9, 4], [1e-4, 2e-4, 1]])
    motion = LayerMotion("all", Size(60, 60), matrix[None], None, 8, np.ones(1, np.float32))
    mapping = LayeredMapping(size, [motion], lambda t: np.ones((1, 20, 30), np.float32))
    coarse, fine = mapping.frame(0).uv[0], mapping.frame(0, Size(60, 90)).uv[0]
    assert np.allclose(coarse, fine[1::3, 1::3], atol=1e-4)  # centres of each 3 x 3 block


def test_a_finer_view_takes_its_edges_from_the_frame():
    size, view = Size(40, 60), Size(160, 240)
    x, y = np.meshgrid(np.arange(240), np.arange(160))
    truth = ((x - 120) ** 2 + (y - 80) ** 2 < 50**2).astype(np.float32)
    rgb = np.repeat((60 + 120 * truth)[..., None], 3, 2).astype(np.uint8)
    coarse = cv2.resize(truth, size.wh, interpolation=cv2.INTER_AREA)
    motion = LayerMotion("disc", size, np.eye(3)[None], None, 8, np.ones(1, np.float32))
    mapping = LayeredMapping(
        size, [motion, motion], lambda t: np.stack([coarse, np.ones_like(coarse)])
    )
    plain = np.abs(mapping.frame(0, view).alpha[0] - truth).mean()
    mapping.observe(0, rgb)
    guided = mapping.frame(0, view).alpha
    assert np.abs(guided[0] - truth).mean() < 0.5 * plain
    assert guided[1].min() == 1
    mapping.observe(1, rgb)  # another frame's picture is no guide
    assert np.abs(mapping.frame(0, view).alpha[0] - truth).mean() == plain


def test_shading_recovers_a_smooth_gain():
    size = Size(64, 96)
    rng = np.random.default_rng(5)
    picture = (0.2 + 0.5 * rng.random((64, 96, 3))).astype(np.float32)
    gain = (0.7 + 0.5 * np.linspace(0, 1, 96, dtype=np.float32))[None, :, None]

    class Store:
        frame_count, size = 1, Size(64, 96)

        def frame(self, t):
            return np.rint(picture * gain * 255).clip(0, 255).astype(np.uint8)

    motion = LayerMotion("all", size, np.eye(3)[None], None, 8, np.ones(1, np.float32))
    mapping = LayeredMapping(size, [motion], lambda t: np.ones((1, 64, 96), np.float32))
    texture = Texture(picture, np.ones((64, 96), np.float32))
    found = estimate_shading(mapping, [texture], Store(), sigma_px=12)(0)[0]
    inner = (slice(16, -16), slice(24, -24))  # the window reaches over the border elsewhere
    assert np.abs(found[inner] - np.broadcast_to(gain, found.shape)[inner]).max() < 0.05


def test_the_store_forgets_what_it_cannot_hold(tmp_path):
    scene = make_scene(SceneOptions(size=Size(80, 136), frame_count=6))
    clip = Clip(write_clip(scene, tmp_path / "scene", merged=True))
    small = ClipStore(clip, budget_mb=0.1)  # three frames of 32 kB
    for t in range(6):
        assert np.array_equal(small.frame(t), clip.frame(t))
    assert sum(v.nbytes for v in small._cache.values()) <= 0.1e6
    half = ClipStore(clip, size=Size(40, 68))
    assert np.allclose(half.flow(2, 3).mean((0, 1)), clip.flow(2, 3).mean((0, 1)) / 2, atol=0.01)


def test_the_lines_of_the_documentation_work(fitted):
    """docs/FORMATS.md, "From Python"."""
    _, folder, run = fitted
    text = (Path(__file__).parent.parent / "docs" / "FORMATS.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert '"runs/swan"' in code
    said: dict = {}
    exec(code.replace('"runs/swan"', repr(str(run.folder))), said)
    clip = Clip(folder)
    assert said["names"] == list(clip.layer_names)
    np.testing.assert_allclose(said["shares"].sum(0), 1, atol=1e-6)
    assert said["larger"].uv.shape[1:3] == (2 * clip.size.height, 2 * clip.size.width)
    # shared edges: the mean of four fine pixel centres is the coarse one's, up to the map's bending
    coarse = said["larger"].uv[-1].reshape(clip.size.height, 2, clip.size.width, 2, 2).mean((1, 3))
    np.testing.assert_allclose(coarse, said["frame"].uv[-1], atol=0.02)
    assert 10 * np.log10(1 / np.mean(said["error"] ** 2)) > 25
    assert said["seen"].max() > 0.5
