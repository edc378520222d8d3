"""Which messages of other libraries reach the user."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

# What a user can do nothing about, or what we do on purpose; each with the reason.
_KNOWN = (
    r"The '\w+' does not have many workers",  # LesionDataModule chooses by the machine
    r"This DataLoader will create \d+ worker processes",  # warn_of_workers says it once, with the key
    r"Experiment logs directory .* exists",  # the run folder holds more than the log
    r"Checkpoint directory .* exists and is not empty",  # a resumed run writes into its folder
    r"The number of training batches .* is smaller than the logging interval",  # epochs are logged anyway
    r"You're resuming from a checkpoint that ended before the epoch ended",  # EpochSampler goes on there
    r".*ModelCheckpoint\(monitor=.*could not find the monitored key",  # a run that ends before validation
    r"It is recommended to use `self.log\('(val|test)/",  # every rank has gathered the scores of all
    r"The dirpath has changed from",  # BestAndLast takes the best checkpoint along
    r".*`isinstance\(treespec, LeafSpec\)` is deprecated",  # Lightning's call of PyTorch
)


def quiet() -> None:
    """Silences Lightning's tips and its banners; our own log lines say what matters."""
    for pattern in _KNOWN:
        warnings.filterwarnings("ignore", message=pattern)
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)


@contextmanager
def unknown_arguments_as_errors() -> Iterator[None]:
    """Raises where albumentations would only warn of an argument that it does not know."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=r"Argument\(s\) .* not valid for transform")
        yield
