"""Edits composed the way the original layered-neural-atlases program composes them.

Kept for comparison with its results; `edits.composite` is the better way. What that program does,
V being the original pixel and E, e the straight colour and opacity of a layer's edit there:

    out = a (E1 e1 + V (1 - e1)) + (1 - a) (E2 e2 + V (1 - e2)),   cut to 8 bit, not rounded

at the size of the fit. A painted frame is scattered into the atlases with colour AND opacity
multiplied by the layer's share, and the formula multiplies colour by that opacity again: paint
darkens wherever the matte is soft. `scatter_frame` keeps this, since it is what is compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import cv2
import numpy as np
from scipy.interpolate import LinearNDInterpolator
from scipy.spatial import Delaunay, QhullError

from atlas.coords import Size
from atlas.errors import InputError
from atlas.mapping import FrameMapping, LayerMapping
from edits.picture import read_picture
from edits.recipe import FramePaint, LayerPaint, Recipe

Pictures = Mapping[int, np.ndarray]
"""Layer index -> (h, w, 4) float32 straight RGBA of the layer's canvas size."""


def open_pictures(mapping: LayerMapping, recipe: Recipe) -> Pictures:
    """Read what is to be painted, or say what this way of composing has no room for."""
    if recipe.keep_grain:
        raise InputError("--compose lna has no film grain to keep; leave keep_grain at 0")
    for edit in recipe.edits:
        if isinstance(edit, FramePaint):
            if len(recipe.edits) > 1:
                raise InputError(
                    "--compose lna takes one painted frame or layer pictures, not both"
                )
            return _spread(mapping, edit)
    pictures: dict[int, np.ndarray] = {}
    for edit in recipe.edits:
        if not isinstance(edit, LayerPaint):
            raise InputError(
                f"--compose lna takes layer pictures or a painted frame; found a {edit.kind} edit"
            )
        if edit.blend != "normal":
            raise InputError(f"{edit.path}: --compose lna knows no blend mode {edit.blend!r}")
        layer = mapping.layer_index(edit.layer)
        if layer in pictures:
            raise InputError(f"{edit.path}: --compose lna takes one picture a layer")
        wanted = mapping.layers[layer].canvas
        pictures[layer] = _read_rgba(Path(edit.path), wanted, f"the atlas of {edit.layer!r}")
    return pictures


