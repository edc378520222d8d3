"""Searches before a run: the largest batch that fits, a learning rate that trains."""

from __future__ import annotations

import itertools
import logging
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.memory import garbage_collection_cuda, is_oom_error
from lightning.pytorch.utilities.seed import isolate_rng

from skinseg.build import parts
from skinseg.config.schema import Plain
from skinseg.data.datamodule import LesionDataModule
from skinseg.errors import SkinsegError
from skinseg.models.watch import NonFiniteLossError
from skinseg.training.trial import trial_trainer

log = logging.getLogger(__name__)

_TRIAL_STEPS, _JUDGED_STEPS = 50, 15
_LOWEST_RATE, _HIGHEST_RATE = 1e-7, 10.0
_AS_GOOD = 1.25  # of the lowest loss, so that the noise of so few steps does not decide


@isolate_rng()
def find_batch_size(config: Plain, data: LesionDataModule) -> int:
    """Doubles the batch from 2 images on until the device's memory is full.

    Args:
        config: The resolved configuration.
        data: Its data module, which is of no use afterwards.

    Returns:
        The last number of images that three steps of training and a batch of validation went through with,
        at most half of the training images: two steps are the least of an epoch.

    Raises:
        SkinsegError: Several processes, or not even two images fit.
    """
    most = max(2, len(data.dataset("train")) // 2)
    found: int | None = None
    sizes = itertools.takewhile(lambda size: size < most, (1 << k for k in itertools.count(1)))
    for size in [*sizes, most]:
        data.batch_size = size
        if not _fits(config, data):
            break
        found = size
    if found is None:
        raise SkinsegError(
            "find=batch_size: not even two images fit; lower data.image_size, or take another network."
        )
    return found


def _fits(config: Plain, data: LesionDataModule) -> bool:
    trainer = trial_trainer(config, max_epochs=1, limit_train_batches=3, limit_val_batches=1)
    try:
        trainer.fit(parts.segmenter({**config, "compile": None}), datamodule=data)
    except RuntimeError as error:
        if not is_oom_error(error):
            raise
        return False
    finally:
        garbage_collection_cuda()
    return True


@isolate_rng()  # a run whose rate is kept is the one without a search
def find_lr(config: Plain, data: LesionDataModule) -> float:
    """Looks for a learning rate that trains clearly better than `optimizer.lr` in short runs of their own.

    Each rate trains the same network on the same batches for 50 steps, with the run's own schedule drawn
    together to them. Rates are a factor of 10 apart, from a hundredth of `optimizer.lr` to a hundred times it
    and on where the best one is at an end. Losses within a quarter of the lowest do not tell rates apart; of
    these rates the one nearest to `optimizer.lr` is taken.

    A range test, which raises the rate within one run (https://arxiv.org/abs/1506.01186), finds where the
    loss falls fastest during that run: in the demo at a fiftieth of a rate that trains well.

    Args:
        config: The resolved configuration.
        data: Its data module, which is of no use afterwards.

    Returns:
        The rate; `optimizer.lr` itself where no other is clearly better.

    Raises:
        SkinsegError: Several processes, or an optimizer or schedule without a rate to look for.
    """
    if "lr" not in config["optimizer"]:
        raise SkinsegError("find=lr: the optimizer has no lr; leave out find.")
    if config["lr_scaling"] != "none":
        raise SkinsegError(
            f"find=lr finds a rate for this batch, which lr_scaling={config['lr_scaling']} would change; set "
            "lr_scaling=none."
        )
    preset: float = config["optimizer"]["lr"]
    losses: dict[int, float] = {}  # by the power of 10 that the preset is multiplied by

    def best_of(*powers: int) -> int:
        for power in powers:
            rate = preset * 10.0**power
            if power == 0 or _LOWEST_RATE <= rate <= _HIGHEST_RATE:
                losses[power] = _loss_at(rate, config, data)
        return min(losses, key=lambda power: losses[power])

    best = best_of(0, -2, -1, 1, 2)
    while abs(best) >= 2 and (further := best_of(best + (1 if best > 0 else -1))) != best:
        best = further
    as_good = [power for power, loss in losses.items() if loss <= _AS_GOOD * losses[best]]
    found = min(as_good, key=abs)
    if found == 0:
        log.info("find=lr: nothing better than optimizer.lr=%.2e was found.", preset)
    return preset * 10.0**found


def _loss_at(rate: float, config: Plain, data: LesionDataModule) -> float:
    """Returns the mean loss of the last steps of a short run, infinite where it is not finite."""
    config = {**config, "optimizer": {**config["optimizer"], "lr": rate}, "compile": None, "find": "lr"}
    accumulated = config["trainer"].get("accumulate_grad_batches", 1)
    losses = _Losses()
    L.seed_everything(config["seed"], verbose=False)  # the same initial weights for all rates
    trainer = trial_trainer(
        config,
        max_steps=_TRIAL_STEPS,
        limit_val_batches=0,
        accumulate_grad_batches=accumulated,
        callbacks=[losses],
    )
    try:
        trainer.fit(parts.segmenter(config), datamodule=data)
    except NonFiniteLossError:
        return float("inf")
    # Lightning hands each batch's loss on as its share of the step's.
    loss: float = accumulated * float(torch.stack(losses.values[-_JUDGED_STEPS * accumulated :]).mean())
    log.info("find=lr: loss %.4f with optimizer.lr=%.2e.", loss, rate)
    return loss


class _Losses(L.Callback):
    """Keeps what Lightning hands on as the loss of each batch."""

    def __init__(self) -> None:
        self.values: list[torch.Tensor] = []

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, *_: Any
    ) -> None:
        self.values.append(outputs["loss"].detach().float())
