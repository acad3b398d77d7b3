"""SkyAR's configuration files: every key of theirs as what it is here.

Their frames are resized to the output size, relit by mean transfer, blended by the matte and lit
by the halo; the sky is stretched over 1 / skybox_center_crop of the frame and repeated. `Look` with
mode "skyar" has the formulas, `SkyEdit` with fit "frame" and edges "wrap" the placement. Their
network and their motion estimate are not used: this program's matte and camera track are.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atlas.coords import Size
from atlas.errors import InputError
from edits.look import Look
from edits.recipe import Recipe, SkyEdit

_KINDS: dict[str, tuple[type, ...]] = {
    "net_G": (str,),
    "ckptdir": (str,),
    "input_mode": (str,),
    "datadir": (str,),
    "skybox": (str,),
    "in_size_w": (int,),
    "in_size_h": (int,),
    "out_size_w": (int,),
    "out_size_h": (int,),
    "skybox_center_crop": (int, float),
    "auto_light_matching": (bool,),
    "relighting_factor": (int, float),
    "recoloring_factor": (int, float),
    "halo_effect": (bool,),
    "output_dir": (str,),
    "save_jpgs": (bool,),
}
_NEEDED = ("datadir", "skybox", "out_size_w", "out_size_h")
_DEFAULTS: dict[str, Any] = {
    "input_mode": "video",
    "skybox_center_crop": 0.5,
    "auto_light_matching": False,
    "relighting_factor": 0.8,
    "recoloring_factor": 0.5,
    "halo_effect": True,
    "output_dir": ".",
    "save_jpgs": False,
}
_NOT_HONOURED = ("net_G", "ckptdir", "in_size_w", "in_size_h")


@dataclass(frozen=True)
class SkyARJob:
    """What a configuration asks for.

    source: video or folder of frames. size: of the work and the result. out: video, or folder of
    PNGs. note: one line on what is not as in SkyAR; empty when all is.
    """

    source: Path
    size: Size
    recipe: Recipe
    out: Path
    note: str


def read_skyar(path: Path) -> SkyARJob:
    """Read and check a configuration of SkyAR.

    Its paths are looked for where SkyAR would (from the working folder; skies in `skybox`), from
    the configuration's folder and from the one above it, since SkyAR keeps them in `config`.
    """
    path = Path(path)
    config = _checked(path)
    roots = (Path(), path.parent, path.parent.parent)
    source = _found(path, "datadir", [root / config["datadir"] for root in roots])
    if config["input_mode"] == "seq" and not source.is_dir():
        raise InputError(f"{path}: input_mode is 'seq', but datadir {source} is not a folder")
    if config["input_mode"] == "video" and source.is_dir():
        raise InputError(f"{path}: input_mode is 'video', but datadir {source} is a folder")
    skies = [root / folder / config["skybox"] for root in roots for folder in ("skybox", "")]
    sky = _found(path, "skybox", skies)
    crop = config["skybox_center_crop"]
    if not 0.05 <= crop <= 1:
        raise InputError(f"{path}: skybox_center_crop is {crop}, wanted 0.05 to 1")
    try:
        look = Look(
            mode="skyar",
            recolor=float(config["recoloring_factor"]),
            light_factor=float(config["relighting_factor"]),
            auto_light=config["auto_light_matching"],
            halo=float(config["halo_effect"]),
        )
    except InputError as err:
        raise InputError(f"{path}: {err}") from err
    edit = SkyEdit(source=sky.as_posix(), fit="frame", edges="wrap", scale=1 / crop)
    name = f"{source.stem}_skyar"
    out = Path(config["output_dir"]) / (name if config["save_jpgs"] else f"{name}.mp4")
    size = Size(config["out_size_h"], config["out_size_w"])
    return SkyARJob(source, size, Recipe(edits=(edit,), look=look), out, _note(path, config))


def _checked(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as err:
        raise InputError(f"{path}: not found; wanted a configuration of SkyAR (JSON)") from err
    except (OSError, ValueError) as err:
        raise InputError(f"{path}: not readable as JSON ({err})") from err
    if not isinstance(config, dict):
        raise InputError(f"{path}: wanted keys and values, as SkyAR's configurations have")
    for key, value in config.items():
        if key not in _KINDS:
            raise InputError(f"{path}: unknown key {key!r}; known are {', '.join(_KINDS)}")
        kinds = _KINDS[key]
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            wanted = {str: "text", int: "a number", bool: "true or false"}[kinds[0]]
            raise InputError(f"{path}: {key} is {value!r}, wanted {wanted}")
    for key in _NEEDED:
        if key not in config:
            raise InputError(f"{path}: {key!r} is missing")
    config = {**_DEFAULTS, **config}
    if config["input_mode"] not in ("seq", "video"):
        raise InputError(f"{path}: input_mode is {config['input_mode']!r}, wanted seq or video")
    for key in ("out_size_w", "out_size_h"):
        if not 16 <= config[key] <= 16384:
            raise InputError(f"{path}: {key} is {config[key]}, wanted 16 to 16384")
    return config


def _found(config: Path, key: str, places: list[Path]) -> Path:
    for place in places:
        if place.exists():
            return place
    tried = ", ".join(dict.fromkeys(str(place) for place in places))
    raise InputError(f"{config}: {key} was not found; looked for {tried}")


def _note(path: Path, config: dict[str, Any]) -> str:
    parts = []
    given = [key for key in _NOT_HONOURED if key in config]
    if given:
        parts.append(f"{', '.join(given)} not used (this program's own sky matte takes over)")
    if config["save_jpgs"]:
        parts.append("save_jpgs writes PNGs")
    return f"{path}: {'; '.join(parts)}" if parts else ""
