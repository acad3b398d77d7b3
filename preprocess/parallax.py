"""How much nearer or farther than the rest every pixel lies, told from optical flow alone.

What the dominant homography leaves of the flow between two frames of a still scene is parallax: it
points to or from one point, the epipole, and is as long as the surface lies off the dominant plane
(plane and parallax: Irani and Anandan 1996, "Parallax geometry of pairs of points for 3D scene
analysis"). Lengths along that direction, in units of the frame's own parallax, are averaged along
the motion: ripples and errors of flow cancel out, what is near stays so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from atlas.coords import Size, pixel_grid
from preprocess.flow import consistency, warp_backward
from preprocess.link import FlowOf
from preprocess.motion_masks import CYCLE_PX, camera_flow

DECAY = 0.8
"""Weight of a frame in the average falls by this factor per frame of distance: about 5 each way."""
UNSURE = 0.02
"""Weight of flow that does not lead back, against flow that does."""
TYPICAL = 0.8
"""The quantile of parallax that is a frame's unit."""
SPIKE = 8.0
"""Parallax is cut at this many units."""
RIM_PX = 2
"""Flow that ends this close to the picture's border, or beyond it, is a guess."""
MIN_POINTS = 200
LEAST_PX = 0.3
"""Shorter residual vectors tell no direction."""
OFF_AXIS = 0.2
"""Sine of the angle to the epipole at which a vector's vote has fallen to a half."""
VOTERS, TRIALS = 1500, 80
"""How many vectors vote on how many trial epipoles."""


@dataclass
class _Pair:
    """One pair's parallax. length: (H, W) float32 px, sign unknown. weight: (H, W). unit: px."""

    length: np.ndarray
    weight: np.ndarray
    unit_px: float


def relative_parallax(
    flow: FlowOf, covered: list[np.ndarray], size: Size
) -> tuple[list[np.ndarray], float]:
    """Where every pixel lies off the dominant plane, nearer positive, and the clip's unit.

    Near is told from far by the longer tail: parallax grows without bound toward the camera, and
    ends at the horizon's the other way.

    Args:
        flow: flow(a, b) -> (H, W, 2) px of `size`, from frame a to its neighbour b.
        covered: (H, W) bool per frame, what is no part of the still scene (objects, sky).
    Returns:
        (H, W) float32 per frame, in units; the unit, px of `size` per frame.
    """
    sums: list[np.ndarray] = []
    carried, units = None, []
    for t in range(len(covered)):
        total = np.zeros((size.height, size.width, 2), np.float32)
        if carried is not None:
            carried = DECAY * warp_backward(carried, flow(t, t - 1))
        for other in (t + 1, t - 1):
            pair = _pair(flow, t, other, covered[t]) if 0 <= other < len(covered) else None
            if pair is None:
                continue
            units.append(pair.unit_px)
            length = np.clip(pair.length / pair.unit_px, -SPIKE, SPIKE)
            if carried is not None and _disagree(length, pair.weight, carried):
                length = -length
            # least squares of relative parallax: a frame of much parallax says more of it
            weight = pair.weight * pair.unit_px**2
            add = np.dstack([weight * length, weight]).astype(np.float32)
            total += add
            carried = add if carried is None else carried + add
        sums.append(total)
    found = [s[..., 0] / np.maximum(s[..., 1], 1e-6) for s in along_motion(sums, flow)]
    tail = sum(
        float((np.clip(q, -SPIKE, SPIKE)[~c] ** 3).sum())
        for q, c in zip(found, covered, strict=True)
    )
    unit_px = float(np.sqrt(np.mean(np.square(units)))) if units else 0.0
    return [q if tail >= 0 else -q for q in found], unit_px


def along_motion(sums: list[np.ndarray], flow: FlowOf) -> Iterator[np.ndarray]:
    """Each frame's (H, W, C) sums plus its neighbours', carried along flow, `DECAY` per frame."""
    after: list[np.ndarray] = []
    running = None
    for t in range(len(sums) - 1, -1, -1):
        rest = 0 if running is None else DECAY * warp_backward(running, flow(t, t + 1))
        after.append(np.asarray(rest, np.float32))
        running = sums[t] + rest
    running = None
    for t, rest in enumerate(reversed(after)):
        past = 0 if running is None else DECAY * warp_backward(running, flow(t, t - 1))
        running = sums[t] + past
        yield running + rest


def _pair(flow: FlowOf, t: int, other: int, covered: np.ndarray) -> _Pair | None:
    there = flow(t, other)
    size = Size(*there.shape[:2])
    ends = pixel_grid(size) + there
    inside = (ends >= RIM_PX).all(-1)
    inside &= (ends[..., 0] <= size.width - 1 - RIM_PX) & (ends[..., 1] <= size.height - 1 - RIM_PX)
    known = inside & ~covered
    sure = known & consistency(there, flow(other, t), CYCLE_PX)
    if np.count_nonzero(sure) < MIN_POINTS:
        return None
    residual = there - camera_flow(there, sure)
    axis = epipolar_directions(residual, sure)
    if axis is None:
        return None
    length = (residual * axis).sum(-1)
    unit_px = float(np.quantile(np.abs(length[sure]), TYPICAL)) + 1e-3
    weight = np.where(sure, 1.0, UNSURE) * known + 1e-4
    return _Pair(length, weight.astype(np.float32), unit_px)


