"""What is said of an evaluation, computed from its rows and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from skinseg.counting import counted
from skinseg.data.diagnoses import DIAGNOSES
from skinseg.scoring.calibration import reliability
from skinseg.scoring.metrics import HEADLINE, METRICS, PENALTY, no_interval, with_penalties, within_bounds
from skinseg.scoring.statistics import LEAST_LESIONS, cluster_intervals
from skinseg.scoring.strata import STRATA


def estimates(
    table: pd.DataFrame, metrics: Sequence[str], *, draws: int, level: float, seed: int
) -> dict[str, dict[str, Any]]:
    """Averages scores over images, with intervals by lesion.

    Args:
        table: A row per image: group and the metrics.
        metrics: Which ones.
        draws: Number of resamples of the bootstrap.
        level: Coverage of the intervals.
        seed: Seed of the resampling.

    Returns:
        By metric: mean, low, high (None where there is none), no_interval (see `no_interval`), n, undefined,
        median, q1, q3.
    """
    values = table[list(metrics)].to_numpy(dtype=float)
    lesions, least = table["group"].to_numpy(dtype=str), [METRICS[name].least_lesions for name in metrics]
    found = within_bounds(
        cluster_intervals(values, lesions, draws=draws, level=level, least=least, seed=seed), metrics
    )
    quartiles = table[list(metrics)].quantile([0.25, 0.5, 0.75]).to_numpy()
    return {
        metric: {
            "mean": _plain(found.mean[k]),
            "low": _plain(found.low[k]),
            "high": _plain(found.high[k]),
            "no_interval": no_interval(metric, int(found.lesions[k]), found.low[k]),
            "n": int(found.images[k]),
            "undefined": len(table) - int(found.images[k]),
            "q1": _plain(quartiles[0, k]),
            "median": _plain(quartiles[1, k]),
            "q3": _plain(quartiles[2, k]),
        }
        for k, metric in enumerate(metrics)
    }


def by_strata(
    table: pd.DataFrame, user: pd.DataFrame | None, *, draws: int, level: float, seed: int
) -> list[dict[str, Any]]:
    """Averages scores within strata.

    Args:
        table: A row per image with the label columns that `strata` adds.
        user: Further label columns by image_id. None: there are none.
        draws: Number of resamples of the bootstrap.
        level: Coverage of the intervals.
        seed: Seed of the resampling.

    Returns:
        For each column with two values or more: column, label, note, rows (value, images, lesions, small,
        and the scores of `HEADLINE` that the table has). Columns of a single value say nothing and are left
        out.
    """
    columns = [(s.column, s.label[0].upper() + s.label[1:], s.note) for s in STRATA if s.column in table]
    if user is not None:
        own = [column for column in user.columns if column != "image_id"]
        clear = {column: f"user_{column}" for column in own if column in table}
        user = user.rename(columns=clear)
        table = table.merge(user, on="image_id", how="left")
        columns += [(clear.get(column, column), column, "") for column in own]
    metrics = [name for name in HEADLINE if name in table]
    kept = ("mean", "low", "high", "no_interval", "n", "undefined")
    result = []
    for column, label, note in columns:
        labels = table[column].astype(object).where(table[column].notna(), "unknown")
        order = (
            list(table[column].cat.categories)
            if isinstance(table[column].dtype, pd.CategoricalDtype)
            else sorted(labels.unique(), key=str)
        )
        order += [value for value in labels.unique() if value not in order]
        present = [value for value in order if (labels == value).any()]
        if len(present) < 2:
            continue
        rows = []
        for value in present:
            part = table[labels == value]
            lesions = int(part["group"].nunique())
            scores = estimates(part, metrics, draws=draws, level=level, seed=seed)
            rows.append(
                {
                    "value": _diagnosis(str(value)) if column == "stratum_diagnosis" else str(value),
                    "images": len(part),
                    "lesions": lesions,
                    "small": lesions < LEAST_LESIONS,
                    "scores": {metric: {key: score[key] for key in kept} for metric, score in scores.items()},
                }
            )
        result.append({"column": column, "label": label, "note": note, "rows": rows})
    return result


def _diagnosis(code: str) -> str:
    return f"{DIAGNOSES[code]} ({code})" if code in DIAGNOSES else code


def calibration(counts: NDArray[np.float64] | None) -> dict[str, Any] | None:
    """Returns the reliability diagram's bins, each image with the same weight, and their error."""
    if counts is None:
        return None
    bins, error = reliability(counts)
    rows = [{key: _plain(value) for key, value in row.items()} for row in bins.to_dict("records")]
    return {"ece": error, "bins": rows}


