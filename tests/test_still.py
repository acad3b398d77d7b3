"""Photos: exact sums, strips that do not show, depth, orientation and camera data."""

import struct

import cv2
import numpy as np
import pytest

import edit
from atlas.coords import Size
from atlas.errors import InputError
from atlas.mapping import Layer
from edits import still
from edits.kinds import SkyEdit
from edits.look import Look
from edits.photo_file import Photo, read_photo, upright, write_photo
from edits.picture import Picture
from edits.sky import PictureSky
from edits.still import StillJob, edited_still, view_of

SIZE = Size(90, 130)
OLD, GROUND, NEW = (
    np.array([0.5, 0.7, 0.9], np.float32),
    np.array([0.2, 0.3, 0.1], np.float32),
    np.array([0.9, 0.5, 0.2], np.float32),
)


def scene(dtype: type = np.uint8) -> tuple[np.ndarray, np.ndarray]:
    """A photo of a plain sky over plain ground, softly joined, and its exact matte."""
    share = np.clip((50 - np.arange(SIZE.height, dtype=np.float32)) / 10, 0, 1)
    matte = np.repeat(share[:, None], SIZE.width, axis=1)
    rgb = GROUND + matte[..., None] * (OLD - GROUND)
    peak = np.iinfo(dtype).max
    return np.rint(rgb * peak).astype(dtype), matte


def job(dtype: type = np.uint8, look: Look | None = None, *, bands: bool = False) -> StillJob:
    rgb, matte = scene(dtype)
    sky = Picture(np.tile(NEW, (40, 60, 1)).astype(np.float32), None)
    return StillJob(rgb, matte, PictureSky(SkyEdit(source="a"), sky).place, look, bands)


def matte_is_pure(given: StillJob) -> np.ndarray:
    return (given.matte == 0) | (given.matte == 1)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_soft_edges_lose_the_old_sky_and_the_ground_keeps_its_levels(dtype):
    given = job(dtype)
    done = edited_still(given)
    wanted = GROUND + given.matte[..., None] * (NEW - GROUND)
    assert done.dtype == dtype
    np.testing.assert_array_equal(done[51:], given.rgb[51:])
    error = np.abs(done / np.iinfo(dtype).max - wanted)
    assert error.max() < (2.2 / 255 if dtype == np.uint8 else 1.3 / 255)  # the guess of the old sky
    assert error[matte_is_pure(given)].max() < (1.01 / 255 if dtype == np.uint8 else 2 / 65535)


def test_strips_do_not_show(monkeypatch):
    look = Look(recolor=0.7, relight=0.4, halo=0.4, haze=0.5, rain=0.4)
    whole = edited_still(job(np.uint16, look))
    monkeypatch.setattr(still, "STRIP_ROWS", 7)
    strips = edited_still(job(np.uint16, look))
    assert np.abs(whole.astype(int) - strips).max() <= 1
    assert np.abs(whole.astype(int) - job(np.uint16).rgb).max() > 1000


def test_smooth_skies_are_dithered_not_stepped():
    rgb, matte = np.zeros((64, 256, 3), np.uint8), np.ones((64, 256), np.float32)
    ramp = np.tile(
        np.linspace(0.5, 0.5 + 3 / 255, 256, dtype=np.float32)[None, :, None], (64, 1, 3)
    )
    place = PictureSky(SkyEdit(source="a"), Picture(ramp, None)).place
    done = edited_still(StillJob(rgb, matte, place, None))
    columns = done[..., 0].mean(0)
    assert (
        np.abs(columns / 255 - ramp[0, :, 0]).max() < 0.25 / 255
    )  # steps would be half a level off
    assert np.ptp(done[:, 40, 0]) == 1


def test_bands_blend_more_broadly_than_the_matte():
    narrow, wide = edited_still(job()), edited_still(job(bands=True))
    assert np.abs(wide[58].astype(int) - narrow[58]).max() > 2  # beyond the matte's 10 rows
    np.testing.assert_array_equal(wide[-8:], narrow[-8:])


