"""A photo with another sky and a look, at its full size and depth, in bounded memory.

What `edits.stream` does for the frames of a video, for one picture: the matte is the careful one,
sums are in floating point, and 16 bits stay 16. The picture is made in strips, so that beside the
photo and its matte little has to be held. Pixels that show no sky keep their levels unless a look
changes them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from atlas.coords import Size
from edits.composite import SHARE_STEP
from edits.look import Look
from edits.look_pass import NO_AIR, Air, LookFrame, LookPass, travel_of
from edits.multiband import multiband
from edits.paint import Paint
from edits.unmix import estimate_color, own_color
from edits.view import CanvasView, Region

STRIP_ROWS = 192
_SMALL_PX = 640
"""Longer side at which old colours and the look are measured."""
_BANDS_PX = 1536
"""Longer side at which broad bands are blended: finer ones are the matte's."""
_BANDS = 4


@dataclass(frozen=True)
class StillJob:
    """What is done to a photo.

    rgb: (H, W, 3) uint8 or uint16, upright. matte: (H, W) float32, 1 = sky.
    place: puts the sky where the view says; None leaves the photo's own. look: None for none.
    bands: whether scene and sky are blended band by band along the skyline.
    """

    rgb: np.ndarray
    matte: np.ndarray
    place: Callable[[CanvasView], Paint] | None
    look: Look | None
    bands: bool = False

    @property
    def size(self) -> Size:
        return Size(*self.rgb.shape[:2])


def view_of(matte: np.ndarray) -> CanvasView:
    """Where a photo looks: all of its width, down to the lowest row that shows sky."""
    height, width = matte.shape
    whole = Region(-0.5, -0.5, width - 0.5, height - 0.5)
    in_row = cv2.reduce((matte > 0.5).astype(np.float32), 1, cv2.REDUCE_SUM).ravel()
    if not in_row.any():
        return CanvasView(whole, whole)
    shown = np.flatnonzero(in_row > 0.05 * in_row.max())
    return CanvasView(Region(-0.5, -0.5, width - 0.5, shown[-1] + 0.5), whole)


def edited_still(job: StillJob) -> np.ndarray:
    """(H, W, 3) of the photo's own type."""
    paint = None if job.place is None else job.place(view_of(job.matte))
    work = _Work(job, paint)
    out = np.empty_like(job.rgb)
    for top in range(0, job.size.height, STRIP_ROWS):
        rows = slice(top, min(top + STRIP_ROWS, job.size.height))
        out[rows] = work.strip(rows)
    return work.under_weather(out)


