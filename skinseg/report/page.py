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

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray

from skinseg.counting import counted
from skinseg.report import figures, wording

if TYPE_CHECKING:
    import pandas as pd

_TEMPLATES = Path(__file__).resolve().parent / "templates"
_ROWS_AT_ONCE = 50
# As many line styles as the style sheet has beside that of the truth.
_RUN_LINES = 5
_TEXT_COLUMNS = {"image_id": "Image", "group": "Lesion", "diagnosis": "Diagnosis", "dataset": "Data set"}
_BETTER = {"higher": "higher is better", "lower": "lower is better", "zero": "best at zero"}


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


def render(template: str, content: Mapping[str, Any], **parts: Any) -> str:
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
        stamps=[_stamp(text) for text in listed(content, "stamps")],
        protocol=listed(content, "protocol"),
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


def listed(content: Mapping[str, Any], key: str) -> Sequence[Any]:
    """Returns a list, empty where it is None or missing."""
    return content.get(key) or []


def main_metric(metrics: Mapping[str, Any], headline: Sequence[str]) -> str:
    """Returns the metric of the figures: Dice where it was scored."""
    return "dice" if "dice" in metrics or not headline else headline[0]


def ordered(values: Mapping[str, Any], metrics: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Returns the values that are there in the order of the metrics."""
    return [(key, values[key]) for key in metrics if key in values]


def _stamp(text: str) -> dict[str, str]:
    """Splits a stamp into the word that is written large and its explanation."""
    head, colon, rest = text.partition(":")
    return {"head": head, "rest": rest.strip()} if colon and len(head) < 40 else {"head": "", "rest": text}


def column_of(key: str, metrics: Mapping[str, Any]) -> dict[str, Any]:
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


def estimate(
    values: Mapping[str, Any] | None, unit: str, images: int | None = None, *, signed: bool = False
) -> dict[str, Any]:
    """Writes a mean, its interval or why there is none, and on how many images it is undefined.

    Args:
        values: As in the JSON file; None where there are none.
        unit: Unit of the score.
        images: All of them; None: as many as have a value and as have none.
        signed: See `wording.number`.
    """
    values = values or {}
    mean, missing = values.get("mean"), values.get("undefined") or 0
    return {
        "value": sort_value(mean),
        "mean": wording.number(mean, unit, signed=signed),
        "interval": wording.interval(values.get("low"), values.get("high"), unit, signed=signed),
        "unit": unit,
        "n": values.get("n"),
        "why": values.get("no_interval") or "",
        "undefined": wording.undefined_share(missing, images or missing + (values.get("n") or 0))
        if missing
        else "",
    }


def sort_value(value: Any) -> str:
    """Returns what the browser sorts a cell by; empty sorts last."""
    return repr(float(value)) if wording.defined(value) else ""


def card(key: str, about: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the card of a metric: what it is called, and its mean with the interval."""
    return {
        **column_of(key, {key: about}),
        **estimate(values, about["unit"]),
    }


def score_row(key: str, about: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the row of a metric: its card, median and quartiles."""
    unit = about["unit"]
    return {
        **card(key, about, values),
        "median": wording.number(values.get("median"), unit),
        "quartiles": wording.interval(values.get("q1"), values.get("q3"), unit),
    }


def definitions_of(metrics: Mapping[str, Any], keys: Iterable[str]) -> list[tuple[str, str, str]]:
    """Returns label, definition and direction of the metrics that are shown."""
    shown = set(keys)
    return [
        (about["label"], about.get("definition") or "", _BETTER.get(about.get("better") or "", ""))
        for key, about in metrics.items()
        if key in shown
    ]


def dot_row(
    label: str, values: Mapping[str, Any] | None, faint: bool = False, aside: str = ""
) -> figures.Row:
    """Returns the row of a figure: a mean with its interval."""
    values = values or {}
    mean, low, high = (finite_or_none(values.get(key)) for key in ("mean", "low", "high"))
    return figures.Row(label, mean, low, high, faint, aside)


def finite_or_none(value: Any) -> float | None:
    """Returns a number that can be drawn, None for any other value."""
    return float(value) if wording.defined(value) and math.isfinite(value) else None


def gallery_part(
    gallery: Sequence[GalleryImage], metrics: Mapping[str, Any], unit: str
) -> dict[str, Any] | None:
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
            about = column_of(key, metrics)
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


def image_table(scores: pd.DataFrame, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the table of all images: as data for the script, and its first rows for where none runs."""
    texts = [key for key in _TEXT_COLUMNS if key in scores.columns]
    numbers = [key for key in metrics if key in scores.columns]
    columns: list[dict[str, Any]] = [{"label": _TEXT_COLUMNS[key], "decimals": None} for key in texts]
    columns += [
        {"label": about["titled"], "decimals": wording.decimals(about["unit"])}
        for about in (column_of(key, metrics) for key in numbers)
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
