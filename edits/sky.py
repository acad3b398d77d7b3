"""Sky sources: a picture, a video or a panorama placed on the canvas of the sky layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from atlas.coords import Size
from atlas.errors import InputError
from atlas.mapping import Layer
from atlas.panorama import View
from edits.bend import Bend
from edits.mipmap import Pyramid
from edits.paint import Paint, PaintSource, PicturePaint, same_aspect
from edits.panorama import PanoramaPaint, read_hdr, tone_map
from edits.picture import Picture, read_picture
from edits.recipe import SkyEdit
from edits.seamless import seamless
from edits.sky_photo import take_panorama_sky, take_sky
from edits.sky_video import LoopedVideo, open_looped
from edits.view import CanvasView, Region

PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})
HDR_SUFFIXES = frozenset({".hdr", ".pic"})
_CLEARANCE_DEG = 3.0
_FADE = 0.12
"""Share of the width over which the ends of a tiled sky fade into each other."""


@dataclass(frozen=True)
class Placement:
    """canvas to picture: x_px = (u - centre) * scale + middle of the picture, and so for y."""

    centre: tuple[float, float]
    """Canvas texels on which the middle of the picture lies."""
    scale: tuple[float, float]
    """Picture pixels per canvas texel; negative x mirrors the picture."""
    picture: Size
    drift: tuple[float, float] = (0.0, 0.0)
    """Canvas texels by which the picture moves right and down in a second."""
    bend: Bend | None = None
    """How the canvas is bent round the viewer first; None leaves it flat."""

    def to_picture(self, uv: np.ndarray, time_s: float = 0.0) -> np.ndarray:
        """(..., 2) float32 canvas texels to picture pixels."""
        if self.bend is not None:
            uv = self.bend.of_canvas(uv)
        affine = self.matrix(time_s)[:2]
        return cv2.transform(uv.reshape(-1, 1, 2), affine).reshape(uv.shape)

    def matrix(self, time_s: float) -> np.ndarray:
        """(3, 3) float64: `to_picture` on (u, v, 1), once bent."""
        x, y = (self.picture.width - 1) / 2, (self.picture.height - 1) / 2
        (cx, cy), (sx, sy) = self.centre, self.scale
        cx, cy = cx + self.drift[0] * time_s, cy + self.drift[1] * time_s
        return np.array([[sx, 0, x - cx * sx], [0, sy, y - cy * sy], [0, 0, 1]])


@dataclass(frozen=True)
class FlatSky:
    """A sky that lies flat on its canvas, at one moment.

    pyramid: its texels. matrix: (3, 3), canvas texels, bent, to its pixels. border: OpenCV's.
    """

    pyramid: Pyramid
    matrix: np.ndarray
    border: int
    bend: Bend | None


def cover_fit(picture: Size, view: CanvasView, edit: SkyEdit) -> Placement:
    """Place a picture so that it covers what the clip sees: one scale, centred, cropped.

    Turning the view to the right by `yaw_deg` moves the sky to the left, by the way that the
    middle of the first frame goes. With a known camera the sky is bent round it (`edits.bend`).
    """
    seen = view.seen
    texels = max(seen.width / picture.width, seen.height / picture.height) * edit.scale
    place = _placed((texels, texels), seen, picture, view, edit)
    if view.focal is None:
        return place
    return replace(place, bend=Bend(view.first_frame.centre, view.focal))


def frame_fit(picture: Size, view: CanvasView, edit: SkyEdit) -> Placement:
    """Stretch a picture over `scale` times the first frame, centred on it to a whole pixel."""
    first = view.first_frame
    wide, high = int(edit.scale * first.width), int(edit.scale * first.height)
    place = _placed((wide / picture.width, high / picture.height), first, picture, view, edit)
    x, y = place.centre
    half = ((wide - first.width) % 2 / 2, (high - first.height) % 2 / 2)
    return replace(place, centre=(x + half[0], y + half[1]))


def _placed(
    texels: tuple[float, float], region: Region, picture: Size, view: CanvasView, edit: SkyEdit
) -> Placement:
    x, y = region.centre
    turned = view.focal_at(edit.field_of_view_deg) * np.radians(edit.yaw_deg)
    centre = (x + edit.offset_x * region.width - turned, y + edit.offset_y * region.height)
    scale = (-1 / texels[0] if edit.flip else 1 / texels[0], 1 / texels[1])
    drift = (edit.drift_x * region.width, edit.drift_y * region.height)
    return Placement(centre, scale, picture, drift)


def open_sky(
    edit: SkyEdit, layer: Layer, sky_matte: Callable[[np.ndarray], np.ndarray] | None = None
) -> PaintSource:
    """Read and check the source of a `SkyEdit` for the layer it goes on.

    Args:
        sky_matte: (H, W, 3) uint8 RGB to (H, W) float32, 1 = sky; needed for `own_sky`.
    """
    path = Path(edit.source)
    suffix = path.suffix.lower()
    if suffix in HDR_SUFFIXES:
        panorama = read_hdr(path)
        if edit.fit in ("auto", "panorama") and same_aspect(Size(*panorama.shape[:2]), Size(1, 2)):
            return _panorama_sky(edit, tone_map(panorama, edit.exposure_ev), sky_matte)
        return _picture_sky(edit, Picture(tone_map(panorama, edit.exposure_ev), None), sky_matte)
    if suffix in PICTURE_SUFFIXES:
        picture = read_picture(path)
        if edit.fit != "panorama" and lies_on_atlas(edit, picture, layer.canvas):
            return PicturePaint(
                _flipped(picture, edit.flip),
                layer.canvas,
                border=cv2.BORDER_REPLICATE,
                takes_shading=False,
            )
        return _picture_sky(edit, picture, sky_matte)
    if edit.own_sky or edit.fit in ("atlas", "panorama"):
        asked = "own_sky" if edit.own_sky else f"fit: {edit.fit}"
        raise InputError(f"{edit.source}: {asked} is for pictures, not for videos")
    return VideoSky(edit, open_looped(path))


def _picture_sky(
    edit: SkyEdit, picture: Picture, sky_matte: Callable[[np.ndarray], np.ndarray] | None
) -> PaintSource:
    if edit.fit == "panorama":
        if not same_aspect(picture.size, Size(1, 2)):
            raise InputError(
                f"{edit.source}: is {picture.size}; fit: panorama wants 360 by 180 degrees, a "
                f"picture twice as wide as high"
            )
        return _panorama_sky(edit, picture.rgb, sky_matte)
    if not edit.own_sky:
        return PictureSky(edit, picture)
    levels = np.rint(picture.rgb * 255).astype(np.uint8)
    sky = take_sky(picture.rgb, _needed(edit, sky_matte)(levels))
    return PictureSky(edit, Picture(_found(edit, sky), None))


def _panorama_sky(
    edit: SkyEdit, rgb: np.ndarray, sky_matte: Callable[[np.ndarray], np.ndarray] | None
) -> PaintSource:
    if edit.own_sky:
        rgb = _found(edit, take_panorama_sky(rgb, _needed(edit, sky_matte)))
    return PanoramaSky(edit, rgb)


def _needed(
    edit: SkyEdit, sky_matte: Callable[[np.ndarray], np.ndarray] | None
) -> Callable[[np.ndarray], np.ndarray]:
    if sky_matte is None:
        raise InputError(f"{edit.source}: own_sky needs a sky matte, which this command has not")
    return sky_matte


def _found(edit: SkyEdit, sky: np.ndarray | None) -> np.ndarray:
    if sky is None:
        raise InputError(f"{edit.source}: no sky was found in it; own_sky wants a photo with one")
    return sky


def lies_on_atlas(edit: SkyEdit, picture: Picture, canvas: Size) -> bool:
    """Whether a sky picture is paint for the atlas itself rather than a photo of a sky."""
    if edit.fit in ("cover", "frame") or edit.own_sky:
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
    """A flat picture that covers what the clip sees, and goes on beyond its borders."""

    def __init__(self, edit: SkyEdit, picture: Picture):
        self._edit, self._picture = edit, picture

    def finely(self) -> PictureSky:
        """The same, sampled between the levels of its file: for pictures enlarged many times."""
        return PictureSky(self._edit, replace(self._picture, levels=None))

    def place(self, view: CanvasView) -> Paint:
        edit, texels = self._edit, self._picture.texels()
        edges = edges_of(edit, goes_on=goes_on(edit, view))
        place = fitted(self._picture.size, view, edit)
        if edges == "tile":
            texels = seamless(texels)
            place = replace(place, picture=Size(*texels.shape[:2]))
            texels = np.concatenate([texels, texels[::-1]])
        place = closed(place, edges)
        border = border_mode(edges)
        return PlacedSky(place, Pyramid(texels, border), border, opaque=self._picture.opaque)


class PlacedSky:
    """A picture at its place on the canvas."""

    blend = "normal"
    takes_shading = False

    def __init__(self, placement: Placement, pyramid: Pyramid, border: int, *, opaque: bool):
        self.opaque = opaque
        self._border = border
        self._placement = placement
        self._pyramid = pyramid

    def flat(self, time_s: float) -> FlatSky:
        place = self._placement
        return FlatSky(self._pyramid, place.matrix(time_s), self._border, place.bend)

    def sample(self, uv: np.ndarray, time_s: float) -> np.ndarray:
        return self._pyramid.sample(self._placement.to_picture(uv, time_s))


class VideoSky:
    """A video as a sky; it is both the source and, once placed, the paint."""

    blend = "normal"
    takes_shading = False
    opaque = True

    def __init__(self, edit: SkyEdit, video: LoopedVideo):
        self._edit = edit
        self._video = video
        self._placement: Placement | None = None
        self._edges = edges_of(edit)
        self._shown: tuple[np.ndarray, Pyramid] | None = None

    def place(self, view: CanvasView) -> Paint:
        self._edges = edges_of(self._edit, goes_on=goes_on(self._edit, view))
        size = self._video.size
        width = size.width - (fade_width(size.width) if self._edges == "tile" else 0)
        place = fitted(Size(size.height, width), view, self._edit)
        self._placement = closed(place, self._edges)
        return self

    def flat(self, time_s: float) -> FlatSky:
        """The frame shown at that time; the same pyramid while it is the same frame."""
        if self._placement is None:
            raise ValueError("place() must be called before sample()")
        picture, border = self._video.at(time_s * self._edit.speed), border_mode(self._edges)
        if self._shown is None or self._shown[0] is not picture:
            rgba = cv2.cvtColor(picture, cv2.COLOR_RGB2RGBA)  # four channels are sampled faster
            self._shown = (picture, Pyramid(edged(rgba, self._edges)[0], border))
        place = self._placement
        return FlatSky(self._shown[1], place.matrix(time_s), border, place.bend)

    def sample(self, uv: np.ndarray, time_s: float) -> np.ndarray:
        pyramid = self.flat(time_s).pyramid
        assert self._placement is not None
        return pyramid.sample(self._placement.to_picture(uv, time_s))


class PanoramaSky:
    """An equirectangular panorama, seen by the camera that the sky's canvas belongs to."""

    def __init__(self, edit: SkyEdit, panorama: np.ndarray):
        self._edit = edit
        self._panorama = panorama

    def place(self, view: CanvasView) -> Paint:
        edit, first = self._edit, view.first_frame
        focal = view.focal_at(edit.field_of_view_deg)
        x, y = first.centre
        centre = (x + edit.offset_x * first.width, y + edit.offset_y * first.height)
        focal *= edit.scale
        pitch_deg = pitch_of(edit, view, focal)
        camera = View(focal, centre, edit.yaw_deg, pitch_deg, edit.roll_deg, view.roll)
        panorama = self._panorama[:, ::-1] if edit.flip else self._panorama
        drift_deg = np.degrees(edit.drift_x * first.width / focal)
        return PanoramaPaint(panorama, camera, float(drift_deg))


