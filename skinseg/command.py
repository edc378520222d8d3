"""What all commands share: Hydra's entry point with one clear message for a user's mistake."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf.errors import OmegaConfBaseException

from skinseg.config import RootConfig, check, compose, config_dir, plain
from skinseg.errors import SkinsegError

# Set by torchrun, Slurm and Lightning for their ranks; a sweep's job starts its own.
_RANK_VARIABLES = (
    "RANK",
    "LOCAL_RANK",
    "GROUP_RANK",
    "NODE_RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
)


def main_of(task: Callable[[], Any], name: str = "train", schema: type = RootConfig) -> Callable[[], int]:
    """Wraps a Hydra entry point so that a user's mistake is a message and an exit code.

    Args:
        task: A function decorated with `hydra.main`.
        name: The command, whose configuration is `conf/<name>.yaml`.
        schema: Its root. See `config.check`.

    Returns:
        A function that runs it and returns the exit code. Bugs keep their traceback.
    """

    def main() -> int:
        # Otherwise Hydra prints and exits by itself, and a mistake looks like a bug.
        os.environ.setdefault("HYDRA_FULL_ERROR", "1")
        try:
            task()
        except SkinsegError as error:
            print(error, file=sys.stderr)
            return error.exit_code
        except (HydraException, OmegaConfBaseException, ValueError) as error:
            if not _raised_in_hydra(error):
                raise
            print(explain(error, sys.argv[1:], name, schema), file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print("Interrupted.", file=sys.stderr)
            return 130
        return 0

    return main


def end_with_message(error: SkinsegError) -> NoReturn:
    """Ends the process from within a Hydra job; Hydra would announce a raised error in its own words."""
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)


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
) -> str:
    """Says what is wrong with a command line that Hydra refused.

    Hydra stops at the first key that it does not know and names no near one; `check` names all of them.

    Args:
        error: Hydra's.
        arguments: The command line.
        name: As in `main_of`.
        schema: Likewise.

    Returns:
        A message.
    """
    try:
        forced = [_forced(argument) for argument in arguments if not argument.startswith("-")]
        # Only a command knows its run folder.
        folder = ["run_dir=."] if "run_dir" in {field.name for field in fields(schema)} else []
        check(plain(compose([*forced, *folder], name)), schema)
    except SkinsegError as problems:
        return str(problems)
    except Exception:  # the command line is wrong in a way that only Hydra can tell
        pass
    cause = f"\n{error.__cause__}" if isinstance(error.__cause__, OmegaConfBaseException) else ""
    return f"{error}{cause}"


def _forced(argument: str) -> str:
    """Returns an override that Hydra accepts for any key, known or not."""
    override = OverridesParser.create().parse_override(argument)
    group = (config_dir() / str(override.key_or_group)).is_dir()
    plain_value = override.is_delete() is False and not override.is_add() and not override.is_force_add()
    return f"++{argument}" if plain_value and not group else argument


def run_in_child(module: str) -> float | None:
    """Runs a job of a multirun as a process of its own.

    Ranks, W&B runs and crashes of the jobs stay apart that way: Lightning would start the ranks of a job
    with the command line of the whole sweep.

    Args:
        module: The command, e.g. "skinseg.train".

    Returns:
        The job's objective. None if this is no multirun, and nothing was done.

    Raises:
        SkinsegError: The job failed; its own message is above this one.
    """
    hydra = HydraConfig.get()
    if hydra.mode != RunMode.MULTIRUN:
        return None
    folder = Path(hydra.runtime.output_dir)
    sources = [
        f"--config-dir={source.path}"
        for source in hydra.runtime.config_sources
        if source.provider == "command-line"
    ]
    searchpath = [o for o in hydra.overrides.hydra if o.lstrip("+").startswith("hydra.searchpath=")]
    quoted = str(folder).replace("\\", "\\\\").replace("'", "\\'")
    overrides = [*hydra.overrides.task, *searchpath, f"hydra.run.dir='{quoted}'"]
    command = [sys.executable, "-m", module, *sources, *overrides]
    environment = {key: value for key, value in os.environ.items() if key not in _RANK_VARIABLES}
    with subprocess.Popen(command, env=environment, cwd=hydra.runtime.cwd) as job:
        try:
            code = job.wait()
        except KeyboardInterrupt:
            # The job has got the signal too; it saves and says how to resume.
            job.wait()
            raise
    if code:
        raise SkinsegError(
            f"Job {hydra.job.num} ({hydra.job.override_dirname}) ended with exit code {code}; see {folder}."
        )
    objective = json.loads((folder / "summary.json").read_text())["objective"]["value"]
    return float(objective)
