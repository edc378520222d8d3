"""What follows a fit: the validation of the best weights, the test, its evaluation, the summary."""

from __future__ import annotations

import logging
import time
import traceback
from contextlib import suppress
from pathlib import Path

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint

from skinseg.callbacks.scores import EvaluationRows
from skinseg.config.compose import template_of
from skinseg.config.schema import Plain
from skinseg.data.datamodule import LesionDataModule
from skinseg.errors import SkinsegError
from skinseg.evaluation.result import Result, Settings
from skinseg.evaluation.rows import Options
from skinseg.evaluation.subset import Subset, left_out_of
from skinseg.models.cost import network_cost
from skinseg.models.segmenter import LesionSegmenter
from skinseg.quoting import command_line, override
from skinseg.run.identity import digest
from skinseg.run.layout import EVALUATION, last_of
from skinseg.run.record import RunRecord
from skinseg.run.test_log import log_scoring
from skinseg.run.writing import write_json
from skinseg.tracking.artifacts import log_evaluation
from skinseg.training.failure import message_for
from skinseg.training.summary import show, summarise

log = logging.getLogger(__name__)


def fit_and_score(
    trainer: L.Trainer,
    segmenter: LesionSegmenter,
    data: LesionDataModule,
    test_data: LesionDataModule,
    config: Plain,
) -> float:
    """Fits, and scores the best weights on validation and test.

    Args:
        trainer: With its callbacks and loggers; where there is a test, with `EvaluationRows` among them.
        segmenter: What is trained.
        data: What it is trained and validated on.
        test_data: What it is tested on.
        config: The resolved configuration.

    Returns:
        The best validation score.

    Raises:
        SkinsegError: Something failed after the fit; what is known is in summary.json.
    """
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
            write_json(run_dir / "summary.json", summary)  # it says that all is there
            if evaluation is not None:
                _log_evaluation(trainer, run_dir)
    except Exception as error:  # whatever it is, hours of training must not be lost with it
        if not is_fit:
            if not trainer.fit_loop.done:
                raise
            known["checkpoint"], known["objective"] = _kept(trainer)
        raise _unfinished(trainer, config, doing, error, known) from error
    if trainer.is_global_zero:
        show(summary, run_dir, evaluation)
    return objective


def test_options(config: Plain, test_data: LesionDataModule) -> Options:
    """Returns how the images of a run's test are scored."""
    settings = Settings.of(template_of("evaluate"))
    return Options(
        threshold=config["threshold"],
        tolerance_px=settings.tolerance_px,
        tolerance_percent=settings.tolerance_percent,
        bins=settings.bins,
        masks=Path(config["run_dir"]) / "masks",
        max_megapixels=test_data.max_megapixels,
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
    result = Result(
        settings=Settings.of(template_of("evaluate")),
        subset=Subset(
            table.reset_index(drop=True),
            catalog,
            "test",
            split.fingerprint,
            split.unit,
            left_out=left_out_of(split, catalog) if config["test_data"] else {},
            stamps=test_data.stamps("test", len(table)),
        ),
        scored=rows.scored,
        folder=run_dir,
        is_divided=True,
        threshold=config["threshold"],
        threshold_origin=summary["protocol"]["threshold_origin"],
        checkpoint=best,
        record=RunRecord.of({"skinseg": segmenter.record}),
        costs=summary["costs"],
        own_data=True,
        is_whole=len(table) == len(test_data.dataset("test")),
        run_dir=run_dir,
        weights=summary["protocol"]["weights"],
        max_megapixels=rows.options.max_megapixels,
        with_page=config["report"],
    )
    result.write()
    return result.evaluation


def _log_evaluation(trainer: L.Trainer, run_dir: Path) -> None:
    """Keeps the evaluation in Weights & Biases; what fails there does not make the training a failed one."""
    written = [path for name in EVALUATION if (path := run_dir.absolute() / name).is_file()]
    try:
        log_evaluation(trainer.loggers, run_dir, written)
    except Exception as error:
        log.warning("The evaluation was not logged (%s: %s).", type(error).__name__, error)


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
    reason = str(message_for(config, error) or f"{type(error).__name__}: {error}").rstrip(".")
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
