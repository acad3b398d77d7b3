"""Mask R-CNN adapters and the linking of instances over time."""

import sys
import types

import numpy as np
import pytest
import torch

from atlas.coords import Size
from atlas.errors import InputError
from preprocess.link import MAX_GAP_FRAMES, iou, link_instances, open_detector
from thirdparty.mask_rcnn import ANYTHING, Instance, MaskRcnn, check_class, coco_classes


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Small networks on a busy machine: threads that wait for each other cost more than they do."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


SIZE = Size(height=60, width=110)
STEP = (4, 1)
"""Every object of these clips moves by this much per frame, px."""


def disc(centre_xy, radius=10) -> np.ndarray:
    y, x = np.mgrid[: SIZE.height, : SIZE.width]
    return ((x - centre_xy[0]) ** 2 + (y - centre_xy[1]) ** 2 <= radius**2).astype(np.float32)


def thing(t, start=(15, 20), score=0.9, label="dog", radius=10) -> Instance:
    centre = (start[0] + STEP[0] * t, start[1] + STEP[1] * t)
    return Instance(disc(centre, radius), score, (0, 0, 1, 1), label)


def flow(a: int, b: int) -> np.ndarray:
    assert abs(a - b) == 1
    whole = np.empty((SIZE.height, SIZE.width, 2), np.float32)
    whole[:] = np.array(STEP, np.float32) * (b - a)
    return whole


def linked(found, min_score=0.5) -> list[np.ndarray]:
    return [m >= 128 for m in link_instances(found, flow, SIZE, min_score)]


def test_a_missed_object_is_filled_where_it_must_be():
    found = [[thing(t)] if t not in (3, 4, 5) else [] for t in range(10)]
    masks = linked(found)
    for t in range(10):
        assert iou(masks[t], thing(t).mask > 0.5) > 0.97, t  # whole-pixel steps: nearly exact


def test_a_gap_too_long_is_not_filled():
    gap = range(4, 4 + MAX_GAP_FRAMES + 1)
    masks = linked([[thing(t)] if t not in gap else [] for t in range(16)])
    assert masks[3].any()
    assert not masks[5].any()
    assert masks[12].any()


def test_what_leaves_is_not_carried_on():
    masks = linked([[thing(t)] if t < 5 else [] for t in range(9)])
    assert masks[4].any()
    assert not masks[5].any()


def test_a_flash_is_dropped_and_a_short_clip_is_not():
    found = [[thing(t)] + ([thing(t, start=(80, 40))] if t in (2, 3) else []) for t in range(8)]
    masks = linked(found)
    assert not (masks[2] & (thing(2, start=(80, 40)).mask > 0.5)).any()
    assert linked([[thing(0)]])[0].any()


def test_weak_detections_count_only_for_an_object_seen_well_once():
    weak = [[thing(t, score=0.35)] for t in range(6)]
    assert not any(m.any() for m in linked(weak))
    weak[2] = [thing(2, score=0.8)]
    assert all(m.any() for m in linked(weak))


def test_two_objects_are_not_swapped_for_one():
    """Two nearby objects, one missed for a while: its gap is filled, not lent to the other."""
    other = (40, 20)
    found = [[thing(t, start=other)] + ([thing(t)] if t not in (2, 3) else []) for t in range(7)]
    for t, mask in enumerate(linked(found)):
        wanted = (thing(t).mask + thing(t, start=other).mask) > 0.5
        assert iou(mask, wanted) > 0.97, t


def test_a_wavering_class_is_still_one_object():
    labels = ["car", "truck", "car", "bus", "car"]
    masks = linked([[thing(t, label=name)] for t, name in enumerate(labels)])
    assert all(m.any() for m in masks)


def test_nothing_found_gives_empty_masks():
    masks = link_instances([[], [], []], flow, SIZE)
    assert [m.shape for m in masks] == [(60, 110)] * 3
    assert not any(m.any() for m in masks)


def test_iou_is_pinned():
    a, b = np.zeros((2, 3, 5), bool)
    a[0, :4] = True
    b[0, 2:] = True
    assert iou(a, b) == pytest.approx(2 / 5)
    assert iou(a, a) == 1
    assert iou(a & False, b & False) == 1


# --- class names ----------------------------------------------------------------------------


def test_class_names():
    names = [n for n in coco_classes() if n != "N/A"]
    assert check_class("Person", names) == "person"
    assert check_class("traffic_light", names) == "traffic light"
    assert check_class("anything", names) == ANYTHING


@pytest.mark.parametrize(
    ("asked", "words"),
    [("persn", "close: person"), ("horses", "close: horse"), ("light", "traffic light")],
)
def test_an_unknown_class_lists_close_names(asked, words):
    names = [n for n in coco_classes() if n != "N/A" and not n.startswith("__")]
    with pytest.raises(InputError, match=rf"--class-name '{asked}' is no COCO class; .*{words}"):
        check_class(asked, names)


def test_a_name_close_to_none_lists_them_all():
    with pytest.raises(InputError, match="known: cat, dog; or 'anything' for every class"):
        check_class("xylophone", ["dog", "cat"])


