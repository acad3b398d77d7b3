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
    weighted = cv2.multiply(rgb, cv2.merge([weight] * 3), dtype=cv2.CV_32F)
    weighted = cv2.resize(weighted, half, interpolation=cv2.INTER_AREA)
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
    mixed = mixed_rows(alpha, rows)
    shares, owns = [], None
    if mixed is not None:
        share = alpha[mixed.top : mixed.bottom]
        shares = [share, form.at_chroma(share)]
        if old is not None:
            owns = cv2.split(np.rint(np.clip(old, 0, form.peak)).astype(form.dtype))
    spans = [form.luma_span, form.chroma_span]
    out = []
    for kind, (plane, sky) in enumerate(zip(planes.all, skies, strict=True)):
        step = form.step if kind else 1
        done = plane.copy()
        done[rows.top // step : rows.bottom // step] = sky
        if mixed is not None:
            band = slice(mixed.top // step, mixed.bottom // step)
            own = None
            if owns is not None:
                own = cv2.resize(owns[kind], plane.shape[::-1])[band]
            share = shares[kind > 0]
            done[band] = landed(plane[band], share, done[band], own, spans[kind > 0])
        out.append(done)
    return Planes(*out)


def mixed_rows(alpha: np.ndarray, rows: Rows) -> Rows | None:
    """Those of some rows that are not sky alone, widened to even numbers; None where all are."""
    _, top, _, height = cv2.boundingRect(cv2.bitwise_not(alpha[rows.top : rows.bottom]))
    if not height:
        return None
    top, bottom = rows.top + top, rows.top + top + height
    return Rows(top - top % 2, min(bottom + bottom % 2, rows.bottom))


def landed(
    plane: np.ndarray,
    share: np.ndarray,
    new: np.ndarray,
    own: np.ndarray | None,
    span: tuple[int, int],
) -> np.ndarray:
    """plane + share (new - own), the layer's own part kept such that the rest is in range.

    Where the share is 0 the plane comes back as it is, where it is 255 the new one, whatever `own`
    is.

    Args:
        plane, new, own: (h, w) uint8 or uint16; own None is the plane itself.
        share: (h, w) uint8. span: lowest and highest level of the plane's colours.
    """
    share = share.astype(plane.dtype, copy=False)
    rest = kept(plane, share, plane if own is None else own, span)
    return cv2.add(rest, cv2.multiply(share, new, scale=1 / 255))


def kept(
    plane: np.ndarray, share: np.ndarray, own: np.ndarray, span: tuple[int, int]
) -> np.ndarray:
    """plane - share own, which must lie in (1 - share) [low, high], as in `unmix.own_color`.

    Args:
        plane, own: (h, w) uint8 or uint16. share: (h, w) of the same type, 255 = all.
    """
    rest = cv2.subtract(np.full_like(share, 255), share)
    most = cv2.subtract(plane, cv2.multiply(rest, np.full_like(rest, span[0]), scale=1 / 255))
    least = cv2.subtract(plane, cv2.multiply(rest, np.full_like(rest, span[1]), scale=1 / 255))
    part = cv2.multiply(share, own, scale=1 / 255)
    return cv2.subtract(plane, cv2.max(cv2.min(part, most), least))


def laid(scene: np.ndarray, share: np.ndarray, sky: np.ndarray) -> np.ndarray:
    """(1 - share) scene + share sky.

    Args:
        scene, sky: (h, w) uint8 or uint16. share: (h, w) uint8, 255 = all sky.
    """
    share = share.astype(scene.dtype, copy=False)
    left = cv2.subtract(np.full_like(share, 255), share)
    return cv2.add(
        cv2.multiply(left, scene, scale=1 / 255), cv2.multiply(share, sky, scale=1 / 255)
    )
