"""Words that can be pasted: values as OmegaConf, Hydra's command line and a shell take them literally."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from typing import Any

# What Hydra takes for a text without quotes, a path among others.
_BARE = re.compile(r"(?:\.{1,2}/|[A-Za-z_/])[A-Za-z0-9_./-]*")
_OTHERWISE_READ = ("null", "true", "false", "nan", "inf")
# What a shell looks for within double quotes.
_SPECIAL = frozenset('"$`\\!\n')


def literal(value: Any) -> Any:
    """Returns plain values in the way in which OmegaConf takes every text for itself.

    Of a configuration that is resolved, or was read from a file, a `${...}` is no longer meant to be filled
    in; it would fetch environment variables of whoever reads it.

    Args:
        value: A text, a number, or lists and dictionaries of them.
    """
    if isinstance(value, str):
        return re.sub(r"(\\*)\$\{", lambda found: f"{2 * found[1]}\\${{", value)
    if isinstance(value, dict):
        return {key: literal(child) for key, child in value.items()}
    return [literal(child) for child in value] if isinstance(value, list | tuple) else value


def override(key: str, value: Any) -> str:
    """Returns the override that sets a key, as Hydra reads it.

    Args:
        key: Dotted, or a group.
        value: Plain. Whatever is not a number, a truth value, None, a list or a mapping is taken as text,
            such as a path; all of it is meant as it stands.
    """
    return f"{key}={hydra_value(value)}"


def pasted(*words: str) -> str:
    """Returns words as a shell takes them, separated by blanks.

    Args:
        words: Such as what `override` returns.
    """
    return " ".join(map(_quoted, words))


def command_line(module: str, *words: str, python: str = "python") -> str:
    """Returns a command that can be pasted into a shell.

    Args:
        module: What Python is to run, such as "skinseg.evaluate".
        words: Its arguments, such as what `override` returns.
        python: The interpreter; that of the environment which is active, unless it is named.
    """
    return pasted(python, "-m", module, *words)


def _quoted(word: str) -> str:
    """Quotes a word for a shell, in double quotes where that leaves those of Hydra legible."""
    return f'"{word}"' if "'" in word and not _SPECIAL & set(word) else shlex.quote(word)


def hydra_value(value: Any) -> str:
    """Writes a value as the command line takes it."""
    if isinstance(value, list | tuple):
        return f"[{','.join(map(hydra_value, value))}]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{hydra_value(child)}" for key, child in value.items()) + "}"
    if value is None or isinstance(value, bool | int | float):
        return json.dumps(value)
    text: str = literal(str(value))
    if _BARE.fullmatch(text) and text.lower() not in _OTHERWISE_READ:
        return text
    # Backslashes count only before a quote.
    escaped = re.sub(r"(\\*)('|\Z)", lambda found: 2 * found[1] + ("\\'" if found[2] else ""), text)
    return f"'{escaped}'"