def test_the_view_reaches_down_to_the_lowest_sky():
    _, matte = scene()
    view = view_of(matte)
    assert view.seen.bottom == pytest.approx(44.5)  # row 44 shows 0.6 of sky, row 45 a half
    assert (view.seen.left, view.seen.right) == (-0.5, SIZE.width - 0.5)
    assert view_of(np.zeros((4, 5), np.float32)).seen.bottom == 3.5


def exif(orientation: int) -> bytes:
    """Camera data of one entry beside the orientation: the make, "ACME"."""
    entries = struct.pack("<HHI4s", 0x010F, 2, 4, b"ACM\0")
    entries += struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0)
    return b"II*\0" + struct.pack("<IH", 8, 2) + entries + struct.pack("<I", 0)


def test_orientation_is_set_and_the_rest_kept():
    turned = upright(exif(6))
    assert turned == exif(1)
    assert upright(b"Exif\0\0" + exif(8)) == b"Exif\0\0" + exif(1)
    for broken in (b"", b"II*\0", b"XX" + exif(6)[2:], exif(6)[:20]):
        assert upright(broken) == broken


@pytest.mark.skipif(not hasattr(cv2, "imencodeWithMetadata"), reason="OpenCV before 4.11")
def test_photos_come_back_upright_with_their_camera_data(tmp_path):
    rgb = np.zeros((40, 60, 3), np.uint8)
    rgb[:, :30] = 200
    chunk = np.frombuffer(exif(6), np.uint8)[None]
    kinds = [cv2.IMAGE_METADATA_EXIF]
    data = cv2.imencodeWithMetadata(".jpg", rgb, kinds, [chunk])[1]
    (tmp_path / "a.jpg").write_bytes(data.tobytes())
    photo = read_photo(tmp_path / "a.jpg")
    assert photo.rgb.shape == (60, 40, 3)  # turned by 90 degrees
    write_photo(tmp_path / "b.jpg", photo)
    again = read_photo(tmp_path / "b.jpg")
    assert np.abs(again.rgb.astype(int) - photo.rgb).max() < 6
    assert [held for _, held in again.metadata] == [exif(1)]


@pytest.mark.parametrize(("suffix", "deep"), [(".png", True), (".tif", True), (".webp", False)])
def test_sixteen_bits_stay_where_the_format_has_them(tmp_path, suffix, deep):
    rgb = np.random.default_rng(1).integers(0, 65535, (20, 30, 3)).astype(np.uint16)
    write_photo(tmp_path / f"a{suffix}", Photo(rgb))
    found = read_photo(tmp_path / f"a{suffix}").rgb
    assert found.dtype == (np.uint16 if deep else np.uint8)
    if deep:
        np.testing.assert_array_equal(found, rgb)


def test_a_photo_in_gives_a_photo_out(tmp_path, capsys):
    rgb, _ = scene(np.uint16)
    big = cv2.resize(rgb, (390, 270))
    write_photo(tmp_path / "in.tif", Photo(big))
    write_photo(tmp_path / "sky.png", Photo(np.full((60, 90, 3), 120, np.uint8)))
    given, sky, out = (str(tmp_path / name) for name in ("in.tif", "sky.png", "out.tif"))
    edit.main([given, "--sky", sky, "--out", out])
    done = read_photo(tmp_path / "out.tif").rgb
    assert (done.shape, done.dtype) == (big.shape, np.uint16)
    assert "16 bit" in capsys.readouterr().out
    with pytest.raises(InputError, match="wanted one of"):
        write_photo(tmp_path / "out.xyz", Photo(rgb))


def test_open_sky_of_a_photo_lies_by_its_view(tmp_path):
    write_photo(tmp_path / "sky.png", Photo(np.zeros((90, 130, 3), np.uint8)))
    from edits.sky import open_sky
    from edits.still_session import exactly

    given = SkyEdit(source=str(tmp_path / "sky.png"))  # of the photo's own size: no atlas paint
    assert isinstance(open_sky(exactly(given), Layer("sky", SIZE)), PictureSky)
