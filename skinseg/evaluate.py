"""Say how good a network is, for whom, and how sure that is: scores, intervals, strata, a report.

python -m skinseg.evaluate ckpt=<run folder>/checkpoints/best.ckpt
python -m skinseg.evaluate predictions=<folder of masks> truth=<folder of masks>
"""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import hydra
from omegaconf import DictConfig

from skinseg.config.check import Changes, check, check_changes
from skinseg.config.command import end_with_message, main_of
from skinseg.config.compose import config_dir, plain
from skinseg.config.schema import Node, Plain
from skinseg.counting import counted
from skinseg.errors import SkinsegError
from skinseg.quoting import command_line, override

if TYPE_CHECKING:
    import pandas as pd

    from skinseg.evaluation.side import Side
    from skinseg.run.record import RunRecord

log = logging.getLogger(__name__)

# Letters of a run's name in that of its folder: file systems take 255 bytes, and a letter has up to four.
_LONGEST = 60


@dataclass
class EvaluateConfig:
    """Every key at the root of the configuration.

    Either `ckpt` or `predictions` is scored, on `data` or on the folder `truth` with the photographs in
    `images`.

    Attributes:
        name: Part of the folder's path.
        run_dir: The folder that the evaluation writes; of several checkpoints each has a folder in it.
        seed: Of the bootstrap.
        ckpt: A checkpoint or a list of them.
        trust: Packages of your own, or of somebody whom you trust, whose constructors they may name; see
            `skinseg.build.trust`.
        predictions: Folder of masks that any program wrote, one for each scored image and no others.
        images: Folder of photographs.
        truth: Folder of masks.
        strata: CSV with image_id and further columns, each of which is a stratum; a column lesion_id says
            which images of a folder show one lesion.
        side: "test", "val" or "train", of the split.
        split_file: CSV with image_id and split. null: the split of the checkpoint's run; of other data
            everything is the test side.
        overlap: What happens to images and lesions of other data that the network was trained with:
            "exclude", "refuse", or "keep", which stamps the scores CONTAMINATED.
        threshold: Lesion is where the probability is at least this. null: that of the checkpoint's run;
            "val": that of the largest mean Dice on the run's validation side.
        tolerance_px: Of the normalised surface Dice, in pixels.
        tolerance_percent: The same in percent of the image's diagonal.
        bins: Of the calibration error and the reliability diagram.
        draws: Of the bootstrap.
        level: Of the intervals.
        gallery: How many of the worst, median and best images the report shows each.
        device: "auto" takes a GPU where there is one.
        precision: "32-true", "bf16-mixed" or "16-mixed". null: that of the checkpoint's run.
        workers: Processes that score. null: by the number of cores.
        data: The data set; without `data=<option>` that of the checkpoint's run, with these changes.
        group: Runs that belong together, in Weights & Biases.
        job_type: What the run does, in Weights & Biases.
        tags: Words to find the run by.
        notes: A sentence on the run.
        logger: Loggers by name: `logger=wandb` keeps tables and report as an artifact.
    """

    name: str
    run_dir: str
    seed: int
    ckpt: str | list[str] | None
    trust: str | list[str]
    predictions: str | None
    images: str | None
    truth: str | None
    strata: str | None
    side: Literal["test", "val", "train"]
    split_file: str | None
    overlap: Literal["exclude", "refuse", "keep"]
    threshold: float | Literal["val"] | None
    tolerance_px: float
    tolerance_percent: float
    bins: int
    draws: int
    level: float
    gallery: int
    device: Literal["auto", "cpu", "cuda", "mps"]
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] | None
    workers: int | None
    data: Node | Changes | None
    group: str | None
    job_type: str
    tags: list[str]
    notes: str | None
    logger: dict[str, Node | None] | None


