"""Masks of a clip's layers: which kinds make which layers, and the folders they are written to.

Every kind leaves one grey PNG per frame, named like the frame, 255 = the layer (for `sky`:
255 = sky) in `NAME_<kind>/`. Soft edges are kept. A tag file in the folder records what made it;
whole pictures that the same maker left there are kept, so an interrupted run goes on.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from atlas.clip import Clip, LayerInfo, find_picture, is_whole, read_grey, write_bytes, write_rgb
from atlas.errors import InputError
from preprocess.flow import flow_maker, frame_hashes
from preprocess.trim_masks import without_sky

if TYPE_CHECKING:
    from preprocess.sky.adapt import HandMattes
    from preprocess.sky.matte import SkyMatter

log = logging.getLogger(__name__)

KINDS = ("sky", "motion", "maskrcnn", "detectron2", "near")
RESERVED = (*KINDS, "flow", "background", "foreground", "scene")
TAG_NAME = "masks.json"
Progress = Callable[[Iterable, int, str], Iterable]


@dataclass(frozen=True, kw_only=True)
class MaskOptions:
    """What the kinds of masks can be told."""

    class_name: str = "anything"
    """COCO class for the detectors, or "anything"."""
    weights: Path | None = None
    """Local weight file of the detector; None takes the recorded ones from the cache or the web."""
    device: str = "cpu"
    """torch device of the detector."""
    min_score: float = 0.5
    """A tracked object needs at least one detection with this score; [0, 1]."""
    sky_matter: str = "auto"
    """Which sky matte, see `preprocess.sky.choose.open_matter`: a name or a file."""
    near: bool = False
    """Whether to add a layer `near` above a background where it pays; `preprocess.near_masks`."""
    hand_mattes: Path | None = None
    """Folder of sky mattes made by hand for some frames, named like the frames."""
    progress: Progress | None = None
    """Called as progress(iterable, total, description) around the loop over the frames."""

    def __post_init__(self) -> None:
        if not 0 <= self.min_score <= 1:
            raise InputError(f"min_score must be in [0, 1], got {self.min_score}")


@dataclass(frozen=True)
class _Source:
    """One entry of `--masks`: its kind, layer name, folder and, for a folder, where it is read.

    sky: where the mattes lie of the sky behind; None without one.
    beside: for near things, the layers whose masks say what they are not.
    optional: nobody has asked for it; it is made where it pays.
    """

    kind: str
    name: str
    folder: Path
    given: Path | None = None
    sky: Path | None = None
    beside: tuple[_Source, ...] = ()
    optional: bool = False


def make_masks(
    clip: Clip, kinds: Sequence[str], options: MaskOptions | None = None
) -> list[LayerInfo]:
    """Write the masks that `kinds` ask for, and say which layers they make.

    Args:
        clip: frames, and for motion and detectors also flow, must be there.
        kinds: top to bottom; each of `KINDS` or a folder of masks. `sky` must come last.
        options: see `MaskOptions`.
    Returns:
        The clip's layers, top to bottom: the masked ones, then `sky` or `background`.
    """
    options = options or MaskOptions()
    sources = _plan(clip, kinds)
    for source in sorted(sources, key=lambda source: _ORDER.get(source.kind, 1)):
        maker = _MAKERS.get(source.kind, _folder_masks)
        if maker is _folder_masks and source.given is None:
            log.info("masks: %s is used as it is", source.folder)
            _check_in_place(clip, source.folder)
            continue
        maker(clip, source, options)
        _warn_when_empty(clip, source, options)
    if options.near and "near" not in kinds and "sky" not in kinds:
        near = _Source("near", "near", clip.sibling("near"), beside=tuple(sources), optional=True)
        if _near_masks(clip, near, options):
            sources.append(near)
    return layers_of(sources)


def check_kinds(kinds: Sequence[str]) -> None:
    """Refuse a `--masks` that names what there is not, names a kind twice, or is out of order."""
    if not kinds:
        raise InputError(f"--masks names nothing; wanted {', '.join(KINDS)} or folders of masks")
    for kind in kinds:
        if kind not in KINDS and not Path(kind).is_dir():
            raise InputError(
                f"--masks {kind}: neither a folder nor one of {', '.join(KINDS)}; check the "
                "spelling or the path"
            )
        if kind in KINDS and list(kinds).count(kind) > 1:
            raise InputError(f"--masks names {kind} more than once")
    if "sky" in kinds[:-1]:
        raise InputError("--masks: sky must come last, it is the bottom layer")


def layers_of(sources: Sequence[_Source]) -> list[LayerInfo]:
    """The layers that mask folders make: a sky's matte, inverted, masks what is above the sky."""
    layers = [
        LayerInfo(name=s.name, mask_dir=s.folder.name, inverted=s.kind == "sky") for s in sources
    ]
    bottom = "sky" if sources and sources[-1].kind == "sky" else "background"
    return [*layers, LayerInfo(name=bottom)]


