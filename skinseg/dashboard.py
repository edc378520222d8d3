"""Make a view of Weights & Biases that shows a group of runs: curves, ranks, settings, masks, worst images.

python -m skinseg.dashboard entity=<user or team> group=<group>
"""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig

from skinseg.config.check import check
from skinseg.config.command import end_with_message, main_of
from skinseg.config.compose import config_dir, plain
from skinseg.errors import SkinsegError

log = logging.getLogger(__name__)


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


def run(cfg: DictConfig) -> dict[str, Any]:
    """Builds the view, writes it down and saves it.

    Args:
        cfg: The composed configuration; see `DashboardConfig`.

    Returns:
        What is saved of it.

    Raises:
        SkinsegError: A mistake in the configuration, a missing package or key, or the server refuses.
    """
    config = plain(cfg)
    config = check(config, DashboardConfig)

    from skinseg.callbacks.dashboard import content, dashboard, save
    from skinseg.run.writing import write_json

    view = dashboard(
        config["entity"],
        config["project"],
        config["group"],
        metric=config["metric"],
        columns=config["columns"],
        name=config["title"] or config["group"],
    )
    found = content(view)
    path = Path(config["run_dir"]) / "view.json"
    write_json(path, found)
    log.info("%s", save(view) if config["save"] else f"Written to {path}; not saved on the server.")
    return found


@hydra.main(config_path=str(config_dir()), config_name="dashboard", version_base="1.3")
def task(cfg: DictConfig) -> None:
    """Makes the view."""
    try:
        run(cfg)
    except SkinsegError as error:
        end_with_message(error)


main = main_of(task, "dashboard", DashboardConfig)

if __name__ == "__main__":
    sys.exit(main())
