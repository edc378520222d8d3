"""Say what is wrong with a data set before anything is trained on it.

python -m skinseg.audit data=isic9 data.root=<folder>
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Literal

from skinseg.config.command import Command
from skinseg.config.schema import Node, Plain
from skinseg.errors import SkinsegError


@dataclass
class AuditConfig:
    """Every key at the root of an audit's configuration.

    Attributes:
        name: Part of the folder's path.
        run_dir: The folder that the audit writes.
        data: The data set, as an experiment would read it.
        test_data: Another one, to count what both have. Empty: none.
        near_duplicates: Compare what all images look like, and not their bytes and ids alone.
        scores: The `scores.csv` of a run, to be set beside the agreement of annotators on the same images.
        fail_on: The mildest finding that makes the exit code 1: "problem", "caution" or "never".
    """

    name: str
    run_dir: str
    data: Node
    test_data: Node | None
    near_duplicates: bool
    scores: str | None
    fail_on: Literal["problem", "caution", "never"]


class AuditFailedError(SkinsegError):
    """The audit found what `fail_on` does not allow."""

    exit_code = 1


def _say(config: Plain, worst: str | None) -> None:
    """Lets the exit code say whether something was found that is not allowed."""
    fail_on = config["fail_on"]
    if (worst, fail_on) in (("problem", "problem"), ("problem", "caution"), ("caution", "caution")):
        raise AuditFailedError(f"fail_on={fail_on}: a {worst} was found.")


_COMMAND = Command("audit", AuditConfig, "skinseg.recipes.audit", ends=_say)
run, main = _COMMAND.run, _COMMAND.main

if __name__ == "__main__":
    sys.exit(main())
