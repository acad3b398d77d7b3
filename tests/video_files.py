"""Small video files for tests: exact frames in, frames and sound out."""

import subprocess
from pathlib import Path

import cv2
import numpy as np

from atlas import ffmpeg
from atlas.coords import Size
from atlas.video import open_source
from atlas.video_writer import VideoWriter


def run_ffmpeg(*arguments) -> bytes:
    command = [ffmpeg.executable(), "-y", "-v", "error", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True).stdout


def pcm(path: Path) -> np.ndarray:
    """The sound of a file as ffmpeg decodes it, (samples * channels,) int16."""
    return np.frombuffer(run_ffmpeg("-i", path, "-map", "0:a", "-f", "s16le", "-"), np.int16)


def noise_frames(count: int, size: Size, seed: int = 1) -> np.ndarray:
    """(T, H, W, 3) uint8: smooth noise, different in every frame and channel."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (count, 5, 7, 3), np.uint8)
    return np.stack([cv2.resize(f, size.wh, interpolation=cv2.INTER_CUBIC) for f in small])


def write_video(path: Path, frames: np.ndarray, **settings) -> Path:
    settings.setdefault("fps", 25)
    with VideoWriter(path, Size(*frames.shape[1:3]), **settings) as writer:
        for rgb in frames:
            writer.write(rgb)
    return path


def read_video(path: Path, **settings) -> np.ndarray:
    return np.stack(list(open_source(path, **settings).frames()))


def write_sounding(path: Path) -> Path:
    """An mp4 of ffmpeg's own making: 64x48, 30000/1001 fps, 41 frames, AAC stereo."""
    run_ffmpeg(
        *("-f", "lavfi", "-i", "testsrc2=s=64x48:r=30000/1001"),
        *("-f", "lavfi", "-i", "aevalsrc=sin(440*2*PI*t)|sin(660*2*PI*t):s=44100"),
        *("-frames:v", 41, "-t", 1.37, "-pix_fmt", "yuv420p", "-c:a", "aac", path),
    )
    return path
