"""The trials of a search in a storage that processes and machines share."""

from __future__ import annotations

import contextlib
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from json import JSONDecodeError
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from filelock import FileLock, Timeout

from skinseg.errors import SkinsegError
from skinseg.record import write_csv
from skinseg.sweep.jobs import is_running

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial, Trial

STORAGE = "SKINSEG_SEARCH_STORAGE"
"""Environment variable that names the storage to a trial's process; a URL may hold a password."""
PRUNED = "pruned"
"""Attribute of a trial: the validation, from 0, after which its process was asked to stop."""
SIGN_S = 60.0
"""Seconds between two signs of life of a running trial."""

_SILENT_S = 10 * SIGN_S
_SQLITE_WAIT_S = 60.0
_ATTEMPTS = 3
_LOCK = ".trial"
_IDENTITY = "search"
_DRIVERS = {"psycopg": "pip install 'psycopg[binary]'", "psycopg2": "pip install psycopg2-binary"}
_GIVEN_BACK = "given_back"
_AGAIN = 2
_NAMED = 5
_ENOUGH = 10


def open_study(
    where: str,
    name: str,
    *,
    mode: str,
    sampler: BaseSampler | None = None,
    pruner: BasePruner | None = None,
    create: bool = True,
) -> Study:
    """Opens a study.

    Args:
        where: As in `search.storage`, not null.
        name: Of the study.
        mode: "max" or "min".
        sampler: None: at random.
        pruner: None: nothing is pruned.
        create: Whether to make it if it is not there.

    Raises:
        SkinsegError: The storage cannot be used.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = sampler or optuna.samplers.RandomSampler()
    pruner = pruner or optuna.pruners.NopPruner()
    with told(where):
        storage = _storage(where)
        if not create:
            return optuna.load_study(study_name=name, storage=storage, sampler=sampler, pruner=pruner)
        direction: Literal["maximize", "minimize"] = "maximize" if mode == "max" else "minimize"
        return optuna.create_study(
            study_name=name,
            storage=storage,
            sampler=sampler,
            pruner=pruner,
            direction=direction,
            load_if_exists=True,
        )


def _storage(where: str) -> BaseStorage:
    if "://" in where:
        return _database(where)
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    folder = Path(where).absolute().parent
    if not folder.is_dir():
        raise SkinsegError(
            f"search.storage={where}: there is no folder {folder}; make it, or mount its disk."
        )
    return JournalStorage(JournalFileBackend(str(Path(where).absolute())))


def _database(url: str) -> BaseStorage:
    from optuna.storages import RDBStorage
    from sqlalchemy.exc import IntegrityError, SQLAlchemyError

    # Each trial has its connections, and a search holds none while its trials train.
    options: dict[str, Any] = {"pool_pre_ping": True}
    if url.startswith("sqlite"):
        options["connect_args"] = {"timeout": _SQLITE_WAIT_S}
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return RDBStorage(url, engine_kwargs=options)
        except ImportError as error:
            cause = error.__cause__ or error
            missing = str(getattr(cause, "name", None))
            raise SkinsegError(
                f"search.storage={without_password(url)}: the database's driver is not installed "
                f"({cause}). {_DRIVERS.get(missing, 'Install it.')}"
            ) from error
        except SQLAlchemyError as error:
            # Processes that start together make the same tables.
            made_by_another = isinstance(error, IntegrityError) or "already exists" in str(error)
            if not made_by_another or attempt == _ATTEMPTS:
                raise
            time.sleep(attempt)
    raise AssertionError


@contextlib.contextmanager
def told(where: str) -> Iterator[None]:
    """Turns what a storage raises into a message.

    Args:
        where: As in `search.storage`.

    Raises:
        SkinsegError: Instead of any error of the storage.
    """
    from optuna.exceptions import OptunaError
    from sqlalchemy.exc import SQLAlchemyError

    shown = without_password(where)
    try:
        yield
    except (OptunaError, SQLAlchemyError, OSError, KeyError, JSONDecodeError) as error:
        cause = error.__cause__ or error
        cause = getattr(cause, "orig", None) or cause  # the database's own words
        reason = (str(cause) or type(cause).__name__).splitlines()[0]
        held = "another process holds it" if "locked" in reason else "it cannot be reached or written"
        raise SkinsegError(
            f"search.storage={shown} cannot be used ({reason}): {held}. What was found so far is kept there; "
            "the same command goes on when it can be used again."
        ) from error


def without_password(where: str) -> str:
    """Returns a storage as it may be shown."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        return make_url(where).render_as_string(hide_password=True) if "://" in where else where
    except ArgumentError:
        return where.partition("://")[0] + "://..."


