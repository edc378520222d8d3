"""What a run that resumes may change, told from the configurations alone; tests/test_train.py trains."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from conftest import TINY, changed
from lightning.pytorch.callbacks import EarlyStopping

from skinseg.build import parts
from skinseg.config.check import check
from skinseg.config.compose import compose, plain
from skinseg.config.schema import Plain
from skinseg.errors import SkinsegError
from skinseg.run.checkpoint import read_checkpoint
from skinseg.run.record import RunRecord
from skinseg.run.resuming import check_resumable, check_same_split


@pytest.fixture(scope="module")
def config() -> Plain:
    return check(plain(compose([*TINY, "run_dir=."])))


def resume(config: Plain, there: Plain, here: Plain, processes: tuple[int, int] = (1, 1)) -> None:
    """Asks whether a run of two epochs with some changes may go on with others."""
    record = {"config": changed(config, there), "world_size": processes[0]}
    progress = {"epoch_progress": {"current": {"processed": 2}}}
    checkpoint = {"skinseg": record, "global_step": 22, "loops": {"fit_loop": progress}}
    check_resumable(checkpoint, changed(config, {"trainer.max_epochs": 3, **here}), processes[1])


STEP = r"images of a step \(data\.batch_size times trainer\.accumulate_grad_batches times processes\): "
LOSS = {"monitor": "val/loss", "mode": "min"}


@pytest.mark.parametrize(
    ("there", "here", "found"),
    [
        ({}, {"optimizer.weight_decay": 0.3}, r"optimizer\.weight_decay: 0\.01 there, 0\.3 here"),
        (
            {},
            {"optimizer._target_": "torch.optim.SGD"},
            r"optimizer\._target_: 'torch\.optim\.AdamW' there, ",
        ),
        ({}, {"scheduler.warmup": 0.5}, r"scheduler\.warmup: 0\.05 there, 0\.5 here"),
        ({}, {"monitor": "val/jaccard"}, "monitor: val/dice there, val/jaccard here"),
        ({}, {"threshold": 0.3}, r"threshold: 0\.5 there, 0\.3 here"),
        (LOSS, {**LOSS, "loss": {"_target_": "Dice"}}, r"loss: .*BCEDice.* there, .*Dice"),
        ({}, {"budget.steps": 30}, r"budget\.steps: None there, 30 here"),
        (
            {"budget.steps": 30},
            {"budget.steps": 30, "budget.validations": 3},
            r"budget\.validations: 10 there, 3 here",
        ),
        ({}, {"data.batch_size": 8}, f"{STEP}4 there, 8 here"),
        ({}, {"trainer.accumulate_grad_batches": 2}, f"{STEP}4 there, 8 here"),
        ({}, {"trainer.limit_train_batches": 0.5}, r"limit_train_batches: 1\.0 there, 0\.5 here"),
        ({}, {"trainer.limit_train_batches": 5}, r"limit_train_batches: 1\.0 there, 5 of 4 images here"),
        (
            {"trainer.limit_train_batches": 5},
            {
                "trainer.limit_train_batches": 5,
                "data.batch_size": 2,
                "trainer.accumulate_grad_batches": 2,
            },
            r"limit_train_batches: 5 of 4 images there, 5 of 2 images here",
        ),
        ({}, {"data.overfit": 8}, r"data\.overfit: None there, 8 here"),
        ({}, {"lr_scaling": "linear"}, r"lr_scaling: none there, linear here"),
        (
            {"lr_scaling": "sqrt"},
            {"lr_scaling": "sqrt", "lr_reference_batch": 8},
            r"lr_reference_batch: 16 there, 8 here",
        ),
    ],
)
def test_what_does_not_go_with_the_restored_state_is_refused(
    config: Plain, there: Plain, here: Plain, found: str
) -> None:
    with pytest.raises(SkinsegError, match=f"{found}.*start anew from its weights with init_from"):
        resume(config, there, here)


@pytest.mark.parametrize(
    "here",
    [
        {"data.num_workers": 2, "threads": 2},
        {"trainer.precision": "bf16-mixed", "logger": None, "channels_last": False},
        {"data.batch_size": 2, "trainer.accumulate_grad_batches": 2},
        {"trainer.limit_train_batches": None, "trainer.limit_val_batches": 0.5},
        {"lr_reference_batch": 8, "loss": {"_target_": "Dice"}, "optimizer.fused": True},
        {"callbacks.early_stopping.patience": 3},
    ],
)
def test_what_may_be_another(config: Plain, here: Plain) -> None:
    resume(config, {}, here)


def test_other_processes_of_as_many_images(config: Plain) -> None:
    resume(config, {}, {"data.batch_size": 2}, processes=(1, 2))
    with pytest.raises(SkinsegError, match=f"{STEP}4 there, 8 here"):
        resume(config, {}, {}, processes=(1, 2))


def test_runs_from_before_there_were_such_keys(config: Plain) -> None:
    old = changed(config, {})
    for key in ("lr_scaling", "lr_reference_batch", "budget"):
        del old[key]
    del old["trainer"]["limit_train_batches"], old["data"]["overfit"]
    progress = {"epoch_progress": {"current": {"processed": 1}}}
    checkpoint = {"skinseg": {"config": old}, "global_step": 9, "loops": {"fit_loop": progress}}
    check_resumable(checkpoint, config, 1)


def test_another_split(config: Plain) -> None:
    record = RunRecord.of({"skinseg": {"config": config, "split": "a"}})
    with pytest.raises(SkinsegError, match=r"trained on the split a, this run has b.*data\.split\.file="):
        check_same_split(record, {"ckpt_path": "run/checkpoints/last.ckpt"}, "b")


def test_patience_is_that_of_the_run_that_resumes(config: Plain) -> None:
    """Lightning takes that of the checkpoint."""
    own = {"early_stopping": {**config["callbacks"]["early_stopping"], "patience": 9}}
    (callback,) = parts.callbacks(changed(config, {"callbacks": own}))
    assert isinstance(callback, EarlyStopping)
    callback.load_state_dict({**callback.state_dict(), "patience": 2, "wait_count": 2})
    assert (callback.patience, callback.wait_count) == (9, 2)


@pytest.mark.parametrize(
    ("key", "there", "meant"),
    [
        ("ckpt_path", ["checkpoints/last.ckpt", "checkpoints/best.ckpt"], "checkpoints/last.ckpt"),
        ("ckpt_path", ["checkpoints/best.ckpt"], "checkpoints/best.ckpt"),
        ("ckpt", ["checkpoints/last.ckpt", "checkpoints/best.ckpt"], "checkpoints/best.ckpt"),
        ("init_from", ["best.ckpt", "last.ckpt"], "best.ckpt"),
        ("ckpt", ["0/checkpoints/best.ckpt", "1/checkpoints/best.ckpt"], "0/checkpoints/best.ckpt"),
        ("ckpt", ["notes.txt"], None),
    ],
)
def test_a_folder_in_place_of_a_checkpoint(
    key: str, there: list[str], meant: str | None, tmp_path: Path
) -> None:
    """What is proposed is there."""
    for name in there:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(SkinsegError) as caught:
        read_checkpoint(tmp_path, key=key)
    if meant is None:
        assert "there is none in it" in str(caught.value)
    else:
        proposed = str(caught.value).partition("did you mean ")[2].rstrip("?")
        assert shlex.split(proposed) == [f"{key}={tmp_path / meant}"]
