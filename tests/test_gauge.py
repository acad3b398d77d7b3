"""The gauge between two canvases, against maps that are known exactly."""

import cv2
import numpy as np
import pytest

from atlas.coords import Size, apply_homography, pixel_grid
from atlas.errors import InputError
from atlas.gauge import (
    Gauge,
    GaugeFit,
    Regauged,
    fit_gauge,
    spread,
    transfer_texture,
    uv_error_px,
)
from atlas.mapping import FrameMapping, Layer, LayerMapping
from atlas.metrics import local_jacobian

SIZE = Size(height=54, width=80)
CANVAS_A = Size(height=130, width=210)
CANVAS_B = Size(height=150, width=170)
A_TO_B = np.array([[0.6, 0.05, 12.0], [-0.08, 0.9, 21.0], [1e-4, -2e-4, 1.0]])


class Panning(LayerMapping):
    """Two layers; the bottom one, `sky`, is panned over by homographies, then bent by `bend`."""

    def __init__(self, after=None, canvas=CANVAS_A, bend=None, frame_count=7):
        self.layers = (Layer("foreground", SIZE), Layer("sky", canvas))
        self.frame_count, self.frame_size = frame_count, SIZE
        self.after = np.eye(3) if after is None else after
        self.bend = bend
        self.seen = []

    def observe(self, t, rgb):
        self.seen.append(t)

    def frame(self, t, size=None):
        xy = pixel_grid(SIZE, size).astype(np.float64)
        motion = np.array(
            [[1.1, 0.02 * t, 3 + 11.0 * t], [-0.01 * t, 1, 5 + 4.0 * t], [0, 2e-5, 1]]
        )
        sky = apply_homography(motion, xy)
        sky = apply_homography(self.after, sky if self.bend is None else self.bend(sky))
        alpha = np.ones((2, *xy.shape[:2]), np.float32)
        alpha[0] = xy[..., 1] > 30 + 2 * t
        return FrameMapping(np.stack([xy, sky]).astype(np.float32), alpha, np.ones(2, np.float32))


def error_px(gauge, a, b, t=3):
    """Disagreement over the sky's pixels of frame `t`."""
    of_a, of_b = a.frame(t), b.frame(t)
    error = uv_error_px(gauge, of_a.uv[1], of_b.uv[1], local_jacobian(of_b.uv[1]))
    return error[of_a.alpha[0] < 0.5]


def test_a_known_homography_is_recovered():
    a, b = Panning(), Panning(A_TO_B, CANVAS_B)
    gauge = fit_gauge(a, b, "sky", "sky")
    corners = np.array([[3.0, 5.0], [90, 9], [88, 60], [20, 55], [47, 31]])  # where frames lie
    assert gauge(corners) == pytest.approx(apply_homography(A_TO_B, corners), abs=1e-3)
    assert error_px(gauge, a, b).max() < 1e-3
    assert (gauge.a, gauge.b) == (CANVAS_A, CANVAS_B)
    assert gauge.inverse(gauge(corners)) == pytest.approx(corners, abs=1e-3)


def test_without_the_gauge_the_same_maps_disagree():
    a, b = Panning(), Panning(A_TO_B, CANVAS_B)
    assert np.median(error_px(Gauge(np.eye(3), CANVAS_A, CANVAS_B), a, b)) > 5


def test_uv_error_is_in_pixels_of_the_frame():
    """b is a moved by 2 px along x in frame 3 alone, on a canvas of 3 texels a pixel."""
    zoom = np.diag([3.0, 3.0, 1.0])
    a, b = Panning(), Panning(zoom, CANVAS_B)
    gauge = Gauge(zoom, CANVAS_A, CANVAS_B)
    of_a, of_b = a.frame(3), b.frame(3)
    moved = of_b.uv[1] + local_jacobian(of_b.uv[1]) @ np.array([2.0, 0.0], np.float32)
    error = uv_error_px(gauge, of_a.uv[1], moved, local_jacobian(of_b.uv[1]))
    assert error == pytest.approx(2, abs=1e-3)


def test_wild_frames_do_not_pull_the_gauge():
    a, b = Panning(), Panning(A_TO_B, CANVAS_B)
    fit = GaugeFit(a.layers[1], b.layers[1], SIZE)
    for t in range(7):
        of_a, of_b = a.frame(t), b.frame(t)
        uv_a = of_a.uv[1] + (25 if t in (1, 4) else 0)  # two frames of seven were lost
        fit.add(uv_a, of_b.uv[1], of_a.alpha[0] < 0.5)
    gauge = fit.solve()
    assert error_px(gauge, a, b).max() < 0.05  # Geman-McClure: 25 px away hardly pulls


def test_only_pixels_that_show_the_layer_count():
    class Wrong(Panning):
        def frame(self, t, size=None):
            m = super().frame(t, size)
            m.uv[1][m.alpha[0] > 0.5] += 100  # behind the foreground: nobody sees it
            return m

    a, b = Panning(), Wrong(A_TO_B, CANVAS_B)
    assert error_px(fit_gauge(a, b, "sky", "sky"), a, b).max() < 1e-3


def test_frames_are_shown_in_order_and_absent_layers_are_named():
    a, b = Panning(), Panning(A_TO_B, CANVAS_B)
    fit_gauge(a, b, "sky", "sky", frames=lambda t: np.full((54, 80, 3), t, np.uint8))
    assert a.seen == b.seen == list(range(7))
    with pytest.raises(InputError, match="no layer called 'sea'"):
        fit_gauge(a, b, "sea", "sky")


