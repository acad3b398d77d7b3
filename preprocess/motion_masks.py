"""Masks of what moves on its own, from optical flow alone: no network, no weights.

The camera's part of the motion is the dominant homography between neighbouring frames (MAGSAC on a
grid of flow vectors; Barath et al., CVPR 2020). What is left over is averaged, as vectors, along
the motion over several frames: ripples and leaves cancel out, what goes its own way adds up.
Regions that stand out are linked over time, the weak and the short-lived are dropped, edges are
drawn by colour (GrabCut, Rother et al., SIGGRAPH 2004), and neighbouring frames vote along flow.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import lru_cache

import cv2
import numpy as np

from atlas.clip import Clip
from atlas.coords import Size, apply_homography, pixel_grid
from atlas.guided import guided_filter
from preprocess.flow import consistency, resize_flow, warp_backward
from preprocess.link import FlowOf, link_tracks, union_masks
from thirdparty.mask_rcnn import Instance

log = logging.getLogger(__name__)

MAKER = "motion, version 1"
WORK_SIDE_PX = 384
"""Longer side at which motion is judged; edges are brought to full size along the picture's."""
GRID_PX = 8
INLIER_PX = 0.5
CYCLE_PX = 0.7
"""Forward-backward error above which a flow vector counts little; all three in working pixels."""
DECAY = 0.7
"""Weight of a frame in the average falls by this factor per frame of distance: about 3 each way."""
MIN_NOISE_RATIO = 1.5
"""Least ratio of the threshold to the median speed, which is noise where most of a scene stands."""
MIN_SPEED_PX = 0.3
"""Least threshold, working pixels per frame: a few times the error of DIS in a still scene."""
CUT_RATIO = 0.55
PEAK_AREA = 0.005
"""See `regions_of`."""
CACHED_FLOWS = 600
"""Small flows kept in memory, 0.3 MB each."""
BAND_PX = 4
"""How far colour may move an edge, working pixels; DIS smears motion edges by about this much."""
VOTE_FRAMES = 3
MIN_AREA = 0.0008
"""Smallest region, as a share of the picture."""
MIN_SHARE = 0.2
"""Objects whose strength (squared speed, summed over pixels and frames) is below this share of the
strongest's are dropped."""


def motion_masks(clip: Clip) -> Iterator[np.ndarray]:
    """(H, W) float32 masks in [0, 1], frame by frame: what moves against the dominant motion.

    Needs the clip's flow on disk. A clip of one frame has no motion: its mask is empty.
    """
    scale = min(1.0, WORK_SIDE_PX / max(clip.size.height, clip.size.width))
    work = Size(max(1, round(clip.size.height * scale)), max(1, round(clip.size.width * scale)))
    if clip.frame_count == 1:
        yield np.zeros((clip.size.height, clip.size.width), np.float32)
        return

    @lru_cache(maxsize=CACHED_FLOWS)
    def small_flow(a: int, b: int) -> np.ndarray:
        return resize_flow(clip.flow(a, b), work).astype(np.float16)  # 0.005 px at 10 px

    def flow(a: int, b: int) -> np.ndarray:
        return small_flow(a, b).astype(np.float32)

    def picture(t: int) -> np.ndarray:
        return cv2.resize(clip.frame(t), work.wh, interpolation=cv2.INTER_AREA)

    regions = moving_regions(flow, clip.frame_count, work)
    refined = [refine_edges(picture(t), region) for t, region in enumerate(regions)]
    for t in range(clip.frame_count):
        soft = vote(refined, t, flow)
        full = cv2.resize(soft, clip.size.wh, interpolation=cv2.INTER_LINEAR)
        if full.any() and work != clip.size:
            guide = clip.frame(t).astype(np.float32) / 255
            full = guided_filter(guide, full, radius_px=round(2 / scale), eps=1e-4)
        # the ends of the ramp are noise of the filter; keep a soft edge, but whole inside
        yield np.clip((full - 0.1) / 0.8, 0, 1).astype(np.float32)


