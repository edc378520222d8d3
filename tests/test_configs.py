"""Every option and every experiment: composed, checked, instantiated; experiments train a step."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import albumentations
import optuna
import pytest
from conftest import WriteHam

from skinseg.build import nets, nodes, parts, trainers
from skinseg.build.trust import check_stored, trusted
from skinseg.callbacks.quiet import unknown_arguments_as_errors
from skinseg.config.check import check
from skinseg.config.compose import compose, config_dir, plain
from skinseg.data.transforms.dermoscopy import Hair
from skinseg.data.transforms.device_augment import DeviceAugment
from skinseg.data.transforms.mix import Mix
from skinseg.data.transforms.preprocess import Preprocess
from skinseg.errors import SkinsegError
from skinseg.train import run

ROOT = config_dir()
OPTIONS = sorted(
    f"{path.parent.name}={path.stem}"
    for path in ROOT.glob("*/*.yaml")
    if path.parent.name not in ("experiment", "debug", "sweep", "hydra") and not path.stem.startswith("base")
)
PARTS = sorted(path.stem for path in (ROOT / "augment" / "part").glob("*.yaml"))
EXPERIMENTS = sorted(path.stem for path in (ROOT / "experiment").glob("*.yaml"))
DEBUG = sorted(path.stem for path in (ROOT / "debug").glob("*.yaml"))


def composed(*overrides: str, run_dir: Path) -> dict[str, Any]:
    config = plain(compose([*overrides, f"run_dir={run_dir}"]))
    check(config)
    # As a checkpoint's or a job's, without a further word.
    stored = {**json.loads(json.dumps(config)), "search": None}
    check_stored(stored, source="job.json")
    assert trusted(config) == []
    return config


def test_all_groups_are_here() -> None:
    groups = {option.split("=")[0] for option in OPTIONS}
    assert groups == {
        "split", "data", "test_data", "model", "loss", "preprocess", "augment", "mix", "optimizer",
        "scheduler", "trainer", "callbacks", "logger", "sampler", "pruner",
    }  # fmt: skip
    assert len([option for option in OPTIONS if option.startswith("model=")]) == 17


@pytest.mark.parametrize("option", OPTIONS)
def test_option(option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    group = option.split("=")[0]
    option = option.replace("split=", "split@data.split=")
    searched = ["+sweep=hpo"] if group in ("sampler", "pruner") else []
    option = option.replace(f"{group}=", f"{group}@search.{group}=") if searched else option
    # A small encoder stands in for the large ones, without weights from the Hub; DPT takes ViTs only.
    encoder = (
        group == "model" and "encoder_name:" in (ROOT / group / f"{option.split('=')[1]}.yaml").read_text()
    )
    small = ["model.encoder_name=resnet18"] if encoder and not re.search("dpt|tiny", option) else []
    weights = ["model.encoder_weights=null"] if encoder else []
    weights += ["model=tiny"] if group != "model" else []
    accelerator = ["trainer.accelerator=cpu", "trainer.devices=1"] if group == "trainer" else []
    precision = ["trainer.precision=32-true"] if group == "trainer" else []
    size = ["data.image_size=[224,224]"] if "dpt" in option else []
    place = [f"{group}.images={tmp_path}"] if option.endswith("data=folder") else []
    words = (*searched, option, *weights, *small, *size, *accelerator, *precision, *place)
    config = composed(*words, run_dir=tmp_path)
    if group in ("data", "split"):
        parts.datamodule(config)
    elif group == "test_data":
        assert (config["test_data"] == {}) == (option == "test_data=none")
        if config["test_data"]:
            assert parts.data_source("test_data", config["test_data"]).image_size == (256, 256)
    elif searched:
        node = config["search"][group]
        assert (node == {}) == (option == "pruner@search.pruner=none")
        kinds = {"sampler": optuna.samplers.BaseSampler, "pruner": optuna.pruners.BasePruner}
        assert node == {} or isinstance(nodes.instance(f"search.{group}", node), kinds[group])
    elif group in ("callbacks", "logger"):
        trainers.trainer(config, parts.callbacks(config), parts.loggers(config))
    elif group == "trainer":
        trainers.trainer(config, [], [])
    elif group == "augment":
        kinds = {"augment=none": type(None), "augment=light_device": DeviceAugment}
        kinds["augment=strong_device"] = DeviceAugment
        assert isinstance(parts.datamodule(config).augment, kinds.get(option, albumentations.Compose))
    elif group == "preprocess":
        assert (nets.preprocessing(config["preprocess"]) is None) == (option == "preprocess=none")
        assert isinstance(parts.datamodule(config).preprocess, Preprocess | None)
    elif group == "mix":
        assert isinstance(parts.datamodule(config).mix, Mix) == (option != "mix=none")
    else:
        parts.segmenter(config)


def test_the_search_composes_as_it_is(tmp_path: Path) -> None:
    config = composed("+experiment=unet_resnet34", "+sweep=hpo", run_dir=tmp_path)
    assert config["search"]["study"] == "unet_resnet34"
    assert config["test"] is False


@pytest.mark.parametrize("part", PARTS)
def test_part_of_an_augmentation(part: str, tmp_path: Path) -> None:
    """Alone, and beside the transforms of another option; there are others in no part."""
    alone = composed(f"augment=part/{part}", "model=tiny", run_dir=tmp_path)
    assert list(alone["augment"]["transforms"]) == [part]
    (only,) = parts.datamodule(alone).augment.transforms
    beside = composed(f"+augment/part={part}", "model=tiny", run_dir=tmp_path)
    light = composed("augment=light", "model=tiny", run_dir=tmp_path)
    assert beside["augment"]["transforms"] == {
        **light["augment"]["transforms"],
        **alone["augment"]["transforms"],
    }
    last = parts.datamodule(beside).augment.transforms[-1]
    assert albumentations.to_dict(last) == albumentations.to_dict(only)


def test_several_parts(tmp_path: Path) -> None:
    config = composed("augment=none", "+augment/part=[ruler,hair]", "model=tiny", run_dir=tmp_path)
    assert list(config["augment"]["transforms"]) == ["ruler", "hair"]


def test_dermoscopy_is_light_and_its_artefacts(tmp_path: Path) -> None:
    light, all_of_it = (
        composed(f"augment={option}", "model=tiny", run_dir=tmp_path)["augment"]["transforms"]
        for option in ("light", "dermoscopy")
    )
    assert {name: all_of_it[name] for name in light} == light
    assert list(all_of_it)[: len(light)] == list(light), "a ruler stays straight, a frame round"
    # The other part is another power of one that is here.
    assert set(PARTS) - set(all_of_it) == {"grey_world"}


def test_a_part_beside_transforms_of_batches(tmp_path: Path) -> None:
    config = composed("augment=light_device", "+augment/part=hair", "model=tiny", run_dir=tmp_path)
    with pytest.raises(SkinsegError, match=r"augment\.transforms\.horizontal_flip: found HorizontalFlip"):
        parts.datamodule(config)


def test_an_unknown_argument_of_a_part(tmp_path: Path) -> None:
    with pytest.raises(SkinsegError, match=r"did you mean augment\.transforms\.hair\.number_range\?"):
        composed("augment=part/hair", "+augment.transforms.hair.number_rang=[1,2]", run_dir=tmp_path)
    with unknown_arguments_as_errors(), pytest.raises(UserWarning, match="number_rang"):
        Hair(number_rang=(1, 2))


def test_a_part_with_bad_arguments(tmp_path: Path) -> None:
    config = composed(
        "augment=part/hair", "augment.transforms.hair.number_range=[5,1]", "model=tiny", run_dir=tmp_path
    )
    with pytest.raises(
        SkinsegError, match=r"augment\.transforms\.hair: .*Hair refused its arguments: number_range: "
    ):
        parts.datamodule(config)


@pytest.mark.parametrize("debug", DEBUG)
def test_debug_option(debug: str, tmp_path: Path) -> None:
    composed(f"+debug={debug}", "model=tiny", run_dir=tmp_path)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_experiment_composes_as_it_is(experiment: str, tmp_path: Path) -> None:
    config = composed(f"+experiment={experiment}", run_dir=tmp_path)
    assert config["name"] == experiment


# Smaller encoders of the same kind; the experiment itself is checked above.
STAND_INS = {
    "deeplabv3plus_resnet50": ["model.encoder_name=resnet18"],
    "demo": [],
    "segformer_mit_b2": ["model.encoder_name=mit_b0"],
    "unet_efficientnet_lite0_small": [],
    "unet_resnet34": ["model.encoder_name=resnet18"],
    "unetplusplus_efficientnet_b3": ["model.encoder_name=efficientnet-b0"],
}


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_experiment_trains_a_step(experiment: str, write_ham: WriteHam, tmp_path: Path) -> None:
    weights = [] if experiment == "demo" else ["model.encoder_weights=null"]
    data = ["data.reader.lesions=12"] if experiment == "demo" else [f"data.root={write_ham(12)}"]
    folder = tmp_path / "run"
    run(
        compose(
            [
                f"+experiment={experiment}", *STAND_INS[experiment], *weights, *data,
                "data.image_size=[64,64]",
                "data.batch_size=2", "data.num_workers=0", "trainer=cpu", "trainer.max_steps=1",
                "trainer.limit_val_batches=1", "trainer.limit_test_batches=1", "logger=[csv]", "threads=1",
                *(["data.root=" + str(tmp_path)] if experiment == "demo" else []), f"run_dir={folder}",
            ]
        )
    )  # fmt: skip
    assert (folder / "scores.csv").is_file()
