"""The checkpoint of the best score and the most recent one."""

from __future__ import annotations

import logging
import shutil
import time
from pathlib import Path
from typing import Any, Literal

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn

from skinseg.run.writing import first_rank, replacing

log = logging.getLogger(__name__)


_CLOCK_EVERY = 10
"""Batches between two looks at the clock, on which all processes have to agree."""


class BestAndLast(ModelCheckpoint):
    """Keeps `best.ckpt` and `last.ckpt` in a folder.

    `best.ckpt` holds the weights that were validated with the best score. It is written at the validation
    that gave the score; where that is the end of an epoch, at the end of the epoch, after the schedulers'
    step. Lightning would pair the weights of each epoch's end with the most recent score.

    `last.ckpt` is written at the end of each epoch, and within an epoch as often as asked for. Lightning
    writes it only together with a new best. A run that resumes and finds nothing left to train has a copy of
    the one that it resumed from.

    A run that resumes goes on with the best checkpoint beside the one that it resumes from (`resumed_from`,
    which `build` sets), and copies it into its own folder: Lightning would forget it, and the best of the
    remaining epochs would pass for the best of all.

    Args:
        dirpath: The folder.
        monitor: The score.
        mode: Which direction of it is better.
        every_n_steps: Optimizer steps after which `last.ckpt` is written within an epoch. None: no number.
        every_n_minutes: Minutes after which it is written within an epoch. None: no time.

    Raises:
        ValueError: every_n_steps or every_n_minutes is not positive.
    """

    def __init__(
        self,
        dirpath: str,
        monitor: str,
        mode: Literal["max", "min"],
        every_n_steps: int | None = None,
        every_n_minutes: float | None = None,
    ) -> None:
        for name, value in (("every_n_steps", every_n_steps), ("every_n_minutes", every_n_minutes)):
            if value is not None and value <= 0:
                raise ValueError(f"{name}={value}: expected more than 0, or null.")
        super().__init__(
            dirpath=dirpath,
            filename="best",
            monitor=monitor,
            mode=mode,
            save_top_k=1,
            auto_insert_metric_name=False,
            enable_version_counter=False,
        )
        self.resumed_from: Path | None = None
        self._fits = False
        self.every_n_steps = every_n_steps
        self.every_n_minutes = every_n_minutes
        self._validated = False  # since the last training batch
        self._last_step = 0
        self._last_time = 0.0

    @property
    def last_path(self) -> Path:
        """Where `last.ckpt` is written."""
        assert self.dirpath is not None
        return Path(self.dirpath) / "last.ckpt"

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Makes ready for a fit, or for a validation or test of a checkpoint."""
        super().setup(trainer, pl_module, stage)
        self._fits = stage == "fit"

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Starts the clock."""
        super().on_train_start(trainer, pl_module)
        self._last_step, self._last_time = trainer.global_step, time.monotonic()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Writes `last.ckpt` where it is due, between two steps."""
        self._validated = False
        # A checkpoint does not hold the gradients that were accumulated so far.
        if batch_idx % trainer.accumulate_grad_batches == 0 and self._is_due(trainer, batch_idx):
            self._save_last(trainer)

    def on_train_batch_end(self, *_: Any) -> None:
        """Saves nothing: Lightning's own steps and minutes are of `best.ckpt`."""

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Writes `best.ckpt` for a validation within an epoch."""
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        self._validated = True
        if not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            self._save_best(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Writes `best.ckpt` for a validation at the epoch's end, and `last.ckpt` after every epoch."""
        if self._validated:
            self._save_best(trainer)
        self._save_last(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Saves nothing: the last epoch's end has done so."""

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Takes over what was resumed from as `last.ckpt`, where nothing was left to train."""
        there = self.resumed_from
        if there is not None and first_rank() and not (_is_dev_run(trainer) or self.last_path.is_file()):
            with replacing(self.last_path) as temporary:
                shutil.copyfile(there, temporary)

    def _save_best(self, trainer: L.Trainer) -> None:
        self._validated = False
        if not _is_dev_run(trainer):
            self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))

    def _save_last(self, trainer: L.Trainer) -> None:
        if not _is_dev_run(trainer):
            trainer.save_checkpoint(self.last_path)
        self._last_step, self._last_time = trainer.global_step, time.monotonic()

    def _is_due(self, trainer: L.Trainer, batch_idx: int) -> bool:
        if self.every_n_steps is not None and trainer.global_step - self._last_step >= self.every_n_steps:
            return True
        if self.every_n_minutes is None or batch_idx % _CLOCK_EVERY:
            return False
        late = time.monotonic() - self._last_time >= 60 * self.every_n_minutes
        return bool(trainer.strategy.reduce_boolean_decision(late, all=False))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over the best score of the run that is resumed, with the checkpoint beside `resumed_from`.

        Paths in the state are not followed: the run folder may have been moved since, and Lightning removes
        what they name when a better score comes.
        """
        here = Path(str(self.dirpath)) / "best.ckpt"
        there = here
        if self._fits and self.resumed_from is not None:
            there = self.resumed_from.with_name("best.ckpt")
        score = state_dict["best_model_score"]
        kept = score is not None and there.is_file()
        if kept and there.resolve() != here.resolve() and first_rank():
            with replacing(here) as temporary:
                shutil.copyfile(there, temporary)
        elif score is not None and not kept:
            log.warning(
                "The best checkpoint so far is not at %s; the best of the remaining epochs will be taken.",
                there,
            )
        path = str(here) if kept else ""
        super().load_state_dict(
            {
                "dirpath": self.dirpath,
                "best_model_score": score if kept else None,
                "best_model_path": path,
                "kth_best_model_path": path,
                "kth_value": state_dict["kth_value"] if kept else self.kth_value,
                "best_k_models": {path: score} if kept else {},
                "last_model_path": "",
            }
        )
        self.current_score = state_dict.get("current_score")  # which Lightning leaves out


def _is_dev_run(trainer: L.Trainer) -> bool:
    return bool(trainer.fast_dev_run)  # type: ignore[attr-defined]  # set by a connector of Lightning's
