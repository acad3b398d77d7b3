"""A look on frames: light and air of the new sky, after the composite.

A `LookPass` applies a `Look` to the frames of one clip in order. Statistics and everything soft
(spill, haze, glow) are made at about `SMALL_WIDTH_PX` and enlarged; only tones, the soft veil and
the weather touch every pixel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np

from atlas.coords import Size, folded
from atlas.mapping import FrameMapping, LayerMapping
from edits.halo import skyar_halo, spill
from edits.haze import Sun, find_sun, haze_weight, horizon_color, skyline, sun_glow
from edits.look import Look, hex_color
from edits.paint import Paint
from edits.relight import MeanTransfer, RangeRelight, SkyLight, ToneTable
from edits.unmix import push_pull
from edits.weather import Weather, WeatherOptions

SMALL_WIDTH_PX = 112
_SHARE_STEP = 1 / 512
_MANY = 40_000
"""From so many mixed pixels on they are toned as they are, not unmixed first: it takes too long."""
_LEAST_LIGHT = 1 / 512
_STOPS_STEP = 1 / 128
"""Tone tables are made anew when a gain has moved by this: less than half a grey level."""


@dataclass(frozen=True)
class LookFrame:
    """One frame as the look gets it.

    before, after: (H, W, 3) uint8 or uint16 RGB, the original and the edited frame. Statistics
        alone are taken from the original, so it may be smaller (mode skyar excepted).
    share: (H, W) float32, how much of each pixel shows the sky.
    uv: (H, W, 2) float32, texels of the sky's canvas; it may be smaller too.
    sky: what the new sky shows at (h, w, 2) texels: (h, w, 3 or 4), uint8 or float32 in [0, 1];
        None where the sky is the frame's own, or is only painted on in part.
    time_s: presentation time, seconds.
    """

    before: np.ndarray
    after: np.ndarray
    share: np.ndarray
    uv: np.ndarray
    sky: Callable[[np.ndarray], np.ndarray] | None
    time_s: float


@dataclass(frozen=True)
class _Small:
    """The frame at low resolution; all (h, w, 3) float32 in [0, 1], share (h, w)."""

    before: np.ndarray
    sky: np.ndarray
    share: np.ndarray


@dataclass(frozen=True)
class Air:
    """What a look does to one frame, measured but not yet applied; None: nothing of that kind.

    sky: (h, w, 3) float32, the sky over the picture. table: tones of the scene.
    veil: (h, w, 3) opacity and premultiplied colour of what lies over the scene.
    glow: (h, w, 3) light of the sun, screened over scene and sky.
    """

    sky: np.ndarray
    table: ToneTable | None
    veil: tuple[np.ndarray, np.ndarray] | None
    glow: np.ndarray | None


NO_AIR = Air(np.zeros((1, 1, 3), np.float32), None, None, None)


class LookPass:
    """A look over the frames of one clip, in order; remembers what it smooths over time."""

    def __init__(self, look: Look):
        self.look = look
        self._light = RangeRelight(look.recolor, look.relight, look.smooth_s)
        self._table: tuple[np.ndarray, ToneTable] | None = None
        self._air: tuple[float, np.ndarray, np.ndarray] | None = None
        falls = WeatherOptions(look.rain, look.snow, look.wind_deg, look.weather_seed)
        self._weather = Weather(falls) if look.rain or look.snow else None

    def apply(self, frame: LookFrame) -> np.ndarray:
        """The finished frame, a new array of the frame's type."""
        if self.look.mode == "skyar":
            out = self._as_skyar(frame)
        elif self.look.needs_sky:
            out = self._in_ranges(frame)
        else:
            out = frame.after
        if self._weather is not None:
            out = self._weather.apply(out, frame.time_s, travel_of(frame.uv, frame.share.shape[1]))
        return out

    @property
    def weather(self) -> Weather | None:
        """What falls, if anything does."""
        return self._weather

    def measure(self, frame: LookFrame) -> Air:
        """What the look does to the next frame; every frame is measured once."""
        look, small = self.look, _shrunk(frame)
        table = veil = glow = None
        if look.recolor or look.relight or look.exposure_ev or look.saturation != 1:
            table = self._tones(small, frame.time_s)
        if look.halo or look.haze:
            veil = self._veil(small, frame.time_s)
        if look.sun_glow:
            sun = find_sun(small.sky, small.share)
            glow = None if sun is None else look.sun_glow * _glow(sun, small)
            glow = None if glow is None or glow.max() < _LEAST_LIGHT else glow
        return Air(small.sky, table, veil, glow)

    def _in_ranges(self, frame: LookFrame) -> np.ndarray:
        air, out = self.measure(frame), frame.after
        if air.table is not None:
            out = relit(out, frame.share, air.sky, air.table)
        if air.veil is not None:
            out = veiled(out, *air.veil, frame.share)
        if air.glow is not None:
            out = veiled(out, air.glow, air.glow, None)
        return out

    def _tones(self, small: _Small, time_s: float) -> ToneTable:
        few = (slice(None, None, 2), slice(None, None, 2))  # a thousand pixels will do
        shown = np.clip(small.share[few] * 10 - 9, 0, 1)
        skies = [np.rint(p[few] * 255).astype(np.uint8) for p in (small.before, small.sky)]
        old, new = (SkyLight.of(rgb, shown) for rgb in skies)
        stops = self._light.step(old, new, time_s)
        if self._table is None or np.abs(self._table[0] - stops).max() > _STOPS_STEP:
            table = ToneTable.build(stops, self.look.exposure_ev, self.look.saturation)
            self._table = (stops, table)
        return self._table[1]

    def _veil(self, small: _Small, time_s: float) -> tuple[np.ndarray, np.ndarray]:
        """(h, w, 3) opacity and premultiplied colour of haze, and of the spill over it."""
        look = self.look
        light = look.halo * spill(small.sky, small.share)
        if not look.haze:
            return light, light
        rows, color = self._eased_air(small, time_s)
        thick = haze_weight(rows, small.share.shape, look.haze_height)[..., None] * look.haze
        return 1 - (1 - light) * (1 - thick), thick * color * (1 - light) + light

    def _eased_air(self, small: _Small, time_s: float) -> tuple[np.ndarray, np.ndarray]:
        """Skyline and colour of the haze, following the clip with the look's time constant."""
        rows = skyline(small.share)
        color = horizon_color(small.sky, small.share, rows)
        if self._air is not None:
            elapsed = max(time_s - self._air[0], 0)
            keep = np.exp(-elapsed / self.look.smooth_s) if self.look.smooth_s > 0 else 0.0
            before_rows, before_color = self._air[1:]
            color = before_color if color is None else keep * before_color + (1 - keep) * color
            if before_rows[0] >= 0:
                rows = before_rows if rows[0] < 0 else keep * before_rows + (1 - keep) * rows
        elif color is None:
            color = small.sky.mean((0, 1))
        self._air = (time_s, rows, color)
        if self.look.haze_color is not None:
            color = hex_color(self.look.haze_color)
        return rows, color

    def _as_skyar(self, frame: LookFrame) -> np.ndarray:
        """SkyAR's frame: relit, blended by the matte, halo; truncated to whole levels as there."""
        peak = np.float32(np.iinfo(frame.before.dtype).max)
        before = frame.before.astype(np.float32) / peak
        sky = before if frame.sky is None else as_float(frame.sky(frame.uv))
        light = None if self.look.auto_light else self.look.light_factor
        toned = MeanTransfer(self.look.recolor, light).apply(before, frame.share, sky)
        blend = toned + frame.share[..., None] * (sky - toned)
        if self.look.halo:
            blend += self.look.halo * (skyar_halo(blend, sky, frame.share) - blend)
        return (np.clip(blend, 0, 1) * peak).astype(frame.before.dtype)


