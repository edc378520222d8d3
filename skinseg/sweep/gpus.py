"""Jobs of one machine queue for its GPUs."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from skinseg.errors import InterruptedRunError

_POLL_S = 1.0


@contextlib.contextmanager
def reserved(
    trainer: Mapping[str, Any], stopping: Callable[[], bool] | None = None
) -> Iterator[dict[str, str]]:
    """Waits until as many GPUs are free as a job asks for, and keeps other jobs from them.

    All jobs of the machine's user are seen, whichever sweep they are of and whatever started them; what
    was not started by a sweep is not.

    Args:
        trainer: The job's node of that name: `accelerator`, `devices`.
        stopping: Asked while it waits whether to wait no longer. None: it waits.

    Yields:
        Environment variables that show the job its GPUs and no others; none where it uses no GPU or there is
        no choice.

    Raises:
        InterruptedRunError: `stopping` said so.
    """
    there = visible_gpus() if trainer.get("accelerator", "auto") in ("auto", "gpu", "cuda") else []
    devices = trainer.get("devices", 1)
    if devices in ("auto", "-1"):
        devices = -1
    if not there or not isinstance(devices, int):  # a list of numbers is the user's own choice
        yield {}
        return
    wanted = len(there) if devices < 0 else min(devices, len(there))
    folder = Path(tempfile.gettempdir()) / f"skinseg_gpus_{os.getuid()}"
    folder.mkdir(exist_ok=True)
    with contextlib.ExitStack() as held:
        gpus = _take(there, wanted, folder, held, stopping)
        yield {"CUDA_VISIBLE_DEVICES": ",".join(gpus)}


def _take(
    there: list[str],
    wanted: int,
    folder: Path,
    held: contextlib.ExitStack,
    stopping: Callable[[], bool] | None,
) -> list[str]:
    names = _names(there)
    while True:
        gpus: list[str] = []
        with contextlib.ExitStack() as attempt:
            for gpu in there:
                if len(gpus) == wanted:
                    break
                with contextlib.suppress(Timeout):
                    attempt.enter_context(FileLock(folder / names[gpu].replace("/", "_"), timeout=0))
                    gpus.append(gpu)
            if len(gpus) == wanted:
                held.enter_context(attempt.pop_all())
                return gpus
        # Those taken were given back: two jobs that each hold a part would wait for ever.
        if stopping is not None and stopping():
            raise InterruptedRunError("The sweep was stopped while a job waited for a GPU.")
        time.sleep(_POLL_S)


def visible_gpus() -> list[str]:
    """Returns the names of the GPUs that this process may use, without importing PyTorch."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [gpu.strip() for gpu in chosen.split(",") if gpu.strip() not in ("", "-1")]
    return _listed()


def _names(gpus: list[str]) -> dict[str, str]:
    """Returns what each GPU is called by all processes.

    A number counts from the first GPU that a process is shown, which a scheduler may choose for each job.
    """
    listed = _listed()
    return {gpu: listed[int(gpu)] if gpu.isdigit() and int(gpu) < len(listed) else gpu for gpu in gpus}


def _listed() -> list[str]:
    try:
        listed = subprocess.run(
            ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in listed.stdout.splitlines() if line.strip()]
