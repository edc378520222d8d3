"""What files of a training a run folder holds."""

from __future__ import annotations

from pathlib import Path

SUMMARY = "summary.json"
CARD = "MODEL_CARD.md"


EVALUATION = (
    "scores.csv", "files.csv", "calibration.csv", "evaluation.json", "report.html", CARD,
)  # fmt: skip
"""What says of a training's test how good it is, beside the masks."""


RESULTS = (SUMMARY, "predictions.png", *EVALUATION)
"""What says of a whole training how good it is, beside masks and cards."""


def last_of(folder: Path) -> Path:
    """Returns the checkpoint from which a training in a folder can go on, whether it is there or not."""
    return folder / "checkpoints" / "last.ckpt"
