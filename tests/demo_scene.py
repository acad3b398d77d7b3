"""The demo clip: a balloon drifts over a meadow under summer clouds; a hand-held pan; sound."""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from atlas.coords import Size
from atlas.progress import progress
from atlas.video_writer import VideoWriter
from edits.skies.clouds import CloudLook, View, paint_clouds, streaks, sun_glow
from edits.skies.noise import gradient, mix, sample_tile, smoothstep, spectral_noise
from tests.demo_paint import Easel, cottage, fence, meadow, mountains, skyline, woods
from tests.demo_sound import demo_sound, write_wav
from tests.scene_motion import Camera, Motion, carried, fit_canvas, rotation, wander
from tests.scene_paint import Branch, TreeShape, coverage, grow_tree
from tests.synthetic import Scene, SceneLayer

SEED = 20
PAN_DEG = 13.0
TILT_DEG = 4.2
"""The camera looks up by this much, so that the sky fills two thirds."""


def demo_camera(size: Size, frame_count: int) -> Camera:
    """A pan to the right that starts and ends gently, held by hand."""
    rng = np.random.default_rng([SEED, 1])
    s = np.linspace(0, 1, frame_count) if frame_count > 1 else np.array([0.5])
    eased = s + 0.09 * np.sin(2 * np.pi * (s - 0.5))  # slower at both ends
    yaw = PAN_DEG * (eased - 0.5) + 0.11 * wander(rng, frame_count, 40)
    pitch = TILT_DEG + 0.5 * np.sin(np.pi * s) + 0.13 * wander(rng, frame_count, 34)
    roll = 0.16 * wander(rng, frame_count, 60)
    rotations = np.stack([rotation(*a) for a in zip(yaw, pitch, roll, strict=True)])
    centres = np.zeros((frame_count, 3))
    centres[:, 0] = 0.035 * (s - 0.5) + 0.002 * wander(rng, frame_count, 30)
    centres[:, 1] = 0.002 * wander(rng, frame_count, 26)
    return Camera(size, 1.15 * size.width, rotations, centres)


def demo_scene(size: Size, frame_count: int, fps: float = 24.0) -> Scene:
    """The scene behind the demo clip: layers "near", "balloon", "foreground", "sky"."""
    camera = demo_camera(size, frame_count)
    still = np.ones(frame_count)
    layers = (
        _near_tree(camera, still),
        _balloon(camera, still),
        _land(camera, still),
        _sky(camera, still),
    )
    return Scene(camera, layers, frame_count, fps=fps, grain=1.6, seed=SEED)


def _sky(camera: Camera, gain: np.ndarray) -> SceneLayer:
    canvas, place, matrices = fit_canvas(camera, 1.0, 4)
    rng = np.random.default_rng([SEED, 2])
    horizon = place[1, 2] + place[1, 1] * camera.k[1, 2]
    view = View(
        (canvas.height, canvas.width), camera.focal_px, horizon, place[0, 2] + camera.k[0, 2]
    )
    sun = view.towards(0.12, 34)
    rise = np.degrees(np.arcsin(np.clip(view.directions()[1], 0, 1)))
    sky = gradient(
        [
            (0, (226, 232, 232)),
            (5, (190, 216, 236)),
            (14, (128, 178, 226)),
            (26, (70, 132, 204)),
            (40, (42, 98, 182)),
        ],
        rise,
    )
    sky = 1 - (1 - sky) * (
        1 - 0.4 * sun_glow(view, sun, 14)[..., None] * np.array([1, 0.97, 0.9], np.float32)
    )
    sky = mix(sky, np.ones(3, np.float32), 0.4 * streaks(view, rng, cover=-0.02))
    look = CloudLook(
        cover=-1.12, thickness=0.34, extent=6.5, rough=0.42, shade=18, opacity=22, slices=40,
        lit=(255, 252, 244), shadow=(138, 156, 190), base=(150, 166, 194),
        rim=0.25, haze=(214, 226, 234), haze_length=11,
    )  # fmt: skip
    rgb = paint_clouds(sky, view, sun, look, rng)
    texture = np.concatenate([rgb, np.ones((*rgb.shape[:2], 1), np.float32)], axis=-1)
    return SceneLayer("sky", texture.astype(np.float32), Motion(matrices), gain)


