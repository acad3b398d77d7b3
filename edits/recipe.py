"""Recipes: a typed, validated, versioned description of an edit, kept as a small YAML file.

    version: 1
    keep_grain: 0.0
    edits:
      - kind: sky
        source: skies/sunset.png
        scale: 1.2
      - kind: layer_paint
        layer: foreground
        path: paint.png
        blend: multiply
      - kind: insert
        layer: background
        frame: 0
        corners: [[40, 30], [200, 32], [198, 90], [41, 88]]
        text: HOTEL

`edits.kinds` lists every kind and its keys. Edits apply in the order given. Paths are relative to
the recipe file. Unknown keys are refused.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import os
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from atlas.clip import write_bytes
from atlas.errors import InputError
from edits.kinds import (
    KINDS,
    Corners,
    Edit,
    FilterAtlas,
    FramePaint,
    Insert,
    LayerPaint,
    RemoveLayer,
    SkyEdit,
    require,
)
from edits.look import Look

__all__ = [
    "Edit",
    "FilterAtlas",
    "FramePaint",
    "Insert",
    "LayerPaint",
    "Recipe",
    "RemoveLayer",
    "SkyEdit",
    "check_files",
    "file_of",
    "file_sha256",
    "read_recipe",
    "with_file",
    "write_recipe",
]

RECIPE_VERSION = 1
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All that an edit consists of; later edits of a layer lie over earlier ones."""

    edits: tuple[Edit, ...] = ()
    keep_grain: float = 0.0
    """How much of the film grain of a replaced layer is put back; [0, 1]."""
    look: Look | None = None
    """How the scene takes up its sky's light, and what falls in front of it; None: not at all."""
    version: int = RECIPE_VERSION

    def __post_init__(self) -> None:
        require(self.version == RECIPE_VERSION, "version", self.version, str(RECIPE_VERSION))
        require(0 <= self.keep_grain <= 1, "keep_grain", self.keep_grain, "between 0 and 1")

    def files(self) -> Iterator[Path]:
        """The files that the edits read."""
        for edit in self.edits:
            path = file_of(edit)
            if path is not None:
                yield path


def read_recipe(path: Path) -> Recipe:
    """Read and check a recipe; its relative paths come back joined to the recipe's folder."""
    path = Path(path)
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as err:
        raise InputError(f"{path}: not found; wanted a recipe (YAML)") from err
    except (OSError, UnicodeDecodeError) as err:
        raise InputError(f"{path}: cannot be read as text ({err}); wanted a recipe (YAML)") from err
    except yaml.YAMLError as err:
        raise InputError(f"{path}: not valid YAML ({err})") from err
    if not isinstance(data, dict):
        raise InputError(f"{path}: wanted a recipe with keys 'version' and 'edits'")
    if "version" not in data:
        raise InputError(f"{path}: 'version' is missing; wanted version: {RECIPE_VERSION}")
    if data["version"] != RECIPE_VERSION:
        raise InputError(f"{path}: version is {data['version']!r}, wanted {RECIPE_VERSION}")
    rows, look = data.pop("edits", None), data.pop("look", None)
    if look is not None:
        data["look"] = read_look(look, f"{path}: look")
    rows = [] if rows is None and look is not None else rows
    if not isinstance(rows, list) or not (rows or look):
        raise InputError(f"{path}: 'edits' must be a list of at least one edit")
    edits = tuple(_read_edit(row, f"{path}: edit {i}") for i, row in enumerate(rows, 1))
    edits = tuple(_moved(edit, path.parent) for edit in edits)
    return _build(Recipe, {**data, "edits": edits}, str(path))


def read_look(row: Any, where: str) -> Look:
    """A `Look` from its keys and values, `where` being said of what is wrong."""
    if not isinstance(row, dict):
        raise InputError(f"{where}: wanted keys and values, found {row!r}")
    return _build(Look, row, where)


def write_recipe(path: Path, recipe: Recipe) -> None:
    """Write a recipe with the hashes of its files; paths become relative to the recipe."""
    path = Path(path)
    rows = []
    for edit in recipe.edits:
        source = file_of(edit)
        if source is not None:
            edit = with_file(edit, _relative(source, path.parent))
            edit = dataclasses.replace(edit, sha256=file_sha256(source))
        row = {f.name: getattr(edit, f.name) for f in dataclasses.fields(edit)}
        rows.append({"kind": edit.kind, **row})
    data = {"version": recipe.version, "keep_grain": recipe.keep_grain, "edits": rows}
    if recipe.look is not None:
        data["look"] = _changed(recipe.look)
    text = yaml.safe_dump(data, sort_keys=False, allow_unicode=True)
    write_bytes(path, text.encode("utf-8"))


