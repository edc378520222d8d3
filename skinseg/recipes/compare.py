"""What `python -m skinseg.compare` does."""

from __future__ import annotations

import functools
import itertools
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from skinseg.build import parts, trainers
from skinseg.callbacks.quiet import quiet
from skinseg.config.schema import Plain
from skinseg.counting import counted
from skinseg.data.photographs import UnreadableFileError
from skinseg.errors import SkinsegError
from skinseg.evaluation.comparison import Comparison
from skinseg.evaluation.gallery import gallery_image, prediction_file
from skinseg.evaluation.methods import Method, methods_of
from skinseg.evaluation.runs import load_runs
from skinseg.report.comparison_page import comparison_page
from skinseg.report.page import GalleryImage
from skinseg.report.wording import p_value, percent, undefined_share
from skinseg.run.writing import write_csv, write_json, write_text
from skinseg.run.written import afresh, written_in
from skinseg.scoring.metrics import METRICS
from skinseg.tracking.artifacts import fetch_evaluations, log_evaluation
from skinseg.tracking.logger import finish

log = logging.getLogger(__name__)


def run(config: Plain) -> Comparison:
    """Compares runs and writes what was found.

    Args:
        config: Checked; see `skinseg.compare.CompareConfig`.

    Returns:
        The comparison.

    Raises:
        SkinsegError: A mistake in the configuration, or runs that cannot be compared.
    """
    quiet()
    trainers.settle_rank()
    if config["metric"] not in METRICS:
        raise SkinsegError(f"metric={config['metric']}: unknown; known: {', '.join(METRICS)}.")
    ranges = (
        ("draws", config["draws"] >= 100, "100 or more"),
        ("gallery", config["gallery"] >= 0, "0 or more"),
        ("level", 0.5 <= config["level"] < 1, "from 0.5 to below 1"),
    )
    if wrong := [
        f"{key}={config[key]}: expected {expected}." for key, is_within, expected in ranges if not is_within
    ]:
        raise SkinsegError("\n".join(wrong))
    folder = Path(config["run_dir"])
    entries = [config["runs"]] if isinstance(config["runs"], str) else config["runs"]
    entries = [
        place
        for entry in entries
        for place in (
            map(str, fetch_evaluations(entry.removeprefix("wandb:"), folder / "fetched"))
            if entry.startswith("wandb:")
            else [entry]
        )
    ]
    found, unscored = load_runs(entries)
    if len(found) < 2:
        raise SkinsegError(
            f"runs: found {counted(len(found), 'run')}; a comparison needs two. Name further folders."
        )
    methods = methods_of(found, pool=config["pool"])
    comparison = Comparison(methods, config["metric"], config["draws"], config["level"], config["seed"])
    if unscored:
        names = ", ".join(path.name for path in unscored)
        comparison.content["protocol"].append(
            ["Left out", f"{counted(len(unscored), 'run')} without scores: {names}"]
        )
    page = comparison_page(comparison.content, _gallery(comparison, config["gallery"]))
    with afresh(folder, "compare"):
        write_csv(folder / "differ.csv", comparison.differ)
        write_csv(folder / "images.csv", _by_image(methods))
        write_csv(folder / "ranking.csv", _flat(comparison))
        write_json(folder / "comparison.json", comparison.content)
        write_text(folder / "report.html", page)
        _show(comparison, folder)
        exit_code = 1
        try:
            log_evaluation(parts.loggers(config), folder, written_in(folder))
            exit_code = 0
        finally:
            finish(exit_code)
    return comparison


def _flat(comparison: Comparison) -> Any:
    table = pd.json_normalize(comparison.content["runs"]).drop(columns=["folders", "stamps"])
    return table.drop(columns="difference", errors="ignore")


def _by_image(methods: Sequence[Method]) -> Any:
    """A row per method and image, the mean over seeds; of folds each image is scored out of its fold."""
    tables = [method.table.reset_index().assign(method=method.name) for method in methods]
    table = pd.concat(tables, ignore_index=True)
    # Which of the values are none, but what an undefined one counts as.
    undefined = [
        " ".join(name for name in METRICS if image_id in method.undefined(name))
        for method in methods
        for image_id in method.table.index
    ]
    first = ["method", "image_id", "group"]
    return table[first + [name for name in table if name not in first]].assign(undefined=undefined)


