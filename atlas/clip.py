"""The clip folder: what preprocessing leaves on disk, and the only thing that training reads.

    data/swan/00000.png ...                     frames (png, jpg, jpeg, webp)
    data/swan/clip.json                         `ClipInfo`
    data/swan_flow/00000.png_00001.png.npy      (H, W, 2) float32 px, t -> t + 1; and back
    data/swan_maskrcnn/00000.png ...            a layer's mask, 255 = the layer
    data/swan_sky/00000.png ...                 soft sky matte, 255 = sky

A folder without `clip.json` in this layout (the one of layered-neural-atlases data) opens too.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from atlas.coords import Size
from atlas.errors import InputError
from atlas.frame_names import pictures_in_order
from atlas.png import PNG_SIGNATURE, check_png

FRAME_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
CLIP_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class LayerInfo:
    """One layer of a clip, top to bottom in `ClipInfo.layers`."""

    name: str
    """What `--layer NAME=...` calls it."""
    mask_dir: str | None = None
    """Folder beside the frames that holds its masks; None for a bottom layer without one."""
    inverted: bool = False
    """The layer's opacity is 1 - mask (the scene above a sky, masked by the sky's matte)."""


@dataclass(frozen=True, kw_only=True)
class SourceInfo:
    """The video or picture folder that the clip was made from."""

    path: str
    """Absolute path, or relative to the clip folder."""
    sha256: str | None
    """Hash of the file; None for a folder of pictures."""
    width: int
    """Display size after rotation, pixels."""
    height: int
    frame_count: int
    first_frame: int = 0
    """Source frame that became frame 0 of the clip (leading black frames are skipped)."""
    leading_black: int = 0
    """How many black frames the source starts with."""
    frame_times_s: list[float] = field(default_factory=list)
    """Presentation time of every source frame, seconds."""
    variable_frame_rate: bool = False
    rotation_deg: int = 0
    """Rotation tag of the file; frames are stored upright."""
    pix_fmt: str = ""
    codec: str = ""
    color: dict[str, str] = field(default_factory=dict)
    """ffmpeg names: range, space, primaries, transfer."""
    audio: dict[str, Any] | None = None
    """Codec, sample rate, channels of the first audio track; None without sound."""


@dataclass(frozen=True, kw_only=True)
class ClipInfo:
    """The content of `clip.json`."""

    width: int
    """Size of the stored frames, pixels."""
    height: int
    frame_count: int
    fps: float
    frame_times_s: list[float]
    """Presentation time of every stored frame, seconds."""
    layers: list[LayerInfo]
    """Top to bottom."""
    source: SourceInfo | None = None
    shots: list[list[int]] = field(default_factory=list)
    """[first, end) of every shot, in stored frames."""
    tools: dict[str, str] = field(default_factory=dict)
    """Which tool made each part: frames, flow, masks."""
    seconds: dict[str, float] = field(default_factory=dict)
    """How long each part took."""
    truth: str | None = None
    """Folder beside the frames with the exact mapping as baked maps (synthetic clips)."""
    version: int = CLIP_VERSION


class Clip:
    """Read access to a clip folder. Nothing is kept in memory; every call reads the file it needs.

    Attributes:
        folder: the frames' folder. name: its name.
        size: the size frames, flow and masks come in, pixels.
        frame_names: file names of the frames, in order.
        info: `ClipInfo`, read or deduced.
    """

    def __init__(self, folder: Path | str):
        self.folder = Path(folder)
        self.name = self.folder.resolve().name
        self.frame_names = list_frames(self.folder)
        self._written_here = (self.folder / "clip.json").is_file()
        if self._written_here:
            self.info = read_info(self.folder / "clip.json")
            if self.info.frame_count != len(self.frame_names):
                raise InputError(
                    f"{self.folder}: clip.json says {self.info.frame_count} frames, the folder "
                    f"holds {len(self.frame_names)}; run preprocess again"
                )
        else:
            self.info = self._deduce_info()
        self.size = Size(self.info.height, self.info.width)

    @property
    def frame_count(self) -> int:
        return len(self.frame_names)

    @property
    def layer_names(self) -> tuple[str, ...]:
        """Top to bottom."""
        return tuple(layer.name for layer in self.info.layers)

    def sibling(self, suffix: str) -> Path:
        """The folder `NAME_suffix` beside the frames."""
        return self.folder.resolve().parent / f"{self.name}_{suffix}"

    def span(self, first: int, end: int) -> Clip:
        """Frames [first, end) as a clip of their own in the same folder."""
        if not 0 <= first < end <= self.frame_count:
            raise ValueError(f"wanted 0 <= first < end <= {self.frame_count}, got {first}, {end}")
        part = copy.copy(self)
        part.frame_names = self.frame_names[first:end]
        part.info = dataclasses.replace(
            self.info,
            frame_count=end - first,
            frame_times_s=self.info.frame_times_s[first:end],
            shots=[[0, end - first]],
        )
        return part

    def without(self, layer: str) -> Clip:
        """The same clip, a layer above the bottom left out: its pixels belong to what is below."""
        rest = [one for one in self.info.layers[:-1] if one.name != layer]
        return self.with_layers([*rest, self.info.layers[-1]])

    def with_layers(self, layers: list[LayerInfo]) -> Clip:
        """The same frames under other layers."""
        other = copy.copy(self)
        other.info = dataclasses.replace(self.info, layers=layers)
        return other

    def shots(self) -> list[tuple[int, int]]:
        """[first, end) of every shot, in order; one where preprocess found no cut."""
        found = [(int(first), int(end)) for first, end in self.info.shots]
        if not found:
            return [(0, self.frame_count)]
        firsts, ends = zip(*found, strict=True)
        edges = (0, *ends)
        if (
            firsts != edges[:-1]
            or ends[-1] != self.frame_count
            or list(edges) != sorted(set(edges))
        ):
            raise InputError(
                f"{self.folder / 'clip.json'}: shots {self.info.shots} do not cover its "
                f"{self.frame_count} frames one after the other; run preprocess again"
            )
        return found

    def frame(self, t: int) -> np.ndarray:
        """(H, W, 3) uint8 RGB: frame `t` at the clip's size."""
        rgb = read_rgb(self.folder / self.frame_names[t])
        if rgb.shape[:2] != (self.size.height, self.size.width):
            if self._written_here:
                found = Size(*rgb.shape[:2])
                raise InputError(
                    f"{self.folder / self.frame_names[t]}: is {found}, clip.json says {self.size}"
                )
            rgb = cv2.resize(rgb, self.size.wh, interpolation=cv2.INTER_LINEAR)
        return rgb

    def flow_path(self, source: int, target: int) -> Path:
        """Where the flow from frame `source` to frame `target` lies."""
        names = self.frame_names
        return self.sibling("flow") / f"{names[source]}_{names[target]}.npy"

    def flow(self, source: int, target: int) -> np.ndarray:
        """(H, W, 2) float32 px: motion from frame `source` to its neighbour `target`.

        Channel 0 is x, 1 is y: pixel (x, y) of `source` is at (x, y) + flow in `target`.
        """
        path = self.flow_path(source, target)
        try:
            flow = np.load(path, allow_pickle=False)
        except FileNotFoundError as err:
            raise InputError(f"{path}: flow not found; run preprocess to make it") from err
        except (OSError, ValueError, EOFError) as err:
            raise InputError(f"{path}: not a readable .npy file ({err})") from err
        wanted = (self.size.height, self.size.width, 2)
        if flow.shape != wanted:
            raise InputError(f"{path}: flow has shape {flow.shape}, wanted {wanted}")
        if flow.dtype.kind != "f":
            raise InputError(f"{path}: flow has type {flow.dtype}, wanted float32")
        return flow.astype(np.float32, copy=False)

    def mask(self, layer: int, t: int) -> np.ndarray:
        """(H, W) float32 in [0, 1]: opacity of layer number `layer` itself; 1 without a mask.

        Hard masks of another size are resized by nearest neighbour, so they stay hard.
        """
        info = self.info.layers[layer]
        if info.mask_dir is None or layer == len(self.info.layers) - 1:
            return np.ones((self.size.height, self.size.width), np.float32)
        folder = self.folder.resolve().parent / info.mask_dir
        path = find_picture(folder, Path(self.frame_names[t]).stem)
        grey = read_grey(path)
        if grey.shape != (self.size.height, self.size.width):
            grey = cv2.resize(grey, self.size.wh, interpolation=cv2.INTER_NEAREST)
        mask = grey.astype(np.float32) / 255
        return 1 - mask if info.inverted else mask

    def alpha(self, t: int) -> np.ndarray:
        """(L, H, W) float32: `mask` of every layer, top to bottom; the bottom layer is 1."""
        return np.stack([self.mask(i, t) for i in range(len(self.info.layers))])

    def check(self) -> None:
        """Raise `InputError` for the first part that training needs and that is not there."""
        for layer in self.info.layers[:-1]:
            if layer.mask_dir is None:
                raise InputError(f"{self.folder}: layer {layer.name!r} has no mask folder")
            folder = self.folder.resolve().parent / layer.mask_dir
            for name in self.frame_names:
                find_picture(folder, Path(name).stem)
        for t in range(self.frame_count - 1):
            for path in (self.flow_path(t, t + 1), self.flow_path(t + 1, t)):
                if not path.is_file():
                    raise InputError(f"{path}: flow not found; run preprocess to make it")

    def _deduce_info(self) -> ClipInfo:
        """`ClipInfo` of a folder in the layout of layered-neural-atlases data."""
        first = read_rgb(self.folder / self.frame_names[0])
        size = Size(*first.shape[:2])
        if self.frame_count > 1:
            flow_path = self.flow_path(0, 1)
            if not flow_path.is_file():
                raise InputError(
                    f"{self.folder}: no clip.json and no {flow_path.name} in "
                    f"{flow_path.parent.name}/; run preprocess on it first"
                )
            try:  # such data sets keep frames at full size and flow at the fit's size
                size = Size(*np.load(flow_path, mmap_mode="r").shape[:2])
            except (OSError, ValueError) as err:
                raise InputError(f"{flow_path}: not a readable .npy file ({err})") from err
        if self.sibling("maskrcnn").is_dir():
            top = LayerInfo(name="foreground", mask_dir=f"{self.name}_maskrcnn")
            layers = [top, LayerInfo(name="background")]
        elif self.sibling("sky").is_dir():
            top = LayerInfo(name="foreground", mask_dir=f"{self.name}_sky", inverted=True)
            layers = [top, LayerInfo(name="sky")]
        else:
            raise InputError(
                f"{self.folder}: no clip.json and neither {self.name}_maskrcnn nor "
                f"{self.name}_sky beside it; run preprocess on it first"
            )
        fps = 25.0
        return ClipInfo(
            width=size.width,
            height=size.height,
            frame_count=self.frame_count,
            fps=fps,
            frame_times_s=[t / fps for t in range(self.frame_count)],
            layers=layers,
            shots=[[0, self.frame_count]],
            tools={"frames": "folder in the layout of layered-neural-atlases data"},
        )


