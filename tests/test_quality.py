"""Qualities and budgets: more is never worse, a finished run goes on, the end is always a run."""

import itertools
import sys
from dataclasses import replace
from unittest import mock

import numpy as np
import pytest

from atlas.base_motion import estimate_base_motion
from atlas.clip import Clip, write_rgb
from atlas.config import load_config
from atlas.coords import Size
from atlas.fit import fit_layered
from atlas.fit_job import FitJob
from atlas.layer_score import LayerScorer
from atlas.layered import LayerMotion
from atlas.layered_file import read_meta
from atlas.pace import Pace
from atlas.run import open_run
from atlas.schedule import TimeBudget
from atlas.shot_fit import Keeper
from atlas.store import ClipStore
from preprocess.__main__ import main as preprocess
from tests.scene_presets import SceneOptions, make_scene
from tests.synthetic import write_clip

FAST = [
    "layered.align.sigmas_px=[12,6]",
    "layered.align.best_sigmas_px=[4]",
    "layered.residual_field.training_steps=25",
    "layered.residual_field.width=16",
]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    options = SceneOptions(
        size=Size(64, 128), frame_count=4, pan_deg=6, camera="hand", object="deforming", sky="none"
    )
    root = tmp_path_factory.mktemp("quality")
    return Clip(write_clip(make_scene(options), root / "scene"))


def fit(clip, folder, quality, *, budget=None, resume=False):
    folder.mkdir(exist_ok=True)
    job = FitJob(clip, load_config(None, [*FAST, f"quality={quality}"]), folder)
    fit_layered(job if budget is None else replace(job, budget=budget), resume)
    return open_run(folder)


def scores(clip, run):
    """The fixed score of every layer's motion."""
    store = ClipStore(clip)
    scorers = [LayerScorer(store, i, None, 48.0) for i in range(len(clip.layer_names))]
    found = [s.score(m) for s, m in zip(scorers, run.mapping.motions, strict=True)]
    assert None not in found
    return np.array(found)


def ticking(budget_ticks):
    """A stopwatch by which every look at it takes one second."""
    return TimeBudget(budget_ticks, clock=itertools.count().__next__)


def done(run):
    return read_meta(run.folder / "checkpoint.safetensors")["done"]


def test_more_time_is_never_worse_and_none_still_ends_in_a_run(clip, tmp_path):
    found, parts = [], []
    for ticks in (1, 60, 80, 260):
        run = fit(clip, tmp_path / f"run{ticks}", "best", budget=ticking(ticks))
        found.append(scores(clip, run))
        parts.append(len(done(run)))
        assert run.info.metrics["psnr_db"] > 18
    assert (np.diff(found, axis=0) >= 0).all()
    assert found[-1].sum() > found[0].sum()  # and it is good for something
    assert parts[0] == 0
    assert parts == sorted(parts)
    assert len(set(parts)) > 2  # the budgets did end in different places
    whole = fit(clip, tmp_path / "whole", "best")
    assert (scores(clip, whole) >= found[-1]).all()


def test_a_draft_is_gone_on_with_and_ends_where_an_unbroken_fit_does(clip, tmp_path, caplog):
    draft = fit(clip, tmp_path / "run", "draft")
    assert done(draft) == ["coarse/0"]
    with caplog.at_level("INFO"):
        run = fit(clip, tmp_path / "run", "standard", resume=True)
    assert "coarse/0: taken from the earlier run" in caplog.text
    whole = fit(clip, tmp_path / "whole", "standard")
    assert done(run) == done(whole)
    for a, b in zip(run.mapping.motions, whole.mapping.motions, strict=True):
        assert np.array_equal(a.residual, b.residual)
    assert (scores(clip, run) >= scores(clip, draft)).all()
    caplog.clear()
    with caplog.at_level("INFO"):  # less is no reason to do anything
        fit(clip, tmp_path / "run", "draft", resume=True)
    assert "nothing to do" in caplog.text


def test_reading_files_once_is_not_taken_for_the_pace(clip, tmp_path, monkeypatch):
    now_s, read = [0.0], set()
    score = LayerScorer.score

    def slow_at_first(self, motion):
        now_s[0] += 20.0 if self.layer not in read else 0.01
        read.add(self.layer)
        return score(self, motion)

    monkeypatch.setattr(LayerScorer, "score", slow_at_first)
    budget = TimeBudget(60, clock=lambda: now_s[0])
    run = fit(clip, tmp_path / "run", "standard", budget=budget)
    assert done(run) == ["coarse/0", "fine/0", "field_fine/0/0", "field_fine/0/1"]


def test_an_earlier_result_that_is_better_stays(clip, tmp_path, monkeypatch, caplog):
    draft = fit(clip, tmp_path / "run", "draft")
    before = draft.textures[0].rgb
    monkeypatch.setattr("atlas.finish.Finish._measure", lambda *_: {"psnr_db": 3.0})
    with caplog.at_level("INFO"):
        run = fit(clip, tmp_path / "run", "standard", resume=True)
    assert "the earlier result is better" in caplog.text
    assert run.info.metrics["psnr_db"] == draft.info.metrics["psnr_db"]
    assert np.array_equal(run.textures[0].rgb, before)
    assert (tmp_path / "run" / "mattes").is_dir()


