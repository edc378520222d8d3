"""What the values of a configuration can be, beyond their types; light, for it is asked before any work."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeGuard

from skinseg.names import is_path
from skinseg.nearest import nearest

HALF_PRECISIONS = frozenset({"16", "16-mixed"})
"""Of `trainer.precision`: what only a GPU computes in."""

Plain = Mapping[str, Any]

_AT_LEAST = {
    "seed": 0,
    "threads": 1,
    "lr_reference_batch": 1,
    "batch_size": 1,
    "num_workers": 0,
    "workers": 0,
    "data.batch_size": 1,
    "data.num_workers": 0,
    "data.overfit": 1,
    "test_data.num_workers": 0,
    "optimizer.lr": 0,
    "optimizer.weight_decay": 0,
    "optimizer.momentum": 0,
    "trainer.accumulate_grad_batches": 1,
    "trainer.check_val_every_n_epoch": 1,
    "trainer.gradient_clip_val": 0,
    "trainer.log_every_n_steps": 0,
    "trainer.num_sanity_val_steps": -1,
    "callbacks.early_stopping.patience": 0,
}
_ABOVE_ZERO = (
    "budget.steps", "budget.minutes", "budget.validations", "search.trials", "search.jobs",
    "data.max_megapixels", "test_data.max_megapixels", "max_megapixels",
    "data.cache_limit_gb", "test_data.cache_limit_gb", "trainer.val_check_interval",
)  # fmt: skip
_FILES = ("ckpt_path", "init_from", "data.same_lesion", "data.split.file", "model.encoder_weights")
_FOLDERS = ("data.masks",)
_HIGHEST_SEED = 2**32 - 1  # that NumPy's older generators take
# Names and notes for loggers, which are left out where they are empty.
_MAY_BE_EMPTY = ("logger", "notes")


def value_problems(config: Plain) -> Iterator[str]:
    """Finds values that would only fail in the middle of the work, or mean something else.

    Args:
        config: Resolved, of any command. A key that is not there, or not of its type, is left to others.

    Yields:
        A sentence for each problem.
    """
    yield from _empty_values(config)
    for key, least in _AT_LEAST.items():
        if _is_number(value := _at(config, key)) and value < least:
            yield f"{key}={value}: expected {least} or more."
    for key in ("seed", "data.split.seed"):
        if _is_number(seed := _at(config, key)) and seed > _HIGHEST_SEED:
            yield f"{key}={seed}: expected {_HIGHEST_SEED} or less."
    for key in _ABOVE_ZERO:
        if _is_number(value := _at(config, key)) and value <= 0:
            yield f"{key}={value}: expected more than 0."
    yield from _rate_problem(config)
    if _is_number(threshold := config.get("threshold")) and not 0 < threshold < 1:
        yield f"threshold={threshold}: expected a probability between 0 and 1."
    yield from _missing_files(config)
    size = _at(config, "data.image_size")
    if isinstance(size, list) and any(_is_number(pixels) and pixels < 1 for pixels in size):
        yield f"data.image_size={size}: expected a height and a width of 1 pixel or more."
    fold, folds = _at(config, "data.split.fold"), _at(config, "data.split.folds")
    if fold and folds is None and _at(config, "data.split.file") is None:
        yield f"data.split.fold={fold}: there are no folds; set data.split.folds to their number."
    if _is_number(fold) and _is_number(folds) and not 0 <= fold < folds:
        yield f"data.split.fold={fold}: expected a number from 0 to {folds - 1}, of data.split.folds={folds}."
    for key in ("monitor", "scheduler.monitor"):
        if (score := _at(config, key)) is not None:
            yield from _monitor_problem(key, score)
    yield from _mode_problem(config.get("monitor"), config.get("mode"))
    if "trainer" in config and isinstance(config.get("data"), Mapping) and "batch_size" not in config["data"]:
        yield "data.batch_size: missing; networks and searches are prepared for it."
    if config.get("ckpt_path") is not None and config.get("init_from") is not None:
        yield (
            "ckpt_path and init_from: the first goes on with a run, the second starts anew from its weights; "
            "set one of them."
        )
    steps, minutes = _at(config, "budget.steps"), _at(config, "budget.minutes")
    if steps is not None and minutes is not None:
        yield f"budget.steps={steps} and budget.minutes={minutes}: set one of them."
    if "trainer" in config:
        yield from _trainer_problems(config)
        yield from _sharding_problems(config)


def _rate_problem(config: Plain) -> Iterator[str]:
    optimizer = config.get("optimizer")
    if not isinstance(optimizer, Mapping) or "lr" not in optimizer:
        return
    rate = optimizer["lr"]
    if rate is None or isinstance(rate, list):
        yield f"optimizer.lr={'null' if rate is None else rate}: expected a number."
    elif rate == 0 and config.get("find") == "lr":
        yield "optimizer.lr=0: find=lr looks for better rates around it; expected more than 0."


def _at(config: Plain, key: str) -> Any:
    """Returns the value at a dotted key, None where there is none."""
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _empty_values(value: object, path: str = "") -> Iterator[str]:
    """An empty path would be the current folder, and an empty name none."""
    if isinstance(value, Mapping):
        for key, child in value.items():
            if path or key not in _MAY_BE_EMPTY:
                yield from _empty_values(child, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for index, child in enumerate(value):
            yield from _empty_values(child, f"{path}[{index}]")
    elif isinstance(value, str) and not value.strip():
        yield f"{path} is empty; give it a value, or leave it out."


def _missing_files(config: Plain) -> Iterator[str]:
    for key in (*_FILES, *_FOLDERS):
        value = _at(config, key)
        if not isinstance(value, str) or not value or (key == "model.encoder_weights" and not is_path(value)):
            continue
        path = Path(value).expanduser()
        if key in _FOLDERS and not path.is_dir():
            yield f"{key}={value}: no such folder."
        elif key in _FILES and not path.exists():
            yield f"{key}={value}: no such file."


def _trainer_problems(config: Plain) -> Iterator[str]:
    trainer = config["trainer"]
    if not isinstance(trainer, Mapping):
        return
    for key in ("max_epochs", "max_steps", "limit_train_batches"):
        if _is_number(value := trainer.get(key)) and value == 0:
            yield f"trainer.{key}={value}: an untrained network would be scored; expected more than 0."
    if _is_no_time(time := trainer.get("max_time")):
        yield f"trainer.max_time={time}: an untrained network would be scored; expected more than 0 seconds."
    yield from _end_problems(config)
    if trainer.get("limit_val_batches") == 0:
        yield (
            "trainer.limit_val_batches=0: the checkpoint is chosen on validation; leave it out, or take a "
            "share such as 0.1."
        )
    if trainer.get("limit_test_batches") == 0 and config.get("test") is True:
        yield "trainer.limit_test_batches=0: to leave the test out, set test=false."
    if str(trainer.get("strategy")) in ("ddp_spawn", "ddp_fork", "ddp_notebook"):
        yield (
            f"trainer.strategy={trainer['strategy']}: the weights would stay in processes that end; take "
            "trainer=ddp."
        )
    precision = str(trainer.get("precision"))
    if precision in ("16-true", "bf16-true"):
        yield (
            f"trainer.precision={precision}: weights of 16 bits are too coarse for the small steps of an "
            f"optimizer or an average; take {precision.removesuffix('-true')}-mixed."
        )
    if trainer.get("accelerator") == "cpu" and precision in HALF_PRECISIONS:
        yield f"trainer.precision={precision}: not on a processor; take bf16-mixed or 32-true."


def _is_no_time(duration: object) -> bool:
    """Returns whether a duration, as Lightning's Timer takes it, is none at all."""
    if isinstance(duration, Mapping):
        return not any(duration.values())
    return isinstance(duration, str) and bool(duration) and set(duration) <= {"0", ":"}


