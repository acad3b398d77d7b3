"""Every loss of layered neural atlases as a pure function on tensors.

Kasten, Ofri, Wang, Dekel, "Layered Neural Atlases for Consistent Video Editing", SIGGRAPH Asia
2021; equation numbers are the paper's. Each loss returns a scalar and leaves its factor to the
caller; a mean over nothing is 0 and keeps gradients finite.
"""

from __future__ import annotations

import torch
from torch import Tensor


def rgb_loss(rgb: Tensor, target: Tensor) -> Tensor:
    """Mean squared distance between reconstructed and true colours (the paper's L_color).

    Args:
        rgb, target: (N, 3) float, [0, 1].
    Returns:
        scalar: mean over N of the sum over channels of the squared differences.
    """
    _check_same(rgb, target, "rgb", "target")
    return mean((rgb - target).square().sum(-1))


def gradient_loss(step: Tensor, target: Tensor, inside: Tensor | None = None) -> Tensor:
    """Mean squared distance between colour differences along x or y (eq. 7), one axis.

    Convention: forward differences, value at the next pixel minus value here; the loss of the
    paper is the sum of this over both axes.

    Args:
        step: (N, 3) float, difference of the reconstruction.
        target: (N, 3) float, the same difference of the video.
        inside: (N,) bool, whether the next pixel is in the frame; None = everywhere.
    Returns:
        scalar: mean over the N samples, those outside counting 0.
    """
    _check_same(step, target, "step", "target")
    squared = (step - target).square().sum(-1)
    return mean(squared if inside is None else squared * inside)


def flow_loss(uv: Tensor, uv_matched: Tensor, share: Tensor, px_per_uv: float) -> Tensor:
    """Mean atlas distance between both ends of a flow match, times the layer's share (eq. 11).

    Args:
        uv: (M, 2) float, the layer's atlas position at the start of each consistent match.
        uv_matched: (M, 2) float, its position at the end.
        share: (M, 1) float, [0, 1], how much of the start pixel shows the layer.
        px_per_uv: frame pixels that one unit of uv stands for.
    Returns:
        scalar, pixels; 0 when there is no match.
    """
    _check_same(uv, uv_matched, "uv", "uv_matched")
    if share.shape != (*uv.shape[:-1], 1):
        raise ValueError(f"share must be {(*uv.shape[:-1], 1)}, got {tuple(share.shape)}")
    distance = _norm(uv - uv_matched)
    return mean(distance * share.squeeze(-1)) * px_per_uv


def flow_alpha_loss(alpha: Tensor, alpha_matched: Tensor) -> Tensor:
    """Mean change of opacity along flow matches (eq. 12).

    Args:
        alpha, alpha_matched: (M, 1) float, [0, 1], at both ends of each consistent match.
    Returns:
        scalar; 0 when there is no match.
    """
    _check_same(alpha, alpha_matched, "alpha", "alpha_matched")
    return mean((alpha - alpha_matched).abs())


def rigidity_loss(jacobian: Tensor, ridge: float = 0.0) -> Tensor:
    """Mean of `rigidity` (eq. 9): a scalar, dimensionless.

    Local for Jacobians over one pixel, global for those over many.
    """
    return mean(rigidity(jacobian, ridge))


