"""The clip folder: written and read back, opened in the original's layout, refused precisely."""

import json

import numpy as np
import pytest

from atlas.clip import (
    Clip,
    ClipInfo,
    LayerInfo,
    SourceInfo,
    list_frames,
    read_info,
    write_info,
    write_rgb,
)
from atlas.coords import Size
from atlas.errors import InputError

SIZE = Size(6, 10)


def make_clip(root, *, frames=3, info=True, size=SIZE, mask="maskrcnn"):
    rng = np.random.default_rng(1)
    folder = root / "pond"
    for name in ("pond", "pond_flow", f"pond_{mask}"):
        (root / name).mkdir()
    names = [f"{t:05d}.png" for t in range(frames)]
    for t, name in enumerate(names):
        write_rgb(folder / name, rng.integers(0, 255, (size.height, size.width, 3), np.uint8))
        hard = np.zeros((size.height, size.width), np.uint8)
        hard[:, : 2 + t] = 255
        write_rgb(root / f"pond_{mask}" / name, hard)
    for t in range(frames - 1):
        for a, b in ((t, t + 1), (t + 1, t)):
            flow = np.full((size.height, size.width, 2), b - a, np.float32)
            np.save(root / "pond_flow" / f"{names[a]}_{names[b]}.npy", flow)
    if info:
        layers = [
            LayerInfo(name="foreground", mask_dir=f"pond_{mask}"),
            LayerInfo(name="background"),
        ]
        write_info(
            folder,
            ClipInfo(
                width=size.width,
                height=size.height,
                frame_count=frames,
                fps=24,
                frame_times_s=[t / 24 for t in range(frames)],
                layers=layers,
            ),
        )
    return folder


def test_a_clip_reads_back_what_was_written(tmp_path):
    clip = Clip(make_clip(tmp_path))
    clip.check()
    assert (clip.size, clip.frame_count) == (SIZE, 3)
    assert clip.layer_names == ("foreground", "background")
    assert clip.flow(1, 0).shape == (6, 10, 2)
    assert clip.flow(1, 0).max() == -1
    alpha = clip.alpha(1)
    assert alpha.shape == (2, 6, 10)
    assert alpha[0].sum() == 6 * 3  # three columns of six
    assert alpha[1].min() == 1


def test_info_round_trip(tmp_path):
    source = SourceInfo(
        path="a.mp4", sha256="0" * 64, width=20, height=12, frame_count=5, leading_black=2,
        frame_times_s=[0, 0.1, 0.25, 0.3, 0.5], color={"range": "tv"}, audio={"codec": "aac"},
    )  # fmt: skip
    info = ClipInfo(
        width=10, height=6, frame_count=3, fps=29.97, frame_times_s=[0, 0.05, 0.2], source=source,
        layers=[LayerInfo(name="sky", mask_dir="x", inverted=True)], shots=[[0, 3]],
    )  # fmt: skip
    write_info(tmp_path, info)
    assert read_info(tmp_path / "clip.json") == info


def test_a_folder_in_the_original_layout_opens(tmp_path):
    clip = Clip(make_clip(tmp_path, info=False))
    clip.check()
    assert clip.layer_names == ("foreground", "background")
    assert clip.size == SIZE


def test_frames_of_the_original_layout_are_resized_to_the_flow(tmp_path):
    folder = make_clip(tmp_path, info=False)
    for path in folder.glob("*.png"):
        write_rgb(path, np.zeros((18, 30, 3), np.uint8))
    assert Clip(folder).size == SIZE
    assert Clip(folder).frame(0).shape == (6, 10, 3)


def test_hard_masks_of_another_size_stay_hard(tmp_path):
    folder = make_clip(tmp_path)
    big = np.zeros((17, 31), np.uint8)
    big[:, :15] = 255
    write_rgb(tmp_path / "pond_maskrcnn" / "00000.png", big)
    assert set(np.unique(Clip(folder).mask(0, 0))) == {0.0, 1.0}


def test_a_sky_matte_is_inverted_for_the_scene_above_it(tmp_path):
    clip = Clip(make_clip(tmp_path, info=False, mask="sky"))
    assert clip.layer_names == ("foreground", "sky")
    assert clip.mask(0, 0)[:, :2].max() == 0
    assert clip.mask(0, 0)[:, 2:].min() == 1


