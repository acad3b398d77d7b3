"""Masks that lie beside the thing: told from exact ones, and brought to the frames' edges."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from atlas.clip import Clip, LayerInfo, write_info, write_rgb
from atlas.coords import Size
from atlas.metrics import mask_iou
from atlas.opacity import REACH_PX
from atlas.pace import Pace
from atlas.rough_masks import (
    edge_contrast,
    edge_strength,
    is_hard,
    is_rough,
    tightened,
    with_tight_masks,
)
from atlas.schedule import TimeBudget
from tests.clip_frames import write_clip
from tests.test_flow import textured

SIZE = Size(height=160, width=240)
COUNT = 4


def thing(t: int) -> np.ndarray:
    """(H, W) uint8, 1 inside an ellipse that moves by 6 px a frame."""
    mask = np.zeros((SIZE.height, SIZE.width), np.uint8)
    cv2.ellipse(mask, (90 + 6 * t, 80), (48, 30), 20, 0, 360, 1, -1)
    return mask


def frame(t: int) -> np.ndarray:
    """The ellipse, rust-coloured, on a bluish ground; both have texture."""
    ground = textured(SIZE, 1) * np.array([0.4, 0.5, 0.7])
    skin = textured(SIZE, 2) * np.array([0.8, 0.4, 0.2])
    rgb = np.where(thing(t)[..., None] > 0, skin, ground)
    return cv2.GaussianBlur(np.round(rgb).astype(np.uint8), (0, 0), 0.6)


def disc(radius_px: int) -> np.ndarray:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius_px + 1,) * 2)


SPOILED = {
    "too large": lambda mask: cv2.dilate(mask, disc(5)),
    "too small": lambda mask: cv2.erode(mask, disc(5)),
    "beside": lambda mask: np.roll(mask, (3, 4), (0, 1)),
}


@pytest.mark.parametrize("how", SPOILED)
def test_a_rough_mask_comes_back_to_the_edge(how):
    exact, rough = thing(0).astype(np.float32), SPOILED[how](thing(0)).astype(np.float32)
    assert mask_iou(rough, exact) < 0.87
    assert mask_iou(tightened(frame(0), rough), exact) > 0.97


def test_the_cut_stays_within_reach():
    rough = cv2.dilate(thing(0), disc(3 * REACH_PX)).astype(np.float32)
    cut = tightened(frame(0), rough)
    inner = cv2.erode(rough, disc(REACH_PX + 2))
    assert (cut >= inner).all()


def test_the_cut_is_the_same_each_time():
    rough = SPOILED["beside"](thing(1)).astype(np.float32)
    cv2.setRNGSeed(5)
    first = tightened(frame(1), rough)
    cv2.setRNGSeed(77)
    np.testing.assert_array_equal(tightened(frame(1), rough), first)


def test_specks_empty_masks_and_whole_frames_stay():
    speck = np.zeros((SIZE.height, SIZE.width), np.float32)
    speck[20:30, 20:30] = 1
    for mask in (speck, 0 * speck, np.ones_like(speck)):
        assert tightened(frame(0), mask) is mask


def test_a_thing_in_the_colours_of_its_ground_is_not_lost():
    rng = np.random.default_rng(0)
    grey = rng.integers(90, 110, (SIZE.height, SIZE.width, 3)).astype(np.uint8)
    mask = thing(0).astype(np.float32)
    assert mask_iou(tightened(grey, mask), mask) > 0.4


def test_edges_are_sharper_under_an_exact_rim():
    edges = edge_strength(frame(0))
    assert edge_contrast(edges, thing(0).astype(np.float32)) > 2
    for spoil in SPOILED.values():
        assert edge_contrast(edges, spoil(thing(0)).astype(np.float32)) < 1.2


def test_a_soft_mask_is_told_from_a_hard_one():
    mask = thing(0).astype(np.float32)
    assert is_hard(mask)
    assert is_hard(cv2.GaussianBlur(mask, (0, 0), 0.5))
    assert not is_hard(cv2.GaussianBlur(mask, (0, 0), 4))


def clip_with(tmp_path, spoil, inverted=False) -> Clip:
    clip = write_clip(tmp_path / "ball", [frame(t) for t in range(COUNT)])
    top = LayerInfo(name="ball", mask_dir="ball_ball", inverted=inverted)
    write_info(clip.folder, replace(clip.info, layers=[top, LayerInfo(name="background")]))
    clip.sibling("ball").mkdir()
    for t in range(COUNT):
        mask = np.rint(255 * spoil(thing(t)).astype(np.float32)).astype(np.uint8)
        write_rgb(clip.sibling("ball") / f"{t:05d}.png", 255 - mask if inverted else mask)
    return Clip(clip.folder)


def no_limit() -> Pace:
    return Pace(TimeBudget(None), lambda: 0.0)


@pytest.mark.parametrize("how", SPOILED)
def test_a_clip_with_rough_masks_gets_better_ones(tmp_path, how):
    clip = clip_with(tmp_path, SPOILED[how])
    better = with_tight_masks(clip, tmp_path / "tight", no_limit())
    for t in range(COUNT):
        exact = thing(t).astype(np.float32)
        assert mask_iou(better.mask(0, t), exact) > 0.97 > mask_iou(clip.mask(0, t), exact)
    part = better.span(2, 4)
    np.testing.assert_array_equal(part.mask(0, 1), better.mask(0, 3))


def test_exact_soft_and_sky_masks_are_kept(tmp_path):
    kept = {
        "exact": (lambda mask: mask, False),
        "soft": (lambda mask: cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 5), False),
        "of a sky": (SPOILED["too large"], True),
    }
    for name, (spoil, inverted) in kept.items():
        clip = clip_with(tmp_path / name, spoil, inverted)
        assert with_tight_masks(clip, tmp_path / name / "tight", no_limit()) is clip, name


def test_work_that_was_done_is_not_done_again(tmp_path, monkeypatch):
    clip = clip_with(tmp_path, SPOILED["too large"])
    with_tight_masks(clip, tmp_path / "tight", no_limit())
    (tmp_path / "tight" / "ball" / "00002.png").write_bytes(b"half written")
    made = []
    monkeypatch.setattr(
        "atlas.rough_masks.tightened", lambda rgb, mask: made.append(1) or tightened(rgb, mask)
    )
    monkeypatch.setattr("atlas.rough_masks.is_rough", lambda clip, layer: True)
    with_tight_masks(clip, tmp_path / "tight", no_limit())
    assert len(made) == 1


def test_without_time_masks_stay(tmp_path):
    clip = clip_with(tmp_path, SPOILED["too large"])
    pace = Pace(TimeBudget(1e-9), lambda: 0.0)
    assert with_tight_masks(clip, tmp_path / "tight", pace) is clip


def test_a_clip_that_never_shows_the_layer_is_not_rough(tmp_path):
    assert not is_rough(clip_with(tmp_path, lambda mask: 0 * mask), 0)
