"""A search for hyper-parameters: trials chosen by Optuna, each a process of its own, compared on validation.

python -m skinseg.train +experiment=unet_resnet34 +sweep=hpo
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import math
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException
from optuna import Study
from optuna.exceptions import TrialPruned
from optuna.trial import FrozenTrial, Trial, TrialState

from skinseg import counting
from skinseg.build.nodes import instance
from skinseg.build.trust import trusted
from skinseg.config.check import check
from skinseg.config.explain import explain
from skinseg.config.internals import (
    as_the_job_sees_it,
    compose_job,
    given_overrides,
    hydra_config_kept,
    hydra_free,
    read_files_once,
)
from skinseg.config.schema import DATA_PLACES, Plain, not_counted
from skinseg.errors import ConfigurationError, InterruptedRunError, SkinsegError
from skinseg.quoting import command_line, literal, override
from skinseg.run.claims import AGREE_S, claimed, is_claimed
from skinseg.run.layout import last_of
from skinseg.run.writing import write_csv, write_text
from skinseg.sweep.child import run_in_child
from skinseg.sweep.jobs import Job, fingerprint, reached_by, state_of
from skinseg.sweep.plan import named
from skinseg.sweep.space import ends, short, suggest, value_of
from skinseg.sweep.study import (
    PRUNED,
    STORAGE,
    abandoned,
    agree,
    counted,
    draw,
    folder_of,
    give_back,
    note_place,
    open_storage,
    settle,
    table,
    told,
    without_password,
)

log = logging.getLogger(__name__)

_HOPELESS = 3
_SHOWN = 5

# What trials on several machines may differ in, and what their scores do not depend on.
_OF_THE_MACHINE = {"data": DATA_PLACES, "trainer": {"accelerator"}}


def run(config: Plain) -> float:
    """Runs trials until there are enough, and writes what was found.

    Args:
        config: Checked, with a node `search`; see `skinseg.config.schema.SearchConfig`.

    Returns:
        The best validation score of all trials.

    Raises:
        SkinsegError: The storage cannot be used or holds another search, no trial ended well, or Ctrl-C.
    """
    read_files_once()
    composed = compose_ends(config)
    storage = config["search"]["storage"] or str(Path(config["run_dir"]) / "journal.log")
    # A trial's process has it from the environment, and may have another working directory.
    where = storage if "://" in storage else str(Path(storage).absolute())
    with told(where):
        search = _Search(config, where, _identity(config, composed))
        try:
            search.run()
        except KeyboardInterrupt:
            raise InterruptedRunError("The search was interrupted; to go on, run the same command.") from None
        return search.conclude()


# ---------------------------------------------------------------- the configurations of the trials


def compose_ends(config: Plain) -> dict[str, Plain]:
    """Composes and checks a trial for each choice and each end of a range.

    Args:
        config: Checked, of the command line that Hydra has composed.

    Returns:
        The configurations, by the override that makes each.

    Raises:
        SkinsegError: Trials would be refused; all problems are named.
    """
    composed: dict[str, Plain] = {}
    folder, group = Path(config["run_dir"]), f"search_{config['search']['study']}"
    problems: dict[str, list[str]] = {}
    for key, spec in config["search"]["space"].items():
        for word in (override(key, value) for value in ends(spec)):
            try:
                composed[word] = check(_compose([word], [], folder, group))
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
        overrides: Overrides of the trial.
        words: Its overrides for people.
        folder: Folder of its run.
        group: Group of all trials, in Weights & Biases.

    Raises:
        SkinsegError: Hydra refused the overrides.
    """
    with hydra_config_kept() as master:
        given = given_overrides(master)
        task = [*given["task"], *overrides]
        try:
            own = as_the_job_sees_it(compose_job(master, task), folder)
            with read_write(own), open_dict(own):
                own.search, own.test = None, False
                return named(own, words, group)
        except (HydraException, OmegaConfBaseException) as error:
            with hydra_free():  # to explain it, the configuration is composed in other ways
                problems = explain(error, [*task, *given["hydra"]])
            raise ConfigurationError(problems) from error


def _identity(config: Plain, composed: Mapping[str, Plain]) -> dict[str, Any]:
    """Returns by dotted key all that makes the trials of a study comparable, on any machine."""
    space = config["search"]["space"]
    compared = {key: value for key, value in config.items() if key not in not_counted("search")}
    for group, names in _OF_THE_MACHINE.items():
        compared[group] = {name: value for name, value in config[group].items() if name not in names}
    compared["search"] = {"space": space}
    for key, spec in space.items():
        for word in (override(key, choice) for choice in spec.get("choices", ())):
            compared[word] = composed[word].get(key)  # an option is more than its name
    folder = json.dumps(str(config["run_dir"]))[1:-1]
    text = json.dumps(dict(_flat(compared)), default=str).replace(folder, "<run_dir>")
    identity: dict[str, Any] = json.loads(text)
    return identity


