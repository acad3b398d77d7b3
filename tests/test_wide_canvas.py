"""Canvases rolled out from a cylinder: exact geometry, and pans past a right angle."""

import dataclasses

import cv2
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from atlas.base_motion import estimate_base_motion, refine_jointly
from atlas.clip import Clip, ClipInfo, LayerInfo, write_info, write_rgb
from atlas.coords import Size, apply_homography, pixel_grid
from atlas.layered import LayerMotion
from atlas.layered_file import read_arrays, read_motions, save_layered
from atlas.matches import Matches
from atlas.motion_model import motion_model
from atlas.panorama import View
from atlas.store import ClipStore
from atlas.texture import Texture
from atlas.wide_canvas import Roll, angles_off, rolled
from atlas.windows import Window, part_of
from preprocess.flow import make_flow

SIZE = Size(90, 120)
FOCAL_PX = 100.0
CAMERA = np.array([[FOCAL_PX, 0, 59.5], [0, FOCAL_PX, 44.5], [0, 0, 1.0]])
MIDDLE = CAMERA[:2, 2]
COUNT = 40


def pan(degrees, axis=(0, 1, 0)):
    """(T, 3, 3) of determinant 1: frames of a turning camera to pixels of the middle frame."""
    turns = Rotation.from_rotvec(np.radians(degrees)[:, None] * np.asarray(axis, float))
    return CAMERA @ turns.as_matrix() @ np.linalg.inv(CAMERA)


@pytest.mark.parametrize("vertical", [False, True])
def test_equal_angles_have_equal_lengths_all_the_way_round(vertical):
    degrees = np.linspace(-250, 250, 51)  # more than a whole turn
    axis = (-1, 0, 0) if vertical else (0, 1, 0)
    matrices, roll = rolled(pan(degrees, axis), CAMERA, MIDDLE)
    assert roll.vertical == vertical
    ends = np.stack([roll.uv(t, np.append(MIDDLE, 1) @ m.T) for t, m in enumerate(matrices)])
    along, beside = ends[:, int(vertical)], ends[:, int(not vertical)]
    assert np.allclose(np.diff(along), np.radians(10) * FOCAL_PX, atol=1e-4)
    assert np.allclose(beside, 0, atol=1e-4)


def test_the_middle_frame_is_upright_and_at_its_own_scale():
    matrices, roll = rolled(pan(np.linspace(-80, 80, 9)), CAMERA, MIDDLE)
    uv = roll.map(4, matrices[4], SIZE)
    across = uv[44:46, 59:61].reshape(4, 2) - uv[44, 59]
    assert np.allclose(across, [[0, 0], [1, 0], [0, 1], [1, 1]], atol=1e-3)


def test_one_direction_is_one_texel_in_every_frame():
    true = pan(np.linspace(-100, 100, 21), axis=(0.1, 0.99, 0.05))
    matrices, roll = rolled(true, CAMERA, MIDDLE)
    points = np.random.default_rng(0).uniform([0, 0], [119, 89], (50, 2))
    for a, b in ((0, 3), (9, 12), (17, 20)):
        there = apply_homography(np.linalg.inv(true[b]) @ true[a], points)
        ok = np.isfinite(there).all(1)
        assert ok.sum() > 20
        rays = [np.column_stack([p[ok], np.ones(ok.sum())]) for p in (points, there)]
        uv_a, uv_b = (roll.uv(t, r @ matrices[t].T) for t, r in zip((a, b), rays, strict=True))
        assert np.abs(uv_a - uv_b).max() < 1e-3


def test_a_map_is_the_exact_positions_at_any_size():
    matrices, roll = rolled(pan(np.linspace(-90, 90, 7)), CAMERA, MIDDLE)
    motion = LayerMotion("a", SIZE, matrices, None, 4, np.ones(7, np.float32), roll)
    for view in (SIZE, Size(45, 60), Size(270, 360)):
        xy = pixel_grid(SIZE, view)
        exact = roll.uv(6, np.dstack([xy, np.ones(xy.shape[:2])]) @ matrices[6].T)
        assert np.abs(motion.uv(6, SIZE, view) - exact).max() < 0.02
        assert np.abs(motion.uv_at(6, xy) - exact).max() < 1e-3


