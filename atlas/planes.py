"""Pictures as video stores them: Y, U and V planes, and their exact relation to RGB.

Working on the planes themselves keeps every untouched pixel as it was decoded, to the bit and in
10 bit where the source has them, and spares two conversions of every frame. Everything linear in
display-encoded RGB (blending, filtering, warping) is linear in YUV too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import cv2
import numpy as np

from atlas.color import color_matrix, full_range, is_rgb
from atlas.coords import Size

_LUMA_WEIGHTS = {
    "bt709": (0.2126, 0.0722),
    "smpte170m": (0.299, 0.114),
    "bt470bg": (0.299, 0.114),
    "fcc": (0.30, 0.11),
    "smpte240m": (0.212, 0.087),
    "bt2020": (0.2627, 0.0593),
}
"""Weights of red and of blue in luma (ITU-T H.273, table 4), under swscale's names."""

FORMATS = ("yuv420p", "yuv420p10le", "yuv444p", "yuv444p10le")


@dataclass(frozen=True)
class Planes:
    """One picture: y (H, W), u and v (H, W) or (H / 2, W / 2), all uint8 or uint16."""

    y: np.ndarray
    u: np.ndarray
    v: np.ndarray

    @property
    def all(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.y, self.u, self.v


@dataclass(frozen=True)
class PlaneFormat:
    """How planes are laid out and what their levels mean.

    name: one of `FORMATS`. matrix: a key of `_LUMA_WEIGHTS`. full: whether levels use all of the
    range rather than 16 .. 235 and 16 .. 240 (times 4 in 10 bit).
    """

    name: str
    size: Size
    matrix: str
    full: bool

    def __post_init__(self) -> None:
        if self.name not in FORMATS:
            raise ValueError(f"name must be one of {', '.join(FORMATS)}, got {self.name!r}")

    @staticmethod
    def of_source(pix_fmt: str, color: dict[str, str], size: Size) -> PlaneFormat | None:
        """The format in which a video is edited: its own as far as it can be, at least 4:2:0.

        None where planes say nothing: RGB video, and odd sizes, which 4:2:0 cannot hold.
        """
        if is_rgb(pix_fmt) or size.width % 2 or size.height % 2:
            return None
        deep = any(depth in pix_fmt for depth in ("p10", "p12", "p14", "p16", "p010", "p016"))
        name = "yuv420p10le" if deep else "yuv420p"
        return PlaneFormat(name, size, color_matrix(color, size), full_range(color))

    @property
    def bits(self) -> int:
        return 10 if self.name.endswith("10le") else 8

    @property
    def peak(self) -> int:
        """Highest level."""
        return (1 << self.bits) - 1

    @property
    def dtype(self) -> type:
        return np.uint16 if self.bits > 8 else np.uint8

    @property
    def step(self) -> int:
        """Pixels per chroma sample along each axis."""
        return 2 if "420" in self.name else 1

    @property
    def chroma_size(self) -> Size:
        return Size(self.size.height // self.step, self.size.width // self.step)

    @property
    def byte_count(self) -> int:
        luma, chroma = (s.height * s.width for s in (self.size, self.chroma_size))
        return (luma + 2 * chroma) * np.dtype(self.dtype).itemsize

    @property
    def luma_span(self) -> tuple[int, int]:
        """Levels of black and white."""
        scale = 1 << (self.bits - 8)
        return (0, self.peak) if self.full else (16 * scale, 235 * scale)

    @property
    def chroma_span(self) -> tuple[int, int]:
        scale = 1 << (self.bits - 8)
        return (0, self.peak) if self.full else (16 * scale, 240 * scale)

    @cached_property
    def from_rgb(self) -> np.ndarray:
        """(3, 4) float64: RGB in [0, 1] and 1, to levels of Y, U, V (ITU-T H.273, 8.3)."""
        red, blue = _LUMA_WEIGHTS[self.matrix]
        luma = np.array([red, 1 - red - blue, blue])
        low, high = self.luma_span
        reach = self.chroma_span[1] - self.chroma_span[0]
        middle = 1 << (self.bits - 1)
        u = (np.array([0, 0, 1]) - luma) / (2 * (1 - blue))
        v = (np.array([1, 0, 0]) - luma) / (2 * (1 - red))
        rows = np.stack([(high - low) * luma, reach * u, reach * v])
        return np.column_stack([rows, [low, middle, middle]])

    @cached_property
    def to_rgb(self) -> np.ndarray:
        """(3, 4) float64: levels of Y, U, V and 1, to RGB in [0, 1]; undoes `from_rgb`."""
        inverse = np.linalg.inv(self.from_rgb[:, :3])
        return np.column_stack([inverse, -inverse @ self.from_rgb[:, 3]])

    def with_size(self, size: Size) -> PlaneFormat:
        return replace(self, size=size)

    def as_444_10(self, planes: Planes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The planes at full size and in 10 bit, levels kept in proportion."""
        chroma = planes.u, planes.v
        if self.step == 2:
            chroma = tuple(enlarged_chroma(plane, self.size.wh) for plane in chroma)
        y, u, v = (
            plane if self.bits == 10 else plane.astype(np.uint16) << 2
            for plane in (planes.y, *chroma)
        )
        return y, u, v

    def split(self, data: np.ndarray) -> Planes:
        """Planes that share the memory of (byte_count,) uint8 as ffmpeg writes them."""
        flat = data.view(self.dtype)
        luma, chroma = self.size, self.chroma_size
        count, few = luma.height * luma.width, chroma.height * chroma.width
        shape = chroma.height, chroma.width
        return Planes(
            flat[:count].reshape(luma.height, luma.width),
            flat[count : count + few].reshape(shape),
            flat[count + few :].reshape(shape),
        )

    def yuv_of(self, rgb: np.ndarray) -> np.ndarray:
        """(H, W, 3) levels of Y, U, V, rounded, of (H, W, 3) uint8, uint16 or float RGB."""
        peak = 1.0 if rgb.dtype.kind == "f" else float(np.iinfo(rgb.dtype).max)
        matrix = self.from_rgb * [1 / peak, 1 / peak, 1 / peak, 1]
        if rgb.dtype == self.dtype == np.uint8:
            return cv2.transform(rgb, matrix)
        levels = cv2.transform(rgb.astype(np.float32, copy=False), matrix)
        if self.bits == 8:  # rounds and cuts off in one go
            return cv2.multiply(levels, (1, 1, 1, 1), dtype=cv2.CV_8U)
        return np.rint(np.clip(levels, 0, self.peak)).astype(self.dtype)

    def planes_of(self, rgb: np.ndarray) -> Planes:
        """Planes of an (H, W, 3) RGB picture; chroma is the mean over its block of pixels."""
        y, u, v = cv2.split(self.yuv_of(rgb))
        return Planes(y, self.at_chroma(u), self.at_chroma(v))

    def at_chroma(self, plane: np.ndarray) -> np.ndarray:
        """Values (H, W) at the places of chroma."""
        return shrunk_chroma(plane) if self.step == 2 else plane

    def rgb_of(self, planes: Planes, dtype: type = np.uint8) -> np.ndarray:
        """(H, W, 3) RGB, uint8 or uint16; chroma is enlarged bilinearly."""
        wh = self.size.wh
        if self.step == 1:
            u, v = planes.u, planes.v
        else:
            u, v = (enlarged_chroma(plane, wh) for plane in (planes.u, planes.v))
        return self.mixed(planes.y, u, v, dtype)

    def small_rgb(self, planes: Planes, size: Size) -> np.ndarray:
        """(h, w, 3) uint8 RGB, shrunk by area; chroma, which is smooth, not in its last step."""
        y = shrunk(planes.y, size)
        u, v = (shrunk(plane, size, cv2.INTER_LINEAR) for plane in (planes.u, planes.v))
        return self.mixed(y, u, v, np.uint8)

    def mixed(self, y: np.ndarray, u: np.ndarray, v: np.ndarray, dtype: type) -> np.ndarray:
        """(H, W, 3) RGB of planes of one size."""
        peak = float(np.iinfo(dtype).max)
        merged = cv2.merge([y, u, v])
        if merged.dtype == dtype == np.uint8:
            return cv2.transform(merged, self.to_rgb * peak)
        levels = cv2.transform(merged.astype(np.float32), self.to_rgb * peak)
        return np.rint(np.clip(levels, 0, peak)).astype(dtype)


def shrunk(plane: np.ndarray, size: Size, last: int = cv2.INTER_AREA) -> np.ndarray:
    """A plane at a smaller size by area; halved first as often as it goes, which is cheap.

    `last`: OpenCV's interpolation for what is left, a factor of 1 to 2.
    """
    height, width = plane.shape
    while width >= 2 * size.width and height >= 2 * size.height and not (width % 2 or height % 2):
        height, width = height // 2, width // 2
        plane = cv2.resize(plane, (width, height), interpolation=cv2.INTER_AREA)
    if (height, width) == (size.height, size.width):
        return plane
    return cv2.resize(plane, size.wh, interpolation=last)


def shrunk_chroma(plane: np.ndarray) -> np.ndarray:
    """A full plane (H, W) at the places of 4:2:0 chroma: level with the left of two columns.

    That is where H.264 and H.265 put it by default: columns weigh 1/4, 1/2, 1/4, rows 1/2 each.
    """
    height, width = plane.shape
    half = (width // 2, height // 2)
    out = cv2.resize(plane, half, interpolation=cv2.INTER_AREA)  # columns 0 and 1, 2 and 3 ...
    if half[0] > 1:
        before = cv2.resize(plane[:, 1:-1], (half[0] - 1, half[1]), interpolation=cv2.INTER_AREA)
        out[:, 1:] = cv2.addWeighted(out[:, 1:], 0.5, before, 0.5, 0)
    return out


def enlarged_chroma(plane: np.ndarray, wh: tuple[int, int]) -> np.ndarray:
    """4:2:0 chroma at every pixel, bilinearly; undoes the offset of `shrunk_chroma`."""
    affine = np.array([[0.5, 0, 0], [0, 0.5, -0.25]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(plane, affine, wh, flags=flags, borderMode=cv2.BORDER_REPLICATE)
