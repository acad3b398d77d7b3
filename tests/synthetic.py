"""Synthetic scenes with exact truth: mapping, opacity, flow, sky rotation and edited result.

A scene is a stack of flat pictures (layers, top to bottom), each with an exact, invertible motion
from frame pixels to its canvas. One rule makes frames: every pixel is the mean over a
`supersample` x `supersample` grid of points inside it; at each point the layers are sampled
bilinearly (premultiplied colour) and composited top over bottom; then film grain is added and the
result rounded to 8 bits. Colours are display-encoded sRGB, as in the rest of the project.

    python -m tests.synthetic --out build/demo.mp4 [--truth DIR] [--size 854x480] [--frames 72]

renders the demo clip.
"""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np

from atlas.clip import ClipInfo, LayerInfo, write_info, write_rgb
from atlas.coords import Size, pixel_grid
from atlas.errors import InputError, run_script
from atlas.mapping import (
    BakedMapping,
    FrameMapping,
    Layer,
    LayerMapping,
    visible_shares,
    write_baked,
)
from tests.scene_motion import Camera, Motion

STRIP_ROWS = 48
"""Frames are rendered in strips that fit the processor's cache."""


@dataclass(frozen=True)
class SceneLayer:
    """One flat picture and how it moves.

    texture: (Hc, Wc, 4) float32, straight RGBA, [0, 1]. Outside the canvas it is transparent,
        except the bottom layer, whose border goes on.
    gain: (T,) float64, factor on the layer's colours in each frame (light that changes).
    """

    name: str
    texture: np.ndarray
    motion: Motion
    gain: np.ndarray

    @property
    def canvas(self) -> Size:
        return Size(*self.texture.shape[:2])


