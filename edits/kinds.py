"""The kinds of edit that a recipe is made of: frozen, checked, and nothing but data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from atlas.errors import InputError
from edits.blend import BLEND_MODES

Corners = tuple[tuple[float, float], ...]
"""Four (x, y) positions: top left, top right, bottom right, bottom left."""


@dataclass(frozen=True, kw_only=True)
class SkyEdit:
    """Put another sky into the sky layer."""

    kind: ClassVar[str] = "sky"
    file_key: ClassVar[str | None] = "source"

    source: str
    """Picture, video or Radiance .hdr panorama."""
    layer: str = "sky"
    """The layer that takes the sky."""
    fit: Literal["auto", "cover", "atlas", "frame", "panorama"] = "auto"
    """cover: fill what the clip sees of the sky; atlas: the picture lies on the atlas 1:1;
    frame: stretched over the first frame (as SkyAR does); panorama: 360 by 180 degrees.
    auto: atlas for a picture of the atlas's own size, or with alpha and of its aspect; panorama
    for a .hdr picture twice as wide as high; else cover."""
    edges: Literal["auto", "mirror", "tile", "wrap"] = "auto"
    """Beyond the picture: mirror it; tile: repeat it sideways, its ends joined where nobody sees
    it (videos: faded into each other); wrap: repeat it as it is. auto: tile for what drifts
    and where the camera may look beyond (fast path); else mirror."""
    own_sky: bool = False
    """The picture or panorama shows a scene: its sky is cut out, and what hid it is filled."""
    scale: float = 1.0
    """Size of the picture relative to a fit that just covers; 0.01 to 100."""
    offset_x: float = 0.0
    """Moves the sky to the right; share of the covered width."""
    offset_y: float = 0.0
    """Moves the sky down; share of the covered height."""
    flip: bool = False
    """Mirror the sky left to right."""
    speed: float = 1.0
    """Speed of a sky video relative to its own; 0.001 to 1000."""
    drift_x: float = 0.0
    """The sky moves to the right by itself; share of the covered width a second."""
    drift_y: float = 0.0
    """The sky moves down by itself, panoramas excepted; share of the covered height a second."""
    yaw_deg: float = 0.0
    """Turn the view to the right, and so the sky to the left; degrees, -360 to 360."""
    pitch_deg: float | None = None
    """Panoramas: tilt of the view above the horizon in the first frame; degrees, -90 to 90. None:
    so that the panorama's horizon lies a little under the lowest sky of the first frame."""
    roll_deg: float = 0.0
    """Panoramas: turn of the view about its axis, clockwise; degrees, -180 to 180."""
    field_of_view_deg: float | None = None
    """Horizontal angle that the first frame spans (for `yaw_deg`, panoramas); degrees, 5 to 150.
    None: as the camera track has it, else 65 along the longer side."""
    exposure_ev: float = 0.0
    """HDR panoramas: brighter (> 0) or darker than the automatic exposure; stops."""
    sha256: str | None = None
    """Hash of the source when the recipe was made; another one is warned of."""

    def __post_init__(self) -> None:
        require(0.01 <= self.scale <= 100, "scale", self.scale, "between 0.01 and 100")
        require(0.001 <= self.speed <= 1000, "speed", self.speed, "between 0.001 and 1000")
        for name in ("offset_x", "offset_y", "exposure_ev"):
            require(abs(getattr(self, name)) <= 100, name, getattr(self, name), "-100 to 100")
        require(-360 <= self.yaw_deg <= 360, "yaw_deg", self.yaw_deg, "between -360 and 360")
        pitch = self.pitch_deg
        require(pitch is None or -90 <= pitch <= 90, "pitch_deg", pitch, "between -90 and 90")
        require(-180 <= self.roll_deg <= 180, "roll_deg", self.roll_deg, "between -180 and 180")
        for name in ("drift_x", "drift_y"):
            drift = getattr(self, name)
            require(-10 <= drift <= 10, name, drift, "between -10 and 10")
        fov = self.field_of_view_deg
        require(fov is None or 5 <= fov <= 150, "field_of_view_deg", fov, "between 5 and 150")
        photo = self.own_sky and self.fit == "atlas"
        require(not photo, "own_sky", self.own_sky, "false with fit: atlas")


@dataclass(frozen=True, kw_only=True)
class LayerPaint:
    """Paint a picture into a layer's atlas."""

    kind: ClassVar[str] = "layer_paint"
    file_key: ClassVar[str | None] = "path"

    layer: str
    """Name of the layer."""
    path: str
    """RGBA picture with the aspect of the layer's atlas; without alpha it is opaque."""
    blend: str = "normal"
    """normal, multiply, screen, overlay, soft light or add."""
    sha256: str | None = None
    """Hash of the picture when the recipe was made; another one is warned of."""

    def __post_init__(self) -> None:
        require(self.blend in BLEND_MODES, "blend", self.blend, ", ".join(BLEND_MODES))


