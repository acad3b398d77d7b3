"""Hand-over to compositing programs: ST maps, mattes, atlases, inverse maps, ready scripts.

The folder's content is listed in `edits.handover`, its use described in docs/HANDOVER.md.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from atlas.clip import write_bytes, write_rgb
from atlas.coords import Size, pixel_to_st
from atlas.errors import InputError
from atlas.mapping import FrameMapping, LayerMapping
from atlas.texture import sample
from atlas.video_writer import VideoWriter
from edits.apply import RenderContext, Renderer
from edits.context import fitted_gains
from edits.exr import require_openexr, write_exr
from edits.fine_edges import sharpen_edges
from edits.flatten import FlatPaint
from edits.fusion_script import fusion_script
from edits.handover import (
    PLATE,
    RENDERED,
    RESULT,
    HandOver,
    HandOverLayer,
    HandOverPaint,
    check_new_folder,
)
from edits.inverse import invert_uv
from edits.nuke_script import nuke_script

NOWHERE = -1.0
"""s and t of a pixel that has no place on the atlas: left of and below everything."""
_WRITERS = 2
_README = """Hand-over of an edit: ST maps, mattes, atlases, scripts.

Open rebuild.nk in Nuke or rebuild.comp in Fusion, paint on paint/LAYER.png, and every frame
follows. Colours are display-encoded (sRGB): read all pictures raw, without any conversion.

stmap/LAYER      R = s, G = t: where the pixel lies on the atlas. Edges of the atlas are 0 and 1,
                 t goes up; the centre of the atlas's first pixel is at s = 0.5 / width. Values
                 beyond 0 and 1 lie off the atlas; -1, -1 means nowhere.
matte/LAYER      share of the pixel that shows the layer; all layers' shares add up to 1.
                 LAYER.mov, where it was asked for: the same as ProRes 4444.
rendered         finished frames, where the edit has a look or grain, which scripts do not rebuild.
inverse/LAYER    the same from atlas to frame: R = s, G = t in the frame, A = how much of the
                 layer the frame shows there.
shading/LAYER    factor on the layer's colours in that frame (where the run has it).
atlas/LAYER      what the layer looks like; LAYER_coverage: what of it any frame has seen.

