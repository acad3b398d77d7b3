"""What a hand-over folder holds, for those who write it and for the scripts that read it.

handover.json                       what is what, for programs
README.txt                          what is what, for people
plate/plate.00000.png               the frames
stmap/<layer>/<layer>.00000.exr     32 bit: R = s, G = t of the atlas at every pixel
matte/<layer>/<layer>.00000.png     16 bit grey: share of the pixel that shows the layer
matte/<layer>.mov                   the same as ProRes 4444, where it was asked for
inverse/<layer>/<layer>.00000.exr   32 bit, atlas's size: R = s, G = t of the frame, A = share
shading/<layer>/<layer>.00000.exr   16 bit: gain of the layer's colours (runs with shading)
atlas/<layer>.tif                   16 bit RGB;  atlas/<layer>_coverage.png, 16 bit grey
paint/<layer>.png                   16 bit RGBA, straight: what to lay on the atlas; paint in other
                                        blend modes in <layer>_2.png and so on
rendered/rendered.00000.png         finished frames (edits with a look or grain)
rebuild.nk, rebuild.comp            Nuke and Fusion scripts that rebuild the edit
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from atlas.coords import Size
from atlas.errors import InputError

FRAME = "%05d"
"""How frame numbers appear in file names; Nuke takes it as it is."""
RESULT = f"result/result.{FRAME}.png"
PLATE = f"plate/plate.{FRAME}.png"
RENDERED = f"rendered/rendered.{FRAME}.png"


@dataclass(frozen=True)
class HandOverPaint:
    """One paint file: its size, and the blend mode in which it goes on (`edits.blend`)."""

    size: Size
    blend: str = "normal"


@dataclass(frozen=True, kw_only=True)
class HandOverLayer:
    """One layer of a hand-over.

    canvas: size of the atlas. paints: the paint files, in order of application. has_atlas: whether
    what the layer looked like is known. has_shading: whether its light is.
    """

    name: str
    canvas: Size
    paints: tuple[HandOverPaint, ...]
    has_atlas: bool = True
    has_shading: bool = False

    @property
    def node(self) -> str:
        """The name as a part of node names: letters, digits and underscores."""
        return re.sub(r"\W", "_", self.name, flags=re.ASCII)

    @property
    def stmap(self) -> str:
        return f"stmap/{self.name}/{self.name}.{FRAME}.exr"

    @property
    def matte(self) -> str:
        return f"matte/{self.name}/{self.name}.{FRAME}.png"

    @property
    def matte_movie(self) -> str:
        return f"matte/{self.name}.mov"

    @property
    def inverse(self) -> str:
        return f"inverse/{self.name}/{self.name}.{FRAME}.exr"

    @property
    def shading(self) -> str:
        return f"shading/{self.name}/{self.name}.{FRAME}.exr"

    @property
    def atlas_file(self) -> str:
        return f"atlas/{self.name}.tif"

    @property
    def coverage_file(self) -> str:
        return f"atlas/{self.name}_coverage.png"

    @property
    def paint_files(self) -> tuple[str, ...]:
        """In order of application; the first is named like the layer."""
        more = (f"paint/{self.name}_{n}.png" for n in range(2, len(self.paints) + 1))
        return f"paint/{self.name}.png", *more


@dataclass(frozen=True, kw_only=True)
class HandOver:
    """A hand-over: the frames `first` to `last` (both included), layers top to bottom."""

    frame: Size
    first: int
    last: int
    fps: float
    layers: tuple[HandOverLayer, ...]

    def __post_init__(self) -> None:
        nodes = [layer.node for layer in self.layers]
        if len(set(nodes)) < len(nodes):
            raise ValueError(f"layers' node names must differ, got {', '.join(nodes)}")


def check_new_folder(folder: Path) -> None:
    """Refuse a folder that holds something: paint in it would be lost."""
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if folder.exists():
        raise InputError(f"{folder}: is there already and not empty; name a new folder")
