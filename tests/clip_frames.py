"""A clip folder of given frames, for tests of what preprocess adds to it."""

from pathlib import Path

import numpy as np

from atlas.clip import Clip, ClipInfo, LayerInfo, SourceInfo, write_info, write_rgb


def write_clip(folder: Path, frames: list[np.ndarray], source: SourceInfo | None = None) -> Clip:
    folder.mkdir(parents=True)
    for t, frame in enumerate(frames):
        write_rgb(folder / f"{t:05d}.png", frame)
    height, width = frames[0].shape[:2]
    info = ClipInfo(
        width=width,
        height=height,
        frame_count=len(frames),
        fps=25,
        frame_times_s=[t / 25 for t in range(len(frames))],
        layers=[LayerInfo(name="background")],
        source=source,
    )
    write_info(folder, info)
    return Clip(folder)
