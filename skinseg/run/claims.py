"""Output folders belong to one command at a time: to the first, until it ends in whatever way.

Searches are the exception: several may share a folder, which each has only while they agree on its study.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from skinseg.errors import SkinsegError

LOCK = ".running"
"""The file in a claimed folder on which its command holds a lock; the system frees it with the process."""

AGREE_S = 60.0
"""Seconds to wait for a folder of several searches, which agree one after the other on whose study it is."""

# Whoever asks whether a folder is claimed holds its lock for a moment.
_PATIENCE_S = 1.0

_claims: dict[Path, tuple[FileLock, list[Path]]] = {}
"""Of this process: by folder, links resolved: the lock, and the folders made for it, the innermost first."""


def claim(folder: Path, *, patience_s: float | None = None) -> None:
    """Makes a folder, where it is not there, and takes it for this process until `release` or its end.

    Args:
        folder: That a command writes. A folder that this process has stays as it is.
        patience_s: Seconds to wait for another process that has it. None: for one that only asks whether the
            folder is claimed.

    Raises:
        SkinsegError: Another process has it, or nothing can be written there.
    """
    if folder.resolve() not in _claims:
        with _told(folder):
            made = _missing(folder)
            folder.mkdir(parents=True, exist_ok=True)
            _lock(folder, made, patience_s)


def claim_new(folder: Path) -> Path:
    """Makes a folder that nobody has made before, and takes it for this process.

    Args:
        folder: What it is to be called; it gets a number where there is one of that name.

    Returns:
        The folder.

    Raises:
        SkinsegError: It cannot be made.
    """
    folder = folder.absolute()
    numbered = (folder.with_name(f"{folder.name}_{number}") for number in itertools.count(2))
    with _told(folder):
        for new in itertools.chain([folder], numbered):
            made = _missing(new)
            new.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError):
                new.mkdir()  # of several processes one makes it
                _lock(new, made)
                return new
    raise AssertionError


@contextmanager
def claimed(folder: Path, *, patience_s: float | None = None) -> Iterator[None]:
    """Takes a folder for the time of a block. See `claim`."""
    before = folder.resolve() in _claims
    claim(folder, patience_s=patience_s)
    try:
        yield
    finally:
        if not before:
            release(folder)


def release(folder: Path) -> None:
    """Gives a folder back, and removes it with those made for it where nothing has been written there."""
    if (held := _claims.pop(folder.resolve(), None)) is None:
        return
    lock, made = held
    with suppress(OSError):
        # While it is held: who waits for it finds that it has no name, and makes a new one.
        (folder / LOCK).unlink()
    lock.release()
    with suppress(OSError):  # something is in it
        for empty in made:
            empty.rmdir()


def release_all() -> None:
    """Gives back all folders that this process has."""
    for folder in list(_claims):
        release(folder)


def is_claimed(folder: Path) -> bool:
    """Returns whether a process, on whichever machine, has a folder."""
    if folder.resolve() in _claims:
        return True
    if not (folder / LOCK).is_file():
        return False
    try:
        with FileLock(folder / LOCK, timeout=0):
            return False
    except Timeout:
        return True


def _missing(folder: Path) -> list[Path]:
    return [place for place in (folder, *folder.parents) if not place.exists()]


def _lock(folder: Path, made: list[Path], patience_s: float | None = None) -> None:
    # A search releases the locks of its trials in other threads than that which has taken them.
    timeout = _PATIENCE_S if patience_s is None else patience_s
    lock = FileLock(folder / LOCK, timeout=timeout, thread_local=False)
    lock.acquire()
    _claims[folder.resolve()] = lock, made


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    try:
        yield
    except Timeout as error:
        raise SkinsegError(
            f"{folder}: another command is writing this folder. Wait until it has ended, stop it, or take "
            f"another folder; if none is running, remove {folder / LOCK}."
        ) from error
    except OSError as error:
        raise SkinsegError(
            f"{folder}: nothing can be written there ({error.strerror or error}); take another folder."
        ) from error
