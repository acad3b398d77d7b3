"""All frames' transforms refined at once over near and far pairs, so that they do not drift.

Bundle adjustment on homographies (Szeliski and Shum 1997, "Creating full view panoramic mosaics"),
the focal length, where the camera turns far enough to tell it, among the unknowns.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import spsolve

from atlas.coords import apply_homography
from atlas.matches import MIN_POINTS, Matches
from atlas.motion_model import MotionModel

LONGEST_STEP = 0.05
"""Largest change of a transform's parameter in one step of Gauss and Newton; unit coordinates."""
FOCAL_TURN = 0.25
"""A pan of less than this share of the frame's width does not tell the focal length exactly."""
FOCAL_PAIR = 0.08
"""Pairs that turn by less than this share of the frame's width say nothing of it: the error of a
flow outweighs what the lens bends."""
STEP = FOCAL_STEP = 1e-6
"""What parameters are moved by to find derivatives."""
NEAREST = 1e-12
"""Depths below this lie behind the camera."""
BEHIND_PX = 1e3
"""Residual of a point that a transform sends behind the camera."""


def refine_jointly(
    pairs: list[Matches], matrices: np.ndarray, kind: MotionModel, reference: int, rounds: int = 5
) -> np.ndarray:
    """Gauss-Newton over all frames' transforms at once; the reference frame stays put.

    Minimises sum w rho(|pi(H_b^-1 H_a x_a) - x_b|) with Geman-McClure's rho at 2 px. A weak pull
    to the present estimate holds frames that no match ties down. Where the model's focal length is
    free and the camera turns far enough, it is refined as well, in `kind`.
    """
    pairs = [m for m in pairs if len(m.weight) >= MIN_POINTS]
    if not pairs:
        return matrices
    for _ in range(rounds):
        matrices = _gauss_newton_step(pairs, matrices, kind, reference)
    return matrices


def _gauss_newton_step(
    pairs: list[Matches], matrices: np.ndarray, kind: MotionModel, reference: int
) -> np.ndarray:
    n, count = kind.count, len(matrices)
    equations = _Equations(n, count)
    zoomed = None
    if kind.name == "rotation" and kind.focal_is_free and reach_of(matrices, kind) > FOCAL_TURN:
        zoomed = kind.zoomed(matrices, 1 + FOCAL_STEP)
    moved = np.stack([_moved(matrix, kind) for matrix in matrices])
    back = np.linalg.inv(moved)
    for m in pairs:
        residual, ja, jb = _linearised(m, (moved[m.a], back[m.b]))
        squared = (residual**2).sum(1)
        w = (np.sqrt(m.weight) * 4.0 / (4.0 + squared))[:, None]
        ja, jb = ja * w[..., None], jb * w[..., None]
        equations.add((m.a, m.b), (ja, jb), residual * w)
        if zoomed is not None and reach_of(matrices[[m.a, m.b]], kind) > FOCAL_PAIR:
            by_focal = (residual_px(m, zoomed[m.a], zoomed[m.b]) - residual) / FOCAL_STEP
            equations.add_shared((m.a, m.b), (ja, jb), by_focal * w, residual * w)
    update, factor = equations.solved(reference, shared=zoomed is not None)
    if zoomed is not None:
        matrices = kind.zoomed(matrices, 1 + factor)
        kind.focal_px *= 1 + factor
    return np.stack([kind.step(matrix, u) for matrix, u in zip(matrices, update, strict=True)])


def _moved(matrix: np.ndarray, kind: MotionModel) -> np.ndarray:
    """(1 + n, 3, 3): a transform, and it moved by `STEP` in each of its n parameters."""
    steps = [kind.step(matrix, step) for step in np.eye(kind.count) * STEP]
    return np.stack([matrix, *steps])


