"""Runs of one method, which may be compared with others on the same images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from skinseg.counting import counted
from skinseg.errors import SkinsegError
from skinseg.evaluation.runs import ScoredRun, how_to_evaluate
from skinseg.scoring.metrics import METRICS, within_bounds
from skinseg.scoring.resampling import Estimates
from skinseg.scoring.statistics import cluster_intervals, run_intervals


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
                "checkpoints or thresholds would be chosen on the test subset. Leave one out; choose on "
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
    "side": "subsets",
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
