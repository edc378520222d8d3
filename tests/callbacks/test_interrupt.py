"""Signals that follow one another."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from skinseg.callbacks.interrupt import SaveOnInterrupt

TERM, CTRL_C = signal.SIGTERM, signal.SIGINT


@pytest.mark.parametrize(
    ("numbers", "at_once"),
    [
        ([CTRL_C], False),
        ([CTRL_C, CTRL_C], True),
        ([TERM, TERM], False),
        # What has started the job was told to end as well, and its end is told to the job.
        ([TERM, CTRL_C], False),
        ([CTRL_C, TERM], False),
        ([TERM, CTRL_C, CTRL_C], True),
    ],
)
def test_only_a_second_ctrl_c_does_not_wait(
    numbers: list[signal.Signals], at_once: bool, tmp_path: Path
) -> None:
    callback = SaveOnInterrupt(str(tmp_path / "last.ckpt"))
    for number in numbers[:-1]:
        callback._ask(number, None)
    if at_once:
        with pytest.raises(KeyboardInterrupt):
            callback._ask(numbers[-1], None)
    else:
        callback._ask(numbers[-1], None)
    assert callback._asked
