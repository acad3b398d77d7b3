"""Paint on a layer, seen again at once: maps baked to fixed point, pixels in 8 bit.

For a paint program in one window and the clip playing in another: everything that does not depend
on the paint is worked out once and laid on disk, memory-mapped; a new picture then costs a few
milliseconds a frame and core. A preview: a mixed pixel at the layer's edge fades as it is, without
its own colour being told from the rest, and paint much finer than the frame is not averaged;
`edits.apply.Renderer` makes the final frames.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from atlas.clip import write_bytes
from atlas.coords import Size
from atlas.errors import InputError
from atlas.mapping import LayerMapping
from edits.composite import bounding_box

GAIN_ONE = 64
"""Gains are kept as 1/64 in 8 bit, so up to 4."""
GAIN_STEP_PX = 8
"""Distance of the points at which they are kept; pixels."""
INDEX = "baked_layer.json"


@dataclass(frozen=True)
class _Maps:
    """One frame, inside the box where the layer shows.

    place: (h, w, 2) int16 texels and fraction: (h, w) uint16, OpenCV's fixed-point map. share:
    (h, w) uint8. gain: (h / 8, w / 8, 3) uint8, or None.
    """

    box: tuple[slice, slice]
    place: np.ndarray
    fraction: np.ndarray
    share: np.ndarray
    gain: np.ndarray | None


def bake_layer(
    folder: Path,
    mapping: LayerMapping,
    layer: int,
    size: Size,
    gains: Callable[[int, Size], np.ndarray] | None = None,
) -> BakedLayer:
    """Bake one layer of every frame at `size` into a folder and open it.

    Args:
        gains: (t, size) -> (L, H, W, 3) float32 shading; None without.
    """
    folder.mkdir(parents=True, exist_ok=True)
    frames = []
    for t in range(mapping.frame_count):
        found = mapping.frame(t, size)
        share = found.visible()[layer]
        box = bounding_box(share)
        if box is None:
            frames.append(None)
            continue
        uv = np.nan_to_num(found.uv[layer][box], nan=-1e4).clip(-3e4, 3e4)
        place, fraction = cv2.convertMaps(uv, None, cv2.CV_16SC2)  # pyright: ignore
        parts = [place, fraction, np.rint(share[box] * 255).astype(np.uint8)]
        if gains is not None:
            gain = gains(t, size)[layer][box]
            small = (-(-gain.shape[1] // GAIN_STEP_PX), -(-gain.shape[0] // GAIN_STEP_PX))
            gain = cv2.resize(gain, small, interpolation=cv2.INTER_AREA)
            parts.append(np.rint(gain * GAIN_ONE).clip(0, 255).astype(np.uint8))
        packed = np.concatenate([part.reshape(-1).view(np.uint8) for part in parts])
        np.save(folder / f"{t:05d}.npy", packed)
        frames.append([int(v) for side in box for v in (side.start, side.stop)])
    canvas = mapping.layers[layer].canvas
    index = {
        "size": [size.height, size.width],
        "canvas": [canvas.height, canvas.width],
        "gains": gains is not None,
        "boxes": frames,
    }
    write_bytes(folder / INDEX, json.dumps(index).encode())
    return BakedLayer(folder)


class BakedLayer:
    """A layer as `bake_layer` left it; renders any paint on it."""

    def __init__(self, folder: Path):
        self.folder = folder
        try:
            index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        except (OSError, ValueError) as err:
            raise InputError(f"{folder / INDEX}: not a baked layer ({err}); bake it again") from err
        self.size, self.canvas = Size(*index["size"]), Size(*index["canvas"])
        self._boxes, self._shaded = index["boxes"], index["gains"]

    @property
    def frame_count(self) -> int:
        return len(self._boxes)

    def premultiplied(self, rgba: np.ndarray) -> np.ndarray:
        """Paint as `frame` wants it: (H, W, 4) uint8, colour times opacity.

        Args:
            rgba: (H, W, 4) uint8, straight alpha, the size of the layer's canvas.
        """
        if rgba.shape != (self.canvas.height, self.canvas.width, 4) or rgba.dtype != np.uint8:
            raise ValueError(f"rgba must be uint8 {self.canvas} with alpha, got {rgba.shape}")
        alpha = rgba[..., 3]
        colour = cv2.multiply(rgba[..., :3], cv2.merge([alpha] * 3), scale=1 / 255)
        return np.dstack([colour, alpha])

    def frame(self, t: int, rgb: np.ndarray, paint: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8: frame `t` with the paint on the layer.

        Args:
            rgb: (H, W, 3) uint8, the source's frame. paint: see `premultiplied`.
        """
        out = rgb.copy()
        maps = self._maps(t)
        if maps is None:
            return out
        seen = cv2.remap(paint, maps.place, maps.fraction, cv2.INTER_LINEAR)
        alpha = cv2.extractChannel(seen, 3)
        within = cv2.boundingRect(alpha)  # of what is painted
        if within[2] == 0:
            return out
        x, y, w, h = within
        part = (slice(y, y + h), slice(x, x + w))
        share = cv2.merge([np.ascontiguousarray(maps.share[part])] * 3)
        colour = cv2.cvtColor(seen[part], cv2.COLOR_BGRA2BGR)  # the channels' order stays
        if maps.gain is not None:
            whole = cv2.resize(maps.gain, seen.shape[1::-1], interpolation=cv2.INTER_LINEAR)
            colour = cv2.multiply(colour, whole[part], scale=1 / GAIN_ONE)
            colour = cv2.min(colour, cv2.merge([alpha[part]] * 3))
        hidden = cv2.multiply(cv2.merge([alpha[part]] * 3), share, scale=1 / 255)
        target = out[maps.box][part]
        kept = cv2.multiply(target, cv2.bitwise_not(hidden), scale=1 / 255)
        target[:] = cv2.add(kept, cv2.multiply(colour, share, scale=1 / 255))
        return out

    def video(
        self, frames: Iterable[np.ndarray], paint: np.ndarray, workers: int = 2
    ) -> Iterator[np.ndarray]:
        """All frames in order, `workers` at a time; OpenCV lets go of the interpreter."""
        with ThreadPoolExecutor(workers) as pool:
            waiting = []
            for t, rgb in enumerate(frames):
                waiting.append(pool.submit(self.frame, t, rgb, paint))
                if len(waiting) > 2 * workers:
                    yield waiting.pop(0).result()
            for late in waiting:
                yield late.result()

    def _maps(self, t: int) -> _Maps | None:
        if self._boxes[t] is None:
            return None
        top, bottom, left, right = self._boxes[t]
        h, w = bottom - top, right - left
        packed = np.asarray(np.load(self.folder / f"{t:05d}.npy", mmap_mode="r"))
        ends = np.cumsum([h * w * 4, h * w * 2, h * w])
        place, fraction, share, gain = np.split(packed, ends)
        small = (-(-h // GAIN_STEP_PX), -(-w // GAIN_STEP_PX), 3)
        return _Maps(
            (slice(top, bottom), slice(left, right)),
            place.view(np.int16).reshape(h, w, 2),
            fraction.view(np.uint16).reshape(h, w),
            share.reshape(h, w),
            gain.reshape(small) if self._shaded else None,
        )
