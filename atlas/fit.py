"""The default recipe: closed form where a closed form exists, coordinate networks for the rest.

Stages, each kept in the run folder so that an interrupted fit goes on: base motion of every layer,
dense alignment of every layer, residual fields trained end to end, textures and shading.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from atlas.align import LayerAligner
from atlas.base_motion import estimate_base_motion
from atlas.clip import Clip, write_rgb
from atlas.config import TrainConfig
from atlas.coords import Size
from atlas.known_sky import layer_above, refine_sky_share
from atlas.layered import LayeredMapping, LayerMotion
from atlas.layered_file import (
    CHECKPOINT,
    MatteReader,
    motion_arrays,
    motion_from,
    read_arrays,
    read_meta,
    save_layered,
    write_arrays,
    write_mattes,
)
from atlas.mapping import LayerMapping
from atlas.metrics import psnr_db
from atlas.progress import progress
from atlas.refine import FITTED, PURE_SHARE, FieldFit, Scene
from atlas.run import RunInfo, clip_hash, current_commit, write_atlases, write_run_info
from atlas.schedule import TimeBudget
from atlas.shading import Shading, estimate_shading
from atlas.sheets import contact_sheet, over_squares, to_bytes
from atlas.store import ClipStore
from atlas.texture import Gains, SplatOptions, Texture, render, sample, splat
from atlas.tracking import NullTracker, Tracker

log = logging.getLogger(__name__)

SKY_NAME = "sky"
"""The bottom layer of this name moves as a sky and has its edges mended."""
PERFECT_DB = 100.0
"""What a frame that is rebuilt exactly counts as."""
OBJECT_SHARE = 0.3
"""A layer above the bottom that covers less of the frame than this is taken for an object."""


def fit_layered(
    clip: Clip,
    config: TrainConfig,
    run_folder: Path,
    *,
    device: torch.device,
    resume: bool = False,
    tracker: Tracker | None = None,
) -> None:
    """Fit the clip and leave checkpoint, mattes, atlases and `run.json` in `run_folder`.

    Args:
        device: where the residual fields are trained.
        resume: go on from the stages that the folder holds.
        tracker: gets losses, PSNR, frames, atlases and opacity; None = nowhere.
    """
    LayeredFit(clip, config, run_folder, device, tracker or NullTracker()).run(resume)


class LayeredFit:
    """One fit: the clip, the layers' motions as they improve, and the time each stage took."""

    def __init__(
        self,
        clip: Clip,
        config: TrainConfig,
        folder: Path,
        device: torch.device,
        tracker: Tracker,
    ):
        self.clip, self.config, self.folder = clip, config, folder
        self.device, self.tracker = device, tracker
        self.options = config.layered
        self.store = ClipStore(clip, self.options.memory_mb)
        self.budget = TimeBudget(config.budget_s)
        self.seconds: dict[str, float] = {}
        decisive = (config.layered, config.loss, config.seed, config.budget_s, clip_hash(clip))
        self.settings = hashlib.sha256(repr(decisive).encode()).hexdigest()[:16]

    def run(self, resume: bool) -> None:
        """All stages, then the run's files."""
        stages = self.folder / "stages"
        if not resume:
            shutil.rmtree(stages, ignore_errors=True)
        elif self._is_done():
            log.info("%s: already fitted with these settings; nothing to do", self.folder)
            return
        stages.mkdir(exist_ok=True)
        motions = [self._stage(f"base_{i}", i, None) for i in range(len(self.clip.layer_names))]
        base = [replace(m) for m in motions]
        if self.clip.frame_count > 1:
            for name in ("align", "field"):
                for i, motion in enumerate(motions):
                    motions[i] = self._stage(f"{name}_{i}", i, motion)
        self._write(motions, base)
        shutil.rmtree(stages)

    def _is_done(self) -> bool:
        """Whether the folder holds the finished fit of this clip with these settings."""
        path = self.folder / CHECKPOINT
        if not path.is_file() or (self.folder / "stages").is_dir():
            return False
        return read_meta(path).get("settings") == self.settings

    def _stage(self, name: str, layer: int, motion: LayerMotion | None) -> LayerMotion:
        """Do one stage of one layer, or take its result from an earlier, interrupted run."""
        path = self.folder / "stages" / f"{name}.safetensors"
        kind = name.partition("_")[0]
        if path.is_file() and read_meta(path).get("settings") == self.settings:
            arrays, meta = read_arrays(path)
            log.info("%s: taken from the interrupted run", name)
            self.seconds[kind] = self.seconds.get(kind, 0) + meta["seconds"]
            return motion_from(arrays, "0", (meta["name"], Size(*meta["canvas"]), meta["stride"]))
        start_s = time.monotonic()
        if motion is None:
            motion = self._base(layer)
        elif kind == "align":
            motion = self._align(layer, motion)
        else:
            motion = self._train_field(layer, motion)
        spent_s = time.monotonic() - start_s
        self.seconds[kind] = self.seconds.get(kind, 0) + spent_s
        meta = {
            "name": motion.name,
            "canvas": [motion.canvas.height, motion.canvas.width],
            "stride": motion.stride_px,
            "seconds": spent_s,
            "settings": self.settings,
        }
        write_arrays(path, motion_arrays(motion, "0"), meta)
        return motion

    def _base(self, layer: int) -> LayerMotion:
        name = self.clip.layer_names[layer]
        model = self._base_model(layer)
        with progress(None, 1, f"base motion of {name}") as bar:
            found = estimate_base_motion(self.store, layer, model)
            bar.advance(1, note=f"{model}, canvas {found.canvas}")
        stride_px = self.options.align.stride_px
        return LayerMotion(name, found.canvas, found.matrices, None, stride_px, found.confidence)

    def _base_model(self, layer: int) -> str:
        names = self.clip.layer_names
        if names[layer] == SKY_NAME:
            return self.options.sky_model
        if layer == len(names) - 1:
            return self.options.scene_model
        some = range(0, self.store.frame_count, max(self.store.frame_count // 8, 1))
        share = float(np.mean([self.store.share(layer, t).mean() for t in some]))
        return self.options.object_model if share < OBJECT_SHARE else self.options.scene_model

    def _align(self, layer: int, motion: LayerMotion) -> LayerMotion:
        motion = replace(motion)
        aligner = LayerAligner(self.store, layer, motion, self.options.align)
        rounds = len(self.options.align.sigmas_px)
        with progress(None, rounds, f"aligning {motion.name}") as bar:
            for _ in aligner.run():
                bar.advance(1)
                if self.budget.is_over():
                    log.info("time is up: alignment of %s ends early", motion.name)
                    break
        return motion

    def _train_field(self, layer: int, motion: LayerMotion) -> LayerMotion:
        """Train the residual field; start from the aligned residual."""
        options = self.options.residual_field
        if options.training_steps == 0 or self.budget.is_over():
            return motion
        before, textures, shading = self._layer_state(layer, motion)
        scene = Scene(
            self.store,
            layer,
            motion,
            torch.from_numpy(textures.rgb).permute(2, 0, 1).contiguous().to(self.device),
            lambda t: shading(t)[0],
        )
        fit = FieldFit(scene, options, self.config.loss, self.config.seed + layer)
        chunk = 50
        plan = [("regress", options.regression_steps), ("train", options.training_steps)]
        total = sum(steps for _, steps in plan)
        done = 0
        with progress(None, total, f"training {motion.name}") as bar:
            for phase, steps in plan:
                fit.start(options.learning_rate * (1.0 if phase == "regress" else 0.2))
                for first in range(0, steps, chunk):
                    count = min(chunk, steps - first)
                    done += count
                    bar.advance(count, note=self._train_chunk(fit, phase, count, layer, done))
                    if phase == "train" and self.budget.is_over():
                        break
                    if phase == "regress" and fit.recent < FITTED:
                        bar.advance(steps - first - count)
                        break
        trained = replace(motion, residual=fit.bake())
        after, _, _ = self._layer_state(layer, trained)
        if before is not None and after is not None:
            log.info("%s: %.2f dB aligned, %.2f dB trained", motion.name, before, after)
        return trained

    def _train_chunk(self, fit: FieldFit, phase: str, steps: int, layer: int, done: int) -> str:
        name = self.clip.layer_names[layer]
        if phase == "regress":
            error = fit.regress(steps)
            self.tracker.scalar(f"field/{name}/regression_texels", error, done)
            return f"{error:.3f} texels"
        values = fit.train(steps)
        self.tracker.scalars(f"loss/{name}", values, done)
        return ", ".join(f"{key} {value:.3g}" for key, value in values.items())

    def _layer_state(
        self, layer: int, motion: LayerMotion
    ) -> tuple[float | None, Texture, Shading]:
        """One layer alone: its PSNR where it alone shows (None: nowhere), texture and shading."""
        mapping = _SingleLayer(self.store, layer, motion)
        textures = splat(mapping, self.store.frame, SplatOptions(sharpen_steps=0))
        shading = estimate_shading(
            mapping, textures, self.store, self.options.shading_sigma_px or 1e6
        )
        errors = []
        for t in range(0, self.store.frame_count, max(self.store.frame_count // 12, 1)):
            pure = self.store.share(layer, t) > PURE_SHARE
            if pure.any():
                seen = sample(textures[0].rgb, mapping.frame(t).uv[0]) * shading(t)[0]
                frame = self.store.frame(t).astype(np.float32) / 255
                errors.append(float(((seen - frame) ** 2).mean(-1)[pure].mean()))
        quality = -10 * float(np.log10(max(np.mean(errors), 1e-10))) if errors else None
        return quality, textures[0], shading

    def _write(self, motions: list[LayerMotion], base: list[LayerMotion]) -> None:
        start_s = time.monotonic()
        names = self.clip.layer_names
        write_mattes(self.folder, names, self.clip.frame_count, self.store.alpha)
        textures, shading = self._textures(motions)
        mapping = self._mapping(motions)
        self.seconds["textures"] = time.monotonic() - start_s
        save_layered(self.folder, motions, textures, base, shading, self.settings)
        write_atlases(self.folder, mapping.layers, textures)
        metrics = self._measure(mapping, textures, shading)
        info = RunInfo(
            kind="layered",
            clip_folder=str(self.clip.folder.resolve()),
            clip_sha256=clip_hash(self.clip),
            frame_count=self.clip.frame_count,
            width=self.clip.size.width,
            height=self.clip.size.height,
            layers=[
                {"name": m.name, "height": m.canvas.height, "width": m.canvas.width}
                for m in motions
            ],
            seed=self.config.seed,
            commit=current_commit(),
            seconds={name: round(value, 2) for name, value in self.seconds.items()},
            metrics=metrics,
        )
        write_run_info(self.folder, info)

    def _mapping(self, motions: list[LayerMotion]) -> LayeredMapping:
        """The fit so far, with the mattes that the run folder holds now."""
        reader = MatteReader(self.folder, list(self.clip.layer_names), self.clip.size)
        return LayeredMapping(self.clip.size, motions, reader)

    def _textures(self, motions: list[LayerMotion]) -> tuple[list[Texture], Shading | None]:
        """Textures, shading, edges from the known sky, then textures of all that."""
        options = SplatOptions(
            sharpen_steps=self.options.sharpen_steps,
            robust_sigma=self.options.align.robust_sigma,
        )
        shaded = self.options.shading_sigma_px > 0 and self.clip.frame_count > 1
        has_sky = len(motions) > 1 and motions[-1].name == SKY_NAME and self.clip.frame_count > 1
        rounds = self.options.known_sky_rounds if has_sky else 0
        with progress(None, 2 + 2 * rounds, "textures and shading") as bar:
            rough, shading = self._rough(motions, None, shaded)
            bar.advance(1)
            for _ in range(rounds):
                self._mend_mattes(motions, rough[-1], shading)
                bar.advance(1)
                rough, shading = self._rough(motions, shading, shaded)
                bar.advance(1)
            textures = splat(self._mapping(motions), self.store.frame, options, shading)
            bar.advance(1)
        return textures, shading

    def _rough(
        self, motions: list[LayerMotion], before: Shading | None, shaded: bool
    ) -> tuple[list[Texture], Shading | None]:
        """Quick textures, the shading known `before` taken out, and the shading on top of them."""
        mapping = self._mapping(motions)
        rough = splat(mapping, self.store.frame, SplatOptions(sharpen_steps=0), before)
        if not shaded:
            return rough, None
        sigma_px = self.options.shading_sigma_px
        return rough, estimate_shading(mapping, rough, self.store, sigma_px)

    def _mend_mattes(
        self, motions: list[LayerMotion], sky: Texture, shading: Shading | None
    ) -> None:
        """Mend the mattes' edges against the sky where its atlas knows what lies behind."""
        mapping = self._mapping(motions)

        def mended(t: int) -> np.ndarray:
            found = mapping.frame(t)
            gain = None if shading is None else shading(t)[-1]
            return layer_above(found, refine_sky_share(self.store.frame(t), found, sky, gain))

        write_mattes(self.folder, self.clip.layer_names, self.clip.frame_count, mended)

    def _measure(
        self, mapping: LayerMapping, textures: list[Texture], gains: Gains | None
    ) -> dict[str, float]:
        """PSNR over all frames; pictures for TensorBoard and the contact sheet."""
        count = self.clip.frame_count
        shown = sorted({round(i * (count - 1) / 3) for i in range(4)})
        rows, values = [], []
        for t in range(count):
            frame = self.store.frame(t)
            picture = render(mapping, textures, t, gains=gains)
            quality = psnr_db(picture, frame.astype(np.float32) / 255)
            values.append(min(quality, PERFECT_DB))
            if t in shown:
                alpha = to_bytes(mapping.frame(t).alpha[0])
                rows.append([frame, to_bytes(picture), np.dstack([alpha] * 3)])
                self.tracker.image("frame/reconstruction", rows[-1][1], t)
                self.tracker.image("frame/alpha", rows[-1][2], t)
        atlases = [over_squares(texture.rgba8()) for texture in textures]
        for layer, atlas in zip(mapping.layers, atlases, strict=True):
            self.tracker.image(f"atlas/{layer.name}", atlas, 0)
        for t, value in enumerate(values):
            self.tracker.scalar("psnr_db/frame", value, t)
        atlas_row = [*atlases[:3], *[None] * (3 - len(atlases))]
        sheet = contact_sheet(
            [*rows, atlas_row],
            ["frame", "reconstruction", f"alpha of {mapping.layers[0].name}"],
            [*[f"frame {t}" for t in shown], "atlases"],
        )
        write_rgb(self.folder / "contact.png", sheet)
        return {"psnr_db": round(float(np.mean(values)), 3)}


class _SingleLayer(LayeredMapping):
    """One layer of a clip as a mapping of its own; its alpha is its share of the pixel."""

    def __init__(self, store: ClipStore, layer: int, motion: LayerMotion):
        super().__init__(store.size, [motion], lambda t: store.share(layer, t)[None])
