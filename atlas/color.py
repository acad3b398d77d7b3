"""Filter chains between YUV as a video stores it and RGB, by the stream's own matrix and range.

Explicit in both directions: swscale, left alone, takes BT.601 for whatever is not tagged.
"""

from __future__ import annotations

from atlas.coords import Size

# Matrices that swscale knows, under the names in which streams are tagged.
_MATRICES = {
    "bt709": "bt709",
    "smpte170m": "smpte170m",
    "bt470bg": "bt470bg",
    "fcc": "fcc",
    "smpte240m": "smpte240m",
    "bt2020nc": "bt2020",
    "bt2020c": "bt2020",
}


def color_matrix(color: dict[str, str], size: Size) -> str:
    """The YUV matrix of a stream, in swscale's names.

    Where the stream is not tagged, the players' rule: BT.709 for HD, BT.601 for what is smaller.
    (swscale's own default is BT.601 for everything.)
    """
    tagged = _MATRICES.get(color.get("space", ""))
    return tagged or ("bt709" if size.width >= 1280 or size.height > 576 else "smpte170m")


def full_range(color: dict[str, str]) -> bool:
    """Whether YUV values use all of 0 .. 255; untagged means 16 .. 235."""
    return color.get("range") in ("pc", "full", "jpeg")


_SCALE_FLAGS = "flags=bicubic+accurate_rnd+full_chroma_int+full_chroma_inp"


def to_rgb_filter(pix_fmt: str, color: dict[str, str], size: Size, wanted: str) -> str:
    """Filter chain from decoded frames to packed RGB `wanted`, by the stream's own matrix."""
    if is_rgb(pix_fmt):
        return f"format={wanted}"
    matrix, span = color_matrix(color, size), "pc" if full_range(color) else "tv"
    return (
        f"scale=in_color_matrix={matrix}:in_range={span}:out_range=pc:{_SCALE_FLAGS},"
        f"format={wanted}"
    )


def to_planes_filter(pix_fmt: str, wanted: str, *, full: bool) -> str:
    """Filter chain from decoded YUV to the planes `wanted`; nothing where they are that already."""
    if pix_fmt == wanted:
        return "null"
    span = "pc" if full else "tv"
    return f"scale=in_range={span}:out_range={span}:{_SCALE_FLAGS},format={wanted}"


def from_planes_filter(given: str, pix_fmt: str, color: dict[str, str]) -> str:
    """Filter chain from planes to `pix_fmt`, levels kept, with the tags of `color` set."""
    span = "pc" if full_range(color) else "tv"
    chain = "" if given == pix_fmt else f"scale=in_range={span}:out_range={span}:{_SCALE_FLAGS},"
    return f"{chain}format={pix_fmt},{_tags(color)}"


def _tags(color: dict[str, str]) -> str:
    span = "pc" if full_range(color) else "tv"
    return (
        f"setparams=range={span if 'range' in color else 'unknown'}"
        f":colorspace={color.get('space', 'unknown')}"
        f":color_primaries={color.get('primaries', 'unknown')}"
        f":color_trc={color.get('transfer', 'unknown')}"
    )


def from_rgb_filter(pix_fmt: str, color: dict[str, str], size: Size) -> str:
    """Filter chain from packed RGB to `pix_fmt`, by the matrix of `color`, with its tags set.

    What `color` does not tag stays untagged, so a player guesses as it did for the source.
    """
    if is_rgb(pix_fmt):
        return f"format={pix_fmt}"
    matrix, span = color_matrix(color, size), "pc" if full_range(color) else "tv"
    return (
        f"scale=out_color_matrix={matrix}:in_range=pc:out_range={span}:{_SCALE_FLAGS},"
        f"format={pix_fmt},{_tags(color)}"
    )


def is_rgb(pix_fmt: str) -> bool:
    """Whether a pixel format holds RGB, so that no matrix applies."""
    return pix_fmt.startswith(("rgb", "bgr", "gbr", "argb", "abgr", "0rgb", "0bgr", "x2", "pal8"))
