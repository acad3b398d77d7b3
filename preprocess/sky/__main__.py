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
from pathlib import Path

import numpy as np

from atlas.clip import write_rgb
from atlas.errors import InputError, run_script
from atlas.progress import progress
from atlas.video import list_pictures, open_source
from preprocess.sky.adapt import HandMattes
from preprocess.sky.data import PICTURE_SUFFIXES, read_rgb
from preprocess.sky.evaluate import open_matter_or_file
from preprocess.sky.matte import MATTER_NAMES
from preprocess.sky.offline import clip_mattes

_EMPTY_SHARE = 0.001


def read_frames(source: Path) -> tuple[list[str], Iterator[np.ndarray]]:
    """Names of the mattes to write, and the frames (H, W, 3) uint8 one by one."""
    if source.is_dir() or source.suffix.lower() in PICTURE_SUFFIXES:
        paths = list_pictures(source) if source.is_dir() else [source]
        return [f"{path.stem}.png" for path in paths], (read_rgb(path) for path in paths)
    video = open_source(source)
    names = [f"{t:05d}.png" for t in range(video.info.frame_count)]
    return names, video.frames()


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


def main() -> None:
    arguments = parse_arguments()
    if not arguments.source.exists():
        raise InputError(f"{arguments.source}: not found; wanted a picture, a video or a folder")
    matter = open_matter_or_file(arguments.matter)
    names, frames = read_frames(arguments.source)
    hand = HandMattes(arguments.hand_mattes, names) if arguments.hand_mattes else None
    arguments.out.mkdir(parents=True, exist_ok=True)
    most = 0.0
    mattes = clip_mattes(matter, frames, causal=arguments.causal, hand=hand)
    for name, matte in zip(names, progress(mattes, len(names), "sky mattes"), strict=True):
        write_rgb(arguments.out / name, np.round(matte * 255).astype(np.uint8))
        most = max(most, float((matte > 0.5).mean()))
    if most < _EMPTY_SHARE:
        print(f"{arguments.source}: no sky found in {len(names)} frame(s); the mattes are black")
    else:
        print(f"{len(names)} matte(s) in {arguments.out}; sky covers up to {most:.0%} of a frame")


if __name__ == "__main__":
    run_script(main)
