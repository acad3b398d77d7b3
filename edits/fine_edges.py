"""Edges before a known sky at the source's resolution, finer than the fit's mattes can tell."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from atlas.coords import Size
from atlas.known_sky import layer_above, refine_sky_share
from atlas.mapping import FrameMapping
from atlas.texture import Texture

LEAST_SCALE = 1.25
"""Frames less than this much larger than the fit's gain nothing: the fit has mended its mattes."""
SKY_LAYER = "sky"


def sharpen_edges(
    rgb: np.ndarray,
    found: FrameMapping,
    textures: Sequence[Texture],
    gains: np.ndarray | None,
    fitted: Size,
) -> FrameMapping:
    """The frame's mapping with twigs, hair and wires before the sky as fine as the frame is.

    A fit's mattes are as coarse as the frames it saw. Where the sky's atlas knows what lies behind
    a pixel (`Texture.bare`), the pixel itself tells its share: `known_sky.refine_sky_share`.

    Args:
        rgb: (H, W, 3) uint8 or uint16. textures: one a layer, the sky last.
        gains: (L, H, W, 3) float32 shading, or None.
        fitted: the size of the frames that the mattes were made for.
    """
    scale = rgb.shape[1] / fitted.width
    if scale < LEAST_SCALE or len(found.alpha) < 2 or textures[-1].bare is None:
        return found
    if rgb.dtype != np.uint8:
        rgb = cv2.convertScaleAbs(rgb, alpha=255 / np.iinfo(rgb.dtype).max)
    gain = None if gains is None else gains[-1]
    share = refine_sky_share(rgb, found, textures[-1], gain, scale)
    return FrameMapping(found.uv, layer_above(found, share), found.confidence)
