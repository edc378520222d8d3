"""What a `_target_` names: imported, and asked what it takes."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
import traceback
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from skinseg.nearest import nearest

KNOWN_LIBRARIES = frozenset(
    {"skinseg", "segmentation_models_pytorch", "lightning", "albumentations", "torch"}
)
"""No other code gives their modules names; their `**kwargs` take no further setting that one would want."""


class TargetError(Exception):
    """A target is not there, or is nothing to call; the text says so."""


@dataclass(frozen=True)
class Signature:
    """What can be given to a constructor by name.

    Attributes:
        named: Its parameters.
        required: Those without a default.
        takes_any: It has `**kwargs`.
        types: Annotation by parameter, where it is known. From the table, an empty class stands for whatever
            is not plain; pydantic does not check a type that holds one.
    """

    named: frozenset[str]
    required: frozenset[str]
    takes_any: bool
    types: Mapping[str, Any] = field(compare=False)


HYDRA_KEYS = frozenset({"_target_", "_partial_", "_recursive_", "_convert_"})
"""Keys of a node that are no arguments of its constructor."""


_IMPORTERS = ("hydra", "importlib", "skinseg")


def imported(target: str) -> Any:
    """Imports what a target names.

    Args:
        target: Dotted path of a class or function, as in `_target_`.

    Raises:
        TargetError: It cannot be imported.
    """
    try:
        return _located(target)
    except Exception as error:  # whatever an import may raise belongs to the user's target
        raise TargetError(f"cannot be imported ({reason_of_import(error)}){_proposal(target)}") from error


def _proposal(target: str) -> str:
    """Returns a near name for the first part of a target that is not there, once its import was tried."""
    parts = target.split(".")
    depth = next((n for n in range(len(parts) - 1, 0, -1) if ".".join(parts[:n]) in sys.modules), 0)
    known: Iterable[str] = KNOWN_LIBRARIES
    if depth:
        module = sys.modules[".".join(parts[:depth])]
        submodules = pkgutil.iter_modules(getattr(module, "__path__", ()))
        known = {*vars(module), *(found.name for found in submodules)}
    near = nearest(parts[depth], known) if parts[depth] not in known else []
    return f"; did you mean {near[0]}?" if near else ""


def _located(target: str) -> Any:
    """Returns what a dotted path names; unlike `pkgutil.resolve_name`, with the reason why a module fails."""
    path, *names = target.split(".")
    found: Any = importlib.import_module(path)
    for name in names:
        path = f"{path}.{name}"
        try:
            found = getattr(found, name)
        except AttributeError as missing:
            if not isinstance(found, types.ModuleType):
                raise
            try:
                found = importlib.import_module(path)
            except ModuleNotFoundError as error:
                raise missing if error.name == path else error from None
    return found


def reason_of_import(error: BaseException) -> str:
    """Returns which module failed while a package that needs it was imported, and why.

    Args:
        error: What the import raised, which may be the last of several, each with another as its cause.
    """
    while error.__cause__ is not None:
        error = error.__cause__
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    modules = [str(frame.f_globals.get("__name__")) for frame in reversed(frames)]
    where = next((name for name in modules if name.split(".")[0] not in _IMPORTERS), None)
    reason = f"{type(error).__name__}: {first_line(error)}"
    return reason if where is None else f"in {where}: {reason}"


def imported_signature(target: str) -> Signature:
    """Imports a target and asks it for its signature.

    Args:
        target: Dotted path of a class or function, as in `_target_`.

    Raises:
        TargetError: It cannot be imported or not be called.
    """
    constructor = imported(target)
    try:
        parameters = inspect.signature(constructor).parameters
    except (TypeError, ValueError) as error:
        raise TargetError("not something that can be called") from error
    named = {
        name: parameter
        for name, parameter in parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }
    return Signature(
        named=frozenset(named),
        required=frozenset(name for name, p in named.items() if p.default is inspect.Parameter.empty),
        takes_any=any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()),
        types=_type_hints(constructor),
    )


def first_line(error: BaseException) -> str:
    """Returns the first line of what an error says, without a full stop; its kind where it says nothing."""
    return (str(error) or type(error).__name__).splitlines()[0].rstrip(".")


def _type_hints(constructor: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(constructor.__init__ if inspect.isclass(constructor) else constructor)
    except Exception:  # annotations of other libraries may name what is not importable here
        return {}
