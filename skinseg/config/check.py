"""Whether every key of a configuration means something, and has a value that its constructor takes."""

from __future__ import annotations

import copy
import importlib.util
import logging
import sys
import typing
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import is_dataclass
from typing import Any

from skinseg.config.compose import for_none, options_of
from skinseg.config.rules import value_problems
from skinseg.config.schema import ADDED, OURS, Node, Plain, RootConfig, SearchConfig
from skinseg.config.signatures import NotInTableError, known_signature, listed_signature
from skinseg.config.targets import (
    HYDRA_KEYS,
    KNOWN_LIBRARIES,
    Signature,
    TargetError,
    imported_signature,
)
from skinseg.config.typed import ValueTypeError, typed
from skinseg.errors import ConfigurationError
from skinseg.nearest import nearest

log = logging.getLogger(__name__)


class Changes(dict[str, Any]):
    """Keys that take the place of those of a node which the configuration does not name itself."""


# Hydra logs what it raises, beside the message that is made of it.
logging.getLogger("hydra.utils").addFilter(lambda _: False)


def check(config: Plain, schema: type = RootConfig) -> Plain:
    """Compares a resolved configuration with the constructors that it names.

    A key that no constructor takes would be a setting that silently does nothing. All problems are
    reported at once: unknown keys with the nearest known one, values of the wrong type, missing arguments,
    targets that cannot be imported.

    The table of signatures is looked at first. If it shows a problem, and has all of the constructors,
    nothing is imported; a configuration without a problem is checked against what is imported.

    Args:
        config: What `plain` returned.
        schema: A dataclass with a field for each key at the root. Fields of type `Node` (or `Node | None`,
            or `Node | Changes | None`) hold a constructor, `dict[str, Node | None] | None` constructors by
            name, another dataclass a group of plain values, others a plain value.

    Returns:
        The configuration, with a number or a truth value for each text that was given in place of one; see
        `skinseg.config.typed`.

    Raises:
        ConfigurationError: There is a problem.
    """
    # Where PyTorch is there, the rest is imported at once.
    problems = [] if "torch" in sys.modules else problems_without_import(config, schema)
    checked = copy.deepcopy(config)
    problems = problems or list(_problems(checked, schema, imported_signature))
    if problems:
        raise ConfigurationError(problems)
    return checked


def check_changes(path: str, changes: Plain, target: str) -> Plain:
    """Compares changes of a node that is read later with the types of its constructor's arguments.

    Args:
        path: The key under which they stand.
        changes: Values by argument. Whether it has such an argument is left to whoever reads the node, and
            so is what lies within a node.
        target: Dotted path of the constructor.

    Returns:
        The changes, with numbers for texts as `check` returns them.

    Raises:
        ConfigurationError: A value is not of its type.
    """
    types, changed = known_signature(target).types, dict(changes)
    known = [key for key, value in changes.items() if key in types and not isinstance(value, dict)]
    problems = [
        problem for key in known for problem in _type_problem(f"{path}.{key}", changed, key, types[key])
    ]
    if problems:
        raise ConfigurationError(problems)
    return changed


def problems_without_import(config: Plain, schema: type = RootConfig) -> list[str]:
    """Finds what is wrong with a configuration without importing the constructors that it names.

    Args:
        config: As in `check`.
        schema: As in `check`.

    Returns:
        All problems that `check` finds; none where the table of signatures lacks a constructor.
    """
    try:
        return list(_problems(copy.deepcopy(config), schema, listed_signature))
    except NotInTableError as error:
        log.debug("Not to be told without an import: %s.", error)
        return []


def _problems(config: Plain, schema: type, signature: Callable[[str], Signature]) -> Iterator[str]:
    """Yields what is wrong with a configuration, and puts numbers where texts of them are."""
    types = typing.get_type_hints(schema)
    known = set(types)
    for key in sorted(config.keys() - known):
        yield _unknown_at_root(key, config, types, schema)
    for key in sorted(known - config.keys()):
        hint = f"; {for_none(key)}" if options_of(key) else ""
        yield f"{key}: missing; the root needs it{hint}."
    for key in sorted(known & config.keys()):
        value, kind = config[key], types[key]
        if kind == Node or (kind in (Node | None, Node | Changes | None) and value):
            if isinstance(value, dict) and "_target_" in value:
                yield from _node_problems(key, value, signature)
            elif kind == Node | Changes | None and isinstance(value, dict):
                continue  # whoever knows the node refuses what it does not take
            else:
                yield f"{key}: no _target_ (found {_shown(value)}); choose an option, e.g. {_options(key)}."
        elif kind == dict[str, Node | None] | None:
            yield from _collection_problems(key, value or {}, signature)
        elif kind == SearchConfig | None:
            if value is not None:
                yield from _search_problems(config)
        elif is_dataclass(kind):
            yield from _group_problems(key, value, typing.get_type_hints(kind))
        elif kind not in (Node | None, Node | Changes | None):
            yield from _type_problem(key, config, key, kind)
    yield from value_problems(config)


