"""Mask R-CNN (He et al., ICCV 2017) on COCO through torchvision: objects in one picture."""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from atlas.errors import InputError
from thirdparty.raft import import_torchvision
from thirdparty.weights import RECORDS, Report, find_weights, load_state

ANYTHING = "anything"
LOWEST_SCORE = 0.3
"""Weaker detections are dropped here; tracking decides on the rest with all frames in view."""


@dataclass(frozen=True)
class Instance:
    """One object in one picture.

    mask: (H, W) float32, probability of belonging to the object, [0, 1].
    score: [0, 1]. box: (x0, y0, x1, y1), pixels. label: class name.
    """

    mask: np.ndarray
    score: float
    box: tuple[float, float, float, float]
    label: str


class Detector(ABC):
    """Finds instances of the wanted class, strongest first."""

    @abstractmethod
    def detect(self, rgb: np.ndarray) -> list[Instance]:
        """Objects in an (H, W, 3) uint8 RGB picture with a score of `LOWEST_SCORE` or more."""


class MaskRcnn(Detector):
    """torchvision's maskrcnn_resnet50_fpn_v2, or the older _fpn where local weights are of it."""

    def __init__(
        self,
        class_name: str = ANYTHING,
        weights: Path | str | None = None,
        device: str = "cpu",
        report: Report | None = None,
    ):
        import_torchvision()
        from torchvision.models import detection

        self._class_name = check_class(class_name, known_classes())
        path = find_weights(RECORDS["maskrcnn_resnet50_fpn_v2"], weights, report)
        state = load_state(path)
        # only the v2 heads have several box convolutions
        v2 = any(key.startswith("roi_heads.box_head.1") for key in state)
        name = "maskrcnn_resnet50_fpn_v2" if v2 else "maskrcnn_resnet50_fpn"
        network = getattr(detection, name)(
            weights=None,
            weights_backbone=None,
            progress=False,
            box_score_thresh=LOWEST_SCORE,
            num_classes=len(coco_classes()),
        )
        try:
            network.load_state_dict(state)
        except RuntimeError as err:
            reason = " ".join(str(err).split())[:200]
            raise InputError(
                f"{path}: not the weights of {name} on COCO ({reason}); wanted torchvision's file"
            ) from err
        self._device = torch.device(device)
        self._network = network.to(self._device).eval()

    def detect(self, rgb: np.ndarray) -> list[Instance]:
        tensor = torch.from_numpy(np.ascontiguousarray(rgb)).to(self._device)
        with torch.inference_mode():
            found = self._network([tensor.permute(2, 0, 1).float() / 255])[0]
        names = coco_classes()
        rows = zip(
            found["masks"][:, 0].cpu().numpy(),
            found["scores"].tolist(),
            found["boxes"].tolist(),
            found["labels"].tolist(),
            strict=True,
        )
        instances = [Instance(mask, score, tuple(box), names[k]) for mask, score, box, k in rows]
        return [i for i in instances if self._class_name in (ANYTHING, i.label)]


def coco_classes() -> list[str]:
    """The 91 class slots of COCO as torchvision numbers them; unused ones are "N/A"."""
    from torchvision.models.detection import MaskRCNN_ResNet50_FPN_V2_Weights

    return list(MaskRCNN_ResNet50_FPN_V2_Weights.COCO_V1.meta["categories"])


def known_classes() -> list[str]:
    """The classes that can be asked for."""
    return [n for n in coco_classes() if n != "N/A" and not n.startswith("__")]


def check_class(name: str, names: Sequence[str]) -> str:
    """`name` as the class list spells it; `InputError` with close names when it is not there."""
    wanted = " ".join(name.lower().replace("_", " ").split())
    if wanted == ANYTHING:
        return ANYTHING
    by_lower = {n.lower(): n for n in names}
    if wanted in by_lower:
        return by_lower[wanted]
    close = difflib.get_close_matches(wanted, by_lower, n=4, cutoff=0.5)
    close += [n for n in by_lower if wanted and wanted in n and n not in close]
    hint = (
        f"close: {', '.join(by_lower[n] for n in close)}"
        if close
        else (f"known: {', '.join(sorted(names))}")
    )
    raise InputError(
        f"--class-name {name!r} is no COCO class; {hint}; or {ANYTHING!r} for every class"
    )
