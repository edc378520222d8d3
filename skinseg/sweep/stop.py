"""A sweep that is to stop: its jobs save and end, whatever has started them and wherever they run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from skinseg.errors import InterruptedRunError
from skinseg.sweep.jobs import running_below

_FLAG = ".stop"
_POLL_S = 0.5

END: signal.Signals = getattr(signal, "SIGUSR2", signal.SIGTERM)
"""Asks a job to save and end. Lightning answers SIGTERM in its own way, NCCL SIGUSR1; Windows has neither."""


def is_stopping(sweep: Path) -> bool:
    """Returns whether a sweep is to stop.

    Args:
        sweep: Its folder, which all machines see.
    """
    return (sweep / _FLAG).exists()


def stop_at_interrupt(sweep: Path) -> None:
    """Lets Ctrl-C in this process stop all jobs of a sweep, and wait until those that run have saved.

    A launcher would kill its workers at once, or leave them alone. A second Ctrl-C does not wait.

    Args:
        sweep: Its folder. That it was stopped before is forgotten.
    """
    flag = sweep / _FLAG
    flag.unlink(missing_ok=True)
    before: Any = signal.getsignal(signal.SIGINT)

    def stop(_signal: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, before)
        print(
            "\nStopping: the running jobs save and end. Ctrl-C again does not wait for them.", file=sys.stderr
        )
        if sweep.is_dir():
            flag.touch()
        while running_below(sweep):
            time.sleep(_POLL_S)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, stop)


def run_child(
    command: Sequence[str], *, sweep: Path, console: Path, environment: Mapping[str, str], folder: str
) -> int:
    """Runs a job; it is told to end when its sweep is to stop, or when what has started this process is gone.

    Args:
        command: Of the job. `END` asks it to save and end.
        sweep: Folder of the sweep.
        console: A file to which its output is added: those of several jobs would mix on a terminal.
        environment: All of its variables.
        folder: Its working directory.

    Returns:
        Its exit code; that of an interrupted run where it was told to end and has not finished.
    """
    parent = os.getppid()
    told = False

    def alone() -> bool:
        return os.getppid() != parent

    with (
        console.open("a", encoding="utf-8") as output,
        subprocess.Popen(
            command,
            env=environment,
            cwd=folder,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a terminal's Ctrl-C, which comes as well, would count as the second
        ) as child,
    ):
        try:
            while True:
                try:
                    code = child.wait(_POLL_S)
                    if (
                        told and alone()
                    ):  # with nobody to take a result a worker of joblib would stay for minutes
                        os._exit(InterruptedRunError.exit_code)
                    return InterruptedRunError.exit_code if told and code else code
                except subprocess.TimeoutExpired:
                    if not told and (is_stopping(sweep) or alone()):
                        child.send_signal(END)
                        told = True
        except BaseException:  # a signal to this process, from a terminal or at the end of a Slurm job's time
            child.send_signal(END)
            child.wait()
            raise
