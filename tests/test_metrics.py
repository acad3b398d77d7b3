"""Metrics against closed forms and slow, obvious references."""

import math

import cv2
import numpy as np
import pytest

from atlas.coords import Size as S
from atlas.coords import apply_homography, pixel_grid
from atlas.mapping import FrameMapping
from atlas.metrics import (
    HeldOutFlow,
    Quantiles,
    WarpError,
    checkerboard,
    corner_strength,
    held_out_flow,
    local_jacobian,
    mask_iou,
    pooled_rms,
    psnr_db,
    sample_bilinear,
    ssim,
    texel_scale,
    texels_to_px,
)

SIZE = S(height=60, width=96)


def noise(*shape, seed=0):
    return np.random.default_rng(seed).random(shape).astype(np.float32)


def test_psnr_of_a_known_difference():
    a = np.full((5, 7, 3), 0.5, np.float32)
    assert psnr_db(a, a - 0.1) == pytest.approx(20, abs=1e-5)  # 10 log10(1 / 0.01)
    assert psnr_db(a, a + np.float32(0.01)) == pytest.approx(40, abs=1e-3)
    half = a.copy()
    half[:, :, 0] += 0.3  # one channel of three: mse 0.03
    assert psnr_db(a, half) == pytest.approx(-10 * math.log10(0.03), abs=1e-4)


def test_psnr_takes_bytes_and_refuses_what_it_cannot_mean():
    a = np.full((5, 7), 100, np.uint8)
    b = np.full((5, 7), 151, np.uint8)  # wraps round when subtracted as bytes
    assert psnr_db(a, b) == pytest.approx(-20 * math.log10(51 / 255), abs=1e-4)
    assert psnr_db(a, a) == math.inf
    with pytest.raises(ValueError, match="one shape"):
        psnr_db(a, b[:3])
    with pytest.raises(ValueError, match="float or uint8"):
        psnr_db(a.astype(int), b.astype(int))


def slow_ssim(a, b):
    """Wang et al. 2004, window by window."""
    x = np.arange(11) - 5.0
    line = np.exp(-(x**2) / (2 * 1.5**2))
    window = np.outer(line, line)
    window /= window.sum()
    values = []
    for i in range(a.shape[0] - 10):
        for j in range(a.shape[1] - 10):
            p, q = a[i : i + 11, j : j + 11], b[i : i + 11, j : j + 11]
            mu_p, mu_q = (window * p).sum(), (window * q).sum()
            var_p = (window * (p - mu_p) ** 2).sum()
            var_q = (window * (q - mu_q) ** 2).sum()
            cov = (window * (p - mu_p) * (q - mu_q)).sum()
            top = (2 * mu_p * mu_q + 0.01**2) * (2 * cov + 0.03**2)
            values.append(top / ((mu_p**2 + mu_q**2 + 0.01**2) * (var_p + var_q + 0.03**2)))
    return np.mean(values)


def test_ssim_matches_the_definition_window_by_window():
    a = cv2.GaussianBlur(noise(23, 31, 3), (0, 0), 1.0)
    b = np.clip(0.8 * a + 0.1 * noise(23, 31, 3, seed=1), 0, 1)
    wanted = np.mean(
        [slow_ssim(a[..., c].astype(float), b[..., c].astype(float)) for c in range(3)]
    )
    assert ssim(a, b) == pytest.approx(wanted, abs=2e-5)  # float32 variances
    assert 0.5 < wanted < 0.98


def test_ssim_of_flat_pictures_is_the_luminance_term():
    a, b = np.full((12, 17), 0.4, np.float32), np.full((12, 17), 0.6, np.float32)
    wanted = (2 * 0.4 * 0.6 + 1e-4) / (0.4**2 + 0.6**2 + 1e-4)
    assert ssim(a, b) == pytest.approx(wanted, abs=1e-4)  # float32 cancels to 1e-8 of C2 = 9e-4
    assert ssim(a, a) == pytest.approx(1, abs=1e-6)
    assert math.isnan(ssim(a[:10], b[:10]))


def test_iou_of_shifted_boxes():
    a, b = np.zeros((20, 30)), np.zeros((20, 30))
    a[2:12, 3:13] = 1.0
    b[2:12, 5:15] = 0.51
    b[0, :] = 0.5  # not above the threshold
    assert mask_iou(a, b) == pytest.approx(80 / 120)
    assert mask_iou(a, np.zeros_like(a)) == 0
    assert mask_iou(np.zeros_like(a), np.zeros_like(a)) == 1


