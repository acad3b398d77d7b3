"""A live Matroska stream of raw pictures: how frames with times of their own reach ffmpeg.

Plain raw video in a pipe knows one frame rate only. Here every picture is a cluster with a time
and a duration. Element numbers and layout: RFC 9559; EBML: RFC 8794.
"""

from __future__ import annotations

from fractions import Fraction

from atlas.coords import Size

_TAGS = {
    "rgb24": b"RGB\x18",
    "rgb48": b"RGB\x30",
    "yuv420p": b"I420",
    "yuv420p10le": b"Y3\x0b\x0a",
    "yuv444p": b"444P",
    "yuv444p10le": b"Y3\x00\x0a",
    "yuva444p10le": b"Y4\x00\x0a",
}
"""Codes by which ffmpeg knows raw pictures."""


def stream_head(size: Size, fps: Fraction, pixel_format: str) -> bytes:
    """What the stream starts with: one track of raw pictures, times in microseconds.

    Args:
        fps: the nominal frame rate; every picture still has its own time.
        pixel_format: a key of `_TAGS`; 16 and 10 bit are little-endian.
    """
    kind = _element("4282", b"matroska") + _number("4287", 4) + _number("4285", 2)
    picture = _number("b0", size.width) + _number("ba", size.height)
    video = _element("e0", picture + _element("2eb524", _TAGS[pixel_format]))
    track = _number("d7", 1) + _number("73c5", 1) + _number("83", 1) + _number("9c", 0)
    track += _number("23e383", round(1_000_000_000 / fps))
    track += _element("86", b"V_UNCOMPRESSED") + video
    unknown_length = b"\x01" + b"\xff" * 7
    scale_ns = _element("1549a966", _number("2ad7b1", 1000))
    tracks = _element("1654ae6b", _element("ae", track))
    return (
        _element("1a45dfa3", kind) + bytes.fromhex("18538067") + unknown_length + scale_ns + tracks
    )


def around_picture(at_us: int, duration_us: int, count: int) -> tuple[bytes, bytes]:
    """What stands before and after the `count` bytes of a picture shown at `at_us`."""
    block = b"\x81\x00\x00\x00"  # track 1, time of the cluster, no flags
    after = _number("9b", duration_us)
    inner = bytes.fromhex("a1") + _length(len(block) + count) + block
    group = bytes.fromhex("a0") + _length(len(inner) + count + len(after)) + inner
    time = _number("e7", at_us)
    length = len(time) + len(group) + count + len(after)
    return bytes.fromhex("1f43b675") + _length(length) + time + group, after


def _element(identity: str, data: bytes) -> bytes:
    return bytes.fromhex(identity) + _length(len(data)) + data


def _number(identity: str, value: int) -> bytes:
    return _element(identity, value.to_bytes(8, "big"))


def _length(count: int) -> bytes:
    return (count | 1 << 56).to_bytes(8, "big")