def _group_problems(
    key: str, values: object, types: Mapping[str, Any], others: Collection[str] = ()
) -> Iterator[str]:
    if not isinstance(values, dict):
        yield f"{key}={_shown(values)}: expected {', '.join(f'{key}.{name}' for name in types)}."
        return
    known = {f"{key}.{name}" for name in types}
    for name in sorted(values.keys() - types - set(others)):
        yield _unknown(f"{key}.{name}", known, where=key)
    for name, kind in types.items():
        if name not in values:
            yield f"{key}.{name}: missing; {key} needs it."
        else:
            yield from _type_problem(f"{key}.{name}", values, name, kind)


def _search_problems(config: Plain) -> Iterator[str]:
    if importlib.util.find_spec("optuna") is None:
        yield "search: Optuna is not installed; pip install 'skinseg[search]'"
        return
    from skinseg.sweep.space import BOUNDS, problems_of

    search = config["search"]
    types = typing.get_type_hints(SearchConfig)
    nodes = {name: types.pop(name) for name in ("sampler", "pruner")}
    problems = list(_group_problems("search", search, types, others=nodes))
    if not problems:
        for key, spec in search["space"].items():
            for name in spec.keys() & BOUNDS:
                problems += _type_problem(f"search.space.{key}.{name}", spec, name, BOUNDS[name])
    yield from problems
    if problems:
        return
    yield from problems_of(search["space"])
    where = search["storage"]
    if where is not None and "://" not in where and not where.endswith(".log"):
        yield (
            f"search.storage={where}: expected a path that ends in .log, or a URL such as "
            "sqlite:///search.db or postgresql://host/database."
        )
    if config.get("test") is True:
        yield (
            "test=true: a search chooses by validation and never scores the test subset; leave it out, and "
            "set test: false in a sweep of your own. The command in best.yaml scores what the search found."
        )
    if config.get("ckpt_path") is not None:
        yield f"ckpt_path={config['ckpt_path']}: each trial of a search starts anew; leave it out."
    found = {"batch_size": "data.batch_size", "lr": "optimizer.lr"}.get(str(config.get("find")))
    if found is not None and found in search["space"]:
        yield f"find={config['find']}: would replace {found}, which is searched; leave one of them out."
    for name, kind in nodes.items():
        node = search.get(name)
        if isinstance(node, dict) and "_target_" in node:
            # Optuna's decorators hide arguments from who reads the source; its import is a short one.
            yield from _node_problems(f"search.{name}", node, imported_signature)
        elif node or kind == Node or name not in search:
            found_there = f"={_shown(node)}: no _target_" if name in search else ": missing"
            yield f"search.{name}{found_there}; choose an option, e.g. {_options(name)}."


def _collection_problems(
    key: str, members: Mapping[str, Any], signature: Callable[[str], Signature]
) -> Iterator[str]:
    proper = [name for name, node in members.items() if isinstance(node, dict) and "_target_" in node]
    for name, node in members.items():
        if name in proper:
            yield from _node_problems(f"{key}.{name}", node, signature)
        elif node is not None:
            yield _unknown(f"{key}.{name}", {f"{key}.{other}" for other in proper}, where=key)


def _node_problems(path: str, node: Node, signature: Callable[[str], Signature]) -> Iterator[str]:
    target = node["_target_"]
    try:
        takes = signature(target)
    except TargetError as error:
        yield f"{path}._target_={target}: {error}{'' if str(error).endswith('?') else '.'}"
        return
    for key, value in node.items():
        if key in HYDRA_KEYS:
            continue
        if key in OURS.get(path, ()):
            yield f"{path}.{key}: set by skinseg itself; leave it out."
            continue
        if key not in takes.named:
            if takes.takes_any and target.split(".")[0] not in KNOWN_LIBRARIES:
                continue
            yield _unknown(f"{path}.{key}", {f"{path}.{name}" for name in takes.named}, where=target)
            continue
        yield from _strays(f"{path}.{key}", value)
        nested = list(_nested(f"{path}.{key}", value))
        for nested_path, child in nested:
            yield from _node_problems(nested_path, child, signature)
        if not nested and key in takes.types:
            yield from _type_problem(f"{path}.{key}", node, key, takes.types[key])
    if not node.get("_partial_", False):
        for name in sorted(takes.required - node.keys() - OURS.get(path, set())):
            yield f"{path}.{name}: missing; {target} needs it."


