"""What `edit.py PHOTO --sky ... --out PHOTO` does."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np

from atlas.coords import Size
from atlas.mapping import Layer
from edits.kinds import SkyEdit
from edits.photo_file import SUFFIXES, Photo, read_photo, write_photo
from edits.recipe import Recipe, check_files
from edits.sky import PictureSky, open_sky
from edits.still import StillJob, edited_still
from edits.stream import can_stream, streamed_edit


def is_still(args: argparse.Namespace, recipe: Recipe) -> bool:
    """Whether this command edits the sky or the look of one photo."""
    looking = args.preview is not None or args.contact_sheet or args.watch or args.history
    other = args.size or args.data or args.source or args.clip or args.range
    if looking or other or args.frame_by_frame or args.compose != "exact" or args.codec != "auto":
        return False
    if not (args.input.is_file() and args.input.suffix.lower() in SUFFIXES):
        return False
    skyar = recipe.look is not None and recipe.look.mode == "skyar"
    return args.out.suffix.lower() in SUFFIXES and not skyar and can_stream(recipe)


def edit_photo(
    args: argparse.Namespace, recipe: Recipe, matte_of: Callable[[np.ndarray], np.ndarray]
) -> str:
    """Write the edited photo; what there is to say of it.

    Args:
        matte_of: (H, W, 3) uint8 to (H, W) float32, 1 = sky; also for a sky out of a photo.
    """
    start_s = time.monotonic()
    check_files(recipe)
    photo = read_photo(args.input)
    size, edit = Size(*photo.rgb.shape[:2]), streamed_edit(recipe)
    place = None
    if edit is not None:
        source = open_sky(exactly(edit), Layer("sky", size), matte_of)
        place = (source.finely() if isinstance(source, PictureSky) else source).place
    needed = edit is not None or (recipe.look is not None and recipe.look.needs_sky)
    matte = matte_of(_levels(photo.rgb)) if needed else np.zeros(photo.rgb.shape[:2])
    matte = matte.astype(np.float32, copy=False)
    job = StillJob(photo.rgb, matte, place, recipe.look, bands=args.multiband)
    done = edited_still(job)
    if args.side_by_side:
        done = np.hstack([photo.rgb, done])
    write_photo(args.out, Photo(done, photo.metadata))
    said = f"{args.out}: {size}, {8 * photo.rgb.itemsize} bit, {time.monotonic() - start_s:.1f} s"
    if edit is not None and not (matte > 0.5).any():
        said += "\nno sky was found in it: it is as it was"
    return said


def exactly(edit: SkyEdit) -> SkyEdit:
    """The edit with a fit that a photo knows: there is no atlas to lie on."""
    return replace(edit, fit="cover") if edit.fit == "auto" and not _panorama(edit) else edit


def _panorama(edit: SkyEdit) -> bool:
    return edit.source.lower().endswith((".hdr", ".pic"))


def _levels(rgb: np.ndarray) -> np.ndarray:
    return rgb if rgb.dtype == np.uint8 else cv2.convertScaleAbs(rgb, alpha=1 / 257)
