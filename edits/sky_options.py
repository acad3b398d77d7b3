"""Command-line options for the new sky, its look and its weather."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import yaml

from atlas.errors import InputError
from edits.look import NAMED, Look
from edits.preset import preset_names, read_preset
from edits.recipe import Edit, Recipe, SkyEdit, read_look

_OPTIONS = {
    "sky_scale": "scale",
    "sky_fit": "fit",
    "sky_edges": "edges",
    "sky_yaw": "yaw_deg",
    "sky_pitch": "pitch_deg",
    "sky_roll": "roll_deg",
    "sky_fov": "field_of_view_deg",
    "sky_exposure": "exposure_ev",
    "flip": "flip",
    "own_sky": "own_sky",
}
"""Option to field of `SkyEdit`."""


def add_sky_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the sky and of the look."""
    add = parser.add_argument_group("sky").add_argument
    add("--sky", metavar="FILE", type=Path, help="picture, video or .hdr panorama as the new sky; "
        "a PNG with alpha and the atlas's aspect is painted on the sky atlas as it is")  # fmt: skip
    add("--preset", metavar="NAME", help="a bundled sky with its look: "
        f"{', '.join(preset_names())}; with --sky, the look alone")  # fmt: skip
    add("--skyar", metavar="CONFIG.json", type=Path, help="do what a configuration of SkyAR says: "
        "its video, its sky, its look and its output")  # fmt: skip
    add("--own-sky", action="store_true", help="the picture is a photo of a scene: cut its sky out "
        "and fill what hid it")  # fmt: skip
    add("--sky-fit", metavar="FIT", help="auto, cover, atlas, frame (stretched over the first "
        "frame), panorama (360 by 180 degrees) (default: auto)")  # fmt: skip
    add("--sky-edges", metavar="HOW", help="beyond the picture: mirror, tile (its ends joined), "
        "wrap (repeated as is) (default: tile where it drifts and on the fast path, else "
        "mirror)")  # fmt: skip
    add("--sky-scale", metavar="S", type=float, help="size of the sky relative to one that just "
        "covers (default: 1)")  # fmt: skip
    add("--drift", metavar="X[,Y]", help="clouds that move by themselves: widths of the covered "
        "sky a second to the right, heights down")  # fmt: skip
    add("--sky-yaw", metavar="DEG", type=float, help="turn the view to the right")
    add("--sky-pitch", metavar="DEG", type=float, help="panoramas: tilt of the view upwards "
        "(default: their horizon goes just under the lowest sky)")  # fmt: skip
    add("--sky-roll", metavar="DEG", type=float, help="panoramas: turn of the view, clockwise")
    add("--sky-fov", metavar="DEG", type=float, help="horizontal angle that the first frame spans "
        "(default: as the camera track has it)")  # fmt: skip
    add("--sky-exposure", metavar="EV", type=float, help="HDR: brighter (> 0) or darker")
    add("--flip", action="store_true", help="mirror the sky")
    add("--look", metavar="KEY=VALUE", action="append", default=[], help="light and weather, after "
        "the preset or recipe; may be repeated; 'natural' follows the sky's light a little, 'off' "
        "drops the look. Keys: "
        + ", ".join(f.name for f in dataclasses.fields(Look)))  # fmt: skip


def with_sky(args: argparse.Namespace, recipe: Recipe) -> Recipe:
    """The recipe after --sky, --preset and --look.

    A sky of --sky lies over the recipe's; that of a preset takes the place of the recipe's.
    """
    edits: list[Edit] = list(recipe.edits)
    look = recipe.look
    options = sky_fields(args)
    preset = None if args.preset is None else read_preset(args.preset)
    if preset is not None:
        look = preset.look
    if args.sky is not None:
        edits.append(_made({"source": str(args.sky), **options}))
    elif preset is not None:
        edits = [edit for edit in edits if not isinstance(edit, SkyEdit)]
        for edit in preset.edits:
            assert isinstance(edit, SkyEdit)
            edits.append(_made({**dataclasses.asdict(edit), **options}))
    elif options:
        raise InputError("--sky-scale, --drift, and --flip need --sky FILE or --preset NAME")
    if args.look:
        look = changed_look(look, args.look)
    return dataclasses.replace(recipe, edits=tuple(edits), look=look)


def sky_fields(args: argparse.Namespace) -> dict[str, Any]:
    """The fields of `SkyEdit` that the options set."""
    found = {field: getattr(args, option) for option, field in _OPTIONS.items()}
    found = {k: v for k, v in found.items() if v is not None and v is not False}
    if args.drift is not None:
        try:
            x, y = (float(v) for v in [*args.drift.split(","), "0"][:2])
        except ValueError as err:
            raise InputError(f"--drift {args.drift}: wanted X or X,Y") from err
        found |= {"drift_x": x, "drift_y": y}
    for field, known in (
        ("fit", ("auto", "cover", "atlas", "frame", "panorama")),
        ("edges", ("auto", "mirror", "tile", "wrap")),
    ):
        if found.get(field, "auto") not in known:
            raise InputError(f"--sky-{field} is {found[field]!r}, wanted one of {', '.join(known)}")
    return found


def changed_look(look: Look | None, settings: list[str]) -> Look | None:
    """A look with `KEY=VALUE` settings applied in order; "off" drops all before it."""
    values: dict[str, Any] = {} if look is None else dataclasses.asdict(look)
    for setting in settings:
        if setting == "off":
            values = {}
            continue
        if setting in NAMED:
            values = dataclasses.asdict(NAMED[setting])
            continue
        key, separator, text = setting.partition("=")
        if not (key and separator and text):
            raise InputError(f"--look {setting}: wanted KEY=VALUE, natural, or off")
        try:
            values[key] = text if text.startswith("#") else yaml.safe_load(text)
        except yaml.YAMLError as err:
            raise InputError(f"--look {setting}: {text!r} is not a value") from err
    return read_look(values, "--look") if values else None


def _made(values: dict[str, Any]) -> SkyEdit:
    try:
        return SkyEdit(**values)
    except InputError as err:
        raise InputError(f"--sky: {err}") from err
