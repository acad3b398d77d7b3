"""A clip as tensors: layouts, matches along flow, and the forward-backward check."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from atlas.clip import Clip, write_rgb
from atlas.errors import InputError
from atlas.video_data import VideoData, cycle_error_px, load_video, sample_positions

HEIGHT, WIDTH, COUNT = 12, 20, 4


@pytest.fixture
def clip_folder(tmp_path):
    """Random frames and masks; flow (2, -1) forward and its opposite backward, all constant."""
    rng = np.random.default_rng(0)
    for folder in ("swan", "swan_maskrcnn", "swan_flow"):
        (tmp_path / folder).mkdir()
    flow = np.broadcast_to(np.float32([2, -1]), (HEIGHT, WIDTH, 2))
    for t in range(COUNT):
        frame = rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
        write_rgb(tmp_path / f"swan/{t:05d}.png", frame)
        mask = 255 * rng.integers(0, 2, (HEIGHT, WIDTH)).astype(np.uint8)
        write_rgb(tmp_path / f"swan_maskrcnn/{t:05d}.png", mask)
        for a, b, sign in ((t, t + 1, 1), (t + 1, t, -1)):
            if t + 1 < COUNT:
                np.save(tmp_path / f"swan_flow/{a:05d}.png_{b:05d}.png.npy", sign * flow)
    return tmp_path / "swan"


@pytest.fixture
def video(clip_folder):
    return load_video(Clip(clip_folder), 1.0, torch.device("cpu"))


def test_everything_lies_where_the_files_say(clip_folder, video):
    clip = Clip(clip_folder)
    assert video.frames.shape == (COUNT, 3, HEIGHT, WIDTH)
    assert video.masks.shape == (1, COUNT, HEIGHT, WIDTH)
    assert video.flow_fwd.shape == (COUNT - 1, 2, HEIGHT, WIDTH)
    at = torch.tensor([[17, 5, 2], [3, 11, 0]])
    expected = [clip.frame(2)[5, 17], clip.frame(0)[11, 3]]
    assert_close(video.rgb(at), torch.tensor(np.float32(expected) / 255))
    assert video.mask(at)[0, :, 0].tolist() == [clip.mask(0, 2)[5, 17], clip.mask(0, 0)[11, 3]]
    assert video.flow_fwd[0, :, 5, 17].tolist() == [2, -1]
    assert video.flow_bwd[0, :, 5, 17].tolist() == [-2, 1]


def test_matches_follow_the_flow_in_both_directions(video):
    at = torch.tensor([[5, 6, 0], [5, 6, 3], [5, 6, 1]])
    index, ends = video.matches(at, 1)
    assert index.tolist() == [0, 2]  # the last frame has no next one
    assert ends.tolist() == [[7, 5, 1], [7, 5, 2]]
    index, ends = video.matches(at, -1)
    assert index.tolist() == [1, 2]
    assert ends.tolist() == [[3, 7, 2], [3, 7, 0]]


def test_a_match_that_leaves_the_frame_is_dropped(video):
    at = torch.tensor([[18, 6, 0], [17, 6, 0], [5, 0, 0], [5, 1, 0]])
    index, _ = video.matches(at, 1)  # motion (2, -1): right edge 19, top edge 0
    assert index.tolist() == [1, 3]


def test_matches_want_a_neighbour(video):
    with pytest.raises(ValueError, match="step must be 1 or -1, got 2"):
        video.matches(torch.tensor([[1, 1, 1]]), 2)


def test_color_steps_are_forward_differences_inside_the_frame(clip_folder, video):
    frame = Clip(clip_folder).frame(1).astype(np.float32) / 255
    at = torch.tensor([[4, 7, 1], [WIDTH - 1, 7, 1], [4, HEIGHT - 1, 1]])
    step, inside = video.color_step(at, 0)
    assert inside.tolist() == [True, False, True]
    assert_close(step[0], torch.from_numpy(frame[7, 5] - frame[7, 4]))
    step, inside = video.color_step(at, 1)
    assert inside.tolist() == [True, True, False]
    assert_close(step[0], torch.from_numpy(frame[8, 4] - frame[7, 4]))


def test_samples_are_uniform_over_the_clip_and_repeatable(video):
    def draw(seed):
        return sample_positions(video, 20000, torch.Generator().manual_seed(seed))

    at = draw(3)
    assert (at == draw(3)).all()
    assert not (at == draw(4)).all()
    limits = (WIDTH, HEIGHT, COUNT)
    for axis, limit in enumerate(limits):
        counts = torch.bincount(at[:, axis], minlength=limit)
        assert len(counts) == limit
        # A binomial count lies within 5 standard deviations of its mean.
        mean = 20000 / limit
        assert (counts - mean).abs().max() < 5 * mean**0.5


def test_cycle_error_by_hand():
    """There: 3 px right. Back: 1 px too short in the right half, exact in the left."""
    there = np.zeros((5, 16, 2), np.float32)
    there[..., 0] = 3
    back = -there
    back[:, 8:, 0] = -2
    error = cycle_error_px(there, back)
    assert (error[:, :5] == 0).all()  # lands at 3..7
    assert (error[:, 5:13] == 1).all()  # lands at 8..15
    assert np.isinf(error[:, 13:]).all()  # leaves the frame


def test_flow_that_is_not_finite_is_no_match():
    there = np.zeros((4, 6, 2), np.float32)
    there[1, 2] = np.nan
    back = np.zeros((4, 6, 2), np.float32)
    back[3, 4, 0] = np.inf
    error = cycle_error_px(there, back)
    assert np.isinf(error[1, 2])
    assert not np.isnan(error).any()
    assert not error[3, 4] < 1


def test_a_clip_of_one_frame_has_no_matches(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "one_maskrcnn").mkdir()
    write_rgb(tmp_path / "one/00000.png", np.zeros((3, 5, 3), np.uint8))
    write_rgb(tmp_path / "one_maskrcnn/00000.png", np.zeros((3, 5), np.uint8))
    video: VideoData = load_video(Clip(tmp_path / "one"), 1.0, torch.device("cpu"))
    at = sample_positions(video, 7, torch.Generator().manual_seed(0))
    for step in (1, -1):
        index, ends = video.matches(at, step)
        assert index.shape == (0,)
        assert ends.shape == (0, 3)


def test_a_single_pixel_is_refused(tmp_path):
    (tmp_path / "dot").mkdir()
    (tmp_path / "dot_maskrcnn").mkdir()
    write_rgb(tmp_path / "dot/00000.png", np.zeros((1, 1, 3), np.uint8))
    write_rgb(tmp_path / "dot_maskrcnn/00000.png", np.zeros((1, 1), np.uint8))
    with pytest.raises(InputError, match="frames are 1x1; wanted at least 2"):
        load_video(Clip(tmp_path / "dot"), 1.0, torch.device("cpu"))
