"""What the throughput of an epoch is made of."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
from conftest import Train

from skinseg.callbacks.throughput import Throughput
from skinseg.data.dataset import LesionDataset


def epoch(
    monkeypatch: pytest.MonkeyPatch,
    *,
    waits: list[float],
    steps: list[float],
    device: str = "cpu",
    ranks: int = 1,
) -> dict[str, float]:
    """Runs the callback through an epoch by a clock of our own; 4 images a batch."""
    clock, logged = SimpleNamespace(now=100.0), {}
    monkeypatch.setattr("skinseg.callbacks.throughput.time.monotonic", lambda: clock.now)
    module: Any = SimpleNamespace(device=torch.device(device), log=logged.__setitem__)
    trainer: Any = SimpleNamespace(world_size=ranks)
    callback = Throughput(sample_every=2)
    callback.on_train_epoch_start(trainer, module)
    for index, (wait, step) in enumerate(zip(waits, steps, strict=True)):
        clock.now += wait
        callback.on_train_batch_start(trainer, module, {}, index)
        clock.now += step
        callback.on_train_batch_end(trainer, module, None, {"image": torch.empty(4)}, index)
    clock.now += 50  # validation
    callback.on_train_epoch_end(trainer, module)
    return logged


def test_rates_on_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    logged = epoch(monkeypatch, waits=[2.0, 0.0, 1.0], steps=[1.0, 3.0, 3.0], ranks=2)
    assert logged == {"train/images_per_s": pytest.approx(2.4), "train/data_wait": pytest.approx(0.3)}


def test_a_gpu_is_asked_for_memory_and_utilisation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda _: None)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _: 3 * 2**29)
    samples = iter([80, 90])
    monkeypatch.setattr(torch.cuda, "utilization", lambda _: next(samples))
    logged = epoch(monkeypatch, waits=[0.0] * 4, steps=[1.0] * 4, device="cuda")
    assert logged["train/gpu_memory_gib"] == 1.5
    assert logged["train/gpu_utilisation"] == pytest.approx(0.85)


def test_without_nvml_the_rest_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def absent(_: Any) -> int:
        asked.append(1)
        raise ModuleNotFoundError("pynvml does not seem to be installed")

    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda _: None)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _: 2**30)
    monkeypatch.setattr(torch.cuda, "utilization", absent)
    logged = epoch(monkeypatch, waits=[0.0] * 4, steps=[1.0] * 4, device="cuda")
    assert logged.keys() == {"train/images_per_s", "train/data_wait", "train/gpu_memory_gib"}
    assert len(asked) == 1


def test_a_slow_loader_shows_in_a_run(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    read = LesionDataset.__getitem__

    def slow(self: LesionDataset, key: Any) -> Any:
        time.sleep(0.06)
        return read(self, key)

    monkeypatch.setattr(LesionDataset, "__getitem__", slow)
    folder = train("test=false", "callbacks.panels=null", "trainer.limit_train_batches=2")
    row = pd.read_csv(folder / "metrics.csv").dropna(subset=["train/data_wait"]).iloc[0]
    assert 0.5 < row["train/data_wait"] < 1
    assert 0 < row["train/images_per_s"] < 17
