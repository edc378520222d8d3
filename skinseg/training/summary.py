"""The scores of a run with what they mean, for people and for programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from skinseg.config.schema import Plain
from skinseg.counting import counted
from skinseg.data.datamodule import LesionDataModule
from skinseg.evaluation.content import interval_text, weaker
from skinseg.models.segmenter import LesionSegmenter
from skinseg.run.identity import method_identity
from skinseg.scoring.overlap import OVERLAP_METRICS


def summarise(
    config: Plain,
    data: LesionDataModule,
    test_data: LesionDataModule,
    segmenter: LesionSegmenter,
    *,
    weights: str,
    objective: float,
) -> dict[str, Any]:
    """Collects the scores of a run and how they were taken.

    Args:
        config: The resolved configuration.
        data: The data module that was trained and validated on.
        test_data: The data module that was tested on; `data` itself unless it was another data set.
        segmenter: After validation, and after testing if that was asked for.
        weights: Which weights were scored.
        objective: Best value of `monitor`.

    Returns:
        Plain values: objective, scores by subset (None where a subset was not scored), protocol.
    """
    subsets: dict[str, Any] = {}
    stamps = list(data.split.stamps)
    for subset, module in (("val", data), ("test", test_data)):
        scores = segmenter.scores.get(subset)
        if scores is None:
            subsets[subset] = None
            continue
        ids, table = module.dataset(subset).image_ids, module.catalog.table
        scored = [ids[row] for row in scores.index]
        groups = table.loc[table["image_id"].isin(scored), "group"].nunique()
        subsets[subset] = {"images": len(scored), "lesions": int(groups), **scores.means()}
        stamps += module.stamps(subset, len(scored))
    return {
        "name": config["name"],
        "identity": {
            "side": "test",
            "split": test_data.split.fingerprint,
            "data": None,
            "settings": None,
            "training": config["run_dir"],
            **method_identity(config),
        },
        "config": config,
        "objective": {"name": config["monitor"], "value": objective},
        "scores": subsets,
        "protocol": {
            "averaging": "per image, mean over images",
            "resolution": "each image's own size",
            "split": data.split.fingerprint,
            "group_key": data.split.unit,
            **_test_protocol(data, test_data),
            "threshold": config["threshold"],
            "threshold_origin": "fixed in the configuration",
            "weights": weights,
            "stamps": list(dict.fromkeys(stamps)),
        },
    }


def _test_protocol(data: LesionDataModule, test_data: LesionDataModule) -> dict[str, Any]:
    """Says what the test subset is where it is another data set."""
    if test_data is data:
        return {}
    left_out = {why: len(ids) for why, ids in test_data.split.left_out.items()}
    names = sorted(test_data.catalog.table["dataset"].unique())
    return {
        "test_data": {"datasets": names, "fingerprint": test_data.split.fingerprint, "left_out": left_out}
    }


def show(summary: dict[str, Any], run_dir: Path, evaluation: dict[str, Any] | None) -> None:
    """Prints the scores as a table, with how they were taken and where everything lies.

    Args:
        summary: What `summarise` returned.
        run_dir: The run folder.
        evaluation: The content of its `evaluation.json`. None: the test was not scored.
    """
    protocol = summary["protocol"]
    scores = {subset: values for subset, values in summary["scores"].items() if values is not None}
    table = Table(title=f"Scores of {summary['name']}", title_style="bold", title_justify="left")
    tested = {} if evaluation is None else evaluation["scores"]
    has_intervals = any(score["low"] is not None for score in tested.values())
    for column in ("", *scores, *(["interval of test"] if has_intervals else [])):
        table.add_column(column, justify="right" if column else "left")
    for name in OVERLAP_METRICS:
        interval = [interval_text(name, tested[name])] if has_intervals else []
        values = (f"{values[name]:.4f}" for values in scores.values())
        table.add_row(name.replace("_", " "), *values, *interval)
    table.add_section()
    for name in ("images", "lesions"):
        table.add_row(name, *(str(values[name]) for values in scores.values()))
    console = Console(highlight=False, soft_wrap=True, markup=False)
    console.print()
    console.print(table)
    console.print(
        f"{protocol['averaging']}, at {protocol['resolution']}; threshold {protocol['threshold']} "
        f"({protocol['threshold_origin']}); split {protocol['split']} by {protocol['group_key']}; "
        f"weights: {protocol['weights']}."
    )
    if evaluation is not None:
        console.print(f"Test: {evaluation['interval']}.")
    if other := protocol.get("test_data"):
        left_out = other["left_out"]
        console.print(
            f"Tested on {', '.join(other['datasets'])} ({other['fingerprint']}), without "
            f"{counted(left_out['in_training_data'], 'image that is', 'images that are')} in the training "
            f"data and {left_out['lesion_in_training_data']} more of its lesions."
        )
    for line in () if evaluation is None else weaker(evaluation):
        console.print(line)
    for stamp in protocol["stamps"]:
        console.print(stamp, style="bold yellow")
    run_dir = run_dir.absolute()
    console.print(f"\nRun folder: {run_dir}")
    for what, name in (("Pictures:  ", "predictions.png"), ("Report:    ", "report.html")):
        if (run_dir / name).is_file():
            console.print(f"{what} {run_dir / name}")
