"""What all commands share: Hydra's entry point with one clear message for a user's mistake."""

from __future__ import annotations

import functools
import importlib
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, read_write
from omegaconf.errors import OmegaConfBaseException

from skinseg.config.check import check
from skinseg.config.compose import config_dir, incomplete, plain
from skinseg.config.explain import explain
from skinseg.config.internals import as_the_job_sees_it, hydra_config_kept, option_parser
from skinseg.config.schema import Plain
from skinseg.errors import ConfigurationError, SkinsegError
from skinseg.machine import told
from skinseg.names import escape_output
from skinseg.nearest import nearest
from skinseg.quoting import override, pasted
from skinseg.run.claims import AGREE_S, claim, claim_new, claimed, release_all

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

Hold = Literal["alone", "together", "not"]
"""How a command has its run folder: alone, together with others of its kind, or not as its own."""

_COMMANDS: dict[str, Command] = {}


class Command:
    """A command: what it takes, and the recipe that does it once all of that is known to be right.

    Args:
        name: Name of the command, whose configuration is `conf/<name>.yaml`.
        schema: Its root; see `check`.
        recipe: The module whose `run` does it, which is not imported before.
        checked: Returns a configuration with plain values as the recipe takes it, or raises SkinsegError.
            None: `check` alone.
        holds: Tells of a checked configuration how the command has its run folder.
        ends: Looks at the checked configuration and what the recipe has returned, and raises SkinsegError for
            an end that is not a success.
    """

    def __init__(
        self,
        name: str,
        schema: type,
        recipe: str,
        *,
        checked: Callable[[Plain], Plain] | None = None,
        holds: Callable[[Plain], Hold] = lambda _: "alone",
        ends: Callable[[Plain, Any], None] = lambda _, __: None,
    ) -> None:
        self.name, self.schema, self.recipe, self.holds, self.ends = name, schema, recipe, holds, ends
        self.checked = checked or functools.partial(check, schema=schema)
        _COMMANDS[name] = self

    def run(self, cfg: DictConfig) -> Any:
        """Does what the command is for, in this process.

        Args:
            cfg: The composed configuration; see the command's schema.

        Returns:
            What the recipe returns.

        Raises:
            SkinsegError: A mistake in the configuration, or what the recipe says.
        """
        return self.do(self.checked(plain(cfg)))

    def do(self, config: Plain) -> Any:
        """Calls the recipe with a checked configuration."""
        return importlib.import_module(self.recipe).run(config)

    def task(self, cfg: DictConfig) -> Any:
        """Runs within Hydra, which would announce a raised SkinsegError in its own words."""
        try:
            config = self.checked(plain(cfg))
            found = self.do(config)
            self.ends(config, found)
        except SkinsegError as error:
            end_with_message(error)
        return found

    def hydra_main(self) -> None:
        """Lets Hydra read the command line and run the task."""
        hydra.main(config_path=str(config_dir()), config_name=self.name, version_base="1.3")(self.task)()

    def main(self) -> int:
        """Runs the command line, with one clear message for a user's mistake; bugs keep their traceback.

        Returns:
            The exit code.
        """
        # Otherwise Hydra prints and exits by itself, and a mistake looks like a bug.
        os.environ.setdefault("HYDRA_FULL_ERROR", "1")
        logging.raiseExceptions = False  # a full disk would be told with a traceback for each line of the log
        escape_output()
        try:
            _refuse_options(sys.argv[1:])
            self.hydra_main()
        except SkinsegError as error:
            print(error, file=sys.stderr)
            return error.exit_code
        except (HydraException, OmegaConfBaseException, ValueError) as error:
            if not _raised_in_hydra(error):
                _keep_in_log(traceback.format_exc())
                raise
            problems = explain(error, sys.argv[1:], self.name, self.schema)
            print(ConfigurationError(problems), file=sys.stderr)
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


def _folder() -> Path:
    """Returns the run folder, the current one before there is one."""
    return Path(HydraConfig.get().runtime.output_dir if HydraConfig.initialized() else ".").absolute()


def _refuse_options(arguments: Sequence[str]) -> None:
    """Refuses options that are none of Hydra's, or that Hydra would run code for."""
    parser = option_parser()
    parsed, rest = parser.parse_known_args(list(arguments))
    known = [name for action in parser._actions for name in action.option_strings]
    problems = []
    for option in (word.partition("=")[0] for word in rest if word.startswith("-")):
        near = nearest(option, (name for name in known if name.startswith("--")))
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}."
        problems.append(f"{option}: no such option; {hint}")
    if rest and not problems:  # argparse takes the words up to the next option, and no more
        options = ", ".join(word for word in arguments if word.startswith("-"))
        problems.append(f"{pasted(*rest)}: the overrides stand together; write {options} before all of them.")
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
        command = _COMMANDS.get(name)
        if command is None:
            return
        with hydra_config_kept(), errors_as_ends():
            folder = output_folder(config, "run")
            own = command.checked(plain(as_the_job_sees_it(config, folder)))
            _take_folders(config, own, command.holds(own))


def _take_folders(config: DictConfig, own: Plain, hold: Hold) -> None:
    """Takes the folders that a command writes: Hydra's, and `run_dir` where that is another one.

    Args:
        config: What Hydra composed, with its own node.
        own: What the job sees of it.
        hold: How the command holds them.
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


def _raised_in_hydra(error: Exception) -> bool:
    """Returns whether Hydra refused the command line; it also does so with plain ValueErrors."""
    trace = error.__traceback__
    if trace is None:
        return False
    while trace.tb_next is not None:
        trace = trace.tb_next
    module = str(trace.tb_frame.f_globals.get("__name__", ""))
    return module.split(".")[0] in ("hydra", "omegaconf")
