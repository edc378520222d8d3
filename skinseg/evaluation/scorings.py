"""The log of a run's test scorings: how often somebody has looked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

LOG = "test_scorings.jsonl"


def log_scoring(run_dir: Path, **what: Any) -> None:
    """Appends a line to the run's log, at once and as a whole.

    Args:
        run_dir: The run folder.
        **what: Plain values: by which command, checkpoint, threshold, on which data, the mean Dice.
    """
    line = json.dumps({"time": datetime.now(UTC).isoformat(timespec="seconds"), **what}, default=str)
    with (run_dir / LOG).open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def scorings(run_dir: Path) -> list[Mapping[str, Any]]:
    """Returns the lines of a run's log, oldest first; a line that was cut short counts too."""
    path = run_dir / LOG
    if not path.is_file():
        return []
    found: list[Mapping[str, Any]] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            found.append({})
    return found


def describe(lines: list[Mapping[str, Any]], data: str) -> str:
    """Says how often a run was scored on a test side, and by how many thresholds and checkpoints.

    Args:
        lines: What `scorings` returned.
        data: Fingerprint of the side's split.
    """
    here = [line for line in lines if line.get("split") == data]
    ways = {(line.get("checkpoint"), line.get("threshold")) for line in here}
    if len(here) == 1:
        return "This run was scored once on this test side."
    text = f"This run was scored {len(here)} times on this test side"
    if len(ways) > 1:
        return (
            f"{text}, in {len(ways)} ways (checkpoint, threshold): the best of them would be chosen on the "
            "test side; report the one that was chosen on validation."
        )
    return f"{text}, always with the same checkpoint and threshold."
