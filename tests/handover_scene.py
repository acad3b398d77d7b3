"""An exact scene with paint in every blend mode, handed over; shared by the tests of hand-over."""

import cv2
import numpy as np

from atlas.clip import write_rgb
from atlas.coords import Size
from atlas.texture import Texture
from edits.apply import RenderContext, render_pairs
from edits.flatten import FlatPaint
from edits.recipe import LayerPaint, Recipe
from edits.stmap import (
    ExportOptions,
    ExportSource,
    export_stmaps,
)
from tests.compositor import read_rgba
from tests.scene_presets import SceneOptions, make_scene

SIZE = Size(height=52, width=84)
COUNT = 5
FIRST, LAST = 1, 3  # of source frames 0..6, of which the mapping covers 1..5
PAINTS = (  # all blend modes, on top of each other
    ("object", "normal"),
    ("object", "overlay"),
    ("sky", "normal"),
    ("sky", "multiply"),
    ("foreground", "soft light"),
    ("sky", "screen"),
    ("foreground", "add"),
)
LEAD = 1  # source frames before the mapping's first


def psnr_db(a, b):
    return -10 * np.log10(np.mean((np.asarray(a, np.float64) - b) ** 2) + 1e-20)


def smooth(size, seed, channels):
    """Blobs a dozen pixels wide that use the whole range."""
    rng = np.random.default_rng(seed)
    small = rng.random((max(size.height // 12, 2), max(size.width // 12, 2), channels), np.float32)
    return cv2.resize(small, size.wh, interpolation=cv2.INTER_CUBIC).clip(0, 1)


class Exact:
    """A scene whose mapping, textures, light and edits are known exactly."""

    def __init__(self, folder):
        # 0.9: atlases a little coarser than frames, so that no mip level comes into our render
        self.scene = make_scene(
            SceneOptions(size=SIZE, frame_count=COUNT, object="deforming", texels_per_px=0.9)
        )
        self.mapping = self.scene.mapping()
        self.textures = [
            Texture(layer.texture[..., :3].clip(0, 1), np.ones(layer.texture.shape[:2], "f4"))
            for layer in self.scene.layers
        ]
        light = np.stack([smooth(SIZE, 10 + i, 3) * 0.5 + 0.7 for i in range(len(self.textures))])
        self.gains = [light * (1 - 0.02 * t) for t in range(COUNT)]
        self.frames = [self.scene.frames(max(t, 0)) for t in range(-LEAD, COUNT)]
        self.context = RenderContext(
            textures=self.textures,
            shading=lambda t: self.gains[t].astype(np.float32),
            first_frame=LEAD,
            fps=24000 / 1001,
            read_frame=lambda index: self.frames[index],
        )
        self.names = [layer.name for layer in self.mapping.layers]
        self.paints = {}
        edits = []
        for seed, (name, blend) in enumerate(PAINTS):
            canvas = self.mapping.layers[self.names.index(name)].canvas
            paint = np.rint(smooth(canvas, seed, 4) * 65535).astype(np.uint16)
            write_rgb(folder / f"{seed}.png", paint)
            flat = FlatPaint(paint.astype(np.float32) / 65535, blend)
            self.paints.setdefault(name, []).append(flat)
            edits.append(LayerPaint(layer=name, path=str(folder / f"{seed}.png"), blend=blend))
        self.folder = folder / "out"
        self.source = ExportSource(mapping=self.mapping, frames=self.frames, context=self.context)
        self.written = export_stmaps(
            self.folder, self.source, ExportOptions(first=FIRST, last=LAST, paints=self.paints)
        )
        self.recipe = Recipe(edits=tuple(edits))
        self.edited = [
            b for _, b in render_pairs(self.mapping, self.frames, self.recipe, self.context)
        ]

    def read(self, pattern, frame):
        return read_rgba(self.folder / (pattern % frame))
