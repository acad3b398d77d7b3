"""Splatting and sampling: adjointness, analytic textures, robustness."""

import numpy as np
import pytest
import torch

from atlas.coords import Size
from atlas.mapping import FrameMapping, Layer, LayerMapping
from atlas.splat import SplatOptions, sample_torch, splat, splat_adjoint
from atlas.texture import Texture, fill_unseen, render, sample


class Shifted(LayerMapping):
    """One layer on a canvas with a margin; frame t lies at (2 t + 0.5, t) texels."""

    def __init__(self, frame_count: int):
        self.layers = (Layer("all", Size(40, 60)),)
        self.frame_count, self.frame_size = frame_count, Size(23, 31)

    def frame(self, t, size=None):
        h, w = self.frame_size.height, self.frame_size.width
        x, y = np.meshgrid(np.arange(w), np.arange(h))
        uv = np.stack([x + 2 * t + 4.5, y + t + 3], -1)[None].astype(np.float32)
        return FrameMapping(uv, np.ones((1, h, w), np.float32), np.ones(1, np.float32))


def smooth_picture(height, width):
    y, x = np.mgrid[:height, :width].astype(np.float32)
    waves = [0.5 + 0.4 * np.sin(x / 5 + y / (7 + k) + k) for k in range(3)]
    return np.stack(waves, -1).astype(np.float32)


def test_splatting_is_the_transpose_of_sampling():
    rng = torch.Generator().manual_seed(3)
    texture = torch.rand(2, 9, 13, generator=rng, dtype=torch.float64)
    values = torch.rand(2, 7, 5, generator=rng, dtype=torch.float64)
    uv = torch.rand(7, 5, 2, generator=rng, dtype=torch.float64) * 16 - 2  # some off the canvas
    there = (sample_torch(texture, uv) * values).sum()
    back = (texture * splat_adjoint(values, uv, Size(9, 13))).sum()
    assert there.item() == pytest.approx(back.item(), rel=1e-12)


def test_a_splat_at_a_known_spot_is_pinned():
    uv = torch.tensor([[[2.25, 1.0]]])
    out = splat_adjoint(torch.ones(1, 1, 1), uv, Size(4, 5))[0]
    expected = torch.zeros(4, 5)
    expected[1, 2], expected[1, 3] = 0.75, 0.25
    torch.testing.assert_close(out, expected)


def test_samples_are_pinned_and_borders_go_on():
    picture = np.arange(12, dtype=np.float32).reshape(3, 4)
    uv = np.array([[[1.5, 1.0], [-3.0, 0.0], [9.0, 2.0], [np.nan, 0.0]]], np.float32)
    assert sample(picture, uv)[0, :3].tolist() == [5.5, 0.0, 11.0]


def test_a_moving_view_of_a_flat_picture_is_recovered():
    mapping = Shifted(frame_count=7)
    truth = smooth_picture(40, 60)
    frames = [sample(truth, mapping.frame(t).uv[0]) for t in range(7)]
    textures = splat(mapping, lambda t: np.rint(frames[t] * 255).astype(np.uint8))
    for t in range(7):
        error = np.abs(render(mapping, textures, t) - frames[t])
        assert error.max() < 0.02  # half a texel of blur on waves of 5 texels, plus 8-bit rounding
    assert textures[0].coverage[0, 0] == 0
    assert textures[0].coverage[15, 30] == 1


def test_back_projection_sharpens():
    mapping = Shifted(frame_count=7)
    truth = smooth_picture(40, 60)
    truth[::2] *= 0.7  # fine stripes that a mean of half-texel shifts washes out
    frames = [
        np.rint(sample(truth, mapping.frame(t).uv[0]) * 255).astype(np.uint8) for t in range(7)
    ]

    def error(steps):
        textures = splat(mapping, lambda t: frames[t], SplatOptions(sharpen_steps=steps))
        picture = render(mapping, textures, 3)
        return float(((picture - frames[3] / 255.0) ** 2).mean())

    assert error(3) < error(0)


def test_what_covers_a_layer_for_a_while_does_not_stain_it():
    mapping = Shifted(frame_count=9)
    truth = smooth_picture(40, 60)

    def frame(t):
        picture = np.rint(sample(truth, mapping.frame(t).uv[0]) * 255).astype(np.uint8)
        if t in (2, 5):  # a bird that no mask tells of
            picture[8:14, 10:18] = 255
        return picture

    def stain(sigma):
        options = SplatOptions(sharpen_steps=4, robust_sigma=sigma)
        picture = render(mapping, splat(mapping, frame, options), 3)
        return float(np.abs(picture - frame(3) / 255.0)[6:14, 8:18].mean())

    assert stain(0.05) < 0.6 * stain(1e3)  # 1e3: every sample counts alike, a plain mean


