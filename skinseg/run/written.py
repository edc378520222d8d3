"""What a call of a command wrote into a folder, so that nothing of an earlier call stays beside it."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from skinseg.counting import counted
from skinseg.errors import SkinsegError
from skinseg.run.claims import claimed

RECORD = ".skinseg"
"""The file that lists what was written: a line of JSON for each, with the command and a digest."""

# Written before there was such a record, too.
_PAGES = ("evaluation.json", "comparison.json")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Call:
    """A command that is writing into a folder.

    Attributes:
        folder: The folder, with all below it.
        command: Its name.
    """

    folder: Path
    command: str

    def note(self, path: Path) -> None:
        """Adds a file that has been written to the record; one outside of the folder is not noted."""
        path = path.absolute()
        if not path.is_relative_to(self.folder):
            return
        line = {"command": self.command, "file": str(path.relative_to(self.folder)), "sha256": _digest(path)}
        # In one piece, for several processes may write masks at once.
        file = os.open(self.folder / RECORD, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            os.write(file, f"{json.dumps(line)}\n".encode())
        finally:
            os.close(file)


_current: ContextVar[Call | None] = ContextVar("call", default=None)


def current() -> Call | None:
    """Returns the call that this process writes for, None outside of `afresh`."""
    return _current.get()


def go_on(call: Call | None) -> None:
    """Lets a further process of a command note what it writes.

    Args:
        call: What `current` returned in the first one.
    """
    _current.set(call)


@contextmanager
def afresh(folder: Path, command: str, reads: Mapping[str, str | None] | None = None) -> Iterator[Call]:
    """Makes a folder describe this call alone: what an earlier one left goes, what this one writes is noted.

    Args:
        folder: That the command writes.
        command: Its name.
        reads: Files and folders that it will yet read, by config key.

    Yields:
        The call.

    Raises:
        SkinsegError: The folder is that of a training, another command is writing it, what is to be read
            would go, or something cannot be removed.
    """
    if (folder / "checkpoints").is_dir():
        raise SkinsegError(
            f"{folder} is the folder of a training or an ensemble (checkpoints/ is in it), whose record "
            f"{command} would replace in part; take another folder."
        )
    with claimed(folder):
        clear(folder, command, reads)
        call = Call(folder.absolute(), command)
        token = _current.set(call)
        try:
            yield call
        finally:
            _current.reset(token)


def clear(folder: Path, command: str, reads: Mapping[str, str | None] | None = None) -> None:
    """Removes what earlier calls of a command wrote into a folder, where it is still as they wrote it.

    A file that has been changed since is somebody's work, and stays; so does what no record lists.

    Args:
        folder: The folder.
        command: The command.
        reads: As in `afresh`.

    Raises:
        SkinsegError: What is to be read would go, or something cannot be removed.
    """
    folder = folder.absolute()
    of_command, others = _read(folder, command)
    if not of_command:
        return
    there = {path: digest for path, digest in of_command.items() if path.is_file()}
    _refuse_what_is_read(there, command, reads or {})
    try:
        changed = [path for path, digest in there.items() if _digest(path) != digest]
        for path in there.keys() - changed:
            path.unlink()
        above = {folder / part for path in there for part in path.relative_to(folder).parents} - {folder}
        for parent in sorted(above, reverse=True):
            if not any(parent.iterdir()):
                parent.rmdir()
        if others:
            (folder / RECORD).write_text("\n".join([*others, ""]), encoding="utf-8")
        else:
            (folder / RECORD).unlink()
    except OSError as error:
        raise SkinsegError(
            f"{folder}: what an earlier call of {command} wrote there cannot be removed "
            f"({error.strerror or error}); take another folder."
        ) from error
    if changed:
        wrote = f"that an earlier call of {command} wrote"
        log.warning(
            "%s: %s changed since and left there, e.g. %s.",
            folder, counted(len(changed), f"file {wrote} was", f"files {wrote} were"), changed[0].name,
        )  # fmt: skip


def written_before(folder: Path, command: str) -> list[Path]:
    """Returns the files that earlier calls of a command wrote into a folder and that are there, sorted."""
    return sorted(path for path in _read(folder.absolute(), command)[0] if path.is_file())


def written_by_any(folder: Path) -> list[Path]:
    """Returns files in a folder that tell it for one of evaluate, compare or another command, sorted."""
    listed = _read(folder.absolute(), None)[0]
    return sorted(
        path for path in {*listed, *(folder.absolute() / name for name in _PAGES)} if path.is_file()
    )


def written_in(folder: Path) -> list[Path]:
    """Returns the files in a folder, not below it, that the current call has written, sorted."""
    call = current()
    if call is None:
        return []
    folder = folder.absolute()
    return [path for path in written_before(call.folder, call.command) if path.parent == folder]


def _read(folder: Path, command: str | None) -> tuple[dict[Path, str], Sequence[str]]:
    """Returns what the record lists of a command, path to digest, and its lines of other commands.

    Args:
        folder: With the record.
        command: The command. None: any.
    """
    files: dict[Path, str] = {}
    others: list[str] = []
    try:
        lines = (folder / RECORD).read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return files, others
    except (OSError, ValueError) as error:
        raise SkinsegError(f"{folder / RECORD} cannot be read ({error}); take another folder.") from error
    for line in lines:
        try:
            entry = json.loads(line)
            path, by, digest = folder / entry["file"], entry["command"], entry["sha256"]
        except (ValueError, KeyError, TypeError):
            continue  # cut short by a kill: the file is not known to be ours
        if ".." in path.parts or not path.is_relative_to(folder):
            continue  # nothing that a call notes
        if command is None or by == command:
            files[path] = digest
        else:
            others.append(line)
    return files, others


def _refuse_what_is_read(there: Mapping[Path, str], command: str, reads: Mapping[str, str | None]) -> None:
    for key, name in reads.items():
        if name is None:
            continue
        source = Path(name).expanduser().resolve()
        if any(path.resolve().is_relative_to(source) for path in there):
            raise SkinsegError(
                f"{key}={name}: an earlier call of {command} wrote it into the folder that this one is to "
                "write, and it would go. Take another folder (hydra.run.dir=<folder>)."
            )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
