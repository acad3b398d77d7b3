"""The numbers that mattes are judged by, against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from preprocess.sky.evaluate import edge_band, polygon_gaps, report, score_picture, summarize
from tests.test_sky_crowns import draw_twigs, street


def test_band_is_ten_pixels_at_640():
    truth = np.zeros((48, 640), np.float32)
    truth[:, 300:] = 1
    columns = np.flatnonzero(edge_band(truth)[24])
    assert (columns[0], columns[-1]) == (295, 304)
    assert edge_band(truth[:, ::2])[24].sum() == 4  # half the size: radius 2.5 rounds to 2


def test_scores_match_hand_values():
    truth = np.zeros((10, 64), np.float32)
    truth[:, :32] = 1
    matte = np.zeros_like(truth)
    matte[:, :16] = 0.9
    score = score_picture("a", matte, truth)
    assert score.iou == pytest.approx(0.5)
    assert score.mae == pytest.approx((16 * 0.1 + 16 * 1) / 64)
    assert score.band_mae == pytest.approx(0.5)  # sky side missed, ground side right
    assert score.false_sky is None


def test_no_sky_counts_only_as_false_sky():
    matte = np.zeros((10, 64), np.float32)
    matte[0] = 1
    score = score_picture("a", matte, np.zeros_like(matte))
    assert score.iou is None
    assert score.band_mae is None
    assert score.false_sky == pytest.approx(0.1)


def test_means_leave_out_what_has_no_meaning():
    sky, none = np.ones((8, 32), np.float32), np.zeros((8, 32), np.float32)
    summary = summarize([score_picture("a", sky, sky), score_picture("b", 0.2 * sky, none)])
    assert summary["iou_mean"] == 1
    assert summary["false_sky_mean"] == 0
    assert summary["mae_mean"] == pytest.approx(0.1)
    assert summary["band_mae_mean"] is None
    assert (summary["pictures"], summary["pictures_with_sky"]) == (2, 1)


def test_unequal_shapes_are_refused():
    with pytest.raises(ValueError, match="must be equal"):
        score_picture("a", np.zeros((4, 5)), np.zeros((5, 4)))


def test_report_is_by_domain():
    sky = np.ones((8, 32), np.float32)
    result = report([score_picture("ade_1", sky, sky), score_picture("lmf_1", 0 * sky, sky)])
    assert result["iou_mean"] == 0.5
    assert result["domains"]["ade"]["iou_mean"] == 1
    assert result["domains"]["lmf"]["iou_mean"] == 0


def crown_street() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A crown labelled ground whole; the label, and the truth with its gaps."""
    rgb, label = street()
    draw_twigs(rgb, slice(0, 120), slice(200, 260))
    label[:120, 200:260] = 0
    truth = label.copy()
    truth[:120, 200:260] = (rgb[:120, 200:260, 0] > 128).astype(np.float32)
    return rgb, label, truth


def test_gaps_that_a_polygon_calls_ground_are_counted_apart():
    rgb, label, truth = crown_street()
    gaps = polygon_gaps(rgb, label)
    right = score_picture("a", truth, label, gaps)
    assert right.iou < 0.94
    assert right.iou_open > 0.99
    assert right.iou_right == pytest.approx(right.iou, abs=0.01)
    whole = score_picture("a", label, label, gaps)
    assert whole.iou == whole.iou_open == 1
    missed = score_picture("a", label * (np.arange(320) < 130), label, gaps)
    assert missed.iou == missed.iou_open == pytest.approx(0.5)


def test_other_false_sky_is_not_forgiven():
    rgb, label, truth = crown_street()
    truth[120:] = 1
    score = score_picture("a", truth, label, polygon_gaps(rgb, label))
    assert score.iou_open < 0.5


def test_soft_truths_have_no_gaps():
    rgb, label, _ = crown_street()
    label[0, 0] = 0.5
    assert not polygon_gaps(rgb, label).any()
