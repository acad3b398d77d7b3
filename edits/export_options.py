"""Command-line options that hand an edit over to other programs; light to import."""

from __future__ import annotations

import argparse
from pathlib import Path

from atlas.errors import InputError
from edits.handover import check_new_folder

EXPORTS = ("stmap",)
_ELSEWHERE = (
    "out",
    "preview",
    "contact_sheet",
    "watch",
    "side_by_side",
    "save_recipe",
)
"""Options of rendering, by their names in the namespace."""


def add_export_options(parser: argparse.ArgumentParser) -> None:
    """Add --export and --export-atlas."""
    group = parser.add_argument_group("hand over to other programs (in place of --out)")
    group.add_argument("--export", nargs=2, metavar=("stmap", "DIR"), help="write ST maps, mattes, "
        "atlases, inverse maps and scripts that rebuild the edit in Nuke and Fusion; --range A:B "
        "keeps it to some frames, --codec prores adds the mattes as ProRes 4444")  # fmt: skip
    group.add_argument("--export-atlas", metavar="DIR", type=Path, help="write what to paint on: "
        "atlases, their coverage, a grid, and OpenRaster files with all of it")  # fmt: skip


def check_export(args: argparse.Namespace) -> bool:
    """Whether something is to be exported; refuses what does not go with it."""
    if not args.export and args.export_atlas is None:
        return False
    option = "--export" if args.export else "--export-atlas"
    if args.export and args.export_atlas is not None:
        raise InputError("--export and --export-atlas are two jobs; give one of them")
    for name in _ELSEWHERE:
        given = getattr(args, name)
        if given is not None and given is not False:  # --preview 0 is given
            raise InputError(f"{option} does not go with --{name.replace('_', '-')}; leave it out")
    if args.compose != "exact":
        raise InputError(f"{option} hands over the exact composition; leave out --compose")
    if args.export and args.export[0] not in EXPORTS:
        raise InputError(f"--export {args.export[0]}: wanted {', '.join(EXPORTS)}, then a folder")
    check_new_folder(export_folder(args))
    return True


def export_folder(args: argparse.Namespace) -> Path:
    """The folder that --export or --export-atlas names."""
    return Path(args.export[1] if args.export else args.export_atlas)
