"""Runs side by side: which is best, and whether that could be chance."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from skinseg import __version__
from skinseg.errors import SkinsegError
from skinseg.evaluation.content import describe_metrics
from skinseg.scoring.metrics import HEADLINE, METRICS
from skinseg.scoring.statistics import (
    Estimates,
    PairedResult,
    cluster_intervals,
    holm,
    paired_runs,
    paired_test,
    run_intervals,
)

_DEEPEST = 3


@dataclass(frozen=True)
class ScoredRun:
    """One network's scores on a side.

    Attributes:
        folder: Of the evaluation, or of the run that scored its own test side.
        name: Of the run.
        identity: side, split, data (None: truth not named), method, seed, fold.
        table: A row per image: image_id, group and metrics, sorted by image_id.
        cost: parameters, gflops, images_per_second, training_seconds; what is not known is missing.
        stamps: What stands beside its scores.
    """

    folder: Path
    name: str
    identity: Mapping[str, Any]
    table: pd.DataFrame
    cost: Mapping[str, float]
    stamps: Sequence[str]


@dataclass(frozen=True)
class Method:
    """Runs of one method, which differ by seed or fold alone.

    Attributes:
        name: For people; no two methods of a comparison bear the same.
        runs: The runs.
    """

    name: str
    runs: Sequence[ScoredRun]

    @property
    def folds(self) -> bool:
        """Whether the runs were tested on different images."""
        return len(self.runs) > 1 and set(self.runs[0].table["image_id"]) != set(
            self.runs[1].table["image_id"]
        )

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row per image, the mean over seeds; image_id is the index."""
        rows = pd.concat([run.table for run in self.runs])
        metrics = [name for name in METRICS if name in rows]
        means = rows.groupby("image_id")[metrics].mean()
        return means.assign(group=rows.drop_duplicates("image_id").set_index("image_id")["group"])

    def estimates(self, metrics: Sequence[str], *, draws: int, level: float, seed: int) -> Estimates:
        """Means with intervals; of several runs the spread between them is part of it."""
        tables = [run.table for run in self.runs]
        values = [table[list(metrics)].to_numpy(dtype=float) for table in tables]
        lesions = [table["group"].to_numpy(dtype=str) for table in tables]
        if len(tables) == 1:
            return cluster_intervals(values[0], lesions[0], draws=draws, level=level, seed=seed)
        found = run_intervals(values, lesions, draws=draws, level=level, seed=seed)
        # Student's t knows no bounds: of two seeds that differ much it reaches beyond what a score can be.
        lowest = np.array([METRICS[name].lowest for name in metrics])
        highest = np.array([METRICS[name].highest for name in metrics])
        return replace(found, low=np.maximum(found.low, lowest), high=np.minimum(found.high, highest))


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
                "it, or in folders below. Evaluate it first: python -m skinseg.evaluate ckpt=<best.ckpt>"
            )
        found += below
    resolved = [folder.resolve() for folder in found]
    for folder in resolved:
        if resolved.count(folder) > 1:
            raise SkinsegError(f"runs: {folder} is named more than once.")
    return found


def _scored_below(folder: Path, depth: int) -> Iterable[Path]:
    if (folder / "scores.csv").is_file() and any(
        (folder / name).is_file() for name in ("evaluation.json", "summary.json")
    ):
        yield folder
    elif depth:
        for child in sorted(folder.iterdir(), key=lambda path: (len(path.name), path.name)):
            if child.is_dir() and not child.name.startswith("."):
                yield from _scored_below(child, depth - 1)


def load_run(folder: Path) -> ScoredRun:
    """Reads the scores of an evaluation or a run.

    Raises:
        SkinsegError: A file cannot be read or lacks what is needed.
    """
    name = "evaluation.json" if (folder / "evaluation.json").is_file() else "summary.json"
    try:
        record = json.loads((folder / name).read_text(encoding="utf-8"))
        table = pd.read_csv(folder / "scores.csv", dtype={"image_id": str, "group": str})
        stamps = record["stamps"] if name == "evaluation.json" else record["protocol"]["stamps"]
        return ScoredRun(
            folder=folder,
            name=record["name"],
            identity=record["identity"],
            table=table.sort_values("image_id", ignore_index=True),
            cost=record["costs"],
            stamps=stamps,
        )
    except KeyError as error:
        raise SkinsegError(
            f"runs: {folder / name} lacks {error}; it was written by an earlier skinseg. Evaluate the "
            f"checkpoint: python -m skinseg.evaluate ckpt={folder / 'checkpoints' / 'best.ckpt'}"
        ) from error
    except (OSError, ValueError) as error:
        raise SkinsegError(f"runs: {folder} cannot be read ({error}).") from error


