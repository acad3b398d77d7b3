"""The bending that a sky is allowed: what a lens or a rolling shutter does.

Clouds change their shapes and pass each other. A map that follows them rebuilds the old sky better,
and puts the new one on jelly. So a sky's residual keeps only its quadratic part in the place.
"""

from __future__ import annotations

import numpy as np

from atlas.layered import LayerMotion
from atlas.store import ClipStore

RIDGE = (1e-4, 1e-3, 1e-3, 5e-3, 5e-3, 5e-3)
"""Pull to 0 of 1, x, y, x^2, x y, y^2 in [-1, 1], per point: a narrow strip tells only some."""
FEWEST_POINTS = 12
REACH = 0.1
"""How far the bending goes on beyond what is seen, frame widths; from there it stays constant."""


def bend_as_a_lens(motion: LayerMotion, store: ClipStore, layer: int, first: int = 0) -> None:
    """Replace a residual, from frame `first` on, by its quadratic part where the layer is seen."""
    assert motion.residual is not None
    step = motion.stride_px
    for t in range(first, len(motion.residual)):
        lattice = motion.residual[t]
        rows, columns = lattice.shape[:2]
        y = np.minimum(np.arange(rows) * step, store.size.height - 1)
        x = np.minimum(np.arange(columns) * step, store.size.width - 1)
        seen = store.share(layer, t)[np.ix_(y, x)] > 0.5
        motion.residual[t] = quadratic_part(lattice, seen)


def quadratic_part(lattice: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """(h, w, C) float32: the least-squares quadratic of an (h, w, C) lattice's seen points.

    Zero where too few are seen.

    Args:
        seen: (h, w) bool.
    """
    if np.count_nonzero(seen) < FEWEST_POINTS:
        return np.zeros_like(lattice)
    rows, columns = seen.shape
    scale = 2 / max(rows, columns)
    y = (np.arange(rows) - (rows - 1) / 2) * scale
    x = (np.arange(columns) - (columns - 1) / 2) * scale
    inside = [_held(axis, seen.any(1 - i)) for i, axis in enumerate((y, x))]
    terms = _terms(*np.meshgrid(*inside, indexing="ij"))
    known, values = terms[seen], lattice[seen].astype(np.float64)
    pull = np.diag(RIDGE) * len(known)
    weights = np.linalg.solve(known.T @ known + pull, known.T @ values)
    return (terms @ weights).astype(np.float32)


def _held(axis: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Positions along an axis, held `REACH` beyond the first and the last that are seen."""
    where = axis[seen]
    return axis.clip(where[0] - 2 * REACH, where[-1] + 2 * REACH)


def _terms(y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """(h, w, 6): 1, x, y, x^2, x y, y^2."""
    return np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], -1)
