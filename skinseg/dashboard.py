"""Make a view of Weights & Biases that shows a group of runs: curves, ranks, settings, masks, worst images.

python -m skinseg.dashboard entity=<user or team> group=<group>
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from skinseg.config.command import Command


@dataclass
class DashboardConfig:
    """Every key at the root of the configuration.

    Attributes:
        name: Part of the folder's path.
        run_dir: The folder that `view.json` is written to.
        entity: User or team in Weights & Biases.
        project: Its project.
        group: The runs that are shown, as in their `group`; a sweep prints that of its jobs.
        title: Of the view. null: the group.
        metric: What ranks the runs.
        columns: Settings that the runs differ in, as in their `config.yaml`.
        save: Save the view on the server; otherwise it is only written to the folder.
    """

    name: str
    run_dir: str
    entity: str
    project: str
    group: str
    title: str | None
    metric: str
    columns: list[str]
    save: bool


_COMMAND = Command("dashboard", DashboardConfig, "skinseg.recipes.dashboard")
run, main = _COMMAND.run, _COMMAND.main

if __name__ == "__main__":
    sys.exit(main())
