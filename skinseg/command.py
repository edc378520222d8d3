"""What all commands share: Hydra's entry point with one clear message for a user's mistake."""

from __future__ import annotations

import copy
import functools
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import OverrideType
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from skinseg.claims import AGREE_S, claim, claim_new, claimed, release_all
from skinseg.config import (
    ADDED,
    ConfigurationError,
    Plain,
    RootConfig,
    check,
    compose,
    config_dir,
    for_none,
    incomplete,
    missing_keys,
    options_of,
    plain,
    problems_without_import,
)
from skinseg.errors import SkinsegError
from skinseg.machine import told
from skinseg.names import escape_output
from skinseg.nearest import nearest
from skinseg.quoting import override, pasted

# Set by torchrun, Slurm, MPI, LSF and Lightning for their ranks; a job starts its own.
RANK_VARIABLES = frozenset(
    {
        "RANK",
        "LOCAL_RANK",
        "GROUP_RANK",
        "NODE_RANK",
        "WORLD_SIZE",
        "LOCAL_WORLD_SIZE",
        "MASTER_ADDR",
        "MASTER_PORT",
        # Where it sees the first of them, Lightning takes a job for one of several that Slurm has started.
        "SLURM_NTASKS",
        "SLURM_NTASKS_PER_NODE",
        "SLURM_PROCID",
        "SLURM_LOCALID",
        "SLURM_NODEID",
        "OMPI_COMM_WORLD_RANK",
        "PMI_RANK",
        "PMIX_RANK",
        "JSM_NAMESPACE_RANK",
    }
)

_RANKS = ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK", "JSM_NAMESPACE_RANK")

_CHECKS: dict[str, Callable[[Plain], Plain]] = {}
"""What refuses a configuration, by command."""

Hold = Literal["alone", "together", "not"]
"""How a command has its run folder: alone, together with others of its kind, or not as its own."""

_HOLDS: dict[str, Callable[[Plain], Hold]] = {}
"""By command."""


_PLUGINS = {
    "joblib": "joblib",
    "submitit_local": "submitit",
    "submitit_slurm": "submitit",
    "ray": "ray",
    "ray_aws": "ray",
}
"""The extra of skinseg that brings a launcher of Hydra."""


def main_of(
    task: Callable[[], Any],
    name: str = "train",
    schema: type = RootConfig,
    checked: Callable[[Plain], Plain] | None = None,
    holds: Callable[[Plain], Hold] = lambda _: "alone",
) -> Callable[[], int]:
    """Wraps a Hydra entry point so that a user's mistake is a message and an exit code.

    Args:
        task: A function decorated with `hydra.main`.
        name: The command, whose configuration is `conf/<name>.yaml`.
        schema: Its root. See `config.check`.
        checked: Raises SkinsegError for a configuration that the command refuses. None: `config.check` alone.
        holds: Tells of a checked configuration how the command has its run folder.

    Returns:
        A function that runs it and returns the exit code. Bugs keep their traceback.
    """
    _CHECKS[name] = checked or functools.partial(check, schema=schema)
    _HOLDS[name] = holds

    def main() -> int:
        # Otherwise Hydra prints and exits by itself, and a mistake looks like a bug.
        os.environ.setdefault("HYDRA_FULL_ERROR", "1")
        logging.raiseExceptions = False  # a full disk would be told with a traceback for each line of the log
        escape_output()
        try:
            _refuse_options(sys.argv[1:])
            task()
        except SkinsegError as error:
            print(error, file=sys.stderr)
            return error.exit_code
        except (HydraException, OmegaConfBaseException, ValueError) as error:
            if not _raised_in_hydra(error):
                _keep_in_log(traceback.format_exc())
                raise
            print(ConfigurationError(explain(error, sys.argv[1:], name, schema)), file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print("Interrupted.", file=sys.stderr)
            return 130
        except Exception as error:
            if (said := told(error, _folder())) is not None:
                print(said, file=sys.stderr)
                return said.exit_code
            # A bug, raised as it is; its traceback is also for whoever finds the run folder.
            _keep_in_log(traceback.format_exc())
            raise
        finally:
            release_all()
        return 0

    return main


def _folder() -> Path:
    """Returns the run folder, the current one before there is one."""
    return Path(HydraConfig.get().runtime.output_dir if HydraConfig.initialized() else ".").absolute()


def _refuse_options(arguments: Sequence[str]) -> None:
    """Refuses options that are none of Hydra's, or that Hydra would run code for."""
    from hydra._internal.utils import get_args_parser

    parser = get_args_parser()
    parsed, rest = parser.parse_known_args(list(arguments))
    known = [name for action in parser._actions for name in action.option_strings]
    problems = []
    for option in (word.partition("=")[0] for word in rest if word.startswith("-")):
        near = nearest(option, (name for name in known if name.startswith("--")))
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}."
        problems.append(f"{option}: no such option; {hint}")
    if rest and not problems:  # argparse takes the words up to the next option, and no more
        options = ", ".join(word for word in arguments if word.startswith("-"))
        problems.append(f"{pasted(*rest)}: the words stand together; write {options} before all of them.")
    if problems:
        raise SkinsegError("\n".join(problems))
    if parsed.experimental_rerun is not None:
        raise SkinsegError(
            "--experimental-rerun unpickles a file, which runs whatever code is in it. A run is repeated by "
            "the command in its provenance.json."
        )


def end_with_message(error: SkinsegError) -> NoReturn:
    """Ends the process from within a Hydra job; Hydra would announce a raised error in its own words."""
    print(error, file=sys.stderr)
    _keep_in_log(str(error))
    sys.exit(error.exit_code)


