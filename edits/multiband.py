"""Blending two pictures band by band: broad colours over a wide zone, detail over a narrow one.

Burt and Adelson 1983, "A multiresolution spline with application to image mosaics", section 3:
each band of the Laplacian pyramids is mixed by the mask blurred to that band's own scale.
"""

from __future__ import annotations

import cv2
import numpy as np


def multiband(a: np.ndarray, b: np.ndarray, share: np.ndarray, levels: int) -> np.ndarray:
    """a where `share` is 0, b where it is 1; across the border each band fades over its own width.

    Args:
        a, b: (H, W, C) float32, C = 2 to 4. share: (H, W) float32, [0, 1], of b.
        levels: times that the pictures are halved; band n fades over about 2^n pixels. 0 mixes
            them as they are. Halving stops at 2 pixels.
    Returns:
        (H, W, C) float32; a little outside of the range of a and b at places.
    """
    if levels <= 0 or min(share.shape) < 4:
        return a + share[..., None] * (b - a)
    small = [cv2.pyrDown(picture) for picture in (a, b, share)]
    broad = multiband(small[0], small[1], small[2], levels - 1)
    wh = (share.shape[1], share.shape[0])
    fine_a, fine_b = (p - cv2.pyrUp(s, dstsize=wh) for p, s in zip((a, b), small, strict=False))
    return cv2.pyrUp(broad, dstsize=wh) + fine_a + share[..., None] * (fine_b - fine_a)
