"""Make one predictor of several trainings, such as the folds or the seeds of a sweep.

python -m skinseg.ensemble runs=<folder of a sweep>

What it writes is a checkpoint like any other: predict and evaluate take it.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from skinseg.config.command import Command


@dataclass
class EnsembleConfig:
    """Every key at the root of the configuration.

    Attributes:
        name: Name of the ensemble, in reports.
        run_dir: The folder that it writes; the ensemble is `checkpoints/ensemble.ckpt` in it.
        runs: Run folders, whose best checkpoints are taken, or checkpoints; or one folder that holds several
            runs (a sweep).
        trust: Packages of your own, or of somebody whom you trust, whose constructors the runs may name; see
            `skinseg.build.trust`.
    """

    name: str
    run_dir: str
    runs: list[str] | str
    trust: str | list[str]


_COMMAND = Command("ensemble", EnsembleConfig, "skinseg.recipes.ensemble")
run, main = _COMMAND.run, _COMMAND.main

if __name__ == "__main__":
    sys.exit(main())
