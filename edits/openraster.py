"""OpenRaster (.ora): layered pictures to and from Krita, GIMP, MyPaint and others.

A zip file: `mimetype` first and not compressed, `stack.xml`, one PNG per layer, the merged picture
and a thumbnail. Source: openraster.org, baseline specification (file layout; layer stack).
"""

from __future__ import annotations

import io
import logging
import xml.etree.ElementTree as ET
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from atlas.clip import write_bytes
from atlas.coords import Size
from atlas.errors import InputError
from edits.blend import BLEND_MODES

MIMETYPE = b"image/openraster"
BLEND_OF = {
    "svg:src-over": "normal",
    "svg:multiply": "multiply",
    "svg:screen": "screen",
    "svg:overlay": "overlay",
    "svg:soft-light": "soft light",
    "svg:plus": "add",
    "svg:add": "add",  # Krita's name for it
}
"""composite-op to blend mode (`edits.blend`)."""
REFERENCES = ("atlas", "coverage", "grid")
"""Layers that are there to be looked at; they are no paint."""
MAX_SIDE_PX = 32768
THUMBNAIL_PX = 256
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PaintLayer:
    """One layer of a layered picture.

    rgba: (H, W, 4) float32 straight, [0, 1], of the whole picture's size, opacity applied.
    blend: a key of `edits.blend.BLEND_MODES`. groups: names of the groups it is in, outermost
    first.
    """

    name: str
    rgba: np.ndarray
    blend: str = "normal"
    groups: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class StoredLayer:
    """A layer to write: (h, w, 4) uint8 or uint16 straight RGBA at (x, y) of the picture."""

    name: str
    rgba: np.ndarray
    x: int = 0
    y: int = 0
    opacity: float = 1.0
    visible: bool = True
    blend: str = "normal"
    locked: bool = False


def write_ora(path: Path, size: Size, layers: Sequence[StoredLayer]) -> None:
    """Write an OpenRaster file, layers top to bottom; whole or not at all."""
    root = ET.Element("image", version="0.0.5", w=str(size.width), h=str(size.height))
    stack = ET.SubElement(root, "stack")
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("mimetype", MIMETYPE)
        for number, layer in enumerate(layers):
            source = f"data/layer{number:03d}.png"
            archive.writestr(source, _png(layer.rgba))
            operation = next(op for op, mode in BLEND_OF.items() if mode == layer.blend)
            attributes = {
                "name": layer.name,
                "src": source,
                "x": str(layer.x),
                "y": str(layer.y),
                "opacity": f"{layer.opacity:.6g}",
                "visibility": "visible" if layer.visible else "hidden",
                "composite-op": operation,
            }
            if layer.locked:
                attributes["edit-locked"] = "true"
            ET.SubElement(stack, "layer", attributes)
        merged = _merged(size, layers)
        archive.writestr("mergedimage.png", _png(merged))
        archive.writestr("Thumbnails/thumbnail.png", _png(_thumbnail(merged)))
        text = ET.tostring(root, encoding="utf-8", xml_declaration=True)
        archive.writestr("stack.xml", text, zipfile.ZIP_DEFLATED)
    write_bytes(path, data.getvalue())


