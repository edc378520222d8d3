"""How a sweep has ended: its table, its comparison, and what failed."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence

from omegaconf import open_dict

from skinseg.config.compose import compose
from skinseg.config.schema import Plain
from skinseg.counting import counted
from skinseg.errors import SkinsegError
from skinseg.quoting import literal, pasted
from skinseg.run.written import clear
from skinseg.sweep.jobs import (
    Plan,
)


def show(plan: Plan, states: Sequence[Plain]) -> None:
    """Prints a table of the jobs, the best first.

    Args:
        plan: Plan of the sweep.
        states: What `state_of` returned of each job.
    """
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


def compare_jobs(plan: Plan, states: Sequence[Plain]) -> None:
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


def name_failed(plan: Plan, states: Sequence[Plain]) -> None:
    """Raises SkinsegError if jobs are not done, with the reason of each and how to go on."""
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
