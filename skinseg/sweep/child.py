"""A job as a process of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from skinseg.config.command import (
    RANK_VARIABLES,
)
from skinseg.sweep.gpus import reserved
from skinseg.sweep.jobs import (
    TRUST,
    Job,
)
from skinseg.sweep.stop import END, is_stopping, run_child


def run_in_child(
    job: Job,
    *,
    cwd: str,
    alone: bool,
    trust: Sequence[str],
    sweep: Path | None = None,
    variables: Mapping[str, str] | None = None,
) -> int:
    """Runs a job as a process of its own and returns its exit code.

    Args:
        job: The job; its `job.json` is written.
        cwd: Its working directory.
        alone: Whether no other job writes to this terminal; else its output goes to its console.log.
        trust: Packages that the configuration in the job's folder may name; see `skinseg.build.trust`.
        sweep: Folder of the sweep, where its jobs are not started in this process and are to be told when it
            stops.
        variables: Further environment variables.

    Raises:
        KeyboardInterrupt: Ctrl-C, after the job has ended.
        InterruptedRunError: The sweep was stopped while the job waited for a GPU.
    """
    environment = {key: value for key, value in os.environ.items() if key not in RANK_VARIABLES}
    environment |= variables or {}
    command = [sys.executable, "-m", "skinseg.job", str(job.folder)]
    if trust:
        command.append(TRUST + ",".join(trust))
    console = job.folder / "console.log"
    with contextlib.ExitStack() as stack:
        stopping = partial(is_stopping, sweep) if sweep is not None else None
        environment |= stack.enter_context(reserved(job.config["trainer"], stopping))
        if sweep is not None:
            return run_child(command, sweep=sweep, console=console, environment=environment, folder=cwd)
        # No other thread than the main one gets to know of Ctrl-C.
        hands_on = threading.current_thread() is threading.main_thread()
        # Side by side the jobs' progress bars would write over each other.
        output = None if alone else stack.enter_context(console.open("a"))
        child = stack.enter_context(
            subprocess.Popen(
                command,
                env=environment,
                cwd=cwd,
                stdout=output,
                stderr=None if output is None else subprocess.STDOUT,
                # A terminal's Ctrl-C would reach it beside the signal below, and count as the second one.
                start_new_session=hands_on,
            )
        )
        try:
            return child.wait()
        except KeyboardInterrupt:
            # The job saves and says how to resume; at a second Ctrl-C it ends at once.
            if hands_on:
                child.send_signal(END)
            try:
                child.wait()
            except KeyboardInterrupt:
                child.send_signal(signal.SIGINT)
                child.wait()
            raise
