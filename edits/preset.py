"""Presets: recipes that come with the project, a sky of its own making and a look each."""

from __future__ import annotations

from pathlib import Path

from atlas.errors import InputError
from edits.recipe import Recipe, read_recipe

FOLDER = Path(__file__).with_name("presets")


def preset_names() -> list[str]:
    """What `read_preset` knows, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def read_preset(name: str) -> Recipe:
    """The recipe of a preset; its sky lies beside it."""
    if name not in preset_names():
        raise InputError(f"preset {name!r} is not known; wanted one of {', '.join(preset_names())}")
    return read_recipe(FOLDER / f"{name}.yaml")
