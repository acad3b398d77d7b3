"""Cameras that need no tracking: one that stands still, and tracks read from files."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from atlas.clip import write_bytes
from atlas.coords import Size, resize_matrix
from atlas.errors import InputError
from atlas.video import VideoInfo
from preprocess.camera import CameraTracker
from preprocess.camera_options import CameraOptions, CameraPose
from preprocess.lookahead import ForeseenCamera
from preprocess.rotation import (
    default_focal_px,
    intrinsics,
    rotation_homography,
)


class CameraSource(Protocol):
    """Whatever says where each frame looks, asked for in order."""

    @property
    def focal_px(self) -> float:
        """Focal length believed now, pixels of the frame."""
        ...

    def cut(self) -> None:
        """A new shot begins with the next frame."""
        ...

    def step_grey(self, grey: np.ndarray, sky: np.ndarray | None = None) -> CameraPose:
        """The pose of the next frame, from its luma and its sky matte."""
        ...


class StillCamera:
    """The sky is locked to the frame, whatever the camera does."""

    def __init__(self, size: Size):
        self.focal_px = default_focal_px(size)

    def cut(self) -> None:
        pass

    def step_grey(self, grey: np.ndarray, sky: np.ndarray | None = None) -> CameraPose:
        return CameraPose(np.eye(3), np.eye(3), self.focal_px, 1.0)


@dataclass(frozen=True, kw_only=True)
class CameraChoice:
    """Where the camera comes from, as the command line says.

    track: a file. still: locked to the frame. fov_deg: horizontal field of view of the lens, where
    it is known. None and False: found.
    """

    track: Path | None = None
    still: bool = False
    fov_deg: float | None = None

    def __post_init__(self) -> None:
        if self.track is not None and self.still:
            raise InputError("--track and --still: wanted one of them")
        if self.fov_deg is not None and not 1 <= self.fov_deg <= 170:
            raise InputError(f"--fov {self.fov_deg}: wanted 1 to 170 degrees")
        if self.fov_deg is not None and (self.track is not None or self.still):
            raise InputError("--fov is for a camera that is found; leave out --track and --still")


def open_camera(size: Size, choice: CameraChoice, video: VideoInfo | None = None) -> CameraSource:
    """The camera that is asked for. `video`: the file, where there is one, to look ahead in."""
    if choice.track is not None:
        count = None if video is None else video.frame_count
        return ImportedCamera(read_track(choice.track, size, count))
    if choice.still:
        return StillCamera(size)
    if choice.fov_deg is not None:
        focal_px = size.width / 2 / math.tan(math.radians(choice.fov_deg) / 2)
        return CameraTracker(size, CameraOptions(focal_px=focal_px))
    if video is None or video.path.is_dir() or video.frame_count < 2:
        return CameraTracker(size)
    return ForeseenCamera(video)


@dataclass(frozen=True)
class TrackFrame:
    """Where one frame looks.

    homography: (3, 3), frame pixels to pixels of the shot's first frame. rotation: (3, 3), rays of
    this frame to rays of the shot's first frame; None where only the homography is known.
    """

    homography: np.ndarray
    rotation: np.ndarray | None
    focal_px: float
    confidence: float
    starts_shot: bool


@dataclass
class CameraTrack:
    """The camera of a clip, frame by frame, at one frame size."""

    size: Size
    frames: list[TrackFrame] = field(default_factory=list)

    def add(self, pose: CameraPose, *, starts_shot: bool) -> None:
        row = TrackFrame(
            pose.homography, pose.rotation, pose.focal_px, pose.confidence, starts_shot
        )
        self.frames.append(row)

    def at_size(self, size: Size) -> CameraTrack:
        """The same track for frames of another size."""
        onto, back = resize_matrix(self.size, size), resize_matrix(size, self.size)
        scale = size.width / self.size.width
        frames = [
            replace(row, homography=onto @ row.homography @ back, focal_px=scale * row.focal_px)
            for row in self.frames
        ]
        return CameraTrack(size, frames)


class ImportedCamera:
    """A `CameraSource` that answers from a track."""

    def __init__(self, track: CameraTrack, first: int = 0):
        """`first`: the frame of the track that is asked for first."""
        self._track = track
        self._next = first
        self.focal_px = track.frames[min(first, len(track.frames) - 1)].focal_px

    def cut(self) -> None:
        pass  # the track itself says where shots start

    def step_grey(self, grey: np.ndarray, sky: np.ndarray | None = None) -> CameraPose:
        if self._next >= len(self._track.frames):
            raise InputError(
                f"the camera track has {len(self._track.frames)} frames, fewer than the clip"
            )
        row = self._track.frames[self._next]
        self._next += 1
        self.focal_px = row.focal_px
        rotation = np.eye(3) if row.rotation is None else row.rotation
        return CameraPose(row.homography, rotation, row.focal_px, row.confidence)


def read_track(path: Path, size: Size, frame_count: int | None = None) -> CameraTrack:
    """Read a camera track, .json or .chan (docs/CAMERA_TRACK.md), for frames of this size.

    Args:
        frame_count: frames that it must cover; None asks for one at least.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError as err:
        raise InputError(f"{path}: not found; wanted a camera track, .json or .chan") from err
    except (OSError, UnicodeDecodeError) as err:
        raise InputError(f"{path}: cannot be read as text ({err})") from err
    is_chan = Path(path).suffix.lower() == ".chan"
    track = (_read_chan if is_chan else _read_json)(path, text, size)
    wanted = frame_count or 1
    if len(track.frames) < wanted:
        raise InputError(f"{path}: has {len(track.frames)} frames, the clip has {wanted}")
    return track.at_size(size)


