"""Configs: the paper's numbers, overrides, and one clear line for every mistake."""

from pathlib import Path

import pytest

from atlas.config import (
    BootstrapLossConfig,
    FlowLossConfig,
    MlpConfig,
    OptimiserConfig,
    TrainConfig,
    config_from_yaml,
    load_config,
    save_config,
)
from atlas.config_io import to_yaml
from atlas.errors import InputError

CONFIGS = Path(__file__).resolve().parent.parent / "configs"


def test_the_lna_preset_is_the_paper():
    """The numbers that the authors' program ships with."""
    config = load_config(CONFIGS / "lna.yaml")
    loss = config.loss
    assert config.recipe == "lna"
    assert (loss.rgb.weight, loss.gradient.weight, loss.flow.weight) == (5000, 1000, 5)
    assert (loss.flow_alpha.weight, loss.sparsity.weight) == (49, 1000)
    assert (loss.rigidity.weight, loss.rigidity.step_px) == (1, 1)
    assert (loss.global_rigidity.weight, loss.global_rigidity.bottom_weight) == (5, 50)
    assert (loss.global_rigidity.step_px, loss.global_rigidity.bottom_step_px) == (100, 100)
    assert loss.global_rigidity.until_iteration == 5000
    assert (loss.bootstrap.weight, loss.bootstrap.until_iteration) == (2000, 10000)
    assert config.networks.atlas == MlpConfig(depth=8, frequencies=10, skips=(4, 7))
    assert config.networks.opacity == MlpConfig(depth=8, frequencies=5)
    assert (config.networks.mapping.depth, config.networks.bottom_mapping.depth) == (6, 4)
    assert (config.optimiser.iterations, config.optimiser.samples) == (400_000, 10_000)
    assert config.optimiser.learning_rate == 1e-4
    assert config.networks.uv_scale == 0.8


def test_the_default_preset_is_the_defaults():
    assert load_config(CONFIGS / "default.yaml") == load_config(None) == TrainConfig()


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda p: p.stem)
def test_every_preset_loads_and_survives_writing(path, tmp_path):
    config = load_config(path)
    save_config(config, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml") == config
    assert config_from_yaml(to_yaml(config), "text") == config


def test_overrides_win_over_the_file_and_the_last_one_wins(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("seed: 3\nloss: {flow: {weight: 7}}\n")
    config = load_config(path, ["loss.flow.weight=2", "loss.flow.weight=1.5", "budget_s=90"])
    assert config.seed == 3
    assert config.loss.flow.weight == 1.5
    assert config.budget_s == 90
    assert config.loss.flow.max_cycle_error_px == FlowLossConfig().max_cycle_error_px


def test_lists_and_null_can_be_set():
    config = load_config(None, ["networks.mapping.skips=[2,3]", "budget_s=null"])
    assert config.networks.mapping.skips == (2, 3)
    assert config.budget_s is None


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("loss.flow.wieght=2", r"no key 'loss\.flow\.wieght'; did you mean loss\.flow\.weight"),
        ("flow.weight=2", r"no key 'flow'; did you mean loss\.flow"),
        ("optimizer.samples=9", r"no key 'optimizer'; did you mean optimiser"),
        ("loss.flow=3", r"loss\.flow is a section, wanted one of its keys: weight, max_cycle"),
        ("loss=null", r"loss is a section"),
        ("loss.flow.weight=fast", r"loss\.flow\.weight must be float, got 'fast'"),
        ("loss.flow.weight=null", r"loss\.flow\.weight must be float, got None"),
        ("loss.flow.weight.x=2", r"loss\.flow\.weight must be float, got \{'x': 2\}"),
        ("optimiser.samples=2.5", r"optimiser\.samples must be int, got 2\.5"),
        ("networks.atlas.skips=[4,x]", r"networks\.atlas\.skips must be tuple, got \[4, 'x'\]"),
        ("loss.flow.weight=-1", r"^loss\.flow\.weight must be >= 0 and finite, got -1"),
        ("loss.flow.weight=nan", r"^loss\.flow\.weight must be >= 0 and finite, got nan"),
        ("loss.flow.max_cycle_error_px=0", r"^loss\.flow\.max_cycle_error_px must be > 0"),
        ("networks.atlas.skips=[4,9]", r"^networks\.atlas\.skips must be in 1\.\.7, got 9"),
        ("networks.uv_scale=1.1", r"^networks\.uv_scale must be in \(0, 1\], got 1\.1"),
        ("recipe=nerf", r"^recipe must be one of layered, lna, got 'nerf'"),
        ("device=tpu", r"^device must be auto, cpu, cuda or cuda:N, got 'tpu'"),
        ("budget_s=0", r"^budget_s must be > 0 or null, got 0"),
        ("seed=${nothing}", r"seed has no usable value"),
        ("seed=???", r"seed has no usable value"),
        ("weight", r"--set weight: wanted key=value"),
        ("=2", r"--set =2: wanted key=value"),
        ("loss.flow.weight={a: [", r"not readable"),
    ],
)
def test_mistakes_are_named_on_one_line(override, message):
    with pytest.raises(InputError, match=message) as caught:
        load_config(None, [override])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- 1", r"mine\.yaml: wanted `key: value` lines, found a list"),
        ("3", r"mine\.yaml: wanted `key: value` lines, found '3'"),
        ("a: [", r"mine\.yaml: not a YAML config"),
        ("seed: x", r"mine\.yaml: seed must be int, got 'x'"),
        ("recipe: lna\nrecipe: layered", r"mine\.yaml: not a YAML config"),
        ("loss:", r"mine\.yaml: loss is a section"),
    ],
)
def test_a_bad_file_is_named(text, message, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        load_config(path)


def test_a_missing_or_binary_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.yaml: config not found"):
        load_config(tmp_path / "nowhere.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(InputError, match=r"binary.yaml: cannot be read"):
        load_config(tmp_path / "binary.yaml")


def test_direct_construction_checks_ranges_too():
    with pytest.raises(InputError, match="weight must be >= 0"):
        FlowLossConfig(weight=-0.1)
    with pytest.raises(InputError, match="until_iteration must be >= 0"):
        BootstrapLossConfig(until_iteration=-1)
    with pytest.raises(InputError, match="final_learning_rate must be > 0"):
        OptimiserConfig(final_learning_rate=0.0)
    with pytest.raises(InputError, match="depth must be >= 2"):
        MlpConfig(depth=1)
