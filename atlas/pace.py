"""What steps will take, told from those already done, so that a time budget is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from atlas.schedule import TimeBudget


class Pace:
    """Times steps by kind and says whether another one still fits.

    Args:
        budget: when the run has to be whole.
        reserve_s: seconds that must be left for what comes last.
    """

    def __init__(self, budget: TimeBudget, reserve_s: Callable[[], float]):
        self.budget, self.reserve_s = budget, reserve_s
        self._clock = budget.clock
        self._longest_s: dict[str, float] = {}
        self.total_s: dict[str, float] = {}

    @contextmanager
    def timed(self, kind: str, stage: str | None = None) -> Iterator[None]:
        """Time a step of a kind, and add it to the stage's total."""
        start_s = self._clock()
        try:
            yield
        finally:
            spent_s = self._clock() - start_s
            recent_s = self._longest_s.get(kind, 0.0)
            # the first is often the slowest (files are read), so it counts less and less
            self._longest_s[kind] = max(spent_s, 0.7 * recent_s)
            name = stage or kind
            self.total_s[name] = self.total_s.get(name, 0.0) + spent_s

    def expected_s(self, kind: str) -> float:
        """What another step of a kind will take; 0 before the first."""
        return self._longest_s.get(kind, 0.0)

    def allows(self, kind: str, guess_s: float = 0.0) -> bool:
        """Whether a step of a kind, taking `guess_s` if it is the first, ends in time."""
        if self.budget.budget_s is None:
            return True
        step_s = self._longest_s.get(kind, guess_s)
        return self.budget.spent_s() + step_s + self.reserve_s() <= self.budget.budget_s
