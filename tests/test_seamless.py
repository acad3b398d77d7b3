"""Pictures that repeat sideways, and blending band by band."""

import numpy as np
import pytest

from edits.multiband import multiband
from edits.picture import Picture
from edits.recipe import SkyEdit
from edits.seamless import overlap_width, seam_rows, seamless
from edits.sky import PictureSky
from edits.view import CanvasView, Region


def clouds(height: int, width: int, seed: int = 0) -> np.ndarray:
    """(H, W, 3) float32: a gradient in both directions with discs on it, as clouds."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    picture = np.stack([0.3 + 0.3 * x / width, 0.5 + 0.2 * y / height, 0.8 - 0.2 * x / width], -1)
    for _ in range(14):
        cx, cy, r = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(8, 24)
        picture[(x - cx) ** 2 + (y - cy) ** 2 < r * r] = 0.95
    return picture.astype(np.float32)


def test_multiband_is_exact_away_from_the_border_and_fades_each_band_over_its_width():
    width = 256
    share = np.zeros((64, width), np.float32)
    share[:, 128:] = 1
    a, b = np.full((64, width, 2), 0.2, np.float32), np.full((64, width, 2), 0.8, np.float32)
    y, x = np.mgrid[:64, :width]
    stripes = (0.1 * np.where((x + y) % 2, 1, -1)).astype(np.float32)[..., None]
    found = multiband(a + stripes, b, share, 4)[..., 0]
    assert found[:, :64] == pytest.approx((a + stripes)[:, :64, 0], abs=0.01)
    assert found[:, 192:] == pytest.approx(b[:, 192:, 0], abs=0.01)
    broad = (found[::2] + found[1::2]) / 2  # without the stripes
    rise = broad.mean(0)
    assert np.diff(rise).min() > -0.012
    assert 12 < (rise < 0.75).argmin() - (rise > 0.25).argmax() < 64  # broad colours: wide
    detail = np.abs(found[::2] - found[1::2]).mean(0)
    assert detail[:124] == pytest.approx(0.2, abs=0.02)  # the finest band: up to the border
    assert detail[132:].max() < 0.02
    assert multiband(a, b, share, 0) == pytest.approx(np.where(share[..., None] > 0, b, a))


def test_a_seam_goes_where_two_pictures_agree():
    rng = np.random.default_rng(3)
    a, b = (rng.uniform(0, 1, (90, 60, 3)).astype(np.float32) for _ in range(2))
    path = (30 + 12 * np.sin(np.arange(90) / 20)).astype(int)
    for row, column in enumerate(path):
        a[row, column - 1 : column + 2] = b[row, column - 1 : column + 2] = 0
    assert np.abs(seam_rows(a, b) - 0.5 - path).max() <= 1.5


@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_a_seamless_picture_goes_on_across_its_ends(dtype):
    picture = clouds(96, 400)
    if dtype == np.uint8:
        picture = (picture * 255).astype(np.uint8)
    once = seamless(picture)
    reach = overlap_width(400)
    assert once.dtype == dtype
    assert once.shape == (96, 400 - reach, 3)
    # the middle is the picture's own; where the joined part begins and ends, so is it
    half = reach // 2
    np.testing.assert_array_equal(once[:, half : 400 - reach - half], picture[:, reach:-reach])
    level = 1.0 if dtype == np.float32 else 255.0
    assert once[:, half - 1] / level == pytest.approx(picture[:, reach - 1] / level, abs=0.06)
    assert once[:, -half] / level == pytest.approx(picture[:, -reach] / level, abs=0.06)
    # across its two ends steps are as inside, where ends put side by side would jump
    seam = np.abs(once[:, 0].astype(float) - once[:, -1]).mean() / level
    jump = np.abs(picture[:, 0].astype(float) - picture[:, -1]).mean() / level
    steps = np.abs(np.diff(once.astype(float), axis=1)).mean((0, 2)) / level
    assert seam < 2 * steps.mean() + 0.01 < 0.3 * jump


def test_on_a_streamed_clip_a_picture_repeats_and_is_itself_in_the_middle():
    rgb = clouds(40, 200, seed=2)
    whole = Region(-0.5, -0.5, 199.5, 39.5)
    uv = np.stack(np.meshgrid(np.arange(-400, 600), np.arange(40)), -1).astype(np.float32)
    paint = PictureSky(SkyEdit(source="a"), Picture(rgb, None)).place(
        CanvasView(whole, whole, certain=False)
    )
    found, period = paint.sample(uv, 0.0)[..., :3], 200 - overlap_width(200)
    middle = slice(400 + 40, 400 + 160)
    assert found[:, middle] == pytest.approx(rgb[:, 40:160], abs=1e-5)
    assert found[:, : 1000 - period] == pytest.approx(found[:, period:], abs=1e-4)
    known = PictureSky(SkyEdit(source="a"), Picture(rgb, None)).place(CanvasView(whole, whole))
    assert known.sample(uv, 0.0)[:, 400:600, :3] == pytest.approx(rgb, abs=1e-5)
