"""The scores of a run with what they mean, for people and for programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from skinseg.config import Plain
from skinseg.data.datamodule import LesionDataModule
from skinseg.models.segmenter import LesionSegmenter
from skinseg.scoring.overlap import OVERLAP_METRICS


def summarise(
    config: Plain, data: LesionDataModule, segmenter: LesionSegmenter, *, weights: str, objective: float
) -> dict[str, Any]:
    """Collects the scores of a run and how they were taken.

    Args:
        config: The resolved configuration.
        data: The data module.
        segmenter: After validation, and after testing if that was asked for.
        weights: Which weights were scored.
        objective: Best value of `monitor`.

    Returns:
        Plain values: objective, scores by side (None where a side was not scored), protocol.
    """
    table = data.catalog.table
    sides: dict[str, Any] = {}
    stamps = []
    for side in ("val", "test"):
        scores = segmenter.scores.get(side)
        if scores is None:
            sides[side] = None
            continue
        ids = data.dataset(side).image_ids
        scored = [ids[row] for row in scores.index]
        groups = table.loc[table["image_id"].isin(scored), "group"].nunique()
        if len(scored) < len(ids):
            stamps.append(f"PARTIAL: {len(scored)} of the {len(ids)} {side} images were scored")
        sides[side] = {"images": len(scored), "lesions": int(groups), **scores.means()}
    if (table["dataset"] == "synthetic").any():
        stamps.append("SYNTHETIC: drawn images; says nothing of real skin")
    if data.overfit:
        stamps.append("OVERFIT: scored on the images that were trained on")
    return {
        "name": config["name"],
        "objective": {"name": config["monitor"], "value": objective},
        "scores": sides,
        "protocol": {
            "averaging": "per image, mean over images",
            "resolution": "each image's own size",
            "split": data.split.fingerprint,
            "group_key": "lesion",
            "threshold": config["threshold"],
            "threshold_origin": "fixed in the configuration",
            "weights": weights,
            "stamps": stamps,
        },
    }


def show(summary: dict[str, Any], run_dir: Path) -> None:
    """Prints the scores as a table, with how they were taken and where everything lies.

    Args:
        summary: What `summarise` returned.
        run_dir: The run folder.
    """
    protocol = summary["protocol"]
    scores = {side: values for side, values in summary["scores"].items() if values is not None}
    table = Table(title=f"Scores of {summary['name']}", title_style="bold", title_justify="left")
    table.add_column("")
    for side in scores:
        table.add_column(side, justify="right")
    for name in OVERLAP_METRICS:
        table.add_row(name.replace("_", " "), *(f"{values[name]:.4f}" for values in scores.values()))
    table.add_section()
    for name in ("images", "lesions"):
        table.add_row(name, *(str(values[name]) for values in scores.values()))
    console = Console(highlight=False, soft_wrap=True)
    console.print()
    console.print(table)
    console.print(
        f"{protocol['averaging']}, at {protocol['resolution']}; threshold {protocol['threshold']} "
        f"({protocol['threshold_origin']}); split {protocol['split']} by {protocol['group_key']}; "
        f"weights: {protocol['weights']}."
    )
    for stamp in protocol["stamps"]:
        console.print(stamp, style="bold yellow")
    console.print(f"\nRun folder: {run_dir}")
    picture = run_dir / "predictions.png"
    if picture.is_file():
        console.print(f"Pictures:   {picture}")
