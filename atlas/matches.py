"""Matched points of a layer between two frames, near ones along the flow, far ones by warping."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from atlas.boxes import box_about
from atlas.coords import Size, apply_homography
from atlas.mapping import visible_shares
from atlas.store import ClipStore

POINTS_PER_PAIR = 240
MIN_POINTS = 16
MASK_MARGIN_PX = 16
"""How much of the painted-over surroundings the flow of a small layer sees."""
OPAQUE = 0.97
"""What covers a layer by more than this hides it."""
FLOW_SIDE_PX = 160
"""Smaller pictures are enlarged for flow, up to three times."""


@dataclass(frozen=True)
class Matches:
    """Matched positions of one frame pair: `a_px[i]` in frame `a` is `b_px[i]` in frame `b`."""

    a: int
    b: int
    a_px: np.ndarray
    b_px: np.ndarray
    weight: np.ndarray


def match_along_flow(store: ClipStore, layer: int, t: int) -> Matches:
    """Matches between frames `t` and `t + 1` on a grid, from the stored flow, where it is sure."""
    forward = store.flow(t, t + 1).astype(np.float32)
    backward = store.flow(t + 1, t).astype(np.float32)
    return _select(store, layer, (t, t + 1), (forward, backward))


def match_in_mask(store: ClipStore, layer: int, t: int) -> Matches:
    """Matches of a small layer between frames `t` and `t + 1`, by a flow that sees nothing else.

    What is beside the layer is painted over with the layer's mean, and the shift of its mask's
    centre is taken out first. So neither a background that moves the other way nor an edge in
    front drags the flow along, which it does when the layer is small or fast.
    """
    inner = [_inner_shares(store, frame)[layer] > 0 for frame in (t, t + 1)]
    if min(int(mask.sum()) for mask in inner) < 2 * MIN_POINTS:
        return Matches(t, t + 1, np.empty((0, 2)), np.empty((0, 2)), np.empty(0))
    greys = [store.grey(frame).astype(np.float32) for frame in (t, t + 1)]
    mean = sum(float(g[m].mean()) for g, m in zip(greys, inner, strict=True)) / 2
    alone = [np.where(m, g, mean) for g, m in zip(greys, inner, strict=True)]
    centres = [np.argwhere(mask)[:, ::-1].mean(0) for mask in inner]
    shift = np.rint(centres[1] - centres[0])
    back = np.array([[1, 0, -shift[0]], [0, 1, -shift[1]]], np.float32)
    alone[1] = mean + cv2.warpAffine(alone[1] - mean, back, store.size.wh)  # beside it: the mean
    inner[1] = cv2.warpAffine(inner[1].astype(np.uint8), back, store.size.wh) > 0
    box = box_about(inner[0] | inner[1], MASK_MARGIN_PX)
    assert box is not None
    first, second = (picture[box.cut] for picture in alone)
    forward, backward = _flow_of_small(first, second), _flow_of_small(second, first)
    y, x = np.nonzero(inner[0][box.cut])
    step = max(1, int(np.sqrt(len(x) / (2 * POINTS_PER_PAIR))))
    on_grid = (x % step == 0) & (y % step == 0)
    x, y = x[on_grid], y[on_grid]
    moved = np.stack([x, y], -1) + forward[y, x]
    xb, yb = np.rint(moved).astype(int).T
    height, width = first.shape
    ok = (xb >= 0) & (yb >= 0) & (xb < width) & (yb < height)
    x, y, xb, yb, moved = x[ok], y[ok], xb[ok], yb[ok], moved[ok]
    cycle = np.linalg.norm(forward[y, x] + backward[yb, xb], axis=1)
    texture = texture_measure(store.grey(t))[box.cut][y, x]
    weight = texture / (texture + 1.0) * (cycle < 1.0) * inner[1][box.cut][yb, xb]
    keep = np.flatnonzero(weight > 0.05)
    if len(keep) > POINTS_PER_PAIR:
        keep = keep[np.linspace(0, len(keep) - 1, POINTS_PER_PAIR).astype(int)]
    corner = np.array([box.left, box.top], np.float64)
    start = np.stack([x, y], -1)[keep] + corner
    return Matches(t, t + 1, start, moved[keep] + corner + shift, weight[keep])


def _flow_of_small(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(h, w, 2) float32 px: DIS flow of small pictures, enlarged so that its patches fit."""
    height, width = first.shape
    scale = float(np.clip(FLOW_SIDE_PX / min(height, width), 1, 3))
    large = (max(round(width * scale), 16), max(round(height * scale), 16))
    a, b = (
        np.rint(cv2.resize(picture, large, interpolation=cv2.INTER_CUBIC)).clip(0, 255)
        for picture in (first, second)
    )
    dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    flow = cv2.resize(dis.calc(a.astype(np.uint8), b.astype(np.uint8), None), (width, height))
    return flow * np.array([width / large[0], height / large[1]], np.float32)


