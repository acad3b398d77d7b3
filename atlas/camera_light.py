"""The camera's own share of changing light: exposure and white balance by frame, one vignette.

A surface point's colour in frame t is its own colour times e_t (exposure and white balance, one
factor per colour channel) times v(r), which falls from the middle of the picture to its corners
and is the same in every frame (Goldman 2010, "Vignette and exposure calibration and
compensation"). As a camera turns, every point is seen at many places of the picture: in logarithms
the model is linear, the points' own colours drop out, and a small least-squares problem is left.
Beyond what the camera does, a layer may be lit differently from frame to frame as a whole: one more
factor by layer and frame, told from the camera's in the report.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

import cv2
import numpy as np
from scipy import sparse

from atlas.coords import Size, pixel_grid
from atlas.layered import LayerMotion, lattice_shape
from atlas.store import ClipStore

log = logging.getLogger(__name__)

BIN_TEXELS = 8
"""Samples that fall into one square of the canvas with this side show the same surface point."""
ROBUST = 0.06
"""Residual at which a sample counts half: change of log colour."""
NOISE = 0.02
"""What noise and coding change a sample's colour by; RGB in [0, 1]."""
OFF_PX = 1.0
"""How far samples of one square lie apart, pixels of the full frame."""
USABLE = (0.04, 0.96)
"""Colours beyond these bounds are cut off or mostly noise."""
TERMS = 3
"""log v(r) = a_1 r^2 + a_2 r^4 + a_3 r^6, r = 1 in the corners."""
VIGNETTE_PRIOR, EXPOSURE_PRIOR = 1e-3, 1e-3
"""Pull of the vignette's coefficients and of the log exposures to 0, against a sample's weight."""
ROUNDS = 5
"""Times that the samples are weighed anew."""
PER_FRAME = 5000
"""Samples a frame; fewer in shots of more than `MANY_FRAMES`, so that memory stays bounded."""
MANY_FRAMES = 80
CHUNK = 50_000
"""Samples that go into the equations at once."""


@dataclass(frozen=True)
class CameraLight:
    """Factors on all colours of a frame, layers together.

    Over all pixels and frames their geometric mean is 1, so that an atlas shows its layer, and a
    paint on it is seen, in the clip's mean light.

    exposure: (T, 3) float32, by frame and colour channel; what makes that mean 1 is in it.
    vignette: (TERMS,) float32, coefficients of log v. size: of the frames, pixels.
    """

    exposure: np.ndarray
    vignette: np.ndarray
    size: Size
    _fields: dict[Size, np.ndarray] = field(default_factory=dict, repr=False, compare=False)

    def at(self, t: int, xy_px: np.ndarray) -> np.ndarray:
        """(..., 3) float32 factors at positions (..., 2) px of frame `t`."""
        log_v = radial_powers(xy_px, self.size) @ self.vignette.astype(np.float32)
        return (np.exp(log_v)[..., None] * self.exposure[t]).astype(np.float32)

    def on_lattice(self, t: int, stride_px: int) -> np.ndarray:
        """(h, w, 3) float32 factors at frame pixels (j * stride_px, i * stride_px)."""
        shape = lattice_shape(self.size, stride_px)
        return self.at(t, pixel_grid(Size(*shape)) * np.float32(stride_px))

    def __call__(self, t: int, view: Size | None = None) -> np.ndarray:
        """(H, W, 3) float32 factors at every pixel of a view of frame `t`."""
        view = view or self.size
        if view not in self._fields:
            self._fields[view] = self.at(t, pixel_grid(self.size, view)) / self.exposure[t]
        return self._fields[view] * self.exposure[t]


