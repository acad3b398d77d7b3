"""Hand-over: files against the exact mapping and our own render; scripts run from files alone."""

import json
import re
import subprocess
import sys

import cv2
import numpy as np
import pytest

from atlas import ffmpeg
from atlas.clip import write_rgb
from atlas.coords import Size, pixel_grid, pixel_to_st, st_to_pixel
from atlas.errors import InputError
from atlas.texture import render, sample
from edits.apply import RenderContext
from edits.exr import read_exr, write_exr
from edits.flatten import FlatPaint
from edits.fusion_script import fusion_script, read_fusion_script
from edits.handover import HandOver, HandOverLayer, HandOverPaint
from edits.inverse import invert_uv
from edits.nuke_script import nuke_script, read_nuke_script
from edits.stmap import (
    ExportOptions,
    ExportSource,
    export_stmaps,
    inverse_pixels,
    stmap_pixels,
)
from tests.compositor import read_rgba, run_fusion, run_nuke, st_sample
from tests.exact_mapping import AffineMapping
from tests.handover_scene import FIRST, LAST, LEAD, SIZE, Exact, psnr_db

pytest.importorskip("OpenEXR", reason="hand-over needs the extra 'handover'")


@pytest.fixture(scope="module")
def exact(tmp_path_factory):
    return Exact(tmp_path_factory.mktemp("handover"))


# --- coordinates and files


def test_st_coordinates_are_pinned():
    size = Size(height=20, width=50)
    corners = np.array([[0, 0], [49, 19], [-0.5, 19.5], [24.5, 9.5]], np.float32)
    expected = [[0.01, 0.975], [0.99, 0.025], [0, 0], [0.5, 0.5]]
    np.testing.assert_allclose(pixel_to_st(corners, size), expected, atol=1e-7)
    np.testing.assert_allclose(st_to_pixel(pixel_to_st(corners, size), size), corners, atol=1e-5)
    with pytest.raises(ValueError, match="st must end in a dimension of 2"):
        st_to_pixel(np.zeros((4, 3)), size)


def test_stmap_of_a_known_shift():
    mapping = AffineMapping(np.ones((8, 13), np.float32), Size(height=20, width=50))
    uv = mapping.frame(2).uv[1]  # texel = pixel + (4, 2)
    uv[3, 5] = np.nan
    st = stmap_pixels(uv, Size(height=20, width=50))
    assert st.dtype == np.float32
    np.testing.assert_allclose(st[0, 0], [4.5 / 50, 1 - 2.5 / 20, 0], atol=1e-7)
    np.testing.assert_allclose(st[7, 12], [16.5 / 50, 1 - 9.5 / 20, 0], atol=1e-7)
    np.testing.assert_array_equal(st[3, 5], [-1, -1, 0])


@pytest.mark.parametrize("shape", [(7, 5), (7, 5, 3), (7, 5, 4)])
@pytest.mark.parametrize("kind", [np.float32, np.float16])
def test_exr_keeps_values_and_type(tmp_path, shape, kind):
    pixels = np.random.default_rng(0).normal(0, 3, shape).astype(kind)
    write_exr(tmp_path / "a.exr", pixels, "a note")
    back = read_exr(tmp_path / "a.exr")
    assert back.dtype == kind
    np.testing.assert_array_equal(back, pixels)
    import OpenEXR

    with OpenEXR.File(str(tmp_path / "a.exr"), separate_channels=True) as file:
        names = "Y" if len(shape) == 2 else "RGBA"[: shape[2]]
        assert sorted(file.channels()) == sorted(names)
        assert file.header()["compression"] == OpenEXR.ZIP_COMPRESSION
        assert file.header()["comments"] == "a note"
    assert [p.name for p in tmp_path.iterdir()] == ["a.exr"]


