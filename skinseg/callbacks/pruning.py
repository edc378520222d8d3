"""What a trial of a search does beside its training: it reports, and stops when it is told to."""

from __future__ import annotations

import logging
import os
from typing import Any

import lightning as L
import optuna
from lightning.pytorch.callbacks import Callback
from optuna.pruners import BasePruner

from skinseg.errors import SkinsegError
from skinseg.sweep.study import PRUNED, STORAGE, open_storage, told

log = logging.getLogger(__name__)


class ReportTrial(Callback):
    """Reports each validation score to the storage of the search, and ends the fit if the pruner says so.

    All ranks end together. A run outside of a search, such as a trial that is repeated by hand, is left
    alone, and so is one whose storage cannot be reached: its result is not lost.

    Args:
        study: Its name in the storage, which the environment variable SKINSEG_SEARCH_STORAGE names.
        trial: The trial's id in the storage.
        monitor: The score.
        pruner: None: nothing stops the trial.
    """

    def __init__(self, study: str, trial: int, monitor: str, pruner: BasePruner | None = None) -> None:
        self.study = study
        self.trial = trial
        self.monitor = monitor
        self.pruner = pruner
        self._validations = 0
        self._silent = False
        self._opened: tuple[optuna.storages.BaseStorage, optuna.Study] | None = None

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Reports the score, asks the pruner and stops all ranks if it says so."""
        if trainer.state.fn != "fit" or trainer.sanity_checking or STORAGE not in os.environ:
            return
        stop = False
        if trainer.is_global_zero:
            try:
                with told(os.environ[STORAGE]):
                    stop = self._report(float(trainer.callback_metrics[self.monitor]))
            except SkinsegError as error:
                if not self._silent:
                    log.warning("The scores of this trial are not reported. %s", error)
                self._silent = True
        self._validations += 1
        if trainer.strategy.broadcast(stop):
            trainer.should_stop = True

    def _report(self, score: float) -> bool:
        if self._opened is None:
            storage = open_storage(os.environ[STORAGE])
            self._opened = storage, optuna.load_study(study_name=self.study, storage=storage)
        (storage, study), step = self._opened, self._validations
        storage.set_trial_intermediate_value(self.trial, step, score)
        if self.pruner is None or not self.pruner.prune(study, storage.get_trial(self.trial)):
            return False
        storage.set_trial_user_attr(self.trial, PRUNED, step)
        log.info("Pruned after validation %d: %s=%.4f is behind other trials.", step + 1, self.monitor, score)
        return True

    def state_dict(self) -> dict[str, Any]:
        """Returns how many validations were reported, for a trial that is resumed."""
        return {"validations": self._validations}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on counting there."""
        self._validations = state_dict["validations"]