def _gallery(comparison: Comparison, each: int) -> Sequence[GalleryImage]:
    """Pictures of where the best two differ most, of images whose masks are still there."""
    if len(comparison.ranked) < 2:
        return []
    best, second = comparison.ranked[:2]
    ordered = comparison.differ.assign(gain=-comparison.sign * comparison.differ["difference"]).sort_values(
        "gain", kind="stable"
    )
    pictures: list[GalleryImage] = []
    for method, rows in (
        (best, ordered[ordered["gain"] > 0].iloc[::-1]),
        (second, ordered[ordered["gain"] < 0]),
    ):
        found = (_picture(row, best, second, f"{method.name} is better") for row in rows.to_dict("records"))
        pictures += itertools.islice((picture for picture in found if picture is not None), each)
    if not pictures and each and (ordered["gain"] == 0).all():
        log.info("The report shows no photographs: the best two runs score the same on every image.")
    elif not pictures and each:
        log.info(
            "The report shows no photographs: the best two runs have kept no masks, or photographs and true "
            "masks are not here. A training by an earlier version kept none: python -m skinseg.evaluate."
        )
    return pictures


def _picture(row: Mapping[Any, Any], best: Method, second: Method, kind: str) -> GalleryImage | None:
    """A photograph with the outlines of two methods; of several seeds those of the first that has them."""
    image_id = str(row["image_id"])
    masks, scores = {}, {}
    files: Mapping[Any, str] = {}
    for method in (best, second):
        run = next((r for r in method.runs if prediction_file(r.folder, image_id).is_file()), None)
        if run is None:
            return None
        files = files or _files(run.folder).get(image_id, {})
        masks[method.name] = prediction_file(run.folder, image_id)
        scores[method.name] = float(row[method.name])
    image = files.get("image") or None
    if not Path(files.get("mask", "")).is_file() or (image is not None and not Path(image).is_file()):
        return None
    photograph = {"image_id": image_id, "image": image, "kind": kind}
    several = [method.name for method in (best, second) if method.seeds]
    note = f"outline of one of several seeds: {', '.join(several)}" if several else ""
    try:
        return gallery_image(photograph, {"truth": Path(files["mask"]), **masks}, scores, note)
    except UnreadableFileError as error:  # changed since it was scored, or larger than is opened here
        log.warning("Left out of the pictures: %s", error)
        return None


@functools.cache
def _files(folder: Path) -> dict[str, dict[Any, str]]:
    """Where an evaluation's photographs and true masks lie, by image id."""
    path = folder / "files.csv"
    if not path.is_file():
        return {}
    table = pd.read_csv(path, dtype=str, keep_default_na=False).set_index("image_id")
    return {str(key): dict(value) for key, value in table.to_dict("index").items()}


def _show(comparison: Comparison, folder: Path) -> None:
    content, metric = comparison.content, METRICS[comparison.metric]
    table = Table(title=content["title"], title_style="bold", title_justify="left")
    for column in ("", "runs", metric.label, "minus the best", "p", "corrected", "won"):
        table.add_column(column, justify="right" if column else "left")
    for entry in content["runs"]:
        cells = [
            entry["name"],
            str(entry["members"]),
            _with_interval(metric, entry["scores"][comparison.metric], content["images"]),
        ]
        if entry["difference"] is not None:
            cells += [_with_interval(metric, entry["difference"], content["images"], signed=True)]
            cells += [p_value(entry["p"]), p_value(entry["p_corrected"]), percent(entry["won"])]
        table.add_row(*cells)
    # So wide that the table keeps its names and numbers whole in a file and in a narrow window.
    console = Console(highlight=False, soft_wrap=True, width=1000, markup=False)
    console.print()
    console.print(table)
    console.print(
        f"{counted(content['images'], 'image')} of {counted(content['lesions'], 'lesion')}; "
        f"{content['interval']}. Test: {content['test']}."
    )
    console.print(content["verdict"], style="bold")
    for stamp in content["stamps"]:
        console.print(stamp, style="bold yellow")
    console.print(f"\nReport: {folder / 'report.html'}")


def _with_interval(metric: Any, score: Any, images: int, *, signed: bool = False) -> str:
    mean, low, high = (metric.text(score[key], signed=signed) for key in ("mean", "low", "high"))
    none = f"no interval: {score['no_interval']}" if score["no_interval"] else "no interval"
    lines = [mean, f"{low} to {high}" if score["low"] == score["low"] else none]
    if missing := score.get("undefined"):
        lines.append(f"undefined on {undefined_share(missing, images)}")
    return "\n".join(lines)
