"""Losses against values worked out by hand, their gradients, and their edges."""

import math

import pytest
import torch
from torch.testing import assert_close

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


def tensor(values, **options):
    return torch.tensor(values, dtype=torch.float64, **options)


@pytest.mark.parametrize(
    ("jacobian", "expected"),
    [
        ([[1, 0], [0, 1]], 2 * 2**0.5),  # rigid: the minimum, which is not zero
        ([[0, -1], [1, 0]], 2 * 2**0.5),  # a quarter turn is rigid too
        ([[2, 0], [0, 2]], 2**0.5 * (4 + 1 / 4)),  # scale s: sqrt(2) (s^2 + s^-2)
        ([[1, 1], [0, 1]], 2 * 7**0.5),  # shear: without this row, J J passes for J'J
        ([[3, 0], [0, 0.5]], (81 + 1 / 16) ** 0.5 + (1 / 81 + 16) ** 0.5),  # x and y apart
    ],
)
def test_rigidity_loss_matches_hand_derivation(jacobian, expected):
    assert rigidity_loss(tensor(jacobian)[None]).item() == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("ridge", [0.0, 1e-3])
def test_rigidity_loss_matches_matrix_algebra(seed, ridge):
    jacobian = torch.randn(13, 2, 2, generator=torch.Generator().manual_seed(seed)).double()
    gram = jacobian.mT @ jacobian
    inverse = torch.linalg.inv(gram + ridge * torch.eye(2, dtype=torch.float64))
    expected = (torch.linalg.matrix_norm(gram) + torch.linalg.matrix_norm(inverse)).mean()
    assert_close(rigidity_loss(jacobian, ridge), expected)


def test_rigidity_is_least_for_rotations():
    angle = tensor(0.7)
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()]).view(1, 2, 2)
    assert rigidity_loss(turn).item() == pytest.approx(8**0.5)
    rng = torch.Generator().manual_seed(0)
    for _ in range(50):
        bent = turn + 0.1 * torch.randn(1, 2, 2, generator=rng).double()
        assert rigidity_loss(bent) > 8**0.5


def test_rigidity_gradient_stays_finite_where_the_mapping_collapses():
    jacobian = tensor([[[0, 0], [0, 0]], [[1, 2], [2, 4]]]).requires_grad_()
    loss = rigidity_loss(jacobian, ridge=1e-3)
    # Collapsed: 0 + sqrt(2)/r. Rank 1, J^T J = [[5, 10], [10, 20]]: 25 + the norm of
    # [[5 + r, 10], [10, 20 + r]] over det = 25 r + r^2.
    second = (5.001**2 + 2 * 100 + 20.001**2) ** 0.5 / (0.025 + 1e-6)
    assert loss.item() == pytest.approx((2**0.5 / 1e-3 + 25 + second) / 2)
    loss.backward()
    assert jacobian.grad is not None
    assert jacobian.grad.isfinite().all()


def test_jacobian_orientation_and_units_are_pinned():
    """A step along x moves uv by (2, 5), along y by (3, 7); 10 px per uv, steps of 4 px."""
    uv = tensor([[0.3, -0.2]])
    got = finite_jacobian(uv, uv + tensor([[2.0, 5.0]]), uv + tensor([[3.0, 7.0]]), 10 / 4)
    assert_close(got, tensor([[[5.0, 7.5], [12.5, 17.5]]]))


def test_rgb_loss_by_hand():
    rgb = tensor([[0.1, 0.2, 0.3], [0.5, 0.5, 0.5]])
    target = tensor([[0.0, 0.0, 0.0], [0.5, 0.5, 0.1]])
    # (0.01 + 0.04 + 0.09 + 0.16) / 2: a sum over channels, a mean over samples.
    assert rgb_loss(rgb, target).item() == pytest.approx(0.15)


def test_gradient_loss_by_hand():
    step = tensor([[0.1, 0.0, 0.0], [0.0, 0.2, 0.0], [9.0, 9.0, 9.0]])
    target = tensor([[0.0, 0.0, 0.2], [0.0, 0.5, 0.0], [0.0, 0.0, 0.0]])
    inside = torch.tensor([True, True, False])
    # (0.01 + 0.04 + 0.09) / 3: the sample at the border counts, with 0.
    assert gradient_loss(step, target, inside).item() == pytest.approx(0.14 / 3)
    assert gradient_loss(step[:2], target[:2]).item() == pytest.approx(0.07)


def test_flow_loss_by_hand():
    uv = tensor([[0.0, 0.0], [0.5, 0.5]])
    matched = tensor([[0.3, -0.4], [0.5, 0.4]])
    share = tensor([[1.0], [0.25]])
    # Distances 0.5 and 0.1; (0.5 + 0.025) / 2 uv units of 100 px.
    assert flow_loss(uv, matched, share, 100.0).item() == pytest.approx(26.25)


def test_flow_alpha_loss_by_hand():
    got = flow_alpha_loss(tensor([[0.2], [1.0], [0.5]]), tensor([[0.5], [0.1], [0.5]]))
    assert got.item() == pytest.approx(0.4)


def test_sparsity_loss_by_hand():
    rgb = tensor([[1.0, 0.0, 0.5], [1.0, 1.0, 1.0]])
    alpha = tensor([[0.4], [1.0]])
    # (0.36 + 0.09) / 2; opaque samples are free.
    assert sparsity_loss(rgb, alpha).item() == pytest.approx(0.225)


