"""What `python -m skinseg.dashboard` does."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from skinseg.config.schema import Plain
from skinseg.run.writing import write_json
from skinseg.tracking.dashboard import content, dashboard, save

log = logging.getLogger(__name__)


def run(config: Plain) -> dict[str, Any]:
    """Builds the view, writes it down and saves it.

    Args:
        config: Checked; see `skinseg.dashboard.DashboardConfig`.

    Returns:
        What is saved of it.

    Raises:
        SkinsegError: A mistake in the configuration, a missing package or key, or the server refuses.
    """
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
