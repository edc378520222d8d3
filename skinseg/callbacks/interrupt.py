"""Ctrl-C in the middle of an epoch loses nothing."""

from __future__ import annotations

import logging
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

log = logging.getLogger(__name__)


class SaveOnInterrupt(Callback):
    """At Ctrl-C, ends the step, saves a checkpoint that resumes exactly there, and stops the run.

    A second Ctrl-C stops at once. With several processes the ranks would stop at different steps, so there
    the run stops at once and the last epoch's checkpoint is what remains.

    Args:
        path: Where to save.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self._asked = False
        self._previous: Any = None

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Takes over the signal."""
        self._asked = False
        if trainer.world_size == 1 and threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGINT, self._ask)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Gives the signal back."""
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
            self._previous = None

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Stops between two steps, where weights, optimizer and progress agree."""
        # A checkpoint does not hold the gradients that were accumulated so far.
        if batch_idx % trainer.accumulate_grad_batches == 0:
            self._stop_if_asked(trainer)

    def on_validation_batch_start(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Stops within validation; the resumed run validates anew."""
        self._stop_if_asked(trainer)

    def _ask(self, _signal: int, _frame: FrameType | None) -> None:
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True
        log.info("\nStopping after this step. Ctrl-C again stops at once, without saving.")

    def _stop_if_asked(self, trainer: L.Trainer) -> None:
        if self._asked:
            trainer.save_checkpoint(self.path)
            raise KeyboardInterrupt
