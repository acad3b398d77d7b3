"""Which sky matter to use: by name, or by a file of weights.

    matter = open_matter()              # the best that needs no download
    for rgb in frames:
        matte = matter.matte(rgb)       # (H, W) float32, 1 = sky

Modules of the matters are imported when one is opened: torch or onnxruntime may not be needed.
"""

from __future__ import annotations

from pathlib import Path

from atlas.errors import InputError
from preprocess.sky.matte import NETWORK_WEIGHTS, SkyMatter

MATTER_NAMES = ("auto", "classical", "network")
FOREIGN_SUFFIXES = (".pt", ".pth", ".onnx")
"""Files with other people's networks, see `preprocess.sky.foreign`."""


def open_matter(name: str = "auto", *, careful: bool = False) -> SkyMatter:
    """The matter called `name`.

    "classical", "network", "auto" for the best that is bundled, or a file: weights of our own
    network (`.safetensors`), SkyAR's checkpoint (`.pt`, `.pth`), an ONNX model (`.onnx`).

    Args:
        careful: look at each frame longer than a stream allows (`preprocess.sky.infer.CAREFUL`);
            for our own network only.
    """
    suffix = Path(name).suffix
    if suffix in FOREIGN_SUFFIXES:
        from preprocess.sky.foreign import open_foreign

        return open_foreign(Path(name))
    if suffix == ".safetensors":
        return _open_network(Path(name), careful)
    if name not in MATTER_NAMES:
        raise InputError(
            f"sky matte {name!r} is not known; wanted {', '.join(MATTER_NAMES)}, or a file: "
            "our .safetensors, SkyAR's .pt, an .onnx model"
        )
    bundled = NETWORK_WEIGHTS.is_file()
    if name == "network" and not bundled:
        raise InputError(
            f"{NETWORK_WEIGHTS}: not found; the learned sky matte needs it, "
            "'classical' works without"
        )
    if name == "classical" or not bundled:
        from preprocess.sky.classical import ClassicalMatter

        return ClassicalMatter()
    return _open_network(NETWORK_WEIGHTS, careful)


def _open_network(weights: Path, careful: bool) -> SkyMatter:
    from preprocess.sky.infer import CAREFUL, NetworkMatter

    return NetworkMatter(weights, CAREFUL if careful else None)
