"""Fits of scenes whose truth is known: uv error in frame pixels, edited video against the truth.

    python -m benchmarks.synthetic --work build/bench --json benchmarks/results/synthetic.json

Frames and masks are the scene's own; flow is DIS, as for a real clip. Both paths are measured.
"""

from __future__ import annotations

import argparse
import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from atlas.clip import Clip, write_info, write_rgb
from atlas.coords import Size, pixel_grid
from atlas.metrics import checkerboard
from atlas.run import open_run
from atlas.sheets import to_bytes
from benchmarks.pipeline import command, keep, print_table, report_of
from preprocess.flow import make_flow
from tests.scene_presets import SceneOptions, make_scene
from tests.synthetic import Scene, write_clip

SCENES: dict[str, dict[str, Any]] = {
    "rigid pan": {"camera": "hand"},
    "pan out and back": {"camera": "pan_back"},
    "plain sky": {"camera": "hand", "sky": "plain"},
    "light change": {"camera": "hand", "light": 0.3},
    "twigs": {"camera": "hand", "twigs": True},
    "drifting clouds": {"camera": "hand", "drift_px": 0.4},
    "rigid object": {"camera": "hand", "object": "rigid"},
    "deforming object": {"camera": "hand", "object": "deforming"},
    "occluded object": {"camera": "hand", "object": "rigid", "occluder": True},
}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.synthetic",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--work", type=Path, default=Path("build/bench"), help="scratch folder")
    parser.add_argument("--scenes", nargs="*", default=list(SCENES), help="which (default: all)")
    parser.add_argument("--size", default="512x288", metavar="WxH")
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--sky", default="edits/skies/sunset.jpg", help="the edit's picture")
    parser.add_argument("--json", type=Path, help="keep the table here")
    return parser.parse_args()


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    width, height = map(int, options.size.split("x"))
    scene = make_scene(
        SceneOptions(
            size=Size(height, width), frame_count=options.frames, pan_deg=12, grain=1.0, seed=1,
            **SCENES[name],
        )
    )  # fmt: skip
    if "drift_px" in SCENES[name]:
        scene = _clouds_as_sky(scene)
    stem = name.replace(" ", "_")
    folder = options.work / "data" / stem
    for old in folder.parent.glob(f"{stem}*"):
        shutil.rmtree(old)
    # an object is a layer of its own, everything else that moves with the ground is one
    write_clip(scene, folder, merged="object" not in SCENES[name])
    shutil.rmtree(folder.with_name(f"{stem}_flow"))
    clip = Clip(folder)
    write_info(folder, clip.info)
    make_flow(clip, "dis")
    run = options.work / "runs" / stem
    run.parent.mkdir(parents=True, exist_ok=True)
    train_s = command("train.py", folder, "--out", run, "--overwrite")
    report = report_of(run, "--sky", options.sky)
    atlas, fast = report["atlas"], report["fast"]
    painted = None
    if "light" in SCENES[name]:  # a new sky brings its own light, a paint takes the layer's
        ground = report_of(run, "--no-fast", "--layer", f"foreground={_squares(run)}")
        painted = ground["atlas"]["edit_psnr_db"]

    def uv(path: dict[str, Any], layer: str) -> float | None:
        return ((path["uv_error_px"] or {}).get(layer) or {}).get("median")

    return {
        "scene": name,
        "sky_uv_px": uv(atlas, "sky"),
        "foreground_uv_px": uv(atlas, "foreground"),
        "object_uv_px": uv(atlas, "object"),
        "edit_db": atlas["edit_psnr_db"],
        "paint_on_ground_db": painted,
        "psnr_db": atlas["psnr_db"],
        "warp_error": atlas["warp_error"],
        "fast_sky_uv_px": uv(fast, "sky"),
        "fast_edit_db": fast["edit_psnr_db"],
        "fast_warp_error": fast["warp_error"],
        "train_s": round(train_s, 1),
    }


def _clouds_as_sky(scene: Scene) -> Scene:
    """The scene with its drifting clouds, opaque, for a sky.

    Half-transparent clouds before an even sky would be masked as something in front of the sky,
    and the sky itself would show nothing that tells how it moves.
    """
    *above, clouds, sky = scene.layers
    behind = sky.texture[..., :3].mean((0, 1))
    alpha = clouds.texture[..., 3:]
    rgb = clouds.texture[..., :3] * alpha + behind * (1 - alpha)
    texture = np.concatenate([rgb, np.ones_like(alpha)], -1).astype(np.float32)
    whole = dataclasses.replace(clouds, name="sky", texture=texture)
    return dataclasses.replace(scene, layers=(*above, whole))


def _squares(run: Path) -> Path:
    """A picture of coloured squares as large as the atlas of the run's foreground."""
    canvas = open_run(run).mapping.layers[0].canvas
    board = checkerboard(pixel_grid(canvas), 24.0, 2.0)[..., None]
    rgb = board * np.array([1.0, 0.72, 0.2]) + (1 - board) * np.array([0.1, 0.25, 0.55])
    path = run.with_name(f"{run.name}_squares.png")
    write_rgb(path, np.dstack([to_bytes(rgb), np.full(canvas.wh[::-1], 160, np.uint8)]))
    return path


def main() -> None:
    options = parse_arguments()
    rows = []
    for name in options.scenes:
        if name not in SCENES:
            raise SystemExit(f"--scenes {name!r}: wanted one of {', '.join(SCENES)}")
        rows.append(measure(name, options))
        print_table(rows[-1:])
    print()
    print_table(rows)
    keep(options.json, rows)


if __name__ == "__main__":
    main()