def test_shading_is_taken_out_of_the_texture():
    mapping = Shifted(frame_count=5)
    truth = smooth_picture(40, 60)
    level = np.linspace(0.6, 1.0, 5)

    def gains(t, size):
        return np.full((1, 23, 31, 3), level[t], np.float32)

    def frame(t):
        return np.rint(sample(truth, mapping.frame(t).uv[0]) * level[t] * 255).astype(np.uint8)

    textures = splat(mapping, frame, gains=gains)
    for t in (0, 4):
        error = np.abs(render(mapping, textures, t, gains=gains) - frame(t) / 255.0)
        assert error.max() < 0.03


def test_unseen_texels_take_colours_from_around():
    rgb = np.zeros((16, 24, 3), np.float32)
    weight = np.zeros((16, 24), np.float32)
    rgb[:, :12], weight[:, :12] = (0.2, 0.4, 0.6), 1
    filled = fill_unseen(rgb, weight)
    assert np.allclose(filled, (0.2, 0.4, 0.6), atol=1e-5)
    assert np.allclose(fill_unseen(rgb, np.zeros_like(weight)), 0)


def test_texture_as_bytes_carries_coverage_as_alpha():
    texture = Texture(np.full((2, 3, 3), 0.5, np.float32), np.full((2, 3), 0.25, np.float32))
    assert texture.rgba8()[1, 2].tolist() == [128, 128, 128, 64]
    assert texture.size == Size(2, 3)


class Veiled(LayerMapping):
    """A still layer, which a share `veil` of a front layer covers in the right half."""

    def __init__(self, veil: float):
        self.layers = (Layer("front", Size(20, 24)), Layer("behind", Size(20, 24)))
        self.frame_count, self.frame_size, self.veil = 4, Size(20, 24), veil

    def frame(self, t, size=None):
        x, y = np.meshgrid(np.arange(24), np.arange(20))
        uv = np.stack([np.stack([x, y], -1)] * 2).astype(np.float32)
        alpha = np.ones((2, 20, 24), np.float32)
        alpha[0] = np.where(x < 6, 1, np.where(x < 12, 0, self.veil))
        return FrameMapping(uv, alpha, np.ones(2, np.float32))


def test_texels_that_only_mixed_pixels_show_stay_nearly_still():
    frame = np.full((20, 24, 3), 128, np.uint8)
    frame[:, 12:] = 153  # 0.1 brighter than the layers make it; a front of 1.5 would explain it
    front, _ = splat(Veiled(0.1), lambda t: frame)
    assert np.abs(front.rgb[5:15, 16:] - front.rgb[5:15, 2:3]).max() < 0.15
    half, _ = splat(Veiled(0.6), lambda t: frame)
    assert half.rgb[5:15, 16:].mean() > front.rgb[5:15, 16:].mean()


class Disc(LayerMapping):
    """A disc that moves 2 px a frame over a still ground; its matte is `wide_px` wider."""

    def __init__(self, wide_px: float):
        self.layers = Layer("disc", Size(44, 44)), Layer("ground", Size(44, 80))
        self.frame_count, self.frame_size, self.wide_px = 12, Size(44, 80), wide_px

    def opacity(self, t, wide_px=0.0):
        y, x = np.mgrid[:44, :80].astype(np.float32)
        return np.clip(14.5 + wide_px - np.hypot(x - 26 - 2 * t, y - 21.5), 0, 1)

    def frame(self, t, size=None):
        y, x = np.mgrid[:44, :80].astype(np.float32)
        uv = np.stack([np.stack([x - 4 - 2 * t, y], -1), np.stack([x, y], -1)])
        alpha = np.stack([self.opacity(t, self.wide_px), np.ones_like(x)])
        return FrameMapping(uv, alpha, np.ones(2, np.float32))


@pytest.mark.parametrize("wide_px", [-0.4, -0.2])
def test_a_rim_that_only_mixed_pixels_show_keeps_to_the_layer_s_own_colours(wide_px):
    mapping = Disc(wide_px)
    color, ground = np.array([0.7, 0.3, 0.25]), np.array([0.35, 0.5, 0.75])

    def frame(t):
        part = mapping.opacity(t)[..., None]
        return np.rint((part * color + (1 - part) * ground) * 255).astype(np.uint8)

    disc = splat(mapping, frame)[0]
    off = np.abs(disc.rgb - color)[disc.coverage > 0.5]
    assert off.max() < 0.06
