"""Skies that drift, repeat, turn, or are cut out of a photo."""

import cv2
import numpy as np
import pytest

from atlas.clip import write_rgb
from atlas.coords import Size, pixel_grid
from atlas.errors import InputError
from atlas.mapping import Layer
from atlas.panorama import View
from atlas.planes import PlaneFormat, Planes
from edits.panorama import PanoramaPaint
from edits.picture import Picture
from edits.recipe import SkyEdit
from edits.sky import PanoramaSky, PictureSky, edged, open_sky, pitch_of
from edits.sky_photo import take_panorama_sky, take_sky
from edits.stream_sky import Rows, SkyPlanes
from edits.view import CanvasView, Region

SEEN = Region(-0.5, -0.5, 79.5, 39.5)
VIEW = CanvasView(SEEN, SEEN)


def picture(height: int = 40, width: int = 80) -> np.ndarray:
    """Smooth in both directions, and its right end unlike its left one."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    return np.stack([x / (width - 1), y / (height - 1), 0.5 + 0 * x], -1)


def sky_edit(**values) -> SkyEdit:
    return SkyEdit(source="sky.png", **values)


def test_a_drifting_sky_moves_by_its_share_a_second():
    edit = sky_edit(drift_x=0.125, drift_y=-0.05, edges="mirror")
    paint = PictureSky(edit, Picture(picture(), None)).place(VIEW)
    grid = pixel_grid(Size(40, 80))
    now, later = paint.sample(grid, 0.0), paint.sample(grid, 2.0)
    # 0.125 of 80 texels to the right and 0.05 of 40 up in each of two seconds: 20 and 4 texels.
    np.testing.assert_allclose(later[:36, 20:], now[4:, :60], atol=1e-5)


def test_a_tiled_sky_repeats_without_a_seam():
    edit = sky_edit(edges="tile")
    texels, size = edged(picture(), "tile")
    assert (size.height, texels.shape[:2]) == (40, (80, size.width))
    joined = np.concatenate([texels, texels], axis=1)
    steps = np.abs(np.diff(joined[:40, :, 0], axis=1))
    # The ramp falls back from 1 to 0 over the fade of 10 texels, not in one step.
    assert steps.max() < 0.15
    np.testing.assert_array_equal(texels[40:], texels[:40][::-1])
    paint = PictureSky(edit, Picture(picture(), None)).place(VIEW)
    far = pixel_grid(Size(40, 80)) + np.float32([3 * 64, 0])  # 64: what 80 less the overlap repeat
    np.testing.assert_allclose(
        paint.sample(far, 0.0), paint.sample(pixel_grid(Size(40, 80)), 0.0), atol=2e-4
    )


def test_wrap_repeats_as_it_is_and_mirror_does_not_repeat():
    beyond = pixel_grid(Size(40, 80)) + np.float32([80, 0])
    here = pixel_grid(Size(40, 80))
    wrapped = PictureSky(sky_edit(edges="wrap"), Picture(picture(), None)).place(VIEW)
    np.testing.assert_allclose(wrapped.sample(beyond, 0), wrapped.sample(here, 0), atol=1e-5)
    mirrored = PictureSky(sky_edit(), Picture(picture(), None)).place(VIEW)
    np.testing.assert_allclose(
        mirrored.sample(beyond, 0), mirrored.sample(here, 0)[:, ::-1], atol=1e-5
    )


@pytest.mark.parametrize("size", [(90, 60), (60, 90), (41, 77)])
def test_frame_fit_stretches_and_centres_to_a_whole_pixel(size):
    height, width = size
    first = Region(9.5, 19.5, 9.5 + width, 19.5 + height)
    edit = sky_edit(fit="frame", scale=1.0)
    paint = PictureSky(edit, Picture(picture(height, width), None)).place(CanvasView(SEEN, first))
    here = pixel_grid(Size(height, width)) + np.float32([10, 20])
    np.testing.assert_allclose(paint.sample(here, 0)[..., :3], picture(height, width), atol=1e-5)


# --- panoramas


def longitudes(height: int = 180, width: int = 360) -> np.ndarray:
    """Red and green tell the longitude as cosine and sine, blue the latitude; no seam."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    angle = 2 * np.pi * (x + 0.5) / width
    return np.stack([np.cos(angle), np.sin(angle), (y + 0.5) / height * 2 - 1], -1) / 2 + 0.5


