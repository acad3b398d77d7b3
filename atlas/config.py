"""What a fit can be told: nested frozen dataclasses, read from YAML and `--set key=value`.

Unknown keys are refused and types are checked; every mistake becomes one `InputError` line that
names the key, what was found and what would be right.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from atlas.clip import write_bytes
from atlas.config_io import (
    build_config,
    parse_override,
    parse_yaml,
    read_yaml,
    require,
    to_yaml,
)
from atlas.layered_config import AlignConfig, FieldConfig, LayeredConfig

__all__ = [
    "AlignConfig",
    "FieldConfig",
    "LayeredConfig",
    "LossConfig",
    "TrainConfig",
    "config_from_yaml",
    "load_config",
    "save_config",
]

RECIPES = ("layered", "lna")
QUALITIES = ("draft", "standard", "best")
"""Each goes on where the one before ends."""


def require_factor(value: float, name: str = "weight") -> None:
    """A factor on a loss must be finite and not negative."""
    require(0 <= value < math.inf, f"{name} must be >= 0 and finite, got {value}")


@dataclass(frozen=True, kw_only=True)
class RgbLossConfig:
    weight: float = 5000.0
    """Factor on the colour loss; dimensionless, >= 0."""

    def __post_init__(self) -> None:
        require_factor(self.weight)


@dataclass(frozen=True, kw_only=True)
class GradientLossConfig:
    weight: float = 1000.0
    """Factor on the loss on colour differences to the next pixel; dimensionless, >= 0."""

    def __post_init__(self) -> None:
        require_factor(self.weight)


@dataclass(frozen=True, kw_only=True)
class FlowLossConfig:
    weight: float = 5.0
    """Factor on the flow loss, which is in pixels; 1/px, >= 0."""
    max_cycle_error_px: float = 1.0
    """Ignore matches whose forward-backward error is larger; pixels, > 0."""

    def __post_init__(self) -> None:
        require_factor(self.weight)
        error = self.max_cycle_error_px
        require(0 < error < math.inf, f"max_cycle_error_px must be > 0 and finite, got {error}")


@dataclass(frozen=True, kw_only=True)
class FlowAlphaLossConfig:
    weight: float = 49.0
    """Factor on the change of opacity along the flow; dimensionless, >= 0."""

    def __post_init__(self) -> None:
        require_factor(self.weight)


@dataclass(frozen=True, kw_only=True)
class RigidityLossConfig:
    weight: float = 1.0
    """Factor on the rigidity loss of each layer; dimensionless, >= 0."""
    step_px: float = 1.0
    """Distance of the finite differences in the Jacobian; pixels, > 0."""

    def __post_init__(self) -> None:
        require_factor(self.weight)
        require(0 < self.step_px < math.inf, f"step_px must be > 0, got {self.step_px}")


@dataclass(frozen=True, kw_only=True)
class GlobalRigidityLossConfig:
    weight: float = 5.0
    """Factor on the rigidity loss over a large step, each layer but the bottom one; >= 0."""
    bottom_weight: float = 50.0
    """The same for the bottom layer; dimensionless, >= 0."""
    step_px: float = 100.0
    """Distance of the finite differences, each layer but the bottom one; pixels, > 0."""
    bottom_step_px: float = 100.0
    """The same for the bottom layer; pixels, > 0."""
    until_iteration: int = 5000
    """The last iteration that counts it (it helps to start straight); 0 = only the first."""

    def __post_init__(self) -> None:
        require_factor(self.weight)
        require_factor(self.bottom_weight, "bottom_weight")
        require(0 < self.step_px < math.inf, f"step_px must be > 0, got {self.step_px}")
        step = self.bottom_step_px
        require(0 < step < math.inf, f"bottom_step_px must be > 0, got {step}")
        require(
            self.until_iteration >= 0, f"until_iteration must be >= 0, got {self.until_iteration}"
        )


@dataclass(frozen=True, kw_only=True)
class SparsityLossConfig:
    weight: float = 1000.0
    """Factor on colour that an upper layer's atlas holds where the layer is clear; >= 0."""

    def __post_init__(self) -> None:
        require_factor(self.weight)


