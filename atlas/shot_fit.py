"""The motion of one shot's layers, improved step by step, each step kept only if it helps.

The steps are one sequence, of which quality `draft` takes the first part, `standard` more, `best`
all: base motion; coarse rounds of dense alignment; | fine rounds; residual fields trained end to
end; | more rounds, more training. A shot in several windows does each part window by window.

After every round, and at fixed points of training, each layer's motion is scored
(`atlas.layer_score`). A block of steps ends with the best motion that it has seen, where it began
included. So what comes out depends on how far the sequence was followed, and following it further
never lowers a layer's score.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.lib.format import open_memmap

from atlas.align import HALF_SIZE_SIGMA_PX, LayerAligner
from atlas.base_motion import estimate_base_motion
from atlas.config import QUALITIES
from atlas.fit_job import FitJob
from atlas.layer_score import LayerScorer, layer_texture
from atlas.layered import LayerMotion, lattice_shape, sample_lattice
from atlas.layered_file import residual_path
from atlas.lens_bend import bend_as_a_lens
from atlas.near_motion import NEAR_NAME, motion_beside
from atlas.pace import Pace
from atlas.progress import progress
from atlas.refine import FieldFit, Scene
from atlas.shading import fit_gain
from atlas.soft_layer import is_soft, motion_of_matte
from atlas.store import ClipStore
from atlas.texture import sample
from atlas.windows import SettledTexture, Window, frames_that_fit, part_of, put_back, windows_of

log = logging.getLogger(__name__)

SKY_NAME = "sky"
"""The bottom layer of this name moves as a sky and has its edges mended."""
OBJECT_SHARE = 0.3
"""A layer above the bottom that covers less of the frame than this is taken for an object."""
FULL_OVER_HALF = 5.0
"""A round at full size takes about this many times one at half the size."""
BENDING_DB = 0.5
"""What a residual has to gain over the base motion alone, dB of the layer's score."""
SCORED_STEPS = 100
"""A field in training is scored every so many steps."""
CHUNK_STEPS = 25


@dataclass
class FitState:
    """What a fit of a shot has come to; all that is needed to go on.

    motions: the layers' best motions so far; none before their base motions are known.
    done: names of the finished blocks, in order.
    """

    motions: list[LayerMotion] = field(default_factory=list)
    done: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Block:
    """Some steps of the sequence over one window: rounds of alignment, or a layer's training."""

    kind: str
    window: Window
    number: int
    sigmas_px: tuple[float, ...] = ()
    layer: int = -1

    @property
    def name(self) -> str:
        """Unique within the fit; what `FitState.done` holds."""
        return f"{self.kind}/{self.number}" + (f"/{self.layer}" if self.layer >= 0 else "")


@dataclass
class Keeper:
    """The best of the motions that it is shown, by one layer's score.

    straight: the score of the base motion without a residual. Bending a layer always gains a
    little, by fitting grain and noise; it is worth it from `BENDING_DB` above that on.
    """

    scorer: LayerScorer
    best: LayerMotion
    score: float | None
    first: float | None
    straight: float | None

    @classmethod
    def starting_from(cls, scorer: LayerScorer, motion: LayerMotion) -> Keeper:
        score = straight = scorer.score(motion)
        if is_bent(motion):
            straight = scorer.score(replace(motion, residual=None))
        return cls(scorer, _copied(motion), score, score, straight)

    def show(self, motion: LayerMotion) -> None:
        """Keep the motion if it scores higher; a copy, since rounds change it in place."""
        score = self.scorer.score(motion)
        if score is None or self.score is None or self.straight is None:
            return
        if score > max(self.score, self.straight + BENDING_DB):
            self.best, self.score = _copied(motion), score


def is_bent(motion: LayerMotion) -> bool:
    """Whether a motion is more than its base."""
    return motion.residual is not None and bool(motion.residual.any())


