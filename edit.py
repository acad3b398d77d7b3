"""Edit a clip: put another sky in, paint on a layer's atlas, and render every frame.

examples:
  python edit.py runs/annarbor --sky sunset.jpg --out sunset.mp4
  python edit.py runs/swan --layer foreground=paint.png --layer background=bank.png --out swan.mp4
  python edit.py runs/swan recipe.yaml --side-by-side --out compare.mp4
  python edit.py holiday.mp4 --sky clouds.mp4 --out holiday_clouds.mp4     (no training: fast path)
  python edit.py runs/annarbor --fast --sky night.hdr --sky-pitch 20 --out night.mov --codec prores
  python edit.py results/swan --data data/swan --layer foreground=fg.png --compose lna --out edited
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from atlas.command_line import CommandParser
from atlas.errors import InputError, run_script

if TYPE_CHECKING:
    import numpy as np

    from atlas.mapping import LayerMapping
    from atlas.run import Run
    from atlas.video import VideoInfo, VideoWriter
    from edits.apply import RenderContext
    from edits.footage import Footage
    from edits.lna_compose import FrameEdit
    from edits.recipe import Recipe


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    about, examples = (__doc__ or "").split("\n\n", 1)
    parser = CommandParser(prog="python edit.py", description=about, epilog=examples)
    add = parser.add_argument
    add("input", metavar="RUN_OR_VIDEO", type=Path, help="run folder of train.py, clip folder, "
        "folder of frames, any video that ffmpeg reads, or a results folder of the original "
        "layered-neural-atlases program")  # fmt: skip
    add("recipe", metavar="RECIPE.yaml", type=Path, nargs="?", help="edits to make, as a file")
    add("--out", metavar="FILE", type=Path, required=True, help="result: .mp4 .mov .mkv .webm, or "
        "a name without a suffix for a folder of PNGs")  # fmt: skip
    what = parser.add_argument_group("what to change (after the recipe's edits, if both are given)")
    add = what.add_argument
    add("--sky", metavar="FILE", type=Path, help="picture, video or .hdr panorama as the new sky; "
        "a PNG with alpha and the atlas's aspect is painted on the sky atlas as it is")  # fmt: skip
    add("--layer", metavar="NAME=RGBA.png", action="append", default=[], help="paint a picture of "
        "the atlas's aspect on layer NAME's atlas; may be repeated")  # fmt: skip
    add("--blend", default="normal", help="blend mode of every --layer: normal, multiply, screen, "
        "overlay, 'soft light', add (default: normal)")  # fmt: skip
    add("--frame-edit", metavar="N=RGBA.png", help="carry paint on frame N (0 = the first), a "
        "picture of the fit's size, to all frames; needs --compose lna")  # fmt: skip
    add("--sky-scale", metavar="S", type=float, default=1.0, help="size of the sky relative to one "
        "that just covers (default: 1)")  # fmt: skip
    add("--sky-yaw", metavar="DEG", type=float, default=0.0, help="turn the view to the right")
    add("--sky-pitch", metavar="DEG", type=float, help="panoramas: tilt of the view upwards")
    add("--flip", action="store_true", help="mirror the sky")
    add("--keep-grain", metavar="SHARE", type=float, help="put back this share of the film grain "
        "of what was replaced, 0 to 1 (default: 0)")  # fmt: skip
    how = parser.add_argument_group("how")
    add = how.add_argument
    add("--fast", action="store_true", help="use the fast path (sky matte and camera track, no "
        "training) also for a run folder; a video always takes it")  # fmt: skip
    add("--source", metavar="FILE", type=Path, help="where the video that a run was made from lies "
        "now, if it has moved")  # fmt: skip
    add("--data", metavar="DIR", type=Path, help="models of the original layered-neural-atlases "
        "program: the folder of frames they were trained on")  # fmt: skip
    add("--compose", choices=("exact", "lna"), default="exact", help="exact: original pixels "
        "wherever nothing is painted, at the source's size; lna: what the original program "
        "writes, dark seams and the fit's size included (default: exact)")  # fmt: skip
    add("--side-by-side", action="store_true", help="original left, edit right")
    add("--codec", "--format", default="auto", help="auto, h264, h265, lossless, ffv1, prores, "
        "vp9, png (default: auto, by the suffix)")  # fmt: skip
    add("--crf", type=int, default=16, help="quality of h264, h265 and vp9; smaller is better and "
        "larger (default: 16)")  # fmt: skip
    add("--save-recipe", metavar="FILE.yaml", type=Path, help="also write the edit as a recipe")
    return parser.parse_args(arguments)


def read_edits(args: argparse.Namespace) -> Recipe:
    """The recipe file's edits, then --sky, then every --layer."""
    from edits.recipe import LayerPaint, Recipe, SkyEdit, read_recipe

    recipe = read_recipe(args.recipe) if args.recipe else Recipe()
    edits = list(recipe.edits)
    if args.sky:
        more = {} if args.sky_pitch is None else {"pitch_deg": args.sky_pitch}
        try:
            edits.append(
                SkyEdit(
                    source=str(args.sky),
                    scale=args.sky_scale,
                    yaw_deg=args.sky_yaw,
                    flip=args.flip,
                    **more,
                )
            )
        except InputError as err:
            raise InputError(f"--sky: {err}") from err
    elif args.sky_scale != 1 or args.sky_yaw != 0 or args.sky_pitch is not None or args.flip:
        raise InputError("--sky-scale, --sky-yaw, --sky-pitch and --flip need --sky FILE")
    for given in args.layer:
        name, separator, path = given.partition("=")
        if not (name and separator and path):
            raise InputError(f"--layer {given}: wanted NAME=RGBA.png")
        try:
            edits.append(LayerPaint(layer=name, path=path, blend=args.blend))
        except InputError as err:
            raise InputError(f"--blend: {err}") from err
    if not edits and not args.frame_edit:
        raise InputError(
            "nothing to change: give --sky FILE, --layer NAME=RGBA.png or a recipe (RECIPE.yaml)"
        )
    grain = recipe.keep_grain if args.keep_grain is None else args.keep_grain
    return Recipe(edits=tuple(edits), keep_grain=grain)


