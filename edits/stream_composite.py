"""Another sky in the planes of a frame, in whole levels: original pixels first.

The sums of `edits.composite.replace_layer` and `edits.unmix.own_color`, in saturating integer
arithmetic on whole planes: at 8 bit a thirtieth of the time of floating point on mixed pixels.
"""

from __future__ import annotations

import cv2
import numpy as np

from atlas.planes import PlaneFormat, Planes
from edits.stream_sky import Rows
from edits.unmix import push_pull

_TRUST_DOUBLINGS = 5


def sky_rows(alpha: np.ndarray) -> Rows | None:
    """The rows that show any sky, widened to even numbers; None where none do."""
    _, top, _, height = cv2.boundingRect(alpha)
    if not height:
        return None
    return Rows(top - top % 2, min(top + height + (top + height) % 2, alpha.shape[0]))


def old_sky(form: PlaneFormat, rgb: np.ndarray, sky: np.ndarray) -> np.ndarray | None:
    """(h, w, 3) float32 levels: the old sky's colour everywhere, spread from where it is bare.

    Args:
        rgb: (2 h, 2 w, 3) uint8, the frame made small. sky: (2 h, 2 w) float32, its matte.
    Returns:
        None where the sky is bare nowhere.
    """
    half = (rgb.shape[1] // 2, rgb.shape[0] // 2)
    matrix = form.from_rgb * [1 / 255, 1 / 255, 1 / 255, 1]
    weight = sky
    for _ in range(_TRUST_DOUBLINGS):
        weight = weight * weight
    shown = cv2.resize(weight, half, interpolation=cv2.INTER_AREA)
    weighted = cv2.resize(rgb * weight[..., None], half, interpolation=cv2.INTER_AREA)
    # the constant of the matrix belongs to what is shown only
    yuv = cv2.transform(weighted, matrix[:, :3]) + shown[..., None] * matrix[:, 3].astype(
        np.float32
    )
    return push_pull(np.dstack([yuv, shown]))


def replaced_sky(
    form: PlaneFormat,
    planes: Planes,
    alpha: np.ndarray,
    new: tuple[Rows, list[np.ndarray]],
    old: np.ndarray | None,
) -> Planes:
    """The frame with its sky replaced.

    Args:
        alpha: (H, W) uint8, 255 = sky.
        new: which rows, and the new sky in them as `SkyPlanes.sample` gives it.
        old: `old_sky`; None blends mixed pixels as they are.
    Returns:
        Planes that share the memory of what is untouched.
    """
    rows, skies = new
    shares = [alpha, form.at_chroma(alpha)]
    spans = [form.luma_span, form.chroma_span]
    out = []
    for kind, (plane, sky) in enumerate(zip(planes.all, skies, strict=True)):
        step = form.step if kind else 1
        band = slice(rows.top // step, rows.bottom // step)
        own = None
        if old is not None:
            wh = (plane.shape[1], plane.shape[0])
            own = cv2.resize(np.ascontiguousarray(old[..., kind]), wh)[band]
            own = np.clip(own, 0, form.peak).astype(plane.dtype)
        done = plane.copy()
        done[band] = landed(plane[band], shares[kind > 0][band], sky, own, spans[kind > 0])
        out.append(done)
    return Planes(*out)


def landed(
    plane: np.ndarray,
    share: np.ndarray,
    new: np.ndarray,
    own: np.ndarray | None,
    span: tuple[int, int],
) -> np.ndarray:
    """plane + share (new - own), the layer's own part kept such that the rest is in range.

    rest = plane - share own must lie in (1 - share) [low, high], as in `unmix.own_color`. Where
    the share is 0 the plane comes back as it is, where it is 255 the new one, whatever `own` is.

    Args:
        plane, new, own: (h, w) uint8 or uint16; own None is the plane itself.
        share: (h, w) uint8. span: lowest and highest level of the plane's colours.
    """
    share = share.astype(plane.dtype, copy=False)
    rest = cv2.subtract(np.full_like(share, 255), share)
    most = cv2.subtract(plane, cv2.multiply(rest, np.full_like(rest, span[0]), scale=1 / 255))
    least = cv2.subtract(plane, cv2.multiply(rest, np.full_like(rest, span[1]), scale=1 / 255))
    part = cv2.multiply(share, plane if own is None else own, scale=1 / 255)
    part = cv2.max(cv2.min(part, most), least)
    return cv2.add(cv2.subtract(plane, part), cv2.multiply(share, new, scale=1 / 255))