def rigidity(jacobian: Tensor, ridge: float = 0.0) -> Tensor:
    """||J^T J||_F + ||(J^T J)^-1||_F, least for a rotation or mirror image: 2 sqrt(2) (eq. 9).

    Args:
        jacobian: (..., 2, 2) float, pixels per pixel: [[du/dx, du/dy], [dv/dx, dv/dy]].
        ridge: added to the diagonal before inverting, so that a collapsed Jacobian costs much
            but not everything; >= 0. The authors' program uses 0.001.
    Returns:
        (...) float, dimensionless.
    """
    if jacobian.shape[-2:] != (2, 2):
        raise ValueError(f"jacobian must end in (2, 2), got {tuple(jacobian.shape)}")
    (du_dx, du_dy), (dv_dx, dv_dy) = (row.unbind(-1) for row in jacobian.unbind(-2))
    xx = du_dx.square() + dv_dx.square()
    yy = du_dy.square() + dv_dy.square()
    xy = du_dx * du_dy + dv_dx * dv_dy
    size = _norm(torch.stack([xx, xy, xy, yy], dim=-1))
    # The inverse of a 2x2 matrix has the norm of the matrix over its determinant, here
    # det(J^T J + r I) = det(J)^2 + r trace + r^2: a sum of squares, so it never cancels.
    determinant = (du_dx * dv_dy - du_dy * dv_dx).square() + ridge * (xx + yy) + ridge**2
    inverse_size = _norm(torch.stack([xx + ridge, xy, xy, yy + ridge], dim=-1)) / determinant
    return size + inverse_size


def sparsity_loss(rgb: Tensor, alpha: Tensor) -> Tensor:
    """Mean squared colour that a layer's atlas holds where the layer is clear (L_sparsity).

    Keeps an upper layer's atlas black where nothing of it shows.

    Args:
        rgb: (N, 3) float, the layer's colour, [0, 1].
        alpha: (N, 1) float, the layer's opacity, [0, 1].
    """
    if alpha.shape != (*rgb.shape[:-1], 1):
        raise ValueError(f"alpha must be {(*rgb.shape[:-1], 1)}, got {tuple(alpha.shape)}")
    return mean(((1 - alpha) * rgb).square().sum(-1))


def bootstrap_loss(alpha: Tensor, mask: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean binary cross entropy between opacity and a given mask (L_bootstrap).

    Args:
        alpha: (N, 1) float, opacity, [0, 1].
        mask: (N, 1) float, the mask or matte, [0, 1].
        weight: (N, 1) float, >= 0, how far the mask can see the layer there (0 = hidden under
            another layer); None = 1.
    Returns:
        scalar, nats. Opacity is first squeezed into [1e-6, 1 - 1e-6], so that a wrong 0 or 1
        costs much, stays finite and can still be left.
    """
    _check_same(alpha, mask, "alpha", "mask")
    inner = alpha * (1 - 2e-6) + 1e-6
    entropy = -(mask * inner.log() + (1 - mask) * torch.log1p(-inner))
    if weight is not None:
        _check_same(alpha, weight, "alpha", "weight")
        entropy = entropy * weight
    return mean(entropy)


def finite_jacobian(uv: Tensor, uv_x: Tensor, uv_y: Tensor, px_per_uv_step: float) -> Tensor:
    """Jacobian of a mapping by finite differences (the J of eq. 9), pixels per pixel.

    Args:
        uv, uv_x, uv_y: (N, 2) float, uv here, one step along x and one step along y.
        px_per_uv_step: pixels that one unit of uv stands for, over the step in pixels.
    Returns:
        (N, 2, 2) float: [[du/dx, du/dy], [dv/dx, dv/dy]].
    """
    _check_same(uv, uv_x, "uv", "uv_x")
    _check_same(uv, uv_y, "uv", "uv_y")
    return torch.stack([uv_x - uv, uv_y - uv], dim=-1) * px_per_uv_step


def mean(values: Tensor) -> Tensor:
    """The mean, or 0 with a gradient of 0 where there is nothing to average."""
    return values.sum() / max(values.numel(), 1)


def _norm(vectors: Tensor) -> Tensor:
    """Euclidean norm over the last axis, with gradient 0 where the vector is 0."""
    return torch.linalg.vector_norm(vectors, dim=-1)


def _check_same(a: Tensor, b: Tensor, name_a: str, name_b: str) -> None:
    if a.shape != b.shape:
        raise ValueError(
            f"{name_a} and {name_b} must have one shape, got {tuple(a.shape)} and {tuple(b.shape)}"
        )