def test_a_layer_that_is_never_seen_has_no_gauge():
    a, b = Panning(), Panning(A_TO_B, CANVAS_B)
    fit = GaugeFit(a.layers[1], b.layers[1], SIZE)
    assert fit.solve() is None
    fit.add(a.frame(0).uv[1], b.frame(0).uv[1], np.zeros((54, 80), bool))
    assert fit.solve() is None


def bend(uv):
    return uv + 3 * np.sin(uv[..., ::-1] / 40)


def test_the_smooth_residual_takes_up_a_bend_and_inverts():
    a, b = Panning(), Panning(A_TO_B, CANVAS_B, bend)
    stiff, smooth = (fit_gauge(a, b, "sky", "sky", smooth=flag) for flag in (False, True))
    assert np.median(error_px(stiff, a, b)) > 0.3
    # nodes are 26 and 16 texels apart: a bilinear grid leaves 3 h^2 / (8 40^2) of a sine, 0.16
    assert np.median(error_px(smooth, a, b)) < 0.15
    inside = np.array([[30.0, 20.0], [70, 40], [50, 33]])
    assert smooth.inverse(smooth(inside)) == pytest.approx(inside, abs=1e-3)


def picture(canvas):
    """Smooth RGBA with a soft-edged opaque part, so that resampling costs little."""
    x, y = np.meshgrid(np.arange(canvas.width), np.arange(canvas.height))
    rgb = [0.5 + 0.4 * np.sin(x / 11), 0.5 + 0.4 * np.cos(y / 9), 0.5 + 0.3 * np.sin((x + y) / 14)]
    alpha = np.clip((np.hypot((x - 60) / 55, (y - 40) / 40) - 1) * -3, 0, 1)
    return np.dstack([*rgb, alpha]).astype(np.float32)


def seen(rgba, uv):
    premultiplied = np.dstack([rgba[..., :3] * rgba[..., 3:], rgba[..., 3]])
    return cv2.remap(premultiplied, uv.astype(np.float32), None, cv2.INTER_LINEAR)


def test_a_transferred_texture_shows_the_same_edit():
    a, b = Panning(), Panning(A_TO_B, CANVAS_B)
    gauge = fit_gauge(a, b, "sky", "sky")
    painted = picture(CANVAS_A)
    carried = transfer_texture(painted, gauge)
    assert carried.shape == (CANVAS_B.height, CANVAS_B.width, 4)
    for t in (0, 3, 6):
        left, right = seen(painted, a.frame(t).uv[1]), seen(carried, b.frame(t).uv[1])
        assert np.abs(left - right).max() < 0.03  # two bilinear samplings of waves of 60 texels
        assert left.max() > 0.8
    as_bytes = transfer_texture(np.rint(painted * 255).astype(np.uint8), gauge)
    assert as_bytes.dtype == np.uint8
    assert np.abs(as_bytes[..., 3] / 255 - carried[..., 3]).max() < 0.01


def test_transfer_is_transparent_beyond_the_canvas_and_checks_its_input():
    gauge = Gauge(np.array([[1.0, 0, 30], [0, 1, 40], [0, 0, 1]]), CANVAS_A, CANVAS_B)
    opaque = np.full((*picture(CANVAS_A).shape[:2], 4), 200, np.uint8)
    opaque[..., 3] = 255
    carried = transfer_texture(opaque, gauge)
    assert not carried[:40, :, 3].any()
    assert not carried[:, :30, 3].any()
    assert (carried[40:, 30:] == [200, 200, 200, 255]).all()
    with pytest.raises(ValueError, match="size of canvas a"):
        transfer_texture(opaque[:-1], gauge)
    with pytest.raises(ValueError, match=r"\(H, W, 4\)"):
        transfer_texture(opaque[..., :3], gauge)


def test_shrinking_does_not_alias():
    """A board of single texels carried to a canvas of a quarter the size becomes its mean."""
    x, y = np.meshgrid(np.arange(CANVAS_A.width), np.arange(CANVAS_A.height))
    board = np.dstack([(x + y) % 2] * 3 + [np.ones_like(x)]).astype(np.float32)
    small = transfer_texture(board, Gauge(np.diag([0.25, 0.25, 1.0]), CANVAS_A, CANVAS_B))
    assert small[3:25, 3:45, :3] == pytest.approx(0.5, abs=0.02)


def test_regauged_lays_the_same_picture_over_the_other_mapping():
    a, b = Panning(), Panning(A_TO_B, CANVAS_B)
    to_a = fit_gauge(b, a, "sky", "sky")
    on_a = Regauged(b, {"sky": to_a})
    assert [layer.canvas for layer in on_a.layers] == [SIZE, CANVAS_A]
    sky_a, sky_b = a.frame(2).uv[1], on_a.frame(2).uv[1]
    visible = a.frame(2).alpha[0] < 0.5
    assert np.abs(sky_a - sky_b)[visible].max() < 2e-3
    assert np.array_equal(on_a.frame(2).uv[0], b.frame(2).uv[0])  # no gauge: as it was
    smaller = Size(27, 33)
    assert on_a.frame(2, smaller).alpha.shape == (2, 27, 33)
    on_a.observe(0, np.zeros((54, 80, 3), np.uint8))
    assert b.seen == [0]


def test_spread_takes_both_ends():
    assert spread(3, 5) == [0, 1, 2]
    assert spread(11, 3) == [0, 5, 10]
    assert spread(0, 3) == []