@dataclass(frozen=True, kw_only=True)
class BootstrapLossConfig:
    weight: float = 2000.0
    """Factor on the cross entropy between opacity and the given masks; dimensionless, >= 0."""
    until_iteration: int = 10000
    """The last iteration that counts it; afterwards opacity is free of the masks."""

    def __post_init__(self) -> None:
        require_factor(self.weight)
        require(
            self.until_iteration >= 0, f"until_iteration must be >= 0, got {self.until_iteration}"
        )


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Terms of the objective; a term of weight 0 is not computed."""

    rgb: RgbLossConfig = field(default_factory=RgbLossConfig)
    gradient: GradientLossConfig = field(default_factory=GradientLossConfig)
    flow: FlowLossConfig = field(default_factory=FlowLossConfig)
    flow_alpha: FlowAlphaLossConfig = field(default_factory=FlowAlphaLossConfig)
    rigidity: RigidityLossConfig = field(default_factory=RigidityLossConfig)
    global_rigidity: GlobalRigidityLossConfig = field(default_factory=GlobalRigidityLossConfig)
    sparsity: SparsityLossConfig = field(default_factory=SparsityLossConfig)
    bootstrap: BootstrapLossConfig = field(default_factory=BootstrapLossConfig)


@dataclass(frozen=True, kw_only=True)
class MlpConfig:
    """One coordinate network: fully connected, ReLU between layers, tanh at the end."""

    depth: int
    """Number of linear layers, the last one included; >= 2."""
    width: int = 256
    """Channels of each hidden layer; >= 1."""
    frequencies: int = 0
    """Octaves of the positional encoding, 2^k pi; 0 feeds the coordinates themselves."""
    skips: tuple[int, ...] = ()
    """Layers (0 = the first) that see the encoded input again; each in 1 .. depth - 1."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "skips", tuple(self.skips))
        require(self.depth >= 2, f"depth must be >= 2, got {self.depth}")
        require(self.width >= 1, f"width must be >= 1, got {self.width}")
        require(0 <= self.frequencies <= 24, f"frequencies must be 0..24, got {self.frequencies}")
        for skip in self.skips:
            require(1 <= skip < self.depth, f"skips must be in 1..{self.depth - 1}, got {skip}")


@dataclass(frozen=True, kw_only=True)
class NetworksConfig:
    """The coordinate networks of the recipe `lna`."""

    mapping: MlpConfig = field(default_factory=lambda: MlpConfig(depth=6))
    """xyt -> uv, each layer but the bottom one."""
    bottom_mapping: MlpConfig = field(default_factory=lambda: MlpConfig(depth=4))
    """xyt -> uv of the bottom layer."""
    opacity: MlpConfig = field(default_factory=lambda: MlpConfig(depth=8, frequencies=5))
    """xyt -> opacity, each layer but the bottom one."""
    atlas: MlpConfig = field(
        default_factory=lambda: MlpConfig(depth=8, frequencies=10, skips=(4, 7))
    )
    """uv -> RGB, one network shared by all layers."""
    skip_gradient: bool = False
    """Whether gradients reach the coordinates through skips; the original program blocks them."""
    uv_scale: float = 0.8
    """Size of a frame's longer half in uv before fitting; leaves room around it; (0, 1]."""

    def __post_init__(self) -> None:
        require(0 < self.uv_scale <= 1, f"uv_scale must be in (0, 1], got {self.uv_scale}")


