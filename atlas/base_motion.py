"""Base motion of a layer in closed form: one parametric transform per frame, jointly refined.

Each layer's frames are tied to one canvas by a homography (a pure rotation K R K^-1 for a sky, an
affine map for small objects). Neighbouring frames are matched along the optical flow; then all
transforms are refined together over near and far frame pairs, so that they do not drift
(bundle adjustment on homographies: Szeliski and Shum 1997, "Creating full view panoramic mosaics").
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

import cv2
import numpy as np
from scipy import sparse
from scipy.sparse.linalg import spsolve
from scipy.spatial.transform import Rotation

from atlas.coords import Size, apply_homography
from atlas.mapping import visible_shares
from atlas.store import ClipStore

log = logging.getLogger(__name__)

POINTS_PER_PAIR = 240
MIN_POINTS = 16
DEFAULT_FOCAL_WIDTHS = 0.85
"""Focal length over the frame's longer side where nothing tells it: a 61 degree view."""


@dataclass(frozen=True)
class Matches:
    """Matched positions of one frame pair: `a_px[i]` in frame `a` is `b_px[i]` in frame `b`."""

    a: int
    b: int
    a_px: np.ndarray
    b_px: np.ndarray
    weight: np.ndarray


@dataclass(frozen=True)
class BaseMotion:
    """One layer's base motion.

    matrices: (T, 3, 3) float64, frame pixels -> canvas texels.
    canvas: the canvas's size, texels.
    confidence: (T,) float32 in [0, 1]: share of the matches that agree with the transform.
    model: "homography", "affine" or "rotation".
    """

    matrices: np.ndarray
    canvas: Size
    confidence: np.ndarray
    model: str


@dataclass
class _Model:
    """A parametrisation: matrices from updates around the present estimate."""

    name: str
    to_unit: np.ndarray
    focal_px: float
    generators: list[np.ndarray] = field(default_factory=list)

    def step(self, matrix: np.ndarray, update: np.ndarray) -> np.ndarray:
        """`matrix` (frame px -> reference px) moved by `update`, in the model's own parameters."""
        if self.name == "rotation":
            k = camera_matrix(self.focal_px, self.to_unit)
            turn = Rotation.from_rotvec(update).as_matrix()
            moved = k @ turn @ np.linalg.inv(k) @ matrix
        else:
            change = np.eye(3) + sum(u * g for u, g in zip(update, self.generators, strict=True))
            moved = np.linalg.inv(self.to_unit) @ change @ self.to_unit @ matrix
        return moved / moved[2, 2]

    @property
    def count(self) -> int:
        return 3 if self.name == "rotation" else len(self.generators)


def camera_matrix(focal_px: float, to_unit: np.ndarray) -> np.ndarray:
    """(3, 3) pinhole K with the principal point at the frame's centre, square pixels."""
    centre = -to_unit[:2, 2] / to_unit[0, 0]
    return np.array([[focal_px, 0, centre[0]], [0, focal_px, centre[1]], [0, 0, 1.0]])


def unit_matrix(size: Size) -> np.ndarray:
    """(3, 3): pixels to [-1, 1] about the frame's centre, longer side, one scale for both axes."""
    s = 2 / max(size.width, size.height)
    cx, cy = (size.width - 1) / 2, (size.height - 1) / 2
    return np.array([[s, 0, -s * cx], [0, s, -s * cy], [0, 0, 1.0]])


