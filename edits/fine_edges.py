"""Edges before a known sky at the source's resolution, finer than the fit's mattes can tell."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from atlas.known_sky import layer_above, refine_sky_share
from atlas.mapping import FrameMapping, LayerMapping
from atlas.texture import Texture

LEAST_SCALE = 1.25
"""Frames less than this much larger than the fit's gain nothing: the fit has mended its mattes."""
SKY_LAYER = "sky"


def sharpen_edges(
    rgb: np.ndarray,
    found: FrameMapping,
    mapping: LayerMapping,
    textures: Sequence[Texture] | None,
    gains: np.ndarray | None,
) -> FrameMapping:
    """The frame's mapping with twigs, hair and wires before the sky as fine as the frame is.

    A fit's mattes are as coarse as the frames it saw. Where the sky's atlas knows what lies behind
    a pixel (`Texture.bare`), the pixel itself tells its share: `known_sky.refine_sky_share`.

    Args:
        rgb: (H, W, 3) uint8 or uint16. found: its mapping at that size, of `mapping`.
        textures: one a layer, or None where none are known. gains: (L, H, W, 3) float32 shading of
            the layers in this frame, or None.
    Returns:
        `found` itself where there is nothing to gain, and where the bottom layer is no sky.
    """
    scale = rgb.shape[1] / mapping.frame_size.width
    under_sky = len(mapping.layers) > 1 and mapping.layers[-1].name == SKY_LAYER
    if scale < LEAST_SCALE or not under_sky or textures is None or textures[-1].bare is None:
        return found
    if rgb.dtype != np.uint8:
        rgb = cv2.convertScaleAbs(rgb, alpha=255 / np.iinfo(rgb.dtype).max)
    gain = None if gains is None else gains[-1]
    share = refine_sky_share(rgb, found, textures[-1], gain, scale)
    return FrameMapping(found.uv, layer_above(found, share), found.confidence)
