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

Edits apply in the order given. Paths are relative to the recipe file. Unknown keys are refused.
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
from typing import Any, ClassVar, Literal

import yaml

from atlas.clip import write_bytes
from atlas.errors import InputError
from edits.blend import BLEND_MODES

RECIPE_VERSION = 1
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SkyEdit:
    """Put another sky into the sky layer."""

    kind: ClassVar[str] = "sky"
    file_key: ClassVar[str] = "source"

    source: str
    """Picture, video or Radiance .hdr panorama."""
    layer: str = "sky"
    """The layer that takes the sky."""
    fit: Literal["auto", "cover", "atlas"] = "auto"
    """cover: fill what the clip sees of the sky; atlas: the picture lies on the atlas 1:1.
    auto: atlas for a picture of the atlas's own size, or with alpha and of its aspect."""
    scale: float = 1.0
    """Size of the picture relative to a fit that just covers; > 0."""
    offset_x: float = 0.0
    """Moves the sky to the right; share of the covered width."""
    offset_y: float = 0.0
    """Moves the sky down; share of the covered height."""
    flip: bool = False
    """Mirror the sky left to right."""
    speed: float = 1.0
    """Speed of a sky video relative to its own; > 0."""
    yaw_deg: float = 0.0
    """Turn the view to the right, and so the sky to the left; degrees."""
    pitch_deg: float = 12.0
    """Panoramas: tilt of the view above the horizon in the first frame; degrees, -90 to 90."""
    field_of_view_deg: float = 70.0
    """Horizontal angle that the first frame spans (for `yaw_deg`, panoramas); degrees, 5 to 150."""
    exposure_ev: float = 0.0
    """HDR panoramas: brighter (> 0) or darker than the automatic exposure; stops."""
    sha256: str | None = None
    """Hash of the source when the recipe was made; another one is warned of."""

    def __post_init__(self) -> None:
        _require(self.scale > 0, "scale", self.scale, "> 0")
        _require(self.speed > 0, "speed", self.speed, "> 0")
        _require(-90 <= self.pitch_deg <= 90, "pitch_deg", self.pitch_deg, "between -90 and 90")
        fov = self.field_of_view_deg
        _require(5 <= fov <= 150, "field_of_view_deg", fov, "between 5 and 150")


@dataclass(frozen=True, kw_only=True)
class LayerPaint:
    """Paint a picture into a layer's atlas."""

    kind: ClassVar[str] = "layer_paint"
    file_key: ClassVar[str] = "path"

    layer: str
    """Name of the layer."""
    path: str
    """RGBA picture with the aspect of the layer's atlas; without alpha it is opaque."""
    blend: str = "normal"
    """normal, multiply, screen, overlay, soft light or add."""
    sha256: str | None = None
    """Hash of the picture when the recipe was made; another one is warned of."""

    def __post_init__(self) -> None:
        _require(self.blend in BLEND_MODES, "blend", self.blend, ", ".join(BLEND_MODES))


Edit = SkyEdit | LayerPaint
KINDS: dict[str, type] = {cls.kind: cls for cls in (SkyEdit, LayerPaint)}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All that an edit consists of; later edits of a layer lie over earlier ones."""

    edits: tuple[Edit, ...] = ()
    keep_grain: float = 0.0
    """How much of the film grain of a replaced layer is put back; [0, 1]."""
    version: int = RECIPE_VERSION

    def __post_init__(self) -> None:
        _require(self.version == RECIPE_VERSION, "version", self.version, str(RECIPE_VERSION))
        _require(0 <= self.keep_grain <= 1, "keep_grain", self.keep_grain, "between 0 and 1")

    def files(self) -> Iterator[Path]:
        """The files that the edits read."""
        for edit in self.edits:
            yield Path(getattr(edit, edit.file_key))


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
    rows = data.pop("edits", None)
    if not isinstance(rows, list) or not rows:
        raise InputError(f"{path}: 'edits' must be a list of at least one edit")
    edits = tuple(_read_edit(row, f"{path}: edit {i}") for i, row in enumerate(rows, 1))
    edits = tuple(_with_file(edit, path.parent / _file_of(edit)) for edit in edits)
    return _build(Recipe, {**data, "edits": edits}, str(path))


def write_recipe(path: Path, recipe: Recipe) -> None:
    """Write a recipe with the hashes of its files; paths become relative to the recipe."""
    path = Path(path)
    rows = []
    for edit in recipe.edits:
        source = _file_of(edit)
        edit = _with_file(edit, _relative(source, path.parent))
        edit = dataclasses.replace(edit, sha256=file_sha256(source))
        row = {f.name: getattr(edit, f.name) for f in dataclasses.fields(edit)}
        rows.append({"kind": edit.kind, **row})
    data = {"version": recipe.version, "keep_grain": recipe.keep_grain, "edits": rows}
    text = yaml.safe_dump(data, sort_keys=False, allow_unicode=True)
    write_bytes(path, text.encode("utf-8"))


def check_files(recipe: Recipe) -> None:
    """Raise `InputError` for a file that is not there; warn of one that has changed."""
    for edit in recipe.edits:
        path = _file_of(edit)
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


def _file_of(edit: Edit) -> Path:
    return Path(getattr(edit, edit.file_key))


def _with_file(edit: Edit, path: Path) -> Edit:
    return dataclasses.replace(edit, **{edit.file_key: path.as_posix()})


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
        if key != "edits":
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


def _require(ok: bool, key: str, value: object, wanted: str) -> None:
    if not ok:  # comparisons are written so that nan fails too
        raise InputError(f"{key} is {value!r}, wanted {wanted}")
