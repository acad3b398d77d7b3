"""The report of an evaluation: sheets of pictures, report.json, one page to read.

Files are gathered in a folder of their own and moved into place when all of them are whole, with
report.json last.
"""

from __future__ import annotations

import html
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import cv2
import numpy as np

from atlas.clip import Clip, write_bytes, write_rgb
from atlas.coords import Size
from atlas.errors import InputError
from atlas.evaluation import ContenderView, Measurement
from atlas.mapping import visible_shares
from atlas.sheets import (
    before_after,
    contact_sheet,
    fit_width,
    over_squares,
    shade_by,
    side_by_side,
    tint,
)
from atlas.survey import Contender
from atlas.video_writer import VideoWriter

REPORT_VERSION = 1
FULL = "full"
"""Folder of `atlas.full_report` within the report."""
CELL_WIDTH = 320
VIDEO_WIDTH = 1920
"""What the side-by-side video is at most wide, pixels."""
_LAYER_COLORS = ((255, 70, 40), (60, 200, 90), (70, 120, 255), (240, 200, 40))
TITLES = {"atlas": "neural atlas", "fast": "fast path"}


class Gallery:
    """Collects the pictures of a few frames, small, and lays them out."""

    def __init__(self, measurement: Measurement):
        self._measurement = measurement
        self._names = [c.name for c in measurement.contenders]
        self._rows: dict[str, list[list[np.ndarray | None]]] = {
            "contact": [],
            "checkerboard": [],
            "alpha": [],
        }
        self._times: list[int] = []
        self._before_after: np.ndarray | None = None

    def add(self, t: int, rgb: np.ndarray, views: dict[str, ContenderView]) -> None:
        """Keep what the sheets show of frame `t`."""
        small = fit_width(rgb, CELL_WIDTH)
        found = [views[name] for name in self._names]
        edits = [None if v.edited is None else fit_width(v.edited, CELL_WIDTH) for v in found]
        rebuilt = [fit_width(v.reconstruction, CELL_WIDTH) for v in found[:1]]
        self._rows["contact"].append([small, *rebuilt, *edits])
        boards = [fit_width(self._board(n, rgb, views[n]), CELL_WIDTH) for n in self._names]
        self._rows["checkerboard"].append([small, *boards])
        mattes = [fit_width(_matted(rgb, v.found.visible()), CELL_WIDTH) for v in found]
        clip = self._measurement.clip
        given = visible_shares(clip.alpha(t))
        self._rows["alpha"].append([small, fit_width(_matted(rgb, given), CELL_WIDTH), *mattes])
        self._times.append(t)
        first = found[0].edited
        if first is not None and (self._before_after is None or t <= clip.frame_count // 2):
            self._before_after = before_after(rgb, first)

    def pictures(self) -> dict[str, np.ndarray]:
        """File name to picture, (H, W, 3) uint8."""
        titles = [TITLES.get(name, name) for name in self._names]
        columns = {
            "contact": ["input", f"{titles[0]}: rebuilt", *(f"{t}: edited" for t in titles)],
            "checkerboard": ["input", *titles],
            "alpha": ["input", "given masks", *titles],
        }
        frames = [f"frame {t}" for t in self._times]
        out = {
            f"{key}.png": contact_sheet(rows, columns[key], frames, CELL_WIDTH)
            for key, rows in self._rows.items()
            if rows
        }
        out["atlases.png"] = atlas_sheet(self._measurement.contenders)
        if self._before_after is not None:
            out["before_after.png"] = self._before_after
        return out

    def _board(self, name: str, rgb: np.ndarray, view: ContenderView) -> np.ndarray:
        """The frame with every layer's checkerboard on it, as the warping error sees it."""
        out = rgb
        shares = view.found.visible()
        for warp in self._measurement.scores[name].warps.values():
            if warp.usable:
                board = warp.picture(view.found.uv[warp.layer])
                out = shade_by(out, board, shares[warp.layer])
        return out


class SideBySide:
    """The comparison video: both paths, or input and edit where there is only one path."""

    def __init__(self, measurement: Measurement, path: Path, count: int):
        names = [c.name for c in measurement.contenders]
        self._names = names[:2]
        labels = [TITLES.get(name, name) for name in self._names]
        self._labels = (labels[0], labels[1]) if len(labels) > 1 else ("input", labels[0])
        clip = measurement.clip
        shrink = min(1.0, VIDEO_WIDTH / 2 / clip.size.width)
        even = [2 * max(round(n * shrink / 2), 1) for n in (clip.size.height, clip.size.width)]
        self._half = Size(even[0], even[1])
        self.writer = VideoWriter(
            path,
            Size(even[0], 2 * even[1]),
            fps=clip.info.fps,
            frame_times_s=clip.info.frame_times_s[:count],
            audio_from=_sound_of(clip),
            crf=20,
            preset="veryfast",
        )

    def write(self, rgb: np.ndarray, views: dict[str, ContenderView]) -> None:
        """Append one frame."""
        edits = [views[name].edited for name in self._names]
        pictures = [rgb if e is None else e for e in edits]
        left, right = pictures if len(pictures) == 2 else (rgb, pictures[0])
        halves = [cv2.resize(p, self._half.wh, interpolation=cv2.INTER_AREA) for p in (left, right)]
        self.writer.write(side_by_side(halves[0], halves[1], self._labels))


def _sound_of(clip: Clip) -> Path | None:
    """The clip's source if it has sound and is still there."""
    source = clip.info.source
    if source is None or source.audio is None:
        return None
    path = clip.folder / source.path  # an absolute path stays as it is
    return path if path.is_file() else None


def atlas_sheet(contenders: list[Contender]) -> np.ndarray:
    """Every contender's atlases, what was never seen as grey squares."""
    names = list(dict.fromkeys(layer.name for c in contenders for layer in c.mapping.layers))
    rows: list[list[np.ndarray | None]] = []
    for name in names:
        row: list[np.ndarray | None] = []
        for c in contenders:
            found = [i for i, layer in enumerate(c.mapping.layers) if layer.name == name]
            row.append(over_squares(c.textures[found[0]].rgba8()) if found else None)
        rows.append(row)
    return contact_sheet(rows, [TITLES.get(c.name, c.name) for c in contenders], names, 640)


def _matted(rgb: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """The frame with each layer above the bottom one in its colour."""
    for share, color in zip(shares[:-1], _LAYER_COLORS * len(shares), strict=False):
        rgb = tint(rgb, share, color)
    return rgb


@contextmanager
def staged(out: Path, last: str = "report.json") -> Iterator[Path]:
    """A folder to write to; on clean exit its files replace those in `out`, `last` the last.

    On an exception nothing in `out` has changed. What an interrupted earlier run left is removed.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; --out wants a folder")
    made = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    stage = out / ".partial"
    shutil.rmtree(stage, ignore_errors=True)
    stage.mkdir()
    try:
        yield stage
        for path in sorted(stage.iterdir(), key=lambda p: p.name == last):
            if path.is_dir():
                shutil.rmtree(out / path.name, ignore_errors=True)
            path.replace(out / path.name)
    finally:
        shutil.rmtree(stage, ignore_errors=True)
        if made and not any(out.iterdir()):
            out.rmdir()


def write_report(folder: Path, report: dict[str, Any], pictures: dict[str, np.ndarray]) -> None:
    """Write the pictures, report.html and report.json into `folder`."""
    for name, rgb in pictures.items():
        write_rgb(folder / name, rgb)
    video = "side_by_side.mp4" if (folder / "side_by_side.mp4").is_file() else None
    full = sorted(path.name for path in (folder / FULL).glob("*"))
    page = report_page(report, list(pictures), video, full)
    write_bytes(folder / "report.html", page.encode("utf-8"))
    text = json.dumps(report, indent=1, allow_nan=False)
    write_bytes(folder / "report.json", text.encode("utf-8"))


_ROWS = (
    ("psnr_db", "reconstruction PSNR", "dB", "higher is sharper"),
    ("psnr_camera_light_db", "with the camera's light alone", "dB", "exposures, one vignette"),
    ("psnr_no_shading_db", "without any light, same textures", "dB", ""),
    ("psnr_by_layer_db", "PSNR inside each layer", "dB", ""),
    ("ssim", "reconstruction SSIM", "", "1 is equal"),
    ("warp_error", "warping error of a checkerboard", "0..1", "lower is steadier"),
    ("warp_error_by_layer", "the same in each layer", "0..1", ""),
    ("drift_px", "drift within two frames, median / 95 %", "px", "lower is steadier"),
    ("alpha_iou", "matte against the given masks, IoU", "", "1 is equal"),
    ("uv_error_px", "uv error against the truth, median / 95 %", "px", "where truth is known"),
    ("uv_error_smooth_px", "the same, canvas bent to fit", "px", "where truth is known"),
    ("edit_psnr_db", "edited video against the truth, PSNR", "dB", "where truth is known"),
)
_CAPTIONS = {
    "contact.png": "Input, reconstruction, and the same edit through each path",
    "before_after.png": "Before and after",
    "atlases.png": "The atlases; grey squares were never seen",
    "checkerboard.png": "A checkerboard painted in every layer: it should stick to what it lies on",
    "alpha.png": "Layers above the bottom one, tinted by their share of each pixel",
}
_STYLE = """body{font:15px/1.5 system-ui,sans-serif;background:#18191c;color:#e1e2e6;
margin:2rem auto;max-width:1200px;padding:0 1rem}
h1{font-size:1.5rem}h2{font-size:1.05rem;margin-top:2rem}
table{border-collapse:collapse}td,th{padding:.25rem .8rem;text-align:right;vertical-align:top;
border-bottom:1px solid #33353b}td:first-child,th:first-child,td:last-child{text-align:left}
td:last-child{color:#9a9ca5}img,video{max-width:100%;display:block}code{color:#b9c7ff}"""


def report_page(
    report: dict[str, Any], pictures: list[str], video: str | None, full: Sequence[str] = ()
) -> str:
    """One self-contained HTML page; pictures and the video are linked by their names.

    Args:
        full: names of the files in the folder `FULL`.
    """
    clip, run = report["clip"], report["run"]
    paths = [p for p in ("atlas", "fast") if report[p]["psnr_db"] is not None]
    head = "".join(f"<th>{html.escape(TITLES[p])}</th>" for p in paths)
    body = "".join(
        f"<tr><td>{title}</td>"
        + "".join(f"<td>{_cell(report[p][key])}</td>" for p in paths)
        + f"<td>{html.escape(' - '.join(x for x in (unit, hint) if x))}</td></tr>"
        for key, title, unit, hint in _ROWS
    )
    seconds = ", ".join(
        f"{name} {_number(value)} s" for name, value in report["seconds"].items() if value
    )
    parts = [
        f"<h1>{html.escape(clip['name'])}</h1>",
        f"<p>{clip['frames_measured']} of {clip['frame_count']} frames, "
        f"{clip['width']}x{clip['height']}; run <code>{html.escape(run['folder'])}</code>; "
        f"layers {html.escape(', '.join(run['layers']))}; edit: "
        f"{html.escape(_edit_line(report['edit']))}</p>",
        f"<table><tr><th></th>{head}<th></th></tr>{body}</table>",
        f"<p>{html.escape(seconds)}; peak memory {_number(report['peak_memory_mb'])} MB.<br>"
        f"{html.escape(report['machine'])}; commit {html.escape(str(report['commit']))}; "
        f"{html.escape(report['date'])}</p>",
    ]
    if video:
        parts.append(f"<h2>Side by side</h2><video controls loop src='{video}'></video>")
    for name in [n for n in _CAPTIONS if n in pictures]:
        parts.append(f"<h2>{_CAPTIONS[name]}</h2><a href='{name}'><img src='{name}' alt=''></a>")
    if full:
        parts.append("<h2>Everything</h2>" + "".join(_full_item(name) for name in full))
    return (
        "<!doctype html><html lang='en'><meta charset='utf-8'>"
        f"<title>{html.escape(clip['name'])}: evaluation</title><style>{_STYLE}</style>"
        + "".join(parts)
        + "</html>\n"
    )


def _full_item(name: str) -> str:
    """A link to one file of the folder `FULL`; videos play in place when asked to."""
    address = f"{FULL}/{quote(name)}"
    if not name.endswith(".mp4"):
        return f"<p><a href='{address}'>{html.escape(name)}</a></p>"
    play = f"<video controls loop preload='none' src='{address}'></video>"
    style = "display:inline-block;width:31%;margin:0 1% 1rem 0"
    return f"<figure style='{style}'>{play}<figcaption>{html.escape(name)}</figcaption></figure>"


def _edit_line(edit: dict[str, Any] | None) -> str:
    if edit is None:
        return "none"
    source = f" {edit['source']}" if edit["source"] else ""
    return f"{edit['kind']}{source} on layer {edit['layer']}"


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        if set(value) == {"median", "p95"}:
            return f"{_number(value['median'])} / {_number(value['p95'])}"
        return "<br>".join(f"{html.escape(k)} {_cell(v)}" for k, v in value.items()) or "&ndash;"
    return _number(value)


def _number(value: float | None) -> str:
    if value is None:
        return "&ndash;"
    return (
        f"{value:.4f}"
        if abs(value) < 1
        else f"{value:.2f}"
        if abs(value) < 1000
        else f"{value:.0f}"
    )
