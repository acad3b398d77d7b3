"""Frames in a folder: which files count, and in which order."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path


def pictures_in_order(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """The pictures of a folder in the order of the numbers in their names (2 before 10).

    Hidden files do not count: macOS leaves a `._00000.png` beside 00000.png on foreign disks.

    Args:
        suffixes: in small letters, with their dots.
    """
    found = [
        path
        for path in folder.iterdir()
        if path.suffix.lower() in suffixes and not path.name.startswith(".") and path.is_file()
    ]
    return sorted(found, key=lambda path: natural_key(path.name))


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """What to sort names by so that numbers in them count as numbers."""
    parts = re.split(r"(\d+)", name)
    return [(0, int(p), p) if p.isdigit() else (1, 0, p.lower()) for p in parts if p]
