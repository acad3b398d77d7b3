"""What Nuke and Fusion do with a hand-over's scripts, done over in numpy from the files alone.

Only the nodes and functions that the scripts use, each by its documented rule, pictures top row
first. Nothing of the project's own sampling is used here.
"""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np

from edits.fusion_script import FusionTool
from edits.nuke_script import NukeNode


def read_rgba(path: Path) -> np.ndarray:
    """(H, W, 4) float64 raw values; grey is spread over RGB, alpha is 0 where there is none."""
    if path.suffix == ".exr":
        import OpenEXR

        with OpenEXR.File(str(path)) as file:
            (pixels,) = [np.array(c.pixels) for c in file.channels().values()]
        pixels = pixels.astype(np.float64)
    else:
        raw = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        pixels = raw.astype(np.float64) / np.iinfo(raw.dtype).max
        pixels = pixels[..., None].repeat(3, -1) if pixels.ndim == 2 else pixels
        pixels[..., :3] = pixels[..., 2::-1].copy()
    if pixels.shape[2] == 3:
        pixels = np.dstack([pixels, np.zeros(pixels.shape[:2])])
    return pixels


def st_sample(picture: np.ndarray, s: np.ndarray, t: np.ndarray, edge: str) -> np.ndarray:
    """The ST-map rule: picture edges at 0 and 1, t upwards, texel centres at half texels, bilinear.

    Args:
        edge: "black" or "repeat", what lies outside of the picture.
    """
    height, width = picture.shape[:2]
    x, y = s * width - 0.5, (1 - t) * height - 0.5
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    out = np.zeros((*s.shape, picture.shape[2]))
    for dy in (0, 1):
        for dx in (0, 1):
            column, row = left + dx, top + dy
            weight = (1 - abs(x - column)) * (1 - abs(y - row))
            value = picture[row.clip(0, height - 1), column.clip(0, width - 1)]
            if edge == "black":
                inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
                weight = weight * inside
            out += weight[..., None] * value
    return out


def run_nuke(nodes: dict[str, NukeNode], folder: Path, frame: int, wanted: str) -> np.ndarray:
    """(H, W, 4) float64: what node `wanted` gives at `frame`."""
    node = nodes[wanted]
    pictures = [run_nuke(nodes, folder, frame, name) for name in node.inputs]
    knobs = node.knobs
    if node.kind == "Read":
        assert knobs["raw"] == "true"
        file = knobs["file"]
        picture = read_rgba(folder / (file % frame if "%" in file else file))
        assert knobs["format"].split()[:2] == [str(n) for n in picture.shape[1::-1]]
        return picture
    if node.kind == "Premult":
        return np.dstack([pictures[0][..., :3] * pictures[0][..., 3:], pictures[0][..., 3]])
    if node.kind == "BlackOutside":
        return np.pad(pictures[0], ((1, 1), (1, 1), (0, 0)))
    if node.kind == "STMap":
        source, stmap = pictures  # input 0 is src, input 1 is stmap
        s, t = stmap[..., 0], stmap[..., 1]
        if nodes[node.inputs[0]].kind == "BlackOutside":  # it grows the picture, not its format
            return st_sample(source[1:-1, 1:-1], s, t, "black")
        return st_sample(source, s, t, "repeat")
    below, above = pictures  # input 0 is B, input 1 is A
    if node.kind == "Copy":
        channels = {"rgba.red": 0, "rgba.alpha": 3}
        out = below.copy()
        out[..., channels[knobs["to0"]]] = above[..., channels[knobs["from0"]]]
        return out
    if node.kind == "Merge2":
        assert knobs["operation"] == "plus"
        return below + above
    assert node.kind == "MergeExpression"
    names = {f"A{c}": above[..., i] for i, c in enumerate("rgba")}
    names |= {f"B{c}": below[..., i] for i, c in enumerate("rgba")}
    return _evaluated([knobs[f"expr{i}"] for i in range(4)], names)


def _evaluated(expressions: list[str], names: dict) -> np.ndarray:
    names = {**names, "min": np.minimum, "max": np.maximum, "floor": np.floor, "sqrt": np.sqrt}
    shape = next(v.shape for v in names.values() if isinstance(v, np.ndarray))
    planes = [eval(e, {"__builtins__": {}}, names) for e in expressions]
    return np.stack([np.broadcast_to(p, shape) for p in planes], axis=-1).astype(np.float64)


def run_fusion(
    tools: dict[str, FusionTool], folder: Path, frame: int, wanted: str, corner: float = 0.5
) -> np.ndarray:
    """(H, W, 4) float64: what tool `wanted` gives at `frame`.

    corner: where in a pixel Fusion's x and y lie: 0.5, its centre, or 0, its lower left corner.
    """
    tool = tools[wanted]
    if tool.kind == "Loader":
        clip = tool.table["Clips"]["0"]
        name = clip["Filename"].removeprefix("Comp:/")
        if clip["Multiframe"] == "true":
            assert clip["StartFrame"] == clip["GlobalStart"] <= frame <= clip["GlobalEnd"]
            name = re.sub(r"\d{5}(?=\.\w+$)", f"{frame:05d}", name)
        picture = read_rgba(folder / name)
        if not name.endswith(".exr") and picture[..., 3].max() == 0 and "paint" not in name:
            picture[..., 3] = 1  # files without alpha load as opaque
        return picture
    images = {k: run_fusion(tools, folder, frame, n, corner) for k, n in tool.links.items()}
    if tool.kind == "ChangeDepth":
        assert tool.table["Inputs"]["Depth"]["Value"] == 4
        return images["Input"]
    assert tool.kind == "Custom"
    pictures = [images[f"Image{i}"] for i in range(1, len(images) + 1)]
    height, width = pictures[0].shape[:2]
    x, up = np.meshgrid((np.arange(width) + corner) / width, (np.arange(height) + corner) / height)
    names: dict = {"x": x, "y": up[::-1]}
    for i, picture in enumerate(pictures, 1):
        for c, channel in enumerate("rgba"):
            plane = picture[..., c]
            names[f"{channel}{i}"] = plane
            for letter, edge in (("b", "black"), ("d", "repeat")):
                names[f"get{channel}{i}{letter}"] = _getter(plane, edge, corner)
    words = ("Red", "Green", "Blue", "Alpha")
    return _evaluated([tool.table["Inputs"][f"{w}Expression"]["Value"] for w in words], names)


def _getter(plane: np.ndarray, edge: str, corner: float):
    height, width = plane.shape

    def get(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        s, t = x + (0.5 - corner) / width, y + (0.5 - corner) / height
        return st_sample(plane[..., None], s, t, edge)[..., 0]

    return get
