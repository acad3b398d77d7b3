"""LayerMapping: where each pixel of each frame lies in each layer's atlas, and how opaque it is.

Everything after the fit (edits, export, evaluation) is written against this one interface and
does not know who answers it: a neural atlas, the homography fast path, an imported checkpoint, or
an exact synthetic scene.
"""

from __future__ import annotations

import json
import shutil
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from atlas.coords import Size
from atlas.errors import InputError
from atlas.wide_canvas import Roll


@dataclass(frozen=True)
class Layer:
    """One layer: its name, the size of its canvas (the flat atlas) in texels, and how that canvas
    is rolled out from a cylinder round the camera, if it is."""

    name: str
    canvas: Size
    roll: Roll | None = None


@dataclass(frozen=True)
class FrameMapping:
    """One frame's answer, layers top to bottom.

    uv: (L, H, W, 2) float32, texel positions on each layer's own canvas, (x, y) order, origin at
        the centre of the top-left texel: what `cv2.remap` takes. May lie outside the canvas.
    alpha: (L, H, W) float32, straight opacity of the layer itself, [0, 1]; a layer hides what is
        below it. The bottom layer is 1 everywhere.
    confidence: (L,) float32, [0, 1]; how far the layer's motion at this frame can be trusted.
    """

    uv: np.ndarray
    alpha: np.ndarray
    confidence: np.ndarray

    def visible(self) -> np.ndarray:
        """(L, H, W) float32: each layer's share of the pixel after occlusion; sums to 1 over L."""
        return visible_shares(self.alpha)


def visible_shares(alpha: np.ndarray) -> np.ndarray:
    """Share of each pixel that shows each layer: alpha_l times the product of (1 - alpha) above.

    Porter and Duff 1984, "over", unrolled top to bottom.

    Args:
        alpha: (L, H, W) float, top to bottom, [0, 1]; the bottom layer must be 1.
    Returns:
        (L, H, W) float32, sums to 1 over the first axis.
    """
    shares = np.empty(alpha.shape, np.float32)
    through = np.ones(alpha.shape[1:], np.float32)
    for i, a in enumerate(alpha):
        shares[i] = through * a
        through = through * (1 - a)
    return shares


class LayerMapping(ABC):
    """The interface. `frame` is asked for; `observe` is only for those that need the pixels."""

    layers: tuple[Layer, ...]
    """Top to bottom."""
    frame_count: int
    """Number of frames that can be asked for."""
    frame_size: Size
    """The size at which the mapping was made, pixels."""
    in_any_order: bool = False
    """Whether several threads may ask at once, each showing a frame before it asks for it."""

    @abstractmethod
    def frame(self, t: int, size: Size | None = None) -> FrameMapping:
        """The mapping of frame `t` (0-based) sampled at the pixel centres of a `size` picture.

        `size` None means `frame_size`. uv is in canvas texels whatever `size` is.
        """

    def observe(self, t: int, rgb: np.ndarray) -> None:  # noqa: B027 - optional on purpose
        """Show the mapping frame `t`, (H, W, 3) uint8 RGB, before `frame(t)` is asked for.

        Streaming mappings (the fast path) learn from it and take frames in order only; the rest
        ignore it.
        """

    def layer_index(self, name: str) -> int:
        """Index of the layer called `name`; an unknown name raises `InputError`."""
        names = [layer.name for layer in self.layers]
        if name not in names:
            raise InputError(f"there is no layer called {name!r}; this clip has {', '.join(names)}")
        return names.index(name)


class BakedMapping(LayerMapping):
    """A mapping read from maps on disk: one `NNNNN.npz` per frame beside `mapping.json`.

    Maps are stored at `frame_size`; other sizes are sampled bilinearly. Frames are read when
    asked for, so memory does not grow with the clip.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        path = self.folder / "mapping.json"
        try:
            meta = json.loads(path.read_text(encoding="utf-8"))
            self.layers = tuple(
                Layer(row["name"], Size(row["height"], row["width"])) for row in meta["layers"]
            )
            self.frame_count = int(meta["frame_count"])
            self.frame_size = Size(meta["height"], meta["width"])
        except FileNotFoundError as err:
            raise InputError(f"{path}: not found; wanted a folder of baked maps") from err
        except (ValueError, KeyError, TypeError) as err:
            raise InputError(f"{path}: not a description of baked maps ({err!r})") from err

    def frame(self, t: int, size: Size | None = None) -> FrameMapping:
        if not 0 <= t < self.frame_count:
            raise ValueError(f"t must be in 0..{self.frame_count - 1}, got {t}")
        path = self.folder / f"{t:05d}.npz"
        try:
            with np.load(path) as data:
                uv, alpha, confidence = data["uv"], data["alpha"], data["confidence"]
        except (OSError, ValueError, KeyError) as err:
            raise InputError(f"{path}: cannot be read as a baked map ({err})") from err
        baked = FrameMapping(
            uv.astype(np.float32), alpha.astype(np.float32), confidence.astype(np.float32)
        )
        return baked if size in (None, self.frame_size) else resample(baked, size)


def resample(mapping: FrameMapping, size: Size) -> FrameMapping:
    """The same frame's mapping on another pixel grid, bilinear, picture edges coinciding.

    Beyond the outermost pixel centres uv is continued linearly, so a finer grid does not stall
    at the border.
    """
    height, width = mapping.alpha.shape[1:]
    x = (np.arange(size.width, dtype=np.float32) + 0.5) * (width / size.width) - 0.5
    y = (np.arange(size.height, dtype=np.float32) + 0.5) * (height / size.height) - 0.5
    uv = np.stack([_sample_linear(plane, x, y) for plane in mapping.uv])
    alpha = np.stack(
        [cv2.resize(a, size.wh, interpolation=cv2.INTER_LINEAR) for a in mapping.alpha]
    )
    return FrameMapping(uv, alpha.clip(0, 1), mapping.confidence)


def _sample_linear(plane: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Separable bilinear sampling of (H, W, C) at columns x and rows y, extrapolating linearly."""

    def along(values: np.ndarray, at: np.ndarray, axis: int) -> np.ndarray:
        n = values.shape[axis]
        if n == 1:
            return np.repeat(values, len(at), axis=axis)
        low = np.clip(np.floor(at).astype(int), 0, n - 2)
        shape = [1, 1, 1]
        shape[axis] = len(at)
        f = (at - low).astype(np.float32).reshape(shape)
        return values.take(low, axis) * (1 - f) + values.take(low + 1, axis) * f

    return along(along(plane, y, 0), x, 1)


def write_baked(folder: Path, mapping: LayerMapping, size: Size | None = None) -> BakedMapping:
    """Bake every frame of `mapping` at `size` into `folder` (replaced only when whole)."""
    folder = Path(folder)
    size = size or mapping.frame_size
    temporary = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    for t in range(mapping.frame_count):
        m = mapping.frame(t, size)
        np.savez(
            temporary / f"{t:05d}.npz",
            uv=m.uv.astype(np.float32),
            alpha=m.alpha.astype(np.float16),
            confidence=m.confidence,
        )
    meta = {
        "layers": [
            {"name": layer.name, "height": layer.canvas.height, "width": layer.canvas.width}
            for layer in mapping.layers
        ],
        "frame_count": mapping.frame_count,
        "height": size.height,
        "width": size.width,
    }
    (temporary / "mapping.json").write_text(json.dumps(meta, indent=1), encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)
    return BakedMapping(folder)
