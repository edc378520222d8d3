"""A bar on a terminal, a line per epoch elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from typing import Any, Literal

import lightning as L
from lightning.pytorch.callbacks import ProgressBar, RichProgressBar
from lightning.pytorch.callbacks.progress.rich_progress import RichProgressBarTheme

log = logging.getLogger(__name__)


def progress(style: Literal["auto", "bar", "lines", "none"] = "auto") -> ProgressBar:
    """Chooses how a run shows that it lives.

    Args:
        style: "bar" for a terminal, "lines" for a file, "none"; "auto" looks at what standard output is.

    Returns:
        A callback that is Lightning's progress bar.
    """
    if style == "auto":
        style = "bar" if sys.stdout.isatty() else "lines"
    if style == "bar":
        return _Bar(theme=RichProgressBarTheme(metrics_format=".4f"))
    return EpochLines() if style == "lines" else ProgressBar()


class _Bar(RichProgressBar):
    """Rich's bar without Lightning's version number, with the epochs' scores left on the screen."""

    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Any]:
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return metrics

    def _get_train_description(self, current_epoch: int) -> str:
        # Lightning counts from 0; the lines that stay on the screen, and people, from 1.
        last = self.trainer.max_epochs
        return f"Epoch {current_epoch + 1}" + (f"/{last}" if last and last > 0 else "")

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        line = epoch_line(trainer)
        super().on_train_epoch_end(trainer, pl_module)
        if self.progress is not None:
            self.progress.console.print(line, highlight=False)


class EpochLines(ProgressBar):
    """One log line at the end of each epoch: losses, score, time."""

    def __init__(self) -> None:
        super().__init__()
        self._enabled = True
        self._started = 0.0
        self._first_epoch = 0

    def disable(self) -> None:
        """Lightning's way to keep other ranks quiet."""
        self._enabled = False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Starts the clock."""
        self._started = time.monotonic()
        self._first_epoch = trainer.current_epoch

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Writes the line."""
        state = epoch_line(trainer)
        if not self._enabled:
            return
        elapsed = time.monotonic() - self._started
        line = f"{state}  {_clock(elapsed)}"
        last = trainer.max_epochs
        if last is not None and 0 < trainer.current_epoch + 1 < last and trainer.max_steps < 0:
            done = trainer.current_epoch + 1 - self._first_epoch
            line += f"  (at most {_clock(elapsed / done * (last - trainer.current_epoch - 1))} to go)"
        log.info(line)


def epoch_line(trainer: L.Trainer) -> str:
    """Returns the state of a run in one line.

    All processes of a run have to ask for it, also those that do not show it: metrics which nothing has asked
    for in this epoch are reduced over the processes here, and one alone would wait for the others for ever.
    """
    metrics = trainer.callback_metrics
    shown = [f"{key} {metrics[key]:.4f}" for key in ("train/loss", "val/loss", "val/dice") if key in metrics]
    of = f"/{trainer.max_epochs}" if trainer.max_epochs and trainer.max_epochs > 0 else ""
    return "  ".join([f"epoch {trainer.current_epoch + 1}{of}", f"step {trainer.global_step}", *shown])


def _clock(seconds: float) -> str:
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"
