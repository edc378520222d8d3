"""What is said where the machine lacks something."""

from __future__ import annotations

import errno
import gc
import pwd
import time
from multiprocessing import Process, active_children
from pathlib import Path

import pytest
import torch
from torch.utils.data import TensorDataset

from skinseg.data.loader import LateDataLoader, end_loader_processes, prepare_worker
from skinseg.errors import SkinsegError
from skinseg.machine import told


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/data/x.csv"), "/data/x.csv: the disk is full"),
        (OSError(errno.ENOSPC, "No space left on device"), "/runs/7: the disk is full"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "/runs/7: Disk quota exceeded. Free space"),
        (OSError(errno.EROFS, "Read-only file system", "/data/x"), "/data/x: Read-only file system. Take"),
        (PermissionError(errno.EACCES, "Permission denied", "/runs/7/a"), "denied. Take another folder"),
        (
            PermissionError(errno.EACCES, "Permission denied", "/data/meta.csv"),
            "/data/meta.csv: Permission denied. Check the permissions of the file",
        ),
        (PermissionError(errno.EPERM, "Operation not permitted", b"/data/x.jpg"), "/data/x.jpg: Operation"),
        (
            RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: Success (0)"),
            "data.num_workers=0), or give a container more: docker run --shm-size=8g",
        ),
        (
            RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that "
                         "dataloader's workers are out of shared memory."),
            "--shm-size",
        ),
        (
            RuntimeError("unable to open shared memory object </torch_1>: Too many open files"),
            "ulimit -n",
        ),
    ],
)  # fmt: skip
def test_told(error: Exception, says: str) -> None:
    assert says in str(told(error, Path("/runs/7")))


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOENT, "no such file"), RuntimeError("shape"), ValueError()]
)
def test_a_bug_is_left_alone(error: Exception) -> None:
    assert told(error, Path("/runs/7")) is None


def test_without_a_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(_: int) -> None:
        raise KeyError

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    with pytest.raises(RuntimeError) as caught:
        Path("~/.cache").expanduser()
    message = str(told(caught.value, Path()))
    assert all(name in message for name in ("HOME", "SKINSEG_CACHE=<folder>", "data.cache_dir=<folder>"))


class Full(TensorDataset):
    def __getitem__(self, row: int) -> object:
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: Success (0)")


def test_loader_processes_without_room_for_what_they_hand_over() -> None:
    loader = LateDataLoader(
        Full(torch.zeros(4)), num_workers=1, persistent_workers=True, worker_init_fn=prepare_worker
    )
    with pytest.raises(SkinsegError, match="--shm-size"):
        next(iter(loader))


class FullLater(TensorDataset):
    def __getitem__(self, row: int) -> object:
        if row:
            raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: Success (0)")
        return super().__getitem__(row)


def test_loader_processes_do_not_outlive_a_run() -> None:
    """What a program has started beside the run stays."""
    other = Process(target=time.sleep, args=(60,), daemon=True)
    other.start()
    before = active_children()
    batches = iter(
        LateDataLoader(TensorDataset(torch.zeros(4)), num_workers=1, worker_init_fn=prepare_worker)
    )
    next(batches)
    assert len(active_children()) == len(before) + 1
    end_loader_processes(but=before)
    assert set(active_children()) == set(before)
    other.kill()


def test_loader_processes_of_another_loader_stay() -> None:
    """Such as those of the validation, which began after those of the training."""
    full, other = (
        LateDataLoader(data, num_workers=1, worker_init_fn=prepare_worker, prefetch_factor=1)
        for data in (FullLater(torch.zeros(4)), TensorDataset(torch.zeros(4)))
    )
    batches, others = iter(full), iter(other)
    next(batches)
    next(others)
    with pytest.raises(SkinsegError, match="--shm-size"):
        next(batches)
    assert len(list(others)) == 3


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_no_room_for_the_locks_of_loader_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("torch.multiprocessing.Queue", full)
    monkeypatch.setattr("multiprocessing.synchronize.SemLock.__init__", full)
    loader = LateDataLoader(TensorDataset(torch.zeros(4)), num_workers=1)
    with pytest.raises(SkinsegError, match="--shm-size"):
        next(iter(loader))
    gc.collect()  # torch's half-made iterator fails as it goes, which must not be in another test
