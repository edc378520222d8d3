"""What a machine may lack, and what is said then: disk, shared memory, a home folder."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from pathlib import Path

from skinseg.errors import SkinsegError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Numbers of errors of a disk, a quota or a file that is full."""

_FORBIDDEN = (errno.EACCES, errno.EPERM)
_NO_ROOM = 1 << 20  # bytes


def why(error: OSError) -> str:
    """Returns why a file cannot be written."""
    reason = error.strerror or str(error)
    return f"the disk is full ({reason})" if error.errno == errno.ENOSPC else reason


def check_folder(key: str, folder: Path) -> None:
    """Makes a folder that is to be written much later.

    Args:
        key: The config key that names it, for the message.
        folder: The folder to be made.

    Raises:
        SkinsegError: It cannot be made or not be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise SkinsegError(
            f"{key}: {folder} cannot be written: {why(error)}. Name another folder."
        ) from error


def told(error: BaseException, folder: Path) -> SkinsegError | None:
    """Returns a message for an error of the machine that nothing closer to it has told; None for any other.

    Args:
        error: What was raised.
        folder: That the command writes to.
    """
    if isinstance(error, OSError) and error.errno in (*FULL, errno.EROFS, *_FORBIDDEN):
        name = None if isinstance(error.filename, int) else error.filename  # a number of an open file
        where = Path(os.fsdecode(name)) if name else _full_place(folder)
        if error.errno in _FORBIDDEN and not where.absolute().is_relative_to(folder.absolute()):
            return SkinsegError(f"{where}: {why(error)}. Check the permissions of the file and its folders.")
        way_out = "Free space, or take" if error.errno in FULL else "Take"
        return SkinsegError(f"{where}: {why(error)}. {way_out} another folder (hydra.run.dir=<folder>).")
    if isinstance(error, RuntimeError) and "determine home directory" in str(error):
        return SkinsegError(
            "There is no home folder for a path that begins with ~: HOME is not set, and this user has none. "
            "Set HOME to a folder that can be written, or name one for the decoded images: "
            "SKINSEG_CACHE=<folder> or data.cache_dir=<folder>."
        )
    if isinstance(error, RuntimeError) and "shared memory" in str(error).lower():
        return no_shared_memory(error)
    return None


def no_shared_memory(error: BaseException) -> SkinsegError:
    """Returns the message for loader processes that cannot hand over what they have loaded."""
    if "Too many open files" in str(error):
        return SkinsegError(
            "The loader processes hold too many open files. Raise the limit (ulimit -n 65536), or set "
            "num_workers=0 (in training data.num_workers=0)."
        )
    place = Path("/dev/shm")
    size = f" ({shutil.disk_usage(place).total / 1e6:.1f} MB)" if place.is_dir() else ""
    return SkinsegError(
        f"Loader processes hand over images in {place}{size}, which is full. Set num_workers=0 (in training "
        "data.num_workers=0), or give a container more: docker run --shm-size=8g, or --ipc=host."
    )


def _full_place(folder: Path) -> Path:
    """Guesses which folder is meant by an error that names none."""
    places = [folder, Path.cwd(), Path(tempfile.gettempdir())]
    there = [next(path for path in (place, *place.parents) if path.exists()) for place in places]
    return next((path for path in there if shutil.disk_usage(path).free < _NO_ROOM), folder)
