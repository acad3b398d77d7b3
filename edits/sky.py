"""Sky sources: a picture, a video or a panorama placed on the canvas of the sky layer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from atlas.coords import Size
from atlas.errors import InputError
from atlas.mapping import Layer
from edits.mipmap import Pyramid
from edits.paint import Paint, PaintSource, PicturePaint, same_aspect
from edits.panorama import perspective_view, read_hdr, tone_map
from edits.picture import Picture, read_picture
from edits.recipe import SkyEdit
from edits.sky_video import LoopedVideo, open_looped
from edits.view import CanvasView, Region

PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})
HDR_SUFFIXES = frozenset({".hdr", ".pic"})
_PANORAMA_MARGIN = 1.0
"""How far beyond the covered region a panorama is unrolled, in widths of the region."""
_MAX_TANGENT = 4.0
"""Views wider than 2 atan of this are not unrolled further; beyond, the view is mirrored."""
_MAX_VIEW_TEXELS = 8192


@dataclass(frozen=True)
class Placement:
    """canvas to picture: x_px = (u - centre) * scale + middle of the picture, and so for y."""

    centre: tuple[float, float]
    """Canvas texels on which the middle of the picture lies."""
    scale: tuple[float, float]
    """Picture pixels per canvas texel; negative x mirrors the picture."""
    picture: Size

    def to_picture(self, uv: np.ndarray) -> np.ndarray:
        """(..., 2) float32 canvas texels to picture pixels."""
        x, y = (self.picture.width - 1) / 2, (self.picture.height - 1) / 2
        (cx, cy), (sx, sy) = self.centre, self.scale
        affine = np.array([[sx, 0, x - cx * sx], [0, sy, y - cy * sy]])
        return cv2.transform(uv.reshape(-1, 1, 2), affine).reshape(uv.shape)


def cover_fit(picture: Size, view: CanvasView, edit: SkyEdit) -> Placement:
    """Place a picture so that it covers what the clip sees: one scale, centred, cropped.

    Turning the view to the right by `yaw_deg` moves the sky to the left, by as many widths of the
    first frame as its field of view goes into that angle.
    """
    seen, first = view.seen, view.first_frame
    texels = max(seen.width / picture.width, seen.height / picture.height) * edit.scale
    x, y = seen.centre
    turned = edit.yaw_deg / edit.field_of_view_deg * first.width
    centre = (x + edit.offset_x * seen.width - turned, y + edit.offset_y * seen.height)
    return Placement(centre, (-1 / texels if edit.flip else 1 / texels, 1 / texels), picture)


def open_sky(edit: SkyEdit, layer: Layer) -> PaintSource:
    """Read and check the source of a `SkyEdit` for the layer it goes on."""
    path = Path(edit.source)
    suffix = path.suffix.lower()
    if suffix in HDR_SUFFIXES:
        panorama = read_hdr(path)
        if same_aspect(Size(*panorama.shape[:2]), Size(1, 2)):
            return PanoramaSky(edit, tone_map(panorama, edit.exposure_ev))
        return PictureSky(edit, Picture(tone_map(panorama, edit.exposure_ev), None))
    if suffix in PICTURE_SUFFIXES:
        picture = read_picture(path)
        if lies_on_atlas(edit, picture, layer.canvas):
            return PicturePaint(
                _flipped(picture, edit.flip),
                layer.canvas,
                border=cv2.BORDER_REPLICATE,
                takes_shading=False,
            )
        return PictureSky(edit, picture)
    return VideoSky(edit, open_looped(path))


def lies_on_atlas(edit: SkyEdit, picture: Picture, canvas: Size) -> bool:
    """Whether a sky picture is paint for the atlas itself rather than a photo of a sky."""
    if edit.fit == "cover":
        return False
    if edit.fit == "atlas":
        if not same_aspect(picture.size, canvas):
            raise InputError(
                f"{edit.source}: is {picture.size}, but the atlas of layer {edit.layer!r} is "
                f"{canvas}; fit: atlas wants that aspect (within 2 %)"
            )
        return True
    if picture.size == canvas:
        return True
    return picture.alpha is not None and same_aspect(picture.size, canvas)


class PictureSky:
    """A flat picture that covers what the clip sees, and is mirrored beyond its borders."""

    def __init__(self, edit: SkyEdit, picture: Picture):
        self._edit = edit
        self._opaque = picture.opaque
        self._pyramid = Pyramid(picture.premultiplied(), cv2.BORDER_REFLECT)

    def place(self, view: CanvasView) -> Paint:
        placement = cover_fit(self._pyramid.size, view, self._edit)
        return PlacedSky(placement, self._pyramid, opaque=self._opaque)


class PlacedSky:
    """A picture at its place on the canvas."""

    blend = "normal"
    takes_shading = False

    def __init__(self, placement: Placement, pyramid: Pyramid, *, opaque: bool):
        self.opaque = opaque
        self._placement = placement
        self._pyramid = pyramid

    def sample(self, uv: np.ndarray, time_s: float) -> np.ndarray:
        return self._pyramid.sample(self._placement.to_picture(uv))


class VideoSky:
    """A video as a sky; it is both the source and, once placed, the paint."""

    blend = "normal"
    takes_shading = False
    opaque = True

    def __init__(self, edit: SkyEdit, video: LoopedVideo):
        self._edit = edit
        self._video = video
        self._placement: Placement | None = None

    def place(self, view: CanvasView) -> Paint:
        self._placement = cover_fit(self._video.size, view, self._edit)
        return self

    def sample(self, uv: np.ndarray, time_s: float) -> np.ndarray:
        if self._placement is None:
            raise ValueError("place() must be called before sample()")
        picture = self._video.at(time_s * self._edit.speed)
        rgba = cv2.cvtColor(picture, cv2.COLOR_RGB2RGBA)  # four channels are sampled faster
        return Pyramid(rgba, cv2.BORDER_REFLECT).sample(self._placement.to_picture(uv))


class PanoramaSky:
    """An equirectangular panorama, seen in perspective by the camera of the first frame.

    The canvas of a tracked sky is the image plane of one reference camera, so one perspective
    view, continued beyond the first frame, serves the whole clip.
    """

    def __init__(self, edit: SkyEdit, panorama: np.ndarray):
        self._edit = edit
        self._panorama = panorama

    def place(self, view: CanvasView) -> Paint:
        edit, first = self._edit, view.first_frame
        focal = first.width / 2 / np.tan(np.radians(edit.field_of_view_deg) / 2) * edit.scale
        x, y = first.centre
        x, y = x + edit.offset_x * first.width, y + edit.offset_y * first.height
        margin = _PANORAMA_MARGIN * max(first.width, first.height)
        reach = _MAX_TANGENT * focal
        region = Region(
            max(min(view.seen.left, first.left) - margin, x - reach),
            max(min(view.seen.top, first.top) - margin, y - reach),
            min(max(view.seen.right, first.right) + margin, x + reach),
            min(max(view.seen.bottom, first.bottom) + margin, y + reach),
        )
        detail = min(1.0, _MAX_VIEW_TEXELS / max(region.width, region.height))
        size = Size(max(1, round(region.height * detail)), max(1, round(region.width * detail)))
        axis = ((x - region.left) * detail - 0.5, (y - region.top) * detail - 0.5)
        panorama = self._panorama[:, ::-1] if edit.flip else self._panorama
        angles = (edit.yaw_deg, edit.pitch_deg)
        rgb = perspective_view(panorama, size, focal * detail, axis, angles)
        scale = (size.width / region.width, size.height / region.height)
        pyramid = Pyramid(Picture(rgb, None).premultiplied(), cv2.BORDER_REFLECT)
        return PlacedSky(Placement(region.centre, scale, size), pyramid, opaque=True)


def _flipped(picture: Picture, flip: bool) -> Picture:
    if not flip:
        return picture
    alpha = None if picture.alpha is None else picture.alpha[:, ::-1]
    return Picture(picture.rgb[:, ::-1], alpha)
