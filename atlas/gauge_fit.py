"""The numbers behind a gauge: homography and smooth residual from corresponding texels."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from scipy.sparse import csr_matrix

from atlas.coords import Size, apply_homography

ROBUST_PX = 1.0
"""Residual beyond which a correspondence pulls less and less; pixels of the frame. Where mappings
differ by more throughout, twice the median residual."""
GRID = 9
"""Nodes of the smooth residual along either side of the canvas."""
_STEPS = 40


@dataclass(frozen=True)
class Correspondences:
    """The same spots of a layer on both canvases.

    uv_a, uv_b: (N, 2) float64 texels. jacobian_b: (N, 2, 2) float64, d uv_b / d frame pixel.
    """

    uv_a: np.ndarray
    uv_b: np.ndarray
    jacobian_b: np.ndarray


def first_homography(pairs: Correspondences) -> np.ndarray:
    """(3, 3): robust homography; an affinity where the points do not span one."""
    a, b = pairs.uv_a, pairs.uv_b
    threshold = 3 * _texels_per_px(pairs)
    matrix, inliers = cv2.findHomography(a, b, cv2.USAC_MAGSAC, threshold, maxIters=5000)
    if matrix is not None and inliers.sum() >= max(8, 0.3 * len(a)):
        return matrix
    ones = np.column_stack([a, np.ones(len(a))])
    solution = np.linalg.lstsq(ones, b, rcond=1e-9)[0].T
    return np.vstack([solution, [0, 0, 1]])


def _texels_per_px(pairs: Correspondences) -> float:
    return float(np.median(np.sqrt(np.abs(np.linalg.det(pairs.jacobian_b)))))


def refine_homography(pairs: Correspondences, matrix: np.ndarray) -> np.ndarray:
    """Minimise sum rho(|J_b^-1 (H uv_a - uv_b)|), px, over the homography's 8 numbers.

    rho is Geman and McClure's loss, r^2 / (s^2 + r^2), by reweighted least squares with damped
    Gauss-Newton steps (Levenberg 1944), from the consensus `matrix`. Positions are centred and
    scaled first (Hartley 1997).

    Returns:
        (3, 3) float64, lower right corner 1.
    """
    norm_a, norm_b = _normaliser(pairs.uv_a), _normaliser(pairs.uv_b)
    a, b = apply_homography(norm_a, pairs.uv_a), apply_homography(norm_b, pairs.uv_b)
    to_px = np.linalg.inv(pairs.jacobian_b) / norm_b[0, 0]
    start = norm_b @ matrix @ np.linalg.inv(norm_a)
    if not np.isfinite(start).all() or abs(start[2, 2]) < 1e-9:
        start = np.eye(3)
    numbers = (start / start[2, 2]).ravel()[:8]

    residual, slope = _residual_px(numbers, a, b, to_px)
    scale2 = max(ROBUST_PX, 2 * float(np.sqrt(np.median(np.square(residual).sum(1))))) ** 2

    def cost(of: np.ndarray) -> float:
        squared = np.square(of).sum(1)
        return float((squared / (scale2 + squared)).sum())

    damping, now = 1e-3, cost(residual)
    for _ in range(_STEPS):
        weight = (1 + np.square(residual).sum(1) / scale2) ** -2
        weighted = slope * weight[:, None, None]
        normal = np.einsum("nij,nik->jk", weighted, slope)
        pull = np.einsum("nij,ni->j", weighted, residual)
        normal += damping * np.diag(np.diag(normal) + 1e-12)
        trial = numbers - np.linalg.solve(normal, pull)
        next_residual, next_slope = _residual_px(trial, a, b, to_px)
        after = cost(next_residual)
        if not after <= now:  # written so that nan is refused too
            damping *= 10
            if damping > 1e6:
                break
            continue
        moved, gained = np.abs(trial - numbers).max(), now - after
        numbers, residual, slope, now = trial, next_residual, next_slope, after
        damping = max(damping / 10, 1e-12)
        if moved < 1e-13 or gained < 1e-12 * max(now, 1e-12):
            break
    refined = np.linalg.inv(norm_b) @ np.append(numbers, 1.0).reshape(3, 3) @ norm_a
    return refined / refined[2, 2]


def _residual_px(
    numbers: np.ndarray, a: np.ndarray, b: np.ndarray, to_px: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Residuals (N, 2) px and their derivative (N, 2, 8) by the homography's numbers."""
    h = np.append(numbers, 1.0).reshape(3, 3)
    ones = np.ones(len(a))
    w = a @ h[2, :2] + 1
    w = np.where(np.abs(w) > 1e-6, w, 1e-6)
    moved = (a @ h[:2, :2].T + h[:2, 2]) / w[:, None]
    row = np.stack([a[:, 0], a[:, 1], ones], axis=1) / w[:, None]
    derivative = np.zeros((len(a), 2, 8))
    derivative[:, 0, 0:3] = row
    derivative[:, 1, 3:6] = row
    derivative[:, :, 6:8] = -moved[:, :, None] * row[:, None, :2]
    return np.einsum("nij,nj->ni", to_px, moved - b), to_px @ derivative