def test_checkerboard_is_the_box_blurred_board():
    """Against a hard board, oversampled 64 times and averaged over the box."""
    square, blur = 8.0, 3.0
    at = np.array([[-9.3, 2.0], [0.0, 4.0], [1.0, 4.0], [7.5, 15.7], [12.0, 12.0], [4.0, 12.0]])
    offsets = (np.arange(64) + 0.5) / 64 * blur - blur / 2
    for u, v in at:
        x, y = np.meshgrid(u + offsets, v + offsets)
        hard = (np.floor(x / square) + np.floor(y / square)) % 2 == 0
        # 1/64: an edge can fall inside one oversampling step in either direction
        assert checkerboard(np.array([u, v]), square, blur) == pytest.approx(
            hard.mean(), abs=1 / 64
        )
    assert checkerboard(np.array([4.0, 4.0]), square, blur) == 1
    assert checkerboard(np.array([4.0, 12.0]), square, blur) == 0
    with pytest.raises(ValueError, match="blur"):
        checkerboard(at, 2.0, 3.0)


def test_jacobian_and_lengths_are_pinned():
    matrix = np.array([[2.0, 0.5], [-0.25, 3.0]])
    uv = pixel_grid(SIZE).astype(np.float64) @ matrix.T + [7, -3]
    jacobian = local_jacobian(uv)
    assert np.allclose(jacobian, matrix)
    moved_px = np.array([3.0, -4.0])
    assert texels_to_px(matrix @ moved_px, jacobian[5, 9]) == pytest.approx(5)
    assert texels_to_px(np.ones(2), np.zeros((2, 2))) == np.inf
    everywhere = np.ones((SIZE.height, SIZE.width), bool)
    assert texel_scale(uv, everywhere) == pytest.approx(math.sqrt(np.linalg.det(matrix)))
    assert math.isnan(texel_scale(uv, ~everywhere))


def test_bilinear_sampling_keeps_fine_fractions():
    plane = np.stack([pixel_grid(SIZE)[..., 0], 10 * pixel_grid(SIZE)[..., 1]], axis=-1)
    xy = np.array([[3.007, 4.011], [90.25, 58.9]])
    # 1e-4: float32 of values near 600; cv2.remap would be off by up to 1/64
    assert sample_bilinear(plane, xy) == pytest.approx(xy * [1, 10], abs=1e-4)


def test_quantiles_of_a_stream():
    values = np.random.default_rng(0).lognormal(0, 2, 20001)
    stream = Quantiles()
    for part in np.array_split(values, 7):
        stream.add(part)
    assert stream.count == 20001
    for q in (0.05, 0.5, 0.95):  # 0.3 % bins, 20001 samples: one rank is far less
        assert stream.quantile(q) == pytest.approx(np.quantile(values, q), rel=5e-3)
    assert Quantiles().quantile(0.5) is None
    zeros = Quantiles()
    zeros.add(np.array([0.0, 0.0, np.inf]))
    assert zeros.quantile(0.5) == 0
    assert zeros.quantile(0.99) == np.inf
    with pytest.raises(ValueError, match="nan"):
        zeros.add(np.array([np.nan]))


def frame_mapping(matrix, share=None):
    """One layer over an opaque bottom, its uv a homography of the pixel."""
    uv = apply_homography(matrix, pixel_grid(SIZE).astype(np.float64)).astype(np.float32)
    alpha = np.ones((2, SIZE.height, SIZE.width), np.float32)
    alpha[0] = 1 if share is None else share
    return FrameMapping(np.stack([uv, uv]), alpha, np.ones(2, np.float32))


def shift(x, y):
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1.0]])


def constant_flow(x, y):
    flow = np.empty((SIZE.height, SIZE.width, 2), np.float32)
    flow[:] = (x, y)
    at = pixel_grid(SIZE) + flow
    inside = (at >= 0).all(-1) & (at <= [SIZE.width - 1, SIZE.height - 1]).all(-1)
    return HeldOutFlow(flow, inside)


def test_an_exact_mapping_has_no_warping_error():
    scale = np.diag([1.5, 1.5, 1])
    measure = WarpError(0, SIZE.width, 1.5)
    first, second = frame_mapping(scale), frame_mapping(scale @ shift(-2.5, 1.25))
    measure.add(first, second, constant_flow(2.5, -1.25))
    assert measure.pixel_count > 0.8 * SIZE.height * SIZE.width
    assert measure.rms == pytest.approx(0, abs=1e-5)  # float32 uv of about 100 texels
    assert measure.drift_px.quantile(0.95) < 1e-4


