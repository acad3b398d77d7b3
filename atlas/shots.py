"""Several shots' runs as one: each has atlases of its own, put side by side on one canvas a layer.

runs/film/run.json              kind "shots": where each shot begins and ends
runs/film/shots/01/ ...         the shots' runs, each whole in itself
runs/film/atlas_sky.png ...     every shot's sky on one picture

A paint on a layer's picture changes each shot where it lies on that shot's part. `ShotPart` is one
shot seen that way: what is placed by what a shot shows (a sky) is placed for each shot anew.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from atlas.clip import Clip
from atlas.coords import Size
from atlas.errors import InputError
from atlas.mapping import FrameMapping, Layer, LayerMapping
from atlas.run import (
    OpenedMapping,
    Run,
    RunInfo,
    clip_hash,
    open_run,
    read_run_info,
    write_atlases,
    write_run_info,
)
from atlas.texture import Texture

HIGHEST_TEXELS = 12_000
"""A column of atlases is not made higher than this if there are several."""


def shot_folder(run_folder: Path, number: int) -> Path:
    """Where shot `number` (from 0) has its run."""
    return run_folder / "shots" / f"{number + 1:02d}"


@dataclass(frozen=True)
class Sheet:
    """How one layer's atlases lie on their common canvas: each one's top left texel (x, y)."""

    canvas: Size
    places: tuple[tuple[int, int], ...]


def lay_out(sizes: list[Size]) -> Sheet:
    """Atlases one below the other, in as many columns as it takes."""
    places: list[tuple[int, int]] = []
    left, top, right, bottom = 0, 0, 0, 0
    for size in sizes:
        if top and top + size.height > HIGHEST_TEXELS:
            left, top = right, 0
        places.append((left, top))
        top += size.height
        right, bottom = max(right, left + size.width), max(bottom, top)
    return Sheet(Size(bottom, right), tuple(places))


class ShotPart(LayerMapping):
    """One shot's mapping, its atlases at their places on the common canvases."""

    def __init__(self, shot: LayerMapping, layers: tuple[Layer, ...], shifts: np.ndarray):
        """
        Args:
            layers: the layers with their common canvases. shifts: (L, 2) texels to add.
        """
        self.shot, self.layers = shot, layers
        self.frame_count, self.frame_size = shot.frame_count, shot.frame_size
        self._shifts = shifts.astype(np.float32)[:, None, None]
        self.in_any_order = shot.in_any_order

    def observe(self, t: int, rgb: np.ndarray) -> None:
        self.shot.observe(t, rgb)

    def frame(self, t: int, size: Size | None = None) -> FrameMapping:
        found = self.shot.frame(t, size)
        return FrameMapping(found.uv + self._shifts, found.alpha, found.confidence)


class ShotsMapping(LayerMapping):
    """Shots one after the other; frame numbers are those of the whole clip."""

    def __init__(self, parts: list[ShotPart], firsts: list[int]):
        self.parts, self.firsts = parts, firsts
        self.layers, self.frame_size = parts[0].layers, parts[0].frame_size
        self.frame_count = firsts[-1] + parts[-1].frame_count
        self.in_any_order = all(part.in_any_order for part in parts)

    def observe(self, t: int, rgb: np.ndarray) -> None:
        part, inside = self._part_of(t)
        part.observe(inside, rgb)

    def frame(self, t: int, size: Size | None = None) -> FrameMapping:
        part, inside = self._part_of(t)
        return part.frame(inside, size)

    def _part_of(self, t: int) -> tuple[ShotPart, int]:
        if not 0 <= t < self.frame_count:
            raise ValueError(f"t must be in 0..{self.frame_count - 1}, got {t}")
        number = int(np.searchsorted(self.firsts, t, side="right")) - 1
        return self.parts[number], t - self.firsts[number]


@dataclass(frozen=True)
class Shot:
    """One shot of an opened run, for edits: its frames are [first, first + part.frame_count).

    textures: those of the whole run, covered where this shot's atlases lie. shading: as `Run`'s,
    by the shot's own frame numbers.
    """

    first: int
    part: ShotPart
    textures: list[Texture]
    shading: Callable[..., np.ndarray] | None


def open_mapping(folder: Path, info: RunInfo) -> OpenedMapping:
    """Open a run of kind "shots"."""
    runs = [open_run(shot_folder(folder, i)) for i in range(len(info.shots))]
    firsts = [first for first, _ in info.shots]
    for run, (first, end) in zip(runs, info.shots, strict=True):
        if run.mapping.frame_count != end - first:
            raise InputError(
                f"{run.folder}: has {run.mapping.frame_count} frames, {folder / 'run.json'} says "
                f"{end - first}; train again"
            )
    sheets = _sheets([run.mapping.layers for run in runs])
    parts = [ShotPart(run.mapping, *_placed(run, sheets, i)) for i, run in enumerate(runs)]
    bases = [
        ShotPart(run.base, *_placed(run, sheets, i))
        for i, run in enumerate(runs)
        if run.base is not None
    ]
    textures = _joined([run.textures for run in runs], sheets)
    shots = tuple(
        Shot(first, part, _only(textures, sheets, i, run.textures), run.shading)
        for i, (first, part, run) in enumerate(zip(firsts, parts, runs, strict=True))
    )
    return OpenedMapping(
        ShotsMapping(parts, firsts),
        textures,
        ShotsMapping(bases, firsts) if len(bases) == len(runs) else None,
        _JoinedShading(runs, firsts) if any(run.shading is not None for run in runs) else None,
        shots,
    )


