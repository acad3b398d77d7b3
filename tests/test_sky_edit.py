"""Skies on the canvas: cover fit, mirrored borders, loops, panoramas, painted atlases."""

import cv2
import numpy as np
import pytest

from atlas.clip import write_rgb
from atlas.coords import Size, pixel_grid
from atlas.errors import InputError
from atlas.mapping import Layer
from atlas.panorama import perspective_view
from edits.paint import PicturePaint
from edits.panorama import encode_srgb, read_hdr, tone_map
from edits.picture import Picture
from edits.recipe import SkyEdit
from edits.sky import PanoramaSky, PictureSky, cover_fit, open_sky
from edits.sky_video import LoopedVideo
from edits.view import CanvasView, Region, frame_region, seen_region

CANVAS = Size(height=30, width=80)
LAYER = Layer("sky", CANVAS)
WHOLE = Region(-0.5, -0.5, 79.5, 29.5)
VIEW = CanvasView(seen=WHOLE, first_frame=Region(-0.5, -0.5, 49.5, 29.5))


def sky_edit(**keys):
    return SkyEdit(**{"source": "sky.png", **keys})


def ramp(height, width):
    """(H, W, 4) uint8 whose red is the column and green the row; opaque."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x, y, 0 * x, 0 * x + 255], -1).astype(np.uint8)


# --- cover fit


def test_cover_fit_is_pinned_for_a_wide_region():
    # 40x30 picture on 80x30 texels: width decides, 2 texels a pixel, rows 7.5 .. 22.5 are shown.
    place = cover_fit(Size(30, 40), VIEW, sky_edit())
    corners = np.float32([[-0.5, -0.5], [79.5, -0.5], [79.5, 29.5], [39.5, 14.5]])
    expected = [[-0.5, 7.0], [39.5, 7.0], [39.5, 22.0], [19.5, 14.5]]
    assert place.to_picture(corners) == pytest.approx(np.float32(expected))


def test_cover_fit_is_pinned_for_a_tall_region():
    # 40x10 picture on 20x30 texels at (10, 0): height decides, 3 texels a pixel.
    tall = Region(9.5, -0.5, 29.5, 29.5)
    place = cover_fit(Size(10, 40), CanvasView(tall, tall), sky_edit())
    corners = np.float32([[9.5, -0.5], [29.5, 29.5]])
    middle, half = 19.5, 20 / 3 / 2
    expected = [[middle - half, -0.5], [middle + half, 9.5]]
    assert place.to_picture(corners) == pytest.approx(np.float32(expected), abs=1e-5)


def test_scale_offset_and_flip():
    picture = Size(30, 80)
    at = np.float32([[39.5, 14.5]])
    assert cover_fit(picture, VIEW, sky_edit()).to_picture(at) == pytest.approx(at)
    moved = cover_fit(picture, VIEW, sky_edit(offset_x=0.25, offset_y=-0.1)).to_picture(at)
    assert moved == pytest.approx(np.float32([[39.5 - 20, 14.5 + 3]]))  # the sky moves right, up
    right = np.float32([[59.5, 14.5]])
    twice = cover_fit(picture, VIEW, sky_edit(scale=2.0)).to_picture(right)
    assert twice == pytest.approx(np.float32([[49.5, 14.5]]))
    turned = cover_fit(picture, VIEW, sky_edit(yaw_deg=7.0, field_of_view_deg=90.0)).to_picture(at)
    # 90 degrees over 50 texels: a focal length of 25 texels.
    assert turned == pytest.approx(np.float32([[39.5 + 25 * np.radians(7), 14.5]]))
    mirrored = cover_fit(picture, VIEW, sky_edit(flip=True)).to_picture(right)
    assert mirrored == pytest.approx(np.float32([[19.5, 14.5]]))


@pytest.mark.parametrize("seed", range(10))
def test_cover_fit_covers_and_keeps_the_shape(seed):
    rng = np.random.default_rng(seed)
    picture = Size(*(int(n) for n in rng.integers(3, 400, 2)))
    left, top = rng.uniform(-50, 50, 2)
    region = Region(left, top, left + rng.uniform(5, 300), top + rng.uniform(5, 300))
    place = cover_fit(picture, CanvasView(region, VIEW.first_frame), sky_edit())
    assert place.scale[0] == place.scale[1]
    corners = np.array([[region.left, region.top], [region.right, region.bottom]])
    (x0, y0), (x1, y1) = place.to_picture(corners)
    slack = 1e-2  # float32 positions in the hundreds
    assert x0 >= -0.5 - slack
    assert y0 >= -0.5 - slack
    assert x1 <= picture.width - 0.5 + slack
    assert y1 <= picture.height - 0.5 + slack


def test_beyond_its_border_a_sky_is_mirrored_without_a_seam():
    rgb = np.random.default_rng(0).random((30, 80, 3), np.float32)
    paint = PictureSky(sky_edit(), Picture(rgb, None)).place(CanvasView(WHOLE, WHOLE))
    wide = pixel_grid(Size(30, 240)) - np.float32([80, 0])
    found = paint.sample(wide, 0.0)
    assert (found[..., 3] == 1).all()
    assert found[:, 80:160, :3] == pytest.approx(rgb, abs=1e-6)
    assert found[:, :80, :3] == pytest.approx(rgb[:, ::-1], abs=1e-6)
    assert found[:, 160:, :3] == pytest.approx(rgb[:, ::-1], abs=1e-6)


# --- which pictures are paint for the atlas


@pytest.mark.parametrize(
    ("shape", "fit", "on_atlas"),
    [
        ((30, 80, 3), "auto", True),  # the atlas's own size
        ((30, 80, 4), "auto", True),
        ((60, 160, 4), "auto", True),  # its aspect, with alpha
        ((60, 160, 3), "auto", False),  # its aspect by chance: a photo of a sky
        ((40, 80, 4), "auto", False),
        ((60, 160, 3), "atlas", True),
        ((30, 80, 4), "cover", False),
    ],
)
def test_pictures_of_the_atlas_are_painted_one_to_one(tmp_path, shape, fit, on_atlas):
    write_rgb(tmp_path / "sky.png", np.full(shape, 99, np.uint8))
    edit = sky_edit(source=str(tmp_path / "sky.png"), fit=fit)
    assert isinstance(open_sky(edit, LAYER), PicturePaint) == on_atlas


def test_atlas_paint_lies_texel_on_texel_whatever_the_clip_sees(tmp_path):
    write_rgb(tmp_path / "sky.png", ramp(30, 80))
    source = open_sky(sky_edit(source=str(tmp_path / "sky.png")), LAYER)
    part = Region(10, 5, 40, 20)
    found = source.place(CanvasView(part, part)).sample(pixel_grid(CANVAS), 0.0)
    assert found * 255 == pytest.approx(ramp(30, 80), abs=1e-3)


def test_atlas_fit_refuses_another_aspect(tmp_path):
    write_rgb(tmp_path / "sky.png", ramp(40, 80))
    with pytest.raises(InputError, match=r"is 80x40, but the atlas of layer 'sky' is 80x30"):
        open_sky(sky_edit(source=str(tmp_path / "sky.png"), fit="atlas"), LAYER)


# --- where the clip looks


def test_seen_region_ignores_stray_texels():
    coverage = np.zeros((50, 70))
    coverage[10:30, 20:65] = 1
    coverage[48, 3] = 1
    assert seen_region(coverage) == Region(19.5, 9.5, 64.5, 29.5)
    assert seen_region(np.zeros((5, 6))) is None


def test_frame_region_is_the_frame_s_outline():
    assert frame_region(pixel_grid(Size(20, 31)) + np.float32([7, 3])) == Region(
        6.5, 2.5, 37.5, 22.5
    )
    assert frame_region(2 * pixel_grid(Size(20, 30))) == Region(-1, -1, 59, 39)
    mirrored = pixel_grid(Size(20, 30))[:, ::-1]
    assert frame_region(mirrored) == Region(-0.5, -0.5, 29.5, 19.5)


# --- sky videos


def numbered(count, opened=None):
    """A video whose frame i is uniformly of value 10 i."""

    def frames(start):
        if opened is not None:
            opened.append(start)
        for i in range(start, count):
            yield np.full((2, 3, 3), 10 * i, np.uint8)

    return frames


def test_a_loop_fades_instead_of_jumping():
    video = LoopedVideo(numbered(20), count=20, fps=4)
    assert (video.fade, video.period) == (4, 16)  # one second of 4 frames, under a quarter of 20
    shown = [int(video.frame(i)[0, 0, 0]) for i in range(70)]
    assert shown[:16] == [10 * i for i in range(16)]
    # Lap 2, frame k of 4: k + 1 fifths of frame k, the rest of frame 16 + k.
    expected = [10 * ((k + 1) / 5 * k + (4 - k) / 5 * (16 + k)) for k in range(4)]
    assert shown[16:20] == pytest.approx(expected, abs=1)
    assert shown[20:32] == [10 * i for i in range(4, 16)]
    assert shown[32:48] == shown[16:32]
    # A hard cut would jump by 190; one step of the fade is 160 / 5, less the film's own 10.
    assert np.abs(np.diff(shown)).max() <= 160 / 5 + 10


def test_a_loop_is_read_forward_only():
    opened = []
    video = LoopedVideo(numbered(20, opened), count=20, fps=4)
    for i in range(16 * 3):
        video.frame(i)
    assert opened == [0, 0, 0]  # once a lap; the reader that is left behind fades out


def test_time_and_speed_choose_the_frame():
    video = LoopedVideo(numbered(20), count=20, fps=10)
    shown = [int(video.at(t)[0, 0, 0]) for t in (0.0, 0.04, 0.0999, 0.3, 0.38)]
    assert shown == [0, 0, 10, 30, 30]


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_very_short_loops_play(count):
    video = LoopedVideo(numbered(count), count=count, fps=25)
    shown = [int(video.frame(i)[0, 0, 0]) for i in range(12)]
    assert max(shown) <= 10 * (count - 1)
    assert shown[0] == 0


def test_a_video_shorter_than_it_claims_goes_on():
    video = LoopedVideo(numbered(18), count=20, fps=4)
    assert [int(video.frame(i)[0, 0, 0]) for i in range(14, 17)] == [140, 150, 160 * 4 // 5]
    assert video.frame(19)[0, 0, 0] > 0


# --- panoramas


def test_panorama_directions_are_pinned():
    # Red is the column's share of 360 degrees, green the row's share of 180.
    height, width = 180, 360
    y, x = np.mgrid[:height, :width].astype(np.float32)
    panorama = np.stack([(x + 0.5) / width, (y + 0.5) / height, 0 * x], -1)
    size, axis = Size(41, 61), (30.0, 20.0)

    def at(x_px, y_px, angles):
        view = perspective_view(panorama, size, 30.0, axis, angles)
        return view[y_px, x_px, :2] * np.float32([360, 180])

    # 0.1 degree: bilinear samples of a ramp of 1 degree a pixel.
    assert at(30, 20, (0, 0)) == pytest.approx([180, 90], abs=0.1)  # straight ahead
    assert at(60, 20, (0, 0)) == pytest.approx([225, 90], abs=0.1)  # 30 px at focal 30: 45 degrees
    assert at(30, 0, (0, 0)) == pytest.approx([180, 90 - 33.69], abs=0.1)  # up: atan(20 / 30)
    assert at(30, 20, (40, 0)) == pytest.approx([220, 90], abs=0.1)  # yaw turns right
    assert at(30, 20, (0, 25)) == pytest.approx([180, 65], abs=0.1)  # pitch tilts up
    assert at(30, 20, (200, 0)) == pytest.approx([20, 90], abs=0.1)  # round the back
    # A corner: direction (1, 2/3, 1) is 45 degrees right, atan(2/3 / sqrt 2) down.
    assert at(60, 40, (0, 0)) == pytest.approx([225, 90 + 25.24], abs=0.1)


def test_panorama_has_no_seam_behind():
    rgb = np.random.default_rng(0).random((8, 1, 3), np.float32).repeat(16, 1)
    view = perspective_view(rgb, Size(9, 15), 10.0, (7.0, 4.0), (180.0, 0.0))
    assert np.abs(np.diff(view[4], axis=0)).max() < 1e-5  # the equator row is constant


def test_panorama_fills_the_first_frame_at_the_asked_angle():
    height, width = 256, 512
    y, x = np.mgrid[:height, :width].astype(np.float32)
    panorama = np.stack([(x + 0.5) / width, (y + 0.5) / height, 0 * x], -1)
    first = Region(-0.5, -0.5, 99.5, 59.5)
    edit = sky_edit(field_of_view_deg=90.0, pitch_deg=0.0)
    paint = PanoramaSky(edit, panorama).place(CanvasView(first, first))
    longitude = paint.sample(pixel_grid(Size(60, 100)), 0.0)[30, [0, 49, 99], 0] * 360
    # Focal length 50 texels, the axis at x = 49.5. 0.2 degree: bilinear samples, 0.7 a texel.
    expected = 180 + np.degrees(np.arctan((np.array([0, 49, 99]) - 49.5) / 50))
    assert longitude == pytest.approx(expected, abs=0.2)


def test_tone_mapping_is_monotone_and_exposes_the_sky():
    linear = np.geomspace(1e-4, 1e4, 400, dtype=np.float32)[:, None, None].repeat(3, 2)
    mapped = tone_map(np.concatenate([np.full((500, 1, 3), 0.7, np.float32), linear]))
    assert (np.diff(mapped[500:, 0, 0]) >= 0).all()
    assert mapped.max() == pytest.approx(1)
    # The median, 0.7, lands at 0.26 (0.7 / 0.5)^0.5 = 0.30764 = x / (1 + x), x = 0.44434; then
    # the curve's x / 36 comes on top.
    landed = 0.44434 * (1 + 0.44434 / 36) / 1.44434
    assert mapped[0, 0, 0] == pytest.approx(float(encode_srgb(np.float32(landed))), abs=1e-4)


def test_nights_stay_darker_than_days_and_bright_colours_keep_their_hue():
    day, night = (np.full((20, 40, 3), level, np.float32) for level in (0.5, 0.03))
    assert encode_srgb(np.float32(0.3)) > tone_map(day).mean() > 1.6 * tone_map(night).mean()
    day[:4] = [9.0, 3.0, 2.0]  # a red far too bright for the display
    red, green, blue = tone_map(day)[0, 0]
    assert red == pytest.approx(1, abs=1e-3)
    assert 1 > green > blue > 0.3


def test_srgb_is_pinned():
    found = encode_srgb(np.float32([0, 0.0031308, 0.18, 1]))
    assert found == pytest.approx([0, 0.04045, 0.46136, 1], abs=1e-4)


def test_hdr_files_are_read_as_rgb(tmp_path):
    bgr = np.zeros((4, 8, 3), np.float32)
    bgr[...] = (1, 2, 8)
    ok, data = cv2.imencode(".hdr", bgr)
    assert ok
    (tmp_path / "sky.hdr").write_bytes(data.tobytes())
    # 1 %: RGBE keeps 8 bits of the largest channel.
    assert read_hdr(tmp_path / "sky.hdr")[0, 0] == pytest.approx([8, 2, 1], rel=0.04)
    source = open_sky(sky_edit(source=str(tmp_path / "sky.hdr")), LAYER)
    assert isinstance(source, PanoramaSky)


@pytest.mark.parametrize("name", ["sky.hdr", "sky.png", "sky.mp4"])
def test_damaged_sources_are_one_line(tmp_path, name):
    (tmp_path / name).write_bytes(b"nothing of the kind")
    with pytest.raises(InputError, match=name):
        open_sky(sky_edit(source=str(tmp_path / name)), LAYER)
