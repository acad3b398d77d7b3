"""Link what a detector finds in single frames into objects that persist, without flicker.

An object of the last frame is carried into this one along optical flow; it is the same as a
detection there when their masks overlap (IoU), each at most once (Hungarian assignment, Kuhn
1955). Frames where the detector misses it are filled from the frames before and after.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
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


class Track:
    """One object over time: what it is, and its detected masks by frame.

    Masks are kept compressed: a long clip with many objects would not fit into memory otherwise.
    """

    def __init__(self, label: str):
        self.label = label
        self.scores: dict[int, float] = {}
        """Frame -> score of the detection there; the frames in which the object was found."""
        self.carried: np.ndarray | None = None
        """(H, W) uint8: the last mask, warped along to the present frame; None once lost."""
        self._packed: dict[int, bytes] = {}

    def add(self, t: int, instance: Instance) -> None:
        self.carried = np.rint(instance.mask * 255).astype(np.uint8)
        self._packed[t] = zlib.compress(self.carried.tobytes(), 1)
        self.scores[t] = instance.score

    def mask(self, t: int, size: Size) -> np.ndarray:
        """(H, W) uint8, 255 = the object, as detected in frame t."""
        data = np.frombuffer(zlib.decompress(self._packed[t]), np.uint8)
        return data.reshape(size.height, size.width)


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
        (H, W) uint8 masks, 255 = an object, one per frame.
    """
    tracks, count = link_tracks(found, flow)
    kept = [k for k in tracks if max(k.scores.values()) >= min_score]
    return union_masks(kept, count, size, flow)


def link_tracks(found: Iterable[list[Instance]], flow: FlowOf) -> tuple[list[Track], int]:
    """The objects that persist for `MIN_FRAMES` (or the whole clip, if shorter); frame count."""
    tracks: list[Track] = []
    count = 0
    for t, instances in enumerate(found):
        _extend(tracks, t, instances, flow)
        count += 1
    least = min(MIN_FRAMES, count)
    return [k for k in tracks if len(k.scores) >= least], count


def union_masks(
    tracks: list[Track], frame_count: int, size: Size, flow: FlowOf
) -> list[np.ndarray]:
    """(H, W) uint8 per frame: the union of the tracks, their missed frames filled."""
    out = [np.zeros((size.height, size.width), np.uint8) for _ in range(frame_count)]
    for track in tracks:
        for t in track.scores:
            np.maximum(out[t], track.mask(t, size), out=out[t])
        for t, mask in fill_gaps(track, size, flow):
            np.maximum(out[t], mask, out=out[t])
    return out


def _extend(tracks: list[Track], t: int, instances: list[Instance], flow: FlowOf) -> None:
    """Match the detections of frame t to the living tracks; the rest start tracks."""
    living = [k for k in tracks if k.carried is not None]
    back = flow(t, t - 1) if living else None
    for track in living:
        if t - max(track.scores) > MAX_GAP_FRAMES + 1:
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


def fill_gaps(track: Track, size: Size, flow: FlowOf) -> Iterator[tuple[int, np.ndarray]]:
    """Frame and (H, W) uint8 mask of every missed frame between two detections of a track.

    The mask is the one before the gap and the one after it, warped there along flow, weighted by
    nearness in time.
    """
    for first, last in pairwise(sorted(track.scores)):
        forward, backward = {}, {}
        mask = track.mask(first, size).astype(np.float32)
        for t in range(first + 1, last):
            forward[t] = mask = warp_backward(mask, flow(t, t - 1))
        mask = track.mask(last, size).astype(np.float32)
        for t in range(last - 1, first, -1):
            backward[t] = mask = warp_backward(mask, flow(t, t + 1))
        for t in range(first + 1, last):
            share = (t - first) / (last - first)
            yield t, np.rint((1 - share) * forward[t] + share * backward[t]).astype(np.uint8)
