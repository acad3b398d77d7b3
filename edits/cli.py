"""Command-line options that describe an edit, and the recipe that they make."""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path
from typing import Any, TypeVar

from atlas.errors import InputError
from edits.recipe import (
    FilterAtlas,
    FramePaint,
    Insert,
    LayerPaint,
    Recipe,
    RemoveLayer,
    read_recipe,
)
from edits.sky_options import add_sky_options, with_sky
from edits.skyar import read_skyar

Made = TypeVar("Made")
_PIN = re.compile(r"(?P<layer>[^@=]+)@(?P<frame>\d+):(?P<points>[^=]+)=(?P<what>.+)", re.DOTALL)
_PIN_FORM = "LAYER@FRAME:x,y x,y x,y x,y"


def add_edit_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what to change."""
    add_sky_options(parser)
    what = parser.add_argument_group(
        "what else to change (after the recipe's edits, if both are given)"
    )
    add = what.add_argument
    add("--filter", metavar='"NAME=COMMAND"', action="append", default=[], help="put layer NAME's "
        "atlas through a program for still pictures: COMMAND with {in} and {out} for two PNGs; "
        "may be repeated")  # fmt: skip
    add("--layer", metavar="NAME=RGBA.png", action="append", default=[], help="paint a picture of "
        "the atlas's aspect on layer NAME's atlas; may be repeated")  # fmt: skip
    add("--frame", metavar="N=PICTURE", action="append", default=[], help="an edited copy of frame "
        "N (0 = the first), or an RGBA picture to lay over it, carried to all frames; "
        "LAYER@N=PICTURE keeps it to one layer; may be repeated")  # fmt: skip
    add("--pin", metavar=f'"{_PIN_FORM}=FILE"', action="append", default=[], help="pin a picture "
        "or video to four points of one frame (top left, top right, bottom right, bottom left); "
        "may be repeated")  # fmt: skip
    add("--text", metavar=f'"{_PIN_FORM}=TEXT"', action="append", default=[], help="pin text in "
        "the same way, as large as it fits; may be repeated")  # fmt: skip
    add("--text-color", metavar="#RRGGBB", default="#ffffff", help="colour of every --text")
    add("--remove", metavar="NAME", action="append", default=[], help="take layer NAME away: what "
        "the layers below know of the scene appears; may be repeated")  # fmt: skip
    add("--blend", default="normal", help="blend mode of every --layer, --pin and --text: normal, "
        "multiply, screen, overlay, 'soft light', add (default: normal)")  # fmt: skip
    add("--keep-grain", metavar="SHARE", type=float, help="put back this share of the film grain "
        "of what was replaced, 0 to 1 (default: 0)")  # fmt: skip
    add("--allow-commands", action="store_true", help="let a recipe file start the programs that "
        "it names (kind: filter)")  # fmt: skip


def add_view_options(parser: argparse.ArgumentParser) -> None:
    """Add the options for looking at an edit: parts, single frames, repeats, what was done."""
    add = parser.add_argument_group("looking").add_argument
    add(
        "--range",
        metavar="A:B",
        help="source frames A to B, both included; 0 is the first, A: and :B do (default: all "
        "that the run was fitted to)",
    )
    add("--preview", metavar="N", type=int, help="render source frame N alone, as a picture; "
        "without an edit it is the frame itself, to paint on")  # fmt: skip
    add("--contact-sheet", action="store_true", help="a few frames, original and edited, as one "
        "picture")  # fmt: skip
    add("--watch", action="store_true", help="stay, and make it again whenever a picture or the "
        "recipe is saved")  # fmt: skip
    add("--history", action="store_true", help="list the edits that the run keeps")
    add("--no-history", action="store_true", help="do not keep this edit in the run folder")


def read_edits(args: argparse.Namespace) -> Recipe:
    """The recipe file's edits, then those of the options, in the order of the help text."""
    recipe = read_recipe(args.recipe) if args.recipe else Recipe()
    if args.skyar is not None:
        recipe = read_skyar(args.skyar).recipe
    for edit in recipe.edits:
        if isinstance(edit, FilterAtlas) and not args.allow_commands:
            raise InputError(
                f"{args.recipe}: would run the command {edit.command!r}; give --allow-commands "
                f"if you trust it"
            )
    recipe = with_sky(args, recipe)
    edits = [*recipe.edits]
    for given in args.filter:
        name, command = _split(given, "--filter", "NAME=COMMAND with {in} and {out}")
        edits.append(_made("--filter", FilterAtlas, layer=name, command=command))
    for given in args.layer:
        name, path = _split(given, "--layer", "NAME=RGBA.png")
        edits.append(_made("--blend", LayerPaint, layer=name, path=path, blend=args.blend))
    edits += [_frame_paint(given) for given in args.frame]
    edits += [_insert(given, "--pin", args) for given in args.pin]
    edits += [_insert(given, "--text", args) for given in args.text]
    edits += [RemoveLayer(layer=name) for name in args.remove]
    grain = recipe.keep_grain if args.keep_grain is None else args.keep_grain
    return Recipe(edits=tuple(edits), keep_grain=grain, look=recipe.look)


