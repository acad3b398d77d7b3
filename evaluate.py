"""Measure a run and the fast path under the same edit: report.json, pictures, a side-by-side video.

What every key of report.json means stands in docs/REPORT.md.
"""

from __future__ import annotations

import argparse
import datetime
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from atlas.clip import FRAME_SUFFIXES, Clip
from atlas.command_line import CommandParser
from atlas.errors import InputError, run_script
from atlas.mapping import LayerMapping
from atlas.progress import progress

if TYPE_CHECKING:
    from atlas.evaluation import Measurement
    from atlas.full_report import FullReport
    from atlas.run import Run
    from atlas.survey import Contender, Survey
    from edits.shared import PlacedEdit

log = logging.getLogger(__name__)

EXAMPLES = """\
examples:
  python evaluate.py runs/pan --sky sunset.jpg --out build/report
  python evaluate.py runs/swan --layer foreground=paint.png --out build/report
  python evaluate.py runs/swan --no-fast --frames 20 --out build/quick
  python evaluate.py results/swan_B --data data/swan --full --out build/swan_B
"""
SKY_LAYER = "sky"
SHEET_FRAMES = 5
SKIES = Path(__file__).resolve().parent / "edits" / "skies"


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = CommandParser(prog="python evaluate.py", description=__doc__ or "", epilog=EXAMPLES)
    parser.add_argument(
        "run",
        type=Path,
        help="run folder made by train.py, runs/NAME, or a results folder of the original "
        "layered-neural-atlases program",
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder for the report (default: RUN/report)"
    )
    edit = parser.add_mutually_exclusive_group()
    edit.add_argument(
        "--sky",
        metavar="PICTURE_OR_VIDEO",
        help="sky that both paths put in (default: a bundled one; without a sky layer, coloured "
        "squares painted on the top layer)",
    )
    edit.add_argument(
        "--layer", metavar="NAME=RGBA.png", help="instead: a picture painted into a layer's atlas"
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--no-fast", action="store_true", help="measure the atlas path alone")
    which.add_argument("--fast-only", action="store_true", help="measure the fast path alone")
    parser.add_argument("--frames", type=int, metavar="N", help="measure the first N frames only")
    parser.add_argument(
        "--full",
        action="store_true",
        help="also write, into DIR/full, all that the original program's evaluation writes: "
        "atlases, and videos of every layer, matte, uv, checkerboard, residual, flow and losses",
    )
    parser.add_argument(
        "--clip",
        "--data",
        type=Path,
        metavar="DIR",
        help="the clip folder, where it has moved since the fit; for a "
        "model of the original program, the folder of its frames",
    )
    parser.add_argument(
        "--truth", type=Path, metavar="DIR", help="exact maps of a synthetic clip, if not its own"
    )
    options = parser.parse_args(arguments)
    if options.frames is not None and options.frames < 1:
        raise InputError(f"--frames is {options.frames}, wanted at least 1")
    check_files(options)
    return options


def check_files(options: argparse.Namespace) -> None:
    """Refuse an edit or a truth that is not there before the minutes that the survey takes."""
    if options.sky is not None and not Path(options.sky).exists():
        raise InputError(f"--sky {options.sky}: not found; wanted a picture or a video")
    if options.truth is not None and not options.truth.is_dir():
        raise InputError(f"--truth {options.truth}: not found; wanted a folder of baked maps")
    if options.layer is None:
        return
    name, _, path = options.layer.partition("=")
    if not name or not path:
        raise InputError(f"--layer is {options.layer!r}, wanted NAME=RGBA.png")
    if not Path(path).is_file():
        raise InputError(f"--layer {name}: {path} not found; wanted a picture")


def main(arguments: list[str] | None = None) -> None:
    options = parse_arguments(arguments)
    from atlas.evaluation import Measurement, Scores
    from atlas.report import staged, write_report
    from atlas.survey import survey
    from atlas.truth import open_truth

    start_s = time.monotonic()
    run = open_measured(options)
    clip = open_clip(run, options.clip)
    count = min(options.frames or clip.frame_count, clip.frame_count)
    out = options.out or options.run / "report"
    with staged(out) as folder:
        contenders = make_contenders(run, clip, count, options)
        truth = open_truth(clip, options.truth)
        steps = progress(range(count), count, "matching canvases")
        known = survey(clip, contenders, truth, count, steps)
        edit, about_edit = make_edit(options, clip, contenders[0], known)
        measurement = Measurement(clip, contenders, known, truth, edit)
        with full_report(options, run, measurement, count, folder) as full:
            pictures = measure(measurement, count, folder, full)
        report = describe(run, clip, count) | {"edit": about_edit}
        for name in ("atlas", "fast"):
            report[name] = measurement.scores.get(name, Scores()).as_json()
        report["fast"]["kind"] = fast_kind(clip) if "fast" in measurement.scores else None
        report |= costs(run, clip, measurement, time.monotonic() - start_s)
        write_report(folder, report, pictures)
    print_summary(report, out)


def open_measured(options: argparse.Namespace) -> Run:
    """The run, or a model folder of the original layered-neural-atlases program as one."""
    from thirdparty.lna import is_lna_model, read_lna_model

    if is_lna_model(options.run):
        from atlas.lna_import import open_lna_model

        return open_lna_model(read_lna_model(options.run), options.clip)
    from atlas.run import open_run

    return open_run(options.run)


def open_clip(run: Run, moved_to: Path | None) -> Clip:
    """The clip that the run was fitted to, refused when it is another one."""
    from atlas.lna_import import ImportedRun
    from atlas.run import clip_hash

    if isinstance(run, ImportedRun):
        return run.clip()
    folder = moved_to or run.clip_folder
    if not folder.is_dir():
        raise InputError(
            f"{run.folder}: its clip folder {folder} is not there; give its place with --clip DIR"
        )
    clip = Clip(folder)
    if clip.frame_count != run.mapping.frame_count:
        raise InputError(
            f"{folder}: has {clip.frame_count} frames, the run was fitted to "
            f"{run.mapping.frame_count}; train again"
        )
    if clip_hash(clip) != run.info.clip_sha256:
        log.warning("%s has changed since %s was fitted to it", folder, run.folder)
    return clip


def make_contenders(
    run: Run, clip: Clip, count: int, options: argparse.Namespace
) -> list[Contender]:
    """The paths to measure; the first one is the reference that the edit is placed on."""
    from atlas.splat import SplatOptions, splat
    from atlas.survey import Contender, FirstFrames

    contenders = []
    if not options.fast_only:
        mapping = FirstFrames(run.mapping, count)
        contenders.append(Contender("atlas", mapping, run.textures, run.shading))
    if not options.no_fast:
        fast = fast_mapping(run, clip)
        if fast is None:
            message = f"{run.folder}: the clip has no sky and the run keeps no base motion"
            if options.fast_only:
                raise InputError(f"{message}: there is no fast path")
            log.warning("%s: the fast path is left out", message)
        else:
            fast = FirstFrames(fast, count)
            total = count * (SplatOptions().sharpen_steps + 1)
            with progress(None, total, "fast path: textures") as bar:

                def frames(t: int) -> np.ndarray:
                    bar.advance()
                    return clip.frame(t)

                textures = splat(fast, frames)
            contenders.append(Contender("fast", fast, textures, knows_past=False))
    return contenders


def fast_kind(clip: Clip) -> str:
    """What the fast path is for this clip."""
    return "sky matte and camera track" if SKY_LAYER in clip.layer_names else "base motion"


def fast_mapping(run: Run, clip: Clip) -> LayerMapping | None:
    """What needs no fit: matte and camera track under a sky, else the run's base homographies."""
    if SKY_LAYER not in clip.layer_names:
        return run.base
    from preprocess.fastpath import FastPathMapping, FastPathOptions

    options = FastPathOptions(keep_all_mattes=True)  # the clip is gone over several times
    return FastPathMapping(clip.size, options, frame_count=clip.frame_count)


def make_edit(
    options: argparse.Namespace, clip: Clip, reference: Contender, known: Survey
) -> tuple[PlacedEdit, dict[str, str | None]]:
    """The edit that every path gets, placed on the reference's canvas, and what to call it."""
    from edits.recipe import LayerPaint, SkyEdit
    from edits.shared import place_edit

    names = [layer.name for layer in reference.mapping.layers]
    times_s = clip.info.frame_times_s
    reference.mapping.observe(0, clip.frame(0))
    first = reference.mapping.frame(0, clip.size)
    if options.layer is not None:
        name, _, path = options.layer.partition("=")
        placed = place_edit(LayerPaint(layer=name, path=path), reference, first, times_s)
        return placed, {"kind": "paint", "layer": name, "source": path}
    sky = options.sky
    if sky is None and SKY_LAYER in names:
        bundled = sorted(p for p in SKIES.iterdir() if p.suffix in FRAME_SUFFIXES)
        sky = str(bundled[0]) if bundled else None
    if sky is not None:
        placed = place_edit(SkyEdit(source=sky), reference, first, times_s)
        return placed, {"kind": "sky", "layer": SKY_LAYER, "source": sky}
    return place_squares(reference, clip, known)


def place_squares(
    reference: Contender, clip: Clip, known: Survey
) -> tuple[PlacedEdit, dict[str, str | None]]:
    """Coloured squares on the sky, or on the top layer of a clip without one."""
    from atlas.metrics import CHECKERBOARD_BLUR_PX, CHECKERBOARD_SQUARES
    from edits.shared import CheckerPaint, PlacedEdit

    names = [layer.name for layer in reference.mapping.layers]
    layer = SKY_LAYER if SKY_LAYER in names else names[0]
    scale = known.texels_per_px[reference.name].get(layer, 1.0)
    scale = scale if scale > 0 else 1.0  # never seen: any size will do
    square = scale * clip.size.width / CHECKERBOARD_SQUARES
    paint = CheckerPaint(square, min(scale * CHECKERBOARD_BLUR_PX, square))
    placed = PlacedEdit(layer, paint, clip.info.frame_times_s)
    return placed, {"kind": "squares", "layer": layer, "source": None}


@contextmanager
def full_report(
    options: argparse.Namespace, run: Run, measurement: Measurement, count: int, folder: Path
) -> Iterator[FullReport | None]:
    """What --full asks for, or None without it."""
    if not options.full:
        yield None
        return
    from atlas.full_report import FullReport
    from atlas.lna_mapping import LnaMapping
    from atlas.report import FULL

    fitted = run.mapping if isinstance(run.mapping, LnaMapping) and not options.fast_only else None
    networks = None if fitted is None else fitted.reconstruct
    with FullReport(measurement, folder / FULL, count, networks) as full:
        yield full


def measure(
    measurement: Measurement, count: int, folder: Path, full: FullReport | None = None
) -> dict[str, np.ndarray]:
    """Score every frame and write the side-by-side video; returns the sheets."""
    from atlas.gauge import spread
    from atlas.report import Gallery, SideBySide

    gallery = Gallery(measurement)
    shown = set(spread(count, SHEET_FRAMES))
    video = SideBySide(measurement, folder / "side_by_side.mp4", count)
    with video.writer, progress(None, count, "measuring") as bar:
        for t in range(count):
            rgb, views = measurement.step(t)
            video.write(rgb, views)
            if full is not None:
                full.add(t, rgb, views)
            if t in shown:
                gallery.add(t, rgb, views)
            psnr = next(iter(measurement.scores.values())).psnr_db.value
            bar.advance(note="" if psnr is None else f"{psnr:.2f} dB")
    return gallery.pictures()


def describe(run: Run, clip: Clip, count: int) -> dict[str, Any]:
    """What was measured, on what, by which version."""
    from atlas.report import REPORT_VERSION
    from atlas.run import clip_hash, current_commit, machine_name

    return {
        "version": REPORT_VERSION,
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "commit": current_commit(),
        "machine": machine_name(),
        "clip": {
            "name": clip.name,
            "folder": str(clip.folder.resolve()),
            "sha256": clip_hash(clip),
            "frame_count": clip.frame_count,
            "frames_measured": count,
            "width": clip.size.width,
            "height": clip.size.height,
            "fps": clip.info.fps,
        },
        "run": {
            "folder": str(run.folder),
            "kind": run.info.kind,
            "seed": run.info.seed,
            "commit": run.info.commit,
            "complete": run.info.complete,
            "layers": [layer.name for layer in run.mapping.layers],
        },
    }


def costs(run: Run, clip: Clip, measurement: Measurement, evaluate_s: float) -> dict[str, Any]:
    """Times and memory, null where nobody measured them."""
    from atlas.run import peak_memory_mb

    scores = measurement.scores
    edit_s = {name: round(s.edit_seconds, 3) for name, s in scores.items()}
    memory = {"train": run.info.peak_memory_mb, "evaluate": peak_memory_mb()}
    known = [value for value in memory.values() if value is not None]
    return {
        "seconds": {
            "preprocess": _total(clip.info.seconds, ("total",)),
            "train": _total(run.info.seconds, ("total", "train", "fit")),
            "edit": edit_s.get("atlas"),
            "edit_fast": edit_s.get("fast"),
            "evaluate": round(evaluate_s, 3),
        },
        "train_seconds_by_stage": {n: v for n, v in run.info.seconds.items() if n != "train"},
        "peak_memory_mb": max(known) if known else None,
        "peak_memory_by_stage_mb": memory,
    }


def _total(seconds: dict[str, float], wholes: Sequence[str]) -> float | None:
    """The first of `wholes` that was recorded, else the sum of the parts; None without any."""
    for name in wholes:
        if name in seconds:
            return round(seconds[name], 3)
    return round(sum(seconds.values()), 3) if seconds else None


def print_summary(report: dict[str, Any], out: Path) -> None:
    from atlas.report import TITLES

    for name in ("atlas", "fast"):
        scores = report[name]
        if scores["psnr_db"] is None:
            continue
        warp = "-" if scores["warp_error"] is None else f"{scores['warp_error']:.4f}"
        edit = "" if scores["edit_psnr_db"] is None else f", edit {scores['edit_psnr_db']:.2f} dB"
        print(f"{TITLES[name]}: {scores['psnr_db']:.2f} dB, warping error {warp}{edit}")
    print(f"{out / 'report.json'}, {out / 'report.html'}")


if __name__ == "__main__":
    run_script(main)
