"""Parallax and masks of near things: exact flow, then a drawn pole before a panning ground."""

import cv2
import numpy as np
import pytest

from atlas.coords import Size, pixel_grid
from preprocess.flow import make_flow
from preprocess.link import iou
from preprocess.masks import MaskOptions, make_masks
from preprocess.near_masks import attached, near_masks, paying
from preprocess.parallax import epipolar_directions, relative_parallax, standing_out
from tests.clip_frames import write_clip
from tests.test_flow import textured
from tests.test_motion_masks import SCENE, disc_scene, shifted

SIZE = Size(height=90, width=150)
PAN = np.array([-2.0, 0.5])
"""How the ground moves in the picture, px per frame."""
PAST = 3.0
"""How much faster the pole goes to the left."""


def pole_mask(t: int, size: Size = SIZE, width: int = 12) -> np.ndarray:
    x = np.arange(size.width)
    left = 0.55 * size.width + (PAN[0] - PAST) * t
    return np.broadcast_to((x >= left) & (x < left + width), (size.height, size.width))


@pytest.mark.parametrize("turn", [99, 4])
def test_a_near_pole_is_ahead_by_its_share_of_the_parallax(turn):
    """Also where the camera turns back: near things then pass the other way."""
    count = 8

    def place(t: int) -> int:
        return t if t <= turn else 2 * turn - t  # where on its way the camera is

    def flow(a: int, b: int) -> np.ndarray:
        way = place(b) - place(a)
        rng = np.random.default_rng(a * 10 + b)
        out = np.broadcast_to(PAN * way, (SIZE.height, SIZE.width, 2)).astype(np.float32)
        out = out + rng.normal(0, 0.05, out.shape).astype(np.float32)
        out[pole_mask(place(a))] -= (PAST * way, 0)
        return out

    covered = [np.zeros((SIZE.height, SIZE.width), bool)] * count
    found, unit_px = relative_parallax(flow, covered, SIZE)
    for t in range(count):
        inside = cv2.erode(pole_mask(place(t)).astype(np.uint8), np.ones((1, 7))) > 0
        ahead_px = standing_out(found[t], 0.33) * min(unit_px, 8 * unit_px)
        # the pole is 3 px a frame ahead, or as much as 8 units where the scene has no parallax
        assert np.median(found[t][inside]) == pytest.approx(min(PAST / unit_px, 8.0), rel=0.1)
        assert np.median(np.abs(ahead_px[~pole_mask(place(t))])) < 0.1


@pytest.mark.parametrize("epipole", [(40.0, 70.0), (-300.0, 30.0), (1e7, 0.0)])
def test_residual_motion_points_to_the_epipole(epipole):
    toward = np.array(epipole) - pixel_grid(SIZE)
    toward /= np.linalg.norm(toward, axis=-1, keepdims=True) + 1e-9
    rng = np.random.default_rng(3)
    residual = toward * rng.uniform(-2, 2, (*toward.shape[:2], 1))
    residual[rng.random(residual.shape[:2]) < 0.1] = (0.3, 2.0)  # things that move by themselves
    axis = epipolar_directions(residual, np.ones(residual.shape[:2], bool))
    assert axis is not None
    far = np.linalg.norm(np.array(epipole) - pixel_grid(SIZE), axis=-1) > 10
    assert np.median(np.abs((axis * toward).sum(-1))[far]) > 0.999


def test_still_pictures_have_no_epipole():
    still = np.zeros((SIZE.height, SIZE.width, 2))
    assert epipolar_directions(still, np.ones(still.shape[:2], bool)) is None


def pole_scene(folder, count=8):
    """A textured pole that passes a textured ground, as (clip, masks)."""
    large = Size(SCENE.height + 80, SCENE.width + 80)
    ground, paint = textured(large, 1), textured(large, 2)
    frames = []
    for t in range(count):
        frame = shifted(ground, tuple(PAN * t))
        inside = pole_mask(t, SCENE, 24)
        frame[inside] = shifted(paint, (float((PAN[0] - PAST) * t), 0.5 * t))[inside]
        frames.append(frame)
    clip = write_clip(folder, frames)
    make_flow(clip, "dis")
    return clip