def run(cfg: DictConfig) -> list[Path]:
    """Evaluates checkpoints, or a folder of masks.

    Args:
        cfg: The composed configuration; see `EvaluateConfig`.

    Returns:
        A folder for each checkpoint (one for a folder of masks).

    Raises:
        SkinsegError: A mistake in the configuration, the data, a checkpoint or a mask.
    """
    config, as_trained = _checked(plain(cfg))

    from skinseg.callbacks.quiet import quiet
    from skinseg.evaluation.result import run_folder
    from skinseg.evaluation.side import is_test, strata_of
    from skinseg.names import folder_name
    from skinseg.run.test_log import check_log
    from skinseg.run.written import afresh
    from skinseg.scoring.strata import user_strata

    quiet()
    user = None if config["strata"] is None else user_strata(Path(config["strata"]).expanduser())
    root = Path(config["run_dir"])
    if config["predictions"] is not None:
        return [_evaluate_folder(config, as_trained, root, user)]
    paths = config["ckpt"] if isinstance(config["ckpt"], list) else [config["ckpt"]]
    records = [_record(path, config["trust"]) for path in paths]
    sides = [_side(config, as_trained, record) for record in records]
    users = [strata_of(user, side, config["strata"]) for side in sides]
    tests = [is_test(record, side) for record, side in zip(records, sides, strict=True)]
    _refuse_choice_on_test([r for r, test in zip(records, tests, strict=True) if test])
    for path, test in zip(paths, tests, strict=True):
        if test and (run_dir := run_folder(Path(path).expanduser())) is not None:
            check_log(run_dir)
    folders = []
    with afresh(root, "evaluate", _read_later(config)):
        for number, (path, record, side, own) in enumerate(zip(paths, records, sides, users, strict=True)):
            called = folder_name(str(record.config["name"]))[:_LONGEST]
            folder = root if len(paths) == 1 else root / f"{number}_{called}"
            place = Path(path).expanduser()
            folders.append(_evaluate_checkpoint(config, as_trained, place, side, folder, own))
    if len(folders) > 1:
        log.info("\nTo compare them: %s", command_line("skinseg.compare", override("runs", str(root))))
    return folders


def _checked(config: Plain) -> tuple[Plain, Plain]:
    """Returns the configuration, and what is to be changed of the data of a checkpoint's run."""
    as_trained: Plain = {}
    if config.get("data") and "_target_" not in config["data"]:
        as_trained = {key: value for key, value in config["data"].items() if value is not None}
        as_trained = check_changes("data", as_trained, "skinseg.data.datamodule.LesionDataModule")
        config = {**config, "data": None}
    if config.get("threshold") in ("test", "train"):
        raise SkinsegError(
            f"threshold={config['threshold']}: a threshold is chosen on validation, never on the images "
            "that it is scored on. Take threshold=val, or a number."
        )
    config = check(config, EvaluateConfig)
    if (config["ckpt"] is None) == (config["predictions"] is None):
        raise SkinsegError(
            "Say what to evaluate: ckpt=<checkpoint> or ckpt=[<several>], or predictions=<folder of masks>"
            + ("; not both." if config["ckpt"] is not None else ".")
        )
    if config["ckpt"] == []:
        raise SkinsegError("ckpt=[]: there is no checkpoint in the list.")
    if config["truth"] is not None and config["data"] is not None:
        raise SkinsegError("truth=<folder> and data=<data set> both say what is true; give one of them.")
    if config["truth"] is None and config["predictions"] is not None and config["data"] is None:
        raise SkinsegError(
            "predictions needs truth=<folder of masks>, or data=<data set> data.root=<folder>."
        )
    if config["truth"] is not None and config["ckpt"] is not None and config["images"] is None:
        raise SkinsegError("ckpt with truth=<folder> needs images=<folder of photographs> to predict.")
    if config["images"] is not None and config["truth"] is None:
        raise SkinsegError("images=<folder> needs truth=<folder of masks> to be scored against.")
    whole = config["data"] is not None or config["truth"] is not None
    if whole and config["side"] != "test" and config["split_file"] is None:
        raise SkinsegError(
            f"side={config['side']} of other data needs split_file=<CSV with image_id and split>."
        )
    if config["predictions"] is not None and config["threshold"] is not None:
        raise SkinsegError(
            "threshold: masks are of 0 and 255 already; there is no probability to compare with it."
        )
    least = {"draws": 100, "bins": 2, "gallery": 1, "tolerance_px": 0, "tolerance_percent": 0, "workers": 0}
    for key, lowest in least.items():
        if config[key] is not None and config[key] < lowest:
            raise SkinsegError(f"{key}={config[key]}: expected {lowest} or more.")
    if not 0.5 <= config["level"] < 1:
        raise SkinsegError(f"level={config['level']}: expected a coverage from 0.5 to below 1, such as 0.95.")
    return config, as_trained