@dataclass(frozen=True)
class Scene:
    """Layers top to bottom under one camera; everything about every frame is known.

    grain: standard deviation of the film grain, 8-bit levels. seed: seed of the grain.
    """

    camera: Camera
    layers: tuple[SceneLayer, ...]
    frame_count: int
    fps: float = 24.0
    supersample: int = 2
    grain: float = 0.0
    seed: int = 0

    @property
    def size(self) -> Size:
        return self.camera.size

    def mapping(self) -> SyntheticMapping:
        """The exact `LayerMapping`."""
        return SyntheticMapping(self)

    def frames(self, t: int) -> np.ndarray:
        """(H, W, 3) uint8 RGB: frame `t`."""
        return self.edited(t, {})

    def edited(self, t: int, edits: dict[str, np.ndarray]) -> np.ndarray:
        """(H, W, 3) uint8 RGB: frame `t` of the scene whose canvases were painted over.

        The edit is laid over the layer's colours; the layer keeps its opacity, its light and the
        frame its grain, so pixels that do not see the edit come out as in `frames(t)`.

        Args:
            edits: by layer name, (Hc, Wc, 4) straight RGBA on that layer's canvas, uint8 or
                float in [0, 1].
        """
        self._check_frame(t)
        clean = self.render(t, self._painted(edits)) * 255
        if self.grain > 0:
            clean = clean + self.grain * self._grain(t)
        return np.rint(clean.clip(0, 255)).astype(np.uint8)

    def render(self, t: int, textures: dict[str, np.ndarray] | None = None) -> np.ndarray:
        """(H, W, 3) float32, [0, 1]: frame `t` before grain and rounding.

        Args:
            textures: by layer name, (Hc, Wc, 4) premultiplied float32; absent ones are the own.
        """
        textures = self._premultiplied | (textures or {})
        n = self.supersample
        out = np.zeros((self.size.height * n, self.size.width * n, 3), np.float32)
        fine = Size(*out.shape[:2])
        grid = pixel_grid(self.size, fine)
        for i in reversed(range(len(self.layers))):
            layer = self.layers[i]
            top, bottom, left, right = self._window(i, t, fine)
            for start in range(top, bottom, STRIP_ROWS):
                part = slice(start, min(start + STRIP_ROWS, bottom)), slice(left, right)
                uv = layer.motion.to_canvas(t, grid[part])
                rgba = self._sample(i, textures[layer.name], uv)
                below = out[part] * (1 - rgba[..., 3:])
                out[part] = rgba[..., :3] * np.float32(layer.gain[t]) + below
        return box_down(out, n)

    def alpha_at(self, i: int, t: int, xy_px: np.ndarray) -> np.ndarray:
        """(H, W) float32: opacity of layer number `i` at points (H, W, 2) of frame `t`."""
        if i == len(self.layers) - 1:
            return np.ones(xy_px.shape[:-1], np.float32)
        plane = self._premultiplied[self.layers[i].name][..., 3]
        return self._sample(i, plane, self.layers[i].motion.to_canvas(t, xy_px))

    def flow(self, t: int, target: int) -> tuple[np.ndarray, np.ndarray]:
        """Exact motion of what each pixel of frame `t` shows, to frame `target`.

        Returns:
            flow: (H, W, 2) float32 px, of the layer with the largest share of the pixel.
            visible: (H, W) bool: that layer has most of the pixel, and at the point where it goes
                it is inside the frame and again the most visible layer.
        """
        self._check_frame(t)
        self._check_frame(target)
        xy = pixel_grid(self.size).astype(np.float64)
        share = visible_shares(self.mapping().frame(t).alpha)
        top = share.argmax(0)
        goal = np.zeros_like(xy)
        for i, layer in enumerate(self.layers):
            here = top == i
            goal[here] = layer.motion.to_frame(target, layer.motion.to_canvas(t, xy[here]))
        there = visible_shares(
            np.stack([self.alpha_at(i, target, goal) for i in range(len(self.layers))])
        )
        inside = (goal >= -0.5).all(-1) & (goal[..., 0] <= self.size.width - 0.5)
        inside &= goal[..., 1] <= self.size.height - 0.5
        visible = inside & (share.max(0) > 0.5) & (there.argmax(0) == top)
        return (goal - xy).astype(np.float32), visible

    def sky_rotation(self, t: int) -> tuple[np.ndarray, float]:
        """(3, 3) float64 rotation R and the focal length in pixels.

        The sky moves from frame s to frame t by the homography K R[t] R[s]^T K^-1, with K the
        camera's `Camera.k`.
        """
        self._check_frame(t)
        return self.camera.rotations[t], self.camera.focal_px

    def layer_index(self, name: str) -> int:
        """Index of the layer called `name`."""
        names = [layer.name for layer in self.layers]
        if name not in names:
            raise ValueError(f"name must be one of {names}, got {name!r}")
        return names.index(name)

    @cached_property
    def _premultiplied(self) -> dict[str, np.ndarray]:
        return {layer.name: premultiply(layer.texture) for layer in self.layers}

    def _painted(self, edits: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        textures = {}
        for name, edit in edits.items():
            texture = self.layers[self.layer_index(name)].texture
            if edit.shape != texture.shape:
                raise ValueError(f"edit of {name!r} must be {texture.shape}, got {edit.shape}")
            rgba = edit.astype(np.float32) / (255 if edit.dtype == np.uint8 else 1)
            rgb = texture[..., :3] + (rgba[..., :3] - texture[..., :3]) * rgba[..., 3:]
            textures[name] = premultiply(np.concatenate([rgb, texture[..., 3:]], axis=-1))
        return textures

    def _sample(self, i: int, texture: np.ndarray, uv: np.ndarray) -> np.ndarray:
        bottom = i == len(self.layers) - 1
        border = cv2.BORDER_REPLICATE if bottom else cv2.BORDER_CONSTANT
        at = uv.astype(np.float32)
        np.copyto(at, -1e4, where=np.isnan(at))  # points behind the camera see nothing
        return cv2.remap(texture, at[..., 0], at[..., 1], cv2.INTER_LINEAR, borderMode=border)

    def _window(self, i: int, t: int, fine: Size) -> tuple[int, int, int, int]:
        """Rows [top, bottom) and columns [left, right) of a `fine` frame the layer can reach."""
        layer = self.layers[i]
        if i == len(self.layers) - 1:
            return 0, fine.height, 0, fine.width
        u = np.linspace(-1, layer.canvas.width, 65)
        v = np.linspace(-1, layer.canvas.height, 65)
        grid = np.stack(np.meshgrid(u, v), axis=-1)
        xy = layer.motion.to_frame(t, grid)
        if not np.isfinite(xy).all():
            return 0, fine.height, 0, fine.width
        # 65 steps follow a bend closely; 3 % of the extent covers what lies between them
        slack = 3 + 0.03 * np.ptp(xy, axis=(0, 1)) * (layer.motion.bend is not None)
        scale = fine.width / self.size.width
        low, high = (xy.min((0, 1)) - slack) * scale, (xy.max((0, 1)) + slack) * scale
        x0, y0 = np.clip(np.floor(low), 0, [fine.width, fine.height]).astype(int)
        x1, y1 = np.clip(np.ceil(high) + 1, 0, [fine.width, fine.height]).astype(int)
        return int(y0), int(y1), int(x0), int(x1)

    def _grain(self, t: int) -> np.ndarray:
        rng = np.random.default_rng([self.seed, 4711, t])
        grain = rng.standard_normal((self.size.height, self.size.width, 1), np.float32)
        return cv2.GaussianBlur(grain, (3, 3), 0.6)[..., None] * 1.9  # soft, of deviation about 1

    def _check_frame(self, t: int) -> None:
        if not 0 <= t < self.frame_count:
            raise ValueError(f"t must be in 0..{self.frame_count - 1}, got {t}")


class SyntheticMapping(LayerMapping):
    """The exact mapping of a scene: uv at pixel centres, opacity as the mean over each pixel."""

    def __init__(self, scene: Scene):
        self.scene = scene
        self.layers = tuple(Layer(layer.name, layer.canvas) for layer in scene.layers)
        self.frame_count = scene.frame_count
        self.frame_size = scene.size

    def frame(self, t: int, size: Size | None = None) -> FrameMapping:
        self.scene._check_frame(t)
        scene, size, n = self.scene, size or self.frame_size, self.scene.supersample
        xy = pixel_grid(scene.size, size)
        fine = pixel_grid(scene.size, Size(size.height * n, size.width * n))
        uv = np.stack([layer.motion.to_canvas(t, xy) for layer in scene.layers])
        alpha = np.stack(
            [box_down(scene.alpha_at(i, t, fine), n) for i in range(len(scene.layers))]
        )
        return FrameMapping(
            uv.astype(np.float32), alpha.clip(0, 1), np.ones(len(scene.layers), np.float32)
        )


def premultiply(rgba: np.ndarray) -> np.ndarray:
    """(H, W, 4) straight to premultiplied, float32, contiguous."""
    return np.concatenate([rgba[..., :3] * rgba[..., 3:], rgba[..., 3:]], axis=-1, dtype=np.float32)


def box_down(picture: np.ndarray, n: int) -> np.ndarray:
    """Mean over n x n blocks of (H n, W n[, C]) float32."""
    height, width = picture.shape[:2]
    return cv2.resize(picture, (width // n, height // n), interpolation=cv2.INTER_AREA)


def write_truth(scene: Scene, folder: Path) -> BakedMapping:
    """Write everything that is known about `scene` into `folder`, for `clip.json`'s "truth".

    mapping.json, NNNNN.npz: the exact mapping (`atlas.mapping.write_baked`).
    texture_<layer>.png: the layers' pictures, straight RGBA.
    truth.json: per frame the sky's rotation and every layer's gain; the focal length; the rule
        of rendering. The exact edited frame is, up to the difference between a pixel's mean and
        its centre: frame + sum over layers of share * gain * (edited - original texture at uv).
    """
    whole = folder
    folder = whole.with_name(whole.name + ".new")
    write_baked(folder, scene.mapping())
    for layer in scene.layers:
        rgba = np.rint(layer.texture * 255).astype(np.uint8)
        write_rgb(folder / f"texture_{layer.name}.png", rgba)
    truth = {
        "focal_px": scene.camera.focal_px,
        "rotation": scene.camera.rotations.tolist(),
        "gain": {layer.name: layer.gain.tolist() for layer in scene.layers},
        "grain": scene.grain,
        "supersample": scene.supersample,
    }
    (folder / "truth.json").write_text(json.dumps(truth), encoding="utf-8")
    shutil.rmtree(whole, ignore_errors=True)
    folder.rename(whole)
    return BakedMapping(whole)


def write_clip(scene: Scene, folder: Path, *, merged: bool = False) -> Path:
    """Write `scene` as a clip folder with exact flow and masks, and its truth beside it.

    Flow is the exact one everywhere, also where the target is hidden. Masks are the layers' own
    opacities. With `merged` all that is above the bottom layer becomes one layer "foreground".

    Returns:
        `folder`, which `atlas.clip.Clip` opens; siblings are NAME_flow, NAME_<layer>, NAME_truth.
    """
    folder.mkdir(parents=True, exist_ok=True)
    mapping, names = scene.mapping(), [layer.name for layer in scene.layers[:-1]]
    if merged:
        names = ["foreground"]

    def sibling(suffix: str) -> Path:
        path = folder.with_name(f"{folder.name}_{suffix}")
        path.mkdir(exist_ok=True)
        return path

    for t in range(scene.frame_count):
        write_rgb(folder / f"{t:05d}.png", scene.frames(t))
        m = mapping.frame(t)
        masks = [1 - m.visible()[-1]] if merged else list(m.alpha[:-1])
        for name, mask in zip(names, masks, strict=True):
            write_rgb(sibling(name) / f"{t:05d}.png", np.rint(mask * 255).astype(np.uint8))
        for target in (t - 1, t + 1):
            if 0 <= target < scene.frame_count:
                path = sibling("flow") / f"{t:05d}.png_{target:05d}.png.npy"
                np.save(path, scene.flow(t, target)[0])
    write_truth(scene, sibling("truth"))
    layers = [LayerInfo(name=name, mask_dir=f"{folder.name}_{name}") for name in names]
    info = ClipInfo(
        width=scene.size.width,
        height=scene.size.height,
        frame_count=scene.frame_count,
        fps=scene.fps,
        frame_times_s=[t / scene.fps for t in range(scene.frame_count)],
        layers=[*layers, LayerInfo(name=scene.layers[-1].name)],
        shots=[[0, scene.frame_count]],
        tools={"frames": "synthetic", "flow": "exact", "masks": "exact"},
        truth=f"{folder.name}_truth",
    )
    write_info(folder, info)
    return folder


def main() -> None:
    from tests.demo_scene import demo_scene, write_demo  # it builds on this module

    parser = argparse.ArgumentParser(
        prog="python -m tests.synthetic",
        description="Render the demo clip: a balloon over a meadow, a hand-held pan, sound.",
    )
    parser.add_argument("--out", type=Path, required=True, help="video to write, e.g. demo.mp4")
    parser.add_argument("--truth", type=Path, help="folder for the exact mapping and textures")
    parser.add_argument("--size", default="854x480", help="WIDTHxHEIGHT, pixels (default 854x480)")
    parser.add_argument("--frames", type=int, default=72, help="number of frames (default 72)")
    parser.add_argument("--fps", type=float, default=24.0, help="frames per second (default 24)")
    args = parser.parse_args()
    try:
        width, height = (int(n) for n in args.size.lower().split("x"))
    except ValueError as err:
        raise InputError(f"--size: found {args.size!r}, wanted WIDTHxHEIGHT, as 854x480") from err
    if min(width, height) < 64:
        raise InputError(f"--size: found {args.size}, wanted at least 64 pixels each way")
    if args.frames < 1:
        raise InputError(f"--frames: found {args.frames}, wanted at least 1")
    if not args.fps > 0:
        raise InputError(f"--fps: found {args.fps}, wanted more than 0")
    scene = demo_scene(Size(height, width), args.frames, args.fps)
    write_demo(scene, args.out)
    print(args.out)
    if args.truth:
        write_truth(scene, args.truth)
        print(args.truth)


if __name__ == "__main__":
    run_script(main)
