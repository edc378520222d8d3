"""The page of a comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from skinseg.counting import counted
from skinseg.report import figures, wording
from skinseg.report.page import (
    GalleryImage,
    column_of,
    definitions_of,
    dot_row,
    estimate,
    finite_or_none,
    gallery_part,
    listed,
    render,
    sort_value,
)

_COST = (
    ("members", "Networks", wording.count),
    ("parameters", "Parameters", wording.millions),
    ("gflops", "GFLOPs an image", lambda value: wording.rounded(value, 1)),
    ("images_per_second", "Images a second", lambda value: wording.rounded(value, 1)),
    ("training_steps", "Steps", wording.count),
    ("training_seconds", "Training", wording.duration),
)


def comparison_page(comparison: Mapping[str, Any], gallery: Sequence[GalleryImage]) -> str:
    """Writes the page about a comparison of runs.

    Args:
        comparison: The content of its JSON file. `runs` holds each `difference` as the run minus the best.
        gallery: Photographs with the outlines of the runs, in the order of the page.

    Returns:
        The whole HTML, which is the same for the same arguments.
    """
    metrics = comparison["metrics"]
    main = comparison["metric"]
    about = column_of(main, metrics)
    unit = about["unit"]
    runs = sorted(comparison["runs"], key=lambda run: (run.get("rank") is None, run.get("rank") or 0))
    best = next((run["name"] for run in runs if run.get("difference") is None), None)
    keys = [key for key in metrics if any(key in run["scores"] for run in runs)]
    images = comparison.get("images")
    return render(
        "comparison.html.j2",
        comparison,
        verdict=comparison.get("verdict") or "",
        metric=about,
        test=comparison.get("test") or "",
        interval=comparison.get("interval") or "",
        best=best,
        trainings=sum(run.get("members") or 1 for run in runs),
        runs=[_run_row(run, main, unit, images) for run in runs],
        score_columns=[column_of(key, metrics) for key in keys],
        score_rows=[
            (run["name"], [estimate(run["scores"].get(key), metrics[key]["unit"], images) for key in keys])
            for run in runs
        ],
        definitions=definitions_of(metrics, keys),
        cost_columns=[label for key, label, _ in _COST if any(_known(run, key) for run in runs)],
        cost_rows=[
            (
                run["name"],
                [
                    {"text": write(run.get(key)), "value": sort_value(run.get(key))}
                    for key, _, write in _COST
                    if any(_known(other, key) for other in runs)
                ],
            )
            for run in runs
        ],
        forest=_forest(runs, about, best),
        means=_means(runs, main, about),
        differ=_differ(listed(comparison, "differ"), unit),
        settings=listed(comparison, "settings"),
        gallery=gallery_part(gallery, metrics, unit),
    )


def _known(run: Mapping[str, Any], key: str) -> bool:
    return run.get(key) is not None


def _run_row(run: Mapping[str, Any], main: str, unit: str, images: int | None) -> dict[str, Any]:
    return {
        "name": run["name"],
        "rank": run.get("rank"),
        "members": run.get("members") or 1,
        "stamps": listed(run, "stamps"),
        "best": run.get("difference") is None,
        "mean": estimate(run["scores"].get(main), unit, images),
        "difference": estimate(run.get("difference"), unit, signed=True),
        "numbers": [
            {"text": write(run.get(key)), "value": sort_value(run.get(key))}
            for key, write in (
                ("p", wording.p_value),
                ("p_corrected", wording.p_value),
                ("wilcoxon", wording.p_value),
                ("effect_size", lambda value: wording.rounded(value, 3, signed=True)),
                ("won", wording.percent),
            )
        ],
    }


def _forest(runs: Sequence[Mapping[str, Any]], about: Mapping[str, Any], best: str | None) -> Markup | None:
    """Draws the differences to the best run; one that may be zero is grey and hollow."""
    rows = []
    for run in runs:
        difference = run.get("difference")
        if difference is None:
            continue
        mean, low, high = (finite_or_none(difference.get(key)) for key in ("mean", "low", "high"))
        reaches = low is not None and high is not None and low <= 0 <= high
        rows.append(figures.Row(run["name"], mean, low, high, faint=reaches))
    if not rows:
        return None
    apart = sum(row.low is not None and not row.faint for row in rows)
    says = f"Difference in {about['label']} of {counted(len(rows), 'run')} to {best or 'the best'}"
    if any(row.low is not None for row in rows):
        says += f", with intervals: {apart} of them lie wholly on one side of zero."
    else:
        says += "; none has an interval."
    return figures.intervals(
        "forest", rows, axis=f"difference in {about['titled']}", says=says, reference=0.0
    )


def _means(runs: Sequence[Mapping[str, Any]], main: str, about: Mapping[str, Any]) -> Markup | None:
    rows = [dot_row(run["name"], run["scores"].get(main)) for run in runs]
    told = [f"{row.label} {wording.number(row.mean, about['unit'])}" for row in rows if row.mean is not None]
    if not told:
        return None
    says = f"Mean {about['label']} of {counted(len(told), 'run')} with intervals: {', '.join(told)}."
    return figures.intervals("means", rows, axis=f"mean {about['titled']}", says=says)


def _differ(rows: Sequence[Mapping[str, Any]], unit: str) -> dict[str, Any] | None:
    if not rows:
        return None
    names = list(dict.fromkeys(name for row in rows for name in row.get("values") or {}))
    return {
        "names": names,
        "head": f"{names[1]} minus {names[0]}" if len(names) > 1 else "Difference",
        "rows": [
            {
                "image_id": row["image_id"],
                "cells": [
                    {"text": wording.number(value, unit), "value": sort_value(value)}
                    for value in ((row.get("values") or {}).get(name) for name in names)
                ],
                "difference": {
                    "text": wording.number(row.get("difference"), unit, signed=True),
                    "value": sort_value(row.get("difference")),
                },
            }
            for row in rows
        ],
    }
