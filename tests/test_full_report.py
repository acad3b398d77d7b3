"""evaluate.py --full: its pictures and videos against what the exact scene says they must be."""

import csv

import cv2
import numpy as np
import pytest

import evaluate
from atlas.clip import Clip, read_rgb
from atlas.coords import Size, apply_homography
from atlas.full_report import (
    agreement,
    flow_loss_px,
    flow_picture,
    heat,
    neighbour_flow,
    residual_picture,
    rigidity_picture,
    uv_picture,
)
from atlas.mapping import FrameMapping
from atlas.metrics import HeldOutFlow, psnr_db
from atlas.run import Run, RunInfo, clip_hash
from atlas.texture import Texture
from atlas.video import open_source
from tests.scene_presets import SceneOptions, make_scene
from tests.synthetic import write_clip

SIZE, FRAMES = Size(height=48, width=70), 3


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """(folder of the full report, clip, exact mapping, textures)."""
    folder = tmp_path_factory.mktemp("full")
    scene = make_scene(SceneOptions(size=SIZE, frame_count=FRAMES))
    clip = Clip(write_clip(scene, folder / "pan"))
    mapping = scene.mapping()
    ones = [np.ones(layer.texture.shape[:2], np.float32) for layer in scene.layers]
    textures = [
        Texture(np.ascontiguousarray(layer.texture[..., :3]).astype(np.float32), one)
        for layer, one in zip(scene.layers, ones, strict=True)
    ]
    info = RunInfo(
        kind="layered",
        clip_folder=str(clip.folder),
        clip_sha256=clip_hash(clip),
        frame_count=FRAMES,
        width=SIZE.width,
        height=SIZE.height,
        layers=[],
    )
    (folder / "run").mkdir()
    run = Run(folder / "run", info, mapping, textures)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("atlas.run.open_run", lambda path: run)
        evaluate.main([str(run.folder), "--no-fast", "--full", "--out", str(folder / "report")])
    return folder / "report/full", clip, mapping, textures


def frames_of(path):
    return list(open_source(path).frames())


def test_every_file_is_there_and_on_the_page(full):
    folder = full[0]
    per_layer = ("layer", "uv", "alpha", "checkerboard", "rigidity_loss")
    videos = {f"{kind}_{name}" for kind in per_layer for name in ("foreground", "sky")}
    videos |= {f"uv_{n}_masked" for n in ("foreground", "sky")}
    videos |= {f"alpha_{n}_and_mask" for n in ("foreground", "sky")}
    videos |= {"input", "reconstruction", "residual", "edited", "paint_sky", "flow", "flow_loss"}
    assert {p.stem for p in folder.glob("*.mp4")} == videos
    pictures = {f"atlas_{n}{kind}" for n in ("foreground", "sky") for kind in ("", "_seen")}
    assert {p.stem for p in folder.glob("*.png")} == pictures | {"atlas_sky_edited"}
    page = (folder.parent / "report.html").read_text()
    assert all(f"full/{path.name}" in page for path in folder.iterdir())
    for name in videos:
        assert open_source(folder / f"{name}.mp4").info.frame_count == FRAMES


def test_the_videos_hold_what_they_are_called(full):
    folder, clip, mapping, textures = full
    for t in range(FRAMES):
        found = mapping.frame(t)
        wanted = np.repeat(found.visible()[0][..., None], 3, 2)
        close = [("input", clip.frame(t) / 255.0), ("alpha_foreground", wanted)]
        close += [("uv_sky", uv_picture(found.uv[1], mapping.layers[1].canvas) / 255.0)]
        for name, picture in close:
            video = frames_of(folder / f"{name}.mp4")[t] / 255.0
            assert psnr_db(video, picture.astype(np.float32)) > 30, name  # x264, 4:2:0
        both = frames_of(folder / "alpha_foreground_and_mask.mp4")[t].astype(int)
        assert np.abs(both[..., 0] - both[..., 2]).mean() < 4  # the matte is the mask: grey
    board = frames_of(folder / "checkerboard_sky.mp4")[0]
    share = mapping.frame(0).visible()
    foreground = share[0] > 0.99
    assert np.abs(board.astype(int) - clip.frame(0))[foreground].mean() < 6  # untouched there
    assert np.abs(board.astype(int) - clip.frame(0))[share[1] > 0.99].mean() > 20
    atlas = read_rgb(folder / "atlas_sky.png") / 255.0
    assert np.abs(atlas - textures[1].rgb.clip(0, 1)).max() <= 0.51 / 255
    assert cv2.imread(str(folder / "atlas_sky_seen.png"), cv2.IMREAD_UNCHANGED).shape[2] == 4