@pytest.mark.parametrize("texels_per_px", [0.5, 2.0])
def test_warping_error_of_a_wobble_is_what_the_integral_says(texels_per_px):
    """Sliding by d px: mean of (0.5 q(v) (q(u + d) - q(u)))^2, q a square wave blurred by w.

    Each edge gives a trapezoid 2 d / w high, w - d wide at the top, with ramps of d: its square
    integrates to 4 d^2 / w^2 (w - d / 3); one edge per square s. mean q^2 = 1 - 2/3 w / s.
    """
    square, blur = SIZE.width / 24, 2.0
    previous = 0.0
    for d in (0.25, 0.5, 1.0, 1.75):
        measure = WarpError(0, SIZE.width, texels_per_px)
        zoom = np.diag([texels_per_px, texels_per_px, 1])
        fine = 97  # pixel phases spread over the squares: average over sub-pixel offsets
        for offset in np.arange(fine) / fine * square:
            first = frame_mapping(zoom @ shift(offset, offset / 3))
            second = frame_mapping(zoom @ shift(offset + d, offset / 3))
            measure.add(first, second, constant_flow(0, 0))
        mean_q2 = 1 - 2 / 3 * blur / square
        wanted = math.sqrt(0.25 * mean_q2 * 4 * d**2 / blur**2 * (blur - d / 3) / square)
        assert measure.rms == pytest.approx(wanted, rel=0.01)  # 97 phases of a square of 4 px
        assert measure.rms > previous
        assert measure.drift_px.quantile(0.5) == pytest.approx(d, rel=5e-3)  # its bins
        previous = measure.rms


def test_only_what_is_seen_at_both_ends_counts():
    """A layer on the left half that slides: the rest, its edge and what leaves it are left out."""
    left = np.zeros((SIZE.height, SIZE.width), np.float32)
    left[:, :40] = 1
    shorter = left.copy()
    shorter[:, 30:] = 0
    measure = WarpError(0, SIZE.width, 1.0)
    flow = constant_flow(0, 0)
    measure.add(frame_mapping(np.eye(3), left), frame_mapping(np.eye(3), shorter), flow)
    assert measure.pixel_count == 25 * SIZE.height  # columns 0..24: 5 px inside the shorter edge
    below = WarpError(1, SIZE.width, 1.0)
    below.add(frame_mapping(np.eye(3), shorter), frame_mapping(np.eye(3), left), flow)
    assert below.pixel_count == (SIZE.width - 45) * SIZE.height
    nothing = WarpError(0, SIZE.width, math.nan)
    nothing.add(frame_mapping(np.eye(3)), frame_mapping(np.eye(3)), flow)
    assert nothing.rms is None
    assert pooled_rms([measure, nothing]) == 0


def test_errors_of_layers_are_pooled_over_pixels():
    a, b = WarpError(0, SIZE.width, 1.0), WarpError(1, SIZE.width, 1.0)
    a.squared_sum, a.pixel_count = 4.0, 100
    b.squared_sum, b.pixel_count = 5.0, 800
    assert a.rms == pytest.approx(0.2)
    assert pooled_rms([a, b]) == pytest.approx(0.1)


def textured(height=120, width=160):
    return (255 * cv2.GaussianBlur(noise(height, width, 3), (0, 0), 2.0)).astype(np.uint8)


def test_held_out_flow_follows_a_known_shift():
    wide = cv2.normalize(textured(140, 180), None, 0, 255, cv2.NORM_MINMAX)
    first, second = wide[10:130, 10:170], wide[13:133, 5:165]  # content moves by (+5, -3)
    motion = held_out_flow(first, second)
    assert motion.flow.shape == (120, 160, 2)
    assert motion.trusted.mean() > 0.8
    assert np.median(motion.flow[motion.trusted], axis=0) == pytest.approx([5, -3], abs=0.1)  # DIS


def test_flow_in_flat_parts_and_off_the_picture_is_not_trusted():
    wide = cv2.normalize(textured(140, 180), None, 0, 255, cv2.NORM_MINMAX)
    first, second = wide[10:130, 10:170].copy(), wide[10:130, 4:164].copy()
    first[:60], second[:60] = 90, 90
    trusted = held_out_flow(first, second).trusted
    assert not trusted[:50].any()  # 7 px of the box and some reach into the flat half
    assert trusted[70:].mean() > 0.8
    assert not trusted[:, 156:].any()  # moved out by 6 px
    tiny = held_out_flow(first[:12, :20], second[:12, :20])
    assert tiny.flow.shape == (12, 20, 2)
    assert not tiny.trusted.any()


def test_corner_strength_of_known_waves():
    """60 sin(w x) + 30 sin(w y), 15 px a period: the box sees whole periods, cos^2 means 1/2."""
    x, y = np.meshgrid(np.arange(90), np.arange(70))
    w = 2 * np.pi / 15
    both = np.rint(100 + 60 * np.sin(w * x) + 30 * np.sin(w * y)).astype(np.uint8)
    inner = corner_strength(both)[10:-10, 10:-10]
    assert inner == pytest.approx((30 * np.sin(w)) ** 2 / 2, rel=0.03)  # rounding to 8 bit
    edge_only = np.rint(100 + 60 * np.sin(w * x)).astype(np.uint8)
    assert corner_strength(edge_only)[10:-10, 10:-10] == pytest.approx(0, abs=1e-3)
