"""Searches before a run, and a device whose memory is full."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from conftest import Train

from skinseg.errors import InterruptedRunError, SkinsegError
from skinseg.models.segmenter import LesionSegmenter
from skinseg.training.budget import Budget, divide

RUN = ("callbacks=minimal", "logger=none", "test=false")


def test_a_full_memory_without_a_word(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(LesionSegmenter, "forward", fail)
    with pytest.raises(SkinsegError, match=r"\(OutOfMemoryError\)\. Lower one of: data\.batch_size=4"):
        train(*RUN)


def limit_memory(monkeypatch: pytest.MonkeyPatch, images: int) -> None:
    forward = LesionSegmenter.forward

    def limited(self: LesionSegmenter, batch: torch.Tensor) -> torch.Tensor:
        if len(batch) > images:
            raise torch.OutOfMemoryError(
                "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8 GiB."
            )
        return forward(self, batch)

    monkeypatch.setattr(LesionSegmenter, "forward", limited)


def test_out_of_memory_names_the_settings(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    limit_memory(monkeypatch, 3)
    with pytest.raises(SkinsegError) as caught:
        train(*RUN)
    message = str(caught.value)
    assert "(CUDA out of memory)" in message
    for setting in (
        "data.batch_size=4", "data.image_size=[32,32]", "trainer.precision=32-true",
        "trainer.accumulate_grad_batches=1", "gradient_checkpointing=true",
    ):  # fmt: skip
        assert setting in message


@pytest.mark.slow
@pytest.mark.parametrize(("fits", "found"), [(5, 4), (10, 8), (1000, 14)])
def test_largest_batch_that_fits(
    train: Train, monkeypatch: pytest.MonkeyPatch, fits: int, found: int
) -> None:
    """Of 28 training images at most half."""
    limit_memory(monkeypatch, fits)
    folder = train(*RUN, "find=batch_size", "trainer.max_steps=1")
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["data"]["batch_size"] == found
    record = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["skinseg"]["config"]
    assert record["data"]["batch_size"] == found
    assert not list(folder.glob(".scale_batch*"))


def test_not_even_two_images_fit(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    limit_memory(monkeypatch, 1)
    with pytest.raises(SkinsegError, match="not even two images fit"):
        train(*RUN, "find=batch_size")


@pytest.mark.slow
def test_validation_has_to_fit_too(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluate = LesionSegmenter.validation_step

    def limited(self: LesionSegmenter, batch: dict[str, Any], batch_idx: int) -> None:
        if len(batch["image"]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        evaluate(self, batch, batch_idx)

    monkeypatch.setattr(LesionSegmenter, "validation_step", limited)
    folder = train(*RUN, "find=batch_size", "trainer.max_steps=1")
    assert yaml.safe_load((folder / "config.yaml").read_text())["data"]["batch_size"] == 2


@pytest.mark.slow
def test_a_resumed_run_takes_what_the_first_one_found(
    train: Train, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    limit_memory(monkeypatch, 9)
    run = (*RUN, "find=batch_size", "trainer.max_epochs=2")
    whole = train(*run, run_dir="whole")
    with pytest.raises(InterruptedRunError):
        train(*run, "+callbacks.stop={_target_: conftest.InterruptAt, step: 4}", run_dir="stopped")
    monkeypatch.setattr("skinseg.training.find.find_batch_size", lambda *_: pytest.fail("searched again"))
    last = tmp_path / "stopped/checkpoints/last.ckpt"
    resumed = train(*run, f"ckpt_path={last}", run_dir="resumed")
    weights = [
        torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for folder in (whole, resumed)
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    with pytest.raises(SkinsegError, match=r"middle of an epoch with data\.batch_size=8 on 1 processes"):
        train(
            *RUN, "trainer.max_epochs=2", "data.batch_size=4", "trainer.accumulate_grad_batches=2",
            f"ckpt_path={last}", run_dir="other",
        )  # fmt: skip


def test_a_found_rate_is_not_scaled_again(train: Train) -> None:
    with pytest.raises(SkinsegError, match="set lr_scaling=none"):
        train(*RUN, "find=lr", "lr_scaling=linear")


@pytest.mark.slow
@pytest.mark.parametrize("preset", [0.02, 2e-6])
def test_a_found_rate_trains_no_worse_than_the_preset(
    train: Train, preset: float, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """A rate that hardly moves the weights is left behind; where none is better, the run is the same."""
    caplog.set_level("INFO")
    losses = {}
    for find in ("null", "lr"):
        folder = train(
            *RUN[:1], "test=false", "logger=csv", "augment=none", f"find={find}", "trainer.max_epochs=4",
            f"optimizer.lr={preset}", run_dir=find,
        )  # fmt: skip
        losses[find] = pd.read_csv(folder / "metrics.csv")["train/loss"].dropna().iloc[-1]
    rate = yaml.safe_load((folder / "config.yaml").read_text())["optimizer"]["lr"]
    without, searched = (
        torch.load(tmp_path / find / "checkpoints/last.ckpt", weights_only=True) for find in ("null", "lr")
    )
    assert searched["optimizer_states"][0]["param_groups"][0]["initial_lr"] == pytest.approx(rate)
    if preset < 1e-5:
        assert rate > 50 * preset
        assert losses["lr"] < losses["null"]
    else:
        assert rate == preset
        assert "nothing better than" in caplog.text
        for name, weight in without["state_dict"].items():
            assert torch.equal(weight, searched["state_dict"][name]), name


@pytest.mark.parametrize(("preset", "found"), [(0.3, 0.3), (0.1, 0.1), (1e-6, 0.1), (9.0, 0.9)])
def test_the_search_goes_on_to_the_nearest_good_rate(
    train: Train, monkeypatch: pytest.MonkeyPatch, preset: float, found: float
) -> None:
    """From far away, too."""
    tried: list[float] = []

    def loss_at(rate: float, *_: object) -> float:
        tried.append(rate)
        return 1 + abs(math.log10(rate / 0.3)) / 2

    monkeypatch.setattr("skinseg.training.find._loss_at", loss_at)
    folder = train(*RUN, "find=lr", "trainer.max_steps=1", f"optimizer.lr={preset}")
    rate = yaml.safe_load((folder / "config.yaml").read_text())["optimizer"]["lr"]
    assert rate == pytest.approx(found)
    assert len(set(tried)) == len(tried)
    assert 1e-7 <= min(tried) < max(tried) <= 10


def test_the_rate_is_for_the_batches_of_the_run(
    train: Train, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A step of a search is over as many images as one of the run."""
    monkeypatch.setattr("skinseg.training.find._TRIAL_STEPS", 2)
    monkeypatch.setattr("skinseg.training.find._JUDGED_STEPS", 1)
    batches = 0
    training_step = LesionSegmenter.training_step

    def counted(self: LesionSegmenter, *arguments: Any) -> torch.Tensor:
        nonlocal batches
        batches += self.trainer.global_step < 2
        return 0 * training_step(self, *arguments) + 2

    monkeypatch.setattr(LesionSegmenter, "training_step", counted)
    caplog.set_level("INFO")
    train(*RUN, "find=lr", "trainer.max_steps=1", "trainer.accumulate_grad_batches=3")
    assert batches >= 5 * 2 * 3 + 3
    assert "find=lr: loss 2.0000 with" in caplog.text


