"""The default recipe: closed form where a closed form exists, coordinate networks for the rest.

A clip's shots are fitted one after the other, each with atlases of its own. In a shot, the motion
of every layer is improved along one sequence of steps (`atlas.shot_fit`), then textures and shading
are solved for (`atlas.finish`). What is done is kept after every block of steps, so that an
interrupted fit goes on, and a finished one can be gone on with at a higher quality.
"""

from __future__ import annotations

import hashlib
import logging
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np

from atlas.config import QUALITIES
from atlas.finish import Finish
from atlas.fit_job import FitJob
from atlas.layered_file import (
    CHECKPOINT,
    layer_meta,
    motion_arrays,
    read_arrays,
    read_meta,
    read_motions,
    save_layered,
    write_arrays,
    write_residuals,
)
from atlas.near_motion import NEAR_NAME
from atlas.pace import Pace
from atlas.rough_masks import with_tight_masks
from atlas.run import clip_hash, read_run_info, write_atlases, write_run_info
from atlas.shot_fit import SKY_NAME, FitState, ShotFit
from atlas.shots import shot_folder, write_shots

log = logging.getLogger(__name__)

STATE = "state.safetensors"
FULL_OVER_HALF = 4.0
"""A pass over frames at full size against one at half the size."""
DRAFT_PASSES, PASSES, MENDING_PASSES = 2.5, 3.5, 1.0
"""What finishing takes, in passes over the frames at full size; each round of mending adds."""


def fit_layered(job: FitJob, resume: bool = False) -> None:
    """Fit the clip and leave checkpoint, mattes, atlases and `run.json` in the job's folder.

    Args:
        resume: go on from what the folder holds, finished at a lower quality or interrupted.
    """
    if not job.config.layered.near_layer:
        job = replace(job, clip=job.clip.without(NEAR_NAME))
    spans = job.clip.shots()
    if len(spans) == 1:
        Fit(job).run(resume)
        return
    for number, (first, end) in enumerate(spans):
        log.info("shot %d of %d: frames %d to %d", number + 1, len(spans), first, end - 1)
        folder = shot_folder(job.folder, number)
        folder.mkdir(parents=True, exist_ok=True)
        Fit(job.of_shot(first, end, folder)).run(resume)
    write_shots(job.folder, job.clip, spans)


