"""A layer's atlas through any program for still pictures, so that its effect holds over time."""

from __future__ import annotations

import logging
import shlex
import subprocess
import tempfile
from pathlib import Path

import cv2
import numpy as np

from atlas.clip import write_rgb
from atlas.errors import InputError
from atlas.mapping import Layer
from atlas.texture import Texture
from edits.kinds import FilterAtlas
from edits.paint import PicturePaint
from edits.picture import Picture, read_picture

log = logging.getLogger(__name__)


def run_filter(edit: FilterAtlas, texture: Texture) -> Picture:
    """Run the command on the atlas and read what it made.

    The program is started directly, without a shell. It gets an opaque 8-bit RGB PNG (what no
    frame has seen is filled in) and must leave a picture of the same size.
    """
    with tempfile.TemporaryDirectory(prefix="skyweave-") as name:
        given, wanted = Path(name) / "in.png", Path(name) / "out.png"
        rgb = np.clip(np.rint(texture.rgb * 255), 0, 255).astype(np.uint8)
        write_rgb(given, rgb)
        _run(edit, given, wanted)
        if not wanted.is_file():
            raise InputError(f"--filter: {edit.command!r} ended well but left no {{out}}")
        try:
            picture = read_picture(wanted)
        except InputError as err:
            raise InputError(f"--filter: {edit.command!r} left an unusable {{out}}: {err}") from err
    if picture.size != texture.size:
        raise InputError(
            f"--filter: {edit.command!r} made a picture of {picture.size} from one of "
            f"{texture.size}; wanted the same size"
        )
    return picture


def filter_paint(picture: Picture, layer: Layer) -> PicturePaint:
    """The filter's result as paint over the whole layer."""
    return PicturePaint(picture, layer.canvas, border=cv2.BORDER_REPLICATE)


def _run(edit: FilterAtlas, given: Path, wanted: Path) -> None:
    try:
        words = shlex.split(edit.command)
    except ValueError as err:
        raise InputError(f"--filter: {edit.command!r} cannot be taken apart ({err})") from err
    words = [w.replace("{in}", str(given)).replace("{out}", str(wanted)) for w in words]
    log.info("filter of layer %s: %s", edit.layer, shlex.join(words))
    try:
        done = subprocess.run(words, capture_output=True, text=True, errors="replace", check=False)
    except FileNotFoundError as err:
        raise InputError(f"--filter: there is no program {words[0]!r}; name its full path") from err
    except OSError as err:
        raise InputError(f"--filter: {words[0]!r} cannot be started ({err.strerror})") from err
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        reason = f": {said[-1]}" if said else ""
        raise InputError(f"--filter: {words[0]!r} failed with status {done.returncode}{reason}")
