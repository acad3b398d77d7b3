"""Turn a video, or a folder of frames, into a clip folder: frames, flow and masks.

python -m preprocess walk.mp4 --out data/walk
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import re
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from atlas.clip import Clip, ClipInfo, list_frames, write_info
from atlas.command_line import CommandParser
from atlas.coords import Size
from atlas.errors import InputError, run_script
from atlas.progress import clock, progress
from preprocess.frames import FrameOptions, make_frames

log = logging.getLogger(__name__)

EXAMPLES = """\
examples:
  python -m preprocess walk.mp4 --out data/walk
      frames, flow and masks with the defaults: --masks sky where there is sky, else motion
  python -m preprocess walk.mp4 --out data/walk --size 640x360 --max-frames 100
      smaller and shorter, for a first try
  python -m preprocess frames/ --out data/swan --masks maskrcnn --class-name bird
      a folder of pictures; the bird found by Mask R-CNN (weights are fetched once)
  python -m preprocess walk.mp4 --out data/walk --masks maskrcnn sky --class-name person
      three layers: the person, over the scene, over the sky
  python -m preprocess walk.mp4 --out data/walk --masks my_masks/
      your own masks, one picture per frame, 255 = the top layer

Written beside each other: data/NAME (frames, clip.json), data/NAME_flow, data/NAME_<masks>.
Run the same command again to go on after an interruption; what is whole is kept. If settings
changed, what depends on them is made anew.
"""

SKY_SHARE = 0.02
"""`--masks` is sky by itself when this share of the picture, over the clip, is sky."""
SKY_SAMPLES = 8
"""Frames that are looked at for it."""
LARGEST_SIDE_PX = 16384
"""Of `--size`; what video codecs hold."""


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = CommandParser(
        prog="python -m preprocess",
        description="Turn a video, or a folder of frames, into a clip folder for train.py.",
        epilog=EXAMPLES,
    )
    parser.add_argument(
        "input", type=Path, metavar="INPUT", help="any video that ffmpeg reads, or picture folder"
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="clip folder to write: data/NAME"
    )
    parser.add_argument(
        "--size",
        type=parse_size,
        metavar="WxH",
        help="exact size of the stored frames, pixels (default: longer side at most 768, aspect "
        "kept; edits render at the source's own size in any case)",
    )
    parser.add_argument(
        "--max-frames",
        type=int,
        metavar="N",
        help="take only the first N frames, counted after leading black ones",
    )
    parser.add_argument(
        "--flow",
        choices=("auto", "raft", "raft_small", "dis"),
        default="auto",
        help="optical flow: dis needs no weights; raft is better and wants a GPU; auto (default) "
        "takes raft where there is a GPU and weights can be had",
    )
    parser.add_argument(
        "--flow-weights", type=Path, metavar="FILE", help="local RAFT weights instead of fetched"
    )
    parser.add_argument(
        "--masks",
        nargs="+",
        metavar="KIND",
        help="what separates the layers, top to bottom: sky, motion, maskrcnn, detectron2, near, "
        "or a folder of masks; sky comes last (default: sky where sky is found, else motion)",
    )
    parser.add_argument(
        "--no-near",
        action="store_true",
        help="no layer of its own for near things that parallax moves past the scene (poles, "
        "branches); without this there is one, called near, where it clearly pays and there is no "
        "sky layer; --masks ... near asks for it in any case",
    )
    parser.add_argument(
        "--class-name",
        default="anything",
        metavar="NAME",
        help="COCO class for maskrcnn and detectron2: person, dog, car ... (default: anything)",
    )
    parser.add_argument("--mask-weights", type=Path, metavar="FILE", help="local detector weights")
    parser.add_argument(
        "--sky-matter",
        default="auto",
        metavar="NAME",
        help="what finds the sky: network, classical, or a file (our .safetensors, SkyAR's .pt, an "
        ".onnx model); default: the best that is bundled",
    )
    parser.add_argument(
        "--hand-mattes",
        type=Path,
        metavar="DIR",
        help="sky mattes corrected by hand for some frames, named like them (255 = sky); taken as "
        "truth there, and the correction is carried to the frames between",
    )
    parser.add_argument(
        "--device", default="auto", help="torch device: auto (default), cpu, cuda, cuda:1"
    )
    return parser.parse_args(arguments)


def parse_size(text: str) -> Size:
    """`WxH` in pixels."""
    match = re.fullmatch(r"(\d+)[xX](\d+)", text)
    if match is None or not all(2 <= int(side) <= LARGEST_SIDE_PX for side in match.groups()):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no size; wanted WxH such as 768x432, each side 2 to {LARGEST_SIDE_PX}"
        )
    return Size(int(match[2]), int(match[1]))


def pick_device(name: str) -> str:
    """`auto` is the GPU where torch sees one; anything else must be a device that torch has."""
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as err:
        raise InputError(f"--device {name}: not usable here ({err})") from err
    return name


def pick_masks(clip: Clip, options: argparse.Namespace) -> list[str]:
    """The masks for a user who names none: sky where there is some, else what moves."""
    from preprocess.sky.choose import open_matter

    if options.hand_mattes is not None:
        log.info("masks: sky, since there are mattes of it by hand")
        return ["sky"]
    matter = open_matter(options.sky_matter)
    shares = []
    for t in np.unique(np.linspace(0, clip.frame_count - 1, SKY_SAMPLES).round().astype(int)):
        matter.reset()  # the sampled frames are not neighbours
        shares.append(share_from_above(matter.matte(clip.frame(int(t)))))
    share = float(np.mean(shares))
    if share >= SKY_SHARE:
        log.info("masks: sky, since %.0f %% of the picture is sky", 100 * share)
        return ["sky"]
    log.info("masks: motion, since no sky was found (%.1f %% of the picture)", 100 * share)
    return ["motion"]


def share_from_above(matte: np.ndarray) -> float:
    """Share of a picture that is sky, counting only what comes down from its uppermost sixth.

    Sky under something (a plain red wall, a pool) is more often a mistake of the matte than sky;
    bars above a letterboxed picture are thinner than a sixth.

    Args:
        matte: (H, W) float, 1 = sky.
    """
    _, parts = cv2.connectedComponents((matte > 0.5).astype(np.uint8))
    above = np.unique(parts[: max(1, len(parts) // 6)])
    return float(np.isin(parts, above[above > 0]).mean())


def preprocess(options: argparse.Namespace) -> Clip:
    """Run all stages; each keeps what is whole from an earlier run and says so."""
    from preprocess.flow import make_flow
    from preprocess.masks import MaskOptions, make_masks

    wanted = FrameOptions(options.size, options.max_frames)
    check_masks(options)
    device = pick_device(options.device)
    clip, kept = make_frames(options.input, options.out, wanted, progress)
    what = f"{clip.frame_count} frames, {clip.size}, {clip.info.fps:.5g} fps"
    log.info("frames: %s%s", what, " (kept, nothing changed)" if kept else "")

    start_s = time.monotonic()
    before = _stamps(clip.sibling("flow"))
    flow = make_flow(clip, options.flow, options.flow_weights, device, progress)
    _report("flow", before, _stamps(clip.sibling("flow")), ".npy")
    clip.info = record(clip, "flow", flow, start_s)

    start_s = time.monotonic()
    kinds = options.masks or pick_masks(clip, options)
    mask_options = MaskOptions(
        class_name=options.class_name,
        weights=options.mask_weights,
        device=device,
        sky_matter=options.sky_matter,
        hand_mattes=options.hand_mattes,
        near=not options.no_near,
        progress=progress,
    )
    folders = [clip.sibling(kind) for kind in (*kinds, "near") if not Path(kind).is_dir()]
    before = {k: v for folder in folders for k, v in _stamps(folder).items()}
    layers = make_masks(clip, kinds, mask_options)
    after = {k: v for folder in folders for k, v in _stamps(folder).items()}
    _report("masks", before, after, ".png")
    clip.info = record(clip, "masks", " ".join(kinds), start_s, layers=layers)
    return clip


def check_masks(options: argparse.Namespace) -> None:
    """Refuse masks and weights that cannot work before the minutes that frames and flow take."""
    from preprocess.masks import KINDS, check_kinds

    for option, path in (
        ("--flow-weights", options.flow_weights),
        ("--mask-weights", options.mask_weights),
    ):
        if path is not None and not path.is_file():
            raise InputError(f"{option} {path}: not found; wanted a file with the weights")
    if options.hand_mattes is not None:
        if not options.hand_mattes.is_dir():
            raise InputError(f"--hand-mattes {options.hand_mattes}: no such folder")
        if options.masks and "sky" not in options.masks:
            raise InputError("--hand-mattes are mattes of the sky; add sky to --masks")
    if Path(options.sky_matter).suffix and not Path(options.sky_matter).is_file():
        raise InputError(f"--sky-matter {options.sky_matter}: not found; wanted a network's file")
    kinds = options.masks
    if not kinds:
        return
    check_kinds(kinds)
    for kind in kinds:
        if kind not in KINDS:
            list_frames(Path(kind))  # complains of a folder without pictures
    if "maskrcnn" in kinds or "detectron2" in kinds:
        from thirdparty.mask_rcnn import check_class, known_classes

        check_class(options.class_name, known_classes())


def record(clip: Clip, part: str, tool: str, start_s: float, **changes: object) -> ClipInfo:
    """Write into `clip.json` what made a part, how long it took, and other changes."""
    info = clip.info
    spent_s = round(time.monotonic() - start_s, 3)
    if info.tools.get(part) == tool:  # kept or gone on with: the time it took in all
        spent_s = round(max(info.seconds.get(part, 0.0), spent_s), 3)
    info = dataclasses.replace(
        info,
        tools={**info.tools, part: tool},
        seconds={**info.seconds, part: spent_s},
        **changes,  # type: ignore[arg-type]
    )
    write_info(clip.folder, info)
    return info


def _stamps(folder: Path) -> dict[Path, int]:
    if not folder.is_dir():
        return {}
    return {p: p.stat().st_mtime_ns for p in folder.iterdir()}


def _report(part: str, before: dict[Path, int], after: dict[Path, int], suffix: str) -> None:
    files = [p for p in after if p.suffix == suffix]
    kept = [p for p in files if before.get(p) == after[p]]
    if kept and len(kept) == len(files):
        log.info("%s: kept, nothing changed", part)
    elif kept:
        log.info("%s: %d of %d files were there already", part, len(kept), len(files))


def main() -> None:
    options = parse()
    start_s = time.monotonic()
    clip = preprocess(options)
    names = ", ".join(clip.layer_names)
    print(
        f"{options.out}: {clip.frame_count} frames at {clip.size}, layers {names} "
        f"({clock(time.monotonic() - start_s)})"
    )


if __name__ == "__main__":
    run_script(main)