def _record(path: str, trust: str | list[str]) -> RunRecord:
    """What a checkpoint carries beside its weights."""
    from skinseg.build.trust import trusted_checkpoint
    from skinseg.run.record import RunRecord

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
    as_trained: Plain,
    path: Path,
    side: Side,
    folder: Path,
    user: pd.DataFrame | None,
) -> Path:
    from collections.abc import Iterator

    from skinseg.build import nets
    from skinseg.evaluation.result import Result, run_folder
    from skinseg.evaluation.rows import Job, Options, best_threshold, score_images

    net, record = nets.load_net(path, config["trust"])
    loading = config["data"] or as_trained
    limit = _max_megapixels(config, as_trained, record)
    predictor = nets.predictor(
        net,
        record,
        device=config["device"],
        precision=config["precision"],
        batch_size=loading.get("batch_size"),
        num_workers=loading.get("num_workers"),
        max_megapixels=limit,
    )
    workers = _workers(config)
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
        validation = _trained(as_trained, record, "val", config["trust"]).table
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
    with _progress(f"Scoring {counted(len(side.table), 'image')}", len(side.table)) as advance:
        scored = score_images(jobs(side.table), options, workers=workers, advance=advance)
    result = Result(
        config=config,
        side=side,
        scored=scored,
        folder=folder,
        user=user,
        threshold=threshold,
        threshold_origin=origin,
        checkpoint=path,
        record=record,
        network=net.network,
        seconds_per_image=seconds / len(side.table),
        device=str(predictor.device),
        own_data=config["data"] is None and config["truth"] is None,
        run_dir=run_folder(path),
        max_megapixels=limit,
    )
    return _finish(config, result)


def _evaluate_folder(config: Plain, as_trained: Plain, folder: Path, user: pd.DataFrame | None) -> Path:
    from skinseg.evaluation.result import Result
    from skinseg.evaluation.rows import Job, Options, score_images
    from skinseg.evaluation.side import strata_of
    from skinseg.inference.files import check_complete, find_mask_files
    from skinseg.run.written import afresh

    source = Path(config["predictions"]).expanduser()
    predictions = find_mask_files(source, "predictions")
    side = _side(config, as_trained, None)
    limit = _max_megapixels(config, as_trained, None)
    user = strata_of(user, side, config["strata"])
    where = f"truth={config['truth']}" if config["truth"] is not None else f"the {side.name} side of the data"
    check_complete(predictions, side.table["image_id"], source, where=where)
    ids, images, masks = (side.table[column].tolist() for column in ("image_id", "image", "mask"))
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
        with _progress(f"Scoring {counted(len(side.table), 'mask')}", len(side.table)) as advance:
            scored = score_images(jobs, options, workers=_workers(config), advance=advance)
        result = Result(
            config=config, side=side, scored=scored, folder=folder, user=user, max_megapixels=limit
        )
        return _finish(config, result)


def _read_later(config: Plain) -> dict[str, str | None]:
    """Folders whose files are opened while the evaluation is being written."""
    return {key: config[key] for key in ("predictions", "images", "truth")}