@dataclass(frozen=True)
class Light:
    """What light does to whole layers. layers: (L, T, 3) float32 factors beside the camera's."""

    camera: CameraLight
    layers: np.ndarray

    def of_camera(self) -> Light:
        """The camera's part alone."""
        return Light(self.camera, np.ones_like(self.layers))

    def on_lattice(self, layer: int, t: int, stride_px: int) -> np.ndarray:
        """(h, w, 3) float32: all factors on a layer's colours at the lattice's points."""
        return self.camera.on_lattice(t, stride_px) * self.layers[layer, t]

    def __call__(self, t: int, view: Size | None = None) -> np.ndarray:
        """(L, H, W, 3) float32, as a shading."""
        return self.camera(t, view)[None] * self.layers[:, t, None, None]


def radial_powers(xy_px: np.ndarray, size: Size) -> np.ndarray:
    """(..., TERMS) float32: r^2, r^4, r^6 of positions (..., 2) px, r = 1 in the corners."""
    centre = (np.array([size.width, size.height], np.float32) - 1) / 2
    offset = np.asarray(xy_px, np.float32) - centre
    r2 = (offset**2).sum(-1) / max(float((centre**2).sum()), 1.0)
    return np.stack([r2 ** (k + 1) for k in range(TERMS)], -1)


@dataclass
class _Samples:
    """N samples of a clip, those of one surface point side by side, points by their layer.

    layer, frame, point: (N,) integers; point counts the surface points seen. log: (N, 3) float32,
    log colour. radial: (N, TERMS) float32. weight: (N,) float32.
    """

    layer: np.ndarray
    frame: np.ndarray
    point: np.ndarray
    log: np.ndarray
    radial: np.ndarray
    weight: np.ndarray

    def of_layer(self, layer: int) -> _Samples:
        """One layer's samples, without a copy."""
        part = slice(*np.searchsorted(self.layer, [layer, layer + 1]))
        first = self.point[part][:1].sum()
        return _Samples(
            self.layer[part],
            self.frame[part],
            self.point[part] - first,
            self.log[part],
            self.radial[part],
            self.weight[part],
        )


def estimate_light(store: ClipStore, motions: list[LayerMotion]) -> Light:
    """The camera's light, and each layer's beside it, from what the motions say is one point."""
    count, layers = store.frame_count, len(motions)
    samples = _gathered(store, motions)
    exposure, vignette = np.zeros((count, 3)), np.zeros(TERMS)
    beside = np.zeros((layers, count, 3))
    if samples is not None:
        exposure, vignette = _camera(samples, count)
        log.info("vignette: %.2f in the corners", float(np.exp(vignette.sum())))
        rest = samples.log - exposure[samples.frame] - (samples.radial @ vignette)[:, None]
        rest = rest.astype(np.float32)
        for i in range(layers if layers > 1 else 0):
            of_layer = samples.of_layer(i)
            pull = EXPOSURE_PRIOR * float(samples.weight.sum(dtype=np.float64)) / (layers * count)
            beside[i] = _by_layer(of_layer, rest[samples.layer == i], count, pull)
    exposure = exposure - radial_powers(pixel_grid(store.size), store.size).mean((0, 1)) @ vignette
    camera = CameraLight(
        np.exp(exposure).astype(np.float32), vignette.astype(np.float32), store.size
    )
    return Light(camera, np.exp(beside).astype(np.float32))


