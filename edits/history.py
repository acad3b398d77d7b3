"""The edits that a run keeps: each with its recipe, what it read, and its result.

runs/swan/edits/001/recipe.yaml     replays: python edit.py RUN runs/swan/edits/001/recipe.yaml
runs/swan/edits/001/inputs/         the pictures as they were
runs/swan/edits/001/result.mp4      the same file as --out (a link where the disk allows)
runs/swan/edits/001/preview.jpg     a frame from its middle
runs/swan/edits/001/edit.json       when, where to, how many frames, how long it took
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from atlas.clip import write_bytes, write_rgb
from atlas.errors import InputError
from edits.kinds import Edit, FilterAtlas, FramePaint, Insert
from edits.recipe import Recipe, file_of, read_recipe, with_file, write_recipe

MAX_COPY_BYTES = 256 << 20
"""Inputs and results larger than this are named, not copied."""
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class EditFacts:
    """The content of `edit.json`."""

    out: str
    """Where the result was written."""
    frames: int
    seconds: float
    date: str = field(default_factory=lambda: time.strftime("%Y-%m-%d %H:%M:%S"))
    commit: str | None = None
    notes: list[str] = field(default_factory=list)
    version: int = 1


@dataclass(frozen=True)
class KeptEdit:
    """One edit that the run keeps. trouble: why its files cannot be read, or None."""

    number: int
    folder: Path
    facts: EditFacts | None
    recipe: Recipe | None
    trouble: str | None = None


def keep_edit(
    run: Path, recipe: Recipe, facts: EditFacts, pictures: Mapping[str, np.ndarray]
) -> Path | None:
    """Store an edit under the run's next free number; its folder, or None (said) if it cannot.

    Args:
        pictures: file name to (H, W, 3 or 4) uint8, kept beside the recipe.
    """
    edits = run / "edits"
    temporary = edits / f".new.{os.getpid()}"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        (temporary / "inputs").mkdir(parents=True)
        write_recipe(temporary / "recipe.yaml", _with_copies(recipe, temporary / "inputs"))
        for name, picture in pictures.items():
            write_rgb(temporary / name, picture)
        _keep_result(Path(facts.out), temporary)
        text = json.dumps(dataclasses.asdict(facts), indent=1)
        write_bytes(temporary / "edit.json", text.encode("utf-8"))
        return _settle(temporary, edits)
    except OSError as err:
        log.warning("%s: the edit is not kept there (%s)", edits, err.strerror or err)
        return None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def kept_edits(run: Path) -> Iterator[KeptEdit]:
    """The edits that a run keeps, oldest first."""
    folder = run / "edits"
    numbers = sorted(int(p.name) for p in folder.glob("*") if p.name.isdigit() and p.is_dir())
    for number in numbers:
        yield _read_kept(number, folder / f"{number:03d}")


def describe_recipe(recipe: Recipe) -> str:
    """What a recipe does, in one line."""
    return "; ".join(_describe(edit) for edit in recipe.edits)


def _describe(edit: Edit) -> str:
    path = file_of(edit)
    if isinstance(edit, Insert):
        what = repr(edit.text) if path is None else path.name
        return f"insert {what} on {edit.layer} at frame {edit.frame}"
    if isinstance(edit, FramePaint):
        assert path is not None
        return f"paint of frame {edit.frame} from {path.name}"
    if isinstance(edit, FilterAtlas):
        return f"filter {edit.layer} by {edit.command}"
    name = edit.kind.replace("_", " ")
    return f"{name} {edit.layer}" + ("" if path is None else f" from {path.name}")


def _with_copies(recipe: Recipe, folder: Path) -> Recipe:
    edits = []
    for i, edit in enumerate(recipe.edits, 1):
        path = file_of(edit)
        if path is not None and path.is_file() and path.stat().st_size <= MAX_COPY_BYTES:
            copy = folder / f"{i:02d}_{path.name}"
            shutil.copyfile(path, copy)
            edit = with_file(edit, copy)
        edits.append(edit)
    return dataclasses.replace(recipe, edits=tuple(edits))


def _keep_result(out: Path, folder: Path) -> None:
    if not out.is_file():
        return
    kept = folder / f"result{out.suffix}"
    try:
        os.link(out, kept)
    except OSError:  # another disk, or one without links
        if out.stat().st_size <= MAX_COPY_BYTES:
            shutil.copyfile(out, kept)


def _settle(temporary: Path, edits: Path) -> Path:
    """Rename to the next free number; two commands that end at once get two numbers."""
    number = 1 + max((int(p.name) for p in edits.glob("*") if p.name.isdigit()), default=0)
    while True:
        target = edits / f"{number:03d}"
        if not target.exists():
            try:
                temporary.rename(target)
                return target
            except OSError:
                if not target.exists():
                    raise
        number += 1


def _read_kept(number: int, folder: Path) -> KeptEdit:
    try:
        data = json.loads((folder / "edit.json").read_text(encoding="utf-8"))
        return KeptEdit(number, folder, EditFacts(**data), read_recipe(folder / "recipe.yaml"))
    except (OSError, ValueError, TypeError, InputError) as err:
        return KeptEdit(number, folder, None, None, str(err))