class Fit:
    """One shot's fit and its files."""

    def __init__(self, job: FitJob):
        self.job, self.clip, self.config, self.folder = job, job.clip, job.config, job.folder
        self.stages = job.folder / "stages"
        self.pace = Pace(job.budget, self._finish_s)
        self.shot = ShotFit(replace(job, folder=self.stages), self.pace, self._keep)
        config = job.config
        decisive = (
            config.layered, config.loss, config.seed, clip_hash(job.clip), job.clip.frame_names,
        )  # fmt: skip
        self.settings = hashlib.sha256(repr(decisive).encode()).hexdigest()[:16]
        self.earlier_s: dict[str, float] = {}
        self.masks_were_rough = False

    def run(self, resume: bool) -> None:
        """Follow the sequence, finish and write."""
        if not resume:
            shutil.rmtree(self.stages, ignore_errors=True)
        interrupted = self._state_of(self.stages / STATE) if resume else None
        earlier = self._state_of(self.folder / CHECKPOINT) if resume else None
        if earlier is not None and interrupted is None and self._is_enough(earlier):
            log.info("%s: already fitted with these settings; nothing to do", self.folder)
            return
        self.stages.mkdir(exist_ok=True)
        if self.config.layered.tighten_masks:
            self._tighten_masks()
        state = interrupted or FitState()
        if earlier is not None and interrupted is None:
            state = self._taken_up(earlier)
        has_earlier, earlier = earlier is not None, None  # closes its files
        for name in state.done:
            log.info("%s: taken from the earlier run", name)
        state = self.shot.run(state)
        self._finish(state, has_earlier)
        state.motions.clear()  # closes their files, which Windows wants before the folder goes
        shutil.rmtree(self.stages)

    def _tighten_masks(self) -> None:
        """Fit to masks that follow the frames' edges, where those given do not."""
        clip = with_tight_masks(self.clip, self.stages / "masks", self.pace)
        if clip is not self.clip:
            self.clip, self.job = clip, replace(self.job, clip=clip)
            self.masks_were_rough = True
            self.shot = ShotFit(replace(self.job, folder=self.stages), self.pace, self._keep)

    def _state_of(self, path: Path) -> FitState | None:
        """The state that a file of these settings holds."""
        if not path.is_file() or read_meta(path).get("settings") != self.settings:
            return None
        arrays, meta = read_arrays(path)
        motions = read_motions(path, arrays, meta, writable=path.parent == self.stages)
        self.earlier_s = dict(meta.get("seconds", {}))
        return FitState(motions, list(meta.get("done", [])))

    def _taken_up(self, state: FitState) -> FitState:
        """A finished run's state with residuals of its own, which may be written to."""
        write_residuals(self.stages, state.motions)
        self._keep(state)
        return self._state_of(self.stages / STATE) or state

    def _is_enough(self, state: FitState) -> bool:
        """Whether a finished run has all that is asked for."""
        made = read_meta(self.folder / CHECKPOINT).get("quality", "standard")
        good = QUALITIES.index(made) >= QUALITIES.index(self.config.quality)
        return good and not self.shot.remaining(state)

    def _keep(self, state: FitState) -> None:
        """Write the state of an unfinished fit."""
        arrays: dict[str, np.ndarray] = {}
        for i, motion in enumerate(state.motions):
            arrays |= motion_arrays(motion, str(i))
        write_residuals(self.stages, state.motions)
        write_arrays(self.stages / STATE, arrays, self._meta(state) | layer_meta(state.motions))

    def _meta(self, state: FitState) -> dict:
        return {
            "settings": self.settings,
            "done": state.done,
            "quality": self.config.quality,
            "seconds": self._seconds(),
        }

    def _seconds(self) -> dict[str, float]:
        """Time by stage, that of earlier, interrupted runs included."""
        spent = dict(self.earlier_s)
        for name, value in self.pace.total_s.items():
            spent[name] = round(spent.get(name, 0.0) + value, 2)
        return spent

    def _finish_s(self) -> float:
        """What finishing will take, told from the passes over the frames that scores are."""
        layers = len(self.clip.layer_names)
        score_s = sum(self.pace.expected_s(f"score_{i}") for i in range(layers))
        passes = DRAFT_PASSES if self.config.quality == "draft" else PASSES
        if self.config.quality != "draft":
            has_sky = self.clip.layer_names[-1] == SKY_NAME
            passes += MENDING_PASSES * self.config.layered.known_sky_rounds * has_sky
            if layers - 1 - has_sky > 0:
                passes += MENDING_PASSES * self.config.layered.opacity_rounds
        return FULL_OVER_HALF * passes * score_s * len(self.shot.windows)

    def _finish(self, state: FitState, has_earlier: bool) -> None:
        """Textures and files of a state, unless the folder holds a better run of these settings."""
        job = replace(self.job, folder=self.stages)
        done = Finish(self.shot.store, job, self.pace, self.masks_were_rough).run(state.motions)
        meta = self._meta(state)
        if has_earlier:
            before = read_run_info(self.folder).metrics.get("psnr_db", -math.inf)
            if before > done.metrics["psnr_db"]:
                log.info("the earlier result is better by PSNR (%.2f dB); it stays", before)
                arrays, old = read_arrays(self.folder / CHECKPOINT)
                write_arrays(self.folder / CHECKPOINT, arrays, old | meta)
                return
        for name in ("mattes", "contact.png"):
            replace_path(self.stages / name, self.folder / name)
        save_layered(self.folder, state.motions, done.textures, done.shading, meta)
        write_atlases(self.folder, done.mapping.layers, done.textures)
        done.shading = None  # closes its file, which Windows wants before the folder goes
        info = self.job.run_info("layered", done.mapping.layers, self._seconds(), done.metrics)
        write_run_info(self.folder, info)


def replace_path(source: Path, target: Path) -> None:
    """Move a file or a folder to where another one may lie."""
    if target.is_dir():
        shutil.rmtree(target)
    source.replace(target)