def test_a_worse_motion_is_not_kept():
    class Fixed:
        def __init__(self):
            self.values = iter([20.0, 19.5, 20.4, 19.0, 21.0, 20.9])

        def score(self, motion):
            return next(self.values)

    motions = [
        LayerMotion("a", Size(4, 4), np.eye(3)[None], np.full((1, 2, 2, 2), v, np.float32), 8,
                    np.ones(1, np.float32))
        for v in range(1, 6)
    ]  # fmt: skip
    keeper = Keeper.starting_from(Fixed(), motions[0])
    assert (keeper.first, keeper.straight) == (20.0, 19.5)
    keeper.straight = 20.2
    for motion in motions[1:]:
        keeper.show(motion)  # 20.4 is better, but no more than bending always is
        assert keeper.best.residual[0, 0, 0, 0] in (1, 4)
        motion.residual += 100  # rounds go on changing it
    assert keeper.best.residual[0, 0, 0, 0] == 4
    assert keeper.score == 21.0


def test_the_score_falls_when_a_map_is_shaken(clip):
    store = ClipStore(clip)
    run_scores = []
    base = estimate_base_motion(store, 1, "rotation")
    motion = LayerMotion("sky", base.canvas, base.matrices, None, 8, base.confidence)
    for shift in (0.0, 1.0, 3.0):
        moved = base.matrices.copy()
        moved[::2, 0, 2] += shift
        run_scores.append(LayerScorer(store, 1, None, 48.0).score(replace(motion, matrices=moved)))
    assert run_scores[0] > run_scores[1] + 0.5 > run_scores[2] + 1


def test_pace_predicts_from_what_was_done():
    now = [0.0]
    pace = Pace(TimeBudget(100.0, clock=lambda: now[0]), lambda: 20.0)

    def step(kind, seconds):
        with pace.timed(kind, "stage"):
            now[0] += seconds

    assert pace.allows("round")
    step("round", 40)
    assert pace.allows("round")  # 40 + 40 + 20 is just in time
    assert not pace.allows("other", guess_s=41)
    step("round", 10)  # the first was slower: it counts for less
    assert pace.expected_s("round") == 28
    assert pace.allows("round")
    step("round", 28)
    assert not pace.allows("round")
    assert pace.total_s == {"stage": 78}


def test_a_soft_shadow_over_two_things_and_a_ground_is_four_layers(tmp_path):
    """A mask folder per layer, the top one a shadow of soft opacity, from preprocess to a run."""
    size, count = Size(72, 128), 4
    rng = np.random.default_rng(2)
    cell = rng.random((12, 40, 3))
    ground = np.kron(cell, np.ones((8, 8, 1))).astype(np.float32)[: size.height + 10]
    folder = tmp_path / "data" / "clip"
    names = ["shadow", "red", "blue"]
    for path in (folder, *[tmp_path / name for name in names]):
        path.mkdir(parents=True)
    y, x = np.mgrid[: size.height, : size.width].astype(np.float32)
    for t in range(count):
        disc = {
            "shadow": 0.5 * np.exp(-(((x - 60 - 2 * t) / 16) ** 2 + ((y - 50) / 8) ** 2)),
            "red": (np.hypot(x - 30 - 3 * t, y - 24) < 13).astype(np.float32),
            "blue": (np.hypot(x - 96 + 2 * t, y - 30) < 12).astype(np.float32),
        }
        frame = ground[: size.height, t : t + size.width].copy()
        stripes = 0.3 * ((x - 3 * t) % 7 < 3) + 0.2 * (y % 9 < 4)
        frame[disc["red"] > 0] = np.dstack([0.5 + stripes, stripes, stripes])[disc["red"] > 0]
        stripes = 0.3 * ((x + 2 * t) % 8 < 4) + 0.2 * (y % 7 < 3)
        frame[disc["blue"] > 0] = np.dstack([stripes, stripes, 0.5 + stripes])[disc["blue"] > 0]
        frame *= 1 - disc["shadow"][..., None]
        write_rgb(folder / f"{t:05d}.png", np.rint(frame * 255).clip(0, 255).astype(np.uint8))
        for name, mask in disc.items():
            path = tmp_path / name / f"{t:05d}.png"
            write_rgb(path, np.rint(mask * 255).astype(np.uint8))
    run = _preprocessed_fit(tmp_path, folder, [tmp_path / name for name in names])
    assert [layer.name for layer in run.mapping.layers] == [*names, "background"]
    shadow = run.mapping.frame(1).alpha[0]
    assert 0.45 < shadow.max() < 0.52  # soft as given
    texture = run.textures[0]
    assert (texture.coverage > 0.9).sum() > 200
    assert texture.rgb[texture.coverage > 0.9].mean() < 0.2  # black seen through; the ground is 0.5
    uv = run.mapping.frame(0).uv[0][50, 60], run.mapping.frame(3).uv[0][50, 66]
    assert np.abs(uv[0] - uv[1]).max() < 0.5  # its centre goes along, by 2 px a frame


def _preprocessed_fit(root, folder, masks):
    """Run preprocess with a mask folder per layer, then a fit."""
    out = root / "made" / "clip"
    line = ["preprocess", folder, "--out", out, "--flow", "dis", "--masks", *masks]
    with mock.patch.object(sys, "argv", [str(word) for word in line]):
        preprocess()
    return fit(Clip(out), root / "run", "draft")
