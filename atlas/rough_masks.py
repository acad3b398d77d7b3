"""Rough masks brought to the edges that the frames show, before anything is fitted.

Masks by a detector or a quick hand lie some pixels beside the thing. What lies between is then
fitted wrongly twice: its pixels stain the layer's atlas, and its motion pulls at the layer's. So
the edge of a rough mask is cut anew in each frame, within `REACH_PX`, where the colours of both
sides say (GrabCut: Rother, Kolmogorov, Blake, SIGGRAPH 2004). A cut is no match for an exact mask,
which has to be told first: the picture's edges are sharper under its rim than beside it.
"""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import cv2
import numpy as np

from atlas.boxes import box_about
from atlas.clip import Clip, is_whole, write_rgb
from atlas.near_motion import NEAR_NAME
from atlas.opacity import REACH_PX, signed_distance
from atlas.pace import Pace
from atlas.progress import progress

log = logging.getLogger(__name__)

MARGIN_PX = 50
"""How far about the mask colours are taken from."""
CUTS = 3
"""Rounds of learning colours and cutting."""
TRIED_FRAMES = 8
ROUGH_CONTRAST = 1.3
"""Contrast below which a mask may be rough; see `edge_contrast`."""
ROUGH_SHARE = 0.7
"""Edges under the mask's rim, in shares of those under the cut's, below which it is rough."""
LEAST_PX = 200
"""Masks of fewer pixels stay as they are."""
LEAST_IOU = 0.4
"""A cut that agrees with the mask less than this has lost the thing; the mask stays."""
_BESIDE_PX = (-4, -3, 3, 4)


def with_tight_masks(clip: Clip, folder: Path, pace: Pace) -> Clip:
    """The clip, its rough masks replaced by ones that follow the frames' edges.

    Layers whose masks are soft (a shadow, hair), made from a sky's matte, or of near things keep
    theirs. What `folder` holds already is not made again.

    Args:
        clip: one shot.
        folder: where new masks go, as NAME/FRAME.png.
    """
    for index, layer in enumerate(clip.info.layers[:-1]):
        if layer.inverted or layer.name == NEAR_NAME:
            continue
        with pace.timed("tried", "masks"):
            rough = is_rough(clip, index)
        if not rough:
            continue
        target = folder / layer.name
        if not _tighten(clip, index, target, pace):
            log.info("time is up: the masks of %s stay as they are", layer.name)
            continue
        log.info("the masks of %s are rough: they now follow the edges of the frames", layer.name)
        layers = list(clip.info.layers)
        layers[index] = dataclasses.replace(layer, mask_dir=str(target.resolve()))
        clip = clip.with_layers(layers)
    return clip


def is_rough(clip: Clip, layer: int) -> bool:
    """Whether the picture's edges lie beside the rims of a layer's masks in half of some frames."""
    contrasts, shares = [], []
    count = clip.frame_count
    for t in sorted({int(t) for t in np.linspace(0, count - 1, TRIED_FRAMES).round()}):
        mask = clip.mask(layer, t)
        if (mask > 0.5).sum() < LEAST_PX:
            continue
        if not is_hard(mask):
            return False
        edges = edge_strength(clip.frame(t))
        contrasts.append(edge_contrast(edges, mask))
        if contrasts[-1] < ROUGH_CONTRAST:
            cut = tightened(clip.frame(t), mask)
            shares.append(_under_rim(edges, mask) / max(_under_rim(edges, cut), 1e-6))
        else:
            shares.append(1.0)
    if not contrasts:
        return False
    return float(np.median(contrasts)) < ROUGH_CONTRAST and float(np.median(shares)) < ROUGH_SHARE


def is_hard(mask: np.ndarray) -> bool:
    """Whether a mask (H, W) float32 has no more half-transparent pixels than a rim has."""
    partial = (mask > 0.1) & (mask < 0.9)
    return int(partial.sum()) <= int(_rim(mask).sum())


def edge_strength(rgb: np.ndarray) -> np.ndarray:
    """(H, W) float32: length of the gradient of all three channels of (H, W, 3) uint8, smoothed."""
    smooth = cv2.GaussianBlur(rgb, (0, 0), 1.0)
    across = cv2.Sobel(smooth, cv2.CV_32F, 1, 0)
    down = cv2.Sobel(smooth, cv2.CV_32F, 0, 1)
    return np.sqrt(np.square(across).sum(axis=2) + np.square(down).sum(axis=2))


def edge_contrast(edges: np.ndarray, mask: np.ndarray) -> float:
    """Mean of `edges` (H, W) along the rim of a mask over their mean 3 and 4 pixels off it."""
    signed = signed_distance((mask > 0.5).astype(np.uint8))
    beside = [edges[np.abs(signed - px) < 1] for px in _BESIDE_PX]
    off = float(np.mean([part.mean() for part in beside if part.size] or [0.0]))
    rim = edges[np.abs(signed) < 1]
    return float(rim.mean()) / max(off, 1e-6) if rim.size else 1.0


def tightened(rgb: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The mask cut anew within `REACH_PX` of its rim, by colour.

    Args:
        rgb: (H, W, 3) uint8. mask: (H, W) float32 in [0, 1].
    Returns:
        (H, W) float32, 0 or 1; `mask` itself where the thing is tiny or the cut loses it.
    """
    inside = (mask > 0.5).astype(np.uint8)
    box = box_about(inside > 0, MARGIN_PX + REACH_PX)
    if box is None or inside.sum() < LEAST_PX:
        return mask
    signed = signed_distance(inside)[box.cut]
    labels = np.where(signed > 0, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    labels[signed > REACH_PX] = cv2.GC_FGD
    labels[signed < -REACH_PX] = cv2.GC_BGD
    if not (labels == cv2.GC_BGD).any():
        return mask
    cv2.setRNGSeed(0)  # the colours' first grouping is drawn
    picture = np.ascontiguousarray(rgb[box.cut])
    behind, front = np.zeros((2, 1, 65))  # OpenCV keeps five Gaussians a side here
    cv2.grabCut(picture, labels, None, behind, front, CUTS, cv2.GC_INIT_WITH_MASK)
    cut = np.zeros(mask.shape, np.float32)
    cut[box.cut] = (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)
    found = (cut > 0) & (inside > 0)
    if found.sum() < LEAST_IOU * ((cut > 0) | (inside > 0)).sum():
        return mask
    return cut


def _tighten(clip: Clip, layer: int, target: Path, pace: Pace) -> bool:
    """Write a layer's tightened masks; whether there was time for all."""
    target.mkdir(parents=True, exist_ok=True)
    name = clip.layer_names[layer]
    for t in progress(range(clip.frame_count), None, f"masks of {name}"):
        path = target / f"{Path(clip.frame_names[t]).stem}.png"
        if is_whole(path, clip.size):
            continue
        rest = clip.frame_count - t
        if not pace.allows("cuts", rest * pace.expected_s("cut")):
            return False
        with pace.timed("cut", "masks"):
            cut = tightened(clip.frame(t), clip.mask(layer, t))
        write_rgb(path, np.rint(cut * 255).astype(np.uint8))
    return True


def _rim(mask: np.ndarray) -> np.ndarray:
    inside = (mask > 0.5).astype(np.uint8)
    cross = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3))
    border = cv2.BORDER_REPLICATE
    grown = cv2.dilate(inside, cross, borderType=border)
    return grown != cv2.erode(inside, cross, borderType=border)


def _under_rim(edges: np.ndarray, mask: np.ndarray) -> float:
    rim = _rim(mask)
    return float(edges[rim].mean()) if rim.any() else 0.0
