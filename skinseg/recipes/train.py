"""What `python -m skinseg.train` does."""

from __future__ import annotations

import logging
import math
import shutil
import time
import traceback
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing import active_children
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.memory import is_oom_error

from skinseg.build import parts, trainers
from skinseg.build.trust import trusted, trusted_checkpoint
from skinseg.callbacks.quiet import quiet
from skinseg.callbacks.scores import EvaluationRows
from skinseg.config.compose import written_in, yaml_of
from skinseg.config.schema import Plain
from skinseg.counting import counted
from skinseg.data.datamodule import LesionDataModule
from skinseg.data.loader import end_loader_processes
from skinseg.errors import InterruptedRunError, SkinsegError
from skinseg.evaluation.result import Result, Settings
from skinseg.evaluation.rows import Options
from skinseg.evaluation.subset import Subset
from skinseg.machine import told
from skinseg.models.cost import network_cost
from skinseg.models.segmenter import LesionSegmenter
from skinseg.quoting import command_line, override, pasted
from skinseg.run import record as records
from skinseg.run.identity import digest
from skinseg.run.provenance import provenance
from skinseg.run.record import RunRecord
from skinseg.run.resuming import check_resumable, check_same_split
from skinseg.run.test_log import log_scoring
from skinseg.run.writing import first_rank, write_csv, write_json, write_text
from skinseg.run.written import written_by_any
from skinseg.summary import show, summarise
from skinseg.sweep.jobs import EVALUATION, RESULTS, last_of
from skinseg.tracking.artifacts import log_evaluation
from skinseg.tracking.logger import finish, run_id
from skinseg.training.budget import divide, steps_of
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
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        # Before the fit, at whose end a full disk would cost the test subset's scores.
        for module in dict.fromkeys((data, test_data) if config["test"] else (data,)):
            module.prepare_data()
        segmenter = parts.segmenter(config)
        callbacks = parts.callbacks(config)
        if config["test"]:
            callbacks.append(EvaluationRows(_test_options(config)))
        loggers = parts.loggers(config, resumed)
        segmenter.record = records.record_of(config, data.split, steps, run_id(loggers))
        trainer = trainers.trainer(config, callbacks, loggers)
        if steps is not None:
            _limit(trainer, steps, data, config)
        _check_batches(trainer, data, test_data if config["test"] else None)
        for logger in loggers:
            logger.log_hyperparams({**config, "stamps": stamps} if (stamps := data.split.stamps) else config)
        objective = _fit_and_score(trainer, segmenter, data, test_data, config)
        exit_code = 0
    except (RuntimeError, OSError) as error:
        said = _said(config, error)
        if said is None:
            raise
        raise said from error
    except SystemExit as error:  # how Lightning ends a fit at Ctrl-C and SIGTERM
        exit_code = InterruptedRunError.exit_code
        raise InterruptedRunError(_how_to_resume(run_dir)) from error
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


def _said(config: Plain, error: Exception) -> SkinsegError | None:
    """Returns a message for an error that is no bug; None for others."""
    if isinstance(error, SkinsegError):
        return error
    if isinstance(error, torch.OutOfMemoryError) or is_oom_error(error):
        return _out_of_memory(config, error)
    if _lost_a_process(error):
        return SkinsegError(
            "Another process of this run has ended, and this one with it; what it said is above, and if "
            "it said nothing it was killed, often for want of memory. "
            + _how_to_resume(Path(config["run_dir"]))
        )
    return told(error, Path(config["run_dir"]))


def _out_of_memory(config: Plain, error: Exception) -> SkinsegError:
    size = pasted(override("data.image_size", config["data"]["image_size"]))
    reason = (str(error).strip() or type(error).__name__).split(". ")[0].splitlines()[0]
    return SkinsegError(
        f"The device's memory does not hold this run ({reason}). Lower one of: "
        f"data.batch_size={config['data']['batch_size']} (with trainer.accumulate_grad_batches="
        f"{config['trainer'].get('accumulate_grad_batches', 1)} raised as much, the steps stay as they are; "
        f"find=batch_size looks for the largest), {size}, "
        f"trainer.precision={config['trainer'].get('precision', '32-true')} (bf16-mixed takes less), or "
        "set gradient_checkpointing=true."
    )


def _lost_a_process(error: Exception) -> bool:
    """Returns whether a collective operation of PyTorch failed because its other end is gone."""
    gone = ("Connection reset by peer", "Connection closed by peer", "remote process exited")
    return isinstance(error, RuntimeError) and any(words in str(error) for words in gone)


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
    own = RESULTS if (run_dir / "checkpoints").is_dir() else ()
    if others := [path for path in written_by_any(run_dir) if path.name not in own]:
        raise SkinsegError(
            f"hydra.run.dir={run_dir} holds what another command wrote, e.g. {others[0].name}, which would "
            "pass for something of this training. Leave hydra.run.dir out or name another folder."
        )
    last = last_of(run_dir)
    kept = sorted((run_dir / "checkpoints").glob("*.ckpt"))
    there = [path for name in RESULTS if (path := run_dir / name).exists()]
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


