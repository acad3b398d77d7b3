"""The objective of layered neural atlases at a batch of pixels, term by term.

Kasten et al. 2021, section 3, for any number of layers: terms on mappings and flow are summed over
all layers, terms on opacity and sparsity over all but the bottom one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from atlas.config import TrainConfig
from atlas.errors import InputError
from atlas.fields import Domain, LayerFields, LayerSamples
from atlas.losses import (
    bootstrap_loss,
    finite_jacobian,
    flow_alpha_loss,
    flow_loss,
    gradient_loss,
    rgb_loss,
    rigidity_loss,
    sparsity_loss,
)
from atlas.video_data import VideoData

RIDGE = 1e-3
"""Added to J^T J before it is inverted, as in the authors' program."""


@dataclass(frozen=True)
class Objective:
    """Fields, the clip they are fitted to, and where in space and time it lies."""

    fields: LayerFields
    video: VideoData
    domain: Domain
    config: TrainConfig

    @property
    def px_per_uv(self) -> float:
        """Frame pixels that one unit of uv stands for before fitting."""
        return self.domain.px_per_unit() / self.config.networks.uv_scale

    def terms(self, xyt_px: Tensor, names: set[str]) -> dict[str, Tensor]:
        """The loss terms in `names`, before their factors.

        Args:
            xyt_px: (N, 3) int64, whole positions x, y, t.
            names: those of `schedule.term_weights`.
        Returns:
            scalar by name, in a fixed order.
        """
        here = xyt_px.float()
        samples, steps = self._samples(here, with_steps="gradient" in names)
        terms: dict[str, Tensor] = {}
        if "rgb" in names:
            terms["rgb"] = rgb_loss(samples.composite(), self.video.rgb(xyt_px))
        if steps:
            terms["gradient"] = self._gradient(xyt_px, samples, steps)
        if "flow" in names or "flow_alpha" in names:
            flow, flow_alpha = self._flow(xyt_px, samples)
            terms |= {
                name: value
                for name, value in (("flow", flow), ("flow_alpha", flow_alpha))
                if name in names
            }
        terms |= self._rigidity(here, samples, steps, names)
        upper = range(self.fields.layer_count - 1)
        if "sparsity" in names:
            parts = [sparsity_loss(samples.rgb[i], samples.alpha[i]) for i in upper]
            terms["sparsity"] = _total(parts, here)
        if "bootstrap" in names:
            terms["bootstrap"] = self._bootstrap(xyt_px, samples.alpha)
        return terms

    def _samples(self, here: Tensor, with_steps: bool) -> tuple[LayerSamples, list[LayerSamples]]:
        """Fields at each position and, in the same call, one pixel along x and along y."""
        if not with_steps:
            return self.fields(self.domain.to_unit(here)), []
        at = torch.cat([here, _moved(here, 0, 1.0), _moved(here, 1, 1.0)])
        whole = self.fields(self.domain.to_unit(at))
        parts = [
            LayerSamples(*split)
            for split in zip(
                whole.uv.chunk(3, 1), whole.alpha.chunk(3, 1), whole.rgb.chunk(3, 1), strict=True
            )
        ]
        return parts[0], parts[1:]

    def _gradient(self, xyt_px: Tensor, samples: LayerSamples, steps: list[LayerSamples]) -> Tensor:
        color = samples.composite()
        parts = []
        for axis, step in enumerate(steps):
            target, inside = self.video.color_step(xyt_px, axis)
            parts.append(gradient_loss(step.composite() - color, target, inside))
        return _total(parts, color)

    def _flow(self, xyt_px: Tensor, samples: LayerSamples) -> tuple[Tensor, Tensor]:
        """Flow and opacity terms, half from matches in the next frame, half from the last."""
        shares = samples.shares()
        flows, alphas = [], []
        for step in (1, -1):
            index, ends = self.video.matches(xyt_px, step)
            uv, alpha = self.fields.motion(self.domain.to_unit(ends))
            for i in range(self.fields.layer_count):
                start = samples.uv[i, index]
                flows.append(0.5 * flow_loss(start, uv[i], shares[i, index], self.px_per_uv))
            for i in range(self.fields.layer_count - 1):
                alphas.append(0.5 * flow_alpha_loss(samples.alpha[i, index], alpha[i]))
        return _total(flows, shares), _total(alphas, shares)

    def _rigidity(
        self, here: Tensor, samples: LayerSamples, steps: list[LayerSamples], names: set[str]
    ) -> dict[str, Tensor]:
        loss, bottom = self.config.loss, self.fields.layer_count - 1
        terms = {}
        if "rigidity" in names:
            reuse = steps if loss.rigidity.step_px == 1 else []
            parts = [
                self._layer_rigidity(here, samples, i, loss.rigidity.step_px, reuse)
                for i in range(bottom + 1)
            ]
            terms["rigidity"] = _total(parts, here)
        if "global_rigidity" in names:
            step_px = loss.global_rigidity.step_px
            parts = [self._layer_rigidity(here, samples, i, step_px, []) for i in range(bottom)]
            terms["global_rigidity"] = _total(parts, here)
        if "global_rigidity_bottom" in names:
            step_px = loss.global_rigidity.bottom_step_px
            terms["global_rigidity_bottom"] = self._layer_rigidity(
                here, samples, bottom, step_px, []
            )
        return terms

    def _layer_rigidity(
        self,
        here: Tensor,
        samples: LayerSamples,
        layer: int,
        step_px: float,
        steps: list[LayerSamples],
    ) -> Tensor:
        """One layer's term; `steps` are samples that far along x and y where they are at hand."""
        if steps:
            uv_x, uv_y = steps[0].uv[layer], steps[1].uv[layer]
        else:
            at = torch.cat([_moved(here, 0, step_px), _moved(here, 1, step_px)])
            uv_x, uv_y = self.fields.uv(layer, self.domain.to_unit(at)).chunk(2)
        jacobian = finite_jacobian(samples.uv[layer], uv_x, uv_y, self.px_per_uv / step_px)
        return rigidity_loss(jacobian, RIDGE)

    def _bootstrap(self, xyt_px: Tensor, alpha: Tensor) -> Tensor:
        """Upper layers against their masks, each where the masks above let it be seen."""
        masks = self.video.mask(xyt_px)
        parts, through = [], torch.ones_like(alpha[0])
        for i, mask in enumerate(masks):
            parts.append(bootstrap_loss(alpha[i], mask, through))
            through = through * (1 - mask)
        return _total(parts, alpha)


def weighted_sum(terms: dict[str, Tensor], weights: dict[str, float]) -> Tensor:
    """The objective: the sum of the terms times their factors."""
    return torch.stack([terms[name] * weights[name] for name in terms]).sum()


def check_finite(terms: dict[str, Tensor], weights: dict[str, float], iteration: int) -> None:
    """Raise `InputError` naming the terms that, times their factors, are not finite."""
    if bool(weighted_sum(terms, weights).isfinite()):
        return
    bad = [name for name, value in terms.items() if not bool((value * weights[name]).isfinite())]
    bad = bad or list(terms)  # each is finite, their sum is not
    raise InputError(
        f"iteration {iteration}: loss {' + '.join(bad)} is not finite; the last checkpoint is "
        "kept; resume with a lower optimiser.learning_rate or loss weight"
    )


def _moved(here: Tensor, axis: int, step_px: float) -> Tensor:
    moved = here.clone()
    moved[:, axis] += step_px
    return moved


def _total(parts: list[Tensor], like: Tensor) -> Tensor:
    """Their sum, or 0 where a clip has no such layer."""
    return torch.stack(parts).sum() if parts else torch.zeros((), device=like.device)
