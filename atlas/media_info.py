"""What a media file holds, from what ffmpeg itself says of it while it reads it.

The binary of the imageio-ffmpeg wheel brings no ffprobe.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

from atlas.coords import Size
from atlas.errors import InputError
from atlas.ffmpeg import Process, input_name

_MOST_LINES = 2000
"""Lines of a file's description that are kept: some carry pages of metadata."""


@dataclass(frozen=True)
class Stream:
    """One `Stream #0:N` line of ffmpeg's description of a file."""

    index: int
    kind: str
    """Video, Audio, Data, Subtitle or Attachment."""
    codec: str
    text: str
    """The whole line after the kind."""
    size: Size | None = None
    """Stored size of a video stream, before rotation."""
    rotation_deg: int = 0
    """Display matrix, counter-clockwise, 0 <= rotation < 360."""

    @property
    def is_picture(self) -> bool:
        """A cover picture or thumbnail rather than the video."""
        return "(attached pic)" in self.text or "(timed thumbnails)" in self.text

    def rate(self, unit: str) -> Fraction | None:
        """The frame rate called `unit` (fps or tbr), with 29.97 read as 30000/1001."""
        match = re.search(rf"([\d.]+)(k?) {unit}\b", self.text)
        if match is None or match[2]:
            return None
        value = Fraction(match[1])
        ntsc = Fraction(round(value * 1001 / 1000) * 1000, 1001)
        rate = (
            ntsc if 0 < abs(ntsc - value) < Fraction(1, 100) and value.denominator != 1 else value
        )
        return rate if rate > 0 else None


@dataclass
class Description:
    """What ffmpeg says of a file before it decodes it."""

    streams: list[Stream] = field(default_factory=list)
    duration_s: float | None = None
    lens_35mm: float | None = None
    """Focal length of the lens on 35 mm film, millimetres, where a camera has noted it."""

    def video(self) -> Stream | None:
        """The video stream proper: no cover picture; the largest; of equals the first."""
        found = [s for s in self.streams if s.kind == "Video" and s.size and not s.is_picture]
        area = [s.size.height * s.size.width for s in found if s.size]
        return found[area.index(max(area))] if found else None

    def audio(self) -> dict[str, object] | None:
        """Codec, sample rate, channels and layout of the first audio stream."""
        for stream in self.streams:
            if stream.kind == "Audio":
                rate = re.search(r"(\d+) Hz, ([^,]+)", stream.text)
                layout = rate[2].strip() if rate else ""
                return {
                    "codec": stream.codec,
                    "sample_rate": int(rate[1]) if rate else 0,
                    "channels": _channels(layout),
                    "layout": layout,
                }
        return None


def _channels(layout: str) -> int:
    named = {"mono": 1, "stereo": 2, "downmix": 2, "quad": 4, "hexagonal": 6, "octagonal": 8}
    if layout in named:
        return named[layout]
    if match := re.match(r"(\d+) channels", layout):
        return int(match[1])
    match = re.match(r"(\d+)\.(\d+)", layout)  # 5.1(side), 7.1
    return int(match[1]) + int(match[2]) if match else 0


def describe(lines: list[str]) -> Description:
    """Understand ffmpeg's description of its first input, from its stderr."""
    found = Description()
    for line in lines:
        if line.startswith(("Stream mapping", "Output #", "Input #1")):
            break
        if match := re.match(r"\s+Duration: (\d+):(\d+):([\d.]+)", line):
            found.duration_s = int(match[1]) * 3600 + int(match[2]) * 60 + float(match[3])
        elif match := re.match(
            r"\s+\S*focal_?length\S*35mm\S*\s*:\s*([\d.]+)", line, re.IGNORECASE
        ):
            found.lens_35mm = float(match[1]) or None
        elif match := re.match(r"\s+Stream #0:(\d+)\S*: (\w+): ([\w-]+)(.*)", line):
            index, kind, codec, text = int(match[1]), match[2], match[3], match[3] + match[4]
            size = re.search(r", (\d+)x(\d+)", text) if kind == "Video" else None
            hw = Size(int(size[2]), int(size[1])) if size and int(size[1]) * int(size[2]) else None
            found.streams.append(Stream(index, kind, codec, text, hw))
        elif (match := re.search(r"rotation of (-?[\d.]+) degrees", line)) and found.streams:
            last = found.streams[-1]
            turn = round(float(match[1])) % 360
            found.streams[-1] = Stream(
                last.index, last.kind, last.codec, last.text, last.size, turn
            )
    return found


