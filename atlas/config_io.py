"""Dataclasses from YAML and `key=value` text, every mistake one clear line.

Works for any nested dataclass whose fields all have defaults; OmegaConf checks the types.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from atlas.errors import InputError

Config = TypeVar("Config")


def require(condition: bool, message: str) -> None:
    """Raise `InputError(message)` unless `condition`; write conditions so that nan fails."""
    if not condition:
        raise InputError(message)


def build_config(cls: type[Config], sources: list[tuple[str, DictConfig]]) -> Config:
    """The defaults of `cls` changed by each of `sources` in turn.

    Args:
        cls: a nested dataclass; its fields are the known keys.
        sources: (where it came from, for errors; the change), the last one wins.
    """
    merged = OmegaConf.structured(cls)
    OmegaConf.set_readonly(merged, False)
    for source, change in sources:
        merged = _merge(cls, merged, change, source)
    values = OmegaConf.to_container(merged, resolve=True, throw_on_missing=True)
    return _build(cls, values, "")


def parse_override(override: str) -> DictConfig:
    """`key.key=value` as a config; the value is read as YAML."""
    key, equals, _ = override.partition("=")
    if not equals or not key.strip():
        raise InputError(f"--set {override}: wanted key=value, such as loss.flow.weight=2")
    try:
        return OmegaConf.from_dotlist([override])
    except (yaml.YAMLError, OmegaConfBaseException, ValueError) as err:
        raise InputError(f"--set {override}: not readable: {_first_line(err)}") from err


def read_yaml(path: Path) -> DictConfig:
    """The YAML file at `path`."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as err:
        raise InputError(f"{path}: config not found") from err
    except (OSError, UnicodeDecodeError) as err:
        raise InputError(f"{path}: cannot be read as a config ({err})") from err
    return parse_yaml(text, str(path))


def to_yaml(config: Any) -> str:
    """Every value of the dataclass `config` as YAML text that `parse_yaml` reads."""
    return OmegaConf.to_yaml(OmegaConf.create(dataclasses.asdict(config)))


def parse_yaml(text: str, source: str) -> DictConfig:
    """YAML text as a config; `source` is named in errors."""
    try:
        parsed = OmegaConf.create(text)
    except AssertionError as err:
        raise InputError(f"{source}: wanted `key: value` lines, found {text[:40]!r}") from err
    except (yaml.YAMLError, OmegaConfBaseException) as err:
        raise InputError(f"{source}: not a YAML config: {_first_line(err)}") from err
    if not isinstance(parsed, DictConfig):
        raise InputError(f"{source}: wanted `key: value` lines, found a list")
    return parsed


def _merge(cls: type, base: DictConfig, change: DictConfig, source: str) -> DictConfig:
    known = _known_keys(cls)
    merged = base
    for key, value in _given_leaves(change, known, source):
        one = OmegaConf.create({})
        OmegaConf.update(one, key, value, force_add=True)
        try:
            merged = OmegaConf.merge(merged, one)
        except OmegaConfBaseException as err:
            kind = getattr(known[key], "__name__", str(known[key]))
            raise InputError(f"{source}: {key} must be {kind}, got {value!r}") from err
    assert isinstance(merged, DictConfig)
    return merged


def _known_keys(cls: type, prefix: str = "") -> dict[str, Any]:
    """Dotted key -> type, sections included."""
    known: dict[str, Any] = {}
    for name, kind in get_type_hints(cls).items():
        known[prefix + name] = kind
        if dataclasses.is_dataclass(kind):
            known |= _known_keys(kind, f"{prefix}{name}.")  # type: ignore[arg-type]
    return known


def _given_leaves(
    config: DictConfig, known: dict[str, Any], source: str, prefix: str = ""
) -> Iterator[tuple[str, Any]]:
    """Dotted key and plain value of everything that `config` sets; unknown keys are refused."""
    for name in config:
        key = f"{prefix}{name}"
        if key not in known:
            raise InputError(f"{source}: there is no key {key!r}{_suggest(key, known)}")
        try:
            value = config[name]
        except OmegaConfBaseException as err:
            raise InputError(f"{source}: {key} has no usable value: {_first_line(err)}") from err
        if dataclasses.is_dataclass(known[key]):
            if not isinstance(value, DictConfig):
                names = ", ".join(f.name for f in dataclasses.fields(known[key]))
                raise InputError(f"{source}: {key} is a section, wanted one of its keys: {names}")
            yield from _given_leaves(value, known, source, f"{key}.")
        else:
            plain = OmegaConf.is_config(value)
            yield key, OmegaConf.to_container(value, resolve=True) if plain else value


def _suggest(key: str, known: dict[str, Any]) -> str:
    last = key.split(".")[-1]
    close = difflib.get_close_matches(key, known, n=3, cutoff=0.75)
    close += [k for k in known if k.split(".")[-1] == last and k not in close]
    close += difflib.get_close_matches(key, known, n=2, cutoff=0.5) if not close else []
    return f"; did you mean {' or '.join(close[:3])}?" if close else ""


def _build(cls: Any, values: Any, prefix: str) -> Any:
    """Instantiate `cls` from plain containers; range errors get the key's full name."""
    hints = get_type_hints(cls)
    built = {}
    for name, value in values.items():
        kind = hints[name]
        is_section = dataclasses.is_dataclass(kind)
        built[name] = _build(kind, value, f"{prefix}{name}.") if is_section else value
    try:
        return cls(**built)
    except InputError as err:
        raise InputError(f"{prefix}{err}") from err


def _first_line(err: BaseException) -> str:
    return str(err).strip().splitlines()[0] if str(err).strip() else type(err).__name__
