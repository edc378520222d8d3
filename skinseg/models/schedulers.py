"""Learning-rate schedules over the whole run, as Lightning takes them.

Each function takes the optimizer and the number of optimizer steps of the run, and returns Lightning's
`lr_scheduler_config`. A schedule by steps reaches its end after the last step, and stays there. Its state
holds the step and not the curve: a run resumed with more epochs continues on the longer curve.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import lightning as L
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from skinseg.errors import SkinsegError


def constant(optimizer: Optimizer, total_steps: int) -> dict[str, Any]:
    """Keeps the learning rate.

    Args:
        optimizer: Has the learning rate.
        total_steps: Not used.
    """
    return _each_step(LambdaLR(optimizer, lambda step: 1.0))


def cosine(
    optimizer: Optimizer, total_steps: int, *, warmup: float = 0.05, final: float = 0.0
) -> dict[str, Any]:
    """Rises linearly, then falls along half a cosine (Loshchilov, Hutter, ICLR 2017).

    Args:
        optimizer: Its learning rate is the highest.
        total_steps: Steps of the run, >= 1.
        warmup: Share of the steps that rise, in [0, 1); the first of them is above 0 already.
        final: Share of the learning rate that is left at the end, in [0, 1].

    Raises:
        ValueError: An argument is out of range.
    """
    if not 0 <= final <= 1:
        raise ValueError(f"final={final}: expected a share in [0, 1].")
    rise = _rise(total_steps, warmup)

    def factor(step: int) -> float:
        if step < rise:
            return (step + 1) / (rise + 1)
        done = min(1.0, (step - rise) / (total_steps - rise))
        return final + (1 - final) * (1 + math.cos(math.pi * done)) / 2

    return _each_step(LambdaLR(optimizer, factor))


def poly(
    optimizer: Optimizer, total_steps: int, *, power: float = 0.9, warmup: float = 0.0
) -> dict[str, Any]:
    """Rises linearly, then falls as (1 - step / steps) ** power (Liu, Rabinovich, Berg, 2015).

    Args:
        optimizer: Its learning rate is the highest.
        total_steps: Steps of the run, >= 1.
        power: > 0; 1 is a straight line.
        warmup: Share of the steps that rise, in [0, 1).

    Raises:
        ValueError: An argument is out of range.
    """
    if not 0 < power < math.inf:
        raise ValueError(f"power={power}: expected a number > 0.")
    rise = _rise(total_steps, warmup)

    def factor(step: int) -> float:
        if step < rise:
            return (step + 1) / (rise + 1)
        left = max(0.0, 1 - (step - rise) / (total_steps - rise))
        return float(left**power)

    return _each_step(LambdaLR(optimizer, factor))


def plateau(
    optimizer: Optimizer,
    total_steps: int,
    *,
    monitor: str,
    mode: Literal["max", "min"],
    factor: float = 0.5,
    patience: int = 5,
) -> dict[str, Any]:
    """Lowers the learning rate when a validation score no longer improves.

    Args:
        optimizer: Starts with its learning rate.
        total_steps: Not used.
        monitor: The score.
        mode: Which direction of it is better.
        factor: What the learning rate is multiplied by, in (0, 1).
        patience: Validations without improvement that are let pass before that, >= 0.

    Raises:
        ValueError: An argument is out of range.
    """
    if not 0 < factor < 1:
        raise ValueError(f"factor={factor}: expected a number in (0, 1).")
    if patience < 0:
        raise ValueError(f"patience={patience}: expected a number of validations >= 0.")
    scheduler = ReduceLROnPlateau(optimizer, mode=mode, factor=factor, patience=patience)
    return {"scheduler": scheduler, "interval": "epoch", "frequency": 1, "monitor": monitor, "strict": False}


class StepAtValidation(Callback):
    """Lets the schedules that follow a score look at it after each validation, before a checkpoint is saved.

    Lightning does so after it has saved the epoch's checkpoint, and not in the epoch in which a run resumes.
    """

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Steps them."""
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        for config in trainer.lr_scheduler_configs:
            if not config.reduce_on_plateau or config.monitor is None:
                continue
            score = trainer.callback_metrics.get(config.monitor)
            if score is None:
                known = ", ".join(sorted(trainer.callback_metrics))
                raise SkinsegError(f"scheduler.monitor={config.monitor} is not logged; there are {known}.")
            scheduler: Any = config.scheduler
            scheduler.step(float(score))


def _each_step(scheduler: LambdaLR) -> dict[str, Any]:
    return {"scheduler": scheduler, "interval": "step", "frequency": 1}


def _rise(total_steps: int, warmup: float) -> int:
    if total_steps < 1:
        raise ValueError(f"total_steps={total_steps}: expected a number >= 1.")
    if not 0 <= warmup < 1:
        raise ValueError(f"warmup={warmup}: expected a share in [0, 1).")
    # A step is left to fall in, however short the run.
    return min(round(total_steps * warmup), total_steps - 1)
