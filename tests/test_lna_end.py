"""A budget holds for all of a published fit: what its end takes is planned."""

import time

import pytest

from atlas.coords import Size
from atlas.fit_job import FitJob
from atlas.lna_end import END_SHARE, LEAST_TEXELS, SLACK, EndCosts, plan_end
from atlas.lna_fit import fit_lna
from atlas.run import open_run
from atlas.schedule import TimeBudget
from tests.test_lna_fit import make_clip, make_config

CLIP = (Size(100, 200), 40)
COSTS = EndCosts(motion_s=2e-6, color_s=1e-6)
CANVAS = Size(400, 400)
FIXED_S = 40 * (3200 + 20000 / 16) * 2e-6
"""Windows and coverages: 40 frames of 1600 points twice, and a picture of a quarter the width."""
ATLASES_S = 2 * 400 * 400 * 1e-6
FRAME_S = 20000 * (2e-6 + 2 * 1e-6)


def plan(budget_s):
    return plan_end(COSTS, CLIP, 2, CANVAS, 8, budget_s)


def test_without_a_budget_all_is_looked_at():
    end = plan(None)
    assert (end.canvas, end.frames, end.view) == (CANVAS, 8, CLIP[0])
    assert end.seconds == pytest.approx(SLACK * (FIXED_S + ATLASES_S + 8 * FRAME_S))


@pytest.mark.parametrize(
    ("budget_s", "frames", "view", "canvas"),
    [
        (8.0, 8, Size(100, 200), CANVAS),  # may take 2.0 s: all takes 1.65
        (5.92, 6, Size(100, 200), CANVAS),  # 1.48 s; each frame 0.1
        (3.68, 8, Size(25, 50), CANVAS),  # 0.92 s; one frame at full size alone would need 0.95
        (2.4, 1, Size(25, 50), Size(200, 200)),  # 0.6 s; atlases at full size alone take 0.4
    ],
)
def test_what_there_is_no_time_for_becomes_coarser(budget_s, frames, view, canvas):
    end = plan(budget_s)
    assert (end.frames, end.view, end.canvas) == (frames, view, canvas)
    assert end.seconds <= END_SHARE * budget_s


def test_there_is_a_least_end():
    end = plan(1e-3)
    assert end.frames == 1
    assert min(end.canvas.wh) >= LEAST_TEXELS


def test_the_whole_fit_keeps_to_its_budget(tmp_path):
    clip = make_clip(tmp_path / "clip", count=3)
    overrides = ("optimiser.iterations=1000000", "canvas_texels=900")
    config = make_config(tmp_path, *overrides, "schedule.pretrain_iterations=100000")
    budget = TimeBudget(6.0, clock=time.process_time)  # whatever else the machine does
    (tmp_path / "run").mkdir()
    fit_lna(FitJob(clip, config, tmp_path / "run", budget=budget))
    assert budget.spent_s() < 7.2  # pictures are written after the networks were asked
    run = open_run(tmp_path / "run")
    assert run.info.complete
    assert run.textures[0].rgb.shape == (900, 900, 3)
