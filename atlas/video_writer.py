"""Write frames to a video with exact frame times, the source's colour tags and its sound.

Frames reach ffmpeg as a live Matroska stream (`atlas.matroska`), since that carries the time and
the duration of every frame.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from atlas import color, ffmpeg, matroska, media_info
from atlas.coords import Size
from atlas.errors import InputError
from atlas.picture_writer import FolderSink, PictureSink, Sink
from atlas.planes import FORMATS

if TYPE_CHECKING:
    from atlas.video import VideoInfo

log = logging.getLogger(__name__)

MUXERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
PICTURES = (".png", ".jpg", ".jpeg", ".webp")
CODECS = ("auto", "h264", "h265", "lossless", "ffv1", "prores", "vp9", "png")

PLANES = (*FORMATS, "yuva444p10le")
_ONLY_IN = {"prores": (".mov", ".mkv"), "ffv1": (".mkv",), "vp9": (".webm", ".mkv", ".mp4")}
_AUDIO_COPIES = {
    "mp4": ("aac", "mp3", "ac3", "eac3", "alac", "opus", "flac"),
    "mov": ("aac", "mp3", "ac3", "eac3", "alac", "pcm_"),
    "matroska": ("",),
    "webm": ("opus", "vorbis"),
}
"""Starts of the names of the audio codecs that each container takes and players then play."""


@dataclass
class VideoWriter:
    """Context manager: `write` each frame; the file appears on clean exit, whole, or not at all.

    The suffix of `path` decides the container (.mp4 .mov .mkv .webm); .png or .jpg is for one
    frame; a path without a suffix, or codec "png", becomes a folder of PNGs 00000.png ...
    Frames are never resized or cropped: odd sizes are written as 4:4:4.
    """

    path: Path | str
    size: Size
    fps: Fraction | float = field(kw_only=True)
    """Frames per second; times are t / fps unless `frame_times_s` is given."""
    frame_times_s: Sequence[float] | None = field(default=None, kw_only=True)
    """Time of every frame, seconds, rising; as many as are written. Kept to 0.02 ms (mkv, webm:
    their own 1 ms). The first may be late: the picture then starts after the sound."""
    end_s: float | None = field(default=None, kw_only=True)
    """When the last frame ends; None: it stands as long as a frame does at `fps`."""
    audio_from: Path | str | None = field(default=None, kw_only=True)
    """File whose audio tracks are taken, copied untouched where the container can hold them."""
    sound_until_s: float | None = field(default=None, kw_only=True)
    """End the sound here, seconds of `audio_from`; None takes it to its end."""
    sound_from_s: float = field(default=0.0, kw_only=True)
    """Where the sound begins, seconds of `audio_from`: what plays there goes with time 0."""
    color: dict[str, str] | None = field(default=None, kw_only=True)
    """range, space, primaries, transfer as in `VideoInfo.color`; untagged stays untagged."""
    codec: str = field(default="auto", kw_only=True)
    """One of `CODECS`; auto is h264, in .webm vp9. lossless and ffv1 keep every RGB value."""
    crf: int = field(default=16, kw_only=True)
    """Quality of h264, h265 and vp9: smaller is better and larger; 16 is hard to tell apart."""
    preset: str = field(default="fast", kw_only=True)
    """x264's and x265's trade of time for size: ultrafast ... veryslow."""
    sample_aspect: Fraction = field(default=Fraction(1), kw_only=True)
    """Width of a pixel over its height."""
    pixel_format: str = field(default="rgb24", kw_only=True)
    """rgb24 takes uint8 frames; rgb48 uint16, encoded in 10 bit; the formats of `atlas.planes`
    take planes, which are encoded as they are, and yuva444p10le planes with opacity."""
    may_be_short: bool = field(default=False, kw_only=True)
    """Whether fewer frames than `frame_times_s` are no mistake."""
    bits: int | None = field(default=None, kw_only=True)
    """8 or 10 in the file; None: as the frames have them."""

    def __post_init__(self) -> None:
        self.path = Path(self.path)
        if self.codec not in CODECS:
            raise InputError(f"there is no codec {self.codec!r}; wanted one of {', '.join(CODECS)}")
        if self.pixel_format not in ("rgb24", "rgb48", *PLANES):
            raise ValueError(f"there is no pixel_format {self.pixel_format!r}")
        self.fps = _as_rate(self.fps)
        if self.frame_times_s is not None:
            times_s = self.frame_times_s
            if any(not a < b for a, b in pairwise(times_s)):
                raise ValueError("frame_times_s must rise")
            if len(times_s) and not times_s[0] >= 0:
                raise ValueError(f"frame_times_s must start at 0 or later, got {times_s[0]}")
        self._written = 0
        self._sink: Sink = _choose_sink(self)

    @classmethod
    def like(cls, info: VideoInfo, path: Path | str, **changes: Any) -> VideoWriter:
        """A writer for a video with the frame times, colour, pixel shape and sound of `info`."""
        settings: dict[str, Any] = {
            "fps": info.fps,
            "frame_times_s": info.frame_times_s,
            "end_s": info.duration_s,
            "audio_from": info.path if info.audio else None,
            "color": info.color,
            "sample_aspect": info.sample_aspect,
        }
        return cls(path, changes.pop("size", info.size), **{**settings, **changes})

    def __enter__(self) -> VideoWriter:
        self._sink.open()
        return self

    def write(self, rgb: np.ndarray) -> None:
        """Append one frame, (H, W, 3) RGB of the writer's size; uint8, or uint16 for rgb48."""
        if self.pixel_format in PLANES:
            raise ValueError(f"frames are {self.pixel_format}: write_planes() takes them")
        wanted = (self.size.height, self.size.width, 3)
        if rgb.shape != wanted:
            raise ValueError(f"frame {self._written} has shape {rgb.shape}, wanted {wanted}")
        kind = np.uint16 if self.pixel_format == "rgb48" else np.uint8
        if rgb.dtype != kind:
            raise ValueError(f"frame {self._written} is {rgb.dtype}, wanted {np.dtype(kind)}")
        self._append([np.ascontiguousarray(rgb, "<u2" if kind is np.uint16 else kind)])

    def write_planes(self, planes: Sequence[np.ndarray]) -> None:
        """Append one frame as Y, U, V and, for a format with it, opacity."""
        if len(planes) != 3 + self.pixel_format.startswith("yuva"):
            raise ValueError(f"{len(planes)} planes do not make a frame of {self.pixel_format}")
        kind = "<u2" if self.pixel_format.endswith("10le") else np.uint8
        self._append([np.ascontiguousarray(plane, kind) for plane in planes])

    def _append(self, parts: list[np.ndarray]) -> None:
        if self.frame_times_s is not None and self._written >= len(self.frame_times_s):
            raise ValueError(f"more frames than the {len(self.frame_times_s)} frame_times_s")
        self._sink.write(self._written, *parts)
        self._written += 1

    @property
    def deep(self) -> bool:
        """Whether the file holds more than 8 bits."""
        if self.bits is not None:
            return self.bits > 8
        return self.pixel_format == "rgb48" or self.pixel_format.endswith("10le")

    def keep_partial(self) -> Path | None:
        """End the file with the frames written so far; where it lies, None without any.

        For a run that was interrupted: the result is shorter, and plays.
        """
        if not self._written or not isinstance(self._sink, _VideoSink):
            return None
        self._sink.commit()
        return Path(self.path)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._check_count()
                self._sink.commit()
        finally:
            self._sink.discard()

    def _check_count(self) -> None:
        if self._written == 0:
            raise ValueError("no frame was written")
        short = self.frame_times_s is not None and self._written != len(self.frame_times_s)
        if short and not self.may_be_short:
            assert self.frame_times_s is not None
            raise ValueError(f"{self._written} frames, but {len(self.frame_times_s)} frame_times_s")

    @property
    def varies(self) -> bool:
        """Whether frames stand for unequal times, by more than containers round."""
        if self.frame_times_s is None or len(self.frame_times_s) < 2:
            return False
        steps_s = np.diff(self.frame_times_s)
        return bool(np.ptp(steps_s) > 0.0021)

    def time_s(self, t: int) -> Fraction:
        """When frame `t` is shown, seconds."""
        if self.frame_times_s is not None:
            return Fraction(self.frame_times_s[t])
        return t / Fraction(self.fps)

    def until_s(self, t: int) -> Fraction:
        """When frame `t` stops being shown, seconds."""
        times_s = self.frame_times_s
        if times_s is not None and t + 1 < len(times_s):
            return Fraction(times_s[t + 1])
        if times_s is not None and self.end_s is not None and self.end_s > times_s[t]:
            return Fraction(self.end_s)
        return self.time_s(t) + 1 / Fraction(self.fps)


