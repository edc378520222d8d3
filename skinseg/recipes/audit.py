"""What `python -m skinseg.audit` does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from skinseg.build.parts import data_source
from skinseg.config.schema import Node, Plain
from skinseg.counting import counted
from skinseg.data import audit
from skinseg.data.audit import Finding
from skinseg.data.contamination import contaminated, contamination, of_near_duplicates
from skinseg.data.duplicates import near_duplicates
from skinseg.data.problems import KEEPABLE, PROBLEMS, Problems
from skinseg.data.tables import image_ids, matching, numbers, read_table, report_match
from skinseg.errors import SkinsegError
from skinseg.run.writing import write_csv, write_json
from skinseg.run.written import afresh
from skinseg.scoring.agreement import summarise_agreement
from skinseg.scoring.metrics import METRICS, PENALTY, with_penalties

_COLOURS = {"problem": "bold red", "caution": "yellow", "note": "default"}
_MOST_ROWS = 12


def run(config: Plain) -> str | None:
    """Audits a data set and writes what was found.

    Args:
        config: Checked; see `skinseg.audit.AuditConfig`.

    Returns:
        The worst severity that was found, None where nothing was.

    Raises:
        SkinsegError: A mistake in the configuration, or data that cannot be read at all.
    """
    scores = None if config["scores"] is None else _read_scores(Path(config["scores"]).expanduser())
    console = Console(highlight=False, soft_wrap=True, markup=False)
    names = {"data": config["data"], "test_data": config["test_data"]}
    catalogs, limits, prints, measures = {}, {}, {}, {}
    found: list[Finding] = []
    for key, node in names.items():
        if not node:
            continue
        catalog, problems, source = _read(key, node)
        name = "+".join(sorted(catalog.table["dataset"].unique())) + (" (test)" if key == "test_data" else "")
        with Progress(console=console, transient=True) as bar:
            task = bar.add_task(f"Looking at {counted(len(catalog), 'image')} of {name}", total=len(catalog))
            measures[name], prints[name] = audit.measure(
                catalog.table, source.image_size, partial(bar.advance, task), source.max_megapixels
            )
        catalogs[name], limits[name] = catalog, source.max_megapixels
        if key == "data":
            found += audit.findings(catalog, problems, source.policy, measures[name])
    name = next(iter(catalogs))
    if scores is not None:
        scores = _of_images(scores, catalogs[name].table["image_id"], config["scores"])
    pairs = near_duplicates(prints[name] if config["near_duplicates"] else {})
    found += of_near_duplicates(catalogs[name], pairs)
    found.sort(key=lambda finding: audit.SEVERITIES.index(finding.severity))
    if not config["near_duplicates"]:
        prints = {key: {} for key in prints}
    both = contaminated(catalogs, prints)
    matrix = contamination(catalogs, both)
    agreement = audit.agreement(catalogs[name], limits[name])
    facts = audit.facts(catalogs[name])
    worst, sentence = audit.verdict(found)

    folder = Path(config["run_dir"])
    with afresh(folder, "audit"):
        summary = {"data": name, "verdict": sentence, "facts": facts}
        _write(folder, summary, found, measures[name], pairs, matrix)
        if len(both):
            write_csv(folder / "contamination.csv", both)
        _show(console, name, facts, found)
        if len(matrix):
            console.print(_table("Images of one data set that the other has too", matrix))
        if len(agreement):
            _write_and_show_agreement(console, folder, agreement, scores)
    console.print(f"\n{sentence}", style=_COLOURS[worst or "note"])
    console.print(f"Written to {folder}")
    return worst


def _read(key: str, node: Node) -> Any:
    """Reads a data set whatever is wrong with it; returns catalog, problems, and its data module."""
    source = data_source(key, {name: value for name, value in node.items() if name != "split"})
    problems = Problems(
        {kind: "keep" if kind in KEEPABLE else "drop" for kind in PROBLEMS},
        max_megapixels=source.max_megapixels,
    )
    return source.read(problems), problems, source


def _write(
    folder: Path,
    summary: Mapping[str, Any],
    found: list[Finding],
    measures: pd.DataFrame,
    pairs: pd.DataFrame,
    matrix: pd.DataFrame,
) -> None:
    listed = [asdict(finding) for finding in found]
    contamination = matrix.to_dict("records")
    write_json(folder / "audit.json", {**summary, "findings": listed, "contamination": contamination})
    rows = [(f.severity, f.kind, image_id) for f in found for image_id in f.image_ids]
    write_csv(folder / "findings.csv", pd.DataFrame(rows, columns=["severity", "kind", "image_id"]))
    write_csv(folder / "images.csv", measures)
    write_csv(folder / "near_duplicates.csv", pairs)


def _show(console: Console, name: str, facts: Mapping[str, Mapping[str, int]], found: list[Finding]) -> None:
    table = Table(title=f"Audit of {name}", title_style="bold", title_justify="left", show_header=False)
    table.add_column(style="bold")
    table.add_column()
    for what, count in facts["totals"].items():
        table.add_row(what.replace("_", " "), f"{count:,}")
    for what, counts in facts.items():
        if what != "totals":
            shown = [f"{key} {count:,}" for key, count in list(counts.items())[:_MOST_ROWS]]
            more = [f"and {len(counts) - _MOST_ROWS} more"] if len(counts) > _MOST_ROWS else []
            table.add_row(what.replace("_", " "), ", ".join(shown + more))
    console.print(table)
    for finding in found:
        ids = ", ".join(finding.image_ids[:3]) + (", ..." if len(finding.image_ids) > 3 else "")
        severity = (f"{finding.severity:8}", _COLOURS[finding.severity])
        console.print(Text.assemble(severity, f" {finding.text} ", (f"({ids})", "dim")))


def _write_and_show_agreement(
    console: Console, folder: Path, pairs: pd.DataFrame, scores: pd.DataFrame | None
) -> None:
    """Shows how well annotators agree, with a model's scores on the same images beside it."""
    write_csv(folder / "agreement.csv", pairs)
    summary = summarise_agreement(pairs)
    title = "Agreement of several masks of one image (mean over images)"
    if scores is not None:
        same = scores[scores["image_id"].isin(pairs["image_id"])]
        # Beside each other both are means over all of the images.
        summary = summarise_agreement(with_penalties(pairs)).assign(undefined=summary["undefined"])
        summary["model"] = same.reindex(columns=summary.index).mean()
        title += (
            f"; model: mean over the {len(same)} of these images that it was scored on; "
            f"an image without a distance counts as {PENALTY}"
        )
    console.print(_table(title, summary.round(4).reset_index(names="score")))


