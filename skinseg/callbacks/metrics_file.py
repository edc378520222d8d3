"""The metrics.csv of a run that goes on: with the rows of the run that it resumes."""

from __future__ import annotations

import csv
from pathlib import Path

from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities import rank_zero_only


@rank_zero_only
def go_on_from(logger: CSVLogger, checkpoint: Path, steps: int) -> None:
    """Begins a run's metrics with those of the run that it resumes.

    Lightning's logger would remove the file in its folder, and the curves would begin at the resumption.

    Args:
        logger: Before its first row.
        checkpoint: The one that is resumed, in its run folder.
        steps: Optimizer steps that it has trained; what was logged after them is logged again.
    """
    try:
        with (checkpoint.parents[1] / "metrics.csv").open(encoding="utf-8", newline="") as file:
            rows = [row for row in csv.DictReader(file) if None not in row.values()]  # a torn line has fewer
    except FileNotFoundError:
        return
    logger.experiment.metrics = [row for row in rows if int(row["step"]) < steps]
    logger.experiment.save()