BREAKS = {
    "flow not found": lambda root, _: (root / "pond_flow" / "00001.png_00002.png.npy").unlink(),
    "no mask for frame 00001": lambda root, _: (root / "pond_maskrcnn" / "00001.png").unlink(),
    "says 3 frames, the folder holds 2": lambda _, folder: (folder / "00002.png").unlink(),
    "not readable as JSON": lambda _, folder: (folder / "clip.json").write_text("{"),
    "version is 99, wanted 1": lambda _, folder: (folder / "clip.json").write_text(
        json.dumps(json.loads((folder / "clip.json").read_text()) | {"version": 99})
    ),
    "not what preprocess writes": lambda _, folder: (folder / "clip.json").write_text(
        json.dumps(json.loads((folder / "clip.json").read_text()) | {"colour": 1})
    ),
}


@pytest.mark.parametrize("message", BREAKS)
def test_a_damaged_clip_is_named_in_one_line(tmp_path, message):
    folder = make_clip(tmp_path)
    BREAKS[message](tmp_path, folder)
    with pytest.raises(InputError, match=message) as caught:
        Clip(folder).check()
    assert "\n" not in str(caught.value)


def test_flow_of_the_wrong_shape_or_type_is_named(tmp_path):
    clip = Clip(make_clip(tmp_path))
    np.save(clip.flow_path(0, 1), np.zeros((10, 6, 2), np.float32))
    with pytest.raises(InputError, match=r"shape \(10, 6, 2\), wanted \(6, 10, 2\)"):
        clip.flow(0, 1)
    np.save(clip.flow_path(0, 1), np.zeros((6, 10, 2), np.int32))
    with pytest.raises(InputError, match="int32, wanted float32"):
        clip.flow(0, 1)
    clip.flow_path(0, 1).write_bytes(b"no array")
    with pytest.raises(InputError, match=r"not a readable \.npy"):
        clip.flow(0, 1)


def test_missing_and_empty_folders_are_named(tmp_path):
    with pytest.raises(InputError, match="not found"):
        Clip(tmp_path / "nowhere")
    with pytest.raises(InputError, match="holds no frames"):
        Clip(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        Clip(tmp_path / "file")


def test_a_picture_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    def full(self, data):
        raise OSError(28, "No space left on device", str(self))

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        write_rgb(tmp_path / "a.png", np.zeros((2, 3, 3), np.uint8))
    assert list(tmp_path.iterdir()) == []


def test_a_span_is_its_frames_with_their_flow_and_masks(tmp_path):
    clip = Clip(make_clip(tmp_path))
    part = clip.span(1, 3)
    part.check()
    assert (part.frame_count, part.info.frame_count, part.shots()) == (2, 2, [(0, 2)])
    assert part.info.frame_times_s == [1 / 24, 2 / 24]
    assert np.array_equal(part.frame(0), clip.frame(1))
    assert not np.array_equal(part.frame(0), clip.frame(0))
    assert np.array_equal(part.alpha(1), clip.alpha(2))
    assert part.flow_path(0, 1) == clip.flow_path(1, 2)
    assert clip.frame_count == 3


@pytest.mark.parametrize(("first", "end"), [(-1, 2), (2, 2), (0, 4)])
def test_a_span_outside_the_clip_is_refused(tmp_path, first, end):
    with pytest.raises(ValueError, match="wanted 0 <= first < end <= 3"):
        Clip(make_clip(tmp_path)).span(first, end)


def test_shots_are_those_of_the_info_and_must_cover_the_clip(tmp_path):
    clip = Clip(make_clip(tmp_path))
    assert clip.shots() == [(0, 3)]
    clip.info.shots.extend([[0, 1], [1, 3]])
    assert clip.shots() == [(0, 1), (1, 3)]
    for wrong in ([[0, 1]], [[0, 2], [1, 3]], [[1, 3]], [[0, 0], [0, 3]]):
        clip.info.shots[:] = wrong
        with pytest.raises(InputError, match="do not cover its 3 frames"):
            clip.shots()


def test_frames_are_in_the_order_of_their_numbers_and_hidden_files_do_not_count(tmp_path):
    for name in ("frame_10.png", "frame_2.png", "frame_1.png", "._frame_1.png", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "folder.png").mkdir()
    assert list_frames(tmp_path) == ["frame_1.png", "frame_2.png", "frame_10.png"]


def test_a_folder_of_hidden_files_holds_no_frames(tmp_path):
    (tmp_path / "._0.png").write_bytes(b"x")
    with pytest.raises(InputError, match="holds no frames"):
        list_frames(tmp_path)