def _fit_and_score(
    trainer: L.Trainer,
    segmenter: LesionSegmenter,
    data: LesionDataModule,
    test_data: LesionDataModule,
    config: Plain,
) -> float:
    run_dir = Path(config["run_dir"])
    known: Plain = {"objective": None, "checkpoint": None, "val": None, "test": None}
    doing, is_fit = "its end", False
    started = time.monotonic()
    try:
        trainer.fit(segmenter, datamodule=data, ckpt_path=config["ckpt_path"])
        is_fit = True
        fit_seconds = segmenter.seconds_before + time.monotonic() - started
        known["checkpoint"], known["objective"] = best, objective = _kept(trainer)

        doing = "scoring the validation subset"
        best, objective, weights = _validate(trainer, segmenter, data, config, best, objective)
        known |= {"checkpoint": best, "objective": objective, "val": segmenter.scores["val"].means()}
        doing = "scoring the test subset"
        if config["test"]:
            path = None if best is None else str(best)
            try:
                trainer.test(segmenter, datamodule=test_data, ckpt_path=path, verbose=False)
            finally:  # whoever has seen scores of the test subset has seen them, whatever failed then
                if "test" in segmenter.scores:
                    known["test"] = segmenter.scores["test"].means()
                    if trainer.is_global_zero:
                        _log_scoring(segmenter, test_data, config, best)
        doing = "writing what was found"
        # On all processes: of a sharded network each has a part.
        cost = network_cost(segmenter.network, test_data.image_size)
        if trainer.is_global_zero:  # the others have no further part in it
            summary = summarise(config, data, test_data, segmenter, weights=weights, objective=objective)
            training = {"seconds": round(fit_seconds, 1), "steps": trainer.global_step}
            summary["training"] = {
                "epochs": trainer.current_epoch, "parameters": cost["parameters"], **training,
            }  # fmt: skip
            summary["costs"] = {**cost, **{f"training_{key}": value for key, value in training.items()}}
            evaluation = None
            if config["test"]:
                evaluation = _evaluate(trainer, segmenter, test_data, config, best, summary)
            write_json(run_dir / "summary.json", summary)  # last, for it says that all is there
    except Exception as error:  # whatever it is, hours of training must not be lost with it
        if not is_fit:
            if not trainer.fit_loop.done:
                raise
            known["checkpoint"], known["objective"] = _kept(trainer)
        raise _unfinished(trainer, config, doing, error, known) from error
    if trainer.is_global_zero:
        show(summary, run_dir, evaluation)
    return objective


def _test_options(config: Plain) -> Options:
    settings = Settings.of(written_in("evaluate"))
    return Options(
        threshold=config["threshold"],
        tolerance_px=settings.tolerance_px,
        tolerance_percent=settings.tolerance_percent,
        bins=settings.bins,
        masks=Path(config["run_dir"]) / "masks",
        max_megapixels=(config["test_data"] or config["data"])["max_megapixels"],
    )


def _evaluate(
    trainer: L.Trainer,
    segmenter: LesionSegmenter,
    test_data: LesionDataModule,
    config: Plain,
    best: Path | None,
    summary: Plain,
) -> Plain:
    """Writes of the test what `python -m skinseg.evaluate` writes of the kept checkpoint.

    Args:
        trainer: After the test.
        segmenter: The module that the trainer has fitted.
        test_data: What was tested on.
        config: The resolved configuration.
        best: The kept checkpoint; None: there is none.
        summary: What is known of the run so far.

    Returns:
        The content of `evaluation.json`.
    """
    run_dir = Path(config["run_dir"])
    (rows,) = (c for c in trainer.callbacks if isinstance(c, EvaluationRows))  # type: ignore[attr-defined]
    assert rows.scored is not None
    catalog, split = test_data.catalog, test_data.split
    table = catalog.table[catalog.table["image_id"].isin(rows.scored.table["image_id"])]
    own_data = not config["test_data"]
    # That it is an overfitted network the record says.
    stamps = [s for s in test_data.stamps("test", len(table)) if not s.startswith("OVERFIT")]
    result = Result(
        settings=Settings.of(written_in("evaluate")),
        subset=Subset(
            table.reset_index(drop=True),
            catalog,
            "test",
            split.fingerprint,
            split.unit,
            left_out={} if own_data else {why: ids for why, ids in split.left_out.items() if ids},
            stamps=stamps,
        ),
        scored=rows.scored,
        folder=run_dir,
        is_divided=own_data,
        threshold=config["threshold"],
        threshold_origin=summary["protocol"]["threshold_origin"],
        checkpoint=best,
        record=RunRecord.of({"skinseg": segmenter.record}),
        costs=summary["costs"],
        own_data=own_data,
        run_dir=run_dir,
        weights=summary["protocol"]["weights"],
        max_megapixels=rows.options.max_megapixels,
        with_page=config["report"],
    )
    result.write()
    log_evaluation(
        trainer.loggers,
        run_dir,
        [path for path in map(run_dir.absolute().joinpath, EVALUATION) if path.is_file()],
    )
    return result.evaluation


