"""Long shots: memory and time against length, and whether an edit carries from end to end.

    python -m benchmarks.long --frames 300 1000 --json benchmarks/results/long.json
    python -m benchmarks.long --camera around --frames 1000 --append --json ...
    python -m benchmarks.long --clip data/annarbor --frames 206 1000

Without a clip, exact truth is rendered: a pan held by hand, or a camera that looks about without an
aim; the uv error of sky and ground is taken in the
first and in the last tenth of the clip by the gauge of the first tenth alone, so that drift counts,
and so is an edited frame against the true edited one. A clip is run forth and back until it is as
long as wanted.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np

from atlas.clip import Clip, write_info
from atlas.coords import Size
from atlas.gauge import both_visible, fit_gauge, uv_error_px
from atlas.mapping import FrameMapping, LayerMapping
from atlas.metrics import checkerboard, local_jacobian, psnr_db
from atlas.run import open_run
from atlas.survey import FirstFrames
from atlas.truth import Truth, open_truth
from benchmarks.pipeline import command, keep, kept_rows, print_table
from tests.scene_presets import SceneOptions, make_scene
from tests.synthetic import write_clip

SQUARE_PX = 24.0
"""Side of the squares that are painted to see an edit carry."""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.long",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--work", type=Path, default=Path("build/bench"), help="scratch folder")
    parser.add_argument("--clip", type=Path, help="a clip folder instead of the scene")
    parser.add_argument("--frames", type=int, nargs="+", default=[300, 1000])
    parser.add_argument("--size", default="256x144", metavar="WxH", help="of the exact scene")
    parser.add_argument("--quality", default="standard")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="for train.py")
    parser.add_argument("--camera", default="pan", choices=("pan", "around"), help="of the scene")
    parser.add_argument("--json", type=Path, help="keep the table here")
    parser.add_argument("--append", action="store_true", help="to the rows that the file has")
    return parser.parse_args()


def render_exact(folder: Path, size: Size, count: int, camera: str) -> Path:
    """Ground and sky seen by hand, the camera at one speed whatever the length."""
    for old in folder.parent.glob(f"{folder.name}*"):
        shutil.rmtree(old)
    turn_deg = min(0.06 * count, 70.0) if camera == "pan" else 40.0
    kind = {"pan": "hand", "around": "around"}[camera]
    scene = make_scene(
        SceneOptions(size=size, frame_count=count, pan_deg=turn_deg, camera=kind, grain=1.0)
    )
    return write_clip(scene, folder, merged=True)


def repeat(source: Clip, folder: Path, count: int) -> Path:
    """A clip folder of hard links that shows the source forth and back for `count` frames."""
    for old in folder.parent.glob(f"{folder.name}*"):
        shutil.rmtree(old)
    turn = 2 * (source.frame_count - 1)
    order = [min(t % turn, turn - t % turn) for t in range(count)]
    masks = {layer.mask_dir for layer in source.info.layers if layer.mask_dir}
    flow_folder = folder.with_name(f"{folder.name}_flow")
    places = {source.folder: folder, source.sibling("flow"): flow_folder}
    root = source.folder.resolve().parent
    places |= {root / m: folder.with_name(f"{folder.name}_{m}") for m in masks}
    for path in places.values():
        path.mkdir(parents=True)
    for t, at in enumerate(order):
        name = source.frame_names[at]
        new = f"{t:05d}{Path(name).suffix}"
        os.link(source.folder / name, folder / new)
        for m in masks:
            mask = next((root / m).glob(f"{Path(name).stem}.*"))
            os.link(mask, places[root / m] / f"{t:05d}{mask.suffix}")
        for other in (t - 1, t + 1):
            if 0 <= other < count:
                flow = source.flow_path(at, order[other])
                os.link(flow, flow_folder / f"{new}_{other:05d}{Path(name).suffix}.npy")
    layers = [
        dataclasses.replace(x, mask_dir=f"{folder.name}_{x.mask_dir}") if x.mask_dir else x
        for x in source.info.layers
    ]
    info = dataclasses.replace(
        source.info,
        frame_count=count,
        frame_times_s=[t / source.info.fps for t in range(count)],
        layers=layers,
        shots=[[0, count]],
        source=None,
        truth=None,
    )
    write_info(folder, info)
    return folder


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Fit a clip and say what it took and what it is worth."""
    clip = Clip(folder)
    run = options.work / "runs" / folder.name
    run.parent.mkdir(parents=True, exist_ok=True)
    sets = [word for one in options.set for word in ("--set", one)]
    start_s, start_cpu_s = time.monotonic(), children_cpu_s()
    command("train.py", folder, "--out", run, "--overwrite", "--quality", options.quality, *sets)
    seconds, cpu_s = time.monotonic() - start_s, children_cpu_s() - start_cpu_s
    info = json.loads((run / "run.json").read_text(encoding="utf-8"))
    row: dict[str, Any] = {
        "clip": folder.name,
        "frames": clip.frame_count,
        "psnr_db": info["metrics"]["psnr_db"],
        "peak_memory_mb": info["peak_memory_mb"],
        "train_s": round(seconds, 1),
        "s_per_frame": round(seconds / clip.frame_count, 3),
        "cpu_s_per_frame": round(cpu_s / clip.frame_count, 3),
        "stages_s": info["seconds"],
    }
    truth = open_truth(clip, None)
    if truth is not None:
        row |= drift(clip, open_run(run).mapping, truth)
    return row


