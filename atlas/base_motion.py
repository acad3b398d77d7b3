"""Base motion of a layer in closed form: one parametric transform per frame, jointly refined.

Each layer's frames are tied to one canvas by a homography (a pure rotation K R K^-1 for a sky, an
affine map for small objects). Neighbouring frames are matched along the optical flow; then all
transforms are refined together over near and far frame pairs, so that they do not drift
(bundle adjustment on homographies: Szeliski and Shum 1997, "Creating full view panoramic mosaics").
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import cv2
import numpy as np
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from atlas.coords import Size, apply_homography
from atlas.joint_motion import reach_of, refine_jointly, residual_px
from atlas.matches import MIN_POINTS, Matches, match_along_flow, match_by_warp, match_in_mask
from atlas.motion_model import MotionModel, camera_matrix, motion_model, with_unit_determinant
from atlas.store import ClipStore
from atlas.wide_canvas import FLAT_DEG, Roll, angles_off, rolled

log = logging.getLogger(__name__)

CANVAS_LIMIT = 6000
"""Greatest side of a canvas, texels."""
CANVAS_MARGIN = 8
FAR_PAN = 1.0
"""A pan by so many frame widths has views that share nothing with each other."""
TURN_MARGIN = 0.03
"""Error that rotations may have above homographies, which also fit noise; squared pixels."""
TURN_ROUNDS = 4
FAR_FRAMES = 36
"""Pairs farther apart than this are matched up to both ends of the clip."""
DEFAULT_FOCAL_WIDTHS = 0.85
"""Focal length over the frame's longer side where nothing tells it: a 61 degree view."""


@dataclass(frozen=True)
class BaseMotion:
    """One layer's base motion.

    matrices: (T, 3, 3) float64, frame pixels -> canvas texels, or rays where there is a roll.
    canvas: the canvas's size, texels.
    confidence: (T,) float32 in [0, 1]: share of the matches that agree with the transform.
    model: "homography", "affine" or "rotation".
    roll: how a canvas is rolled out that no plane could hold; None for a flat one.
    """

    matrices: np.ndarray
    canvas: Size
    confidence: np.ndarray
    model: str
    roll: Roll | None = None