def _flat(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, Mapping) and node:
        for key, value in node.items():
            yield from _flat(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, node


# ---------------------------------------------------------------- the trials


class _Search:
    """The trials of this process, of a study that others may share.

    Args:
        config: Checked.
        where: The storage.
        identity: What all trials of the study have in common.
    """

    def __init__(self, config: Plain, where: str, identity: Mapping[str, Any]) -> None:
        self.config = config
        self.options = config["search"]
        self.folder = Path(config["run_dir"]).absolute()
        self.where = where
        pruner = self.options["pruner"]
        with claimed(self.folder, patience_s=AGREE_S):
            self.study: Study = optuna.create_study(
                study_name=self.options["study"],
                storage=open_storage(where),
                sampler=instance("search.sampler", self.options["sampler"]),
                pruner=instance("search.pruner", pruner) if pruner else optuna.pruners.NopPruner(),
                direction="maximize" if config["mode"] == "max" else "minimize",
                load_if_exists=True,
            )
            agree(self.study, identity)
        self.cwd = str(HydraConfig.get().runtime.cwd)
        self.locks: dict[int, FileLock] = {}
        self.states: list[str] = []
        self.error: BaseException | None = None
        self.lock = threading.RLock()

    def run(self) -> None:
        """Runs trials, `search.jobs` at a time, until there are enough.

        Raises:
            KeyboardInterrupt: Ctrl-C; the trials that ran have ended.
            SkinsegError: The first trials all failed.
        """
        trials = self.options["trials"]
        self._settle_abandoned()
        log.info(
            "Search %s in %s: %s so far; search.trials=%d.",
            self.options["study"], without_password(self.where),
            counting.counted(len(counted(self.study)), "trial"), trials,
        )  # fmt: skip
        while (left := trials - len(counted(self.study))) > 0:
            self.study.optimize(
                self._objective,
                n_trials=left,
                n_jobs=min(self.options["jobs"], left),
                catch=(SkinsegError,),
                callbacks=[self._after],
            )
            if self.error is not None:  # of one of several threads
                raise self.error

    def _objective(self, trial: Trial) -> float:
        try:
            return self._run(trial)
        except TrialPruned:
            raise
        except SkinsegError as error:
            trial.set_user_attr("error", str(error))
            log.error("Trial %d failed: %s", trial.number, error)
            raise
        except BaseException as error:
            self.error = error
            self.study.stop()
            if isinstance(error, KeyboardInterrupt):
                give_back(self.study, self._stored(trial.number))
            raise

    def _run(self, trial: Trial) -> float:
        earlier = folder_of(trial)
        folder = _free(self.folder / "trials", trial.number)
        self.locks[trial.number] = note_place(trial, folder)
        values = {key: suggest(trial, key, spec) for key, spec in self.options["space"].items()}
        with self.lock:
            job = self._job(trial, values, folder, earlier)
        job.write()
        log.info("Trial %d (%s) starts in %s.", trial.number, " ".join(job.words), folder)
        alone = self.options["jobs"] == 1
        code = run_in_child(
            job, cwd=self.cwd, alone=alone, trust=trusted(dict(job.config)), variables={STORAGE: self.where}
        )
        return _result(job, code, pruned=PRUNED in self._stored(trial.number).user_attrs)

    def _job(self, trial: Trial, values: Mapping[str, Any], folder: Path, earlier: Path | None) -> Job:
        overrides = [override(*item) for item in values.items()]
        words = [short(*item) for item in values.items()]
        place = None if earlier is None else reached_by(earlier)
        resuming = [] if place is None else [override("ckpt_path", str(last_of(place)))]
        config = _compose([*overrides, *resuming], words, folder, f"search_{self.options['study']}")
        reporter = {
            "_target_": "skinseg.callbacks.pruning.ReportTrial",
            "study": self.options["study"],
            "trial": trial._trial_id,
            "monitor": self.config["monitor"],
            "pruner": self.options["pruner"] or None,
        }
        config["callbacks"] = {**(config["callbacks"] or {}), "trial": reporter}
        config = check(config)
        job = Job(trial.number, overrides, words, folder, fingerprint(config), "start", None, config)
        return job if place is None else replace(job, action="resume", earlier=place)

    def _stored(self, number: int) -> FrozenTrial:
        return self.study.get_trials(deepcopy=False)[number]

    def _after(self, study: Study, trial: FrozenTrial) -> None:
        """Looks after what a trial of this process has left, and ends the search where there is enough."""
        self.locks.pop(trial.number).release()
        with self.lock:
            self._settle_abandoned()
            write_csv(self.folder / "trials.csv", table(study))
            self.states.append(trial.state.name)
        if trial.values and math.isfinite(trial.values[0]):
            how = "pruned" if trial.state.name == "PRUNED" else "done"
            log.info(
                "Trial %d is %s after %s: %s %.4f.",
                trial.number, how, counting.counted(len(trial.intermediate_values), "validation"),
                self.config["monitor"], trial.values[0],
            )  # fmt: skip
        if self.states == ["FAIL"] * _HOPELESS:
            errors = _reasons(counted(study))
            self.error = SkinsegError(f"The first {_HOPELESS} trials failed, and the search ends.\n{errors}")
        if self.error is not None or len(counted(study)) >= self.options["trials"]:
            study.stop()

    def _settle_abandoned(self) -> None:
        """Records trials of this machine whose search was killed, and lets others go on with them."""
        for trial in abandoned(self.study):
            folder = folder_of(trial)
            assert folder is not None
            while is_claimed(folder):
                log.info("Trial %d was left by a search that is gone, and is about to save.", trial.number)
                time.sleep(1)
            score, state = None, TrialState.FAIL
            try:
                job, pruned = self._written(folder), PRUNED in trial.user_attrs
                score, state = _result(job, InterruptedRunError.exit_code, pruned), TrialState.COMPLETE
            except TrialPruned:
                state = TrialState.PRUNED
            except SkinsegError:
                pass
            except KeyboardInterrupt:
                give_back(self.study, trial)
            settle(self.study, trial, score, state)

    def _written(self, folder: Path) -> Job:
        """Reads a trial's job.

        Raises:
            KeyboardInterrupt: It was not written before its search was killed, or not as a whole.
        """
        try:
            return Job.read(folder)
        except SkinsegError as error:
            log.info("%s The trial is taken up again.", error)
            raise KeyboardInterrupt from error

    def conclude(self) -> float:
        """Writes and shows what was found.

        Returns:
            The best score.

        Raises:
            SkinsegError: No trial ended well.
        """
        trials = counted(self.study)
        found = table(self.study)
        write_csv(self.folder / "trials.csv", found)
        done = found[found["state"] == "complete"]
        if done.empty:
            failed = int((found["state"] == "fail").sum())
            raise SkinsegError(
                f"No trial of the search has a score: {failed} of {len(trials)} failed.\n{_reasons(trials)}"
            )
        draw(self.study, self.folder, self.config["monitor"])
        best = self.study.best_trial
        values = {key: value_of(spec, best.params[key]) for key, spec in self.options["space"].items()}
        content = {
            "study": self.options["study"],
            "trial": best.number,
            self.config["monitor"]: best.value,
            "values": values,
            "folder": str(folder_of(best)),
            "command": self._command(values),
        }
        of = counting.counted(len(trials), "trial")
        header = f"# The best of {of} on validation; the command scores its test subset.\n"
        write_text(self.folder / "best.yaml", header + OmegaConf.to_yaml(OmegaConf.create(literal(content))))
        states = ", ".join(f"{count} {state}" for state, count in found["state"].value_counts().items())
        shown = done.sort_values("score", ascending=self.config["mode"] == "min").head(_SHOWN)
        shown = shown.drop(columns=["state", "error", "host", "folder"])
        log.info("\n%s (%s). The best:\n%s", of, states, shown.to_string(index=False))
        log.info(
            "\nMore in %s.\nTo train with the values of trial %d and score the test subset once:\n  %s",
            self.folder,
            best.number,
            content["command"],
        )
        return float(best.value or 0.0)

    def _command(self, values: Mapping[str, Any]) -> str:
        """The command of the search with the values of a trial, as one run that scores the test subset."""
        hydra = HydraConfig.get()
        with hydra_config_kept() as composed:
            given = given_overrides(composed)
        places = [place.path for place in hydra.runtime.config_sources if place.provider == "command-line"]
        options = [word for path in places for word in ("--config-dir", path)]
        words = [*given["task"], *given["hydra"], *(override(*item) for item in values.items())]
        last = ["search=null", "test=true", override("hydra.run.dir", self.folder / "best")]
        return command_line("skinseg.train", *options, *words, *last)


def _result(job: Job, exit_code: int, pruned: bool) -> float:
    """Returns the score of a job that has ended.

    Raises:
        TrialPruned: It was asked to stop.
        KeyboardInterrupt: It was interrupted.
        SkinsegError: It failed.
    """
    state = state_of(job)
    if state["state"] == "done":
        if state["objective"] is None:
            raise SkinsegError("Its score is no number; the training has diverged.")
        if pruned:
            raise TrialPruned
        return float(state["objective"])
    if "error" in state:
        raise SkinsegError(state["error"])
    if exit_code in (InterruptedRunError.exit_code, -signal.SIGTERM):  # before it could say so itself
        raise KeyboardInterrupt
    killed = f"Killed by signal {-exit_code}, often for want of memory."
    raise SkinsegError(killed if exit_code < 0 else f"Ended with exit code {exit_code}.")


def _reasons(trials: Sequence[FrozenTrial]) -> str:
    errors = dict.fromkeys(trial.user_attrs["error"] for trial in trials if "error" in trial.user_attrs)
    return "\n".join(f"- {error}" for error in errors)


def _free(parent: Path, number: int) -> Path:
    """Makes a folder for a trial; what an earlier study of the same folder has left stays."""
    parent.mkdir(parents=True, exist_ok=True)
    for again in itertools.count():
        with contextlib.suppress(FileExistsError):
            folder = parent / (f"{number}-{again}" if again else str(number))
            folder.mkdir()
            return folder
    raise AssertionError