def _changed(look: Look) -> dict[str, Any]:
    """What differs from the defaults."""
    fields = dataclasses.fields(look)
    return {f.name: v for f in fields if (v := getattr(look, f.name)) != f.default}


def check_files(recipe: Recipe) -> None:
    """Raise `InputError` for a file that is not there; warn of one that has changed."""
    for edit in recipe.edits:
        path = file_of(edit)
        if path is None:
            continue
        if not path.exists():
            raise InputError(f"{path}: not found; the {edit.kind} edit needs it")
        if edit.sha256 and path.is_file() and file_sha256(path) != edit.sha256:
            log.warning("%s has changed since the recipe was made", path)


def file_sha256(path: Path) -> str | None:
    """Hex digest of a file's content; None for a folder."""
    if Path(path).is_dir():
        return None
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except FileNotFoundError as err:
        raise InputError(f"{path}: not found") from err
    return digest.hexdigest()


def file_of(edit: Edit) -> Path | None:
    """The file that an edit reads; None when it reads none."""
    path = None if edit.file_key is None else getattr(edit, edit.file_key)
    return None if path is None else Path(path)


def with_file(edit: Edit, path: Path) -> Edit:
    """The same edit, reading another file."""
    assert edit.file_key is not None
    return dataclasses.replace(edit, **{edit.file_key: path.as_posix()})


def _moved(edit: Edit, folder: Path) -> Edit:
    path = file_of(edit)
    return edit if path is None else with_file(edit, folder / path)


def _relative(path: Path, folder: Path) -> Path:
    try:
        return Path(os.path.relpath(path.resolve(), folder.resolve()))
    except ValueError:  # another drive on Windows
        return path.resolve()


def _read_edit(row: Any, where: str) -> Edit:
    if not isinstance(row, dict):
        raise InputError(f"{where}: wanted keys and values, found {row!r}")
    row = dict(row)
    kind = row.pop("kind", None)
    if kind not in KINDS:
        raise InputError(f"{where}: kind is {kind!r}, wanted one of {', '.join(KINDS)}")
    return _build(KINDS[kind], row, where)


def _build(cls: type, values: dict[str, Any], where: str) -> Any:
    """Make a dataclass from plain values, refusing unknown keys and wrong types."""
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}
    for key, value in values.items():
        if key not in fields:
            raise InputError(f"{where}: unknown key {key!r}; known are {', '.join(fields)}")
        if key not in ("edits", "look"):
            values = {**values, key: _checked(value, hints[key], f"{where}: {key}")}
    for name, field in fields.items():
        if field.default is dataclasses.MISSING and name not in values:
            raise InputError(f"{where}: {name!r} is missing")
    try:
        return cls(**values)
    except InputError as err:
        raise InputError(f"{where}: {err}") from err


def _checked(value: Any, hint: Any, where: str) -> Any:
    """`value` when it is of the type that `hint` names; whole numbers pass for float."""
    if typing.get_origin(hint) is Literal:
        choices = typing.get_args(hint)
        if value not in choices:
            raise InputError(f"{where} is {value!r}, wanted one of {', '.join(choices)}")
        return value
    if hint == Corners:
        return _checked_corners(value, where)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        if value is None:
            return None
        hint = typing.get_args(hint)[0]
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        wanted = {str: "text", float: "a number", bool: "true or false", int: "a whole number"}
        raise InputError(f"{where} is {value!r}, wanted {wanted[hint]}")
    return value


def _checked_corners(value: Any, where: str) -> Corners:
    wanted = f"{where} is {value!r}, wanted four [x, y]"
    if not isinstance(value, list | tuple) or len(value) != 4:
        raise InputError(wanted)
    corners = []
    for point in value:
        if not isinstance(point, list | tuple) or len(point) != 2:
            raise InputError(wanted)
        numbers = [v for v in point if isinstance(v, int | float) and not isinstance(v, bool)]
        if len(numbers) != 2:
            raise InputError(wanted)
        corners.append((float(numbers[0]), float(numbers[1])))
    return tuple(corners)
