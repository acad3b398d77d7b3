"""Video in: what a source holds, and its frames as a stream.

A source is a video file, a folder of pictures or one picture. Frames are (H, W, 3) uint8 RGB,
upright, display-encoded as the source has them (no conversion between transfer functions or
primaries). Times are seconds from the start of the file, so picture and sound stay in step.
"""

from __future__ import annotations

import json
import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from atlas import ffmpeg, media_info
from atlas.color import to_planes_filter, to_rgb_filter
from atlas.coords import Size
from atlas.errors import InputError
from atlas.frame_names import pictures_in_order
from atlas.planes import PlaneFormat, Planes
from atlas.png import PNG_SIGNATURE, check_png

__all__ = ["FrameSource", "VideoInfo", "open_source", "probe", "resize_picture"]

log = logging.getLogger(__name__)

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
DEFAULT_FPS = Fraction(25)
"""Frame rate of a folder of pictures that does not say its own."""
GRID_TOLERANCE_S = 0.001
"""Frames this near to a regular grid are a constant frame rate: containers round to 1 ms."""


@dataclass(frozen=True)
class VideoInfo:
    """What a source holds."""

    path: Path
    size: Size
    """Upright, pixels."""
    fps: Fraction
    """Exact where constant; the mean where variable."""
    frame_count: int
    """Frames that decode, whatever the container claims."""
    frame_times_s: tuple[float, ...]
    """Presentation time of every frame, seconds from the start of the file, strictly rising."""
    variable_frame_rate: bool = False
    rotation_deg: int = 0
    """Rotation tag, counter-clockwise; it has been applied."""
    pix_fmt: str = "rgb24"
    codec: str = ""
    color: dict[str, str] = field(default_factory=dict)
    """range, space, primaries, transfer in ffmpeg's names; what is not tagged is left out."""
    audio: dict[str, Any] | None = None
    """codec, sample_rate, channels, layout of the first audio track."""
    duration_s: float = 0.0
    """When the last frame ends."""
    sample_aspect: Fraction = Fraction(1)
    """Width of a pixel over its height; pixels are never resampled to make it 1."""
    stream_index: int = 0
    """Which stream of the file is the video."""
    lens_35mm: float | None = None
    """Focal length on 35 mm film, millimetres, where the camera has noted it."""


class FrameSource(ABC):
    """Frames one after another, in constant memory."""

    info: VideoInfo

    def frames(
        self, start: int = 0, count: int | None = None, size: Size | None = None
    ) -> Iterator[np.ndarray]:
        """Yield frames `start` .. `start + count - 1`.

        Args:
            count: None means up to the last frame.
            size: resize to this (by area when shrinking); None keeps the source's size.
        Yields:
            (H, W, 3) RGB, a new array each, uint8 (uint16 where opened as rgb48).
        """
        left = self.info.frame_count - start
        if not 0 <= start <= self.info.frame_count:
            raise ValueError(f"start must be in 0..{self.info.frame_count}, got {start}")
        count = left if count is None else count
        if not 0 <= count <= left:
            raise ValueError(f"count must be in 0..{left} from frame {start}, got {count}")
        if count == 0:
            return
        for rgb in self._read(start, count):
            yield rgb if size in (None, self.info.size) else resize_picture(rgb, size)

    def frame(self, t: int, size: Size | None = None) -> np.ndarray:
        """One frame; for several in a row `frames` is far faster."""
        return next(iter(self.frames(t, 1, size)))

    @property
    def plane_format(self) -> PlaneFormat | None:
        """How `planes` gives frames; None where frames are RGB alone."""
        return None

    def planes(self, form: PlaneFormat, start: int, count: int) -> Iterator[Planes]:
        """Frames `start` .. `start + count - 1` as the source has them, unconverted."""
        raise ValueError(f"{self.info.path} has no planes")

    @abstractmethod
    def _read(self, start: int, count: int) -> Iterator[np.ndarray]: ...


def resize_picture(rgb: np.ndarray, size: Size) -> np.ndarray:
    """Resize (H, W, ...) to `size`, edges coinciding: area mean when shrinking, else bicubic."""
    shrinks = size.height <= rgb.shape[0] and size.width <= rgb.shape[1]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return cv2.resize(rgb, size.wh, interpolation=how)


def probe(path: Path | str) -> VideoInfo:
    """Describe a source; a video file is decoded once for it (pixels stay inside ffmpeg).

    Raises `InputError` for what cannot be read: nothing there, no video, no decodable frame.
    """
    return open_source(path).info


