"""Pictures as paint: blend modes, file modes, damage, sampling without aliasing."""

import struct
import zlib

import cv2
import numpy as np
import pytest

from atlas.clip import write_rgb
from atlas.coords import Size, pixel_grid
from atlas.errors import InputError
from atlas.mapping import Layer
from edits.blend import BLEND_MODES, paint_over
from edits.mipmap import Pyramid, levels_of
from edits.paint import open_layer_paint, same_aspect
from edits.picture import read_picture
from edits.recipe import LayerPaint

CANVAS = Size(height=12, width=20)
LAYER = Layer("sky", CANVAS)


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width, height, depth, colour_type, rows, *extra):
    head = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    parts = [chunk(b"IHDR", head), *extra, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


# --- blend modes: values worked out by hand from the W3C formulas


@pytest.mark.parametrize(
    ("mode", "backdrop", "source", "expected"),
    [
        ("normal", 0.3, 0.8, 0.8),
        ("multiply", 0.3, 0.8, 0.24),
        ("screen", 0.3, 0.8, 0.86),  # 0.3 + 0.8 - 0.24
        ("overlay", 0.3, 0.8, 0.48),  # backdrop dark: 2 * 0.3 * 0.8
        ("overlay", 0.75, 0.8, 0.9),  # backdrop light: 1 - 2 * 0.25 * 0.2
        ("soft light", 0.4, 0.3, 0.304),  # 0.4 - 0.4 * 0.4 * 0.6
        ("soft light", 0.2, 0.8, 0.2 + 0.6 * (((16 * 0.2 - 12) * 0.2 + 4) * 0.2 - 0.2)),
        ("soft light", 0.64, 0.75, 0.72),  # 0.64 + 0.5 * (sqrt(0.64) - 0.64)
        ("add", 0.3, 0.5, 0.8),
        ("add", 0.3, 0.8, 1.0),
    ],
)
def test_blend_modes_match_the_formulas(mode, backdrop, source, expected):
    found = BLEND_MODES[mode](np.float64([backdrop]), np.float64([source]))
    assert found[0] == pytest.approx(expected)
    half = paint_over(np.float64([[backdrop] * 3]), np.float64([[source / 2] * 3 + [0.5]]), mode)
    assert half[0] == pytest.approx([(backdrop + expected) / 2] * 3)


@pytest.mark.parametrize("mode", BLEND_MODES)
@pytest.mark.parametrize("seed", range(3))
def test_blending_stays_in_range_and_leaves_what_is_transparent(mode, seed):
    rng = np.random.default_rng(seed)
    base = rng.random((50, 3))
    alpha = rng.random((50, 1))
    alpha[:10] = 0
    out = paint_over(base, np.hstack([rng.random((50, 3)) * alpha, alpha]), mode)
    assert out.min() >= -1e-12
    assert out.max() <= 1 + 1e-12
    assert (out[:10] == base[:10]).all()


def test_an_unknown_mode_is_the_callers_mistake():
    with pytest.raises(ValueError, match="mode must be one of normal"):
        paint_over(np.zeros((1, 3)), np.zeros((1, 4)), "burn")


# --- reading


def test_rgba_channels_arrive_in_order(tmp_path):
    rgba = np.zeros((2, 3, 4), np.uint8)
    rgba[0, 1] = (10, 20, 30, 40)
    write_rgb(tmp_path / "a.png", rgba)
    picture = read_picture(tmp_path / "a.png")
    assert picture.rgb[0, 1] * 255 == pytest.approx([10, 20, 30])
    assert picture.alpha[0, 1] * 255 == pytest.approx(40)
    assert picture.premultiplied()[0, 1] * 255 == pytest.approx(
        [10 * 40 / 255, 20 * 40 / 255, 30 * 40 / 255, 40]
    )


@pytest.mark.parametrize(
    ("data", "rgb", "alpha"),
    [
        (png(1, 1, 8, 2, b"\0\x0a\x14\x1e"), (10 / 255, 20 / 255, 30 / 255), None),
        (png(1, 1, 8, 0, b"\0\x33"), (0.2, 0.2, 0.2), None),
        (png(1, 1, 8, 4, b"\0\x33\x66"), (0.2, 0.2, 0.2), 0.4),
        (png(1, 1, 1, 0, b"\0\x80"), (1, 1, 1), None),
        (
            png(1, 1, 16, 6, b"\0" + struct.pack(">4H", 1000, 2000, 3000, 4000)),
            (1000 / 65535, 2000 / 65535, 3000 / 65535),
            4000 / 65535,
        ),
        (
            png(1, 1, 8, 3, b"\0\1", chunk(b"PLTE", bytes(range(6))), chunk(b"tRNS", b"\xff\x33")),
            (3 / 255, 4 / 255, 5 / 255),
            0.2,
        ),
    ],
    ids=["rgb", "grey", "grey-alpha", "1-bit", "16-bit", "palette"],
)
def test_every_png_mode_gives_the_right_colours(tmp_path, data, rgb, alpha):
    path = tmp_path / "a.png"
    path.write_bytes(data)
    picture = read_picture(path)
    assert picture.rgb[0, 0] == pytest.approx(rgb, abs=1e-6)
    assert (picture.alpha is None) == (alpha is None)
    if alpha is not None:
        assert picture.alpha[0, 0] == pytest.approx(alpha, abs=1e-6)


def damaged_png():
    data = bytearray(png(4, 4, 8, 6, bytes(68)))
    data[45] ^= 0xFF  # inside the pixels
    return bytes(data)


def cmyk_jpeg():
    """The header of a four-component JPEG; what is read stops there."""
    frame = struct.pack(">BHHB", 8, 4, 4, 4) + bytes([1, 17, 0, 2, 17, 0, 3, 17, 0, 4, 17, 0])
    return b"\xff\xd8\xff\xe0\0\4ab\xff\xc0" + struct.pack(">H", len(frame) + 2) + frame


def cmyk_tiff(order):
    entry = struct.pack(order + "HHIHH", 262, 3, 1, 5, 0)
    magic = b"II*\0" if order == "<" else b"MM\0*"
    return magic + struct.pack(order + "IH", 8, 1) + entry + bytes(4)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the file is empty"),
        (b"not a picture at all", "not a readable picture"),
        (png(4, 4, 8, 6, bytes(68))[:-20], "cut off"),
        (damaged_png(), "damaged"),
        (png(1, 1, 8, 2, b"\0\1\2\3", chunk(b"acTL", bytes(8))), "animated PNG"),
        (cmyk_jpeg(), "CMYK"),
        (cmyk_tiff("<"), "CMYK"),
        (cmyk_tiff(">"), "CMYK"),
        (b"GIF89a....", "GIF"),
        (b"RIFF\0\0\0\0WEBPVP8X" + bytes(14) + b"ANIM", "animated"),
        (b"8BPS\0\1", "PSD"),
        (b"\xff\xd8\xff", "JPEG is damaged"),
    ],
)
def test_bad_files_are_refused_in_one_line(tmp_path, data, message, capfd):
    path = tmp_path / "a.png"
    path.write_bytes(data)
    with pytest.raises(InputError, match=message) as caught:
        read_picture(path)
    assert "a.png" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"gone\.png: not found"):
        read_picture(tmp_path / "gone.png")