def test_the_table_has_a_row_a_frame_and_their_mean(full):
    rows = list(csv.DictReader((full[0] / "psnr.csv").open()))
    assert [row["frame"] for row in rows] == ["0", "1", "2", "mean"]
    values = [float(row["psnr_db"]) for row in rows]
    assert values[3] == pytest.approx(np.mean(values[:3]), abs=1e-3)
    assert min(values) > 25


def grid(size):
    y, x = np.mgrid[: size.height, : size.width].astype(np.float32)
    return np.stack([x, y], axis=-1)


def test_flow_loss_is_the_distance_along_the_flow_in_pixels():
    """Everything moves by (2, 1) px; the mapping of the second frame is off by 1.5 px to the
    right, on a canvas of three texels a pixel."""
    size = Size(20, 30)
    uv = 3 * grid(size)
    ones = np.ones((1, size.height, size.width), np.float32)
    first = FrameMapping(uv[None], ones, np.ones(1, np.float32))
    second = FrameMapping((uv - 3 * np.float32([2 - 1.5, 1]))[None], ones, np.ones(1, np.float32))
    flow = np.tile(np.float32([2, 1]), (size.height, size.width, 1))
    trusted = np.zeros((size.height, size.width), bool)
    trusted[3:12, 4:20] = True
    loss = flow_loss_px(first, second, HeldOutFlow(flow, trusted))
    assert np.allclose(loss[trusted], 1.5, atol=1e-4)
    assert (loss[~trusted] == 0).all()
    half = FrameMapping(first.uv.repeat(2, 0), np.stack([ones[0] / 2, ones[0]]), first.confidence)
    other = FrameMapping(
        np.stack([second.uv[0], uv - 3 * np.float32([2, 1])]), half.alpha, first.confidence
    )
    loss = flow_loss_px(half, other, HeldOutFlow(flow, trusted))
    assert np.allclose(loss[trusted], 0.75, atol=1e-4)  # the layer below is right


def test_rigidity_is_black_for_a_turn_and_bright_for_a_stretch():
    size, ones = Size(12, 16), np.ones((12, 16), np.float32)
    turn = np.float32([[0, -2, 9], [2, 0, 4], [0, 0, 1]])
    turned = apply_homography(turn, grid(size)).astype(np.float32)
    assert (rigidity_picture(turned, ones, 2.0) == heat(np.zeros((12, 16)))).all()
    stretched = grid(size) * np.float32([4, 1])
    # J^T J = diag(16, 1): (sqrt(257) + sqrt(1/256 + 1)) over 2 sqrt(2) is 2^2.6
    wanted = heat(np.full((12, 16), np.log2((257**0.5 + (1 + 1 / 256) ** 0.5) / 8**0.5) / 3))
    assert np.abs(rigidity_picture(stretched, ones, 1.0).astype(int) - wanted).max() <= 2


def test_residual_flow_and_agreement_by_hand():
    rgb, off = np.full((4, 6, 3), 100, np.uint8), np.full((4, 6, 3), 90, np.uint8)
    assert (residual_picture(rgb, off) == 147).all()
    assert (residual_picture(rgb, rgb) == 127).all()
    matte, mask = np.float32([[1, 1, 0]]), np.float32([[1, 0, 1]])
    assert agreement(matte, mask).tolist() == [[[255] * 3, [255, 0, 0], [0, 255, 255]]]
    flow = np.tile(np.float32([5, 0]), (4, 6, 1))
    trusted = np.zeros((4, 6), bool)
    trusted[1, 2] = True
    shown = flow_picture(HeldOutFlow(flow, trusted))
    assert shown[1, 2].tolist() == [255, 0, 0]
    assert shown[~trusted].sum() == 0


def test_flow_is_the_clip_s_own_where_it_has_some(full, monkeypatch):
    clip = full[1]
    motion = neighbour_flow(clip, 0)
    assert (motion.flow == clip.flow(0, 1)).all()
    monkeypatch.setattr(Clip, "flow_path", lambda self, a, b: self.folder / "none.npy")
    measured = neighbour_flow(clip, 0)
    assert measured.trusted.any()
    assert (measured.flow != motion.flow).any()
