"""What the constructors of the configuration take, from a table, so that a typo waits for no import.

Importing all that an experiment names (PyTorch, Lightning, albumentations, smp) takes ten times as long as
the rest of a check. `python -m skinseg.config.list_signatures` writes the table anew; what is not in it, or
was another version's, is left to the import.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
import typing
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from skinseg.config.targets import Signature, imported_signature

TABLE = Path(__file__).with_name("signatures.json")

# What can change a signature of skinseg: headers of classes and functions, and annotated fields.
_DECLARED = re.compile(r"^ *(?:class|def|@)[ \w](?:.*?\n)*?.*?:\n|^    \w+: .*\n", re.MULTILINE)
PLAIN: dict[str, Any] = {
    "bool": bool, "int": int, "float": float, "str": str, "none": None, "path": Path, "any": Any,
    "dict": dict,
}  # fmt: skip
GENERIC: dict[str, Any] = {
    "union": typing.Union, "tuple": tuple, "list": list, "dict of": dict, "sequence": Sequence,
    "iterable": Iterable, "mapping": Mapping,
}  # fmt: skip


class NotInTableError(Exception):
    """Only an import can tell what a target takes."""


UNKNOWN = "?"


class Unknown:
    """A type that the table has no word for."""


def listed_signature(target: str) -> Signature:
    """Looks a target's signature up; nothing of it is imported.

    Args:
        target: Dotted path of a class or function, as in `_target_`.

    Raises:
        NotInTableError: It is not in the table, or was another one when the table was written.
    """
    entry = _table().get(target)
    if entry is None or entry["version"] != version_of(entry["home"]):
        raise NotInTableError(target)
    return Signature(
        named=frozenset(entry["named"]),
        required=frozenset(entry["required"]),
        takes_any=entry["takes_any"],
        types={name: _type(written) for name, written in entry["named"].items() if written is not None},
    )


@functools.cache
def _table() -> dict[str, Any]:
    entries: dict[str, Any] = json.loads(TABLE.read_text(encoding="utf-8"))
    return entries


@functools.cache
def version_of(module: str) -> str | None:
    """Returns the version of a module's package, of one of skinseg the digest of what it declares.

    Args:
        module: Dotted path.
    """
    package, *rest = module.split(".")
    if package != "skinseg":
        try:
            return metadata.version(package.replace("_", "-"))
        except metadata.PackageNotFoundError:
            return None
    path = Path(__file__).parents[1].joinpath(*rest).with_suffix(".py")
    if not path.is_file():
        return None
    declared = "".join(_DECLARED.findall(path.read_text(encoding="utf-8")))
    return hashlib.sha256(declared.encode()).hexdigest()[:12]


def _type(written: Any) -> Any:
    """Makes the type that the table has in plain values."""
    if isinstance(written, str):
        return Unknown if written == UNKNOWN else PLAIN[written]
    word, *parts = written
    if word == "literal":
        return typing.Literal[tuple(parts)]
    return GENERIC[word][tuple(map(_type, parts))]


def known_signature(target: str) -> Signature:
    """Returns a target's signature from the table, else from an import; raises as `imported_signature`."""
    try:
        return listed_signature(target)
    except NotInTableError:
        return imported_signature(target)
