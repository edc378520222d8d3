"""Parameters of a batch on their way to the device."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Item:
    """An array that travels to the device in a parcel; called, it is there as a tensor."""

    def __init__(self, values: NDArray[Any]) -> None:
        self.values = values
        self.tensor: Tensor | None = None

    def __call__(self) -> Tensor:
        """Returns the values on the device, once they were sent."""
        assert self.tensor is not None
        return self.tensor

    @property
    def count(self) -> int:
        """How many rows it has."""
        return len(self.values)


class Parcel:
    """All parameters of a batch, sent to the device in one copy."""

    def __init__(self) -> None:
        self._items: list[Item] = []

    def add(self, values: NDArray[Any]) -> Item:
        """Takes an array along."""
        self._items.append(Item(values))
        return self._items[-1]

    def send(self, device: torch.device) -> None:
        """Copies all that was added to the device, where each item then has its tensor."""
        if not self._items:
            return
        flat = np.concatenate([item.values.ravel() for item in self._items]).astype(np.float32)
        sent = torch.from_numpy(flat)
        if device.type == "cuda":  # from memory that is not pinned the copy would wait
            sent = sent.pin_memory()
        sent = sent.to(device, non_blocking=device.type == "cuda")
        sizes = [item.values.size for item in self._items]
        for item, part in zip(self._items, torch.split(sent, sizes), strict=True):
            # Whole numbers up to 2 to the power of 24 are exact in float32.
            whole = np.issubdtype(item.values.dtype, np.integer)
            item.tensor = (part.long() if whole else part).view(item.values.shape)


def on_cpu(tensor: Tensor) -> bool:
    """Returns whether a tensor is in the host's memory."""
    return tensor.device.type == "cpu"


def write(target: Tensor, rows: Item, values: Tensor) -> None:
    """Puts values into rows of the target, cut to its type."""
    if on_cpu(target):  # index_copy_ took three times as long there
        for row, value in zip(rows.values, values, strict=True):
            target[row].copy_(value)
    else:
        target.index_copy_(0, rows(), values.to(target.dtype))
