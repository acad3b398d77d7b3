"""What counts when: lifetimes of loss terms, the learning rate, cadences, and the time budget."""

from __future__ import annotations

import time
from collections.abc import Callable

from atlas.config import LossConfig, OptimiserConfig


def term_weights(loss: LossConfig, iteration: int) -> dict[str, float]:
    """Factor of each loss term at `iteration` (0-based); terms that do not count are left out.

    `global_rigidity_bottom` is the bottom layer's part of `global_rigidity`, which has a factor of
    its own. A term with `until_iteration` counts up to and including that iteration.
    """
    weights = {
        "rgb": loss.rgb.weight,
        "gradient": loss.gradient.weight,
        "flow": loss.flow.weight,
        "flow_alpha": loss.flow_alpha.weight,
        "rigidity": loss.rigidity.weight,
        "sparsity": loss.sparsity.weight,
    }
    if iteration <= loss.global_rigidity.until_iteration:
        weights["global_rigidity"] = loss.global_rigidity.weight
        weights["global_rigidity_bottom"] = loss.global_rigidity.bottom_weight
    if iteration <= loss.bootstrap.until_iteration:
        weights["bootstrap"] = loss.bootstrap.weight
    return {name: weight for name, weight in weights.items() if weight > 0}


def learning_rate(config: OptimiserConfig, iteration: int) -> float:
    """Adam's step size at `iteration`: constant, or falling exponentially to the final one."""
    if config.final_learning_rate is None:
        return config.learning_rate
    done = min(iteration / max(config.iterations - 1, 1), 1.0)
    return config.learning_rate * (config.final_learning_rate / config.learning_rate) ** done


def is_due(iteration: int, every: int, total: int) -> bool:
    """Whether something done every `every` iterations is due once `iteration` steps are done.

    Always due at the end; `every` = 0 means only then; never before the first step.
    """
    if iteration <= 0:
        return False
    return iteration >= total or (every > 0 and iteration % every == 0)


class TimeBudget:
    """A stopwatch with an end, which may be never.

    Args:
        budget_s: seconds, or None for no end.
        clock: seconds that only grow.
        spent_s: seconds that are gone already.
    """

    def __init__(
        self,
        budget_s: float | None,
        clock: Callable[[], float] = time.monotonic,
        spent_s: float = 0.0,
    ):
        self.budget_s = budget_s
        self.clock = clock
        self._start_s = clock() - spent_s

    def spent_s(self) -> float:
        """Seconds since the start."""
        return self.clock() - self._start_s

    def is_over(self, share: float = 1.0) -> bool:
        """Whether `share` of the budget is used up."""
        return self.budget_s is not None and self.spent_s() >= self.budget_s * share

    def part(self, share: float) -> TimeBudget:
        """A stopwatch started now, with `share` of what is left; (0, 1]."""
        if self.budget_s is None:
            return TimeBudget(None, self.clock)
        return TimeBudget(max(self.budget_s - self.spent_s(), 0.0) * share, self.clock)