def _end_problems(config: Plain) -> Iterator[str]:
    """A run needs an end, and a validation before it."""
    trainer = config["trainer"]
    if trainer.get("fast_dev_run") or any(_at(config, f"budget.{key}") for key in ("steps", "minutes")):
        return
    epochs, every = trainer.get("max_epochs"), trainer.get("check_val_every_n_epoch")
    if epochs in (None, -1) and trainer.get("max_steps") in (None, -1):
        found = "missing" if epochs is None else "no end"
        yield f"trainer.max_epochs: {found}; a schedule needs one: set it, trainer.max_steps or budget.steps."
    if _is_number(epochs) and _is_number(every) and every > epochs > 0:
        yield (
            f"trainer.check_val_every_n_epoch={every}: the checkpoint is chosen on validation, and there is "
            f"none within trainer.max_epochs={epochs}; expected {epochs} or less."
        )


def _monitor_problem(key: str, monitor: object) -> Iterator[str]:
    """A score that is never logged would only be missed after the first epoch."""
    from skinseg.scoring.overlap import OVERLAP_METRICS

    known = ["val/loss", *(f"val/{name}" for name in OVERLAP_METRICS)]
    if isinstance(monitor, str) and monitor.startswith(("test/", "train/")):
        yield (
            f"{key}={monitor}: a checkpoint is chosen on validation, never on the images that it is "
            f"trained or scored on; take {key}=val/{monitor.partition('/')[2]}."
        )
    elif isinstance(monitor, str) and monitor not in known:
        near = nearest(monitor, known)
        yield f"{key}={monitor}: never logged; " + (
            f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}."
        )


def _mode_problem(monitor: object, mode: object) -> Iterator[str]:
    better = "min" if str(monitor).endswith("/loss") else "max"
    if monitor is not None and mode in ("min", "max") and mode != better:
        best = "smallest" if better == "min" else "largest"
        yield f"mode={mode}: of {monitor} the {best} is the best; set mode={better}."


def _sharding_problems(config: Plain) -> Iterator[str]:
    """What a sharded network does not go with, or what Lightning would silently leave out."""
    trainer = config.get("trainer") or {}
    strategy = trainer.get("strategy") or {}
    if isinstance(strategy, str):
        if strategy.startswith("fsdp"):
            yield f"trainer.strategy={strategy}: not tried with skinseg; take trainer=fsdp."
        return
    if not str(strategy.get("_target_")).endswith(".FullySharded"):
        return
    for key in ("compile", "find", "deep_supervision"):
        if config.get(key) is not None:
            yield f"{key}={config[key]}: not with trainer=fsdp; set {key}=null, or take trainer=ddp."
    if (precision := trainer.get("precision")) not in (None, 32, "32", "32-true", "bf16", "bf16-mixed"):
        yield f"trainer.precision={precision}: with trainer=fsdp expected bf16-mixed or 32-true."
    if trainer.get("sync_batchnorm"):
        yield (
            "trainer.sync_batchnorm=true: not with trainer=fsdp, where batch norm is over the batch of each "
            "process; set it to false, or take trainer=ddp."
        )
    for name, node in (config.get("callbacks") or {}).items():
        if isinstance(node, Mapping) and "Averag" in str(node.get("_target_")):
            yield (
                f"callbacks.{name}: weights that are sharded cannot be averaged; leave it out "
                "(callbacks=default), or take trainer=ddp."
            )