def angles_of(rgba: np.ndarray) -> np.ndarray:
    """(..., 2) longitude and latitude, degrees, as `longitudes` coded them."""
    value = rgba[..., :3] * 2 - 1
    longitude = np.degrees(np.arctan2(value[..., 1], value[..., 0])) - 180
    return np.stack([np.mod(longitude + 180, 360) - 180, -90 * value[..., 2]], -1)


def expected_angles(uv, view: View) -> np.ndarray:
    """Rays by rotation matrices: roll, then pitch, then yaw."""
    yaw, pitch, roll = np.radians((view.yaw_deg, view.pitch_deg, view.roll_deg))
    rays = np.dstack([(uv - view.centre) / view.focal, np.ones(uv.shape[:2])])
    turn = np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
    tilt = np.array(
        [[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]]
    )
    x, y, z = np.moveaxis(rays @ turn.T @ tilt.T, -1, 0)
    longitude = np.degrees(np.arctan2(x, z) + yaw)
    latitude = np.degrees(np.arctan2(-y, np.hypot(x, z)))
    return np.stack([np.mod(longitude + 180, 360) - 180, latitude], -1)


@pytest.mark.parametrize(
    "view",
    [
        View(60.0, (49.5, 29.5)),
        View(60.0, (49.5, 29.5), yaw_deg=170.0, pitch_deg=12.0),
        View(45.0, (20.0, 50.0), yaw_deg=-120.0, pitch_deg=20.0, roll_deg=35.0),
        View(60.0, (49.5, 29.5), yaw_deg=30.0, pitch_deg=80.0, roll_deg=-10.0),  # zenith in view
    ],
)
def test_panoramas_are_seen_along_the_rays(view):
    uv = pixel_grid(Size(60, 100))
    found = angles_of(PanoramaPaint(longitudes(), view).sample(uv, 0.0))
    expected = expected_angles(uv, view)
    away = np.abs(expected[..., 1]) < 80  # nearer to the pole a texel spans many longitudes
    turned = np.abs(np.mod(found - expected + 180, 360) - 180)[away]
    # 0.35 degree: bilinear samples of 1 degree a texel, one mip level up near the pole.
    assert turned.max() < 0.35