def test_a_rate_at_which_the_loss_is_not_finite_is_not_taken(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loss_at(rate: float, *_: object) -> float:
        return float("inf") if rate > 0.002 else 1.0 + rate

    monkeypatch.setattr("skinseg.training.find._loss_at", loss_at)
    folder = train(*RUN, "find=lr", "trainer.max_steps=1")
    assert yaml.safe_load((folder / "config.yaml").read_text())["optimizer"]["lr"] == 0.002


def test_a_search_is_for_one_device(train: Train) -> None:
    with pytest.raises(SkinsegError, match=r"find=lr: searches on one device.*trainer\.devices=1"):
        train(*RUN, "find=lr", "trainer.devices=2")


def test_gradient_checkpointing_changes_nothing_but_memory(train: Train) -> None:
    weights = []
    for value in ("false", "true"):
        folder = train(*RUN, f"gradient_checkpointing={value}", "trainer.max_steps=3", run_dir=value)
        weights.append(torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"])
    # Batch norm sees each batch twice, in both passes; only its running statistics differ.
    trained = [key for key in weights[0] if "running" not in key and "num_batches" not in key]
    assert all(torch.allclose(weights[0][key], weights[1][key], atol=1e-6) for key in trained)


def test_encoder_that_cannot_checkpoint(train: Train) -> None:
    with pytest.raises(SkinsegError, match=r"gradient_checkpointing=true: this encoder cannot.*tu-resnet34"):
        train(
            "model=unet", "model.encoder_name=resnet18", "model.encoder_weights=null",
            "gradient_checkpointing=true",
        )  # fmt: skip


@pytest.mark.parametrize(
    ("steps", "validations", "accumulated", "batches", "expected"),
    [
        (100, 10, 1, 50, Budget(steps=100, epochs=10, batches=10)),
        (105, 10, 1, 50, Budget(steps=100, epochs=10, batches=10)),  # what does not divide is left out
        (100, 1, 1, 30, Budget(steps=100, epochs=4, batches=25)),  # no part is longer than an epoch
        (3, 10, 1, 50, Budget(steps=3, epochs=3, batches=1)),
        (100, 10, 4, 50, Budget(steps=100, epochs=10, batches=40)),
        (100, 1, 4, 50, Budget(steps=99, epochs=9, batches=44)),
    ],
)
def test_a_budget_is_divided(
    steps: int, validations: int, accumulated: int, batches: int, expected: Budget
) -> None:
    assert divide(steps, validations, accumulated, batches) == expected


def test_a_budget_without_a_single_step() -> None:
    with pytest.raises(SkinsegError, match=r"8 batches make a step .*make only 7; lower data\.batch_size"):
        divide(10, 1, 8, 7)


@pytest.mark.parametrize("accumulated", [1, 3])
def test_a_run_trains_the_steps_of_its_budget(train: Train, accumulated: int) -> None:
    """28 images are 7 batches; trainer.max_epochs=1 does not count."""
    budget = ["budget.steps=10", "budget.validations=2"]
    folder = train(*budget, "callbacks=minimal", f"trainer.accumulate_grad_batches={accumulated}")
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["training"]["steps"] == summary["costs"]["training_steps"] == 10
    assert summary["training"]["epochs"] == (2 if accumulated == 1 else 5)
    # One for each part, and that of the best weights at the end.
    validated = pd.read_csv(folder / "metrics.csv").dropna(subset=["val/dice"])
    assert len(validated) == summary["training"]["epochs"] + 1


def test_minutes_are_turned_into_steps(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that gives each step half a second allows 12 steps in a tenth of a minute."""
    time = iter(k / 2 for k in range(10_000))
    monkeypatch.setattr("skinseg.training.budget.time.perf_counter", lambda: next(time))
    config = ("budget.minutes=0.1", "budget.validations=3", "callbacks=minimal", "logger=none")
    folder = train(*config)
    assert json.loads((folder / "summary.json").read_text())["training"]["steps"] == 12
    last = folder / "checkpoints/last.ckpt"
    assert torch.load(last, weights_only=True)["skinseg"]["budget_steps"] == 12

    def fail(*_: object) -> int:
        raise AssertionError("a resumed run keeps the steps of the first one")

    monkeypatch.setattr("skinseg.training.budget.steps_of", fail)
    again = train(*config, f"ckpt_path={last}", run_dir="again")
    assert json.loads((again / "summary.json").read_text())["training"]["steps"] == 12


def test_minutes_are_found_on_one_device(train: Train) -> None:
    with pytest.raises(SkinsegError, match=r"budget\.minutes: searches on one device"):
        train("budget.minutes=1", "trainer.devices=2", "callbacks=minimal", "logger=none")
