"""The learned sky matte of a frame: small network, steadied in time, refined to full size.

matter = NetworkMatter()
for rgb in frames:
    matte = matter.matte(rgb)        # (H, W) float32, 1 = sky

`MatteOptions()` is for streaming. `CAREFUL` is for work that may take its time: the network sees
each frame at several sizes and mirrored, and its upper part closer; a tiny second network and
closed-form matting settle the edges at full size.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from atlas.coords import Size
from preprocess.sky.adapt import SkyColours
from preprocess.sky.closed_form import BandOptions, closed_form_matte
from preprocess.sky.data import STRIDE_PX, fitting_size
from preprocess.sky.edge_matte import EDGE_WEIGHTS, EdgeMatter, EdgeOptions
from preprocess.sky.matte import NETWORK_WEIGHTS, SkyMatter, check_rgb
from preprocess.sky.opencv_network import OpenCvNetwork
from preprocess.sky.refine import RefineOptions, refine_matte
from preprocess.sky.temporal import FineSteadier, FlowSteadier, SteadyOptions

_METHOD = 16
"""Raised when the same weights and options come to give other mattes."""
_KEPT_SIZES = 8
_DARKEST = 12
"""8-bit level: a frame that hardly reaches it shows nothing (a fade from black)."""


@dataclass(frozen=True, kw_only=True)
class MatteOptions:
    """How `NetworkMatter` works."""

    side_px: int = 256
    """Longer side of the picture that the network sees, rounded to multiples of 32."""
    more_sides_px: tuple[int, ...] = ()
    """Further, larger sizes at which it looks, no larger than the frame: see `joined_logits`."""
    upper_side_px: int = 0
    """Longer side of a closer look at the upper part alone, which finds what little sky is there:
    see `with_upper`; 0 leaves it out."""
    mirrored: bool = False
    """Look at each picture mirrored too, and average."""
    refine: RefineOptions | None = field(default_factory=RefineOptions)
    """Refinement to full size; None enlarges the small matte bilinearly."""
    edges: EdgeOptions | None = None
    """Edges settled at full size by the edge network; None leaves it out."""
    closed_form: BandOptions | None = None
    """Closed-form matting of the refined edges; None leaves it out."""
    adapt: bool = True
    """Let the clip's own colours decide doubtful pixels (`adapt.SkyColours`)."""
    steady: SteadyOptions | None = field(default_factory=SteadyOptions)
    """Temporal filter; None treats each frame alone."""

    def __post_init__(self) -> None:
        for side_px in (self.side_px, *self.more_sides_px, self.upper_side_px or STRIDE_PX):
            if side_px < STRIDE_PX:
                raise ValueError(f"side_px must be >= {STRIDE_PX}, got {side_px}")


_NEAR_GROUND = (0.2, 0.8)
"""Doubt of the smallest look, 0 to 1, from which the larger ones count, and count alone."""
_UPPER = 0.4
"""Share of the rows that the look at the upper part sees."""
_UPPER_TRUST, _UPPER_FADE = 0.7, 0.3
"""What that look counts, and the share of its rows, the lowest ones, where this falls to none."""

CAREFUL = MatteOptions(
    more_sides_px=(512,),
    upper_side_px=384,
    mirrored=True,
    edges=EdgeOptions(),
    closed_form=BandOptions(),
    steady=SteadyOptions(keep=0.8, tolerance=20.0, keep_fine=0.92, flow="smooth"),
)


