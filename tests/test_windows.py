"""Long shots in windows: what they are, how they join, and that an edit carries from end to end."""

from itertools import pairwise

import numpy as np
import pytest

from atlas import shot_fit
from atlas.base_motion import BaseMotion
from atlas.clip import Clip
from atlas.config import load_config
from atlas.coords import Size
from atlas.fit import fit_layered
from atlas.fit_job import FitJob
from atlas.gauge import both_visible, fit_gauge, uv_error_px
from atlas.layered import LayerMotion, sample_lattice
from atlas.metrics import local_jacobian
from atlas.run import open_run
from atlas.survey import FirstFrames
from atlas.windows import Window, frames_that_fit, part_of, put_back, windows_of
from tests.scene_presets import SceneOptions, make_scene
from tests.synthetic import write_clip


def test_windows_cover_the_shot_and_overlap():
    assert windows_of(100, 100, 12) == [Window(0, 100)]
    windows = windows_of(1000, 150, 12)
    assert (windows[0].first, windows[-1].end) == (0, 1000)
    assert max(w.end - w.first for w in windows) <= 150
    assert len(windows) == 8  # 1000 = 8 * 123.5 + 12
    for a, b in pairwise(windows):
        assert a.end - b.first == b.overlap == 12


def test_the_new_map_takes_over_evenly():
    share = Window(20, 40, overlap=6).share_of_new()
    assert share[:7] == pytest.approx([0, 0, 0, 0.25, 0.5, 0.75, 1])
    assert share[7:].min() == 1
    assert Window(0, 5).share_of_new().min() == 1


def test_memory_decides_how_many_frames_fit():
    size = Size(432, 768)
    few, many = (frames_that_fit(size, 2, mb) for mb in (200, 2000))
    assert many == pytest.approx(10 * few, abs=10)
    # RGB, grey, two flows of two float16, two mattes; a quarter more for the half size
    assert few == int(200e6 / (1.25 * 14 * 432 * 768))


def motion(frames, value, stride=8, shape=(3, 4)):
    residual = np.full((frames, *shape, 2), value, np.float32)
    matrices, confidence = np.tile(np.eye(3), (frames, 1, 1)), np.ones(frames, np.float32)
    return LayerMotion("a", Size(30, 30), matrices, residual, stride, confidence)


def test_windows_are_blended_into_the_shot():
    whole, window = motion(10, 1.0), Window(4, 10, overlap=3)
    part = part_of(whole, window)
    assert len(part.matrices) == 6
    part.residual += 8
    assert whole.residual.max() == 1  # a copy
    put_back(whole, part, window)
    # one of three frames is settled; then a third, two thirds
    wanted = [1, 1, 1, 1, 1, 1 + 8 / 3, 1 + 16 / 3, 9, 9, 9]
    assert whole.residual[:, 1, 1, 0] == pytest.approx(wanted)


def test_a_finer_window_makes_the_shot_as_fine():
    size = Size(17, 25)
    rng = np.random.default_rng(0)
    whole = motion(6, 0.0)
    whole.residual[:] = rng.random(whole.residual.shape, np.float32)
    before = sample_lattice(whole.residual[0], 8, size)
    put_back(whole, motion(2, 3.0, stride=4, shape=(5, 7)), Window(4, 6))
    assert whole.stride_px == 4
    assert np.allclose(sample_lattice(whole.residual[0], 4, size), before, atol=0.05)
    assert whole.residual[4:].min() == 3
    put_back(whole, motion(2, 5.0), Window(0, 2))  # and a coarse one fits in
    assert whole.residual[:2].min() == 5


def test_an_edit_carries_from_the_first_window_to_the_last(tmp_path, monkeypatch):
    """The base motion drifts on purpose: the windows must find back to the first one's atlas."""
    count = 34
    options = SceneOptions(
        size=Size(72, 128), frame_count=count, camera="pan_back", pan_deg=10, sky="none",
        object="rigid",
    )  # fmt: skip
    scene = make_scene(options)
    clip = Clip(write_clip(scene, tmp_path / "scene"))
    exact = shot_fit.estimate_base_motion

    def drifting(store, layer, model, *rest):
        found = exact(store, layer, model, *rest)
        matrices = found.matrices.copy()
        matrices[:, 0, 2] += np.linspace(0, 3.0, len(matrices))
        return BaseMotion(matrices, found.canvas, found.confidence, found.model)

    monkeypatch.setattr(shot_fit, "estimate_base_motion", drifting)
    sets = [
        "layered.window_frames=16",
        "layered.overlap_frames=6",
        "layered.align.sigmas_px=[12,12,6]",
        "layered.residual_field.training_steps=0",
    ]
    (tmp_path / "run").mkdir()
    fit_layered(FitJob(clip, load_config(None, sets), tmp_path / "run"))
    run, truth = open_run(tmp_path / "run"), scene.mapping()
    ours, theirs = run.mapping.layer_index("background"), truth.layer_index("background")

    def median_error(mapping, frames):
        """Against the truth, by the gauge of the first window alone."""
        gauge = fit_gauge(FirstFrames(mapping, 12), truth, "background", "background")
        errors = []
        for t in frames:
            a, b = mapping.frame(t), truth.frame(t)
            seen = both_visible(a, ours, b, theirs)
            jacobian = local_jacobian(b.uv[theirs])
            errors.append(uv_error_px(gauge, a.uv[ours], b.uv[theirs], jacobian)[seen])
        return float(np.median(np.concatenate(errors)))

    last = range(count - 6, count)
    assert median_error(run.base, last) > 1.5
    assert median_error(run.mapping, last) < 0.5