def _side(config: Plain, as_trained: Plain, record: RunRecord | None) -> Side:
    from skinseg.build import training
    from skinseg.data.folders import read_folders
    from skinseg.evaluation.side import listed_side, other_side
    from skinseg.inference.files import find_mask_files, find_photographs
    from skinseg.names import shown
    from skinseg.scoring.strata import user_lesions

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
        limit = _max_megapixels(config, as_trained, record)
        side = other_side(read_folders(masks, images, lesions, limit), record, config["overlap"])
    elif config["data"] is not None:
        data = training.data_source("data", config["data"], seed=0)
        side = other_side(data.catalog, record, config["overlap"])
    else:
        assert record is not None
        side = _trained(as_trained, record, config["side"], config["trust"])
    if config["split_file"] is not None:
        side = listed_side(side, Path(config["split_file"]).expanduser(), config["side"])
    return (
        replace(side, left_out={**side.left_out, "of_a_kind_that_is_not_read": not_read})
        if not_read
        else side
    )


def _max_megapixels(config: Plain, as_trained: Plain, record: RunRecord | None) -> float:
    """Most millions of pixels of a picture: as set here, else as in the training on the same data."""
    from skinseg.data.photographs import DEFAULT_MAX_MEGAPIXELS

    node = config["data"] or as_trained
    if "max_megapixels" not in node and record is not None and config["truth"] is None:
        trained = record.config
        node = (config["side"] == "test" and trained["test_data"]) or trained["data"]
    return float(node.get("max_megapixels", DEFAULT_MAX_MEGAPIXELS))


def _trained(
    as_trained: Plain, record: RunRecord, name: Literal["test", "val", "train"], trust: str | list[str]
) -> Side:
    """The side of the run's own data, or its test data where it was tested on another data set."""
    from skinseg.build import training
    from skinseg.build.trust import check_stored, only_read
    from skinseg.evaluation.side import other_side, trained_side

    trained = record.config
    changed = {key: value for key, value in as_trained.items() if key != "batch_size"}
    other = trained["test_data"] if name == "test" else None
    check_stored({"data": other or trained["data"]}, ["data"], source="The checkpoint's data", trust=trust)
    node = {**only_read(other or trained["data"], draw="root" in changed), **changed}
    node = {key: value for key, value in node.items() if key not in ("split", "overfit")}
    catalog = training.data_source("data", node, seed=trained["seed"]).catalog
    if other:
        return other_side(catalog, record, trained["test_overlap"])
    return trained_side(catalog, record, name)


def _finish(config: Plain, result: Any) -> Path:
    from skinseg.build import trainers, training
    from skinseg.callbacks.wandb_run import finish, log_evaluation

    result.write()
    result.show()
    trainers.settle_rank()
    loggers = training.loggers({**config, "run_dir": str(result.folder)})
    exit_code = 1
    try:
        log_evaluation(loggers, result.folder)
        exit_code = 0
    finally:
        seen_at = finish(exit_code)
    if seen_at is not None:
        log.info("Weights & Biases: %s", seen_at)
    folder: Path = result.folder
    return folder


def _workers(config: Plain) -> int:
    import os

    if config["workers"] is not None:
        return int(config["workers"])
    return min(8, max(1, (os.cpu_count() or 1) - 1))


def _progress(what: str, total: int) -> Any:
    """A progress bar's step function; nothing is drawn where nobody watches."""
    from contextlib import contextmanager
    from functools import partial

    from rich.console import Console
    from rich.progress import Progress

    @contextmanager
    def bar() -> Any:
        console = Console()
        with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
            yield partial(progress.advance, progress.add_task(what, total=total))

    return bar()


@hydra.main(config_path=str(config_dir()), config_name="evaluate", version_base="1.3")
def task(cfg: DictConfig) -> None:
    """Runs the command."""
    try:
        run(cfg)
    except SkinsegError as error:
        end_with_message(error)


main = main_of(task, "evaluate", EvaluateConfig, lambda config: _checked(config)[0])

if __name__ == "__main__":
    sys.exit(main())
