"""What `check` says of keys and values that mean nothing."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest

from skinseg.build.nodes import instance
from skinseg.config.check import check, check_changes
from skinseg.config.compose import compose, plain
from skinseg.config.rules import value_problems
from skinseg.errors import SkinsegError
from skinseg.evaluate import EvaluateConfig
from skinseg.predict import PredictConfig


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
        ("optimizer.lr=null find=lr", "optimizer.lr=null: expected a number"),
        ("optimizer.lr=[1]", "optimizer.lr=[1]: expected a number"),
        ("optimizer.lr=0 find=lr", "optimizer.lr=0: find=lr looks for better rates around it"),
        ("name=1e3", "name=1000.0: expected text"),
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
        ("trainer.limit_train_batches=0", "trainer.limit_train_batches=0: an untrained network"),
        ("trainer.limit_train_batches=0.0", "trainer.limit_train_batches=0.0: an untrained network"),
        ("trainer.max_time='00:00:00:00'", "trainer.max_time=00:00:00:00: an untrained network"),
        ("trainer.max_time={minutes:0}", "trainer.max_time={'minutes': 0}: an untrained network"),
        ("trainer.precision=16-true", "trainer.precision=16-true: weights of 16 bits"),
        ("trainer.precision=bf16-true", "an optimizer or an average; take bf16-mixed."),
        ("+trainer.val_check_interval=0", "trainer.val_check_interval=0: expected more than 0"),
        ("trainer.check_val_every_n_epoch=0", "trainer.check_val_every_n_epoch=0: expected 1 or more"),
        (
            "trainer.check_val_every_n_epoch=5 trainer.max_epochs=2",
            "trainer.check_val_every_n_epoch=5: the checkpoint is chosen on validation, and there",
        ),
        ("trainer.max_epochs=-1", "trainer.max_epochs: no end; a schedule needs one: set it, trainer.max"),
        ("~trainer.max_epochs", "trainer.max_epochs: missing; a schedule"),
        ("trainer.log_every_n_steps=-5", "trainer.log_every_n_steps=-5: expected 0 or more"),
        ("trainer.gradient_clip_val=-1", "trainer.gradient_clip_val=-1: expected 0 or more"),
        ("trainer.num_sanity_val_steps=-5", "trainer.num_sanity_val_steps=-5: expected -1 or more"),
        ("callbacks.early_stopping.patience=-1", "callbacks.early_stopping.patience=-1: expected 0 or more"),
        ("data.cache_limit_gb=-1", "data.cache_limit_gb=-1: expected more than 0"),
        ("seed=99999999999", "seed=99999999999: expected 4294967295 or less"),
        ("data.split.seed=99999999999", "data.split.seed=99999999999: expected 4294967295 or less"),
        ("ckpt_path=nowhere.ckpt", "ckpt_path=nowhere.ckpt: no such file"),
        ("ckpt_path=. init_from=.", "ckpt_path and init_from: the first goes on with a run"),
        ("trainer.limit_test_batches=0", "to leave the test out, set test=false"),
        ("trainer.strategy=ddp_spawn", "trainer.strategy=ddp_spawn: the weights would stay in processes"),
        ("trainer=cpu trainer.precision=16-mixed", "trainer.precision=16-mixed: not on a processor"),
        ("monitor=train/loss mode=min", "monitor=train/loss: a checkpoint is chosen on validation"),
        (
            "scheduler=plateau scheduler.monitor=train/loss",
            "scheduler.monitor=train/loss: a checkpoint is chosen on validation",
        ),
        ("~data.batch_size", "data.batch_size: missing"),
        ("trainer.max_epochs=0", "trainer.max_epochs=0: an untrained network"),
        ("data.image_size=32", "data.image_size=32: expected two whole numbers, such as [192,256]"),
        ("data.image_size=[32]", "data.image_size=[32]: expected two whole numbers, such as [192,256]"),
        ("data.image_size=[0,32]", "data.image_size=[0, 32]: expected a height and a width of 1 pixel"),
        ("data.split.fold=1", "data.split.fold=1: there are no folds; set data.split.folds"),
        ("data.split.folds=5 data.split.fold=5", "data.split.fold=5: expected a number from 0 to 4"),
        ("seed=", "A problem in the configuration:\n  seed is empty"),
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


FROM_THE_ENVIRONMENT: dict[str, tuple[str, object]] = {
    "seed": ("3", 3),
    "threads": ("2", 2),
    "test": ("False", False),
    "threshold": ("0.4", 0.4),
    "budget.validations": ("5", 5),
    "trainer.max_epochs": ("7", 7),
    "trainer.limit_val_batches": ("0.5", 0.5),
    "trainer.precision": ("32", "32"),
    "data.batch_size": ("4", 4),
    "data.image_size": ("64", [64, 96]),
    "data.split.test": ("0.3", 0.3),
    "data.split.official": ("true", True),
    "optimizer.lr": ("1e-4", 1e-4),
    "callbacks.checkpoint.every_n_steps": ("9", 9),
    "search.trials": ("6", 6),
    "name": ("3", "3"),
}


def test_numbers_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """They come as texts, and stay so only where a text is taken."""
    words = []
    for key, (text, value) in FROM_THE_ENVIRONMENT.items():
        monkeypatch.setenv(key, text)
        words.append(
            f"{key}=[${{oc.env:{key}}},96]" if isinstance(value, list) else f"{key}=${{oc.env:{key}}}"
        )
    given = plain(compose(["+sweep=hpo", *words, "run_dir=."]))
    as_given = copy.deepcopy(given)
    checked = check(given)
    assert given == as_given, "what was handed in stays as it was"
    for key, (_, value) in FROM_THE_ENVIRONMENT.items():
        found: Any = checked
        for part in key.split("."):
            found = found[part]
        assert repr(found) == repr(value), key


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("data.image_size", "[32, 48]", [32, 48]),
        ("deep_supervision", "[1,5e-1]", [1, 0.5]),
        ("trust", "[1]", "[1]"),  # may be a text
    ],
)
def test_lists_from_the_environment(
    key: str, text: str, value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VALUE", text)
    checked: Any = check(plain(compose([f"{key}=${{oc.env:VALUE}}", "run_dir=."])))
    for part in key.split("."):
        checked = checked[part]
    assert checked == value


@pytest.mark.parametrize(
    ("key", "text", "message"),
    [
        ("data.image_size", "32,32", "data.image_size='32,32': expected two whole numbers"),
        ("data.image_size", "[32]", "data.image_size='[32]': expected two whole numbers"),
        ("seed", "-1", "seed=-1: expected 0 or more"),
        ("test", "yes", "test='yes': Input should be true or false"),
        ("test", "1", "test='1': Input should be true or false"),
        ("optimizer.lr", "fast", "optimizer.lr='fast': Input should be a number"),
        ("data.num_workers", "many", "data.num_workers='many': Input should be a valid integer"),
    ],
)
def test_no_number_from_the_environment(
    key: str, text: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VALUE", text)
    assert message in problems(f"{key}=${{oc.env:VALUE}}")


def test_whole_numbers_and_truth_values_are_what_they_are_meant_to_be() -> None:
    checked = check(plain(compose(["trainer.max_epochs=1e1", "test=1", "threshold=0.4", "run_dir=."])))
    assert repr(checked["trainer"]["max_epochs"]) == "10"
    assert checked["test"] is True
    assert check(plain(compose(["name=3", "notes=4", "tags=[5]", "run_dir=."])))["tags"] == ["5"]
    checked = check(plain(compose(["name=3", "data.root=2020", "run_dir=."])))
    assert (checked["name"], checked["data"]["root"]) == ("3", "2020")
    assert "seed=True: Input should be a number" in problems("seed=true")
    assert "optimizer.lr=True: Input should be a number" in problems("optimizer.lr=true")


def test_changes_of_a_checkpoints_data_from_the_environment() -> None:
    target = "skinseg.data.datamodule.LesionDataModule"
    changes = {"num_workers": "2", "verify": "false", "reader": {"lesions": 3}}
    assert check_changes("data", changes, target) == {**changes, "num_workers": 2, "verify": False}
    with pytest.raises(SkinsegError, match=r"data\.num_workers='two': Input should be a valid integer"):
        check_changes("data", {"num_workers": "two"}, target)


@pytest.mark.parametrize(
    ("target", "near"),
    [
        ("skinseg.models.losses.Dize", "Dice"),
        ("skinseg.models.lossess.Dice", "losses"),
        ("skinseg.modles.losses.Dice", "models"),
        ("skinsegg.models.losses.Dice", "skinseg"),
    ],
)
def test_a_near_name_is_proposed_for_a_target(target: str, near: str) -> None:
    said = problems(f"loss._target_={target}")
    assert re.search(rf"loss\._target_={target}: cannot be imported \(.+\); did you mean {near}\?$", said)


@pytest.mark.parametrize("target", ["innocent.Net", "village.innocent.Net"])
@pytest.mark.parametrize("how", ["check", "build"])
def test_a_broken_package_is_blamed_and_not_the_one_that_imports_it(
    how: str, target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "mended_by_nobody.py").write_text("raise TypeError('Descriptors cannot be created.')")
    imports = "try:\n    import mended_by_nobody\nexcept ImportError:\n    pass\n"
    module = tmp_path / f"{target.removesuffix('.Net').replace('.', '/')}.py"
    module.parent.mkdir(exist_ok=True)
    module.write_text(f"{imports}class Net: ...")
    monkeypatch.syspath_prepend(tmp_path)
    message = f"model._target_={target}: cannot be imported (in mended_by_nobody: TypeError: Descriptors"
    if how == "check":
        assert message in problems(f"model._target_={target}")
    else:
        with pytest.raises(SkinsegError, match=re.escape(message)):
            instance("model", {"_target_": target})
    assert not caplog.records, "one message"


def test_a_constructor_that_cannot_import_what_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "needing.py").write_text("def logger():\n    import absent_package")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SkinsegError, match=r"logger\.mine: .* be imported .*'absent_package'.* leave it"):
        instance("logger.mine", {"_target_": "needing.logger"})


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


@pytest.mark.parametrize(
    ("override", "key"),
    [("group=", "group"), ("data.root='  '", "data.root"), ("tags=[a,'']", r"tags[1]")],
)
def test_a_blank_text_is_empty(override: str, key: str) -> None:
    assert problems(override).splitlines()[1:] == [f"  {key} is empty; give it a value, or leave it out."]


def test_a_tolerance_may_be_none_at_all() -> None:
    assert list(value_problems({"tolerance_px": 0, "tolerance_percent": 0.0})) == []


def test_names_of_loggers_may_be_empty() -> None:
    check(plain(compose(["logger=[csv,tensorboard]", "run_dir=.", "notes=''"])))


@pytest.mark.parametrize(
    "overrides",
    [
        "trainer.max_epochs=-1 trainer.max_steps=5",
        "~trainer.max_epochs budget.steps=5",
        "trainer.max_epochs=2 trainer.check_val_every_n_epoch=2",
        "trainer.check_val_every_n_epoch=null +trainer.val_check_interval=0.5",
        "trainer.max_time='00:00:00:01' trainer.log_every_n_steps=0 trainer.precision=64-true",
        "trainer.max_time=null trainer.gradient_clip_val=0 callbacks.early_stopping.patience=0",
    ],
)
def test_values_at_the_edge_of_what_is_refused(overrides: str) -> None:
    check(plain(compose([*overrides.split(), "run_dir=."])))


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
