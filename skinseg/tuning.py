"""Searches before a run: the largest batch that fits, a learning rate that trains, the steps of a budget."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass
from typing import Any

import lightning as L
import torch
from lightning.pytorch.tuner.tuning import Tuner
from lightning.pytorch.utilities.memory import garbage_collection_cuda, is_oom_error

from skinseg import build
from skinseg.checkpoint import WholeCheckpointIO
from skinseg.config import Plain
from skinseg.counting import counted
from skinseg.data.datamodule import LesionDataModule
from skinseg.errors import SkinsegError

_RATES = (1e-6, 0.1)
_WARM_UP_STEPS, _TIMED_STEPS = 5, 20


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
    trainer = _trainer(config, max_epochs=1, limit_train_batches=3, limit_val_batches=1)
    try:
        trainer.fit(build.segmenter({**config, "compile": None}), datamodule=data)
    except RuntimeError as error:
        if not is_oom_error(error):
            raise
        return False
    finally:
        garbage_collection_cuda()
    return True


def find_lr(config: Plain, data: LesionDataModule) -> float:
    """Raises the learning rate over 100 steps and takes the one at which the loss falls fastest.

    The range test of https://arxiv.org/abs/1506.01186, from 1e-6 to 0.1. What it returns is a start, not the
    optimum.

    Args:
        config: The resolved configuration.
        data: Its data module, which is of no use afterwards.

    Returns:
        The learning rate.

    Raises:
        SkinsegError: Several processes, or the loss falls nowhere.
    """
    if "lr" not in config["optimizer"]:
        raise SkinsegError("find=lr: the optimizer has no lr; leave out find.")
    if config["lr_scaling"] != "none":
        raise SkinsegError(
            f"find=lr finds a rate for this batch, which lr_scaling={config['lr_scaling']} would change; set "
            "lr_scaling=none."
        )
    tuner = Tuner(_trainer(config, limit_val_batches=0))
    finder = tuner.lr_find(
        build.segmenter({**config, "compile": None}),
        datamodule=data,
        min_lr=_RATES[0],
        max_lr=_RATES[1],
        num_training=100,
        update_attr=False,
    )
    found = None if finder is None else finder.suggestion()
    if found is None:
        raise SkinsegError(
            f"find=lr: the loss falls at no rate between {_RATES[0]} and {_RATES[1]}; leave out find."
        )
    return float(found)


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


def steps_of(minutes: float, config: Plain, data: LesionDataModule) -> int:
    """Finds out how many optimizer steps a time allows, by training for some.

    Args:
        minutes: Of training, validation not counted.
        config: The resolved configuration.
        data: Its data module, which is of no use afterwards.

    Raises:
        SkinsegError: Several processes.
    """
    accumulated = config["trainer"].get("accumulate_grad_batches", 1)
    clock = _Clock(after=_WARM_UP_STEPS)
    steps = _WARM_UP_STEPS + _TIMED_STEPS
    trainer = _trainer(
        config,
        "budget.minutes",
        max_steps=steps,
        limit_val_batches=0,
        accumulate_grad_batches=accumulated,
        callbacks=[clock],
    )
    trainer.fit(build.segmenter(config), datamodule=data)
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


def _trainer(config: Plain, why: str = "", **options: Any) -> L.Trainer:
    node = config["trainer"]
    if node.get("devices", 1) != 1 or node.get("num_nodes", 1) != 1:
        raise SkinsegError(
            f"{why or 'find=' + str(config['find'])}: searches on one device; run it with trainer.devices=1 "
            "first, and take what it finds."
        )
    return L.Trainer(
        accelerator=node.get("accelerator", "auto"),
        devices=1,
        precision=node.get("precision", "32-true"),
        gradient_clip_val=node.get("gradient_clip_val"),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        default_root_dir=config["run_dir"],
        plugins=[WholeCheckpointIO()],
        **{"max_epochs": 1000, **options},  # the search of a rate ends by steps
    )