result = plate + sum over layers of share * (own colour, painted over - own colour)
paint/LAYER.png goes on first, then LAYER_2.png and so on, in the modes that handover.json gives.
"""


@dataclass(frozen=True, kw_only=True)
class ExportSource:
    """What is handed over.

    frames: source frames from number 0 on, (H, W, 3) uint8 or uint16 RGB, all of one size.
    context: textures, shading, the source frame that is frame 0 of the mapping, frame rate.
    renderer: makes finished frames, for edits that scripts cannot rebuild whole (looks, grain);
        None leaves them out.
    """

    mapping: LayerMapping
    frames: Iterable[np.ndarray]
    context: RenderContext
    renderer: Renderer | None = None


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """How much is handed over.

    first, last: source frames, both included; None for all that the mapping covers.
    paints: by layer name, pictures edge to edge on the atlas, of any size, in order of
        application; layers without any get an empty one of the atlas's size to paint on.
    movies: write every layer's matte as a ProRes 4444 movie as well.
    """

    first: int | None = None
    last: int | None = None
    paints: Mapping[str, Sequence[FlatPaint]] = field(default_factory=dict)
    movies: bool = False


def export_stmaps(
    folder: Path,
    source: ExportSource,
    options: ExportOptions | None = None,
    advance: Callable[[], object] = lambda: None,
) -> HandOver:
    """Write a hand-over folder; it appears when it is whole.

    Args:
        folder: a new or empty folder.
        advance: called after every frame.
    Returns:
        What was written.
    """
    options = options or ExportOptions()
    require_openexr()
    folder = Path(folder)
    check_new_folder(folder)
    span = frame_span(source, options)
    layers = _describe_layers(source, options)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f"{folder.name}.{os.getpid()}.tmp")
    temporary.mkdir()
    try:
        size = _write_frames(temporary, source, layers, span, advance)
        fps = source.context.fps
        handover = HandOver(frame=size, first=span[0], last=span[1], fps=fps, layers=layers)
        if options.movies:
            _write_movies(temporary, handover)
        _write_stills(temporary, source, layers, options.paints)
        _write_texts(temporary, handover)
        if folder.exists():
            folder.rmdir()
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return handover


def frame_span(source: ExportSource, options: ExportOptions) -> tuple[int, int]:
    """First and last source frame to write, both included."""
    start = source.context.first_frame
    end = start + source.mapping.frame_count - 1
    first = start if options.first is None else options.first
    last = end if options.last is None else options.last
    if not start <= first <= last <= end:
        raise InputError(f"--range {first}:{last}: wanted frames within {start}:{end}")
    return first, last


def _describe_layers(source: ExportSource, options: ExportOptions) -> tuple[HandOverLayer, ...]:
    for name in options.paints:
        source.mapping.layer_index(name)
    layers = []
    for layer in source.mapping.layers:
        paints = options.paints.get(layer.name, ())
        described = tuple(HandOverPaint(Size(*p.rgba.shape[:2]), p.blend) for p in paints)
        layers.append(
            HandOverLayer(
                name=layer.name,
                canvas=layer.canvas,
                paints=described or (HandOverPaint(layer.canvas),),
                has_atlas=source.context.textures is not None,
                has_shading=source.context.shading is not None,
            )
        )
    return tuple(layers)


def _write_frames(
    folder: Path,
    source: ExportSource,
    layers: tuple[HandOverLayer, ...],
    span: tuple[int, int],
    advance: Callable[[], object],
) -> Size:
    """Write all that there is per frame; the size of the frames."""
    own = [RENDERED] if source.renderer is not None else []
    for pattern in [PLATE, RESULT, *own, *(p for layer in layers for p in _patterns(layer))]:
        (folder / pattern).parent.mkdir(parents=True, exist_ok=True)
    size: Size | None = None
    with ThreadPoolExecutor(_WRITERS) as pool:
        pending: list[Future[None]] = []
        for index, rgb in enumerate(islice(source.frames, span[1] + 1)):
            t = index - source.context.first_frame
            if t < 0:
                continue
            source.mapping.observe(t, rgb)  # streaming mappings want every frame, in order
            if index < span[0]:
                if source.renderer is not None:
                    source.renderer.pass_over(index, rgb)
                continue
            size = Size(*rgb.shape[:2])
            gains = source.context.shading(t) if source.context.shading else None
            found = _mapping_of(source, t, rgb, gains)
            for job in pending:
                job.result()
            pending = [pool.submit(write_rgb, folder / (PLATE % index), rgb)]
            if source.renderer is not None:
                finished = source.renderer.frame(index, rgb)
                pending.append(pool.submit(write_rgb, folder / (RENDERED % index), finished))
            shares = found.visible()
            for i, layer in enumerate(layers):
                facts = _LayerFrame(found, i, shares[i], None if gains is None else gains[i])
                pending.append(pool.submit(_write_layer_frame, folder, layer, facts, index))
            advance()
        for job in pending:
            job.result()
        if size is None:
            raise InputError(f"the source ends before frame {span[0]}")
    return size


def _mapping_of(
    source: ExportSource, t: int, rgb: np.ndarray, gains: np.ndarray | None
) -> FrameMapping:
    """The frame's mapping as our own render has it."""
    size = Size(*rgb.shape[:2])
    found = source.mapping.frame(t, size)
    if gains is not None:
        gains = fitted_gains(gains, size)
    return sharpen_edges(rgb, found, source.mapping, source.context.textures, gains)


def _patterns(layer: HandOverLayer) -> list[str]:
    """The files of a layer, coverage aside."""
    found = [layer.stmap, layer.matte, layer.inverse, *layer.paint_files]
    found += [layer.shading] if layer.has_shading else []
    return found + ([layer.atlas_file] if layer.has_atlas else [])


@dataclass(frozen=True)
class _LayerFrame:
    found: FrameMapping
    index: int
    share: np.ndarray
    gain: np.ndarray | None


