"""Training at a small image size first, then at the full one."""

from __future__ import annotations

import logging
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import Callback, EarlyStopping
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn

from skinseg.errors import SkinsegError
from skinseg.models.networks import size_step, training_problem

log = logging.getLogger(__name__)

_KEY = "callbacks.progressive_resizing"


class ProgressiveResizing(Callback):
    """Shrinks the training batches of the first part of a run; validation and test stay at the full size.

    A batch is shrunk on the device, after augmentation, so that the cache and any augmentation stay what they
    are. The size follows from the number of optimizer steps alone: it is the same on all ranks, within
    accumulated batches, and in a run that is resumed. While it is below the full one, validations without a
    better score do not count for early stopping (of a patience of 2 or more).

    Each size is logged when it begins, and that of an epoch's last step as `train/image_height` and
    `train/image_width`, in pixels. With `compile`, the network is compiled again when the size changes, which
    takes about as long as at the start.

    The learning rate's schedule is left as it is. Sizes are multiples of what the network takes; where that
    is coarse, proportions change a little. Steps are counted as trainer.max_epochs and max_steps plan them: a
    run that trainer.max_time ends may not get to the full size.

    Args:
        start: Size at the start as a share of data.image_size, above 0. 1: always the full one.
        until: Share of the run's optimizer steps after which the size is the full one.
        sizes: How many sizes come before the full one, in equal parts of the steps and equal distances.

    Raises:
        ValueError: A value is out of its range.
    """

    def __init__(self, start: float = 0.5, until: float = 0.6, sizes: int = 1) -> None:
        for name, value in (("start", start), ("until", until)):
            if not 0 < value <= 1:
                raise ValueError(f"{name}={value}: expected more than 0 and at most 1.")
        if sizes < 1:
            raise ValueError(f"sizes={sizes}: expected 1 or more.")
        self.start = start
        self.until = until
        self.sizes = sizes
        self._steps = 1
        self._multiple = 1
        self._now: tuple[int, int] | None = None

    def check(self, network: nn.Module, image_size: tuple[int, int], batch_size: int) -> None:
        """Refuses sizes that the network does not train at, by a forward pass at each.

        Args:
            network: On the CPU.
            image_size: Full height and width, in pixels.
            batch_size: Images in a training step.

        Raises:
            SkinsegError: There is such a size, or none below the full one.
        """
        if self.start == 1:
            return
        name, step = type(network).__name__, size_step(network)
        sizes = dict.fromkeys(self.size_at(k / self.sizes, image_size, step) for k in range(self.sizes))
        full = f"data.image_size={list(image_size)}"
        if image_size in sizes:
            raise SkinsegError(
                f"{_KEY}.start={self.start}, sizes={self.sizes}: {name} takes multiples of {step} pixels, "
                f"and that next to a smaller size is {full} itself. Lower start or sizes, set start=1 to "
                "train at that size alone, or take larger images."
            )
        for size in sizes:
            problem = training_problem(network, size, batch_size)
            if problem is not None:
                raise SkinsegError(
                    f"{_KEY}.start={self.start} of {full}: {problem} Raise it, or set it to 1 to train at "
                    "that size alone; some networks, such as Vision Transformers, take no other."
                )

    def size_at(self, part: float, image_size: tuple[int, int], step: int) -> tuple[int, int]:
        """Returns the height and width at a point of the run.

        Args:
            part: How much of the steps before the full size are done; from 1 on it is the full one.
            image_size: Full height and width, in pixels.
            step: Number of pixels that the sides are multiples of.
        """
        # The rounding of a share of steps must not delay a size by one of them.
        done = int(part * self.sizes + 1e-9)
        if done >= self.sizes:
            return image_size
        share = self.start + (1 - self.start) * done / self.sizes
        height, width = (min(side, max(step, round(side * share / step) * step)) for side in image_size)
        return height, width

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Takes note of the run's length and of what the network takes."""
        self._now = None
        self._steps = max(1, int(trainer.estimated_stepping_batches))
        network = pl_module.network
        assert isinstance(network, nn.Module)
        self._multiple = size_step(network)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Shrinks the batch, in its place."""
        if self.start == 1:
            return
        full = tuple(batch["image"].shape[-2:])
        size = self._size(trainer, full)
        if size != self._now:
            self._now = size
            log.info("Training at %dx%d pixels from step %d on.", *size, trainer.global_step + 1)
        if size != full:
            batch["image"], batch["mask"] = shrink(batch["image"], batch["mask"], size)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Logs the size of the last step."""
        if self._now is not None:
            for name, side in zip(("height", "width"), self._now, strict=True):
                pl_module.log(f"train/image_{name}", float(side))

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keeps early stopping from ending the run before it has seen the full size."""
        if trainer.state.fn != TrainerFn.FITTING or self._now is None or self._part(trainer) >= 1:
            return
        for callback in trainer.early_stopping_callbacks:
            if isinstance(callback, EarlyStopping):
                callback.wait_count = 0

    def _size(self, trainer: L.Trainer, full: tuple[int, int]) -> tuple[int, int]:
        return self.size_at(self._part(trainer), full, self._multiple)

    def _part(self, trainer: L.Trainer) -> float:
        return trainer.global_step / (self.until * self._steps)


def shrink(images: Tensor, masks: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Resizes images and their masks by one bilinear sampling with antialiasing.

    Args:
        images: uint8 tensor of shape (B, 3, H, W).
        masks: uint8 tensor of shape (B, 1, H, W), 0 or 1.
        size: New height and width.

    Returns:
        uint8 tensors of shape (B, 3, *size) and (B, 1, *size); lesion is where the mask's mean, as weighted
        for the image, is at least half.
    """
    both = torch.cat([images, masks], dim=1).float()
    both = F.interpolate(both, size=size, mode="bilinear", antialias=True, align_corners=False)
    # Becoming whole numbers cuts: this rounds the image, and cuts the mask at half.
    both = both.add_(0.5).to(torch.uint8)
    return both[:, :3], both[:, 3:]
