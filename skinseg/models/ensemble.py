"""Several trained networks as one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from skinseg.models.net import LesionNet


class Ensemble(nn.Module):
    """The mean of its members' probabilities.

    Lakshminarayanan et al., "Simple and scalable predictive uncertainty estimation using deep ensembles",
    NeurIPS 2017, equation for classification: p(y|x) = 1/M sum_m p_m(y|x).

    Args:
        members: The networks.
    """

    def __init__(self, members: Sequence[LesionNet]) -> None:
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