class NetworkMatter(SkyMatter):
    """The bundled network's matte; causal, deterministic, constant memory."""

    def __init__(self, weights: Path | None = None, options: MatteOptions | None = None) -> None:
        self.options = options or MatteOptions()
        self.weights = weights or NETWORK_WEIGHTS
        self._networks: dict[Size, OpenCvNetwork] = {}
        self._network(
            Size(2 * STRIDE_PX, 2 * STRIDE_PX)
        )  # refuses wrong weights before the first frame
        edges = self.options.edges
        self._edges = EdgeMatter(options=edges) if edges and self.options.refine else None
        self._colours = SkyColours()
        self._surveyed = False
        self._fine = FineSteadier(self.options.steady)
        self._steadier = FlowSteadier(self.options.steady) if self.options.steady else None

    def reset(self) -> None:
        self._colours.reset()
        self._surveyed = False
        if self._steadier is not None:
            self._steadier.reset()
        self._fine.reset()

    def fingerprint(self) -> str:
        read = self.weights.read_bytes() + (EDGE_WEIGHTS.read_bytes() if self._edges else b"")
        digest = hashlib.blake2b(read, digest_size=8).hexdigest()
        return f"{type(self).__name__} {_METHOD}, weights {digest}, {self.options}"

    def survey(self, frames: Iterable[np.ndarray]) -> None:
        """Learn the clip's colours from frames (H, W, 3) uint8 of all of it, before the first.

        Afterwards nothing more is learnt until `reset`: what is doubtful is decided alike in all
        frames.
        """
        if not self.options.adapt:
            return
        for rgb in frames:
            small, coarse = self._answer(rgb)
            if coarse is not None:
                self._colours.learn(small, coarse)
                self._surveyed = True

    def matte(self, rgb: np.ndarray) -> np.ndarray:
        check_rgb(rgb)
        small, coarse = self.coarse(rgb)
        if self._steadier is None:
            return self.refine(rgb, small, coarse)
        coarse = self._steadier(small, coarse)
        return self._fine(self.refine(rgb, small, coarse), self._steadier.motion)

    def coarse(self, rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What the network sees of the next frame, and says; settled by the clip's colours.

        A frame that is black all over has no sky that could be told, and teaches nothing.

        Returns:
            (h, w, 3) uint8 small frame; (h, w) float32 matte in [0, 1].
        """
        small, coarse = self._answer(rgb)
        if coarse is None:
            return small, np.zeros(small.shape[:2], np.float32)
        if not self.options.adapt:
            return small, coarse
        decide = self._colours.decide if self._surveyed else self._colours.settle
        return small, decide(small, coarse)

    def _answer(self, rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """The frame made small, and the network's matte of it; None for a black frame."""
        most_px = max(self.options.side_px, *rgb.shape[:2])
        sides = [min(s, most_px) for s in (self.options.side_px, *self.options.more_sides_px)]
        sizes = [fitting_size(Size(*rgb.shape[:2]), side, STRIDE_PX) for side in sides]
        pictures = [cv2.resize(rgb, size.wh, interpolation=cv2.INTER_AREA) for size in sizes]
        small = pictures[-1]
        if np.quantile(small[::2, ::2], 0.995) < _DARKEST:
            return small, None
        upper_px = self.options.upper_side_px
        if len(pictures) == 1 and not upper_px and not self.options.mirrored:
            return small, self._network(sizes[0]).opacity(small)
        answers = [
            self._logits(picture, size) for picture, size in zip(pictures, sizes, strict=True)
        ]
        shape = small.shape[1::-1]
        large = [cv2.resize(answer, shape, interpolation=cv2.INTER_LINEAR) for answer in answers]
        logits = joined_logits(large)
        if upper_px:
            part = rgb[: max(1, round(_UPPER * rgb.shape[0]))]
            size = fitting_size(Size(*part.shape[:2]), min(upper_px, most_px), STRIDE_PX)
            closer = cv2.resize(part, size.wh, interpolation=cv2.INTER_AREA)
            logits = with_upper(logits, self._logits(closer, size))
        return small, 1 / (1 + cv2.exp(-logits))

    def _logits(self, picture: np.ndarray, size: Size) -> np.ndarray:
        """(h, w) float32: what the network says of a picture, and of its mirror image if asked."""
        network = self._network(size)
        answer = network.logits(picture)
        if self.options.mirrored:
            mirrored = network.logits(np.ascontiguousarray(picture[:, ::-1]))
            answer = (answer + mirrored[:, ::-1]) / 2
        return np.ascontiguousarray(answer, np.float32)

    def _network(self, size: Size) -> OpenCvNetwork:
        """The network for pictures of one size; the last few sizes are kept."""
        if size not in self._networks:
            if len(self._networks) >= _KEPT_SIZES:
                del self._networks[next(iter(self._networks))]
            self._networks[size] = OpenCvNetwork(self.weights, size)
        return self._networks[size]

    def refine(self, rgb: np.ndarray, small: np.ndarray, coarse: np.ndarray) -> np.ndarray:
        """A small matte (h, w) at the full size of `rgb`, along the edges of the picture."""
        if self.options.refine is None:
            return cv2.resize(coarse, rgb.shape[1::-1], interpolation=cv2.INTER_LINEAR)
        matte = refine_matte(rgb, small, coarse, self.options.refine)
        if self._edges is not None:
            matte = self._edges(rgb, small, coarse, matte)
        if self.options.closed_form is None:
            return matte
        return closed_form_matte(rgb, matte, self.options.closed_form)


def joined_logits(logits: list[np.ndarray]) -> np.ndarray:
    """Logits (h, w) of looks of growing size, brought to one size, as one.

    Sky is what they find together. The smallest look sees most of the scene at once and is the one
    to tell what is ground (a pale bank, water); larger ones know best where an edge runs and find
    small patches of sky. So where the smallest says ground, away from the edges that it finds and
    from what it doubts, it has its say alone.
    """
    mean = np.mean(logits, axis=0)
    if len(logits) == 1:
        return mean
    first = logits[0]
    around = 1 / (1 + cv2.exp(-first))
    around = cv2.GaussianBlur(around, (0, 0), max(first.shape) / 32)
    doubt = 1 - np.abs(2 * around - 1)
    low, high = _NEAR_GROUND
    share = np.where(around > 0.5, 1, ((doubt - low) / (high - low)).clip(0, 1))
    return (first + share * (mean - first)).astype(np.float32)


def with_upper(logits: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Logits (h, w) of the whole, raised where a look at the upper part alone sees more sky.

    A strip of sky over a roof is little of the whole picture, but much of its upper part. The look
    only adds: it sees less of the scene and would call a plain sky a ceiling more often.
    """
    rows = max(1, round(_UPPER * logits.shape[0]))
    upper = cv2.resize(upper, (logits.shape[1], rows), interpolation=cv2.INTER_LINEAR)
    trust = np.minimum(np.arange(rows, 0, -1, dtype=np.float32) / (_UPPER_FADE * rows), 1)
    more = np.maximum(upper - logits[:rows], 0) * (_UPPER_TRUST * trust)[:, None]
    return np.concatenate([logits[:rows] + more, logits[rows:]])
