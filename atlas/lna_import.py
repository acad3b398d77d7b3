"""Models of the original layered-neural-atlases program behind `LayerMapping`, and as a `Run`.

The file format is read elsewhere (`thirdparty.lna`); here its networks become `LayerFields` and
its conventions windows and domains of `LnaMapping`. Canvases have 1000 x 1000 texels, laid so that
pictures painted for that program fit: texel = 1000 (uv/2 + 1/2) in the foreground; in the
background the square that the program crops, see `background_crop`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import torch
from torch import Tensor

from atlas.clip import Clip, ClipInfo, LayerInfo, list_frames
from atlas.config import MlpConfig, NetworksConfig
from atlas.coords import Size
from atlas.errors import InputError
from atlas.fields import ALPHA_FLOOR, ALPHA_SPAN, Domain, LayerFields, UvWindow
from atlas.lna_mapping import CHUNK, LnaMapping
from atlas.mapping import Layer
from atlas.run import Run, RunInfo, clip_hash

TEXELS = 1000
"""Side of that program's atlas pictures."""
TOLERANCE_TEXELS = 0.1
"""How far interpolated positions may be off, texels (`LnaMapping`); an eighth of it is usual."""
LAYER_NAMES = ("foreground", "background")
KIND = "lna import"
_CROP_TANH = 0.5
"""Pixels whose tanh opacity is below this belong to the background crop."""
_CROP_ALPHA = ALPHA_FLOOR + ALPHA_SPAN * (_CROP_TANH + 1) / 2
_CELL_PX = 8
_CELLS_AT_ONCE = 512
log = logging.getLogger(__name__)


