"""The published fit: its objective against plain loops, repeatable runs, exact resuming."""

import copy
import json

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from atlas.clip import Clip, ClipInfo, LayerInfo, write_info, write_rgb
from atlas.config import MlpConfig, NetworksConfig, TrainConfig, load_config
from atlas.config_io import to_yaml
from atlas.errors import InputError
from atlas.fields import Domain, LayerFields
from atlas.fit_job import FitJob
from atlas.lna_fit import LnaFit, batch_psnr_db, fit_lna
from atlas.lna_objective import Objective, check_finite
from atlas.losses import rigidity_loss
from atlas.metrics import psnr_db
from atlas.run import open_run
from atlas.schedule import TimeBudget, term_weights
from atlas.texture import render
from atlas.video_data import load_video, sample_positions

HEIGHT, WIDTH = 18, 30
CPU = torch.device("cpu")
SMALL = NetworksConfig(
    mapping=MlpConfig(depth=3, width=24),
    bottom_mapping=MlpConfig(depth=3, width=24),
    opacity=MlpConfig(depth=3, width=24, frequencies=3),
    atlas=MlpConfig(depth=3, width=48, frequencies=5, skips=(2,)),
)
BASE = (
    "recipe=lna",
    "canvas_texels=48",
    "optimiser.samples=200",
    "optimiser.learning_rate=0.003",
    "schedule.pretrain_iterations=5",
    "schedule.pretrain_samples=200",
    "schedule.evaluate_every=0",
    "schedule.checkpoint_every=0",
    "schedule.evaluate_frames=2",
    "loss.global_rigidity.step_px=8",
    "loss.global_rigidity.bottom_step_px=9",
    "loss.global_rigidity.until_iteration=20",
)


def make_config(tmp_path, *overrides) -> TrainConfig:
    path = tmp_path / "small.yaml"
    networks = to_yaml(SMALL)
    path.write_text("networks:\n" + "".join(f"  {line}\n" for line in networks.splitlines()))
    return load_config(path, [*BASE, *overrides])


def make_clip(folder, count=4, layer_count=2) -> Clip:
    """A coloured texture drifts by (2, 1) px a frame; a disc on it goes the other way."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(1)
    big = cv2.GaussianBlur(rng.random((60, 80, 3)).astype(np.float32), (0, 0), 3)
    big = (big - big.min()) / np.ptp(big)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    names = [f"layer{i}" for i in range(layer_count)]
    for kind in ["flow", *names[:-1]]:
        (folder.parent / f"{folder.name}_{kind}").mkdir()
    for t in range(count):
        ground = cv2.remap(big, x + 20 - 2 * t, y + 20 - t, cv2.INTER_LINEAR)
        discs = []
        for i in range(layer_count - 1):
            center = (8 + 9 * i - t, 9 + 2 * i)
            discs.append((x - center[0]) ** 2 + (y - center[1]) ** 2 < 16)
        frame, flow = ground, np.stack([np.full_like(x, 2), np.ones_like(x)], -1)
        for i, disc in reversed(list(enumerate(discs))):
            frame = np.where(disc[..., None], np.float32([0.9, 0.1 + 0.4 * i, 0.1]), frame)
            flow = np.where(disc[..., None], np.float32([-1, 0]), flow)
            mask = np.where(disc, 255, 0).astype(np.uint8)
            write_rgb(folder.parent / f"{folder.name}_{names[i]}" / f"{t:05d}.png", mask)
        write_rgb(folder / f"{t:05d}.png", np.rint(frame * 255).astype(np.uint8))
        for a, b, sign in ((t, t + 1, 1), (t, t - 1, -1)):
            if 0 <= b < count:
                path = folder.parent / f"{folder.name}_flow" / f"{a:05d}.png_{b:05d}.png.npy"
                np.save(path, sign * flow.astype(np.float32))
    layers = [LayerInfo(name=n, mask_dir=f"{folder.name}_{n}") for n in names[:-1]]
    info = ClipInfo(
        width=WIDTH,
        height=HEIGHT,
        frame_count=count,
        fps=25.0,
        frame_times_s=[t / 25 for t in range(count)],
        layers=[*layers, LayerInfo(name=names[-1])],
    )
    write_info(folder, info)
    return Clip(folder)


def run(clip, config, folder, *, resume=False):
    folder.mkdir(exist_ok=True)
    fit_lna(FitJob(clip, config, folder, budget=TimeBudget(config.budget_s)), resume)
    return load_file(folder / "checkpoint.safetensors")


def assert_equal_checkpoints(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


def test_two_runs_with_one_seed_are_equal_and_another_seed_differs(tmp_path):
    clip = make_clip(tmp_path / "clip")
    config = make_config(tmp_path, "optimiser.iterations=12")
    first, second = run(clip, config, tmp_path / "a"), run(clip, config, tmp_path / "b")
    assert_equal_checkpoints(first, second)
    other = run(clip, make_config(tmp_path, "optimiser.iterations=12", "seed=1"), tmp_path / "c")
    assert not torch.equal(
        first["fields.atlas.hidden.0.weight"], other["fields.atlas.hidden.0.weight"]
    )


def test_twenty_iterations_are_ten_and_ten_resumed(tmp_path):
    """Bit for bit: weights, Adam's moments, and the random generator."""
    clip = make_clip(tmp_path / "clip")
    whole = run(clip, make_config(tmp_path, "optimiser.iterations=20"), tmp_path / "whole")
    run(clip, make_config(tmp_path, "optimiser.iterations=10"), tmp_path / "parts")
    config = make_config(tmp_path, "optimiser.iterations=20")
    parts = run(clip, config, tmp_path / "parts", resume=True)
    assert any(name.startswith("optimiser.") for name in whole)
    assert_equal_checkpoints(whole, parts)