def methods_of(runs: Sequence[ScoredRun], *, pool: bool) -> list[Method]:
    """Puts runs of one method together.

    Args:
        runs: At least two.
        pool: Take runs that differ by seed or fold alone for one method. False: each run stands for itself.

    Returns:
        The methods, each with another name.

    Raises:
        SkinsegError: Two runs are of one method, seed and fold; or the methods were not scored on the same
            images of the same split.
    """
    groups: dict[str, list[ScoredRun]] = {}
    for number, run in enumerate(runs):
        groups.setdefault(run.identity["method"] if pool else str(number), []).append(run)
    for members in groups.values():
        seen: dict[tuple[Any, Any], ScoredRun] = {}
        for run in members:
            other = seen.setdefault((run.identity["seed"], run.identity["fold"]), run)
            if other is not run:
                raise SkinsegError(
                    f"runs: {other.folder} and {run.folder} are of one method and one seed, so they are no "
                    "two trainings. Leave one out, or set pool=false to compare all runs one by one."
                )
        _check_members(members)
    methods = [
        Method(name, members)
        for name, members in zip(_names(list(groups.values())), groups.values(), strict=True)
    ]
    _check_same_images(methods)
    return methods


def _names(groups: Sequence[Sequence[ScoredRun]]) -> list[str]:
    names = [members[0].name for members in groups]
    folders = [members[0].folder for members in groups]
    return [
        name if names.count(name) == 1 else f"{name} ({folder.parent.name}/{folder.name})"
        for name, folder in zip(names, folders, strict=True)
    ]


def _check_members(members: Sequence[ScoredRun]) -> None:
    images = [set(run.table["image_id"]) for run in members]
    if (
        len(members) > 1
        and any(one != images[0] for one in images)
        and sum(map(len, images)) > len(set().union(*images))
    ):
        listed = ", ".join(
            f"{run.folder} ({len(ids)} images)" for run, ids in zip(members, images, strict=True)
        )
        raise SkinsegError(
            f"runs: these are of one method but were scored on images that overlap in part: {listed}. Seeds "
            "need the same images, folds different ones."
        )


def _check_same_images(methods: Sequence[Method]) -> None:
    first = methods[0]
    for key, what in (("split", "splits"), ("data", "images or true masks"), ("side", "sides")):
        marks = [{run.identity[key] for run in method.runs} for method in methods]
        if key == "data" and any(None in mark for mark in marks):
            continue
        for method, mark in zip(methods, marks, strict=True):
            if mark != marks[0]:
                found = " and ".join(", ".join(sorted(map(str, names))) for names in (marks[0], mark))
                raise SkinsegError(
                    f"runs: {first.runs[0].folder} and {method.runs[0].folder} were scored on different "
                    f"{what} ({found}): their difference would be that of the images. Score both on the "
                    "same ones."
                )
    for method in methods[1:]:
        here, there = set(first.table.index), set(method.table.index)
        if here != there:
            raise SkinsegError(
                f"runs: {first.runs[0].folder} has scores of {len(here)} images and "
                f"{method.runs[0].folder} of {len(there)}; {len(here - there)} are missing there and "
                f"{len(there - here)} here, e.g. {', '.join(sorted(here ^ there)[:3])}. Score both on the "
                "same images."
            )


