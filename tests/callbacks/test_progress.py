from __future__ import annotations

import io
import sys

import pytest
from conftest import Train
from lightning.pytorch.callbacks import RichProgressBar

from skinseg.callbacks.progress import EpochLines, _clock, progress


def test_style_follows_the_output(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert isinstance(progress(), EpochLines)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert isinstance(progress(), RichProgressBar)


def test_one_line_for_each_epoch(train: Train, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="skinseg")
    train("trainer.max_epochs=3", "test=false", "callbacks=minimal", "callbacks.progress.style=lines")
    lines = [line for line in caplog.messages if line.startswith("epoch")]
    assert [line.split()[1] for line in lines] == ["1/3", "2/3", "3/3"]
    assert all("val/dice 0." in line for line in lines)
    assert "to go" in lines[0]
    assert "to go" not in lines[2]


def test_bar_counts_epochs_from_one(train: Train, capsys: pytest.CaptureFixture[str]) -> None:
    train(
        "trainer.max_epochs=2",
        "test=false",
        "callbacks=minimal",
        "callbacks.progress.style=bar",
        "logger=none",
    )
    output = capsys.readouterr().out
    assert "Epoch 2/2" in output
    assert "epoch 1/2" in output, "the line of each epoch stays"


@pytest.mark.parametrize(("seconds", "shown"), [(5.4, "0:05"), (65, "1:05"), (3725, "1:02:05")])
def test_clock(seconds: float, shown: str) -> None:
    assert _clock(seconds) == shown
