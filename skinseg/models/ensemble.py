"""Several trained networks as one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Member(nn.Module):
    """A network with the normalisation that it was trained with, which a checkpoint fills in.

    Args:
        network: Maps float32 (B, 3, H, W) to logits (B, 1, H, W).

    Attributes:
        mean: Of R, G and B, of values in [0, 255]; shape (1, 3, 1, 1).
        std: Their standard deviation, likewise.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.zeros(1, 3, 1, 1))
        self.register_buffer("std", torch.ones(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Returns logits of shape (B, 1, H, W) for images (B, 3, H, W) of values in [0, 255]."""
        logits: Tensor = self.network((images - self.mean) / self.std)
        return logits


class Ensemble(nn.Module):
    """The mean of its members' probabilities.

    Lakshminarayanan et al., "Simple and scalable predictive uncertainty estimation using deep ensembles",
    NeurIPS 2017, equation for classification: p(y|x) = 1/M sum_m p_m(y|x).

    Args:
        members: The networks.
    """

    def __init__(self, members: Sequence[Member]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, images: Tensor) -> Tensor:
        """Returns float32 logits of the mean probability, as a single network would.

        Args:
            images: float32 tensor of shape (B, 3, H, W), values in [0, 255].

        Returns:
            Tensor of shape (B, 1, H, W), of probabilities in [1e-6, 1 - 1e-6].
        """
        mean = torch.stack([torch.sigmoid(member(images).float()) for member in self.members]).mean(0)
        return torch.logit(mean, eps=1e-6)
