"""evaluate.py from a run to its report, on a scene whose truth is known."""

import dataclasses
import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

import evaluate
from atlas.clip import Clip, read_rgb, write_rgb
from atlas.coords import Size, apply_homography
from atlas.errors import InputError
from atlas.evaluation import Mean, Measurement
from atlas.gauge import Gauge, transfer_texture
from atlas.mapping import FrameMapping, Layer, LayerMapping
from atlas.report import report_page, staged
from atlas.run import Run, RunInfo, clip_hash
from atlas.survey import FirstFrames
from atlas.texture import Texture
from atlas.video import probe
from tests.scene_presets import SceneOptions, make_scene
from tests.synthetic import write_clip

ROOT = Path(__file__).resolve().parent.parent
FRAMES = 6
SIZE = Size(80, 126)
GAUGE = np.array([[0.8, 0.05, 14.0], [-0.03, 0.9, 9.0], [0, 1e-4, 1]])
WOBBLE_PX = 1.5


class OnOtherCanvas(LayerMapping):
    """The exact mapping with every canvas reparametrised, and shaken from frame to frame.

    wobble_px: the sky slides by this much along x in frames 2 and 3, 6 and 7, ...
    """

    def __init__(self, exact: LayerMapping, wobble_px: float = 0.0):
        self.exact, self.wobble_px = exact, wobble_px
        self.frame_count, self.frame_size = exact.frame_count, exact.frame_size
        self.layers = tuple(
            Layer(x.name, Size(x.canvas.height + 30, x.canvas.width + 20)) for x in exact.layers
        )

    def frame(self, t, size=None):
        m = self.exact.frame(t, size)
        uv = np.array(m.uv, np.float64)
        if t % 4 >= 2:
            uv[-1, ..., 0] += self.wobble_px  # one texel of the true canvas is about one pixel
        uv = np.stack([apply_homography(GAUGE, plane) for plane in uv])
        return FrameMapping(uv.astype(np.float32), m.alpha, m.confidence)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """(folder, run): a run that is right, up to its choice of canvas."""
    folder = tmp_path_factory.mktemp("world")
    scene = make_scene(SceneOptions(size=SIZE, frame_count=FRAMES))
    clip = Clip(write_clip(scene, folder / "pan"))
    mapping = OnOtherCanvas(scene.mapping())
    run_folder = folder / "run"
    run_folder.mkdir()
    info = RunInfo(
        kind="layered",
        clip_folder=str(clip.folder),
        clip_sha256=clip_hash(clip),
        frame_count=FRAMES,
        width=clip.size.width,
        height=clip.size.height,
        layers=[],
        seconds={"train": 12.5, "base": 3.0},
        peak_memory_mb=1e6,
    )
    base = OnOtherCanvas(scene.mapping(), WOBBLE_PX)
    textures = []
    for own, other in zip(scene.layers, mapping.layers, strict=True):
        opaque = np.dstack([own.texture[..., :3], np.ones(own.texture.shape[:2], np.float32)])
        rgba = transfer_texture(opaque, Gauge(GAUGE, own.canvas, other.canvas))
        textures.append(Texture(np.ascontiguousarray(rgba[..., :3]), rgba[..., 3].copy()))
    run = Run(run_folder, info, mapping, textures, base)
    noise = np.random.default_rng(0).random((120, 200, 3)).astype(np.float32)
    sky = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 1.5), None, 0, 255, cv2.NORM_MINMAX)
    write_rgb(folder / "sky.png", sky.astype(np.uint8))  # fine enough for a wobble to show
    return folder, run


@pytest.fixture
def opened(world, monkeypatch):
    """evaluate.py with the ready run, its base motion as the fast path."""
    folder, run = world
    monkeypatch.setattr("atlas.run.open_run", lambda path: run)
    monkeypatch.setattr(evaluate, "fast_mapping", lambda run, clip: run.base)
    return folder


@pytest.fixture(scope="module")
def report_folder(world):
    """The full report of the ready run."""
    folder, run = world
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("atlas.run.open_run", lambda path: run)
        patch.setattr(evaluate, "fast_mapping", lambda run, clip: run.base)
        evaluate.main(
            [str(run.folder), "--sky", str(folder / "sky.png"), "--out", str(folder / "report")]
        )
    return folder / "report"


@pytest.fixture(scope="module")
def report(report_folder):
    return json.loads((report_folder / "report.json").read_text())


