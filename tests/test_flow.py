"""Optical flow on known motion; resizing, consistency, and the flow folder's resume rules."""

import logging

import cv2
import numpy as np
import pytest

from atlas.clip import Clip, ClipInfo, LayerInfo, write_info, write_rgb
from atlas.coords import Size, apply_homography, pixel_grid
from atlas.errors import InputError
from preprocess import flow as flow_module
from preprocess.flow import (
    DisFlow,
    consistency,
    flow_between,
    make_flow,
    open_method,
    resize_flow,
    warp_backward,
)

SIZE = Size(height=120, width=176)
CLIP_SIZE = Size(height=48, width=80)


def textured(size: Size, seed: int = 0) -> np.ndarray:
    """(H, W, 3) uint8: noise with detail at several scales, so that flow is well defined."""
    rng = np.random.default_rng(seed)
    total = np.zeros((size.height, size.width, 3), np.float32)
    for sigma in (1.5, 4, 12):
        layer = rng.standard_normal((size.height, size.width, 3)).astype(np.float32)
        total += cv2.GaussianBlur(layer, (0, 0), sigma) * sigma
    total = (total - total.min()) / (total.max() - total.min())
    return (total * 255).astype(np.uint8)


def moved_pair(matrix: np.ndarray, size: Size = SIZE) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Picture a, picture b = a moved by `matrix` (a's pixels to b's), and the exact flow a -> b."""
    margin = 40
    big = Size(size.height + 2 * margin, size.width + 2 * margin)
    source = textured(big)
    shift = np.array([[1, 0, margin], [0, 1, margin], [0, 0, 1.0]])
    big_matrix = shift @ matrix @ np.linalg.inv(shift)
    moved = cv2.warpPerspective(source, big_matrix, big.wh, flags=cv2.INTER_CUBIC)
    inner = (slice(margin, -margin), slice(margin, -margin))
    grid = pixel_grid(size).astype(np.float64)
    return source[inner], moved[inner], apply_homography(matrix, grid) - grid


def about_centre(matrix: np.ndarray, size: Size = SIZE) -> np.ndarray:
    centre = np.array([[1, 0, size.width / 2], [0, 1, size.height / 2], [0, 0, 1.0]])
    return centre @ matrix @ np.linalg.inv(centre)


def translation(x: float, y: float) -> np.ndarray:
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1.0]])


def rotation(angle_deg: float) -> np.ndarray:
    c, s = np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))
    return about_centre(np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]]))


def zoom(scale: float) -> np.ndarray:
    return about_centre(np.diag([scale, scale, 1.0]))


@pytest.mark.parametrize(
    "matrix",
    [translation(5.5, -2.25), translation(-1.3, 7.0), rotation(3.0), zoom(1.05)],
    ids=["right-up", "left-down", "rotation", "zoom"],
)
def test_dis_finds_known_motion(matrix):
    a, b, truth = moved_pair(matrix)
    inner = (slice(12, -12), slice(12, -12))  # what leaves the picture has no match
    error_px = np.linalg.norm(flow_between(a, b) - truth, axis=-1)[inner]
    # DIS reaches about 0.1 px on clean texture; a swapped axis or sign is off by 2 px or more
    assert error_px.mean() < 0.2
    assert np.percentile(error_px, 95) < 0.5


def test_dis_works_on_pictures_smaller_than_its_patches():
    a, b, _ = moved_pair(translation(1, 0), Size(height=9, width=5))
    found = flow_between(a, b)
    assert found.shape == (9, 5, 2)
    assert np.isfinite(found).all()


def test_flow_of_a_picture_to_itself_is_zero():
    a = textured(SIZE)
    assert np.abs(flow_between(a, a)).max() < 0.05  # px: DIS's own rounding


def test_pictures_of_different_size_are_refused():
    with pytest.raises(ValueError, match="one shape"):
        DisFlow().flow(textured(SIZE), textured(Size(64, 64)))


def test_resize_scales_x_by_width_and_y_by_height():
    flow = np.full((40, 60, 2), (3.0, 5.0), np.float32)
    wide = resize_flow(flow, Size(height=20, width=180))  # x tripled, y halved
    assert wide.shape == (20, 180, 2)
    np.testing.assert_allclose(wide, np.broadcast_to((9.0, 2.5), wide.shape), rtol=1e-6)


def test_resized_flow_is_the_flow_of_resized_pictures():
    small = Size(height=90, width=88)  # x halved, y times 0.75
    a, b, truth = moved_pair(rotation(2.5))
    a_small, b_small = (cv2.resize(x, small.wh, interpolation=cv2.INTER_AREA) for x in (a, b))
    grid = pixel_grid(SIZE, view=small)
    where = cv2.remap(truth.astype(np.float32), grid, None, cv2.INTER_LINEAR)
    exact = where * np.array([88 / 176, 90 / 120])
    np.testing.assert_allclose(resize_flow(truth, small), exact, atol=0.02)
    found = flow_between(a_small, b_small)
    error_px = np.linalg.norm(found - exact, axis=-1)[10:-10, 10:-10]
    assert error_px.mean() < 0.25  # less texture than at full size


def test_consistency_marks_what_is_hidden():
    """A square moves over a still ground: the strip it covers next has no way back."""
    size = Size(height=64, width=96)
    fwd, bwd = np.zeros((2, 64, 96, 2), np.float32)
    fwd[20:40, 30:50] = (8, 0)
    bwd[20:40, 38:58] = (-8, 0)
    good = consistency(fwd, bwd, max_px=1.0)
    assert good[20:40, 30:50].all()  # the square itself
    hidden = np.zeros((size.height, size.width), bool)
    hidden[20:40, 50:58] = True
    assert not good[hidden].any()
    assert good[~hidden].all()


def test_consistency_refuses_what_leaves_the_picture():
    fwd = np.full((6, 10, 2), (4.0, 0.0), np.float32)
    good = consistency(fwd, -fwd, max_px=5)  # so wide that the cycle error alone lets all through
    assert good[:, :6].all()
    assert not good[:, 6:].any()


def test_warp_backward_is_pinned():
    ramp = np.add.outer(10 * np.arange(6), np.arange(8)).astype(np.float32)
    flow = np.full((6, 8, 2), (2, 1), np.float32)
    out = warp_backward(ramp, flow, outside=-1)
    np.testing.assert_allclose(out[:5, :6], ramp[1:, 2:])
    assert (out[5] == -1).all()


# --- the flow folder ------------------------------------------------------------------------


def make_clip(folder, count: int = 4, size: Size = CLIP_SIZE) -> Clip:
    folder.mkdir(parents=True)
    for t in range(count):
        frame = moved_pair(translation(2.0 * t, -1.0 * t), size)[1]
        write_rgb(folder / f"{t:05d}.png", frame)
    info = ClipInfo(
        width=size.width,
        height=size.height,
        frame_count=count,
        fps=25,
        frame_times_s=[t / 25 for t in range(count)],
        layers=[LayerInfo(name="background")],
    )
    write_info(folder, info)
    return Clip(folder)


def stamps(clip: Clip) -> dict[str, int]:
    return {p.name: p.stat().st_mtime_ns for p in clip.sibling("flow").glob("*.npy")}


def test_make_flow_writes_both_directions(tmp_path):
    clip = make_clip(tmp_path / "walk")
    description = make_flow(clip, "dis")
    assert description.startswith("dis (OpenCV")
    assert len(stamps(clip)) == 6
    for t in range(3):
        middle = (slice(12, -12), slice(12, -12))
        forward, backward = clip.flow(t, t + 1)[middle], clip.flow(t + 1, t)[middle]
        assert forward.mean(axis=(0, 1)) == pytest.approx([2, -1], abs=0.2)
        assert backward.mean(axis=(0, 1)) == pytest.approx([-2, 1], abs=0.2)
    assert list(clip.sibling("flow").glob("*.tmp")) == []


def test_make_flow_keeps_whole_files_and_mends_broken_ones(tmp_path):
    clip = make_clip(tmp_path / "walk")
    make_flow(clip, "dis")
    before = stamps(clip)
    broken, wrong_shape = clip.flow_path(1, 2), clip.flow_path(3, 2)
    good = broken.read_bytes()
    broken.write_bytes(good[: len(good) // 2])
    np.save(wrong_shape, np.zeros((3, 4, 2), np.float32))
    make_flow(clip, "dis")
    after = stamps(clip)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {broken.name, wrong_shape.name}
    assert broken.read_bytes() == good


def test_make_flow_redoes_what_changed_frames_touch(tmp_path):
    clip = make_clip(tmp_path / "walk")
    make_flow(clip, "dis")
    before = stamps(clip)
    write_rgb(clip.folder / "00000.png", textured(clip.size, seed=5))
    make_flow(clip, "dis")
    changed = {name for name, stamp in stamps(clip).items() if before[name] != stamp}
    assert changed == {"00000.png_00001.png.npy", "00001.png_00000.png.npy"}


def test_make_flow_redoes_all_after_a_change_of_method(tmp_path, monkeypatch):
    clip = make_clip(tmp_path / "walk")
    make_flow(clip, "dis")
    before = stamps(clip)
    monkeypatch.setattr(flow_module, "open_method", lambda *a: DisFlow(finest_scale=2))
    assert "finest scale 2" in make_flow(clip, "dis")
    after = stamps(clip)
    assert before.keys() == after.keys()
    assert all(before[name] != after[name] for name in before)


def test_make_flow_leaves_other_peoples_flow_alone(tmp_path):
    clip = make_clip(tmp_path / "walk", count=2)
    clip.sibling("flow").mkdir()
    theirs = np.full((48, 80, 2), 7, np.float32)
    np.save(clip.flow_path(0, 1), theirs)
    assert "found" in make_flow(clip, "dis")
    np.testing.assert_array_equal(clip.flow(0, 1), theirs)
    assert clip.flow(1, 0).mean() != 7


def test_one_frame_has_no_flow(tmp_path):
    clip = make_clip(tmp_path / "still", count=1)
    assert make_flow(clip, "dis").startswith("dis")
    assert stamps(clip) == {}


def test_auto_takes_dis_on_a_cpu_and_says_why(caplog):
    with caplog.at_level(logging.INFO):
        assert isinstance(open_method("auto"), DisFlow)
    assert "flow: dis, since RAFT takes" in caplog.text


def test_auto_takes_dis_where_raft_cannot_be_had(caplog, monkeypatch):
    def offline(*_):
        raise InputError("raft_large: cannot fetch https://example.org")

    monkeypatch.setattr(flow_module, "RaftFlow", offline)
    with caplog.at_level(logging.INFO):
        assert isinstance(open_method("auto", device="cuda"), DisFlow)
    assert "cannot fetch" in caplog.text
    with pytest.raises(InputError, match="cannot fetch"):
        open_method("raft")  # asked for by name: no silent other method


def test_unknown_method_is_refused():
    with pytest.raises(InputError, match="wanted one of auto, raft, raft_small, dis"):
        open_method("farneback")