def _land(camera: Camera, gain: np.ndarray) -> SceneLayer:
    canvas, place, matrices = fit_canvas(camera, 1.5, 4)
    scale = place[0, 0]
    unit = scale * camera.size.height / 100
    horizon = place[1, 2] + scale * camera.k[1, 2]
    shape = (canvas.height, canvas.width)
    easel = Easel(
        np.zeros((*shape, 3), np.uint8),
        np.zeros(shape, np.float32),
        unit,
        horizon,
        np.random.default_rng([SEED, 3]),
    )
    mountains(easel, skyline(easel, 13, 1.9, 190), (130, 150, 170), (84, 106, 136), (148, 170, 186))
    mountains(easel, skyline(easel, 8, 2.0, 150), (112, 144, 138), (66, 100, 106), (138, 166, 164))
    woods(easel, skyline(easel, 5, 2.1, 130), ((132, 158, 96), (52, 88, 66)), 0.55, 0.45)
    second = skyline(easel, 1.5, 2.2, 170)
    woods(easel, second, ((140, 164, 66), (38, 70, 38)), 0.95, 0.2)
    rim = skyline(easel, -7, 2.4, 260)
    meadow(easel, rim)
    x = 0.62 * canvas.width
    cottage(easel, x, float(rim[int(x)]) + 2.2 * unit, 2.3)
    fence(easel, rim, 0.30 * canvas.width, 0.58 * canvas.width, 5.0)
    _ridge_trees(easel, rim)
    texture = np.concatenate([easel.rgb / np.float32(255), easel.alpha[..., None]], axis=-1)
    return SceneLayer("foreground", texture.astype(np.float32), Motion(matrices), gain)


def _ridge_trees(easel: Easel, rows: np.ndarray) -> None:
    """Bare trees with fine twigs that stand on the meadow's rim, against the sky."""
    rng, unit = easel.rng, easel.unit
    for share, height in ((0.44, 26), (0.475, 20), (0.80, 34), (0.86, 24)):
        x = share * easel.size.width
        foot = (x, float(rows[int(x)]) + 3 * unit)
        shape = TreeShape(height=height * unit, trunk_width=0.042 * height * unit, thinnest=0.55)
        alpha = coverage(grow_tree(foot, shape, rng), easel.size)
        colour = np.array([0.24, 0.2, 0.17], np.float32)
        easel.lay(np.broadcast_to(colour, (*alpha.shape, 3)), alpha)


def _near_tree(camera: Camera, gain: np.ndarray) -> SceneLayer:
    """A tree close by, on the left, with its twigs across the sky and a few leaves."""
    depth = 1.0
    canvas, place, matrices = fit_canvas(camera, 1.5, 4, depth)
    rng = np.random.default_rng([SEED, 4])
    scale = place[0, 0]
    unit = scale * camera.size.height / 100
    foot = (place[0, 2] + scale * 0.03 * camera.size.width, float(canvas.height) - 4 * unit)
    shape = TreeShape(
        height=118 * unit, trunk_width=6.4 * unit, thinnest=0.6, spread_deg=27, lean_deg=9
    )
    branches = grow_tree(foot, shape, rng)
    alpha = coverage(branches, canvas)
    bark = sample_tile(
        spectral_noise(512, rng, slope=1.2, longest=0.2),
        *np.meshgrid(np.arange(canvas.width) * 1.0, np.arange(canvas.height) * 0.35),
    )
    lit = coverage(
        [
            Branch(
                (b.start[0] - 0.16 * b.start_width, b.start[1]),
                (b.end[0] - 0.16 * b.end_width, b.end[1]),
                b.start_width * 0.5,
                b.end_width * 0.5,
            )
            for b in branches
            if b.start_width > 2
        ],
        canvas,
    )
    rgb = np.array([0.2, 0.165, 0.14], np.float32) * (1 + 0.16 * np.clip(bark, -2, 2))[..., None]
    rgb = mix(
        rgb, np.array([0.5, 0.42, 0.33], np.float32), 0.45 * lit * smoothstep(-1.5, 1.5, bark)
    )
    texture = np.concatenate([rgb, alpha[..., None]], axis=-1).clip(0, 1)
    return SceneLayer("near", texture.astype(np.float32), Motion(matrices), gain)


def _balloon(camera: Camera, gain: np.ndarray) -> SceneLayer:
    """A striped hot-air balloon, lit from the left, that drifts and turns a little."""
    height = round(0.36 * camera.size.height * 2)  # two texels to the pixel
    canvas = Size(height + 8, round(0.78 * height) + 8)
    texture = _balloon_picture(canvas)
    count = len(camera.rotations)
    s = np.linspace(-1, 1, count) if count > 1 else np.zeros(1)
    x = camera.size.width * (0.56 + 0.10 * s)
    y = camera.k[1, 2] - camera.size.height * (0.27 + 0.035 * s)
    angle = np.radians(1.6) * np.sin(2.6 * s + 0.4)

    def place(t: int) -> np.ndarray:
        c, sn = 0.5 * np.cos(angle[t]), 0.5 * np.sin(angle[t])
        centre = np.array(
            [[1, 0, -(canvas.width - 1) / 2], [0, 1, -0.4 * canvas.height], [0, 0, 1]]
        )
        return np.array([[c, -sn, x[t]], [sn, c, y[t]], [0, 0, 1]]) @ centre

    return SceneLayer("balloon", texture, Motion(carried(camera, place)), gain)


