"""A saved view of Weights & Biases for a group of runs: what is drawn there, and from which keys."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from skinseg.errors import SkinsegError
from skinseg.tracking.logger import has_key

CURVES = ("train/loss", "val/loss", "val/dice", "val/jaccard")
PICTURES = ("val/predictions", "test/predictions")
SCORES, WORST = "test/scores", "test/worst"
_STEP = "trainer/global_step"


def dashboard(
    entity: str, project: str, group: str, *, metric: str, columns: Sequence[str], name: str
) -> Any:
    """Builds the view: learning curves, runs by rank, settings against score, masks, worst images.

    Args:
        entity: User or team.
        project: Its project.
        group: The runs that it shows.
        metric: What ranks them, e.g. "test/dice".
        columns: Settings that the runs differ in, as in their configuration, e.g. "optimizer.lr".
        name: Name of the view.

    Returns:
        A `wandb_workspaces.workspaces.Workspace`, which is not saved yet.

    Raises:
        SkinsegError: The package for it is not installed.
    """
    try:
        from wandb_workspaces import expr, workspaces
        from wandb_workspaces.reports import v2 as reports
    except ImportError as error:
        raise SkinsegError(
            "A view is built with wandb-workspaces, which is not installed: pip install 'skinseg[dashboard]'."
        ) from error

    def parallel(source: Any) -> Any:
        return reports.ParallelCoordinatesPlotColumn(metric=source)

    curves = [reports.LinePlot(title=key, x=_STEP, y=[key]) for key in CURVES]
    rank = [
        reports.BarPlot(title=metric, metrics=[reports.SummaryMetric(metric)]),
        reports.WeavePanelSummaryTable(table_name=SCORES),
    ]
    settings = [
        reports.ParallelCoordinatesPlot(
            title=f"Settings and {metric}",
            columns=[
                *(parallel(reports.Config(column)) for column in columns),
                parallel(reports.SummaryMetric(metric)),
            ],
        ),
        reports.ParameterImportancePlot(with_respect_to=metric),
    ]
    pictures = [reports.MediaBrowser(title=key, media_keys=[key]) for key in PICTURES]
    worst = [reports.WeavePanelSummaryTable(table_name=WORST)]
    sections = {
        "Learning curves": curves,
        "Runs by rank": rank,
        "Settings": settings,
        "Masks": pictures,
        "Worst images": worst,
    }
    return workspaces.Workspace(
        entity=entity,
        project=project,
        name=name,
        sections=[
            workspaces.Section(name=title, panels=panels, is_open=True) for title, panels in sections.items()
        ],
        runset_settings=workspaces.RunsetSettings(
            filters=expr.And(expr.Metric("Group") == group),
            order=[expr.Ordering(expr.Summary(metric), ascending=metric.endswith("/loss"))],
            pinned_columns=[f"summary:{metric}", *map(_of_config, columns)],
        ),
    )


def _of_config(column: str) -> str:
    """Returns what the table of runs calls a setting: "optimizer.lr" is config:optimizer.value.lr there."""
    name, dot, rest = column.partition(".")
    return f"config:{name}.value{dot}{rest}"


def content(view: Any) -> dict[str, Any]:
    """Returns what is saved of a view, as plain values."""
    text = view._to_model().spec.model_dump_json(by_alias=True, exclude_none=True)
    found: dict[str, Any] = json.loads(text)
    return found


def save(view: Any) -> str:
    """Saves a view as a new one in its project.

    Returns:
        Its address.

    Raises:
        SkinsegError: There is no API key, or the server refuses.
    """
    if not has_key():
        raise SkinsegError(
            "No API key of Weights & Biases: wandb login, or WANDB_API_KEY; or take save=false."
        )
    try:
        return str(view.save().url)
    except Exception as error:  # whatever the client makes of a server's answer, or of none
        raise SkinsegError(f"Weights & Biases did not save the view: {error}") from error
