"""Paint the bundled skies. They are flat sRGB pictures, the horizon near the bottom edge.

python -m edits.skies.make_skies                                  all, into edits/skies/*.jpg
python -m edits.skies.make_skies --sky sunset --out build/sky.png [--size 2048x1024]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from atlas.clip import write_bytes, write_rgb
from atlas.errors import InputError, run_script
from edits.skies.clouds import CloudLook, View, paint_clouds, streaks, sun_glow
from edits.skies.noise import gradient, mix, sample_tile, smoothstep, spectral_noise

HORIZON = 0.93
"""Row of the horizon, as a share of the height; below it the haze goes on."""


def view_of(height: int, width: int) -> View:
    """A view 84 degrees wide, level, with the horizon at `HORIZON`."""
    return View((height, width), 0.56 * width, HORIZON * height, (width - 1) / 2)


def elevation(view: View) -> np.ndarray:
    """(H, W) float32: 0 at the horizon and below, 1 at 45 degrees up."""
    return np.clip(np.degrees(np.arcsin(np.clip(view.directions()[1], 0, 1))) / 45, 0, 1.2)


def add_light(rgb: np.ndarray, colour: tuple[int, int, int], amount: np.ndarray) -> np.ndarray:
    """Screen `colour` over a picture: light adds, white stays white."""
    return 1 - (1 - rgb) * (1 - amount[..., None] * np.array(colour, np.float32) / 255)


def sunset(view: View, rng: np.random.Generator) -> np.ndarray:
    sun = view.towards(0.64, 3.5)
    sky = gradient(
        [
            (0, (255, 188, 110)),
            (0.08, (250, 146, 92)),
            (0.22, (220, 110, 112)),
            (0.48, (126, 88, 138)),
            (0.8, (66, 70, 128)),
            (1.2, (34, 44, 98)),
        ],
        elevation(view),
    )
    sky = add_light(sky, (255, 170, 80), 0.85 * sun_glow(view, sun, 9))
    sky = add_light(sky, (255, 236, 190), sun_glow(view, sun, 1.6))
    high = streaks(view, rng, cover=-0.05)
    sky = mix(sky, np.array([1.0, 0.56, 0.46], np.float32), 0.75 * high)
    look = CloudLook(
        cover=-0.4, thickness=0.42, extent=8, shade=15, slices=40,
        lit=(255, 176, 112), shadow=(92, 62, 106), base=(182, 84, 98),
        rim=1.2, haze=(250, 158, 112), haze_length=15,
    )  # fmt: skip
    return paint_clouds(sky, view, sun, look, rng)


def dawn(view: View, rng: np.random.Generator) -> np.ndarray:
    sun = view.towards(0.28, 1.0)
    sky = gradient(
        [
            (0, (255, 214, 170)),
            (0.12, (252, 190, 172)),
            (0.32, (214, 172, 196)),
            (0.6, (148, 158, 206)),
            (1.2, (88, 118, 184)),
        ],
        elevation(view),
    )
    sky = add_light(sky, (255, 200, 130), 0.7 * sun_glow(view, sun, 12))
    high = streaks(view, rng, cover=0.08)
    sky = mix(sky, np.array([1.0, 0.8, 0.78], np.float32), 0.7 * high)
    look = CloudLook(
        cover=-0.8, thickness=0.25, extent=7, rough=0.6, shade=14, slices=36,
        lit=(255, 206, 186), shadow=(158, 140, 180), base=(232, 168, 168),
        rim=0.9, haze=(252, 206, 178), haze_length=13,
    )  # fmt: skip
    return paint_clouds(sky, view, sun, look, rng)


def clear(view: View, rng: np.random.Generator) -> np.ndarray:
    sun = view.towards(0.2, 38)
    sky = gradient(
        [
            (0, (208, 226, 238)),
            (0.14, (172, 206, 236)),
            (0.45, (104, 162, 222)),
            (1.2, (38, 98, 184)),
        ],
        elevation(view),
    )
    sky = add_light(sky, (255, 250, 235), 0.5 * sun_glow(view, sun, 14))
    sky = mix(sky, np.ones(3, np.float32), 0.35 * streaks(view, rng, cover=-0.12))
    look = CloudLook(
        cover=-1.0, thickness=0.46, extent=7.5, rough=0.55, shade=16, opacity=18, slices=40,
        lit=(255, 253, 248), shadow=(142, 160, 194), base=(150, 168, 198),
        rim=0.25, haze=(206, 222, 236), haze_length=14,
    )  # fmt: skip
    return paint_clouds(sky, view, sun, look, rng)


def overcast(view: View, rng: np.random.Generator) -> np.ndarray:
    sun = view.towards(0.5, 50)
    sky = gradient(
        [(0, (214, 220, 224)), (0.3, (198, 206, 214)), (1.2, (168, 178, 190))], elevation(view)
    )
    look = CloudLook(
        cover=0.75, thickness=0.3, extent=6, rough=0.6, sharp=0.9, opacity=10, shade=14, slices=36,
        lit=(226, 230, 234), shadow=(122, 132, 146), base=(146, 154, 166),
        rim=0.0, haze=(214, 220, 225), haze_length=10,
    )  # fmt: skip
    return paint_clouds(sky, view, sun, look, rng)


def storm(view: View, rng: np.random.Generator) -> np.ndarray:
    sun = view.towards(0.3, 9)
    sky = gradient(
        [
            (0, (170, 160, 148)),
            (0.035, (146, 146, 146)),
            (0.14, (104, 112, 128)),
            (1.2, (58, 66, 82)),
        ],
        elevation(view),
    )
    sky = add_light(sky, (255, 214, 150), 0.6 * sun_glow(view, sun, 6))
    look = CloudLook(
        cover=0.45, thickness=0.7, extent=9, rough=0.6, sharp=1.2, opacity=9, shade=14,
        lit=(206, 200, 190), shadow=(38, 46, 62), base=(54, 63, 80),
        rim=0.7, haze=(140, 140, 142), haze_length=9, slices=48,
    )  # fmt: skip
    return paint_clouds(sky, view, sun, look, rng)


def galaxy(view: View, rng: np.random.Generator) -> np.ndarray:
    height, width = view.size
    rise = elevation(view)
    sky = gradient(
        [(0, (48, 62, 86)), (0.1, (30, 44, 74)), (0.35, (14, 22, 48)), (1.2, (6, 9, 26))], rise
    )
    y, x = np.mgrid[:height, :width].astype(np.float32) * (1024 / height)
    tile = [spectral_noise(1024, rng, slope=s, longest=0.4) for s in (1.7, 1.5, 1.3)]
    across = (x - 1130) * 0.62 - (700 - y) * 0.79 + 70 * sample_tile(tile[0], 0.5 * x, 0.5 * y)
    band = np.exp(-((across / 190) ** 2))
    core = np.exp(-((across / 80) ** 2)) * np.exp(-(((x - 800) / 700) ** 2))
    dust = smoothstep(
        0.1,
        1.5,
        sample_tile(tile[1], 0.8 * x, 0.8 * y) + 1.0 * np.exp(-(((across - 14) / 52) ** 2)),
    )
    cloud = band * (0.55 + 0.22 * sample_tile(tile[2], 1.3 * x, 1.3 * y)).clip(0, 1.4)
    light = (cloud * (1 - 0.78 * dust)).clip(0, 1)
    sky = add_light(sky, (120, 124, 176), 0.34 * np.exp(-((across / 260) ** 2)))
    sky = add_light(sky, (168, 172, 214), 0.6 * light)
    sky = add_light(sky, (255, 206, 170), 0.75 * core * (1 - 0.85 * dust) * light.clip(0, 1) ** 0.5)
    rose = smoothstep(0.9, 2.2, sample_tile(tile[0], 0.9 * x + 300, 0.9 * y)) * band
    sky = add_light(sky, (220, 90, 130), 0.3 * rose)
    seen = (0.35 + 0.65 * smoothstep(0.0, 0.25, rise)) * (0.3 + 0.7 * light)
    sky = sky + stars(view, rng, seen)
    return np.clip(sky, 0, 1)


def stars(view: View, rng: np.random.Generator, seen: np.ndarray) -> np.ndarray:
    """(H, W, 3) float32: stars, their brightness a power law; denser where `seen` is high."""
    height, width = view.size
    count = int(height * width / 60)
    x, y = rng.uniform(2, width - 3, count), rng.uniform(2, height - 3, count)
    keep = rng.uniform(size=count) < seen[y.astype(int), x.astype(int)]
    x, y = x[keep], y[keep]
    flux = 0.09 * rng.pareto(1.35, x.size) + 0.05
    flux = np.minimum(flux, 3.5)
    warm = rng.normal(0, 1, x.size)
    tint = np.stack([1 + 0.16 * warm, np.ones_like(warm), 1 - 0.18 * warm], -1).clip(0.6, 1.3)
    field = np.zeros((height, width, 3), np.float32)
    x0, y0 = np.floor(x).astype(int), np.floor(y).astype(int)
    fx, fy = x - x0, y - y0
    for dx, dy, weight in (
        (0, 0, (1 - fx) * (1 - fy)), (1, 0, fx * (1 - fy)), (0, 1, (1 - fx) * fy), (1, 1, fx * fy),
    ):  # fmt: skip
        np.add.at(field, (y0 + dy, x0 + dx), (flux * weight)[:, None] * tint)
    spot = cv2.GaussianBlur(field, (0, 0), 0.75 * height / 1024) * 3.2
    halo = cv2.GaussianBlur(np.maximum(field - 1.2, 0), (0, 0), 5 * height / 1024) * 12
    return (spot + halo) * (0.25 + 0.75 * smoothstep(-0.02, 0.2, elevation(view)))[..., None]


SKIES: dict[str, tuple[Callable[[View, np.random.Generator], np.ndarray], int]] = {
    "clear": (clear, 11),
    "dawn": (dawn, 12),
    "galaxy": (galaxy, 13),
    "overcast": (overcast, 14),
    "storm": (storm, 15),
    "sunset": (sunset, 16),
}
"""Painter and seed of each bundled sky."""


def paint(name: str, height: int, width: int) -> np.ndarray:
    """(height, width, 3) uint8 sRGB of the bundled sky called `name`."""
    if name not in SKIES:
        raise InputError(f"there is no bundled sky {name!r}; wanted one of {', '.join(SKIES)}")
    painter, seed = SKIES[name]
    rng = np.random.default_rng(seed)
    rgb = painter(view_of(height, width), rng)
    dither = rng.uniform(-0.5, 0.5, (height, width, 1))  # keeps smooth gradients free of bands
    return np.rint((rgb * 255 + dither).clip(0, 255)).astype(np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--sky", help=f"only this one, of: {', '.join(SKIES)}")
    parser.add_argument(
        "--out", type=Path, help="file for --sky, else folder (default: edits/skies)"
    )
    parser.add_argument(
        "--size", default="2048x1024", help="WIDTHxHEIGHT, pixels (default 2048x1024)"
    )
    args = parser.parse_args()
    try:
        width, height = (int(n) for n in args.size.lower().split("x"))
    except ValueError as err:
        raise InputError(f"--size: found {args.size!r}, wanted WIDTHxHEIGHT, as 2048x1024") from err
    if args.sky:
        path = args.out or Path(f"{args.sky}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_rgb(path, paint(args.sky, height, width))
        print(path)
        return
    folder = args.out or Path(__file__).parent
    folder.mkdir(parents=True, exist_ok=True)
    for name in SKIES:
        bgr = cv2.cvtColor(paint(name, height, width), cv2.COLOR_RGB2BGR)
        data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
        write_bytes(folder / f"{name}.jpg", data)
        print(folder / f"{name}.jpg", f"{len(data) / 1000:.0f} kB")


if __name__ == "__main__":
    run_script(main)
