"""Camera tracks as files: JSON and Nuke's .chan."""

# pyright: reportOptionalMemberAccess=false, reportArgumentType=false

import json

import numpy as np
import pytest

from atlas.coords import Size
from atlas.errors import InputError
from preprocess.camera import CameraPose
from preprocess.camera_track import (
    CameraChoice,
    CameraTrack,
    ImportedCamera,
    StillCamera,
    open_camera,
    read_track,
    write_track,
)
from preprocess.rotation import from_vector, intrinsics, rotation_homography

SIZE = Size(height=90, width=160)
FOCAL_PX = 140.0


@pytest.fixture
def track() -> CameraTrack:
    made = CameraTrack(SIZE)
    for t in range(4):
        rotation = from_vector(np.array([0.02, -0.05, 0.01]) * t)
        homography = rotation_homography(rotation, intrinsics(SIZE, FOCAL_PX))
        made.add(CameraPose(homography, rotation, FOCAL_PX, 0.5), starts_shot=t == 0)
    return made


@pytest.mark.parametrize("suffix", [".json", ".chan"])
def test_a_track_comes_back(track, tmp_path, suffix):
    path = tmp_path / f"track{suffix}"
    write_track(path, track)
    got = read_track(path, SIZE, 4)
    for a, b in zip(got.frames, track.frames, strict=True):
        assert a.rotation is not None
        assert b.rotation is not None
        np.testing.assert_allclose(a.rotation, b.rotation, atol=1e-6)
        np.testing.assert_allclose(a.homography, b.homography, atol=1e-3)
        assert a.focal_px == pytest.approx(FOCAL_PX, rel=1e-4)


def test_chan_is_nukes_camera(tmp_path):
    """ry > 0 turns Nuke's camera (looking along -z, y up) to the left; rx > 0 tilts it up."""
    path = tmp_path / "camera.chan"
    path.write_text("1 0 0 0 0 0 0 40\n2 5 5 5 0 10 0 40\n3 0 0 0 10 0 0 40\n")
    track = read_track(path, SIZE, 3)
    focal_px = 45 / np.tan(np.radians(20))
    assert track.frames[0].focal_px == pytest.approx(focal_px)
    ahead = np.array([0.0, 0.0, 1.0])
    left, up = (row.rotation @ ahead for row in track.frames[1:])
    np.testing.assert_allclose(left, [-np.sin(np.radians(10)), 0, np.cos(np.radians(10))])
    np.testing.assert_allclose(up, [0, -np.sin(np.radians(10)), np.cos(np.radians(10))])


def test_homographies_alone_are_scaled_to_the_clip(tmp_path):
    path = tmp_path / "track.json"
    rows = [{"frame": 0, "homography": [[1, 0, 3], [0, 1, 1], [0, 0, 1]]}]
    head = {"format": "skyweave-camera-track", "version": 1, "width": 160, "height": 90}
    path.write_text(json.dumps({**head, "frames": rows}))
    pose = open_camera(Size(180, 320), CameraChoice(track=path)).step_grey(
        np.zeros((180, 320), np.uint8)
    )
    np.testing.assert_allclose(pose.homography, [[1, 0, 6], [0, 1, 2], [0, 0, 1]], atol=1e-9)


def test_a_still_camera_never_moves():
    camera = open_camera(SIZE, CameraChoice(still=True))
    assert isinstance(camera, StillCamera)
    assert (camera.step_grey(np.zeros((90, 160), np.uint8)).homography == np.eye(3)).all()


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("a.json", "{", "not valid JSON"),
        ("a.json", "{}", "not a camera track"),
        ("a.json", '{"format": "skyweave-camera-track", "version": 2}', "version is 2"),
        ("a.json", '{"format": "skyweave-camera-track", "version": 1, "width": 9, "height": 9, '
         '"frames": [{"frame": 1}]}', "frame 0 is missing"),
        ("a.json", '{"format": "skyweave-camera-track", "version": 1, "width": 9, "height": 9, '
         '"frames": [{"rotation": [[1, 0], [0, 1]]}]}', "3 rows of 3"),
        ("a.chan", "1 2 3", "line 1 has 3 numbers"),
        ("a.chan", "1 0 0 0 x 0 0", "more than numbers"),
        ("a.chan", "1 0 0 0 0 0 0 180", "field of view of 180"),
        ("a.chan", "1 0 0 0 0 0 0", "has 1 frames, the clip has 2"),
    ],
)  # fmt: skip
def test_bad_tracks_are_told(tmp_path, name, text, complaint):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(InputError, match=complaint):
        read_track(path, SIZE, 2)


def test_track_and_still_exclude_each_other(tmp_path):
    with pytest.raises(InputError, match="wanted one of them"):
        CameraChoice(track=tmp_path / "a.json", still=True)


def test_a_camera_that_runs_out_says_so(track):
    camera = ImportedCamera(track)
    for _ in range(4):
        camera.step_grey(np.zeros((90, 160), np.uint8))
    with pytest.raises(InputError, match="has 4 frames"):
        camera.step_grey(np.zeros((90, 160), np.uint8))


def test_a_known_field_of_view_is_the_focal_length():
    camera = open_camera(Size(180, 320), CameraChoice(fov_deg=90))
    assert camera.focal_px == pytest.approx(160)
    for bad in (0, 180, float("nan")):
        with pytest.raises(InputError, match="wanted 1 to 170 degrees"):
            CameraChoice(fov_deg=bad)
    with pytest.raises(InputError, match="leave out --track and --still"):
        CameraChoice(fov_deg=60, still=True)
