"""What `python -m skinseg.train` does."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing import active_children
from pathlib import Path

import lightning as L
import pandas as pd
import torch

from skinseg.build import parts, trainers
from skinseg.build.trust import trusted, trusted_checkpoint
from skinseg.callbacks.quiet import quiet
from skinseg.callbacks.scores import EvaluationRows
from skinseg.config.compose import yaml_of
from skinseg.config.schema import Plain
from skinseg.counting import counted
from skinseg.data.datamodule import LesionDataModule
from skinseg.data.loader import end_loader_processes
from skinseg.errors import InterruptedRunError, SkinsegError
from skinseg.inference.files import kept_mask_name
from skinseg.quoting import override, pasted
from skinseg.run import record as records
from skinseg.run.layout import CARD, RESULTS, last_of
from skinseg.run.provenance import provenance
from skinseg.run.record import RunRecord
from skinseg.run.resuming import check_resumable, check_same_split
from skinseg.run.writing import first_rank, write_csv, write_json, write_text
from skinseg.run.written import written_by_any
from skinseg.tracking.logger import finish, run_id
from skinseg.training.budget import divide, steps_of
from skinseg.training.ending import fit_and_score, test_options
from skinseg.training.failure import how_to_resume, message_for
from skinseg.training.find import find_batch_size, find_lr

log = logging.getLogger(__name__)


def run(config: Plain) -> float:
    """Runs one experiment from folder to scores.

    Args:
        config: Checked; see `skinseg.config.schema.RootConfig`.

    Returns:
        The best validation score (`monitor`), the objective of a sweep.

    Raises:
        SkinsegError: A mistake in the configuration or the data, or Ctrl-C or SIGTERM.
    """
    quiet()
    _prepare_torch(config)
    processes = trainers.settle_rank(config)
    run_dir = Path(config["run_dir"])
    resumed = before = None
    if config["ckpt_path"] is not None:
        resumed = trusted_checkpoint(config["ckpt_path"], key="ckpt_path", trust=trusted(config))
        before = records.RunRecord.of(resumed)
    so_far = _results_so_far(run_dir, config["ckpt_path"])
    parts.check_start(config)
    if resumed is not None and before is not None:
        config = _with_found_before(config, before)
        check_resumable(resumed, config, processes)
    exit_code = 1
    others = active_children()
    try:
        data = parts.datamodule(config)
        data.try_changes()
        if config["find"] is not None and resumed is None:
            config = _with_found(config, data)
            data = parts.datamodule(config)
        steps = _budget_steps(config, data, before)
        if config["budget"]["minutes"] is not None:
            data = parts.datamodule(config)
        test_data = parts.test_datamodule(config, data)
        if before is not None:
            check_same_split(before, config, data.split.fingerprint)
        _write_record(run_dir, config, data, test_data)
        for path in so_far:
            path.unlink()
        # Before the fit, at whose end a full disk would cost the test subset's scores.
        for module in dict.fromkeys((data, test_data) if config["test"] else (data,)):
            module.prepare_data()
        segmenter = parts.segmenter(config)
        callbacks = parts.callbacks(config)
        if config["test"]:
            callbacks.insert(0, EvaluationRows(test_options(config, test_data)))
        loggers = parts.loggers(config, resumed)
        segmenter.record = records.record_of(config, data.split, steps, run_id(loggers))
        trainer = trainers.trainer(config, callbacks, loggers)
        if steps is not None:
            _limit(trainer, steps, data, config)
        _check_batches(trainer, data, test_data if config["test"] else None)
        for logger in loggers:
            logger.log_hyperparams({**config, "stamps": stamps} if (stamps := data.split.stamps) else config)
        objective = fit_and_score(trainer, segmenter, data, test_data, config)
        exit_code = 0
    except (RuntimeError, OSError) as error:
        said = message_for(config, error)
        if said is None:
            raise
        raise said from error
    except SystemExit as error:  # how Lightning ends a fit at Ctrl-C and SIGTERM
        exit_code = InterruptedRunError.exit_code
        raise InterruptedRunError(how_to_resume(run_dir)) from error
    finally:
        end_loader_processes(but=others)
        seen_at = finish(exit_code)
        if seen_at is not None:
            log.info("Weights & Biases: %s", seen_at)
    return objective


def _with_found(config: Plain, data: LesionDataModule) -> Plain:
    """Returns the configuration with what `find` found in it, so that all records say what was used."""
    if config["find"] == "batch_size":
        return _with_value(config, "data", "batch_size", find_batch_size(config, data))
    return _with_value(config, "optimizer", "lr", find_lr(config, data))


def _with_found_before(config: Plain, before: RunRecord) -> Plain:
    """Returns the configuration with what `find` found in the run that is resumed."""
    if config["find"] is None:
        return config
    group, key = {"batch_size": ("data", "batch_size"), "lr": ("optimizer", "lr")}[config["find"]]
    value = before.config[group][key]
    if not isinstance(value, int | float):
        raise SkinsegError(f"ckpt_path: its {group}.{key} is {value!r}; expected a number.")
    return _with_value(config, group, key, value)


def _with_value(config: Plain, group: str, key: str, value: float) -> Plain:
    shown = value if isinstance(value, int) else f"{value:.2e}"
    log.info("find=%s: %s.%s=%s.", config["find"], group, key, shown)
    return {**config, group: {**config[group], key: value}}


def _budget_steps(config: Plain, data: LesionDataModule, before: RunRecord | None) -> int | None:
    """Returns the optimizer steps of the budget, None where there is none.

    A resumed run keeps those of the first one.
    """
    steps: int | None = config["budget"]["steps"]
    minutes = config["budget"]["minutes"]
    if minutes is None:
        return steps
    if before is not None and before.budget_steps is not None:
        return before.budget_steps
    steps = steps_of(minutes, config, data)
    log.info("budget.minutes=%g: %s.", minutes, counted(steps, "step"))
    return steps


def _limit(trainer: L.Trainer, steps: int, data: LesionDataModule, config: Plain) -> None:
    batches = data.train_batches(trainer.world_size)
    budget = divide(steps, config["budget"]["validations"], trainer.accumulate_grad_batches, batches)
    log.info("Budget: %s, %s.", counted(budget.steps, "step"), counted(budget.epochs, "validation"))
    trainer.fit_loop.max_epochs = budget.epochs
    trainer.limit_train_batches = budget.batches


def _check_batches(trainer: L.Trainer, data: LesionDataModule, test_data: LesionDataModule | None) -> None:
    """Refuses limits that leave no batch, and validations that never come; a test's only after the fit."""
    batches = {"train": data.train_batches(trainer.world_size)}
    for subset, module in (("val", data), ("test", test_data)):
        if module is not None:
            batches[subset] = module.scored_batches(subset, trainer.world_size)
    for subset, number in batches.items():
        limit = getattr(trainer, f"limit_{subset}_batches")
        left = int(number * limit) if isinstance(limit, float) else min(number, limit)
        if number and not left:
            raise SkinsegError(
                f"trainer.limit_{subset}_batches={limit}: of {counted(number, 'batch', 'batches')} it leaves "
                f"none; expected a share of {math.ceil(100 / number) / 100} or more, or a whole number."
            )
        every = trainer.val_check_interval
        if subset == "train" and isinstance(every, int) and trainer.check_val_every_n_epoch and every > left:
            raise SkinsegError(
                f"trainer.val_check_interval={every}: an epoch has only {counted(left, 'batch', 'batches')}; "
                "lower it, or set trainer.check_val_every_n_epoch=null to count through the epochs."
            )


