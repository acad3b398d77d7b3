"""Parts of the dense alignment against motion that is known."""

import cv2
import numpy as np
import pytest
import torch

from atlas.align import LayerAligner
from atlas.boxes import SMALLEST_PX, Box, LayerBoxes, box_about
from atlas.config import AlignConfig
from atlas.coords import Size, pixel_grid
from atlas.layered import LayerMotion, lattice_shape
from atlas.splat import SplatSum, splat_adjoint

SIZE = Size(96, 144)


def motion_of(frames=2, stride_px=8, size=SIZE):
    residual = np.zeros((frames, *lattice_shape(size, stride_px), 2), np.float32)
    matrices = np.tile(np.eye(3), (frames, 1, 1))
    return LayerMotion("all", size, matrices, residual, stride_px, np.ones(frames, np.float32))


class Store:
    """Frames and shares given as arrays; no flow."""

    def __init__(self, frames, shares):
        self.frames, self.shares = frames, shares
        self.size, self.frame_count = Size(*frames[0].shape[:2]), len(frames)
        self.half = self

    def frame(self, t):
        return self.frames[t]

    def grey(self, t):
        return cv2.cvtColor(self.frames[t], cv2.COLOR_RGB2GRAY)

    def share(self, layer, t):
        return self.shares[t]


def smooth_picture(seed=0):
    rng = np.random.default_rng(seed)
    noise = cv2.GaussianBlur(rng.random((SIZE.height + 40, SIZE.width + 40, 3)), (0, 0), 2.5)
    noise = (noise - noise.min()) / np.ptp(noise)
    return (0.1 + 0.8 * noise).astype(np.float32)


def seen_through(picture, shift):
    """The picture's middle as seen when every pixel shows what lies `shift` px further on."""
    at = pixel_grid(SIZE) + 20 + np.float32(shift)
    return cv2.remap(picture, at.astype(np.float32), None, cv2.INTER_CUBIC)


@pytest.mark.parametrize("gain", [1.0, 0.8])
@pytest.mark.parametrize("stride_px", [4, 8])
def test_a_step_by_gradients_finds_a_shift_whatever_the_light(gain, stride_px):
    picture, shift = smooth_picture(), (0.6, -0.35)
    frame = np.rint(seen_through(picture, shift) * gain * 255).astype(np.uint8)
    share = np.zeros(SIZE.wh[::-1], np.float32)
    share[16:80, 24:120] = 1
    store = Store([frame, frame], [share, share])
    aligner = LayerAligner(store, 0, motion_of(stride_px=stride_px), AlignConfig())
    aligner._boxes, aligner._canvas = LayerBoxes(store, 0, SIZE, 12), SIZE
    aligner._texture = seen_through(picture, (0, 0))
    change = aligner._by_gradients(0, aligner._boxes[0], 6.0)
    inner = change[32 // stride_px : 64 // stride_px, 40 // stride_px : 104 // stride_px]
    # one linear step, 8-bit frames; nothing at all would be 0.6 off
    assert np.abs(inner - np.float32(shift)).max() < 0.12
    assert np.abs(inner - np.float32(shift)).mean() < 0.04
    assert np.abs(change[0, 0]).max() < 0.01  # far from the layer nothing moves


def test_positions_agree_with_whole_frames():
    motion = motion_of(1)
    rng = np.random.default_rng(1)
    motion.residual[:] = rng.normal(size=motion.residual.shape)
    motion.matrices[0] = [[1.1, 0.02, 3], [-0.03, 0.95, 5], [1e-4, -2e-4, 1]]
    whole = motion.uv(0, SIZE)
    cut = (slice(10, 60), slice(33, 90))
    part = motion.uv_at(0, np.ascontiguousarray(pixel_grid(SIZE)[cut]))
    assert np.abs(part - whole[cut]).max() < 0.05  # OpenCV rounds lattice positions to 1/32


def test_positions_behind_infinity_are_nan():
    motion = motion_of(1)
    motion.matrices[0, 2] = [-0.01, 0, 1]  # w = 0 at x = 100
    uv = motion.uv_at(0, pixel_grid(SIZE))
    assert np.isnan(uv[:, 101:]).all()
    assert np.isfinite(uv[:, :99]).all()


def test_boxes_hold_the_layer_and_its_margin():
    where = np.zeros((200, 300), bool)
    where[50:150, 100:201] = True
    assert box_about(where, 10) == Box(40, 90, 160, 211)
    assert box_about(np.zeros((200, 300), bool), 10) is None
    small = np.zeros((200, 300), bool)
    small[199, 0] = True
    box = box_about(small, 3)
    assert box.bottom - box.top == box.right - box.left == SMALLEST_PX
    assert small[box.cut].any()
    tiny = box_about(np.ones((20, 30), bool), 5)
    assert tiny == Box(0, 0, 20, 30)


def test_a_splat_reaches_as_far_as_the_adjoint_of_sampling():
    torch.manual_seed(0)
    canvas = Size(50, 70)
    values, weight = torch.rand(3, 12, 17), torch.rand(12, 17)
    uv = torch.rand(12, 17, 2) * torch.tensor([30.0, 20.0]) + torch.tensor([45.0, -8.0])
    total = SplatSum(canvas)
    total.add(values, weight, uv)  # partly off the canvas on two sides
    wanted = splat_adjoint(torch.cat([values * weight, weight[None]]), uv, canvas)
    assert torch.allclose(total.sums, wanted, atol=1e-4)
    assert float(wanted.abs().sum()) > 1
    total.add(values, weight, uv + 100)  # all off
    assert torch.allclose(total.sums, wanted, atol=1e-4)