@dataclass
class Scan:
    """What a file turned out to hold when its video was decoded once, end to end."""

    stream: Stream
    description: Description
    size: Size
    """Upright."""
    pix_fmt: str
    color: dict[str, str]
    """range, space, primaries, transfer in ffmpeg's names; what is not tagged is left out."""
    sample_aspect: Fraction
    time_base: Fraction
    ticks: list[int]
    """Presentation time of every frame that decodes, in units of `time_base`."""
    last_duration: int
    """How long the last frame stands, in units of `time_base`; 0 where the file does not say."""
    complaint: str | None
    """The first thing that was wrong with the file; None where it decoded cleanly."""


def scan(path: Path, *, packets_only: bool = False) -> Scan:
    """Decode the video of `path` once and note its times, size and tags.

    Containers lie about frame counts, so they are counted. It takes about 1 ms a frame at 854x480
    and 4 ms at 1920x1080 on two cores, since no pixel leaves ffmpeg.

    Args:
        packets_only: read times from the packets, which takes next to no time, and decode the
            first frame alone; what does not decode later on is found out later on.
    """
    if packets_only:  # most files hold one video: then a single look says all
        found = _Look(path, "V:0", packets_only=True)
        described = describe(found.said)
        stream = described.video()
        if stream is not None and found.whole and found.mapped == stream.index:
            _described[_identity(path)] = described
            return found.scan(stream, described)
    with_header = describe_file(path)
    stream = with_header.video()
    if stream is None:
        kinds = ", ".join(sorted({s.kind.lower() for s in with_header.streams})) or "nothing"
        raise InputError(f"{path}: holds no video stream (found: {kinds})")
    found = _Look(path, str(stream.index), packets_only=packets_only)
    found.head = _Look(path, str(stream.index), packets_only=None).head
    if not found.frames or not found.head:
        raise InputError(f"{path}: no frame of its video can be decoded ({found.complaint})")
    return found.scan(stream, with_header)


class _Look:
    """One run of ffmpeg over the video stream `which` of a file, and what it said."""

    def __init__(self, path: Path, which: str, *, packets_only: bool | None):
        """Its packets and first frame; all frames; or, None, the first frame alone.

        All frames and what `showinfo` says of the first do not go together: ffmpeg's threads
        would print into each other's lines. Packets are copied before any frame is shown.
        """
        self.head: list[str] = []
        self.wrong: list[str] = []
        self.said: list[str] = []
        select = ["-map", f"0:{which}", "-fps_mode", "passthrough"]
        each = ["-enc_time_base:v", "demux", "-c:v", "wrapped_avframe"]
        times = [*select, *(["-c:v", "copy"] if packets_only else each), "-f", "framecrc", "-"]
        shown = "sidedata=mode=delete,showinfo=checksum=0"
        first = [*select, "-vf", shown, "-frames:v", "1", "-f", "null", "-"]
        wanted = {True: [*times, *first], False: times, None: first}[packets_only]
        line = ["-v", "level+info", "-i", input_name(path), *wanted]
        process = Process(line, read=True, on_line=self._note)
        try:
            self.rows = process.read_all().decode("ascii", "replace").splitlines()
            status = process.finish()
        except BaseException:
            process.kill()
            raise
        self.complaint = process.complaint()
        self.frames = [row.split(",") for row in self.rows if row and not row.startswith("#")]
        if status != 0 and not self.wrong:
            self.wrong.append(self.complaint)
        if packets_only:  # they come in the order of decoding
            self.frames.sort(key=lambda row: int(row[2]) if "NOPTS" not in row[2] else -1)

    def _note(self, line: str) -> None:
        if "[Parsed_showinfo" in line:
            if len(self.head) < 40:
                self.head.append(line)
        elif re.match(r"\[[^]]*\] \[(error|fatal)\]|\[(error|fatal)\]", line):
            if not self.wrong:
                self.wrong.append(re.sub(r"^(\[[^]]*\] ?)+", "", line))
        elif line.startswith("[info] ") and len(self.said) < _MOST_LINES:
            self.said.append(line.removeprefix("[info] "))

    @property
    def whole(self) -> bool:
        """Whether nothing was found wrong."""
        return bool(self.frames and self.head and not self.wrong and not self.garbled)

    @property
    def garbled(self) -> bool:
        """Whether ffmpeg's threads wrote into each other's lines."""
        lines = "\n".join(self.head)
        return bool(self.frames and self.head) and not all(
            re.search(wanted, lines) for wanted in (r" s:\d+x\d+", r"fmt:\S+", r"color_trc:\S+")
        )

    @property
    def mapped(self) -> int | None:
        """Number of the stream that was looked at."""
        found = re.search(r"Stream #0:(\d+) -> #0:0", "\n".join(self.said))
        return None if found is None else int(found[1])

    def scan(self, stream: Stream, description: Description) -> Scan:
        return _read_scan(stream, description, self.rows, self.frames, self.head, self.wrong)


