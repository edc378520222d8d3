"""The log of a run's test scorings: how often somebody has looked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from skinseg.counting import often
from skinseg.errors import SkinsegError

LOG = "test_scorings.jsonl"


def check_log(run_dir: Path) -> None:
    """Makes sure that a scoring can be logged, before there is one.

    Raises:
        SkinsegError: It cannot.
    """
    try:
        (run_dir / LOG).open("a", encoding="utf-8").close()
    except OSError as error:
        raise SkinsegError(
            f"{run_dir / LOG}, which logs every test scoring, cannot be written ({error.strerror or error}). "
            "Make it writable, or evaluate the checkpoint in a copy of the whole run folder."
        ) from error


def log_scoring(run_dir: Path, **what: Any) -> None:
    """Appends a line to the run's log, at once and as a whole.

    Args:
        run_dir: The run folder.
        **what: Plain values: by which command, checkpoint, threshold, on which data, the mean Dice.

    Raises:
        SkinsegError: It cannot be written.
    """
    check_log(run_dir)
    line = json.dumps({"time": datetime.now(UTC).isoformat(timespec="seconds"), **what}, default=str)
    whole = (run_dir / LOG).read_bytes()
    # A line that was cut short must not swallow this one.
    start = "\n" if whole and not whole.endswith(b"\n") else ""
    with (run_dir / LOG).open("a", encoding="utf-8") as file:
        file.write(f"{start}{line}\n")


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


def describe(lines: list[Mapping[str, Any]], image_set: str) -> dict[str, Any]:
    """Says how often a run was scored on a test subset, and by how many thresholds and checkpoints.

    Args:
        lines: What `scorings` returned.
        image_set: Digest of the scored images' ids.

    Returns:
        count (of this subset) and text.
    """
    # A line that cannot be read may have been of any subset.
    here = [line for line in lines if line.get("image_set", image_set) == image_set]
    ways = {(line.get("checkpoint"), line.get("threshold")) for line in here}
    if len(here) == 1:
        text = "This run was scored once on this test subset."
    elif len(ways) > 1:
        text = (
            f"This run was scored {often(len(here))} on this test subset, in {len(ways)} ways (checkpoint, "
            "threshold): the best of them would be chosen on the test subset; report the one that was chosen "
            "on validation."
        )
    else:
        text = (
            f"This run was scored {often(len(here))} on this test subset, always with the same checkpoint "
            "and threshold."
        )
    if others := len(lines) - len(here):
        text += f" On other images: {often(others)}."
    return {"count": len(here), "text": text}
