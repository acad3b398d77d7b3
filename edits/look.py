"""What a look is made of: how far a scene takes up the light and the air of its new sky."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import numpy as np

from atlas.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Look:
    """How far a scene takes up its sky's light and weather; all off by default."""

    layer: str = "sky"
    """The layer whose light falls on what is above it."""
    mode: Literal["ranges", "skyar"] = "ranges"
    """ranges: gains for shadows, middle tones and highlights. skyar: SkyAR's mean transfer and
    halo, made from the original frame; of the fields below it heeds recolor, light_factor,
    auto_light, halo (1 = SkyAR's, 0 = none), rain and snow."""
    recolor: float = 0.0
    """Share of the sky's change of colour that the scene follows; [0, 2]. skyar: its
    recoloring factor."""
    relight: float = 0.0
    """Share of the sky's change of brightness that the scene follows; [0, 2]."""
    light_factor: float = 1.0
    """skyar: factor on the scene's brightness; [0, 4]."""
    auto_light: bool = False
    """skyar: the brightness follows the sky, and light_factor is not used."""
    exposure_ev: float = 0.0
    """Scene brighter (> 0) or darker by hand, after relighting; stops, -6 to 3."""
    saturation: float = 1.0
    """Factor on the scene's saturation; [0, 2]."""
    smooth_s: float = 0.7
    """Time constant with which light, haze and skyline follow the clip; seconds, >= 0."""
    halo: float = 0.0
    """Light of the sky that spills over edges; [0, 1]."""
    haze: float = 0.0
    """Haze toward the skyline; [0, 1], 1 hides the skyline."""
    haze_height: float = 0.12
    """How far below the skyline haze falls to a third; share of the frame's height, > 0."""
    haze_color: str | None = None
    """Colour of the haze as #rrggbb; None takes the new sky's at the horizon."""
    sun_glow: float = 0.0
    """Glow round the sun where the new sky shows one; [0, 1]."""
    rain: float = 0.0
    """Density of rain; [0, 1]."""
    snow: float = 0.0
    """Density of snow; [0, 1]."""
    wind_deg: float = 8.0
    """Slant of what falls: from the vertical, to the right; degrees, -60 to 60."""
    weather_seed: int = 1
    """Which drops fall where; >= 0."""

    def __post_init__(self) -> None:
        for name, low, high in (
            ("recolor", 0, 2), ("relight", 0, 2), ("light_factor", 0, 4), ("exposure_ev", -6, 3),
            ("saturation", 0, 2), ("smooth_s", 0, 60), ("halo", 0, 1), ("haze", 0, 1),
            ("haze_height", 0.001, 2), ("sun_glow", 0, 1), ("rain", 0, 1), ("snow", 0, 1),
            ("wind_deg", -60, 60), ("weather_seed", 0, 2**31 - 1),
        ):  # fmt: skip
            value = getattr(self, name)
            if not low <= value <= high:  # written so that nan fails too
                raise InputError(f"look: {name} is {value!r}, wanted {low} to {high}")
        if self.haze_color is not None:
            hex_color(self.haze_color)

    @property
    def active(self) -> bool:
        """Whether it changes anything."""
        tones = self.recolor or self.relight or self.exposure_ev or self.saturation != 1
        fields = self.halo or self.haze or self.sun_glow or self.rain or self.snow
        return bool(tones or fields or self.mode == "skyar")

    @property
    def needs_sky(self) -> bool:
        """Whether it asks where the sky is; rain and snow alone do not."""
        weather_only = Look(
            rain=self.rain, snow=self.snow, wind_deg=self.wind_deg, weather_seed=self.weather_seed,
            layer=self.layer, smooth_s=self.smooth_s,
        )  # fmt: skip
        return self != weather_only


NAMED = {"natural": Look(recolor=0.5, relight=0.3, halo=0.15, haze=0.12)}
"""Looks by name, for `--look NAME`. natural: what most skies need."""


def hex_color(text: str) -> np.ndarray:
    """(3,) float32 in [0, 1] from #rrggbb."""
    if not re.fullmatch(r"#[0-9a-fA-F]{6}", text):
        raise InputError(f"look: haze_color is {text!r}, wanted #rrggbb")
    return np.array([int(text[i : i + 2], 16) for i in (1, 3, 5)], np.float32) / 255