@dataclass(frozen=True)
class LayerLook:
    """A look on a mapping: which of its layers is the sky."""

    layer: int
    look_pass: LookPass

    @staticmethod
    def open(look: Look, mapping: LayerMapping) -> LayerLook:
        """Raises `InputError` when the look needs a sky and the mapping has no such layer."""
        names = [layer.name for layer in mapping.layers]
        if look.layer in names or look.needs_sky:
            return LayerLook(mapping.layer_index(look.layer), LookPass(look))
        return LayerLook(len(names) - 1, LookPass(look))  # weather alone: any will do for motion

    def apply(
        self,
        pair: tuple[np.ndarray, np.ndarray],
        found: FrameMapping,
        paints: Sequence[Paint],
        time_s: float,
    ) -> np.ndarray:
        """The finished frame.

        Args:
            pair: original and edited frame, (H, W, 3) uint8 or uint16.
            paints: what lies on the layer, in the order in which it was applied.
        """
        sky = None
        if paints and paints[-1].opaque and paints[-1].blend == "normal":
            sky = partial(_sky_colors, paints[-1], time_s)
        share, uv = found.visible()[self.layer], found.uv[self.layer]
        return self.look_pass.apply(LookFrame(*pair, share=share, uv=uv, sky=sky, time_s=time_s))