def moving_regions(flow: FlowOf, frame_count: int, size: Size) -> list[np.ndarray]:
    """(H, W) uint8 per frame, 255 = part of an object that moves by itself; edges are rough.

    Args:
        flow: flow(a, b) -> (H, W, 2) px of `size`, from frame a to its neighbour b.
    """
    motion = own_motion(flow, frame_count, size)
    tracks, _ = link_tracks(map(regions_of, motion), flow)
    power = [sum(track.scores.values()) for track in tracks]
    least = MIN_SHARE * max(power, default=0.0)
    kept = [track for track, p in zip(tracks, power, strict=True) if p >= least]
    log.debug("motion: %d regions linked, %d kept", len(tracks), len(kept))
    return union_masks(kept, frame_count, size, flow)


def own_motion(flow: FlowOf, frame_count: int, size: Size) -> list[np.ndarray]:
    """(H, W) float32 px per frame: speed against the dominant motion, where it is steady.

    The residual vectors of both flow directions are averaged along the motion over neighbouring
    frames; the length of that mean is multiplied by |mean| / mean(| |), which is 1 for steady
    motion and small where vectors disagree.
    """
    sums = []
    for t in range(frame_count):
        total = np.zeros((size.height, size.width, 4), np.float32)
        for other, sign in ((t + 1, 1), (t - 1, -1)):
            if not 0 <= other < frame_count:
                continue
            there = flow(t, other)
            weight = np.where(consistency(there, flow(other, t), CYCLE_PX), 1.0, 0.1)
            vector = sign * (there - camera_flow(there, weight > 0.5))
            length = np.linalg.norm(vector, axis=-1)
            channels = [vector[..., 0], vector[..., 1], length, np.ones_like(length)]
            total += weight[..., None] * np.stack(channels, axis=-1)
        sums.append(total)
    return [_steady_speed(total) for total in _gather(sums, flow)]