@pytest.mark.parametrize("pitch_deg", [0.0, 78.0])
def test_a_streamed_panorama_is_seen_all_the_way_round(pitch_deg):
    """Beyond 90 degrees the frame looks away from the first frame's plane; and into the zenith."""
    size, focal = Size(60, 90), 70.0
    camera = np.array([[focal, 0, 44.5], [0, focal, 29.5], [0, 0, 1]])
    panorama = np.rint(longitudes(720, 1440) * 127 + 127).astype(np.uint8)
    form = PlaneFormat("yuv444p", size, "bt709", full=True)
    paint = PanoramaPaint(panorama, View(focal, (44.5, 29.5), 0.0, pitch_deg))
    for yaw_deg in (60, 120, 180, 300):
        about = cv2.Rodrigues(np.radians([0.0, yaw_deg, 0.0]))[0]
        tilt = cv2.Rodrigues(np.radians([pitch_deg, 0.0, 0.0]))[0]
        # yaw about the panorama's own vertical: the view of a camera set up with that yaw
        turned = camera @ tilt.T @ about @ tilt @ np.linalg.inv(camera)
        planes = SkyPlanes(paint, form).sample(turned, Rows(0, 60), 0.0)
        found = form.rgb_of(Planes(*planes)).astype(np.float32)
        straight = View(focal, (44.5, 29.5), float(yaw_deg), pitch_deg)
        at = straight.panorama_positions(pixel_grid(size), Size(720, 1440))
        wanted = cv2.remap(panorama, at, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
        error = np.abs(found - wanted)
        assert np.median(error) <= 1
        assert np.percentile(error, 99) < 4  # levels; at the wrong yaw it is 60 and more


def test_a_panorama_s_horizon_lies_under_the_lowest_sky():
    seen = Region(-0.5, -0.5, 79.5, 49.5)  # the sky ends at row 49.5, the frame's middle is 39.5
    view = CanvasView(seen, Region(-0.5, -0.5, 79.5, 79.5), focal=100.0)
    assert pitch_of(sky_edit(), view, 100.0) == pytest.approx(np.degrees(np.arctan(0.1)) + 3)
    assert pitch_of(sky_edit(pitch_deg=-4.0), view, 100.0) == -4


def test_a_panorama_drifts_by_turning():
    edit = sky_edit(fit="panorama", drift_x=0.1, pitch_deg=0.0, field_of_view_deg=60.0)
    paint = PanoramaSky(edit, longitudes()).place(VIEW)
    uv = pixel_grid(Size(40, 80))
    middle = (slice(19, 21), slice(39, 41))
    turned = angles_of(paint.sample(uv, 1.0))[middle] - angles_of(paint.sample(uv, 0.0))[middle]
    # The sky moves right, so the view turns left: 0.1 x 80 texels at a focal length of 69.3.
    assert turned[..., 0] == pytest.approx(-np.degrees(8 / 69.28), abs=0.1)


def test_the_camera_s_focal_length_is_used_unless_an_angle_is_given():
    edit = sky_edit(fit="panorama", pitch_deg=0.0)
    uv = pixel_grid(Size(40, 80))

    def right_edge(edit, view):
        return angles_of(PanoramaSky(edit, longitudes()).place(view).sample(uv, 0.0))[20, 79, 0]

    known = right_edge(edit, CanvasView(SEEN, SEEN, focal=100.0))
    assert known == pytest.approx(np.degrees(np.arctan(39.5 / 100)), abs=0.3)
    usual = right_edge(edit, VIEW)
    assert usual == pytest.approx(np.degrees(np.arctan(39.5 / 62.8)), abs=0.3)  # 65 degrees
    given = sky_edit(fit="panorama", pitch_deg=0.0, field_of_view_deg=90.0)
    asked = right_edge(given, CanvasView(SEEN, SEEN, focal=100.0))
    assert asked == pytest.approx(np.degrees(np.arctan(39.5 / 40)), abs=0.3)


# --- a photo's own sky


def photo() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(H, W, 3) photo, its matte, and the sky without what stands before it."""
    height, width = 120, 160
    y, x = np.mgrid[:height, :width].astype(np.float32)
    sky = np.stack([0.3 + 0.5 * y / height, 0.5 + 0.1 * x / width, 0.9 - 0.3 * y / height], -1)
    matte = np.ones((height, width), np.float32)
    matte[80:] = 0
    matte[40:, 70:90] = 0  # a tower
    rgb = np.where(matte[..., None] > 0.5, sky, np.float32([0.1, 0.3, 0.05]))
    return rgb, matte, sky


def test_a_photo_s_sky_is_cut_out_and_what_hid_it_is_filled():
    rgb, matte, sky = photo()
    found = take_sky(rgb, matte)
    assert found is not None
    assert found.shape == (80, 160, 3)
    clear = np.abs(found[:, :60] - sky[:80, :60])[:70]
    assert clear.max() < 1e-6  # what was sky stays as it was
    tower = np.abs(found[44:76, 70:90] - sky[44:76, 70:90])
    ground = np.abs(rgb[44:76, 70:90] - sky[44:76, 70:90])
    assert tower.mean() < 0.08 < 0.5 < ground.mean() + 0.2


def test_towers_leave_no_streaks_in_a_photo_s_sky():
    height, width = 160, 240
    y, x = np.mgrid[:height, :width].astype(np.float32)
    clouds = 0.12 * np.sin(x / 4) * np.sin(y / 4)
    sky = np.stack([0.4 + 0.2 * y / height + clouds, 0.5 + clouds, 0.7 + clouds], -1)
    matte = np.ones((height, width), np.float32)
    matte[120:] = 0
    matte[12:, 60:90] = matte[50:, 150:210] = 0  # towers, one nearly to the top
    matte[150:, :40] = 1  # sky under a bridge
    matte[150:, 200:] = 1
    rgb = np.where(matte[..., None] > 0.5, sky, np.float32(0.05)).astype(np.float32)
    found = take_sky(rgb, matte)
    assert found is not None
    for rows, columns in (((20, 110), (64, 86)), ((60, 110), (155, 205)), ((124, 145), (0, 240))):
        part = found[slice(*rows), slice(*columns)]
        broad = np.array([0.5, 0.5, 0.7])
        assert np.abs(part.mean((0, 1)) - broad).max() < 0.09  # the tower is 0.05
        detail = (part - cv2.GaussianBlur(part, (0, 0), 8))[..., 1]
        real = (sky - cv2.GaussianBlur(sky, (0, 0), 8))[20:110, 100:140, 1]
        assert 0.35 < detail.std() / real.std() < 1.3  # clouds, neither smooth nor doubled
        streaks = detail.mean(0).std()  # what is the same all the way down
        assert streaks < 0.35 * real.std()


def test_a_photo_without_sky_is_refused(tmp_path):
    rgb, matte, _ = photo()
    assert take_sky(rgb, 0 * matte) is None
    path = tmp_path / "scene.png"
    write_rgb(path, np.rint(rgb * 255).astype(np.uint8))
    layer = Layer("sky", Size(300, 500))
    edit = SkyEdit(source=str(path), own_sky=True)
    with pytest.raises(InputError, match="no sky was found in it"):
        open_sky(edit, layer, lambda rgb: np.zeros(rgb.shape[:2], np.float32))
    with pytest.raises(InputError, match="needs a sky matte"):
        open_sky(edit, layer)
    source = open_sky(edit, layer, lambda rgb: matte)
    paint = source.place(VIEW)
    shown = paint.sample(pixel_grid(Size(40, 80)), 0.0)
    assert (shown[..., 2] > 0.45).all()  # sky everywhere: the ground has 0.05 there


def test_what_stands_in_a_panorama_gives_way_to_sky():
    height, width = 180, 360
    y = np.mgrid[:height, :width][0].astype(np.float32)
    sky = np.stack([0.3 + 0.4 * y / height, 0.5 + 0.2 * y / height, 0.9 - 0.2 * y / height], -1)
    stands = y > 90
    stands[40:, :30] = stands[40:, -20:] = stands[60:, 200:240] = True  # one on the seam
    rgb = np.where(stands[..., None], np.float32(0.05), sky).astype(np.float32)

    def matte(levels: np.ndarray) -> np.ndarray:
        return (levels[..., 2] > 100).astype(np.float32)

    found = take_panorama_sky(rgb, matte)
    assert found is not None
    assert found.shape == rgb.shape
    assert np.abs(found[:88] - sky[:88]).max() < 0.12  # the towers are 0.05
    assert np.abs(found[:, 0] - found[:, -1]).max() < 0.02  # it meets itself
    assert found[95:].min() > 0.3  # sky colours below the horizon too
    assert take_panorama_sky(rgb, lambda levels: np.zeros(levels.shape[:2], np.float32)) is None


def test_a_panorama_is_twice_as_wide_as_high(tmp_path):
    path = tmp_path / "flat.png"
    write_rgb(path, np.zeros((60, 100, 3), np.uint8))
    with pytest.raises(InputError, match="is 100x60; fit: panorama wants"):
        open_sky(SkyEdit(source=str(path), fit="panorama"), Layer("sky", Size(60, 100)))
    cv2.imwrite(str(path), np.zeros((60, 120, 3), np.uint8))
    source = open_sky(SkyEdit(source=str(path), fit="panorama"), Layer("sky", Size(60, 120)))
    assert isinstance(source, PanoramaSky)