def _prepare_torch(config: Plain) -> None:
    if config["threads"] is not None:
        torch.set_num_threads(config["threads"])
    torch.set_float32_matmul_precision(config["matmul_precision"])
    L.seed_everything(config["seed"], verbose=False)


def _results_so_far(run_dir: Path, ckpt_path: str | None) -> list[Path]:
    """Returns the results of a training that goes on in its own folder, which the first process is to remove.

    Raises:
        SkinsegError: There are checkpoints or scores of another training, or files of another command.
    """
    if not first_rank():
        return []
    # A training has an evaluation of its own.
    own = RESULTS if (run_dir / "split.csv").is_file() else ()
    if others := [path for path in written_by_any(run_dir) if path.name not in own]:
        raise SkinsegError(
            f"hydra.run.dir={run_dir} holds what another command wrote, e.g. {others[0].name}, which would "
            "pass for something of this training. Leave hydra.run.dir out or name another folder."
        )
    last = last_of(run_dir)
    kept = sorted((run_dir / "checkpoints").glob("*.ckpt"))
    there = _results_in(run_dir)
    if not kept and run_dir / "summary.json" not in there:
        return []
    if ckpt_path is None or Path(ckpt_path).expanduser().resolve() not in [path.resolve() for path in kept]:
        to_go_on = next(iter([last] if last in kept else kept), None)
        way_out = "" if to_go_on is None else f"; to go on with it: {pasted(override('ckpt_path', to_go_on))}"
        raise SkinsegError(
            f"hydra.run.dir={run_dir} holds another training, e.g. {(kept + there)[0].name}, of which a part "
            f"would stay beside this one. Leave hydra.run.dir out or name another folder{way_out}"
        )
    return there