class NetworkWeights(Protocol):
    """Sizes and weights of one network; `thirdparty.lna.LnaNetwork`."""

    @property
    def depth(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def frequencies(self) -> int: ...
    @property
    def skips(self) -> tuple[int, ...]: ...
    @property
    def weights(self) -> Mapping[str, Tensor]: ...


class ModelFolder(Protocol):
    """A model folder that has been read and checked; `thirdparty.lna.LnaModel`."""

    @property
    def folder(self) -> Path: ...
    @property
    def data_folder(self) -> str: ...
    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...
    @property
    def maximum_frames(self) -> int: ...
    @property
    def iteration(self) -> int: ...
    @property
    def foreground(self) -> NetworkWeights: ...
    @property
    def background(self) -> NetworkWeights: ...
    @property
    def opacity(self) -> NetworkWeights: ...
    @property
    def atlas(self) -> NetworkWeights: ...


class ImportedClip(Clip):
    """The frames that such a model was fitted to: resized as it did, cut to the number it used.

    Flow is not needed; masks (`NAME_maskrcnn`) only for measuring.
    """

    def __init__(self, folder: Path, size: Size, maximum_frames: int):
        self.folder = folder
        self.name = folder.resolve().name
        self.size = size
        self.frame_names = list_frames(folder)[:maximum_frames]
        self._written_here = False  # frames of another size are resized, not refused
        top = LayerInfo(name=LAYER_NAMES[0], mask_dir=f"{self.name}_maskrcnn")
        count, fps = len(self.frame_names), 25.0
        self.info = ClipInfo(
            width=size.width,
            height=size.height,
            frame_count=count,
            fps=fps,
            frame_times_s=[t / fps for t in range(count)],
            layers=[top, LayerInfo(name=LAYER_NAMES[1])],
            shots=[[0, count]],
            tools={"frames": "folder in the layout of layered-neural-atlases data"},
        )


@dataclass(frozen=True)
class ImportedRun(Run):
    """A `Run` whose clip is read the way the original program read it."""

    maximum_frames: int = 1

    def clip(self) -> Clip:
        size = Size(self.info.height, self.info.width)
        return ImportedClip(self.clip_folder, size, self.maximum_frames)


def open_lna_model(
    model: ModelFolder,
    data_folder: Path | None = None,
    *,
    with_textures: bool = True,
    tolerance: float = TOLERANCE_TEXELS,
) -> ImportedRun:
    """A model folder as a run: evaluated and edited like any other.

    Args:
        model: what `thirdparty.lna.read_lna_model` returns.
        data_folder: the folder of frames, or the one that holds it under the name that the
            model's config gives; None looks where the config says.
        with_textures: False leaves `textures` empty, which saves asking the atlas network for two
            million texels.
        tolerance: how far positions may be off for speed, texels; 0 asks at every pixel.
    """
    folder = find_data(model, data_folder)
    size = Size(model.height, model.width)
    clip = ImportedClip(folder, size, model.maximum_frames)
    mapping = import_mapping(model, clip.frame_count, tolerance)
    info = RunInfo(
        kind=KIND,
        clip_folder=str(folder.resolve()),
        clip_sha256=clip_hash(clip),
        frame_count=clip.frame_count,
        width=size.width,
        height=size.height,
        layers=[{"name": name, "height": TEXELS, "width": TEXELS} for name in LAYER_NAMES],
        complete=True,
    )
    textures = mapping.render_textures() if with_textures else []
    return ImportedRun(model.folder, info, mapping, textures, maximum_frames=model.maximum_frames)


def find_data(model: ModelFolder, given: Path | None) -> Path:
    """The folder of frames; see `open_lna_model`."""
    name = Path(model.data_folder).name
    if given is not None:
        inside = given / name
        if name and not _holds_frames(given) and _holds_frames(inside):
            return inside
        list_frames(given)  # says what is wrong with it
        return given
    recorded = Path(model.data_folder)
    # Results lie in CHECKOUT/results/NAME and the config counts from CHECKOUT.
    places = [recorded, model.folder.resolve().parent.parent / recorded]
    found = next((p for p in places if model.data_folder and _holds_frames(p)), None)
    if found is None:
        raise InputError(
            f"{model.folder}: its frames are not in {model.data_folder or 'the place it says'}; "
            "give their folder with --data DIR"
        )
    log.info("%s: frames from %s", model.folder, found)
    return found


def import_mapping(model: ModelFolder, frame_count: int, tolerance: float = 0.0) -> LnaMapping:
    """The networks of a model as a mapping of `frame_count` frames, on the CPU.

    Args:
        tolerance: of `LnaMapping`.
    """
    fields = LayerFields(2, _networks(model))
    fields.mapping[0].load_state_dict(dict(model.foreground.weights))
    fields.mapping[1].load_state_dict(dict(model.background.weights))
    fields.opacity[0].load_state_dict(dict(model.opacity.weights))
    fields.atlas.load_state_dict(dict(model.atlas.weights))
    fields.eval().requires_grad_(False)
    size = Size(model.height, model.width)
    domain = Domain.of_original_program(size, frame_count)
    crop = background_crop(fields, domain, size, frame_count)
    return LnaMapping(
        fields,
        tuple(Layer(name, Size(TEXELS, TEXELS)) for name in LAYER_NAMES),
        size,
        frame_count,
        windows=(_window(-1.0, -1.0, 2.0), _window(*crop)),
        domain=domain,
        tolerance=tolerance,
    )


def _window(low_u: float, low_v: float, edge: float) -> UvWindow:
    """Texel = 1000 (uv - low) / edge: `low` is the centre of texel 0, low + edge that of 1000.

    Windows end at the centre of the last texel, 999.
    """
    half = edge / 2 * (TEXELS - 1) / TEXELS
    return UvWindow(low_u + half, low_v + half, half)


def _networks(model: ModelFolder) -> NetworksConfig:
    return NetworksConfig(
        mapping=_mlp(model.foreground),
        bottom_mapping=_mlp(model.background),
        opacity=_mlp(model.opacity),
        atlas=_mlp(model.atlas),
    )


def _mlp(network: NetworkWeights) -> MlpConfig:
    return MlpConfig(
        depth=network.depth,
        width=network.width,
        frequencies=network.frequencies,
        skips=network.skips,
    )


def background_crop(
    fields: LayerFields, domain: Domain, size: Size, frame_count: int
) -> tuple[float, float, float]:
    """The square of background uv that the original program cuts its atlas picture from.

    The bounding square of the bottom layer's uv over all pixels of all frames whose tanh opacity
    is below 0.5: (least u, least v, longer extent). The program asks every pixel; here a lattice
    tells which 8 x 8 cells can hold an extreme, and only their pixels are asked.
    """
    search = _CropSearch(fields, domain, size)
    for t in range(frame_count):
        search.add_lattice(t)
    search.ask_cells()
    if not np.isfinite(search.low).all():  # everything is foreground
        return -1.0, -1.0, 2.0
    low, high = search.low, search.high
    return float(low[0]), float(low[1]), max(float((high - low).max()), 1e-6)


class _CropSearch:
    """Running least and greatest uv of the bottom layer's pixels."""

    def __init__(self, fields: LayerFields, domain: Domain, size: Size):
        self._fields, self._domain, self._size = fields, domain, size
        self._x, self._y = (_lattice(n) for n in size.wh)
        self._frames: list[tuple[np.ndarray, np.ndarray]] = []
        self.low = np.full(2, np.inf)
        self.high = np.full(2, -np.inf)

    def add_lattice(self, t: int) -> None:
        """Ask the corners of all cells of the next frame."""
        xy = np.stack(np.meshgrid(self._x, self._y), axis=-1)
        uv, alpha = self._ask(t, xy.reshape(-1, 2))
        self._frames.append((uv.reshape(*xy.shape), alpha.reshape(xy.shape[:2])))
        self._take(uv, alpha)

    def ask_cells(self) -> None:
        """Ask every pixel of the cells that may reach beyond what the lattice has shown.

        A cell may exceed its corners by as much as they differ among themselves. It may hold
        background where it, or a cell beside it, would if its corners were moved likewise.
        """
        for t, (uv, alpha) in enumerate(self._frames):
            lowest, highest = _cell_bounds(uv)
            clearest = cv2.erode(_cell_bounds(alpha[..., None])[0][..., 0], np.ones((3, 3)))
            beyond = (lowest < self.low).any(-1) | (highest > self.high).any(-1)
            rows, columns = np.nonzero(beyond & (clearest < _CROP_ALPHA))
            for part in _parts(len(rows)):
                xy = self._pixels(rows[part], columns[part])
                self._take(*self._ask(t, xy))

    def _pixels(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """(N, 2) the pixels of the given cells; the last cells overlap inside the frame."""
        step = np.arange(_CELL_PX + 1, dtype=np.float32)
        x = np.minimum(self._x[columns][:, None] + step, self._size.width - 1)
        y = np.minimum(self._y[rows][:, None] + step, self._size.height - 1)
        shape = (len(rows), len(step), len(step))
        both = np.broadcast_to(x[:, None, :], shape), np.broadcast_to(y[:, :, None], shape)
        return np.stack(both, axis=-1).reshape(-1, 2)

    def _ask(self, t: int, xy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """uv (N, 2) of the bottom layer and opacity (N,) of the top one at (N, 2) pixels."""
        uvs, alphas = [], []
        with torch.no_grad():
            for part in torch.from_numpy(np.ascontiguousarray(xy)).split(CHUNK):
                at = self._domain.to_unit(torch.cat([part, torch.full_like(part[:, :1], t)], 1))
                uvs.append(self._fields.uv(1, at))
                alphas.append(self._fields.alpha(at)[0, :, 0])
        return torch.cat(uvs).numpy(), torch.cat(alphas).numpy()

    def _take(self, uv: np.ndarray, alpha: np.ndarray) -> None:
        used = uv[alpha < _CROP_ALPHA]
        if len(used):
            self.low = np.minimum(self.low, used.min(0))
            self.high = np.maximum(self.high, used.max(0))


def _lattice(length: int) -> np.ndarray:
    """(N,) float32: every 8th of `length` pixels, and the last one."""
    return np.unique(np.append(np.arange(0, length, _CELL_PX), length - 1)).astype(np.float32)


def _cell_bounds(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least and greatest that the cells between (H, W, C) corners may hold: (H - 1, W - 1, C)."""
    corners = np.stack([values[:-1, :-1], values[1:, :-1], values[:-1, 1:], values[1:, 1:]])
    low, high = corners.min(0), corners.max(0)
    return low - (high - low), high + (high - low)


def _parts(count: int) -> Iterator[slice]:
    for start in range(0, count, _CELLS_AT_ONCE):
        yield slice(start, start + _CELLS_AT_ONCE)


def _holds_frames(folder: Path) -> bool:
    try:
        return bool(list_frames(folder))
    except InputError:
        return False
