"""Reader of sky pictures with mattes.

    ROOT/train/images/NAME.jpg, ROOT/train/masks/NAME.png      the same below ROOT/val

The part of NAME before the first "_" is its domain. Domains of `SOFT_DOMAINS` carry soft mattes;
all others are polygons, see `rough_labels` and `crowns` for what is made of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from atlas.coords import Size
from atlas.errors import InputError
from atlas.video import PICTURE_SUFFIXES
from preprocess.sky.crowns import crown_sky
from preprocess.sky.rough_labels import refine_rough_label, sky_left_out

SOFT_DOMAINS = ("ade", "lowlight")
STRIDE_PX = 32
"""Both sides of what the network sees are multiples of this."""

_HELD_OUT_SHARE = 0.1
_CROWN_WEIGHT = 0.5
"""What the sky found in crowns that a polygon calls ground counts."""


@dataclass(frozen=True)
class Pair:
    """One training picture in memory, reduced to at most `side_px` (see `load_pairs`)."""

    name: str
    rgb: np.ndarray
    """(H, W, 3) uint8."""
    alpha: np.ndarray
    """(H, W) uint8, 255 = sky."""
    weight: np.ndarray
    """(H, W) uint8, 255 = the label is to be trusted fully here."""

    @property
    def domain(self) -> str:
        return self.name.split("_")[0]


def find_pairs(images: Path, masks: Path) -> list[tuple[Path, Path]]:
    """Pictures of one folder and the masks of equal name (without suffix) of another, sorted."""
    for folder in (images, masks):
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder; wanted pictures and masks of equal names")
    by_name = {p.stem: p for p in sorted(masks.iterdir()) if p.suffix.lower() in PICTURE_SUFFIXES}
    pictures = [p for p in sorted(images.iterdir()) if p.suffix.lower() in PICTURE_SUFFIXES]
    pairs = [(path, by_name[path.stem]) for path in pictures if path.stem in by_name]
    if not pairs:
        raise InputError(
            f"{images}: none of its {len(pictures)} pictures has a mask of equal name in {masks}"
        )
    return pairs


def read_rgb(path: Path) -> np.ndarray:
    """(H, W, 3) uint8 RGB."""
    bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if bgr is None:
        raise InputError(f"{path}: not a readable picture")
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)


def read_matte(path: Path) -> np.ndarray:
    """(H, W) float32 in [0, 1]; 8 or 16 bit, the first channel of several."""
    values = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if values is None:
        raise InputError(f"{path}: not a readable mask")
    if values.ndim == 3:
        values = values[..., 0]
    return values.astype(np.float32) / np.float32(np.iinfo(values.dtype).max)


def read_pairs(images: Path, masks: Path) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """(name, rgb (H, W, 3) uint8, matte (H, W) float32) of every pair of two folders."""
    for image_path, mask_path in find_pairs(images, masks):
        rgb, matte = read_rgb(image_path), read_matte(mask_path)
        if matte.shape != rgb.shape[:2]:
            raise InputError(
                f"{mask_path}: {matte.shape[1]}x{matte.shape[0]}, but its picture is "
                f"{rgb.shape[1]}x{rgb.shape[0]}; wanted equal sizes"
            )
        yield image_path.stem, rgb, matte


def load_pairs(root: Path, split: str, side_px: int = 384) -> list[Pair]:
    """All pairs of ROOT/`split`, reduced so that the longer side is at most `side_px`."""
    pairs = []
    for name, full_rgb, full_matte in read_pairs(root / split / "images", root / split / "masks"):
        size = fitting_size(Size(*full_matte.shape), side_px)
        rgb = cv2.resize(full_rgb, size.wh, interpolation=cv2.INTER_AREA)
        matte = cv2.resize(full_matte, size.wh, interpolation=cv2.INTER_AREA)
        weight = np.ones_like(matte)
        if name.split("_")[0] not in SOFT_DOMAINS:
            unknown = sky_left_out(rgb, matte)
            matte, weight = refine_rough_label(rgb, matte)
            weight[unknown] = 0
            crown, shown = (
                cv2.resize(plane.astype(np.float32), size.wh, interpolation=cv2.INTER_AREA)
                for plane in crown_sky(full_rgb, full_matte)
            )
            matte = np.where(crown > 0.5, np.clip(matte + shown, 0, 1), matte)
            weight = np.where(crown > 0.5, np.float32(_CROWN_WEIGHT), weight)
        pairs.append(Pair(name, rgb, to_bytes(matte), to_bytes(weight)))
    return pairs


def hold_out(pairs: list[Pair], share: float = _HELD_OUT_SHARE) -> tuple[list[Pair], list[Pair]]:
    """Split into (kept, held out): the last `share` of each domain's names.

    Names sort by drive and town, so that what is held out is mostly from places of its own.
    """
    kept, held = [], []
    for domain in sorted({pair.domain for pair in pairs}):
        members = sorted((p for p in pairs if p.domain == domain), key=lambda pair: pair.name)
        count = round(share * len(members))
        kept += members[: len(members) - count]
        held += members[len(members) - count :]
    return kept, held


def sky_strip(pair: Pair) -> np.ndarray | None:
    """The rows of a soft-matte picture that hold nothing but sky; None below 40 rows."""
    if pair.domain not in SOFT_DOMAINS:
        return None
    mixed = np.flatnonzero(pair.alpha.min(axis=1) < 245)
    rows = int(mixed[0]) if mixed.size else pair.alpha.shape[0]
    return pair.rgb[:rows] if rows >= 40 else None


def ground_top(pair: Pair) -> int | None:
    """First row below all sky when at least 30 % of the picture lie below it, else None."""
    rows = np.flatnonzero(pair.alpha.max(axis=1) > 5)
    top = int(rows[-1]) + 2 if rows.size else 0
    return top if pair.alpha.shape[0] - top > 0.3 * pair.alpha.shape[0] else None


def fitting_size(size: Size, side_px: int, multiple: int = 1) -> Size:
    """`size` scaled (down or up) to a longer side of `side_px`, sides rounded to `multiple`.

    With `multiple` 1 a picture that is smaller already keeps its size; else no side is below
    2 `multiple`: the network wants two pixels at its coarsest.
    """
    scale = side_px / max(size.height, size.width)
    least = 2 * multiple if multiple > 1 else 1
    if multiple == 1:
        scale = min(scale, 1.0)

    def fit(side: int) -> int:
        return max(least, round(side * scale / multiple) * multiple)

    return Size(fit(size.height), fit(size.width))


def to_bytes(values: np.ndarray) -> np.ndarray:
    """Float values (H, W) or (H, W, C) of [0, 1] to uint8, rounded; what lies outside saturates."""
    return cv2.addWeighted(values, 255, values, 0, 0, dtype=cv2.CV_8U)