def _read_scan(
    stream: Stream,
    description: Description,
    rows: list[str],
    frames: list[list[str]],
    head: list[str],
    wrong: list[str],
) -> Scan:
    text = "\n".join(head)

    def tag(pattern: str) -> str:
        match = re.search(pattern, text)
        return match[1] if match else "unknown"

    named = {
        "range": tag(r"color_range:(\S+)"),
        "space": tag(r"color_space:(\S+)"),
        "primaries": tag(r"color_primaries:(\S+)"),
        "transfer": tag(r"color_trc:(\S+)"),
    }
    base = re.search(r"#tb 0: (\d+)/(\d+)", "\n".join(rows[:10]))
    size = re.search(r" s:(\d+)x(\d+)", text)
    aspect = re.search(r"sar:(\d+)/(\d+)", text)
    if base is None or size is None:
        raise RuntimeError(f"ffmpeg's framecrc output has no head: {rows[:6]}")
    ratio = Fraction(int(aspect[1]), int(aspect[2]) or 1) if aspect else Fraction(1)
    ticks = [int(row[2]) if "NOPTS" not in row[2] else -1 for row in frames]
    return Scan(
        stream=stream,
        description=description,
        size=Size(int(size[2]), int(size[1])),
        pix_fmt=tag(r"fmt:(\S+)"),
        color={key: value for key, value in named.items() if value not in ("unknown", "reserved")},
        sample_aspect=ratio if ratio > 0 else Fraction(1),
        time_base=Fraction(int(base[1]), int(base[2])),
        ticks=ticks,
        last_duration=int(frames[-1][3]),
        complaint=wrong[0] if wrong else None,
    )


_described: dict[tuple[Path, int, int], Description] = {}
"""What is known of files that have not changed since; few, as a command reads few."""


def _identity(path: Path) -> tuple[Path, int, int]:
    stat = path.stat()
    return path, stat.st_mtime_ns, stat.st_size


def describe_file(path: Path) -> Description:
    """Streams of a media file, without decoding it; `InputError` where ffmpeg cannot open it."""
    key = _identity(path)
    if key not in _described:
        _described[key] = _describe_file(path)
    return _described[key]


def _describe_file(path: Path) -> Description:
    lines: list[str] = []  # all of them: a file may carry pages of metadata
    process = Process(["-v", "info", "-i", input_name(path)], on_line=lines.append)
    process.finish()  # always an error status, for want of an output
    found = describe(lines)
    if not found.streams:
        headless = any("moov atom not found" in line for line in lines)
        if headless and _starts_like_mp4(path):
            raise InputError(
                f"{path}: is cut off: its index (the moov atom) is missing; copy or record it again"
            )
        raise InputError(f"{path}: not a video that ffmpeg can read ({process.complaint()})")
    return found


def _starts_like_mp4(path: Path) -> bool:
    """Whether the first box is one that begins an mp4 or mov file (ISO 14496-12, section 4.3)."""
    with path.open("rb") as file:
        return file.read(8)[4:] in (b"ftyp", b"mdat", b"wide", b"free", b"skip")
