"""The checkpoint of the best score and that of the last epoch."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.callbacks import ModelCheckpoint

from skinseg.record import first_rank, replacing

log = logging.getLogger(__name__)


class BestAndLast(ModelCheckpoint):
    """Keeps `best.ckpt` and `last.ckpt` in a folder.

    A run that resumes in another folder goes on with the best checkpoint so far, which is copied there:
    Lightning would forget it, and the best of the remaining epochs would pass for the best of all.

    Args:
        dirpath: The folder.
        monitor: The score.
        mode: Which direction of it is better.
        resumed_from: The checkpoint that the run goes on from; the best one is looked for beside it where the
            run folder was moved.
    """

    def __init__(
        self, dirpath: str, monitor: str, mode: Literal["max", "min"], resumed_from: str | None = None
    ) -> None:
        super().__init__(
            dirpath=dirpath,
            filename="best",
            monitor=monitor,
            mode=mode,
            save_top_k=1,
            save_last=True,
            auto_insert_metric_name=False,
            enable_version_counter=False,
            save_on_train_epoch_end=True,
        )
        self.resumed_from = None if resumed_from is None else Path(resumed_from)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over the state of the run that is resumed."""
        assert self.dirpath is not None
        there, here = Path(state_dict["best_model_path"] or "."), Path(self.dirpath) / "best.ckpt"
        if not there.is_file() and self.resumed_from is not None:
            # The run folder was moved since.
            there = self.resumed_from.with_name("best.ckpt")
        if state_dict["best_model_path"] and not there.is_file():
            log.warning(
                "The best checkpoint so far, %s, is gone; the best of the remaining epochs will be taken.",
                state_dict["best_model_path"],
            )
        moved = str(self.dirpath) != state_dict["dirpath"] or there != here
        if moved and there.is_file():
            if first_rank():
                with replacing(here) as temporary:
                    shutil.copyfile(there, temporary)
            state_dict = {
                **state_dict,
                "dirpath": str(self.dirpath),
                "best_model_path": str(here),
                "kth_best_model_path": str(here),
                "best_k_models": dict.fromkeys([str(here)], state_dict["best_model_score"]),
                "last_model_path": "",
            }
        super().load_state_dict(state_dict)