def estimate_base_motion(
    store: ClipStore, layer: int, model: str, focal_px: float | None = None
) -> BaseMotion:
    """Fit `model` to one layer's motion over the whole clip.

    The middle frame is the reference: there the transform is a translation onto the canvas. Where
    a layer shows too little texture to be matched (a clear sky), the pixels of the layers above
    stand in, under the same model.
    """
    reference = store.frame_count // 2
    size = store.size
    focal = focal_px or DEFAULT_FOCAL_WIDTHS * max(size.width, size.height)
    kind = motion_model(model, size, focal)
    near = match_neighbours(store, layer, model)
    if model == "rotation" and focal_px is None:
        kind.focal_px = estimate_focal(near, kind, store.frame_count)
        kind.focal_is_free = True
    matrices = _chain(near, kind, store.frame_count, reference)
    pairs = list(near)
    for step in _strides(store.frame_count):
        starts = {*range(0, store.frame_count - step, max(step // 2, 1))}
        if step > FAR_FRAMES:
            starts.add(store.frame_count - 1 - step)
        far = [
            match_by_warp(store, layer, (t, t + step), (matrices[t], matrices[t + step]))
            for t in sorted(starts)
        ]
        pairs += [m for m in far if len(m.weight) >= MIN_POINTS]
        matrices = refine_jointly(pairs, matrices, kind, reference)
    if store.frame_count > 1:
        matrices = refine_jointly(pairs, matrices, kind, reference)
    if model == "homography":
        turned = _as_a_turn(near, pairs, matrices, kind)
        if turned is not None:
            (matrices, kind), model = turned, "rotation"
    confidence = _confidence(pairs, matrices, store.frame_count)
    if model != "affine":
        camera = camera_matrix(kind.focal_px, kind.to_unit)
        wide = place_on_roll(store, layer, matrices, camera)
        if wide is not None:
            return BaseMotion(wide[0], wide[2], confidence, model, wide[1])
    matrices, canvas = place_on_canvas(store, layer, matrices / matrices[:, 2:, 2:])
    return BaseMotion(matrices, canvas, confidence, model)


def _as_a_turn(
    near: list[Matches], pairs: list[Matches], matrices: np.ndarray, kind: MotionModel
) -> tuple[np.ndarray, MotionModel] | None:
    """The camera's rotations, with their model, where they explain a far pan as well.

    Eight parameters a frame, chained from view to view that have nothing in common, bend the far
    end of a canvas by many pixels; three, and one lens for all, do not.

    Args:
        near, pairs: matches of neighbours, and all of them. matrices: homographies, refined.
    """
    reference = len(matrices) // 2
    if reach_of(matrices, kind) < FAR_PAN:
        return None
    turning = replace(kind, name="rotation", generators=[], focal_is_free=True)
    turning.focal_px = estimate_focal(near, turning, len(matrices))
    turned = _chain(near, turning, len(matrices), reference)
    for _ in range(TURN_ROUNDS):
        turned = refine_jointly(pairs, turned, turning, reference)
    weight = max(sum(float(m.weight.sum()) for m in pairs), 1e-9)
    bent, straight = (sum(_cost(m, x) for m in pairs) / weight for x in (matrices, turned))
    log.info("far pan: error of homographies %.4f, of rotations %.4f", bent, straight)
    return (turned, turning) if straight < bent + TURN_MARGIN else None


def _cost(m: Matches, matrices: np.ndarray) -> float:
    """A pair's robust error (Geman-McClure, 1 px), times its matches' weight."""
    squared = (residual_px(m, matrices[m.a], matrices[m.b]) ** 2).sum(1)
    return float((m.weight * squared / (1 + squared)).sum())


def match_neighbours(store: ClipStore, layer: int, model: str) -> list[Matches]:
    """Matches between neighbouring frames; an object's come from a flow of its own."""
    near = []
    for t in range(store.frame_count - 1):
        own = match_in_mask(store, layer, t) if model == "affine" else None
        enough = own is not None and len(own.weight) >= MIN_POINTS
        near.append(own if own is not None and enough else match_along_flow(store, layer, t))
    return near


def _strides(frame_count: int) -> list[int]:
    """How far apart matched frames are, growing; the longest go from end to end."""
    steps = [s for s in (4, 12, 36, 108, 324) if s < frame_count]
    ends = [s for s in ((frame_count - 1) // 2, frame_count - 1) if s > max([*steps, FAR_FRAMES])]
    return [*steps, *ends]


def _chain(near: list[Matches], kind: MotionModel, frame_count: int, reference: int) -> np.ndarray:
    """(T, 3, 3): transforms to the reference frame by chaining those between neighbours."""
    matrices = np.tile(np.eye(3), (frame_count, 1, 1))
    links = [fit_pair(m, kind) for m in near]
    for t in range(reference, frame_count - 1):
        matrices[t + 1] = matrices[t] @ np.linalg.inv(links[t])
    for t in range(reference - 1, -1, -1):
        matrices[t] = matrices[t + 1] @ links[t]
    return with_unit_determinant(matrices)


def estimate_focal(near: list[Matches], kind: MotionModel, frame_count: int) -> float:
    """The focal length under which rotations explain a clip's matches best, pixels.

    A pan curves a picture's motion the more the shorter the lens is. Tries a range of lenses on
    matches chained over a tenth of the clip and keeps the default unless another lens lowers the
    robust error by 2 %.
    """
    reach = max(1, min(frame_count // 10, 12))
    if not near:
        return kind.focal_px
    joined = [_joined(near, t, reach) for t in range(0, max(frame_count - 1 - reach, 1), reach)]
    longer = [m for m in joined if m is not None]
    if not longer:
        return kind.focal_px
    costs: dict[float, float] = {}
    for factor in (1.0, 0.5, 0.6, 0.72, 0.86, 1.2, 1.45, 1.75, 2.1, 2.6, 3.2):
        trial = MotionModel(kind.name, kind.to_unit, kind.focal_px * factor, kind.generators)
        total = 0.0
        for m in longer:
            squared = (residual_px(m, fit_pair(m, trial), np.eye(3)) ** 2).sum(1)
            total += float((m.weight * squared / (1 + squared)).sum())
        costs[factor] = total
    best = min(costs, key=lambda f: costs[f])
    factor = best if costs[best] < 0.98 * costs[1.0] else 1.0
    log.info("focal length %.2f frame widths", kind.focal_px * factor * kind.to_unit[0, 0] / 2)
    return kind.focal_px * factor


def _joined(near: list[Matches], first: int, reach: int) -> Matches | None:
    """Matches from frame `first` to `first + reach`, followed through the frames between."""
    at = near[first].a_px
    weight, start = near[first].weight, at
    for m in near[first : first + reach]:
        if len(m.weight) < MIN_POINTS or not len(at):
            return None
        distance, nearest = cKDTree(m.a_px).query(at)
        ok = distance < 12  # the motion of the closest match stands for the point's own
        at = at[ok] + (m.b_px - m.a_px)[nearest[ok]]
        start, weight = start[ok], weight[ok]
    if len(at) < MIN_POINTS:
        return None
    return Matches(first, first + reach, start, at, weight)


def fit_pair(matches: Matches, kind: MotionModel) -> np.ndarray:
    """(3, 3) robust transform from frame a to frame b; the identity where matches are too few."""
    if len(matches.weight) < MIN_POINTS:
        return np.eye(3)
    a, b = matches.a_px, matches.b_px
    if kind.name == "affine":
        found, _ = cv2.estimateAffine2D(a, b, method=cv2.RANSAC, ransacReprojThreshold=1.5)
        return np.eye(3) if found is None else np.vstack([found, [0, 0, 1]])
    if kind.name == "homography":
        found, _ = cv2.findHomography(a, b, cv2.RANSAC, 1.5)
        return np.eye(3) if found is None else found
    k = camera_matrix(kind.focal_px, kind.to_unit)
    rays = [np.column_stack([p, np.ones(len(p))]) @ np.linalg.inv(k).T for p in (a, b)]
    rays = [r / np.linalg.norm(r, axis=1, keepdims=True) for r in rays]
    weight = matches.weight.copy()
    turn = Rotation.identity()
    for _ in range(12):  # Kabsch, reweighted (Geman-McClure, 1.5 px)
        turn = Rotation.align_vectors(rays[1], rays[0], weights=weight + 1e-9)[0]
        error_px = np.linalg.norm(turn.apply(rays[0]) - rays[1], axis=1) * kind.focal_px
        weight = matches.weight * (1.5**2 / (1.5**2 + error_px**2)) ** 2
    matrix = k @ turn.as_matrix() @ np.linalg.inv(k)
    return matrix / matrix[2, 2]


def _confidence(pairs: list[Matches], matrices: np.ndarray, frame_count: int) -> np.ndarray:
    """(T,) share of a frame's matches within 2 px; 0 without matches."""
    good, total = np.zeros(frame_count), np.zeros(frame_count)
    for m in pairs:
        if not len(m.weight):
            continue
        inlier = np.linalg.norm(residual_px(m, matrices[m.a], matrices[m.b]), axis=1) < 2.0
        for t in (m.a, m.b):
            good[t] += (inlier * m.weight).sum()
            total[t] += m.weight.sum()
    return (good / np.maximum(total, 1e-9)).astype(np.float32)


def place_on_roll(
    store: ClipStore, layer: int, matrices: np.ndarray, camera: np.ndarray
) -> tuple[np.ndarray, Roll, Size] | None:
    """The cylinder's canvas for a layer that is seen too far round for a plane, else None.

    Args:
        matrices: (T, 3, 3) of determinant 1, to the reference frame. camera: (3, 3).
    Returns:
        (T, 3, 3) frame pixels to rays, the roll, the canvas.
    """
    seen = [_pixels_of(store, layer, t) for t in range(len(matrices))]
    if angles_off(matrices, camera, seen) <= FLAT_DEG:
        return None
    to_rays, roll = rolled(matrices, camera, camera[:2, 2])
    shown = [
        roll.uv(t, np.column_stack([xy, np.ones(len(xy))]) @ to_rays[t].T)
        for t, xy in enumerate(seen)
        if len(xy)
    ]
    middle = roll.uv(len(matrices) // 2, np.array([0.0, 0.0, 1.0]))
    origin, canvas = _span(shown, middle)
    log.info("the camera turns far: a canvas of %s is rolled out from a cylinder", canvas)
    return to_rays, replace(roll, origin=(float(origin[0]), float(origin[1]))), canvas


def place_on_canvas(store: ClipStore, layer: int, matrices: np.ndarray) -> tuple[np.ndarray, Size]:
    """Shift the transforms so that all that the clip shows of the layer lies on one canvas.

    Returns the (T, 3, 3) shifted matrices and the canvas; see `_span` for what is left off it.
    """
    shown = []
    for t, matrix in enumerate(matrices):
        uv = apply_homography(matrix, _pixels_of(store, layer, t))
        uv = uv[np.isfinite(uv).all(1)]
        if len(uv):
            shown.append(uv)
    if not shown:
        return matrices, store.size
    middle = np.array([store.size.wh], np.float64) / 2
    centre = apply_homography(matrices[len(matrices) // 2], middle)[0]
    shift = np.eye(3)
    shift[:2, 2], canvas = _span(shown, centre)
    return shift @ matrices, canvas


def _pixels_of(store: ClipStore, layer: int, t: int) -> np.ndarray:
    """(N, 2) float64: every fourth pixel, across and down, that shows something of a layer."""
    y, x = np.nonzero(store.share(layer, t)[::4, ::4] > 0.05)
    return np.stack([x, y], -1).astype(np.float64) * 4


def _span(shown: list[np.ndarray], centre: np.ndarray) -> tuple[np.ndarray, Size]:
    """The shift that brings positions onto a canvas, and its size.

    Parts that would need a canvas of more than `CANVAS_LIMIT` texels a side (a transform near
    infinity) are left off it.

    Args:
        shown: (N, 2) texels of each frame. centre: (2,) texels about which the canvas is limited.
    """
    low = np.min([uv.min(0) for uv in shown], 0) - 4
    high = np.max([uv.max(0) for uv in shown], 0) + 4
    low = np.floor(np.maximum(low, centre - CANVAS_LIMIT / 2) - CANVAS_MARGIN)
    high = np.ceil(np.minimum(high, centre + CANVAS_LIMIT / 2) + CANVAS_MARGIN)
    width, height = (high - low).astype(int) + 1
    return -low, Size(int(height), int(width))