def _read_scores(path: Path) -> pd.DataFrame:
    """Reads image ids and metrics from the scores of a run."""
    sizes = ("height", "width")
    table = read_table(path, ["image_id"], known=[*METRICS, *sizes], key="scores")
    scores = {
        name: numbers(table[name], f"scores={path}", low=metric.lowest, high=metric.highest)
        for name, metric in METRICS.items()
        if name in table
    }
    scores |= {name: numbers(table[name], f"scores={path}", low=1) for name in sizes if name in table}
    try:
        return with_penalties(table[[]].assign(image_id=image_ids(table["image_id"]), **scores))
    except ValueError as error:
        raise SkinsegError(f"scores={path}: {error}; expected the scores.csv of an evaluation.") from error


def _of_images(scores: pd.DataFrame, images: pd.Series, path: str) -> pd.DataFrame:
    """Returns the scores of the images at hand, by their ids; says how many there are."""
    known = matching(scores["image_id"], images)
    report_match(known.notna(), scores["image_id"], images, f"scores={path}")
    return scores.assign(image_id=known)[known.notna()]


def _table(title: str, content: pd.DataFrame) -> Table:
    table = Table(title=title, title_style="bold", title_justify="left")
    for column in content:
        table.add_column(str(column).replace("_", " "), justify="right" if column != "score" else "left")
    for row in content.itertuples(index=False):
        table.add_row(*("" if value != value else str(value) for value in row))
    return table