@dataclass(frozen=True, kw_only=True)
class OptimiserConfig:
    """Adam on random pixels of the whole clip."""

    iterations: int = 400_000
    """Steps of the fit, pretraining not counted; >= 1."""
    samples: int = 10_000
    """Random pixels a step; >= 1."""
    learning_rate: float = 1e-4
    """Step size at the start; > 0."""
    final_learning_rate: float | None = None
    """Step size at the last iteration, reached exponentially; None keeps the first; > 0."""

    def __post_init__(self) -> None:
        require(self.iterations >= 1, f"iterations must be >= 1, got {self.iterations}")
        require(self.samples >= 1, f"samples must be >= 1, got {self.samples}")
        rate = self.learning_rate
        require(0 < rate < math.inf, f"learning_rate must be > 0 and finite, got {rate}")
        last = self.final_learning_rate
        require(
            last is None or 0 < last < math.inf,
            f"final_learning_rate must be > 0 and finite, or null, got {last}",
        )


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """What happens when, in the recipe `lna`."""

    pretrain_iterations: int = 100
    """Steps per frame that pull the mappings to the identity before the fit; 0 = none."""
    pretrain_samples: int = 10_000
    """Random pixels of each such step; >= 1."""
    evaluate_every: int = 1000
    """Iterations between two looks at PSNR, frames and atlases; 0 = only at the end."""
    evaluate_frames: int = 8
    """Frames looked at then, spread evenly over the clip; >= 1."""
    checkpoint_every: int = 1000
    """Iterations between two checkpoints; 0 = only at the end."""
    log_every: int = 20
    """Iterations between two entries of the losses in the log; >= 1."""

    def __post_init__(self) -> None:
        for name in ("pretrain_iterations", "evaluate_every", "checkpoint_every"):
            require(getattr(self, name) >= 0, f"{name} must be >= 0, got {getattr(self, name)}")
        for name in ("pretrain_samples", "evaluate_frames", "log_every"):
            require(getattr(self, name) >= 1, f"{name} must be >= 1, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything that decides a fit, apart from the clip."""

    recipe: str = "layered"
    """layered: closed-form base motion, dense alignment, explicit texture; minutes on a CPU.
    lna: layered neural atlases as published; hours on a GPU."""
    quality: str = "standard"
    """draft, standard or best, in the recipe `layered`: how far along one sequence of steps the fit
    goes; a finished run of less quality can be gone on with."""
    seed: int = 0
    """Start of every random number generator; two CPU runs with one seed are equal; >= 0."""
    device: str = "auto"
    """auto (CUDA where there is one), cpu, cuda or cuda:N."""
    budget_s: float | None = None
    """Have the run whole after this long, as good as it gets; seconds, > 0, None = no limit."""
    canvas_texels: int = 1000
    """Side of each layer's square atlas picture in the recipe `lna`; texels, 2..16384."""
    loss: LossConfig = field(default_factory=LossConfig)
    layered: LayeredConfig = field(default_factory=LayeredConfig)
    networks: NetworksConfig = field(default_factory=NetworksConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)

    def __post_init__(self) -> None:
        require(
            self.recipe in RECIPES,
            f"recipe must be one of {', '.join(RECIPES)}, got {self.recipe!r}",
        )
        require(
            self.quality in QUALITIES,
            f"quality must be one of {', '.join(QUALITIES)}, got {self.quality!r}",
        )
        require(0 <= self.seed < 2**63, f"seed must be in 0..2^63 - 1, got {self.seed}")
        kind, _, index = self.device.partition(":")
        require(
            kind in ("auto", "cpu", "cuda") and (not index or (kind == "cuda" and index.isdigit())),
            f"device must be auto, cpu, cuda or cuda:N, got {self.device!r}",
        )
        budget = self.budget_s
        require(budget is None or budget > 0, f"budget_s must be > 0 or null, got {budget}")
        texels = self.canvas_texels
        require(2 <= texels <= 16384, f"canvas_texels must be in 2..16384, got {texels}")


def load_config(path: Path | None, overrides: Sequence[str] = ()) -> TrainConfig:
    """The defaults, changed by the YAML file at `path`, changed by `key.key=value` overrides.

    Raises `InputError` for an unknown key (with the closest known ones), a wrong type or a value
    out of its range, and for a file that is missing or not YAML.
    """
    sources = [] if path is None else [(str(path), read_yaml(Path(path)))]
    sources += [(f"--set {override}", parse_override(override)) for override in overrides]
    return build_config(TrainConfig, sources)


def save_config(config: TrainConfig, path: Path) -> None:
    """Write every value of `config` as YAML that `load_config` reads back to the same config."""
    write_bytes(Path(path), to_yaml(config).encode("utf-8"))


def config_from_yaml(text: str, source: str) -> TrainConfig:
    """The config in YAML `text`; `source` is named in errors."""
    return build_config(TrainConfig, [(source, parse_yaml(text, source))])
