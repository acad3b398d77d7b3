"""Edit a clip: sky, paint on an atlas or a frame, text, removed layers; every frame follows.

examples:
  python edit.py runs/annarbor --sky sunset.jpg --out sunset.mp4
  python edit.py runs/swan --layer foreground=paint.png --layer background=bank.png --out swan.mp4
  python edit.py runs/swan recipe.yaml --side-by-side --out compare.mp4
  python edit.py runs/swan --text "background@0:40,60 300,60 300,120 40,120=HOTEL" --out hotel.mp4
  python edit.py runs/swan --frame 12=frame12_painted.png --remove foreground --preview 30 --watch
  python edit.py runs/swan --history
  python edit.py runs/swan --export-atlas paint_me
  python edit.py runs/swan --layer foreground=paint.ora --export stmap handover
  python edit.py holiday.mp4 --sky clouds.mp4 --out holiday_clouds.mp4     (no training: fast path)
  python edit.py runs/annarbor --fast --sky night.hdr --sky-pitch 20 --out night.mov --codec prores
  python edit.py results/swan --data data/swan --layer foreground=fg.png --compose lna --out edited
"""

from __future__ import annotations

import argparse
import contextlib
import time
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from atlas.command_line import CommandParser
from atlas.errors import InputError, run_script
from edits.cli import (
    add_edit_options,
    add_view_options,
    check_as_original,
    check_places,
    choose_output,
    read_edits,
)
from edits.export_options import add_export_options, check_export
from edits.stream_options import add_stream_options

if TYPE_CHECKING:
    import numpy as np

    from atlas.run import Run
    from atlas.video import FrameSource
    from edits.deliver import Job
    from edits.footage import Footage
    from edits.recipe import Recipe
    from preprocess.camera_track import CameraChoice


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    about, examples = (__doc__ or "").split("\n\n", 1)
    parser = CommandParser(prog="python edit.py", description=about, epilog=examples)
    add = parser.add_argument
    add("input", metavar="RUN_OR_VIDEO", type=Path, nargs="?", help="run folder of train.py, clip "
        "folder, folder of frames, any video that ffmpeg reads, or a results folder of the "
        "original layered-neural-atlases program")  # fmt: skip
    add("recipe", metavar="RECIPE.yaml", type=Path, nargs="?", help="edits to make, as a file")
    add("--out", metavar="FILE", type=Path, help="result: .mp4 .mov .mkv .webm, or a name without "
        "a suffix for a folder of PNGs; previews and contact sheets: .png .jpg")  # fmt: skip
    add_edit_options(parser)
    how = parser.add_argument_group("how")
    add = how.add_argument
    add("--fast", action="store_true", help="use the fast path (sky matte and camera track, no "
        "training) also for a run folder; a video always takes it")  # fmt: skip
    add("--size", metavar="WxH", help="stretch a video's frames to this size first")
    add("--source", metavar="FILE", type=Path, help="where the video that a run was made from lies "
        "now, if it has moved")  # fmt: skip
    add("--clip", metavar="DIR", type=Path, help="where the clip folder that a run was fitted to "
        "lies now, if it has moved")  # fmt: skip
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
    add_stream_options(parser)
    add_view_options(parser)
    add_export_options(parser)
    return parser.parse_args(arguments)


def read_recipe(args: argparse.Namespace) -> Recipe:
    """All edits that the command line asks for; there must be one, and its files."""
    recipe = read_edits(args)
    looks = recipe.look is not None and recipe.look.active
    if not (recipe.edits or looks) and args.preview is None:
        raise InputError(
            "nothing to change: give --sky FILE, --layer NAME=RGBA.png, --frame N=PICTURE, --text, "
            "--pin, --remove, --filter or a recipe (RECIPE.yaml)"
        )
    for path in recipe.files():
        if not path.exists():
            raise InputError(f"{path}: not found; wanted a picture or a video")
    return recipe


def check_output(args: argparse.Namespace, recipe: Recipe, footage: Footage) -> None:
    """Refuse an output that is or holds an input, or that cannot be written, before any work."""
    check_places(args, recipe, footage.source.info.path)
    from edits.deliver import make_writer
    from edits.session import delivery_of

    make_writer(footage.source.info, delivery_of(args, footage.source.info))


