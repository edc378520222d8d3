"""What is refused before any data are read, because it is built once without them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import TINY, changed

from skinseg.build import parts
from skinseg.config.check import check
from skinseg.config.compose import compose, plain
from skinseg.config.schema import Plain
from skinseg.errors import SkinsegError
from skinseg.models.cost import network_cost
from skinseg.recipes.train import _check_batches


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Plain:
    folder = tmp_path_factory.mktemp("run")
    overrides = ["logger=[csv,tensorboard]", "data.cache=memmap", "callbacks=ema", "callbacks.scores=null"]
    return check(plain(compose([*TINY, *overrides, f"run_dir={folder}", f"data.cache_dir={folder}"])))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("scheduler.warmup", 2, r"warmup=2: expected a share"),
        ("optimizer.betas", [2, 2], r"optimizer or scheduler: arguments refused: .*beta"),
        ("callbacks.checkpoint.every_n_minutes", 0, r"callbacks\.checkpoint: .*every_n_minutes=0"),
        ("callbacks.weight_average.decay", 1.5, r"callbacks\.weight_average: .*decay=1\.5"),
        ("callbacks.weight_average.start", 2, r"callbacks\.weight_average: .*start=2"),
        ("callbacks.progressive_resizing.start", 0, r"callbacks\.progressive_resizing: .*start=0"),
        ("callbacks.progressive_resizing.start", 0.999, r"progressive_resizing\.start=0\.999.* is .* itself"),
        ("loss.smooth", 0, r"loss: .*smooth=0"),
    ],
)
def test_arguments_are_refused(config: Plain, key: str, value: object, message: str) -> None:
    with pytest.raises(SkinsegError, match=message):
        parts.check_start(changed(config, {key: value}))


@pytest.mark.parametrize(
    "key",
    [
        "data.cache_dir",
        "logger.csv.save_dir",
        "logger.tensorboard.save_dir",
        "callbacks.checkpoint.dirpath",
        "callbacks.interrupt.path",
        "callbacks.panels.path",
    ],
)
def test_a_folder_that_cannot_be_written(config: Plain, key: str, tmp_path: Path) -> None:
    """Some are written only after the fit."""
    (tmp_path / "file").touch()
    with pytest.raises(SkinsegError, match=rf"{key}: .*file.* cannot be written: Not a directory.*another"):
        parts.check_start(changed(config, {key: str(tmp_path / "file/below/this")}))
    parts.check_start(changed(config, {key: str(tmp_path / "new/below/this")}))


def test_the_check_leaves_the_random_numbers_as_they_are(config: Plain) -> None:
    before = torch.get_rng_state()
    parts.check_start(
        changed(config, {"callbacks.progressive_resizing.start": 0.5, "data.image_size": [64, 64]})
    )
    assert torch.equal(torch.get_rng_state(), before)


class Sides:
    """Seven batches to train on, two to validate on and three to test on."""

    def train_batches(self, world_size: int) -> int:
        return 7

    def scored_batches(self, subset: str, world_size: int) -> int:
        return {"val": 2, "test": 3}[subset]


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (
            {"limit_train_batches": 0.1},
            r"limit_train_batches=0\.1: of 7 batches .* none; .* of 0\.15 or more",
        ),
        ({"limit_val_batches": 0.4}, r"limit_val_batches=0\.4: of 2 batches it leaves none"),
        ({"limit_test_batches": 0.3}, r"limit_test_batches=0\.3: of 3 batches it leaves none"),
        ({"val_check_interval": 8}, r"val_check_interval=8: an epoch has only 7 batches; lower it"),
        ({"val_check_interval": 4, "limit_train_batches": 3}, r"an epoch has only 3 batches"),
        ({"limit_train_batches": 0.15, "limit_val_batches": 1, "val_check_interval": 0.5}, None),
        ({"val_check_interval": 8, "check_val_every_n_epoch": None}, None),
    ],
)
def test_limits_that_leave_nothing(limits: Plain, message: str | None) -> None:
    subsets: Any = Sides()
    of_all = {f"limit_{subset}_batches": 1.0 for subset in ("train", "val", "test")}
    asked = {"world_size": 1, "val_check_interval": 1.0, "check_val_every_n_epoch": 1, **of_all, **limits}
    trainer: Any = SimpleNamespace(**asked)
    if message is None:
        _check_batches(trainer, subsets, subsets)
        return
    with pytest.raises(SkinsegError, match=message):
        _check_batches(trainer, subsets, subsets)


def test_the_cost_of_a_network_of_another_precision() -> None:
    network = torch.nn.Conv2d(3, 1, 1)
    single = network_cost(network, (8, 8))
    assert network_cost(network.double(), (8, 8)) == single