class ShotFit:
    """Follows the sequence for one shot.

    Args:
        job: its clip is the shot; its folder keeps residuals while they grow.
        pace: says what there is time for.
        save: called with the state after every block.
    """

    def __init__(self, job: FitJob, pace: Pace, save: Callable[[FitState], None]):
        self.clip, self.config, self.device = job.clip, job.config, job.device
        self.tracker, self.pace, self.save = job.tracker, pace, save
        self.folder = job.folder
        clip, self.options = job.clip, job.config.layered
        memory_mb = self.options.memory_mb
        self.store = ClipStore(clip, memory_mb / 1.25)  # its half-size twin has the rest
        fitting = frames_that_fit(clip.size, len(clip.layer_names), memory_mb)
        longest = min(self.options.window_frames, fitting)
        self.windows = windows_of(clip.frame_count, longest, self.options.overlap_frames)
        self._settled: dict[str, list[SettledTexture]] = {}

    def run(self, state: FitState) -> FitState:
        """Do what `state` lacks, as far as quality and time allow."""
        if not state.motions:
            with self.pace.timed("base"):
                state.motions = self._bases()
            self.save(state)
        for block in self.remaining(state):
            whole = self._do(block, state.motions)
            if whole:
                state.done.append(block.name)
            self.save(state)
            if not whole:
                left_s = self.pace.reserve_s()
                log.info("time is up: the fit ends in %s; %.0f s to finish", block.kind, left_s)
                break
        return state

    def remaining(self, state: FitState) -> list[Block]:
        """The blocks up to the quality wanted that `state` lacks."""
        return [block for block in self._blocks() if block.name not in state.done]

    def _blocks(self) -> Iterator[Block]:
        """The sequence up to the quality wanted."""
        if self.clip.frame_count == 1:
            return
        align, level = self.options.align, QUALITIES.index(self.config.quality)
        coarse = tuple(s for s in align.sigmas_px if s >= HALF_SIZE_SIGMA_PX)
        fine = tuple(s for s in align.sigmas_px if s < HALF_SIZE_SIGMA_PX)
        parts = [("coarse", coarse), ("fine", fine), ("finest", align.best_sigmas_px)]
        for kind, sigmas_px in parts[: level + 1]:
            if sigmas_px:
                for number, window in enumerate(self.windows):
                    yield Block(kind, window, number, sigmas_px)
            if kind == "coarse" or self.options.residual_field.training_steps == 0:
                continue
            for number, window in enumerate(self.windows):
                for layer in range(len(self.clip.layer_names)):
                    yield Block(f"field_{kind}", window, number, layer=layer)

    def _do(self, block: Block, motions: list[LayerMotion]) -> bool:
        """One block, its result blended into the shot's motions; whether it was done whole."""
        textures = self._textures_of(block, motions)
        layers = range(len(motions)) if block.layer < 0 else [block.layer]
        settled = {i: textures[i].before(block.window, motions[i]) for i in layers}
        store = self._store_of(block.window)
        keepers: dict[int, Keeper] = {}
        for i, history in settled.items():
            scorer = LayerScorer(store, i, history, self.options.shading_sigma_px)
            part = part_of(motions[i], block.window)
            if not self.pace.expected_s(
                f"score_{i}"
            ):  # the first one reads files, and tells little
                with self.pace.timed("reading", "scores"):
                    scorer.score(part)
            with self.pace.timed(f"score_{i}", "scores"):
                keepers[i] = Keeper.starting_from(scorer, part)
        do = self._train if block.layer >= 0 else self._align
        whole = do(block, store, keepers)
        for i, keeper in keepers.items():
            put_back(motions[i], keeper.best, block.window)
            if keeper.first is not None and keeper.score is not None:
                name = motions[i].name
                log.info("%s, %s: %.2f to %.2f dB", block.kind, name, keeper.first, keeper.score)
                self.tracker.scalar(f"score_db/{name}/{block.kind}", keeper.score, block.number)
        return whole

    def _store_of(self, window: Window) -> ClipStore:
        if len(self.windows) == 1:
            return self.store
        budget_mb = self.options.memory_mb / 1.25
        self.store.forget()  # the window's own store holds what is needed now
        return ClipStore(self.clip.span(window.first, window.end), budget_mb)

    def _textures_of(self, block: Block, motions: list[LayerMotion]) -> list[SettledTexture]:
        """What windows before have settled in this part of the sequence, by layer."""
        if block.kind not in self._settled:
            fresh = [SettledTexture(self.store, i, m.canvas) for i, m in enumerate(motions)]
            self._settled = {block.kind: fresh}
        return self._settled[block.kind]

    def _align(self, block: Block, store: ClipStore, keepers: dict[int, Keeper]) -> bool:
        """Rounds of all layers in turn, as many as there is time for."""
        parts = {i: _copied(k.best) for i, k in keepers.items() if k.score is not None}
        aligners = {
            i: LayerAligner(store, i, part, self.options.align, keepers[i].scorer.history)
            for i, part in parts.items()
        }
        rounds = len(block.sigmas_px) * len(aligners)
        with progress(None, rounds, f"aligning ({block.kind})") as bar:
            for sigma_px in block.sigmas_px:
                kind = "half" if sigma_px >= HALF_SIZE_SIGMA_PX else "full"
                for i, aligner in aligners.items():
                    guess_s = FULL_OVER_HALF * self.pace.expected_s(f"half_{i}")
                    if not self.pace.allows(f"{kind}_{i}", guess_s if kind == "full" else 0.0):
                        return False
                    with self.pace.timed(f"{kind}_{i}", "align"):
                        aligner.round(sigma_px)
                        if self._is_calm(i):
                            settled = aligner.history.settled if aligner.history else 0
                            bend_as_a_lens(parts[i], store, i, settled)
                    with self.pace.timed(f"score_{i}", "scores"):
                        keepers[i].show(parts[i])
                    bar.advance(1, note=f"{parts[i].name} {keepers[i].score:.2f} dB")
        return True

    def _train(self, block: Block, store: ClipStore, keepers: dict[int, Keeper]) -> bool:
        """Train one layer's residual field; it starts from the aligned residual."""
        (layer, keeper) = next(iter(keepers.items()))
        if keeper.score is None or not is_bent(keeper.best) or self._is_calm(layer):
            return True  # what alignment could not bend to any use, training will not
        options, motion = self.options.residual_field, keeper.best
        scene = self._scene(store, layer, motion, keeper.scorer)
        seed = self.config.seed + layer + 1000 * block.number
        fit = FieldFit(scene, options, self.config.loss, seed)
        steps, name = options.training_steps, motion.name
        with progress(None, steps, f"training {name}") as bar:
            for first in range(0, steps, CHUNK_STEPS):
                if not self.pace.allows(f"train_{layer}"):
                    return False
                last = min(first + CHUNK_STEPS, steps)
                with self.pace.timed(f"train_{layer}", "field"):
                    values = fit.train(last - first)
                self.tracker.scalars(f"loss/{name}", values, last)
                note = ", ".join(f"{key} {value:.3g}" for key, value in values.items())
                bar.advance(last - first, note=note)
                if last % SCORED_STEPS == 0 or last == steps:
                    keeper.show(replace(motion, residual=fit.bake()))
        return True

    def _scene(
        self, store: ClipStore, layer: int, motion: LayerMotion, scorer: LayerScorer
    ) -> Scene:
        """What training one layer's field needs: its texture, and shading as it is asked for."""
        rgb, _ = layer_texture(store, store.size, layer, motion, scorer.history)
        sigma_px = self.options.shading_sigma_px
        stride = max(4, int(sigma_px / 3))
        lattices: dict[int, np.ndarray] = {}

        def gains(t: int) -> np.ndarray:
            if sigma_px <= 0:
                return np.ones((store.size.height, store.size.width, 3), np.float32)
            if t not in lattices:
                seen = sample(rgb, motion.uv(t, store.size))
                frame = store.frame(t).astype(np.float32) / 255
                lattices[t] = fit_gain(frame, seen, store.share(layer, t), stride, sigma_px)
            return sample_lattice(lattices[t], stride, store.size)

        texture = torch.from_numpy(rgb).permute(2, 0, 1).contiguous().to(self.device)
        return Scene(store, layer, motion, texture, gains)

    def _bases(self) -> list[LayerMotion]:
        """Base motions, from the bottom up, with residuals that lie on disk."""
        motions: list[LayerMotion] = []
        for layer in range(len(self.clip.layer_names) - 1, -1, -1):
            if self.clip.layer_names[layer] == NEAR_NAME and motions and self.clip.frame_count > 1:
                base, parallax = motion_beside(self.store, layer, motions[0])
                motion = self._with_residual(base, layer)
                assert motion.residual is not None
                for t, lattice in enumerate(parallax):
                    motion.residual[t] = lattice
            else:
                motion = self._with_residual(self._base(layer), layer)
            motions.insert(0, motion)
        return motions

    def _base(self, layer: int) -> LayerMotion:
        name = self.clip.layer_names[layer]
        with progress(None, 1, f"base motion of {name}") as bar:
            if layer < len(self.clip.layer_names) - 1 and is_soft(self.store, layer):
                found = motion_of_matte(self.store, layer)
            else:
                found = estimate_base_motion(self.store, layer, self._base_model(layer))
            bar.advance(1, note=f"{found.model}, canvas {found.canvas}")
        stride_px = self.options.align.stride_px
        return LayerMotion(
            name, found.canvas, found.matrices, None, stride_px, found.confidence, found.roll
        )

    def _base_model(self, layer: int) -> str:
        names = self.clip.layer_names
        if names[layer] == SKY_NAME:
            return self.options.sky_model
        if layer == len(names) - 1:
            return self.options.scene_model
        some = range(0, self.store.frame_count, max(self.store.frame_count // 8, 1))
        share = float(np.mean([self.store.share(layer, t).mean() for t in some]))
        return self.options.object_model if share < OBJECT_SHARE else self.options.scene_model

    def _is_calm(self, layer: int) -> bool:
        """Whether a layer is a sky that may bend only as a lens does."""
        return self.clip.layer_names[layer] == SKY_NAME and self.options.sky_bending == "lens"

    def _with_residual(self, base: LayerMotion, layer: int) -> LayerMotion:
        """The motion with a residual of zeros, which lies on disk."""
        if self.clip.frame_count == 1:
            return replace(base)
        shape = (self.clip.frame_count, *lattice_shape(self.clip.size, base.stride_px), 2)
        path = residual_path(self.folder, layer).resolve()
        return replace(base, residual=open_memmap(path, "w+", np.float32, shape))


def _copied(motion: LayerMotion) -> LayerMotion:
    residual = None if motion.residual is None else np.array(motion.residual)
    return replace(motion, residual=residual)
