"""Write the table of signatures anew.

python -m skinseg.config.list_signatures
"""

from __future__ import annotations

import json
import re
import types
import typing
from typing import Any

from skinseg.config import signatures
from skinseg.config.compose import config_dir
from skinseg.config.signatures import GENERIC, PLAIN, UNKNOWN, version_of
from skinseg.config.targets import KNOWN_LIBRARIES, Signature, imported, imported_signature


def entry_of(target: str, signature: Signature) -> dict[str, Any]:
    """Returns what the table is to hold of a target.

    Args:
        target: A name in `KNOWN_LIBRARIES`.
        signature: As an import shows it.
    """
    hints = signature.types
    # A target may be another name of what is declared elsewhere.
    home = str(getattr(imported(target), "__module__", target.rpartition(".")[0]))
    return {
        "home": home,
        "version": version_of(home),
        "named": {name: _written(hints[name]) if name in hints else None for name in sorted(signature.named)},
        "required": sorted(signature.required),
        "takes_any": signature.takes_any,
    }


def _written(annotation: Any) -> Any:
    """Writes a type as plain values: a word, or a list of a word and what it is of."""
    for word, plain in PLAIN.items():
        if annotation is plain or (word == "none" and annotation is types.NoneType):
            return word
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return ["literal", *parts]
    origin = typing.Union if origin is types.UnionType else origin
    for word, generic in GENERIC.items():
        if origin is generic and Ellipsis not in parts:
            return [word, *map(_written, parts)]
    return UNKNOWN


def main() -> None:
    """Writes the table of all targets of the configuration."""
    texts = (path.read_text(encoding="utf-8") for path in config_dir().rglob("*.yaml"))
    found = {target for text in texts for target in re.findall(r"(?m)^\s*_target_: (\S+)", text)}
    targets = sorted(target for target in found if target.split(".")[0] in KNOWN_LIBRARIES)
    lines = (
        f"{json.dumps(name)}: {json.dumps(entry_of(name, imported_signature(name)))}" for name in targets
    )
    signatures.TABLE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