def read_frame_edit(args: argparse.Namespace) -> FrameEdit | None:
    """--frame-edit, and that the options of --compose fit together."""
    from edits.lna_compose import FrameEdit

    if args.compose == "lna" and args.fast:
        raise InputError("--compose lna needs a fitted model; leave out --fast")
    if args.compose == "lna" and args.save_recipe:
        raise InputError("--save-recipe: a recipe cannot hold --compose lna; leave one of them out")
    if args.frame_edit is None:
        return None
    if args.compose != "lna":
        raise InputError("--frame-edit needs --compose lna")
    number, separator, path = args.frame_edit.partition("=")
    if not (separator and path and number.isdecimal()):
        raise InputError(f"--frame-edit {args.frame_edit}: wanted N=RGBA.png, N the frame's number")
    if not Path(path).exists():
        raise InputError(f"{path}: not found; wanted a picture")
    return FrameEdit(int(number), Path(path))


def check_output(args: argparse.Namespace, recipe: Recipe, footage: Footage) -> None:
    """Refuse an output that is one of the inputs, or that cannot be written, before any work."""
    out = args.out.resolve()
    inputs = [args.input, footage.source.info.path, *recipe.files()]
    inputs += [args.recipe] if args.recipe else []
    inputs += [frame_edit.path] if (frame_edit := read_frame_edit(args)) else []
    for path in inputs:
        if Path(path).resolve() == out:
            raise InputError(f"{args.out}: is an input of this edit; name another file for --out")
    for written in filter(None, (args.out, args.save_recipe)):
        folder = next(p for p in written.resolve().parents if p.exists())
        if not folder.is_dir():
            raise InputError(f"{written}: {folder} is a file; wanted a folder")
        if not os.access(folder, os.W_OK):
            raise InputError(f"{written}: the folder {folder} is read-only; name another place")
    make_writer(args, footage.source.info)


@dataclass(frozen=True)
class Job:
    """What is edited, through which mapping."""

    footage: Footage
    mapping: LayerMapping
    context: RenderContext


def find_footage(args: argparse.Namespace) -> Footage:
    """The frames to edit, at the source's own resolution."""
    from atlas.clip import Clip
    from atlas.run import is_run, read_run_info
    from atlas.video import open_source
    from edits.footage import Footage, open_footage
    from thirdparty.lna import is_lna_model

    if is_lna_model(args.input) or args.data is not None:
        return find_model_footage(args)
    if is_run(args.input):
        return open_footage(Clip(read_run_info(args.input).clip_folder), args.source)
    if args.source is not None:
        raise InputError("--source is for run folders; give the video itself instead")
    if (args.input / "clip.json").is_file():
        return open_footage(Clip(args.input))
    if not args.input.exists():
        raise InputError(f"{args.input}: not found; wanted a run folder or a video")
    return Footage(open_source(args.input))


def find_model_footage(args: argparse.Namespace) -> Footage:
    """The frames that a model of the original program was trained on, or what they came from."""
    from atlas.clip import Clip, list_frames
    from atlas.lna_import import find_data
    from atlas.video import list_pictures, open_source
    from edits.footage import Footage, open_footage
    from thirdparty.lna import read_lna_model

    folder = find_data(read_lna_model(args.input), args.data)
    if (folder / "clip.json").is_file() and args.compose != "lna":
        return open_footage(Clip(folder), args.source)
    if args.source is not None:
        raise InputError("--source is for run folders and clip folders made by preprocess")
    if [path.name for path in list_pictures(folder)] != list_frames(folder):
        raise InputError(
            f"{folder}: the order of the frames is not clear; wanted names with equally many "
            "digits (00009.jpg, 00010.jpg), in jpg, png or webp alone"
        )
    return Footage(open_source(folder))


