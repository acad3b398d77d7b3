"""What to paint on: a layer's atlas as picture, its coverage, a grid, and all of it as OpenRaster.

Per layer: LAYER.png (16 bit RGBA, alpha = what any frame has seen), LAYER_coverage.png (8 bit
grey), LAYER_grid.png (8 bit RGBA) and LAYER.ora (8 bit), with these layers, top to bottom:

    paint      empty: paint here
    grid       hidden; lines every so many texels, with their positions
    coverage   shades what no frame has seen
    atlas      what the layer looks like
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from atlas.clip import write_bytes, write_rgb
from atlas.coords import Size
from atlas.mapping import Layer
from atlas.texture import Texture
from edits.handover import check_new_folder
from edits.openraster import StoredLayer, write_ora

UNSEEN_RGBA = (20, 0, 40, 150)
"""What shades texels that no frame has seen."""
_GRID_CELLS = 12
_STEPS = (1, 2, 5)
_README = """The atlases of a run, to paint on.

LAYER.ora opens in Krita, GIMP and MyPaint: paint on the layer "paint" (or on layers of your own),
save, and give the file back:  edit.py RUN --layer LAYER=LAYER.ora --out FILE.mp4
Or paint a transparent PNG of the size of LAYER.png:  edit.py RUN --layer LAYER=FILE.png --out ...

Layers called atlas, coverage and grid are there to be looked at; changes to them do nothing.
"""


def export_atlases(folder: Path, layers: Sequence[Layer], textures: Sequence[Texture]) -> None:
    """Write everything to paint on into a new or empty folder, which appears when it is whole."""
    folder = Path(folder)
    check_new_folder(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f"{folder.name}.{os.getpid()}.tmp")
    temporary.mkdir()
    try:
        for layer, texture in zip(layers, textures, strict=True):
            _export(temporary, layer.name, texture)
        write_bytes(temporary / "README.txt", _README.encode("utf-8"))
        if folder.exists():
            folder.rmdir()
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _export(folder: Path, name: str, texture: Texture) -> None:
    rgba = np.dstack([texture.rgb, texture.coverage])
    write_rgb(folder / f"{name}.png", np.rint(rgba.clip(0, 1) * 65535).astype(np.uint16))
    coverage = np.rint(texture.coverage.clip(0, 1) * 255).astype(np.uint8)
    grid = grid_picture(texture.size)
    write_rgb(folder / f"{name}_coverage.png", coverage)
    write_rgb(folder / f"{name}_grid.png", grid)
    opaque = np.rint(texture.rgb.clip(0, 1) * 255).astype(np.uint8)
    opaque = np.dstack([opaque, np.full_like(coverage, 255)])
    shade = np.empty_like(opaque)
    shade[:] = UNSEEN_RGBA
    shade[..., 3] = np.rint((1 - texture.coverage.clip(0, 1)) * UNSEEN_RGBA[3])
    layers = [
        StoredLayer(name="paint", rgba=np.zeros_like(opaque)),
        StoredLayer(name="grid", rgba=grid, visible=False, locked=True),
        StoredLayer(name="coverage", rgba=shade, locked=True),
        StoredLayer(name="atlas", rgba=opaque, locked=True),
    ]
    write_ora(folder / f"{name}.ora", texture.size, layers)


def grid_step(size: Size) -> int:
    """Texels between two grid lines: 1, 2 or 5 times a power of ten, about a dozen cells."""
    wanted = max(size.wh) / _GRID_CELLS
    power = 10 ** int(np.floor(np.log10(max(wanted, 1))))
    return int(
        min((s * p for p in (power, 10 * power) for s in _STEPS), key=lambda v: abs(v - wanted))
    )


def grid_picture(size: Size) -> np.ndarray:
    """(H, W, 4) uint8: lines every `grid_step` texels; red grows with u, green with v.

    A line's texels are those whose u (or v) is a multiple of the step; numbers stand at the
    crossings, as u,v.
    """
    step = grid_step(size)
    u, v = np.meshgrid(np.arange(size.width), np.arange(size.height))
    red = np.rint(255 * u / max(size.width - 1, 1))
    green = np.rint(255 * v / max(size.height - 1, 1))
    rgb = np.dstack([red, green, np.full_like(red, 160)]).astype(np.uint8)
    alpha = np.where((u % step == 0) | (v % step == 0), 220, 40).astype(np.uint8)
    if step >= 40:
        scale = step / 160
        for y in range(0, size.height, step):
            for x in range(0, size.width, step):
                at = (x + 3, y + 4 + int(24 * scale))
                text, font = f"{x},{y}", cv2.FONT_HERSHEY_SIMPLEX
                cv2.putText(alpha, text, at, font, scale, 255, 1, cv2.LINE_AA)
                cv2.putText(rgb, text, at, font, scale, (255, 255, 255), 1, cv2.LINE_AA)
    return np.dstack([rgb, alpha])
