"""What is logged of an evaluation, and read back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger

from skinseg.errors import SkinsegError
from skinseg.names import folder_name
from skinseg.quoting import command_line, override
from skinseg.tracking.logger import runs


def log_evaluation(loggers: Iterable[Logger], folder: Path, written: Sequence[Path]) -> None:
    """Keeps the tables and the report of an evaluation or a comparison as an artifact.

    Args:
        loggers: Those of Weights & Biases among them are used.
        folder: That of the evaluation or the comparison.
        written: The files in it that are of it, absolute; those of other kinds than tables and texts are not
            kept.
    """
    for run in runs(loggers):
        import wandb

        kind = "comparison" if folder.absolute() / "comparison.json" in written else "evaluation"
        artifact = wandb.Artifact(f"{kind}-{run.id}", type=kind)
        for path in written:  # and nothing else that lies there
            if path.suffix in (".csv", ".json", ".html", ".md"):
                artifact.add_file(str(path))
        run.log_artifact(artifact)
        report = folder.absolute() / "report.html"
        if report in written:
            run.log({"report": wandb.Html(report.read_text(encoding="utf-8"), inject=False)})


def fetch_evaluations(group: str, folder: Path) -> list[Path]:
    """Fetches the evaluations of a group of runs from Weights & Biases.

    Args:
        group: `<entity>/<project>/<group>`.
        folder: Where they are put, a folder for each.

    Returns:
        Their folders, of each run the latest one, and of a training that was evaluated again not its own;
            what lies there of an earlier call is not among them.

    Raises:
        SkinsegError: The name is not of that form, the host cannot be reached, or no run has one.
    """
    import wandb

    parts = group.split("/")
    if len(parts) != 3:
        raise SkinsegError(f"runs=wandb:{group}: expected wandb:<entity>/<project>/<group>.")
    found: list[tuple[bool, Path]] = []
    try:
        for run in wandb.Api().runs("/".join(parts[:2]), filters={"group": parts[2]}):
            logged = [artifact for artifact in run.logged_artifacts() if artifact.type == "evaluation"]
            if logged:
                # A training that went on has logged several.
                artifact = max(logged, key=lambda artifact: int(artifact.name.rpartition(":v")[2]))
                place = folder.joinpath(*map(folder_name, (f"{run.name}-{run.id}", artifact.name)))
                artifact.download(root=str(place))
                found.append((run.job_type == "train", place))
    except (wandb.errors.Error, ValueError, OSError) as error:
        raise SkinsegError(f"runs=wandb:{group} cannot be fetched: {error}") from error
    if not found:
        raise SkinsegError(
            f"runs=wandb:{group}: no run of this group has an evaluation; make them with "
            + command_line(
                "skinseg.evaluate", "ckpt=<best.ckpt>", "logger=wandb", override("group", parts[2])
            )
        )
    evaluated = [_what_of(place) for by_training, place in found if not by_training]
    # What a training says of itself an evaluation of its checkpoint says again.
    return [place for by_training, place in found if not (by_training and _what_of(place) in evaluated)]


def _what_of(evaluation: Path) -> tuple[Any, ...]:
    """Returns which training an evaluation is of, and on what."""
    identity = json.loads((evaluation / "evaluation.json").read_text(encoding="utf-8"))["identity"]
    return tuple(identity[key] for key in ("training", "side", "split"))
