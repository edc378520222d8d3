"""All that a photograph needs to become a mask; a network without it is of no use to anybody."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LesionNet(nn.Module):
    """A network with its normalization, its threshold and the way from logits to probabilities.

    Args:
        network: Maps float32 (B, 3, H, W) to logits (B, 1, H, W).
        mean: Mean of R, G and B that the network expects, of values in [0, 1].
        std: Their standard deviation.
        threshold: Lesion is where the probability is at least this.
        channels_last: Use the memory layout NHWC.

    Attributes:
        mean: Means of R, G and B in [0, 255]; shape (1, 3, 1, 1).
        std: Their standard deviation, likewise.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        *,
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (1 / 255, 1 / 255, 1 / 255),
        threshold: float = 0.5,
        channels_last: bool = True,
    ) -> None:
        super().__init__()
        self.network = network
        self.threshold = threshold
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1) * 255)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1) * 255)

    def forward(self, images: Tensor) -> Tensor:
        """Returns logits of shape (B, 1, H, W) for RGB images of shape (B, 3, H, W), values from 0 to 255."""
        normalized = (images.float() - self.mean) / self.std
        logits: Tensor = self.network(normalized.contiguous(memory_format=self.memory_format))
        return logits

    def probabilities(self, images: Tensor, size: tuple[int, int]) -> Tensor:
        """Returns lesion probabilities at another size.

        Args:
            images: uint8 tensor of shape (B, 3, H, W).
            size: Height and width of the result.

        Returns:
            float32 tensor of shape (B, 1, *size), values in [0, 1].
        """
        return resize(torch.sigmoid(self(images).float()), size)


def resize(probabilities: Tensor, size: tuple[int, int]) -> Tensor:
    """Resizes probabilities of shape (B, 1, H, W) bilinearly to another height and width."""
    return F.interpolate(probabilities, size=size, mode="bilinear", align_corners=False)
