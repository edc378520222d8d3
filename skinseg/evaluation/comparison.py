"""Methods side by side: which is best, and whether that could be chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from skinseg import __version__
from skinseg.counting import counted
from skinseg.errors import SkinsegError
from skinseg.evaluation.content import describe_interval, describe_metrics
from skinseg.evaluation.methods import Method
from skinseg.evaluation.runs import how_to_evaluate
from skinseg.run.identity import method_settings
from skinseg.scoring.metrics import HEADLINE, METRICS, PENALTY, no_interval
from skinseg.scoring.statistics import PairedResult, holm, paired_folds, paired_runs, paired_test


@dataclass(frozen=True)
class Comparison:
    """Methods ranked by a metric, each compared with the best; or the one method that several runs are of.

    Attributes:
        methods: At least one, in any order, as `methods_of` returns them.
        metric: What ranks them; of its values the greatest or the least is best.
        draws: Number of resamples of intervals, and of random signs of tests.
        level: Coverage of intervals.
        seed: Seed of the resampling.

    Raises:
        SkinsegError: The metric has no best value but zero, is not there for all, or has no value on any
            image.
    """

    methods: Sequence[Method]
    metric: str
    draws: int
    level: float
    seed: int

    def __post_init__(self) -> None:
        if METRICS[self.metric].better == "zero":
            raise SkinsegError(f"metric={self.metric}: its sign says which way; rank by area_error.")
        for method in self.methods:
            if self.metric not in method.table:
                raise SkinsegError(
                    f"runs: {method.runs[0].folder} has no {self.metric}; an earlier version's training "
                    "scored overlap alone, masks have no probabilities. Evaluate its checkpoint: "
                    + how_to_evaluate(method.runs[0].folder)
                )
        if self.methods[0].table[self.metric].isna().all():
            raise SkinsegError(
                f"metric={self.metric} is defined on no image: all true masks are empty. Take another metric."
            )

    @cached_property
    def metrics(self) -> list[str]:
        """What all methods were scored by, of those that a report shows first."""
        tables = [method.table for method in self.methods]
        names = list(dict.fromkeys([self.metric, *HEADLINE]))
        return [name for name in names if all(name in table for table in tables)]

    @property
    def sign(self) -> int:
        """1 where greater is better, else -1."""
        return 1 if METRICS[self.metric].better == "higher" else -1

    @cached_property
    def ranked(self) -> list[Method]:
        """The methods, best first."""
        return sorted(self.methods, key=lambda m: -self.sign * float(m.table[self.metric].mean()))

    @cached_property
    def tests(self) -> list[PairedResult]:
        """Of each method but the best: best minus this one."""
        best = self.ranked[0]
        return [self._paired(best, method) for method in self.ranked[1:]]

    @cached_property
    def corrected(self) -> NDArray[np.float64]:
        """The tests' p, corrected for all pairs: the best was found on the same images."""
        return holm([result.p for result in self.tests], comparisons=self._pairs)

    @property
    def _pairs(self) -> int:
        return len(self.methods) * (len(self.methods) - 1) // 2

    def _paired(self, best: Method, other: Method) -> PairedResult:
        least = METRICS[self.metric].least_lesions
        how: dict[str, Any] = {"draws": self.draws, "level": self.level, "seed": self.seed, "least": least}
        pair = (best, other)
        if best.folds or other.folds:
            parts = [table.index for table in best.trainings]
            values = [[method.table.loc[ids, self.metric].to_numpy() for ids in parts] for method in pair]
            lesions = [best.table.loc[ids, "group"].to_numpy(dtype=str) for ids in parts]
            return paired_folds(values[0], values[1], lesions, **how)
        ids = best.table.index
        groups = best.table["group"].to_numpy(dtype=str)
        by_run = [[table.loc[ids, self.metric].to_numpy() for table in m.trainings] for m in pair]
        if all(len(runs) == 1 for runs in by_run):
            return paired_test(by_run[0][0], by_run[1][0], groups, **how)
        return paired_runs(by_run[0], by_run[1], groups, **how)

    @cached_property
    def differ(self) -> pd.DataFrame:
        """Images by how much the best two differ: image_id, difference, and a column per method.

        As in the ranking a difference is the second one minus the best. Of one method it is empty.
        """
        values = pd.DataFrame({method.name: method.table[self.metric] for method in self.ranked})
        if len(self.ranked) == 1:
            return values.assign(difference=np.nan).iloc[:0, ::-1].reset_index()
        difference = values.iloc[:, 1] - values.iloc[:, 0]
        table = values.assign(difference=difference).dropna(subset=["difference"])
        order = table["difference"].abs().sort_values(ascending=False, kind="stable").index
        return table.loc[order, ["difference", *values.columns]].reset_index()

    @cached_property
    def content(self) -> dict[str, Any]:
        """The content of `comparison.json`, which the report shows."""
        first = self.ranked[0]
        lesions = first.table["group"].nunique()
        splits = sorted({str(run.identity["split"]) for run in first.runs})
        # Masks of any program need not be of a subset of anything.
        subset = f": the {first.runs[0].identity['side']} subset" if self._trained else ""
        return {
            "kind": "comparison",
            "title": f"{len(self.methods)} methods by {METRICS[self.metric].label}"
            if len(self.methods) > 1
            else f"{first.name}: {len(first.runs)} trainings",
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "skinseg": __version__,
            "stamps": self._stamps(),
            "metric": self.metric,
            "metrics": describe_metrics(self.metrics),
            "test": self._test(),
            "interval": describe_interval(
                self.level,
                self.draws,
                lesions,
                least=METRICS[self.metric].least_lesions,
                trainings=any(len(m.runs) > 1 for m in self.methods),
            ),
            "images": len(first.table),
            "lesions": int(lesions),
            "protocol": [
                ["Images", f"{len(first.table):,} of {counted(lesions, 'lesion')}{subset}"],
                ["Split" if subset else "Set of images", ", ".join(splits)],
                ["Data fingerprint", self._data()],
                ["Averaging", "per image at its own size, mean over images; differences image by image"],
                *([["Undefined", self._penalty(*self.metrics)]] if self._penalty(*self.metrics) else []),
                *self._budget(),
            ],
            "runs": [self._entry(rank, method) for rank, method in enumerate(self.ranked, start=1)],
            "differ": [
                {
                    "image_id": row["image_id"],
                    "difference": row["difference"],
                    "values": {method.name: row[method.name] for method in self.ranked},
                }
                for row in self.differ.head(50).to_dict("records")
            ],
            "settings": self._settings(),
            "verdict": self._verdict(),
        }

    @property
    def _trained(self) -> bool:
        """Whether all runs are of networks, of which the training is known; masks may be anybody's."""
        return all(run.config is not None for method in self.methods for run in method.runs)

    def _data(self) -> str:
        known = {
            str(m) for method in self.methods for r in method.runs if (m := r.identity["data"]) is not None
        }
        some = any(r.identity["data"] is None for method in self.methods for r in method.runs)
        text = ", ".join(sorted(known))
        unknown = "not known of runs that were not evaluated: their true masks were not compared"
        return "; ".join(part for part in (text, unknown if some else "") if part)

    def _budget(self) -> list[list[str]]:
        """Whether all were trained for as long, where that is known."""
        steps = [run.cost.get("training_steps") for method in self.methods for run in method.runs]
        known = [int(number) for number in steps if number is not None]
        if len(known) < len(steps):
            return []
        least, most = min(known), max(known)
        if least == most:
            return [["Budget", f"{least:,} steps for every training"]]
        return [["Budget", f"not equal: trainings of {least:,} to {most:,} steps"]]

    def _settings(self) -> list[dict[str, Any]]:
        """Keys of the configuration that differ between methods, with each one's value."""
        flat = {m.name: _flat(method_settings(m.runs[0].config)) for m in self.ranked if m.runs[0].config}
        keys = dict.fromkeys(key for values in flat.values() for key in values)
        return [
            {"key": key, "values": {name: _word(values, key) for name, values in flat.items()}}
            for key in keys
            if len({_word(values, key) for values in flat.values()}) > 1
        ]

    def _stamps(self) -> list[str]:
        stamps = [stamp for method in self.methods for run in method.runs for stamp in run.stamps]
        if penalty := self._penalty(self.metric):
            stamps.append(f"UNDEFINED: {penalty}")
        table = self.ranked[0].table
        if missing := int(table[self.metric].isna().sum()):
            stamps.append(
                f"LEFT OUT: {missing} of {len(table)} images, whose true mask is empty, "
                f"{'has' if missing == 1 else 'have'} no {METRICS[self.metric].label}"
            )
        return list(dict.fromkeys(stamps))

    def _penalty(self, *metrics: str) -> str:
        """Says on how many images whose distances are undefined, and what they count as; "" where none is."""
        distances = [name for name in metrics if METRICS[name].undefined == "either"]
        images = {m.name: max((len(m.undefined(name)) for name in distances), default=0) for m in self.ranked}
        whose = ", ".join(f"{name} on {number:,}" for name, number in images.items() if number)
        if not whose:
            return ""
        labels = " and ".join(METRICS[name].label for name in distances)
        return (
            f"{labels} without a value, since a mask is empty: {whose} of "
            f"{counted(len(self.ranked[0].table), 'image')}; each counts as {PENALTY}"
        )

    def _test(self) -> str:
        if len(self.methods) == 1:
            return "none; there is one method"
        one = f"permutation test by lesion, {self.draws:,} draws"
        if any(method.folds for method in self.methods):
            one = f"bootstrap of lesions and trainings of the folds, {self.draws:,} draws"
        elif any(len(method.runs) > 1 for method in self.methods):
            one = f"bootstrap of lesions and seeds where there are several seeds, else {one}"
        return one + (f"; Holm over all {self._pairs} pairs" if self._pairs > 1 else "")

    def _entry(self, rank: int, method: Method) -> dict[str, Any]:
        found = method.estimates(self.metrics, draws=self.draws, level=self.level, seed=self.seed)
        test = self.tests[rank - 2] if rank > 1 else None
        costs = pd.DataFrame([dict(run.cost) for run in method.runs]).mean()
        several = any(len(one.trainings) > 1 for one in (method, self.ranked[0]))
        difference = won = None
        if test is not None:
            # Shown as this method minus the best, which is how a ranked table is read.
            difference = {
                "mean": -test.mean,
                "low": -test.high,
                "high": -test.low,
                "no_interval": no_interval(self.metric, test.lesions, test.low),
            }
            won = 1 - test.won - test.tied if self.sign > 0 else test.won
        stamps = list(dict.fromkeys(stamp for run in method.runs for stamp in run.stamps))
        return {
            "name": method.name,
            "rank": rank,
            "members": len(method.runs),
            "folders": [str(run.folder) for run in method.runs],
            "scores": {
                name: {
                    "mean": found.mean[k],
                    "low": found.low[k],
                    "high": found.high[k],
                    "no_interval": no_interval(name, int(found.lesions[k]), found.low[k]),
                    # What the mean is over: also those whose undefined distance counts as a penalty.
                    "n": int(method.table[name].notna().sum()),
                    "undefined": len(method.undefined(name)),
                }
                for k, name in enumerate(self.metrics)
            },
            "difference": difference,
            "p": None if test is None else test.p,
            "p_corrected": None if test is None else float(self.corrected[rank - 2]),
            # Of several trainings it would only ask about these.
            "wilcoxon": None if test is None or several else test.wilcoxon,
            "effect_size": None if test is None else -test.effect_size,
            "won": won,
            **{
                key: costs.get(key)
                for key in ("parameters", "gflops", "images_per_second", "training_steps", "training_seconds")
            },
            "stamps": stamps,
        }

    def _verdict(self) -> str:
        label = METRICS[self.metric].label
        best = self.ranked[0].name
        if len(self.methods) == 1:
            return self._alone()
        behind = [m.name for m, p in zip(self.ranked[1:], self.corrected, strict=True) if p <= 1 - self.level]
        open_ = [m.name for m in self.ranked[1:] if m.name not in behind]
        counted = self._counted()
        if np.isnan(self.corrected).all():
            return f"{best} has the best {label}; there are too few lesions to say more.{counted}"
        if not behind:
            return f"{best} has the best {label}, and none of the others is shown to be worse.{counted}"
        worse = [self._worse(name) for name in behind]
        text = f"{best} has the best {label}; shown to be worse: {'; '.join(worse)}."
        if open_:
            text += f" Not shown to be worse: {', '.join(open_)}."
        if self._trained and all(len(method.runs) == 1 for method in self.methods):
            text += " Each was trained once: this holds for these networks, not yet for their methods."
        return text + counted

    def _counted(self) -> str:
        return f" An image without a value counts as {PENALTY}." if self._penalty(self.metric) else ""

    def _alone(self) -> str:
        method, metric = self.methods[0], METRICS[self.metric]
        found = method.estimates([self.metric], draws=self.draws, level=self.level, seed=self.seed)
        over = "folds, each image scored by the fold that did not train on it" if method.folds else "seeds"
        interval = f"{metric.text(found.low[0])} to {metric.text(found.high[0])}"
        if np.isnan(found.low[0]):
            interval = self._no_interval(int(found.lesions[0]), found.low[0])
        mean = metric.text(found.mean[0])
        return (
            f"{method.name}: {metric.label} {mean} ({interval}) over {len(method.runs)} trainings: {over}."
            + self._counted()
        )

    def _no_interval(self, lesions: int, low: float) -> str:
        why = no_interval(self.metric, lesions, low)
        return f"no interval: {why}" if why else "too few lesions for an interval"

    def _worse(self, name: str) -> str:
        place = next(k for k, method in enumerate(self.ranked[1:]) if method.name == name)
        test, metric = self.tests[place], METRICS[self.metric]
        if np.isnan(test.low):
            why = self._no_interval(test.lesions, test.low)
            return f"{name}, by {metric.text(abs(test.mean))} ({why})"
        ends = sorted(self.sign * end for end in (test.low, test.high))
        return f"{name}, by {metric.text(abs(test.mean))} ({' to '.join(map(metric.text, ends))})"


def _word(values: dict[str, Any], key: str) -> str:
    """Writes a value as a configuration does; a key that is not there as a dash."""
    if key not in values:
        return "\N{EN DASH}"
    value = values[key]
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _flat(node: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(node, dict) or not node:
        return {path: node}
    return {
        key: value
        for name, child in node.items()
        for key, value in _flat(child, f"{path}.{name}" if path else name).items()
    }