def pitch_of(edit: SkyEdit, view: CanvasView, focal: float) -> float:
    """Tilt of the view into a panorama, degrees: as asked, else by where the sky ends.

    What stands on a panorama's horizon, mostly `_CLEARANCE_DEG` high, stays hidden behind the
    scene if its horizon lies that much under the lowest sky.
    """
    if edit.pitch_deg is not None:
        return edit.pitch_deg
    below = view.seen.bottom - view.first_frame.centre[1]
    return float(np.clip(np.degrees(np.arctan(below / focal)) + _CLEARANCE_DEG, -45, 60))


def fitted(picture: Size, view: CanvasView, edit: SkyEdit) -> Placement:
    """The placement that `edit.fit` asks for."""
    return (frame_fit if edit.fit == "frame" else cover_fit)(picture, view, edit)


def closed(place: Placement, edges: str) -> Placement:
    """A placement whose bend, if any, meets itself behind the viewer."""
    if place.bend is None:
        return place
    period = place.picture.width / abs(place.scale[0]) * (2 if edges == "mirror" else 1)
    return replace(place, bend=replace(place.bend, period=period))


def edges_of(edit: SkyEdit, *, goes_on: bool = False) -> str:
    """mirror, tile or wrap. `goes_on`: the clip may look beyond the picture."""
    if edit.edges != "auto":
        return edit.edges
    return "tile" if edit.drift_x or edit.drift_y or goes_on else "mirror"


