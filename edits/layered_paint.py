"""Layered pictures as paint: each layer of an .ora or .psd file on the atlas its name picks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from atlas.coords import Size
from atlas.errors import InputError
from atlas.mapping import Layer
from edits.kinds import LayerPaint
from edits.openraster import PaintLayer, paints_by_layer, read_ora
from edits.paint import PicturePaint, same_aspect
from edits.photoshop import read_psd
from edits.picture import Picture

READERS = {".ora": read_ora, ".psd": read_psd, ".psb": read_psd}
"""Suffix to what reads such a file: its visible layers, bottom to top."""


def is_layered(path: str) -> bool:
    """Whether a file of this name holds layers."""
    return Path(path).suffix.lower() in READERS


def open_layered_paint(edit: LayerPaint, layers: Sequence[Layer]) -> list[tuple[int, PicturePaint]]:
    """Index of the atlas and the paint, for every layer of the file, in order of application.

    Layers that name none of the atlases go on `edit.layer`'s. Each keeps its own blend mode.
    """
    path = Path(edit.path)
    if edit.blend != "normal":
        raise InputError(
            f"{path}: its layers have blend modes of their own; leave out {edit.blend!r}"
        )
    names = [layer.name for layer in layers]
    opened = []
    for name, paint in paints_by_layer(READERS[path.suffix.lower()](path), names, edit.layer):
        index = names.index(name)
        _check_aspect(path, paint, layers[index])
        if paint.rgba[..., 3].any():
            picture = Picture(
                np.ascontiguousarray(paint.rgba[..., :3]), np.ascontiguousarray(paint.rgba[..., 3])
            )
            opened.append((index, PicturePaint(picture, layers[index].canvas, paint.blend)))
    if not opened:
        raise InputError(
            f"{path}: nothing is painted; wanted a visible layer with paint on it (those called "
            "atlas, coverage or grid do not count)"
        )
    return opened


def _check_aspect(path: Path, paint: PaintLayer, layer: Layer) -> None:
    size = Size(*paint.rgba.shape[:2])
    if not same_aspect(size, layer.canvas):
        raise InputError(
            f"{path}: is {size}, but the atlas of layer {layer.name!r}, where {paint.name!r} "
            f"goes, is {layer.canvas}; wanted that size or another of the same aspect"
        )