def write_shots(folder: Path, clip: Clip, spans: list[tuple[int, int]]) -> None:
    """Tie the shots' finished runs together: `run.json` and the common atlas pictures."""
    infos = []
    for number in range(len(spans)):
        own = shot_folder(folder, number)
        infos.append(replace(read_run_info(own), complete=True))
        write_run_info(own, infos[-1])
    weights = [info.frame_count / clip.frame_count for info in infos]
    psnr = sum(w * i.metrics.get("psnr_db", np.nan) for w, i in zip(weights, infos, strict=True))
    stages = sorted({name for info in infos for name in info.seconds})
    whole = replace(
        infos[0],
        kind="shots",
        frame_count=clip.frame_count,
        clip_sha256=clip_hash(clip),
        first_frame=0,
        shots=[list(span) for span in spans],
        complete=False,
        seconds={n: round(sum(i.seconds.get(n, 0.0) for i in infos), 2) for n in stages},
        metrics={"psnr_db": round(float(psnr), 3)},
    )
    write_run_info(folder, whole)
    opened = open_mapping(folder, whole)
    layers = opened.mapping.layers
    rows = [
        {"name": one.name, "height": one.canvas.height, "width": one.canvas.width} for one in layers
    ]
    write_run_info(folder, replace(whole, layers=rows))
    write_atlases(folder, layers, opened.textures)


class _JoinedShading:
    """(t, view size) -> (L, H, W, 3) gain, t a frame of the whole clip."""

    def __init__(self, runs: list[Run], firsts: list[int]):
        self.runs, self.firsts = runs, firsts

    def __call__(self, t: int, view: Size | None = None) -> np.ndarray:
        number = int(np.searchsorted(self.firsts, t, side="right")) - 1
        run = self.runs[number]
        if run.shading is not None:
            return run.shading(t - self.firsts[number], view)
        size = view or run.mapping.frame_size
        return np.ones((len(run.mapping.layers), size.height, size.width, 3), np.float32)

    def camera(self, t: int, view: Size | None = None) -> np.ndarray:
        """(H, W, 3): the camera's part of it; 1 in shots where it was not told apart."""
        number = int(np.searchsorted(self.firsts, t, side="right")) - 1
        run = self.runs[number]
        camera = getattr(run.shading, "camera", None)
        if camera is not None:
            return camera(t - self.firsts[number], view)
        size = view or run.mapping.frame_size
        return np.ones((size.height, size.width, 3), np.float32)


def _sheets(layers: list[tuple[Layer, ...]]) -> list[Sheet]:
    """Every layer's sheet, from every shot's layers."""
    return [lay_out([layer.canvas for layer in column]) for column in zip(*layers, strict=True)]


def _placed(run: Run, sheets: list[Sheet], number: int) -> tuple[tuple[Layer, ...], np.ndarray]:
    layers = tuple(
        Layer(layer.name, sheet.canvas)
        for layer, sheet in zip(run.mapping.layers, sheets, strict=True)
    )
    return layers, np.array([sheet.places[number] for sheet in sheets])


def _joined(textures: list[list[Texture]], sheets: list[Sheet]) -> list[Texture]:
    """Every layer's textures of all shots on one canvas."""
    out = []
    for i, sheet in enumerate(sheets):
        shape = (sheet.canvas.height, sheet.canvas.width)
        rgb, coverage = np.zeros((*shape, 3), np.float32), np.zeros(shape, np.float32)
        bare = np.zeros(shape, np.float32)
        for shot, place in zip(textures, sheet.places, strict=True):
            cut = _cut(place, shot[i].size)
            rgb[cut], coverage[cut] = shot[i].rgb, shot[i].coverage
            known = shot[i].bare
            bare[cut] = 0 if known is None else known
        out.append(Texture(rgb, coverage, bare))
    return out


def _only(
    textures: list[Texture], sheets: list[Sheet], number: int, own: list[Texture]
) -> list[Texture]:
    """The common textures, covered only where one shot's atlases lie."""
    out = []
    for texture, sheet, mine in zip(textures, sheets, own, strict=True):
        coverage = np.zeros_like(texture.coverage)
        coverage[_cut(sheet.places[number], mine.size)] = mine.coverage
        out.append(replace(texture, coverage=coverage))
    return out


def _cut(place: tuple[int, int], size: Size) -> tuple[slice, slice]:
    x, y = place
    return slice(y, y + size.height), slice(x, x + size.width)
