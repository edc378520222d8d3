"""A look at the loss, so that a training that has diverged ends."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from skinseg.errors import SkinsegError

# How long a run goes on with lost weights at most; a look each step would cost a GPU its lead over the host.
STEPS_BETWEEN_LOOKS = 50


class NonFiniteLossError(SkinsegError):
    """The loss became NaN or infinite."""


class LossWatch:
    """Finds a loss that is NaN or infinite without waiting for the device at each step.

    The losses stay on the device until `every` of them are there; then one look is taken at all of them.

    Args:
        every: After how many steps to look.
    """

    def __init__(self, every: int) -> None:
        self.every = every
        self._steps: list[tuple[Tensor, int, int, list[str]]] = []

    def add(self, loss: Tensor, epoch: int, step: int, image_ids: list[str]) -> None:
        """Takes note of a step.

        Args:
            loss: Scalar, on any device.
            epoch: The step's epoch, from 0.
            step: Optimizer steps before it.
            image_ids: The images of its batch.

        Raises:
            NonFiniteLossError: See `look`.
        """
        self._steps.append((loss.detach(), epoch, step, image_ids))
        if len(self._steps) >= self.every:
            self.look()

    def look(self) -> None:
        """Waits for the device and looks at all losses since the last look.

        Raises:
            NonFiniteLossError: One is NaN or infinite; the first such batch's images are named.
        """
        steps, self._steps = self._steps, []
        if not steps:
            return
        losses = torch.stack([loss for loss, *_ in steps]).tolist()
        for loss, (_, epoch, step, image_ids) in zip(losses, steps, strict=True):
            if not math.isfinite(loss):
                raise NonFiniteLossError(
                    f"The loss is {loss} at epoch {epoch + 1}, step {step}, for the images "
                    f"{', '.join(image_ids)}. Lower optimizer.lr, set trainer.gradient_clip_val, or use "
                    "trainer.precision=32-true; look at these images."
                )