# --- paint on a canvas


def save(path, rgba):
    write_rgb(path, rgba)
    return LayerPaint(layer="sky", path=str(path))


def test_paint_of_the_atlas_size_lies_texel_on_texel(tmp_path):
    rgba = np.random.default_rng(0).integers(0, 256, (12, 20, 4), dtype=np.uint8)
    paint = open_layer_paint(save(tmp_path / "p.png", rgba), LAYER)
    found = paint.sample(pixel_grid(CANVAS), 0.0)
    straight = rgba / 255.0
    straight[..., :3] *= straight[..., 3:]
    assert found == pytest.approx(straight, abs=1e-6)


def test_paint_of_twice_the_size_covers_the_same_area(tmp_path):
    # A ramp in x; twice as fine. Edges coincide, so texel u lies at 2 u + 0.5.
    rgba = np.full((24, 40, 4), 255, np.uint8)
    rgba[..., 0] = 5 * np.arange(40)
    paint = open_layer_paint(save(tmp_path / "p.png", rgba), LAYER)
    # Rendered at the paint's own resolution nothing is lost: a source larger than the fit.
    found = paint.sample(pixel_grid(CANVAS, Size(24, 40)), 0.0)
    assert found[..., 0] * 255 == pytest.approx(rgba[..., 0], abs=1e-3)
    coarse = paint.sample(pixel_grid(CANVAS), 0.0)
    expected = 5 * (2 * np.arange(20) + 0.5)
    # 0.5 levels: at the borders the half-size level repeats its outermost texel.
    assert coarse[6, 1:-1, 0] * 255 == pytest.approx(expected[1:-1], abs=0.5)


