"""Why Hydra has refused a command line, in words of the configuration."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from hydra.conf import HydraConf
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import OverrideType
from hydra.errors import MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from skinseg.config.check import check, problems_without_import
from skinseg.config.compose import compose, config_dir, for_none, missing_keys, options_of, plain
from skinseg.config.internals import option_parser
from skinseg.config.schema import ADDED, RootConfig
from skinseg.errors import ConfigurationError, SkinsegError
from skinseg.nearest import nearest
from skinseg.quoting import override, pasted

_PLUGINS = {
    "joblib": "joblib",
    "submitit_local": "submitit",
    "submitit_slurm": "submitit",
    "ray": "ray",
    "ray_aws": "ray",
}
"""The extra of skinseg that brings a launcher of Hydra."""


def explain(
    error: Exception, arguments: Sequence[str], name: str = "train", schema: type = RootConfig
) -> list[str]:
    """Says what is wrong with a command line that Hydra refused.

    Hydra stops at the first key or option that it does not know and names no near one; here all of them are
    named, with what `check` has to say of the rest.

    Args:
        error: Hydra's.
        arguments: The command line.
        name: As in `Command`.
        schema: As in `Command`.

    Returns:
        A sentence for each problem; what only Hydra can tell in its own words.
    """
    problems: list[str] = []
    try:
        for overrides in _jobs(_overrides(arguments)):
            found = _problems_of(overrides, name, schema)
            problems += [problem for problem in found if problem not in problems]
    except Exception:  # the command line is wrong in a way that only Hydra can tell
        pass
    if not problems and isinstance(error, MissingConfigException):
        problems = [_no_such_option(error, [])]
    if problems:
        return problems
    if isinstance(error, OverrideParseException):
        key, equals, value = str(error.override).partition("=")
        if not equals:
            needed = missing_keys(compose(_run_dir(schema), name))
            keys = ", ".join(sorted(field.name for field in fields(schema)))
            hint = f"such as {pasted(override(needed[0], key))}" if needed else f"with one of the keys {keys}"
            return [f"The word {key!r} has no key; expected <key>=<value>, {hint}"]
        example = pasted(override(key, value))
        return [
            f"The word {error.override!r} cannot be read as <key>=<value>. A value with a space, a comma, = "
            f"or a letter such as ü stands in quotes within quotes, such as {example}"
        ]
    group, twice, _ = str(error).partition(" appears more than once in the final defaults list")
    if twice:
        added = [word for word in arguments if word.startswith(f"+{group}=")]
        return [f"{word}: there is one already; did you mean {pasted(word[1:])}?" for word in added]
    cause = f"\n{error.__cause__}" if isinstance(error.__cause__, OmegaConfBaseException) else ""
    return [f"{error}{cause}"]


def _run_dir(schema: type) -> list[str]:
    """Returns an override of the run folder, where there is one; only a command knows its own."""
    return ["run_dir=."] if "run_dir" in {field.name for field in fields(schema)} else []


def _problems_of(overrides: list[str], name: str, schema: type) -> list[str]:
    """Finds what is wrong with the overrides of one job; Hydra's own errors leave it."""
    problems, overrides, deleted = _readable(overrides, schema)
    try:
        while True:
            try:
                cfg = compose([*map(_forced, overrides), *_run_dir(schema)], name)
                problems += (problem for key in deleted for problem in _delete(cfg, key))
                missing_values = missing_keys(cfg)
                for key in missing_values:
                    problems.append(f"{key}: missing; add {key}=<value>.")
                    OmegaConf.update(cfg, key, "")
                config = plain(cfg)
                if problems:  # reason enough; what only an import can tell has time
                    about = tuple(f"{key}{mark}" for key in missing_values for mark in ":= ")
                    found = problems_without_import(config, schema)
                    problems += [problem for problem in found if not problem.startswith(about)]
                else:
                    check(config, schema)
                break
            except MissingConfigException as missing:
                asking = [override for override in overrides if _asks_for(override, missing)]
                problems.append(_no_such_option(missing, asking))
                if not asking:  # a file asks for it
                    break
                overrides = [override for override in overrides if override not in asking]
    except ConfigurationError as refused:
        problems += refused.problems
    except SkinsegError as refused:
        problems.append(str(refused))
    return problems


def _readable(overrides: Sequence[str], schema: type) -> tuple[list[str], list[str], list[str]]:
    """Sorts out the overrides at which Hydra stops without a near one, of groups and of its own keys.

    Returns:
        What is wrong with them, the overrides that are left, and the keys that are to be deleted.
    """
    problems: list[str] = []
    left: list[str] = []
    deleted: list[str] = []
    composed = {field.name for field in fields(schema)} - ADDED
    for text in overrides:
        word = OverridesParser.create().parse_override(text)
        key = str(word.key_or_group)
        group, plain_value = (config_dir() / key).is_dir(), word.type == OverrideType.CHANGE
        if group and (word.is_delete() or (plain_value and word.value() is None)):
            problems.append(f"{text}: it needs an option; {for_none(key)}.")
        elif word.is_delete():
            deleted.append(key)
        elif group and key in ADDED and plain_value:
            problems.append(f"{text}: an option that is added; did you mean {pasted(f'+{text}')}?")
            left.append(f"+{text}")
        elif group and key in composed and (word.is_add() or word.is_force_add()):
            bare = text.lstrip("+")
            problems.append(f"{text}: there is one already; did you mean {pasted(bare)}?")
            left.append(bare)
        elif "/" in key and not group and (near := nearest(key, _groups())) and near[0] != key:
            problems.append(f"{key}: no such group; did you mean {near[0]}?")
        elif key.startswith("hydra.") and plain_value and (problem := _unknown_to_hydra(key)):
            problems.append(problem)
        else:
            left.append(text)
    return problems, left, deleted