@dataclass(frozen=True)
class Comparison:
    """Methods ranked by a metric, each compared with the best.

    Attributes:
        methods: At least two, in any order.
        metric: What ranks them.
        draws: Of tests and intervals.
        level: Of intervals.
        seed: Of the draws.
    """

    methods: Sequence[Method]
    metric: str
    draws: int
    level: float
    seed: int

    @cached_property
    def metrics(self) -> list[str]:
        """What all methods were scored by, of those that a report shows first."""
        tables = [method.table for method in self.methods]
        names = list(dict.fromkeys([self.metric, *HEADLINE]))
        return [name for name in names if all(name in table for table in tables)]

    @cached_property
    def ranked(self) -> list[Method]:
        """The methods, best first."""
        sign = 1 if METRICS[self.metric].better == "higher" else -1
        return sorted(self.methods, key=lambda method: -sign * float(self._value(method)))

    def _value(self, method: Method) -> float:
        mean = float(method.table[self.metric].mean())
        return abs(mean) if METRICS[self.metric].better == "zero" else mean

    @cached_property
    def tests(self) -> list[PairedResult]:
        """Of each method but the best: best minus this one."""
        best = self.ranked[0]
        return [self._paired(best, method) for method in self.ranked[1:]]

    def _paired(self, best: Method, other: Method) -> PairedResult:
        ids = best.table.index
        lesions = best.table["group"].to_numpy(dtype=str)
        how: dict[str, Any] = {"draws": self.draws, "level": self.level, "seed": self.seed}
        pair = (best, other)
        if all(len(method.runs) == 1 or method.folds for method in pair):
            a, b = (method.table.loc[ids, self.metric].to_numpy() for method in pair)
            return paired_test(a, b, lesions, **how)
        by_run = [
            [run.table.set_index("image_id").loc[ids, self.metric].to_numpy() for run in method.runs]
            for method in pair
        ]
        return paired_runs(by_run[0], by_run[1], lesions, **how)

    @cached_property
    def differ(self) -> pd.DataFrame:
        """Images by how much the best two differ: image_id, difference, and a column per method."""
        values = pd.DataFrame({method.name: method.table[self.metric] for method in self.ranked})
        difference = values.iloc[:, 0] - values.iloc[:, 1]
        table = values.assign(difference=difference).dropna(subset=["difference"])
        order = table["difference"].abs().sort_values(ascending=False, kind="stable").index
        return table.loc[order, ["difference", *values.columns]].reset_index()

    @cached_property
    def content(self) -> dict[str, Any]:
        """The content of `comparison.json`, which the report shows."""
        first = self.ranked[0]
        corrected = holm([result.p for result in self.tests])
        lesions = first.table["group"].nunique()
        run = first.runs[0]
        seeds = any(len(m.runs) > 1 and not m.folds for m in self.methods)
        test = "bootstrap of lesions and seeds where there are several seeds, else " if seeds else ""
        test += f"permutation test by lesion, {self.draws:,} draws"
        test += f", Holm over {len(self.tests)} comparisons" if len(self.tests) > 1 else ""
        return {
            "kind": "comparison",
            "title": f"{len(self.methods)} methods by {METRICS[self.metric].label}",
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "skinseg": __version__,
            "stamps": list(dict.fromkeys(s for m in self.methods for r in m.runs for s in r.stamps)),
            "metric": self.metric,
            "metrics": describe_metrics(self.metrics),
            "test": test,
            "interval": f"{100 * self.level:g} %, bootstrap over {lesions:,} lesions, {self.draws:,} draws"
            + (", with the spread between runs" if any(len(m.runs) > 1 for m in self.methods) else ""),
            "images": len(first.table),
            "lesions": int(lesions),
            "protocol": [
                ["Images", f"{len(first.table):,} of {lesions:,} lesions: the {run.identity['side']} side"],
                ["Split", ", ".join(sorted({str(r.identity["split"]) for r in first.runs}))],
                ["Data fingerprint", ", ".join(sorted({str(r.identity["data"]) for r in first.runs}))],
                ["Averaging", "per image at its own size, mean over images; differences image by image"],
            ],
            "runs": [
                self._entry(rank, method, corrected) for rank, method in enumerate(self.ranked, start=1)
            ],
            "differ": [
                {
                    "image_id": row["image_id"],
                    "difference": row["difference"],
                    "values": {method.name: row[method.name] for method in self.ranked},
                }
                for row in self.differ.head(50).to_dict("records")
            ],
            "verdict": self._verdict(corrected),
        }

    def _entry(self, rank: int, method: Method, corrected: NDArray[np.float64]) -> dict[str, Any]:
        found = method.estimates(self.metrics, draws=self.draws, level=self.level, seed=self.seed)
        test = self.tests[rank - 2] if rank > 1 else None
        costs = pd.DataFrame([dict(run.cost) for run in method.runs]).mean() if method.runs else pd.Series()
        difference = None
        if test is not None:
            # Shown as this method minus the best, which is how a ranked table is read.
            difference = {"mean": -test.mean, "low": -test.high, "high": -test.low}
        return {
            "name": method.name,
            "rank": rank,
            "members": len(method.runs),
            "folders": [str(run.folder) for run in method.runs],
            "scores": {
                name: {"mean": found.mean[k], "low": found.low[k], "high": found.high[k]}
                for k, name in enumerate(self.metrics)
            },
            "difference": difference,
            "p": None if test is None else test.p,
            "p_corrected": None if test is None else float(corrected[rank - 2]),
            "wilcoxon": None if test is None else test.wilcoxon,
            "effect_size": None if test is None else -test.effect_size,
            "won": None if test is None else 1 - test.won - test.tied,
            **{
                key: costs.get(key)
                for key in ("parameters", "gflops", "images_per_second", "training_seconds")
            },
            "stamps": list(dict.fromkeys(stamp for run in method.runs for stamp in run.stamps)),
        }

    def _verdict(self, corrected: NDArray[np.float64]) -> str:
        label = METRICS[self.metric].label
        best = self.ranked[0].name
        behind = [m.name for m, p in zip(self.ranked[1:], corrected, strict=True) if p <= 1 - self.level]
        open_ = [m.name for m in self.ranked[1:] if m.name not in behind]
        if np.isnan(corrected).all():
            return f"{best} has the best {label}; there are too few lesions to say more."
        if not behind:
            return f"{best} has the best {label}, and none of the others is shown to be worse."
        text = f"{best} has the best {label}; shown to be worse: {', '.join(behind)}."
        if open_:
            text += f" Not shown to be worse: {', '.join(open_)}."
        if all(len(method.runs) == 1 for method in self.methods):
            text += " Each was trained once: this holds for these networks, not yet for their methods."
        return text
