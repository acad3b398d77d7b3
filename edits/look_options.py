"""Command-line options for presets and looks."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

import yaml

from atlas.errors import InputError
from edits.look import Look
from edits.preset import preset_names, read_preset
from edits.recipe import Recipe, SkyEdit, read_look


def add_look_options(parser: argparse.ArgumentParser) -> None:
    """Add --preset and --look."""
    group = parser.add_argument_group("look (light and weather that come with the new sky)")
    add = group.add_argument
    add("--preset", metavar="NAME", help="a bundled sky with its look: "
        f"{', '.join(preset_names())}; with --sky, the look alone")  # fmt: skip
    add("--look", metavar="KEY=VALUE", action="append", default=[], help="set a strength, after "
        "the preset or recipe; may be repeated; 'off' drops the look. Keys: "
        + ", ".join(f.name for f in dataclasses.fields(Look)))  # fmt: skip


def with_look(args: argparse.Namespace, recipe: Recipe, has_sky: bool) -> Recipe:
    """The recipe after --preset and --look.

    Args:
        has_sky: whether --sky is given: the preset then gives its look alone.
    """
    edits, look = recipe.edits, recipe.look
    if args.preset is not None:
        preset = read_preset(args.preset)
        look = preset.look
        if not has_sky:
            edits = (*(e for e in edits if not isinstance(e, SkyEdit)), *preset.edits)
    if args.look:
        look = changed_look(look, args.look)
    return dataclasses.replace(recipe, edits=edits, look=look)


def changed_look(look: Look | None, settings: list[str]) -> Look | None:
    """A look with `KEY=VALUE` settings applied in order; "off" drops all before it."""
    values: dict[str, Any] = {} if look is None else dataclasses.asdict(look)
    for setting in settings:
        if setting == "off":
            values = {}
            continue
        key, separator, text = setting.partition("=")
        if not (key and separator and text):
            raise InputError(f"--look {setting}: wanted KEY=VALUE, or off")
        try:
            values[key] = text if text.startswith("#") else yaml.safe_load(text)
        except yaml.YAMLError as err:
            raise InputError(f"--look {setting}: {text!r} is not a value") from err
    return read_look(values, "--look") if values else None