def write_track(path: Path, track: CameraTrack) -> None:
    """Write a camera track as .chan or, with any other suffix, as JSON."""
    is_chan = Path(path).suffix.lower() == ".chan"
    text = _as_chan(track) if is_chan else _as_json(track)
    write_bytes(Path(path), text.encode("utf-8"))


_FORMAT = "skyweave-camera-track"


def _as_json(track: CameraTrack) -> str:
    rows = []
    for number, frame in enumerate(track.frames):
        row: dict[str, Any] = {"frame": number, "focal_px": round(frame.focal_px, 4)}
        if frame.rotation is not None:
            row["rotation"] = frame.rotation.tolist()
        row["homography"] = frame.homography.tolist()
        row["confidence"] = round(frame.confidence, 4)
        row["starts_shot"] = frame.starts_shot
        rows.append(row)
    head = {"format": _FORMAT, "version": 1, **asdict(track.size)}
    lines = ",\n".join("  " + json.dumps(row) for row in rows)
    return json.dumps(head)[:-1] + ', "frames": [\n' + lines + "\n]}\n"


def _read_json(path: Path, text: str, size: Size) -> CameraTrack:
    try:
        data = json.loads(text)
    except ValueError as err:
        raise InputError(f"{path}: not valid JSON ({err})") from err
    if not isinstance(data, dict) or data.get("format") != _FORMAT:
        raise InputError(f'{path}: not a camera track; wanted "format": "{_FORMAT}"')
    if data.get("version") != 1:
        raise InputError(f"{path}: version is {data.get('version')!r}, wanted 1")
    try:
        track = CameraTrack(Size(int(data["height"]), int(data["width"])))
        focal_px = float(data.get("focal_px") or default_focal_px(track.size))
        for number, row in enumerate(data["frames"]):
            if row.get("frame", number) != number:
                raise InputError(f"{path}: frame {number} is missing; wanted all, from 0, in order")
            track.frames.append(_json_frame(row, track.size, focal_px))
    except (KeyError, TypeError, ValueError) as err:
        raise InputError(f"{path}: not as docs/CAMERA_TRACK.md says ({err!r})") from err
    return track


