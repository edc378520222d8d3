"""Make a split or all folds of a data set, check them, describe them and save them.

python -m skinseg.split data=ham10000 data.root=<folder> data.split.folds=5
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from skinseg.config.command import Command
from skinseg.config.schema import Node


@dataclass
class SplitConfig:
    """Every key at the root of the configuration.

    Attributes:
        name: Part of the folder's path.
        run_dir: The folder that the splits are written to.
        data: The data set with `data.split`, as an experiment would read it. With `data.split.folds` all
            folds are made; with `data.split.file` that file is checked and described.
        manifest: Also write manifest.csv, which data=folder reads (data.images=<manifest.csv>).
    """

    name: str
    run_dir: str
    data: Node
    manifest: bool


_COMMAND = Command("split", SplitConfig, "skinseg.recipes.split")
run, main = _COMMAND.run, _COMMAND.main

if __name__ == "__main__":
    sys.exit(main())