def test_a_right_mapping_on_another_canvas_scores_as_right(report):
    atlas = report["atlas"]
    assert atlas["uv_error_px"]["sky"]["p95"] < 0.01
    assert atlas["uv_error_px"]["foreground"]["p95"] < 0.01
    assert atlas["edit_psnr_db"] > 45  # rounding to 8 bit and a pixel's mean against its centre
    assert atlas["psnr_db"] > 30  # bilinear textures at one texel a pixel
    assert atlas["psnr_no_shading_db"] == atlas["psnr_db"]
    assert atlas["ssim"] > 0.95
    assert atlas["alpha_iou"] == {"foreground": 1.0, "sky": 1.0}
    assert atlas["drift_px"]["sky"]["median"] < 0.1  # what DIS leaves of itself
    assert set(atlas["psnr_by_layer_db"]) == {"foreground", "sky"}


def test_a_wobbling_mapping_scores_as_wobbling(report):
    """Two frames apart the sky has always slid by 1.5 px; foreground and mattes are right."""
    fast, atlas = report["fast"], report["atlas"]
    assert fast["drift_px"]["sky"]["median"] == pytest.approx(WOBBLE_PX, abs=0.15)  # DIS
    assert fast["drift_px"]["foreground"]["median"] < 0.2
    assert fast["warp_error_by_layer"]["sky"] > 4 * atlas["warp_error_by_layer"]["sky"]
    assert fast["warp_error"] > atlas["warp_error"]
    # the gauge settles between the two places (4 frames here, 2 there), or on one of them
    assert 0.4 < fast["uv_error_px"]["sky"]["p95"] < 1.05 * WOBBLE_PX
    assert fast["uv_error_px"]["foreground"]["p95"] < 0.01
    assert fast["edit_psnr_db"] < atlas["edit_psnr_db"] - 3
    assert fast["kind"] == "sky matte and camera track"


def test_costs_and_names_come_from_where_they_were_measured(report):
    assert report["seconds"]["train"] == 12.5
    assert report["train_seconds_by_stage"] == {"base": 3.0}
    assert report["seconds"]["preprocess"] is None  # this clip was not preprocessed
    assert 0 < report["seconds"]["edit"] < report["seconds"]["evaluate"]
    assert report["peak_memory_mb"] == 1e6  # the fit's, larger than ours
    assert 50 < report["peak_memory_by_stage_mb"]["evaluate"] < 1e5
    assert report["clip"]["frames_measured"] == FRAMES
    assert (report["clip"]["width"], report["clip"]["height"]) == (SIZE.width, SIZE.height)
    assert report["edit"]["kind"] == "sky"
    assert report["run"]["layers"] == ["foreground", "sky"]


def flattened(value, layers, prefix=""):
    """Dotted keys; names of layers become <layer>."""
    if not isinstance(value, dict):
        return {prefix}
    keys = set()
    for key, inner in value.items():
        name = "<layer>" if key in layers else key
        keys |= flattened(inner, layers, f"{prefix}.{name}" if prefix else name)
    return keys


def test_documented_keys_are_the_keys(report):
    text = (ROOT / "docs" / "REPORT.md").read_text().split("\n## Files")[0]
    documented = set()
    for line in text.splitlines():
        found = re.match(r"\| `([^`]+)`", line)
        if found:
            documented.add(found[1])
    documented |= {k.replace("atlas.", "fast.", 1) for k in documented if k.startswith("atlas.")}
    stages = {"train_seconds_by_stage": {"<stage>": 3.0}}
    assert flattened(report | stages, {"foreground", "sky"}) == documented


def test_the_same_keys_are_there_when_nothing_is_measured(opened, report, tmp_path):
    evaluate.main([str(opened / "run"), "--no-fast", "--frames", "1", "--out", str(tmp_path)])
    small = json.loads((tmp_path / "report.json").read_text())
    assert set(small) == set(report)
    assert set(small["fast"]) == set(small["atlas"]) | {"kind"} == set(report["fast"])
    assert small["fast"]["psnr_db"] is None
    assert small["seconds"]["edit_fast"] is None
    assert small["atlas"]["warp_error"] is None  # one frame: nothing to compare it with
    assert small["atlas"]["psnr_db"] > 30
    assert probe(tmp_path / "side_by_side.mp4").frame_count == 1


def test_all_pictures_are_there_and_linked(report_folder):
    page = (report_folder / "report.html").read_text()
    linked = set(re.findall(r"src='([^']+)'", page))
    pictures = {"contact.png", "before_after.png", "atlases.png", "checkerboard.png", "alpha.png"}
    assert linked == pictures | {"side_by_side.mp4"}
    assert "http" not in page
    for name in pictures:
        assert read_rgb(report_folder / name).std() > 5
    video = probe(report_folder / "side_by_side.mp4")
    assert video.frame_count == FRAMES
    assert (video.size.width, video.size.height) == (2 * SIZE.width, SIZE.height)
    assert sorted(p.name for p in report_folder.iterdir()) == sorted(
        linked | {"report.json", "report.html"}
    )


