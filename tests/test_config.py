"""What `check` says of keys and values that mean nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from skinseg.config import check, compose, plain
from skinseg.errors import SkinsegError
from skinseg.evaluate import EvaluateConfig
from skinseg.predict import PredictConfig
from skinseg.rules import value_problems


def problems(*overrides: str) -> str:
    with pytest.raises(SkinsegError) as caught:
        check(plain(compose([*overrides, "run_dir=."])))
    return str(caught.value)


def test_the_default_has_no_problem() -> None:
    check(plain(compose(["run_dir=."])))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("+sead=1", "sead: unknown key of the root; did you mean seed?"),
        (
            "+data.batchsize=4",
            "data.batchsize: unknown key of skinseg.data.datamodule.LesionDataModule; "
            "did you mean data.batch_size?",
        ),
        ("+data.split.vall=0.1", "did you mean data.split.val?"),
        ("+data.reader.metdata=x", "did you mean data.reader.metadata?"),
        ("+model.encoder_nam=resnet18", "did you mean model.encoder_name?"),
        ("+model.drop_path=0.1", "model.drop_path: unknown key of segmentation_models_pytorch.Unet; known:"),
        ("+augment.transforms.affine.rotat=3", "did you mean augment.transforms.affine.rotate?"),
        ("+optimizer.weight_decy=0", "did you mean optimizer.weight_decay?"),
        ("+trainer.max_epoch=3", "did you mean trainer.max_epochs?"),
        ("+callbacks.early_stoping.patience=3", "did you mean callbacks.early_stopping?"),
        ("+callbacks.early_stopping.patiense=3", "did you mean callbacks.early_stopping.patience?"),
        ("+logger.wandb.projekt=x", "did you mean logger.wandb.project?"),
        ("seed=many", "seed='many': Input should be a valid integer"),
        ("monitor=val/dise", "monitor=val/dise: never logged; did you mean val/dice?"),
        ("test=no", "test='no': Input should be true or false"),
        ("data.split.official=off", "data.split.official='off': Input should be true or false"),
        ("data.verify=yes", "data.verify='yes'"),
        ("monitor=val/loss", "mode=max: of val/loss the smallest is the best; set mode=min."),
        ("mode=min", "mode=min: of val/dice the largest is the best; set mode=max."),
        ("seed=-1", "seed=-1: expected 0 or more"),
        ("data.batch_size=-4", "data.batch_size=-4: expected 1 or more"),
        ("data.num_workers=-1", "data.num_workers=-1: expected 0 or more"),
        ("optimizer.lr=-1", "optimizer.lr=-1: expected 0 or more"),
        ("optimizer.weight_decay=-0.1", "optimizer.weight_decay=-0.1: expected 0 or more"),
        ("trainer.accumulate_grad_batches=0", "trainer.accumulate_grad_batches=0: expected 1 or more"),
        ("budget.steps=0", "budget.steps=0: expected more than 0"),
        ("data.root=", "data.root is empty; give it a value"),
        ("init_from=", "init_from is empty"),
        ("test_data=isic2018 test_data.root=", "test_data.root is empty"),
        ("name=", "name is empty"),
        ("init_from=nowhere.ckpt", "init_from=nowhere.ckpt: no such file"),
        ("data.same_lesion=nowhere.csv", "data.same_lesion=nowhere.csv: no such file"),
        ("data.masks=nowhere", "data.masks=nowhere: no such folder"),
        ("data.split.file=nowhere.csv", "data.split.file=nowhere.csv: no such file"),
        ("model.encoder_weights=nowhere.pth", "model.encoder_weights=nowhere.pth: no such file"),
        (
            "trainer.limit_val_batches=0",
            "trainer.limit_val_batches=0: the checkpoint is chosen on validation",
        ),
        ("trainer.limit_test_batches=0", "to leave the test out, set test=false"),
        ("trainer.strategy=ddp_spawn", "trainer.strategy=ddp_spawn: the weights would stay in processes"),
        ("trainer=cpu trainer.precision=16-mixed", "trainer.precision=16-mixed: not on a processor"),
        ("monitor=train/loss mode=min", "monitor=train/loss: a checkpoint is chosen on validation"),
        (
            "scheduler=plateau scheduler.monitor=train/loss",
            "scheduler.monitor=train/loss: a checkpoint is chosen on validation",
        ),
        ("~data.batch_size", "data.batch_size: missing"),
        ("threads=0", "threads=0: expected 1 or more"),
        ("+data.seed=5", "data.seed: set by skinseg itself"),
        ("+trainer.enable_checkpointing=false", "trainer.enable_checkpointing: set by skinseg itself"),
        ("threshold=128", "threshold=128: expected a probability"),
        ("mode=best", "mode='best': Input should be 'max' or 'min'"),
        ("data.batch_size=eight", "data.batch_size='eight': Input should be a valid integer"),
        (
            "data.on_missing_mask=ignore",
            "data.on_missing_mask='ignore': Input should be 'error', 'drop' or 'keep'",
        ),
        ("trainer.precision=bf17", "trainer.precision='bf17'"),
        (
            "loss._target_=skinseg.models.losses.Dize",
            "loss._target_=skinseg.models.losses.Dize: cannot be imported",
        ),
        ("~loss._target_", "loss: no _target_"),
        ("~data.image_size", "data.image_size: missing; skinseg.data.datamodule.LesionDataModule needs it"),
        ("~seed", "seed: missing; the root needs it"),
    ],
)
def test_one_problem(override: str, message: str) -> None:
    assert message in problems(*override.split(" "))


@pytest.mark.parametrize(
    ("command", "keys"), [("predict", ("input", "output", "ckpt")), ("evaluate", ("ckpt", "truth"))]
)
def test_an_empty_value_is_not_the_current_folder(command: str, keys: tuple[str, ...]) -> None:
    schema = {"predict": PredictConfig, "evaluate": EvaluateConfig}[command]
    config = plain(compose([f"++{key}=''" for key in keys] + ["++run_dir=."], command))
    with pytest.raises(SkinsegError) as caught:
        check(config, schema)
    for key in keys:
        assert f"{key} is empty; give it a value" in str(caught.value)


def test_a_tolerance_may_be_none_at_all() -> None:
    assert list(value_problems({"tolerance_px": 0, "tolerance_percent": 0.0})) == []


def test_names_of_loggers_may_be_empty() -> None:
    check(plain(compose(["logger=[csv,tensorboard]", "run_dir=.", "notes=''"])))


def test_all_problems_at_once() -> None:
    message = problems("+sead=1", "+model.encoder_nam=x", "data.batch_size=eight")
    assert message.startswith("3 problems")
    assert len(message.splitlines()) == 4


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("compile=default", "compile=default: not with trainer=fsdp; set compile=null"),
        ("find=lr", "find=lr: not with trainer=fsdp; set find=null"),
        ("find=batch_size", "find=batch_size: not with trainer=fsdp"),
        ("deep_supervision=[0.5]", "deep_supervision=[0.5]: not with trainer=fsdp"),
        (
            "trainer.precision=16-mixed",
            "trainer.precision=16-mixed: with trainer=fsdp expected bf16-mixed",
        ),
        ("trainer.precision=bf16-true", "trainer.precision=bf16-true: with trainer=fsdp expected"),
        ("trainer.sync_batchnorm=true", "trainer.sync_batchnorm=true: not with trainer=fsdp"),
        ("callbacks=ema", "callbacks.weight_average: weights that are sharded cannot be averaged"),
        ("callbacks=swa", "callbacks.weight_average: weights that are sharded cannot be averaged"),
    ],
)
def test_what_sharded_weights_do_not_go_with(override: str, message: str) -> None:
    assert message in problems("trainer=fsdp", override)
    check(plain(compose(["trainer=ddp", override, "run_dir=."])))


def test_what_sharded_weights_go_with() -> None:
    check(
        plain(
            compose(["trainer=fsdp", "trainer.precision=32-true", "gradient_checkpointing=true", "run_dir=."])
        )
    )
    assert "take trainer=fsdp" in problems("trainer=ddp", "trainer.strategy=fsdp")


def test_a_missing_value_and_a_dangling_interpolation() -> None:
    with pytest.raises(SkinsegError, match=r"data\.root: missing; add data\.root=<value>"):
        plain(compose(["run_dir=.", "data.root=???"]))
    with pytest.raises(SkinsegError, match=r"incomplete \(.*name\): .*nowhere"):
        plain(compose(["run_dir=.", "name=${nowhere}"]))


def test_a_typo_in_an_experiment_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "experiment"
    folder.mkdir()
    (folder / "mine.yaml").write_text("# @package _global_\noptimiser:\n  lr: 1\nmodel:\n  encodername: x\n")
    message = problems("+experiment=mine", f"hydra.searchpath=[{tmp_path}]")
    assert "optimiser: unknown key of the root; did you mean optimizer?" in message
    assert "did you mean model.encoder_name?" in message