def choose_output(args: argparse.Namespace) -> None:
    """Give previews and contact sheets a name, and refuse what does not fit together."""
    if args.compose == "lna" and (args.preview is not None or args.contact_sheet or args.range):
        raise InputError("--compose lna writes whole clips; leave out --preview and the like")
    if args.preview is not None and args.contact_sheet:
        raise InputError("--preview and --contact-sheet: wanted one of them")
    if args.out is None and args.preview is not None:
        args.out = Path(f"preview_{args.preview:05d}.png")
    elif args.out is None and args.contact_sheet:
        args.out = Path("contact.png")
    elif args.out is None:
        raise InputError("the following arguments are required: --out; see python edit.py --help")
    picture = args.out.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp")
    if (args.preview is not None or args.contact_sheet) and not picture:
        raise InputError(f"{args.out}: wanted a picture, .png or .jpg")


def check_places(args: argparse.Namespace, recipe: Recipe, source: Path) -> None:
    """Refuse an output that is or holds an input, or a place that cannot be written."""
    inputs = [args.input, source, *recipe.files()]
    inputs += [args.recipe] if args.recipe else []
    for option, written in (("--out", args.out), ("--save-recipe", args.save_recipe)):
        if written is None:
            continue
        place = written.resolve()
        for path in (Path(p).resolve() for p in inputs):
            if path == place:
                raise InputError(
                    f"{written}: is an input of this edit; name another file for {option}"
                )
            if path.is_relative_to(place):
                raise InputError(
                    f"{written}: holds the input {path}; name another place for {option}"
                )
        folder = next(p for p in (*place.parents, place) if p.exists())
        if not folder.is_dir():
            raise InputError(f"{written}: {folder} is a file; wanted a folder")
        if not os.access(folder, os.W_OK):
            raise InputError(f"{written}: the folder {folder} is read-only; name another place")
    if args.save_recipe is not None and args.save_recipe.is_dir():
        raise InputError(f"{args.save_recipe}: is a folder; wanted a file name for --save-recipe")


def check_as_original(args: argparse.Namespace) -> None:
    """Refuse options that do not go with `--compose lna`."""
    if args.compose != "lna":
        return
    if args.fast:
        raise InputError("--compose lna needs a fitted model; leave out --fast")
    if args.save_recipe:
        raise InputError("--save-recipe: a recipe cannot hold --compose lna; leave one of them out")


def _frame_paint(given: str) -> FramePaint:
    where, path = _split(given, "--frame", "N=PICTURE or LAYER@N=PICTURE")
    layer, at, number = where.rpartition("@")
    if not number.isdigit() or (at and not layer):
        raise InputError(f"--frame {given}: wanted N=PICTURE or LAYER@N=PICTURE")
    return FramePaint(frame=int(number), path=path, layer=layer or None)


def _insert(given: str, option: str, args: argparse.Namespace) -> Insert:
    found = _PIN.fullmatch(given)
    what = "TEXT" if option == "--text" else "FILE"
    form = f'{option} {given}: wanted "{_PIN_FORM}={what}"'
    if found is None:
        raise InputError(form)
    try:
        numbers = [[float(v) for v in pair.split(",")] for pair in found["points"].split()]
        corners = tuple((x, y) for x, y in numbers)
    except ValueError as err:
        raise InputError(form) from err
    if len(corners) != 4:
        raise InputError(f"{form}; found {len(corners)} points")
    content = {"text": found["what"]} if option == "--text" else {"path": found["what"]}
    shared = {"blend": args.blend, "color": args.text_color}
    where = {"layer": found["layer"], "frame": int(found["frame"]), "corners": corners}
    return _made(option, Insert, **where, **content, **shared)


def _split(given: str, option: str, wanted: str) -> tuple[str, str]:
    name, separator, value = given.partition("=")
    if not (name and separator and value):
        raise InputError(f"{option} {given}: wanted {wanted}")
    return name, value


def _made(option: str, kind: type[Made], **values: Any) -> Made:
    """An edit of that kind; its `InputError` names the option."""
    try:
        return kind(**values)
    except InputError as err:
        raise InputError(f"{option}: {err}") from err