def render_lna(
    mapping: LayerMapping, frames: Iterable[np.ndarray], pictures: Pictures
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Original and edited frame, both (H, W, 3) uint8 at the mapping's frame size.

    Args:
        frames: the mapping's frames in order, (H, W, 3) uint8 RGB of any size.
    """
    for t, rgb in enumerate(frames):
        video = as_fitted(rgb, mapping.frame_size)
        before = np.rint(video * 255).astype(np.uint8)
        yield before, compose(video, mapping.frame(t), pictures)


def as_fitted(rgb: np.ndarray, size: Size) -> np.ndarray:
    """(H, W, 3) float32, [0, 1]: a frame resized bilinearly as floating point, never rounded."""
    resized = cv2.resize(rgb / 255.0, size.wh, interpolation=cv2.INTER_LINEAR)
    return resized.astype(np.float32)


def compose(video: np.ndarray, found: FrameMapping, pictures: Pictures) -> np.ndarray:
    """One edited frame: every layer's edit over the original pixel, weighted by its share.

    Args:
        video: (H, W, 3) float32, [0, 1]: the original frame, V.
        found: the frame's mapping at (H, W).
    Returns:
        (H, W, 3) uint8, cut.
    """
    out = np.zeros(video.shape, np.float64)
    for layer, share in enumerate(found.visible()):
        edited = video
        if layer in pictures:
            rgba = sample_straight(pictures[layer], found.uv[layer])
            opacity = rgba[..., 3:]
            edited = rgba[..., :3] * opacity + video * (1 - opacity)
        out += share[..., None].astype(np.float64) * edited
    return (out * 255).clip(0, 255).astype(np.uint8)


def sample_straight(picture: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """Bilinear samples; 0 wherever one of the four texels is not on the picture.

    Args:
        picture: (h, w, C) float32. uv: (H, W, 2) float32 texels.
    Returns:
        (H, W, C) float32.
    """
    height, width = picture.shape[:2]
    whole = np.floor(uv)
    x, y = np.moveaxis(whole.astype(np.int64), -1, 0)
    right, below = np.moveaxis(np.ceil(uv).astype(np.int64), -1, 0)
    inside = (x >= 0) & (y >= 0) & (right < width) & (below < height)
    x, y, right, below = x[inside], y[inside], right[inside], below[inside]
    fx, fy = np.moveaxis((uv - whole)[inside][..., None], 1, 0)
    top = picture[y, x] * (1 - fx) + picture[y, right] * fx
    bottom = picture[below, x] * (1 - fx) + picture[below, right] * fx
    out = np.zeros((*uv.shape[:2], picture.shape[2]), np.float32)
    out[inside] = top * (1 - fy) + bottom * fy
    return out


def scatter_frame(
    rgba: np.ndarray, found: FrameMapping, canvases: list[Size]
) -> dict[int, np.ndarray]:
    """Spread paint on one frame over every layer's canvas.

    Straight RGBA times the layer's share at every pixel, interpolated linearly over the Delaunay
    triangles of where the pixels lie on the canvas; 0 outside them.

    Args:
        rgba: (H, W, 4) float32, straight, at the mapping's size.
        found: that frame's mapping.
    Returns:
        layer index -> (h, w, 4) float32.
    """
    return {
        layer: _scatter(rgba * share[..., None], found.uv[layer], canvases[layer])
        for layer, share in enumerate(found.visible())
    }


def _scatter(values: np.ndarray, uv: np.ndarray, canvas: Size) -> np.ndarray:
    out = np.zeros((canvas.height, canvas.width, values.shape[2]), np.float32)
    flat = values.reshape(-1, values.shape[2])
    try:
        triangles = Delaunay(uv.reshape(-1, 2).astype(np.float64))
    except QhullError as err:
        raise InputError(
            "the frame cannot be spread over the atlas: its pixels lie on one line of it; is the "
            "model trained?"
        ) from err
    painted = (flat != 0).any(axis=-1)[triangles.simplices].any(axis=-1)
    if not painted.any():
        return out
    # Beyond the triangles that touch paint all is 0, so only their bounding box is asked.
    corners = triangles.points[triangles.simplices[painted]].reshape(-1, 2)
    last = np.array(canvas.wh) - 1
    x0, y0 = np.clip(np.floor(corners.min(0)), 0, last).astype(int)
    x1, y1 = np.clip(np.ceil(corners.max(0)), 0, last).astype(int)
    texels = np.stack(np.meshgrid(np.arange(x0, x1 + 1), np.arange(y0, y1 + 1)), axis=-1)
    found = LinearNDInterpolator(triangles, flat, fill_value=0.0)(texels)
    out[y0 : y1 + 1, x0 : x1 + 1] = found
    return out


def _spread(mapping: LayerMapping, edit: FramePaint) -> dict[int, np.ndarray]:
    if edit.layer is not None:
        raise InputError(f"--compose lna paints all layers; wanted --frame {edit.frame}=RGBA.png")
    if edit.frame >= mapping.frame_count:
        raise InputError(
            f"--frame: there is no frame {edit.frame}; the frames are 0 to "
            f"{mapping.frame_count - 1}"
        )
    rgba = _read_rgba(Path(edit.path), mapping.frame_size, "the frames of the fit")
    found = mapping.frame(edit.frame)
    return scatter_frame(rgba, found, [layer.canvas for layer in mapping.layers])


def _read_rgba(path: Path, wanted: Size, what: str) -> np.ndarray:
    """(h, w, 4) float32 straight RGBA of a picture that must have the size `wanted`."""
    picture = read_picture(path)
    if picture.size != wanted:
        raise InputError(
            f"{path}: is {picture.size}; with --compose lna it must have the size of {what}, "
            f"{wanted}"
        )
    alpha = np.ones(picture.rgb.shape[:2], np.float32) if picture.alpha is None else picture.alpha
    return np.dstack([picture.rgb, alpha])
