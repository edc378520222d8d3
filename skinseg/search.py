"""A search for hyper-parameters: trials chosen by Optuna, each a process of its own, compared on validation.

python -m skinseg.train +experiment=unet_resnet34 +sweep=hpo
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import json
import logging
import math
import shlex
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from filelock import FileLock
from hydra._internal.config_repository import CachingConfigRepository
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from skinseg.command import as_the_job_sees_it, explain
from skinseg.config import ConfigurationError, Plain, check, plain
from skinseg.errors import InterruptedRunError, SkinsegError
from skinseg.multirun import named, run_in_child
from skinseg.record import write_text
from skinseg.sweep.jobs import FAILED, Job, fingerprint
from skinseg.sweep.space import dimensions, override, short
from skinseg.sweep.study import (
    SIGN_S,
    STORAGE,
    agree,
    ask,
    best,
    claim,
    counted,
    end,
    give_back,
    importance,
    is_pruned,
    open_study,
    repeat_reports,
    running_trials,
    seeded,
    signs,
    state_of,
    told,
    trial_of,
    value_of,
    whereabouts,
    without_password,
    write_table,
)

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial, Trial

log = logging.getLogger(__name__)

_HOPELESS = 3
_POLL_S = 1.0
_SHOWN = 5

# What trials on several machines may differ in, and what their scores do not depend on.
_OF_THE_MACHINE = {
    "data": {"root", "num_workers", "cache", "cache_dir", "cache_limit_gb", "cache_check", "verify"},
    "trainer": {"accelerator"},
}
_NOT_COMPARED = {
    "run_dir", "search", "sweep", "test", "test_data", "test_overlap", "threads", "logger", "group",
    "job_type", "tags", "notes",
}  # fmt: skip


def check_whole(config: Plain) -> None:
    """Refuses a configuration as `config.check` does, and that of a search also for what its trials would be.

    Args:
        config: What `plain` returned, of the command line that Hydra has composed.

    Raises:
        SkinsegError: With all problems.
    """
    check(config)
    if config["search"] is not None:
        _compose_ends(config)


def run(cfg: DictConfig) -> float:
    """Runs trials until there are enough, and writes what was found.

    Args:
        cfg: The composed configuration with a node `search`; see `skinseg.config.SearchConfig`.

    Returns:
        The best validation score of all trials.

    Raises:
        SkinsegError: The storage cannot be used or holds another search, no trial ended well, or Ctrl-C.
    """
    config = plain(cfg)
    _read_files_once()
    check(config)
    search = _Search(config, _compose_ends(config))
    try:
        search.run()
    except KeyboardInterrupt:
        raise InterruptedRunError("The search was interrupted; the same command goes on.") from None
    return search.conclude()


# ---------------------------------------------------------------- the configurations of the trials


class _ReadOnce(CachingConfigRepository):
    """Configuration files as they were at their first reading."""

    def __deepcopy__(self, memo: object) -> _ReadOnce:
        return self

    def load_config(self, config_path: str) -> Any:
        return copy.deepcopy(super().load_config(config_path))


def _read_files_once() -> None:
    """Keeps later edits of files in `conf/` out of the trials: all that they need is read for the check."""
    loader: Any = GlobalHydra.instance().config_loader()
    loader.repository = _ReadOnce(loader.repository)


def _compose_ends(config: Plain) -> dict[str, Plain]:
    """Composes and checks a trial for each choice and each end of a range, by override.

    Raises:
        SkinsegError: Trials would be refused; all problems are named.
    """
    composed: dict[str, Plain] = {}
    problems: dict[str, list[str]] = {}
    for dimension in dimensions(config["search"]["space"]):
        for value in dimension.ends:
            word = override(dimension.key, value)
            try:
                composed[word] = _compose([word], [], Path(config["run_dir"]), "")
                check(composed[word])
            except SkinsegError as error:
                for problem in error.problems if isinstance(error, ConfigurationError) else [str(error)]:
                    problems.setdefault(problem, []).append(word)
    if problems:
        lines = [f"- {problem} (with {', '.join(words)})" for problem, words in problems.items()]
        raise SkinsegError("\n".join(["The search is refused; no trial was started.", *lines]))
    return composed


def _compose(overrides: Sequence[str], words: Sequence[str], folder: Path, group: str) -> Plain:
    """Composes a trial's configuration: that of the command line with further overrides.

    Args:
        overrides: Of the trial.
        words: Its overrides for people.
        folder: Of its run.
        group: Of all trials, in Weights & Biases.

    Raises:
        SkinsegError: Hydra refused the overrides.
    """
    loader = GlobalHydra.instance().config_loader()
    master: Any = HydraConfig.instance().cfg
    assert master is not None
    # As they were written: an interpolation in them is the trial's.
    given: Any = OmegaConf.to_container(master.hydra.overrides, resolve=False)
    task = [*given["task"], *overrides]
    try:
        composed = loader.load_sweep_config(master, task)
        own = as_the_job_sees_it(composed, folder)
        with read_write(own), open_dict(own):
            own.search, own.test = None, False
            return named(own, words, group)
    except (HydraException, OmegaConfBaseException) as error:
        # To explain it, the configuration is composed in other ways, for which Hydra has to be free.
        hydra = GlobalHydra.instance().hydra
        GlobalHydra.instance().clear()
        problems = explain(error, [*task, *given["hydra"]])
        GlobalHydra.instance().hydra = hydra
        raise ConfigurationError(problems) from error
    finally:
        HydraConfig.instance().cfg = master


def _identity(config: Plain, ends: dict[str, Plain]) -> Plain:
    """Returns all that makes the trials of a study comparable, on whichever machine they run."""
    space = config["search"]["space"]
    words = [override(d.key, choice) for d in dimensions(space) for choice in d.choices]
    folder = {"run_dir": config["run_dir"]}
    return {
        "config": _comparable(config),
        "space": space,
        # An option is more than its name.
        "choices": {word: fingerprint({**_comparable(ends[word]), **folder}) for word in words},
    }


def _comparable(config: Plain) -> Plain:
    compared = {
        key: {name: child for name, child in value.items() if name not in _OF_THE_MACHINE[key]}
        if key in _OF_THE_MACHINE
        else value
        for key, value in config.items()
        if key not in _NOT_COMPARED
    }
    folder = json.dumps(str(config["run_dir"]))[1:-1]
    comparable: Plain = json.loads(json.dumps(compared, default=str).replace(folder, "<run_dir>"))
    return comparable


# ---------------------------------------------------------------- the trials


@dataclass(frozen=True)
class _Taken:
    """A trial of this process.

    Attributes:
        trial: In the study.
        folder: Its run folder.
        lock: Held as long as it runs.
        values: By key of the configuration.
    """

    trial: Trial
    folder: Path
    lock: FileLock
    values: dict[str, Any]

    @property
    def label(self) -> str:
        """The trial for people."""
        return f"Trial {self.trial.number} ({' '.join(short(*item) for item in self.values.items())})"


@dataclass(frozen=True)
class _Outcome:
    """How a trial ended.

    Attributes:
        state: done, failed, or interrupted before its end. Whether it was pruned the storage knows.
        score: Of a trial that is done.
        error: Of one that failed.
    """

    state: Literal["done", "failed", "interrupted"]
    score: float | None = None
    error: str | None = None


class _Search:
    """The trials of this process, of a study that others may share."""

    def __init__(self, config: Plain, ends: dict[str, Plain]) -> None:
        from skinseg.build import instance

        self.config = config
        self.options = config["search"]
        self.folder = Path(config["run_dir"]).absolute()
        self.dimensions = dimensions(self.options["space"])
        self.where = self._where()
        node = self.options["sampler"]
        sampler = instance("search.sampler", node)
        if (seed := node.get("seed")) is not None:
            sampler = seeded(lambda number: instance("search.sampler", {**node, "seed": number}), seed)
        pruner = instance("search.pruner", self.options["pruner"]) if self.options["pruner"] else None
        self.study = open_study(
            self.where, self.options["study"], mode=config["mode"], sampler=sampler, pruner=pruner
        )
        with told(self.where):
            agree(self.study, _identity(config, ends))
        self.cwd = str(HydraConfig.get().runtime.cwd)
        self.started = time.monotonic()
        self.running: dict[int, _Taken] = {}
        self.first: list[_Outcome] = []
        self.lock = threading.RLock()
        self.stopping = threading.Event()
        self.interrupted = False

    def _where(self) -> str:
        storage = self.options["storage"]
        if storage is None:
            return str(self.folder / "journal.log")
        # A trial's process has it from the environment, and may have another working directory.
        return storage if "://" in storage else str(Path(storage).absolute())

    def run(self) -> None:
        """Runs trials, `search.jobs` at a time, until there are enough.

        Raises:
            KeyboardInterrupt: Ctrl-C; the trials that ran have ended.
            SkinsegError: The storage cannot be used, or the first trials all failed.
        """
        with told(self.where):
            so_far = len(counted(self.study))
        log.info(
            "Search %s in %s: %d of %d trials so far.",
            self.options["study"], without_password(self.where), so_far, self.options["trials"],
        )  # fmt: skip
        threading.Thread(target=self._give_signs, daemon=True).start()
        try:
            if self.options["jobs"] == 1:
                self._work()
            else:
                self._work_side_by_side(self.options["jobs"])
        finally:
            self.stopping.set()
        if self.interrupted:
            raise KeyboardInterrupt

    def _work_side_by_side(self, jobs: int) -> None:
        with ThreadPoolExecutor(jobs) as pool:
            try:
                for worker in as_completed([pool.submit(self._work) for _ in range(jobs)]):
                    worker.result()
            except BaseException as error:
                if isinstance(error, SkinsegError):
                    log.error("%s\nThe other trials are waited for.", error)
                self.stopping.set()
                raise

    def _give_signs(self) -> None:
        while not self.stopping.wait(SIGN_S):
            for taken in list(self.running.values()):
                # Whoever uses the storage next says what is wrong with it.
                with contextlib.suppress(SkinsegError), told(self.where):
                    taken.trial.set_user_attr("alive", time.time())

    def _work(self) -> None:
        while not self.stopping.is_set():
            hours = self.options["hours"]
            if hours is not None and time.monotonic() - self.started > 3600 * hours:
                log.info("search.hours=%g are over; no further trial starts.", hours)
                return
            with self.lock, told(self.where):
                ending = self._settle_abandoned()
                taken = self._take()
            if taken is not None:
                self._record(taken, self._run(taken))
            elif ending:
                time.sleep(_POLL_S)
            else:
                return

    def _settle_abandoned(self) -> bool:
        """Records trials whose search was killed; returns whether some of them are still about to end."""
        ending = False
        for trial in running_trials(self.study):
            state = "alive" if trial.number in self.running else whereabouts(trial)
            ending |= state == "ending"
            if state != "abandoned":
                continue
            outcome = _outcome(Path(trial.user_attrs.get("folder", "")), InterruptedRunError.exit_code)
            log.info("Trial %d was left running by a search that is gone: %s.", trial.number, outcome.state)
            self._tell(trial.number, outcome)
        return ending

    def _take(self) -> _Taken | None:
        """Takes the next trial and a folder for it; None if there are enough."""
        trial = ask(self.study, self.options["trials"], {d.key: d.distribution() for d in self.dimensions})
        if trial is None:
            return None
        folder = _free(self.folder / "trials", trial.number)
        values = {d.key: d.value(trial.params[d.key]) for d in self.dimensions}
        taken = _Taken(trial, folder, claim(folder), values)
        self.running[trial.number] = taken
        for key, value in signs(folder).items():
            trial.set_user_attr(key, value)
        return taken

    def _run(self, taken: _Taken) -> _Outcome:
        try:
            with self.lock:
                job = self._job(taken)
            job.write()
        except SkinsegError as error:
            return _Outcome("failed", error=str(error))
        log.info("%s starts in %s.", taken.label, taken.folder)
        try:
            code = run_in_child(
                job, cwd=self.cwd, alone=self.options["jobs"] == 1, variables={STORAGE: self.where}
            )
        except KeyboardInterrupt:
            self.interrupted = True
            code = InterruptedRunError.exit_code
        return _outcome(taken.folder, code)

    def _job(self, taken: _Taken) -> Job:
        overrides = [override(*item) for item in taken.values.items()]
        words = [short(*item) for item in taken.values.items()]
        attributes = taken.trial.user_attrs
        last = Path(attributes.get("earlier") or "") / "checkpoints" / "last.ckpt"
        resumed = last.is_file()
        resuming = [override("ckpt_path", str(last))] if resumed else []
        group = f"search_{self.options['study']}"
        config = _compose([*overrides, *resuming], words, taken.folder, group)
        config["callbacks"] = {**(config["callbacks"] or {}), "trial": self._reporter(taken.trial)}
        check(config)
        if resumed:
            with told(self.where):
                repeat_reports(self.study, attributes["earlier_number"], taken.trial)
        return Job(
            taken.trial.number, overrides, words, taken.folder, fingerprint(config),
            "resume" if resumed else "start", last.parents[1] if resumed else None, config,
        )  # fmt: skip

    def _reporter(self, trial: Trial) -> Plain:
        return {
            "_target_": "skinseg.callbacks.pruning.ReportTrial",
            "study": self.options["study"],
            "trial": trial._trial_id,
            "monitor": self.config["monitor"],
            "mode": self.config["mode"],
            "pruner": self.options["pruner"] or None,
        }

    def _record(self, taken: _Taken, outcome: _Outcome) -> None:
        number = taken.trial.number
        with self.lock, told(self.where):
            del self.running[number]
            self._tell(number, outcome)
            taken.lock.release()
            self._say(taken, outcome)
            write_table(self.folder / "trials.csv", self.study)
        if outcome.state == "interrupted":
            self.interrupted = True
            self.stopping.set()
            return
        self.first.append(outcome)
        if len(self.first) == _HOPELESS and all(each.state == "failed" for each in self.first):
            self.stopping.set()
            raise SkinsegError(
                f"The first {_HOPELESS} trials failed, and the search ends.\n" + _reasons(self.first)
            )

    def _tell(self, number: int, outcome: _Outcome) -> None:
        if outcome.state == "interrupted":
            give_back(self.study, number)
        else:
            end(self.study, number, outcome.score, outcome.error)

    def _say(self, taken: _Taken, outcome: _Outcome) -> None:
        monitor, trial = self.config["monitor"], trial_of(self.study, taken.trial.number)
        if outcome.state == "failed":
            log.error("%s failed: %s", taken.label, outcome.error)
        elif outcome.state == "done":
            leading = best(self.study)
            log.info(
                "%s: %s %.4f%s; best so far %s.",
                taken.label,
                monitor,
                outcome.score,
                f", pruned after {len(trial.intermediate_values)} validations" if is_pruned(trial) else "",
                "none" if leading is None else f"{leading.value:.4f} of trial {leading.number}",
            )

    def conclude(self) -> float:
        """Writes and shows what was found.

        Returns:
            The best score.

        Raises:
            SkinsegError: No trial ended well.
        """
        from skinseg.report.search import draw_history, draw_parameters

        with told(self.where):
            trials = counted(self.study)
            leading = best(self.study)
            write_table(self.folder / "trials.csv", self.study)
            importances = importance(self.study)
        if leading is None:
            failed = [str(t.user_attrs["error"]) for t in trials if "error" in t.user_attrs]
            raise SkinsegError(
                f"No trial of the search has a score: {len(failed)} of {len(trials)} failed.\n"
                + _reasons([_Outcome("failed", error=error) for error in failed])
            )
        monitor = self.config["monitor"]
        draw_history(self.folder / "history.png", trials, monitor=monitor, mode=self.config["mode"])
        draw_parameters(self.folder / "parameters.png", trials, importances, self.dimensions, monitor=monitor)
        command = self._command(leading)
        self._write_best(leading, len(trials), command)
        self._show(trials)
        log.info("\nBest: trial %d, %s %.4f; see %s.", leading.number, monitor, leading.value, self.folder)
        log.info("To train with its values and score the test side once:\n  %s", command)
        assert leading.value is not None
        return leading.value

    def _command(self, leading: FrozenTrial) -> str:
        """The command line of the search with the values of a trial, as one run that scores the test side."""
        values = [(d.key, d.value(leading.params[d.key])) for d in self.dimensions]
        words = [override(*item) for item in values]
        last = ["search=null", "test=true", f"hydra.run.dir={self.folder / 'best'}"]
        hydra = HydraConfig.get()
        given: Any = OmegaConf.to_container(hydra.overrides, resolve=False)
        places = [place.path for place in hydra.runtime.config_sources if place.provider == "command-line"]
        options = [word for path in places for word in ("--config-dir", path)]
        command = ["python", "-m", "skinseg.train", *options, *given["task"], *given["hydra"]]
        return shlex.join([*command, *words, *last])

    def _write_best(self, leading: FrozenTrial, trials: int, command: str) -> None:
        content = {
            "study": self.options["study"],
            "trial": leading.number,
            self.config["monitor"]: leading.value,
            "values": {d.key: d.value(leading.params[d.key]) for d in self.dimensions},
            "folder": leading.user_attrs["folder"],
            "command": command,
        }
        header = (
            f"# The best of {trials} trials on validation; the command trains with its values and scores the "
            "test side once.\n"
        )
        write_text(self.folder / "best.yaml", header + OmegaConf.to_yaml(OmegaConf.create(content)))

    def _show(self, trials: Sequence[FrozenTrial]) -> None:
        from rich.console import Console
        from rich.table import Table

        states = [state_of(trial) for trial in trials]
        counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
        title = f"{self.options['study']}: {len(trials)} trials ({counts})"
        table = Table(title=title, title_style="bold", title_justify="left")
        keys = [d.key for d in self.dimensions]
        for column in ("trial", self.config["monitor"], *keys, "validations", "minutes"):
            table.add_column(column, justify="right")
        done = [trial for trial in trials if value_of(trial) is not None]
        done.sort(key=lambda trial: value_of(trial) or 0.0, reverse=self.config["mode"] == "max")
        for trial in done[:_SHOWN]:
            minutes = trial.duration.total_seconds() / 60 if trial.duration else math.nan
            values = (short(key, trial.params[key]).partition("=")[2] for key in keys)
            table.add_row(
                str(trial.number), f"{trial.value:.4f}", *values, str(len(trial.intermediate_values)),
                f"{minutes:.1f}",
            )  # fmt: skip
        console = Console(highlight=False, soft_wrap=True, width=1000)
        console.print()
        console.print(table)
        if "running" in states:
            log.info("Trials that run elsewhere are not in it; the search that ends last writes it anew.")


def _outcome(folder: Path, exit_code: int) -> _Outcome:
    """Returns how a trial ended by what is in its folder."""
    try:
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        summary = None
    if summary is not None:
        score = summary["objective"]["value"]
        if score is None:
            return _Outcome("failed", error="Its score is no number; the training has diverged.")
        return _Outcome("done", score=float(score))
    try:
        return _Outcome("failed", error=json.loads((folder / FAILED).read_text(encoding="utf-8"))["error"])
    except (OSError, ValueError, KeyError):
        pass
    if exit_code == InterruptedRunError.exit_code:
        return _Outcome("interrupted")
    killed = f"Killed by signal {-exit_code}, often for want of memory."
    return _Outcome("failed", error=killed if exit_code < 0 else f"Ended with exit code {exit_code}.")


def _reasons(outcomes: Sequence[_Outcome]) -> str:
    return "\n".join(f"- {error}" for error in dict.fromkeys(outcome.error for outcome in outcomes))


def _free(parent: Path, number: int) -> Path:
    """Makes a folder for a trial; what an earlier study of the same folder has left stays."""
    for name in itertools.chain([str(number)], (f"{number}-{again}" for again in itertools.count(1))):
        with contextlib.suppress(FileExistsError):
            (parent / name).mkdir(parents=True)
            break
    return parent / name
