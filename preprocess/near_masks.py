"""Masks of near things that parallax moves past the scene: poles, branches, leaves, rails.

One smooth motion has no room for a pole before a house: it drags the house along, and an edit of
the house bends where the pole passes. What stands out in parallax (`preprocess.parallax`) from a
wide surrounding is cut out, its edges drawn by colour, neighbouring frames voting along flow. It
is kept only where it pays: the next frames must be told clearly better by its own motion than by
that of the scene around it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from functools import lru_cache

import cv2
import numpy as np

from atlas.clip import Clip
from atlas.coords import Size
from atlas.guided import guided_filter
from preprocess.flow import resize_flow, warp_backward
from preprocess.link import FlowOf
from preprocess.motion_masks import CACHED_FLOWS, WORK_SIDE_PX, refine_edges, vote
from preprocess.parallax import along_motion, relative_parallax, standing_out

log = logging.getLogger(__name__)

MAKER = "near, version 1"
WINDOW_SHARE = 0.33
"""A surface counts as near against the median of a window this wide, over the longer side."""
SURE_PX, LEAST_PX = 0.9, 0.45
"""Parallax of a near thing's core, and at its rim; working pixels per frame."""
MIN_AREA = 0.001
"""Smallest region, as a share of the picture."""
AROUND_PX = 6
"""How far from what is covered a core must lie: flow smears the motion of objects."""
LEFT_SHARE, LOCAL_PX = 0.4, 21
"""What colour leaves less than this share of, in a window as wide, is taken as flow has it, ..."""
SMEAR_PX = 2
"""... less what flow smears over their edges; working pixels."""
AHEAD = 4
SMOOTH_PX = 16.0
"""A near layer is weighed by how well it tells frames so far ahead, by motion as smooth as this
inside each layer; working pixels."""
GAIN = 0.025
"""Share of all of the scene's squared error that a near layer must take away."""
THING_GAIN = 0.15
"""Share of the squared error on a thing alone that its own motion must take away."""
NOISE = 1e-5
"""Squared RGB error that tells nothing."""
MOST_SHARE = 0.35
"""What covers more of the picture is the scene, and what is left over is far."""
MOST_ATTACHED = 0.6
"""Where more than this part touches the objects in front, it is their shadow or reflection."""
TRIED_FRAMES = 12
LONGEST = 200
"""Frames whose parallax is held in memory at once."""


def near_masks(
    clip: Clip, covered: Callable[[int], np.ndarray], *, must_pay: bool
) -> Iterator[np.ndarray] | None:
    """(H, W) float32 masks in [0, 1], frame by frame; None where a near layer does not pay.

    Needs the clip's flow on disk. Shots are judged one by one.

    Args:
        covered: t -> (H, W) float, [0, 1]: what other layers' masks take already.
        must_pay: whether masks are made only where they save error.
    """
    shots = []
    for first, end in clip.shots():
        near = _Shot(clip, covered, first, end)
        shots.append(near if near.pays() or not must_pay else None)
    if must_pay and not any(shots):
        return None
    return _full_size(clip, covered, shots)


class _Shot:
    """One shot's masks at the working size."""

    def __init__(self, clip: Clip, covered: Callable[[int], np.ndarray], first: int, end: int):
        self.clip, self.covered, self.first = clip.span(first, end), covered, first
        self.enlarge = max(1.0, max(clip.size.wh) / WORK_SIDE_PX)
        width, height = (max(1, round(side / self.enlarge)) for side in clip.size.wh)
        self.size = Size(height, width)
        self._small_flow = lru_cache(maxsize=CACHED_FLOWS)(self._read_flow)
        count = self.clip.frame_count
        self.masks: list[np.ndarray] = []
        for start in range(0, count, LONGEST):
            part = range(start, min(start + LONGEST, count))
            regions = near_regions(
                lambda a, b, start=start: self.flow(start + a, start + b),
                [self.taken(t) for t in part],
                self.size,
            )
            masks = []
            for t, region in zip(part, regions, strict=True):
                drawn = _drawn(self.picture(t), region)
                masks.append(np.where(self.taken(t) > 0.5, 0, drawn).astype(np.uint8))
            if len(part) >= 2 * AHEAD and any(mask.any() for mask in masks):
                masks = paying(
                    lambda t, start=start: self.picture(start + t),
                    lambda a, b, start=start: self.flow(start + a, start + b),
                    masks,
                    lambda t, start=start: self.taken(start + t),
                )
            self.masks += masks

    def flow(self, a: int, b: int) -> np.ndarray:
        """(H, W, 2) float32 px of the working size, frames of the shot."""
        return self._small_flow(a, b).astype(np.float32)

    def _read_flow(self, a: int, b: int) -> np.ndarray:
        return resize_flow(self.clip.flow(a, b), self.size).astype(np.float16)  # 0.005 px at 10 px

    def picture(self, t: int) -> np.ndarray:
        """(H, W, 3) uint8 RGB."""
        return cv2.resize(self.clip.frame(t), self.size.wh, interpolation=cv2.INTER_AREA)

    def taken(self, t: int) -> np.ndarray:
        """(H, W) float32, [0, 1]: what other layers' masks take."""
        full = self.covered(self.first + t).astype(np.float32)
        return cv2.resize(full, self.size.wh, interpolation=cv2.INTER_AREA)

    def pays(self) -> bool:
        """Whether the near things' own motion tells the frames clearly better."""
        if not any(mask.any() for mask in self.masks):
            log.info("near: nothing stands out by parallax")
            return False
        if self.clip.frame_count < 2 * AHEAD:
            return False
        share = float(np.mean([(mask > 127).mean() for mask in self.masks]))
        saved = error_saved(self.picture, self.flow, self.masks, self.taken)
        stuck = attached(self.masks, self.taken)
        log.info(
            "near: %.1f %% of the picture, saves %.1f %% of the error, %.0f %% clings to objects",
            *(100 * value for value in (share, saved, stuck)),
        )
        return saved >= GAIN and share <= MOST_SHARE and stuck <= MOST_ATTACHED


