"""What the recipe `layered` can be told; see `atlas.config`."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from atlas.config_io import require


@dataclass(frozen=True, kw_only=True)
class AlignConfig:
    """Dense alignment of frames to their atlas, recipe `layered`."""

    sigmas_px: tuple[float, ...] = (14.0, 14.0, 9.0, 9.0, 6.0, 6.0, 4.0, 4.0, 3.0, 3.0)
    """One round each: how widely the flow is smoothed, Gaussian sigma; pixels, > 0."""
    best_sigmas_px: tuple[float, ...] = (3.0, 2.5, 2.5)
    """The rounds that quality `best` adds; pixels, > 0."""
    stride_px: int = 4
    """Distance of the lattice points that carry the residual; pixels, 2..64."""
    max_step_px: float = 12.0
    """Longest move of a point in one round; pixels, > 0."""
    neighbour_weight: float = 0.6
    """Pull of the neighbouring frames' maps along the flow against the frame's own; [0, 1)."""
    robust_sigma: float = 0.08
    """Residual at which a pixel's weight in the texture halves (Geman-McClure); RGB in [0, 1]."""

    def __post_init__(self) -> None:
        for name in ("sigmas_px", "best_sigmas_px"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
            for sigma in getattr(self, name):
                require(0 < sigma < math.inf, f"{name} must be > 0, got {sigma}")
        require(2 <= self.stride_px <= 64, f"stride_px must be in 2..64, got {self.stride_px}")
        require(0 < self.max_step_px < math.inf, f"max_step_px must be > 0, got {self.max_step_px}")
        pull = self.neighbour_weight
        require(0 <= pull < 1, f"neighbour_weight must be in [0, 1), got {pull}")
        require(self.robust_sigma > 0, f"robust_sigma must be > 0, got {self.robust_sigma}")


@dataclass(frozen=True, kw_only=True)
class FieldConfig:
    """Coordinate network for a layer's residual motion, recipe `layered`."""

    levels: int = 4
    """Feature grids, each twice as fine as the one before, the last as fine as the lattice."""
    features: int = 4
    """Features per grid point; >= 1."""
    time_resolution: float = 1.0
    """Grid points per frame along time on the finest grid; (0, 1]."""
    width: int = 64
    """Channels of the decoder's hidden layers; >= 1."""
    stride_px: int = 8
    """Distance of the points that the field is evaluated at; pixels, >= 2."""
    training_steps: int = 200
    """Steps end to end per layer with the losses; 0 keeps the aligned residual as it is."""
    learning_rate: float = 0.002
    """Largest step of Adam; > 0."""

    def __post_init__(self) -> None:
        for name in ("levels", "features", "width"):
            require(getattr(self, name) >= 1, f"{name} must be >= 1, got {getattr(self, name)}")
        require(self.training_steps >= 0, f"training_steps must be >= 0, got {self.training_steps}")
        require(self.stride_px >= 2, f"stride_px must be >= 2, got {self.stride_px}")
        share = self.time_resolution
        require(0 < share <= 1, f"time_resolution must be in (0, 1], got {share}")
        rate = self.learning_rate
        require(0 < rate < math.inf, f"learning_rate must be > 0 and finite, got {rate}")


@dataclass(frozen=True, kw_only=True)
class LayeredConfig:
    """The recipe `layered`."""

    object_model: str = "affine"
    """Base motion of an upper layer that covers little of the frame: affine or homography."""
    scene_model: str = "homography"
    """Base motion of a layer that covers much of it: homography, affine or rotation."""
    sky_model: str = "rotation"
    """Base motion of a layer called sky: rotation or homography."""
    sky_bending: str = "lens"
    """How a layer called sky may bend: lens (one quadratic a frame, so that a new sky keeps its
    shapes) or free (after its clouds, as other layers do: for paint on the clouds themselves)."""
    near_layer: bool = True
    """Whether the clip's layer called near, if it has one, becomes a layer (else it is scene)."""
    tighten_masks: bool = True
    """Whether masks that lie beside the edges of the frames are cut anew along them first."""
    align: AlignConfig = field(default_factory=AlignConfig)
    residual_field: FieldConfig = field(default_factory=FieldConfig)
    shading_sigma_px: float = 48.0
    """Window of the smooth shading per layer and frame; pixels; 0 = no shading."""
    camera_light: bool = True
    """Whether to fit each frame's exposure and one vignette; what the shading does is on top."""
    known_sky_rounds: int = 2
    """Times that mattes are mended where the sky atlas knows what lies behind; >= 0."""
    opacity_rounds: int = 2
    """Times at most that the edges of upper layers' mattes are moved to where the textures put
    them; >= 0."""
    sharpen_steps: int = 2
    """Back-projection steps of the final texture; >= 0."""
    memory_mb: float = 1000.0
    """Frames, flow and mattes held in memory at once; megabytes, > 0."""
    window_frames: int = 150
    """Longer shots are fitted in windows of at most this many frames (fewer where `memory_mb` does
    not hold as many) that share one atlas per layer; >= 16."""
    overlap_frames: int = 12
    """Frames that two neighbouring windows share; >= 2."""

    def __post_init__(self) -> None:
        models = ("affine", "homography", "rotation")
        for name in ("object_model", "scene_model", "sky_model"):
            value = getattr(self, name)
            require(value in models, f"{name} must be one of {', '.join(models)}, got {value!r}")
        bending = self.sky_bending
        require(bending in ("lens", "free"), f"sky_bending must be lens or free, got {bending!r}")
        sigma = self.shading_sigma_px
        require(0 <= sigma < math.inf, f"shading_sigma_px must be >= 0, got {sigma}")
        for name in ("sharpen_steps", "known_sky_rounds", "opacity_rounds"):
            require(getattr(self, name) >= 0, f"{name} must be >= 0, got {getattr(self, name)}")
        require(self.memory_mb > 0, f"memory_mb must be > 0, got {self.memory_mb}")
        for name, least in (("window_frames", 16), ("overlap_frames", 2)):
            value = getattr(self, name)
            require(value >= least, f"{name} must be >= {least}, got {value}")