def seeded(make: Callable[[int], BaseSampler], seed: int) -> BaseSampler:
    """Returns a sampler whose draws depend on the trial's number.

    Of one seed, two processes would draw the same trials, and a search that is gone on with those that it has
    drawn before.

    Args:
        make: Builds the sampler from a seed.
        seed: Of the search.
    """
    import numpy as np
    from optuna.samplers import BaseSampler

    class Seeded(BaseSampler):
        def __init__(self) -> None:
            self._of: dict[int, BaseSampler] = {}

        def _sampler(self, trial: FrozenTrial) -> BaseSampler:
            if trial.number not in self._of:
                state = np.random.SeedSequence([seed, trial.number]).generate_state(1)
                self._of[trial.number] = make(int(state[0]))
            return self._of[trial.number]

        def infer_relative_search_space(
            self, study: Study, trial: FrozenTrial
        ) -> dict[str, BaseDistribution]:
            return self._sampler(trial).infer_relative_search_space(study, trial)

        def sample_relative(
            self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
        ) -> dict[str, Any]:
            return self._sampler(trial).sample_relative(study, trial, search_space)

        def sample_independent(
            self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
        ) -> Any:
            return self._sampler(trial).sample_independent(study, trial, param_name, param_distribution)

        def before_trial(self, study: Study, trial: FrozenTrial) -> None:
            self._sampler(trial).before_trial(study, trial)

        def after_trial(self, study: Study, trial: FrozenTrial, state: Any, values: Any) -> None:
            self._sampler(trial).after_trial(study, trial, state, values)
            del self._of[trial.number]

    return Seeded()


def agree(study: Study, identity: Mapping[str, Any]) -> None:
    """Lets a study hold the trials of one search only.

    Args:
        study: New or with trials.
        identity: All that makes its trials comparable, JSON-able.

    Raises:
        SkinsegError: The study is of another search.
    """
    before = study.user_attrs.get(_IDENTITY)
    if before is None:
        study.set_user_attr(_IDENTITY, dict(identity))
        return
    theirs, ours = dict(_flat(before)), dict(_flat(identity))
    differing = sorted(key for key in theirs.keys() | ours.keys() if theirs.get(key) != ours.get(key))
    if not differing:
        return
    # A changed key also changes each choice.
    differing = [key for key in differing if not key.startswith("choices.")] or differing
    lines = [
        f"  {key.removeprefix('config.')}: {theirs.get(key)} there, {ours.get(key)} here"
        for key in differing[:_NAMED]
    ]
    if len(differing) > _NAMED:
        lines.append(f"  and {len(differing) - _NAMED} more")
    raise SkinsegError(
        f"search.study={study.study_name}: the storage holds another search of that name. Differing:\n"
        + "\n".join(lines)
        + "\nGo on with the same configuration, or name another study: search.study=<name>."
    )


def _flat(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, Mapping) and node:
        for key, value in node.items():
            yield from _flat(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, node


def claim(folder: Path) -> FileLock:
    """Takes a trial's folder for this process, until the lock is released or the process ends."""
    lock = FileLock(folder / _LOCK, timeout=0)
    lock.acquire()
    return lock


def signs(folder: Path) -> dict[str, Any]:
    """Returns attributes of a trial by which others tell whether it is alive."""
    return {"host": platform.node(), "pid": os.getpid(), "folder": str(folder), "alive": time.time()}


def whereabouts(trial: FrozenTrial) -> Literal["alive", "ending", "abandoned"]:
    """Tells what became of a trial that counts as running.

    On the machine that it runs on by the locks in its folder, elsewhere by its signs of life.

    Args:
        trial: Of another process.

    Returns:
        "ending": its search is gone, and its own process about to save and end.
    """
    attributes = trial.user_attrs
    if "alive" not in attributes:  # asked for a moment ago, or killed in that moment
        assert trial.datetime_start is not None
        return "abandoned" if time.time() - trial.datetime_start.timestamp() > _SILENT_S else "alive"
    folder = Path(attributes["folder"])
    if attributes["host"] == platform.node() and folder.is_dir():
        try:
            with FileLock(folder / _LOCK, timeout=0):
                return "ending" if is_running(folder) else "abandoned"
        except Timeout:
            return "alive"
    return "abandoned" if time.time() - float(attributes["alive"]) > _SILENT_S else "alive"


def counted(study: Study) -> list[FrozenTrial]:
    """Returns the trials that count: those that have ended or run, without those that were given back."""
    from optuna.trial import TrialState

    return [
        trial
        for trial in study.get_trials(deepcopy=False)
        if trial.state != TrialState.WAITING and not trial.user_attrs.get(_GIVEN_BACK)
    ]


def running_trials(study: Study) -> list[FrozenTrial]:
    """Returns the trials that count as running."""
    from optuna.trial import TrialState

    return study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))


def trial_of(study: Study, number: int) -> FrozenTrial:
    """Returns a trial as the storage has it now."""
    return study.get_trials(deepcopy=False)[number]


