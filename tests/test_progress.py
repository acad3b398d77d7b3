"""Progress: what is printed where stderr is no terminal, and that bars leave logging intact."""

import logging
import sys

import pytest

from atlas import progress as module
from atlas.progress import clock, progress


class Clock:
    """Stands in for time.monotonic."""

    def __init__(self):
        self.now_s = 100.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def ticking(monkeypatch):
    fake = Clock()
    monkeypatch.setattr(module.time, "monotonic", fake)
    return fake


def test_items_come_through_in_order():
    assert list(progress(iter("swan"), 4, "letters")) == ["s", "w", "a", "n"]


def test_time_left_is_what_the_steps_so_far_took(ticking, capsys):
    with progress(None, 40, "flow") as bar:
        for _ in range(10):
            ticking.now_s += 1.2
            bar.advance()
    lines = capsys.readouterr().err.splitlines()
    # A line when 5 s have passed since the last: after 5 steps (6 s) and after 10 (12 s).
    assert lines == [
        "flow: 5/40 (12 %), 0:42 left",
        "flow: 10/40 (25 %), 0:36 left",
        "flow: 10 done in 0:12",
    ]


def test_a_short_job_is_silent(ticking, capsys):
    with progress(None, 3, "flow") as bar:
        ticking.now_s += 4.9
        bar.advance(3)
    assert capsys.readouterr() == ("", "")


def test_a_job_that_fails_does_not_say_done(ticking, capsys):
    def fail():
        ticking.now_s += 60
        yield 1
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        list(progress(fail(), 3, "flow"))
    assert "done" not in capsys.readouterr().err


def test_without_a_total_no_time_left_is_claimed(ticking, capsys):
    for _ in progress((ticking for _ in range(2)), None, "decoding"):
        ticking.now_s += 70
    assert capsys.readouterr().err.splitlines()[0] == "decoding: 1 done, 1:10 so far"


def test_length_of_a_list_is_its_total(ticking, capsys):
    for _ in progress([1, 2, 3, 4], None, "reading"):
        ticking.now_s += 10
    assert capsys.readouterr().err.splitlines()[1] == "reading: 2/4 (50 %), 0:20 left"


def test_note_is_shown(ticking, capsys):
    with progress(None, 2, "fit") as bar:
        ticking.now_s += 6
        bar.advance(note="27.1 dB")
    assert capsys.readouterr().err.splitlines()[0] == "fit: 1/2 (50 %), 0:06 left, 27.1 dB"


def test_advance_outside_is_a_mistake():
    with pytest.raises(ValueError, match="inside"):
        progress(None, 3, "flow").advance()


def test_iterating_over_nothing_is_a_mistake():
    with pytest.raises(TypeError, match="advance"):
        list(progress(None, 3, "flow"))


def test_nested_bars_share_one_display_and_give_the_log_back(monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    handler = logging.StreamHandler(sys.stderr)
    logging.getLogger().addHandler(handler)
    try:
        with progress(None, 2, "outer") as outer:
            display = module._Bar._display
            assert display is not None
            with progress(None, 5, "inner") as inner:
                inner.advance(2)
                assert module._Bar._display is display
                assert [task.completed for task in display.tasks] == [0, 2]
            outer.advance()
            assert [task.completed for task in display.tasks] == [1]
        assert module._Bar._display is None
        assert handler.stream is sys.stderr
    finally:
        logging.getLogger().removeHandler(handler)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (61, "1:01"), (3725, "1:02:05")]
)
def test_clock(seconds, text):
    assert clock(seconds) == text
