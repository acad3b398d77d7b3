"""Live pictures: a camera or a pipe in, a window or a pipe out, dropping rather than lagging.

The source is read by a thread that keeps the newest frame alone; whoever is ready for one takes
that, so a slow machine shows fewer frames, never older ones. Latency is measured from the moment a
frame has been read to the moment it is handed out.
"""

from __future__ import annotations

import contextlib
import statistics
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import IO, Protocol

import cv2
import numpy as np

from atlas import ffmpeg
from atlas.coords import Size
from atlas.errors import InputError
from atlas.planes import PlaneFormat, Planes
from edits.stream import SkyStream, StreamFrame

IN_FLIGHT = 3
"""Most frames between reading and showing: one in every stage that takes long."""
REPORT_S = 5.0
"""How often the measured latency is told."""
_Y4M_RATE = Fraction(30)


class LiveSource(Protocol):
    """Planes as they come."""

    form: PlaneFormat

    def read(self) -> Planes | None:
        """The next picture; None at the end."""
        ...

    def close(self) -> None: ...


class CameraSource:
    """A camera, through OpenCV."""

    def __init__(self, number: int, *, mirror: bool = False):
        cv2.utils.logging.setLogLevel(
            cv2.utils.logging.LOG_LEVEL_SILENT
        )  # what is wrong is said here, in one line
        self._capture = cv2.VideoCapture(number)
        self._mirror = mirror
        good, bgr = self._capture.read()
        if not good:
            raise InputError(f"--input {number}: no camera with that number gives pictures")
        height, width = (side - side % 2 for side in bgr.shape[:2])
        self.form = PlaneFormat("yuv420p", Size(height, width), "smpte170m", full=False)

    def read(self) -> Planes | None:
        good, bgr = self._capture.read()
        if not good:
            return None
        size = self.form.size
        rgb = cv2.cvtColor(bgr[: size.height, : size.width], cv2.COLOR_BGR2RGB)
        return self.form.planes_of(rgb[:, ::-1] if self._mirror else rgb)

    def close(self) -> None:
        self._capture.release()


class PipeSource:
    """A video of any kind that ffmpeg knows, on a pipe: YUV4MPEG, Matroska, MPEG-TS ..."""

    def __init__(self, pipe: IO[bytes]):
        chain = "format=yuv420p,crop=trunc(iw/2)*2:trunc(ih/2)*2"
        given = ["-flags", "low_delay", "-analyzeduration", "0", "-i", "pipe:0"]
        taken = ["-vf", chain, "-fps_mode", "passthrough", "-f", "yuv4mpegpipe"]
        self._process = ffmpeg.Process(
            ["-v", "error", *given, *taken, "-flush_packets", "1", "-"], feed=pipe, read=True
        )
        head = self._line()
        fields = {part[:1]: part[1:] for part in head.split()[1:]}
        if not head.startswith("YUV4MPEG2"):
            raise InputError(f"--input -: no video that ffmpeg knows ({self._process.complaint()})")
        size = Size(int(fields["H"]), int(fields["W"]))
        matrix = "bt709" if size.height > 576 else "smpte170m"
        self.form = PlaneFormat("yuv420p", size, matrix, full="XCOLORRANGE=FULL" in head)

    def _line(self) -> str:
        out, byte = bytearray(), np.empty(1, np.uint8)
        while self._process.read_into(byte.data) == 1 and byte[0] != 10 and len(out) < 512:
            out.append(int(byte[0]))
        return out.decode("ascii", "replace")

    def read(self) -> Planes | None:
        if not self._line().startswith("FRAME"):
            return None
        data = np.empty(self.form.byte_count, np.uint8)
        return self.form.split(data) if self._process.read_into(data.data) == data.size else None

    def close(self) -> None:
        self._process.kill()


@dataclass
class Newest:
    """Reads a source in a thread and keeps its newest picture alone."""

    source: LiveSource
    dropped: int = 0
    start_s: float = field(default_factory=time.monotonic)
    _wake: threading.Condition = field(default_factory=threading.Condition)
    _held: tuple[float, Planes] | None = None
    _ended: bool = False
    _in_flight: int = 0

    def __post_init__(self) -> None:
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        while not self._ended:
            planes = self.source.read()
            with self._wake:
                self.dropped += planes is not None and self._held is not None
                self._ended = self._ended or planes is None
                if planes is not None:
                    self._held = (time.monotonic(), planes)
                self._wake.notify()

    def frames(self) -> Iterator[tuple[int, float, Planes]]:
        """(number, seconds since the start at which it was read, planes), the newest each time."""
        number = 0
        while True:
            with self._wake:
                while (self._held is None or self._in_flight >= IN_FLIGHT) and not self._ended:
                    self._wake.wait(0.5)
                held, self._held = self._held, None
                self._in_flight += 1
            if held is None:
                return
            yield number, held[0] - self.start_s, held[1]
            number += 1

    def shown(self) -> None:
        """A frame has come out at the other end: the next may go in."""
        with self._wake:
            self._in_flight -= 1
            self._wake.notify()

    def stop(self) -> None:
        with self._wake:
            self._ended = True
            self._wake.notify()


@dataclass
class Latencies:
    """Milliseconds from reading to handing out, of the last frames."""

    last_ms: deque[float] = field(default_factory=lambda: deque(maxlen=300))
    count: int = 0

    def add(self, read_s: float) -> None:
        self.last_ms.append(1000 * (time.monotonic() - read_s))
        self.count += 1

    def describe(self, dropped: int, seconds: float) -> str:
        median = statistics.median(self.last_ms)
        return (
            f"latency {median:.0f} ms (most {max(self.last_ms):.0f}), "
            f"{self.count / max(seconds, 1e-6):.1f} frames/s, {dropped} dropped"
        )


def run_live(
    source: LiveSource, stream: SkyStream, show: Callable[[Planes], bool]
) -> tuple[Latencies, int]:
    """Edit a source until it ends or `show` says stop (False); latencies and frames dropped.

    The measured latency is printed to standard error every `REPORT_S`, and at the end.
    """
    cv2.setNumThreads(1)  # the stages are the parallelism
    newest, latencies = Newest(source), Latencies()
    start_s = told_s = time.monotonic()
    results = stream.run(newest.frames(), depth=1)
    with contextlib.closing(results):
        try:
            for frame in results:
                going_on = show(_done(frame))
                latencies.add(newest.start_s + frame.time_s)
                newest.shown()
                if time.monotonic() - told_s > REPORT_S:
                    told_s = time.monotonic()
                    said = latencies.describe(newest.dropped, told_s - start_s)
                    print(said, file=sys.stderr, flush=True)
                if not going_on:
                    break
        except KeyboardInterrupt:
            pass
        finally:
            newest.stop()
    if latencies.count:
        said = latencies.describe(newest.dropped, time.monotonic() - start_s)
        print(said, file=sys.stderr, flush=True)
    return latencies, newest.dropped


def _done(frame: StreamFrame) -> Planes:
    assert frame.done is not None
    return frame.done


def check_display() -> None:
    """Raise `InputError` where no window can be opened.

    Tried in a process of its own: without a display OpenCV's windows end the program.
    """
    trial = "import cv2; cv2.namedWindow('skyweave'); cv2.destroyAllWindows()"
    try:
        done = subprocess.run([sys.executable, "-c", trial], capture_output=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        done = None
    if done is None or done.returncode != 0:
        raise InputError("no window can be opened here; write to a pipe with --out -")


class Window:
    """A preview; q, Esc or its close button end it."""

    def __init__(self, form: PlaneFormat, name: str = "skyweave"):
        self._form, self._name = form, name

    def __call__(self, planes: Planes) -> bool:
        try:
            cv2.imshow(self._name, cv2.cvtColor(self._form.rgb_of(planes), cv2.COLOR_RGB2BGR))
            key = cv2.waitKey(1) & 0xFF
            open_still = cv2.getWindowProperty(self._name, cv2.WND_PROP_VISIBLE) >= 1
        except cv2.error as err:
            raise InputError("no window can be opened here; write to a pipe with --out -") from err
        return key not in (ord("q"), 27) and open_still


class PipeOut:
    """YUV4MPEG on a pipe: `| ffplay -i -`, `| ffmpeg -i - ...`."""

    def __init__(self, form: PlaneFormat, pipe: IO[bytes]):
        span = "FULL" if form.full else "LIMITED"
        self._pipe = pipe
        rate = f"F{_Y4M_RATE.numerator}:{_Y4M_RATE.denominator}"
        head = f"YUV4MPEG2 W{form.size.width} H{form.size.height} {rate} Ip A1:1 C420mpeg2"
        self._pipe.write(f"{head} XCOLORRANGE={span}\n".encode())

    def __call__(self, planes: Planes) -> bool:
        try:
            self._pipe.write(b"FRAME\n")
            for plane in planes.all:
                self._pipe.write(np.ascontiguousarray(plane).data)
            self._pipe.flush()
        except BrokenPipeError:
            return False
        return True
