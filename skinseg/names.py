"""Names of files as text: those whose bytes are none stay readable, those of others in one folder."""

from __future__ import annotations

import io
import re
import sys
from typing import Final

ESCAPED: Final = "backslashreplace"
r"""How an encoder writes what it has no letter for, such as a byte in a name that is no UTF-8: `\udce9`."""


def shown(text: str) -> str:
    """Returns a text that every table, page and archive takes, the same for the same name.

    Args:
        text: Perhaps with a part of a path whose bytes are no UTF-8.
    """
    return text.encode("utf-8", ESCAPED).decode("utf-8")


def folder_name(text: str) -> str:
    """Returns what somebody else has called something as the name of a single folder.

    Args:
        text: Out of a file or from a server; it does not say where on this disk anything is put.
    """
    return re.sub(r"^\.|[^\w.= -]", "_", text) or "_"


def escape_output() -> None:
    """Lets this process print any name, whatever letters the terminal or the file behind it knows."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a notebook's stream takes all letters
            stream.reconfigure(errors=ESCAPED)


_WEIGHTS = (".safetensors", ".pth", ".pt", ".bin")


def is_path(weights: str) -> bool:
    """Whether `model.encoder_weights` names a file, and not a set of weights that a library knows."""
    return "/" in weights or "\\" in weights or weights.endswith(_WEIGHTS)
