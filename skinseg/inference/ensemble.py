"""One checkpoint of several: their networks side by side, and what any of them was trained with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pandas as pd
import torch

from skinseg.data.splits.split import Split
from skinseg.errors import SkinsegError
from skinseg.run.record import RunRecord, record_of

# The more it had to do with a training, the later.
_SIDES = ("test", "val", "train")


def join_checkpoints(members: Mapping[str, dict[str, Any]], *, name: str, run_dir: str) -> dict[str, Any]:
    """Makes the checkpoint of an ensemble.

    An image, with its lesion, is in the train subset if it was for any member, else in the val subset if it
    was for any: only what all of them left for the test is left for a test of the ensemble.

    Args:
        members: By the path that a person named, what `checkpoint.read_checkpoint` returned.
        name: Name of the ensemble, in place of the runs' names.
        run_dir: Its folder.

    Returns:
        A checkpoint for `nets.load_net`. "members" of its record holds the members' configurations.

    Raises:
        SkinsegError: They cannot be one predictor.
    """
    records = {path: RunRecord.of(checkpoint) for path, checkpoint in members.items()}
    for path, record in records.items():
        if record.members:
            raise SkinsegError(f"runs: {path} is an ensemble already; name its members.")
        if record.subsets is None:
            raise SkinsegError(
                f"runs: {path} was written before checkpoints carried their split, so nobody could say which "
                "images the ensemble was trained on. Train it again."
            )
    configs = [record.config_written for record in records.values()]
    first = configs[0]
    for key in ("data.reader", "data.image_size", "threshold"):
        values = {path: _at(record.config, key) for path, record in records.items()}
        other = next((path for path in values if values[path] != _at(first, key)), None)
        if other is not None:
            raise SkinsegError(
                f"runs: {key} is {_at(first, key)} for {next(iter(members))}, {values[other]} for {other}. "
                "One predictor has one; take runs that agree in it."
            )
    for path, record in records.items():
        both = [_preprocessing(one) for one in (next(iter(records.values())), record)]
        if list(both[0].items()) != list(both[1].items()):
            words = [", ".join(transforms) or "none" for transforms in both]
            raise SkinsegError(
                f"runs: other preprocessing for {next(iter(members))} ({words[0]}) than for {path} "
                f"({words[1]}), or with other arguments. One predictor has one; take runs that agree in it."
            )
    leaky = any(record.config["data"]["split"]["unit"] == "image" for record in records.values())
    split = Split(_subsets(records, by="image_id" if leaky else "group"), unit="image" if leaky else "lesion")
    config = {
        **first,
        "name": name,
        "run_dir": run_dir,
        "model": {
            "_target_": "skinseg.models.ensemble.Ensemble",
            "members": [_describe(config) for config in configs],
        },
        "data": {
            **first["data"],
            "split": {**first["data"]["split"], "unit": split.unit, "fold": None},
            "overfit": next(filter(None, (one.config["data"]["overfit"] for one in records.values())), None),
        },
    }
    state = {"mean": torch.zeros(1, 3, 1, 1), "std": torch.ones(1, 3, 1, 1)}
    for number, checkpoint in enumerate(members.values()):
        for key, tensor in checkpoint["state_dict"].items():
            if key in state or key.startswith("network."):
                state[f"network.members.{number}.{key}"] = tensor
    joined = {**record_of(config, split, budget_steps=None, wandb_run=None), "members": configs}
    return {"skinseg": joined, "state_dict": state}


def _subsets(records: Mapping[str, RunRecord], *, by: str) -> pd.DataFrame:
    table = pd.concat([record.subsets for record in records.values()], ignore_index=True)
    groups = table.groupby("image_id")["group"].nunique()
    if (groups > 1).any():
        raise SkinsegError(
            f"runs: image {groups.idxmax()} is of another lesion for one run than for another: nobody could "
            "say which lesions the ensemble was trained on. Take runs on the same data and metadata."
        )
    rank = table["split"].map(_SIDES.index).groupby(table[by]).transform("max")
    return table.assign(split=rank.map(dict(enumerate(_SIDES)))).drop_duplicates("image_id")


def _describe(config: Mapping[str, Any]) -> str:
    """Tells a member from the others: its network, what it was trained with, its seed and its fold."""
    shown = ("model", "loss", "augment", "mix", "seed")
    fold = config["data"]["split"].get("fold")
    return json.dumps({**{key: config.get(key) for key in shown}, "fold": fold}, sort_keys=True, default=str)


def _preprocessing(record: RunRecord) -> dict[str, Any]:
    return (record.config["preprocess"] or {}).get("transforms") or {}


def _at(config: Mapping[str, Any], key: str) -> Any:
    for part in key.split("."):
        config = config[part]
    return config
