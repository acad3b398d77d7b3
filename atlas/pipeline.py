"""Work on a stream in stages that overlap, each in a thread of its own, memory bounded.

OpenCV and pipes let go of Python's lock, so stages do run at once. Order is kept; an error in any
stage stops them all and is raised where the results are taken.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

_WAIT_S = 0.2
"""How long a stage waits before it looks whether all has been stopped."""


@dataclass
class StageTimes:
    """Seconds that each stage has worked, waiting left out, by its name."""

    wall_s: dict[str, float] = field(default_factory=dict)
    cpu_s: dict[str, float] = field(default_factory=dict)

    def add(self, name: str, wall_s: float, cpu_s: float) -> None:
        self.wall_s[name] = self.wall_s.get(name, 0.0) + wall_s
        self.cpu_s[name] = self.cpu_s.get(name, 0.0) + cpu_s


class _End:
    """Says that no item follows; carries the error that ended the stream, if one did."""

    def __init__(self, error: BaseException | None = None):
        self.error = error


@dataclass
class Pipeline:
    """A source and the stages its items go through, one after another.

    source: the items, made in a thread of their own. stages: name and function, each in a thread.
    depth: most items that wait between two stages.
    """

    source: Iterable[Any]
    stages: Sequence[tuple[str, Callable[[Any], Any]]]
    depth: int = 3
    source_name: str = "decode"
    times: StageTimes = field(default_factory=StageTimes)

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def __iter__(self) -> Iterator[Any]:
        """The results in order. Ends the threads when it is closed, exhausted or left."""
        queues: list[queue.Queue] = [queue.Queue(self.depth) for _ in range(len(self.stages) + 1)]
        jobs: list[tuple[Callable[..., None], tuple]] = [(self._feed, (queues[0],))]
        for i, (name, work) in enumerate(self.stages):
            jobs.append((self._work, (name, work, queues[i], queues[i + 1])))
        for target, arguments in jobs:
            thread = threading.Thread(target=target, args=arguments, daemon=True)
            self._threads.append(thread)
            thread.start()
        try:
            while True:
                item = self._get(queues[-1])
                if isinstance(item, _End):
                    if item.error is not None:
                        raise item.error
                    return
                yield item
        finally:
            self.close()

    def close(self) -> None:
        """Stop all stages and wait for them."""
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=20)

    def _feed(self, out: queue.Queue) -> None:
        items = iter(self.source)
        try:
            while not self._stop.is_set():
                start_s, start_cpu_s = time.perf_counter(), time.thread_time()
                try:
                    item = next(items)
                except StopIteration:
                    break
                self._note(self.source_name, start_s, start_cpu_s)
                if not self._put(out, item):
                    return
            self._put(out, _End())
        except BaseException as err:  # noqa: BLE001 - handed on: raised where the results are taken
            self._put(out, _End(err))
        finally:
            close = getattr(items, "close", None)
            if close is not None:
                close()

    def _work(
        self, name: str, work: Callable[[Any], Any], given: queue.Queue, out: queue.Queue
    ) -> None:
        try:
            while True:
                item = self._get(given)
                if isinstance(item, _End):
                    self._put(out, item)
                    return
                start_s, start_cpu_s = time.perf_counter(), time.thread_time()
                result = work(item)
                self._note(name, start_s, start_cpu_s)
                if not self._put(out, result):
                    return
        except BaseException as err:  # noqa: BLE001 - handed on: raised where the results are taken
            self._put(out, _End(err))

    def _note(self, name: str, start_s: float, start_cpu_s: float) -> None:
        self.times.add(name, time.perf_counter() - start_s, time.thread_time() - start_cpu_s)

    def _get(self, given: queue.Queue) -> Any:
        while True:
            try:
                return given.get(timeout=_WAIT_S)
            except queue.Empty:
                if self._stop.is_set():
                    return _End()

    def _put(self, out: queue.Queue, item: Any) -> bool:
        """Whether it could be handed on: False when all has been stopped."""
        while not self._stop.is_set():
            try:
                out.put(item, timeout=_WAIT_S)
            except queue.Full:
                continue
            return True
        return False
