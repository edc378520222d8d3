"""Say which of several runs is best, and whether that could be chance.

python -m skinseg.compare 'runs=[<folder>,<folder>]'
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from skinseg.command import end_with_message, main_of
from skinseg.config import Node, check, config_dir, plain
from skinseg.errors import SkinsegError

if TYPE_CHECKING:
    from skinseg.evaluation.comparison import Comparison
    from skinseg.report.page import GalleryImage


@dataclass
class CompareConfig:
    """Every key at the root of the configuration.

    Attributes:
        name: Part of the folder's path.
        run_dir: The folder that the comparison writes.
        runs: Folders of evaluations or runs, or one folder that holds several (a sweep); or
            `wandb:<entity>/<project>/<group>`, whose runs' evaluations are fetched.
        metric: What ranks them, e.g. dice, threshold_jaccard, hd95_percent.
        pool: Take runs that differ by seed or fold alone for one method, whose interval then includes what
            another training would have changed.
        draws: Of tests and intervals.
        level: Of intervals; 1 - level is the p below which a method counts as worse.
        seed: Of the draws.
        gallery: How many images the report shows where the best two differ most, each way.
        group: Runs that belong together, in Weights & Biases.
        job_type: What the run does, in Weights & Biases.
        tags: Words to find the run by.
        notes: A sentence on the run.
        logger: Loggers by name: `logger=wandb` keeps tables and report as an artifact.
    """

    name: str
    run_dir: str
    runs: list[str] | str
    metric: str
    pool: bool
    draws: int
    level: float
    seed: int
    gallery: int
    group: str | None
    job_type: str
    tags: list[str]
    notes: str | None
    logger: dict[str, Node | None] | None


def run(cfg: DictConfig) -> Comparison:
    """Compares runs and writes what was found.

    Args:
        cfg: The composed configuration; see `CompareConfig`.

    Returns:
        The comparison.

    Raises:
        SkinsegError: A mistake in the configuration, or runs that cannot be compared.
    """
    config = plain(cfg)
    check(config, CompareConfig)

    from skinseg import build
    from skinseg.callbacks.quiet import quiet
    from skinseg.callbacks.wandb_run import fetch_evaluations, finish, log_evaluation
    from skinseg.evaluation.comparison import Comparison, find_runs, load_run, methods_of
    from skinseg.record import write_csv, write_json, write_text
    from skinseg.report.page import comparison_page
    from skinseg.scoring.metrics import METRICS

    quiet()
    if config["metric"] not in METRICS:
        raise SkinsegError(f"metric={config['metric']}: unknown; known: {', '.join(METRICS)}.")
    if config["draws"] < 100 or config["gallery"] < 0 or not 0.5 <= config["level"] < 1:
        raise SkinsegError("Expected draws of 100 or more, gallery of 0 or more, level from 0.5 to below 1.")
    folder = Path(config["run_dir"])
    entries = [config["runs"]] if isinstance(config["runs"], str) else config["runs"]
    entries = [
        str(fetch_evaluations(entry.removeprefix("wandb:"), folder / "fetched"))
        if entry.startswith("wandb:")
        else entry
        for entry in entries
    ]
    found = [load_run(path) for path in find_runs(entries)]
    if len(found) < 2:
        raise SkinsegError(f"runs: found {len(found)} run; a comparison needs two. Name further folders.")
    methods = methods_of(found, pool=config["pool"])
    if len(methods) < 2:
        raise SkinsegError(
            f"runs: all {len(found)} are of one method ({methods[0].name}), with other seeds or folds. Add "
            "another method, or set pool=false to compare the runs one by one."
        )
    for method in methods:
        if config["metric"] not in method.table:
            raise SkinsegError(
                f"runs: {method.runs[0].folder} has no {config['metric']}; a training scores overlap alone. "
                "Evaluate its checkpoint: python -m skinseg.evaluate ckpt=<best.ckpt>"
            )
    comparison = Comparison(methods, config["metric"], config["draws"], config["level"], config["seed"])
    write_csv(folder / "differ.csv", comparison.differ)
    write_csv(folder / "ranking.csv", _flat(comparison))
    write_json(folder / "comparison.json", comparison.content)
    pictures = _gallery(comparison, config["gallery"])
    write_text(folder / "report.html", comparison_page(comparison.content, pictures))
    _show(comparison, folder)
    exit_code = 1
    try:
        log_evaluation(build.loggers(config), folder)
        exit_code = 0
    finally:
        finish(exit_code)
    return comparison


def _flat(comparison: Comparison) -> Any:
    import pandas as pd

    return pd.json_normalize(comparison.content["runs"]).drop(columns=["folders", "stamps"])


def _gallery(comparison: Comparison, each: int) -> Sequence[GalleryImage]:
    """Pictures of where the best two differ, of evaluations whose photographs are still there."""
    import pandas as pd

    from skinseg.evaluation.gallery import gallery_image, prediction_file

    best, second = comparison.ranked[:2]
    files = best.runs[0].folder / "files.csv"
    if not files.is_file():
        return []
    paths = pd.read_csv(files, dtype=str, keep_default_na=False).set_index("image_id")
    differ = comparison.differ.sort_values("difference", kind="stable")
    chosen = [
        (f"{best.name} is better", differ.tail(each).iloc[::-1]),
        (f"{second.name} is better", differ.head(each)),
    ]
    pictures = []
    for kind, rows in chosen:
        for row in rows.to_dict("records"):
            image_id = str(row["image_id"])
            if (
                image_id not in paths.index
                or (row["difference"] > 0) != (kind == chosen[0][0])
                or not row["difference"]
            ):
                continue
            masks = {"truth": Path(str(paths.loc[image_id, "mask"]))}
            masks |= {m.name: prediction_file(m.runs[0].folder, image_id) for m in (best, second)}
            image = str(paths.loc[image_id, "image"]) or None
            if all(path.is_file() for path in masks.values()) and (image is None or Path(image).is_file()):
                scores = {m.name: float(row[m.name]) for m in (best, second)}
                photograph = {"image_id": image_id, "image": image, "kind": kind}
                pictures.append(gallery_image(photograph, masks, scores, ""))
    return pictures


def _show(comparison: Comparison, folder: Path) -> None:
    from skinseg.scoring.metrics import METRICS

    content, metric = comparison.content, METRICS[comparison.metric]
    table = Table(title=content["title"], title_style="bold", title_justify="left")
    for column in ("", "runs", metric.label, "to the best", "p", "corrected", "won"):
        table.add_column(column, justify="right" if column else "left")
    for entry in content["runs"]:
        cells = [
            entry["name"],
            str(entry["members"]),
            _with_interval(metric, entry["scores"][comparison.metric]),
        ]
        if entry["difference"] is not None:
            cells += [_with_interval(metric, entry["difference"], signed=True)]
            cells += [f"{entry['p']:.4f}", f"{entry['p_corrected']:.4f}", f"{100 * entry['won']:.0f} %"]
        table.add_row(*cells)
    # So wide that the table keeps its names and numbers whole in a file and in a narrow window.
    console = Console(highlight=False, soft_wrap=True, width=1000)
    console.print()
    console.print(table)
    console.print(
        f"{content['images']:,} images of {content['lesions']:,} lesions. Intervals: {content['interval']}. "
        f"Test: {content['test']}."
    )
    console.print(content["verdict"], style="bold")
    for stamp in content["stamps"]:
        console.print(stamp, style="bold yellow")
    console.print(f"\nReport: {folder / 'report.html'}")


def _with_interval(metric: Any, score: Any, *, signed: bool = False) -> str:
    mean, low, high = (metric.text(score[key], signed=signed) for key in ("mean", "low", "high"))
    return f"{mean}\n{low} to {high}" if score["low"] == score["low"] else f"{mean}\nno interval"


@hydra.main(config_path=str(config_dir()), config_name="compare", version_base="1.3")
def task(cfg: DictConfig) -> None:
    """Runs the command."""
    try:
        run(cfg)
    except SkinsegError as error:
        end_with_message(error)


main = main_of(task, "compare", CompareConfig)

if __name__ == "__main__":
    sys.exit(main())