def _nested(path: str, value: object) -> Iterator[tuple[str, Node]]:
    """Yields the outermost nodes with a `_target_` within a value."""
    if isinstance(value, dict):
        if "_target_" in value:
            yield path, value
        else:
            for key, child in value.items():
                yield from _nested(f"{path}.{key}", child)
    elif isinstance(value, list):
        for index, child in enumerate(value):
            yield from _nested(f"{path}[{index}]", child)


def _strays(path: str, value: object) -> Iterator[str]:
    """Yields what is said of keys without a constructor among those with one: a misspelt transform."""
    if not isinstance(value, dict) or "_target_" in value:
        return
    proper = [name for name, child in value.items() if isinstance(child, dict) and "_target_" in child]
    for name, child in value.items():
        if proper and isinstance(child, dict) and not list(_nested("", child)):
            yield _unknown(f"{path}.{name}", {f"{path}.{other}" for other in proper}, where=path)


def _type_problem(path: str, values: Plain, key: str, annotation: Any) -> Iterator[str]:
    """Yields what is wrong with a value; else the value is made one of its type."""
    if isinstance(values[key], str) and not values[key].strip():
        return  # the rules say that it is empty
    try:
        values[key] = typed(values[key], annotation)
    except ValueTypeError as error:
        yield f"{path}={_shown(values[key])}: {error}."


def _shown(value: object) -> str:
    """Writes a value for a message; what is none as a configuration has it."""
    return "null" if value is None else repr(value)


def _unknown_at_root(key: str, config: Plain, types: Mapping[str, Any], schema: type) -> str:
    """Says what was meant by a key at the root: another one that takes the value, or one further down."""
    # With a + before it, a misspelt group is a key.
    groups = ADDED if schema is RootConfig else frozenset()
    value = config[key]
    near = nearest(key, types.keys() | groups, n=5)
    taking = [name for name in near if _takes(name, value, types)]
    wrong = [name for name in near if not _is_group(types.get(name, Node))]  # the value is a further mistake
    below = {path.rsplit(".", 1)[-1]: path for path in _paths(config, types, nodes=isinstance(value, dict))}
    there = [below[name] for name in nearest(key, below)]
    meant = [below[key]] if key in below else taking or wrong or there
    if meant:
        return f"{key}: unknown key of the root; did you mean {meant[0]}?"
    return f"{key}: unknown key of the root; known: {', '.join(sorted(types.keys() | groups))}."


def _takes(name: str, value: object, types: Mapping[str, Any]) -> bool:
    """Whether a key at the root can be given a value; a group is given the name of an option."""
    kind = types.get(name, Node)
    if _is_group(kind) or is_dataclass(kind):
        return isinstance(value, str | dict)
    return not any(_type_problem(name, {name: value}, name, kind))


def _paths(config: Mapping[str, Any], keys: Iterable[str], *, nodes: bool, above: str = "") -> Iterator[str]:
    """Yields the dotted keys below some keys: those of nodes, or those of plain values."""
    for key in keys:
        for name, value in config[key].items() if isinstance(config.get(key), dict) else ():
            if name in HYDRA_KEYS:
                continue
            if isinstance(value, dict) == nodes:
                yield f"{above}{key}.{name}"
            yield from _paths(config[key], [name], nodes=nodes, above=f"{above}{key}.")


def _is_group(kind: object) -> bool:
    return kind in (Node, Node | None, Node | Changes | None, dict[str, Node | None] | None)


def _unknown(key: str, known: Iterable[str], *, where: str) -> str:
    # Compared without the path, which is the same for all of them.
    *path, last = key.split(".")
    names = sorted(name.rsplit(".", 1)[-1] for name in known)
    near = nearest(last, names)
    if near:
        return f"{key}: unknown key of {where}; did you mean {'.'.join([*path, near[0]])}?"
    return f"{key}: unknown key of {where}; known: {', '.join(names) or 'none'}."


def _options(group: str) -> str:
    return ", ".join(options_of(group))
