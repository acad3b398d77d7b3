"""A source's frames to the clip folder: upright, at the fit's size, with `clip.json`.

The folder appears whole or not at all. A rerun with the same input and settings keeps it; other
settings make it anew, and remove flow and masks that belonged to the old frames.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from atlas.clip import Clip, ClipInfo, LayerInfo, SourceInfo, read_info, write_info, write_rgb
from atlas.coords import Size
from atlas.errors import InputError
from atlas.picture_writer import check_own
from atlas.png import check_png
from atlas.video import FrameSource, list_pictures, open_source, resize_picture
from preprocess.shots import find_shots, thumbnail

log = logging.getLogger(__name__)

LONGEST_PX = 768
"""Longer side of the stored frames unless told otherwise; frames are never enlarged to it."""
BLACK_LEVEL = 20
"""A frame is black when hardly a pixel's brightest channel is above this, of 255."""
BLACK_SHARE = 0.001
"""Share of brighter pixels that a black frame may have (a logo's specks, coding noise)."""
UNFINISHED = "masks_not_made_yet"
"""Mask folder named in `clip.json` until the masks are there, so that training refuses."""

Progress = Callable[[Iterable, int, str], Iterable]


@dataclass(frozen=True)
class FrameOptions:
    """What may be asked of the frames."""

    size: Size | None = None
    """Exact size; None fits the longer side to `LONGEST_PX`, aspect kept."""
    max_frames: int | None = None
    """Keep only the first so many, counted after leading black."""

    def __post_init__(self) -> None:
        if self.max_frames is not None and not self.max_frames >= 1:
            raise InputError(f"--max-frames must be at least 1, got {self.max_frames}")


def fit_size(source: Size, longest_px: int = LONGEST_PX) -> Size:
    """The source's size shrunk so that its longer side is at most `longest_px`."""
    scale = min(1.0, longest_px / max(source.height, source.width))
    return Size(max(round(source.height * scale), 1), max(round(source.width * scale), 1))


def is_black(rgb: np.ndarray) -> bool:
    """Whether (H, W, 3) uint8 shows nothing."""
    return float((rgb.max(axis=2) > BLACK_LEVEL).mean()) <= BLACK_SHARE


def make_frames(
    given: Path, out: Path, options: FrameOptions, progress: Progress | None = None
) -> tuple[Clip, bool]:
    """Write the frames of the source `given` into the clip folder `out`.

    Returns:
        The clip, and whether its frames were there already (same input, same settings).
    """
    start_s = time.monotonic()
    check_target(given, out)
    source = open_source(given)
    size = options.size or fit_size(source.info.size)
    digest = _digest(given)
    recipe = _recipe(digest, size, options)
    if _is_current(out, recipe):
        return Clip(out), True
    if (out / "clip.json").is_file():
        log.info("frames: %s was made from another input or with other settings; redoing it", out)
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.resolve().with_name(f"{out.resolve().name}.tmp")
    _remove_left_over(temporary)
    _remove_left_over(_old_name(out.resolve()))
    temporary.mkdir()
    try:
        black = _count_leading_black(source)
        first = black % source.info.frame_count  # a clip that is black throughout stays whole
        info = _write_all(source, temporary, size, first, options, progress)
        info = dataclasses.replace(
            info,
            source=_describe_source(source, given, digest, first, black),
            layers=[
                LayerInfo(name="foreground", mask_dir=f"{out.resolve().name}_{UNFINISHED}"),
                LayerInfo(name="background"),
            ],
            tools={"frames": recipe},
            seconds={"frames": round(time.monotonic() - start_s, 3)},
        )
        write_info(temporary, info)
        _replace(out.resolve(), temporary)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Clip(out), False


def _old_name(out: Path) -> Path:
    return out.with_name(f"{out.name}.old.tmp")


def _remove_left_over(folder: Path) -> None:
    """Remove what an ended process left unfinished."""
    if folder.is_dir():
        check_own(folder)
        shutil.rmtree(folder)


def check_target(given: Path, out: Path) -> None:
    """Raise `InputError` where writing to `out` would destroy something that is not ours."""
    if out.resolve() == given.resolve():
        raise InputError(f"{out}: --out is the input itself; name another folder")
    if given.resolve().is_relative_to(out.resolve()):
        raise InputError(f"{out}: --out holds the input {given}; name another folder")
    if out.resolve() == Path.cwd():
        raise InputError(f"{out}: --out is the current folder; name a folder in it: data/NAME")
    file = next((p for p in (out, *out.parents) if p.is_file()), None)
    if file is not None:
        raise InputError(f"{out}: {file} is a file; wanted the name of a folder")
    if not out.is_dir():
        return
    names = sorted(p.name for p in out.iterdir())
    if names and "clip.json" not in names:
        raise InputError(
            f"{out}: holds {names[0]} and no clip.json, so preprocess did not write it; "
            "name a new folder"
        )
    foreign = [n for n in names if n != "clip.json" and not _is_frame_name(n)]
    if foreign:
        raise InputError(f"{out}: holds {foreign[0]}, which is no frame; name a new folder")