def children_cpu_s() -> float:
    """CPU seconds of the commands run so far."""
    times = os.times()
    return times.children_user + times.children_system


def drift(clip: Clip, mapping: LayerMapping, truth: Truth) -> dict[str, Any]:
    """uv error and edited frames in the first and last tenth, by the gauge of the first tenth."""
    row: dict[str, Any] = {}
    tenth = max(clip.frame_count // 10, 5)
    spans = {"first": range(tenth), "last": range(clip.frame_count - tenth, clip.frame_count)}
    for layer in ("sky", "foreground"):
        gauge = fit_gauge(FirstFrames(mapping, tenth), truth.mapping, layer, layer)
        if gauge is None:
            continue
        ours, theirs = mapping.layer_index(layer), truth.mapping.layer_index(layer)
        for name, frames in spans.items():
            errors, edits = [], []
            for t in frames[:: max(tenth // 12, 1)]:
                a, b = mapping.frame(t), truth.frame(t, clip.size)
                seen = both_visible(a, ours, b, theirs)
                if not seen.any():
                    continue
                jacobian = local_jacobian(b.uv[theirs])
                errors.append(uv_error_px(gauge, a.uv[ours], b.uv[theirs], jacobian)[seen])
                edits.append(_edit_db(clip.frame(t), (a, b), (ours, theirs), gauge))
            if errors:
                row[f"{layer}_{name}_uv_px"] = round(float(np.median(np.concatenate(errors))), 3)
                row[f"{layer}_{name}_edit_db"] = round(float(np.mean(edits)), 2)
    return row


def _edit_db(
    rgb: np.ndarray, found: tuple[FrameMapping, FrameMapping], layers: tuple[int, int], gauge: Any
) -> float:
    """A checkerboard painted in the true atlas, seen through the fit and through the truth."""
    frame = rgb.astype(np.float32) / 255
    pictures = []
    for mapping, layer, place in zip(found, layers, (gauge, lambda uv: uv), strict=True):
        board = checkerboard(place(mapping.uv[layer]), SQUARE_PX, 2.0)[..., None]
        share = 0.6 * mapping.visible()[layer][..., None]
        pictures.append(frame * (1 - share) + share * np.nan_to_num(board))
    return psnr_db(*(p.astype(np.float32).clip(0, 1) for p in pictures))


def main() -> None:
    options = parse_arguments()
    width, height = map(int, options.size.split("x"))
    rows = kept_rows(options.json) if options.append else []
    for count in options.frames:
        stem = f"{options.clip.name if options.clip else options.camera}_{count}"
        folder = options.work / "data" / stem
        folder.parent.mkdir(parents=True, exist_ok=True)
        if options.clip is None:
            render_exact(folder, Size(height, width), count, options.camera)
        else:
            repeat(Clip(options.clip), folder, count)
        row = measure(folder, options)
        rows = [old for old in rows if old["clip"] != row["clip"]] + [row]
        print_table([{k: v for k, v in row.items() if k != "stages_s"}])
        keep(options.json, rows)


if __name__ == "__main__":
    main()