def _as_rate(fps: Fraction | float) -> Fraction:
    """Frame rate as a fraction; 29.97 given as a float is 30000/1001."""
    if not fps > 0:
        raise ValueError(f"fps must be > 0, got {fps}")
    if isinstance(fps, (Fraction, int)):
        return Fraction(fps)
    ntsc = Fraction(round(fps * 1.001) * 1000, 1001)
    near = fps != round(fps) and abs(float(ntsc) - fps) < 0.005
    return ntsc if near else Fraction(fps).limit_denominator(100000)


def _choose_sink(writer: VideoWriter) -> Sink:
    path = Path(writer.path)
    suffix = path.suffix.lower()
    if writer.codec == "png" or (suffix == "" and writer.codec == "auto") or path.is_dir():
        return FolderSink(path)
    if suffix in PICTURES:
        return PictureSink(path)
    if suffix not in MUXERS:
        raise InputError(
            f"{path}: cannot write {suffix or 'a video without a suffix'}; wanted "
            f"{' '.join(MUXERS)}, .png or .jpg for one frame, or a folder name for PNGs"
        )
    codec = writer.codec
    if codec == "auto":
        codec = "vp9" if suffix == ".webm" else "h264"
    allowed = _ONLY_IN.get(codec, tuple(s for s in MUXERS if s != ".webm"))
    if suffix not in allowed:
        raise InputError(f"{path}: {codec} cannot be put in {suffix}; wanted {' '.join(allowed)}")
    return _VideoSink(writer, codec)


