"""What the end of a published fit takes, so that a time budget holds for the whole command.

After the last step, networks are asked for the windows of the canvases, for the atlases, and for
whole frames to look at. On a CPU that takes minutes, which a budget has to leave.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from atlas.coords import Size
from atlas.fields import LayerFields, parameter_count
from atlas.lna_mapping import LnaMapping

END_SHARE = 0.25
"""Part of a budget that the end may use; atlases and frames become coarser to keep within it."""
SLACK = 1.25
"""Machines are busier at one time than at another."""
WINDOW_POINTS = 1600
"""Points a frame that canvases' windows are found from, twice."""
LEAST_TEXELS = 100
"""Atlases are not made coarser than this many texels a side."""
_TRIAL_POINTS = 8192


@dataclass(frozen=True)
class End:
    """How a fit ends. canvas: size that atlases are rendered at. frames: how many frames are looked
    at, pictures of size `view`. seconds: what all that will take.
    """

    canvas: Size
    frames: int
    view: Size
    seconds: float


@dataclass(frozen=True)
class EndCosts:
    """Seconds of one point: motion: of mappings and opacities. color: of the atlas network."""

    motion_s: float
    color_s: float

    @classmethod
    def measured(
        cls, mapping: LnaMapping, fields: LayerFields, clock: Callable[[], float]
    ) -> EndCosts:
        """Time one picture of few pixels of the middle frame; networks cost by their parameters."""
        size = mapping.frame_size
        shrink = (size.width * size.height / _TRIAL_POINTS) ** 0.5
        view = Size(max(round(size.height / shrink), 1), max(round(size.width / shrink), 1))
        mapping.reconstruct(mapping.frame_count // 2, Size(8, 8))  # the first call is slow
        start_s = clock()
        mapping.reconstruct(mapping.frame_count // 2, view)
        point_s = (clock() - start_s) / (view.width * view.height)
        color = parameter_count(fields.atlas)
        motion = parameter_count(fields) - color
        unit_s = point_s / (motion + color * fields.layer_count)
        return cls(motion * unit_s, color * unit_s)


def plan_end(
    costs: EndCosts, clip: tuple[Size, int], layers: int, canvas: Size, frames: int,
    budget_s: float | None,
) -> End:  # fmt: skip
    """The fullest end that takes at most `END_SHARE` of the budget, or the least there is.

    First fewer frames are looked at, then those at a quarter of their width, then atlases are made
    of half as many texels a side, again and again.

    Args:
        clip: the frames' size, and how many there are. frames: how many to look at if time allows.
    """
    size, count = clip
    pixels = size.width * size.height
    fixed_s = count * (2 * WINDOW_POINTS + pixels / 16) * costs.motion_s
    frame_s = pixels * (costs.motion_s + layers * costs.color_s)
    limit_s = float("inf") if budget_s is None else END_SHARE * budget_s

    def total_s(canvas: Size, shown: int, coarser: int) -> float:
        atlases_s = layers * canvas.width * canvas.height * costs.color_s
        return SLACK * (fixed_s + atlases_s + shown * frame_s / coarser**2)

    shown, coarser = frames, 1
    while shown > 1 and total_s(canvas, shown, coarser) > limit_s:
        shown -= 1
    if total_s(canvas, shown, coarser) > limit_s:
        shown, coarser = frames, 4
        while shown > 1 and total_s(canvas, shown, coarser) > limit_s:
            shown -= 1
    while min(canvas.wh) >= 2 * LEAST_TEXELS and total_s(canvas, shown, coarser) > limit_s:
        canvas = Size(canvas.height // 2, canvas.width // 2)
    view = Size(max(size.height // coarser, 1), max(size.width // coarser, 1))
    return End(canvas, shown, view, total_s(canvas, shown, coarser))
