"""The metrics.csv of a run that goes on: with the rows of the run that it resumes."""

from __future__ import annotations

import csv
from pathlib import Path

from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.utilities import rank_zero_only

from skinseg.run.writing import replacing


class _GoesOn(ExperimentWriter):
    """Appends to the file that is there, which Lightning's would remove."""

    def _check_log_dir_exists(self) -> None:
        pass


@rank_zero_only
def go_on_from(logger: CSVLogger, checkpoint: Path, steps: int) -> None:
    """Begins a run's metrics with those of the run that it resumes.

    Args:
        logger: Before its first row.
        checkpoint: The one that is resumed, in its run folder.
        steps: Optimizer steps that it has trained; what was logged after them is logged again.
    """
    try:
        text = (checkpoint.absolute().parents[1] / "metrics.csv").read_text("utf-8")
    except FileNotFoundError:
        return
    # A full disk may have cut the last one short, perhaps within a number.
    reader = csv.DictReader(line for line in text.splitlines(keepends=True) if line.endswith("\n"))
    if reader.fieldnames is None:
        return
    rows = [row for row in reader if _is_before(steps, row)]
    writer = _GoesOn(logger.log_dir)
    writer.metrics_keys = list(reader.fieldnames)
    with (
        replacing(Path(writer.metrics_file_path)) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        table = csv.DictWriter(file, writer.metrics_keys)
        table.writeheader()
        table.writerows(rows)
    logger._experiment = writer


def _is_before(steps: int, row: dict[str, str | None]) -> bool:
    """Whether a row is of an earlier step; one with values that are missing is of none."""
    step = row.get("step")
    return None not in row.values() and step is not None and step.isdecimal() and int(step) < steps
