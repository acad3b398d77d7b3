"""Ready scenes: `make_scene(SceneOptions(...))` for tests and measurements."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from atlas.coords import Size
from tests.scene_motion import Bend, Camera, Motion, carried, fit_canvas, move_camera
from tests.scene_paint import (
    TreeShape,
    bumpy_sky,
    coverage,
    disc,
    grow_tree,
    picture_noise,
    rich_texture,
    wire,
)
from tests.synthetic import Scene, SceneLayer

OBJECT_KINDS = ("none", "rigid", "deforming")
SKY_KINDS = ("clouds", "plain", "none")


@dataclass(frozen=True, kw_only=True)
class SceneOptions:
    """What a scene holds. Defaults: a small, easy one: ground under a cloudy sky, a pan.

    Layers come out, top to bottom and where asked for, as "near" (a tree close by, with
    parallax), "pole" (hides the object as it passes), "object", "foreground" (the ground, far
    away), "clouds" (drifting on their own) and "sky". Without a sky they are "pole", "foreground"
    (the object) and "background".
    """

    size: Size = field(default_factory=lambda: Size(96, 160))
    frame_count: int = 10
    seed: int = 0
    camera: str = "pan"
    """One of `CAMERA_KINDS`."""
    pan_deg: float = 6.0
    """How far the camera turns over the clip, degrees."""
    object: str = "none"
    """One of `OBJECT_KINDS`."""
    occluder: bool = False
    """A pole in front of the object's path."""
    sky: str = "clouds"
    """One of `SKY_KINDS`; plain is a gradient without any texture."""
    drift_px: float = 0.0
    """Clouds move by this much per frame on their own, pixels; needs a sky."""
    light: float = 0.0
    """Light changes smoothly by this share over the clip, up to 1."""
    parallax: bool = False
    """A tree close to the camera."""
    twigs: bool = False
    """Trees with thin twigs, and a wire, against the sky."""
    grain: float = 0.0
    """Film grain, standard deviation in 8-bit levels."""
    texels_per_px: float = 1.0
    """Resolution of the canvases."""

    def __post_init__(self) -> None:
        if self.object not in OBJECT_KINDS:
            raise ValueError(f"object must be one of {OBJECT_KINDS}, got {self.object!r}")
        if self.sky not in SKY_KINDS:
            raise ValueError(f"sky must be one of {SKY_KINDS}, got {self.sky!r}")


def make_scene(options: SceneOptions | None = None) -> Scene:
    """The scene described by `options`; the same options give the same scene."""
    o = options or SceneOptions()
    camera = move_camera(o.size, o.frame_count, o.camera, o.pan_deg, o.seed)
    has_sky = o.sky != "none"
    layers = []
    if o.parallax:
        layers.append(_near(o, camera))
    if o.object != "none":
        if o.occluder:
            layers.append(_pole(o, camera))
        layers.append(_object(o, camera, "object" if has_sky else "foreground"))
    layers.append(_ground(o, camera, has_sky))
    if has_sky:
        if o.drift_px:
            layers.append(_clouds(o, camera))
        layers.append(_sky(o, camera))
    return Scene(camera, tuple(layers), o.frame_count, grain=o.grain, seed=o.seed)


def _rng(o: SceneOptions, part: int) -> np.random.Generator:
    """Each part has its own stream, so that adding one does not change the others."""
    return np.random.default_rng([o.seed, part])


def _gain(o: SceneOptions, share: float = 1.0) -> np.ndarray:
    s = np.linspace(0, 1, o.frame_count)
    return 1 - share * o.light * (0.5 - 0.5 * np.cos(np.pi * s))


