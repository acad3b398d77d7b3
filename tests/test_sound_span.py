"""The sound of a part of a clip: what plays at a frame in the source plays at it in the result."""

from fractions import Fraction

import numpy as np
import pytest

from atlas import media_info
from atlas.coords import Size
from atlas.video import open_source, probe
from edits.deliver import Delivery, make_writer
from tests.video_files import noise_frames, pcm, run_ffmpeg, write_video

RATE, COUNT, FPS = 44100, 50, 25
SIZE = Size(32, 48)


@pytest.fixture(scope="module", params=["aac", "pcm_s16le"])
def clip(request, tmp_path_factory):
    """Two seconds whose sound rises in pitch, so that every moment sounds different."""
    folder = tmp_path_factory.mktemp("sound")
    silent = write_video(folder / "silent.mp4", noise_frames(COUNT, SIZE), fps=Fraction(FPS))
    rising = f"aevalsrc=0.7*sin(2*PI*(300*t+600*t*t)):s={RATE}:d={COUNT / FPS}"
    path = folder / ("clip.mp4" if request.param == "aac" else "clip.mov")
    run_ffmpeg("-i", silent, "-f", "lavfi", "-i", rising, "-c:v", "copy", "-c:a", request.param,
               path)  # fmt: skip
    return path


@pytest.mark.parametrize("span", [(13, 40), (1, 49), (30, 30)])
def test_sound_stays_with_its_frames(clip, span, tmp_path):
    source = open_source(clip)
    first, last = span
    out = tmp_path / f"part{clip.suffix}"
    with make_writer(source.info, Delivery(out=out, span=span)) as writer:
        for rgb in source.frames(first, last - first + 1):
            writer.write(rgb)
    assert probe(out).audio
    whole, part = pcm(clip).astype(np.float64), pcm(out).astype(np.float64)
    expected = (last - first + 1) / FPS
    # whole AAC packets of 1024 samples are copied
    assert abs(len(part) / RATE - expected) < 3 * 1024 / RATE
    # where in the source does the result's sound lie best?
    piece = part[200 : min(len(part), int(0.8 * expected * RATE))]
    place = first * RATE // FPS + 200
    shifts = np.arange(-3000, 3001, 4)
    shifts = shifts[(place + shifts >= 0) & (place + shifts + len(piece) <= len(whole))]
    errors = [np.abs(whole[place + s : place + s + len(piece)] - piece).mean() for s in shifts]
    assert abs(shifts[int(np.argmin(errors))]) <= 0.002 * RATE


def test_a_span_from_the_start_keeps_the_sound_from_its_start(clip, tmp_path):
    source = open_source(clip)
    with make_writer(source.info, Delivery(out=tmp_path / "a.mkv", span=(0, 9))) as writer:
        for rgb in source.frames(0, 10):
            writer.write(rgb)
    streams = media_info.describe_file(tmp_path / "a.mkv").streams
    assert [s.kind for s in streams] == ["Video", "Audio"]
    part = pcm(tmp_path / "a.mkv")
    assert np.abs(part[2000:12000].astype(int) - pcm(clip)[2000:12000]).mean() < 50