@dataclass(frozen=True, kw_only=True)
class FramePaint:
    """Paint one frame; what was painted is carried to every other frame."""

    kind: ClassVar[str] = "frame_paint"
    file_key: ClassVar[str | None] = "path"

    frame: int
    """Number of the painted frame in the source, the first being 0."""
    path: str
    """Edited copy of the frame (what differs is found), or an RGBA picture to lay over it; of the
    frame's size or another with its aspect."""
    layer: str | None = None
    """Only this layer takes the paint; None: every layer that the paint covers."""
    threshold: float | None = None
    """Differences up to this are coding noise, not paint; 8-bit levels, >= 0. None: measured."""
    sha256: str | None = None
    """Hash of the picture when the recipe was made; another one is warned of."""

    def __post_init__(self) -> None:
        require(self.frame >= 0, "frame", self.frame, "0 or more")
        if self.threshold is not None:
            require(0 <= self.threshold < 255, "threshold", self.threshold, "0 to 255")


@dataclass(frozen=True, kw_only=True)
class Insert:
    """Pin text, a picture or a video to four points of one frame, as part of one layer."""

    kind: ClassVar[str] = "insert"
    file_key: ClassVar[str | None] = "path"

    layer: str
    """The layer it sticks to, and is hidden with."""
    frame: int
    """Number of the frame in which `corners` are given, the first being 0."""
    corners: Corners
    """[x, y] in pixels of that frame: top left, top right, bottom right, bottom left."""
    path: str | None = None
    """Picture or video; this or `text`."""
    text: str | None = None
    """Text, set as large as the four points allow; line breaks are kept."""
    color: str = "#ffffff"
    """Colour of the text, #rrggbb."""
    blend: str = "normal"
    """normal, multiply, screen, overlay, soft light or add."""
    opacity: float = 1.0
    """0 to 1."""
    sha256: str | None = None
    """Hash of the file when the recipe was made; another one is warned of."""

    def __post_init__(self) -> None:
        require(self.frame >= 0, "frame", self.frame, "0 or more")
        require(self.blend in BLEND_MODES, "blend", self.blend, ", ".join(BLEND_MODES))
        require(0 <= self.opacity <= 1, "opacity", self.opacity, "between 0 and 1")
        if (self.path is None) == (self.text is None):
            raise InputError("wanted either 'path' or 'text'")
        if self.text is not None:
            require(self.text.strip() != "", "text", self.text, "something to read")
        parse_color(self.color)
        _check_corners(self.corners)


@dataclass(frozen=True, kw_only=True)
class RemoveLayer:
    """Take a layer away: what the layers below know of the scene appears."""

    kind: ClassVar[str] = "remove"
    file_key: ClassVar[str | None] = None

    layer: str
    """Name of the layer; not the bottom one."""
    grow: float = 0.006
    """How far beyond its matte the layer is taken away, so that no rim of it stays; share of the
    frame's width, 0 to 0.1."""

    def __post_init__(self) -> None:
        require(0 <= self.grow <= 0.1, "grow", self.grow, "between 0 and 0.1")


@dataclass(frozen=True, kw_only=True)
class FilterAtlas:
    """Put a layer's atlas through an external program for still pictures."""

    kind: ClassVar[str] = "filter"
    file_key: ClassVar[str | None] = None

    layer: str
    """Name of the layer."""
    command: str
    """Program and its arguments, with {in} and {out} where it takes the two PNG files."""

    def __post_init__(self) -> None:
        for mark in ("{in}", "{out}"):
            require(mark in self.command, "command", self.command, f"{mark} in it")


Edit = SkyEdit | LayerPaint | FramePaint | Insert | RemoveLayer | FilterAtlas
KINDS: dict[str, type] = {
    cls.kind: cls for cls in (SkyEdit, LayerPaint, FramePaint, Insert, RemoveLayer, FilterAtlas)
}


def parse_color(text: str) -> tuple[int, int, int]:
    """#rrggbb as three numbers, 0 to 255."""
    digits = text.removeprefix("#")
    try:
        red, green, blue = bytes.fromhex(digits)
    except ValueError as err:
        raise InputError(f"color is {text!r}, wanted #rrggbb") from err
    return red, green, blue


def _check_corners(corners: Corners) -> None:
    """Four points that go once round a shape without a dent (else there is no perspective)."""
    turns = []
    for i in range(4):
        (ax, ay), (bx, by), (cx, cy) = (corners[(i + k) % 4] for k in range(3))
        turns.append((bx - ax) * (cy - by) - (by - ay) * (cx - bx))
    if not (all(turn > 1e-6 for turn in turns) or all(turn < -1e-6 for turn in turns)):
        raise InputError(
            "corners do not go round a quadrilateral; wanted top left, top right, bottom right, "
            "bottom left, without a dent"
        )


def require(ok: bool, key: str, value: object, wanted: str) -> None:
    """Raise `InputError` unless `ok`."""
    if not ok:  # comparisons are written so that nan fails too
        raise InputError(f"{key} is {value!r}, wanted {wanted}")
