"""A user's folder of masks, brought to a clip's frames: matched by name or order, resized."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import cv2
import numpy as np

from atlas.clip import Clip, list_frames, read_grey
from atlas.coords import Size
from atlas.errors import InputError

log = logging.getLogger(__name__)

MAX_ASPECT_ERROR = 0.03
"""Largest relative difference of the aspect ratios of masks and frames (odd sizes get rounded)."""
HARD_SPREAD = 24
"""JPEG smears a hard mask's two values by about this much."""
HARD_SHARE = 0.002
"""A mask with a larger share of pixels between black and white is soft."""


class MaskFolder:
    """Masks in a folder, one per frame of a clip.

    Accepted: as many masks as frames (matched by file stem, else by sorted order), or as many as
    the clip's source has frames (then the clip's first frame takes the mask of the source frame
    that it came from).
    """

    def __init__(self, folder: Path, clip: Clip, in_place: bool = False):
        """Check the folder against the clip.

        Args:
            in_place: the masks are read where they lie, so their names must match the frames'.
        """
        self.folder = folder
        self._size = clip.size
        self.paths = _match(folder, clip, in_place)
        sizes = {read_grey(path).shape for path in self.paths}
        if len(sizes) > 1:
            found = " and ".join(str(Size(*shape)) for shape in sorted(sizes)[:2])
            raise InputError(f"{folder}: masks have different sizes ({found}); wanted one size")
        _check_aspect(folder, Size(*sizes.pop()), clip)
        self.hard, self._white = self._levels()

    def mask(self, t: int) -> np.ndarray:
        """(H, W) float32 in [0, 1] at the clip's size; hard masks stay hard."""
        grey = read_grey(self.paths[t])
        if self.hard:
            grey = np.where(grey >= self._white, 255, 0).astype(np.uint8)
        if grey.shape != (self._size.height, self._size.width):
            if self.hard:
                how = cv2.INTER_NEAREST_EXACT  # pixel areas, as the frames; plain NEAREST shifts
            elif self._size.height < grey.shape[0]:
                how = cv2.INTER_AREA
            else:
                how = cv2.INTER_LINEAR
            grey = cv2.resize(grey, self._size.wh, interpolation=how)
        return grey.astype(np.float32) / 255

    def fingerprint(self) -> str:
        """Folder and a hash over the masks: changes when any of them does."""
        digest = hashlib.blake2b(digest_size=8)
        for path in self.paths:
            digest.update(path.read_bytes())
        return f"{self.folder.resolve()} {digest.hexdigest()}"

    def _levels(self) -> tuple[bool, int]:
        """Whether the masks are hard, and from which grey value on a pixel belongs to the layer.

        Label pictures (0 and a few small values, or a palette) count as hard: any label is in.
        """
        histogram = np.zeros(256, np.int64)
        for path in self.paths:
            histogram += np.bincount(read_grey(path).ravel(), minlength=256)
        values = np.flatnonzero(histogram)
        if len(values) <= 8 and values[-1] not in (0, 255):
            log.warning(
                "masks: %s has the values %s, not 0 and 255: every pixel that is not 0 is taken",
                self.folder,
                ", ".join(map(str, values)),
            )
            return True, 1
        between = histogram[HARD_SPREAD : 256 - HARD_SPREAD].sum() / histogram.sum()
        return bool(between <= HARD_SHARE), 128


def _match(folder: Path, clip: Clip, in_place: bool) -> list[Path]:
    names = list_frames(folder)
    by_stem = {Path(name).stem: folder / name for name in names}
    stems = [Path(name).stem for name in clip.frame_names]
    missing = [stem for stem in stems if stem not in by_stem]
    source = clip.info.source
    if in_place:
        if missing:
            raise InputError(f"{folder}: no mask for frame {missing[0]} ({missing[0]}.png or .jpg)")
        return [by_stem[stem] for stem in stems]
    if len(names) == len(stems):
        if missing:
            log.info("masks: %s is matched to the frames by order, names differ", folder)
            return [folder / name for name in names]
        return [by_stem[stem] for stem in stems]
    if source is not None and len(names) == source.frame_count:
        first = source.first_frame
        return [folder / name for name in names[first : first + len(stems)]]
    if len(names) > len(stems) and not missing and not (source and source.first_frame):
        return [by_stem[stem] for stem in stems]
    raise InputError(
        f"{folder}: holds {len(names)} masks, the clip has {len(stems)} frames; wanted one mask "
        "per frame"
    )


def _check_aspect(folder: Path, found: Size, clip: Clip) -> None:
    wanted = [clip.size]
    if clip.info.source is not None:
        wanted.append(Size(clip.info.source.height, clip.info.source.width))
    ratio = found.width / found.height
    if all(abs(ratio * s.height / s.width - 1) > MAX_ASPECT_ERROR for s in wanted):
        raise InputError(
            f"{folder}: masks are {found}, the frames {clip.size}: another shape; wanted masks "
            "of the same picture"
        )