class _VideoSink:
    def __init__(self, writer: VideoWriter, codec: str):
        self._writer = writer
        self._codec = codec
        self._path = Path(writer.path)
        self._muxer = MUXERS[self._path.suffix.lower()]
        self._temporary = self._path.with_name(f"{self._path.name}.tmp")
        self._process: ffmpeg.Process | None = None

    def open(self) -> None:
        writer = self._writer
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._temporary.touch()  # fails here, with the file's name, where nothing may be written
        try:
            self._process = ffmpeg.Process(self._arguments(), feed=True)
            self._send(matroska.stream_head(writer.size, Fraction(writer.fps), writer.pixel_format))
        except BaseException:
            self.discard()
            raise

    def write(self, t: int, *parts: np.ndarray) -> None:
        start_s = self._writer.time_s(0)
        at_us = round((self._writer.time_s(t) - start_s) * 1_000_000)
        end_us = round((self._writer.until_s(t) - start_s) * 1_000_000)
        count = sum(part.nbytes for part in parts)
        before, after = matroska.around_picture(at_us, max(end_us - at_us, 1), count)
        self._send(before)
        for part in parts:
            self._send(part.data)
        self._send(after)

    def _send(self, data: bytes | memoryview) -> None:
        assert self._process is not None
        if not self._process.write(data):
            self._process.finish()
            raise self._failure()

    def _failure(self) -> Exception:
        assert self._process is not None
        reason = self._process.complaint()
        if any("No space left" in line for line in self._process.lines):
            return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
        return InputError(f"{self._path}: ffmpeg could not write it: {reason}")

    def commit(self) -> None:
        assert self._process is not None
        if self._process.finish() != 0:
            raise self._failure()
        self._temporary.replace(self._path)

    def discard(self) -> None:
        if self._process is not None:
            self._process.kill()
        self._temporary.unlink(missing_ok=True)

    def _arguments(self) -> list[str]:
        writer = self._writer
        scale = _timescale(writer)
        start = ["-itsoffset", f"{float(writer.time_s(0)):.6f}"]
        sound_in, sound_out = self._sound()
        encoder, pix_fmt = self._encoder()
        given, tags = writer.pixel_format, writer.color or {}
        if given in PLANES:
            chain = color.from_planes_filter(given, pix_fmt, tags)
        else:
            chain = color.from_rgb_filter(pix_fmt, tags, writer.size)
        if writer.sample_aspect != 1:
            aspect = writer.sample_aspect
            chain += f",setsar={aspect.numerator}/{aspect.denominator}"
        muxer = ["-f", self._muxer]
        if self._muxer in ("mp4", "mov"):
            muxer += ["-movflags", "+faststart", "-video_track_timescale", str(scale)]
        inputs = [*start, "-f", "matroska", "-i", "pipe:0", *sound_in]
        picture = ["-map", "0:v:0", "-vf", chain, "-fps_mode", "passthrough"]
        picture += ["-enc_time_base:v", f"1:{scale}", *encoder]
        made = ["-map_metadata", "-1", *muxer, ffmpeg.input_name(self._temporary)]
        return ["-y", "-v", "error", *inputs, *picture, *sound_out, *made]

    def _encoder(self) -> tuple[list[str], str]:
        """ffmpeg's options for the codec, and the pixel format it is given."""
        writer, deep = self._writer, self._writer.deep
        if self._codec in ("lossless", "ffv1") and writer.pixel_format in PLANES:
            raise ValueError(f"{self._codec} keeps RGB; frames are {writer.pixel_format}")
        if self._codec == "lossless":
            if deep:
                raise InputError("lossless holds 8 bit only; wanted ffv1 in .mkv for 16 bit")
            return ["-c:v", "libx264rgb", "-crf", "0", "-preset", writer.preset], "rgb24"
        if self._codec == "ffv1":
            return ["-c:v", "ffv1", "-level", "3"], "gbrp16le" if deep else "bgr0"
        if self._codec == "prores":
            options = ["-c:v", "prores_ks", "-profile:v", "4444", "-vendor", "apl0"]
            with_alpha = writer.pixel_format.startswith("yuva")
            return options, "yuva444p10le" if with_alpha else "yuv444p10le"
        odd = writer.size.height % 2 == 1 or writer.size.width % 2 == 1
        if odd:
            log.info("%s: %s is odd, so it is written as 4:4:4", self._path, writer.size)
        pix_fmt = ("yuv444p" if odd else "yuv420p") + ("10le" if deep else "")
        crf = ["-crf", str(writer.crf)]
        # Out of display order mp4 would give the last frame another frame's duration.
        order = ["-bf", "0"] if writer.varies else []
        if self._codec == "vp9":
            return ["-c:v", "libvpx-vp9", *crf, "-b:v", "0", "-cpu-used", "4", "-row-mt", "1"], (
                pix_fmt
            )
        if self._codec == "h265":
            quiet = ["-tag:v", "hvc1", "-x265-params", "log-level=error"]
            return ["-c:v", "libx265", *crf, *order, "-preset", writer.preset, *quiet], pix_fmt
        return ["-c:v", "libx264", *crf, *order, "-preset", writer.preset], pix_fmt

    def _sound(self) -> tuple[list[str], list[str]]:
        """ffmpeg's options for the file that brings the sound, and for what becomes of it."""
        if self._writer.audio_from is None:
            return [], []
        path = Path(self._writer.audio_from)
        if not path.is_file():
            raise InputError(f"{path}: not found; wanted a file to take the sound from")
        tracks = [s for s in media_info.describe_file(path).streams if s.kind == "Audio"]
        options = []
        for i, track in enumerate(tracks):
            codec = "copy"
            if not track.codec.startswith(_AUDIO_COPIES[self._muxer]):
                codec = "libopus" if self._muxer == "webm" else "aac"
                log.info(
                    "%s: %s cannot hold %s sound; encoded again as %s",
                    self._path,
                    self._path.suffix,
                    track.codec,
                    codec.removeprefix("lib"),
                )
            options += ["-map", f"1:{track.index}", f"-c:a:{i}", codec]
            options += [] if codec == "copy" else [f"-b:a:{i}", "256k"]
        from_s, until_s = self._writer.sound_from_s, self._writer.sound_until_s
        cut = ["-ss", f"{from_s:.6f}"] if from_s > 0 else []
        cut += [] if until_s is None else ["-t", f"{until_s - from_s:.6f}"]
        return ([*cut, "-i", ffmpeg.input_name(path)], options) if tracks else ([], [])


def _timescale(writer: VideoWriter) -> int:
    """Ticks a second in which the frames' times are kept: exact at a constant frame rate.

    A frame is a whole number of ticks, and a tick at most 0.02 ms, so that any other time is
    right to 0.01 ms.
    """
    rate = Fraction(writer.fps).numerator
    if rate > 1_000_000:  # a mean of variable frame times, which no grid fits
        return 90_000
    return rate * -(-50_000 // rate)
