"""Gauge: an atlas is known only up to a reparametrisation of its canvas; find it and undo it.

Two mappings of one clip put the same spot of a layer at different places of different canvases, and
neither is wrong. The gauge G carries canvas a to canvas b so that G(uv_a) = uv_b as well as one map
for the whole clip can: a homography, and optionally a smooth residual on top. What is left of
|G(uv_a) - uv_b| is real disagreement; and an edit painted on one canvas can be seen through the
other mapping (`Regauged`) or carried over as a picture (`transfer_texture`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from scipy.optimize import least_squares
from scipy.sparse import csr_matrix

from atlas.coords import Size, apply_homography
from atlas.mapping import FrameMapping, Layer, LayerMapping
from atlas.metrics import local_jacobian, texels_to_px

SAMPLES_PER_FRAME = 400
"""Correspondences a frame gives at most, so that every frame counts alike."""
FRAMES_AT_MOST = 100
"""Frames looked at by `fit_gauge`, evenly spread."""
ROBUST_PX = 1.0
"""Residual beyond which a correspondence pulls less and less; pixels of the frame. Where mappings
differ by more throughout, twice the median residual."""
_VISIBLE = 0.9
_GRID = 9


@dataclass(frozen=True)
class Gauge:
    """Carries texel positions of canvas a to canvas b.

    matrix: (3, 3) float64 homography. a, b: the canvases' sizes.
    residual: (G, G, 2) float32 texels of b, added after the homography: bilinear over a's canvas,
        corner nodes at its corner texels; None for none.
    """

    matrix: np.ndarray
    a: Size
    b: Size
    residual: np.ndarray | None = None

    def __call__(self, uv: np.ndarray) -> np.ndarray:
        """(..., 2) texels on canvas a to (..., 2) float32 texels on canvas b; nan past infinity."""
        out = apply_homography(self.matrix, uv.astype(np.float64))
        if self.residual is not None:
            out += _bilinear_grid(self.residual, uv, self.a)
        return out.astype(np.float32)

    def inverse(self, uv: np.ndarray) -> np.ndarray:
        """(..., 2) texels on canvas b to (..., 2) float32 texels on canvas a.

        With a residual r, the fixed point of uv_a = H^-1 (uv_b - r(uv_a)): r is small and smooth.
        """
        back = np.linalg.inv(self.matrix)
        back /= back[2, 2]
        uv = uv.astype(np.float64)
        found = apply_homography(back, uv)
        if self.residual is not None:
            for _ in range(20):
                found = apply_homography(back, uv - _bilinear_grid(self.residual, found, self.a))
        return found.astype(np.float32)


@dataclass(frozen=True)
class Correspondences:
    """The same spots of a layer on both canvases.

    uv_a, uv_b: (N, 2) float64 texels. jacobian_b: (N, 2, 2) float64, d uv_b / d frame pixel.
    """

    uv_a: np.ndarray
    uv_b: np.ndarray
    jacobian_b: np.ndarray


class GaugeFit:
    """Gathers correspondences frame by frame, so that streaming mappings can be compared too."""

    def __init__(self, a: Layer, b: Layer, frame_size: Size, seed: int = 0):
        self._a, self._b = a, b
        self._frame_size = frame_size
        self._rng = np.random.default_rng(seed)
        self._parts: list[Correspondences] = []

    def add(
        self, uv_a: np.ndarray, uv_b: np.ndarray, where: np.ndarray, samples: int | None = None
    ) -> None:
        """Add one frame.

        Args:
            uv_a, uv_b: (H, W, 2) texels on either canvas at the same pixels of the frame.
            where: (H, W) bool, the layer is visible in both.
            samples: how many pixels to draw at random.
        """
        height, width = where.shape
        scale = np.array([self._frame_size.width / width, self._frame_size.height / height])
        good = where & np.isfinite(uv_a).all(-1) & np.isfinite(uv_b).all(-1)
        if height < 2 or width < 2:
            return
        jacobian = local_jacobian(uv_b.astype(np.float64)) / scale
        det = np.linalg.det(jacobian)
        y, x = np.nonzero(good & np.isfinite(det) & (np.abs(det) > 1e-9))
        chosen = min(samples or SAMPLES_PER_FRAME, len(x))
        if chosen == 0:
            return
        pick = self._rng.choice(len(x), chosen, replace=False)
        y, x = y[pick], x[pick]
        self._parts.append(
            Correspondences(
                uv_a[y, x].astype(np.float64), uv_b[y, x].astype(np.float64), jacobian[y, x]
            )
        )

    def correspondences(self) -> Correspondences:
        """Everything added so far."""
        if not self._parts:
            return Correspondences(np.zeros((0, 2)), np.zeros((0, 2)), np.zeros((0, 2, 2)))
        return Correspondences(
            np.concatenate([p.uv_a for p in self._parts]),
            np.concatenate([p.uv_b for p in self._parts]),
            np.concatenate([p.jacobian_b for p in self._parts]),
        )

    def solve(self, smooth: bool = False) -> Gauge | None:
        """The gauge from a to b; None where the layer was never seen in both.

        Args:
            smooth: let a residual on a 9x9 grid follow the homography.
        """
        pairs = self.correspondences()
        if len(pairs.uv_a) < 8:
            return None
        matrix = _refine(pairs, _first_guess(pairs))
        gauge = Gauge(matrix, self._a.canvas, self._b.canvas)
        if not smooth:
            return gauge
        return Gauge(matrix, gauge.a, gauge.b, _smooth_residual(pairs, gauge))


def fit_gauge(
    a: LayerMapping,
    b: LayerMapping,
    layer_a: str,
    layer_b: str,
    frames: Callable[[int], np.ndarray] | None = None,
    smooth: bool = False,
) -> Gauge | None:
    """Gauge from layer `layer_a` of mapping a to `layer_b` of mapping b of the same clip.

    Args:
        frames: t -> (H, W, 3) uint8 RGB, for mappings that must observe them; every frame is shown.
        smooth: see `GaugeFit.solve`.
    Returns:
        None where no pixel shows the layer in both mappings.
    """
    i, j = a.layer_index(layer_a), b.layer_index(layer_b)
    count = min(a.frame_count, b.frame_count)
    fit = GaugeFit(a.layers[i], b.layers[j], b.frame_size)
    looked_at = set(spread(count, FRAMES_AT_MOST))
    for t in range(count):
        if frames is not None:
            rgb = frames(t)
            a.observe(t, rgb)
            b.observe(t, rgb)
        if t in looked_at:
            of_a, of_b = a.frame(t, b.frame_size), b.frame(t)
            fit.add(of_a.uv[i], of_b.uv[j], both_visible(of_a, i, of_b, j))
    return fit.solve(smooth)


def both_visible(a: FrameMapping, layer_a: int, b: FrameMapping, layer_b: int) -> np.ndarray:
    """(H, W) bool: the layer has at least 0.9 of the pixel in either mapping."""
    return (a.visible()[layer_a] >= _VISIBLE) & (b.visible()[layer_b] >= _VISIBLE)


def uv_error_px(
    gauge: Gauge, uv_a: np.ndarray, uv_b: np.ndarray, jacobian_b: np.ndarray
) -> np.ndarray:
    """|G(uv_a) - uv_b| in frame pixels, through the local Jacobian of b: (...) float32.

    Args:
        uv_a, uv_b: (..., 2) texels of the same pixels. jacobian_b: (..., 2, 2), texels per pixel.
    """
    return texels_to_px(gauge(uv_a) - uv_b, jacobian_b)


def transfer_texture(rgba: np.ndarray, gauge: Gauge, target: Size | None = None) -> np.ndarray:
    """Carry a picture painted on canvas a to canvas b, so that both mappings show the same edit.

    Sampled premultiplied and bilinear; where canvas b is coarser the picture is blurred first.
    Beyond canvas a the result is transparent.

    Args:
        rgba: (H, W, 4) uint8 or float32 in [0, 1], straight alpha, the size of canvas a.
        target: size of the result; None takes canvas b's.
    Returns:
        (target.height, target.width, 4), straight alpha, of `rgba`'s type.
    """
    if rgba.ndim != 3 or rgba.shape[2] != 4:
        raise ValueError(f"rgba must be (H, W, 4), got {rgba.shape}")
    if rgba.shape[:2] != (gauge.a.height, gauge.a.width):
        raise ValueError(f"rgba must have the size of canvas a, {gauge.a}, got {rgba.shape[:2]}")
    target = target or gauge.b
    unit = 255 if rgba.dtype == np.uint8 else 1
    straight = rgba.astype(np.float32) / unit
    premultiplied = np.dstack([straight[..., :3] * straight[..., 3:], straight[..., 3]])
    x, y = np.meshgrid(np.arange(target.width), np.arange(target.height))
    at = gauge.inverse(np.stack([x, y], axis=-1))
    if min(target.height, target.width) > 1:
        scale = float(np.sqrt(np.nanmedian(np.abs(np.linalg.det(local_jacobian(at))))))
        if scale > 1.5:  # 0.5 px is what a box of one texel has; blur by what is missing
            sigma = 0.5 * float(np.sqrt(scale**2 - 1))
            premultiplied = cv2.GaussianBlur(premultiplied, (0, 0), sigma)
    at = np.nan_to_num(at, nan=-1e4)
    out = cv2.remap(premultiplied, at, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    out[..., :3] /= np.maximum(out[..., 3:], 1e-6)
    out = np.clip(out, 0, 1)
    return np.rint(out * 255).astype(np.uint8) if unit == 255 else out


class Regauged(LayerMapping):
    """A mapping seen on other canvases: each layer's uv goes through its gauge.

    One edit painted for those canvases then lands on this mapping's frames, with no resampling of
    the picture in between. Layers without a gauge keep their own canvas.
    """

    def __init__(self, mapping: LayerMapping, gauges: dict[str, Gauge]):
        self.mapping = mapping
        self.frame_count, self.frame_size = mapping.frame_count, mapping.frame_size
        self._gauges = [gauges.get(layer.name) for layer in mapping.layers]
        self.layers = tuple(
            Layer(layer.name, gauge.b if gauge else layer.canvas)
            for layer, gauge in zip(mapping.layers, self._gauges, strict=True)
        )

    def observe(self, t: int, rgb: np.ndarray) -> None:
        self.mapping.observe(t, rgb)

    def frame(self, t: int, size: Size | None = None) -> FrameMapping:
        return self.carry(self.mapping.frame(t, size))

    def carry(self, own: FrameMapping) -> FrameMapping:
        """The mapping's own answer for a frame, on the other canvases."""
        uv = [
            gauge(plane) if gauge else plane
            for gauge, plane in zip(self._gauges, own.uv, strict=True)
        ]
        return FrameMapping(np.stack(uv), own.alpha, own.confidence)