def test_squares_are_painted_where_there_is_no_sky(opened, world, monkeypatch, tmp_path):
    """The same mappings with the bottom layer called background: no sky, base motion instead."""
    _, run = world
    clip_names = ("foreground", "background")
    monkeypatch.setattr(Clip, "layer_names", clip_names)

    class Renamed(FirstFrames):
        def __init__(self, mapping):
            super().__init__(mapping, FRAMES)
            self.layers = tuple(
                Layer(n, x.canvas) for n, x in zip(clip_names, mapping.layers, strict=True)
            )

    renamed = dataclasses.replace(run, mapping=Renamed(run.mapping), base=Renamed(run.base))
    monkeypatch.setattr("atlas.run.open_run", lambda path: renamed)
    evaluate.main([str(run.folder), "--frames", "3", "--out", str(tmp_path)])
    found = json.loads((tmp_path / "report.json").read_text())
    assert found["edit"] == {"kind": "squares", "layer": "foreground", "source": None}
    assert found["fast"]["kind"] == "base motion"
    assert found["fast"]["psnr_db"] > 20


def test_an_interrupted_evaluation_changes_nothing(opened, monkeypatch, tmp_path):
    (tmp_path / "report.json").write_text("earlier")
    calls = []
    original = Measurement.step

    def step(self, t):
        calls.append(t)
        if t == 2:
            raise KeyboardInterrupt
        return original(self, t)

    monkeypatch.setattr(Measurement, "step", step)
    with pytest.raises(KeyboardInterrupt):
        evaluate.main([str(opened / "run"), "--no-fast", "--out", str(tmp_path)])
    assert calls == [0, 1, 2]
    assert [p.name for p in tmp_path.iterdir()] == ["report.json"]
    assert (tmp_path / "report.json").read_text() == "earlier"


def test_files_are_moved_with_the_report_last(tmp_path, monkeypatch):
    (tmp_path / ".partial").mkdir()
    (tmp_path / ".partial" / "left over.png").write_text("x")
    order = []
    original = Path.replace
    monkeypatch.setattr(
        Path, "replace", lambda self, to: (order.append(self.name), original(self, to))[1]
    )
    with staged(tmp_path) as folder:
        assert list(folder.iterdir()) == []
        for name in ("report.json", "z.png", "a.png"):
            (folder / name).write_text(name)
    assert order[-1] == "report.json"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "report.json", "z.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--frames", "0"], "--frames is 0"),
        (["--layer", "sky.png"], r"wanted NAME=RGBA.png"),
        (["--layer", f"sea={__file__}"], "no layer called 'sea'"),
        (["--layer", "sky=x.png"], "--layer sky: x.png not found"),
        (["--sky", "no_such.png"], "no_such.png: not found"),
        (["--clip", "nowhere"], "clip folder nowhere is not there; give its place with --clip"),
    ],
)
def test_bad_options_are_one_line(opened, tmp_path, arguments, message):
    with pytest.raises(InputError, match=message):
        evaluate.main([str(opened / "run"), "--no-fast", "--out", str(tmp_path / "o"), *arguments])
    assert not (tmp_path / "o" / "report.json").exists()


def test_out_must_be_a_folder(opened, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file: is a file; --out wants a folder"):
        evaluate.main([str(opened / "run"), "--out", str(tmp_path / "file")])


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="not a run folder"):
        evaluate.main([str(tmp_path), "--out", str(tmp_path / "o")])


def test_a_clip_of_another_length_is_refused(opened, tmp_path):
    shorter = make_scene(SceneOptions(size=SIZE, frame_count=4))
    other = write_clip(shorter, tmp_path / "other")
    with pytest.raises(InputError, match="has 4 frames, the run was fitted to 6"):
        evaluate.main([str(opened / "run"), "--clip", str(other), "--out", str(tmp_path / "o")])


def test_without_a_fast_path_its_part_is_null(world, monkeypatch, tmp_path, caplog):
    _, run = world
    monkeypatch.setattr("atlas.run.open_run", lambda path: run)
    monkeypatch.setattr(evaluate, "fast_mapping", lambda run, clip: None)
    evaluate.main([str(run.folder), "--frames", "2", "--out", str(tmp_path)])
    assert json.loads((tmp_path / "report.json").read_text())["fast"]["psnr_db"] is None
    assert "left out" in caplog.text
    with pytest.raises(InputError, match="there is no fast path"):
        evaluate.main([str(run.folder), "--fast-only", "--out", str(tmp_path)])


def test_mean_leaves_out_what_was_not_measured():
    mean = Mean()
    assert mean.value is None
    for value in (1.0, float("nan"), 4.0):
        mean.add(value)
    assert mean.value == 2.5


def test_names_cannot_break_the_page(report):
    nasty = json.loads(json.dumps(report))
    nasty["clip"]["name"] = "<script>alert(1)</script>"
    assert "<script" not in report_page(nasty, [], None)