def test_exr_mistakes(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="pixels must be"):
        write_exr(tmp_path / "a.exr", np.zeros((4, 4, 2), np.float32))
    with pytest.raises(InputError, match=r"nothing\.exr: not found"):
        read_exr(tmp_path / "nothing.exr")
    (tmp_path / "bad.exr").write_bytes(b"v/1\x01 no picture")
    with pytest.raises(InputError, match=r"bad\.exr: not a readable EXR"):
        read_exr(tmp_path / "bad.exr")
    monkeypatch.setitem(sys.modules, "OpenEXR", None)
    with pytest.raises(InputError, match=r"pip install '.\[handover\]'"):
        write_exr(tmp_path / "a.exr", np.zeros((4, 4), np.float32))


# --- inverse


def test_inverse_agrees_with_the_exact_motion(exact):
    for t in (0, 3):
        found = exact.mapping.frame(t)
        for i, layer in enumerate(exact.scene.layers):
            inverse = invert_uv(found.uv[i], layer.canvas)
            true = layer.motion.to_frame(t, pixel_grid(layer.canvas).astype(np.float64))
            outside = np.maximum(-0.5 - true, true - (np.array(SIZE.wh) - 0.5)).max(-1)
            # the tolerance on the way back is 0.05 texels, which is less than 0.1 px here
            assert inverse.found[outside < -0.1].all()
            assert not inverse.found[outside > 0.1].any()
            error = np.linalg.norm(inverse.xy - true, axis=-1)[inverse.found & (outside < -1)]
            # bilinear between pixels against a bend of 1 px over tens of pixels
            assert error.max() < 0.02


def test_inverse_of_magnified_and_unseen_canvases():
    xy = pixel_grid(Size(height=9, width=14))
    uv = xy * np.float32(7.3) + np.array([11, 5], np.float32)  # texels far finer than pixels
    inverse = invert_uv(uv, Size(height=90, width=130))
    np.testing.assert_allclose(inverse.xy[40, 60], (np.array([60, 40]) - [11, 5]) / 7.3, atol=1e-3)
    columns = np.flatnonzero(inverse.found.any(0))
    assert (columns[0], columns[-1]) == (8, 109)  # 11 - 7.3 / 2 = 7.35; 11 + 7.3 * 13.5 = 109.55
    assert not invert_uv(uv + 900, Size(height=90, width=130)).found.any()
    assert not invert_uv(np.full((9, 14, 2), np.nan, "f4"), Size(height=9, width=9)).found.any()


def test_inverse_validity_is_the_share_of_the_layer():
    uv = pixel_grid(Size(height=10, width=16)) + np.array([3, 2], np.float32)
    share = np.full((10, 16), 0.25, np.float32)
    pixels = inverse_pixels(uv, share, Size(height=18, width=30))
    assert pixels[6, 8, 3] == 0.25
    np.testing.assert_allclose(pixels[6, 8, :2], [5.5 / 16, 1 - 4.5 / 10], atol=1e-6)
    np.testing.assert_array_equal(pixels[0, 0], [-1, -1, 0, 0])
    assert (pixels[..., 3] > 0).sum() == 160


# --- the folder


def test_folder_holds_what_it_says(exact):
    facts = json.loads((exact.folder / "handover.json").read_text())
    assert (facts["first"], facts["last"]) == (FIRST, LAST)
    for row in facts["layers"]:
        for pattern in row["files"]:
            frames = range(FIRST, LAST + 1) if "%" in pattern else [0]
            for frame in frames:
                assert (exact.folder / (pattern % frame if "%" in pattern else pattern)).is_file()
    stmaps = sorted(p.name for p in (exact.folder / "stmap" / "sky").iterdir())
    assert stmaps == [f"sky.{t:05d}.exr" for t in range(FIRST, LAST + 1)]
    sky = exact.mapping.layers[-1].canvas
    inverse = exact.read("inverse/sky/sky.%05d.exr", FIRST)
    assert inverse.shape == (sky.height, sky.width, 4)
    np.testing.assert_array_equal(
        exact.read("plate/plate.%05d.png", 2)[..., :3] * 255, exact.frames[2]
    )
    assert (exact.folder / "atlas/sky.tif").read_bytes()[:4] == b"II*\0"
    sky_row = facts["layers"][-1]
    assert [row["blend"] for row in sky_row["paints"]] == ["normal", "multiply", "screen"]


