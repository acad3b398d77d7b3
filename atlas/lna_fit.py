"""The published fit of layered neural atlases, for any number of layers.

Kasten et al. 2021: mappings are pretrained to the identity, then Adam descends the whole objective
on random pixels of the clip. Equal seeds give equal runs on a CPU, and a run that is stopped and
resumed ends where an unbroken one would.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from atlas.clip import write_rgb
from atlas.coords import Size
from atlas.errors import InputError
from atlas.fields import Domain, LayerFields, parameter_count
from atlas.fit_job import FitJob
from atlas.lna_checkpoint import CheckpointInfo, load_checkpoint, save_checkpoint, save_textures
from atlas.lna_end import End, EndCosts, plan_end
from atlas.lna_mapping import LnaMapping, used_windows
from atlas.lna_objective import Objective, check_finite, weighted_sum
from atlas.mapping import Layer
from atlas.metrics import psnr_db
from atlas.progress import progress
from atlas.run import current_commit, read_run_info, write_atlases, write_run_info
from atlas.schedule import is_due, learning_rate, term_weights
from atlas.texture import Texture
from atlas.video_data import VideoData, load_video, sample_positions

log = logging.getLogger(__name__)

PRETRAIN_SHARE = 0.25
"""Part of a time budget that pretraining may use; it ends early then."""

_LOOK = Size(400, 400)
"""Atlases at this size are enough to look at while the fit goes on."""


@dataclass
class FitState:
    """What changes during a fit."""

    fields: LayerFields
    optimiser: torch.optim.Adam
    generator: torch.Generator
    iteration: int = 0
    """Steps done."""
    is_whole: bool = True
    """False while Adam is moving the weights."""


def fit_lna(job: FitJob, resume: bool = False) -> None:
    """Fit the clip and leave checkpoint, atlases and `run.json` in the job's folder.

    Ends after `config.optimiser.iterations` steps or when the job's budget is spent, whichever
    comes first, and leaves a usable run either way.

    Args:
        resume: go on from the folder's checkpoint if it has one.
    """
    LnaFit(job).run(resume)


class LnaFit:
    """One fit: the clip on the device, the networks, and where results go."""

    def __init__(self, job: FitJob):
        clip, config, device = job.clip, job.config, job.device
        self.job, self.clip, self.config, self.folder = job, clip, config, job.folder
        self.device, self.tracker, self.budget = device, job.tracker, job.budget
        self.start_s = time.monotonic()
        self.video: VideoData = load_video(clip, config.loss.flow.max_cycle_error_px, device)
        self.domain = Domain(clip.size, clip.frame_count)
        side = config.canvas_texels
        self.layers = tuple(Layer(name, Size(side, side)) for name in clip.layer_names)
        self.commit = current_commit()
        self.earlier_s = 0.0
        self.step_s = 0.0

    def run(self, resume: bool) -> None:
        """Pretrain or resume, descend, write."""
        state = self._start(resume)
        total = self.config.optimiser.iterations
        if state.iteration >= total and read_run_info(self.folder).complete:
            log.info("all %d iterations are done; raise optimiser.iterations to go on", total)
            return
        before = state.generator.get_state()
        end = self._plan_end(state)
        try:
            with progress(None, max(total - state.iteration, 0), "fitting") as bar:
                while state.iteration < total and self._has_time(end):
                    before, start_s = state.generator.get_state(), self.budget.clock()
                    bar.advance(1, note=f"{self._step(state):.1f} dB on the batch")
                    self.step_s = max(self.budget.clock() - start_s, 0.9 * self.step_s)
                    self._look(state, total, end)
        except KeyboardInterrupt:
            if state.is_whole:  # keep what there is, as it was before the broken step
                state.generator.set_state(before)
                self._save(state)
                log.info("kept a checkpoint after %d iterations", state.iteration)
            raise
        self._save(state)
        self._evaluate(state, end, complete=True)

    def _plan_end(self, state: FitState) -> End:
        """How the fit will end, and what that takes."""
        size, side, budget_s = self.clip.size, self.config.canvas_texels, self.budget.budget_s
        count, wanted = self.clip.frame_count, self.config.schedule.evaluate_frames
        whole = LnaMapping(state.fields, self.layers, size, count, domain=self.domain)
        costs = (
            EndCosts(0, 0)
            if budget_s is None
            else EndCosts.measured(whole, state.fields, self.budget.clock)
        )
        canvas, shown = Size(side, side), min(wanted, count)
        return plan_end(costs, (size, count), len(self.layers), canvas, shown, budget_s)

    def _has_time(self, end: End) -> bool:
        """Whether another step leaves time for the end."""
        budget_s = self.budget.budget_s
        return budget_s is None or self.budget.spent_s() + self.step_s + end.seconds < budget_s

    def _look(self, state: FitState, total: int, end: End) -> None:
        """Save and evaluate when due and in time; the end is left to `run`."""
        schedule = self.config.schedule
        if state.iteration == total:
            return
        look = is_due(state.iteration, schedule.evaluate_every, total)
        look = look and self._has_time(dataclasses.replace(end, seconds=2 * end.seconds))
        if look or is_due(state.iteration, schedule.checkpoint_every, total):
            self._save(state)
        if look:
            self._evaluate(state, end, complete=False)

    def _start(self, resume: bool) -> FitState:
        """Networks from the run's checkpoint, or new ones, pretrained."""
        config = self.config
        path = self.folder / "checkpoint.safetensors"
        checkpoint = load_checkpoint(path, self.device) if resume and path.is_file() else None
        if checkpoint is not None:
            self._check_same_fit(checkpoint.info, path)
            self.earlier_s = _seconds_so_far(self.folder)
            fields = checkpoint.fields
        else:
            torch.manual_seed(config.seed)  # the networks' first weights
            fields = LayerFields(len(self.layers), config.networks).to(self.device)
        optimiser = torch.optim.Adam(fields.parameters(), lr=config.optimiser.learning_rate)
        generator = torch.Generator(self.device).manual_seed(config.seed)
        state = FitState(fields, optimiser, generator)
        if checkpoint is not None:
            checkpoint.restore(optimiser, generator)
            state.iteration = checkpoint.info.iteration
            log.info("resuming after %d iterations", state.iteration)
        else:
            self._write_info({}, complete=False)
            log.info("%d parameters in %d layers", parameter_count(fields), len(self.layers))
            self._pretrain(state)
        return state

    def _check_same_fit(self, info: CheckpointInfo, path: Path) -> None:
        """Refuse a checkpoint of other networks or another clip."""
        pairs = {
            "layers": (info.layer_names, self.clip.layer_names),
            "frame size": (info.size, self.clip.size),
            "frame count": (info.frame_count, self.clip.frame_count),
            "networks": (info.config.networks, self.config.networks),
        }
        for what, (found, wanted) in pairs.items():
            if found != wanted:
                raise InputError(
                    f"{path}: {what} of the checkpoint: {found}, now wanted: {wanted}; resume "
                    "with what it was made with, or use another --out"
                )
        if info.original_domain:
            raise InputError(f"{path}: an imported checkpoint cannot be resumed")

    def _pretrain(self, state: FitState) -> None:
        """Pull every mapping to xy times `uv_scale`, one frame at a time (appendix A)."""
        schedule, size = self.config.schedule, self.video.size
        mappings = state.fields.mapping
        optimiser = torch.optim.Adam(mappings.parameters(), lr=self.config.optimiser.learning_rate)
        steps = schedule.pretrain_iterations * self.video.frame_count
        limits = torch.tensor([size.width, size.height], device=self.device)
        with progress(None, steps, "pretraining mappings") as bar:
            for step in range(steps):
                if self.budget.is_over(PRETRAIN_SHARE):
                    log.info("time budget: pretraining ended after %d of %d steps", step, steps)
                    break
                uniform = torch.rand(
                    (schedule.pretrain_samples, 2), generator=state.generator, device=self.device
                )
                frame = torch.full_like(uniform[:, :1], step % self.video.frame_count)
                at = self.domain.to_unit(torch.cat([(uniform * limits).floor(), frame], dim=-1))
                target = at[:, :2] * self.config.networks.uv_scale
                distance = torch.stack(
                    [torch.linalg.vector_norm(one(at) - target, dim=-1).mean() for one in mappings]
                )
                optimiser.zero_grad()
                distance.sum().backward()
                optimiser.step()
                if step % 10 == 0 or step + 1 == steps:
                    self.tracker.scalar("pretrain/uv_error", float(distance.detach().mean()), step)
                bar.advance()

    def _step(self, state: FitState) -> float:
        """One step of Adam; returns the batch's PSNR in dB."""
        config = self.config.optimiser
        objective = Objective(state.fields, self.video, self.domain, self.config)
        weights = term_weights(self.config.loss, state.iteration)
        xyt_px = sample_positions(self.video, config.samples, state.generator)
        terms = objective.terms(xyt_px, set(weights))
        total = weighted_sum(terms, weights)
        check_finite(terms, weights, state.iteration)
        for group in state.optimiser.param_groups:
            group["lr"] = learning_rate(config, state.iteration)
        state.optimiser.zero_grad()
        total.backward()
        state.is_whole = False
        state.optimiser.step()
        psnr = batch_psnr_db(terms)
        if state.iteration % self.config.schedule.log_every == 0:
            values = {name: float(value.detach()) for name, value in terms.items()}
            values["total"] = float(total.detach())
            self.tracker.scalars("loss", values, state.iteration)
            self.tracker.scalar("psnr_db/batch", psnr, state.iteration)
        state.iteration += 1
        state.is_whole = True
        return psnr

    def mapping(self, fields: LayerFields) -> LnaMapping:
        """The fields behind the edits' interface, each canvas on the uv that its layer uses."""
        size, count = self.clip.size, self.clip.frame_count
        whole = LnaMapping(fields, self.layers, size, count, domain=self.domain)
        return LnaMapping(
            fields, self.layers, size, count, windows=used_windows(whole), domain=self.domain
        )

    def _save(self, state: FitState) -> None:
        info = CheckpointInfo(
            config=self.config,
            layer_names=self.clip.layer_names,
            size=self.clip.size,
            frame_count=self.clip.frame_count,
            iteration=state.iteration,
            windows=self.mapping(state.fields).windows,
            commit=self.commit,
        )
        path = self.folder / "checkpoint.safetensors"
        save_checkpoint(path, info, state.fields, state.optimiser, state.generator)

    def _evaluate(self, state: FitState, end: End, *, complete: bool) -> None:
        """PSNR of some frames, pictures for the tracker, atlases, and `run.json`."""
        mapping = self.mapping(state.fields)
        times = np.linspace(0, self.clip.frame_count - 1, end.frames).round().astype(int)
        times = np.unique(times)
        scores, rows = [], []
        for t in progress(times, len(times), "looking at frames"):
            frame, rebuilt = self.clip.frame(int(t)), mapping.reconstruct(int(t), end.view)
            if end.view != self.clip.size:
                frame = cv2.resize(frame, end.view.wh, interpolation=cv2.INTER_AREA)
            scores.append(min(psnr_db(frame.astype(np.float32) / 255, rebuilt), 100.0))
            alpha = mapping.frame(int(t), _quarter(self.clip.size)).alpha
            self._show(state.iteration, int(t), rebuilt, alpha)
            rows.append(np.hstack([frame, np.rint(rebuilt * 255).astype(np.uint8)]))
        psnr = float(np.mean(scores))
        self.tracker.scalar("psnr_db/frames", psnr, state.iteration)
        textures = mapping.render_textures(end.canvas if complete else _LOOK)
        for layer, texture in zip(self.layers, textures, strict=True):
            self.tracker.image(f"atlas/{layer.name}", texture.rgba8(), state.iteration)
        if complete:
            textures = [_enlarged(texture, mapping.layers[0].canvas) for texture in textures]
            save_textures(self.folder / "textures.safetensors", textures, state.iteration)
            write_atlases(self.folder, self.layers, textures)
        write_rgb(self.folder / "contact.png", np.vstack(rows))
        log.info("iteration %d: PSNR %.2f dB over %d frames", state.iteration, psnr, len(times))
        metrics = {"psnr_db": round(psnr, 3), "iterations": float(state.iteration)}
        self._write_info(metrics, complete=complete)

    def _show(self, iteration: int, t: int, rebuilt: np.ndarray, alpha: np.ndarray) -> None:
        self.tracker.image(f"reconstruction/{t:05d}", rebuilt, iteration)
        for layer, one in zip(self.layers[:-1], alpha, strict=False):
            self.tracker.image(f"alpha_{layer.name}/{t:05d}", one, iteration)

    def _write_info(self, metrics: dict[str, float], *, complete: bool) -> None:
        seconds = {"fit": round(self.earlier_s + time.monotonic() - self.start_s, 2)}
        info = self.job.run_info("lna", self.layers, seconds, metrics)
        info = dataclasses.replace(info, complete=complete)
        write_run_info(self.folder, info)


def batch_psnr_db(terms: dict[str, Tensor]) -> float:
    """PSNR of the batch's colours from its colour loss, dB; nan where that is not computed."""
    if "rgb" not in terms:
        return math.nan
    return -10 * math.log10(max(float(terms["rgb"].detach()) / 3, 1e-10))


def _enlarged(texture: Texture, canvas: Size) -> Texture:
    """A texture on the whole canvas, where it was rendered on a coarser one."""
    if texture.size == canvas:
        return texture
    rgb, coverage = (cv2.resize(x, canvas.wh) for x in (texture.rgb, texture.coverage))
    return Texture(rgb, coverage)


def _quarter(size: Size) -> Size:
    return Size(max(size.height // 4, 1), max(size.width // 4, 1))


def _seconds_so_far(folder: Path) -> float:
    """What `run.json` says the fit has taken; 0 without one."""
    if not (folder / "run.json").is_file():
        return 0.0
    return float(read_run_info(folder).seconds.get("fit", 0.0))
