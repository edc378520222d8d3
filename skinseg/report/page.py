"""Pages about an evaluation and about a comparison: one file each, which asks the network for nothing."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray

from skinseg.counting import counted, often
from skinseg.report import figures, wording

if TYPE_CHECKING:
    import pandas as pd

_TEMPLATES = Path(__file__).resolve().parent / "templates"
_ROWS_AT_ONCE = 50
_HISTOGRAMS = 4
_TEXT_COLUMNS = {"image_id": "Image", "group": "Lesion", "diagnosis": "Diagnosis", "dataset": "Data set"}
# As many line styles as the style sheet has beside that of the truth.
_RUN_LINES = 5
_BETTER = {"higher": "higher is better", "lower": "lower is better", "zero": "best at zero"}
_COST = (
    ("members", "Networks", wording.count),
    ("parameters", "Parameters", wording.millions),
    ("gflops", "GFLOPs an image", lambda value: wording.rounded(value, 1)),
    ("images_per_second", "Images a second", lambda value: wording.rounded(value, 1)),
    ("training_steps", "Steps", wording.count),
    ("training_seconds", "Training", wording.duration),
)


@dataclass(frozen=True)
class GalleryImage:
    """A photograph with outlines on it.

    Attributes:
        image_id: Its name.
        kind: The heading it stands under, such as "worst"; images of a kind stand together.
        width: Native width in pixels, in which the outlines are given.
        height: Native height in pixels.
        jpeg: The photograph as a JPEG, which may be smaller than the native size.
        outlines: Polygons by whom they are of ("truth", "prediction", or the name of a run): int arrays of
            shape (n, 2), (x, y) of pixels counted from 0, drawn through the middle of the pixels.
        scores: By metric or by run.
        note: What else is known, such as "melanoma, 61 y, back".
    """

    image_id: str
    kind: str
    width: int
    height: int
    jpeg: bytes
    outlines: Mapping[str, Sequence[NDArray[np.integer[Any]]]]
    scores: Mapping[str, float] = field(default_factory=dict)
    note: str = ""


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
    main = _main_metric(metrics, headline)
    limits = _limits(_all(evaluation, "strata"), main)
    strata = [
        _stratum(place, part, metrics, headline, main, limits)
        for place, part in enumerate(_all(evaluation, "strata"))
    ]
    return _render(
        "evaluation.html.j2",
        evaluation,
        name=evaluation.get("name") or "",
        cards=[_card(key, metrics[key], evaluation["scores"][key]) for key in headline],
        interval=evaluation.get("interval") or "",
        scores=[
            _score_row(key, metrics[key], values) for key, values in _ordered(evaluation["scores"], metrics)
        ],
        definitions=_definitions(metrics, evaluation["scores"]),
        distributions=_distributions(scores, metrics, headline),
        strata=strata,
        strata_metrics=[_column(key, metrics) for key in headline],
        calibration=_calibration(evaluation.get("calibration")),
        curves=_curves(evaluation.get("curves") or {}),
        ceiling=_ceiling(evaluation.get("ceiling"), metrics),
        scorings=_scorings(evaluation.get("scorings")),
        masks=evaluation.get("config") is None,
        gallery=_gallery(gallery, metrics, ""),
        table=_image_table(scores, metrics),
        cost=_all(evaluation, "cost"),
        licences=_all(evaluation, "licences"),
        # "./" and quoting keep "javascript:" and "//host" what they claim to be: names of files.
        files=[(label, path, "./" + quote(path)) for label, path in _all(evaluation, "files")],
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
    about = _column(main, metrics)
    unit = about["unit"]
    runs = sorted(comparison["runs"], key=lambda run: (run.get("rank") is None, run.get("rank") or 0))
    best = next((run["name"] for run in runs if run.get("difference") is None), None)
    keys = [key for key in metrics if any(key in run["scores"] for run in runs)]
    images = comparison.get("images")
    return _render(
        "comparison.html.j2",
        comparison,
        verdict=comparison.get("verdict") or "",
        metric=about,
        test=comparison.get("test") or "",
        interval=comparison.get("interval") or "",
        best=best,
        trainings=sum(run.get("members") or 1 for run in runs),
        runs=[_run_row(run, main, unit, images) for run in runs],
        score_columns=[_column(key, metrics) for key in keys],
        score_rows=[
            (run["name"], [_estimate(run["scores"].get(key), metrics[key]["unit"], images) for key in keys])
            for run in runs
        ],
        definitions=_definitions(metrics, keys),
        cost_columns=[label for key, label, _ in _COST if any(_known(run, key) for run in runs)],
        cost_rows=[
            (
                run["name"],
                [
                    {"text": write(run.get(key)), "value": _sort_value(run.get(key))}
                    for key, _, write in _COST
                    if any(_known(other, key) for other in runs)
                ],
            )
            for run in runs
        ],
        forest=_forest(runs, about, best),
        means=_means(runs, main, about),
        differ=_differ(_all(comparison, "differ"), unit),
        settings=_all(comparison, "settings"),
        gallery=_gallery(gallery, metrics, unit),
    )


def _render(template: str, content: Mapping[str, Any], **parts: Any) -> str:
    """Fills a template with what both pages have and with their own parts."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    assets = {
        name: Markup((_TEMPLATES / f"report.{name}").read_text(encoding="utf-8")) for name in ("css", "js")
    }
    early = Markup((_TEMPLATES / "theme.js").read_text(encoding="utf-8"))
    icon = base64.b64encode((_TEMPLATES / "icon.svg").read_bytes()).decode()
    return environment.get_template(template).render(
        title=content["title"],
        created=content.get("created") or "",
        created_text=wording.moment(content.get("created") or ""),
        version=content.get("skinseg") or "",
        stamps=[_stamp(text) for text in _all(content, "stamps")],
        protocol=_all(content, "protocol"),
        images=content.get("images"),
        lesions=content.get("lesions"),
        count=wording.count,
        counted=counted,
        css=assets["css"],
        early_js=early,
        js=assets["js"],
        # Only these two run: should a name ever slip through the escaping, it stays text.
        script_hashes=" ".join(f"'sha256-{_digest(script)}'" for script in (early, assets["js"])),
        icon=icon,
        **parts,
    )


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _all(content: Mapping[str, Any], key: str) -> Sequence[Any]:
    """Returns a list, empty where it is None or missing."""
    return content.get(key) or []


