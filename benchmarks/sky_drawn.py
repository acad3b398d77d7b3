"""Sky mattes under skies and before land that few photographs of the data show.

    python -m benchmarks.sky_drawn --data sky_segmentation [--matters FILE ...] [--json FILE]

The held-out tenth of the training pictures with soft mattes (see `preprocess.sky.data.hold_out`)
lends its ground; skies, mountains, groves and plain things are drawn by the code that draws them
for training, with seeds of their own. So this tells what was learnt of what is drawn, and where
one matte beats another; how far it carries to photographs, only photographs tell. The demo clip of
`tests.synthetic` is drawn by other code and is in no training.

Mean IoU by case; for cases without sky the share of pixels taken for sky.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np

from atlas.clip import write_bytes, write_rgb
from atlas.coords import Size
from atlas.errors import InputError, run_script
from atlas.mapping import visible_shares
from preprocess.sky import landscape
from preprocess.sky.augment import AugmentConfig, Augmenter, Sample
from preprocess.sky.choose import open_matter
from preprocess.sky.data import SOFT_DOMAINS, Pair, hold_out, read_pairs, to_bytes
from preprocess.sky.evaluate import alone, score_picture
from preprocess.sky.indoors import room, surface
from preprocess.sky.matte import NETWORK_WEIGHTS
from preprocess.sky.procedural import DAY_KINDS, SKY_KINDS, sky_picture
from preprocess.sky.scenery import Layer, laid_over, sparse_crowns
from tests.demo_scene import demo_scene

FRAME = Size(288, 512)
"""Of pictures that are drawn whole."""
DEMO, DEMO_FRAMES = Size(480, 854), 72
DARK_KINDS = ("sunset", "dusk", "night", "city_glow")
PLAIN_SKIES = {"textureless blue": (0.42, 0.62, 0.9), "textureless grey": (0.75, 0.76, 0.77)}
_PORTRAIT = 1 / 3
_LEAST_ROWS = 100
_LITTLE = 0.02
"""Share of a picture that counts as little sky."""

Picture = tuple[np.ndarray, np.ndarray]
"""rgb (H, W, 3) uint8 and matte (H, W) float32."""


def held_out_pictures(root: Path) -> list[Pair]:
    """Held-out training pictures with soft mattes, at their own size."""
    pairs = [
        Pair(name, rgb, to_bytes(matte), np.full(matte.shape, 255, np.uint8))
        for name, rgb, matte in read_pairs(root / "train" / "images", root / "train" / "masks")
        if name.split("_")[0] in SOFT_DOMAINS
    ]
    return hold_out(pairs)[1]


def cases(
    held: list[Pair], seeds: int, *, demo: bool = True
) -> Iterator[tuple[str, list[Picture]]]:
    """Name and pictures of each case."""
    both = [pair for pair in held if 0.1 < pair.alpha.mean() / 255 < 0.95]
    if not both:
        raise InputError("--data: no held-out picture with both sky and ground")
    rngs = [np.random.default_rng([seed, 7]) for seed in range(seeds)]

    def swapped(kind: str, change: Callable[[Augmenter, Sample], None] | None = None) -> list:
        return [_with_sky(pair, rng, kind, change) for rng in rngs for pair in both]

    yield "fog", swapped("haze", lambda augmenter, sample: augmenter.add_fog(sample))
    for name, colour in PLAIN_SKIES.items():
        yield name, [with_colour(pair, colour) for pair in both]
    for kind in SKY_KINDS:
        yield kind, swapped(kind)
    yield "portrait", [_portrait(pair) for pair in both]
    yield "little sky", [crop for crop in map(_little_sky, both) if crop is not None]
    yield "mountains behind", [_mountains(pair, rng) for rng in rngs for pair in both]
    for name, draw in DRAWN.items():
        pictures = [draw(np.random.default_rng([seed, 8])) for seed in range(6 * seeds)]
        yield name, [_finished(picture) for picture in pictures]
    ground = [crop for crop in map(_ground_only, held) if crop is not None]
    if demo:
        yield "demo clip", demo_frames()
    yield "no sky", [_finished(Layer(rgb, np.zeros(rgb.shape[:2]))) for rgb in ground]
    yield "no sky, plain things", [_plain(rgb, rng) for rng in rngs for rgb in ground]
    for name, draw in BARE.items():
        pictures = [draw(np.random.default_rng([seed, 9]), FRAME) for seed in range(12 * seeds)]
        yield name, [_finished(Layer(rgb, np.zeros(rgb.shape[:2]))) for rgb in pictures]


def demo_frames() -> list[Picture]:
    """Four frames of the demo clip and what is seen of its sky."""
    scene = demo_scene(DEMO, DEMO_FRAMES)
    mapping = scene.mapping()
    times = np.linspace(0, DEMO_FRAMES - 1, 4).astype(int)
    shares = [visible_shares(mapping.frame(int(t)).alpha)[-1] for t in times]
    return [
        (scene.frames(int(t)), share.astype(np.float32))
        for t, share in zip(times, shares, strict=True)
    ]


def _finished(picture: Layer) -> Picture:
    """A drawn picture, its matte in `coverage`, with a little noise as of a camera."""
    rng = np.random.default_rng(0)
    noisy = picture.rgb + rng.normal(0, 0.008, picture.rgb.shape).astype(np.float32)
    return to_bytes(noisy.astype(np.float32)), picture.coverage.astype(np.float32)


def _sample(pair: Pair) -> Sample:
    rgb, alpha, weight = (
        values.astype(np.float32) / 255 for values in (pair.rgb, pair.alpha, pair.weight)
    )
    return Sample(rgb, alpha, weight)


def _with_sky(
    pair: Pair,
    rng: np.random.Generator,
    kind: str,
    change: Callable[[Augmenter, Sample], None] | None,
) -> Picture:
    config = AugmentConfig(silhouette=0.5 if kind in DARK_KINDS else 0.0)
    augmenter, sample = Augmenter([pair], [], rng, config), _sample(pair)
    augmenter.put_sky(sample, sky_picture(rng, Size(*pair.alpha.shape), kind))
    if change is not None:
        change(augmenter, sample)
    return to_bytes(sample.rgb), sample.alpha


def with_colour(pair: Pair, colour: tuple[float, float, float]) -> Picture:
    """The picture with a sky of one colour, RGB in [0, 1], put in."""
    sample = _sample(pair)
    sky = Layer(np.broadcast_to(np.array(colour, np.float32), sample.rgb.shape), sample.alpha)
    return to_bytes(laid_over(sample.rgb, sky)), sample.alpha


def _portrait(pair: Pair) -> Picture:
    width = pair.alpha.shape[1]
    left, right = round(width * _PORTRAIT), round(width * 2 * _PORTRAIT)
    part = slice(left, right)
    return np.ascontiguousarray(pair.rgb[:, part]), pair.alpha[:, part] / np.float32(255)


def _little_sky(pair: Pair) -> Picture | None:
    """The lower part of a picture that holds `_LITTLE` of sky; None where that is little."""
    sky = pair.alpha.mean(axis=1)[::-1].cumsum()[::-1] / 255
    rows = pair.alpha.shape[0]
    share = sky / np.arange(rows, 0, -1)
    top = int(np.argmin(np.abs(share - _LITTLE)))
    if rows - top < _LEAST_ROWS:
        return None
    return np.ascontiguousarray(pair.rgb[top:]), pair.alpha[top:] / np.float32(255)


def _mountains(pair: Pair, rng: np.random.Generator) -> Picture:
    sample = _sample(pair)
    augmenter = Augmenter([pair], [], rng, AugmentConfig(silhouette=0.0))
    sky = sky_picture(rng, Size(*pair.alpha.shape), str(rng.choice(DAY_KINDS)))
    augmenter.put_sky(sample, sky)
    augmenter.lay_behind(sample, landscape.ridges(rng, Size(*pair.alpha.shape), sky), sky)
    return to_bytes(sample.rgb), sample.alpha


def _before(sky: np.ndarray, *layers: Layer) -> Layer:
    """The layers over a sky, near ones last; what is left of the sky as coverage."""
    matte = np.ones(sky.shape[:2], np.float32)
    for layer in layers:
        sky = laid_over(sky, layer)
        matte = matte * (1 - layer.coverage)
    return Layer(np.clip(sky, 0, 1).astype(np.float32), matte)


def _drawn_sky(rng: np.random.Generator) -> Layer:
    kinds = [kind for kind in SKY_KINDS if kind != "night"]
    return _before(sky_picture(rng, FRAME, str(rng.choice(kinds))))


def _drawn_mountains(rng: np.random.Generator) -> Layer:
    sky = sky_picture(rng, FRAME, str(rng.choice(DAY_KINDS)))
    return _before(sky, landscape.ridges(rng, FRAME, sky))


def _drawn_dusk(rng: np.random.Generator) -> Layer:
    sky = sky_picture(rng, FRAME, "dusk")
    draw = landscape.town if rng.random() < 0.5 else landscape.shore
    return _before(sky, draw(rng, FRAME, sky))


def _drawn_grove(rng: np.random.Generator) -> Layer:
    sky = sky_picture(rng, FRAME, "white")
    bark = rng.uniform(0.05, 0.3) * np.ones((*sky.shape[:2], 3), np.float32)
    return _before(sky, Layer(bark, landscape.grove(rng, FRAME)))


def _drawn_crowns(rng: np.random.Generator) -> Layer:
    sky = sky_picture(rng, FRAME, "white")
    bark = rng.uniform(0.05, 0.3) * np.ones((*sky.shape[:2], 3), np.float32)
    return _before(sky, Layer(bark, sparse_crowns(rng, FRAME)), landscape.town(rng, FRAME, sky))


DRAWN: dict[str, Callable[[np.random.Generator], Layer]] = {
    "sky alone": _drawn_sky,
    "mountains in haze": _drawn_mountains,
    "dusk over town or sea": _drawn_dusk,
    "white behind a grove": _drawn_grove,
    "white behind sparse crowns": _drawn_crowns,
}
BARE: dict[str, Callable[[np.random.Generator, Size], np.ndarray]] = {
    "no sky, rooms": room,
    "no sky, plain surfaces": surface,
}


def _ground_only(pair: Pair) -> np.ndarray | None:
    """What lies below all sky, (H, W, 3) float32; None where that is little."""
    rows = np.flatnonzero((pair.alpha > 5).any(axis=1))
    top = int(rows[-1]) + 8 if rows.size else 0
    if pair.alpha.shape[0] - top < _LEAST_ROWS:
        return None
    return pair.rgb[top:].astype(np.float32) / 255


def _plain(rgb: np.ndarray, rng: np.random.Generator) -> Picture:
    layer = landscape.plain_things(rng, Size(*rgb.shape[:2]))
    return _finished(Layer(laid_over(rgb, layer), np.zeros(rgb.shape[:2])))


def score(matte_of: Callable[[np.ndarray], np.ndarray], pictures: list[Picture]) -> float:
    """Mean IoU of the pictures with sky; without any, the mean share taken for sky."""
    scores = [score_picture("drawn", matte_of(rgb), truth) for rgb, truth in pictures]
    ious = [s.iou for s in scores if s.iou is not None]
    shares = [s.false_sky for s in scores if s.false_sky is not None]
    return float(np.mean(ious or shares))


def main() -> None:
    parser = argparse.ArgumentParser(description="Sky mattes under drawn skies, before drawn land.")
    parser.add_argument("--data", type=Path, required=True, help="folder with train/images, masks")
    parser.add_argument(
        "--matters", nargs="*", default=["classical", str(NETWORK_WEIGHTS)], help="names or files"
    )
    parser.add_argument("--seeds", type=int, default=2, help="drawings of each kind (default 2)")
    parser.add_argument("--only", help="cases whose name holds this")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--pictures", type=Path, help="folder for a sheet of each case")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    ways = {}
    for name in arguments.matters:
        short = Path(name).stem
        if name == "classical":
            ways[short] = alone(open_matter(name))
            continue
        ways[f"{short}, careful"] = alone(open_matter(name, careful=True))
        ways[f"{short}, streaming"] = alone(open_matter(name))
    print(f"{'':26}{'pictures':>9}  " + "  ".join(ways))
    result = {}
    for case, pictures in cases(held_out_pictures(arguments.data), arguments.seeds):
        if arguments.only and arguments.only not in case:
            continue
        result[case] = {way: score(matte_of, pictures) for way, matte_of in ways.items()}
        cells = "  ".join(f"{value:>{len(way)}.4f}" for way, value in result[case].items())
        print(f"{case:26}{len(pictures):>9}  {cells}", flush=True)
        if arguments.pictures:
            _write_sheet(arguments.pictures / f"{case}.png", pictures, list(ways.values())[-1])
    if arguments.json:
        write_bytes(arguments.json, (json.dumps(result, indent=2) + "\n").encode())


def _write_sheet(
    path: Path, pictures: list[Picture], matte_of: Callable[[np.ndarray], np.ndarray]
) -> None:
    """Up to eight pictures, their mattes below, and what was found."""
    columns = []
    for rgb, truth in pictures[:8]:
        greys = [to_bytes(np.ascontiguousarray(m, np.float32)) for m in (truth, matte_of(rgb))]
        column = np.vstack([rgb, *(np.repeat(grey[..., None], 3, axis=2) for grey in greys)])
        columns.append(cv2.resize(column, (256, 3 * 160), interpolation=cv2.INTER_AREA))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_rgb(path, np.hstack(columns))


if __name__ == "__main__":
    run_script(main)
