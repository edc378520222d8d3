"""Scored runs, and what may be set side by side of them."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from skinseg.counting import counted
from skinseg.data.files import subfolders
from skinseg.errors import SkinsegError
from skinseg.quoting import command_line, override
from skinseg.scoring.metrics import METRICS, with_penalties, within_bounds
from skinseg.scoring.statistics import Estimates, cluster_intervals, run_intervals
from skinseg.sweep.jobs import PLAN, entries_of, jobs_of

_DEEPEST = 3

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ScoredRun:
    """One network's scores on a side.

    Attributes:
        folder: Of the evaluation, or of the run that scored its own test side.
        name: Of the run.
        identity: side, split, data (None: truth not named), training (None: not known), settings of the
            scores (None: overlap alone was scored), method, seed, fold.
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


@dataclass(frozen=True)
class Method:
    """Runs of one method, which differ by seed or fold alone.

    Attributes:
        name: For people; no two methods of a comparison bear the same.
        runs: The runs.
    """

    name: str
    runs: Sequence[ScoredRun]

    def undefined(self, metric: str) -> frozenset[str]:
        """The images on which one of the runs had no value."""
        return frozenset().union(*(run.undefined.get(metric, ()) for run in self.runs))

    @cached_property
    def trainings(self) -> list[pd.DataFrame]:
        """A table for each seed; where there are folds, one for each of these, the mean over its seeds."""
        folds: dict[frozenset[str], list[pd.DataFrame]] = {}
        for run in self.runs:
            folds.setdefault(frozenset(run.table["image_id"]), []).append(run.table)
        if len(folds) == 1:
            return [run.table.set_index("image_id") for run in self.runs]
        return [_mean(tables) for tables in folds.values()]

    @property
    def folds(self) -> bool:
        """Whether the runs were tested on different images."""
        return any(set(table.index) != set(self.trainings[0].index) for table in self.trainings)

    @property
    def seeds(self) -> bool:
        """Whether an image was scored by several runs."""
        return sum(len(run.table) for run in self.runs) > len(self.table)

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row per image, the mean over seeds; image_id is the index."""
        return _mean([run.table for run in self.runs])

    def estimates(self, metrics: Sequence[str], *, draws: int, level: float, seed: int) -> Estimates:
        """Means with intervals; of several trainings the spread between them is part of it."""
        values = [table[list(metrics)].to_numpy(dtype=float) for table in self.trainings]
        lesions = [table["group"].to_numpy(dtype=str) for table in self.trainings]
        how: dict[str, Any] = {"draws": draws, "level": level, "seed": seed}
        least = [METRICS[name].least_lesions for name in metrics]
        if len(values) == 1:
            return within_bounds(cluster_intervals(values[0], lesions[0], least=least, **how), metrics)
        return within_bounds(run_intervals(values, lesions, least=least, **how), metrics)


def _mean(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    rows = pd.concat(tables)
    means = rows.groupby("image_id")[[name for name in METRICS if name in rows]].mean()
    return means.assign(group=rows.drop_duplicates("image_id").set_index("image_id")["group"])


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
        folder: Of the run.
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


def methods_of(runs: Sequence[ScoredRun], *, pool: bool) -> list[Method]:
    """Puts runs of one method together.

    Args:
        runs: At least two.
        pool: Take runs that differ by seed or fold alone for one method. False: each run stands for itself.

    Returns:
        The methods, each with another name. What is still undefined is so for all of them, image by image.

    Raises:
        SkinsegError: Two runs are of one training; two of a method have the same seed and fold; or the
            methods were not scored in the same way on the same images of the same split, with a value on
            each.
    """
    _check_trainings(runs)
    groups: dict[str, list[ScoredRun]] = {}
    for number, run in enumerate(runs):
        groups.setdefault(run.identity["method"] if pool else str(number), []).append(run)
    for members in groups.values():
        _check_members(members)
    methods = [
        Method(name, members)
        for name, members in zip(_names(list(groups.values())), groups.values(), strict=True)
    ]
    _check_same_images(methods)
    _check_defined(runs)
    return methods


def _check_defined(runs: Sequence[ScoredRun]) -> None:
    """Refuses gaps of one run alone: leaving them out would reward whoever has none of the hard ones."""
    for metric in (name for name in METRICS if all(name in run.table for run in runs)):
        known = {i for run in runs for i in run.table.loc[run.table[metric].notna(), "image_id"]}
        for run in runs:
            ids = run.table.loc[run.table[metric].isna(), "image_id"]
            if len(alone := ids[ids.isin(known)]):
                raise SkinsegError(
                    f"runs: {run.folder / 'scores.csv'} has no {metric} of {counted(len(alone), 'image')} "
                    f"that others have one of, {alone.iloc[0]} first; expected a number. Evaluate it again."
                )


def _names(groups: Sequence[Sequence[ScoredRun]]) -> list[str]:
    """Names methods by their runs' name; those that share one by their words in a sweep, or by the folder.

    Of the folder as much is taken as tells them apart.
    """
    names = [members[0].name for members in groups]
    words = [" ".join(word for word in m[0].words if all(word in run.words for run in m)) for m in groups]
    if len(set(names)) < len(names) == len(set(words)) and all(words):
        return words
    parts = [members[0].folder.resolve().parts for members in groups]
    result = []
    for name, own in zip(names, parts, strict=True):
        others = [p for n, p in zip(names, parts, strict=True) if n == name and p != own]
        depth = 1
        while depth < len(own) and any(p[-depth:] == own[-depth:] for p in others):
            depth += 1
        result.append(f"{name} ({'/'.join(own[-depth:])})" if others else name)
    return result


def _check_trainings(runs: Sequence[ScoredRun]) -> None:
    seen: dict[str, ScoredRun] = {}
    for run in runs:
        training = run.identity.get("training")
        if training is None or run.identity["side"] != "test":
            continue
        other = seen.setdefault(training, run)
        if other is not run:
            raise SkinsegError(
                f"runs: {other.folder} and {run.folder} are of one training ({training}): the better of two "
                "checkpoints or thresholds would be chosen on the test side. Leave one out; choose on "
                f"validation: {how_to_evaluate(Path(training), 'side=val')}"
            )


def _check_members(members: Sequence[ScoredRun]) -> None:
    seen: dict[tuple[Any, Any], ScoredRun] = {}
    for run in members:
        other = seen.setdefault((run.identity["seed"], run.identity["fold"]), run)
        if other is not run:
            raise SkinsegError(
                f"runs: {other.folder} and {run.folder} are of one method and one seed, so they are no two "
                "trainings. Leave one out, or set pool=false to compare all runs one by one."
            )
    listed = ", ".join(f"{run.folder} ({counted(len(run.table), 'image')})" for run in members)
    if _overlap(members, lambda run: run.table["image_id"]):
        raise SkinsegError(
            f"runs: these are of one method but were scored on images that overlap in part: {listed}. Seeds "
            "need the same images, folds different ones."
        )
    if _overlap(members, lambda run: run.table["group"]):
        raise SkinsegError(
            f"runs: these are folds of one method that share lesions, for the split was made by image: "
            f"{listed}. Their images are not independent; split by lesion (data.split.unit=lesion)."
        )


def _overlap(members: Sequence[ScoredRun], of: Callable[[ScoredRun], pd.Series[str]]) -> bool:
    """Whether the runs' sets are neither the same nor apart."""
    sets = {frozenset(of(run)) for run in members}
    return sum(map(len, sets)) > len(frozenset().union(*sets))


