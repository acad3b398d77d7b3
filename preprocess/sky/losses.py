"""What the sky network is trained on: cross entropy, absolute error, overlap and edges.

All take the predicted logits, the target opacity and a trust per pixel, (B, 1, H, W), and return
one number: the mean over the pictures of a batch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_SKY_DENIED = 4.0


def cross_entropy(logits: Tensor, alpha: Tensor, weight: Tensor) -> Tensor:
    """-(a log p + (1 - a) log(1 - p)), trust-weighted mean over pixels."""
    loss = F.binary_cross_entropy_with_logits(logits, alpha, reduction="none")
    return (loss * weight).sum() / weight.sum().clamp_min(1)


def absolute(logits: Tensor, alpha: Tensor, weight: Tensor) -> Tensor:
    """|p - a|, trust-weighted mean: the alpha loss of deep matting (arXiv 1703.03872 eq 1)."""
    loss = (torch.sigmoid(logits) - alpha).abs()
    return (loss * weight).sum() / weight.sum().clamp_min(1)


def overlap(logits: Tensor, alpha: Tensor, weight: Tensor) -> Tensor:
    """1 - IoU of each picture in its soft form, sum(p a) / sum(p + a - p a).

    Both sums carry 1 % of the picture, so that a picture without sky costs little for a faint
    answer and much for a wrong one, and never divides by zero.
    """
    shares = torch.sigmoid(logits)
    both = (shares * alpha * weight).sum((1, 2, 3))
    either = ((shares + alpha - shares * alpha) * weight).sum((1, 2, 3))
    slack = 0.01 * alpha[0].numel()
    return (1 - (both + slack) / (either + slack)).mean()


def edges(logits: Tensor, alpha: Tensor, weight: Tensor) -> Tensor:
    """|grad p - grad a| by differences of neighbours, where both neighbours are fully trusted."""
    error = torch.sigmoid(logits) - alpha
    trusted = (weight > 0.99).to(error.dtype)
    across = (error[..., 1:] - error[..., :-1]).abs() * trusted[..., 1:] * trusted[..., :-1]
    down = (error[..., 1:, :] - error[..., :-1, :]).abs() * trusted[..., 1:, :]
    down = down * trusted[..., :-1, :]
    return (across.sum() + down.sum()) / trusted.sum().clamp_min(1)


def coarse_cross_entropy(logits: Tensor, alpha: Tensor, weight: Tensor) -> Tensor:
    """Cross entropy of a coarser stage's logits (B, 1, h, w) against the averaged target."""
    size = logits.shape[-2:]
    return cross_entropy(
        logits, F.adaptive_avg_pool2d(alpha, size), F.adaptive_avg_pool2d(weight, size)
    )


def presence_cross_entropy(presence: Tensor, alpha: Tensor) -> Tensor:
    """Cross entropy of the logit (B, 1) of any sky in the picture, by the share that is sky.

    Truth: no below 0.05 % of the picture, yes above 0.4 %; pictures between are not asked about.
    A sky denied counts `_SKY_DENIED` times: the answer is to speak up only when it is sure.
    """
    share = alpha.mean(dim=(1, 2, 3))
    asked = ((share < 0.0005) | (share > 0.004)).to(presence.dtype)
    truth = (share > 0.004).to(presence.dtype)
    often = torch.tensor(_SKY_DENIED, dtype=presence.dtype, device=presence.device)
    loss = F.binary_cross_entropy_with_logits(
        presence[:, 0], truth, pos_weight=often, reduction="none"
    )
    return (loss * asked).sum() / asked.sum().clamp_min(1)