def _groups() -> list[str]:
    own = (path.relative_to(config_dir()).as_posix() for path in config_dir().rglob("*") if path.is_dir())
    return [
        *own,
        "hydra/launcher",
        "hydra/sweeper",
        "hydra/output",
        "hydra/job_logging",
        "hydra/hydra_logging",
    ]


def _unknown_to_hydra(key: str) -> str | None:
    """Names the key of Hydra's own that was meant; None where it is known, or a plugin's."""
    node: Any = OmegaConf.structured(HydraConf)
    first, *parts = key.split(".")
    for place, part in enumerate(parts):
        if not isinstance(node, DictConfig) or not is_dataclass(OmegaConf.get_type(node)):
            return None
        known = sorted(map(str, node))  # those without a value, too
        if part not in known:
            near = nearest(part, known)
            meant = ".".join([first, *parts[:place], *near, *parts[place + 1 :]])
            hint = f"did you mean {meant}?" if near else f"known: {', '.join(known)}."
            return f"{key}: unknown key of {'.'.join([first, *parts[:place]])}; {hint}"
        node = None if OmegaConf.is_missing(node, part) else node[part]
    return None


def _delete(cfg: DictConfig, key: str) -> Iterator[str]:
    """Deletes a key as `~key` does, or says which one was meant."""
    node: Any = cfg
    parts = key.split(".")
    for place, part in enumerate(parts):
        if not isinstance(node, DictConfig) or part not in node:
            known = [] if not isinstance(node, DictConfig) else list(map(str, node))
            near = nearest(part, known)
            meant = ".".join([*parts[:place], *near, *parts[place + 1 :]])
            way = f"{meant}=none" if "none" in options_of(meant) else f"~{meant}"
            hint = f"did you mean {way}?" if near else f"known: {', '.join(sorted(known)) or 'none'}."
            yield f"~{key}: no such key; {hint}"
            return
        if place == len(parts) - 1:
            with open_dict(node):
                del node[part]
        else:
            node = node[part]


def _jobs(overrides: Sequence[str]) -> Iterator[list[str]]:
    """Yields overrides of single jobs, in which each value of a sweep occurs; of none, the overrides."""
    parser = OverridesParser.create()
    values: list[list[str]] = []
    for text in overrides:
        override = parser.parse_override(text)
        if override.is_discrete_sweep():
            key = override.get_key_element()
            values.append([f"{key}={value}" for value in override.sweep_string_iterator()])
        else:
            values.append([text])
    first = [choices[0] for choices in values]
    yield first
    for place, choices in enumerate(values):
        for value in choices[1:]:
            yield [*first[:place], value, *first[place + 1 :]]


def _overrides(arguments: Sequence[str]) -> list[str]:
    """Returns the overrides on a command line, with a `--config-dir` as the override that does the same."""
    parsed = option_parser().parse_args(list(arguments))
    overrides: list[str] = list(parsed.overrides)
    if parsed.config_dir is not None:
        place = Path(parsed.config_dir).absolute()
        overrides.append(override("hydra.searchpath", [f"file://{place}"]))
    return overrides


def _asks_for(argument: str, missing: MissingConfigException) -> bool:
    """Whether an override chooses the option that is missing."""
    override = OverridesParser.create().parse_override(argument)
    group, _, option = (missing.missing_cfg_file or "").rpartition("/")
    value = override.value()
    return override.key_or_group == group and option in (value if isinstance(value, list) else [value])


def _no_such_option(missing: MissingConfigException, asking: Sequence[str]) -> str:
    """Names the options of a group.

    Args:
        missing: Hydra's.
        asking: The overrides that ask for the one that is not there; empty where a file does.
    """
    group, _, option = (missing.missing_cfg_file or "").rpartition("/")
    if group == "hydra/launcher" and option in _PLUGINS:
        extra = _PLUGINS[option]
        return (
            f"hydra/launcher: this one needs {extra}, which is not installed: pip install 'skinseg[{extra}]'."
        )
    # Of a group of several Hydra gives none.
    there = missing.options or options_of(group)
    # Files named base are parts of options.
    options = sorted(name for name in there if not name.startswith("base"))
    near = nearest(option, options)
    known = f"known: {', '.join(options)}." if options else "there are no options of that name."
    hint = ""
    if near:
        known = known[0].upper() + known[1:]
        key, _, value = (asking or [f"{group}={option}"])[0].partition("=")
        meant = re.sub(rf"(?<![\w-]){re.escape(option)}(?![\w-])", near[0], value)
        hint = f"did you mean {pasted(f'{key}={meant}')}? "
    return f"{group}={option}: no such option; {hint}{known}"


def _forced(argument: str) -> str:
    """Returns an override that Hydra accepts for any key, known or not."""
    override = OverridesParser.create().parse_override(argument)
    group = (config_dir() / str(override.key_or_group)).is_dir()
    if str(override.key_or_group).startswith("hydra."):  # all are known, and a forced search path is not used
        return argument
    plain_value = override.is_delete() is False and not override.is_add() and not override.is_force_add()
    return f"++{argument}" if plain_value and not group else argument