def open_job(args: argparse.Namespace, footage: Footage) -> Job:
    """The mapping to edit through: the run's atlas, or the fast path."""
    from atlas.run import is_run, open_run
    from edits.apply import RenderContext
    from thirdparty.lna import is_lna_model

    info = footage.source.info
    times = {"times_s": info.frame_times_s, "fps": float(info.fps)}
    model = is_lna_model(args.input)
    if (model or is_run(args.input)) and not args.fast:
        run = open_model(args) if model else open_run(args.input)
        context = RenderContext(
            textures=run.textures, shading=run.shading, first_frame=footage.first_frame, **times
        )
        return Job(footage, run.mapping, context)
    if args.compose == "lna":
        raise InputError(f"{args.input}: --compose lna needs a run or model folder, not a video")
    from preprocess.fastpath import FastPathMapping

    mapping = FastPathMapping(info.size, frame_count=info.frame_count)
    return Job(footage, mapping, RenderContext(**times))


def open_model(args: argparse.Namespace) -> Run:
    """A model of the original program, as a run."""
    from atlas.lna_import import open_lna_model
    from thirdparty.lna import read_lna_model

    model = read_lna_model(args.input)
    return open_lna_model(model, args.data, with_textures=args.compose != "lna")


def make_writer(args: argparse.Namespace, info: VideoInfo) -> VideoWriter:
    """The writer of --out; refuses a suffix or codec that it does not know."""
    from atlas.coords import Size
    from atlas.video import VideoWriter

    size = Size(info.size.height, info.size.width * (2 if args.side_by_side else 1))
    return VideoWriter.like(info, args.out, size=size, codec=args.codec, crf=args.crf)


def render_to_file(args: argparse.Namespace, job: Job, recipe: Recipe) -> int:
    """Render every frame into --out; the number of frames."""
    from atlas.progress import progress
    from edits.apply import render_pairs
    from edits.composite import side_by_side

    count = 0
    source, info = job.footage.source, job.footage.source.info
    if args.compose == "lna":
        frames, info = fitted_frames(job)
    else:
        frames = source.frames()
    with closing(_closable(frames)) as frames, make_writer(args, info) as writer:
        if args.compose == "lna":
            pairs = render_as_original(args, job, recipe, frames)
        else:
            pairs = render_pairs(job.mapping, frames, recipe, job.context)
        with progress(None, info.frame_count, "rendering") as bar:
            for before, after in pairs:
                writer.write(side_by_side(before, after) if args.side_by_side else after)
                bar.advance()
                count += 1
    return count


def fitted_frames(job: Job) -> tuple[Iterator[np.ndarray], VideoInfo]:
    """The frames that the mapping covers, and what a video of them at the fit's size holds."""
    info, first = job.footage.source.info, job.footage.first_frame
    count = min(job.mapping.frame_count, info.frame_count - first)
    end = first + count
    changed = dataclasses.replace(
        info,
        size=job.mapping.frame_size,
        frame_count=count,
        frame_times_s=info.frame_times_s[first:end],
        duration_s=info.frame_times_s[end] if end < info.frame_count else info.duration_s,
        audio=None,  # as the original program has it
    )
    return job.footage.source.frames(first, count), changed


def render_as_original(
    args: argparse.Namespace, job: Job, recipe: Recipe, frames: Iterator[np.ndarray]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Original and edited frames as the original layered-neural-atlases program makes them."""
    from edits.lna_compose import open_pictures, render_lna

    pictures = open_pictures(job.mapping, recipe, read_frame_edit(args))
    return render_lna(job.mapping, frames, pictures)


def _closable(frames: Iterator[np.ndarray]) -> Generator[np.ndarray, None, None]:
    yield from frames


def main(arguments: list[str] | None = None) -> None:
    args = parse(arguments)
    recipe = read_edits(args)
    for path in recipe.files():
        if not path.exists():
            raise InputError(f"{path}: not found; wanted a picture or a video")
    if not 0 <= args.crf <= 51:
        raise InputError(f"--crf is {args.crf}, wanted 0 (best) to 51")
    start_s = time.monotonic()
    footage = find_footage(args)
    check_output(args, recipe, footage)
    job = open_job(args, footage)
    count = render_to_file(args, job, recipe)
    if args.save_recipe:
        from edits.recipe import write_recipe

        args.save_recipe.parent.mkdir(parents=True, exist_ok=True)
        write_recipe(args.save_recipe, recipe)
    spent_s = time.monotonic() - start_s
    print(f"{args.out}: {count} frames in {spent_s:.1f} s ({count / spent_s:.1f} frames/s)")


if __name__ == "__main__":
    run_script(main)