def _log_scoring(
    segmenter: LesionSegmenter, test_data: LesionDataModule, config: Plain, best: Path | None
) -> None:
    scores = segmenter.scores["test"]
    ids = test_data.dataset("test").image_ids
    log_scoring(
        Path(config["run_dir"]),
        command="train",
        checkpoint=None if best is None else best.name,
        threshold=config["threshold"],
        split=test_data.split.fingerprint,
        image_set=digest(sorted(ids[row] for row in scores.index)),
        images=len(scores.index),
        dice=scores.means()["dice"],
    )


def _kept(trainer: L.Trainer) -> tuple[Path | None, float | None]:
    """Returns the best checkpoint and its score; None where none was kept.

    To be asked after the fit, for validation with a checkpoint takes over the state of its callbacks.
    """
    keeper = _keeper(trainer)
    if keeper is None or not keeper.best_model_path or keeper.best_model_score is None:
        return None, None
    return Path(keeper.best_model_path), float(keeper.best_model_score)


def _keeper(trainer: L.Trainer) -> ModelCheckpoint | None:
    return next((c for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint)), None)


def _validate(
    trainer: L.Trainer,
    segmenter: LesionSegmenter,
    data: LesionDataModule,
    config: Plain,
    best: Path | None,
    score: float | None,
) -> tuple[Path | None, float, str]:
    """Scores the validation subset with the weights that are kept.

    Args:
        trainer: After the fit.
        segmenter: The module that the trainer has fitted.
        data: The data module that was trained on.
        config: The resolved configuration.
        best: The best checkpoint.
        score: Its score.

    Returns:
        The checkpoint, if one is kept, its score, and what its weights are.
    """
    monitor = config["monitor"]
    if best is not None and score is not None:
        # Scores of validation are those of these weights, not of the last epoch's.
        trainer.validate(segmenter, datamodule=data, ckpt_path=str(best), verbose=False)
        return best, score, f"{best.name}, best {monitor} on validation"
    keeper = None if config["trainer"].get("fast_dev_run") else _keeper(trainer)
    why = "The fit ended before its first validation" if keeper is not None else "No checkpoint was kept"
    log.info("%s; validating the last step's weights.", why)
    trainer.validate(segmenter, datamodule=data, verbose=False)
    objective = float(trainer.callback_metrics[monitor])
    if keeper is None or keeper.dirpath is None:
        return None, objective, "those of the last step (no checkpoint was kept)"
    best = Path(keeper.dirpath) / "best.ckpt"
    trainer.save_checkpoint(best)
    return best, objective, f"{best.name}, those of the last step (the fit ended before a validation)"


def _unfinished(
    trainer: L.Trainer, config: Plain, doing: str, error: Exception, known: Plain
) -> SkinsegError:
    """Leaves what is known of a run whose training is done and whose scores are not, and says how to go on.

    Args:
        trainer: After the fit.
        config: The resolved configuration.
        doing: What failed.
        error: The error that it raised.
        known: "objective", "checkpoint" and the means of "val" and "test"; None where not known.
    """
    run_dir = Path(config["run_dir"])
    reason = str(_said(config, error) or f"{type(error).__name__}: {error}").rstrip(".")
    if trainer.is_global_zero:
        content = {
            "name": config["name"],
            "failed": {"what": doing, "error": reason, "traceback": traceback.format_exception(error)},
            "config": config,
            "objective": {"name": config["monitor"], "value": known["objective"]},
            "scores": {"val": known["val"], "test": known["test"]},
            "training": {"epochs": trainer.current_epoch, "steps": trainer.global_step},
        }
        with suppress(SkinsegError):  # a full disk may be what failed
            write_json(run_dir / "summary.json", content)
    kept = (known["checkpoint"], last_of(run_dir))
    checkpoint = next((path for path in kept if path is not None and path.is_file()), None)
    way_out = "There is no checkpoint to score."
    if checkpoint is not None:
        way_out = "To score its checkpoint: " + command_line("skinseg.evaluate", override("ckpt", checkpoint))
    return SkinsegError(f"The training is done, but {doing} failed: {reason}.\n{way_out}")


def _how_to_resume(run_dir: Path) -> str:
    last = last_of(run_dir)
    if last.is_file():
        word = pasted(override("ckpt_path", last))
        return f"Interrupted; nothing was scored. To go on, add to the same command: {word}"
    return "Interrupted before the first checkpoint; nothing was scored."