def _json_frame(row: dict[str, Any], size: Size, focal_px: float) -> TrackFrame:
    focal_px = float(row.get("focal_px", focal_px))
    rotation = None
    if "rotation" in row:
        u, _, vt = np.linalg.svd(_matrix(row["rotation"]))
        rotation = u @ vt
    if "homography" in row:
        homography = _matrix(row["homography"])
    elif rotation is not None:
        homography = rotation_homography(rotation, intrinsics(size, focal_px))
    else:
        raise KeyError("a frame needs 'rotation' or 'homography'")
    confidence, starts = float(row.get("confidence", 1.0)), bool(row.get("starts_shot", False))
    return TrackFrame(homography, rotation, focal_px, confidence, starts)


def _matrix(values: Any) -> np.ndarray:
    matrix = np.array(values, np.float64)
    if matrix.shape != (3, 3) or not np.isfinite(matrix).all() or abs(np.linalg.det(matrix)) < 1e-9:
        raise ValueError("a matrix must be 3 rows of 3 finite numbers, and invertible")
    return matrix


# Nuke's camera: x right, y up, looking along -z; ours: x right, y down, looking along z.
_FLIP = np.diag([1.0, -1.0, -1.0])


def _read_chan(path: Path, text: str, size: Size) -> CameraTrack:
    """Nuke's .chan: `frame tx ty tz rx ry rz [vfov]`, degrees, rotation order ZXY."""
    track, first = CameraTrack(size), None
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            values = [float(value) for value in line.split()]
        except ValueError as err:
            raise InputError(f"{path}: line {number} holds more than numbers") from err
        if len(values) not in (7, 8) or not np.isfinite(values).all():
            raise InputError(
                f"{path}: line {number} has {len(values)} numbers; wanted frame tx ty tz rx ry rz "
                f"and, if known, the vertical field of view"
            )
        focal_px = default_focal_px(size)
        if len(values) == 8:
            if not 1 < values[7] < 170:
                raise InputError(f"{path}: line {number}: a field of view of {values[7]} degrees")
            focal_px = size.height / 2 / np.tan(np.radians(values[7]) / 2)
        world = _FLIP @ _from_zxy(*values[4:7]) @ _FLIP
        first = world if first is None else first
        rotation = first.T @ world
        homography = rotation_homography(rotation, intrinsics(size, focal_px))
        starts = not track.frames
        track.frames.append(TrackFrame(homography, rotation, float(focal_px), 1.0, starts))
    return track


def _as_chan(track: CameraTrack) -> str:
    lines = []
    for number, frame in enumerate(track.frames):
        rotation = np.eye(3) if frame.rotation is None else frame.rotation
        angles = _to_zxy(_FLIP @ rotation @ _FLIP)
        view_deg = 2 * np.degrees(np.arctan(track.size.height / 2 / frame.focal_px))
        numbers = " ".join(f"{value:.6f}" for value in (0, 0, 0, *angles, view_deg))
        lines.append(f"{number} {numbers}\n")
    return "".join(lines)


def _from_zxy(x_deg: float, y_deg: float, z_deg: float) -> np.ndarray:
    """Ry Rx Rz: turned about z first, then x, then y."""
    (cx, cy, cz), (sx, sy, sz) = (f(np.radians([x_deg, y_deg, z_deg])) for f in (np.cos, np.sin))
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_y @ about_x @ about_z


def _to_zxy(rotation: np.ndarray) -> tuple[float, float, float]:
    """(x, y, z) degrees of `_from_zxy`."""
    x = np.arcsin(np.clip(-rotation[1, 2], -1, 1))
    y = np.arctan2(rotation[0, 2], rotation[2, 2])
    z = np.arctan2(rotation[1, 0], rotation[1, 1])
    return float(np.degrees(x)), float(np.degrees(y)), float(np.degrees(z))