class _Work:
    """What all strips of a photo have in common."""

    def __init__(self, job: StillJob, paint: Paint | None):
        self.job, self.paint = job, paint
        self._peak = np.float32(np.iinfo(job.rgb.dtype).max)
        self._noise = np.random.default_rng(0)
        small = _fitting(job.size, _SMALL_PX)
        few = _reduced(job.rgb, small)
        share = cv2.resize(job.matte, small.wh, interpolation=cv2.INTER_AREA)
        self._old = estimate_color(few, share)
        self._look = LookPass(job.look) if job.look is not None and job.look.active else None
        self._air = NO_AIR
        if self._look is not None and self._look.look.needs_sky:
            levels = np.rint(few * 255).astype(np.uint8)
            sky = None if paint is None else self._sky
            given = LookFrame(levels, levels, share, self._uv(small), sky, 0.0)
            self._air = self._look.measure(given)
        self._bands = self._band_change() if job.bands and paint is not None else None

    def strip(self, rows: slice) -> np.ndarray:
        """Some rows of the finished photo, but for what falls."""
        job, air = self.job, self._air
        frame, share = job.rgb[rows], _snapped(job.matte[rows])
        plain = air.table is None and air.veil is None and air.glow is None
        shows = share.max() > 0 and (self.paint is not None or air.glow is not None)
        if plain and not shows:
            return frame
        values = frame.astype(np.float32) / self._peak
        part = share[..., None]
        scene, sky = values, values
        if self.paint is not None and shows:
            own = own_color(values, part, self._at(self._old, rows))
            scene = np.clip((values - part * own) / np.maximum(1 - part, 1e-3), 0, 1)
            sky = self._sky(self._uv_of(rows))
        scene = self._under_air(scene, air, rows)
        if air.glow is not None:
            light = self._at(air.glow, rows)
            scene, sky = (p + light * (1 - p) for p in (scene, sky))
        done = scene + part * (sky - scene)
        if self._bands is not None:
            done = done + self._at(self._bands, rows)
        keep = (share == 0) & plain & (self._bands is None)
        done = self._levels(done, share > 0)
        done[keep] = frame[keep]
        return done

    def under_weather(self, photo: np.ndarray) -> np.ndarray:
        """The photo with what falls in front of it."""
        weather = None if self._look is None else self._look.weather
        if weather is None:
            return photo
        few = self._uv(_fitting(self.job.size, _SMALL_PX))
        return weather.apply(photo, 0.0, travel_of(few, self.job.size.width))

    def _under_air(self, scene: np.ndarray, air: Air, rows: slice) -> np.ndarray:
        if air.table is not None:
            scene = air.table.apply_float(scene)
        if air.veil is not None:
            opacity, color = (self._at(field, rows) for field in air.veil)
            scene = scene * (1 - opacity) + color
        return scene

    def _levels(self, values: np.ndarray, smooth: np.ndarray) -> np.ndarray:
        """Rounded; in 8 bits what is `smooth`, the sky, is dithered, or it would show steps."""
        scaled = np.clip(values, 0, 1) * self._peak
        if self.job.rgb.dtype == np.uint8:
            noise = self._noise.random(smooth.shape, np.float32) - np.float32(0.5)
            scaled += (noise * smooth)[..., None]
        return np.clip(np.rint(scaled), 0, self._peak).astype(self.job.rgb.dtype)

    def _sky(self, uv: np.ndarray) -> np.ndarray:
        """(h, w, 3) float32 of the new sky at pixels of the photo."""
        assert self.paint is not None
        sampled = self.paint.sample(uv.astype(np.float32), 0.0)
        scale = np.float32(1 / 255 if sampled.dtype == np.uint8 else 1)
        return sampled[..., :3].astype(np.float32) * scale

    def _uv_of(self, rows: slice) -> np.ndarray:
        x = np.arange(self.job.size.width, dtype=np.float32)
        y = np.arange(rows.start, rows.stop, dtype=np.float32)
        return np.stack(np.meshgrid(x, y), axis=-1)

    def _uv(self, small: Size) -> np.ndarray:
        """Pixels of the photo at which those of a small copy lie."""
        size = self.job.size
        x = (np.arange(small.width, dtype=np.float32) + 0.5) * size.width / small.width - 0.5
        y = (np.arange(small.height, dtype=np.float32) + 0.5) * size.height / small.height - 0.5
        return np.stack(np.meshgrid(x, y), axis=-1)

    def _at(self, field: np.ndarray, rows: slice) -> np.ndarray:
        """A field over the whole photo, (h, w, 3), enlarged to some of its rows."""
        size = self.job.size
        scale_x, scale_y = field.shape[1] / size.width, field.shape[0] / size.height
        onto = np.array(
            [[scale_x, 0, 0.5 * scale_x - 0.5], [0, scale_y, (rows.start + 0.5) * scale_y - 0.5]]
        )
        return cv2.warpAffine(
            field, onto, (size.width, rows.stop - rows.start),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE,
        )  # fmt: skip

    def _band_change(self) -> np.ndarray:
        """(h, w, 3): what blending broad bands changes against blending by the matte alone."""
        job = self.job
        small = _fitting(job.size, _BANDS_PX)
        few = _reduced(job.rgb, small)
        share = cv2.resize(job.matte, small.wh, interpolation=cv2.INTER_AREA)
        sky = self._sky(self._uv(small))
        plain = few + share[..., None] * (sky - few)
        return multiband(few, sky, share, _BANDS) - plain


def _fitting(size: Size, longest: int) -> Size:
    """A size of the same shape, its longer side at most that many pixels."""
    scale = min(1.0, longest / max(size.wh))
    return Size(max(2, round(size.height * scale)), max(2, round(size.width * scale)))


def _reduced(rgb: np.ndarray, size: Size) -> np.ndarray:
    """(h, w, 3) float32 in [0, 1]."""
    few = cv2.resize(rgb, size.wh, interpolation=cv2.INTER_AREA)
    return few.astype(np.float32) / np.float32(np.iinfo(rgb.dtype).max)


def _snapped(share: np.ndarray) -> np.ndarray:
    share = np.where(share < SHARE_STEP, np.float32(0), share)
    return np.where(share > 1 - SHARE_STEP, np.float32(1), share)
