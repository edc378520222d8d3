"""Ctrl-C or SIGTERM in the middle of an epoch loses nothing."""

from __future__ import annotations

import logging
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn

log = logging.getLogger(__name__)


class SaveOnInterrupt(Callback):
    """At Ctrl-C or SIGTERM, ends the step, saves a checkpoint that resumes exactly there, and stops the run.

    A second Ctrl-C stops at once. A second SIGTERM does not, nor a Ctrl-C after it: schedulers send it to a
    process and to its parents, which pass it on. Several processes stop after the same step, as soon as one
    of them was asked; within validation they do not. Where all steps are done by then, the run stops before
    its scores.

    Args:
        path: Where to save.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self._asked = self._pressed = False
        self._previous: dict[signal.Signals, Any] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Takes over the signals, of which Lightning has taken SIGTERM just before.

        What Lightning does at SIGTERM is to wait for the other processes, which may be waiting at another
        place for this one.
        """
        self._asked = self._pressed = False
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._ask)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Gives the signals back, before Lightning does."""
        self._give_back()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Gives the signals back, before Lightning does."""
        self._give_back()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Stops between two steps, where weights, optimizer and progress agree."""
        # A checkpoint does not hold the gradients that were accumulated so far.
        if batch_idx % trainer.accumulate_grad_batches == 0:
            self._stop_if(trainer.strategy.reduce_boolean_decision(self._asked, all=False), trainer)

    def on_validation_batch_start(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Stops within validation; the resumed run validates anew."""
        self._stop_if(self._asked and trainer.world_size == 1, trainer)

    def _ask(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            if self._pressed:
                raise KeyboardInterrupt
            self._pressed = True
        if not self._asked:
            log.info("\nStopping after this step. Ctrl-C again stops at once, without saving.")
        self._asked = True

    def _give_back(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def _stop_if(self, asked: bool, trainer: L.Trainer) -> None:
        if asked:
            if trainer.state.fn == TrainerFn.FITTING:  # else the weights are those of best.ckpt
                trainer.save_checkpoint(self.path)
            raise KeyboardInterrupt
