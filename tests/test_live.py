"""Live pictures: what comes through a pipe, and that a slow machine drops instead of lagging."""

import io
import time

import cv2
import numpy as np
import pytest

from atlas.coords import Size
from atlas.errors import InputError
from atlas.planes import PlaneFormat, Planes
from edits.kinds import SkyEdit
from edits.live import PipeOut, PipeSource, run_live
from edits.recipe import Recipe
from edits.stream import SkyStream
from tests.test_stream import _Told

FORM = PlaneFormat("yuv420p", Size(32, 48), "smpte170m", full=False)


def picture(level: int) -> Planes:
    flat = [np.full(shape, level, np.uint8) for shape in ((32, 48), (16, 24), (16, 24))]
    return Planes(*flat)


def test_what_is_written_to_a_pipe_is_read_from_one(tmp_path):
    pipe = io.BytesIO()
    out = PipeOut(FORM, pipe)
    for level in (40, 90, 200):
        assert out(picture(level))
    path = tmp_path / "video.y4m"
    path.write_bytes(pipe.getvalue())
    with path.open("rb") as file:
        source = PipeSource(file)
        assert source.form == FORM
        for level in (40, 90, 200):
            got = source.read()
            assert got is not None
            assert all((plane == level).all() for plane in got.all)
        assert source.read() is None
        source.close()


def test_what_is_no_video_is_told(tmp_path):
    path = tmp_path / "no.y4m"
    path.write_bytes(b"no video")
    with path.open("rb") as file, pytest.raises(InputError, match="no video that ffmpeg knows"):
        PipeSource(file)


class _Ticking:
    """A source that gives a picture every 5 ms, its number in its levels."""

    form = FORM

    def __init__(self, count: int):
        self._count, self._next = count, 0

    def read(self) -> Planes | None:
        time.sleep(0.005)
        self._next += 1
        return picture(self._next) if self._next <= self._count else None

    def close(self) -> None:
        pass


def test_a_slow_end_drops_pictures_and_stays_near(tmp_path):
    """20 ms a picture at the end, 5 ms at the source: most are dropped, none is shown late."""
    sky = tmp_path / "sky.png"
    cv2.imwrite(str(sky), np.full((20, 30, 3), 128, np.uint8))
    matte = np.zeros((32, 48), np.uint8)
    stream = SkyStream(Recipe(edits=(SkyEdit(source=str(sky)),)), _Told(FORM, matte))
    shown = []

    def show(planes: Planes) -> bool:
        shown.append(int(planes.y[0, 0]))
        time.sleep(0.02)
        return True

    latencies, dropped = run_live(_Ticking(100), stream, show)
    assert shown == sorted(set(shown))
    assert len(shown) < 60
    assert dropped >= 30
    assert len(shown) + dropped <= 100
    # three in flight at 20 ms each, and waiting for threads on a busy machine
    assert np.median(latencies.last_ms) < 300


def test_closing_the_preview_ends_it(tmp_path):
    sky = tmp_path / "sky.png"
    cv2.imwrite(str(sky), np.full((20, 30, 3), 128, np.uint8))
    matte = np.zeros((32, 48), np.uint8)
    stream = SkyStream(Recipe(edits=(SkyEdit(source=str(sky)),)), _Told(FORM, matte))
    latencies, _ = run_live(_Ticking(10_000), stream, lambda planes: False)
    assert latencies.count == 1