def match_by_warp(
    store: ClipStore, layer: int, pair: tuple[int, int], matrices: tuple[np.ndarray, np.ndarray]
) -> Matches:
    """Matches between frames far apart: warp one by the present estimate, flow at half size.

    Args:
        pair: frame indices (a, b). matrices: their transforms to the reference, (3, 3) each.
    """
    a, b = pair
    a_to_b = np.linalg.inv(matrices[1]) @ matrices[0]
    size = store.size
    warped = cv2.warpPerspective(
        store.grey(b), a_to_b, size.wh, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    )
    inside = cv2.warpPerspective(
        np.ones((size.height, size.width), np.uint8),
        a_to_b,
        size.wh,
        flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP,
    )
    if inside.mean() < 0.15:
        return Matches(a, b, np.empty((0, 2)), np.empty((0, 2)), np.empty(0))
    half = (max(size.width // 2, 16), max(size.height // 2, 16))
    small = [cv2.resize(g, half, interpolation=cv2.INTER_AREA) for g in (store.grey(a), warped)]
    dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    scale = np.array([size.width / half[0], size.height / half[1]], np.float32)
    forward, backward = (
        cv2.resize(dis.calc(small[i], small[1 - i], None), size.wh) * scale for i in (0, 1)
    )
    return _select(store, layer, pair, (forward, backward), a_to_b, inside > 0)


def _select(
    store: ClipStore,
    layer: int,
    pair: tuple[int, int],
    flows: tuple[np.ndarray, np.ndarray],
    a_to_b: np.ndarray | None = None,
    inside: np.ndarray | None = None,
) -> Matches:
    """Choose grid points of the layer where the flow is consistent and the picture has texture."""
    a, b = pair
    forward, backward = flows
    x, y = _grid_points(store.size)
    moved = np.stack([x, y], -1) + forward[y, x]
    xb, yb = np.rint(moved).astype(int).T
    ok = (xb >= 0) & (yb >= 0) & (xb < store.size.width) & (yb < store.size.height)
    x, y, xb, yb, moved = x[ok], y[ok], xb[ok], yb[ok], moved[ok]
    cycle = np.linalg.norm(forward[y, x] + backward[yb, xb], axis=1)
    ok = cycle < 1.0
    if inside is not None:
        ok &= inside[yb, xb]
    start = np.stack([x, y], -1).astype(np.float64)
    end = moved.astype(np.float64) if a_to_b is None else apply_homography(a_to_b, moved)
    xe, ye = np.rint(np.nan_to_num(end, nan=-1)).astype(int).T
    ok &= (xe >= 0) & (ye >= 0) & (xe < store.size.width) & (ye < store.size.height)
    texture = texture_measure(store.grey(a))[y, x]
    weight = texture / (texture + 1.0) * ok
    xe, ye = xe.clip(0, store.size.width - 1), ye.clip(0, store.size.height - 1)
    shares_a, shares_b = (_inner_shares(store, t) for t in (a, b))
    chosen = weight * (shares_a[layer][y, x] > 0.5) * (shares_b[layer][ye, xe] > 0.5)
    if (chosen > 0.2).sum() < MIN_POINTS and layer > 0:
        # what lets the sky through (clouds, haze, twigs) may move on its own
        above_a, above_b = (_opaque_above(store, t, layer) for t in (a, b))
        chosen = weight * (above_a[y, x] > 0.5) * (above_b[ye, xe] > 0.5)
    keep = np.flatnonzero(chosen > 0.05)
    if len(keep) > POINTS_PER_PAIR:  # spread evenly over the layer, not over the best corner
        keep = keep[np.linspace(0, len(keep) - 1, POINTS_PER_PAIR).astype(int)]
    return Matches(a, b, start[keep], end[keep], chosen[keep])


def _inner_shares(store: ClipStore, t: int) -> np.ndarray:
    """(L, H, W) uint8: 1 well inside each layer's visible part (edges carry the other's flow)."""
    return np.stack([_inner(share > 0.5) for share in visible_shares(store.alpha(t))])


def _opaque_above(store: ClipStore, t: int, layer: int) -> np.ndarray:
    """(H, W) uint8: 1 well inside where the layers above `layer` let nothing of it through."""
    return _inner(visible_shares(store.alpha(t))[:layer].sum(0) > OPAQUE)


def _inner(mask: np.ndarray) -> np.ndarray:
    reach = max(3, max(mask.shape) // 150) | 1
    return cv2.erode(mask.astype(np.uint8), np.ones((reach, reach), np.uint8), borderValue=1)


def _grid_points(size: Size) -> tuple[np.ndarray, np.ndarray]:
    step = max(3, max(size.wh) // 110)
    y, x = np.mgrid[step // 2 : size.height : step, step // 2 : size.width : step]
    return x.ravel(), y.ravel()


def texture_measure(grey: np.ndarray) -> np.ndarray:
    """(H, W) float32: smaller eigenvalue of the structure tensor over 15 px (Shi and Tomasi 1994).

    In squared grey levels per squared pixel; sensor and coding noise of one level gives about 0.2.
    """
    return cv2.cornerMinEigenVal(
        cv2.GaussianBlur(grey, (0, 0), 1.0).astype(np.float32), 15, ksize=3
    ) * (1 / 64)