def _with_alpha(rgb: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    return np.concatenate([rgb, alpha[..., None]], axis=-1).astype(np.float32)


def _sky(o: SceneOptions, camera: Camera) -> SceneLayer:
    canvas, _, matrices = fit_canvas(camera, o.texels_per_px, 4)
    rgb = bumpy_sky(canvas, _rng(o, 1))
    if o.sky == "plain" or o.drift_px:
        down = np.linspace(0, 1, canvas.height, dtype=np.float32)[:, None, None]
        rgb = (
            np.array([0.45, 0.6, 0.86]) * (1 - down) + np.array([0.82, 0.88, 0.94]) * down
        ) + 0 * rgb
    texture = _with_alpha(rgb, np.ones(rgb.shape[:2]))
    return SceneLayer("sky", texture, Motion(matrices), _gain(o, 0.4))


def _clouds(o: SceneOptions, camera: Camera) -> SceneLayer:
    margin = 4 + abs(o.drift_px) * o.frame_count
    canvas, _, matrices = fit_canvas(camera, o.texels_per_px, margin)
    step = o.drift_px * o.texels_per_px
    middle = (o.frame_count - 1) / 2
    for t in range(o.frame_count):  # clouds that move right show what lay further left
        matrices[t] = np.array([[1, 0, -step * (t - middle)], [0, 1, 0], [0, 0, 1]]) @ matrices[t]
    noise = picture_noise(canvas, _rng(o, 2), 1.7, canvas.width / 3)
    rgb = np.clip(0.93 + 0.05 * picture_noise(canvas, _rng(o, 3), 1.4, 40.0), 0, 1)
    alpha = np.clip(0.35 + 0.5 * noise, 0, 0.95)
    return SceneLayer(
        "clouds", _with_alpha(rgb[..., None].repeat(3, -1), alpha), Motion(matrices), _gain(o, 0.4)
    )


def _ground(o: SceneOptions, camera: Camera, below_sky: bool) -> SceneLayer:
    canvas, place, matrices = fit_canvas(camera, o.texels_per_px, 4)
    colours = [(52, 74, 38), (142, 140, 82), (224, 196, 120)]
    rgb = rich_texture(canvas, _rng(o, 4), colours)
    if not below_sky:
        texture = _with_alpha(rgb, np.ones(rgb.shape[:2]))
        return SceneLayer("background", texture, Motion(matrices), _gain(o))
    scale = o.texels_per_px
    x = np.arange(canvas.width)
    wave = sum(np.sin(x / (o.size.width * scale) * f + f) / f for f in (5.0, 11.0, 23.0))
    horizon = place[1, 2] + scale * o.size.height * (0.55 - 0.35 * wave)
    y = np.arange(canvas.height)[:, None]
    alpha = np.clip(y - horizon + 0.5, 0, 1).astype(np.float32)  # exact share of a texel
    if o.twigs:
        trees = _skyline(o, canvas, horizon)
        rgb = rgb * (1 - trees[..., None] * (alpha < 1)[..., None] * 0.75)
        alpha = np.maximum(alpha, trees)
    return SceneLayer("foreground", _with_alpha(rgb, alpha), Motion(matrices), _gain(o))


def _skyline(o: SceneOptions, canvas: Size, horizon: np.ndarray) -> np.ndarray:
    """Bare trees and a wire above the horizon, (H, W) coverage; twigs 0.5 to 3 texels wide."""
    rng, scale = _rng(o, 5), o.size.height * o.texels_per_px
    branches = []
    spots = np.linspace(0.12, 0.88, 4) + rng.uniform(-0.05, 0.05, 4)
    for spot in spots * canvas.width:
        shape = TreeShape(
            height=scale * rng.uniform(0.4, 0.55), trunk_width=scale * 0.022, thinnest=0.5
        )
        branches += grow_tree((spot, float(horizon[int(spot)]) + 2), shape, rng)
    left, right = float(horizon[0]) - 0.3 * scale, float(horizon[-1]) - 0.26 * scale
    branches += wire((-2.0, left), (canvas.width + 2.0, right), 0.08 * scale, 0.9)
    return coverage(branches, canvas)


def _object(o: SceneOptions, camera: Camera, name: str) -> SceneLayer:
    height, width = o.size.height, o.size.width
    side = round(0.36 * height * o.texels_per_px)
    canvas = Size(side + 8, int(1.3 * side) + 12)  # a rim, so that a bend stays on the canvas
    rgb = rich_texture(canvas, _rng(o, 6), [(150, 30, 34), (236, 150, 60), (40, 60, 160)])
    texture = _with_alpha(rgb, disc(canvas, 0.86))
    s = np.linspace(-1, 1, o.frame_count)
    x = width / 2 + 0.2 * width * s
    y = 0.56 * height + 0.06 * height * np.sin(2.2 * s)
    angle, zoom = np.radians(9 * s), (1 + 0.08 * s) / o.texels_per_px

    def place(t: int) -> np.ndarray:
        c, sn = zoom[t] * np.cos(angle[t]), zoom[t] * np.sin(angle[t])
        centre = np.array(
            [[1, 0, -(canvas.width - 1) / 2], [0, 1, -(canvas.height - 1) / 2], [0, 0, 1]]
        )
        return np.array([[c, -sn, x[t]], [sn, c, y[t]], [0, 0, 1]]) @ centre

    bend = None
    if o.object == "deforming":
        swing = 0.05 * side * np.sin(np.linspace(0, 2 * np.pi, o.frame_count))
        bend = Bend(swing, 0.6 * swing[::-1], 1.1 * side, np.linspace(0, 1.5, o.frame_count))
    return SceneLayer(name, texture, Motion(carried(camera, place), bend), _gain(o))


def _pole(o: SceneOptions, camera: Camera) -> SceneLayer:
    canvas, place, matrices = fit_canvas(camera, o.texels_per_px, 4)
    rgb = rich_texture(canvas, _rng(o, 7), [(40, 34, 30), (92, 84, 78), (120, 110, 90)])
    middle = place[0, 2] + o.texels_per_px * 0.52 * o.size.width
    half = o.texels_per_px * 0.022 * o.size.width
    x = np.arange(canvas.width)
    alpha = np.clip(half + 0.5 - np.abs(x - middle), 0, 1) + np.zeros((canvas.height, 1))
    return SceneLayer("pole", _with_alpha(rgb, alpha), Motion(matrices), _gain(o))


def _near(o: SceneOptions, camera: Camera) -> SceneLayer:
    depth = 1.0
    canvas, place, matrices = fit_canvas(camera, o.texels_per_px, 4, depth)
    rng, scale = _rng(o, 8), o.size.height * o.texels_per_px
    foot = (place[0, 2] + 0.16 * o.size.width * o.texels_per_px, float(canvas.height))
    shape = TreeShape(height=1.1 * scale, trunk_width=0.07 * scale, thinnest=0.6, lean_deg=6)
    rgb = rich_texture(canvas, rng, [(34, 26, 20), (84, 66, 50), (110, 96, 70)])
    alpha = coverage(grow_tree(foot, shape, rng), canvas)
    return SceneLayer("near", _with_alpha(rgb, alpha), Motion(matrices), _gain(o))