def spread(count: int, at_most: int) -> list[int]:
    """At most `at_most` of the numbers 0 .. count - 1, evenly spread, the ends among them."""
    if count <= at_most:
        return list(range(count))
    return sorted({round(i) for i in np.linspace(0, count - 1, at_most)})


def _first_guess(pairs: Correspondences) -> np.ndarray:
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


def _refine(pairs: Correspondences, matrix: np.ndarray) -> np.ndarray:
    """Robust least squares of J_b^-1 (H uv_a - uv_b), px, over the homography's 8 numbers.

    Geman and McClure's loss, started from the consensus of `_first_guess`. Positions are centred
    and scaled first (Hartley 1997).
    """
    norm_a, norm_b = _normaliser(pairs.uv_a), _normaliser(pairs.uv_b)
    a = apply_homography(norm_a, pairs.uv_a)
    b = apply_homography(norm_b, pairs.uv_b)
    to_px = np.linalg.inv(pairs.jacobian_b) / norm_b[0, 0]
    start = norm_b @ matrix @ np.linalg.inv(norm_a)
    if not np.all(np.isfinite(start)) or abs(start[2, 2]) < 1e-9:
        start = np.eye(3)
    start = start / start[2, 2]

    def residual(numbers: np.ndarray) -> np.ndarray:
        h = np.append(numbers, 1.0).reshape(3, 3)
        w = a @ h[2, :2] + h[2, 2]
        w = np.where(np.abs(w) > 1e-6, w, 1e-6)
        moved = (a @ h[:2, :2].T + h[:2, 2]) / w[:, None]
        return np.einsum("nij,nj->ni", to_px, moved - b).ravel()

    begin = start.ravel()[:8]
    spread_px = float(np.median(np.linalg.norm(residual(begin).reshape(-1, 2), axis=1)))
    numbers = least_squares(
        residual,
        begin,
        loss=_geman_mcclure,  # pyright: ignore[reportArgumentType]
        f_scale=max(ROBUST_PX, 2 * spread_px),
        x_scale="jac",
        xtol=1e-12,
        ftol=1e-12,
        max_nfev=60,
    ).x
    refined = np.linalg.inv(norm_b) @ np.append(numbers, 1.0).reshape(3, 3) @ norm_a
    return refined / refined[2, 2]


