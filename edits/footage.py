"""Find the pictures to edit: the video a clip was made from, or what the clip folder kept of it."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from atlas.clip import Clip, SourceInfo
from atlas.errors import InputError
from atlas.run import find_clip_folder, read_run_info
from atlas.video import FrameSource, open_source
from edits.recipe import file_sha256

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Footage:
    """Frames to edit, and which of them is frame 0 of the clip."""

    source: FrameSource
    first_frame: int = 0


def open_footage(clip: Clip, moved_to: Path | None = None) -> Footage:
    """The source of a clip at its own resolution, with sound; else the clip folder's frames.

    Args:
        moved_to: where the source lies now, if not where `clip.json` says.
    """
    recorded = clip.info.source
    if recorded is None and moved_to is None:
        return Footage(open_source(clip.folder))
    if moved_to is not None:
        path = Path(moved_to)
    else:
        assert recorded is not None
        path = clip.folder / recorded.path  # stays as it is where that path is absolute
    reason = _why_not(path, recorded)
    if reason is None:
        return Footage(open_source(path), recorded.first_frame if recorded else 0)
    if moved_to is not None:
        raise InputError(f"--source {path}: {reason}")
    log.warning(
        "%s: %s; editing the clip folder's own frames instead (%s, no sound); --source FILE says "
        "where the source lies now",
        path,
        reason,
        clip.size,
    )
    return Footage(open_source(clip.folder))


def find_clip(run: Path, moved_to: Path | None = None) -> Clip:
    """The clip folder that a run was fitted to; moved_to: where it lies now."""
    info = read_run_info(run)
    folder = moved_to or find_clip_folder(run, info)
    if not folder.is_dir():
        raise InputError(
            f"{run}: its clip folder {folder} is not there; give its place with --clip DIR"
        )
    clip = Clip(folder)
    whole_or_shot = [(0, clip.frame_count), *clip.shots()]
    if (info.first_frame, info.first_frame + info.frame_count) not in whole_or_shot:
        raise InputError(
            f"{folder}: has {clip.frame_count} frames, the run was fitted to {info.frame_count}"
        )
    return clip


def _why_not(path: Path, recorded: SourceInfo | None) -> str | None:
    """Why `path` is not the source on record; None when it is."""
    if not path.exists():
        return "not found; the clip's source is no longer there"
    if recorded is None:
        return None
    if recorded.sha256 is not None and file_sha256(path) != recorded.sha256:
        return "is not the file that the clip was made from (its hash differs)"
    info = open_source(path).info
    if (info.size.width, info.size.height) != (recorded.width, recorded.height):
        return f"is {info.size}, the clip was made from {recorded.width}x{recorded.height}"
    if info.frame_count != recorded.frame_count:
        return f"has {info.frame_count} frames, the clip's source had {recorded.frame_count}"
    return None
