"""How a run of the recipe `layered` lies on disk, and how it is opened.

checkpoint.safetensors   per layer l: matrices.l, confidence.l, where its canvas is rolled out
                         from a cylinder turns.l and roll.l (focal, origin, vertical),
                         texture.l (float16), coverage.l, bare.l (uint8);
                         light.exposure, light.vignette: the camera's part of the shading
residual_l.npy           (frames, h, w, 2) float32 texels, read as it is needed
gains.npy                shading: (layers, frames, h, w, 3) float16, read as it is needed
mattes/<layer>/00000.png opacity of every layer but the bottom one, 8 bit
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from atlas.camera_light import CameraLight
from atlas.clip import read_grey, write_bytes, write_rgb
from atlas.coords import Size
from atlas.errors import InputError
from atlas.layered import LayeredMapping, LayerMotion
from atlas.run import OpenedMapping, RunInfo
from atlas.shading import Shading
from atlas.texture import Texture
from atlas.wide_canvas import Roll

CHECKPOINT = "checkpoint.safetensors"
GAINS = "gains.npy"


def save_layered(
    folder: Path,
    motions: list[LayerMotion],
    textures: list[Texture],
    shading: Shading | None,
    about: dict,
) -> None:
    """Write the checkpoint, whole or not at all; `about` tells what made it."""
    arrays: dict[str, np.ndarray] = {}
    for i, (motion, texture) in enumerate(zip(motions, textures, strict=True)):
        arrays |= motion_arrays(motion, str(i))
        arrays[f"texture.{i}"] = texture.rgb.astype(np.float16)
        arrays[f"coverage.{i}"] = np.rint(texture.coverage * 255).astype(np.uint8)
        if texture.bare is not None:
            arrays[f"bare.{i}"] = np.rint(texture.bare * 255).astype(np.uint8)
    meta = about | layer_meta(motions)
    if shading is not None and shading.camera is not None:
        arrays["light.exposure"] = shading.camera.exposure
        arrays["light.vignette"] = shading.camera.vignette
    meta["shading_stride_px"] = shading.stride_px if shading else 0
    write_mapped(folder / GAINS, None if shading is None else shading.gains, np.float16)
    write_residuals(folder, motions)
    write_arrays(folder / CHECKPOINT, arrays, meta)


def write_mapped(path: Path, values: np.ndarray | None, dtype: type) -> None:
    """Write (..., h, w, C) values as a .npy file, picture by picture; without any no file stays.

    Values that are that very file, mapped into memory, are brought to the disk.
    """
    if isinstance(values, np.memmap) and Path(str(values.filename)).resolve() == path.resolve():
        values.flush()
        return
    path.unlink(missing_ok=True)
    if values is None:
        return
    temporary = path.with_name(f"{path.stem}.tmp.npy")
    target = open_memmap(temporary, "w+", dtype, values.shape)
    for to, of in zip(_pictures(target), _pictures(values), strict=True):
        to[:] = of
    target.flush()
    del target  # closes the file, which Windows wants before it is renamed
    temporary.replace(path)


def _pictures(values: np.ndarray) -> np.ndarray:
    """(N, h, w, C): the same memory with one leading axis."""
    return values.reshape(-1, *values.shape[-3:])


def write_residuals(folder: Path, motions: list[LayerMotion]) -> None:
    """Write every layer's residual as `residual_<number>.npy`."""
    for i, motion in enumerate(motions):
        write_mapped(residual_path(folder, i), motion.residual, np.float32)


def residual_path(folder: Path, layer: int) -> Path:
    """Where a layer's residual lies."""
    return folder / f"residual_{layer}.npy"


def read_motions(
    path: Path, arrays: dict[str, np.ndarray], meta: dict, *, writable: bool = False
) -> list[LayerMotion]:
    """The motions that a file of `write_arrays` and the residuals beside it hold.

    Residuals stay on disk, mapped into memory, so that memory does not grow with the clip.
    """
    motions = []
    for i, (name, height, width, stride_px) in enumerate(meta["layers"]):
        file = residual_path(path.parent, i)
        residual = arrays.get(f"residual.{i}")  # where runs made before these files have it
        if file.is_file():
            residual = np.load(file, mmap_mode="r+" if writable else "r")
        matrices, confidence = arrays[f"matrices.{i}"], arrays[f"confidence.{i}"]
        canvas = Size(height, width)
        roll = _read_roll(arrays, str(i))
        motions.append(LayerMotion(name, canvas, matrices, residual, stride_px, confidence, roll))
    return motions


def layer_meta(motions: list[LayerMotion]) -> dict:
    """What the arrays of motions do not say: name, canvas height and width, stride of each."""
    rows = [[m.name, m.canvas.height, m.canvas.width, m.stride_px] for m in motions]
    return {"layers": rows}


def motion_arrays(motion: LayerMotion, key: str) -> dict[str, np.ndarray]:
    """A motion's arrays but for its residual, under names that end in `key`."""
    arrays = {f"matrices.{key}": motion.matrices, f"confidence.{key}": motion.confidence}
    if motion.roll is not None:
        roll = motion.roll
        arrays[f"turns.{key}"] = roll.turns
        arrays[f"roll.{key}"] = np.array([roll.focal, *roll.origin, roll.vertical], np.float64)
    return arrays