def find_footage(args: argparse.Namespace) -> Footage:
    """The frames to edit, at the source's own resolution."""
    from atlas.clip import Clip
    from atlas.run import is_run
    from atlas.video import open_source
    from edits.footage import Footage, find_clip, open_footage
    from edits.resized import ResizedSource, parse_size
    from thirdparty.lna import is_lna_model

    plain = not (is_lna_model(args.input) or args.data or is_run(args.input))
    if args.size and not (plain and not (args.input / "clip.json").is_file()):
        raise InputError("--size is for videos and frame folders; a run has its source's own size")
    if is_lna_model(args.input) or args.data is not None:
        return find_model_footage(args)
    if is_run(args.input):
        return open_footage(find_clip(args.input, args.clip), args.source)
    if args.clip is not None:
        raise InputError("--clip is for run folders; give the clip folder itself instead")
    if args.source is not None:
        raise InputError("--source is for run folders; give the video itself instead")
    if (args.input / "clip.json").is_file():
        return open_footage(Clip(args.input))
    if not args.input.exists():
        raise InputError(f"{args.input}: not found; wanted a run folder or a video")
    if (args.input / "checkpoint.safetensors").is_file():
        raise InputError(f"{args.input}: a run folder without its run.json; train it again")
    source = open_source(args.input)
    return Footage(ResizedSource(source, parse_size(args.size)) if args.size else source)


def find_model_footage(args: argparse.Namespace) -> Footage:
    """The frames that a model of the original program was trained on, or what they came from."""
    from atlas.clip import Clip, list_frames
    from atlas.lna_import import find_data
    from atlas.video import list_pictures, open_source
    from edits.footage import Footage, open_footage
    from thirdparty.lna import read_lna_model

    model = read_lna_model(args.input)
    folder = find_data(model, args.data)
    if (folder / "clip.json").is_file() and args.compose != "lna":
        return open_footage(Clip(folder), args.source)
    if args.source is not None:
        raise InputError("--source is for run folders and clip folders made by preprocess")
    if [path.name for path in list_pictures(folder)] != sorted(list_frames(folder)):
        raise InputError(
            f"{folder}: the order of the frames is not clear; wanted names with equally many "
            "digits (00009.jpg, 00010.jpg), in jpg, png or webp alone"
        )
    return Footage(open_source(folder))


def open_job(args: argparse.Namespace, footage: Footage) -> Job:
    """The mapping to edit through: the run's atlas, or the fast path."""
    from atlas.run import is_run, open_run
    from edits.context import RenderContext
    from edits.deliver import Job
    from thirdparty.lna import is_lna_model

    info = footage.source.info
    times = {"times_s": info.frame_times_s, "fps": float(info.fps)}
    times["read_frame"] = lru_cache(maxsize=2)(footage.source.frame)
    times["sky_matte"] = matte_of_photo
    model = is_lna_model(args.input)
    if (model or is_run(args.input)) and not args.fast:
        run = open_model(args) if model else open_run(args.input)
        context = RenderContext(
            textures=run.textures,
            shading=run.shading,
            first_frame=footage.first_frame + run.info.first_frame,
            **times,
        )
        return Job(footage, run.mapping, context, run.shots)
    if args.compose == "lna":
        raise InputError(f"{args.input}: --compose lna needs a run or model folder, not a video")
    from preprocess.camera_track import open_camera
    from preprocess.fastpath import FastPathMapping

    choice = camera_choice(args)

    for option in ("with_alpha", "keep_partial", "export_track"):
        if getattr(args, option):
            raise InputError(
                f"--{option.replace('_', '-')}: only where the sky of a video is replaced, or a "
                "look is laid over it, and nothing else is done"
            )

    def fresh_mapping() -> FastPathMapping:
        camera = open_camera(info.size, choice, info)
        return FastPathMapping(info.size, frame_count=info.frame_count, camera=camera)

    mapping = fresh_mapping()
    context = RenderContext(fresh_mapping=fresh_mapping, focal=mapping.focal_px, **times)
    return Job(footage, mapping, context)


def matte_of_photo(rgb: np.ndarray) -> np.ndarray:
    """(H, W) float32, 1 = sky, of one picture."""
    from preprocess import observer

    return observer.matte_of_photo(rgb)


def open_model(args: argparse.Namespace) -> Run:
    """A model of the original program, as a run."""
    from atlas.lna_import import open_lna_model
    from thirdparty.lna import read_lna_model

    model = read_lna_model(args.input)
    if args.compose == "lna":  # for comparing: nothing interpolated, and no atlas pictures needed
        return open_lna_model(model, args.data, with_textures=False, tolerance=0)
    return open_lna_model(model, args.data)


def hand_over(args: argparse.Namespace) -> None:
    """--export and --export-atlas: the edit, which may hold nothing yet, for other programs."""
    recipe = read_edits(args)
    from edits.export_job import run_export  # brings torch: not before mistakes are told

    print(run_export(args, open_job(args, find_footage(args)), recipe))


def use_skyar(args: argparse.Namespace) -> None:
    """Take what is edited, its size and the output from a configuration of SkyAR."""
    from edits.skyar import read_skyar

    if args.recipe is not None or args.input is not None:
        raise InputError("--skyar names its video itself; leave RUN_OR_VIDEO and RECIPE out")
    job = read_skyar(args.skyar)
    args.input, args.size = job.source, f"{job.size.width}x{job.size.height}"
    args.out = args.out or job.out
    if job.note:
        print(job.note)


