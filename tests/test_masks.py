"""Mask kinds and layers, user folders, resume, and motion masks on a scene of known motion."""

import logging
import shutil
import types
from pathlib import Path

import numpy as np
import pytest

from atlas.clip import Clip, LayerInfo, SourceInfo, read_grey, write_info, write_rgb
from atlas.coords import Size
from atlas.errors import InputError
from preprocess import masks as masks_module
from preprocess.flow import save_flow
from preprocess.masks import MaskOptions, make_masks
from preprocess.sky.matte import SkyMatter
from tests.clip_frames import write_clip
from tests.test_flow import textured

SIZE = Size(height=44, width=76)
CLIPS = Path(__file__).resolve().parent.parent.parent / "shared" / "data" / "clips"


@pytest.fixture
def clip(tmp_path) -> Clip:
    return write_clip(tmp_path / "data" / "walk", [textured(SIZE, t) for t in range(3)])


def write_masks(folder: Path, names: list[str], size: Size = SIZE) -> Path:
    """Hard masks: mask k is white in its columns k + 2 .. k + 12 and rows 5 .. 20."""
    folder.mkdir(parents=True)
    for k, name in enumerate(names):
        mask = np.zeros((size.height, size.width), np.uint8)
        mask[5:21, k + 2 : k + 13] = 255
        write_rgb(folder / name, mask)
    return folder


def first_white(clip: Clip, layer: int = 0) -> list[int]:
    """The leftmost column of every frame's mask: tells which mask went to which frame."""
    return [int(np.flatnonzero(clip.mask(layer, t).any(0))[0]) for t in range(clip.frame_count)]


def reopen(clip: Clip, layers: list[LayerInfo]) -> Clip:
    import dataclasses

    write_info(clip.folder, dataclasses.replace(clip.info, layers=layers))
    return Clip(clip.folder)


class FakeMatter(SkyMatter):
    """A sky matter that calls the upper third sky, softly."""

    def __init__(self):
        self.seen = 0

    def matte(self, rgb):
        self.seen += 1
        rows = np.linspace(1.5, -0.5, rgb.shape[0], dtype=np.float32)
        return np.clip(np.repeat(rows[:, None], rgb.shape[1], 1), 0, 1)

    def reset(self):
        self.seen = 0


@pytest.fixture
def fake_sky(monkeypatch):
    matter = FakeMatter()
    monkeypatch.setattr("preprocess.sky.choose.open_matter", lambda name, careful=False: matter)
    return matter


# --- layers ---------------------------------------------------------------------------------


def layer_rows(layers: list[LayerInfo]) -> list[tuple]:
    return [(layer.name, layer.mask_dir, layer.inverted) for layer in layers]


def test_sky_alone(clip, fake_sky):
    layers = make_masks(clip, ["sky"])
    assert layer_rows(layers) == [("foreground", "walk_sky", True), ("sky", None, False)]
    written = read_grey(clip.sibling("sky") / "00001.png")
    expected = np.rint(fake_sky.matte(clip.frame(1)) * 255)
    np.testing.assert_array_equal(written, expected)  # soft values survive
    again = reopen(clip, layers)
    np.testing.assert_allclose(again.mask(0, 1), 1 - written / 255, atol=1e-6)


def test_object_over_scene_over_sky(clip, fake_sky, tmp_path):
    given = write_masks(tmp_path / "dog", ["00000.png", "00001.png", "00002.png"])
    layers = make_masks(clip, [str(given), "sky"])
    assert layer_rows(layers) == [
        ("foreground", "walk_dog", False),
        ("scene", "walk_sky", True),
        ("sky", None, False),
    ]


