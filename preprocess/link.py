"""Link what a detector finds in single frames into objects that persist, without flicker.

An object of the last frame is carried into this one along optical flow; it is the same as a
detection there when their masks overlap (IoU), each at most once (Hungarian assignment, Kuhn
1955). Frames where the detector misses it are filled from the frames before and after.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
from scipy.optimize import linear_sum_assignment

from atlas.coords import Size
from preprocess.flow import download_bar, warp_backward
from thirdparty.mask_rcnn import Detector, Instance

MIN_IOU = 0.3
"""Least overlap of a carried mask and a detection that are one object."""
MAX_GAP_FRAMES = 5
"""Longest run of missed frames that is filled."""
MIN_FRAMES = 3
"""Objects detected in fewer frames are dropped as false alarms (in clips that are longer)."""

FlowOf = Callable[[int, int], np.ndarray]


@dataclass
class Track:
    """One object over time: its masks by frame, uint8 as they are written (255 = the object)."""

    label: str
    best_score: float = 0.0
    masks: dict[int, np.ndarray] = field(default_factory=dict)
    """Frame -> (H, W) uint8: detections, and after `fill_gaps` the filled frames too."""
    carried: np.ndarray | None = None
    """(H, W) uint8: the last mask, warped along while the object is missed."""

    def add(self, t: int, instance: Instance) -> None:
        self.masks[t] = np.rint(instance.mask * 255).astype(np.uint8)
        self.carried = self.masks[t]
        self.best_score = max(self.best_score, instance.score)


def open_detector(
    kind: str, class_name: str, weights: Path | None = None, device: str = "cpu"
) -> Detector:
    """The detector behind `--masks maskrcnn` or `--masks detectron2`."""
    if kind == "detectron2":
        from thirdparty.detectron2_masks import Detectron2MaskRcnn

        return Detectron2MaskRcnn(class_name, weights, device)
    from thirdparty.mask_rcnn import MaskRcnn

    with download_bar("fetching Mask R-CNN") as report:
        return MaskRcnn(class_name, weights, device, report)


def link_instances(
    found: Iterable[list[Instance]], flow: FlowOf, size: Size, min_score: float = 0.5
) -> list[np.ndarray]:
    """One mask per frame: the union of all objects that persist.

    Args:
        found: the detections of each frame, in order.
        flow: flow(a, b) -> (H, W, 2) px from frame a to its neighbour b.
        size: of the masks.
        min_score: an object counts when at least one of its detections scores this.
    Returns:
        (H, W) float32 masks in [0, 1], one per frame.
    """
    tracks: list[Track] = []
    count = 0
    for t, instances in enumerate(found):
        _extend(tracks, t, instances, flow)
        count += 1
    least = min(MIN_FRAMES, count)
    tracks = [k for k in tracks if k.best_score >= min_score and len(k.masks) >= least]
    for track in tracks:
        fill_gaps(track, flow)
    out = []
    for t in range(count):
        union = np.zeros((size.height, size.width), np.uint8)
        for track in tracks:
            if t in track.masks:
                np.maximum(union, track.masks[t], out=union)
        out.append(union.astype(np.float32) / 255)
    return out


def _extend(tracks: list[Track], t: int, instances: list[Instance], flow: FlowOf) -> None:
    """Match the detections of frame t to the living tracks; the rest start tracks."""
    living = [k for k in tracks if k.carried is not None]
    back = flow(t, t - 1) if living else None
    for track in living:
        if t - max(track.masks) > MAX_GAP_FRAMES + 1:
            track.carried = None
        elif track.carried is not None and back is not None:
            track.carried = warp_backward(track.carried, back)
    living = [k for k in living if k.carried is not None]
    overlaps = np.array(
        [[_overlap(k, instance) for instance in instances] for k in living], np.float64
    ).reshape(len(living), len(instances))
    matched = set()
    for row, column in zip(*linear_sum_assignment(-overlaps), strict=True):
        if overlaps[row, column] >= MIN_IOU:
            living[row].add(t, instances[column])
            matched.add(column)
    for column, instance in enumerate(instances):
        if column not in matched:
            track = Track(instance.label)
            track.add(t, instance)
            tracks.append(track)


def _overlap(track: Track, instance: Instance) -> float:
    """IoU of the carried mask and a detection; a tenth off where the class names differ.

    Detectors waver between related classes (car, truck) on one object from frame to frame.
    """
    assert track.carried is not None
    value = iou(track.carried >= 128, instance.mask >= 0.5)
    return value if track.label == instance.label else 0.9 * value


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two bool masks; two empty ones agree fully."""
    union = np.count_nonzero(a | b)
    return np.count_nonzero(a & b) / union if union else 1.0


def fill_gaps(track: Track, flow: FlowOf) -> None:
    """Fill a track's missed frames: masks warped from both ends, weighted by nearness in time."""
    known = sorted(track.masks)
    for first, last in pairwise(known):
        if last - first == 1:
            continue
        forward, backward = {}, {}
        mask = track.masks[first].astype(np.float32)
        for t in range(first + 1, last):
            forward[t] = mask = warp_backward(mask, flow(t, t - 1))
        mask = track.masks[last].astype(np.float32)
        for t in range(last - 1, first, -1):
            backward[t] = mask = warp_backward(mask, flow(t, t + 1))
        for t in range(first + 1, last):
            share = (t - first) / (last - first)
            blend = (1 - share) * forward[t] + share * backward[t]
            track.masks[t] = np.rint(blend).astype(np.uint8)