def test_tensors_give_what_arrays_give():
    rays = np.random.default_rng(1).normal(0, 1, (7, 5, 3))
    for vertical in (False, True):
        roll = Roll(90.0, (3.0, -4.0), np.array([0.0, 2.5]), vertical)
        found = roll.tensor(1, torch.from_numpy(rays)).numpy()
        assert np.allclose(found, roll.uv(1, rays), atol=1e-4)


def test_rays_lead_back_to_their_texels():
    uv = np.random.default_rng(2).uniform([-150, -60], [150, 60], (40, 2))
    for vertical in (False, True):
        roll = Roll(90.0, (10.0, 20.0), np.zeros(1), vertical)
        texels = uv[:, ::-1] if vertical else uv
        assert np.allclose(roll.uv(0, roll.rays(texels, (10.0, 20.0))), texels, atol=1e-3)


def test_a_panorama_turns_with_the_canvas():
    size = Size(180, 360)  # a texel of the panorama is a degree
    roll = Roll(FOCAL_PX, (0.0, 0.0), np.zeros(1))
    view = View(FOCAL_PX, (200.0, 50.0), roll=roll)
    right = 200 + np.radians([0, 40, 95, 150]) * FOCAL_PX
    at = view.panorama_positions(np.stack([right, np.full(4, 50.0)], -1)[None], size)
    assert np.allclose(at[0, :, 0], 179.5 + np.array([0, 40, 95, 150]), atol=1e-3)
    assert np.allclose(at[0, :, 1], 89.5, atol=1e-3)


def test_angles_are_told_behind_the_plane_too():
    seen = [pixel_grid(SIZE)[::10, ::10].reshape(-1, 2)] * 3
    edge = np.degrees(np.arctan(59.5 / FOCAL_PX))
    narrow = angles_off(pan(np.array([-5.0, 0, 5])), CAMERA, seen)
    assert narrow == pytest.approx(5 + edge, abs=0.2)
    assert angles_off(pan(np.array([-120.0, 0, 60])), CAMERA, seen) > 120 + edge


def test_refinement_goes_past_a_right_angle():
    true = pan(np.linspace(-110, 110, 23))
    rng = np.random.default_rng(3)
    pairs = []
    for a in range(23):
        for b in range(a + 1, min(a + 4, 23)):
            points = rng.uniform([0, 0], [119, 89], (80, 2))
            ends = apply_homography(np.linalg.inv(true[b]) @ true[a], points)
            ok = np.isfinite(ends).all(1) & (np.abs(ends - 50) < 120).all(1)
            pairs.append(Matches(a, b, points[ok], ends[ok], np.ones(ok.sum())))
    shaken = Rotation.from_rotvec(rng.normal(0, 0.01, (23, 3))).as_matrix()
    start = true @ CAMERA @ shaken @ np.linalg.inv(CAMERA)
    start[11] = true[11]
    kind = motion_model("rotation", SIZE, FOCAL_PX)
    found = refine_jointly(pairs, start, kind, 11)
    for t in (0, 22):  # beyond the plane of the middle frame
        error = apply_homography(np.linalg.inv(found[t]) @ true[t], pixel_grid(SIZE)[::20, ::20])
        assert np.abs(error - pixel_grid(SIZE)[::20, ::20]).max() < 0.05


