"""Photos in and out: upright, in their own depth, with their colour profile and camera data."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from atlas.clip import write_bytes
from atlas.errors import InputError
from edits.picture import read_checked

SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp")
_DEEP = (".png", ".tif", ".tiff")
_WITH_METADATA = (".jpg", ".jpeg", ".png", ".webp")
_ORIENTATION = 0x0112
_QUALITY = {
    ".jpg": [cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, 0x111111],
    ".webp": [cv2.IMWRITE_WEBP_QUALITY, 95],
    ".png": [cv2.IMWRITE_PNG_COMPRESSION, 3],
}
_QUALITY[".jpeg"] = _QUALITY[".jpg"]


@dataclass(frozen=True)
class Photo:
    """rgb: (H, W, 3) uint8 or uint16, upright. metadata: kinds (OpenCV's) and their bytes, the
    orientation in them already 1."""

    rgb: np.ndarray
    metadata: tuple[tuple[int, bytes], ...] = ()


def read_photo(path: Path) -> Photo:
    """Read a picture of 8 or 16 bits a channel; alpha is left out."""
    data = np.frombuffer(read_checked(path), np.uint8)
    mode = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH  # turns it upright
    bgr, metadata = cv2.imdecode(data, mode), ()
    if bgr is None:
        raise InputError(f"{path}: not a readable picture; wanted a JPEG, PNG, TIFF or WebP")
    if bgr.dtype not in (np.uint8, np.uint16):
        raise InputError(f"{path}: has {bgr.dtype} pixels; wanted 8 or 16 bits a channel")
    if path.suffix.lower() in _WITH_METADATA and hasattr(cv2, "imdecodeWithMetadata"):
        metadata = _metadata(data)
    return Photo(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), metadata)


def write_photo(path: Path, photo: Photo) -> None:
    """Write it; 16 bits as 8 where the format has no more. Raises `InputError` on other suffixes.

    JPEG and WebP are written at quality 95, JPEG with full chroma.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"{path}: wanted one of {', '.join(SUFFIXES)} for a photo")
    rgb = photo.rgb
    if rgb.dtype == np.uint16 and suffix not in _DEEP:
        rgb = cv2.convertScaleAbs(rgb, alpha=1 / 257)
    bgr, options = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), _QUALITY.get(suffix, [])
    if photo.metadata and suffix in _WITH_METADATA and hasattr(cv2, "imencodeWithMetadata"):
        kinds: Any = [kind for kind, _ in photo.metadata]
        chunks: Any = [np.frombuffer(chunk, np.uint8)[None] for _, chunk in photo.metadata]
        good, data = cv2.imencodeWithMetadata(suffix, bgr, kinds, chunks, options)
    else:
        good, data = cv2.imencode(suffix, bgr, options)
    if not good:
        raise InputError(f"{path}: OpenCV cannot write a picture of {rgb.shape[1]}x{rgb.shape[0]}")
    write_bytes(path, data.tobytes())


def _metadata(data: np.ndarray) -> tuple[tuple[int, bytes], ...]:
    """Camera data (EXIF), colour profile and XMP of a file; unknown kinds are left out."""
    _, kinds, chunks = cv2.imdecodeWithMetadata(data, cv2.IMREAD_REDUCED_COLOR_8)
    known = (cv2.IMAGE_METADATA_EXIF, cv2.IMAGE_METADATA_XMP, cv2.IMAGE_METADATA_ICCP)
    found = []
    for kind, chunk in zip(kinds, chunks, strict=True):
        held = np.asarray(chunk, np.uint8).tobytes()
        if kind in known and held:
            held = upright(held) if kind == cv2.IMAGE_METADATA_EXIF else held
            found.append((int(kind), held))
    return tuple(found)


def upright(exif: bytes) -> bytes:
    """Camera data with orientation 1: the pixels are upright (TIFF 6.0, section 2; EXIF 2.3, 4.6).

    Data that cannot be read come back as they are.
    """
    start = 6 if exif[:4] == b"Exif" else 0
    order = {b"II": "<", b"MM": ">"}.get(exif[start : start + 2])
    out = bytearray(exif)
    try:
        assert order is not None
        (at,) = struct.unpack_from(order + "I", exif, start + 4)
        (count,) = struct.unpack_from(order + "H", exif, start + at)
        for i in range(count):
            entry = start + at + 2 + 12 * i
            (tag,) = struct.unpack_from(order + "H", exif, entry)
            if tag == _ORIENTATION:
                struct.pack_into(order + "H", out, entry + 8, 1)
    except (struct.error, AssertionError):
        return exif
    return bytes(out)