def read_ora(path: Path) -> list[PaintLayer]:
    """The visible layers of an OpenRaster file, bottom to top: the order in which they apply.

    Damaged files, blend modes that this project does not have, and groups that cannot be taken
    apart raise `InputError`.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            return _Reader(path, archive).layers()
    except FileNotFoundError as err:
        raise InputError(f"{path}: not found") from err
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, ValueError) as err:
        raise InputError(f"{path}: not a readable OpenRaster file ({err})") from err


def paints_by_layer(
    layers: Sequence[PaintLayer], names: Sequence[str], default: str | None = None
) -> list[tuple[str, PaintLayer]]:
    """Which atlas each paint goes on: named by its layer's, or an enclosing group's, name.

    A name picks an atlas layer when it is that layer's name or begins with it and goes on with
    something other than a letter or digit ("sky", "sky: clouds", "Sky 2"); case does not matter.
    Layers called atlas, coverage or grid are left out.

    Args:
        names: the atlas layers. default: where layers go that name none; without it they are
            reported and left out.
    """
    picked = []
    for layer in layers:
        if layer.name.strip().lower() in REFERENCES:
            continue
        known = [_picked(name, names) for name in (layer.name, *reversed(layer.groups))]
        target = next((name for name in known if name is not None), default)
        if target is None:
            log.warning(
                "layer %r names none of the atlases (%s); left out", layer.name, ", ".join(names)
            )
        else:
            picked.append((target, layer))
    return picked


def _picked(title: str, names: Sequence[str]) -> str | None:
    """The atlas layer that `title` begins with; the longest where there are several."""
    title = title.strip().lower()
    fitting = [
        name
        for name in names
        if title.startswith(name.lower()) and not title[len(name) :][:1].isalnum()
    ]
    return max(fitting, key=len, default=None)


class _Reader:
    def __init__(self, path: Path, archive: zipfile.ZipFile):
        self._path = path
        self._archive = archive
        if "stack.xml" not in archive.namelist():
            raise InputError(f"{path}: is a zip file without stack.xml; wanted an OpenRaster file")
        text = archive.read("stack.xml")
        if b"<!DOCTYPE" in text:
            raise InputError(f"{path}: stack.xml declares a document type; wanted plain OpenRaster")
        try:
            self._root = ET.fromstring(text)
            self._size = Size(int(self._root.get("h", "")), int(self._root.get("w", "")))
        except (ET.ParseError, ValueError) as err:
            raise InputError(f"{path}: stack.xml is damaged ({err})") from err
        if max(self._size.wh) > MAX_SIDE_PX:
            raise InputError(f"{path}: is {self._size}; wanted at most {MAX_SIDE_PX} px a side")

    def layers(self) -> list[PaintLayer]:
        found: list[PaintLayer] = []
        for stack in self._root.findall("stack"):
            self._walk(stack, (), (0, 0), found)
        return found[::-1]

    def _walk(
        self,
        stack: ET.Element,
        groups: tuple[str, ...],
        corner: tuple[int, int],
        found: list[PaintLayer],
    ) -> None:
        """Append the visible layers of a group, top to bottom."""
        for item in stack:
            if item.tag not in ("layer", "stack") or item.get("visibility") == "hidden":
                continue
            name = item.get("name", "")
            at = (corner[0] + self._int(item, "x"), corner[1] + self._int(item, "y"))
            if item.tag == "stack":
                self._check_group(item, name)
                self._walk(item, (*groups, name), at, found)
            elif name.strip().lower() not in REFERENCES:
                blend = self._blend(item, f"layer {name!r}")
                found.append(PaintLayer(name, self._pixels(item, name, at), blend, groups))

    def _blend(self, item: ET.Element, what: str) -> str:
        operation = item.get("composite-op", "svg:src-over")
        if operation not in BLEND_OF:
            raise InputError(
                f"{self._path}: {what} has the blend mode {operation}; wanted one of "
                f"{', '.join(BLEND_MODES)}, or merge it with the layers below"
            )
        return BLEND_OF[operation]

    def _check_group(self, group: ET.Element, name: str) -> None:
        """A group passes when its layers, on their own, give the same picture."""
        shown = [e for e in group.iter("layer") if e.get("visibility") != "hidden"]
        alone = self._opacity(group) == 1 and self._blend(group, f"group {name!r}") == "normal"
        mixes = any(self._blend(e, f"layer {e.get('name', '')!r}") != "normal" for e in shown)
        if shown and (not alone or (mixes and group.get("isolation") == "isolate")):
            raise InputError(
                f"{self._path}: group {name!r} blends as one; merge it into one layer, or give it "
                "normal mode and full opacity and take other blend modes out of it"
            )

    def _opacity(self, item: ET.Element) -> float:
        try:
            value = float(item.get("opacity", "1"))
        except ValueError:
            value = -1.0
        if not 0 <= value <= 1:
            raise InputError(f"{self._path}: opacity is {item.get('opacity')!r}, wanted 0 to 1")
        return value

    def _int(self, item: ET.Element, key: str) -> int:
        try:
            return int(item.get(key, "0"))
        except ValueError as err:
            raise InputError(f"{self._path}: {key} is {item.get(key)!r}, wanted pixels") from err

    def _pixels(self, item: ET.Element, name: str, at: tuple[int, int]) -> np.ndarray:
        source = item.get("src", "")
        if source not in self._archive.namelist():
            raise InputError(f"{self._path}: layer {name!r}: {source or 'its file'} is missing")
        data = np.frombuffer(self._archive.read(source), np.uint8)
        pixels = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if data.size else None
        if pixels is None or pixels.dtype not in (np.uint8, np.uint16):
            raise InputError(f"{self._path}: layer {name!r}: {source} is not a readable PNG")
        rgba = _straight(pixels)
        rgba[..., 3] *= self._opacity(item)
        whole = np.zeros((self._size.height, self._size.width, 4), np.float32)
        place(whole, rgba, at)
        return whole


def place(whole: np.ndarray, part: np.ndarray, at: tuple[int, int]) -> None:
    """Copy `part` into `whole` with its top-left pixel at (x, y); what sticks out is cut off."""
    x, y = at
    top, left = max(y, 0), max(x, 0)
    bottom = min(y + part.shape[0], whole.shape[0])
    right = min(x + part.shape[1], whole.shape[1])
    if top < bottom and left < right:
        whole[top:bottom, left:right] = part[top - y : bottom - y, left - x : right - x]


def _straight(pixels: np.ndarray) -> np.ndarray:
    """(h, w, 4) float32 RGBA in [0, 1] of what OpenCV read: grey, BGR or BGRA."""
    values = pixels.astype(np.float32) / np.iinfo(pixels.dtype).max
    if values.ndim == 2:
        values = values[..., None].repeat(3, -1)
    alpha = values[..., 3] if values.shape[2] == 4 else np.ones(values.shape[:2], np.float32)
    return np.dstack([values[..., 2::-1], alpha])


def _png(rgba: np.ndarray) -> bytes:
    ok, data = cv2.imencode(".png", cv2.cvtColor(rgba, cv2.COLOR_RGBA2BGRA))
    assert ok
    return data.tobytes()


def _merged(size: Size, layers: Sequence[StoredLayer]) -> np.ndarray:
    """(H, W, 4) uint8: the visible layers composited (Compositing and Blending 1, section 5.8)."""
    colour = np.zeros((size.height, size.width, 3), np.float32)  # premultiplied
    alpha = np.zeros((size.height, size.width, 1), np.float32)
    for layer in reversed(layers):
        if not layer.visible:
            continue
        whole = np.zeros((size.height, size.width, 4), np.float32)
        place(
            whole,
            layer.rgba.astype(np.float32) / np.iinfo(layer.rgba.dtype).max,
            (layer.x, layer.y),
        )
        source, share = whole[..., :3], whole[..., 3:] * np.float32(layer.opacity)
        backdrop = colour / np.maximum(alpha, 1e-6)
        mixed = (1 - alpha) * source + alpha * BLEND_MODES[layer.blend](backdrop, source)
        colour = share * mixed + (1 - share) * colour
        alpha = share + alpha * (1 - share)
    rgba = np.dstack([colour / np.maximum(alpha, 1e-6), alpha])
    return np.clip(np.rint(rgba * 255), 0, 255).astype(np.uint8)


def _thumbnail(rgba: np.ndarray) -> np.ndarray:
    scale = min(1.0, THUMBNAIL_PX / max(rgba.shape[:2]))
    size = (max(1, round(rgba.shape[1] * scale)), max(1, round(rgba.shape[0] * scale)))
    return rgba if scale == 1 else cv2.resize(rgba, size, interpolation=cv2.INTER_AREA)