def mask_sources(options: MaskOptions) -> dict[str, str]:
    """One line per detector kind: what its folder's tag says, and good for `clip.json` too."""
    weights = options.weights or "recorded weights"
    detector = f"class {options.class_name}, score {options.min_score}, {weights}"
    return {"maskrcnn": f"maskrcnn, {detector}", "detectron2": f"detectron2, {detector}"}


def _plan(clip: Clip, kinds: Sequence[str]) -> list[_Source]:
    """Settle names and folders; makes nothing yet."""
    check_kinds(kinds)
    above = [kind for kind in kinds if kind != "sky"]
    used: set[str] = set()
    sky = clip.sibling("sky") if "sky" in kinds else None
    sources = []
    for kind in above:
        given = None if kind in KINDS else Path(kind)
        folder = clip.sibling(kind) if given is None else _target_folder(clip, given, used)
        used.add(folder.name)
        in_place = given is not None and given.resolve() == folder
        several = len([kind for kind in above if kind != "near"]) > 1 or kind == "near"
        name = _layer_name(kind, [s.name for s in sources]) if several else "foreground"
        sources.append(_Source(kind, name, folder, None if in_place else given, sky))
    if sky is not None:
        sources.append(_Source("sky", "scene" if above else "foreground", sky))
    rest = tuple(s for s in sources if s.kind != "near")
    return [replace(s, beside=rest) if s.kind == "near" else s for s in sources]


def _layer_name(kind: str, taken: Sequence[str]) -> str:
    """A layer name from a kind or a folder: letters, digits, `-` and `_`, and no other's name."""
    name = re.sub(r"[^\w-]+", "_", Path(kind).resolve().name if kind not in KINDS else kind)
    name = name or "masks"
    if name in ("sky", "background", "scene") or (name == "near" and kind != "near"):
        name += "_mask"
    unique, number = name, 2
    while unique in taken:
        unique, number = f"{name}_{number}", number + 1
    return unique


def _target_folder(clip: Clip, given: Path, used: set[str]) -> Path:
    """Where a user's masks go: the folder itself when it lies beside the frames as NAME_*."""
    given = given.resolve()
    beside = given.parent == clip.sibling("x").parent
    if beside and given.name.startswith(f"{clip.name}_") and given != clip.sibling("flow"):
        return given
    name = re.sub(r"[^\w-]+", "_", given.name)
    if name in RESERVED:
        name += "_given"
    unique, number = name, 2
    while clip.sibling(unique).name in used:
        unique, number = f"{name}_{number}", number + 1
    return clip.sibling(unique)


# --- writing, resuming ----------------------------------------------------------------------


def mask_path(clip: Clip, folder: Path, t: int) -> Path:
    """Where the mask of frame `t` lies in `folder`."""
    return folder / f"{Path(clip.frame_names[t]).stem}.png"


def write_mask(path: Path, mask: np.ndarray) -> None:
    """Write an (H, W) mask, in [0, 1] (bool or float) or uint8, as 8-bit grey."""
    if mask.dtype == np.uint8:
        write_rgb(path, mask)
        return
    write_rgb(path, np.rint(np.clip(mask.astype(np.float32), 0, 1) * 255).astype(np.uint8))