@pytest.fixture(scope="module")
def turned(tmp_path_factory):
    """A clip folder of a camera that turns by 150 degrees under a sky, with exact flow."""
    rng = np.random.default_rng(4)
    sky = rng.integers(0, 255, (90, 180, 3)).astype(np.float32)
    sky = cv2.GaussianBlur(cv2.resize(sky, (1440, 720)), (0, 0), 2).astype(np.uint8)
    true = pan(np.linspace(-75, 75, COUNT))
    folder = tmp_path_factory.mktemp("turned") / "clip"
    folder.mkdir()
    grid = pixel_grid(SIZE).astype(np.float64)
    for t, matrix in enumerate(true):
        rays = np.dstack([grid, np.ones(grid.shape[:2])]) @ (np.linalg.inv(CAMERA) @ matrix).T
        at = View(FOCAL_PX, (0, 0)).of_rays(*np.moveaxis(rays, -1, 0), Size(720, 1440))
        rgb = cv2.remap(sky, at, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
        write_rgb(folder / f"{t:05d}.png", rgb)
    masks = folder.with_name("clip_sky")
    masks.mkdir()
    for t in range(COUNT):
        write_rgb(masks / f"{t:05d}.png", np.full((90, 120), 255, np.uint8))
    ground = LayerInfo(name="foreground", mask_dir="clip_sky", inverted=True)
    info = ClipInfo(
        width=120,
        height=90,
        frame_count=COUNT,
        fps=24.0,
        frame_times_s=[t / 24 for t in range(COUNT)],
        layers=[ground, LayerInfo(name="sky")],
        shots=[[0, COUNT]],
    )
    write_info(folder, info)
    make_flow(Clip(folder), "dis")
    return ClipStore(Clip(folder)), true


def test_a_pan_past_a_right_angle_is_one_canvas(turned):
    store, true = turned
    motion = estimate_base_motion(store, 1, "rotation", FOCAL_PX)
    assert motion.roll is not None
    wide = np.ptp(motion.roll.turns)
    assert np.degrees(wide) == pytest.approx(150, abs=2)
    edge = np.arctan(59.5 / FOCAL_PX)
    assert motion.canvas.width == pytest.approx((wide + 2 * edge) * FOCAL_PX, abs=40)
    grid = pixel_grid(SIZE)[::10, ::10].reshape(-1, 2).astype(np.float64)
    for a in range(0, COUNT - 2, 4):
        there = apply_homography(np.linalg.inv(true[a + 2]) @ true[a], grid)
        uv = [
            motion.roll.uv(t, np.column_stack([xy, np.ones(len(xy))]) @ motion.matrices[t].T)
            for t, xy in ((a, grid), (a + 2, there))
        ]
        inside = (there >= 0).all(1) & (there <= [119, 89]).all(1)
        assert np.linalg.norm(uv[0] - uv[1], axis=1)[inside].max() < 0.5
        assert uv[0].min() >= 0
        assert (uv[0] < motion.canvas.wh).all()


def test_a_short_pan_keeps_its_plane(turned):
    store, _ = turned
    short = ClipStore(store.clip.span(18, 22))
    motion = estimate_base_motion(short, 1, "rotation", FOCAL_PX)
    assert motion.roll is None
    assert np.allclose(motion.matrices[2][2], [0, 0, 1])


def test_a_roll_lies_in_the_checkpoint(tmp_path):
    matrices, roll = rolled(pan(np.linspace(-90, 90, 5)), CAMERA, MIDDLE)
    roll = dataclasses.replace(roll, origin=(160.0, 50.0))
    motion = LayerMotion("sky", Size(100, 400), matrices, None, 4, np.ones(5, np.float32), roll)
    texture = Texture(np.zeros((100, 400, 3), np.float32), np.ones((100, 400)))
    save_layered(tmp_path, [motion], [texture], None, {})
    path = tmp_path / "checkpoint.safetensors"
    again = read_motions(path, *read_arrays(path))[0]
    assert np.array_equal(again.uv(4, SIZE), motion.uv(4, SIZE))
    part = part_of(motion, Window(3, 5, 0))
    assert np.array_equal(part.uv(1, SIZE), motion.uv(4, SIZE))
