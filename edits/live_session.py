"""What `edit.py --input N|-` takes and where it shows it."""

from __future__ import annotations

import argparse
import sys

from atlas.errors import InputError
from atlas.planes import PlaneFormat
from edits.live import CameraSource, PipeOut, PipeSource, Window, check_display
from edits.recipe import Recipe
from edits.stream import can_stream


def check_live(args: argparse.Namespace, recipe: Recipe) -> None:
    """Refuse what live pictures cannot have, before a camera is opened.

    Raises:
        InputError: another input, an edit that is no sky or look, a wrong --input or --out, or no
            display for the window.
    """
    if args.input is not None or args.recipe is not None:
        raise InputError("--input stands for RUN_OR_VIDEO; leave the other one out")
    if not can_stream(recipe):
        raise InputError("--input takes one sky and a look, nothing else")
    if not (args.live == "-" or args.live.isdecimal()):
        raise InputError(f"--input {args.live}: wanted the number of a camera, or -")
    if args.out is not None and str(args.out) != "-":
        raise InputError(
            f"--out {args.out}: live pictures go to a window, or with --out - to a pipe"
        )
    if args.out is None:
        check_display()


def open_live(args: argparse.Namespace) -> CameraSource | PipeSource:
    """The camera, or the pipe on standard input."""
    if args.live == "-":
        return PipeSource(sys.stdin.buffer)
    return CameraSource(int(args.live), mirror=args.mirror)


def open_show(args: argparse.Namespace, form: PlaneFormat) -> Window | PipeOut:
    """The window, or the pipe on standard output."""
    return Window(form) if args.out is None else PipeOut(form, sys.stdout.buffer)
