"""Progress with time left: a bar on a terminal, now and then a plain line elsewhere.

    for t in progress(range(count), count, "flow"):
        ...
    with progress(None, frame_count, "writing frames") as bar:
        bar.advance(5, note="31.2 dB")

Everything goes to stderr, so a script's stdout stays its own. Bars may be nested.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Generic, Protocol, TextIO, TypeVar

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

Item = TypeVar("Item")

LINE_EVERY_S = 5.0
"""Seconds between two plain lines where stderr is no terminal."""


def progress(items: Iterable[Item] | None, total: int | None, description: str) -> Progress[Item]:
    """Follow a loop, or steps that the caller counts.

    Args:
        items: iterate over the result to get them, each counted; None to call `advance` instead.
        total: how many steps there are; None takes len(items), or shows no time left.
        description: what is being done, two or three words.
    """
    if total is None and items is not None and hasattr(items, "__len__"):
        total = len(items)  # type: ignore[arg-type]
    return Progress(items, total, description)


class Progress(Generic[Item]):
    """One line of progress; a context manager, and iterable where it was given items."""

    def __init__(self, items: Iterable[Item] | None, total: int | None, description: str):
        self._items = items
        self._total = total
        self._description = description
        self._shown: _Shown | None = None

    def __enter__(self) -> Progress[Item]:
        if self._shown is None:
            kind = _Bar if sys.stderr is not None and sys.stderr.isatty() else _Lines
            self._shown = kind(self._description, self._total)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        shown, self._shown = self._shown, None
        if shown is not None:
            shown.close(whole=kind is None)

    def __iter__(self) -> Iterator[Item]:
        if self._items is None:
            raise TypeError("progress(None, ...) has nothing to iterate over; call advance()")
        with self:
            for item in self._items:
                yield item
                self.advance()

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Count `steps` more; `note` (a loss, a PSNR) is shown behind the time left."""
        if self._shown is None:
            raise ValueError("advance() belongs inside `with progress(...)`")
        self._shown.advance(steps, note)


class _Shown(Protocol):
    def advance(self, steps: int, note: str) -> None: ...

    def close(self, *, whole: bool) -> None: ...


class _Bar:
    """A line of the one live display that all bars of the process share."""

    _lock = threading.Lock()
    _display: RichProgress | None = None
    _open = 0
    _moved: tuple[tuple[logging.StreamHandler, TextIO], ...] = ()

    def __init__(self, description: str, total: int | None):
        with _Bar._lock:
            if _Bar._display is None:
                _Bar._start()
            assert _Bar._display is not None
            self._display_used = _Bar._display
            _Bar._open += 1
        self._task = self._display_used.add_task(description, total=total, note="")

    def advance(self, steps: int, note: str) -> None:
        if note:
            self._display_used.update(self._task, advance=steps, note=note)
        else:
            self._display_used.update(self._task, advance=steps)

    def close(self, *, whole: bool) -> None:
        with _Bar._lock:
            _Bar._open -= 1
            if _Bar._open == 0:
                _Bar._stop()
            elif whole:  # an inner bar of many: leave no trail of finished lines
                self._display_used.remove_task(self._task)

    @classmethod
    def _start(cls) -> None:
        # a tenth of what a short command takes to start: only where a terminal is there to see it
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as RichProgress

        cls._display = display = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=Console(stderr=True),
        )
        plain = sys.stderr
        display.start()
        # The display lets what is written to sys.stderr appear above the bar. Log handlers keep
        # the stream they were made with, so they are pointed there too while it lives.
        handlers = [h for h in logging.getLogger().handlers if isinstance(h, logging.StreamHandler)]
        cls._moved = tuple((h, plain) for h in handlers if h.stream is plain)
        for handler, _ in cls._moved:
            handler.setStream(sys.stderr)

    @classmethod
    def _stop(cls) -> None:
        if cls._display is not None:
            cls._display.stop()
        for handler, stream in cls._moved:
            handler.setStream(stream)
        cls._display, cls._moved = None, ()


class _Lines:
    """A plain line every `LINE_EVERY_S` seconds; a job shorter than that stays silent."""

    def __init__(self, description: str, total: int | None):
        self._description = description
        self._total = total
        self._done = 0
        self._note = ""
        self._start_s = self._last_s = time.monotonic()

    def advance(self, steps: int, note: str) -> None:
        self._done += steps
        self._note = note or self._note
        now_s = time.monotonic()
        if now_s - self._last_s >= LINE_EVERY_S:
            self._last_s = now_s
            self._print(self._state(now_s - self._start_s))

    def close(self, *, whole: bool) -> None:
        spent_s = time.monotonic() - self._start_s
        if whole and spent_s >= LINE_EVERY_S:
            self._print(f"{self._done} done in {clock(spent_s)}")

    def _state(self, spent_s: float) -> str:
        if not self._total:
            return f"{self._done} done, {clock(spent_s)} so far"
        left_s = spent_s * max(self._total - self._done, 0) / max(self._done, 1)
        share = 100 * self._done // self._total
        return f"{self._done}/{self._total} ({share} %), {clock(left_s)} left"

    def _print(self, state: str) -> None:
        note = f", {self._note}" if self._note else ""
        print(f"{self._description}: {state}{note}", file=sys.stderr, flush=True)


def clock(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss, rounded to the nearest second."""
    whole = round(seconds)
    minutes, hours = whole // 60 % 60, whole // 3600
    head = f"{hours}:{minutes:02d}" if hours else f"{minutes}"
    return f"{head}:{whole % 60:02d}"