def open_source(
    path: Path | str, pixel_format: str = "rgb24", *, trusting: bool = False
) -> FrameSource:
    """Open a video file, a folder of pictures, or one picture.

    Args:
        pixel_format: "rgb24" for uint8 frames, "rgb48" for uint16.
        trusting: take a video's word for how many frames it holds, if its times are in order:
            nothing is decoded beforehand.
    """
    if pixel_format not in ("rgb24", "rgb48"):
        raise ValueError(f"pixel_format must be rgb24 or rgb48, got {pixel_format!r}")
    path = Path(path)
    if path.is_dir():
        return _PictureSource(path, list_pictures(path), pixel_format)
    if not path.exists():
        raise InputError(f"{path}: not found; wanted a video, a folder of pictures or a picture")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: is empty; wanted a video")
    if path.suffix.lower() in PICTURE_SUFFIXES:
        return _PictureSource(path, [path], pixel_format)
    return _VideoSource(path, pixel_format, trusting=trusting)


class _VideoSource(FrameSource):
    def __init__(self, path: Path, pixel_format: str, *, trusting: bool = False):
        stat = path.stat()
        self.info = _probe_video(path.resolve(), stat.st_mtime_ns, stat.st_size, trusting)
        self._pixel_format = pixel_format
        self._trusting = trusting

    def _read(self, start: int, count: int) -> Iterator[np.ndarray]:
        info, wide = self.info, self._pixel_format == "rgb48"
        chain = to_rgb_filter(info.pix_fmt, info.color, info.size, "rgb48le" if wide else "rgb24")
        shape = (info.size.height, info.size.width, 3)
        dtype = np.dtype("<u2" if wide else np.uint8)
        for data in self._decode(start, count, chain, math.prod(shape) * dtype.itemsize):
            yield data.view(dtype).reshape(shape)

    @property
    def plane_format(self) -> PlaneFormat | None:
        return PlaneFormat.of_source(self.info.pix_fmt, self.info.color, self.info.size)

    def planes(self, form: PlaneFormat, start: int, count: int) -> Iterator[Planes]:
        chain = to_planes_filter(self.info.pix_fmt, form.name, full=form.full)
        for data in self._decode(start, count, chain, form.byte_count):
            yield form.split(data)

    def _decode(self, start: int, count: int, chain: str, byte_count: int) -> Iterator[np.ndarray]:
        """Frames as ffmpeg writes them through a filter chain, (byte_count,) uint8 each."""
        info = self.info
        seek = []
        if start > 0:  # between two frames, so that rounding cannot pick the wrong one
            between_s = (info.frame_times_s[start - 1] + info.frame_times_s[start]) / 2
            seek = ["-ss", f"{between_s:.6f}"]
        given = [*seek, "-i", ffmpeg.input_name(info.path), "-map", f"0:{info.stream_index}"]
        taken = ["-vf", chain, "-fps_mode", "passthrough", "-frames:v", str(count)]
        process = ffmpeg.Process(["-v", "error", *given, *taken, "-f", "rawvideo", "-"], read=True)
        try:
            for t in range(start, start + count):
                data = np.empty(byte_count, np.uint8)
                if process.read_into(data.data) < byte_count:
                    if self._trusting and t > start:
                        log.warning(
                            "%s: damaged (%s); using the %d frames that decode",
                            info.path,
                            process.complaint(),
                            t,
                        )
                        return
                    raise InputError(
                        f"{info.path}: decoding stopped at frame {t} of {info.frame_count} "
                        f"({process.complaint()})"
                    )
                yield data
        finally:
            process.kill()


class _PictureSource(FrameSource):
    def __init__(self, path: Path, pictures: list[Path], pixel_format: str):
        self._pictures = pictures
        self._wide = pixel_format == "rgb48"
        size = Size(*_read_picture(pictures[0], self._wide).shape[:2])
        fps, times_s = _folder_times(path, len(pictures))
        self.info = VideoInfo(
            path=path.resolve(),
            size=size,
            fps=fps,
            frame_count=len(pictures),
            frame_times_s=times_s,
            variable_frame_rate=not _is_grid(times_s, fps),
            codec=pictures[0].suffix.lower().lstrip("."),
            duration_s=times_s[-1] + float(1 / fps),
        )

    def _read(self, start: int, count: int) -> Iterator[np.ndarray]:
        for path in self._pictures[start : start + count]:
            rgb = _read_picture(path, self._wide)
            found = Size(*rgb.shape[:2])
            if found != self.info.size:
                raise InputError(
                    f"{path}: is {found}, but {self._pictures[0].name} is {self.info.size}; "
                    f"all pictures of a folder must have one size"
                )
            yield rgb


def list_pictures(folder: Path) -> list[Path]:
    """The pictures of a folder in the order of the numbers in their names (9 before 10)."""
    found = pictures_in_order(folder, PICTURE_SUFFIXES)
    if not found:
        raise InputError(f"{folder}: holds no pictures; wanted {', '.join(PICTURE_SUFFIXES)} files")
    return found


