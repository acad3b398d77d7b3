"""Read a picture file as straight RGB and opacity, or say in one line what is wrong with it."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from atlas.coords import Size
from atlas.errors import InputError
from atlas.png import PNG_SIGNATURE, check_png

_JPEG_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_TIFF_PHOTOMETRIC = 262
_TIFF_SEPARATED = 5  # CMYK


@dataclass(frozen=True)
class Picture:
    """A picture from a file.

    rgb: (H, W, 3) float32, display-encoded, [0, 1], straight (not premultiplied).
    alpha: (H, W) float32, opacity, [0, 1]; None when the file has no alpha channel.
    levels: (H, W, 3) uint8, `rgb` in the file's own levels; None when that says less.
    """

    rgb: np.ndarray
    alpha: np.ndarray | None
    levels: np.ndarray | None = None

    @property
    def size(self) -> Size:
        return Size(*self.rgb.shape[:2])

    @property
    def opaque(self) -> bool:
        return self.alpha is None or bool((self.alpha == 1).all())

    def premultiplied(self) -> np.ndarray:
        """(H, W, 4) float32: colour times opacity, and opacity; what may be filtered."""
        alpha = np.ones(self.rgb.shape[:2], np.float32) if self.alpha is None else self.alpha
        return np.dstack([self.rgb * alpha[..., None], alpha])

    def texels(self) -> np.ndarray:
        """(H, W, 4): the file's own levels and 255 where it has 8 bits and no alpha, which is
        sampled at a third of the time; else `premultiplied`."""
        if self.levels is None or self.alpha is not None:
            return self.premultiplied()
        return cv2.cvtColor(self.levels, cv2.COLOR_RGB2RGBA)


def read_picture(path: Path) -> Picture:
    """Read an 8- or 16-bit picture (grey, palette, RGB; with or without alpha).

    Damaged, animated and CMYK files raise `InputError`, as does anything OpenCV cannot read.
    """
    data = read_checked(path)
    is_jpeg = data[:2] == b"\xff\xd8"  # phones tag rotation; only the plain colour mode applies it
    mode = cv2.IMREAD_COLOR if is_jpeg else cv2.IMREAD_UNCHANGED
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), mode)
    if pixels is None:
        raise InputError(f"{path}: not a readable picture; wanted a PNG, JPEG, WebP or TIFF")
    if pixels.dtype not in (np.uint8, np.uint16):
        raise InputError(
            f"{path}: has {pixels.dtype} pixels; wanted 8 or 16 bits a channel (or a .hdr sky)"
        )
    values = pixels.astype(np.float32) / np.iinfo(pixels.dtype).max
    if values.ndim == 2:
        return Picture(np.repeat(values[..., None], 3, axis=2), None)
    if values.shape[2] not in (3, 4):
        raise InputError(f"{path}: has {values.shape[2]} channels; wanted RGB or RGBA")
    alpha = np.ascontiguousarray(values[..., 3]) if values.shape[2] == 4 else None
    levels = None
    if pixels.dtype == np.uint8 and alpha is None:
        levels = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
    return Picture(np.ascontiguousarray(values[..., 2::-1]), alpha, levels)


def read_checked(path: Path) -> bytes:
    """The file's bytes, refused when they are damaged, animated or in CMYK."""
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError as err:
        raise InputError(f"{path}: not found") from err
    except OSError as err:
        raise InputError(f"{path}: cannot be read ({err.strerror})") from err
    if not data:
        raise InputError(f"{path}: the file is empty; wanted a picture")
    if data.startswith(PNG_SIGNATURE):
        check_png(path, data)
    elif data[:2] == b"\xff\xd8":
        _check_jpeg(path, data)
    elif data[:4] in (b"II*\0", b"MM\0*"):
        _check_tiff(path, data)
    elif data[:4] == b"RIFF" and b"ANIM" in data[:64]:
        raise InputError(f"{path}: is animated; wanted a still picture")
    elif data[:4] == b"GIF8":
        raise InputError(f"{path}: is a GIF; wanted a still picture (PNG), or a video for a sky")
    elif data[:4] == b"8BPS":
        raise InputError(f"{path}: is a PSD; export the layer as PNG")
    return data


def _check_jpeg(path: Path, data: bytes) -> None:
    """Find the frame header (ITU T.81, B.2.2): four components are CMYK or YCCK."""
    at = 2
    while at + 10 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in _JPEG_FRAME_MARKERS:
            if data[at + 9] == 4:
                raise InputError(f"{path}: is in CMYK; convert it to RGB and save it again")
            return
        (length,) = struct.unpack(">H", data[at + 2 : at + 4])
        at += 1 if marker == 0xFF else 2 + length
    raise InputError(f"{path}: the JPEG is damaged; export it again")


def _check_tiff(path: Path, data: bytes) -> None:
    """Look up the photometric interpretation in the first directory (TIFF 6.0, section 2)."""
    order = "<" if data[:2] == b"II" else ">"
    try:
        (at,) = struct.unpack_from(order + "I", data, 4)
        (count,) = struct.unpack_from(order + "H", data, at)
        for i in range(count):
            tag, _, _, value = struct.unpack_from(order + "HHIH", data, at + 2 + 12 * i)
            if tag == _TIFF_PHOTOMETRIC and value == _TIFF_SEPARATED:
                raise InputError(f"{path}: is in CMYK; convert it to RGB and save it again")
    except struct.error as err:
        raise InputError(f"{path}: the TIFF is damaged; export it again") from err
