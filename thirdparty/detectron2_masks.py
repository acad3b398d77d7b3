"""Mask R-CNN through detectron2, where that package is installed; same interface as torchvision's.

detectron2 is on no package registry and installs from its own repository; its model zoo brings
the weights, unless a local file is given.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from atlas.errors import InputError
from thirdparty.mask_rcnn import ANYTHING, LOWEST_SCORE, Detector, Instance, check_class

CONFIG = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml"


class Detectron2MaskRcnn(Detector):
    """detectron2's Mask R-CNN R50-FPN 3x (COCO mask AP 37.2 in its model zoo)."""

    def __init__(
        self,
        class_name: str = ANYTHING,
        weights: Path | str | None = None,
        device: str = "cpu",
    ):
        try:
            from detectron2 import model_zoo
            from detectron2.config import get_cfg
            from detectron2.data import MetadataCatalog
            from detectron2.engine import DefaultPredictor
        except ImportError as err:
            raise InputError(
                f"--masks detectron2 needs the package detectron2 ({err}); it is on no package "
                "registry: pip install 'git+https://github.com/facebookresearch/detectron2.git' "
                "(needs a C++ compiler), or take --masks maskrcnn, which comes with torchvision"
            ) from err
        if weights is not None and not Path(weights).is_file():
            raise InputError(f"{weights}: weights not found; wanted a detectron2 checkpoint")
        config = get_cfg()
        config.merge_from_file(model_zoo.get_config_file(CONFIG))
        config.MODEL.WEIGHTS = str(weights or model_zoo.get_checkpoint_url(CONFIG))
        config.MODEL.DEVICE = device
        config.MODEL.ROI_HEADS.SCORE_THRESH_TEST = LOWEST_SCORE
        self._names = list(MetadataCatalog.get(config.DATASETS.TRAIN[0]).thing_classes)
        self._class_name = check_class(class_name, self._names)
        self._predict = DefaultPredictor(config)

    def detect(self, rgb: np.ndarray) -> list[Instance]:
        bgr = np.ascontiguousarray(rgb[..., ::-1])  # the predictor's config asks for BGR
        found = self._predict(bgr)["instances"].to("cpu")
        rows = zip(
            found.pred_masks.numpy(),
            found.scores.tolist(),
            found.pred_boxes.tensor.tolist(),
            found.pred_classes.tolist(),
            strict=True,
        )
        instances = [
            Instance(mask.astype(np.float32), score, tuple(box), self._names[k])
            for mask, score, box, k in rows
        ]
        return [i for i in instances if self._class_name in (ANYTHING, i.label)]