def test_atlases_warped_from_files_alone_equal_our_render(exact):
    for frame in range(FIRST, LAST + 1):
        whole = 0
        found = exact.mapping.frame(frame - LEAD)
        for i, name in enumerate(exact.names):
            atlas = read_rgba(exact.folder / f"atlas/{name}.tif")
            st = exact.read(f"stmap/{name}/{name}.%05d.exr", frame)
            warped = st_sample(atlas, st[..., 0], st[..., 1], "repeat")[..., :3]
            ours = sample(exact.textures[i].rgb, found.uv[i])
            assert psnr_db(warped, ours) > 90  # 16-bit levels of the atlas
            share = exact.read(f"matte/{name}/{name}.%05d.png", frame)[..., :1]
            whole = whole + share * warped
        ours = render(exact.mapping, exact.textures, frame - LEAD)
        assert psnr_db(whole, ours) > 90


def test_opencv_remap_follows_the_files(exact):
    st = read_exr(exact.folder / f"stmap/sky/sky.{FIRST:05d}.exr")
    atlas = read_rgba(exact.folder / "atlas/sky.tif")[..., :3].astype(np.float32)
    height, width = atlas.shape[:2]
    x, y = st[..., 0] * width - 0.5, (1 - st[..., 1]) * height - 0.5
    warped = cv2.remap(atlas, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    ours = sample(exact.textures[-1].rgb, exact.mapping.frame(FIRST - LEAD).uv[-1])
    assert psnr_db(warped, ours) > 80  # float32 positions


@pytest.mark.parametrize(("scale", "least_db"), [(1, 30), (16, 50)])
def test_ffmpeg_remap_follows_the_files(exact, tmp_path, scale, least_db):
    """ffmpeg takes the nearest whole texel; an atlas enlarged 16 times leaves 1/32 texel of it."""
    st = read_exr(exact.folder / f"stmap/sky/sky.{FIRST:05d}.exr")
    canvas = exact.mapping.layers[-1].canvas
    x = np.rint(st[..., 0] * canvas.width * scale - 0.5)
    y = np.rint((1 - st[..., 1]) * canvas.height * scale - 0.5)
    for name, values in (("x", x), ("y", y)):
        write_rgb(tmp_path / f"{name}.png", values.clip(0, 65535).astype(np.uint16))
    rule = (
        f"[0]scale={canvas.width * scale}:{canvas.height * scale}:flags=bilinear+accurate_rnd,"
        "format=gbrp16[a];[a][1][2]remap,format=rgb48"
    )
    atlas = exact.folder / "atlas/sky.tif"
    inputs = [part for p in (atlas, tmp_path / "x.png", tmp_path / "y.png") for part in ("-i", p)]
    out = tmp_path / "warped.png"
    subprocess.run([ffmpeg.executable(), "-v", "error", *inputs, "-filter_complex", rule,
                    "-frames:v", "1", out], check=True)  # fmt: skip
    warped = read_rgba(out)[..., :3]
    ours = sample(exact.textures[-1].rgb, exact.mapping.frame(FIRST - LEAD).uv[-1])
    assert psnr_db(warped, ours) > least_db


def test_inverse_maps_lead_back(exact):
    """Where a texel is said to lie in the frame, the ST map says that texel."""
    for name in exact.names:
        st = exact.read(f"stmap/{name}/{name}.%05d.exr", 2)
        inverse = exact.read(f"inverse/{name}/{name}.%05d.exr", 2)
        height, width = inverse.shape[:2]
        back = st_sample(st, inverse[..., 0], inverse[..., 1], "repeat")
        x, y = back[..., 0] * width - 0.5, (1 - back[..., 1]) * height - 0.5
        miss = np.hypot(x - np.arange(width), y - np.arange(height)[:, None])
        s, t = inverse[..., 0] * SIZE.width, inverse[..., 1] * SIZE.height
        inner = (s > 0.5) & (s < SIZE.width - 0.5) & (t > 0.5) & (t < SIZE.height - 0.5)
        assert inner.mean() > 0.3
        assert miss[inner].max() < 0.05


# --- scripts


def test_nuke_script_rebuilds_the_edit(exact):
    nodes = read_nuke_script((exact.folder / "rebuild.nk").read_text())
    (wanted,) = nodes["Result"].inputs
    for frame in range(FIRST, LAST + 1):
        rebuilt = run_nuke(nodes, exact.folder, frame, wanted)[..., :3]
        check_rebuilt(exact, frame, rebuilt)


def check_rebuilt(exact, frame, rebuilt):
    ours = exact.edited[frame] / 255
    shares = exact.mapping.frame(frame - LEAD).visible()
    pure = (shares.max(0) > 0.999)[..., None] & np.ones(3, bool)
    assert psnr_db(exact.frames[frame] / 255, ours) < 20  # the edit is not small
    assert psnr_db(rebuilt[pure], ours[pure]) > 50  # 8-bit rounding of our render is 58.9 dB
    # at mixed pixels our render also follows how the colours near by differ from the atlas
    assert psnr_db(rebuilt, ours) > 36


@pytest.mark.parametrize("corner", [0.0, 0.5])
def test_fusion_script_does_the_same(exact, corner):
    tools = read_fusion_script((exact.folder / "rebuild.comp").read_text())
    rebuilt = run_fusion(tools, exact.folder, 2, tools["Result"].links["Input"], corner)
    nodes = read_nuke_script((exact.folder / "rebuild.nk").read_text())
    (wanted,) = nodes["Result"].inputs
    np.testing.assert_allclose(
        rebuilt[..., :3], run_nuke(nodes, exact.folder, 2, wanted)[..., :3], atol=1e-6
    )


def test_scripts_unwrap_the_plate(exact):
    nodes = read_nuke_script((exact.folder / "rebuild.nk").read_text())
    tools = read_fusion_script((exact.folder / "rebuild.comp").read_text())
    ours = run_nuke(nodes, exact.folder, 2, "Unwrapped_sky")
    sky = read_rgba(exact.folder / "inverse/sky/sky.00002.exr")
    np.testing.assert_array_equal(ours[..., 3], sky[..., 3])
    valid = sky[..., 3:] > 0
    theirs = run_fusion(tools, exact.folder, 2, "Unwrapped_sky")
    np.testing.assert_allclose(theirs * valid, ours * valid, atol=1e-6)
    pure = sky[..., 3] == 1
    texture = exact.textures[-1].rgb[pure]
    assert psnr_db(ours[..., :3][pure], texture) > 34  # sampled twice


TWO = (HandOverPaint(Size(60, 80)), HandOverPaint(Size(60, 80), "overlay"))
LAYERS = (
    HandOverLayer(name="fore ground", canvas=Size(30, 40), paints=TWO, has_shading=True),
    HandOverLayer(
        name="sky", canvas=Size(31, 44), paints=(HandOverPaint(Size(31, 44)),), has_atlas=False
    ),
)
HANDOVER = HandOver(frame=Size(48, 64), first=7, last=19, fps=25, layers=LAYERS)


def test_scripts_without_atlas_or_with_odd_names_hold_together():
    nodes = read_nuke_script(nuke_script(HANDOVER))
    assert nodes["PlateShare_sky"].kind == "Copy"
    assert "Own_sky" not in nodes
    assert nodes["Change_sky"].inputs == ("PlateShare_sky", "Painted_sky")
    assert nodes["Painted_sky"].inputs == ("PlateShare_sky", "PaintWarp_sky")
    assert nodes["Painted_fore_ground"].inputs == ("Own_fore_ground", "PaintShaded_fore_ground")
    assert nodes["Change_fore_ground"].inputs == ("Own_fore_ground", "Painted2_fore_ground")
    assert nodes["Paint2_fore_ground"].knobs["file"] == "paint/fore ground_2.png"
    assert nodes["With_sky"].inputs == ("Plate", "Change_sky")
    assert nodes["With_fore_ground"].inputs == ("With_sky", "Change_fore_ground")
    assert nodes["STMap_fore_ground"].knobs["file"] == LAYERS[0].stmap
    tools = read_fusion_script(fusion_script(HANDOVER))
    assert tools["Own_sky"].links == {"Image1": "PlateFloat", "Image2": "Share_sky"}
    assert tools["With_fore_ground"].links["Image1"] == "With_sky"


def test_broken_scripts_are_found():
    text = nuke_script(HANDOVER)
    for broken, message in (
        (text.replace("push $NPlate\n", "", 1) + "push $NNobody\n", "before it was set"),
        (text.replace("name Plate\n", "name rebuild\n"), "comes twice"),
        (text.rstrip()[:-1], "not closed"),
        (text.replace(" raw true", " raw true false", 1), "no knob"),
        (text.replace("push", "pull", 1), "no node, set or push"),
        (re.sub(r"push \$\w+\n|set \w+ \[stack 0\]\n", "", text).replace(" inputs 0", " inputs 9"),
         "wants 9 inputs"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            read_nuke_script(broken)
    comp = fusion_script(HANDOVER)
    for broken, message in (
        (comp.replace("PlateFloat = ", "Other = "), "linked to PlateFloat, which is not there"),
        (comp + "}", "goes on after its end"),
        (comp.replace("Length = 13,", "Length = 13", 1), "wanted , or }"),
        (comp.replace("Length = 13,", "Length == 13,", 1), "wanted a value"),
        (comp.replace("Depth = 0,", "Loop = 0,", 1), "Loop comes twice"),
        (comp.replace("Loop = 0", "Loop = ?"), "no Lua table"),
    ):
        with pytest.raises(ValueError, match=message):
            read_fusion_script(broken)


# --- mistakes


def test_mistakes_leave_nothing(exact, tmp_path):
    def export(folder, **options):
        return export_stmaps(folder, exact.source, ExportOptions(**options))

    with pytest.raises(InputError, match="0:3: wanted frames within 1:5"):
        export(tmp_path / "a", first=0, last=3)
    with pytest.raises(InputError, match="4:2: wanted frames within"):
        export(tmp_path / "a", first=4, last=2)
    with pytest.raises(InputError, match="no layer called 'tree'"):
        export(tmp_path / "a", paints={"tree": []})
    short = ExportSource(mapping=exact.mapping, frames=exact.frames[:1], context=exact.context)
    with pytest.raises(InputError, match="the source ends before frame 1"):
        export_stmaps(tmp_path / "a", short)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match="not empty; name a new folder"):
        export(exact.folder)


def test_fast_path_has_mattes_and_maps_without_atlases(tmp_path):
    alpha = np.zeros((18, 26), np.float32)
    alpha[9:] = 1
    mapping = AffineMapping(alpha, Size(height=30, width=44), frame_count=3)
    frames = [np.full((18, 26, 3), 40 * t, np.uint8) for t in range(3)]
    source = ExportSource(mapping=mapping, frames=frames, context=RenderContext())
    paint = [FlatPaint(np.ones((30, 44, 4), np.float32) * np.array([1, 0.5, 0, 1], "f4"))]
    export_stmaps(tmp_path / "out", source, ExportOptions(first=1, last=2, paints={"sky": paint}))
    assert mapping.observed == [0, 1, 2]  # every frame, in order, also those before the range
    nodes = read_nuke_script((tmp_path / "out/rebuild.nk").read_text())
    rebuilt = run_nuke(nodes, tmp_path / "out", 2, nodes["Result"].inputs[0])[..., :3]
    np.testing.assert_allclose(rebuilt[:9] - [1, 0.5, 0], 0, atol=1e-4)
    np.testing.assert_allclose(rebuilt[9:], 80 / 255, atol=1e-9)
    assert not (tmp_path / "out/atlas").exists()
    facts = json.loads((tmp_path / "out/handover.json").read_text())
    assert not any("atlas" in file for file in facts["layers"][1]["files"])
    empty = read_rgba(tmp_path / "out/paint/foreground.png")  # to paint on
    assert empty.shape == (18, 26, 4)
    assert empty.max() == 0
