"""Sky mattes by other people's networks, from a file that the user has: SkyAR's, or any ONNX model.

    open_foreign(Path("best_ckpt.pt"))        # SkyAR's coord_resnet50
    open_foreign(Path("model.onnx"))          # one RGB input, one map of opacity out

Their small matte is steadied and refined like that of our own network.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from pathlib import Path

import cv2
import numpy as np
import torch

from atlas.coords import Size
from atlas.errors import InputError
from preprocess.sky.matte import SkyMatter, check_rgb
from preprocess.sky.refine import RefineOptions, refine_matte
from preprocess.sky.temporal import FineSteadier, FlowSteadier
from thirdparty.skyar import SIDE_PX, CoordResNet50, load_skyar

_ONNX_SIDE_PX = 320
_IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_IMAGENET_SPREAD = np.array([0.229, 0.224, 0.225], np.float32)


class ForeignMatter(SkyMatter):
    """A matter round a network that answers for a small picture of a fixed size."""

    size: Size
    """What the network wants."""

    def __init__(self, path: Path) -> None:
        """`path`: the network's file."""
        self._path = path
        self._steadier = FlowSteadier()
        self._fine = FineSteadier()
        self._refine = RefineOptions()

    def reset(self) -> None:
        self._steadier.reset()
        self._fine.reset()

    def fingerprint(self) -> str:
        digest = hashlib.blake2b(self._path.read_bytes(), digest_size=8).hexdigest()
        return f"{type(self).__name__} {digest}, {self._refine}"

    def matte(self, rgb: np.ndarray) -> np.ndarray:
        check_rgb(rgb)
        small = cv2.resize(rgb, self.size.wh, interpolation=cv2.INTER_AREA)
        coarse = self._steadier(small, self.answer(small))
        return self._fine(refine_matte(rgb, small, coarse, self._refine), self._steadier.motion)

    @abstractmethod
    def answer(self, small: np.ndarray) -> np.ndarray:
        """The network's opacity (h, w) float32 in [0, 1] for `small` (h, w, 3) uint8."""


class SkyArMatter(ForeignMatter):
    """SkyAR's network with the user's own checkpoint."""

    def __init__(self, network: CoordResNet50, path: Path) -> None:
        super().__init__(path)
        self.size = Size(SIDE_PX, SIDE_PX)
        self._network = network

    def answer(self, small: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            rgb = torch.from_numpy(small).permute(2, 0, 1)[None].float() / 255
            return self._network(rgb)[0, 0].numpy()


class OnnxMatter(ForeignMatter):
    """An ONNX model: (1, 3, H, W) RGB in, its last two output axes taken as the matte.

    Colours go in as [0, 1]; with `imagenet` they are centred and scaled as ImageNet models want.
    Answers outside [0, 1] are taken as logits.
    """

    def __init__(self, path: Path, *, imagenet: bool = False) -> None:
        super().__init__(path)
        try:
            import onnxruntime
        except ModuleNotFoundError as err:
            raise InputError("an ONNX matte needs onnxruntime: pip install '.[onnx]'") from err
        if not path.is_file():
            raise InputError(f"{path}: no such file; wanted an ONNX model")
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), providers=["CPUExecutionProvider"]
            )
        except RuntimeError as err:  # onnxruntime's own errors derive from it
            raise InputError(f"{path}: not a usable ONNX model ({err})") from err
        entry = self._session.get_inputs()[0]
        shape = entry.shape
        if len(shape) != 4 or shape[1] not in (3, "3"):
            raise InputError(f"{path}: its input is {shape}; wanted (1, 3, height, width)")
        self._input = entry.name
        self._imagenet = imagenet
        height, width = (v if isinstance(v, int) and v > 0 else _ONNX_SIDE_PX for v in shape[2:])
        self.size = Size(height, width)

    def answer(self, small: np.ndarray) -> np.ndarray:
        rgb = small.astype(np.float32) / 255
        if self._imagenet:
            rgb = (rgb - _IMAGENET_MEAN) / _IMAGENET_SPREAD
        (result, *_) = self._session.run(None, {self._input: rgb.transpose(2, 0, 1)[None]})
        values = np.asarray(result, np.float32)
        values = values.reshape(-1, *values.shape[-2:])[-1]
        if values.min() < 0 or values.max() > 1:
            values = 1 / (1 + np.exp(-np.clip(values, -30, 30)))
        return cv2.resize(values, self.size.wh, interpolation=cv2.INTER_LINEAR)


def open_foreign(path: Path) -> ForeignMatter:
    """The matter for a `.pt`/`.pth` checkpoint of SkyAR or an `.onnx` model.

    A model whose file name holds the word "imagenet" is given colours as ImageNet models want.
    """
    if path.suffix == ".onnx":
        return OnnxMatter(path, imagenet="imagenet" in path.stem.lower())
    return SkyArMatter(load_skyar(path), path)
