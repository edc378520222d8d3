"""What `python -m skinseg.evaluate` does."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from rich.console import Console
from rich.progress import Progress

from skinseg.build import nets, parts, trainers
from skinseg.build.trust import check_stored, only_read, trusted_checkpoint
from skinseg.callbacks.quiet import quiet
from skinseg.config.schema import Plain
from skinseg.counting import counted
from skinseg.data.photographs import DEFAULT_MAX_MEGAPIXELS
from skinseg.data.readers.folders import read_folders
from skinseg.errors import SkinsegError
from skinseg.evaluation.result import Result, Settings, run_folder
from skinseg.evaluation.rows import Job, Options, Scored, best_threshold, score_images, workers_for
from skinseg.evaluation.subset import Subset, is_test, listed_subset, other_subset, strata_of, trained_subset
from skinseg.inference.files import check_complete, find_mask_files, find_photographs
from skinseg.models.cost import network_cost
from skinseg.names import folder_name, shown
from skinseg.quoting import command_line, override
from skinseg.run.provenance import provenance
from skinseg.run.record import RunRecord
from skinseg.run.test_log import check_log
from skinseg.run.writing import write_json
from skinseg.run.written import afresh, written_in
from skinseg.scoring.strata import user_lesions, user_strata
from skinseg.tracking.artifacts import log_evaluation
from skinseg.tracking.logger import finish

log = logging.getLogger(__name__)

# Letters of a run's name in that of its folder: file systems take 255 bytes, and a letter has up to four.
_LONGEST = 60


def run(config: Plain) -> list[Path]:
    """Evaluates checkpoints, or a folder of masks.

    Args:
        config: Checked; see `skinseg.evaluate.EvaluateConfig`.

    Returns:
        A folder for each checkpoint (one for a folder of masks).

    Raises:
        SkinsegError: A mistake in the configuration, the data, a checkpoint or a mask.
    """
    quiet()
    user = None if config["strata"] is None else user_strata(Path(config["strata"]).expanduser())
    root = Path(config["run_dir"])
    if config["predictions"] is not None:
        return [_evaluate_folder(config, root, user)]
    paths = config["ckpt"] if isinstance(config["ckpt"], list) else [config["ckpt"]]
    records = [_record(path, config["trust"]) for path in paths]
    subsets = [_subset(config, record) for record in records]
    users = [strata_of(user, subset, config["strata"]) for subset in subsets]
    tests = [is_test(record, subset) for record, subset in zip(records, subsets, strict=True)]
    _refuse_choice_on_test([r for r, test in zip(records, tests, strict=True) if test])
    for path, test in zip(paths, tests, strict=True):
        if test and (run_dir := run_folder(Path(path).expanduser())) is not None:
            check_log(run_dir)
    folders = []
    with afresh(root, "evaluate", _read_later(config)):
        for number, (path, record, subset, own) in enumerate(
            zip(paths, records, subsets, users, strict=True)
        ):
            called = folder_name(str(record.config["name"]))[:_LONGEST]
            folder = root if len(paths) == 1 else root / f"{number}_{called}"
            place = Path(path).expanduser()
            folders.append(_evaluate_checkpoint(config, place, subset, folder, own))
    if len(folders) > 1:
        log.info("\nTo compare them: %s", command_line("skinseg.compare", override("runs", str(root))))
    return folders


def _record(path: str, trust: str | list[str]) -> RunRecord:
    """What a checkpoint carries beside its weights."""
    record = RunRecord.of(trusted_checkpoint(path, key="ckpt", trust=trust))
    if record.subsets is None:
        raise SkinsegError(
            f"ckpt={path} was written before checkpoints carried their split, so nobody can say which images "
            "it was trained on. Train it again, or resume it for an epoch (ckpt_path=...)."
        )
    return record


def _refuse_choice_on_test(tested: list[RunRecord]) -> None:
    runs = [record.config["run_dir"] for record in tested]
    twice = sorted({run for run in runs if runs.count(run) > 1})
    if twice:
        raise SkinsegError(
            f"Several checkpoints of one run ({twice[0]}) on test images: the better of them would be chosen "
            "on test. Choose with side=val, then score that one."
        )


def _evaluate_checkpoint(
    config: Plain,
    path: Path,
    subset: Subset,
    folder: Path,
    user: pd.DataFrame | None,
) -> Path:
    net, record = nets.load_net(path, config["trust"])
    loading = config["data"] or config["as_trained"]
    limit = _max_megapixels(config, record)
    predictor = nets.predictor(
        net,
        record,
        device=config["device"],
        precision=config["precision"],
        batch_size=loading.get("batch_size"),
        num_workers=loading.get("num_workers"),
        max_megapixels=limit,
    )
    workers = _workers(config, subset)
    seconds = 0.0

    def jobs(table: pd.DataFrame) -> Iterator[Job]:
        nonlocal seconds
        seconds = 0.0
        ids, images, masks = (table[column].tolist() for column in ("image_id", "image", "mask"))
        for prediction in predictor(images):
            seconds += prediction.seconds
            row = prediction.row
            yield Job(ids[row], images[row], masks[row], prediction.probability)

    threshold, origin = net.threshold, "fixed in the configuration"
    if config["threshold"] == "val":
        validation = _trained(config, record, "val").table
        with _progress(
            f"Choosing the threshold on {counted(len(validation), 'validation image')}", len(validation)
        ) as advance:
            threshold, tried = best_threshold(
                jobs(validation), workers=workers, advance=advance, max_megapixels=limit
            )
        origin = (
            f"largest mean Dice on {counted(len(validation), 'validation image')} ({tried[threshold]:.4f})"
        )
    elif config["threshold"] is not None:
        threshold, origin = config["threshold"], "set by hand"
    options = Options(
        threshold,
        config["tolerance_px"],
        config["tolerance_percent"],
        config["bins"],
        folder / "masks",
        max_megapixels=limit,
    )
    with _progress(f"Scoring {counted(len(subset.table), 'image')}", len(subset.table)) as advance:
        scored = score_images(jobs(subset.table), options, workers=workers, advance=advance)
    height, width = record.config["data"]["image_size"]
    run_dir = run_folder(path)
    training_costs, weights = _told_by(run_dir)
    own_data = config["data"] is None and config["truth"] is None
    result = Result(
        **_common(config, subset, scored, folder, user),
        is_divided=own_data or config["split_file"] is not None,
        threshold=threshold,
        threshold_origin=origin,
        threshold_asked=config["threshold"],
        checkpoint=path,
        record=record,
        costs={
            **network_cost(net.network, (height, width)),
            "images_per_second": len(subset.table) / seconds,
            **training_costs,
        },
        device=str(predictor.device),
        own_data=own_data,
        run_dir=run_dir,
        weights=weights,
        max_megapixels=limit,
    )
    return _finish(config, result)


def _evaluate_folder(config: Plain, folder: Path, user: pd.DataFrame | None) -> Path:
    source = Path(config["predictions"]).expanduser()
    predictions = find_mask_files(source, "predictions")
    subset = _subset(config, None)
    limit = _max_megapixels(config, None)
    user = strata_of(user, subset, config["strata"])
    where = (
        f"truth={config['truth']}" if config["truth"] is not None else f"the {subset.name} subset of the data"
    )
    check_complete(predictions, subset.table["image_id"], source, where=where)
    ids, images, masks = (subset.table[column].tolist() for column in ("image_id", "image", "mask"))
    jobs = (
        Job(image_id, image if isinstance(image, str) else None, mask, predictions[image_id])
        for image_id, image, mask in zip(ids, images, masks, strict=True)
    )
    options = Options(
        tolerance_px=config["tolerance_px"],
        tolerance_percent=config["tolerance_percent"],
        masks=folder / "masks",
        max_megapixels=limit,
    )
    with afresh(folder, "evaluate", _read_later(config)):
        with _progress(f"Scoring {counted(len(subset.table), 'mask')}", len(subset.table)) as advance:
            scored = score_images(jobs, options, workers=_workers(config, subset), advance=advance)
        result = Result(
            **_common(config, subset, scored, folder, user),
            is_divided=config["split_file"] is not None,
            predictions=source,
            max_megapixels=limit,
        )
        return _finish(config, result)


def _common(
    config: Plain, subset: Subset, scored: Scored, folder: Path, user: pd.DataFrame | None
) -> dict[str, Any]:
    """What is said of a checkpoint and of masks alike; see `Result`."""
    return {
        "settings": Settings.of(config),
        "subset": subset,
        "scored": scored,
        "folder": folder,
        "source": None if config["truth"] is None else Path(config["truth"]).expanduser(),
        "user": user,
    }


def _told_by(run_dir: Path | None) -> tuple[dict[str, float], str]:
    """Returns what a training said of its costs and of the weights that it scored, as far as it did."""
    path = None if run_dir is None else run_dir / "summary.json"
    if path is None or not path.is_file():
        return {}, ""
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
        training = summary["training"]
        costs = {f"training_{key}": training[key] for key in ("seconds", "steps") if key in training}
        return costs, str(summary.get("protocol", {}).get("weights", ""))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        log.warning("%s cannot be read (%s); the report does not say how it was trained.", path, error)
        return {}, ""


def _read_later(config: Plain) -> dict[str, str | None]:
    """Folders whose files are opened while the evaluation is being written."""
    return {key: config[key] for key in ("predictions", "images", "truth")}


def _subset(config: Plain, record: RunRecord | None) -> Subset:
    not_read: list[str] = []
    if config["truth"] is not None:
        masks = find_mask_files(Path(config["truth"]).expanduser(), "truth")
        images = None
        if config["images"] is not None:
            found = find_photographs(Path(config["images"]).expanduser(), "images")
            images, not_read = found.files, [shown(path.name) for path in found.not_read]
            for remark in found.remarks():
                log.warning("images=%s: %s", config["images"], remark)
        lesions = None if config["strata"] is None else user_lesions(Path(config["strata"]).expanduser())
        limit = _max_megapixels(config, record)
        subset = other_subset(read_folders(masks, images, lesions, limit), record, config["overlap"])
    elif config["data"] is not None:
        data = parts.data_source("data", config["data"], seed=0)
        subset = other_subset(data.catalog, record, config["overlap"])
    else:
        assert record is not None
        subset = _trained(config, record, config["side"])
    if config["split_file"] is not None:
        subset = listed_subset(subset, Path(config["split_file"]).expanduser(), config["side"])
    return (
        replace(subset, left_out={**subset.left_out, "of_a_kind_that_is_not_read": not_read})
        if not_read
        else subset
    )


def _max_megapixels(config: Plain, record: RunRecord | None) -> float:
    """Most millions of pixels of a picture: as set here, else as in the training on the same data."""
    node = config["data"] or config["as_trained"]
    if "max_megapixels" not in node and record is not None and config["truth"] is None:
        trained = record.config
        node = (config["side"] == "test" and trained["test_data"]) or trained["data"]
    return float(node.get("max_megapixels", DEFAULT_MAX_MEGAPIXELS))


def _trained(config: Plain, record: RunRecord, name: Literal["test", "val", "train"]) -> Subset:
    """The subset of the run's own data, or its test data where it was tested on another data set."""
    trained = record.config
    changed = {key: value for key, value in config["as_trained"].items() if key != "batch_size"}
    other = trained["test_data"] if name == "test" else None
    check_stored(
        {"data": other or trained["data"]}, ["data"], source="The checkpoint's data", trust=config["trust"]
    )
    node = {**only_read(other or trained["data"], draw="root" in changed), **changed}
    node = {key: value for key, value in node.items() if key not in ("split", "overfit")}
    if "root" in changed and node.get("images") is not None:
        node |= {"images": node["root"], "root": None}
    catalog = parts.data_source("data", node, seed=trained["seed"]).catalog
    if other:
        return other_subset(catalog, record, trained["test_overlap"])
    return trained_subset(catalog, record, name)


def _finish(config: Plain, result: Result) -> Path:
    result.log_scoring()  # first: it has been scored by now
    result.write()
    write_json(result.folder / "provenance.json", provenance())
    result.show()
    trainers.settle_rank()
    loggers = parts.loggers({**config, "run_dir": str(result.folder)})
    exit_code = 1
    try:
        log_evaluation(loggers, result.folder, written_in(result.folder))
        exit_code = 0
    finally:
        seen_at = finish(exit_code)
    if seen_at is not None:
        log.info("Weights & Biases: %s", seen_at)
    return result.folder


def _workers(config: Plain, subset: Subset) -> int:
    return workers_for(len(subset.table)) if config["workers"] is None else int(config["workers"])


def _progress(what: str, total: int) -> Any:
    """A progress bar's step function; nothing is drawn where nobody watches."""

    @contextmanager
    def bar() -> Any:
        console = Console()
        with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
            yield partial(progress.advance, progress.add_task(what, total=total))

    return bar()
