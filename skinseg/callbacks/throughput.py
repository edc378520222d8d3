"""How fast a run trains, and what it waits for."""

from __future__ import annotations

import time
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback


class Throughput(Callback):
    """Logs each epoch how fast it went, validation not counted.

    - `train/images_per_s`: over all processes.
    - `train/data_wait`: share of the epoch's time, in [0, 1], from the end of a step to the next batch: the
      loader's time that the device's work did not cover, and on a processor that of `DeviceAugment`. On a GPU
      steps are queued, so that this is the time in which the host cannot queue the next one.
    - `train/gpu_memory_gib`: the most that PyTorch held at once on this process's GPU.
    - `train/gpu_utilisation`: share of time, in [0, 1], in which the GPU worked, by NVML: the mean of a
      sample every `sample_every` steps. Left out where NVML gives none.

    Args:
        sample_every: Steps between two samples of the utilisation.
    """

    def __init__(self, sample_every: int = 20) -> None:
        if sample_every < 1:
            raise ValueError(f"sample_every={sample_every}: expected 1 or more.")
        self.sample_every = sample_every
        self._images = 0
        self._started = 0.0
        self._ended = 0.0
        self._waited = 0.0
        self._validating = 0.0
        self._utilisation: list[int] = []
        self._nvml = True

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Starts the clock of a run that goes on in the middle of an epoch, which then does not start."""
        self.on_train_epoch_start(trainer, pl_module)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Starts the clock."""
        self._images = 0
        self._waited = 0.0
        self._utilisation = []
        self._started = self._ended = time.monotonic()
        if pl_module.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(pl_module.device)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Notes how long the batch was waited for."""
        self._waited += time.monotonic() - self._ended

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Counts the batch."""
        self._images += len(batch["image"]) * trainer.world_size
        if pl_module.device.type == "cuda" and batch_idx % self.sample_every == 0:
            self._sample(pl_module.device)
        self._ended = time.monotonic()

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stops the clock."""
        self._validating = time.monotonic()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Lets the clock go on as if there had been no validation."""
        away = time.monotonic() - self._validating
        self._started += away
        self._ended += away

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Logs the epoch's means."""
        seconds = self._ended - self._started
        if seconds <= 0 or not self._images:
            return
        pl_module.log("train/images_per_s", self._images / seconds)
        pl_module.log("train/data_wait", self._waited / seconds)
        if pl_module.device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(pl_module.device)
            pl_module.log("train/gpu_memory_gib", peak / 2**30)
        if self._utilisation:
            mean = sum(self._utilisation) / len(self._utilisation) / 100
            pl_module.log("train/gpu_utilisation", mean)

    def _sample(self, device: torch.device) -> None:
        if not self._nvml:
            return
        try:
            self._utilisation.append(torch.cuda.utilization(device))
        except Exception:  # no NVML, no right to ask it, or a part of a GPU that it says nothing about
            self._nvml = False