def test_a_pole_gets_a_layer_of_its_own(tmp_path):
    clip = pole_scene(tmp_path / "pole")
    empty = tmp_path / "nothing"
    empty.mkdir()
    for t in range(clip.frame_count):
        cv2.imwrite(str(empty / f"{t:05d}.png"), np.zeros((SCENE.height, SCENE.width), np.uint8))
    layers = make_masks(clip, [str(empty)], MaskOptions(near=True))
    assert [layer.name for layer in layers] == ["foreground", "near", "background"]
    clip.info.layers[:] = layers
    for t in range(clip.frame_count):
        # DIS smears motion edges by some 3 px on each side of a pole 24 px wide
        assert iou(clip.mask(1, t) > 0.5, pole_mask(t, SCENE, 24)) >= 0.75, t
    assert clip.without("near").layer_names == ("foreground", "background")
    assert [layer.name for layer in make_masks(clip, [str(empty)])] == ["foreground", "background"]


def test_a_pan_over_one_plane_has_nothing_near(tmp_path):
    clip = disc_scene(tmp_path / "pan", count=6, with_disc=False)
    nothing = np.zeros((SCENE.height, SCENE.width), np.float32)
    assert near_masks(clip, lambda _: nothing, must_pay=True) is None
    masks = near_masks(clip, lambda _: nothing, must_pay=False)
    assert masks is not None
    assert not any(mask.any() for mask in masks)
    assert not clip.sibling("near").exists()


def test_what_clings_to_an_object_is_told_from_what_passes_it():
    masks, taken = [], []
    for t in range(10):
        near, own = np.zeros((60, 100), np.uint8), np.zeros((60, 100), np.float32)
        own[20:40, 30:50] = 1
        near[40:50, 30:50] = 255  # a shadow under the object: 200 px
        near[:, 95 - 3 * t : 97 - 3 * t] = 255  # a pole of 120 px, far from it till frame 8
        masks.append(near)
        taken.append(own)
    # the pole is within 12 px of the object in frames 11 and later, of which there are none
    assert attached(masks, lambda t: taken[t]) == pytest.approx(200 / 320)


def test_only_things_that_tell_the_picture_better_are_kept():
    """A pole is really ahead of the ground; beside it the flow of bare ground is wrong."""
    ground, paint = (textured(Size(SIZE.height, SIZE.width + 200), seed) for seed in (1, 2))
    ground[:, 15:140] = 90  # bare: no picture says how it moves

    def picture(t: int) -> np.ndarray:
        shown = ground[:, 20 + 2 * t : 20 + 2 * t + SIZE.width].copy()
        inside = pole_mask(t)
        shown[inside] = paint[:, 20 + 5 * t : 20 + 5 * t + SIZE.width][inside]
        return shown

    def drag(t: int) -> np.ndarray:
        mask = np.zeros((SIZE.height, SIZE.width), bool)
        mask[30:60, 28 - 2 * t : 48 - 2 * t] = True
        return mask

    def flow(a: int, b: int) -> np.ndarray:
        out = np.zeros((SIZE.height, SIZE.width, 2), np.float32)
        out[..., 0] = PAN[0] * (b - a)
        out[pole_mask(a) | drag(a), 0] -= PAST * (b - a)
        return out

    masks = [np.where(pole_mask(t) | drag(t), 255, 0).astype(np.uint8) for t in range(10)]
    kept = paying(picture, flow, masks, lambda _: np.zeros((SIZE.height, SIZE.width), np.float32))
    for t, mask in enumerate(kept):
        np.testing.assert_array_equal(mask > 0, pole_mask(t), str(t))