def ask(study: Study, trials: int, distributions: dict[str, BaseDistribution]) -> Trial | None:
    """Takes the next trial of a study.

    Args:
        study: Shared with others.
        trials: How many there are to be in all.
        distributions: By key, what to draw.

    Returns:
        The trial with its values; None if there are enough.
    """
    if len(counted(study)) >= trials:
        return None
    trial = study.ask(distributions)
    if sum(other.number < trial.number for other in counted(study)) < trials:
        return trial
    # Others have asked at the same time.
    trial.set_user_attr(_GIVEN_BACK, True)
    end(study, trial.number, error="one more than was asked for")
    return None


def end(study: Study, number: int, score: float | None = None, error: str | None = None) -> bool:
    """Records how a trial ended.

    Args:
        study: Its study.
        number: Its number.
        score: None: it failed.
        error: Why it failed.

    Returns:
        False if somebody else has recorded it before.
    """
    from optuna.exceptions import UpdateFinishedTrialError
    from optuna.trial import TrialState

    trial = trial_of(study, number)
    if trial.state != TrialState.RUNNING:
        return False
    try:
        if error is not None:
            _set(study, trial, "error", error)
        if score is None:
            study.tell(number, state=TrialState.FAIL)
        elif is_pruned(trial):
            study.tell(number, state=TrialState.PRUNED)
        else:
            study.tell(number, score)
    except (UpdateFinishedTrialError, ValueError):
        if trial_of(study, number).state == TrialState.RUNNING:
            raise
        return False
    return True


def give_back(study: Study, number: int) -> None:
    """Records a trial whose process was ended before it as failed, and lets another one take its values.

    Twice at most: what ends its machine each time is not tried for ever.
    """
    trial = trial_of(study, number)
    again = int(trial.user_attrs.get("again", 0))
    if again == _AGAIN:
        end(study, number, error=f"Its process was ended {again + 1} times.")
        return
    _set(study, trial, _GIVEN_BACK, True)
    if end(study, number, error="Interrupted; another trial goes on with its values.") and trial.params:
        passed_on = {"again": again + 1, "earlier": trial.user_attrs.get("folder"), "earlier_number": number}
        study.enqueue_trial(dict(trial.params), user_attrs=passed_on)


def repeat_reports(study: Study, number: int, trial: Trial) -> None:
    """Gives a trial that is resumed the validations that the earlier one has reported."""
    for step, score in trial_of(study, number).intermediate_values.items():
        trial.report(score, step)


def _set(study: Study, trial: FrozenTrial, key: str, value: Any) -> None:
    study._storage.set_trial_user_attr(trial._trial_id, key, value)


def is_pruned(trial: FrozenTrial) -> bool:
    """Returns whether a trial was asked to stop."""
    return PRUNED in trial.user_attrs


def state_of(trial: FrozenTrial) -> str:
    """Returns how far a trial is: running, done, pruned or failed."""
    return {"COMPLETE": "done", "FAIL": "failed"}.get(trial.state.name, trial.state.name.lower())


def value_of(trial: FrozenTrial) -> float | None:
    """Returns the score of a trial that has run to its end, None of others."""
    return trial.value if trial.state.name == "COMPLETE" else None


def best(study: Study) -> FrozenTrial | None:
    """Returns the best of the trials that have run to their ends, None without one."""
    done = [trial for trial in counted(study) if value_of(trial) is not None]
    sign = 1 if study.direction.name == "MAXIMIZE" else -1
    return max(done, key=lambda trial: (sign * (value_of(trial) or 0.0), -trial.number), default=None)


def importance(study: Study) -> dict[str, float] | None:
    """Returns how much of the differences between scores each key explains, by functional ANOVA.

    Hutter et al., An efficient approach for assessing hyperparameter importance, ICML 2014.

    Returns:
        Shares that sum to 1, by key. None with fewer than 10 trials that have run to their ends, or where all
        have the same score.
    """
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    scores = [score for trial in counted(study) if (score := value_of(trial)) is not None]
    if len(scores) < _ENOUGH or min(scores) == max(scores):
        return None
    return get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))


def write_table(path: Path, study: Study) -> None:
    """Writes a row for each trial that counts, with its state, score, values and error."""
    import pandas as pd

    rows = [
        {
            "trial": trial.number,
            "state": state_of(trial),
            "score": trial.value if trial.values else None,
            **trial.params,
            "validations": len(trial.intermediate_values),
            "seconds": None if trial.duration is None else round(trial.duration.total_seconds(), 1),
            "host": trial.user_attrs.get("host"),
            "folder": trial.user_attrs.get("folder"),
            "error": trial.user_attrs.get("error"),
        }
        for trial in counted(study)
    ]
    write_csv(path, pd.DataFrame(rows))
