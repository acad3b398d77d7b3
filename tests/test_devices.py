"""Training on a GPU: devices never mix, and what comes out is what the CPU gives.

Without a GPU the first part runs under `PretendDevice`; the tests marked `gpu` need a real one.
"""

import dataclasses

import numpy as np
import pytest
import torch

import train
from atlas.config import load_config
from atlas.coords import Size
from atlas.fields import Domain, LayerFields
from atlas.lna_mapping import LnaMapping
from atlas.lna_objective import Objective, weighted_sum
from atlas.mapping import Layer
from atlas.refine import FieldFit
from atlas.schedule import term_weights
from atlas.splat import SplatSum
from atlas.video_data import load_video, sample_positions
from atlas.wide_canvas import Roll
from tests.pretend_device import CUDA, PretendDevice
from tests.test_lna_fit import SMALL, make_clip, make_config
from tests.test_refine import CONFIG, scene

LOSS = load_config(None).loss
ROLL = Roll(80.0, (60.0, 45.0), np.zeros(3), False)
"""A canvas rolled out from a cylinder, seen by a camera that stands still."""


def field_fit(device, roll=None):
    """A layer's training, its texture on a device."""
    found = scene()
    motion = found.motion
    if roll is not None:
        to_rays = np.array([[1, 0, -48], [0, 1, -32], [0, 0, 80.0]]) / 80
        motion = dataclasses.replace(motion, matrices=np.stack([to_rays] * 3), roll=roll)
    found = dataclasses.replace(found, motion=motion, texture=found.texture.to(device))
    return FieldFit(found, CONFIG, LOSS, seed=1)


def trained(device, roll=None):
    fit = field_fit(device, roll)
    return fit.train(6), fit.bake()


def published_step(folder, device, config):
    """Loss and gradients of one step of the published recipe."""
    video = load_video(make_clip(folder), config.loss.flow.max_cycle_error_px, device)
    torch.manual_seed(0)
    fields = LayerFields(2, SMALL).to(device)
    domain = Domain(video.size, video.frame_count)
    weights = term_weights(config.loss, 0)
    where = sample_positions(video, 100, torch.Generator(device.type).manual_seed(5))
    terms = Objective(fields, video, domain, config).terms(where, set(weights))
    total = weighted_sum(terms, weights)
    total.backward()
    return float(total.detach()), [p.grad.cpu().numpy() for p in fields.parameters()]


def looked_at(device):
    torch.manual_seed(0)
    layers = Layer("fg", Size(12, 12)), Layer("bg", Size(12, 12))
    mapping = LnaMapping(LayerFields(2, SMALL).to(device), layers, Size(18, 30), 4, tolerance=0.2)
    found = mapping.frame(1, Size(9, 15))
    return found.uv, found.alpha, mapping.reconstruct(2), mapping.render_textures()[0].rgb


def splatted(device):
    total = SplatSum(Size(20, 30), device)
    rng = torch.Generator().manual_seed(0)
    values, weight = torch.rand(3, 8, 9, generator=rng), torch.rand(8, 9, generator=rng)
    uv = torch.rand(8, 9, 2, generator=rng) * 15 + 3
    total.add(values.to(device), weight.to(device), uv.to(device))
    total.add(values.to(device), weight.to(device), torch.full((8, 9, 2), torch.nan).to(device))
    return [x.cpu().numpy() for x in total.mean()]


@pytest.mark.parametrize("roll", [None, ROLL], ids=["flat", "rolled"])
def test_fields_train_without_mixing_devices(roll):
    values, baked = trained("cpu", roll)
    with PretendDevice() as pretended:
        on_gpu = field_fit("cuda", roll)
        assert on_gpu.device == CUDA
        assert next(on_gpu.field.parameters()).device == CUDA
        pretended.moves["to cpu"] = 0
        found = on_gpu.train(6)
        assert pretended.moves["to cpu"] == 0  # losses come back as numbers, when asked for
        also_baked = on_gpu.bake()
        assert pretended.moves["to cpu"] == 1  # all frames' residual at once
    assert found == pytest.approx(values, rel=1e-5)
    np.testing.assert_allclose(also_baked, baked, atol=1e-5)


