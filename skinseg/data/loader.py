"""The loader of batches, and its processes, which outlive neither a signal's time nor their run."""

from __future__ import annotations

import errno
import logging
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from multiprocessing import active_children
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader

from skinseg.counting import counted
from skinseg.errors import SkinsegError
from skinseg.machine import no_shared_memory

log = logging.getLogger(__name__)

T = TypeVar("T")


# What a step and a checkpoint may take after a signal.
_GRACE_S = 300


_ENDING = (signal.SIGINT, signal.SIGTERM)


class LateDataLoader(DataLoader[Any]):
    """Asks its sampler when the first batch is asked for, and not before; keeps messages what they are.

    Lightning takes an iterator before it restores a checkpoint and tells the sampler the epoch; worker
    processes would by then have begun with the images of the wrong epoch.

    Args:
        *args: As of a DataLoader.
        ahead: Prepare the next batch in a thread while the network works on the last one. For data sets that
            only copy; where Python works, the thread would be in the way.
        **kwargs: As of a DataLoader.
    """

    def __init__(self, *args: Any, ahead: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.ahead = ahead

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        batches: Any = None
        before = set(active_children())
        try:
            with _signals_held_back():
                batches = super().__iter__()
            yield from _one_ahead(batches) if self.ahead else batches
        except (SkinsegError, RuntimeError, OSError) as error:
            said = _said(error) if self.num_workers else None
            if said is None:
                raise
            # Loader processes that nothing but the garbage collector ends take ten seconds to end, and those
            # that a traceback holds until the program's end far longer.
            made: Any = self._iterator if batches is None else batches
            if made is not None:
                made._shutdown_workers()
            else:  # those of an iterator that was not even made
                for process in set(active_children()) - before:
                    process.kill()
            self._iterator = None
            raise said from None


def _said(error: Exception) -> SkinsegError | None:
    """Returns an error without the traceback that torch writes around its text in a loader process.

    None for a bug. Without room for what processes share, torch ends in several ways, and the system cannot
    make their locks.
    """
    if isinstance(error, OSError):
        return no_shared_memory(error) if error.errno == errno.ENOSPC else None
    if isinstance(error, RuntimeError):
        return no_shared_memory(error) if "shared memory" in str(error).lower() else None
    kind = type(error)
    assert issubclass(kind, SkinsegError)
    return kind(str(error).rpartition(f"{kind.__module__}.{kind.__qualname__}: ")[2].strip())


def _one_ahead(batches: Iterator[T]) -> Iterator[T]:
    with ThreadPoolExecutor(1) as pool:
        upcoming = pool.submit(next, batches, None)
        while (batch := upcoming.result()) is not None:
            upcoming = pool.submit(next, batches, None)
            yield batch


def prepare_worker(_worker: int) -> None:
    """Prepares a loader process: one thread, for the processes already fill the cores, and time at a signal.

    Ctrl-C, schedulers and torchrun signal all processes of a group. The main process still needs the loaders
    for the step after which it saves, and they end with it. One that hangs ends by an alarm.
    """
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    can_end_later = hasattr(signal, "alarm")  # not on Windows
    signal.signal(signal.SIGTERM, _end_later if can_end_later else signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)


@contextmanager
def _signals_held_back() -> Iterator[None]:
    """Lets loader processes start with signals held back: one that is not prepared yet would end by them."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_loader_processes(but: Sequence[BaseProcess] = ()) -> None:
    """Ends the loader processes that are left, which take their time at the signal that Python would send.

    Args:
        but: Children of this process that are somebody else's.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    # PyTorch's handler would take their end for a failure. Windows has no such signal.
    handled = in_main_thread and hasattr(signal, "SIGCHLD")
    before = signal.signal(signal.SIGCHLD, signal.SIG_DFL) if handled else None
    for process in set(active_children()).difference(but):
        process.kill()
        process.join()
    if before is not None:
        signal.signal(signal.SIGCHLD, before)


def _end_later(*_: object) -> None:
    signal.alarm(_GRACE_S)


def default_workers() -> int:
    """Returns how many loader processes suit this machine; see `LesionDataModule`."""
    cores = usable_cores()
    if cores <= 2 and not torch.cuda.is_available():
        return 0
    return min(8, cores)


def usable_cores(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Returns how many cores this process may use: by its affinity and by its container's share of time.

    Args:
        cgroup: Where Linux (cgroup v2) tells a container's share, in `cpu.max`: microseconds of time in each
            period, or "max".
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        share, period = map(int, (cgroup / "cpu.max").read_text().split())
    except (OSError, ValueError):
        return cores
    return max(1, min(cores, -(-share // period)))


@cache
def warn_of_workers(key: str, workers: int) -> None:
    """Warns, once in a process, of more loader processes than there are cores for them.

    Args:
        key: The config key that says how many, for the message.
        workers: Their number.
    """
    cores = usable_cores()
    if workers > cores:
        log.warning(
            "%s=%d: more loader processes than the %s that this process may use, so that they wait for "
            "each other. Set %s=%d or less, or null to have it chosen.",
            key,
            workers,
            counted(cores, "core"),
            key,
            cores,
        )
