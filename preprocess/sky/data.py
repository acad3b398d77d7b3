"""Reader of sky pictures with mattes, and what is made of labels that are only rough.

    ROOT/train/images/NAME.jpg, ROOT/train/masks/NAME.png      the same below ROOT/val

The part of NAME before the first "_" is its domain. Domains of `SOFT_DOMAINS` carry soft mattes;
all others are polygons. Polygons are refined by a guided filter in a band round their edges, and
the band counts less, because the truth there is not known.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from atlas.coords import Size
from atlas.errors import InputError
from atlas.guided import guided_filter
from atlas.video import PICTURE_SUFFIXES

SOFT_DOMAINS = ("ade", "lowlight")
STRIDE_PX = 32
"""Both sides of what the network sees are multiples of this."""

_BAND_PX = 5
_BAND_WEIGHT = 0.3
_GUIDED_RADIUS_PX = 6
_GUIDED_EPS = 1e-3
_HELD_OUT_SHARE = 0.1
_REACH_SHARE = 0.16
"""How far from labelled sky, in longer sides, left-out sky is looked for."""
_SKY_LIKE = 0.13
"""Largest difference of a colour channel from the sky nearby, where that is white."""
_GAP_SHARE = 0.004
"""Largest patch between twigs, in shares of the picture."""
_CROWN_PX = 9
_CROWN_GAPS = 0.06
"""Share of small sky-like patches in a window of `_CROWN_PX` from which it is a crown with gaps."""
_VEIL = 0.35
"""Brightness of a twig, in shares of the sky's nearby, above which the sky may shine through it."""
_ALIKE = 0.02
"""Squared colour distance of sky and ground at which colour and guided filter count alike."""


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
    for name, rgb, matte in read_pairs(root / split / "images", root / split / "masks"):
        size = fitting_size(Size(*matte.shape), side_px)
        rgb = cv2.resize(rgb, size.wh, interpolation=cv2.INTER_AREA)
        matte = cv2.resize(matte, size.wh, interpolation=cv2.INTER_AREA)
        weight = np.ones_like(matte)
        if name.split("_")[0] not in SOFT_DOMAINS:
            unknown = sky_left_out(rgb, matte)
            matte, weight = refine_rough_label(rgb, matte)
            weight[unknown] = 0
        pairs.append(Pair(name, rgb, to_bytes(matte), to_bytes(weight)))
    return pairs


def refine_rough_label(rgb: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A matte that follows the picture's edges near those of a polygon, and its trust.

    Within `_BAND_PX` of the polygon's edge the colour c of a pixel decides between the mean colours
    s and g of sky and ground beyond the band, nearby: a = (c - g).(s - g) / |s - g|^2; where s and
    g are alike, the guided filtering of the label does. There the trust is `_BAND_WEIGHT`, else 1.

    Args:
        rgb: (H, W, 3) uint8.
        label: (H, W) float32, 1 = sky.
    Returns:
        matte and weight, both (H, W) float32 in [0, 1].
    """
    sky = (label > 0.5).astype(np.uint8)
    kernel = np.ones((3, 3), np.uint8)
    grown = cv2.dilate(sky, kernel, iterations=_BAND_PX, borderValue=0)
    shrunk = cv2.erode(sky, kernel, iterations=_BAND_PX, borderValue=1)
    band = grown != shrunk
    refined = guided_filter(rgb, label.astype(np.float32), _GUIDED_RADIUS_PX, _GUIDED_EPS)
    colours = rgb.astype(np.float32) / 255
    sky_colour = smooth_under(colours, shrunk.astype(np.float32), 3 * _BAND_PX)
    ground_colour = smooth_under(colours, 1 - grown.astype(np.float32), 3 * _BAND_PX)
    axis = sky_colour - ground_colour
    length2 = (axis * axis).sum(axis=2)
    place = ((colours - ground_colour) * axis).sum(axis=2) / np.maximum(length2, 1e-6)
    by_colour = length2 / (length2 + _ALIKE)
    refined += by_colour * (np.clip(1.4 * place - 0.2, 0, 1) - refined)
    matte = np.where(band, np.clip(refined, 0, 1), sky.astype(np.float32))
    return matte.astype(np.float32), np.where(band, _BAND_WEIGHT, 1.0).astype(np.float32)


def sky_left_out(rgb: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Where a polygon calls ground what looks like the sky beside it: nothing is known there.

    Two cases: gaps between the twigs of a crown that the polygon counted as ground whole, that is
    small patches of the sky's colour near the sky, and the paler twigs beside them, which the sky
    shines through; and parts that run into the labelled sky without an edge between. Large patches
    beyond an edge (a pale wall) stay ground.

    Args:
        rgb: (H, W, 3) uint8.
        label: (H, W) float32, 1 = sky.
    Returns:
        (H, W) bool.
    """
    sky = label > 0.5
    if not sky.any():
        return np.zeros(label.shape, bool)
    reach = round(_REACH_SHARE * max(label.shape))
    colours = cv2.GaussianBlur(rgb, (0, 0), 0.7).astype(np.float32) / 255
    inner = cv2.erode(sky.astype(np.uint8), np.ones((3, 3), np.uint8), iterations=2)
    local = smooth_under(colours, inner.astype(np.float32), reach)
    limit = _SKY_LIKE * np.clip(local.max(axis=2), 0.2, 1)
    alike = (np.abs(colours - local).max(axis=2) < limit) & ~sky
    nearness = cv2.distanceTransform((~sky).astype(np.uint8), cv2.DIST_L2, 3)
    alike &= nearness < reach
    count, patches, stats, _ = cv2.connectedComponentsWithStats(alike.astype(np.uint8), None, 4)
    small = stats[:, cv2.CC_STAT_AREA] < _GAP_SHARE * label.size
    touching = np.bincount(patches[alike & (nearness < 2)], minlength=count)
    joined = touching > 0.5 * np.sqrt(stats[:, cv2.CC_STAT_AREA])
    small[0] = joined[0] = False
    gaps = small[patches]
    crown = cv2.blur(gaps.astype(np.float32), (_CROWN_PX, _CROWN_PX)) > _CROWN_GAPS
    veiled = crown & ~sky & (rgb.mean(axis=2) > 255 * _VEIL * local.mean(axis=2))
    return gaps | joined[patches] | veiled


def smooth_under(rgb: np.ndarray, alpha: np.ndarray, radius_px: int) -> np.ndarray:
    """Local mean colour of what `alpha` marks (normalised convolution): (H, W, 3) float32.

    Far from any marked pixel it falls back to the mean over the picture.
    """
    window = (2 * radius_px + 1, 2 * radius_px + 1)
    marked = np.clip(alpha * 2 - 1, 0, 1)[..., None]
    total = marked.sum()
    mean = (rgb * marked).sum((0, 1)) / total if total > 1 else rgb.mean((0, 1))
    local = cv2.blur(rgb * marked, window) + 1e-3 * mean.astype(np.float32)
    return local / (cv2.blur(marked, window)[..., None] + 1e-3)


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