def near_regions(flow: FlowOf, taken: list[np.ndarray], size: Size) -> list[np.ndarray]:
    """(H, W) uint8 per frame, 255 = near; edges are rough.

    Args:
        flow: flow(a, b) -> (H, W, 2) px of `size`, from frame a to its neighbour b.
        taken: (H, W) float32 per frame, [0, 1], what other layers' masks take.
    """
    around = np.ones((2 * AROUND_PX + 1,) * 2, np.uint8)
    covered = [cv2.dilate(mask, around) > 0.05 for mask in taken]
    parallax, unit_px = relative_parallax(flow, covered, size)
    rims, cores = [], []
    for q, mask, hidden in zip(parallax, taken, covered, strict=True):
        ahead_px = standing_out(q, WINDOW_SHARE) * unit_px
        rim = ((ahead_px > LEAST_PX) & (mask < 0.5)).astype(np.uint8)
        rims.append(cv2.morphologyEx(rim, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)))
        cores.append((ahead_px > SURE_PX) & ~hidden)
    kept = _carried(cores, rims, flow)
    return [_with_core(rim, core) for rim, core in zip(rims, kept, strict=True)]


def _carried(cores: list[np.ndarray], rims: list[np.ndarray], flow: FlowOf) -> list[np.ndarray]:
    """(H, W) bool per frame: cores, and where flow takes those of other frames within the rims.

    What was surely near once is so still, as long as it stands out at all.
    """
    kept = [core.copy() for core in cores]
    last = len(cores) - 1
    for order, step in ((range(1, last + 1), -1), (range(last - 1, -1, -1), 1)):
        running = cores[order[0] + step] if len(order) else None
        for t in order:
            assert running is not None
            before = warp_backward(running.astype(np.float32), flow(t, t + step)) > 0.5
            running = (cores[t] | before) & (rims[t] > 0)
            kept[t] |= running
    return kept


