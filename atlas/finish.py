"""From a shot's fitted motions to a whole run: mattes, textures, shading, score, files."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np

from atlas.camera_light import Light, estimate_light
from atlas.clip import write_rgb
from atlas.fit_job import FitJob
from atlas.known_sky import layer_above, refine_sky_share
from atlas.layered import LayeredMapping, LayerMotion
from atlas.layered_file import MatteReader, write_mattes
from atlas.mapping import LayerMapping
from atlas.matte_check import mending_helps
from atlas.metrics import mask_iou, psnr_db
from atlas.opacity import SOFTNESS_PX, refine_opacity, softened, softness_errors
from atlas.pace import Pace
from atlas.progress import progress
from atlas.shading import Shading, estimate_shading
from atlas.sheets import contact_sheet, over_squares, to_bytes
from atlas.shot_fit import SKY_NAME
from atlas.splat import SplatOptions, splat
from atlas.store import ClipStore
from atlas.texture import Gains, Texture, render

log = logging.getLogger(__name__)

SETTLED_IOU = 0.94
"""Mattes that agree with those before their edges were moved at least this well are done."""
EXACT_IOU = 0.965
"""Mattes whose edges would not move farther than this are as good as the textures, and stay."""
TRIED_FRAMES = 8
"""Frames by which it is told whether mattes are exact, and how soft their edges are."""
SOFTER_GAIN = 0.01
"""Share of the error near edges that softer ones must save."""
PERFECT_DB = 100.0
"""What a frame that is rebuilt exactly counts as."""


@dataclass
class Finished:
    """What a finished run holds beside its motions."""

    textures: list[Texture]
    shading: Shading | None
    mapping: LayerMapping
    metrics: dict[str, float]


class Finish:
    """The last stage: closed-form textures and shading on top of given motions.

    Args:
        store: the shot's frames. job: its folder is where mattes and pictures go.
        pace: times the passes.
        rough: whether the masks are known to be rough, so that their edges are moved in any case.
    """

    def __init__(self, store: ClipStore, job: FitJob, pace: Pace, rough: bool = False):
        self.store, self.clip, self.folder = store, job.clip, job.folder
        self.tracker, self.pace, self.masks_are_rough = job.tracker, pace, rough
        self.options = job.config.layered
        self.is_draft = job.config.quality == "draft"
        self.light: Light | None = None

    def run(self, motions: list[LayerMotion]) -> Finished:
        """Everything but the checkpoint, which is the caller's."""
        with self.pace.timed("mattes"):
            names = self.clip.layer_names
            write_mattes(self.folder, names, self.clip.frame_count, self.store.alpha)
        if self.options.camera_light and self.clip.frame_count > 1:
            with self.pace.timed("light", "textures"):
                self.light = estimate_light(self.store, motions)
                if self.options.shading_sigma_px == 0:
                    self.light = self.light.of_camera()
        textures, shading = self._textures(motions)
        mapping = self._mapping(motions)
        with self.pace.timed("measure"):
            metrics = self._measure(mapping, textures, shading)
        return Finished(textures, shading, mapping, metrics)

    def _mapping(self, motions: list[LayerMotion]) -> LayeredMapping:
        """The fit so far, with the mattes that the run folder holds now."""
        reader = MatteReader(self.folder, list(self.clip.layer_names), self.clip.size)
        return LayeredMapping(self.clip.size, motions, reader)

    def _textures(self, motions: list[LayerMotion]) -> tuple[list[Texture], Shading | None]:
        """Textures, shading, edges from the known sky, then textures of all that."""
        options = SplatOptions(
            sharpen_steps=min(self.options.sharpen_steps, 1 if self.is_draft else 99)
        )
        shaded = self.options.shading_sigma_px > 0 or self.options.camera_light
        shaded = shaded and self.clip.frame_count > 1
        has_sky = len(motions) > 1 and motions[-1].name == SKY_NAME and self.clip.frame_count > 1
        rounds = self.options.known_sky_rounds if has_sky and not self.is_draft else 0
        with progress(None, 2 + 2 * rounds, "textures and shading") as bar:
            with self.pace.timed("rough", "textures"):
                rough, shading = self._rough(motions, None, shaded)
            bar.advance(1)
            mended = False
            for number in range(rounds):
                if not self.pace.allows("mend"):
                    log.info("time is up: the mattes' edges stay as they are")
                    break
                if number == 0 and not self._mending_helps(motions, rough[-1], shading):
                    log.info("the mattes agree with the sky behind them; they stay as they are")
                    break
                with self.pace.timed("mend", "mattes"):
                    self._mend_mattes(motions, rough[-1], shading)
                    bar.advance(1)
                    rough, shading = self._rough(motions, shading, shaded)
                    mended = True
                bar.advance(1)
            if shaded and not mended and not self.is_draft and self.pace.allows("rough"):
                # in a pan the first mean has each frame's light in the part that it shows
                with self.pace.timed("rough", "textures"):
                    rough, shading = self._rough(motions, shading, shaded)
            if len(motions) - 1 - has_sky > 0 and not self.is_draft and self.clip.frame_count > 1:
                rough, shading = self._move_edges(motions, rough, shading)
            with self.pace.timed("textures"):
                textures = splat(self._mapping(motions), self.store.frame, options, shading)
            bar.advance(1)
        return textures, shading

    def _move_edges(
        self, motions: list[LayerMotion], rough: list[Texture], shading: Shading | None
    ) -> tuple[list[Texture], Shading | None]:
        """Move the edges of rough masks to where both sides' textures put them.

        The edge before a sky is left to the sky's own mending. Where a round moved much, the
        textures were stained, and another round sees better. Mattes that are exact are left where
        they are. Last, all edges become as soft as they are in the frames.
        """
        keep = 2 if motions[-1].name == SKY_NAME else 1
        # without shading a layer whose light changes looks like what is behind it
        rounds = self.options.opacity_rounds if self.options.shading_sigma_px > 0 else 0
        told = not rounds or self.masks_are_rough
        if not told and self._mattes_are_exact(self._mapping(motions), rough, shading, keep):
            log.info("the mattes agree with the textures; their edges stay where they are")
            rounds = 0
        for _ in range(rounds):
            if not self.pace.allows("edges"):
                log.info("time is up: the edges of the mattes stay as they are")
                break
            mapping, agree = self._mapping(motions), []

            def moved(t: int, mapping=mapping, rough=rough, shading=shading, agree=agree):
                found = mapping.frame(t)
                gains = None if shading is None else shading(t)
                alpha = refine_opacity(self.store.frame(t), found, rough, gains, keep)
                agree.append(mask_iou(alpha[0], found.alpha[0]))
                return alpha

            with self.pace.timed("edges", "mattes"):
                write_mattes(self.folder, self.clip.layer_names, self.clip.frame_count, moved)
                rough, shading = self._rough(motions, shading, shading is not None)
            if float(np.mean(agree)) > SETTLED_IOU:
                break
        if self.options.opacity_rounds and self.pace.allows("soften"):
            with self.pace.timed("soften", "mattes"):
                self._soften_edges(self._mapping(motions), rough, shading, keep)
        return rough, shading

    def _tried_frames(self) -> list[int]:
        count = self.clip.frame_count
        return sorted({int(t) for t in np.linspace(0, count - 1, TRIED_FRAMES).round()})

    def _mattes_are_exact(
        self, mapping: LayerMapping, rough: list[Texture], shading: Shading | None, keep: int
    ) -> bool:
        """Whether the edges would hardly move in half of some frames that show the layers."""
        agree = []
        for t in self._tried_frames():
            found = mapping.frame(t)
            gains = None if shading is None else shading(t)
            alpha = refine_opacity(self.store.frame(t), found, rough, gains, keep)
            agree += [
                mask_iou(alpha[i], found.alpha[i])
                for i in range(len(alpha) - keep)
                if (found.alpha[i] > 0.5).any()
            ]
        return bool(agree) and float(np.median(agree)) > EXACT_IOU

    def _soften_edges(
        self, mapping: LayerMapping, rough: list[Texture], shading: Shading | None, keep: int
    ) -> None:
        """Blur the upper mattes' edges as much as explains the frames best."""
        errors = np.zeros(len(SOFTNESS_PX))
        for t in self._tried_frames():
            gains = None if shading is None else shading(t)
            frame = self.store.frame(t)
            errors += softness_errors(frame, mapping.frame(t), rough, gains, keep)
        best = int(errors.argmin())
        if errors[best] >= (1 - SOFTER_GAIN) * errors[0]:
            return
        log.info("edges of mattes softened by %.1f px", SOFTNESS_PX[best])

        def softer(t: int) -> np.ndarray:
            return softened(mapping.frame(t).alpha, SOFTNESS_PX[best], keep)

        write_mattes(self.folder, self.clip.layer_names, self.clip.frame_count, softer)

    def _rough(
        self, motions: list[LayerMotion], before: Shading | None, shaded: bool
    ) -> tuple[list[Texture], Shading | None]:
        """Quick textures, the shading known `before` taken out, and the shading on top of them."""
        mapping = self._mapping(motions)
        options = SplatOptions(sharpen_steps=0)
        rough = splat(mapping, self.store.frame, options, before or self.light)
        if not shaded:
            return rough, None
        sigma_px = self.options.shading_sigma_px
        path = self.folder / ("gains_1.npy" if before is None else "gains_2.npy")
        return rough, estimate_shading(mapping, rough, self.store, sigma_px, path, self.light)

    def _mending_helps(
        self, motions: list[LayerMotion], sky: Texture, shading: Shading | None
    ) -> bool:
        gains = None if shading is None else (lambda t: shading(t)[-1])
        return mending_helps(self._mapping(motions), self.store.frame, sky, gains)

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
