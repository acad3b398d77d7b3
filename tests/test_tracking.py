"""What reaches TensorBoard's event files, read back with its own reader."""

import io

import cv2
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from atlas.tracking import NullTracker, TensorBoardTracker


def read(folder):
    events = EventAccumulator(str(folder), size_guidance={"images": 0, "tensors": 0})
    events.Reload()
    return events


def test_what_goes_in_comes_out(tmp_path):
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 255, (5, 9, 3), np.uint8)
    matte = rng.random((7, 4)).astype(np.float32)
    with TensorBoardTracker(tmp_path) as tracker:
        tracker.scalars("loss", {"flow": 1.5, "rgb": 0.25}, step=3)
        tracker.scalar("loss/flow", 1.25, step=4)
        tracker.image("frame", picture, step=3)
        tracker.image("alpha", matte, step=3)
        tracker.text("config", "a: 1\nb: 2")
    events = read(tmp_path)
    assert [(e.step, e.value) for e in events.Scalars("loss/flow")] == [(3, 1.5), (4, 1.25)]
    assert [e.value for e in events.Scalars("loss/rgb")] == [0.25]
    (image,) = events.Images("frame")
    data = np.frombuffer(io.BytesIO(image.encoded_image_string).read(), np.uint8)
    back = cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    assert (back == picture).all()
    (grey,) = events.Images("alpha")
    assert (grey.height, grey.width) == (7, 4)
    data = np.frombuffer(grey.encoded_image_string, np.uint8)
    grey_back = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)
    assert (grey_back == np.rint(matte * 255)).all()
    (text,) = events.Tensors("config/text_summary")
    assert b"    a: 1\n    b: 2" in text.tensor_proto.string_val[0]


def test_a_picture_of_another_shape_is_refused(tmp_path):
    with (
        TensorBoardTracker(tmp_path) as tracker,
        pytest.raises(ValueError, match=r"picture must be \(H, W"),
    ):
        tracker.image("flow", np.zeros((4, 5, 2), np.float32), 0)


def test_the_null_tracker_takes_everything_and_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with NullTracker() as tracker:
        tracker.scalars("loss", {"flow": 1.0}, 1)
        tracker.image("frame", np.zeros((2, 3), np.uint8), 1)
        tracker.text("config", "x")
    assert list(tmp_path.iterdir()) == []