def _results_in(folder: Path) -> list[Path]:
    """Returns the results of a training that are in a folder: files, masks of the test and cards.

    Of the masks those of the images that its scores list; what others have put beside them is not among them.
    """
    found = [folder / name for name in RESULTS]
    found += sorted((folder / "checkpoints").glob(f"*.{CARD}"))
    if (folder / "scores.csv").is_file() and (folder / "masks").is_dir():
        with suppress(OSError, ValueError, KeyError):  # of a torn table nobody knows
            ids = pd.read_csv(folder / "scores.csv", dtype=str)["image_id"]
            found += [folder / "masks" / kept_mask_name(image_id) for image_id in ids]
    return [path for path in found if path.is_file()]


def _write_record(run_dir: Path, config: Plain, data: LesionDataModule, test_data: LesionDataModule) -> None:
    """Writes what is needed to repeat the run, before it starts."""
    if not first_rank():
        logging.getLogger("skinseg").setLevel(logging.ERROR)
        return
    write_text(run_dir / "config.yaml", yaml_of(config))
    write_json(run_dir / "provenance.json", provenance())
    catalog = data.catalog.record()
    content = {"catalog": catalog, "split": data.split.record()}
    if test_data is not data:
        content["test_data"] = {"catalog": test_data.catalog.record(), "split": test_data.split.record()}
    write_json(run_dir / "data.json", content)
    write_csv(run_dir / "split.csv", data.split.table)
    lesions = counted(data.catalog.table["group"].nunique(), "lesion")
    log.info("%s of %s; split %s.", counted(len(data.catalog), "image"), lesions, data.split.fingerprint)
    for module in dict.fromkeys((data, test_data)):
        for line in _remarks(module):
            log.info("%s", line)


def _remarks(data: LesionDataModule) -> Iterator[str]:
    """What a user has to know of the images that a run uses, beside their number."""
    table = data.catalog.table
    if without := int(table["mask"].isna().sum()):
        of = f"of the {counted(len(table), 'image')}"
        yield f"{counted(without, f'{of} has', f'{of} have')} no mask: neither trained on nor scored."
    if lone := int((table["group_source"] == "image").sum()):
        many = counted(lone, "image has", "images have")
        yield f"{many} no known lesion id; each is taken for a lesion of its own."
    if turned := len(data.catalog.notes.get("turned", [])):
        many = counted(turned, "image is", "images are")
        yield f"{many} stored turned or mirrored; the EXIF orientation turns them upright."
    for why, ids in data.split.left_out.items():
        if ids:
            yield f"Split: {counted(len(ids), 'image')} set apart ({why.replace('_', ' ')})."
    yield from data.split.stamps
