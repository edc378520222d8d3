"""Nodes of a configuration to objects: their constructors are called with plain values.

Neither Hydra nor Lightning is imported for a network of a known library.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from skinseg.config.schema import Node
from skinseg.config.targets import (
    HYDRA_KEYS,
    KNOWN_LIBRARIES,
    TargetError,
    imported,
    imported_signature,
    reason_of_import,
)
from skinseg.errors import SkinsegError

# Arguments by which a network fetches weights.
_FETCHED = frozenset({"encoder_weights", "pretrained"})


# What constructors raise for arguments that they do not like.
REFUSALS: tuple[type[Exception], ...] = (TypeError, ValueError, KeyError, UserWarning, NotImplementedError)


def instance(key: str, node: Node, *, refusals: tuple[type[Exception], ...] = REFUSALS, **extra: Any) -> Any:
    """Calls a node's constructor with plain values, those of the nodes within it first.

    Texts are taken literally: nothing is filled in of what reads `${...}`, which composing has done before.

    Args:
        key: Where the node stands, for the message.
        node: With `_target_`. One out of a file has to be checked before; see `skinseg.build.trust`.
        refusals: What the constructor raises for arguments that it does not like.
        **extra: Further arguments, as they are. Of a partial there are none.

    Raises:
        SkinsegError: The constructor refused its arguments.
    """
    given = arguments(key, node)
    called = partial(constructor(key, node), *given.pop("_args_", ()), **given)
    if node.get("_partial_"):
        return called
    try:
        return called(**extra)
    except refusals as error:
        raise SkinsegError(f"{key}: {node['_target_']} refused its arguments: {_words(error)}") from error
    except ImportError as error:
        raise SkinsegError(
            f"{key}: {node['_target_']} needs what cannot be imported ({reason_of_import(error)}); fix that "
            "installation, or leave it out."
        ) from error


def constructor(key: str, node: Node) -> partial[Any]:
    """Returns a node's constructor, without its arguments.

    Args:
        key: Where the node stands, for the message.
        node: With `_target_`.

    Raises:
        SkinsegError: It cannot be imported, or is one of those by which a configuration would do harm.
    """
    target = node["_target_"]
    try:
        found = imported(target)
    except TargetError as error:
        raise SkinsegError(f"{key}._target_={target}: {error}.") from error
    if str(getattr(found, "__module__", None)).partition(".")[0] in KNOWN_LIBRARIES:
        return partial(found)
    return _judged_by_hydra(key, target)


def _judged_by_hydra(key: str, target: str) -> partial[Any]:
    """Returns a constructor that Hydra's policy for instantiation admits, now and when it is called."""
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    try:
        found: partial[Any] = instantiate({"_target_": target, "_partial_": True})
    except InstantiationException as error:
        raise SkinsegError(f"{key}._target_={target}: {str(error).splitlines()[0]}") from error
    return found


def arguments(key: str, node: Node) -> dict[str, Any]:
    """Returns what a node's constructor is to be given, the nodes within it built."""
    own = {name: value for name, value in node.items() if name not in HYDRA_KEYS}
    if not node.get("_recursive_", True):
        return own
    return {name: _built(f"{key}.{name}", value) for name, value in own.items()}


def _built(key: str, value: Any) -> Any:
    if isinstance(value, dict):
        if "_target_" in value:
            return instance(key, value)
        return {name: _built(f"{key}.{name}", child) for name, child in value.items()}
    if isinstance(value, list):
        return [_built(f"{key}[{index}]", child) for index, child in enumerate(value)]
    return value


def _words(error: BaseException) -> str:
    """Returns what an error says, in one line where albumentations' validation wrote it."""
    lines = [line.strip() for line in str(error).splitlines()]
    if not lines or "validation error" not in lines[0]:
        return str(error)
    fields = zip(lines[1::3], lines[2::3], strict=False)
    return "; ".join(f"{field}: {said.partition(' [type=')[0]}" for field, said in fields)


def without_weights(value: Any) -> Any:
    """Returns a node that fetches no weights, nor do those within it."""
    if isinstance(value, list):
        return [without_weights(child) for child in value]
    if not isinstance(value, dict):
        return value
    named = set(value)
    if "_target_" in value:  # without a word of it some constructors would fetch a set
        named |= imported_signature(value["_target_"]).named
    children = {key: without_weights(child) for key, child in value.items()}
    return {**children, **dict.fromkeys(_FETCHED & named)}