def _linearised(
    m: Matches, views: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A pair's residual and its derivatives by either frame's parameters, forward differences.

    Args:
        views: (1 + n, 3, 3) each: `_moved` of frame a's transform, and the inverses of frame b's.
    Returns:
        (N, 2) px, (N, 2, n), (N, 2, n).
    """
    forth, back = views
    products = np.concatenate([back[0] @ forth, back[1:] @ forth[0]])  # (1 + 2 n, 3, 3)
    points = np.column_stack([m.a_px, np.ones(len(m.a_px))])
    moved = (points @ products.reshape(-1, 3).T).reshape(len(points), -1, 3)
    ahead = moved[..., 2] > NEAREST
    depth = np.where(ahead, moved[..., 2], 1.0)[..., None]
    residual = np.where(ahead[..., None], moved[..., :2] / depth - m.b_px[:, None], BEHIND_PX)
    slopes = (residual[:, 1:] - residual[:, :1]).transpose(0, 2, 1) / STEP  # (N, 2, 2 n)
    n = len(forth) - 1
    return residual[:, 0], slopes[..., :n], slopes[..., n:]


class _Equations:
    """Normal equations of n unknowns for each of `count` frames, and of one that all share."""

    def __init__(self, n: int, count: int):
        self.n, self.count = n, count
        self.blocks: dict[tuple[int, int], np.ndarray] = {}
        self.right = np.zeros((count, n))
        self.border, self.corner, self.shared_right = np.zeros((count, n)), 0.0, 0.0

    def add(
        self, pair: tuple[int, int], jacobians: tuple[np.ndarray, np.ndarray], residual: np.ndarray
    ) -> None:
        """Take in a pair's weighted (N, 2, n) derivatives and (N, 2) residuals."""
        flat = [j.reshape(-1, self.n) for j in jacobians]  # matrix products are quicker than einsum
        for i, ji in zip(pair, flat, strict=True):
            self.right[i] -= ji.T @ residual.ravel()
            for j, jj in zip(pair, flat, strict=True):
                self.blocks[i, j] = self.blocks.get((i, j), 0) + ji.T @ jj

    def add_shared(
        self,
        pair: tuple[int, int],
        jacobians: tuple[np.ndarray, np.ndarray],
        by_shared: np.ndarray,
        residual: np.ndarray,
    ) -> None:
        """The same pair's (N, 2) derivatives by what all frames share."""
        for i, ji in zip(pair, jacobians, strict=True):
            self.border[i] += ji.reshape(-1, self.n).T @ by_shared.ravel()
        self.corner += float((by_shared**2).sum())
        self.shared_right -= float((by_shared * residual).sum())

    def solved(self, reference: int, shared: bool) -> tuple[np.ndarray, float]:
        """(count, n) updates, that of the reference 0, and the shared one."""
        n, total = self.n, self.count * self.n
        rows = [np.repeat(np.arange(i * n, (i + 1) * n), n) for i, _ in self.blocks]
        columns = [np.tile(np.arange(j * n, (j + 1) * n), n) for _, j in self.blocks]
        values = [b.ravel() for b in self.blocks.values()]
        normal = sparse.csc_matrix(
            (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))),
            shape=(total, total),
        )
        damping = np.full(total, 1e-4 * max(normal.diagonal().mean(), 1e-9))
        damping[reference * n : (reference + 1) * n] = 1e12
        normal = normal + sparse.diags(damping, format="csc")
        right = self.right.ravel()
        if shared:
            edge = sparse.csc_matrix(self.border.reshape(-1, 1))
            corner = sparse.csc_matrix([[self.corner * 1.001 + 1e-9]])
            normal = sparse.bmat([[normal, edge], [edge.T, corner]])
            right = np.append(right, self.shared_right)
        found = np.asarray(spsolve(sparse.csc_matrix(normal), right))
        found = np.clip(np.nan_to_num(found), -LONGEST_STEP, LONGEST_STEP)
        return found[:total].reshape(self.count, n), float(found[-1]) if shared else 0.0


def reach_of(matrices: np.ndarray, kind: MotionModel) -> float:
    """How far the picture's middle moves from the first of (N, 3, 3) frames on; frame widths."""
    centre = np.append(-kind.to_unit[:2, 2] / kind.to_unit[0, 0], 1)
    x, y, depth = np.moveaxis(np.linalg.inv(matrices[0]) @ matrices @ centre, -1, 0)
    if (depth <= 1e-6).any():
        return np.inf  # by more than a right angle
    px = np.hypot(x / depth - centre[0], y / depth - centre[1])
    return float(px.max()) * kind.to_unit[0, 0] / 2


def residual_px(m: Matches, matrix_a: np.ndarray, matrix_b: np.ndarray) -> np.ndarray:
    """(N, 2) where a pair's transforms send its first points, off its second ones, pixels."""
    projected = apply_homography(np.linalg.inv(matrix_b) @ matrix_a, m.a_px)
    return np.nan_to_num(projected - m.b_px, nan=BEHIND_PX)
