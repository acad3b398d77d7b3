"""Lifetimes of terms, step sizes, cadences and budgets, each at its exact border."""

import pytest

from atlas.config import (
    BootstrapLossConfig,
    FlowLossConfig,
    GlobalRigidityLossConfig,
    LossConfig,
    OptimiserConfig,
)
from atlas.schedule import TimeBudget, is_due, learning_rate, term_weights

LOSS = LossConfig(
    global_rigidity=GlobalRigidityLossConfig(weight=5, bottom_weight=50, until_iteration=3),
    bootstrap=BootstrapLossConfig(weight=2000, until_iteration=7),
)


@pytest.mark.parametrize(
    ("iteration", "has_global", "has_bootstrap"),
    [(0, True, True), (3, True, True), (4, False, True), (7, False, True), (8, False, False)],
)
def test_terms_end_after_their_last_iteration(iteration, has_global, has_bootstrap):
    weights = term_weights(LOSS, iteration)
    assert ("global_rigidity" in weights) == has_global
    assert ("global_rigidity_bottom" in weights) == has_global
    assert ("bootstrap" in weights) == has_bootstrap
    assert weights["rgb"] == 5000


def test_each_term_has_its_own_factor():
    assert term_weights(LOSS, 0) == {
        "rgb": 5000,
        "gradient": 1000,
        "flow": 5,
        "flow_alpha": 49,
        "rigidity": 1,
        "global_rigidity": 5,
        "global_rigidity_bottom": 50,
        "sparsity": 1000,
        "bootstrap": 2000,
    }


def test_a_factor_of_zero_leaves_the_term_out():
    assert "flow" not in term_weights(LossConfig(flow=FlowLossConfig(weight=0)), 0)


def test_learning_rate_is_constant_without_a_final_one():
    config = OptimiserConfig(learning_rate=2e-4, iterations=10)
    assert [learning_rate(config, i) for i in (0, 5, 100)] == [2e-4] * 3


def test_learning_rate_falls_exponentially():
    config = OptimiserConfig(learning_rate=1e-2, final_learning_rate=1e-4, iterations=21)
    got = [learning_rate(config, i) for i in (0, 10, 20, 99)]
    assert got == pytest.approx([1e-2, 1e-3, 1e-4, 1e-4])


@pytest.mark.parametrize(
    ("iteration", "every", "expected"),
    [(0, 5, False), (4, 5, False), (5, 5, True), (12, 5, True), (11, 5, False), (5, 0, False)],
)
def test_cadence(iteration, every, expected):
    assert is_due(iteration, every, total=12) == expected


def test_cadence_of_zero_is_due_at_the_end_alone():
    assert [i for i in range(13) if is_due(i, 0, total=12)] == [12]


def test_budget_ends_when_spent():
    now = [100.0]
    budget = TimeBudget(8.0, clock=lambda: now[0])
    assert not budget.is_over(share=0.5)
    now[0] = 104.0
    assert budget.is_over(share=0.5)
    assert not budget.is_over()
    now[0] = 108.0
    assert budget.is_over()
    assert budget.spent_s() == 8.0


def test_no_budget_never_ends():
    now = [0.0]
    budget = TimeBudget(None, clock=lambda: now[0])
    now[0] = 1e9
    assert not budget.is_over()