def describe_interval(
    level: float, draws: int, lesions: int, *, least: int = LEAST_LESIONS, trainings: bool = False
) -> str:
    """Says what kind of interval is given, of one training or of several.

    Args:
        level: Coverage.
        draws: Number of resamples of the bootstrap.
        lesions: Number of lesions.
        least: Smallest number of lesions of which one is given; see `Metric.least_lesions`.
        trainings: Whether there are several.
    """
    if lesions < least:
        return f"no intervals: {counted(lesions, 'lesion')}, and {least:,} are the least"
    spread = ", with the spread between runs" if trainings else ""
    text = f"{100 * level:g} % bootstrap-t over {lesions:,} lesions, {draws:,} draws{spread}"
    return f"{text}; none of fewer than {least:,} lesions"


def describe_metrics(names: Sequence[str]) -> dict[str, dict[str, str]]:
    """Returns label, unit, direction and definition of metrics, for a report."""
    return {name: vars(METRICS[name]) for name in names}


def learning_curves(run_dir: Path | None) -> dict[str, list[list[float]]] | None:
    """Reads the curves of the run's metrics.csv, epochs counted from 0 as there; None where there is none."""
    path = None if run_dir is None else run_dir / "metrics.csv"
    if path is None or not path.is_file():
        return None
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError):
        return None
    wanted = [column for column in ("train/loss", "val/loss", "val/dice") if column in table]
    if "epoch" not in table:
        return None
    trained = table.dropna(subset=["train/loss"])["epoch"].max() if "train/loss" in table else np.inf
    # The best weights are validated once more at the end; that row is of no epoch of its own.
    table = table[table["epoch"] <= trained]
    curves = {}
    for column in wanted:
        points = table[["epoch", column]].dropna().drop_duplicates("epoch")
        curves[column] = [[float(epoch), float(value)] for epoch, value in points.to_numpy()]
    return {column: points for column, points in curves.items() if points} or None


def ceiling(pairs: pd.DataFrame, scores: pd.DataFrame) -> dict[str, Any] | None:
    """Sets the agreement of annotators beside the model's scores on the same images.

    Args:
        pairs: A row per image and pair of annotators, as `skinseg.data.audit.agreement` returns them.
        scores: A row per scored image.

    Returns:
        text and rows (metric, annotators, model, images); None where no scored image has two masks.
        An undefined distance counts as in `with_penalties`, for the annotators and for the model.
    """
    pairs = pairs[pairs["image_id"].isin(scores["image_id"])] if len(pairs) else pairs
    if not len(pairs):
        return None
    metrics = [metric for metric in METRICS if metric in pairs and metric in scores]
    # Beside each other both are means over all of the images.
    pairs, scores = with_penalties(pairs), with_penalties(scores)
    people = pairs.groupby("image_id")[metrics].mean()
    model = scores.set_index("image_id").loc[people.index, metrics]
    rows = [
        {
            "metric": metric,
            "annotators": _plain(people[metric].mean()),
            "model": _plain(model[metric].mean()),
            "images": int((people[metric].notna() & model[metric].notna()).sum()),
        }
        for metric in metrics
    ]
    text = (
        f"{counted(len(people), 'of the scored images has', 'of the scored images have')} several masks. "
        "Annotators: mean over pairs, then images; model: against the mask in use. An image without a "
        f"distance counts as {PENALTY}."
    )
    return {"text": text, "rows": rows}


def _plain(value: Any) -> Any:
    if isinstance(value, (float, np.floating)):
        return None if np.isnan(value) else float(value)
    return value.item() if isinstance(value, np.generic) else value


def weakest(strata: Sequence[Mapping[str, Any]], mean: float, metric: str = "dice") -> list[dict[str, Any]]:
    """Returns the strata whose interval lies below the overall mean, worst first, small ones left out."""
    found = [
        {"label": stratum["label"], **row}
        for stratum in strata
        for row in stratum["rows"]
        if not row["small"]
        and row["scores"][metric]["high"] is not None
        and row["scores"][metric]["high"] < mean
    ]
    return sorted(found, key=lambda row: row["scores"][metric]["mean"])


def interval_text(metric: str, score: Mapping[str, Any]) -> str:
    """Writes the interval of a score, or why there is none.

    Args:
        metric: A key of `METRICS`.
        score: One of what `estimates` returned.
    """
    ends = [score["low"], score["high"]]
    if None in ends:
        return score["no_interval"] or "not available"
    return " to ".join(map(METRICS[metric].text, ends))


def weaker(evaluation: Mapping[str, Any], most: int = 5) -> list[str]:
    """Says for whom a network is worse than on the whole, a line for each of the worst strata.

    Args:
        evaluation: The content of `evaluation.json`.
        most: Number of lines.
    """
    lines = []
    for row in weakest(evaluation["strata"], evaluation["scores"]["dice"]["mean"])[:most]:
        score = row["scores"]["dice"]
        lines.append(
            f"Weaker for {row['label'].lower()} {row['value']}: Dice {score['mean']:.4f} "
            f"({score['low']:.4f} to {score['high']:.4f}), {counted(row['images'], 'image')}"
        )
    return lines