def _balloon_picture(canvas: Size) -> np.ndarray:
    """(H, W, 4) float32 straight RGBA, painted at 3 x and averaged down."""
    n = 3
    height, width = canvas.height * n, canvas.width * n
    y, x = np.mgrid[:height, :width].astype(np.float32)
    x = (x + 0.5) / n - canvas.width / 2
    y = (y + 0.5) / n - 4
    h = canvas.height - 8.0
    v = y / (0.74 * h)  # 0 at the crown, 1 at the mouth
    bulge = np.sqrt(np.clip(v * (1.72 - v), 0, None)) * (1 - 0.86 * smoothstep(0.52, 1.12, v))
    radius = 0.435 * h * bulge + 1e-3
    inside = (v > 0) & (v < 1) & (np.abs(x) < radius)
    across = np.clip(x / radius, -1, 1)
    turn = np.arcsin(across)  # angle round the envelope
    gore = np.floor((turn / np.pi + 0.5) * 12 + 0.35).astype(int)
    palette = (
        np.array([(206, 48, 44), (246, 238, 220), (232, 150, 40), (38, 72, 128)], np.float32) / 255
    )
    rgb = palette[np.array([0, 1, 0, 2])[gore % 4]]
    band = (v > 0.50) & (v < 0.62)
    rgb[band] = palette[3]
    zig = np.abs(((turn / np.pi + 0.5) * 12 + 0.35) % 1 - 0.5) * 2
    rgb[(np.abs(v - 0.535 - 0.05 * zig) < 0.014)] = palette[2]
    rgb[(v < 0.085)] = palette[3]
    seam = np.abs(((turn / np.pi + 0.5) * 12 + 0.35) % 1 - 0.5) > 0.475
    rgb[seam] *= 0.86
    normal = np.stack([across, (v - 0.42) * 1.5], -1)
    light = 0.72 - 0.42 * normal[..., 0] - 0.22 * normal[..., 1]
    light += 0.05 * np.cos(((turn / np.pi + 0.5) * 12 + 0.35 - 0.5) * 2 * np.pi)  # each gore bulges
    rgb = rgb * light.clip(0.3, 1.12)[..., None]
    rgb = (
        1
        - (1 - rgb.clip(0, 1))
        * (1 - 0.25 * np.exp(-(((across + 0.5) / 0.16) ** 2 + ((v - 0.26) / 0.16) ** 2)))[..., None]
    )
    alpha = inside.astype(np.float32)
    basket = (np.abs(x) < 0.062 * h) & (y > 0.90 * h) & (y < 0.985 * h)
    weave = 0.75 + 0.25 * (np.sin(x * 1.4) * np.sin(y * 1.7) > 0)
    rgb[basket] = (np.array([0.55, 0.36, 0.2]) * weave[..., None])[basket]
    rgb[basket & (y < 0.915 * h)] = (0.3, 0.19, 0.1)
    alpha[basket] = 1
    for side in (-1, -0.35, 0.35, 1):
        s = np.clip((y - 0.73 * h) / (0.18 * h), 0, 1)
        rope = np.abs(x - side * (0.085 * (1 - s) + 0.058 * s) * h) < 0.55
        rope &= (y > 0.73 * h) & (y < 0.91 * h) & (alpha == 0)
        rgb[rope] = (0.22, 0.18, 0.15)
        alpha[rope] = 1
    premultiplied = np.dstack([rgb * alpha[..., None], alpha]).astype(np.float32)
    small = premultiplied.reshape(canvas.height, n, canvas.width, n, 4).mean((1, 3))
    rgb = np.divide(
        small[..., :3], small[..., 3:], out=np.zeros_like(small[..., :3]), where=small[..., 3:] > 0
    )
    return np.concatenate([rgb, small[..., 3:]], axis=-1).clip(0, 1)


def write_demo(scene: Scene, path: Path) -> None:
    """Render every frame of `scene` into a video with its sound; whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        wav = Path(folder) / "sound.wav"
        write_wav(wav, demo_sound(scene.frame_count / scene.fps, SEED))
        tags = {"range": "tv", "space": "bt709", "primaries": "bt709", "transfer": "bt709"}
        with (
            ThreadPoolExecutor(2) as pool,
            VideoWriter(path, scene.size, fps=scene.fps, audio_from=wav, color=tags) as writer,
        ):
            rendered = pool.map(scene.frames, range(scene.frame_count))
            for rgb in progress(rendered, scene.frame_count, "render demo"):
                writer.write(rgb)
