"""How many images a second a run trains on."""

from __future__ import annotations

import time
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback


class Throughput(Callback):
    """Logs `train/images_per_s` each epoch, over all processes, validation not counted."""

    def __init__(self) -> None:
        self._images = 0
        self._started = 0.0
        self._ended = 0.0

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Starts the clock."""
        self._images = 0
        self._started = self._ended = time.monotonic()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Counts the batch."""
        self._images += len(batch["image"]) * trainer.world_size
        self._ended = time.monotonic()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Logs the epoch's mean."""
        seconds = self._ended - self._started
        if seconds > 0:
            pl_module.log("train/images_per_s", self._images / seconds)
