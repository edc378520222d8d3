"""Sweeps by Hydra's multirun: planned before the first job, each job a process, a comparison at the end."""

from __future__ import annotations

import copy
import logging
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from skinseg.build.trust import trusted
from skinseg.config.check import check
from skinseg.config.command import (
    errors_as_ends,
    output_folder,
    take_output,
)
from skinseg.config.compose import plain
from skinseg.config.internals import GRID, IN_TURN
from skinseg.counting import counted
from skinseg.errors import InterruptedRunError, SkinsegError
from skinseg.run.writing import write_json
from skinseg.sweep import results
from skinseg.sweep.child import run_in_child
from skinseg.sweep.gpus import visible_gpus
from skinseg.sweep.jobs import (
    FAILED,
    JOB,
    Job,
    Plan,
    fingerprint,
    result_of,
    state_of,
)
from skinseg.sweep.plan import _refuse_other, named, plan_grid
from skinseg.sweep.stop import is_stopping, stop_at_interrupt

log = logging.getLogger(__name__)

# What raises the errors of launchers.
_LAUNCHERS = ("joblib", "submitit", "ray")

# For options of hydra/launcher.
OmegaConf.register_new_resolver(
    "skinseg.gpus", lambda without: len(visible_gpus()) or without, replace=True, use_cache=True
)

_planned: list[Plan] = []
"""The sweep of this process, if it has one."""
_paced: list[Job] = []
"""The training after which the sweep has said how long the others take."""


class PlanSweep(Callback):
    """Checks and writes down all jobs before the first one starts; `hydra.callbacks` names it."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Ends the process with a message if any job would be refused.

        Args:
            config: What Hydra composed, with its own node, without the swept keys.
            **kwargs: `config_name`: the command.
        """
        with errors_as_ends():
            if config.get("search") is not None:
                raise SkinsegError("search and --multirun: a search makes its own trials; give one of them.")
            take_output(config, "sweep")
            if config.hydra.launcher._target_ != IN_TURN:
                stop_at_interrupt(output_folder(config, "sweep"))
            if config.hydra.sweeper._target_ == GRID:  # another one makes its jobs up as it goes
                plan = plan_grid(config)
                for job in plan.jobs:
                    job.write()
                plan.write()
                _planned.append(plan)
                print(_announcement(plan), flush=True)
                if not _to_run(plan):  # Hydra would say that it launches them
                    logging.getLogger(IN_TURN.rpartition(".")[0]).setLevel(logging.WARNING)


def _announcement(plan: Plan) -> str:
    """Says how much a sweep is about to do."""
    left = len(_to_run(plan))
    done = len(plan.jobs) - left
    if not left:
        return f"Nothing to train, {counted(done, 'training')} done before; in {plan.folder}."
    what = counted(left, "training") + (f", {done} done before" if done else "")
    return f"The sweep starts: {what}; in {plan.folder}."


def _to_run(plan: Plan) -> list[Job]:
    return [job for job in plan.jobs if job.action != "skip"]


def _say_pace(job: Job, seconds: float) -> None:
    """Says after the first whole training how long those that are left take at its pace."""
    trainings = [other.folder for plan in _planned for other in _to_run(plan)]
    if _paced or job.action != "start" or job.folder not in trainings:
        return
    _paced.append(job)
    left = len(trainings) - trainings.index(job.folder) - 1
    if left:
        others = f"the other {left} take" if left > 1 else "the other one takes"
        print(
            f"The first training took {_time(seconds)}; at its pace {others} {_time(left * seconds)}.",
            flush=True,
        )


def _time(seconds: float) -> str:
    """Writes a duration with about two digits."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def run_job(cfg: DictConfig) -> float | None:
    """Runs a job of a multirun as a process of its own.

    Ranks, W&B runs and crashes of the jobs stay apart that way: Lightning would start the ranks of a job
    with the command line of the whole sweep.

    Args:
        cfg: What Hydra composed; what was planned counts.

    Returns:
        The job's objective. None if this is no multirun, and nothing was done.

    Raises:
        SkinsegError: The job failed.
    """
    hydra = HydraConfig.get()
    if hydra.mode != RunMode.MULTIRUN:
        return None
    folder = Path(hydra.runtime.output_dir)
    sweep = Path(hydra.sweep.dir).absolute()
    alone = hydra.launcher._target_ == IN_TURN
    if not alone and is_stopping(sweep):  # one that was stopped may go on in turn
        raise SkinsegError("Not started: the sweep was stopped.")
    job = _job_of(cfg, folder)
    if job.action == "skip":
        # Not by the log, which would write into the folder of the job that has finished.
        print(f"{job.label} has finished before, in {job.earlier}.", flush=True)
        return _objective(job)
    started = time.monotonic()
    code = run_in_child(
        job, cwd=hydra.runtime.cwd, alone=alone, trust=trusted(plain(cfg)), sweep=None if alone else sweep
    )
    if alone and not code:
        _say_pace(job, time.monotonic() - started)
    if code:
        if code != InterruptedRunError.exit_code and not (folder / FAILED).is_file():
            reason = f"killed by signal {-code}." if code < 0 else f"ended with exit code {code}."
            write_json(folder / FAILED, {"exit_code": code, "error": reason})
        raise SkinsegError(f"{job.label} failed; see {folder}.")
    return _objective(job)


def _job_of(cfg: DictConfig, folder: Path) -> Job:
    """Returns the job that is asked for: as planned, or as a sweeper other than the grid has made it up.

    Raises:
        SkinsegError: Its folder is of another one, or of one that cannot be read.
    """
    hydra = HydraConfig.get()
    there = Job.read(folder) if (folder / JOB).is_file() else None
    # As planned: read in the usual way, a ${...} would be filled in.
    words: Any = OmegaConf.to_container(hydra.overrides.task, resolve=False)
    if there is not None and hydra.sweeper._target_ == GRID:
        # By what it was asked for with: its configuration may be another one on another machine.
        if list(there.overrides) != words:
            raise SkinsegError(f"{folder} is that of {there.label}, and not of {' '.join(words)}.")
        return there
    sweep = Path(hydra.sweep.dir).absolute()
    config = check(named(copy.deepcopy(cfg), words, f"{cfg.name}_{sweep.name}"))
    job = Job(int(hydra.job.num), words, words, folder, fingerprint(config), "start", None, config)
    if there is not None:
        _refuse_other(there, job)
        return there
    job.write()
    return job


def _objective(job: Job) -> float:
    result = result_of(job.scores)
    if result is None:
        raise SkinsegError(f"{job.label} has left no summary that can be read; see {job.scores}.")
    return math.nan if result["objective"] is None else float(result["objective"])


def conclude(task: Callable[[], Any]) -> None:
    """Runs a Hydra entry point; if it was a sweep, says how it ended and compares its jobs.

    Args:
        task: A function decorated with `hydra.main`.

    Raises:
        SkinsegError: Jobs failed; all are named, each with its reason.
    """
    try:
        task()
    except SkinsegError:
        if not _planned:
            raise
    except KeyboardInterrupt:
        for plan in _planned:
            plan.write()
            print(
                "The sweep was interrupted; to go on, run the same command with sweep.resume=true.",
                file=sys.stderr,
            )
        raise
    except Exception as error:
        if not _planned or type(error).__module__.split(".")[0] not in _LAUNCHERS:
            raise
        print(f"\nThe launcher has lost a job: {str(error).strip().splitlines()[0]}", file=sys.stderr)
    for plan in _planned:
        plan.write()
        states = [state_of(job) for job in plan.jobs]
        results.show(plan, states)
        results.compare_jobs(plan, states)
        results.name_failed(plan, states)
