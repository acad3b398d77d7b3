"""Read and write OpenEXR pictures: ST maps, inverse maps, shading.

The `OpenEXR` package comes with the extra `handover`; it is imported where it is used.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from atlas.errors import InputError

CHANNELS = {1: "Y", 3: "RGB", 4: "RGBA"}


def require_openexr() -> ModuleType:
    """The `OpenEXR` module, or one line that says how to get it."""
    try:
        import OpenEXR
    except ModuleNotFoundError as err:
        raise InputError("EXR files need the package OpenEXR: pip install '.[handover]'") from err
    return OpenEXR


def write_exr(path: Path, pixels: np.ndarray, note: str = "") -> None:
    """Write a picture as a scan-line EXR with ZIP compression; whole or not at all.

    Args:
        pixels: (H, W), (H, W, 3) or (H, W, 4), float32 or float16; the channels become Y, RGB or
            RGBA at that precision. Row 0 is the top.
        note: goes into the attribute `comments`.
    """
    openexr: Any = require_openexr()
    count = 1 if pixels.ndim == 2 else pixels.shape[2]
    if count not in CHANNELS or pixels.dtype not in (np.float32, np.float16):
        raise ValueError(
            "pixels must be (H, W), (H, W, 3) or (H, W, 4) of float32 or float16, got "
            f"{pixels.shape} {pixels.dtype}"
        )
    header = {"compression": openexr.ZIP_COMPRESSION, "type": openexr.scanlineimage}
    if note:
        header["comments"] = note
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        file = openexr.File(header, {CHANNELS[count]: np.ascontiguousarray(pixels)})
        file.write(str(temporary))
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read_exr(path: Path) -> np.ndarray:
    """(H, W) or (H, W, C) float32 or float16: what `write_exr` wrote."""
    openexr: Any = require_openexr()
    if not Path(path).is_file():
        raise InputError(f"{path}: not found")
    try:
        with openexr.File(str(path)) as file:
            channels = {name: np.array(c.pixels) for name, c in file.channels().items()}
    except (RuntimeError, OSError) as err:
        raise InputError(f"{path}: not a readable EXR ({' '.join(str(err).split())})") from err
    for name in CHANNELS.values():
        if name in channels:
            return channels[name]
    raise InputError(f"{path}: has the channels {', '.join(channels)}; wanted Y, RGB or RGBA")
