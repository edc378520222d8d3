"""The page of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np

from skinseg.counting import counted, often
from skinseg.report import figures, wording
from skinseg.report.page import (
    GalleryImage,
    card,
    column_of,
    definitions_of,
    dot_row,
    estimate,
    finite_or_none,
    gallery_part,
    image_table,
    listed,
    main_metric,
    ordered,
    render,
    score_row,
)

if TYPE_CHECKING:
    import pandas as pd

_HISTOGRAMS = 4


def evaluation_page(
    evaluation: Mapping[str, Any], scores: pd.DataFrame, gallery: Sequence[GalleryImage]
) -> str:
    """Writes the page about one evaluation.

    Args:
        evaluation: The content of its JSON file. What is None or missing beside `metrics`, `headline` and
            `scores` is left out, or said to be missing.
        scores: One row an image: `image_id`, any of `group`, `diagnosis` and `dataset`, and the metrics.
        gallery: Photographs with their outlines, in the order of the page.

    Returns:
        The whole HTML, which is the same for the same arguments.
    """
    metrics = evaluation["metrics"]
    headline = [key for key in evaluation["headline"] if key in evaluation["scores"] and key in metrics]
    main = main_metric(metrics, headline)
    limits = _limits(listed(evaluation, "strata"), main)
    strata = [
        _stratum(place, part, metrics, headline, main, limits)
        for place, part in enumerate(listed(evaluation, "strata"))
    ]
    return render(
        "evaluation.html.j2",
        evaluation,
        name=evaluation.get("name") or "",
        cards=[card(key, metrics[key], evaluation["scores"][key]) for key in headline],
        interval=evaluation.get("interval") or "",
        scores=[
            score_row(key, metrics[key], values) for key, values in ordered(evaluation["scores"], metrics)
        ],
        definitions=definitions_of(metrics, evaluation["scores"]),
        distributions=_distributions(scores, metrics, headline),
        strata=strata,
        strata_metrics=[column_of(key, metrics) for key in headline],
        calibration=_calibration(evaluation.get("calibration")),
        curves=_curves(evaluation.get("curves") or {}),
        ceiling=_ceiling(evaluation.get("ceiling"), metrics),
        scorings=_scorings(evaluation.get("scorings")),
        masks=evaluation.get("config") is None,
        gallery=gallery_part(gallery, metrics, ""),
        table=image_table(scores, metrics),
        cost=listed(evaluation, "cost"),
        licences=listed(evaluation, "licences"),
        # "./" and quoting keep "javascript:" and "//host" what they claim to be: names of files.
        files=[(label, path, "./" + quote(path)) for label, path in listed(evaluation, "files")],
    )


def _distributions(
    scores: pd.DataFrame, metrics: Mapping[str, Any], headline: Sequence[str]
) -> list[dict[str, Any]]:
    """Draws how the first headline metrics spread over the images; those of one value each have no spread."""
    drawn: list[dict[str, Any]] = []
    for key in headline:
        if key not in scores.columns or len(drawn) == _HISTOGRAMS:
            continue
        values = scores[key].to_numpy(dtype=np.float64, na_value=np.nan)
        finite = values[np.isfinite(values)]
        if not finite.size:
            continue
        about = column_of(key, metrics)
        unit = about["unit"]
        tail = f" {unit}" if unit else ""
        low, first, middle, third, high = (
            wording.number(float(value), unit) for value in np.quantile(finite, [0, 0.25, 0.5, 0.75, 1])
        )
        says = (
            f"Histogram of {about['label']} over {counted(finite.size, 'image')}: the median is "
            f"{middle}{tail}, half of the images lie between {first} and {third}{tail}, all between {low} "
            f"and {high}{tail}."
        )
        drawn.append(
            {
                "svg": figures.histogram(
                    f"spread-{len(drawn)}", values, axis=about["titled"], unit=unit, says=says
                ),
                "label": about["label"],
                "text": f"Median {middle}{tail}; half of the images between {first} and {third}{tail}; "
                f"lowest {low}, highest {high}.",
                "left_out": int(values.size - finite.size),
            }
        )
    return drawn


def _stratum(
    place: int,
    part: Mapping[str, Any],
    metrics: Mapping[str, Any],
    headline: Sequence[str],
    main: str,
    limits: tuple[float, float] | None,
) -> dict[str, Any]:
    """Returns the figure and the table of the groups that one column makes."""
    about = column_of(main, metrics)
    rows = []
    dots = []
    for row in part["rows"]:
        small = bool(row.get("small"))
        aside = f" ({wording.count(row.get('lesions'))})"
        dots.append(dot_row(wording.heading(str(row["value"])), row["scores"].get(main), small, aside))
        rows.append(
            {
                "value": wording.heading(str(row["value"])),
                "images": row.get("images"),
                "lesions": row.get("lesions"),
                "small": small,
                "scores": [estimate(row["scores"].get(key), metrics[key]["unit"]) for key in headline],
            }
        )
    label = part.get("label") or part["column"]
    told = [(dot.label, dot.mean) for dot in dots if dot.mean is not None]
    spread = ""
    if told:
        lowest, highest = min(told, key=lambda dot: dot[1]), max(told, key=lambda dot: dot[1])
        spread = (
            f" The lowest is {lowest[0]} with {wording.number(lowest[1], about['unit'])}, the highest "
            f"{highest[0]} with {wording.number(highest[1], about['unit'])}."
        )
    return {
        "label": wording.heading(label),
        "note": part.get("note") or "",
        "rows": rows,
        "small": any(row["small"] for row in rows),
        "metric": about,
        "svg": figures.intervals(
            f"stratum-{place}",
            dots,
            axis=f"mean {about['titled']}",
            says=f"Mean {about['label']} with its interval in {len(dots)} groups by {label}.{spread}",
            limits=limits,
        )
        if told
        else None,
    }


def _limits(strata: Sequence[Mapping[str, Any]], main: str) -> tuple[float, float] | None:
    """Returns one axis for the figures of all strata; intervals of small groups may reach beyond it."""
    rows = [row for part in strata for row in part["rows"]]
    ends: list[float] = []
    for row in rows:
        keys = ("mean",) if row.get("small") else ("mean", "low", "high")
        values = row["scores"].get(main) or {}
        ends += [value for key in keys if (value := finite_or_none(values.get(key))) is not None]
    if not ends or min(ends) == max(ends):
        return None
    margin = 0.04 * (max(ends) - min(ends))
    return min(ends) - margin, max(ends) + margin


def _calibration(calibration: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if not calibration:
        return None
    bins = calibration["bins"]
    met = [
        part for part in bins if wording.defined(part["confidence"]) and wording.defined(part["frequency"])
    ]
    ece = wording.rounded(calibration.get("ece"), 4)
    widest = max(met, key=lambda part: abs(part["frequency"] - part["confidence"]), default=None)
    says = f"Reliability diagram over {counted(len(bins), 'bin')}: the expected calibration error is {ece}."
    if widest:
        way = "more" if widest["frequency"] > widest["confidence"] else "less"
        says += (
            f" It is furthest off where the predicted probability is {widest['confidence']:.2f}: "
            f"{widest['frequency']:.2f} of those pixels are lesion, {way} than predicted."
        )
    return {
        "ece": ece,
        "svg": figures.reliability("calibration", bins, says=says),
        "bins": [
            {
                "range": f"{part['low']:.2f} to {part['high']:.2f}",
                "confidence": wording.rounded(part["confidence"], 4),
                "frequency": wording.rounded(part["frequency"], 4),
                "share": wording.percent(part["share"]),
            }
            for part in bins
        ],
    }


def _curves(curves: Mapping[str, Sequence[Sequence[float]]]) -> list[dict[str, Any]]:
    """Draws what is called alike in training and validation together."""
    together: dict[str, dict[str, Sequence[Sequence[float]]]] = {}
    for key, points in curves.items():
        stage, _, what = key.rpartition("/")
        # People count epochs from 1, as the progress of a run does.
        together.setdefault(what, {})[stage or what] = [(epoch + 1, value) for epoch, value in points]
    drawn = []
    for place, (what, series) in enumerate(together.items()):
        says = f"{what} over the epochs."
        for stage, points in series.items():
            values = [value for _, value in points if wording.defined(value)]
            if values:
                says += f" {stage}: from {values[0]:.4g} to {values[-1]:.4g}."
        drawn.append(
            {
                "label": wording.heading(what),
                "svg": figures.curves(f"curve-{place}", series, axis=what, says=says),
            }
        )
    return drawn


def _ceiling(ceiling: Mapping[str, Any] | None, metrics: Mapping[str, Any]) -> dict[str, Any] | None:
    if not ceiling:
        return None
    rows = []
    for row in listed(ceiling, "rows"):
        about = column_of(row["metric"], metrics)
        rows.append(
            {
                "label": about["titled"],
                "annotators": wording.number(row.get("annotators"), about["unit"]),
                "model": wording.number(row.get("model"), about["unit"]),
                "images": wording.count(row.get("images")),
            }
        )
    return {"text": ceiling.get("text") or "", "rows": rows}


def _scorings(scorings: Mapping[str, Any] | None) -> dict[str, str] | None:
    """Says how often the test subset was scored: the more often, the less its numbers are worth."""
    if not scorings:
        return None
    return {"often": often(scorings["count"]), "text": scorings.get("text") or ""}