def _sky_colors(paint: Paint, time_s: float, uv: np.ndarray) -> np.ndarray:
    return paint.sample(uv, time_s)


def relit(
    after: np.ndarray, share: np.ndarray, small_sky: np.ndarray, table: ToneTable
) -> np.ndarray:
    """Tone what is not sky. A mixed pixel's foreground is toned alone: after - share sky.

    Args:
        after: (H, W, 3) uint8 or uint16. share: (H, W) float32.
        small_sky: (h, w, 3) float32, the sky over the same picture, at low resolution.
    """
    toned = after.copy()
    scene = cv2.compare(share, 1 - _SHARE_STEP, cv2.CMP_LT)
    _, top, _, height = cv2.boundingRect(scene)
    if height == 0:
        return toned
    band = slice(top, top + height)
    cv2.copyTo(table.apply(after[band]), scene[band], toned[band])
    mixed = cv2.findNonZero(cv2.inRange(share, _SHARE_STEP, 1 - _SHARE_STEP))
    if mixed is None:
        return toned
    if after.dtype == np.uint8 and len(mixed) > _MANY:
        return _softly_toned(after, share, table)
    columns, rows = folded(mixed.reshape(-1, 2)).transpose(2, 0, 1)
    peak = np.float32(np.iinfo(after.dtype).max)
    scale_y, scale_x = (n / full for n, full in zip(small_sky.shape, share.shape, strict=False))
    at_x = (columns.astype(np.float32) + 0.5) * np.float32(scale_x) - 0.5
    at_y = (rows.astype(np.float32) + 0.5) * np.float32(scale_y) - 0.5
    new = cv2.remap(small_sky, at_x, at_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    part = share[rows, columns][..., None]
    values = after[rows, columns] / peak
    own = np.clip((values - part * new) / (1 - part), 0, 1).astype(np.float32)
    values += (1 - part) * (table.apply_float(own) - own)
    toned[rows, columns] = np.rint(np.clip(values, 0, 1) * peak).astype(after.dtype)
    return toned


def _softly_toned(after: np.ndarray, share: np.ndarray, table: ToneTable) -> np.ndarray:
    """after + (1 - share) (toned - after): for mattes that are soft everywhere, in whole levels."""
    part = cv2.merge([cv2.convertScaleAbs(share, alpha=-255, beta=255)] * 3)
    toned = table.apply(after)
    gain = cv2.multiply(cv2.subtract(toned, after), part, scale=1 / 255)
    loss = cv2.multiply(cv2.subtract(after, toned), part, scale=1 / 255)
    return cv2.subtract(cv2.add(after, gain), loss)


def veiled(
    frame: np.ndarray, opacity: np.ndarray, color: np.ndarray, share: np.ndarray | None
) -> np.ndarray:
    """frame (1 - opacity) + color, on what is not sky.

    Args:
        frame: (H, W, 3) uint8 or uint16.
        opacity, color: (h, w, 3) float32 at low resolution, color premultiplied.
        share: (H, W) float32 of the sky; None to veil the sky too.
    """
    size = (frame.shape[1], frame.shape[0])
    if frame.dtype != np.uint8:
        peak = np.float32(np.iinfo(frame.dtype).max)
        opacity, color = (_enlarged(field, size) for field in (opacity, color))
        part = 1 if share is None else 1 - share[..., None]
        values = frame / peak
        values += part * (color - opacity * values)
        return np.rint(np.clip(values, 0, 1) * peak).astype(frame.dtype)
    opacity, color = (
        _enlarged(cv2.convertScaleAbs(field, alpha=255), size) for field in (opacity, color)
    )
    if share is not None:
        part = cv2.merge([cv2.convertScaleAbs(share, alpha=-255, beta=255)] * 3)
        opacity = cv2.multiply(opacity, part, scale=1 / 255)
        color = cv2.multiply(color, part, scale=1 / 255)
    return cv2.add(cv2.subtract(frame, cv2.multiply(frame, opacity, scale=1 / 255)), color)


def as_float(rgb: np.ndarray) -> np.ndarray:
    """(h, w, 3 or 4), uint8 or float in [0, 1], as (h, w, 3) float32 in [0, 1]."""
    rgb = np.ascontiguousarray(rgb[..., :3])
    return rgb.astype(np.float32) * np.float32(1 / 255 if rgb.dtype == np.uint8 else 1)


def _shrunk(frame: LookFrame) -> _Small:
    height, width = frame.share.shape
    step = max(1, round(width / SMALL_WIDTH_PX))
    size = Size(max(1, round(height / step)), max(1, round(width / step)))
    peak = np.float32(1 / np.iinfo(frame.before.dtype).max)
    share = _reduced(frame.share, size, step)
    if frame.before.shape[:2] == frame.share.shape:
        before = _reduced(frame.before, size, step) * peak
    else:
        few = cv2.resize(frame.before, size.wh, interpolation=cv2.INTER_AREA)
        before = few.astype(np.float32) * peak
    if frame.sky is not None:
        uv = cv2.resize(frame.uv, size.wh, interpolation=cv2.INTER_LINEAR)
        return _Small(before, np.clip(as_float(frame.sky(uv)), 0, 1), share)
    after = _reduced(frame.after, size, step) * peak
    weight = np.where(share > 0.97, np.float32(1), 0)
    filled = push_pull(np.dstack([after * weight[..., None], weight]))
    return _Small(before, after if filled is None else filled, share)


def _reduced(picture: np.ndarray, size: Size, step: int) -> np.ndarray:
    """About the mean over `step` x `step` pixels, of a few of them: enough for statistics."""
    skip = max(1, step // 2)
    some = np.ascontiguousarray(picture[skip // 2 :: skip, skip // 2 :: skip])
    return cv2.resize(some, size.wh, interpolation=cv2.INTER_LINEAR)


def _glow(sun: Sun, small: _Small) -> np.ndarray:
    return np.clip(sun_glow(sun, small.share.shape), 0, 1)


def _enlarged(field: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return cv2.resize(field, size, interpolation=cv2.INTER_LINEAR)


def travel_of(uv: np.ndarray, frame_width: int) -> tuple[float, float]:
    """Where the frame's middle looks on the sky's canvas, in pixels of the frame."""
    height, width = uv.shape[:2]
    row = uv[height // 2, :, 0]
    texels = (row[-1] - row[0]) / max(width - 1, 1) * width / frame_width
    x, y = uv[height // 2, width // 2] / (texels if abs(texels) > 1e-6 else 1)
    return (float(x), float(y)) if np.isfinite((x, y)).all() else (0.0, 0.0)