def prepare_folder(clip: Clip, folder: Path, maker: str) -> list[int]:
    """Make `folder` ready for masks by `maker`; the frames whose mask is still to be written.

    Masks by another maker or of other frames are removed first, but only where our tag shows that
    they are ours.
    """
    digest = hashlib.blake2b(json.dumps(frame_hashes(clip)).encode(), digest_size=16)
    wanted = {"maker": maker, "frames": digest.hexdigest()}
    folder.mkdir(parents=True, exist_ok=True)
    tag_path = folder / TAG_NAME
    try:
        tag = json.loads(tag_path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        tag = None
        if any(p.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp") for p in folder.iterdir()):
            raise InputError(
                f"{folder}: holds masks that preprocess did not make; name that folder in --masks "
                "to use them, or move it away to have new ones made"
            ) from None
    except ValueError:
        tag = None
    if tag != wanted:
        for t in range(clip.frame_count):
            mask_path(clip, folder, t).unlink(missing_ok=True)
        write_bytes(tag_path, json.dumps(wanted).encode())
    return [
        t for t in range(clip.frame_count) if not is_whole(mask_path(clip, folder, t), clip.size)
    ]


def _follow(items: Sequence[int], options: MaskOptions, what: str) -> Iterator[int]:
    yield from options.progress(items, len(items), what) if options.progress else items


def _warn_when_empty(clip: Clip, source: _Source, options: MaskOptions) -> None:
    """An empty mask is allowed, but it is said in one line what was tried."""
    for t in range(clip.frame_count):
        if (read_grey(mask_path(clip, source.folder, t)) >= 128).any():
            return
    tried = {
        "sky": "the sky matte found no sky in any frame",
        "motion": "nothing moves against the dominant motion of the clip for long enough",
        "maskrcnn": f"no {options.class_name} with a score of {options.min_score} or more",
        "detectron2": f"no {options.class_name} with a score of {options.min_score} or more",
        "near": "parallax moves nothing past the scene",
    }.get(source.kind, f"the masks in {source.given} are black")
    log.warning("masks: %s is empty in all frames: %s", source.name, tried)


# --- the kinds ------------------------------------------------------------------------------


def _sky_masks(clip: Clip, source: _Source, options: MaskOptions) -> None:
    from preprocess.sky.adapt import HandMattes
    from preprocess.sky.choose import open_matter

    matter = open_matter(options.sky_matter, careful=True)
    names = [mask_path(clip, source.folder, t).name for t in range(clip.frame_count)]
    hand = HandMattes(options.hand_mattes, names) if options.hand_mattes else None
    maker = f"sky, {matter.fingerprint()}"
    if hand is not None:
        maker += f", by hand {hand.fingerprint()}"
    if not prepare_folder(clip, source.folder, maker):
        return
    # all frames pass through, in order: a matte leans on the frames before and after it
    mattes = (matte for shot in clip.shots() for matte in _shot_mattes(clip, shot, matter, hand))
    for t in _follow(range(clip.frame_count), options, "sky masks"):
        write_mask(mask_path(clip, source.folder, t), next(mattes))


def _shot_mattes(
    clip: Clip, shot: tuple[int, int], matter: SkyMatter, hand: HandMattes | None
) -> Iterator[np.ndarray]:
    from preprocess.sky.offline import clip_mattes, survey_times

    first, end = shot
    return clip_mattes(
        matter,
        (clip.frame(t) for t in range(first, end)),
        hand=hand.part(first) if hand else None,
        survey=(clip.frame(first + t) for t in survey_times(end - first)),
    )


def _motion_masks(clip: Clip, source: _Source, options: MaskOptions) -> None:
    from preprocess.motion_masks import MAKER, motion_masks

    maker = f"{MAKER}, from flow by {flow_maker(clip)}{_behind(source)}"
    if not prepare_folder(clip, source.folder, maker):
        return
    masks = motion_masks(clip)
    for t in _follow(range(clip.frame_count), options, "motion masks"):
        _write_trimmed(clip, source, t, next(masks))


def _detector_masks(clip: Clip, source: _Source, options: MaskOptions) -> None:
    from preprocess.link import link_instances, open_detector

    if not prepare_folder(
        clip, source.folder, mask_sources(options)[source.kind] + _behind(source)
    ):
        return
    detector = open_detector(source.kind, options.class_name, options.weights, options.device)
    found = (
        detector.detect(clip.frame(t))
        for t in _follow(range(clip.frame_count), options, f"{source.kind} masks")
    )
    masks = link_instances(found, lambda a, b: clip.flow(a, b), clip.size, options.min_score)
    for t, mask in enumerate(masks):
        _write_trimmed(clip, source, t, mask)


def _near_masks(clip: Clip, source: _Source, options: MaskOptions) -> bool:
    """Masks of near things beside what other layers take; whether there are any."""
    from preprocess.near_masks import MAKER, near_masks

    def covered(t: int) -> np.ndarray:
        taken = np.zeros((clip.size.height, clip.size.width), np.float32)
        for other in source.beside:  # a sky's matte is 255 where the sky is, and so is nothing near
            grey = read_grey(find_picture(other.folder, Path(clip.frame_names[t]).stem))
            if grey.shape != taken.shape:
                grey = cv2.resize(grey, clip.size.wh, interpolation=cv2.INTER_NEAREST)
            taken = np.maximum(taken, grey.astype(np.float32) / 255)
        return taken

    tags = [s.folder / TAG_NAME for s in source.beside]
    beside = b"".join(tag.read_bytes() if tag.is_file() else tag.name.encode() for tag in tags)
    digest = hashlib.blake2b(beside, digest_size=8).hexdigest()
    maker = f"{MAKER}, from flow by {flow_maker(clip)}, beside {digest}"
    wanted = prepare_folder(clip, source.folder, maker)
    if not wanted:
        return True
    masks = near_masks(clip, covered, must_pay=source.optional)
    if masks is None:
        (source.folder / TAG_NAME).unlink()
        if not any(source.folder.iterdir()):  # what else lies there is the user's
            source.folder.rmdir()
        return False
    for t in _follow(range(clip.frame_count), options, "near masks"):
        mask = next(masks)
        if t in wanted:
            write_mask(mask_path(clip, source.folder, t), mask)
    return True


def _behind(source: _Source) -> str:
    """What a mask's tag says of the sky behind that it is cut along."""
    if source.sky is None:
        return ""
    tag = (source.sky / TAG_NAME).read_bytes()
    return f", cut along the sky of {hashlib.blake2b(tag, digest_size=8).hexdigest()}"


def _write_trimmed(clip: Clip, source: _Source, t: int, mask: np.ndarray) -> None:
    """Write the mask of frame `t`, cut along the sky's matte where there is one."""
    if source.sky is not None:
        sky = read_grey(mask_path(clip, source.sky, t)).astype(np.float32) / 255
        scale = 255 if mask.dtype == np.uint8 else 1
        mask = without_sky(mask.astype(np.float32) / scale, sky)
    write_mask(mask_path(clip, source.folder, t), mask)


def _folder_masks(clip: Clip, source: _Source, options: MaskOptions) -> None:
    from preprocess.mask_folder import MaskFolder

    assert source.given is not None
    given = MaskFolder(source.given, clip)
    for t in prepare_folder(clip, source.folder, f"copied from {given.fingerprint()}"):
        write_mask(mask_path(clip, source.folder, t), given.mask(t))


def _check_in_place(clip: Clip, folder: Path) -> None:
    from preprocess.mask_folder import MaskFolder

    MaskFolder(folder, clip, in_place=True)


_ORDER = {"sky": 0, "near": 2}
"""The others' masks are cut along the sky's; near things are sought beside all the rest."""
_MAKERS = {
    "sky": _sky_masks,
    "motion": _motion_masks,
    "maskrcnn": _detector_masks,
    "detectron2": _detector_masks,
    "near": _near_masks,
}
