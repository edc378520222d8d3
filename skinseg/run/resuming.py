"""Whether a training that goes on from a checkpoint would be the same training."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from skinseg.counting import counted
from skinseg.errors import SkinsegError
from skinseg.quoting import override, pasted
from skinseg.run.record import RunRecord

log = logging.getLogger(__name__)

# How a step is computed, which no state holds.
_HOW = frozenset({"fused", "foreach", "_partial_"})


def check_resumable(checkpoint: dict[str, Any], config: dict[str, Any], processes: int) -> None:
    """Refuses to resume what would not be the same run, as far as it is known before data are read.

    Args:
        checkpoint: What `read_checkpoint` returned.
        config: The resolved configuration of the run that resumes, with what `find` has found.
        processes: Number of processes that train together.

    Raises:
        SkinsegError: The network, what is supervised of it, the optimizer, the schedule, the steps of an
            epoch, the budget or what chooses the best checkpoint is another one, or the run is to end before
            it was stopped.
    """
    record = RunRecord.of(checkpoint)
    theirs, ours = (dict(c["model"], encoder_weights=None) for c in (record.config, config))
    if theirs != ours:
        keys = sorted(k for k in theirs.keys() | ours.keys() if theirs.get(k) != ours.get(k))
        found = "; ".join(f"model.{k}: {theirs.get(k)!r} there, {ours.get(k)!r} here" for k in keys)
        raise SkinsegError(
            f"ckpt_path={config['ckpt_path']} is of another architecture ({found}). "
            "Use the model it was trained with."
        )
    depths = [record.config["deep_supervision"], config["deep_supervision"]]
    if len(depths[0] or []) != len(depths[1] or []):
        raise SkinsegError(
            f"ckpt_path={config['ckpt_path']} was trained with deep_supervision={depths[0]}, this run has "
            f"{depths[1]}: the losses at each depth have weights of their own. Use as many, or take the "
            "network's weights alone as a start with init_from."
        )
    callbacks = (config["callbacks"] or {}).values()
    if "weight_average" in checkpoint and not any(
        "Average" in str((c or {}).get("_target_")) for c in callbacks
    ):
        raise SkinsegError(
            f"ckpt_path={config['ckpt_path']} holds averaged weights; go on with the same callbacks=ema or "
            "swa, or take the averaged weights as a start with init_from."
        )
    _check_same_optimization(record, config, processes)
    _check_end(checkpoint, record.config, config)


def check_same_split(record: RunRecord, config: Mapping[str, Any], fingerprint: str) -> None:
    """Refuses to resume on another split.

    Args:
        record: Record of the checkpoint.
        config: The resolved configuration of the run that resumes.
        fingerprint: Its split's.

    Raises:
        SkinsegError: It is another one.
    """
    if record.split != fingerprint:
        raise SkinsegError(
            f"ckpt_path={config['ckpt_path']} was trained on the split {record.split}, this run has "
            f"{fingerprint}: images that it was trained on might be tested on. Use the run's split: "
            + _split_of(config["ckpt_path"])
        )


def _check_same_optimization(record: RunRecord, ours: Mapping[str, Any], processes: int) -> None:
    """Refuses values that the restored state would silently replace, or that it would not go with."""
    theirs = record.config
    found = []
    for group in ("optimizer", "scheduler"):
        pair = [{k: v for k, v in c[group].items() if k not in _HOW} for c in (theirs, ours)]
        keys = sorted(k for k in pair[0].keys() | pair[1].keys() if pair[0].get(k) != pair[1].get(k))
        found += [f"{group}.{k}: {pair[0].get(k)!r} there, {pair[1].get(k)!r} here" for k in keys]
    for settings in (_budget, _choice):
        found += _differing(settings(theirs), settings(ours))
    found += _differing(_pace(theirs, record.world_size), _pace(ours, processes))
    if found:
        raise SkinsegError(
            f"ckpt_path={ours['ckpt_path']} goes on with the optimizer, schedule, budget and best score that "
            f"it was saved with, and these differ ({'; '.join(found)}). Leave them out to go on, or start "
            "anew from its weights with init_from."
        )


def _differing(there: dict[str, Any], here: dict[str, Any]) -> list[str]:
    return [f"{key}: {there[key]} there, {here[key]} here" for key in there if there[key] != here[key]]


def _choice(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what the best score so far was measured by."""
    choice = {key: config[key] for key in ("monitor", "mode", "threshold")}
    return {**choice, "loss": config["loss"] if str(config["monitor"]).endswith("/loss") else None}


def _pace(config: Mapping[str, Any], processes: int) -> dict[str, Any]:
    """Returns what the rate and the steps of an epoch follow from.

    A step's images may be shared out otherwise, to more processes with smaller batches for instance.
    """
    data, trainer = config["data"], config["trainer"]
    batch = data["batch_size"] * processes
    limit, scaling = trainer.get("limit_train_batches"), config["lr_scaling"]
    budget = any(_budget(config).values())  # which divides the epochs
    limited = f"{limit} of {batch} images" if isinstance(limit, int) else 1.0 if limit is None else limit
    return {
        "images of a step (data.batch_size times trainer.accumulate_grad_batches times processes)": (
            batch * (trainer.get("accumulate_grad_batches") or 1)
        ),
        "trainer.limit_train_batches": None if budget else limited,
        "budget.validations": config["budget"]["validations"] if budget else None,
        "data.overfit": data.get("overfit"),
        "lr_scaling": scaling,
        "lr_reference_batch": config["lr_reference_batch"] if scaling != "none" else None,
    }


def _check_end(checkpoint: Mapping[str, Any], theirs: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Refuses an end before the one at which the run was stopped, and tells of another one than it had."""
    if any(_budget(config).values()):  # which is its end
        return
    epochs = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
    for key, done, one in (("max_epochs", epochs, "epoch"), ("max_steps", checkpoint["global_step"], "step")):
        before, end = (c["trainer"].get(key) for c in (theirs, config))
        if end not in (None, -1) and done > end:
            raise SkinsegError(
                f"trainer.{key}={end}: ckpt_path={config['ckpt_path']} has trained {counted(done, one)}; it "
                "is the total, so raise it to go on."
            )
        if end != before:
            log.info(
                "trainer.%s: %s there, %s here; a schedule that spans the run ends with it.", key, before, end
            )


def _budget(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what limits a run beside its trainer."""
    return {f"budget.{key}": config["budget"][key] for key in ("steps", "minutes")}


def _split_of(ckpt_path: str) -> str:
    """Returns the override that takes the split of a checkpoint's run."""
    split = Path(ckpt_path).expanduser().absolute().parents[1] / "split.csv"
    return (
        pasted(override("data.split.file", split))
        if split.is_file()
        else "data.split.file=<run folder>/split.csv"
    )