# --- the adapters ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def random_weights(tmp_path_factory):
    """The old, smaller network with random weights (the v2 one is tested when slow)."""
    from torchvision.models.detection import maskrcnn_resnet50_fpn

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "mask.pth"
    torch.save(
        maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=91).state_dict(),
        path,
    )
    return path


def test_torchvision_adapter_with_random_weights(random_weights, monkeypatch):
    monkeypatch.setattr("thirdparty.mask_rcnn.LOWEST_SCORE", 0.0)  # random scores are near 1 / 91
    detector = MaskRcnn("anything", random_weights)
    detector._network.transform.min_size = (96,)  # the real 800 px and 1000 boxes take a minute
    detector._network.rpn._post_nms_top_n = {"testing": 12}
    detector._network.roi_heads.detections_per_img = 6
    rgb = np.random.default_rng(0).integers(0, 256, (90, 130, 3), np.uint8)
    found = detector.detect(rgb)
    assert found
    scores = [i.score for i in found]
    assert scores == sorted(scores, reverse=True)
    for instance in found:
        assert instance.mask.shape == (90, 130)
        assert instance.mask.dtype == np.float32
        assert 0 <= instance.mask.min() <= instance.mask.max() <= 1
        x0, y0, x1, y1 = instance.box
        assert 0 <= x0 < x1 <= 130
        assert 0 <= y0 < y1 <= 90
    label = found[0].label
    detector._class_name = label
    only = detector.detect(rgb)
    assert only
    assert {i.label for i in only} == {label}
    assert len(only) == sum(i.label == label for i in found)


def test_wrong_weights_are_named(tmp_path):
    torch.save({"conv.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match=r"other.pth: not the weights of maskrcnn_resnet50_fpn"):
        MaskRcnn("person", tmp_path / "other.pth")


def test_the_class_is_checked_before_anything_is_fetched(monkeypatch):
    def no_network(*_):
        raise AssertionError("weights were asked for")

    monkeypatch.setattr("thirdparty.mask_rcnn.find_weights", no_network)
    with pytest.raises(InputError, match="--class-name 'dgo' is no COCO class"):
        MaskRcnn("dgo")


@pytest.mark.slow
def test_v2_weights_are_told_apart(tmp_path):
    from torchvision.models.detection import maskrcnn_resnet50_fpn_v2

    network = maskrcnn_resnet50_fpn_v2(weights=None, weights_backbone=None, num_classes=91)
    torch.save(network.state_dict(), tmp_path / "v2.pth")
    detector = MaskRcnn("person", tmp_path / "v2.pth")
    assert any(k.startswith("roi_heads.box_head.1") for k in detector._network.state_dict())


def test_detectron2_missing_says_how_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "detectron2", None)
    with pytest.raises(InputError, match=r"on no package registry: pip install 'git\+https"):
        open_detector("detectron2", "person")


def test_detectron2_adapter_against_a_stand_in(monkeypatch):
    """A package of the same interface: what the adapter asks of it, and what it makes of it."""
    seen = {}

    class Node(dict):
        __getattr__ = dict.__getitem__
        __setattr__ = dict.__setitem__

    class Predictor:
        def __init__(self, config):
            seen["config"] = config

        def __call__(self, bgr):
            seen["bgr"] = bgr
            boxes = types.SimpleNamespace(tensor=torch.tensor([[1.0, 2, 3, 4], [0, 0, 5, 6]]))
            found = types.SimpleNamespace(
                pred_masks=torch.ones(2, 4, 7, dtype=torch.bool),
                scores=torch.tensor([0.75, 0.5]),
                pred_boxes=boxes,
                pred_classes=torch.tensor([1, 0]),
            )
            found.to = lambda device: found
            return {"instances": found}

    def get_cfg():
        config = Node(MODEL=Node(ROI_HEADS=Node()), DATASETS=Node(TRAIN=("coco",)))
        config["merge_from_file"] = lambda path: None
        return config

    zoo = types.SimpleNamespace(
        get_config_file=lambda name: name, get_checkpoint_url=lambda name: f"https://zoo/{name}"
    )
    classes = types.SimpleNamespace(thing_classes=["person", "dog"])
    modules = {
        "detectron2": types.SimpleNamespace(model_zoo=zoo),
        "detectron2.config": types.SimpleNamespace(get_cfg=get_cfg),
        "detectron2.data": types.SimpleNamespace(MetadataCatalog={"coco": classes}),
        "detectron2.engine": types.SimpleNamespace(DefaultPredictor=Predictor),
    }
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    rgb = np.zeros((4, 7, 3), np.uint8)
    rgb[..., 0] = 200
    (found,) = open_detector("detectron2", "dog", None, "cpu").detect(rgb)
    assert (found.label, found.score, found.box) == ("dog", 0.75, (1, 2, 3, 4))
    assert found.mask.shape == (4, 7)
    assert seen["bgr"][0, 0].tolist() == [0, 0, 200]
    assert seen["config"].MODEL.WEIGHTS.startswith("https://zoo/")
