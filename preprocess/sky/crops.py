"""Parts of labelled pictures to train on: where they are cut out, turned and flipped."""

from __future__ import annotations

import cv2
import numpy as np

from atlas.coords import Size
from preprocess.sky.data import Pair

LITTLE_SKY = (0.005, 0.1)
"""Share of sky in a part that is to show little of it."""


def cropped(
    pair: Pair,
    size: Size,
    rng: np.random.Generator,
    *,
    top: int = 0,
    angle: float | None = None,
    little_sky: bool = False,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A random part of a picture below row `top`, perhaps flipped; what lies beyond is mirrored in.

    Args:
        size: what the part is scaled to; its aspect is that within some tenths.
        angle: rad, by which it is turned; None turns it not at all.
        little_sky: lay it, where the picture allows, so that a strip or a patch of sky is all that
            it shows: `LITTLE_SKY`.
    Returns:
        rgb (H, W, 3), alpha and weight (H, W), all float32 in [0, 1].
    """
    layers = [values[top:] for values in (pair.rgb, pair.alpha, pair.weight)]
    height, width = layers[1].shape
    aspect = size.width / size.height * np.exp(rng.normal(0, 0.12))
    whole_w = min(width, height * aspect)
    share = np.sqrt(rng.uniform(0.2, 1.0)) if rng.random() < 0.75 else 1.0
    crop_w, crop_h = whole_w * share, whole_w / aspect * share
    centre_x = crop_w / 2 + rng.random() * (width - crop_w)
    centre_y = crop_h / 2 + rng.random() * (height - crop_h)
    if little_sky:
        columns = slice(int(centre_x - crop_w / 2), int(np.ceil(centre_x + crop_w / 2)))
        row = _row_of_little_sky(layers[1][:, columns], crop_h, rng)
        centre_y = centre_y if row is None else row + crop_h / 2
    flip = -1.0 if rng.random() < 0.5 else 1.0
    step_x, step_y = flip * crop_w / size.width, crop_h / size.height
    cos, sin = np.cos(angle or 0.0), np.sin(angle or 0.0)
    turn = np.array([[cos * step_x, -sin * step_y], [sin * step_x, cos * step_y]])
    middle = np.array([(size.width - 1) / 2, (size.height - 1) / 2])
    offset = np.array([centre_x - 0.5, centre_y - 0.5]) - turn @ middle
    matrix = np.hstack([turn, offset[:, None]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    border = cv2.BORDER_REFLECT_101
    rgb, alpha, weight = (
        cv2.warpAffine(layer, matrix, size.wh, flags=flags, borderMode=border).astype(np.float32)
        / 255
        for layer in layers
    )
    return rgb, alpha, weight


def _row_of_little_sky(alpha: np.ndarray, rows: float, rng: np.random.Generator) -> int | None:
    """First of `rows` rows of `alpha` (H, w) uint8 that hold `LITTLE_SKY`; None where none do."""
    sky = np.concatenate([[0.0], np.cumsum(alpha.mean(axis=1) / 255)])
    count = int(np.ceil(rows))
    starts = np.arange(max(alpha.shape[0] - count, 0) + 1)
    shares = (sky[np.minimum(starts + count, alpha.shape[0])] - sky[starts]) / count
    least, most = LITTLE_SKY
    fitting = starts[(shares >= least) & (shares <= most)]
    return int(rng.choice(fitting)) if fitting.size else None
