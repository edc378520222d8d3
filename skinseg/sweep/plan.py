"""The jobs of a grid, known and checked before the first one starts."""

from __future__ import annotations

import copy
import logging
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from skinseg.config.check import check
from skinseg.config.command import output_folder
from skinseg.config.compose import plain
from skinseg.config.explain import explain
from skinseg.config.internals import (
    as_the_job_sees_it,
    compose_job,
    hydra_config_kept,
    hydra_free,
    overrides_of_jobs,
    take_as_planned,
)
from skinseg.config.schema import Plain
from skinseg.counting import counted
from skinseg.errors import ConfigurationError, SkinsegError
from skinseg.quoting import literal, pasted
from skinseg.run.claims import is_claimed
from skinseg.run.layout import last_of
from skinseg.sweep.jobs import JOB, PLAN, Job, Plan, continued, earlier_jobs, fingerprint

log = logging.getLogger(__name__)

_ASIDE = ".interrupted"


_COMPOSED = ".composed.json"


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
    grid = overrides_of_jobs(config)
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
    take_as_planned(dict(zip(map(tuple, grid), composed, strict=True)), folder / _COMPOSED)
    return Plan(folder, jobs)


def _holds_a_sweep(folder: Path) -> SkinsegError:
    return SkinsegError(
        f"hydra.sweep.dir={folder} already holds a sweep. Go on with it by sweep.resume=true, or name "
        "another folder."
    )


def _as_typed(word: str) -> str:
    """Returns a job's override for people: Hydra writes ${...} with a backslash before each of its marks."""
    return re.sub(r"\\(.)", r"\1", word) if "$\\{" in word else word


def _compose_all(
    config: DictConfig, grid: Sequence[Sequence[str]], words: Sequence[Sequence[str]]
) -> list[DictConfig]:
    composed: list[DictConfig] = []
    problems: dict[str, list[str]] = {}
    for overrides, own in zip(grid, words, strict=True):
        try:
            composed.append(compose_job(config, overrides))
        except (HydraException, OmegaConfBaseException) as error:
            with hydra_free():  # to explain it, the configuration is composed in other ways
                found = explain(error, [*overrides, *config.hydra.overrides.hydra])
            for problem in found:
                problems.setdefault(problem, []).append(" ".join(own))
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
    with hydra_config_kept():
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
    _refuse(problems, len(grid))
    return jobs


def named(own: DictConfig, words: Sequence[str], group: str) -> Plain:
    """Returns a job's plain configuration with its names in Weights & Biases, where the user gave none.

    Args:
        own: The job's configuration.
        words: What tells the job from the others: the name of its run.
        group: Group of the sweep.
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
        other = (
            f"; {counted(len(before), 'job')} there had other overrides, at last {words}" if before else ""
        )
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