def _camera(samples: _Samples, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(T, 3) log exposures and the vignette's coefficients."""
    grey, weight = samples.log.mean(1), samples.weight
    solved = np.zeros(count + TERMS)
    for _ in range(ROUNDS):
        solved = _solved(samples, grey, weight, count, with_vignette=True)
        left = grey - solved[samples.frame] - samples.radial @ solved[count:]
        weight = samples.weight * _trust(left, weight, samples.point)
    vignette = solved[count:]
    even = samples.radial @ vignette
    exposure = np.stack(
        [_solved(samples, samples.log[:, c] - even, weight, count) for c in range(3)], 1
    )
    return exposure - exposure.mean(0), vignette


def _by_layer(samples: _Samples, rest: np.ndarray, count: int, pull: float) -> np.ndarray:
    """(T, 3): logarithms of what the camera leaves over, (N, 3) of one layer, by frame.

    pull: of a frame's factor to 1, against the weight of the frame's samples.
    """
    weight, out = samples.weight, np.zeros((count, 3))
    if not len(weight):
        return out
    for _ in range(ROUNDS):
        for c in range(3):
            out[:, c] = _solved(samples, rest[:, c], weight, count, pull=pull)
        left = (rest - out[samples.frame]).mean(1)
        weight = samples.weight * _trust(left, weight, samples.point)
    return out - out.mean(0)


def _solved(
    samples: _Samples,
    values: np.ndarray,
    weight: np.ndarray,
    count: int,
    *,
    with_vignette: bool = False,
    pull: float | None = None,
) -> np.ndarray:
    """Least squares of exposure + (log v) + (a free value for every point) = values.

    The points' values are eliminated first (the Schur complement of a diagonal block), some points
    at a time. Returns (T,) log exposures, or (T + TERMS,) with the vignette's coefficients after.
    pull: of the exposures to 0; None for `EXPOSURE_PRIOR` of a frame's mean weight.
    """
    unknowns = count + TERMS * with_vignette
    normal, right = np.zeros((unknowns, unknowns)), np.zeros(unknowns)
    ends = np.append(np.flatnonzero(np.diff(samples.point)) + 1, len(weight))
    start = 0
    while start < len(weight):
        end = int(ends[min(np.searchsorted(ends, start + CHUNK), len(ends) - 1)])
        part, start = slice(start, end), end
        columns = _indicator(samples.frame[part], count)
        if with_vignette:
            radial = sparse.csr_matrix(samples.radial[part].astype(np.float64))
            columns = sparse.csr_matrix(sparse.hstack([columns, radial]))
        point, w = samples.point[part] - samples.point[part][0], weight[part].astype(np.float64)
        points = int(point[-1]) + 1
        weighted = sparse.diags(w) @ columns
        total = np.bincount(point, w, points) + 1e-9
        by_point = _indicator(point, points).T @ weighted  # (points, columns)
        normal += (columns.T @ weighted - by_point.T @ sparse.diags(1 / total) @ by_point).toarray()
        means = np.bincount(point, w * values[part], points) / total
        right += weighted.T @ (values[part] - means[point])
    all_weight = float(weight.sum(dtype=np.float64))
    prior = np.full(unknowns, EXPOSURE_PRIOR * all_weight / max(count, 1) if pull is None else pull)
    prior[count:] = VIGNETTE_PRIOR * all_weight
    return np.linalg.solve(normal + np.diag(prior + 1e-12), right)


def _trust(residual: np.ndarray, weight: np.ndarray, point: np.ndarray) -> np.ndarray:
    """(N,) Geman-McClure's factor of residuals that still hold the points' own values."""
    total = np.bincount(point, weight)
    means = np.bincount(point, weight * residual) / np.maximum(total, 1e-9)
    return (ROBUST**2 / (ROBUST**2 + (residual - means[point]) ** 2)) ** 2


def _indicator(index: np.ndarray, count: int) -> sparse.csr_matrix:
    """(N, count) with a one in each row, at `index`."""
    rows = np.arange(len(index))
    return sparse.csr_matrix((np.ones(len(index)), (rows, index)), shape=(len(index), count))


def _gathered(store: ClipStore, motions: list[LayerMotion]) -> _Samples | None:
    """Samples of all frames and layers, at half the frame size."""
    half = store.half
    sparser = max(store.frame_count / MANY_FRAMES, 1.0)
    step = max(2, round(np.sqrt(half.size.width * half.size.height / PER_FRAME * sparser)))
    positions = pixel_grid(store.size, half.size)[step // 2 :: step, step // 2 :: step]
    positions = np.ascontiguousarray(positions)
    columns = zip(
        *(_of_frame(half, motions, t, positions, step) for t in range(store.frame_count)),
        strict=True,
    )
    layer, frame, key, log, weight, at = (np.concatenate(column) for column in columns)
    order = np.argsort(key, kind="stable")
    key = key[order]
    new = np.diff(key, prepend=key[:1] - 1) != 0
    point = np.cumsum(new, dtype=np.int32) - 1
    useful = np.bincount(point, minlength=1)[point] > 1
    if not useful.any():
        return None
    order, new = order[useful], new[useful]
    point = np.cumsum(new, dtype=np.int32) - 1
    radial = radial_powers(at[order], store.size)
    return _Samples(layer[order], frame[order], point, log[order], radial, weight[order])


def _of_frame(
    half: ClipStore, motions: list[LayerMotion], t: int, positions: np.ndarray, step: int
) -> tuple[np.ndarray, ...]:
    """Layer, frame, point key, log colour, weight and position of one frame's samples.

    A sample stands for the middle of its square: colour and position are carried there along the
    picture's gradient, so that a texture's own slope is not taken for the light's.
    """
    frame = cv2.GaussianBlur(half.frame(t).astype(np.float32) / 255, (0, 0), 2.0)
    cut = (slice(step // 2, None, step), slice(step // 2, None, step))
    to_full = (positions[0, 1, 0] - positions[0, 0, 0]) / step
    slope = [
        cv2.Sobel(frame, cv2.CV_32F, i, 1 - i, ksize=3, scale=1 / 8)[cut] / to_full for i in (1, 0)
    ]
    out: list[list[np.ndarray]] = [[] for _ in range(6)]
    for i, motion in enumerate(motions):
        share = cv2.blur(half.share(i, t), (5, 5))[cut]
        uv, off_px = _to_middle(motion, t, positions)
        colour = frame[cut] + slope[0] * off_px[..., :1] + slope[1] * off_px[..., 1:]
        ok = (share > 0.97) & np.isfinite(uv).all(-1) & (np.abs(uv) < 1e5).all(-1)
        ok &= (colour.min(-1) > USABLE[0]) & (colour.max(-1) < USABLE[1])
        ok &= np.abs(off_px).max(-1) < 2 * BIN_TEXELS
        uv = np.floor(uv[ok] / BIN_TEXELS).astype(np.int64) + 2**18
        key = (i * 2**20 + uv[:, 1]) * 2**20 + uv[:, 0]
        colour, n = colour[ok], len(key)
        change = OFF_PX * np.hypot(*(x.mean(-1)[ok] for x in slope))
        weight = (NOISE * colour.mean(-1)) ** 2 / (NOISE**2 + change**2)
        at = (positions + off_px)[ok]
        numbers = np.full(n, i, np.int16), np.full(n, t, np.int32)
        of_layer = (*numbers, key, np.log(colour), weight.astype(np.float32), at)
        for values, new in zip(out, of_layer, strict=True):
            values.append(new)
    return tuple(np.concatenate(values) for values in out)


def _to_middle(motion: LayerMotion, t: int, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(h, w, 2) texels, and (h, w, 2) pixels from there to the middle of the square they are in."""
    uv = motion.uv_at(t, positions)
    steps = np.eye(2, dtype=np.float32)
    along = [motion.uv_at(t, positions + step) - uv for step in steps]
    lacking = (np.floor(uv / BIN_TEXELS) + 0.5) * BIN_TEXELS - uv
    (a, c), (b, d) = (np.moveaxis(x, -1, 0) for x in along)
    determinant = a * d - b * c
    determinant = np.where(np.abs(determinant) < 1e-3, np.inf, determinant)
    x, y = np.moveaxis(lacking, -1, 0)
    off_px = np.stack([d * x - b * y, a * y - c * x], -1) / determinant[..., None]
    return uv, np.nan_to_num(off_px, nan=1e6).astype(np.float32)