def _main_metric(metrics: Mapping[str, Any], headline: Sequence[str]) -> str:
    """Returns the metric of the figures: Dice where it was scored."""
    return "dice" if "dice" in metrics or not headline else headline[0]


def _ordered(values: Mapping[str, Any], metrics: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [(key, values[key]) for key in metrics if key in values]


def _stamp(text: str) -> dict[str, str]:
    """Splits a stamp into the word that is written large and its explanation."""
    head, colon, rest = text.partition(":")
    return {"head": head, "rest": rest.strip()} if colon and len(head) < 40 else {"head": "", "rest": text}


def _column(key: str, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what the head of a column says about a metric."""
    about = metrics.get(key) or {}
    unit = about.get("unit") or ""
    label = about.get("label") or key
    return {
        "key": key,
        "label": label,
        "unit": unit,
        "better": _BETTER.get(about.get("better") or "", ""),
        "titled": f"{label} ({unit})" if unit else label,
    }


def _estimate(
    values: Mapping[str, Any] | None, unit: str, images: int | None = None, *, signed: bool = False
) -> dict[str, Any]:
    """Writes a mean, its interval or why there is none, and on how many images it is undefined.

    Args:
        values: As in the JSON file; None where there are none.
        unit: Of the score.
        images: All of them; None: as many as have a value and as have none.
        signed: See `wording.number`.
    """
    values = values or {}
    mean, missing = values.get("mean"), values.get("undefined") or 0
    return {
        "value": _sort_value(mean),
        "mean": wording.number(mean, unit, signed=signed),
        "interval": wording.interval(values.get("low"), values.get("high"), unit, signed=signed),
        "unit": unit,
        "n": values.get("n"),
        "why": values.get("no_interval") or "",
        "undefined": wording.undefined_share(missing, images or missing + (values.get("n") or 0))
        if missing
        else "",
    }


def _sort_value(value: Any) -> str:
    """Returns what the browser sorts a cell by; empty sorts last."""
    return repr(float(value)) if wording.defined(value) else ""


def _known(run: Mapping[str, Any], key: str) -> bool:
    return run.get(key) is not None


def _card(key: str, about: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **_column(key, {key: about}),
        **_estimate(values, about["unit"]),
    }


def _score_row(key: str, about: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    unit = about["unit"]
    return {
        **_card(key, about, values),
        "median": wording.number(values.get("median"), unit),
        "quartiles": wording.interval(values.get("q1"), values.get("q3"), unit),
    }


def _definitions(metrics: Mapping[str, Any], keys: Iterable[str]) -> list[tuple[str, str, str]]:
    """Returns label, definition and direction of the metrics that are shown."""
    shown = set(keys)
    return [
        (about["label"], about.get("definition") or "", _BETTER.get(about.get("better") or "", ""))
        for key, about in metrics.items()
        if key in shown
    ]


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
        about = _column(key, metrics)
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
    about = _column(main, metrics)
    rows = []
    dots = []
    for row in part["rows"]:
        small = bool(row.get("small"))
        aside = f" ({wording.count(row.get('lesions'))})"
        dots.append(_dot(wording.heading(str(row["value"])), row["scores"].get(main), small, aside))
        rows.append(
            {
                "value": wording.heading(str(row["value"])),
                "images": row.get("images"),
                "lesions": row.get("lesions"),
                "small": small,
                "scores": [_estimate(row["scores"].get(key), metrics[key]["unit"]) for key in headline],
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
        ends += [value for key in keys if (value := _finite(values.get(key))) is not None]
    if not ends or min(ends) == max(ends):
        return None
    margin = 0.04 * (max(ends) - min(ends))
    return min(ends) - margin, max(ends) + margin


def _dot(label: str, values: Mapping[str, Any] | None, faint: bool = False, aside: str = "") -> figures.Row:
    values = values or {}
    mean, low, high = (_finite(values.get(key)) for key in ("mean", "low", "high"))
    return figures.Row(label, mean, low, high, faint, aside)


def _finite(value: Any) -> float | None:
    return float(value) if wording.defined(value) and math.isfinite(value) else None


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
    for row in _all(ceiling, "rows"):
        about = _column(row["metric"], metrics)
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
    """Says how often the test side was scored: the more often, the less its numbers are worth."""
    if not scorings:
        return None
    return {"often": often(scorings["count"]), "text": scorings.get("text") or ""}


def _run_row(run: Mapping[str, Any], main: str, unit: str, images: int | None) -> dict[str, Any]:
    return {
        "name": run["name"],
        "rank": run.get("rank"),
        "members": run.get("members") or 1,
        "stamps": _all(run, "stamps"),
        "best": run.get("difference") is None,
        "mean": _estimate(run["scores"].get(main), unit, images),
        "difference": _estimate(run.get("difference"), unit, signed=True),
        "numbers": [
            {"text": write(run.get(key)), "value": _sort_value(run.get(key))}
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
        mean, low, high = (_finite(difference.get(key)) for key in ("mean", "low", "high"))
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
    rows = [_dot(run["name"], run["scores"].get(main)) for run in runs]
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
                    {"text": wording.number(value, unit), "value": _sort_value(value)}
                    for value in ((row.get("values") or {}).get(name) for name in names)
                ],
                "difference": {
                    "text": wording.number(row.get("difference"), unit, signed=True),
                    "value": _sort_value(row.get("difference")),
                },
            }
            for row in rows
        ],
    }


def _gallery(gallery: Sequence[GalleryImage], metrics: Mapping[str, Any], unit: str) -> dict[str, Any] | None:
    """Returns the photographs under their headings and the outlines that can be switched."""
    if not gallery:
        return None
    others = list(dict.fromkeys(name for image in gallery for name in image.outlines if name != "truth"))
    lines: dict[str, dict[str, Any]] = {}
    if any("truth" in image.outlines for image in gallery):
        lines["truth"] = {"index": 0, "style": 0, "name": "truth", "slug": "truth"}
    for place, name in enumerate(others, 1):
        slug = name if name == "prediction" else f"run-{place}"
        lines[name] = {"index": place, "style": 1 + (place - 1) % _RUN_LINES, "name": name, "slug": slug}
    kinds: dict[str, list[dict[str, Any]]] = {}
    for image in gallery:
        scores = []
        for key, value in image.scores.items():
            about = _column(key, metrics)
            shown = about["unit"] if key in metrics else unit
            scores.append((about["label"], wording.number(value, shown), shown))
        told = ", ".join(f"{label} {text}{' ' + part if part else ''}" for label, text, part in scores)
        kinds.setdefault(image.kind, []).append(
            {
                "image_id": image.image_id,
                "note": image.note,
                "width": image.width,
                "height": image.height,
                "data": base64.b64encode(image.jpeg).decode(),
                "alt": ". ".join(
                    filter(
                        None,
                        (
                            ", ".join(filter(None, (f"Photograph {image.image_id}", image.note))),
                            told,
                            f"Outlines: {', '.join(image.outlines) or 'none'}",
                        ),
                    )
                ),
                "scores": scores,
                "outlines": [
                    {**lines[name], "path": _path(image.outlines[name])}
                    for name in lines
                    if name in image.outlines
                ],
            }
        )
    return {
        "lines": list(lines.values()),
        # "worst" becomes a heading; a sentence may begin with the name of a run, which stays as it is.
        "kinds": [(kind if " " in kind else wording.heading(kind), images) for kind, images in kinds.items()],
    }


def _path(polygons: Sequence[NDArray[np.integer[Any]]]) -> str:
    return "".join(
        "M" + " ".join(f"{x},{y}" for x, y in np.asarray(polygon).reshape(-1, 2).tolist()) + "Z"
        for polygon in polygons
        if len(polygon)
    )


def _image_table(scores: pd.DataFrame, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the table of all images: as data for the script, and its first rows for where none runs."""
    texts = [key for key in _TEXT_COLUMNS if key in scores.columns]
    numbers = [key for key in metrics if key in scores.columns]
    columns: list[dict[str, Any]] = [{"label": _TEXT_COLUMNS[key], "decimals": None} for key in texts]
    columns += [
        {"label": about["titled"], "decimals": wording.decimals(about["unit"])}
        for about in (_column(key, metrics) for key in numbers)
    ]
    values: list[list[Any]] = [
        [
            "" if missing else str(value)
            for value, missing in zip(scores[key], scores[key].isna(), strict=True)
        ]
        for key in texts
    ]
    for key in numbers:
        places = wording.decimals((metrics[key].get("unit")) or "")
        column = scores[key].to_numpy(dtype=np.float64, na_value=np.nan)
        values.append([_plain(value, places) for value in column.tolist()])
    head = [
        [
            cell if column["decimals"] is None else wording.rounded(_number(cell), column["decimals"])
            for column, cell in zip(columns, row, strict=True)
        ]
        for row in zip(*(column[:_ROWS_AT_ONCE] for column in values), strict=True)
    ]
    return {
        "columns": columns,
        "head": head,
        "total": len(scores),
        "rows_at_once": _ROWS_AT_ONCE,
        "json": _embedded({"columns": columns, "values": values, "page": _ROWS_AT_ONCE}),
    }


def _plain(value: float, places: int) -> float | str | None:
    """Returns a number as JSON can hold it; infinities, which it cannot, become a word."""
    if math.isnan(value):
        return None
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    return round(value, places + 2)


def _number(value: float | str | None) -> float | None:
    return None if value is None else float(value)


def _embedded(content: Any) -> Markup:
    """Writes JSON for within a script element: nothing in it can end the element or start a comment."""
    text = json.dumps(content, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))
