"""A source of frames at another size."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

import numpy as np

from atlas.coords import Size
from atlas.errors import InputError
from atlas.video import FrameSource, resize_picture


class ResizedSource(FrameSource):
    """Frames of another source, stretched to `size`; times and sound stay its own."""

    def __init__(self, source: FrameSource, size: Size):
        self._source = source
        before = source.info.size
        shape = Fraction(before.width * size.height, before.height * size.width)
        aspect = source.info.sample_aspect * shape
        self.info = replace(source.info, size=size, sample_aspect=aspect)

    def _read(self, start: int, count: int) -> Iterator[np.ndarray]:
        for rgb in self._source.frames(start, count):
            yield resize_picture(rgb, self.info.size)


def parse_size(text: str) -> Size:
    """A size from "WIDTHxHEIGHT"."""
    found = re.fullmatch(r"(\d{1,5})[xX](\d{1,5})", text.strip())
    if found is None or int(found[1]) < 2 or int(found[2]) < 2:
        raise InputError(f"--size {text}: wanted WIDTHxHEIGHT in pixels, such as 854x480")
    return Size(int(found[2]), int(found[1]))