def test_the_published_recipe_trains_without_mixing_devices(tmp_path, monkeypatch):
    config = make_config(tmp_path)
    loss, gradients = published_step(tmp_path / "a", torch.device("cpu"), config)
    generator = torch.Generator
    monkeypatch.setattr(torch, "Generator", lambda *_: generator())  # that of the CPU
    with PretendDevice() as pretended:
        found, also = published_step(tmp_path / "b", CUDA, config)
    assert pretended.moves["to cuda"] >= 6
    assert found == pytest.approx(loss, rel=1e-5)
    for a, b in zip(gradients, also, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-7)


def test_networks_are_looked_at_without_mixing_devices():
    expected = looked_at("cpu")
    with PretendDevice():
        found = looked_at(CUDA)
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_allclose(b, a, atol=1e-4)


def test_splats_stay_on_their_device():
    with PretendDevice():
        found = splatted("cuda")
    for a, b in zip(splatted("cpu"), found, strict=True):
        np.testing.assert_allclose(b, a, atol=1e-6)


def test_the_pretended_device_keeps_the_rules():
    with PretendDevice():
        here, there = torch.ones(3), torch.ones(3, device="cuda")
        for mix in (
            lambda: here + there,
            lambda: torch.cat([here, there]),
            lambda: here[there > 0],
        ):
            with pytest.raises(RuntimeError, match="same device"):
                mix()
        with pytest.raises(TypeError, match="numpy"):
            there.numpy()
        with pytest.raises(TypeError, match="numpy"):
            np.asarray(there)
        assert (there[here > 0] * torch.tensor(2.0)).device == CUDA
        assert torch.zeros_like(there).device == there.new_tensor([1.0]).device == CUDA
        assert there.cpu().numpy().sum() == 3
        module = torch.nn.Linear(3, 2).to("cuda")
        assert module(there).device == CUDA
        with pytest.raises(RuntimeError, match="same device"):
            module(here)


@pytest.mark.gpu
def test_fields_train_on_a_gpu_as_on_the_cpu():
    values, baked = trained("cpu")
    found, also_baked = trained("cuda")
    assert found == pytest.approx(values, rel=1e-2)  # sums in another order, six steps long
    assert np.abs(also_baked - baked).max() < 0.02


@pytest.mark.gpu
def test_the_published_recipe_steps_on_a_gpu_as_on_the_cpu(tmp_path):
    config = make_config(tmp_path)
    video = load_video(make_clip(tmp_path / "a"), 1.0, torch.device("cpu"))
    where = sample_positions(video, 100, torch.Generator().manual_seed(5))
    weights, found = term_weights(config.loss, 0), []
    for device in ("cpu", "cuda"):
        torch.manual_seed(0)
        fields = LayerFields(2, SMALL).to(device)
        there = load_video(make_clip(tmp_path / device), 1.0, torch.device(device))
        domain = Domain(there.size, there.frame_count)
        terms = Objective(fields, there, domain, config).terms(where.to(device), set(weights))
        found.append(float(weighted_sum(terms, weights).detach()))
    assert found[1] == pytest.approx(found[0], rel=1e-3)


@pytest.mark.gpu
@pytest.mark.parametrize("recipe", ["layered", "lna"])
def test_a_whole_fit_runs_on_a_gpu(tmp_path, monkeypatch, recipe):
    clip = make_clip(tmp_path / "clip")
    line = ["train.py", str(clip.folder), "--out", str(tmp_path / "run"), "--device", "cuda"]
    if recipe == "lna":
        line += ["--config", "configs/lna.yaml", "--budget", "60"]
    monkeypatch.setattr("sys.argv", line)
    train.main()
    assert (tmp_path / "run/checkpoint.safetensors").is_file()
