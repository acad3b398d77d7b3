"""Photoshop files as paint: layers, masks and modes against what was put into the file."""

import sys

import numpy as np
import pytest

from atlas.coords import Size
from atlas.errors import InputError
from atlas.mapping import Layer
from edits.kinds import LayerPaint
from edits.layered_paint import open_layered_paint
from edits.photoshop import read_psd

psd_tools = pytest.importorskip("psd_tools", reason="PSD files need the extra 'psd'")
from psd_tools.constants import BlendMode  # noqa: E402

WIDTH, HEIGHT = 37, 23


def solid(height, width, rgba):
    return np.full((height, width, 4), rgba, np.float32)


def new_psd(depth=8, mode="RGB"):
    return psd_tools.PSDImage.new(mode, (WIDTH, HEIGHT), depth=depth)


def add(psd, name, rgba=(0.2, 0.4, 0.6, 1), **options):
    return psd.create_pixel_layer_from_array(solid(6, 9, rgba), name=name, **options)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.psd"


def test_layers_come_in_the_order_in_which_they_apply(path):
    psd = new_psd()
    add(psd, "bottom", (0.2, 0.4, 0.6, 0.8), top=20, left=-4)
    add(psd, "hidden").visible = False
    add(psd, "atlas")
    add(psd, "top", blend_mode=BlendMode.LINEAR_DODGE, opacity=51, top=2, left=30)
    psd.save(path)
    bottom, top = read_psd(path)
    assert (bottom.name, bottom.blend, top.name, top.blend) == ("bottom", "normal", "top", "add")
    assert top.rgba.shape == (HEIGHT, WIDTH, 4)
    np.testing.assert_allclose(top.rgba[5, 33], [0.2, 0.4, 0.6, 0.2], atol=0.002)  # 8 bit
    rows, columns = np.nonzero(bottom.rgba[..., 3])
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (20, 22, 0, 4)
    np.testing.assert_allclose(bottom.rgba[21, 2], [0.2, 0.4, 0.6, 0.8], atol=0.002)


def test_sixteen_bits_stay(path):
    psd = new_psd(depth=16)
    add(psd, "fine", (0.12345, 0.5, 0.5, 1))
    psd.save(path)
    (fine,) = read_psd(path)
    assert abs(float(fine.rgba[2, 2, 0]) - 0.12345) < 2e-5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda psd: add(psd, "x", blend_mode=BlendMode.HUE), "layer 'x' has the blend mode HUE"),
        (lambda psd: setattr(add(psd, "x"), "clipping", True), "'x' has clipping"),
    ],
)
def test_what_cannot_be_taken_is_said_in_one_line(path, change, message):
    psd = new_psd()
    add(psd, "below")
    change(psd)
    psd.save(path)
    with pytest.raises(InputError, match=message) as error:
        read_psd(path)
    assert "\n" not in str(error.value)


def test_groups(path):
    psd = new_psd()
    group = psd.create_group(layer_list=[add(psd, "dot")], name="sky", blend_mode=BlendMode.NORMAL)
    psd.save(path)
    (dot,) = read_psd(path)
    assert dot.groups == ("sky",)
    group.opacity = 128
    psd.save(path)
    with pytest.raises(InputError, match="group 'sky' blends as one"):
        read_psd(path)


def test_other_files(path, monkeypatch):
    with pytest.raises(InputError, match=r"a\.psd: not found"):
        read_psd(path)
    path.write_bytes(b"8BPS no picture")
    with pytest.raises(InputError, match="not a readable PSD"):
        read_psd(path)
    new_psd(mode="CMYK").save(path)
    with pytest.raises(InputError, match="is CMYK with 8 bits"):
        read_psd(path)
    monkeypatch.setitem(sys.modules, "psd_tools", None)
    with pytest.raises(InputError, match=r"pip install '.\[psd\]'"):
        read_psd(path)


def test_layers_land_on_the_atlas_that_their_names_pick(path):
    psd = new_psd()
    add(psd, "paint")
    add(psd, "Foreground tint", blend_mode=BlendMode.MULTIPLY)
    psd.save(path)
    same = Size(height=HEIGHT * 2, width=WIDTH * 2)
    layers = [Layer("foreground", same), Layer("sky", same)]
    opened = open_layered_paint(LayerPaint(layer="sky", path=str(path)), layers)
    assert [(index, paint.blend) for index, paint in opened] == [(1, "normal"), (0, "multiply")]
    narrow = [Layer("foreground", same), Layer("sky", Size(40, 40))]
    with pytest.raises(InputError, match="is 37x23, but the atlas of layer 'sky'"):
        open_layered_paint(LayerPaint(layer="sky", path=str(path)), narrow)
    with pytest.raises(InputError, match="leave out 'screen'"):
        open_layered_paint(LayerPaint(layer="sky", path=str(path), blend="screen"), layers)
