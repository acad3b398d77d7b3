"""Notice that a picture was saved in a paint program."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

POLL_S = 0.3

Stamp = tuple[int, int] | None
"""Time of the last change and size; None where there is no file."""


def stamps(paths: Iterable[Path]) -> dict[Path, Stamp]:
    """What tells a changed file from an unchanged one."""
    found: dict[Path, Stamp] = {}
    for path in paths:
        try:
            about = path.stat()
            found[path] = (about.st_mtime_ns, about.st_size)
        except OSError:  # programs that save by renaming leave a moment without the file
            found[path] = None
    return found


def saved_files(
    paths: Callable[[], Iterable[Path]],
    wait: Callable[[float], object] = time.sleep,
    poll_s: float = POLL_S,
) -> Iterator[set[Path]]:
    """Wait for ever; yield the files that were saved since the last time, once they are whole.

    A file counts when two looks in a row find it changed and the same: not while it is written.

    Args:
        paths: the files to look at, asked for anew at every look.
        wait: sleeps for a number of seconds.
    """
    known = stamps(paths())
    earlier = dict(known)
    while True:
        wait(poll_s)
        now = stamps(paths())
        for path in now.keys() - known.keys():  # named since by the recipe: read just now
            known[path] = earlier[path] = now[path]
        saved = {
            path
            for path, stamp in now.items()
            if stamp is not None and stamp != known[path] and stamp == earlier.get(path)
        }
        earlier = now
        if saved:
            known.update({path: now[path] for path in saved})
            yield saved
