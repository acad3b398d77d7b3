"""Atlases to paint on, and OpenRaster files there and back, against the published layout."""

import io
import logging
import zipfile
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest

from atlas.coords import Size
from atlas.errors import InputError
from atlas.mapping import Layer
from atlas.texture import Texture
from edits.export_atlas import export_atlases, grid_picture, grid_step
from edits.openraster import (
    PaintLayer,
    StoredLayer,
    paints_by_layer,
    place,
    read_ora,
    write_ora,
)
from tests.compositor import read_rgba

SIZE = Size(height=23, width=37)


def solid(height, width, rgba, dtype=np.uint8):
    return np.full((height, width, 4), rgba, dtype)


def decode(data):
    bgra = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    return cv2.cvtColor(bgra, cv2.COLOR_BGRA2RGBA)


def edit_stack(path, change):
    """Rewrite stack.xml of a file with `change(text)`, as another program would have it."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    parts["stack.xml"] = change(parts["stack.xml"].decode()).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    return path


# --- OpenRaster: the file


def test_file_layout_follows_the_specification(tmp_path):
    big = Size(height=300, width=700)
    top = solid(300, 700, (255, 0, 0, 51))
    write_ora(tmp_path / "a.ora", big, [StoredLayer(name="é <top>", rgba=top)])
    data = (tmp_path / "a.ora").read_bytes()
    assert data[30:54] == b"mimetypeimage/openraster"  # first in the file, stored as it is
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        assert {"stack.xml", "mergedimage.png", "Thumbnails/thumbnail.png"} < set(
            archive.namelist()
        )
        thumbnail = decode(archive.read("Thumbnails/thumbnail.png"))
        merged = decode(archive.read("mergedimage.png"))
        image = ElementTree.fromstring(archive.read("stack.xml"))
    assert thumbnail.shape == (110, 256, 4)
    assert thumbnail.dtype == np.uint8
    assert (merged == [255, 0, 0, 51]).all()
    assert (image.tag, image.get("w"), image.get("h")) == ("image", "700", "300")
    (layer,) = image.findall("stack/layer")
    assert layer.get("name") == "é <top>"
    assert layer.get("composite-op") == "svg:src-over"


def test_merged_picture_blends(tmp_path):
    layers = [
        StoredLayer(
            name="c", rgba=solid(23, 37, (128, 255, 0, 255)), blend="multiply", opacity=0.5
        ),
        StoredLayer(name="hidden", rgba=solid(23, 37, (9, 9, 9, 255)), visible=False),
        StoredLayer(name="a", rgba=solid(10, 20, (200, 100, 50, 255)), x=30, y=-5),
    ]
    write_ora(tmp_path / "a.ora", SIZE, layers)
    with zipfile.ZipFile(tmp_path / "a.ora") as archive:
        merged = decode(archive.read("mergedimage.png")).astype(int)
    # over the layer below: half way to the product; over nothing: the layer itself at half
    expected = [200 * (1 + 128 / 255) / 2, 100, 25, 255]
    np.testing.assert_allclose(merged[4, 36], expected, atol=1)
    np.testing.assert_allclose(merged[5, 36], [128, 255, 0, 128], atol=1)
    np.testing.assert_allclose(merged[4, 29], [128, 255, 0, 128], atol=1)


# --- OpenRaster: reading back


def test_layers_come_back_in_the_order_in_which_they_apply(tmp_path):
    rng = np.random.default_rng(0)
    deep = rng.integers(0, 65536, (6, 9, 4)).astype(np.uint16)
    layers = [
        StoredLayer(name="top", rgba=deep, x=30, y=20, opacity=0.25, blend="soft light"),
        StoredLayer(name="unseen", rgba=deep, visible=False, blend="add"),
        StoredLayer(name="bottom", rgba=solid(23, 37, (10, 20, 30, 40)), x=-3, y=2, blend="add"),
    ]
    write_ora(tmp_path / "a.ora", SIZE, layers)
    bottom, top = read_ora(tmp_path / "a.ora")
    assert (bottom.name, bottom.blend, top.name, top.blend) == (
        "bottom",
        "add",
        "top",
        "soft light",
    )
    assert top.rgba.shape == (23, 37, 4)
    expected = deep / 65535 * [1, 1, 1, 0.25]
    np.testing.assert_allclose(top.rgba[20:, 30:], expected[:3, :7], atol=1e-6)
    assert top.rgba[:20].max() == top.rgba[:, :30].max() == 0
    np.testing.assert_allclose(bottom.rgba[5, 5] * 255, [10, 20, 30, 40], atol=1e-5)
    assert bottom.rgba[:2].max() == bottom.rgba[:, 34:].max() == 0


def test_groups_add_their_place_and_hide_what_is_in_them(tmp_path):
    one = solid(2, 3, (255, 255, 255, 255))
    write_ora(tmp_path / "a.ora", SIZE, [StoredLayer(name="dot", rgba=one, x=4, y=1)])
    edit_stack(
        tmp_path / "a.ora",
        lambda text: (
            text.replace("<layer", '<stack name="sky" x="10" y="5"><stack name="clouds"><layer')
            .replace("</stack>", "</stack></stack></stack>")
            .replace('version="0.0.5"', 'version="0.0.3"')
        ),
    )
    (dot,) = read_ora(tmp_path / "a.ora")
    assert dot.groups == ("sky", "clouds")
    ys, xs = np.nonzero(dot.rgba[..., 3])
    assert (xs.min(), xs.max(), ys.min(), ys.max()) == (14, 16, 6, 7)
    edit_stack(tmp_path / "a.ora", lambda text: text.replace('y="5"', 'visibility="hidden"'))
    assert read_ora(tmp_path / "a.ora") == []


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("svg:src-over", "svg:color-dodge", "layer 'paint' has the blend mode svg:color-dodge"),
        ('opacity="1"', 'opacity="2"', "opacity is '2', wanted 0 to 1"),
        ('opacity="1"', 'opacity="nan"', "opacity is 'nan'"),
        ('x="0"', 'x="left"', "x is 'left', wanted pixels"),
        ("layer000.png", "gone.png", "data/gone.png is missing"),
        ('w="37"', 'w="370000"', "at most 32768 px"),
        ('w="37"', 'w="0"', "stack.xml is damaged"),
        ("<image", "<!DOCTYPE x><image", "declares a document type"),
        ("<image", "<picture", "stack.xml is damaged"),
        (
            "<stack>",
            '<stack><stack name="g" opacity="0.5"><layer src="data/layer000.png"/></stack>',
            "group 'g' blends as one",
        ),
        (
            "<stack>",
            '<stack><stack name="g" isolation="isolate"><layer name="b" '
            'composite-op="svg:multiply" src="data/layer000.png"/></stack>',
            "group 'g' blends as one",
        ),
    ],
)
def test_what_cannot_be_taken_is_said_in_one_line(tmp_path, old, new, message):
    path = tmp_path / "a.ora"
    write_ora(path, SIZE, [StoredLayer(name="paint", rgba=solid(5, 5, 200))])
    edit_stack(path, lambda text: text.replace(old, new))
    with pytest.raises(InputError, match=message) as error:
        read_ora(path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)


def test_damaged_files(tmp_path):
    path = tmp_path / "a.ora"
    with pytest.raises(InputError, match=r"a\.ora: not found"):
        read_ora(path)
    path.write_bytes(b"PK\x03\x04 no zip")
    with pytest.raises(InputError, match="not a readable OpenRaster file"):
        read_ora(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "hello")
    with pytest.raises(InputError, match=r"without stack\.xml"):
        read_ora(path)
    write_ora(path, SIZE, [StoredLayer(name="paint", rgba=solid(5, 5, 200))])
    data = bytearray(path.read_bytes())
    at = data.index(b"IDAT") + 8  # stored as it is, so the zip's checksum notices
    data[at] ^= 255
    path.write_bytes(bytes(data))
    with pytest.raises(InputError, match="not a readable OpenRaster file"):
        read_ora(path)


def test_names_pick_the_atlas(caplog):
    def named(name, *groups):
        return PaintLayer(name, np.zeros((1, 1, 4), np.float32), groups=groups)

    layers = [
        named("Sky: clouds"),
        named("skyline"),
        named("foreground"),
        named("sun", "sky"),
        named("fore ground 2", "other"),
        named("atlas"),
        named("Grid", "sky"),
    ]
    names = ("foreground", "fore ground", "sky")
    with caplog.at_level(logging.WARNING):
        picked = [(target, layer.name) for target, layer in paints_by_layer(layers, names)]
    assert picked == [
        ("sky", "Sky: clouds"),
        ("foreground", "foreground"),
        ("sky", "sun"),
        ("fore ground", "fore ground 2"),
    ]
    assert "'skyline' names none of the atlases" in caplog.text
    picked = [target for target, _ in paints_by_layer(layers, names, default="sky")]
    assert picked == ["sky", "sky", "foreground", "sky", "fore ground"]


def test_place_cuts_off_what_sticks_out():
    whole = np.zeros((4, 6), int)
    place(whole, np.arange(1, 7).reshape(2, 3), (-1, 3))
    assert whole[3].tolist() == [2, 3, 0, 0, 0, 0]
    place(whole, np.ones((2, 2), int), (6, 0))
    assert whole[:3].max() == 0


# --- what to paint on


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    rng = np.random.default_rng(3)
    layers, textures = [], []
    for name, size in (("foreground", Size(20, 31)), ("sky", Size(44, 90))):
        coverage = np.zeros((size.height, size.width), np.float32)
        coverage[: size.height // 2] = 1
        rgb = rng.random((size.height, size.width, 3), np.float32)
        layers.append(Layer(name, size))
        textures.append(Texture(rgb, coverage))
    folder = tmp_path_factory.mktemp("atlas") / "new" / "out"
    export_atlases(folder, layers, textures)
    return folder, textures


def test_atlas_pictures(exported):
    folder, textures = exported
    rgba = read_rgba(folder / "sky.png")
    np.testing.assert_allclose(rgba[..., :3], textures[1].rgb, atol=0.51 / 65535)
    np.testing.assert_array_equal(rgba[..., 3], textures[1].coverage)
    coverage = cv2.imread(str(folder / "foreground_coverage.png"), cv2.IMREAD_UNCHANGED)
    assert (coverage.shape, coverage.dtype) == ((20, 31), np.uint8)
    assert (coverage[9, 0], coverage[10, 0]) == (255, 0)


def test_openraster_has_the_layers_and_only_paint_counts(exported):
    folder, textures = exported
    with zipfile.ZipFile(folder / "sky.ora") as archive:
        image = ElementTree.fromstring(archive.read("stack.xml"))
        merged = decode(archive.read("mergedimage.png"))
    layers = {e.get("name"): e for e in image.findall("stack/layer")}
    assert list(layers) == ["paint", "grid", "coverage", "atlas"]
    assert [e.get("visibility") for e in layers.values()] == ["visible", "hidden"] + 2 * ["visible"]
    expected = np.rint(textures[1].rgb * 255)
    np.testing.assert_allclose(merged[:22, :, :3], expected[:22], atol=1)  # seen: as it is
    shaded = expected[22:] + (np.array([20, 0, 40]) - expected[22:]) * 150 / 255
    np.testing.assert_allclose(merged[22:, :, :3], shaded, atol=1)
    (paint,) = read_ora(folder / "sky.ora")
    assert paint.name == "paint"
    assert paint.rgba.shape == (44, 90, 4)
    assert paint.rgba.max() == 0


def test_export_replaces_nothing(exported):
    folder, _ = exported
    with pytest.raises(InputError, match="not empty; name a new folder"):
        export_atlases(folder, [], [])
    assert [p.name for p in folder.parent.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("size", "step"), [(Size(529, 1205), 100), (Size(310, 373), 20), (Size(90, 600), 50)]
)
def test_grid_lines_lie_on_whole_steps(size, step):
    assert grid_step(size) == step
    grid = grid_picture(size)
    assert grid.shape == (size.height, size.width, 4)
    on_line = grid[step // 2, :, 3] >= 220
    assert np.flatnonzero(on_line)[:3].tolist() == [0, step, 2 * step]
    red, green = grid[step // 2, :, 0].astype(int), grid[:, step // 2, 1].astype(int)
    assert (red[0], red[-1], green[0], green[-1]) == (0, 255, 0, 255)
    assert (np.diff(red) >= 0).all()
