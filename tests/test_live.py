"""Live pictures: what comes through a pipe, and that a slow machine drops instead of lagging."""

import io
import subprocess
import time

import cv2
import numpy as np
import pytest

import edit
from atlas.coords import Size
from atlas.errors import InputError
from atlas.planes import PlaneFormat, Planes
from edits.kinds import SkyEdit
from edits.live import CameraSource, PipeOut, PipeSource, Window, check_display, run_live
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


class _Camera:
    """Stands in for `cv2.VideoCapture`: an odd-sized picture, left half red, right half blue."""

    def __init__(self, number: int):
        self.number, self.released = number, False

    def read(self):
        bgr = np.zeros((33, 49, 3), np.uint8)
        bgr[:, :24, 2] = bgr[:, 24:, 0] = 200
        return self.number == 0, bgr

    def release(self):
        self.released = True


@pytest.mark.parametrize("mirror", [False, True])
def test_a_camera_gives_planes_of_even_size_mirrored_if_asked(monkeypatch, mirror):
    monkeypatch.setattr(cv2, "VideoCapture", _Camera)
    source = CameraSource(0, mirror=mirror)
    assert source.form.size == Size(32, 48)
    planes = source.read()
    assert planes is not None
    rgb = source.form.rgb_of(planes).astype(int)
    red, blue = rgb[16, 40 if mirror else 8], rgb[16, 8 if mirror else 40]
    assert red == pytest.approx([200, 0, 0], abs=3)
    assert blue == pytest.approx([0, 0, 200], abs=3)


def test_a_missing_camera_or_display_is_told_in_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(cv2, "VideoCapture", _Camera)
    with pytest.raises(InputError, match=r"--input 7: no camera with that number gives pictures"):
        CameraSource(7)
    ended = subprocess.CompletedProcess([], -6, b"", b"Aborted")
    monkeypatch.setattr(subprocess, "run", lambda *args, **keys: ended)
    with pytest.raises(InputError, match="no window can be opened here; write to a pipe"):
        check_display()
    with pytest.raises(InputError, match="no window"):
        edit.main(["--input", "0", "--preset", "sunset"])


def test_the_preview_shows_what_was_made_and_ends_at_q(monkeypatch):
    shown: list[np.ndarray] = []
    keys = iter([255, 255, ord("q")])
    monkeypatch.setattr(cv2, "imshow", lambda name, bgr: shown.append(bgr))
    monkeypatch.setattr(cv2, "waitKey", lambda ms: next(keys))
    monkeypatch.setattr(cv2, "getWindowProperty", lambda *args: 1.0)
    window = Window(FORM)
    planes = FORM.planes_of(np.full((32, 48, 3), (250, 120, 10), np.uint8))
    assert [window(planes) for _ in range(3)] == [True, True, False]
    assert shown[0][5, 5].astype(int) == pytest.approx([10, 120, 250], abs=3)  # OpenCV's blue first
