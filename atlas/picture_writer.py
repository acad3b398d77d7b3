"""Where written frames go when not into a video: one picture, or a folder of them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Protocol

import numpy as np

from atlas.clip import write_rgb
from atlas.errors import InputError


class Sink(Protocol):
    """Where frames go. `discard` is called at the end in any case and removes what is left."""

    def open(self) -> None: ...

    def write(self, t: int, *parts: np.ndarray) -> None:
        """One frame, RGB or plane by plane."""
        ...

    def commit(self) -> None: ...

    def discard(self) -> None: ...


class PictureSink:
    """One frame to one picture file."""

    def __init__(self, path: Path):
        self._path = path
        self._rgb: np.ndarray | None = None

    def open(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)

    def write(self, t: int, *parts: np.ndarray) -> None:
        (rgb,) = parts
        if t > 0:
            raise InputError(
                f"{self._path}: a picture holds one frame; wanted a video such as .mp4, or a "
                "folder name, for several"
            )
        self._rgb = rgb.copy()

    def commit(self) -> None:
        assert self._rgb is not None
        write_rgb(self._path, self._rgb)

    def discard(self) -> None:
        self._rgb = None


class FolderSink:
    """Frames to a folder of PNGs, 00000.png ..., that appears when it is whole."""

    def __init__(self, path: Path):
        self._path = path
        place = path.resolve()
        self._temporary = place.with_name(f"{place.name or 'root'}.tmp")

    def open(self) -> None:
        if self._path.resolve() == Path.cwd():
            raise InputError(f"{self._path}: is the current folder; name a folder in it")
        if self._path.exists():
            if not self._path.is_dir():
                raise InputError(f"{self._path}: is a file; wanted a folder name for PNGs")
            foreign = [p.name for p in self._path.iterdir() if not _is_numbered_png(p)]
            if foreign:
                raise InputError(
                    f"{self._path}: holds {foreign[0]}, which this would remove; name a new folder"
                )
        if self._temporary.is_dir():  # an ended process left it
            check_own(self._temporary)
            shutil.rmtree(self._temporary)
        self._temporary.mkdir(parents=True)

    def write(self, t: int, *parts: np.ndarray) -> None:
        (rgb,) = parts
        write_rgb(self._temporary / f"{t:05d}.png", rgb)

    def commit(self) -> None:
        if self._path.exists():
            shutil.rmtree(self._path)
        self._temporary.replace(self._path)

    def discard(self) -> None:
        shutil.rmtree(self._temporary, ignore_errors=True)


def check_own(temporary: Path) -> None:
    """Refuse to remove a folder of unfinished frames that holds anything else."""
    for path in temporary.iterdir():
        if not (path.stem.split(".")[0].isdigit() or path.name.startswith("clip.json")):
            raise InputError(f"{temporary}: is in the way and holds {path.name}; move it elsewhere")


def _is_numbered_png(path: Path) -> bool:
    return path.suffix == ".png" and path.stem.isdigit() and path.is_file()