def _read_picture(path: Path, wide: bool) -> np.ndarray:
    """(H, W, 3) RGB, turned upright by its EXIF tag; uint16 where `wide`, else uint8."""
    data = np.fromfile(path, np.uint8)
    mode = cv2.IMREAD_COLOR | (cv2.IMREAD_ANYDEPTH if wide else 0)
    if data[:8].tobytes() == PNG_SIGNATURE:
        check_png(path, data.data)
    bgr = cv2.imdecode(data, mode) if data.size else None
    if bgr is None:
        raise InputError(f"{path}: not a readable picture")
    if wide and bgr.dtype == np.uint8:
        bgr = bgr.astype(np.uint16) * 257
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)


def _folder_times(path: Path, count: int) -> tuple[Fraction, tuple[float, ...]]:
    """Frame rate and times from a clip folder's `clip.json`, where it fits; else the default."""
    about = path / "clip.json"
    if path.is_dir() and about.is_file():
        try:
            data = json.loads(about.read_text(encoding="utf-8"))
            times_s = tuple(float(t) for t in data["frame_times_s"])
            fps = Fraction(data["fps"]).limit_denominator(1001)
        except (OSError, ValueError, KeyError, TypeError) as err:
            raise InputError(f"{about}: not what preprocess writes ({err!r})") from err
        if len(times_s) == count and fps > 0:
            return fps, times_s
    return DEFAULT_FPS, tuple(float(t / DEFAULT_FPS) for t in range(count))


@lru_cache(maxsize=64)
def _probe_video(path: Path, mtime_ns: int, size_bytes: int, trusting: bool = False) -> VideoInfo:
    """`probe` of a file that has not changed since is answered from memory."""
    found = media_info.scan(path, packets_only=trusting)
    if trusting and (found.complaint is not None or not _rises(found.ticks)):
        return _probe_video(path, mtime_ns, size_bytes)
    rates = [r for r in (found.stream.rate("tbr"), found.stream.rate("fps")) if r]
    ticks = found.ticks
    fps, regular = _frame_rate(ticks, found.time_base, rates)
    if not _rises(ticks):
        log.warning("%s: frame times are missing or fall back; taken as %.3f fps", path, float(fps))
        times_s = tuple(float(t / fps) for t in range(len(ticks)))
        regular = True
    else:
        times_s = tuple(float(t * found.time_base) for t in ticks)
    claimed_s, last_s = found.description.duration_s, float(found.last_duration * found.time_base)
    end_s = times_s[-1] + (last_s if last_s > 0 and not regular else float(1 / fps))
    if found.complaint is not None:
        short = claimed_s is not None and end_s < claimed_s - max(1.0, 2 / float(fps))
        level = logging.WARNING if short else logging.INFO
        log.log(
            level,
            "%s: damaged (%s); using the %d frames that decode, %.2f s",
            path,
            found.complaint,
            len(ticks),
            end_s,
        )
    return VideoInfo(
        path=path,
        size=found.size,
        fps=fps,
        frame_count=len(ticks),
        frame_times_s=times_s,
        variable_frame_rate=not regular,
        rotation_deg=found.stream.rotation_deg,
        pix_fmt=found.pix_fmt,
        codec=found.stream.codec,
        color=found.color,
        audio=found.description.audio(),
        duration_s=end_s,
        sample_aspect=found.sample_aspect,
        stream_index=found.stream.index,
        lens_35mm=found.description.lens_35mm,
    )


def _rises(ticks: list[int]) -> bool:
    return all(a < b for a, b in pairwise(ticks))


def _frame_rate(
    ticks: list[int], time_base: Fraction, header: list[Fraction]
) -> tuple[Fraction, bool]:
    """The frame rate, and whether frames lie on its regular grid.

    Tried in this order: what the header says, whole numbers, those over 1.001, hundredths, and
    the exact mean. The first whose grid passes every frame within `GRID_TOLERANCE_S` is it.
    """
    if len(ticks) < 2 or not _rises(ticks):
        return (header[0] if header else DEFAULT_FPS), True
    mean = (len(ticks) - 1) / ((ticks[-1] - ticks[0]) * time_base)
    whole = Fraction(max(round(mean), 1))
    ntsc = Fraction(max(round(mean * 1001 / 1000), 1) * 1000, 1001)
    hundredths = Fraction(round(mean * 100), 100)
    times_s = tuple(float(t * time_base) for t in ticks)
    for fps in (*header, whole, ntsc, hundredths, mean.limit_denominator(100000)):
        if fps > 0 and _is_grid(times_s, fps):
            return fps, True
    return mean.limit_denominator(100000), False


def _is_grid(times_s: tuple[float, ...], fps: Fraction) -> bool:
    """Whether times are t0 + i / fps for some t0, each within half of `GRID_TOLERANCE_S`."""
    offsets_s = np.asarray(times_s) - np.arange(len(times_s)) / float(fps)
    return float(np.ptp(offsets_s)) <= GRID_TOLERANCE_S + 1e-9
