"""Every option and every experiment: composed, checked, instantiated; experiments train a step."""

from __future__ import annotations

from pathlib import Path

import pytest

from skinseg import build
from skinseg.config import check, compose, config_dir, plain

ROOT = config_dir()
OPTIONS = sorted(
    f"{path.parent.name}={path.stem}"
    for path in ROOT.glob("*/*.yaml")
    if path.parent.name not in ("experiment", "debug") and path.stem != "base"
)
EXPERIMENTS = sorted(path.stem for path in (ROOT / "experiment").glob("*.yaml"))
DEBUG = sorted(path.stem for path in (ROOT / "debug").glob("*.yaml"))


def composed(*overrides: str, run_dir: Path) -> dict[str, object]:
    config = plain(compose([*overrides, f"run_dir={run_dir}"]))
    check(config)
    return config


def test_all_groups_are_here() -> None:
    groups = {option.split("=")[0] for option in OPTIONS}
    assert groups == {
        "data", "model", "loss", "augment", "optimizer", "scheduler", "trainer", "callbacks", "logger",
    }  # fmt: skip
    assert len([option for option in OPTIONS if option.startswith("model=")]) == 13


@pytest.mark.parametrize("option", OPTIONS)
def test_option(option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    group = option.split("=")[0]
    # A small encoder stands in for the large ones, without weights from the Hub; DPT takes ViTs only.
    small = [] if group != "model" or "dpt" in option or "tiny" in option else ["model.encoder_name=resnet18"]
    weights = ["model.encoder_weights=null"] if group == "model" else ["model=tiny"]
    accelerator = ["trainer.accelerator=cpu", "trainer.devices=1"] if group == "trainer" else []
    precision = ["trainer.precision=32-true"] if group == "trainer" else []
    config = composed(option, *weights, *small, *accelerator, *precision, run_dir=tmp_path)
    if group == "data":
        build.datamodule(config)
    elif group in ("callbacks", "logger"):
        build.trainer(config, build.callbacks(config), build.loggers(config))
    elif group == "trainer":
        build.trainer(config, [], [])
    elif group == "augment":
        assert build.datamodule(config).augment is not None
    else:
        build.segmenter(config)
