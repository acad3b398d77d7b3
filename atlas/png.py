"""Whether a PNG file is whole, told before a decoder prints its own complaints."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

from atlas.errors import InputError

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def check_png(path: Path, data: bytes | memoryview) -> None:
    """Walk the chunks (PNG specification, section 5): all there, checksums right, one picture."""
    at = len(PNG_SIGNATURE)
    while True:
        if at + 12 > len(data):
            raise InputError(f"{path}: the PNG is cut off; export it again")
        length, name = struct.unpack(">I4s", data[at : at + 8])
        end = at + 12 + length
        if end > len(data):
            raise InputError(f"{path}: the PNG is cut off; export it again")
        (checksum,) = struct.unpack(">I", data[end - 4 : end])
        if zlib.crc32(data[at + 4 : end - 4]) != checksum:
            raise InputError(f"{path}: the PNG is damaged (bad checksum); export it again")
        if name == b"acTL":
            raise InputError(f"{path}: is an animated PNG; wanted a still picture")
        if name == b"IEND":
            return
        at = end