def _with_core(rim: np.ndarray, core: np.ndarray) -> np.ndarray:
    """(H, W) uint8 0 or 255: the connected parts of `rim` that hold enough of a core."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(rim, connectivity=4)
    solid = np.bincount(labels.ravel(), core.ravel(), count)
    least = MIN_AREA * rim.size
    kept = (stats[:, cv2.CC_STAT_AREA] >= least) & (solid >= 0.25 * least)
    kept[0] = False
    return kept[labels].astype(np.uint8) * 255


def _drawn(rgb: np.ndarray, region: np.ndarray) -> np.ndarray:
    """(H, W) uint8: the region, edges drawn by colour; what colour fails keeps those of its flow.

    Args:
        rgb: (H, W, 3) uint8. region: (H, W) uint8, 255 = near.
    """
    drawn = refine_edges(rgb, region)
    window = (LOCAL_PX, LOCAL_PX)
    area, left = (cv2.blur(mask.astype(np.float32), window) for mask in (region, drawn))
    smear = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * SMEAR_PX + 1,) * 2)
    return np.where(left < LEFT_SHARE * area, cv2.erode(region, smear), drawn)


def told_errors(
    picture: Callable[[int], np.ndarray],
    flow: FlowOf,
    t: int,
    near: np.ndarray,
    rest: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """(H, W) squared errors of frame `t`, told from the one `AHEAD` before (or after) it.

    Told by flow that is smooth inside each layer: once with the near things as part of the scene,
    once apart; and 0 where the other frame does not show what is seen.

    Args:
        near: (H, W) bool. rest: (H, W) float32, what is not taken by other layers.
    Returns:
        With the near things as part of the scene; with them apart.
    """
    step = -1 if t >= AHEAD else 1
    motion = flow(t, t + step)
    for other in range(t + step, t + AHEAD * step, step):
        motion = motion + warp_backward(flow(other, other + step), motion)
    frame, seen = (picture(i).astype(np.float32) / 255 for i in (t, t + AHEAD * step))
    inside = warp_backward(np.ones_like(rest), motion)
    errors = []
    for weight in (rest, rest * ~near, rest * near):
        told = warp_backward(seen, smooth_inside(motion, weight * inside))
        errors.append(((told - frame) ** 2).mean(-1) * rest * (inside > 0.99))
    return errors[0], np.where(near, errors[2], errors[1])


def error_saved(
    picture: Callable[[int], np.ndarray],
    flow: FlowOf,
    masks: list[np.ndarray],
    taken: Callable[[int], np.ndarray],
) -> float:
    """The share of the scene's squared error that near things' own motion takes away.

    Args:
        masks: (H, W) uint8 per frame, 255 = near. taken: t -> (H, W) float32, the other layers.
    """
    before = after = 0.0
    for t in np.unique(np.linspace(0, len(masks) - 1, TRIED_FRAMES).round().astype(int)):
        found = told_errors(picture, flow, int(t), masks[t] > 127, 1 - taken(int(t)))
        before += float(found[0].sum())
        after += float(found[1].sum())
    return 1 - after / max(before, 1e-9)


def paying(
    picture: Callable[[int], np.ndarray],
    flow: FlowOf,
    masks: list[np.ndarray],
    taken: Callable[[int], np.ndarray],
) -> list[np.ndarray]:
    """The masks less those things that the scene's motion tells about as well as their own.

    Flow that a passing car drags over a bare road looks like parallax, but tells no picture.
    """
    sums = []
    for t, mask in enumerate(masks):
        near = mask > 127
        before, after = told_errors(picture, flow, t, near, 1 - taken(t))
        sums.append((np.dstack([before, after, near]) * near[..., None]).astype(np.float32))
    kept = []
    for mask, around in zip(masks, along_motion(sums, flow), strict=True):
        count, things = cv2.connectedComponents((mask > 127).astype(np.uint8))
        before, after, pixels = (
            np.bincount(things.ravel(), plane.ravel(), count)
            for plane in np.moveaxis(around, -1, 0)
        )
        pays = after + NOISE * pixels < (1 - THING_GAIN) * before
        pays[0] = False
        kept.append(np.where(pays[things], mask, 0).astype(np.uint8))
    return kept


def attached(masks: list[np.ndarray], taken: Callable[[int], np.ndarray]) -> float:
    """The share of all near pixels that hang together with what other layers take.

    Poles pass an object now and then; its shadow and its reflection stay with it, and an edit of
    the scene must not be hidden by them.
    """
    around = np.ones((4 * AROUND_PX + 1,) * 2, np.uint8)
    total = touching = 0
    for t in range(0, len(masks), max(len(masks) // TRIED_FRAMES, 1)):
        beside = cv2.dilate(taken(t), around) > 0.5
        _, things = cv2.connectedComponents((masks[t] > 127).astype(np.uint8))
        touched = np.unique(things[beside])
        total += np.count_nonzero(things)
        touching += np.count_nonzero(np.isin(things, touched[touched > 0]))
    return touching / max(total, 1)


def smooth_inside(motion: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """(H, W, 2) float32: Gaussian mean of (H, W, 2) motion over pixels of (H, W) weight."""
    sums = np.dstack([motion * weight[..., None], weight]).astype(np.float32)
    sums = cv2.GaussianBlur(sums, (0, 0), SMOOTH_PX)
    return sums[..., :2] / np.maximum(sums[..., 2:], 1e-4)


def _full_size(
    clip: Clip, covered: Callable[[int], np.ndarray], shots: list[_Shot | None]
) -> Iterator[np.ndarray]:
    """Masks at the clip's size, edges along the frames' own."""
    for (first, end), shot in zip(clip.shots(), shots, strict=True):
        for t in range(first, end):
            if shot is None:
                yield np.zeros((clip.size.height, clip.size.width), np.float32)
                continue
            soft = vote(shot.masks, t - first, shot.flow)
            full = cv2.resize(soft, clip.size.wh, interpolation=cv2.INTER_LINEAR)
            if full.any() and shot.enlarge > 1:
                guide = clip.frame(t).astype(np.float32) / 255
                full = guided_filter(guide, full, radius_px=round(2 * shot.enlarge), eps=1e-4)
            # the ends of the ramp are noise of the filter; keep a soft edge, but whole inside
            yield (np.clip((full - 0.1) / 0.8, 0, 1) * (1 - covered(t))).astype(np.float32)
