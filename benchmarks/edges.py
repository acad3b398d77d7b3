"""Edges of a replaced sky: the known old sky against plain alpha compositing, on exact twigs.

    python -m benchmarks.edges

Twigs and a wire before clouds, whose frames, shares and skies are known exactly. Every way gets the
same matte, the true one blurred by a Gaussian of sigma 2 px, and the same new sky; the truth is the
scene rendered under that sky. Ways:

alpha        matte * new + (1 - matte) * frame
unknown      frame + matte * (new - old), the old sky guessed from open sky near by (fast path)
known        the same, the old sky being known; the matte as given
known_mended the matte mended by the known sky first, as fits and fine sources have it
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable

import cv2
import numpy as np

from atlas.coords import Size
from atlas.known_sky import refine_sky_share
from atlas.mapping import FrameMapping
from atlas.texture import Texture, sample
from edits.composite import LayerEdit, composite_frame
from edits.paint import PicturePaint
from edits.picture import Picture
from tests.edited_scene import psnr_db
from tests.scene_presets import SceneOptions, make_scene

MATTE_SIGMA_PX = 2.0
EDGE_PX = 2
SKIES = {"night": (0.05, 0.06, 0.16), "sunset": (0.95, 0.5, 0.25), "storm": (0.42, 0.44, 0.47)}
"""Mean colours of the new skies, RGB."""


def new_sky(canvas: Size, color: tuple[float, float, float]) -> np.ndarray:
    """(H, W, 3) float32: broad waves about a colour."""
    y, x = np.mgrid[: canvas.height, : canvas.width] / 40.0
    waves = np.stack([np.sin(x), np.cos(y + x), np.sin(x - y)], -1)
    return np.clip(np.array(color, np.float32) * (1 + 0.25 * waves), 0, 1).astype(np.float32)


def twigs(size: Size, count: int, seed: int) -> dict[str, dict[str, float]]:
    """Mean PSNR in the edge band by new sky and way of compositing."""
    options = SceneOptions(size=size, frame_count=count, pan_deg=8, twigs=True, seed=seed)
    scene = make_scene(options)
    mapping, sky = scene.mapping(), scene.layers[-1]
    old_texture = np.ascontiguousarray(sky.texture[..., :3]).astype(np.float32)
    found: dict[str, dict[str, list[float]]] = {}
    for name, color in SKIES.items():
        picture = new_sky(mapping.layers[-1].canvas, color)
        paint = PicturePaint(
            Picture(picture, None),
            mapping.layers[-1].canvas,
            border=cv2.BORDER_REPLICATE,
            takes_shading=False,
        )
        for t in range(count):
            frame, maps = scene.frames(t), mapping.frame(t)
            share = maps.visible()[-1]
            exact = replaced_exactly(frame, share, picture, old_texture, maps.uv[-1])
            matte = cv2.GaussianBlur(share, (0, 0), MATTE_SIGMA_PX)
            mixed = ((share > 0.02) & (share < 0.98)).astype(np.uint8)
            side = 2 * EDGE_PX + 1
            band = cv2.dilate(mixed, np.ones((side, side), np.uint8)) > 0
            for way, make in ways(frame, matte, maps, paint, old_texture).items():
                score = psnr_db(make()[band], exact[band])
                found.setdefault(name, {}).setdefault(way, []).append(score)
    return {
        name: {way: round(statistics.fmean(scores), 2) for way, scores in by_way.items()}
        for name, by_way in found.items()
    }


def replaced_exactly(
    frame: np.ndarray, share: np.ndarray, new: np.ndarray, old: np.ndarray, uv: np.ndarray
) -> np.ndarray:
    """(H, W, 3) uint8: the frame as it would have been under another sky, by the true share."""
    change = sample(new, uv) - np.clip(sample(old, uv), 0, 1)
    return np.rint((frame / 255.0 + share[..., None] * change).clip(0, 1) * 255).astype(np.uint8)


def ways(
    frame: np.ndarray, matte: np.ndarray, maps: FrameMapping, paint: PicturePaint, sky: np.ndarray
) -> dict[str, Callable[[], np.ndarray]]:
    """How a sky may be put in, each giving (H, W, 3) uint8.

    Args:
        maps: the frame's true mapping. sky: (h, w, 3) float32, the old sky's atlas.
    """
    uv, ones = maps.uv[-1], np.ones(sky.shape[:2], np.float32)
    new, share = paint.sample(uv, 0.0)[..., :3], matte[..., None]
    old, texture = sample(sky, uv), Texture(sky.clip(0, 1), ones, ones)
    given = FrameMapping(maps.uv, np.stack([1 - matte, np.ones_like(matte)]), maps.confidence)

    def plain() -> np.ndarray:
        return np.rint((frame / 255.0 * (1 - share) + new * share).clip(0, 1) * 255)

    def ours(weight: np.ndarray, prior: np.ndarray | None) -> np.ndarray:
        return composite_frame(frame, [LayerEdit(weight, uv, [paint], prior)])

    return {
        "alpha": plain,
        "unknown": lambda: ours(matte, None),
        "known": lambda: ours(matte, old),
        "known_mended": lambda: ours(refine_sky_share(frame, given, texture, None), old),
    }


def measure(count: int = 6) -> dict[str, object]:
    """By new sky, dB in the edge band of each way, and what the known sky gains; two scenes."""
    runs = [twigs(Size(180, 320), count, seed) for seed in (1, 2)]
    out: dict[str, object] = {}
    for name in SKIES:
        row = {way: statistics.fmean(run[name][way] for run in runs) for way in runs[0][name]}
        row["gain"] = row["known_mended"] - row["alpha"]
        out[name] = {way: round(value, 2) for way, value in row.items()}
    return out


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.edges",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--frames", type=int, default=6)
    print(json.dumps(measure(count=parser.parse_args().frames), indent=1))


if __name__ == "__main__":
    main()