def _geman_mcclure(z: np.ndarray) -> np.ndarray:
    """(3, N): z / (1 + z) and its two derivatives: far outliers do not pull at all."""
    return np.stack([z / (1 + z), (1 + z) ** -2.0, -2 * (1 + z) ** -3.0])


def _normaliser(points: np.ndarray) -> np.ndarray:
    """(3, 3): moves points to mean 0 and mean distance about 1."""
    centre = points.mean(0)
    scale = 1 / max(float(np.linalg.norm(points - centre, axis=1).mean()), 1e-6)
    return np.array([[scale, 0, -scale * centre[0]], [0, scale, -scale * centre[1]], [0, 0, 1]])


def _smooth_residual(pairs: Correspondences, gauge: Gauge) -> np.ndarray:
    """(9, 9, 2): node values of the bilinear grid, least squares with a membrane that ties nodes.

    Reweighted five times by Geman-McClure's weight of the residual in px.
    """
    weights_of_nodes = _grid_weights(pairs.uv_a, gauge.a)
    wanted = pairs.uv_b - gauge(pairs.uv_a)
    inverse = np.linalg.inv(pairs.jacobian_b)
    nodes = np.zeros((_GRID * _GRID, 2))
    for _ in range(5):
        left = np.einsum("nij,nj->ni", inverse, wanted - weights_of_nodes @ nodes)
        weight = 1 / (1 + np.square(left).sum(1) / ROBUST_PX**2)
        weighted = weights_of_nodes.multiply(weight[:, None]).tocsr()
        tie = 1e-3 * weight.sum() / _GRID**2  # per node, against that node's share of the data
        normal = (weights_of_nodes.T @ weighted).toarray() + tie * _membrane()
        nodes = np.linalg.solve(normal, weighted.T @ wanted)
    return nodes.reshape(_GRID, _GRID, 2).astype(np.float32)