def test_an_interrupted_run_keeps_whole_steps_and_goes_on_exactly(tmp_path, monkeypatch):
    clip = make_clip(tmp_path / "clip")
    config = make_config(tmp_path, "optimiser.iterations=9")
    whole = run(clip, config, tmp_path / "whole")
    step, calls = Objective.terms, []

    def interrupted(self, xyt_px, names):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return step(self, xyt_px, names)

    monkeypatch.setattr(Objective, "terms", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(clip, config, tmp_path / "parts")
    monkeypatch.undo()
    assert_equal_checkpoints(whole, run(clip, config, tmp_path / "parts", resume=True))


def test_fit_beats_the_mean_frame_and_opens_as_a_run(tmp_path):
    """A young fit: 3 dB over the mean frame, several times what seeds vary by (0.5 dB)."""
    clip = make_clip(tmp_path / "clip")
    config = make_config(
        tmp_path,
        "optimiser.iterations=500",
        "schedule.pretrain_iterations=30",
        "loss.gradient.weight=200",
    )
    run(clip, config, tmp_path / "run")
    frames = np.stack([clip.frame(t) for t in range(4)]).astype(np.float32) / 255
    opened = open_run(tmp_path / "run")
    scores = [psnr_db(f, render(opened.mapping, opened.textures, t)) for t, f in enumerate(frames)]
    baseline = [psnr_db(f, frames.mean(0)) for f in frames]
    assert np.mean(scores) > np.mean(baseline) + 3
    assert opened.info.metrics["psnr_db"] > np.mean(baseline) + 3
    alpha = np.stack([opened.mapping.frame(t).alpha[0] for t in range(4)])
    masks = np.stack([clip.mask(0, t) for t in range(4)])
    both = (alpha > 0.5) & (masks > 0.5)
    either = (alpha > 0.5) | (masks > 0.5)
    assert both.sum() / either.sum() > 0.6


@pytest.mark.parametrize(("count", "layer_count"), [(1, 2), (2, 3), (3, 1)])
def test_any_number_of_frames_and_layers(tmp_path, count, layer_count):
    clip = make_clip(tmp_path / "clip", count, layer_count)
    checkpoint = run(clip, make_config(tmp_path, "optimiser.iterations=3"), tmp_path / "run")
    assert all(value.isfinite().all() for value in checkpoint.values())
    opened = open_run(tmp_path / "run")
    m = opened.mapping.frame(count - 1)
    assert m.uv.shape == (layer_count, HEIGHT, WIDTH, 2)
    np.testing.assert_allclose(m.visible().sum(0), 1, atol=1e-6)
    assert len(opened.textures) == layer_count


def test_a_spent_budget_still_leaves_a_usable_run(tmp_path):
    clip = make_clip(tmp_path / "clip")
    config = make_config(tmp_path, "optimiser.iterations=1000000", "budget_s=0.5")
    run(clip, config, tmp_path / "run")
    opened = open_run(tmp_path / "run")
    assert opened.info.complete
    assert 0 <= opened.info.metrics["iterations"] < 1000000
    assert opened.textures[0].rgb.shape == (48, 48, 3)
    assert (tmp_path / "run" / "atlas_layer0.png").is_file()


def test_a_run_without_kept_textures_renders_them(tmp_path):
    clip = make_clip(tmp_path / "clip")
    run(clip, make_config(tmp_path, "optimiser.iterations=2"), tmp_path / "run")
    kept = open_run(tmp_path / "run").textures
    (tmp_path / "run" / "textures.safetensors").unlink()
    rendered = open_run(tmp_path / "run").textures
    for a, b in zip(kept, rendered, strict=True):
        np.testing.assert_allclose(a.rgb, b.rgb, atol=0.5 / 255 + 1e-5)  # kept at 8 bit
        np.testing.assert_allclose(a.coverage, b.coverage, atol=0.5 / 255 + 1e-5)


def test_a_loss_that_is_not_finite_stops_the_fit_and_is_named(tmp_path):
    clip = make_clip(tmp_path / "clip")
    config = make_config(tmp_path, "optimiser.iterations=9", "optimiser.learning_rate=1e30")
    with pytest.raises(InputError, match=r"iteration \d+: loss .*rgb.* is not finite"):
        run(clip, config, tmp_path / "run")


def test_the_term_that_is_not_finite_is_named():
    terms = {"rgb": torch.tensor(1.0), "flow": torch.tensor(float("nan"))}
    with pytest.raises(InputError, match="iteration 7: loss flow is not finite"):
        check_finite(terms, {"rgb": 1.0, "flow": 1.0}, 7)
    with pytest.raises(InputError, match="loss rgb is not finite"):
        check_finite({"rgb": torch.tensor(1e30)}, {"rgb": 1e30}, 0)
    check_finite({"rgb": torch.tensor(1.0)}, {"rgb": 1.0}, 0)


def test_resuming_with_other_networks_is_refused(tmp_path):
    clip = make_clip(tmp_path / "clip")
    run(clip, make_config(tmp_path, "optimiser.iterations=2"), tmp_path / "run")
    other = make_config(tmp_path, "optimiser.iterations=4", "networks.atlas.width=32")
    with pytest.raises(InputError, match="networks of the checkpoint"):
        run(clip, other, tmp_path / "run", resume=True)


def test_pretraining_brings_the_mappings_to_the_identity(tmp_path):
    clip = make_clip(tmp_path / "clip")
    config = make_config(tmp_path, "schedule.pretrain_iterations=120")
    (tmp_path / "run").mkdir()
    fit = LnaFit(FitJob(clip, config, tmp_path / "run"))
    fields = fit._start(resume=False).fields
    at = fit.domain.to_unit(sample_positions(fit.video, 500, torch.Generator()).float())
    for mapping in fields.mapping:
        error = (mapping(at) - 0.8 * at[:, :2]).norm(dim=-1).mean()
        assert error < 0.03  # about 0.4 before; half a pixel of 30 is 0.03


@pytest.fixture
def objective(tmp_path):
    clip = make_clip(tmp_path / "clip", count=3, layer_count=3)
    torch.manual_seed(0)
    config = make_config(tmp_path)
    fields = LayerFields(3, SMALL)
    video = load_video(clip, 1.0, CPU)
    return Objective(fields, video, Domain(clip.size, 3), config)


def everything(objective, seed=0, count=40):
    at = sample_positions(objective.video, count, torch.Generator().manual_seed(seed))
    names = set(term_weights(objective.config.loss, 0))
    with torch.no_grad():
        return at, objective.terms(at, names)


def field_at(objective, x, y, t):
    """uv (L, 2), alpha (L,), colours (L, 3) and the composite at one pixel, by plain loops."""
    at = torch.tensor([[x * 2 / 29 - 1, y * 2 / 29 - 1, t * 2 / 2 - 1]], dtype=torch.float64)
    fields = copy.deepcopy(objective.fields).double()
    with torch.no_grad():
        uv = torch.cat([fields.uv(i, at) for i in range(3)])
        alpha = fields.alpha(at)[:, 0, 0]
        colors = torch.cat([fields.color(i, uv[i : i + 1]) for i in range(3)])
    shares, through = [], 1.0
    for a in alpha.tolist():
        shares.append(a * through)
        through *= 1 - a
    shares = torch.tensor(shares, dtype=torch.float64)
    return uv, alpha, colors, shares, (shares[:, None] * colors).sum(0)


# 1e-4: the fit computes in float32, the loops in float64.
CLOSE = {"rel": 1e-4}


def test_color_and_opacity_terms_match_plain_loops(objective):
    at, terms = everything(objective)
    frames = objective.video.frames.double() / 255
    masks = objective.video.masks.double() / 255
    rgb = gradient = sparsity = bootstrap = 0.0
    for x, y, t in at.tolist():
        _, alpha, colors, _, here = field_at(objective, x, y, t)
        rgb += (here - frames[t, :, y, x]).square().sum().item()
        for dx, dy in ((1, 0), (0, 1)):
            if x + dx < WIDTH and y + dy < HEIGHT:
                ahead = field_at(objective, x + dx, y + dy, t)[4]
                target = frames[t, :, y + dy, x + dx] - frames[t, :, y, x]
                gradient += (ahead - here - target).square().sum().item()
        seen = 1.0
        for i in range(2):
            sparsity += ((1 - alpha[i]) * colors[i]).square().sum().item()
            m, a = masks[i, t, y, x].item(), alpha[i].item()
            bootstrap -= seen * (m * np.log(a) + (1 - m) * np.log(1 - a))
            seen *= 1 - m
    found = [terms[n].item() for n in ("rgb", "gradient", "sparsity")]
    expected = [v / len(at) for v in (rgb, gradient, sparsity)]
    assert found == pytest.approx(expected, **CLOSE)
    # 1e-4: opacity is squeezed by 1e-6 before its logarithm.
    assert terms["bootstrap"].item() == pytest.approx(bootstrap / len(at), rel=1e-4)


def test_motion_terms_match_plain_loops(objective):
    at, terms = everything(objective)
    px_per_uv = 29 / 2 / 0.8
    video = objective.video
    flow, flow_alpha = [], []
    for step, flows, matched in (
        (1, video.flow_fwd, video.matched_fwd),
        (-1, video.flow_bwd, video.matched_bwd),
    ):
        distances, changes = [], []
        for x, y, t in at.tolist():
            pair = t if step == 1 else t - 1
            if not (0 <= pair < 2 and matched[pair, y, x]):
                continue
            dx, dy = flows[pair, :, y, x].tolist()
            uv, alpha, _, shares, _ = field_at(objective, x, y, t)
            uv_end, alpha_end, *_ = field_at(objective, x + dx, y + dy, t + step)
            distances.append(((uv - uv_end).norm(dim=-1) * shares).sum().item() * px_per_uv)
            changes.append((alpha - alpha_end).abs().sum().item())
        assert 3 < len(distances) < len(at)  # some samples have no match
        flow.append(np.mean(distances))
        flow_alpha.append(np.mean(changes))
    assert terms["flow"].item() == pytest.approx(np.mean(flow), **CLOSE)
    assert terms["flow_alpha"].item() == pytest.approx(np.mean(flow_alpha), **CLOSE)


@pytest.mark.parametrize(
    ("name", "step_px", "layers"),
    [
        ("rigidity", 1, (0, 1, 2)),
        ("global_rigidity", 8, (0, 1)),
        ("global_rigidity_bottom", 9, (2,)),
    ],
)
def test_rigidity_terms_match_plain_loops(objective, name, step_px, layers):
    at, terms = everything(objective)
    px_per_uv = 29 / 2 / 0.8
    total = 0.0
    for x, y, t in at.tolist():
        here = field_at(objective, x, y, t)[0]
        ahead_x = field_at(objective, x + step_px, y, t)[0]
        ahead_y = field_at(objective, x, y + step_px, t)[0]
        for i in layers:
            columns = [ahead_x[i] - here[i], ahead_y[i] - here[i]]
            jacobian = torch.stack(columns, dim=1) * px_per_uv / step_px
            total += rigidity_loss(jacobian[None], 1e-3).item()
    # 1e-3: differences over one pixel of float32 positions, squared and inverted.
    assert terms[name].item() == pytest.approx(total / len(at), rel=1e-3)


def test_terms_that_do_not_count_are_not_computed(objective):
    at = sample_positions(objective.video, 5, torch.Generator().manual_seed(0))
    assert set(objective.terms(at, {"rgb", "flow"})) == {"rgb", "flow"}


def test_batch_psnr_is_that_of_the_colours():
    # A squared error of 0.01 in each channel: 20 dB.
    assert batch_psnr_db({"rgb": torch.tensor(0.03)}) == pytest.approx(20)
    assert np.isnan(batch_psnr_db({}))


def test_run_info_says_what_was_fitted(tmp_path):
    clip = make_clip(tmp_path / "clip")
    run(clip, make_config(tmp_path, "optimiser.iterations=2", "seed=5"), tmp_path / "run")
    info = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (info["kind"], info["seed"], info["frame_count"]) == ("lna", 5, 4)
    assert info["layers"][0] == {"name": "layer0", "height": 48, "width": 48}
    assert info["metrics"]["iterations"] == 2