def main(arguments: list[str] | None = None) -> None:
    args = parse(arguments)
    if args.skyar is not None:
        use_skyar(args)
    if args.live is not None:
        edit_live(args)
        return
    if args.input is None:
        raise InputError("RUN_OR_VIDEO is missing; see python edit.py --help")
    if args.history:
        from edits.session import show_history

        show_history(args)
        return
    if check_export(args):
        hand_over(args)
        return
    choose_output(args)
    check_as_original(args)
    recipe = read_recipe(args)
    if not 0 <= args.crf <= 51:
        raise InputError(f"--crf is {args.crf}, wanted 0 (best) to 51")
    if args.out.suffix.lower() not in (".mp4", ".mov", ".mkv", ".webm") and is_photo(args, recipe):
        check_places(args, recipe, args.input)
        edit_photo(args, recipe)
        save_recipe(args, recipe)
        return
    source = find_stream(args, recipe)
    if source is not None:
        check_places(args, recipe, source.info.path)
        replace_sky(args, recipe, source)
        save_recipe(args, recipe)
        return
    from edits.session import produce, summary, watch  # brings torch: not before mistakes are told

    footage = find_footage(args)
    check_output(args, recipe, footage)
    job = open_job(args, footage)
    if args.compose == "lna":
        from edits.as_original import render_as_original

        start_s = time.monotonic()
        count = render_as_original(args, job, recipe)
        print(summary(args.out, count, time.monotonic() - start_s))
    else:
        produce(args, job, recipe)
    save_recipe(args, recipe)
    if args.watch:
        watch(args, job, lambda: read_recipe(args))


def is_photo(args: argparse.Namespace, recipe: Recipe) -> bool:
    """Whether one photo is to be edited into another."""
    from edits.still_session import is_still

    return is_still(args, recipe)


def edit_photo(args: argparse.Namespace, recipe: Recipe) -> None:
    """Edit one photo."""
    from edits import still_session
    from preprocess.sky.choose import open_matter

    def careful(rgb: np.ndarray) -> np.ndarray:
        return open_matter(careful=True).matte(rgb)

    print(still_session.edit_photo(args, recipe, careful))


def find_stream(args: argparse.Namespace, recipe: Recipe) -> FrameSource | None:
    """The video to edit as a stream; None for runs, and for what goes frame by frame."""
    with ThreadPoolExecutor(1) as pool:  # ffmpeg looks at the file while the rest is loaded
        pool.submit(look_at, args.input)
        from edits.stream_session import streamed_source
        from preprocess import camera_track, observer  # noqa: F401 - for `replace_sky`

    return streamed_source(args, recipe)


def look_at(path: Path) -> None:
    """Let a video be described, so that `open_source` answers at once; mistakes are told there."""
    from atlas.video import PICTURE_SUFFIXES, open_source

    if path.is_file() and path.suffix.lower() not in PICTURE_SUFFIXES:
        with contextlib.suppress(InputError):
            open_source(path, trusting=True)


def replace_sky(args: argparse.Namespace, recipe: Recipe, source: FrameSource) -> None:
    """Edit a video as a stream."""
    from edits.stream import SkyStream
    from edits.stream_session import stream_video
    from preprocess.camera_track import open_camera, write_track
    from preprocess.observer import SkyObserver, matte_of_photo

    info, form = source.info, source.plane_format
    assert form is not None
    camera = open_camera(info.size, camera_choice(args), info)
    observer = SkyObserver(form, camera)
    print(stream_video(args, source, SkyStream(recipe, observer, matte_of_photo)))
    if args.export_track is not None:
        write_track(args.export_track, observer.track)
    if observer.uncertain_frames:
        print(
            f"the camera is uncertain in {observer.uncertain_frames} of {info.frame_count} frames; "
            "look at those, or give --track or --still"
        )


def camera_choice(args: argparse.Namespace) -> CameraChoice:
    """--track, --still and --fov."""
    from preprocess.camera_track import CameraChoice

    return CameraChoice(track=args.track, still=args.still, fov_deg=args.fov)


def edit_live(args: argparse.Namespace) -> None:
    """--input: pictures as they come."""
    from edits.live import run_live
    from edits.live_session import check_live, open_live, open_show
    from edits.stream import SkyStream
    from preprocess.camera_track import open_camera
    from preprocess.observer import SkyObserver, matte_of_photo

    recipe = read_recipe(args)
    check_live(args, recipe)
    source = open_live(args)
    try:
        camera = open_camera(source.form.size, camera_choice(args))
        stream = SkyStream(recipe, SkyObserver(source.form, camera), matte_of_photo)
        run_live(source, stream, open_show(args, source.form))
    finally:
        source.close()


def save_recipe(args: argparse.Namespace, recipe: Recipe) -> None:
    """--save-recipe."""
    if args.save_recipe is None:
        return
    from edits.recipe import write_recipe

    args.save_recipe.parent.mkdir(parents=True, exist_ok=True)
    write_recipe(args.save_recipe, recipe)


if __name__ == "__main__":
    run_script(main)