def _read_roll(arrays: dict[str, np.ndarray], key: str) -> Roll | None:
    """The roll that `motion_arrays` wrote, if it did."""
    if f"roll.{key}" not in arrays:
        return None
    focal, u, v, vertical = arrays[f"roll.{key}"].tolist()
    return Roll(focal, (u, v), arrays[f"turns.{key}"], bool(vertical))


def write_arrays(path: Path, arrays: dict[str, np.ndarray], meta: dict) -> None:
    """Write a safetensors file, whole or not at all."""
    whole = {name: np.ascontiguousarray(value) for name, value in arrays.items()}
    write_bytes(path, save(whole, metadata={"skyweave": json.dumps(meta)}))


def read_arrays(path: Path) -> tuple[dict[str, np.ndarray], dict]:
    """The arrays and the metadata of a file that `write_arrays` wrote."""
    try:
        with safe_open(path, framework="numpy") as file:
            meta = json.loads((file.metadata() or {})["skyweave"])
            return {name: file.get_tensor(name) for name in file.keys()}, meta  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, ValueError) as err:
        raise InputError(f"{path}: not a checkpoint of this project ({err})") from err


def read_meta(path: Path) -> dict:
    """Only the metadata of a file that `write_arrays` wrote; empty where it has none."""
    try:
        with safe_open(path, framework="numpy") as file:
            return json.loads((file.metadata() or {}).get("skyweave", "{}"))
    except (SafetensorError, OSError, ValueError):
        return {}


def open_mapping(folder: Path, info: RunInfo) -> OpenedMapping:
    """Open a run of kind "layered"."""
    path = folder / CHECKPOINT
    arrays, meta = read_arrays(path)
    size = Size(info.height, info.width)
    alpha = MatteReader(folder, [row[0] for row in meta["layers"]], size)
    try:
        motions, textures = read_motions(path, arrays, meta), []
        base = [replace(motion, residual=None) for motion in motions]
        for i in range(len(motions)):
            rgb = arrays[f"texture.{i}"].astype(np.float32)
            coverage = arrays[f"coverage.{i}"].astype(np.float32) / 255
            bare = arrays.get(f"bare.{i}")  # runs made before it was kept have none
            bare = None if bare is None else bare.astype(np.float32) / 255
            textures.append(Texture(rgb, coverage, bare))
        gains = arrays.get("gains")  # where runs made before gains.npy have them
        if (folder / GAINS).is_file():
            gains = np.load(folder / GAINS, mmap_mode="r")
        stride_px = int(meta["shading_stride_px"])
        camera = None
        if "light.exposure" in arrays:  # runs made before it was told apart lack it
            camera = CameraLight(arrays["light.exposure"], arrays["light.vignette"], size)
        shading = None if gains is None else Shading(gains, stride_px, size, camera)
    except KeyError as err:
        raise InputError(f"{path}: lacks {err}; train the run again") from err
    return OpenedMapping(
        LayeredMapping(size, motions, alpha), textures, LayeredMapping(size, base, alpha), shading
    )


class MatteReader:
    """t -> (L, H, W) float32 opacity from a run's matte pictures; a few frames are kept."""

    def __init__(self, folder: Path, names: list[str], size: Size):
        self.folder, self.names, self.size = folder, names, size
        self._read = lru_cache(maxsize=4)(self._read_frame)

    def __call__(self, t: int) -> np.ndarray:
        return self._read(t)

    def _read_frame(self, t: int) -> np.ndarray:
        out = np.ones((len(self.names), self.size.height, self.size.width), np.float32)
        for i, name in enumerate(self.names[:-1]):
            path = matte_path(self.folder, name, t)
            grey = read_grey(path)
            if grey.shape != out.shape[1:]:
                raise InputError(f"{path}: is {Size(*grey.shape)}, wanted {self.size}")
            out[i] = grey.astype(np.float32) / 255
        return out


def matte_path(folder: Path, layer: str, t: int) -> Path:
    """Where a run keeps one layer's opacity of frame `t`."""
    return folder / "mattes" / layer / f"{t:05d}.png"


def write_mattes(
    folder: Path, names: tuple[str, ...], count: int, alpha: Callable[[int], np.ndarray]
) -> None:
    """Keep every layer's opacity in the run folder, so that it stands without the clip folder.

    Args:
        alpha: t -> (L, H, W) float32, [0, 1], for t in 0 .. count - 1. May read the mattes that
            this call replaces.
    """
    target = folder / "mattes"
    temporary = folder / "mattes.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir()
        for name in names[:-1]:
            (temporary / name).mkdir()
        for t in range(count):
            planes = np.rint(alpha(t) * 255).astype(np.uint8)
            for name, plane in zip(names[:-1], planes, strict=False):
                write_rgb(temporary / name / f"{t:05d}.png", plane)
        shutil.rmtree(target, ignore_errors=True)
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