def test_filtering_does_not_bleed_the_colour_of_transparent_texels(tmp_path):
    rgba = np.zeros((12, 20, 4), np.uint8)
    rgba[..., :3] = (0, 255, 0)  # loud colour where nothing is painted
    rgba[:, 10:] = (200, 100, 50, 255)
    paint = open_layer_paint(save(tmp_path / "p.png", rgba), LAYER)
    found = paint.sample(pixel_grid(CANVAS) - np.float32([0.4, 0]), 0.0)
    alpha = found[..., 3:]
    edge = (alpha[..., 0] > 0.01) & (alpha[..., 0] < 0.99)
    assert edge.any()
    straight = found[..., :3] / np.maximum(alpha, 1e-6)
    assert np.abs(straight[edge] * 255 - [200, 100, 50]).max() < 0.01


def test_outside_the_canvas_there_is_no_paint(tmp_path):
    paint = open_layer_paint(save(tmp_path / "p.png", np.full((12, 20, 4), 255, np.uint8)), LAYER)
    uv = pixel_grid(CANVAS) + np.float32([25, 0])
    uv[0, 0] = np.nan
    assert (paint.sample(uv, 0.0) == 0).all()


@pytest.mark.parametrize(
    ("height", "width", "fits"),
    [(12, 20, True), (120, 203, True), (120, 205, False), (20, 12, False), (1, 1, False)],
)
def test_aspect_must_be_the_canvas_s_within_two_percent(tmp_path, height, width, fits):
    assert same_aspect(Size(height, width), CANVAS) == fits
    edit = save(tmp_path / "p.png", np.zeros((height, width, 4), np.uint8))
    if fits:
        open_layer_paint(edit, LAYER)
    else:
        with pytest.raises(InputError, match=f"is {width}x{height}, but the atlas .* is 20x12"):
            open_layer_paint(edit, LAYER)


# --- sampling without aliasing


def test_levels_count_texels_per_pixel():
    xy = pixel_grid(Size(40, 60))
    assert levels_of(xy) == pytest.approx(0, abs=1e-5)
    assert levels_of(xy * 4) == pytest.approx(2, abs=1e-5)
    assert levels_of(xy * np.float32([1, 7**0.5])) == pytest.approx(1, abs=1e-5)  # rms of 1, 7
    assert levels_of(xy[:, :1] * 2) == pytest.approx(1, abs=1e-5)  # one column
    assert levels_of(xy[:1, :1]) == pytest.approx(0)


@pytest.mark.parametrize(("ratio", "least_db"), [(1.5, 27), (2.8, 25), (4, 45)])
def test_minified_noise_agrees_with_area_averaging(ratio, least_db):
    # White noise is the worst case. Unfiltered sampling reaches 28, 16 and 18 dB.
    fine = np.random.default_rng(1).random((round(60 * ratio), round(90 * ratio), 3), np.float32)
    size = Size(*fine.shape[:2])
    truth = cv2.resize(fine, (90, 60), interpolation=cv2.INTER_AREA)
    found = Pyramid(fine).sample(pixel_grid(size, Size(60, 90)))
    # Measured: 29, 26 and 151 dB (a ratio of 4 is a level exactly).
    assert -10 * np.log10(np.mean((found - truth)[4:-4, 4:-4] ** 2)) > least_db


def test_a_perspective_view_takes_each_level_where_it_belongs():
    # Magnification from 1 to 8 across the picture: near texels stay sharp, far ones average out.
    fine = np.random.default_rng(2).random((64, 1024, 3), np.float32)
    u = np.cumsum(np.geomspace(1, 8, 300)).astype(np.float32)
    xy = np.dstack(np.broadcast_arrays(u, np.arange(0, 64, 1, dtype=np.float32)[:, None]))
    found = Pyramid(fine).sample(xy)
    assert found[:, :40].std() > 2 * found[:, 260:].std()


def test_uint8_textures_stay_uint8():
    texels = np.random.default_rng(3).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    found = Pyramid(texels).sample(pixel_grid(Size(30, 40)))
    assert found.dtype == np.uint8
    assert (found == texels).all()
