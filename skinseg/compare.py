"""Say which of several runs is best, and whether that could be chance; or what runs of one method are worth.

python -m skinseg.compare 'runs=[<folder>,<folder>]'
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from skinseg.config.command import Command
from skinseg.config.schema import Node


@dataclass
class CompareConfig:
    """Every key at the root of the configuration.

    Attributes:
        name: Part of the folder's path.
        run_dir: The folder that the comparison writes.
        runs: Folders of evaluations or runs, or one folder that holds several (a sweep); or
            `wandb:<entity>/<project>/<group>`, whose runs' evaluations are fetched.
        metric: What ranks them, e.g. dice, threshold_jaccard, hd95_percent.
        pool: Take runs that differ by seed or fold alone for one method, whose interval then includes what
            another training would have changed.
        draws: Number of resamples of intervals, and of random signs of tests.
        level: Coverage of intervals; 1 - level is the p below which a method counts as worse.
        seed: Seed of the resampling.
        gallery: How many images the report shows where the best two differ most, each way.
        group: Runs that belong together, in Weights & Biases.
        job_type: What the run does, in Weights & Biases.
        tags: Words to find the run by.
        notes: A sentence on the run.
        logger: Loggers by name: `logger=wandb` keeps tables and report as an artifact.
    """

    name: str
    run_dir: str
    runs: list[str] | str
    metric: str
    pool: bool
    draws: int
    level: float
    seed: int
    gallery: int
    group: str | None
    job_type: str
    tags: list[str]
    notes: str | None
    logger: dict[str, Node | None] | None


_COMMAND = Command("compare", CompareConfig, "skinseg.recipes.compare")
run, main = _COMMAND.run, _COMMAND.main

if __name__ == "__main__":
    sys.exit(main())
