"""How many steps a budget of time is, and how they are divided."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.seed import isolate_rng

from skinseg.build import parts
from skinseg.config.schema import Plain
from skinseg.counting import counted
from skinseg.data.datamodule import LesionDataModule
from skinseg.errors import SkinsegError
from skinseg.training.trial import trial_trainer

_WARM_UP_STEPS, _TIMED_STEPS = 5, 20


@dataclass(frozen=True)
class Budget:
    """How long a run trains: `epochs` times `batches` batches of each process.

    Attributes:
        steps: Optimizer steps in all.
        epochs: At whose ends the network is validated; no longer than once through the images.
        batches: Batches of an epoch.
    """

    steps: int
    epochs: int
    batches: int


@isolate_rng()
def steps_of(minutes: float, config: Plain, data: LesionDataModule) -> int:
    """Finds out how many optimizer steps a time allows, by training for some.

    Args:
        minutes: Minutes of training, validation not counted.
        config: The resolved configuration.
        data: Its data module, which is of no use afterwards.

    Raises:
        SkinsegError: Several processes.
    """
    accumulated = config["trainer"].get("accumulate_grad_batches", 1)
    clock = _Clock(after=_WARM_UP_STEPS)
    steps = _WARM_UP_STEPS + _TIMED_STEPS
    trainer = trial_trainer(
        config,
        "budget.minutes",
        max_steps=steps,
        limit_val_batches=0,
        accumulate_grad_batches=accumulated,
        callbacks=[clock],
    )
    trainer.fit(parts.segmenter(config), datamodule=data)
    return max(1, int(minutes * 60 / clock.seconds_per_step))


class _Clock(L.Callback):
    """Takes the time of the steps after the first ones, which are slower."""

    def __init__(self, after: int) -> None:
        self._after = after
        self._step, self._started = 0, 0.0
        self.seconds_per_step = 0.0

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        if trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize(pl_module.device)
        if self._step <= self._after:
            self._started = time.perf_counter()
        else:
            self.seconds_per_step = (time.perf_counter() - self._started) / (self._step - self._after)


def divide(steps: int, validations: int, accumulated: int, batches: int) -> Budget:
    """Divides steps into epochs of one length.

    Args:
        steps: Optimizer steps, at most; what does not divide is left out.
        validations: The least number of epochs.
        accumulated: Batches of an optimizer step.
        batches: Batches that the images of a process make.

    Raises:
        SkinsegError: The images do not even make one optimizer step.
    """
    longest = batches // accumulated
    if not longest:
        raise SkinsegError(
            f"budget: {counted(accumulated, 'batch makes', 'batches make')} a step "
            "(trainer.accumulate_grad_batches), but the images "
            f"make only {batches}; lower data.batch_size."
        )
    epochs = max(min(validations, steps), -(-steps // longest))
    return Budget(steps // epochs * epochs, epochs, steps // epochs * accumulated)