def _normaliser(points: np.ndarray) -> np.ndarray:
    """(3, 3): moves points to mean 0 and mean distance about 1."""
    centre = points.mean(0)
    scale = 1 / max(float(np.linalg.norm(points - centre, axis=1).mean()), 1e-6)
    return np.array([[scale, 0, -scale * centre[0]], [0, scale, -scale * centre[1]], [0, 0, 1]])


def smooth_residual(pairs: Correspondences, matrix: np.ndarray, canvas: Size) -> np.ndarray:
    """(9, 9, 2): node values of the bilinear grid, least squares with a membrane that ties nodes.

    Reweighted five times by Geman-McClure's weight of the residual in px.
    """
    weights_of_nodes = grid_weights(pairs.uv_a, canvas)
    wanted = pairs.uv_b - apply_homography(matrix, pairs.uv_a)
    inverse = np.linalg.inv(pairs.jacobian_b)
    nodes = np.zeros((GRID * GRID, 2))
    for _ in range(5):
        left = np.einsum("nij,nj->ni", inverse, wanted - weights_of_nodes @ nodes)
        weight = 1 / (1 + np.square(left).sum(1) / ROBUST_PX**2)
        weighted = weights_of_nodes.multiply(weight[:, None]).tocsr()
        tie = 1e-3 * weight.sum() / GRID**2  # per node, against that node's share of the data
        normal = (weights_of_nodes.T @ weighted).toarray() + tie * _membrane()
        nodes = np.linalg.solve(normal, weighted.T @ wanted)
    return nodes.reshape(GRID, GRID, 2).astype(np.float32)


def _grid_position(uv: np.ndarray, canvas: Size) -> tuple[np.ndarray, np.ndarray]:
    """Lower node (..., 2) int and fraction (..., 2) of texel positions on the residual's grid."""
    span = np.maximum(np.array(canvas.wh, np.float64) - 1, 1)
    at = np.clip(np.nan_to_num(uv / span) * (GRID - 1), 0, GRID - 1)
    low = np.minimum(at.astype(int), GRID - 2)
    return low, at - low


def bilinear_grid(grid: np.ndarray, uv: np.ndarray, canvas: Size) -> np.ndarray:
    """(..., 2) float64: the residual at (..., 2) texels of canvas a; its border continued."""
    low, f = _grid_position(uv, canvas)
    x, y = low[..., 0], low[..., 1]
    fx, fy = f[..., :1], f[..., 1:]
    top = grid[y, x] * (1 - fx) + grid[y, x + 1] * fx
    bottom = grid[y + 1, x] * (1 - fx) + grid[y + 1, x + 1] * fx
    return top * (1 - fy) + bottom * fy


def grid_weights(uv: np.ndarray, canvas: Size) -> csr_matrix:
    """(N, G * G): row n holds the bilinear weights of the nodes round (N, 2) `uv`."""
    low, f = _grid_position(uv, canvas)
    rows, columns, values = [], [], []
    for dx in (0, 1):
        for dy in (0, 1):
            rows.append(np.arange(len(uv)))
            columns.append((low[:, 1] + dy) * GRID + low[:, 0] + dx)
            wx = f[:, 0] if dx else 1 - f[:, 0]
            wy = f[:, 1] if dy else 1 - f[:, 1]
            values.append(wx * wy)
    entries = (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns)))
    return csr_matrix(entries, shape=(len(uv), GRID * GRID))


def _membrane() -> np.ndarray:
    """(G * G, G * G): sum of squared differences of neighbouring nodes, as a quadratic form."""
    step = np.diff(np.eye(GRID), axis=0)
    along = step.T @ step
    return np.kron(np.eye(GRID), along) + np.kron(along, np.eye(GRID))