def epipolar_directions(residual: np.ndarray, sure: np.ndarray) -> np.ndarray | None:
    """(H, W, 2) float32 unit vectors along the lines to the epipole; None where nothing moves.

    The epipole is where the lines through all residual vectors meet, near or at infinity: the best
    of where some pairs of lines meet (Fischler and Bolles 1981, RANSAC), then the least singular
    vector of the lines' homogeneous coordinates, reweighted (Geman-McClure).

    Args:
        residual: (H, W, 2) px, flow less that of the dominant plane. sure: (H, W) bool.
    """
    height, width = sure.shape
    scale = 2 / width
    centre = np.array([width / 2, height / 2])
    speed = np.linalg.norm(residual, axis=-1)
    used = sure & (speed > LEAST_PX)
    if np.count_nonzero(used) < MIN_POINTS:
        return None
    at = (np.argwhere(used)[:, ::-1] - centre) * scale
    length = speed[used]
    way = residual[used] / length[:, None]
    # the least singular vector minds where lines pass far from a far epipole: start from votes
    some = np.random.default_rng(0).integers(0, len(at), (VOTERS, 2))
    lines = _lines(at, way)
    trials = np.cross(lines[some[:TRIALS, 0]], lines[some[:TRIALS, 1]])
    trials = trials[np.linalg.norm(trials, axis=1) > 1e-9]  # a line does not meet itself
    if not len(trials):
        return None
    voters = some[:, 0]
    votes = [
        (length[voters] * _trust(_sine(trial, at[voters], way[voters])[0])).sum()
        for trial in trials
    ]
    epipole = trials[int(np.argmax(votes))]
    for _ in range(4):
        sine, reach = _sine(epipole, at, way)
        # lines miss the epipole by sine * reach; votes are to be equal in angle
        weight = length * (_trust(sine) / (reach / np.linalg.norm(epipole) + 1e-3)) ** 2
        epipole = np.linalg.eigh((lines * weight[:, None]).T @ lines)[1][:, 0]
    grid = (pixel_grid(Size(height, width)) - centre) * scale
    toward = epipole[:2] - epipole[2] * grid
    return (toward / (np.linalg.norm(toward, axis=-1, keepdims=True) + 1e-6)).astype(np.float32)


def _lines(at: np.ndarray, way: np.ndarray) -> np.ndarray:
    """(N, 3) homogeneous coordinates of the lines through (N, 2) points along (N, 2) units."""
    offset = way[:, 1] * at[:, 0] - way[:, 0] * at[:, 1]
    return np.stack([-way[:, 1], way[:, 0], offset], -1)


def _sine(epipole: np.ndarray, at: np.ndarray, way: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N,) sine of the angle between each vector and the epipole, (N,) the distance to it."""
    toward = epipole[:2] - epipole[2] * at
    reach = np.linalg.norm(toward, axis=1) + 1e-12
    return np.abs(way[:, 0] * toward[:, 1] - way[:, 1] * toward[:, 0]) / reach, reach


def _trust(sine: np.ndarray) -> np.ndarray:
    """Geman-McClure's weight of a vector that is off the way to the epipole."""
    return OFF_AXIS**2 / (OFF_AXIS**2 + sine**2)


def _disagree(length: np.ndarray, weight: np.ndarray, carried: np.ndarray) -> bool:
    """Whether a pair's parallax has the other sign than the frames' before."""
    before = np.clip(carried[..., 0] / np.maximum(carried[..., 1], 1e-6), -4, 4)
    return float((np.clip(length, -4, 4) * before * weight * carried[..., 1]).sum()) < 0


def standing_out(parallax: np.ndarray, window_share: float) -> np.ndarray:
    """(H, W) float32: parallax less the median of a wide window, which a smooth depth follows.

    Args:
        window_share: the window's side over the picture's longer side.
    """
    height, width = parallax.shape
    step = max(1, max(height, width) // 64)
    small = cv2.resize(
        np.clip(parallax, -SPIKE, SPIKE).astype(np.float32),
        (max(width // step, 1), max(height // step, 1)),
        interpolation=cv2.INTER_AREA,
    )
    side = max(3, round(window_share * max(small.shape))) | 1
    levels = np.rint((small + SPIKE) * (255 / (2 * SPIKE))).astype(np.uint8)
    half = side // 2
    padded = cv2.copyMakeBorder(levels, half, half, half, half, cv2.BORDER_REFLECT_101)
    broad = cv2.medianBlur(padded, side)[half:-half, half:-half].astype(np.float32)
    broad = broad * (2 * SPIKE / 255) - SPIKE
    return parallax - cv2.resize(broad, (width, height), interpolation=cv2.INTER_LINEAR)