def _is_frame_name(name: str) -> bool:
    path = Path(name)
    return path.stem.isdigit() and path.suffix in (".png", ".jpg", ".webp")


def _write_all(
    source: FrameSource,
    folder: Path,
    size: Size,
    first: int,
    options: FrameOptions,
    progress: Progress | None,
) -> ClipInfo:
    """Write the frames from `first` on into `folder`; all of `ClipInfo` that follows from them."""
    info = source.info
    count = min(info.frame_count - first, options.max_frames or info.frame_count)
    frames: Iterable[np.ndarray] = source.frames(first, count)
    thumbnails = []
    for t, rgb in enumerate(progress(frames, count, "frames") if progress else frames):
        small = rgb if size == info.size else resize_picture(rgb, size)
        write_rgb(folder / f"{t:05d}.png", small)
        thumbnails.append(thumbnail(small))
    if first:
        log.info("frames: the first %d are black and left out", first)
    shots = find_shots(thumbnails)
    if len(shots) > 1:
        log.info(
            "frames: there are %d shots, with cuts at frame %s; each gets atlases of its own",
            len(shots),
            ", ".join(str(a) for a, _ in shots[1:]),
        )
    return ClipInfo(
        width=size.width,
        height=size.height,
        frame_count=count,
        fps=float(info.fps),
        frame_times_s=list(info.frame_times_s[first : first + count]),
        layers=[],
        shots=shots,
    )


def _count_leading_black(source: FrameSource) -> int:
    for t, rgb in enumerate(source.frames()):
        if not is_black(rgb):
            return t
    return source.info.frame_count


def _describe_source(
    source: FrameSource, given: Path, digest: str, first: int, black: int
) -> SourceInfo:
    info = source.info
    return SourceInfo(
        path=str(given.resolve()),
        sha256=None if given.is_dir() else digest,
        width=info.size.width,
        height=info.size.height,
        frame_count=info.frame_count,
        first_frame=first,
        leading_black=black,
        frame_times_s=list(info.frame_times_s),
        variable_frame_rate=info.variable_frame_rate,
        rotation_deg=info.rotation_deg,
        pix_fmt=info.pix_fmt,
        codec=info.codec,
        color=dict(info.color),
        audio=info.audio,
    )


def _digest(given: Path) -> str:
    """sha256 of a file, or of the names and contents of a folder's pictures."""
    digest = hashlib.sha256()
    for path in list_pictures(given) if given.is_dir() else [given]:
        if given.is_dir():
            digest.update(path.name.encode("utf-8") + b"\0")
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


def _recipe(digest: str, size: Size, options: FrameOptions) -> str:
    """What the frames depend on; they are made anew when it changes."""
    count = f"first {options.max_frames}" if options.max_frames else "all frames"
    return f"frames 1 (ffmpeg, area resampling): input {digest[:16]}, {size}, {count}"


def _is_current(out: Path, recipe: str) -> bool:
    path = out / "clip.json"
    if not path.is_file():
        return False
    try:
        info = read_info(path)
    except InputError:  # an older version's, or damaged: it is made anew
        return False
    frames = [p for p in out.iterdir() if p.name != "clip.json"]
    if info.tools.get("frames") != recipe or info.frame_count != len(frames):
        return False
    try:
        for path in frames:
            check_png(path, path.read_bytes())
    except InputError as err:
        log.warning("frames: %s", err)
        return False
    return True


def _replace(out: Path, temporary: Path) -> None:
    """Put the finished folder in its place; what was made from the frames before it goes."""
    for folder in _made_beside(out):
        log.info("frames: %s belonged to the frames before and is removed", folder)
        shutil.rmtree(folder)
    if out.exists():
        old = _old_name(out)
        out.replace(old)
        temporary.replace(out)
        shutil.rmtree(old)
    else:
        temporary.replace(out)


def _made_beside(out: Path) -> list[Path]:
    """Flow and mask folders of the clip `out` that preprocess itself made, by their tags."""
    from preprocess.flow import TAG_NAME as FLOW_TAG
    from preprocess.masks import KINDS
    from preprocess.masks import TAG_NAME as MASKS_TAG

    target = out.resolve()
    tagged = {f"{target.name}_flow": FLOW_TAG}
    tagged |= {f"{target.name}_{kind}": MASKS_TAG for kind in KINDS}
    try:
        layers = read_info(target / "clip.json").layers
    except InputError:
        layers = []
    tagged |= {layer.mask_dir: MASKS_TAG for layer in layers if layer.mask_dir}
    found = [target.parent / name for name, tag in tagged.items()]
    return [f for f in found if (f / tagged[f.name]).is_file()]