def _grid_position(uv: np.ndarray, canvas: Size) -> tuple[np.ndarray, np.ndarray]:
    """Lower node (..., 2) int and fraction (..., 2) of texel positions on the residual's grid."""
    span = np.maximum(np.array(canvas.wh, np.float64) - 1, 1)
    at = np.clip(np.nan_to_num(uv / span) * (_GRID - 1), 0, _GRID - 1)
    low = np.minimum(at.astype(int), _GRID - 2)
    return low, at - low


def _bilinear_grid(grid: np.ndarray, uv: np.ndarray, canvas: Size) -> np.ndarray:
    """(..., 2) float64: the residual at (..., 2) texels of canvas a; its border continued."""
    low, f = _grid_position(uv, canvas)
    x, y = low[..., 0], low[..., 1]
    fx, fy = f[..., :1], f[..., 1:]
    top = grid[y, x] * (1 - fx) + grid[y, x + 1] * fx
    bottom = grid[y + 1, x] * (1 - fx) + grid[y + 1, x + 1] * fx
    return top * (1 - fy) + bottom * fy


def _grid_weights(uv: np.ndarray, canvas: Size) -> csr_matrix:
    """(N, G * G): row n holds the bilinear weights of the nodes round (N, 2) `uv`."""
    low, f = _grid_position(uv, canvas)
    rows, columns, values = [], [], []
    for dx in (0, 1):
        for dy in (0, 1):
            rows.append(np.arange(len(uv)))
            columns.append((low[:, 1] + dy) * _GRID + low[:, 0] + dx)
            wx = f[:, 0] if dx else 1 - f[:, 0]
            wy = f[:, 1] if dy else 1 - f[:, 1]
            values.append(wx * wy)
    entries = (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns)))
    return csr_matrix(entries, shape=(len(uv), _GRID * _GRID))


def _membrane() -> np.ndarray:
    """(G * G, G * G): sum of squared differences of neighbouring nodes, as a quadratic form."""
    step = np.diff(np.eye(_GRID), axis=0)
    along = step.T @ step
    return np.kron(np.eye(_GRID), along) + np.kron(along, np.eye(_GRID))