def goes_on(edit: SkyEdit, view: CanvasView) -> bool:
    """Whether the clip may look beyond a picture that was fitted to what it is expected to see."""
    return not view.certain and edit.fit != "frame"


def border_mode(edges: str) -> int:
    """How OpenCV continues a sky with such edges."""
    return cv2.BORDER_REFLECT if edges == "mirror" else cv2.BORDER_WRAP


def edged(texels: np.ndarray, edges: str) -> tuple[np.ndarray, Size]:
    """Texels of a video that go on beyond their borders so, and the size of one.

    A tiled sky is shorter by the width of the fade, and doubled downwards by its mirror image:
    wrapped round, it repeats sideways and is mirrored above and below. The fade is the same in
    every frame; pictures, which stand still, are joined along a seam (`edits.seamless`).

    Args:
        texels: (H, W, C) float32 or uint8.
    """
    if edges != "tile":
        return texels, Size(*texels.shape[:2])
    height, width = texels.shape[:2]
    fade = fade_width(width)
    doubled = np.empty((2 * height, width - fade, texels.shape[2]), texels.dtype)
    once = doubled[:height]
    once[:] = texels[:, : width - fade]
    if fade:
        rise = ((np.arange(fade, dtype=np.float32) + 1) / (fade + 1))[None].repeat(height, axis=0)
        ends = np.ascontiguousarray(texels[:, :fade]), np.ascontiguousarray(texels[:, -fade:])
        once[:, :fade] = cv2.blendLinear(*ends, rise, 1 - rise)
    cv2.flip(once, 0, doubled[height:])
    return doubled, Size(height, width - fade)


def fade_width(width: int) -> int:
    """Texels over which the ends of a tiled picture fade into each other."""
    return round(_FADE * width)


def _flipped(picture: Picture, flip: bool) -> Picture:
    if not flip:
        return picture
    alpha = None if picture.alpha is None else picture.alpha[:, ::-1]
    return Picture(picture.rgb[:, ::-1], alpha)
