"""What a checkpoint carries of its run; a record of an older version is read like one of today."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from skinseg.data.splits.split import Split

# What a run did that is older than the key.
BEFORE: Mapping[str, Any] = {
    "mix": None,
    "deep_supervision": None,
    "lr_scaling": "none",
    "lr_reference_batch": None,
    "budget": {"steps": None, "minutes": None, "validations": None},
    "report": True,
}
_DATA_BEFORE: Mapping[str, Any] = {"overfit": None}
_SPLIT_BEFORE: Mapping[str, Any] = {"unit": "lesion", "fold": None, "folds": None}


@dataclass(frozen=True)
class RunRecord:
    """What a checkpoint carries under "skinseg".

    Attributes:
        config: The resolved configuration, with all root keys of today that are read of a stored one.
        split: Fingerprint of the split.
        subsets: Each image's `image_id`, `group` and `split`. None: checkpoints did not carry it yet.
        stamps: What has to stand beside every score.
        members: The configurations of an ensemble's members, none for a single network.
        budget_steps: The optimizer steps of `budget`. None: there was no budget.
        wandb_run: The run's id in Weights & Biases. None: it has none there.
        world_size: Number of processes that trained together.
        seconds: Training time so far.
        config_written: The configuration as it was written, of which fingerprints are taken.
    """

    config: Mapping[str, Any]
    split: str
    subsets: pd.DataFrame | None
    stamps: Sequence[str]
    members: Sequence[Mapping[str, Any]]
    budget_steps: int | None
    wandb_run: str | None
    world_size: int
    seconds: float
    config_written: Mapping[str, Any]

    @classmethod
    def of(cls, checkpoint: Mapping[str, Any]) -> RunRecord:
        """Reads the record of a checkpoint; see `skinseg.build.trust.trusted_checkpoint`."""
        written = checkpoint["skinseg"]
        return cls(
            config=upgrade(written["config"]),
            split=written.get("split", ""),
            subsets=pd.DataFrame(written["sides"]) if "sides" in written else None,
            stamps=tuple(written.get("stamps", ())),
            members=tuple(map(upgrade, written.get("members", ()))),
            budget_steps=written.get("budget_steps"),
            wandb_run=written.get("wandb_run"),
            world_size=written.get("world_size", 1),
            seconds=written.get("seconds", 0.0),
            config_written=written["config"],
        )


def record_of(
    config: Mapping[str, Any], split: Split, budget_steps: int | None, wandb_run: str | None
) -> dict[str, Any]:
    """Returns what the checkpoints of a training are to carry, but for what the module knows of itself.

    Args:
        config: Resolved.
        split: Split of its data.
        budget_steps: As in `RunRecord`.
        wandb_run: As in `RunRecord`.
    """
    record = {
        "config": config,
        "split": split.fingerprint,
        "sides": split.table.to_dict("list"),
        "stamps": split.stamps,
        "wandb_run": wandb_run,
    }
    return record if budget_steps is None else {**record, "budget_steps": budget_steps}


def upgrade(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a stored configuration with the keys that it is older than, set to what its run did.

    Of preprocessing that does nothing there is no node.

    Args:
        config: Resolved, of this version or an earlier one.
    """
    data = {**_DATA_BEFORE, **config["data"]}
    data["split"] = {**_SPLIT_BEFORE, **(data.get("split") or {})}
    preprocess = config.get("preprocess")
    if preprocess and preprocess.get("transforms") == {}:
        preprocess = None
    return {**BEFORE, **config, "data": data, "preprocess": preprocess}
