"""The exact truth of a synthetic clip, as `clip.json`'s "truth" names it.

NAME_truth/mapping.json, NNNNN.npz    the exact mapping, baked
NAME_truth/texture_<layer>.png        each layer's picture, straight RGBA
NAME_truth/truth.json                 per frame: every layer's gain (light that changes)
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from atlas.clip import Clip, read_rgb
from atlas.coords import Size
from atlas.errors import InputError
from atlas.mapping import BakedMapping, FrameMapping, LayerMapping


@dataclass(frozen=True)
class Truth:
    """Exact mapping and textures of a clip.

    textures: by layer name, (H, W, 3) float32 in [0, 1].
    gains: by layer name, one factor a frame.
    first_frame: the mapping's frame that is frame 0 of the clip.
    """

    mapping: LayerMapping
    textures: dict[str, np.ndarray]
    gains: dict[str, list[float]]
    first_frame: int = 0

    def frame(self, t: int, size: Size) -> FrameMapping:
        """The exact mapping of the clip's frame `t`."""
        return self.mapping.frame(t + self.first_frame, size)

    def edited(
        self,
        rgb: np.ndarray,
        t: int,
        layer: str,
        paint: Callable[[np.ndarray], np.ndarray],
        lit: bool = True,
    ) -> np.ndarray:
        """The frame as the scene shows it with one layer painted over: grain and all else kept.

        frame + share gain (a paint / level - a texture), at the exact uv. Level is
        the gain's mean over the clip: nothing in the frames tells a dark layer in bright light from
        a bright one in dim light, so a paint counts as seen in the clip's mean light.

        Args:
            rgb: (H, W, 3) uint8, the clip's frame `t`.
            paint: (H, W, 2) texels of the true canvas -> (H, W, 4) float32, premultiplied.
            lit: whether the layer's light falls on the paint; a new sky brings its own.
        Returns:
            (H, W, 3) float32 in [0, 1].
        """
        exact = self.frame(t, Size(*rgb.shape[:2]))
        index = self.mapping.layer_index(layer)
        uv = exact.uv[index]
        old = cv2.remap(
            self.textures[layer], uv, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        over = paint(uv)
        gains = self.gains.get(layer, [1.0])
        gain = gains[t + self.first_frame] if layer in self.gains else 1.0
        on_paint = gain / float(np.mean(gains)) if lit else 1.0
        change = over[..., :3] * on_paint - over[..., 3:] * old * gain
        weight = exact.visible()[index][..., None]
        return np.clip(rgb.astype(np.float32) / 255 + weight * change, 0, 1)


def open_truth(clip: Clip, folder: Path | None = None) -> Truth | None:
    """The clip's exact truth; None for a clip that has none (every real one).

    Args:
        folder: where it lies; None takes what `clip.json` names.
    """
    if folder is None:
        if clip.info.truth is None:
            return None
        folder = clip.folder.resolve().parent / clip.info.truth
    mapping = BakedMapping(folder)
    first = clip.info.source.first_frame if clip.info.source else 0
    if first + clip.frame_count > mapping.frame_count:
        raise InputError(
            f"{folder}: has {mapping.frame_count} frames, the clip {first + clip.frame_count}; "
            f"it is not this clip's truth"
        )
    textures = {}
    for layer in mapping.layers:
        texture = read_rgb(folder / f"texture_{layer.name}.png").astype(np.float32) / 255
        if texture.shape[:2] != (layer.canvas.height, layer.canvas.width):
            raise InputError(
                f"{folder / f'texture_{layer.name}.png'}: is {Size(*texture.shape[:2])}, wanted "
                f"the canvas's size, {layer.canvas}"
            )
        textures[layer.name] = texture
    return Truth(mapping, textures, _read_gains(folder / "truth.json"), first)


def _read_gains(path: Path) -> dict[str, list[float]]:
    if not path.is_file():
        return {}
    try:
        gains = json.loads(path.read_text(encoding="utf-8")).get("gain", {})
        return {name: [float(g) for g in values] for name, values in gains.items()}
    except (OSError, ValueError, TypeError, AttributeError) as err:
        raise InputError(f"{path}: not the facts of a synthetic clip ({err})") from err
