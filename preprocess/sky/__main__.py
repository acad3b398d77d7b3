"""Write the sky mattes of a picture, a video or a folder of pictures.

    python -m preprocess.sky PICTURE_VIDEO_OR_DIR --out DIR

One 8-bit grey PNG per frame, 255 = sky: named like the picture, or 00000.png onwards for a video.
A video, and a folder of pictures of one size, are taken as one clip: each matte leans on the frames
before and after it (with --causal on those before only). A clip without sky gives black mattes and
a line that says so.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from atlas.clip import write_rgb
from atlas.errors import InputError, run_script
from atlas.progress import progress
from atlas.video import PICTURE_SUFFIXES, list_pictures, open_source
from preprocess.shots import change, find_shots, thumbnail
from preprocess.sky.adapt import HandMattes
from preprocess.sky.choose import MATTER_NAMES, open_matter
from preprocess.sky.data import read_rgb
from preprocess.sky.matte import SkyMatter
from preprocess.sky.offline import clip_mattes, survey_times

_EMPTY_SHARE = 0.001
_STRANGERS = 0.22
"""Median change between neighbours above which pictures of a folder are no clip; a cut of
`preprocess.shots` begins there, neighbours in real clips stay below 0.17."""


@dataclass(frozen=True)
class Source:
    """What mattes are wanted for: a picture, a folder of pictures, or a video."""

    path: Path
    pictures: list[Path] | None
    """None for a video."""
    frame_count: int

    @property
    def names(self) -> list[str]:
        """Of the mattes to write."""
        if self.pictures is None:
            return [f"{t:05d}.png" for t in range(self.frame_count)]
        return [f"{path.stem}.png" for path in self.pictures]

    def frames(self, first: int, end: int) -> Iterator[np.ndarray]:
        """(H, W, 3) uint8 RGB of the frames [first, end), one by one."""
        if self.pictures is None:
            return open_source(self.path).frames(first, end - first)
        return (read_rgb(path) for path in self.pictures[first:end])

    def survey(self, first: int, end: int) -> Iterator[np.ndarray]:
        """Some of these frames, from all over them."""
        wanted = [first + t for t in survey_times(end - first)]
        if self.pictures is None:
            chosen = set(wanted)
            return (rgb for t, rgb in enumerate(self.frames(first, end), first) if t in chosen)
        return (read_rgb(self.pictures[t]) for t in wanted)


def open_frames(path: Path) -> Source:
    """The frames of a picture, a folder of pictures or a video."""
    if path.is_dir() or path.suffix.lower() in PICTURE_SUFFIXES:
        pictures = list_pictures(path) if path.is_dir() else [path]
        by_stem = {picture.stem: picture for picture in pictures}
        twins = [picture for picture in pictures if by_stem[picture.stem] != picture]
        if twins:
            raise InputError(
                f"{path}: {twins[0].name} and {by_stem[twins[0].stem].name} would both write "
                f"{twins[0].stem}.png; rename one"
            )
        return Source(path, pictures, len(pictures))
    return Source(path, None, open_source(path).info.frame_count)


def shots(source: Source) -> list[tuple[int, int]]:
    """[first, end) of what belongs together; pictures of a folder may all be strangers."""
    if source.frame_count < 2:
        return [(0, source.frame_count)]
    thumbnails = [thumbnail(rgb) for rgb in source.frames(0, source.frame_count)]
    steps = [change(a, b) for a, b in pairwise(thumbnails) if a.shape == b.shape]
    if source.pictures is not None and (not steps or np.median(steps) > _STRANGERS):
        return [(t, t + 1) for t in range(source.frame_count)]
    if len({picture.shape for picture in thumbnails}) > 1:
        ends = [t for t, (a, b) in enumerate(pairwise(thumbnails), 1) if a.shape != b.shape]
        return list(pairwise([0, *ends, source.frame_count]))
    return [(first, end) for first, end in find_shots(thumbnails)]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m preprocess.sky", description="Write sky mattes, 255 = sky."
    )
    parser.add_argument("source", type=Path, help="picture, video, or folder of pictures")
    parser.add_argument("--out", type=Path, required=True, help="folder for the mattes")
    parser.add_argument(
        "--matter",
        default="auto",
        help=f"{', '.join(MATTER_NAMES)}, or a file: our .safetensors, SkyAR's .pt, an .onnx model",
    )
    parser.add_argument(
        "--causal", action="store_true", help="never look ahead (as the streaming path does)"
    )
    parser.add_argument(
        "--hand-mattes",
        type=Path,
        help="folder of corrected mattes for some frames, named like the output; taken as truth "
        "there, and the correction is carried to the frames between",
    )
    return parser.parse_args()


def all_mattes(
    source: Source, matter: SkyMatter, hand: HandMattes | None, *, causal: bool
) -> Iterator[np.ndarray]:
    """(H, W) float32 mattes of all frames; every shot is a clip of its own."""
    for first, end in shots(source):
        yield from clip_mattes(
            matter,
            source.frames(first, end),
            causal=causal,
            hand=hand.part(first) if hand else None,
            survey=source.survey(first, end),
        )


def main() -> None:
    arguments = parse_arguments()
    if not arguments.source.exists():
        raise InputError(f"{arguments.source}: not found; wanted a picture, a video or a folder")
    matter = open_matter(arguments.matter, careful=not arguments.causal)
    source = open_frames(arguments.source)
    names = source.names
    hand = HandMattes(arguments.hand_mattes, names) if arguments.hand_mattes else None
    arguments.out.mkdir(parents=True, exist_ok=True)
    most = 0.0
    mattes = all_mattes(source, matter, hand, causal=arguments.causal)
    for name, matte in zip(names, progress(mattes, len(names), "sky mattes"), strict=True):
        write_rgb(arguments.out / name, np.round(matte * 255).astype(np.uint8))
        most = max(most, float((matte > 0.5).mean()))
    if most < _EMPTY_SHARE:
        print(f"{arguments.source}: no sky found in {len(names)} frame(s); the mattes are black")
    else:
        print(f"{len(names)} matte(s) in {arguments.out}; sky covers up to {most:.0%} of a frame")


if __name__ == "__main__":
    run_script(main)
