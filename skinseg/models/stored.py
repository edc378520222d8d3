"""Files that PyTorch wrote, read as data alone, with a reason a person can act on where that fails."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch


class NotReadableError(Exception):
    """A file is not read as tensors and plain values; the text is the reason, in a few words."""


def read_stored(path: Path) -> Any:
    """Reads what `torch.save` wrote: tensors and plain values, onto the CPU.

    PyTorch's own words advise to load a file without that limit, which would run whatever code is in it.

    Args:
        path: The file, which is there.

    Raises:
        NotReadableError: It cannot be read, is not one of PyTorch's, is damaged, or holds something else.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise NotReadableError(error.strerror or str(error)) from error
    except Exception as error:  # whatever the bytes of another kind of file make the unpickler raise
        raise NotReadableError(_reason(path, error)) from error


def _reason(path: Path, error: Exception) -> str:
    with path.open("rb") as file:
        start = file.read(4)
    if not start:
        return "it is empty"
    if start[:2] == b"PK":
        if not zipfile.is_zipfile(path):
            return "it is cut short"
        with zipfile.ZipFile(path) as archive:
            if not any(name.endswith("data.pkl") for name in archive.namelist()):
                return "it is a zip archive that PyTorch did not write"
    elif start[:1] != pickle.PROTO:
        return "it is a file of another kind"
    if isinstance(error, pickle.UnpicklingError):
        return "it holds something else than tensors and plain values, whose loading could run any code"
    return "it is damaged"