_SAME = {
    "split": "splits",
    "side": "sides",
    "data": "images or true masks",
    "settings": "settings of the scores",
}


def _fingerprint(method: Method) -> str | None:
    """Of the images and true masks; None where it is not known, or folds have several."""
    found = {run.identity["data"] for run in method.runs}
    return found.pop() if len(found) == 1 else None


def _check_same_images(methods: Sequence[Method]) -> None:
    first = methods[0]
    for key, what in _SAME.items():
        marks = {
            method.name: sorted({str(m) for run in method.runs if (m := run.identity.get(key)) is not None})
            for method in methods
        }
        known = [method for method in methods if marks[method.name]]
        for method in known[1:]:
            if marks[method.name] != marks[known[0].name]:
                if key == "split" and _fingerprint(known[0]) == _fingerprint(method) is not None:
                    raise SkinsegError(
                        f"runs: {known[0].runs[0].folder} and {method.runs[0].folder} are of the same images "
                        "and masks, but say otherwise which images show one lesion. Evaluate both with the "
                        "same strata=<CSV with lesion_id>."
                    )
                found = " and ".join(", ".join(marks[one.name]) for one in (known[0], method))
                raise SkinsegError(
                    f"runs: {known[0].runs[0].folder} and {method.runs[0].folder} were scored on different "
                    f"{what} ({found}): their difference would be that of these. Score both alike."
                )
    for method in methods[1:]:
        here, there = set(first.table.index), set(method.table.index)
        if here != there:
            raise SkinsegError(
                f"runs: {first.runs[0].folder} has scores of {counted(len(here), 'image')} and "
                f"{method.runs[0].folder} of {len(there)}; {counted(len(here - there), 'is', 'are')} "
                f"missing there and {len(there - here)} here, e.g. {', '.join(sorted(here ^ there)[:3])}. "
                "Score both on the same images."
            )
