"""The ffmpeg process: start it, feed or read it without deadlock, say why it failed.

The binary is the one in the imageio-ffmpeg wheel.
"""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import os
import re
import subprocess
import threading
from collections import deque
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import IO

from atlas.errors import InputError

STDERR_LINES_KEPT = 40


@lru_cache(maxsize=1)
def executable() -> str:
    """Path of the ffmpeg binary.

    That of the wheel is taken as it lies there: imageio-ffmpeg would start it once to see whether
    it runs, a twentieth of a second. `IMAGEIO_FFMPEG_EXE` names another one.
    """
    found = importlib.util.find_spec("imageio_ffmpeg")
    if found is None or found.origin is None:
        raise InputError("reading video needs imageio-ffmpeg: pip install imageio-ffmpeg")
    own = sorted((Path(found.origin).parent / "binaries").glob("ffmpeg-*"))
    if len(own) == 1 and not os.environ.get("IMAGEIO_FFMPEG_EXE") and os.access(own[0], os.X_OK):
        return str(own[0])
    import imageio_ffmpeg

    try:
        return imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError as err:
        raise InputError(f"no ffmpeg binary is to be had: {err}") from err


_PIPE_BYTES = 1 << 20
"""Size asked for pipes of pictures: the usual 64 KB wakes both ends ten times a frame."""


def widen_pipe(stream: IO[bytes] | None) -> None:
    """Let a pipe hold more, where the system can (Linux)."""
    try:
        import fcntl
    except ModuleNotFoundError:  # Windows
        return
    if stream is not None and hasattr(fcntl, "F_SETPIPE_SZ"):
        with contextlib.suppress(OSError):  # above what this user may have
            fcntl.fcntl(stream, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


class Process:
    """A running ffmpeg whose stderr is drained by a thread, so that no pipe can fill up and stall.

    It has a session of its own: Ctrl-C reaches this program alone, which then ends ffmpeg.
    `feed`: whether its input is written here; or a file that it reads itself.
    """

    def __init__(
        self,
        arguments: list[str],
        *,
        feed: bool | IO[bytes] = False,
        read: bool = False,
        on_line: Callable[[str], None] | None = None,
    ):
        self._popen = subprocess.Popen(
            [executable(), "-hide_banner", "-nostats", *([] if feed else ["-nostdin"]), *arguments],
            stdin=_standard_input(feed),
            stdout=subprocess.PIPE if read else subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )
        widen_pipe(self._popen.stdout)
        widen_pipe(self._popen.stdin)
        self._lines: deque[str] = deque(maxlen=STDERR_LINES_KEPT)
        self._on_line = on_line
        self._thread = threading.Thread(target=self._drain, daemon=True)
        self._thread.start()

    def _drain(self) -> None:
        stream = self._popen.stderr
        assert stream is not None
        pending = b""
        while chunk := stream.read(65536):
            *whole, pending = (pending + chunk).split(b"\n")
            for line in whole:
                self._take(line)
        self._take(pending)

    def _take(self, raw: bytes) -> None:
        line = raw.decode("utf-8", "replace").rstrip()
        if line:
            self._lines.append(line)
            if self._on_line is not None:
                self._on_line(line)

    def write(self, data: bytes | memoryview) -> bool:
        """Send all of `data` to ffmpeg's stdin; False when ffmpeg is no longer there."""
        stream = self._popen.stdin
        assert stream is not None
        view = memoryview(data).cast("B")
        try:
            while view:
                view = view[stream.write(view) :]
        except (BrokenPipeError, ConnectionResetError):
            return False
        except OSError as err:  # what Windows reports for a closed pipe
            if err.errno != errno.EINVAL:
                raise
            return False
        return True

    def read_into(self, buffer: memoryview) -> int:
        """Fill `buffer` from ffmpeg's stdout; fewer bytes than asked for come only at the end."""
        stream = self._popen.stdout
        assert stream is not None
        got = 0
        while got < len(buffer):
            count = stream.readinto(buffer[got:])  # type: ignore[attr-defined]
            if not count:
                break
            got += count
        return got

    def read_all(self) -> bytes:
        """All of ffmpeg's stdout."""
        stream = self._popen.stdout
        assert stream is not None
        parts = []
        while chunk := stream.read(1 << 20):
            parts.append(chunk)
        return b"".join(parts)

    def finish(self) -> int:
        """Close stdin, wait for the end and return the exit status."""
        if self._popen.stdin is not None:
            with contextlib.suppress(OSError):  # ffmpeg is gone already; its status says why
                self._popen.stdin.close()
        status = self._popen.wait()
        self._close_pipes()
        return status

    def kill(self) -> None:
        """End ffmpeg at once, whatever it is doing."""
        self._popen.kill()
        if self._popen.stdin is not None:
            with contextlib.suppress(OSError):
                self._popen.stdin.close()
        self._popen.wait()
        self._close_pipes()

    def _close_pipes(self) -> None:
        self._thread.join(timeout=10)
        for stream in (self._popen.stdout, self._popen.stderr):
            if stream is not None:
                stream.close()

    @property
    def lines(self) -> list[str]:
        """The last lines of stderr."""
        return list(self._lines)

    def complaint(self) -> str:
        """ffmpeg's own reason for a failure: the last line that says more than that it failed."""
        vague = ("Conversion failed", "Error opening input file", "Error opening output file")
        said = [re.sub(r"^(\[[^]]*\] ?)+", "", line) for line in self._lines]
        lines = [line.removeprefix("Error opening input: ") for line in said]
        telling = [line for line in lines if line and not line.startswith(vague)]
        return (telling or lines or ["it gave no reason"])[-1]


def _standard_input(feed: bool | IO[bytes]) -> int | IO[bytes]:
    if isinstance(feed, bool):
        return subprocess.PIPE if feed else subprocess.DEVNULL
    return feed


def input_name(path: Path) -> str:
    """The name under which ffmpeg opens a file and never a protocol or a pattern."""
    return f"file:{path}"
