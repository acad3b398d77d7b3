"""What every recipe's fit is given, and the part of `run.json` that all of them write alike."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from atlas.clip import Clip
from atlas.config import TrainConfig
from atlas.mapping import Layer
from atlas.run import RunInfo, clip_hash, current_commit
from atlas.schedule import TimeBudget
from atlas.tracking import NullTracker, Tracker


@dataclass(frozen=True)
class FitJob:
    """A clip to fit, how, and where the run goes.

    device: where networks are trained. tracker: gets losses, PSNR, frames, atlases and opacity.
    budget: when the run has to be whole. first_frame: frame of the whole clip that is the first.
    """

    clip: Clip
    config: TrainConfig
    folder: Path
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    tracker: Tracker = field(default_factory=NullTracker)
    budget: TimeBudget = field(default_factory=lambda: TimeBudget(None))
    first_frame: int = 0

    def of_shot(self, first: int, end: int, folder: Path) -> FitJob:
        """The same for frames [first, end), with their part of the time that is left."""
        share = (end - first) / (self.clip.frame_count - first)
        return replace(
            self,
            clip=self.clip.span(first, end),
            folder=folder,
            budget=self.budget.part(share),
            first_frame=self.first_frame + first,
        )

    def run_info(
        self,
        kind: str,
        layers: tuple[Layer, ...],
        seconds: dict[str, float],
        metrics: dict[str, float],
    ) -> RunInfo:
        """The run's `RunInfo`, not complete yet."""
        return RunInfo(
            kind=kind,
            clip_folder=str(self.clip.folder.resolve()),
            clip_sha256=clip_hash(self.clip),
            first_frame=self.first_frame,
            frame_count=self.clip.frame_count,
            width=self.clip.size.width,
            height=self.clip.size.height,
            layers=[
                {"name": one.name, "height": one.canvas.height, "width": one.canvas.width}
                for one in layers
            ],
            seed=self.config.seed,
            commit=current_commit(),
            seconds=seconds,
            metrics=metrics,
        )
