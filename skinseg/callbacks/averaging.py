"""Averages of the weights along a run: validated, kept and loaded in the place of the last step's."""

from __future__ import annotations

from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from skinseg.models.segmenter import LesionSegmenter

_KEY = "weight_average"


class WeightAverage(Callback):
    """Averages the network's weights, and its batch-norm statistics, over steps (EMA) or epochs (SWA).

    From the first average on, validation scores the averaged weights and every checkpoint holds them as its
    weights, so that `best.ckpt` is chosen by and consists of them; the weights to train on with are beside
    them in the checkpoint, and a resumed run goes on exactly.

    Lightning's own callbacks are not taken: they validate the initial weights until the average starts, keep
    the average on the CPU and wait for the device each step, put the last step's weights into the test after
    `trainer.test(ckpt_path=...)`, and save the two mixed up when a run is interrupted in its validation.

    Args:
        kind: "ema": exponential moving average over steps. "swa": the plain mean of the weights at the end of
            each epoch (https://arxiv.org/abs/1803.05407).
        decay: Of "ema": what a step leaves of the average. It starts lower, at (1 + n) / (10 + n) after n
            steps, so that the first weights are forgotten.
        start: Share of the run's steps before the average begins.

    Raises:
        ValueError: decay or start is not in [0, 1).
    """

    def __init__(self, kind: Literal["ema", "swa"], decay: float = 0.999, start: float = 0.0) -> None:
        for name, value in (("decay", decay), ("start", start)):
            if not 0 <= value < 1:
                raise ValueError(f"{name}={value}: expected at least 0 and less than 1.")
        self.kind = kind
        self.decay = decay
        self.start = start
        self._average: dict[str, Tensor] = {}
        self._count = 0
        self._last_step = 0
        self._swapped = False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Brings an average that was loaded to the device."""
        self._average = {name: value.to(pl_module.device) for name, value in self._average.items()}

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Adds the weights to the average, before they are validated."""
        stepped = trainer.global_step > self._last_step
        due = stepped if self.kind == "ema" else trainer.is_last_batch
        if due and trainer.global_step >= self.start * trainer.estimated_stepping_batches:
            self._last_step = trainer.global_step
            self._add(_state(pl_module))

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Puts the average into the network."""
        if trainer.state.fn == TrainerFn.FITTING and self._count:
            self._swap(pl_module)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Puts the weights of the last step back."""
        if self._swapped:
            self._swap(pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Leaves the average in the network, for good."""
        if self._count:
            self._swap(pl_module)
            self._average, self._count, self._swapped = {}, 0, False

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Makes the average the weights of the checkpoint and keeps those of the last step beside them."""
        if not self._count:
            return
        average, last = self._average, _state(pl_module)
        if self._swapped:
            average, last = last, average
        state = dict(checkpoint["state_dict"])
        state.update({f"network.{name}": value for name, value in average.items()})
        checkpoint["state_dict"] = state
        checkpoint[_KEY] = {"last": last, "count": self._count, "last_step": self._last_step}

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Goes on where a fit was stopped; whoever validates or tests wants the average alone."""
        if trainer.state.fn != TrainerFn.FITTING or _KEY not in checkpoint:
            return
        kept = checkpoint[_KEY]
        self._count, self._last_step = kept["count"], kept["last_step"]
        network = _state(pl_module)
        self._average = {
            name: checkpoint["state_dict"][f"network.{name}"].to(value.device, copy=True)
            for name, value in network.items()
        }
        for name, value in network.items():
            value.copy_(kept["last"][name])

    def _add(self, state: dict[str, Tensor]) -> None:
        self._count += 1
        if self._count == 1:
            self._average = {name: value.clone() for name, value in state.items()}
            return
        # What the new weights count for.
        share = (
            1 / self._count if self.kind == "swa" else 1 - min(self.decay, self._count / (9 + self._count))
        )
        floating = [name for name, value in state.items() if value.is_floating_point()]
        torch._foreach_lerp_(
            [self._average[name] for name in floating], [state[name] for name in floating], share
        )
        for name in state.keys() - set(floating):  # the number of batches that batch norm has seen
            self._average[name].copy_(state[name])

    def _swap(self, pl_module: L.LightningModule) -> None:
        for name, value in _state(pl_module).items():
            average = self._average[name]
            kept = value.clone()
            value.copy_(average)
            average.copy_(kept)
        self._swapped = not self._swapped


def _state(pl_module: L.LightningModule) -> dict[str, Tensor]:
    """Returns the network's weights and buffers by name; they share memory with the network."""
    assert isinstance(pl_module, LesionSegmenter)
    return pl_module.network.state_dict()
