"""A synthetic scene as what edits are given, and how far an edit's frames are from the truth."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from atlas.coords import Size
from atlas.texture import Texture
from edits.apply import render
from edits.context import RenderContext
from edits.recipe import Recipe
from tests.scene_presets import SceneOptions, make_scene
from tests.synthetic import Scene


class EditedScene:
    """An exact scene with its frames."""

    def __init__(self, scene: Scene):
        self.scene = scene
        self.frames = [scene.frames(t) for t in range(scene.frame_count)]

    def context(self, *, unseen: dict[str, np.ndarray] | None = None) -> RenderContext:
        """Exact textures and light. unseen: by layer name, (H, W) bool: texels nobody knows."""
        textures = []
        for layer in self.scene.layers:
            rgb = np.ascontiguousarray(layer.texture[..., :3])
            coverage = np.ones(rgb.shape[:2], np.float32)
            if unseen and layer.name in unseen:
                rgb = np.where(unseen[layer.name][..., None], np.float32([1, 0, 1]), rgb)
                coverage[unseen[layer.name]] = 0
            textures.append(Texture(rgb, coverage))
        return RenderContext(
            textures=textures,
            shading=self._gains,
            read_frame=self.frames.__getitem__,
        )

    def render(self, recipe: Recipe, context: RenderContext | None = None) -> list[np.ndarray]:
        """Edited frames through the exact mapping."""
        return list(render(self.scene.mapping(), self.frames, recipe, context or self.context()))

    def psnr(self, made: list[np.ndarray], truth: list[np.ndarray]) -> list[float]:
        """Per frame, dB."""
        return [psnr_db(a, b) for a, b in zip(made, truth, strict=True)]

    def edge_psnr(self, made: list[np.ndarray], truth: list[np.ndarray]) -> list[float]:
        """Per frame, dB, over pixels within 2 px of one that shows several layers and is edited."""
        out = []
        for t, (a, b) in enumerate(zip(made, truth, strict=True)):
            shares = self.scene.mapping().frame(t).visible()
            edited = np.abs(b.astype(int) - self.frames[t]).max(-1) > 4
            edge = (shares.max(0) < 0.98) & (cv2.dilate(edited.astype(np.uint8), _square(5)) > 0)
            band = cv2.dilate(edge.astype(np.uint8), _square(5)) > 0
            if band.sum() > 40:
                out.append(psnr_db(a[band], b[band]))
        return out

    def _gains(self, t: int) -> np.ndarray:
        size = self.scene.size
        gain = np.array([layer.gain[t] for layer in self.scene.layers], np.float32)
        return (
            np.ones((len(gain), size.height, size.width, 3), np.float32) * gain[:, None, None, None]
        )


@lru_cache(maxsize=4)
def object_scene(kind: str = "rigid", light: float = 0.25, grain: float = 0.0) -> EditedScene:
    """Nine frames 150x94 of a disc over a textured ground: a pan, light that changes."""
    options = SceneOptions(
        size=Size(94, 150), frame_count=9, seed=3, object=kind, sky="none", light=light,
        grain=grain, texels_per_px=1.25,
    )  # fmt: skip
    return EditedScene(make_scene(options))


def psnr_db(a: np.ndarray, b: np.ndarray) -> float:
    """Peak signal to noise ratio of 8-bit pictures, at most 99 dB."""
    error = float(np.mean((a.astype(np.float64) - b) ** 2))
    return 99.0 if error < 1e-9 else float(10 * np.log10(255**2 / error))


def blob(canvas: Size, centre: tuple[float, float], radius: float, softness: float) -> np.ndarray:
    """(H, W) float32: a disc with a soft edge; centre and radius as shares of the canvas."""
    y, x = np.mgrid[: canvas.height, : canvas.width]
    distance = np.hypot(x - centre[0] * canvas.width, y - centre[1] * canvas.height)
    side = min(canvas.wh)
    return np.clip((radius * side - distance) / (softness * side) + 0.5, 0, 1).astype(np.float32)


def colorful(canvas: Size, alpha: np.ndarray) -> np.ndarray:
    """(H, W, 4) float32 straight paint: broad colour waves under a given opacity."""
    y, x = np.mgrid[: canvas.height, : canvas.width] / 9.0
    rgb = np.stack([0.75 + 0.2 * np.sin(x), 0.25 + 0.15 * np.cos(y), 0.5 + 0.3 * np.sin(x + y)], -1)
    return np.dstack([rgb, alpha]).astype(np.float32)


def _square(side: int) -> np.ndarray:
    return np.ones((side, side), np.uint8)
