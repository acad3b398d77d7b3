"""The matte of planes: rows that need no look are skipped, and nothing else changes."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from atlas.coords import Size
from atlas.guided import LinearModel
from atlas.planes import PlaneFormat, Planes
from preprocess.sky.temporal import largest_channel
from preprocess.stream_matte import _applied, apply_to_planes, enlarged_rows

FORMS = [("yuv420p", Size(96, 134)), ("yuv420p10le", Size(108, 190)), ("yuv444p", Size(90, 64))]


def skyline(form: PlaneFormat, sure: int) -> tuple[LinearModel, Planes]:
    """A model that is sky above, a mixture in the middle and ground below; random planes."""
    rng = np.random.default_rng(sure)
    height, width = 40, 32
    down = np.arange(height)[:, None] + rng.normal(0, 0.4, (height, width))
    ramp = np.clip((height / 2 - down) / (height / 2 - sure), -1, 1)
    offset = (0.5 + ramp).astype(np.float32)
    slope = rng.normal(0, 0.2, (height, width, 3)) * (np.abs(ramp) < 0.9)[..., None]
    y, u, v = (
        rng.integers(16, form.peak - 16, shape).astype(form.dtype)
        for shape in [(s.height, s.width) for s in (form.size, *[form.chroma_size] * 2)]
    )
    return LinearModel(slope.astype(np.float32), offset), Planes(y, u, v)


@pytest.mark.parametrize(("name", "size"), FORMS)
@pytest.mark.parametrize("sure", [3, 12])
def test_rows_left_out_of_a_matte_are_what_the_model_says_of_them(name, size, sure, monkeypatch):
    form = PlaneFormat(name, size, "bt709", full=False)
    model, planes = skyline(form, sure)
    worked: list[int] = []

    def watched(slope: np.ndarray, offset: np.ndarray, part: Planes) -> np.ndarray:
        worked.append(part.y.shape[0])
        return _applied(slope, offset, part)

    monkeypatch.setattr("preprocess.stream_matte._applied", watched)
    found = apply_to_planes(model, form, planes)
    monkeypatch.setattr(
        "preprocess.stream_matte._doubtful_rows", lambda *given: (0, len(model.offset), 0, 0)
    )
    np.testing.assert_array_equal(found, apply_to_planes(model, form, planes))
    assert found[0].min() == 255
    assert found[-1].max() == 0
    assert ((found > 0) & (found < 255)).any()
    if sure == 12 and size.height % 40 == 16:  # 96 rows: whole ones fall together often enough
        assert worked[0] < worked[1]


def test_a_picture_without_a_doubt_is_filled():
    form = PlaneFormat("yuv420p", Size(48, 64), "bt709", full=False)
    _, planes = skyline(form, 3)
    for level, value in ((2.0, 255), (-1.0, 0)):
        flat = LinearModel(np.zeros((20, 32, 3), np.float32), np.full((20, 32), level, np.float32))
        assert (apply_to_planes(flat, form, planes) == value).all()


@pytest.mark.parametrize("height", [48, 50, 54, 97])
def test_enlarged_rows_are_those_of_the_whole_field(height):
    field = np.random.default_rng(1).random((20, 30, 2)).astype(np.float32)
    whole = cv2.resize(field, (71, height), interpolation=cv2.INTER_LINEAR)
    for rows in ((0, height), (5, 17), (0, 1), (height - 3, height)):
        part = enlarged_rows(field, (71, height), rows)
        np.testing.assert_allclose(part, whole[rows[0] : rows[1]], atol=1e-5)


def test_the_largest_channel_is_the_maximum():
    values = np.random.default_rng(2).integers(0, 255, (7, 9, 3), np.uint8)
    np.testing.assert_array_equal(largest_channel(values), values.max(axis=2))
