"""Rough masks end where the picture's edge is, once both sides are known."""

import cv2
import numpy as np
import pytest

from atlas.mapping import FrameMapping
from atlas.metrics import mask_iou
from atlas.opacity import (
    REACH_PX,
    SOFTNESS_PX,
    refine_opacity,
    signed_distance,
    softened,
    softness_errors,
)
from atlas.texture import Texture

SHAPE = (120, 160)
ELLIPSE = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (11, 11))


def noise(seed, mean):
    rng = np.random.default_rng(seed)
    out = cv2.GaussianBlur(rng.random((*SHAPE, 3)).astype(np.float32), (0, 0), 3)
    return np.clip((out - out.mean()) * 2 + np.float32(mean), 0, 1)


@pytest.fixture(scope="module")
def scene():
    """Truth, frame, textures and maps of an ellipse before a background, all exact."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]].astype(np.float32)
    radius = np.hypot((x - 80) / 1.4, y - 58)
    truth = np.clip(40 - radius + 0.5, 0, 1).astype(np.float32)
    front, behind = noise(1, (0.6, 0.5, 0.3)), noise(2, (0.3, 0.45, 0.5))
    frame = truth[..., None] * front + (1 - truth[..., None]) * behind
    rgb = np.rint(frame * 255).astype(np.uint8)
    ones = np.ones(SHAPE, np.float32)
    uv = np.stack([np.stack([x, y], -1)] * 2)
    return truth, rgb, [Texture(front, ones), Texture(behind, ones)], uv


def refined(scene, mask, keep=1):
    _, rgb, textures, uv = scene
    alpha = np.stack([mask, np.ones(SHAPE, np.float32)])
    found = FrameMapping(uv, alpha, np.ones(2, np.float32))
    return refine_opacity(rgb, found, textures, None, keep)[0]


@pytest.mark.parametrize(
    "make",
    [
        lambda m: cv2.dilate(m, ELLIPSE),
        lambda m: cv2.erode(m, ELLIPSE),
        lambda m: np.roll(m, 5, axis=1),
        lambda m: np.roll(m, (-3, 4), axis=(0, 1)),
    ],
    ids=["too large", "too small", "5 px beside", "askew"],
)
def test_a_mask_5_px_off_is_moved_to_the_edge(scene, make):
    truth = scene[0]
    rough = make(truth)
    found = refined(scene, rough)
    assert mask_iou(rough, truth) < 0.93
    assert mask_iou(found, truth) > 0.975
    assert np.abs(found - truth).mean() < 0.25 * np.abs(rough - truth).mean()


def test_an_exact_mask_stays(scene):
    found = refined(scene, scene[0])
    assert np.abs(found - scene[0]).mean() < 0.001


def test_where_both_sides_look_alike_the_mask_decides(scene):
    truth, _, (_, behind), uv = scene
    rgb = np.rint(behind.rgb * 255).astype(np.uint8)
    rough = np.roll(truth, 5, axis=1)
    found = refined((truth, rgb, [behind, behind], uv), rough)
    assert np.array_equal(found, rough)


def test_the_lowest_layers_can_be_kept(scene):
    rough = np.roll(scene[0], 5, axis=1)
    assert np.array_equal(refined(scene, rough, keep=2), rough)


def test_nothing_changes_far_from_the_edge(scene):
    truth = scene[0]
    found = refined(scene, cv2.dilate(truth, ELLIPSE))
    far = np.abs(signed_distance((truth > 0.5).astype(np.uint8))) > 2 * REACH_PX
    assert np.array_equal(found[far], truth[far])


@pytest.mark.parametrize("mask", [np.zeros(SHAPE, np.float32), np.ones(SHAPE, np.float32)])
def test_a_layer_without_an_edge_stays(scene, mask):
    assert np.array_equal(refined(scene, mask), mask)


def test_distance_to_the_edge_has_its_sign():
    inside = np.zeros((9, 20), np.uint8)
    inside[:, 10:] = 1
    row = signed_distance(inside)[4]
    assert row[10] == pytest.approx(0.5, abs=0.1)
    assert row[9] == pytest.approx(-0.5, abs=0.1)
    assert row[15] == pytest.approx(5.5, abs=0.3)


@pytest.mark.parametrize("sigma_px", [0.0, 0.5, 0.8, 1.2])
def test_edges_are_found_as_soft_as_the_picture_has_them(scene, sigma_px):
    truth, _, textures, uv = scene
    hard = (truth > 0.5).astype(np.float32)
    mattes = np.stack([hard, np.ones(SHAPE, np.float32)])
    alpha = softened(mattes, sigma_px, 1)[0]
    frame = alpha[..., None] * textures[0].rgb + (1 - alpha[..., None]) * textures[1].rgb
    found = FrameMapping(uv, mattes, np.ones(2, np.float32))
    errors = softness_errors(np.rint(frame * 255).astype(np.uint8), found, textures, None, 1)
    assert SOFTNESS_PX[int(errors.argmin())] == sigma_px
    np.testing.assert_array_equal(softened(mattes, 1.2, 1)[1], 1)
    np.testing.assert_array_equal(softened(mattes, 1.2, 2), mattes)