def test_bootstrap_loss_by_hand():
    alpha, mask = tensor([[0.25], [0.5]]), tensor([[1.0], [0.25]])
    expected = (math.log(4) + math.log(2)) / 2
    # 1e-5: opacity is squeezed by 1e-6 first.
    assert bootstrap_loss(alpha, mask).item() == pytest.approx(expected, rel=1e-5)
    weighted = bootstrap_loss(alpha, mask, tensor([[0.0], [0.5]]))
    assert weighted.item() == pytest.approx(math.log(2) / 4, rel=1e-5)


def test_bootstrap_loss_is_least_where_opacity_is_the_mask():
    mask = tensor([[0.0], [0.3], [1.0]])
    least = bootstrap_loss(mask, mask)
    for step in (-0.05, 0.05):
        assert bootstrap_loss((mask + step).clamp(0, 1), mask) > least


@pytest.mark.parametrize("wrong", [0.0, 1.0])
def test_bootstrap_gradient_leads_out_of_certain_error(wrong):
    alpha = torch.tensor([[wrong]], requires_grad=True)  # float32: what a fit uses
    loss = bootstrap_loss(alpha, torch.tensor([[1 - wrong]]))
    loss.backward()
    assert loss.isfinite()
    assert alpha.grad is not None
    assert alpha.grad.isfinite().all()
    assert (alpha.grad.sign() == (1 if wrong else -1)).all()


def rand(*shape, seed):
    values = torch.rand(*shape, generator=torch.Generator().manual_seed(seed))
    return values.double().requires_grad_()


CASES = {
    "rgb": (rgb_loss, lambda n: (rand(n, 3, seed=1), rand(n, 3, seed=2))),
    "gradient": (gradient_loss, lambda n: (rand(n, 3, seed=1), rand(n, 3, seed=2))),
    "flow": (
        lambda uv, matched, share: flow_loss(uv, matched, share, 3.0),
        lambda n: (rand(n, 2, seed=1), rand(n, 2, seed=2), rand(n, 1, seed=3)),
    ),
    "flow_alpha": (flow_alpha_loss, lambda n: (rand(n, 1, seed=1), rand(n, 1, seed=2))),
    "rigidity": (lambda j: rigidity_loss(j, 1e-3), lambda n: (rand(n, 2, 2, seed=1),)),
    "sparsity": (sparsity_loss, lambda n: (rand(n, 3, seed=1), rand(n, 1, seed=2))),
    "bootstrap": (bootstrap_loss, lambda n: (rand(n, 1, seed=1), rand(n, 1, seed=2))),
}


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_right(name):
    loss, inputs = CASES[name]
    assert torch.autograd.gradcheck(loss, inputs(5))


@pytest.mark.parametrize("name", CASES)
def test_nothing_to_average_is_zero_with_a_zero_gradient(name):
    """No consistent match, or a clip of one frame: 0, not nan."""
    loss, inputs = CASES[name]
    given = inputs(0)
    value = loss(*given)
    assert value.item() == 0
    value.backward()
    assert all(x.grad is not None and x.grad.isfinite().all() for x in given)


def test_gradients_are_finite_at_perfect_agreement_and_at_alpha_0_and_1():
    uv = tensor([[0.1, 0.2], [0.3, 0.4]]).requires_grad_()
    alpha = tensor([[0.0], [1.0]]).requires_grad_()
    rgb = tensor([[0.5, 0.5, 0.5], [0.0, 0.0, 0.0]]).requires_grad_()
    total = (
        flow_loss(uv, uv.detach(), alpha, 10.0)
        + flow_alpha_loss(alpha, alpha.detach())
        + rgb_loss(rgb, rgb.detach())
        + sparsity_loss(rgb, alpha)
        + bootstrap_loss(alpha, alpha.detach())
    )
    total.backward()
    for x in (uv, alpha, rgb):
        assert x.grad is not None
        assert x.grad.isfinite().all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rgb_loss(tensor([[0.0] * 3]), tensor([0.0] * 3)), "rgb and target"),
        (lambda: gradient_loss(tensor([[0.0] * 3]), tensor([[0.0]])), "step and target"),
        (lambda: flow_loss(tensor([[0, 0]]), tensor([[0]]), tensor([[1]]), 1), "uv and uv_matched"),
        (lambda: flow_loss(tensor([[0, 0]]), tensor([[0, 0]]), tensor([1]), 1), "share must be"),
        (lambda: flow_alpha_loss(tensor([[0]]), tensor([0])), "alpha and alpha_matched"),
        (lambda: rigidity_loss(tensor([[0, 0]])), r"jacobian must end in \(2, 2\)"),
        (lambda: sparsity_loss(tensor([[0, 0, 0]]), tensor([0])), "alpha must be"),
        (lambda: bootstrap_loss(tensor([[0]]), tensor([0])), "alpha and mask"),
        (lambda: bootstrap_loss(tensor([[0]]), tensor([[0]]), tensor([0])), "alpha and weight"),
        (lambda: finite_jacobian(tensor([[0, 0]]), tensor([0]), tensor([[0, 0]]), 1), "uv_x"),
        (lambda: finite_jacobian(tensor([[0, 0]]), tensor([[0, 0]]), tensor([0]), 1), "uv_y"),
    ],
)
def test_shapes_that_would_broadcast_in_silence_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