def test_what_moves_is_cut_along_the_sky_behind(clip, fake_sky, monkeypatch):
    height, width = clip.size.height, clip.size.width
    made = []

    def lower_part(clip):
        made.append(clip)
        masks = np.ones((clip.frame_count, height, width), np.float32)
        masks[:, : height // 5] = 0
        return iter(masks)

    monkeypatch.setattr("preprocess.motion_masks.motion_masks", lower_part)
    layers = make_masks(clip, ["motion", "sky"])
    assert [layer.name for layer in layers] == ["foreground", "scene", "sky"]
    sky = read_grey(clip.sibling("sky") / "00001.png")
    cut = read_grey(clip.sibling("motion") / "00001.png")
    assert (cut[sky == 255] == 0).all()
    assert (cut[sky == 0] == 255).all()
    make_masks(clip, ["motion", "sky"])
    assert len(made) == 1  # whole masks are kept
    monkeypatch.setattr(type(fake_sky), "fingerprint", lambda self: "another matte")
    make_masks(clip, ["motion", "sky"])
    assert len(made) == 2  # cut anew along the new mattes


def test_several_folders_keep_their_names(clip, tmp_path, fake_sky):
    names = ["00000.png", "00001.png", "00002.png"]
    a = write_masks(tmp_path / "red dog", names)
    b = write_masks(tmp_path / "other" / "red dog", names)
    layers = make_masks(clip, [str(a), str(b), "sky"])
    assert [layer.name for layer in layers] == ["red_dog", "red_dog_2", "scene", "sky"]
    assert [x.mask_dir for x in layers[:2]] == ["walk_red_dog", "walk_red_dog_2"]
    assert [x.name for x in make_masks(clip, [str(a), str(b)])][-1] == "background"


def test_reserved_folder_names_do_not_collide(clip, tmp_path):
    given = write_masks(tmp_path / "flow", ["00000.png", "00001.png", "00002.png"])
    layers = make_masks(clip, [str(given)])
    assert layers[0].mask_dir == "walk_flow_given"


@pytest.mark.parametrize(
    ("kinds", "words"),
    [
        ([], "names nothing"),
        (["sky", "motion"], "sky must come last"),
        (["motion", "motion"], "motion more than once"),
        (["moton"], "neither a folder nor one of sky, motion, maskrcnn, detectron2"),
    ],
)
def test_wrong_kinds_are_refused(clip, kinds, words):
    with pytest.raises(InputError, match=words):
        make_masks(clip, kinds)


# --- folders of masks -----------------------------------------------------------------------


def test_masks_are_matched_by_name(clip, tmp_path):
    given = write_masks(tmp_path / "dog", ["00002.png", "00000.png", "00001.png"])
    clip = reopen(clip, make_masks(clip, [str(given)]))
    assert first_white(clip) == [3, 4, 2]


def test_masks_with_other_names_are_matched_by_order(clip, tmp_path):
    given = write_masks(tmp_path / "dog", ["b9.png", "c1.png", "d0.png"])
    clip = reopen(clip, make_masks(clip, [str(given)]))
    assert first_white(clip) == [2, 3, 4]


def test_masks_of_the_whole_source_start_at_the_clips_first_frame(tmp_path):
    source = SourceInfo(
        path="x.mp4", sha256=None, width=76, height=44, frame_count=6, first_frame=2
    )
    clip = write_clip(tmp_path / "walk", [textured(SIZE, t) for t in range(3)], source)
    given = write_masks(tmp_path / "dog", [f"{t:05d}.png" for t in range(6)])
    clip = reopen(clip, make_masks(clip, [str(given)]))
    assert first_white(clip) == [4, 5, 6]


def test_masks_beside_the_frames_are_used_where_they_are(clip):
    folder = clip.sibling("mine")
    write_masks(folder, ["00000.png", "00001.png", "00002.png"])
    layers = make_masks(clip, [str(folder)])
    assert layer_rows(layers)[0] == ("foreground", "walk_mine", False)
    assert sorted(p.name for p in folder.iterdir()) == ["00000.png", "00001.png", "00002.png"]


def test_hard_masks_stay_hard_and_in_place_when_resized(clip, tmp_path):
    given = tmp_path / "dog"
    given.mkdir()
    mask = np.zeros((110, 190), np.uint8)  # 2.5 times the clip's 44 x 76
    mask[15:60, 30:91] = 255  # in the clip's pixels: rows 6 up to 24, columns 12 up to 36.4
    for t in range(3):
        write_rgb(given / f"{t:05d}.png", mask)
    clip = reopen(clip, make_masks(clip, [str(given)]))
    expected = np.zeros((SIZE.height, SIZE.width))
    expected[6:24, 12:36] = 1
    np.testing.assert_array_equal(clip.mask(0, 1), expected)


def test_soft_masks_stay_soft_when_resized(clip, tmp_path):
    given = tmp_path / "dog"
    given.mkdir()
    ramp = np.repeat(np.linspace(0, 255, 152)[None], 88, 0)
    for t in range(3):
        write_rgb(given / f"{t:05d}.png", ramp.astype(np.uint8))
    clip = reopen(clip, make_masks(clip, [str(given)]))
    expected = (np.arange(76) + 0.5) / 76
    np.testing.assert_allclose(clip.mask(0, 2)[20], expected, atol=0.01)  # 8-bit and its rounding


def test_label_pictures_are_understood(clip, tmp_path, caplog):
    given = write_masks(tmp_path / "dog", ["00000.png", "00001.png", "00002.png"])
    for path in given.iterdir():
        write_rgb(path, (read_grey(path) // 255 * 38).astype(np.uint8))
    clip = reopen(clip, make_masks(clip, [str(given)]))
    assert "has the values 0, 38" in caplog.text
    assert set(np.unique(clip.mask(0, 0))) == {0, 1}


@pytest.mark.parametrize(
    ("names", "size", "words"),
    [
        (["00000.png", "00001.png"], SIZE, "holds 2 masks, the clip has 3 frames"),
        (["0.png", "1.png", "2.png"], Size(76, 44), "masks are 44x76, the frames 76x44"),
        (["notes.txt"], SIZE, "holds no frames"),
    ],
)
def test_masks_that_do_not_fit_are_refused(clip, tmp_path, names, size, words):
    given = tmp_path / "dog"
    if names == ["notes.txt"]:
        given.mkdir()
        (given / "notes.txt").write_text("no masks here")
    else:
        write_masks(given, names, size)
    with pytest.raises(InputError, match=words):
        make_masks(clip, [str(given)])


def test_masks_of_two_sizes_are_refused(clip, tmp_path):
    given = write_masks(tmp_path / "dog", ["0.png", "1.png", "2.png"])
    write_rgb(given / "1.png", np.zeros((88, 152), np.uint8))
    with pytest.raises(InputError, match="different sizes"):
        make_masks(clip, [str(given)])


# --- resume, empty masks --------------------------------------------------------------------


def test_whole_masks_are_kept_and_changed_ones_redone(clip, tmp_path):
    given = write_masks(tmp_path / "dog", ["00000.png", "00001.png", "00002.png"])
    make_masks(clip, [str(given)])
    target = clip.sibling("dog")
    before = {p.name: p.stat().st_mtime_ns for p in target.iterdir()}
    (target / "00001.png").write_bytes(b"half a file")
    make_masks(clip, [str(given)])
    after = {p.name: p.stat().st_mtime_ns for p in target.iterdir()}
    assert {n for n in before if before[n] != after[n]} == {"00001.png"}
    write_rgb(given / "00002.png", np.full((44, 76), 255, np.uint8))
    make_masks(clip, [str(given)])
    assert (read_grey(target / "00002.png") == 255).all()


def test_masks_of_other_frames_are_redone(clip, fake_sky):
    make_masks(clip, ["sky"])
    target = clip.sibling("sky") / "00000.png"
    write_rgb(target, np.zeros((44, 76), np.uint8))  # whole, but not what the matter gives
    make_masks(clip, ["sky"])
    assert not read_grey(target).any()  # kept: the tag vouches for it
    write_rgb(clip.folder / "00002.png", textured(SIZE, 9))
    make_masks(clip, ["sky"])
    assert read_grey(target).any()


def test_mattes_of_another_matter_are_redone(clip, fake_sky, monkeypatch):
    make_masks(clip, ["sky"])
    path = clip.sibling("sky") / "00001.png"
    write_rgb(path, np.full_like(read_grey(path), 7))
    make_masks(clip, ["sky"])
    assert (read_grey(path) == 7).all()  # the same matter: kept
    monkeypatch.setattr(fake_sky, "fingerprint", lambda: "other weights", raising=False)
    make_masks(clip, ["sky"])
    assert not (read_grey(path) == 7).all()


def test_hand_mattes_are_written_and_mark_the_folder(clip, fake_sky, tmp_path):
    by_hand = np.full((clip.size.height, clip.size.width), 255, np.uint8)
    (tmp_path / "hand").mkdir()
    write_rgb(tmp_path / "hand" / "00001.png", by_hand)
    make_masks(clip, ["sky"])
    make_masks(clip, ["sky"], MaskOptions(hand_mattes=tmp_path / "hand"))
    np.testing.assert_array_equal(read_grey(clip.sibling("sky") / "00001.png"), by_hand)
    assert not (read_grey(clip.sibling("sky") / "00000.png") == 255).all()


def test_masks_of_another_hand_are_not_overwritten(clip, fake_sky):
    write_masks(clip.sibling("sky"), ["00000.png", "00001.png", "00002.png"])
    with pytest.raises(InputError, match="holds masks that preprocess did not make"):
        make_masks(clip, ["sky"])


def test_an_empty_mask_is_allowed_and_said(clip, monkeypatch, caplog):
    def nothing(*_):
        return types.SimpleNamespace(detect=lambda rgb: [])

    monkeypatch.setattr("preprocess.link.open_detector", nothing)
    with caplog.at_level(logging.WARNING):
        layers = make_masks(clip, ["maskrcnn"], MaskOptions(class_name="dog"))
    assert "foreground is empty in all frames: no dog with a score of 0.5" in caplog.text
    assert layers[0].mask_dir == "walk_maskrcnn"
    assert not read_grey(clip.sibling("maskrcnn") / "00002.png").any()


def test_detections_reach_the_folder(clip, monkeypatch):
    from thirdparty.mask_rcnn import Instance

    for t, u in ((0, 1), (1, 0), (1, 2), (2, 1)):
        save_flow(_made(clip.flow_path(t, u)), np.zeros((44, 76, 2), np.float32))
    mask = np.zeros((44, 76), np.float32)
    mask[10:30, 20:41] = 1
    seen = []

    def detect(rgb):
        seen.append(rgb)
        return [] if len(seen) == 2 else [Instance(mask, 0.9, (0, 0, 1, 1), "dog")]

    detector = types.SimpleNamespace(detect=detect)
    monkeypatch.setattr("preprocess.link.open_detector", lambda *_: detector)
    monkeypatch.setattr("preprocess.link.MIN_FRAMES", 2)
    make_masks(clip, ["maskrcnn"], MaskOptions(class_name="dog"))
    middle = read_grey(clip.sibling("maskrcnn") / "00001.png")
    np.testing.assert_array_equal(middle, mask * 255)  # the missed frame is filled
    make_masks(clip, ["maskrcnn"], MaskOptions(class_name="dog"))
    assert len(seen) == 3  # nothing is detected again


def _made(path: Path) -> Path:
    path.parent.mkdir(exist_ok=True)
    return path


def test_bad_options_are_refused():
    with pytest.raises(InputError, match=r"min_score must be in \[0, 1\], got 1.5"):
        MaskOptions(min_score=1.5)


def test_the_folder_can_be_deleted_and_made_again(clip, fake_sky):
    make_masks(clip, ["sky"])
    shutil.rmtree(clip.sibling("sky"))
    make_masks(clip, ["sky"])
    assert len(list(clip.sibling("sky").glob("*.png"))) == 3


def test_kinds_all_have_a_maker():
    assert set(masks_module._MAKERS) == set(masks_module.KINDS)


def test_what_a_user_keeps_beside_near_masks_stays_where_no_near_layer_pays(clip, monkeypatch):
    monkeypatch.setattr("preprocess.near_masks.near_masks", lambda *args, **named: None)
    given = MaskOptions(near=True)
    height, width = clip.size.height, clip.size.width
    still = np.zeros((clip.frame_count, height, width), np.float32)
    monkeypatch.setattr("preprocess.motion_masks.motion_masks", lambda clip: iter(still))
    make_masks(clip, ["motion"], given)
    assert not clip.sibling("near").exists()
    clip.sibling("near").mkdir()
    (clip.sibling("near") / "notes.txt").write_text("poles")
    make_masks(clip, ["motion"], given)
    assert [path.name for path in clip.sibling("near").iterdir()] == ["notes.txt"]
