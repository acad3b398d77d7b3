"""Sheets: every picture lands where it should, whole."""

import numpy as np
import pytest

from atlas.sheets import (
    BACKGROUND,
    GAP_PX,
    LABEL_HEIGHT_PX,
    before_after,
    contact_sheet,
    corner_label,
    fit_width,
    over_squares,
    shade_by,
    shortened,
    side_by_side,
    text_width,
    tint,
    to_bytes,
)


def flat(height, width, *rgb):
    return np.full((height, width, 3), rgb, np.uint8)


def test_contact_sheet_puts_every_picture_in_its_cell():
    red, green, blue = flat(30, 50, 255, 0, 0), flat(60, 100, 0, 255, 0), flat(20, 20, 0, 0, 255)
    sheet = contact_sheet([[red, green], [None, blue]], ["one", "two"], ["a", "row b"], 100)
    left = text_width("row b") + 2 * GAP_PX
    top = LABEL_HEIGHT_PX + GAP_PX
    assert sheet.shape == (top + 60 + GAP_PX + 100 + GAP_PX, left + 2 * (100 + GAP_PX), 3)
    assert (sheet[top : top + 60, left : left + 100] == (255, 0, 0)).all()
    second = left + 100 + GAP_PX
    assert (sheet[top : top + 60, second : second + 100] == (0, 255, 0)).all()
    below = top + 60 + GAP_PX
    assert (sheet[below : below + 100, second : second + 100] == (0, 0, 255)).all()
    assert (sheet[top + 60 : below] == BACKGROUND).all()
    empty = sheet[below : below + 100, left : left + 100]
    assert (empty == empty[0, 0]).all()
    for x in (left, second):  # a title over each column
        assert (sheet[:LABEL_HEIGHT_PX, x : x + 100] != BACKGROUND).any()


def test_contact_sheet_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="every row must have 2"):
        contact_sheet([[flat(3, 4, 0, 0, 0)]], ["a", "b"], ["r"])
    with pytest.raises(ValueError, match="one name a row"):
        contact_sheet([[flat(3, 4, 0, 0, 0)]], ["a"], ["r", "s"])


def test_side_by_side_keeps_pixels_and_labels_both():
    left, right = flat(120, 200, 90, 10, 20), flat(120, 200, 5, 120, 7)
    plain = side_by_side(left, right)
    assert (plain[:, :200] == left).all()
    assert (plain[:, 200:] == right).all()
    labelled = side_by_side(left, right, ("atlas", "fast"))
    assert (labelled[60:] == plain[60:]).all()
    assert (labelled[:20, :20] != plain[:20, :20]).any()
    assert (labelled[:20, 200:220] != plain[:20, 200:220]).any()
    with pytest.raises(ValueError, match="one shape"):
        side_by_side(left, right[:-1])


def test_before_after_splits_at_the_line():
    before, after = flat(7, 100, 9, 9, 9), flat(7, 100, 80, 80, 80)
    joined = before_after(before, after, 0.3)
    assert (joined[:, :29] == 9).all()
    assert (joined[:, 29:31] == 255).all()
    assert (joined[:, 31:] == 80).all()


def test_overlays_are_pinned():
    assert tint(flat(2, 3, 100, 100, 100), np.ones((2, 3)), (200, 0, 50))[0, 0].tolist() == [
        150,
        50,
        75,
    ]
    assert tint(flat(2, 3, 100, 100, 100), np.zeros((2, 3)))[1, 2].tolist() == [100] * 3
    rgba = np.zeros((40, 50, 4), np.uint8)
    rgba[:, 25:] = (10, 20, 30, 255)
    shown = over_squares(rgba)
    assert (shown[:, 25:] == (10, 20, 30)).all()
    assert shown[0, 0, 0] == 52
    assert shown[0, 17, 0] == 66
    board = shade_by(flat(1, 2, 100, 100, 100), np.array([[0.0, 1.0]]), np.array([[0.0, 1.0]]))
    assert board[0].tolist() == [[100] * 3, [round(45 + 0.55 * 255)] * 3]


def test_small_things():
    assert fit_width(flat(30, 60, 1, 2, 3), 20).shape == (10, 20, 3)
    assert to_bytes(np.array([-0.1, 0.5, 1.2])).tolist() == [0, 128, 255]
    assert shortened("short", 100) == "short"
    cut = shortened("a very long title of a column", 80)
    assert cut.endswith("..")
    assert text_width(cut) <= 80
    picture = flat(50, 300, 200, 200, 200)
    assert (corner_label(picture, "x")[40:] == 200).all()