def _keep_in_log(text: str) -> None:
    """Writes why a run ended into its folder, where Hydra has made one."""
    record = logging.LogRecord("skinseg", logging.ERROR, __file__, 0, "%s", (text,), None)
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handle(record)


@contextmanager
def errors_as_ends() -> Iterator[None]:
    """Ends the process at an error in a callback, of which Hydra would make a warning and go on."""
    try:
        yield
    except Exception as error:
        said = told(error, _folder())
        if isinstance(error, SkinsegError):
            said = error
        elif isinstance(error, (HydraException, OmegaConfBaseException)):
            said = incomplete(error)
        if said is None:
            traceback.print_exc()
            sys.exit(1)
        end_with_message(said)


class RefuseEarly(Callback):
    """Lets Hydra refuse a configuration or a folder before it writes there; `hydra.callbacks` names it."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Ends the process with a message if the command would refuse the configuration, or has no folder.

        Args:
            config: What Hydra composed, with its own node. The folder may get another name.
            **kwargs: `config_name`: the command.
        """
        name = kwargs.get("config_name") or ""
        checked = _CHECKS.get(name)
        if checked is None:
            return
        before = HydraConfig.instance().cfg
        try:
            with errors_as_ends():
                folder = output_folder(config, "run")
                own = checked(plain(as_the_job_sees_it(config, folder)))
                _take_folders(config, own, _HOLDS[name](own))
        finally:
            HydraConfig.instance().cfg = before


def _take_folders(config: DictConfig, own: Plain, hold: Hold) -> None:
    """Takes the folders that a command writes: Hydra's, and `run_dir` where that is another one.

    Args:
        config: What Hydra composed, with its own node.
        own: What the job sees of it.
        hold: How the command has them.
    """
    if hold == "not":
        with read_write(config.hydra):
            config.hydra.output_subdir = None  # another process has written it
        return
    folder, run_dir = output_folder(config, "run"), Path(str(own["run_dir"])).absolute()
    if hold == "together":
        for place in {folder, run_dir}:
            with claimed(place, patience_s=AGREE_S):
                pass
        return
    take_output(config, "run")
    if run_dir != folder:
        claim(run_dir)


def output_folder(config: DictConfig, mode: Literal["run", "sweep"]) -> Path:
    """Returns Hydra's output folder.

    Args:
        config: What Hydra composed, with its own node.
        mode: Which of its folders.

    Raises:
        SkinsegError: It has no name, which would be the current folder.
    """
    if not (named := str(config.hydra[mode].dir)).strip():
        raise SkinsegError(f"hydra.{mode}.dir is empty; name a folder, or leave it out.")
    return Path(named).absolute()


def take_output(config: DictConfig, mode: Literal["run", "sweep"]) -> None:
    """Takes Hydra's output folder for this process.

    One that is named by the time is meant to be new: where there is one of that name, of a command that was
    started in the same second, it gets another. One that the user has named is taken as it is, or refused.

    Args:
        config: What Hydra composed, with its own node. The folder may get another name.
        mode: Which of its folders.

    Raises:
        SkinsegError: Another command has it, or nothing can be written there.
    """
    node = config.hydra[mode]
    named: Any = OmegaConf.to_container(node, resolve=False)
    folder = output_folder(config, mode)
    if "${now:" not in named["dir"] or any(name in os.environ for name in _RANKS):
        claim(folder)  # the other processes of a training call it as this one does
    elif (new := claim_new(folder)) != folder:
        with read_write(config.hydra):
            node.dir = str(new)
            config.hydra.overrides.hydra.append(override(f"hydra.{mode}.dir", new))  # for a sweep's jobs


def as_the_job_sees_it(config: DictConfig, folder: Path) -> DictConfig:
    """Returns a copy without Hydra's node, and lets `${hydra:...}` find what it will find in the job.

    Args:
        config: What Hydra composed, with its own node. It becomes that of `HydraConfig`.
        folder: Of the job's run.
    """
    config = copy.deepcopy(config)
    with read_write(config), read_write(config.hydra.runtime), open_dict(config.hydra.runtime):
        config.hydra.runtime.output_dir = str(folder)
    HydraConfig.instance().set_config(config)
    own = copy.deepcopy(config)
    with read_write(own), open_dict(own):
        del own["hydra"]
    return own


def _raised_in_hydra(error: Exception) -> bool:
    """Returns whether Hydra refused the command line; it also does so with plain ValueErrors."""
    trace = error.__traceback__
    if trace is None:
        return False
    while trace.tb_next is not None:
        trace = trace.tb_next
    module = str(trace.tb_frame.f_globals.get("__name__", ""))
    return module.split(".")[0] in ("hydra", "omegaconf")


def explain(
    error: Exception, arguments: Sequence[str], name: str = "train", schema: type = RootConfig
) -> list[str]:
    """Says what is wrong with a command line that Hydra refused.

    Hydra stops at the first key or option that it does not know and names no near one; here all of them are
    named, with what `check` has to say of the rest.

    Args:
        error: Hydra's.
        arguments: The command line.
        name: As in `main_of`.
        schema: Likewise.

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
    """Sorts out the words at which Hydra stops without a near one, of groups and of its own keys.

    Returns:
        What is wrong with them, the words that are left, and the keys that are to be deleted.
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
    from hydra._internal.utils import get_args_parser  # the only one that knows Hydra's own options

    parsed = get_args_parser().parse_args(list(arguments))
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