def list_frames(folder: Path) -> list[str]:
    """File names of the pictures in `folder`, in order; raises `InputError` when there are none."""
    if not folder.exists():
        raise InputError(f"{folder}: not found; wanted a folder of frames")
    if not folder.is_dir():
        raise InputError(f"{folder}: is a file; wanted a folder of frames")
    names = [path.name for path in pictures_in_order(folder, FRAME_SUFFIXES)]
    if not names:
        raise InputError(f"{folder}: holds no frames; wanted {', '.join(FRAME_SUFFIXES)} files")
    return names


def find_picture(folder: Path, stem: str) -> Path:
    """The picture called `stem` in `folder`, whichever suffix it has."""
    for suffix in FRAME_SUFFIXES:
        path = folder / f"{stem}{suffix}"
        if path.is_file():
            return path
    if not folder.is_dir():
        raise InputError(f"{folder}: mask folder not found")
    raise InputError(f"{folder}: no mask for frame {stem} ({stem}.png or .jpg)")


def read_rgb(path: Path) -> np.ndarray:
    """(H, W, 3) uint8 RGB of a picture file; grey and alpha are dealt with by OpenCV."""
    return cv2.cvtColor(_read_picture(path, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def read_grey(path: Path) -> np.ndarray:
    """(H, W) uint8 of a picture file."""
    return _read_picture(path, cv2.IMREAD_GRAYSCALE)


def is_whole(path: Path, size: Size) -> bool:
    """Whether a file is a readable picture of that size; what a kill left behind is not."""
    try:
        return read_grey(path).shape == (size.height, size.width)
    except InputError:
        return False


def _read_picture(path: Path, mode: int) -> np.ndarray:
    try:  # through numpy, since cv2.imread cannot open some non-ASCII paths on Windows
        data = np.fromfile(path, np.uint8)
    except FileNotFoundError as err:
        raise InputError(f"{path}: not found") from err
    if data[:8].tobytes() == PNG_SIGNATURE:
        check_png(path, data.data)
    picture = cv2.imdecode(data, mode) if data.size else None
    if picture is None:
        raise InputError(f"{path}: not a readable picture")
    return picture


def write_rgb(path: Path, rgb: np.ndarray) -> None:
    """Write (H, W, 3) or (H, W, 4) uint8/uint16 RGB(A), or (H, W) grey; whole or not at all."""
    if rgb.ndim == 3:
        code = cv2.COLOR_RGB2BGR if rgb.shape[2] == 3 else cv2.COLOR_RGBA2BGRA
        rgb = cv2.cvtColor(rgb, code)
    options = [cv2.IMWRITE_PNG_COMPRESSION, 1] if path.suffix == ".png" else []
    ok, data = cv2.imencode(path.suffix, rgb, options)
    if not ok:
        raise ValueError(f"OpenCV cannot write {path.suffix} files of type {rgb.dtype}")
    write_bytes(path, data.tobytes())


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file under a temporary name and rename it when whole."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    except BaseException as err:
        temporary.unlink(missing_ok=True)
        if isinstance(err, OSError) and err.filename is None:
            err.filename = str(path)  # a full disk: writing, unlike opening, names no file
        raise


def read_info(path: Path) -> ClipInfo:
    """Parse and check `clip.json`."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as err:
        raise InputError(f"{path}: not readable as JSON ({err})") from err
    version = data.get("version") if isinstance(data, dict) else None
    if version != CLIP_VERSION:
        raise InputError(f"{path}: version is {version!r}, wanted {CLIP_VERSION}")
    try:
        data["layers"] = [LayerInfo(**row) for row in data["layers"]]
        data["source"] = SourceInfo(**data["source"]) if data.get("source") else None
        info = ClipInfo(**data)
    except (TypeError, KeyError) as err:
        raise InputError(f"{path}: not what preprocess writes ({err})") from err
    if not info.layers:
        raise InputError(f"{path}: names no layers")
    return info


def write_info(folder: Path, info: ClipInfo) -> None:
    """Write `clip.json` into `folder`, whole or not at all."""
    text = json.dumps(dataclasses.asdict(info), indent=1)
    write_bytes(folder / "clip.json", text.encode("utf-8"))