def _write_layer_frame(folder: Path, layer: HandOverLayer, facts: _LayerFrame, frame: int) -> None:
    uv, share = facts.found.uv[facts.index], facts.share
    note = f"skyweave, layer {layer.name}: R = s, G = t, origin at the lower left corner"
    write_exr(folder / (layer.stmap % frame), stmap_pixels(uv, layer.canvas), note)
    write_rgb(folder / (layer.matte % frame), _levels16(share))
    inverse = inverse_pixels(uv, share, layer.canvas)
    write_exr(folder / (layer.inverse % frame), inverse, note + ", of the frame")
    if facts.gain is not None:
        gain = cv2.resize(facts.gain, share.shape[::-1], interpolation=cv2.INTER_LINEAR)
        write_exr(folder / (layer.shading % frame), gain.astype(np.float16), "factor")


def stmap_pixels(uv: np.ndarray, canvas: Size) -> np.ndarray:
    """The ST map of a layer: (H, W, 3) float32, R = s, G = t (`pixel_to_st`), B = 0.

    Args:
        uv: (H, W, 2) float32, texels; positions that are not finite become `NOWHERE`.
    """
    st = pixel_to_st(uv, canvas)
    st[~np.isfinite(st).all(-1)] = NOWHERE
    return np.dstack([st, np.zeros(st.shape[:2], np.float32)])


def inverse_pixels(uv: np.ndarray, share: np.ndarray, canvas: Size) -> np.ndarray:
    """The inverse ST map: (h, w, 4) float32, R = s, G = t of the frame, B = 0, A = validity.

    A is the share of the layer at that spot of the frame, 0 where the frame does not reach.

    Args:
        uv: (H, W, 2) float32, texels. share: (H, W) float32.
    """
    inverse = invert_uv(uv, canvas)
    st = pixel_to_st(inverse.xy, Size(*share.shape))
    valid = np.where(inverse.found, sample(share, inverse.xy), np.float32(0))
    st[~inverse.found] = NOWHERE
    return np.dstack([st, np.zeros_like(valid), valid])


def _write_stills(
    folder: Path,
    source: ExportSource,
    layers: tuple[HandOverLayer, ...],
    paints: Mapping[str, Sequence[FlatPaint]],
) -> None:
    textures = source.context.textures or [None] * len(layers)
    for layer, texture in zip(layers, textures, strict=True):
        empty = FlatPaint(np.zeros((layer.canvas.height, layer.canvas.width, 4), np.float32))
        pictures = paints.get(layer.name) or [empty]
        for file, paint in zip(layer.paint_files, pictures, strict=True):
            write_rgb(folder / file, _levels16(paint.rgba))
        if texture is not None:
            write_rgb(folder / layer.atlas_file, _levels16(texture.rgb))
            write_rgb(folder / layer.coverage_file, _levels16(texture.coverage))


def _write_movies(folder: Path, handover: HandOver) -> None:
    """Every layer's matte as a movie, from the pictures just written."""
    for layer in handover.layers:
        path, fps = folder / layer.matte_movie, Fraction(handover.fps).limit_denominator(1001)
        with VideoWriter(
            path, handover.frame, fps=fps, codec="prores", pixel_format="rgb48"
        ) as movie:
            for index in range(handover.first, handover.last + 1):
                data = np.fromfile(folder / (layer.matte % index), np.uint8)
                grey = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
                assert grey is not None  # it was written a moment ago
                movie.write(np.repeat(grey[..., None], 3, axis=2))


def _write_texts(folder: Path, handover: HandOver) -> None:
    facts: dict[str, Any] = {"version": 1, **dataclasses.asdict(handover)}
    for row, layer in zip(facts["layers"], handover.layers, strict=True):
        row["files"] = _patterns(layer)
    write_bytes(folder / "handover.json", json.dumps(facts, indent=1).encode("utf-8"))
    write_bytes(folder / "README.txt", _README.encode("utf-8"))
    write_bytes(folder / "rebuild.nk", nuke_script(handover).encode("utf-8"))
    write_bytes(folder / "rebuild.comp", fusion_script(handover).encode("utf-8"))


def _levels16(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values * 65535.0), 0, 65535).astype(np.uint16)
