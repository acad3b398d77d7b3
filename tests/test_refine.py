"""The residual field: it starts where the alignment ended and lowers what the losses measure."""

import dataclasses

import cv2
import numpy as np
import pytest
import torch

from atlas.config import FieldConfig, load_config
from atlas.coords import Size, pixel_grid
from atlas.errors import InputError
from atlas.layered import LayerMotion, lattice_shape
from atlas.refine import FieldFit, Scene
from atlas.texture import sample

SIZE, CANVAS = Size(64, 96), Size(90, 120)
CONFIG = FieldConfig(levels=3, width=24, training_steps=60, learning_rate=0.01)
OFFSET = np.float32([0.8, -0.5])


class Store:
    """Three frames of a picture that moves 2 px a frame, and the exact flow."""

    frame_count, size = 3, SIZE

    def __init__(self, picture):
        at = pixel_grid(SIZE) + 10
        self.frames = [
            np.rint(sample(picture, at + np.float32([2 * t, 0])) * 255).astype(np.uint8)
            for t in range(3)
        ]

    def frame(self, t):
        return self.frames[t]

    def share(self, layer, t):
        return np.ones((SIZE.height, SIZE.width), np.float32)

    def flow(self, source, target):
        flow = np.zeros((SIZE.height, SIZE.width, 2), np.float16)
        flow[..., 0] = -2 * (target - source)
        return flow


def scene():
    """Maps that are off by `OFFSET` everywhere."""
    rng = np.random.default_rng(0)
    picture = cv2.GaussianBlur(rng.random((CANVAS.height, CANVAS.width, 3)), (0, 0), 2)
    picture = ((picture - picture.min()) / np.ptp(picture)).astype(np.float32)
    matrices = np.stack([np.array([[1, 0, 10 + 2 * t], [0, 1, 10], [0, 0, 1.0]]) for t in range(3)])
    residual = np.zeros((3, *lattice_shape(SIZE, 4), 2), np.float32) + OFFSET
    motion = LayerMotion("all", CANVAS, matrices, residual, 4, np.ones(3, np.float32))
    texture = torch.from_numpy(picture).permute(2, 0, 1).contiguous()
    one = np.ones((SIZE.height, SIZE.width, 3), np.float32)
    return Scene(Store(picture), 0, motion, texture, lambda t: one)


def test_it_starts_at_the_aligned_residual():
    found = scene()
    fit = FieldFit(found, CONFIG, load_config(None).loss, seed=0)
    assert np.array_equal(fit.bake(), found.motion.residual)


def test_training_takes_the_maps_home():
    fit = FieldFit(scene(), CONFIG, load_config(None).loss, seed=0)
    values = fit.train(CONFIG.training_steps)
    assert set(values) == {"rgb", "rigidity", "flow"}
    left = np.linalg.norm(fit.bake(), axis=-1)
    assert np.median(left) < 0.4 * np.linalg.norm(OFFSET)


def test_one_seed_gives_one_result():
    def bake(seed):
        fit = FieldFit(scene(), CONFIG, load_config(None).loss, seed=seed)
        fit.train(5)
        return fit.bake()

    assert np.array_equal(bake(1), bake(1))
    assert not np.array_equal(bake(1), bake(2))


def test_a_loss_that_explodes_is_named():
    loss = load_config(None).loss
    loss = dataclasses.replace(loss, rgb=dataclasses.replace(loss.rgb, weight=1e38))
    broken = scene()
    broken = dataclasses.replace(broken, texture=broken.texture * 1e20)
    fit = FieldFit(broken, CONFIG, loss, seed=0)
    with pytest.raises(InputError, match="rgb loss became"):
        fit.train(3)
