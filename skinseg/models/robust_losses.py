"""Losses of single pixels on which wrongly drawn outlines pull less than on the cross-entropy.

They take and return what the losses of `skinseg.models.losses` do.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skinseg.models.losses import aligned, check_weights, wrong_logits


class SymmetricCrossEntropy(nn.Module):
    """Cross-entropy plus reverse cross-entropy (Wang et al., ICCV 2019, arXiv:1908.06112).

    The mean over all pixels of -alpha log q - beta A (1 - q), where q is the probability of the right answer
    and A stands for log 0. The second term is bounded: a pixel that the mask has wrong costs at most -beta A.

    Args:
        alpha: Weight of the cross-entropy, >= 0; the paper's 0.1 for CIFAR-10.
        beta: Weight of the reverse cross-entropy, >= 0; likewise.
        log_zero: The paper's A, < 0.

    Raises:
        ValueError: An argument is out of range.
    """

    def __init__(self, alpha: float = 0.1, beta: float = 1.0, log_zero: float = -4.0) -> None:
        super().__init__()
        check_weights(alpha=alpha, beta=beta)
        if not -math.inf < log_zero < 0:
            raise ValueError(f"log_zero={log_zero}: expected a number < 0.")
        self.alpha = alpha
        self.beta = beta
        self.log_zero = log_zero

    def forward(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Returns the loss, in [0, inf), of logits and masks of shape (B, 1, H, W)."""
        wrong = wrong_logits(*aligned(logits, masks))
        loss = self.alpha * F.softplus(wrong) - self.beta * self.log_zero * torch.sigmoid(wrong)
        return loss.mean()


class GeneralisedCrossEntropy(nn.Module):
    """Between cross-entropy and absolute error (Zhang, Sabuncu, NeurIPS 2018, arXiv:1805.07836).

    The mean over all pixels of (1 - r ** q) / q, where r is the probability of the right answer. As q falls
    to 0 it becomes the cross-entropy; at 1 it is the absolute error, which weighs all mistakes alike.

    Args:
        q: In (0, 1]; the paper's 0.7.

    Raises:
        ValueError: q is out of range.
    """

    def __init__(self, q: float = 0.7) -> None:
        super().__init__()
        if not 0 < q <= 1:
            raise ValueError(f"q={q}: expected a number in (0, 1].")
        self.q = q

    def forward(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Returns the loss, in [0, 1 / q], of logits and masks of shape (B, 1, H, W)."""
        wrong = wrong_logits(*aligned(logits, masks))
        return -torch.expm1(self.q * F.logsigmoid(-wrong)).mean() / self.q
