"""What validation and test count of each image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat


class ImageCounts(Metric):
    """Confusion counts per image, gathered over ranks; an image that two ranks saw counts once."""

    full_state_update = False
    index: list[Tensor]
    counts: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("index", default=[], dist_reduce_fx="cat")
        self.add_state("counts", default=[], dist_reduce_fx="cat")

    def update(self, index: Tensor, counts: Tensor) -> None:
        """Adds images.

        Args:
            index: int64 tensor of shape (n,): rows of the data set.
            counts: int64 tensor of shape (n, 4): tp, fp, fn, tn in pixels.
        """
        self.index.append(index)
        self.counts.append(counts)

    def compute(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Returns index (n,) in ascending order and counts (n, 4)."""
        # Lists in one process, tensors once the ranks have shared them.
        index = dim_zero_cat(self.index).cpu().numpy()
        counts = dim_zero_cat(self.counts).cpu().numpy()
        index, first = np.unique(index, return_index=True)
        return index, counts[first]


@dataclass(frozen=True)
class SubsetScores:
    """Scores of one subset of the split, a value per image.

    Attributes:
        index: int64 array of shape (n,): rows of the subset's data set, ascending.
        metrics: For each of `OVERLAP_METRICS` a float64 array of shape (n,), in [0, 1].
    """

    index: NDArray[np.int64]
    metrics: dict[str, NDArray[np.float64]]

    def means(self) -> dict[str, float]:
        """Returns the macro mean over images of each metric."""
        return {name: float(values.mean()) for name, values in self.metrics.items()}


def confusion_counts(truth: Tensor, predicted: Tensor) -> Tensor:
    """Counts pixels per image.

    Args:
        truth: bool tensor of shape (B, H, W).
        predicted: bool tensor of the same shape.

    Returns:
        int64 tensor of shape (B, 4): true positive, false positive, false negative, true negative.
    """
    both = (truth & predicted).sum(dim=(1, 2))
    positive = truth.sum(dim=(1, 2))
    marked = predicted.sum(dim=(1, 2))
    return torch.stack(
        [both, marked - both, positive - both, truth[0].numel() - positive - marked + both], dim=1
    )
