"""Photoshop files (.psd, .psb) as paint, by the package psd-tools (extra `psd`)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from atlas.errors import InputError
from edits.blend import BLEND_MODES
from edits.openraster import REFERENCES, PaintLayer, place

BLEND_OF = {
    "NORMAL": "normal",
    "MULTIPLY": "multiply",
    "SCREEN": "screen",
    "OVERLAY": "overlay",
    "SOFT_LIGHT": "soft light",
    "LINEAR_DODGE": "add",
}
"""psd-tools' names of blend modes to ours (`edits.blend`)."""
_DAMAGE = (AssertionError, OSError, ValueError, TypeError, EOFError, LookupError, struct.error)


def read_psd(path: Path) -> list[PaintLayer]:
    """The visible layers of a Photoshop file, bottom to top: the order in which they apply.

    Layer masks and opacities are applied. What cannot be taken as it is (adjustments, clipping,
    effects, other blend modes, groups that blend as one) raises `InputError`.
    """
    path = Path(path)
    try:
        from psd_tools import PSDImage
    except ModuleNotFoundError as err:
        raise InputError(
            f"{path}: PSD files need the package psd-tools: pip install '.[psd]'; or save the "
            "layers as OpenRaster (.ora)"
        ) from err
    try:
        picture: Any = PSDImage.open(path)
    except FileNotFoundError as err:
        raise InputError(f"{path}: not found") from err
    except _DAMAGE as err:
        raise InputError(f"{path}: not a readable PSD ({err})") from err
    if picture.color_mode.name != "RGB" or picture.depth not in (8, 16):
        raise InputError(
            f"{path}: is {picture.color_mode.name} with {picture.depth} bits a channel; wanted RGB "
            "with 8 or 16"
        )
    shape = (picture.height, picture.width)
    return [_paint(path, layer, groups, shape) for layer, groups in _shown(path, picture, ())]


def _shown(path: Path, group: Any, groups: tuple[str, ...]) -> Iterator[tuple[Any, tuple]]:
    """The visible layers of a group, or of the whole picture, bottom to top, and their groups."""
    for layer in group:
        if not layer.visible:
            continue
        if layer.is_group():
            _check_group(path, layer)
            yield from _shown(path, layer, (*groups, layer.name))
        elif layer.name.strip().lower() not in REFERENCES:
            yield layer, groups


def _check_group(path: Path, group: Any) -> None:
    """A group passes when its layers, on their own, give the same picture."""
    mode = group.blend_mode.name
    shown = [layer for layer in group.descendants() if layer.visible and not layer.is_group()]
    mixes = any(layer.blend_mode.name != "NORMAL" for layer in shown)
    passes = mode == "PASS_THROUGH" or (mode == "NORMAL" and not mixes)
    if shown and (not passes or group.opacity != 255 or group.has_mask()):
        raise InputError(
            f"{path}: group {group.name!r} blends as one; merge it into one layer, or set it to "
            "Pass Through at full opacity without a mask"
        )


def _paint(path: Path, layer: Any, groups: tuple[str, ...], shape: tuple[int, int]) -> PaintLayer:
    mode, what = layer.blend_mode.name, f"{path}: layer {layer.name!r}"
    if mode not in BLEND_OF:
        raise InputError(
            f"{what} has the blend mode {mode}; wanted one of {', '.join(BLEND_MODES)}, or merge "
            "it with the layers below"
        )
    if layer.clipping or layer.has_effects() or layer.has_vector_mask():
        raise InputError(f"{what} has clipping, effects or a vector mask; rasterise or merge it")
    if layer.kind != "pixel" and not layer.has_pixels():
        raise InputError(f"{what} is a layer of kind {layer.kind}; rasterise or merge it")
    whole = np.zeros((*shape, 4), np.float32)
    if layer.has_pixels():
        pixels = layer.numpy().astype(np.float32)
        if pixels.shape[2] == 3:
            pixels = np.dstack([pixels, np.ones(pixels.shape[:2], np.float32)])
        place(whole, pixels, layer.offset)
        whole[..., 3] *= layer.opacity / 255 * _mask(layer, shape)
    return PaintLayer(layer.name, whole, BLEND_OF[mode], groups)


def _mask(layer: Any, shape: tuple[int, int]) -> np.ndarray | float:
    """(H, W) float32: the layer's mask; 1 without one."""
    if not layer.has_mask() or layer.mask.disabled:
        return 1.0
    mask = np.full((*shape, 1), layer.mask.background_color / 255, np.float32)
    values = layer.numpy("mask")
    if values is not None:
        place(mask, values, (layer.mask.left, layer.mask.top))
    return mask[..., 0]
