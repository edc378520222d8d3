"""Scored runs, and what may be set side by side of them."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from skinseg.data.files import subfolders
from skinseg.errors import SkinsegError
from skinseg.quoting import command_line, override
from skinseg.scoring.metrics import METRICS, with_penalties
from skinseg.sweep.jobs import PLAN, entries_of, jobs_of

_DEEPEST = 3

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ScoredRun:
    """One network's scores on a subset.

    Attributes:
        folder: Folder of the evaluation, or of the run that scored its own test subset.
        name: Name of the run.
        identity: side (which subset), split, data (None: truth not named), training (None: not known),
            settings of the scores (None: an earlier version scored overlap alone), method, seed, fold.
        table: A row per image: image_id, group and metrics, sorted by image_id. Distances to an empty mask
            have the values of `with_penalties`.
        undefined: By metric the images that had no value; metrics that are defined everywhere are missing.
        cost: parameters, gflops, images_per_second, training_steps, training_seconds; what is not known is
            missing.
        stamps: What stands beside its scores.
        config: Its configuration; None of masks.
        words: Overrides by which it differs from the other jobs of its sweep; none of another run.
    """

    folder: Path
    name: str
    identity: Mapping[str, Any]
    table: pd.DataFrame
    undefined: Mapping[str, frozenset[str]]
    cost: Mapping[str, float]
    stamps: Sequence[str]
    config: Mapping[str, Any] | None = None
    words: Sequence[str] = ()


class UnscoredError(SkinsegError):
    """A run has no whole scores: what has to be known of them failed to be written, or cannot be read."""


def load_runs(entries: Sequence[str]) -> tuple[list[ScoredRun], list[Path]]:
    """Reads the scores of runs and evaluations.

    Args:
        entries: As in `find_runs`.

    Returns:
        The runs in the order of `find_runs`, and the folders below entries of several that have no whole
        scores, which is said.

    Raises:
        SkinsegError: As of `find_runs` and `load_run`; of a run without whole scores where itself is named.
    """
    named = {Path(entry).expanduser() for entry in entries}
    runs: list[ScoredRun] = []
    unscored: list[Path] = []
    for folder in find_runs(entries):
        try:
            runs.append(load_run(folder))
        except UnscoredError as error:
            if folder in named:
                raise
            log.warning("%s It is left out.", error)
            unscored.append(folder)
    for folder in find_unscored(entries):
        log.warning("%s has no scores (failed, interrupted or not tested); it is left out.", folder)
        unscored.append(folder)
    return runs, unscored


def find_runs(entries: Sequence[str]) -> list[Path]:
    """Finds the folders that hold scores.

    Args:
        entries: Folders of evaluations or runs, or folders that hold some (a sweep, an evaluation of several
            checkpoints).

    Returns:
        The folders in the order given, those within one sorted by name.

    Raises:
        SkinsegError: There is none below an entry, or one is named twice.
    """
    found: list[Path] = []
    for entry in entries:
        folder = Path(entry).expanduser()
        if not folder.is_dir():
            raise SkinsegError(
                f"runs: {entry} is no folder; expected one of a run, an evaluation or a sweep."
            )
        below = list(_scored_below(folder, _DEEPEST))
        if not below:
            raise SkinsegError(
                f"runs: {entry} holds no scores; expected scores.csv with evaluation.json or summary.json in "
                f"it, or in folders below. Evaluate it first: {how_to_evaluate(folder)}"
            )
        found += below
    resolved = [folder.resolve() for folder in found]
    for folder in resolved:
        if resolved.count(folder) > 1:
            raise SkinsegError(f"runs: {folder} is named more than once.")
    return found


def how_to_evaluate(folder: Path, *words: str) -> str:
    """Returns the command that scores a run, its best checkpoint left open where that is not there.

    Args:
        folder: Folder of the run.
        words: Further overrides.
    """
    best = folder / "checkpoints" / "best.ckpt"
    ckpt = override("ckpt", best) if best.is_file() else "ckpt=<best.ckpt>"
    return command_line("skinseg.evaluate", ckpt, *words)


def find_unscored(entries: Sequence[str]) -> list[Path]:
    """Finds the runs below folders of several that left no scores: failed, interrupted, or without a test."""
    found = []
    for entry in entries:
        folder = Path(entry).expanduser()
        paths = (
            path for depth in range(1, _DEEPEST + 1) for path in folder.glob("*/" * depth + "config.yaml")
        )
        for path in sorted(paths):
            hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
            if not hidden and not _is_scored(path.parent):
                found.append(path.parent)
    return found


def _scored_below(folder: Path, depth: int) -> Iterable[Path]:
    for place in _done_before(folder):
        yield from _scored_below(place, 0)
    if _is_scored(folder):
        yield folder
    elif depth:
        for child in sorted(subfolders(folder), key=lambda path: (len(path.name), path.name)):
            if child.name.startswith("checkpoints"):  # also those that were moved aside, with their scores
                continue
            yield from _scored_below(child, depth - 1)


def _is_scored(folder: Path) -> bool:
    records = ("evaluation.json", "summary.json")
    return (folder / "scores.csv").is_file() and any((folder / name).is_file() for name in records)


def _done_before(folder: Path) -> Iterable[Path]:
    """The folders of jobs that a sweep left out, since an earlier one had done them."""
    if not (folder / PLAN).is_file():
        return []
    try:
        return [folder / job["scores"] for job in entries_of(folder) if job["scores"] != job["folder"]]
    except SkinsegError:  # `jobs_of` says it
        return [job.scores for job in jobs_of(folder) if job.scores != job.folder]


def load_run(folder: Path) -> ScoredRun:
    """Reads the scores of an evaluation or a run.

    Raises:
        UnscoredError: Its scores are not whole, or their record cannot be read.
        SkinsegError: A file cannot be read or lacks what is needed.
    """
    name = "evaluation.json" if (folder / "evaluation.json").is_file() else "summary.json"
    try:
        record = json.loads((folder / name).read_text(encoding="utf-8"))
        if failed := record.get("failed"):
            raise UnscoredError(
                f"runs: {folder} has no whole scores: after its training {failed['what']} failed. "
                f"Evaluate it: {how_to_evaluate(folder)}"
            )
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UnscoredError(
            f"runs: {folder / name} cannot be read ({type(error).__name__}: {error}). Evaluate it: "
            f"{how_to_evaluate(folder)}"
        ) from error
    try:
        table = _read_scores(folder / "scores.csv")
        missing = {name: table.loc[table[name].isna(), "image_id"] for name in METRICS if name in table}
        stamps = record["stamps"] if name == "evaluation.json" else record["protocol"]["stamps"]
        return ScoredRun(
            folder=folder,
            name=record["name"],
            identity=record["identity"],
            table=with_penalties(table).sort_values("image_id", ignore_index=True),
            undefined={name: frozenset(ids) for name, ids in missing.items() if len(ids)},
            cost=record["costs"],
            stamps=stamps,
            config=record.get("config"),
            words=_words(record["identity"].get("training")),
        )
    except KeyError as error:
        raise SkinsegError(
            f"runs: {folder / name} lacks {error}; it was written by an earlier skinseg. Evaluate the "
            f"checkpoint: {how_to_evaluate(folder)}"
        ) from error
    except (OSError, ValueError, TypeError) as error:
        raise SkinsegError(f"runs: {folder} cannot be read ({error}).") from error


def _read_scores(path: Path) -> pd.DataFrame:
    """Reads what a run has written.

    Raises:
        SkinsegError: A spreadsheet has been at it: numbers became dates or texts, or all is one column.
    """
    table = pd.read_csv(path, dtype={"image_id": str, "group": str})
    wrong = [f"no column {name}" for name in ("image_id", "group") if name not in table]
    wrong = wrong or [
        f"no value of {name} in some rows" for name in ("image_id", "group") if table[name].isna().any()
    ]
    for name in set(METRICS) & set(table):
        if not pd.api.types.is_numeric_dtype(table[name]):
            wrong.append(f"{name} holds texts")
        elif not table[name].dropna().between(METRICS[name].lowest, METRICS[name].highest).all():
            wrong.append(f"{name} holds numbers that it cannot have")
    if wrong:
        raise SkinsegError(
            f"runs: {path} is not as skinseg wrote it ({'; '.join(sorted(wrong))}). A spreadsheet that saves "
            "such a file may change its numbers: restore it, or evaluate again."
        )
    return table


def _words(training: str | None) -> list[str]:
    """What the training of a run was called in its sweep, if it was a job of one and is still there."""
    try:
        content = json.loads((Path(training or "") / "job.json").read_text(encoding="utf-8"))
        return [str(word) for word in content["words"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []
