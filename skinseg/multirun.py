"""Sweeps by Hydra's multirun: planned before the first job, each job a process, a comparison at the end."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import logging
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from hydra.conf import HydraConf
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from skinseg.build.trust import trusted
from skinseg.config.check import check
from skinseg.config.command import (
    RANK_VARIABLES,
    as_the_job_sees_it,
    errors_as_ends,
    output_folder,
    take_output,
)
from skinseg.config.compose import compose, plain
from skinseg.config.explain import explain
from skinseg.config.schema import Plain
from skinseg.counting import counted
from skinseg.errors import ConfigurationError, InterruptedRunError, SkinsegError
from skinseg.quoting import literal, pasted
from skinseg.run.claims import is_claimed
from skinseg.run.writing import replacing, write_json
from skinseg.run.written import clear
from skinseg.sweep.gpus import reserved, visible_gpus
from skinseg.sweep.jobs import (
    FAILED,
    JOB,
    PLAN,
    TRUST,
    Job,
    Plan,
    continued,
    earlier_jobs,
    fingerprint,
    last_of,
    result_of,
    state_of,
)
from skinseg.sweep.stop import END, is_stopping, run_child, stop_at_interrupt

log = logging.getLogger(__name__)

_GRID = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"
_IN_TURN = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
_ASIDE = ".interrupted"
_COMPOSED = ".composed.json"
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
            if config.hydra.launcher._target_ != _IN_TURN:
                stop_at_interrupt(output_folder(config, "sweep"))
            if config.hydra.sweeper._target_ == _GRID:  # another one makes its jobs up as it goes
                plan = plan_grid(config)
                for job in plan.jobs:
                    job.write()
                plan.write()
                _planned.append(plan)
                print(_announcement(plan), flush=True)
                if not _to_run(plan):  # Hydra would say that it launches them
                    logging.getLogger(_IN_TURN.rpartition(".")[0]).setLevel(logging.WARNING)


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


def plan_grid(config: DictConfig) -> Plan:
    """Plans the jobs of a grid.

    Args:
        config: What Hydra composed, with its own node, without the swept keys.

    Returns:
        The plan. Files in `conf/` may change from here on: Hydra, too, takes the configurations of the plan.

    Raises:
        SkinsegError: The grid is empty, a job would be refused (all problems of all jobs are named), two jobs
            have the same folder, or the folder holds another sweep.
    """
    grid = _grid(config)
    if not grid:
        raise SkinsegError("The sweep is empty: one of its keys has no value. Give each key at least one.")
    folder = output_folder(config, "sweep")
    resume = bool(OmegaConf.select(config, "sweep.resume"))
    if (folder / PLAN).exists() and not resume:
        raise _holds_a_sweep(folder)
    differing = [len(set(values)) > 1 for values in zip(*grid, strict=True)]
    words = [
        [_as_typed(word) for word, differs in zip(job, differing, strict=True) if differs] for job in grid
    ]
    composed = _compose_all(config, grid, words)
    jobs = _jobs(grid, words, composed, folder, f"{config.name}_{folder.name}")
    _check_folders(jobs)
    if not resume and any((job.folder / JOB).exists() for job in jobs):
        raise _holds_a_sweep(folder)
    if resume:
        jobs = _going_on(jobs, folder)
    _let_hydra_take(dict(zip(map(tuple, grid), composed, strict=True)), folder / _COMPOSED)
    return Plan(folder, jobs)


def _holds_a_sweep(folder: Path) -> SkinsegError:
    return SkinsegError(
        f"hydra.sweep.dir={folder} already holds a sweep. Go on with it by sweep.resume=true, or name "
        "another folder."
    )


def _grid(config: DictConfig) -> list[list[str]]:
    """The overrides of each job, as Hydra's own sweeper will make them."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    # Read, they are resolved; a ${...} that is left is a text.
    params = [f"{key}={literal(value)}" for key, value in (config.hydra.sweeper.params or {}).items()]
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    # As they were typed: a ${...} in one is not a value yet.
    typed: Any = OmegaConf.to_container(config.hydra.overrides.task, resolve=False)
    words = [*params, *typed]
    with read_write(config.hydra), open_dict(config.hydra):
        # The sweeper would read its parameters twice, and fill in what reads ${...} then.
        config.hydra.sweeper.params = {}
        config.hydra.overrides.task = words
    overrides = parser.parse_overrides(words)
    return [job for batch in BasicSweeper.split_arguments(overrides, None) for job in batch]


def _as_typed(word: str) -> str:
    """Returns a job's override for people: Hydra writes ${...} with a backslash before each of its marks."""
    return re.sub(r"\\(.)", r"\1", word) if "$\\{" in word else word


def _compose_all(
    config: DictConfig, grid: Sequence[Sequence[str]], words: Sequence[Sequence[str]]
) -> list[DictConfig]:
    hydra = GlobalHydra.instance().hydra
    loader = GlobalHydra.instance().config_loader()
    composed: list[DictConfig] = []
    problems: dict[str, list[str]] = {}
    for overrides, own in zip(grid, words, strict=True):
        try:
            composed.append(loader.load_sweep_config(config, list(overrides)))
        except (HydraException, OmegaConfBaseException) as error:
            # To explain it, the configuration is composed in other ways, for which Hydra has to be free.
            GlobalHydra.instance().clear()
            for problem in explain(error, [*overrides, *config.hydra.overrides.hydra]):
                problems.setdefault(problem, []).append(" ".join(own))
            GlobalHydra.instance().hydra = hydra
    _refuse(problems, len(grid))
    return composed


def _refuse(problems: dict[str, list[str]], jobs: int) -> None:
    if not problems:
        return
    none = f"none of its {counted(jobs, 'job')} was" if jobs > 1 else "its job was not"
    lines = [f"The sweep is refused; {none} started."]
    for problem, of in problems.items():
        which = "all jobs" if len(of) == jobs else f"{len(of)} jobs, e.g. {of[0]}" if len(of) > 1 else of[0]
        lines.append(f"- {problem}" + (f" ({which})" if jobs > 1 else ""))
    raise SkinsegError("\n".join(lines))


def _jobs(
    grid: Sequence[Sequence[str]],
    words: Sequence[Sequence[str]],
    composed: Sequence[DictConfig],
    sweep: Path,
    group: str,
) -> list[Job]:
    jobs: list[Job] = []
    problems: dict[str, list[str]] = {}
    before = HydraConfig.instance().cfg
    for number, (overrides, own, cfg) in enumerate(zip(grid, words, composed, strict=True)):
        cfg = copy.deepcopy(cfg)
        with read_write(cfg), open_dict(cfg), read_write(cfg.hydra), open_dict(cfg.hydra):
            cfg.hydra.job.num = cfg.hydra.job.id = number
        folder = sweep / str(cfg.hydra.sweep.subdir)
        try:
            config = check(named(as_the_job_sees_it(cfg, folder), own, group))
        except SkinsegError as error:
            for problem in error.problems if isinstance(error, ConfigurationError) else [str(error)]:
                problems.setdefault(problem, []).append(" ".join(own))
            continue
        mark = fingerprint(config)
        jobs.append(Job(number, overrides, own, folder, mark, "start", None, config))
    HydraConfig.instance().cfg = before
    _refuse(problems, len(grid))
    return jobs


def named(own: DictConfig, words: Sequence[str], group: str) -> Plain:
    """Returns a job's plain configuration with its names in Weights & Biases, where the user gave none.

    Args:
        own: The job's configuration.
        words: What tells the job from the others: the name of its run.
        group: Of the sweep.
    """
    with open_dict(own):
        if own.get("group", "") is None:
            own.group = literal(group)
        if OmegaConf.select(own, "logger.wandb") is not None and own.logger.wandb.name == own.name and words:
            own.logger.wandb.name = literal(f"{own.name} {' '.join(words)}")
    return plain(own)


def _check_folders(jobs: Sequence[Job]) -> None:
    seen: dict[Path, Job] = {}
    for job in jobs:
        other = seen.setdefault(job.folder, job)
        if other is not job:
            raise SkinsegError(
                f"{other.label} and {job.label} have the same folder, {job.folder}; each needs one "
                "of its own, e.g. hydra.sweep.subdir='${hydra.job.num}'."
            )


def _going_on(jobs: Sequence[Job], sweep: Path) -> list[Job]:
    """Returns the jobs with what is left to do of each, after the sweeps that lie beside this one."""
    before = list(earlier_jobs(sweep))
    jobs = [continued(job, before) for job in jobs]
    counts = {action: sum(job.action == action for job in jobs) for action in ("skip", "resume", "start")}
    marks = {job.fingerprint for job in jobs}
    known = [job for job in before if job.fingerprint in marks]
    if counts["start"] == len(jobs) and known:
        log.warning(
            "sweep.resume=true: no job below %s has reached a checkpoint. All start anew.", sweep.parent
        )
    elif counts["start"] == len(jobs):
        words = pasted(*before[0].overrides) if before else ""
        other = f"; {counted(len(before), 'job')} there had other words, at last {words}" if before else ""
        log.warning(
            "sweep.resume=true: no job of this sweep was started below %s%s. All are new.",
            sweep.parent, other,
        )  # fmt: skip
    else:
        log.info("sweep.resume=true: %(skip)d done before, %(resume)d go on, %(start)d start.", counts)
    group = next((job.config["group"] for job in known), None)
    return [_resuming(_with_room(_in_group(job, group), sweep)) for job in jobs]


def _in_group(job: Job, group: str | None) -> Job:
    """A sweep that is gone on with stays one group."""
    if group is None:
        return job
    loggers = {
        name: {**node, "group": group} if node and node.get("group") == job.config["group"] else node
        for name, node in (job.config["logger"] or {}).items()
    }
    return replace(job, config={**job.config, "group": group, "logger": loggers})


def _with_room(job: Job, sweep: Path) -> Job:
    """Moves aside what an interrupted job has left in the folder that it is about to use again."""
    if not (job.folder / JOB).is_file():
        return job
    try:
        there = Job.read(job.folder)
    except SkinsegError as error:
        if is_claimed(job.folder):
            raise SkinsegError(f"{error} It is still running; wait for it, or stop it.") from error
        log.warning("%s What its folder holds is moved aside.", error)
    else:
        _refuse_other(there, job)
        if job.action == "skip":
            return job
    number = 1
    while (aside := sweep / _ASIDE / f"{job.folder.name}-{number}").exists():
        number += 1
    aside.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(job.folder, aside)
    return replace(job, earlier=aside) if job.earlier == job.folder else job


def _refuse_other(there: Job, job: Job) -> None:
    """Refuses a folder that is of another job than the one that is to use it."""
    if there.fingerprint != job.fingerprint:
        raise SkinsegError(
            f"{job.folder} holds another job than {job.label}: {' '.join(there.words)}. A sweep of "
            "other jobs needs a folder of its own, from which it finds those that are done; leave out "
            f"hydra.sweep.dir, or name one in {job.folder.parent.parent}."
        )


def _resuming(job: Job) -> Job:
    if job.action != "resume" or job.earlier is None:
        return job
    return replace(job, config={**job.config, "ckpt_path": str(last_of(job.earlier))})


def _let_hydra_take(composed: Mapping[tuple[str, ...], DictConfig], path: Path) -> None:
    """Lets the sweeper and the launchers take these configurations instead of composing them again.

    They would read `conf/` at each job's turn: a file that is edited by then would be another job, and a
    broken one the end of the sweep. A launcher asks in processes of its own, to which Hydra sends its loader
    with each job: so the loader holds only where they are, and what they have to be.
    """
    texts = [[overrides, OmegaConf.to_yaml(cfg)] for overrides, cfg in composed.items()]
    content = json.dumps(texts).encode()
    with replacing(path) as temporary:
        temporary.write_bytes(content)
    loader: Any = GlobalHydra.instance().config_loader()
    loader.load_sweep_config = partial(_as_planned, path, hashlib.sha256(content).hexdigest())


def _as_planned(path: Path, digest: str, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
    """Returns a planned configuration as Hydra's loader would compose it."""
    cfg = OmegaConf.create(_all_as_planned(path, digest)[tuple(sweep_overrides)])
    assert isinstance(cfg, DictConfig)
    hydra = OmegaConf.structured(HydraConf)
    with open_dict(hydra):
        hydra.merge_with(cfg.hydra)
    cfg.hydra = hydra
    OmegaConf.set_struct(cfg, True)
    OmegaConf.copy_cache(from_config=master_config, to_config=cfg)  # the time at which the sweep began
    return cfg


@cache
def _all_as_planned(path: Path, digest: str) -> dict[tuple[str, ...], str]:
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != digest:
        raise SkinsegError(f"{path} was changed since the sweep was planned; start it again.")
    return {tuple(overrides): text for overrides, text in json.loads(content)}


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
    alone = hydra.launcher._target_ == _IN_TURN
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
    if there is not None and hydra.sweeper._target_ == _GRID:
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


def run_in_child(
    job: Job,
    *,
    cwd: str,
    alone: bool,
    trust: Sequence[str],
    sweep: Path | None = None,
    variables: Mapping[str, str] | None = None,
) -> int:
    """Runs a job as a process of its own and returns its exit code.

    Args:
        job: Written.
        cwd: Its working directory.
        alone: Whether no other job writes to this terminal; else its output goes to its console.log.
        trust: Packages that the configuration in the job's folder may name; see `skinseg.build.trust`.
        sweep: Folder of the sweep, where its jobs are not started in this process and are to be told when it
            stops.
        variables: Further environment variables.

    Raises:
        KeyboardInterrupt: Ctrl-C, after the job has ended.
        InterruptedRunError: The sweep was stopped while the job waited for a GPU.
    """
    environment = {key: value for key, value in os.environ.items() if key not in RANK_VARIABLES}
    environment |= variables or {}
    command = [sys.executable, "-m", "skinseg.job", str(job.folder)]
    if trust:
        command.append(TRUST + ",".join(trust))
    console = job.folder / "console.log"
    with contextlib.ExitStack() as stack:
        stopping = partial(is_stopping, sweep) if sweep is not None else None
        environment |= stack.enter_context(reserved(job.config["trainer"], stopping))
        if sweep is not None:
            return run_child(command, sweep=sweep, console=console, environment=environment, folder=cwd)
        # No other thread than the main one gets to know of Ctrl-C.
        hands_on = threading.current_thread() is threading.main_thread()
        # Side by side the jobs' progress bars would write over each other.
        output = None if alone else stack.enter_context(console.open("a"))
        child = stack.enter_context(
            subprocess.Popen(
                command,
                env=environment,
                cwd=cwd,
                stdout=output,
                stderr=None if output is None else subprocess.STDOUT,
                # A terminal's Ctrl-C would reach it beside the signal below, and count as the second one.
                start_new_session=hands_on,
            )
        )
        try:
            return child.wait()
        except KeyboardInterrupt:
            # The job saves and says how to resume; at a second Ctrl-C it ends at once.
            if hands_on:
                child.send_signal(END)
            try:
                child.wait()
            except KeyboardInterrupt:
                child.send_signal(signal.SIGINT)
                child.wait()
            raise


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
        _show(plan, states)
        _compare(plan, states)
        _name_failed(plan, states)


def _show(plan: Plan, states: Sequence[Plain]) -> None:
    from rich.console import Console
    from rich.table import Table

    config = plan.jobs[0].config
    monitor, sign = config["monitor"], -1 if config["mode"] == "max" else 1
    table = Table(
        title=f"{config['name']}: {counted(len(plan.jobs), 'job')}", title_style="bold", title_justify="left"
    )
    for column in ("job", "overrides", "state", monitor, "test/dice", "steps", "minutes"):
        table.add_column(column, justify="left" if column in ("overrides", "state") else "right")
    pairs = zip(plan.jobs, states, strict=True)
    for job, state in sorted(pairs, key=lambda pair: _place(pair[1].get("objective"), sign)):
        table.add_row(
            str(job.number),
            pasted(*job.words),
            state["state"] + (" before" if job.action == "skip" else ""),
            _number(state.get("objective"), 4),
            _number(state.get("dice"), 4),
            str(state.get("steps", "")),
            _number(None if state.get("seconds") is None else state["seconds"] / 60, 1),
        )
    console = Console(highlight=False, soft_wrap=True, width=1000, markup=False)
    console.print()
    console.print(table)


def _place(objective: float | None, sign: int) -> float:
    return math.inf if objective is None else sign * objective


def _number(value: float | None, places: int) -> str:
    return "" if value is None else f"{value:.{places}f}"


def _compare(plan: Plan, states: Sequence[Plain]) -> None:
    """Compares the jobs that have test scores; what cannot be compared is said and no failure."""
    from skinseg import compare

    config = plan.jobs[0].config
    settings = config["sweep"]
    folder = plan.folder / "comparison"
    clear(folder, "compare")  # of fewer jobs, where the sweep was gone on with
    scored = [job for job, state in zip(plan.jobs, states, strict=True) if state.get("dice") is not None]
    if not settings["compare"] or len(scored) < 2:
        return
    wandb = (config["logger"] or {}).get("wandb")
    logger = "none" if wandb is None else "wandb"
    cfg = compose([f"metric={settings['metric']}", f"logger={logger}", "runs=[]", "run_dir=."], "compare")
    with open_dict(cfg):
        if wandb is not None:
            cfg.logger.wandb.project, cfg.logger.wandb.entity = literal([wandb["project"], wandb["entity"]])
        cfg.run_dir, cfg.group, cfg.name = literal([str(folder), config["group"], config["name"]])
        cfg.runs = literal([str(job.scores) for job in scored])
    try:
        compare.run(cfg)
    except SkinsegError as error:
        print(f"\nNo comparison: {error}", file=sys.stderr)


def _name_failed(plan: Plan, states: Sequence[Plain]) -> None:
    failed = [(job, state) for job, state in zip(plan.jobs, states, strict=True) if state["state"] != "done"]
    if not failed:
        return
    done = len(plan.jobs) - len(failed)
    of = f"of {counted(len(plan.jobs), 'job')}"
    undone = counted(len(failed), f"{of} is", f"{of} are")
    lines = [f"{undone} not done; {counted(done, 'is', 'are')}."]
    for job, state in failed:
        reason = str(state.get("error", state["state"])).strip()
        lines.append(f"- {job.label}: {reason} See {job.folder}.")
    lines.append("The same command with sweep.resume=true runs what is missing.")
    raise SkinsegError("\n".join(lines))
