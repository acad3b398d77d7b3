"""What refinement gains at the edges of single pictures, and how mattes look on clips.

    python -m benchmarks.sky_refine gain  --images DIR --masks DIR [--json FILE]
    python -m benchmarks.sky_refine crowns --data sky_segmentation [--json FILE]
    python -m benchmarks.sky_refine sheet --out FILE.png CLIP ...

gain: error in the edge band (see preprocess.sky.evaluate) of pictures with soft mattes, as they are
and with drawn twigs, wires, poles and hair of exact coverage put before the sky: the network's
answer enlarged, the streaming matte, the careful one.
crowns: bare, sparse and leafy crowns of exact coverage, drawn before a white, a grey and a blue sky
put into held-out training pictures: mean error where a crown is, and the share of its gaps (more
than three quarters sky) that is found.
sheet: four frames of each clip, spread over it, beside the same with the matte over them in violet.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from atlas.clip import write_bytes, write_rgb
from atlas.coords import Size
from atlas.errors import InputError, run_script
from atlas.video import open_source
from benchmarks.sky_drawn import held_out_pictures, with_colour
from preprocess.sky.choose import open_matter
from preprocess.sky.data import read_pairs, to_bytes
from preprocess.sky.evaluate import alone, score_picture
from preprocess.sky.infer import CAREFUL, MatteOptions, NetworkMatter
from preprocess.sky.matte import NETWORK_WEIGHTS, SkyMatter
from preprocess.sky.scenery import bare_crowns, foliage, sparse_crowns
from preprocess.sky.thin_things import THIN_KINDS, thin_coverage

WAYS = {
    "unrefined": MatteOptions(refine=None),
    "streaming": MatteOptions(),
    "careful, colours only": replace(CAREFUL, edges=None, closed_form=None),
    "careful, closed form": replace(CAREFUL, edges=None),
    "careful, edge network": replace(CAREFUL, closed_form=None),
    "careful": CAREFUL,
}
CROWN_SKIES = {"white": (1.0, 1.0, 1.0), "grey": (0.72, 0.73, 0.75), "blue": (0.36, 0.55, 0.86)}
CROWNS = (bare_crowns, sparse_crowns, foliage)
_TILE_PX = 360
_VIOLET = np.array([110, 40, 230], np.float32)

Picture = tuple[np.ndarray, np.ndarray]


def with_thin_thing(rgb: np.ndarray, truth: np.ndarray, seed: int) -> Picture:
    """The picture (H, W, 3) uint8 with a dark thin thing before it, and its matte (H, W)."""
    rng = np.random.default_rng(seed)
    coverage = thin_coverage(rng, Size(*truth.shape), THIN_KINDS[seed % len(THIN_KINDS)])
    colour = 255 * rng.uniform(0.0, 0.3) * rng.uniform(0.7, 1.3, 3)
    mixed = rgb + coverage[..., None] * (colour - rgb)
    return to_bytes((mixed / 255).astype(np.float32)), truth * (1 - coverage)


def measure_gain(
    images: Path, masks: Path, weights: Path, only: str = ""
) -> dict[str, dict[str, float]]:
    """Mean error in the band by way, for the pictures of a folder and for those with thin things.

    Pictures with less than 5 % of sky, or of ground, are left out, and those whose names do not
    begin with `only`.
    """
    named = read_pairs(images, masks)
    pairs = [(rgb, matte) for name, rgb, matte in named if name.startswith(only)]
    plain = [(rgb, matte) for rgb, matte in pairs if 0.05 < matte.mean() < 0.95]
    if not plain:
        raise InputError(f"{images}: no picture with both sky and ground")
    drawn = [with_thin_thing(rgb, matte, seed) for seed, (rgb, matte) in enumerate(plain)]
    result = {}
    for way, options in WAYS.items():
        matte_of = alone(NetworkMatter(weights, options))
        result[way] = {
            name: float(np.mean([_band_error(matte_of(rgb), truth) for rgb, truth in pictures]))
            for name, pictures in (("as they are", plain), ("with thin things", drawn))
        }
    return result


def crown_pictures(root: Path, seeds: int) -> dict[str, list[tuple[Picture, np.ndarray]]]:
    """By colour of the sky: pictures with their mattes, and (H, W) bool where a crown is."""
    held = [pair for pair in held_out_pictures(root) if 0.2 < pair.alpha.mean() / 255 < 0.95]
    result: dict[str, list[tuple[Picture, np.ndarray]]] = {name: [] for name in CROWN_SKIES}
    for seed in range(seeds):
        for index, pair in enumerate(held):
            for name, colour in CROWN_SKIES.items():
                rng = np.random.default_rng([seed, index, 11])
                rgb, truth = with_colour(pair, colour)
                cover = CROWNS[(seed + index) % len(CROWNS)](rng, Size(*truth.shape))
                bark = 255 * rng.uniform(0.05, 0.4) * rng.uniform(0.8, 1.2, 3)
                mixed = rgb + cover[..., None] * (bark - rgb) + rng.normal(0, 2, rgb.shape)
                where = (cv2.blur(cover, (15, 15)) > 0.15) & (truth > 0.5)
                picture = to_bytes((mixed / 255).astype(np.float32)), truth * (1 - cover)
                result[name].append((picture, where))
    return result


def measure_crowns(root: Path, weights: Path, seeds: int = 3) -> dict[str, dict[str, float]]:
    """Mean error in crowns and share of their gaps that is found, by way and colour of the sky."""
    pictures = crown_pictures(root, seeds)
    result: dict[str, dict[str, float]] = {}
    for way, options in WAYS.items():
        matte_of = alone(NetworkMatter(weights, options))
        row: dict[str, float] = {}
        for name, scenes in pictures.items():
            errors, gaps = [], []
            for (rgb, truth), where in scenes:
                matte = matte_of(rgb)
                errors.append(np.abs(matte - truth)[where].mean())
                gaps.append((matte > 0.5)[where & (truth > 0.75)].mean())
            row[f"{name}, error"] = float(np.mean(errors))
            row[f"{name}, gaps"] = float(np.mean(gaps))
        result[way] = row
    return result


def _band_error(matte: np.ndarray, truth: np.ndarray) -> float:
    error = score_picture("picture", matte, truth).band_mae
    return 0.0 if error is None else error


def overlaid(rgb: np.ndarray, matte: np.ndarray) -> np.ndarray:
    """The frame in dim grey with the matte (H, W) over it in violet; (H, W, 3) uint8."""
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)[..., None].astype(np.float32)
    share = 0.55 * matte[..., None]
    return np.round((0.7 * grey) * (1 - share) + _VIOLET * share).astype(np.uint8)


def clip_row(clip: Path, matter: SkyMatter, count: int = 4) -> np.ndarray:
    """`count` frames of a clip beside their overlays, each pair `_TILE_PX` wide per picture."""
    source = open_source(clip)
    times = np.linspace(0, source.info.frame_count - 1, 2 * count + 1).astype(int)[1::2]
    tiles = []
    for t in times:
        rgb = source.frame(int(t))
        scale = _TILE_PX * 2 / rgb.shape[1]
        rgb = cv2.resize(rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        matter.reset()  # frames far apart
        both = np.vstack([rgb, overlaid(rgb, matter.matte(rgb))])
        tiles.append(cv2.resize(both, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))
    return np.hstack(tiles)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Edges and looks of the sky mattes.")
    parser.add_argument("what", choices=("gain", "crowns", "sheet"))
    parser.add_argument("clips", nargs="*", type=Path, help="videos, for sheet")
    parser.add_argument("--images", type=Path, help="folder of pictures, for gain")
    parser.add_argument("--masks", type=Path, help="their soft mattes, equal names")
    parser.add_argument("--only", default="", metavar="PREFIX", help="pictures named so, for gain")
    parser.add_argument("--data", type=Path, help="folder with train/images, masks, for crowns")
    parser.add_argument("--matter", default=str(NETWORK_WEIGHTS), help="as preprocess.sky.evaluate")
    parser.add_argument("--out", type=Path, help="picture to write, for sheet")
    parser.add_argument("--json", type=Path)
    return parser.parse_intermixed_args()


def main() -> None:
    arguments = parse_arguments()
    cv2.setNumThreads(1)
    if arguments.what == "sheet":
        if not arguments.out or not arguments.clips:
            raise InputError("sheet needs --out FILE.png and at least one clip")
        matter = open_matter(arguments.matter, careful=True)
        write_rgb(arguments.out, np.vstack([clip_row(clip, matter) for clip in arguments.clips]))
        return
    weights = Path(arguments.matter)
    if arguments.what == "crowns":
        if not arguments.data:
            raise InputError("crowns needs --data DIR")
        result = measure_crowns(arguments.data, weights)
    elif not arguments.images or not arguments.masks:
        raise InputError("gain needs --images DIR and --masks DIR")
    else:
        result = measure_gain(arguments.images, arguments.masks, weights, arguments.only)
    for way, row in result.items():
        print(f"{way:26}" + "".join(f"{name:>18} {value:.4f}" for name, value in row.items()))
    if arguments.json:
        write_bytes(arguments.json, (json.dumps(result, indent=2) + "\n").encode())


if __name__ == "__main__":
    run_script(main)
