"""Files are written whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skinseg.errors import SkinsegError
from skinseg.machine import FULL, why
from skinseg.names import ESCAPED
from skinseg.run.written import current

if TYPE_CHECKING:
    import pandas as pd


_NAME = (errno.ENAMETOOLONG, errno.EILSEQ)


class FileNameError(SkinsegError):
    """A file cannot be written for its name: too long, or of bytes that the file system takes for none."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a temporary name beside `path`, which takes its place when the block ends well.

    A failure leaves what was there before, and nothing half-written.

    Args:
        path: The file to write. Its folder is made.

    Yields:
        The name to write to.

    Raises:
        FileNameError: It cannot bear this name.
        SkinsegError: It cannot be written (full disk, no permission); the previous file is untouched.
    """
    # Without the file's name, which may be as long as a name can be.
    mark = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:8]
    temporary = path.with_name(f".{os.getpid()}-{mark}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
        if (call := current()) is not None:
            call.note(path)
    except OSError as error:
        if error.errno in _NAME:
            raise FileNameError(f"{path} cannot be written: {error.strerror}.") from error
        way_out = "free space or take another folder" if error.errno in FULL else "take another folder"
        raise SkinsegError(
            f"{path} cannot be written: {why(error)}. What was there before is untouched; {way_out}."
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes a text file as a whole or not at all. See `replacing`."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors=ESCAPED)


def write_json(path: Path, content: Any) -> None:
    """Writes JSON as a whole or not at all, a number that is none as null. See `replacing`."""
    write_text(path, json.dumps(_finite(content), indent=2, default=str, allow_nan=False) + "\n")


def _finite(content: Any) -> Any:
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    return [_finite(value) for value in content] if isinstance(content, (list, tuple)) else content


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Writes a table without its index, as a whole or not at all. See `replacing`."""
    with replacing(path) as temporary:
        table.to_csv(temporary, index=False, errors=ESCAPED)


def first_rank() -> bool:
    """Returns whether this process is the one that writes files; true where there is only one."""
    from lightning.pytorch.utilities import rank_zero_only

    return getattr(rank_zero_only, "rank", 0) == 0
