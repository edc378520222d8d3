"""What checkpoints carry of their run: what was written is read back, and older records like one of today."""

from __future__ import annotations

import copy
from typing import Any

import pandas as pd
import pytest
from conftest import TINY

from skinseg.config.check import check
from skinseg.config.compose import compose, plain
from skinseg.data.splits.split import Split
from skinseg.run.identity import method_identity
from skinseg.run.record import RunRecord, record_of, upgrade


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    return check(plain(compose([*TINY, "run_dir=."])))


def test_what_was_written_is_read(config: dict[str, Any]) -> None:
    table = pd.DataFrame({"image_id": ["a", "b"], "group": ["x", "y"], "split": ["train", "test"]})
    split = Split(table, unit="image")
    written = record_of(config, split, budget_steps=30, wandb_run="abc")
    record = RunRecord.of({"skinseg": {**written, "world_size": 2, "seconds": 1.5}, "state_dict": {}})
    assert record.subsets is not None
    pd.testing.assert_frame_equal(record.subsets, table)
    assert (record.split, list(record.stamps)) == (split.fingerprint, split.stamps)
    assert (record.budget_steps, record.wandb_run, record.world_size, record.seconds) == (30, "abc", 2, 1.5)
    assert record.config_written == config
    assert {key: record.config[key] for key in config if key != "preprocess"} == {
        key: config[key] for key in config if key != "preprocess"
    }


def test_an_older_record_is_read_like_one_of_today(config: dict[str, Any]) -> None:
    old = copy.deepcopy(config)
    for key in ("preprocess", "mix", "deep_supervision", "lr_scaling", "lr_reference_batch", "budget"):
        del old[key]
    del old["data"]["split"]["unit"]
    record = RunRecord.of({"skinseg": {"config": old}})
    assert record.subsets is None
    assert (record.world_size, record.budget_steps, record.members) == (1, None, ())
    assert record.config["preprocess"] is None
    assert record.config["mix"] is None
    assert record.config["lr_scaling"] == "none"
    assert record.config["budget"]["steps"] is None
    assert record.config["data"]["split"]["unit"] == "lesion"
    assert record.config_written is old


def test_preprocessing_that_does_nothing_is_none(config: dict[str, Any]) -> None:
    assert config["preprocess"]["transforms"] == {}
    assert upgrade(config)["preprocess"] is None
    grey = check(plain(compose([*TINY, "preprocess=grey_world", "run_dir=."])))
    assert upgrade(grey)["preprocess"] == grey["preprocess"]


def test_a_method_keeps_its_fingerprint(config: dict[str, Any]) -> None:
    """Of what was written, whatever is read into it."""
    before = copy.deepcopy(config)
    upgrade(config)
    assert config == before
    assert method_identity(config) == method_identity(before)
