"""Train a network, choose its best checkpoint on validation, score it on the test subset.

python -m skinseg.train +experiment=unet_resnet34
"""

from __future__ import annotations

import os
import sys
from typing import Any

from omegaconf import DictConfig

from skinseg.config.check import check
from skinseg.config.command import RANK_VARIABLES, Command, Hold
from skinseg.config.schema import Plain, RootConfig
from skinseg.sweep.multirun import conclude, run_job


class Train(Command):
    """Runs one training, the trials of a search, or the jobs of a multirun, each in a process of its own."""

    def do(self, config: Plain) -> float:
        """Returns the objective: the best validation score."""
        if config["search"] is None:
            return float(super().do(config))
        from skinseg.sweep import search

        return search.run(config)

    def task(self, cfg: DictConfig) -> Any:
        """Runs within Hydra."""
        objective = run_job(cfg)
        return super().task(cfg) if objective is None else objective

    def hydra_main(self) -> None:
        """Lets Hydra read the command line; a multirun's jobs are compared at the end."""
        conclude(super().hydra_main)


def _checked(config: Plain) -> Plain:
    """Does what `check` does, and refuses a search also for what its trials would be."""
    config = check(config)
    if config["search"] is not None:
        from skinseg.sweep.search import compose_ends

        compose_ends(config)
    return config


def is_first(config: Plain) -> bool:
    """Returns whether this process is the first of a training's, or its only one, and has its folder.

    Args:
        config: Resolved.
    """
    if RANK_VARIABLES.isdisjoint(os.environ):  # told without PyTorch
        return True
    from skinseg.build import trainers
    from skinseg.callbacks.quiet import quiet
    from skinseg.run.writing import first_rank

    quiet()
    trainers.settle_rank(config)
    return first_rank()


def _hold(config: Plain) -> Hold:
    if config["search"] is not None:  # several processes share its trials
        return "together"
    return "alone" if is_first(config) else "not"


_COMMAND = Train("train", RootConfig, "skinseg.recipes.train", checked=_checked, holds=_hold)
run, main = _COMMAND.run, _COMMAND.main

if __name__ == "__main__":
    sys.exit(main())