def _model(name: str, size: Size, focal_px: float) -> _Model:
    basis = {
        "affine": [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)],
        "homography": [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0), (2, 1)],
        "rotation": [],
    }
    if name not in basis:
        raise ValueError(f"model must be one of {sorted(basis)}, got {name!r}")
    generators = []
    for row, column in basis[name]:
        g = np.zeros((3, 3))
        g[row, column] = 1
        generators.append(g)
    return _Model(name, unit_matrix(size), focal_px, generators)


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
    kind = _model(model, size, focal)
    near = [match_along_flow(store, layer, t) for t in range(store.frame_count - 1)]
    matrices = _chain(near, kind, store.frame_count, reference)
    pairs = list(near)
    for step in _strides(store.frame_count):
        far = [
            match_by_warp(store, layer, (t, t + step), (matrices[t], matrices[t + step]))
            for t in range(0, store.frame_count - step, max(step // 2, 1))
        ]
        pairs += [m for m in far if len(m.weight) >= MIN_POINTS]
        matrices = refine_jointly(pairs, matrices, kind, reference)
    if store.frame_count > 1:
        matrices = refine_jointly(pairs, matrices, kind, reference)
    confidence = _confidence(pairs, matrices, store.frame_count)
    matrices, canvas = place_on_canvas(store, layer, matrices)
    return BaseMotion(matrices, canvas, confidence, model)


def _strides(frame_count: int) -> list[int]:
    return [s for s in (4, 12, 36, 108, 324) if s < frame_count]


def match_along_flow(store: ClipStore, layer: int, t: int) -> Matches:
    """Matches between frames `t` and `t + 1` on a grid, from the stored flow, where it is sure."""
    forward = store.flow(t, t + 1).astype(np.float32)
    backward = store.flow(t + 1, t).astype(np.float32)
    return _select(store, layer, (t, t + 1), (forward, backward))


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
    scale = np.float32([size.width / half[0], size.height / half[1]])
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
        above_a, above_b = shares_a[:layer].max(0), shares_b[:layer].max(0)
        chosen = weight * (above_a[y, x] > 0.5) * (above_b[ye, xe] > 0.5)
    keep = np.flatnonzero(chosen > 0.05)
    if len(keep) > POINTS_PER_PAIR:  # spread evenly over the layer, not over the best corner
        keep = keep[np.linspace(0, len(keep) - 1, POINTS_PER_PAIR).astype(int)]
    return Matches(a, b, start[keep], end[keep], chosen[keep])


def _inner_shares(store: ClipStore, t: int) -> np.ndarray:
    """(L, H, W) uint8: 1 well inside each layer's visible part (edges carry the other's flow)."""
    shares = (visible_shares(store.alpha(t)) > 0.5).astype(np.uint8)
    reach = max(3, max(store.size.wh) // 150) | 1
    kernel = np.ones((reach, reach), np.uint8)
    return np.stack([cv2.erode(s, kernel, borderValue=1) for s in shares])


def _grid_points(size: Size) -> tuple[np.ndarray, np.ndarray]:
    step = max(3, max(size.wh) // 110)
    y, x = np.mgrid[step // 2 : size.height : step, step // 2 : size.width : step]
    return x.ravel(), y.ravel()


def texture_measure(grey: np.ndarray) -> np.ndarray:
    """(H, W) float32: smaller eigenvalue of the structure tensor over 15 px (Shi and Tomasi 1994).

    In squared grey levels per squared pixel; sensor and coding noise of one level gives about 0.2.
    """
    return cv2.cornerMinEigenVal(cv2.GaussianBlur(grey, (0, 0), 1.0).astype(np.float32), 15, 3) * (
        1 / 64
    )


def _chain(near: list[Matches], kind: _Model, frame_count: int, reference: int) -> np.ndarray:
    """(T, 3, 3): transforms to the reference frame by chaining those between neighbours."""
    matrices = np.tile(np.eye(3), (frame_count, 1, 1))
    links = [fit_pair(m, kind) for m in near]
    for t in range(reference, frame_count - 1):
        matrices[t + 1] = matrices[t] @ np.linalg.inv(links[t])
    for t in range(reference - 1, -1, -1):
        matrices[t] = matrices[t + 1] @ links[t]
    return matrices / matrices[:, 2:, 2:]


def fit_pair(matches: Matches, kind: _Model) -> np.ndarray:
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
        turn, _ = Rotation.align_vectors(rays[1], rays[0], weights=weight + 1e-9)
        error_px = np.linalg.norm(turn.apply(rays[0]) - rays[1], axis=1) * kind.focal_px
        weight = matches.weight * (1.5**2 / (1.5**2 + error_px**2)) ** 2
    matrix = k @ turn.as_matrix() @ np.linalg.inv(k)
    return matrix / matrix[2, 2]


def refine_jointly(
    pairs: list[Matches], matrices: np.ndarray, kind: _Model, reference: int, rounds: int = 5
) -> np.ndarray:
    """Gauss-Newton over all frames' transforms at once; the reference frame stays put.

    Minimises sum w rho(|pi(H_b^-1 H_a x_a) - x_b|) with Geman-McClure's rho at 2 px. A weak pull
    to the present estimate holds frames that no match ties down.
    """
    pairs = [m for m in pairs if len(m.weight) >= MIN_POINTS]
    if not pairs:
        return matrices
    for _ in range(rounds):
        matrices = _gauss_newton_step(pairs, matrices, kind, reference)
    return matrices


def _gauss_newton_step(
    pairs: list[Matches], matrices: np.ndarray, kind: _Model, reference: int
) -> np.ndarray:
    n, count = kind.count, len(matrices)
    blocks: dict[tuple[int, int], np.ndarray] = {}
    right = np.zeros(count * n)
    for m in pairs:
        residual = _residual(m, matrices[m.a], matrices[m.b])
        squared = (residual**2).sum(1)
        w = np.sqrt(m.weight) * 4.0 / (4.0 + squared)
        ja, jb = _pair_jacobian(m, matrices, kind, residual)
        ja, jb, r = ja * w[:, None, None], jb * w[:, None, None], residual * w[:, None]
        for i, ji in ((m.a, ja), (m.b, jb)):
            right[i * n : (i + 1) * n] -= np.einsum("pcn,pc->n", ji, r)
            for j, jj in ((m.a, ja), (m.b, jb)):
                block = np.einsum("pcn,pcm->nm", ji, jj)
                blocks[i, j] = blocks.get((i, j), 0) + block
    rows = [np.repeat(np.arange(i * n, (i + 1) * n), n) for i, _ in blocks]
    columns = [np.tile(np.arange(j * n, (j + 1) * n), n) for _, j in blocks]
    values = [b.ravel() for b in blocks.values()]
    normal = sparse.csc_matrix(
        (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))),
        shape=(count * n, count * n),
    )
    damping = np.full(count * n, 1e-4 * max(normal.diagonal().mean(), 1e-9))
    damping[reference * n : (reference + 1) * n] = 1e12
    update = spsolve(normal + sparse.diags(damping, format="csc"), right).reshape(count, n)
    limit = 0.05
    update = np.clip(np.nan_to_num(update), -limit, limit)
    return np.stack([kind.step(matrix, u) for matrix, u in zip(matrices, update, strict=True)])


def _residual(m: Matches, matrix_a: np.ndarray, matrix_b: np.ndarray) -> np.ndarray:
    projected = apply_homography(np.linalg.inv(matrix_b) @ matrix_a, m.a_px)
    return np.nan_to_num(projected - m.b_px, nan=1e3)


def _pair_jacobian(
    m: Matches, matrices: np.ndarray, kind: _Model, residual: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(N, 2, n) derivatives of the residual by either frame's parameters, forward differences."""
    h = 1e-6
    ja = np.empty((*residual.shape, kind.count))
    jb = np.empty_like(ja)
    for k in range(kind.count):
        step = np.zeros(kind.count)
        step[k] = h
        ja[..., k] = (_residual(m, kind.step(matrices[m.a], step), matrices[m.b]) - residual) / h
        jb[..., k] = (_residual(m, matrices[m.a], kind.step(matrices[m.b], step)) - residual) / h
    return ja, jb


def _confidence(pairs: list[Matches], matrices: np.ndarray, frame_count: int) -> np.ndarray:
    """(T,) share of a frame's matches within 2 px; 0 without matches."""
    good, total = np.zeros(frame_count), np.zeros(frame_count)
    for m in pairs:
        if not len(m.weight):
            continue
        inlier = np.linalg.norm(_residual(m, matrices[m.a], matrices[m.b]), axis=1) < 2.0
        for t in (m.a, m.b):
            good[t] += (inlier * m.weight).sum()
            total[t] += m.weight.sum()
    return (good / np.maximum(total, 1e-9)).astype(np.float32)


def place_on_canvas(
    store: ClipStore, layer: int, matrices: np.ndarray, margin: int = 8, limit: int = 6000
) -> tuple[np.ndarray, Size]:
    """Shift the transforms so that all that the clip shows of the layer lies on one canvas.

    Returns the (T, 3, 3) shifted matrices and the canvas. Parts that would need a canvas of more
    than `limit` texels a side (a transform near infinity) are left off it.
    """
    lows, highs = [], []
    for t, matrix in enumerate(matrices):
        share = store.share(layer, t)[::4, ::4] > 0.05
        y, x = np.nonzero(share)
        if not len(x):
            continue
        uv = apply_homography(matrix, np.stack([x, y], -1).astype(np.float64) * 4)
        uv = uv[np.isfinite(uv).all(1)]
        if len(uv):
            lows.append(uv.min(0) - 4)
            highs.append(uv.max(0) + 4)
    if not lows:
        return matrices, store.size
    centre = apply_homography(matrices[len(matrices) // 2], np.float64([store.size.wh]) / 2)[0]
    low = np.maximum(np.min(lows, 0), centre - limit / 2) - margin
    high = np.minimum(np.max(highs, 0), centre + limit / 2) + margin
    shift = np.eye(3)
    shift[:2, 2] = -np.floor(low)
    width, height = np.ceil(high - np.floor(low)).astype(int) + 1
    return shift @ matrices, Size(int(height), int(width))
