"""Take layers away: what the layers below know of the scene appears in their place."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

import cv2
import numpy as np

from atlas.coords import Size
from atlas.errors import InputError
from atlas.mapping import FrameMapping, LayerMapping, visible_shares
from atlas.texture import Texture
from edits.blend import paint_over
from edits.context import RenderContext, atlas_color
from edits.kinds import RemoveLayer
from edits.paint import Paint, shaded_sample
from edits.unmix import estimate_color, push_pull

SURVEY_WIDTH_PX = 240
"""Frames are looked at at about this width to find what the removed layers hide."""
UNSEEN_COVERAGE = 0.5
INPAINT_RADIUS = 4.0
log = logging.getLogger(__name__)


class Removal:
    """The layers to take away, and the textures of the others with their gaps filled.

    filled_share: how much of what appears no frame has ever seen; [0, 1].
    """

    def __init__(self, edits: Sequence[RemoveLayer], mapping: LayerMapping, context: RenderContext):
        self._grow = {mapping.layer_index(edit.layer): edit.grow for edit in edits}
        self.layers = sorted(self._grow)
        self._names = [mapping.layers[i].name for i in self.layers]
        if self.layers and self.layers[-1] == len(mapping.layers) - 1:
            raise InputError(
                f"layer {self._names[-1]!r} is the bottom one: nothing lies below it that could "
                f"appear; paint over it instead"
            )
        if self.layers and context.textures is None:
            raise InputError(
                f"removing {self._names[0]!r} needs a run of train.py, which knows what lies "
                f"behind; the fast path does not"
            )
        textures = list(context.textures or [])
        needed, self.filled_share = self._survey(mapping, textures)
        for i, mask in needed.items():
            textures[i] = fill_gaps(textures[i], mask)
        self._context = replace(context, textures=textures)

    def describe(self) -> str:
        """One line: what is removed, and how much of what appears is made up."""
        return (
            f"removed {', '.join(self._names)}: {100 * self.filled_share:.1f} % of the pixels that "
            f"appear were never seen and are filled in from around"
        )

    def widens(self, layer: int) -> bool:
        """Whether layer number `layer` is taken away beyond its matte."""
        return self._grow.get(layer, 0.0) > 0

    def grown(self, found: FrameMapping) -> FrameMapping:
        """The mapping with the removed layers' mattes widened, softly.

        A matte cannot see through what lies before it: a sky matte takes a balloon for ground. So
        the mattes of layers in between are continued under the removed layers from around.
        """
        alpha = found.alpha.copy()
        open_to_view = np.ones(alpha.shape[1:], np.float32)
        for i, grow in self._grow.items():
            alpha[i] = widened(alpha[i], grow * alpha.shape[2])
            open_to_view *= 1 - alpha[i]
        for i in range(self.layers[0] + 1, len(alpha) - 1):
            if i not in self.layers:
                alpha[i] = continued(alpha[i], open_to_view)
        return FrameMapping(found.uv, alpha, found.confidence)

    def below(
        self,
        rgb: np.ndarray,
        found: FrameMapping,
        gains: np.ndarray | None,
        painted: Mapping[int, Sequence[Paint]],
        time_s: float,
    ) -> dict[int, np.ndarray]:
        """What appears in place of each removed layer: (H, W, 3) float32 by layer number.

        The atlases of the layers below, shaded, corrected smoothly to what this frame shows of
        them near by, and with their own edits.

        Args:
            rgb: (H, W, 3) float32, the frame, [0, 1].
            found: its mapping as `grown` gives it.
        """
        # what the light does is read off at some distance: a rim of the layer is no light
        shares, colors = self.grown(found).visible(), {}
        for i in range(self.layers[0] + 1, len(found.alpha)):
            if i in self.layers:
                continue
            gain = None if gains is None else gains[i]
            prior = atlas_color(self._context, found, i, gain)
            assert prior is not None
            color = estimate_color(rgb, shares[i], prior)
            for paint in painted.get(i, ()):
                color = paint_over(
                    color, shaded_sample(paint, found.uv[i], gain, time_s), paint.blend
                )
            colors[i] = np.clip(color, 0, 1)
        out = {}
        for removed in self.layers:
            parts = self._shares_below(found.alpha, removed)
            out[removed] = sum(share[..., None] * colors[i] for i, share in parts.items())
        return out

    def _shares_below(self, alpha: np.ndarray, removed: int) -> dict[int, np.ndarray]:
        """(H, W) float32 by layer: shares of the layers under `removed`, others removed too."""
        left = [i for i in range(removed + 1, len(alpha)) if i not in self.layers]
        return dict(zip(left, visible_shares(alpha[left]), strict=True))

    def _survey(
        self, mapping: LayerMapping, textures: Sequence[Texture]
    ) -> tuple[dict[int, np.ndarray], float]:
        """Texels that appear though no frame saw them: (H, W) bool by layer; and their share."""
        needed = {
            i: np.zeros((textures[i].size.height, textures[i].size.width), np.uint8)
            for i in range(self.layers[0] + 1 if self.layers else 0, len(textures))
            if i not in self.layers
        }
        appears = unseen = 0.0
        for t in range(mapping.frame_count if self.layers else 0):
            found = self.grown(mapping.frame(t, _small(mapping.frame_size)))
            shares = found.visible()
            for removed in self.layers:
                for i, part in self._shares_below(found.alpha, removed).items():
                    share = part * shares[removed]
                    gap = _sampled(textures[i].coverage, found.uv[i]) < UNSEEN_COVERAGE
                    appears += float(share.sum())
                    unseen += float(share[gap].sum())
                    _mark(needed[i], found.uv[i][gap & (share > 0.01)])
        # marks lie as far apart as the pixels of the small frames; texels are about as large
        reach = 2 * round(2 * mapping.frame_size.width / SURVEY_WIDTH_PX) + 3
        kernel = np.ones((reach, reach), np.uint8)
        gaps = {
            i: (cv2.dilate(mask, kernel) > 0) & (textures[i].coverage < UNSEEN_COVERAGE)
            for i, mask in needed.items()
        }
        return gaps, unseen / max(appears, 1e-6)


def fill_gaps(texture: Texture, gaps: np.ndarray) -> Texture:
    """The texture with its gaps inpainted from their rims (Telea 2004, `cv2.inpaint`).

    Args:
        gaps: (H, W) bool.
    """
    if not gaps.any():
        return texture
    rgb8 = np.clip(np.rint(texture.rgb * 255), 0, 255).astype(np.uint8)
    filled = cv2.inpaint(rgb8, gaps.astype(np.uint8), INPAINT_RADIUS, cv2.INPAINT_TELEA)
    rgb = np.where(gaps[..., None], filled.astype(np.float32) / 255, texture.rgb)
    return Texture(rgb.astype(np.float32), texture.coverage)


def widened(alpha: np.ndarray, reach_px: float) -> np.ndarray:
    """The largest opacity within `reach_px`, with a soft edge, and no less than it was.

    Args:
        alpha: (H, W) float32.
    """
    reach = round(reach_px)
    if reach < 1:
        return alpha
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    wide = cv2.GaussianBlur(cv2.dilate(alpha, kernel), (0, 0), max(reach / 4, 0.5))
    return np.maximum(alpha, wide)


def continued(alpha: np.ndarray, known: np.ndarray) -> np.ndarray:
    """A matte continued smoothly to where it is not known.

    Args:
        alpha: (H, W) float32. known: (H, W) float32, [0, 1].
    """
    weighted = alpha * known
    filled = push_pull(np.dstack([weighted, weighted, weighted, known]))
    return alpha if filled is None else (weighted + (1 - known) * filled[..., 0]).clip(0, 1)


def _small(size: Size) -> Size:
    factor = min(1.0, SURVEY_WIDTH_PX / size.width)
    return Size(max(round(size.height * factor), 1), max(round(size.width * factor), 1))


def _sampled(plane: np.ndarray, uv: np.ndarray) -> np.ndarray:
    at = np.nan_to_num(uv, nan=-1e4, posinf=-1e4, neginf=-1e4)
    return cv2.remap(plane, at, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)


def _mark(mask: np.ndarray, uv: np.ndarray) -> None:
    """Set the texels at and about (N, 2) positions, which are several frame pixels apart."""
    uv = uv[np.isfinite(uv).all(-1)]
    column, row = np.rint(uv).astype(int).T
    inside = (column >= 0) & (row >= 0) & (column < mask.shape[1]) & (row < mask.shape[0])
    mask[row[inside], column[inside]] = 1