def camera_flow(flow: np.ndarray, trusted: np.ndarray) -> np.ndarray:
    """(H, W, 2) float32 px: the flow of the dominant homography of `flow`.

    Args:
        flow: (H, W, 2) px. trusted: (H, W) bool, vectors to fit to (all, where they are few).
    """
    grid = pixel_grid(Size(*flow.shape[:2]))
    pick = (slice(GRID_PX // 2, None, GRID_PX),) * 2
    source, moved, good = grid[pick], (grid + flow)[pick], trusted[pick]
    if np.count_nonzero(good) < 20:
        good = np.ones_like(good)
    source, moved = source[good].astype(np.float64), moved[good].astype(np.float64)
    matrix = None
    if len(source) >= 4:
        matrix, _ = cv2.findHomography(
            source, moved, cv2.USAC_MAGSAC, INLIER_PX, maxIters=5000, confidence=0.999
        )
    if matrix is None:  # too small or too odd for a homography: the median translation
        return np.broadcast_to(np.median(flow.reshape(-1, 2), axis=0), flow.shape)
    moved_grid = apply_homography(matrix, grid.astype(np.float64))
    return np.nan_to_num(moved_grid - grid).astype(np.float32)


def _gather(sums: list[np.ndarray], flow: FlowOf) -> Iterator[np.ndarray]:
    """Add to each frame its neighbours' sums, carried along flow, weighted `DECAY` per frame."""
    before, running = [], None
    for t, total in enumerate(sums):
        carried = 0 if running is None else DECAY * warp_backward(running, flow(t, t - 1))
        before.append(carried)
        running = total + carried
    after: list[np.ndarray] = []
    running = None
    for t in range(len(sums) - 1, -1, -1):
        carried = 0 if running is None else DECAY * warp_backward(running, flow(t, t + 1))
        running = sums[t] + carried
        after.append(running)
    for past, rest in zip(before, reversed(after), strict=True):
        yield past + rest


def _steady_speed(total: np.ndarray) -> np.ndarray:
    weight = np.maximum(total[..., 3], 1e-6)
    mean = np.linalg.norm(total[..., :2], axis=-1) / weight
    return mean * mean / np.maximum(total[..., 2] / weight, 1e-6)


def regions_of(speed: np.ndarray) -> list[Instance]:
    """Connected regions that move on their own, each cut out at a share of its own top speed.

    Two steps: what is above the noise falls into parts; each part is then cut at `CUT_RATIO` of
    the speed of its fastest `PEAK_AREA` (of the picture), so that a slow thing beside a fast one is
    kept, and wakes, parallax and flow smeared over the edge are left behind.
    The score of a region is its summed squared speed: fast counts more than large, since what
    parallax leaves (near branches, poles) is often large but seldom fast.

    Args:
        speed: (H, W) float32, px per frame.
    """
    least = max(MIN_NOISE_RATIO * float(np.median(speed)), MIN_SPEED_PX)
    found = []
    for part, area in _connected(speed > least, MIN_AREA * speed.size):
        rank = max(1, int(min(PEAK_AREA * speed.size, area / 4)))
        peak = float(np.partition(speed[part], -rank)[-rank])
        fast = (part & (speed > CUT_RATIO * peak)).astype(np.uint8)
        fast = cv2.morphologyEx(fast, cv2.MORPH_OPEN, _disc(1)) > 0
        for inside, _ in _connected(fast, MIN_AREA * speed.size):
            x, y, w, h = cv2.boundingRect(inside.astype(np.uint8))
            box = (float(x), float(y), float(x + w), float(y + h))
            score = float((speed[inside] ** 2).sum())
            found.append(Instance(inside.astype(np.float32), score, box, "moving"))
    return found


def _connected(mask: np.ndarray, min_area: float) -> Iterator[tuple[np.ndarray, int]]:
    """(H, W) bool and area in pixels of every connected part of a bool mask, if large enough."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(
        mask.astype(np.uint8), connectivity=4
    )
    for k in range(1, count):
        area = int(stats[k, cv2.CC_STAT_AREA])
        if area >= min_area:
            yield labels == k, area


def refine_edges(rgb: np.ndarray, region: np.ndarray) -> np.ndarray:
    """(H, W) uint8: `region` with its edge drawn by colour, within `BAND_PX` of where it was.

    Args:
        rgb: (H, W, 3) uint8. region: (H, W) uint8, 255 = inside.
    """
    inside = (region >= 128).astype(np.uint8)
    if not inside.any() or inside.all():
        return inside * 255
    core = cv2.erode(inside, _disc(BAND_PX), borderValue=1)
    near = cv2.dilate(inside, _disc(BAND_PX))
    around = cv2.dilate(inside, _disc(4 * BAND_PX))
    trimap = np.where(inside, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    trimap[core > 0], trimap[near == 0] = cv2.GC_FGD, cv2.GC_BGD
    # GrabCut learns the background's colours from the surroundings only, and works on that window
    x, y, w, h = cv2.boundingRect(around)
    window = (slice(y, y + h), slice(x, x + w))
    part = trimap[window].copy()
    if not (part == cv2.GC_BGD).any() or not (part == cv2.GC_FGD).any():
        return inside * 255
    bgr = np.ascontiguousarray(rgb[window][..., ::-1])
    cv2.setRNGSeed(0)  # its k-means start is random otherwise
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(bgr, part, None, *models, 2, cv2.GC_INIT_WITH_MASK)  # type: ignore[call-overload]
    out = np.zeros_like(inside)
    out[window] = np.isin(part, (cv2.GC_FGD, cv2.GC_PR_FGD))
    return out * 255


def vote(masks: list[np.ndarray], t: int, flow: FlowOf) -> np.ndarray:
    """(H, W) float32 in [0, 1]: frame t's mask averaged with its neighbours', carried along flow.

    Weights fall by half per frame of distance; an edge that one frame draws wrongly is outvoted.
    """
    total = masks[t].astype(np.float32)
    weight = 1.0
    for step in (-1, 1):
        where = np.zeros((*masks[t].shape, 2), np.float32)  # flow from t to the other frame
        other, share = t, 1.0
        for _ in range(VOTE_FRAMES):
            other, share = other + step, share * 0.7
            if not 0 <= other < len(masks):
                break
            onward = flow(other - step, other)
            where = where + warp_backward(onward, where)
            total += share * warp_backward(masks[other], where)
            weight += share
    return total / (255 * weight)


def _disc(radius: int) -> np.ndarray:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1,) * 2)
