"""The trials of a search in a storage that processes and machines share."""

from __future__ import annotations

import contextlib
import copy
import json
import logging
import mmap
import os
import platform
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from filelock import FileLock, Timeout
from optuna import Study
from optuna.storages import BaseStorage, JournalStorage, RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, SQLAlchemyError

from skinseg.errors import SkinsegError
from skinseg.sweep.jobs import result_of

if TYPE_CHECKING:
    import pandas as pd

optuna.logging.set_verbosity(optuna.logging.ERROR)
# Heartbeats, retries and plots.
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)

STORAGE = "SKINSEG_SEARCH_STORAGE"
"""Environment variable that names the storage to a trial's process; a URL may hold a password."""
PRUNED = "pruned"
"""Attribute of a trial: the validation, from 0, after which its process was asked to stop."""

_SIGN_S = 60
_SILENT_S = 600
_SQLITE_WAIT_S = 60.0
# Twice at most: what ends its machine each time is not tried for ever.
_AGAIN = RetryHeartbeatStaleTrialCallback(max_retry=2, inherit_intermediate_values=True)
# Held by the search as long as it runs the trial; the trial's own process claims the folder by
# `skinseg.run.claims`.
_LOCK = ".trial"
_TORN = ".torn"
# How Optuna begins each line of a journal.
_LINE = b'{"op_code":'
_PLACE = "place"
_SECONDS = "seconds"
_IDENTITY = "search"
_NAMED = 5
_ENOUGH = 10


log = logging.getLogger(__name__)


class _MendingLock(JournalFileSymlinkLock):
    """Lets nobody write behind the torn last line of a journal, with which the next would be lost, too.

    A power cut or a full disk leaves one. It is set aside, beside the journal, while nobody else writes.
    """

    def __init__(self, journal: Path) -> None:
        super().__init__(str(journal))
        self._journal = journal

    def acquire(self) -> bool:
        held = super().acquire()
        try:
            _set_torn_line_aside(self._journal)
        except BaseException:
            self.release()
            raise
        return held


def _set_torn_line_aside(journal: Path) -> None:
    with journal.open("r+b") as file:
        size = os.fstat(file.fileno()).st_size
        if not size:
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            start = content.rfind(b"\n", 0, size - 1) + 1
            line, head = content[start:], content[: len(_LINE)]
        if _whole(line) or not _LINE.startswith(head):  # or it is no journal
            return
        aside = journal.with_name(journal.name + _TORN)
        with aside.open("ab") as kept:
            kept.write(line.rstrip(b"\n") + b"\n")
            os.fsync(kept.fileno())
        file.truncate(start)
        os.fsync(file.fileno())
    log.warning(
        "%s: its last line is torn, as a power cut or a full disk leaves it. It was moved to %s; the search "
        "goes on with all before it.", journal, aside,
    )  # fmt: skip


def _whole(line: bytes) -> bool:
    try:
        return line.endswith(b"\n") and isinstance(json.loads(line), dict)
    except ValueError:
        return False


class _Database(RDBStorage):
    def record_heartbeat(self, trial_id: int) -> None:
        # Whoever uses the storage next says what is wrong with it.
        with contextlib.suppress(Exception):
            super().record_heartbeat(trial_id)


def open_storage(where: str) -> BaseStorage:
    """Opens a storage.

    Args:
        where: As in `search.storage`, not null.

    Raises:
        SkinsegError: Its folder or its driver is not there. What else may be wrong `told` tells.
    """
    if "://" in where:
        return _database(where)
    folder = Path(where).absolute().parent
    if not folder.is_dir():
        raise SkinsegError(
            f"search.storage={where}: there is no folder {folder}; make it, or mount its disk."
        )
    journal = Path(where).absolute()
    return JournalStorage(JournalFileBackend(str(journal), _MendingLock(journal)))


def _database(url: str) -> BaseStorage:
    options: dict[str, Any] = {"pool_pre_ping": True}
    if url.startswith("sqlite"):
        options["connect_args"] = {"timeout": _SQLITE_WAIT_S}
    for attempt in range(1, 4):
        try:
            return _Database(
                url,
                engine_kwargs=options,
                heartbeat_interval=_SIGN_S,
                grace_period=_SILENT_S,
                heartbeat_stale_trial_callback=_AGAIN,
            )
        except ImportError as error:
            raise SkinsegError(
                f"search.storage={without_password(url)}: the database's driver is not installed "
                f"({error.__cause__ or error}). For PostgreSQL: pip install 'psycopg[binary]'."
            ) from error
        except SQLAlchemyError as error:
            # Processes that start together make the same tables.
            made_by_another = isinstance(error, IntegrityError) or "already exists" in str(error)
            if not made_by_another or attempt == 3:
                raise
            time.sleep(attempt)
    raise AssertionError


@contextlib.contextmanager
def told(where: str) -> Iterator[None]:
    """Turns what a storage raises into a message; other errors pass.

    Args:
        where: As in `search.storage`, not null.

    Raises:
        SkinsegError: Instead of any error of the storage.
    """
    try:
        yield
    except SkinsegError:
        raise
    except Exception as error:
        cause = _of_storage(error)
        if cause is None:
            raise
        cause = cause.__cause__ or cause
        cause = getattr(cause, "orig", None) or cause  # the database's own words
        reason = (str(cause) or type(cause).__name__).splitlines()[0]
        held = "another process holds it" if "locked" in reason else "it cannot be reached, read or written"
        way_out = (
            "What was found so far is kept there; to go on, run the same command when it can be used again."
        )
        if isinstance(cause, ValueError) and (number := _unreadable_line(where)):
            held = f"its line {number} is no line of a journal"
            way_out = (
                "Remove that line and run the same command to go on with the others, or name another file."
            )
        raise SkinsegError(
            f"search.storage={without_password(where)} cannot be used ({reason}): {held}. {way_out}"
        ) from error


def _unreadable_line(where: str) -> int | None:
    """Returns the number, from 1, of the first line of a journal that cannot be read."""
    try:
        lines = Path(where).read_bytes().splitlines(keepends=True)
    except OSError:
        return None
    return next((number for number, line in enumerate(lines, start=1) if not _whole(line)), None)


def _of_storage(error: BaseException | None) -> BaseException | None:
    """Returns that of an error and its causes which a storage raised."""
    while error is not None:
        for frame, _ in traceback.walk_tb(error.__traceback__):
            if str(frame.f_globals.get("__name__")).startswith(("optuna.storages.", "sqlalchemy.")):
                return error
        error = error.__cause__ or error.__context__
    return None


def without_password(where: str) -> str:
    """Returns a storage as it may be shown."""
    try:
        return make_url(where).render_as_string(hide_password=True) if "://" in where else where
    except (ArgumentError, ValueError):
        return where.partition("://")[0] + "://..."


def agree(study: Study, identity: Mapping[str, Any]) -> None:
    """Lets a study hold the trials of one search only.

    Args:
        study: New or with trials.
        identity: All that makes its trials comparable, JSON-able, by dotted key.

    Raises:
        SkinsegError: The study is of another search.
    """
    theirs = study.user_attrs.get(_IDENTITY)
    if theirs is None:
        study.set_user_attr(_IDENTITY, dict(identity))
        return
    differing = sorted(key for key in theirs.keys() | identity.keys() if theirs.get(key) != identity.get(key))
    if differing:
        lines = [f"  {key}: {theirs.get(key)} there, {identity.get(key)} here" for key in differing[:_NAMED]]
        if len(differing) > _NAMED:
            lines.append(f"  and {len(differing) - _NAMED} more")
        raise SkinsegError(
            f"search.study={study.study_name}: the storage holds another search of that name. Differing:\n"
            + "\n".join(lines)
            + "\nGo on with the same configuration, or name another study: search.study=<name>."
        )


def give_back(study: Study, trial: FrozenTrial) -> None:
    """Lets another trial go on with the values and reports of one that was interrupted, twice at most."""
    _AGAIN(study, copy.deepcopy(trial))


def note_place(trial: Trial, folder: Path) -> FileLock:
    """Notes where a trial runs, and that this search runs it, until the lock is released or it ends."""
    lock = FileLock(folder / _LOCK, timeout=0)
    lock.acquire()
    place = {"number": trial.number, "host": platform.node(), "folder": str(folder)}
    trial.set_user_attr(_PLACE, place)
    return lock


def settle(study: Study, trial: FrozenTrial, score: float | None, state: TrialState) -> None:
    """Records the end of a trial whose search is gone.

    Args:
        study: Study of the trial.
        trial: Counts as running.
        score: None of a failed one.
        state: How it has ended.
    """
    folder = folder_of(trial)
    result = None if folder is None else result_of(folder)
    if result is not None:  # the time between its beginning and now is that of the wait, too
        Trial(study, trial._trial_id).set_user_attr(_SECONDS, result["seconds"])
    study.tell(trial.number, score, state)


def folder_of(trial: FrozenTrial | Trial) -> Path | None:
    """Returns the folder that a trial runs or has run in, or that of the trial that it goes on from."""
    place = trial.user_attrs.get(_PLACE)
    return None if place is None else Path(place["folder"])


def abandoned(study: Study) -> Iterator[FrozenTrial]:
    """Yields the trials that count as running, but whose search on this machine was killed.

    Each is held until the next one, so that no other process settles it.
    """
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        place = trial.user_attrs.get(_PLACE, {})
        # Its own place, and not still that of the trial that it goes on from.
        if place.get("number") != trial.number or place["host"] != platform.node():
            continue
        folder = Path(place["folder"])
        try:
            with FileLock(folder / _LOCK, timeout=0) if folder.is_dir() else contextlib.nullcontext():
                if study.get_trials(deepcopy=False)[trial.number].state == TrialState.RUNNING:
                    yield trial
        except Timeout:
            continue


def counted(study: Study) -> list[FrozenTrial]:
    """Returns the trials that have ended or run, without those with which another trial has gone on."""
    trials = study.get_trials(deepcopy=False)
    before = {n for trial in trials for n in RetryHeartbeatStaleTrialCallback.retry_history(trial)}
    return [trial for trial in trials if trial.state != TrialState.WAITING and trial.number not in before]


def table(study: Study) -> pd.DataFrame:
    """Returns a row for each trial that counts: number, state, score, seconds, error, folder and values."""
    import pandas as pd

    return pd.DataFrame(
        {
            "trial": trial.number,
            "state": trial.state.name.lower(),
            "score": trial.value if trial.values else None,
            "validations": len(trial.intermediate_values),
            "seconds": _seconds(trial),
            "error": trial.user_attrs.get("error"),
            **{key: trial.user_attrs.get(_PLACE, {}).get(key) for key in ("host", "folder")},
            **trial.params,
        }
        for trial in counted(study)
    )


def _seconds(trial: FrozenTrial) -> float | None:
    """Returns how long a trial took: as noted where its end was recorded late, else by its two times."""
    noted: float | None = trial.user_attrs.get(_SECONDS)
    if noted is not None or trial.duration is None:
        return noted
    return round(trial.duration.total_seconds(), 1)


def draw(study: Study, folder: Path, monitor: str) -> None:
    """Draws the scores in the order of the trials, the scores by value, and how much each key matters.

    The importance of a key is its share in the differences between scores, by functional ANOVA (Hutter et
    al., An efficient approach for assessing hyperparameter importance, ICML 2014). It is not drawn of fewer
    than 10 trials, nor where all scores are the same.

    Args:
        study: With a trial that has run to its end.
        folder: For history.png, values.png and importance.png.
        monitor: Name of the score.
    """
    import matplotlib.pyplot as plt
    import numpy as np
    from optuna.importance import FanovaImportanceEvaluator
    from optuna.visualization import matplotlib as plots

    plt.switch_backend("agg")
    scores = [trial.value for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))]
    with plt.style.context("default"), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a key that was tried with one value
        drawn: dict[str, Any] = {
            "history": plots.plot_optimization_history(study, target_name=monitor),
            "values": plots.plot_slice(study, target_name=monitor),
        }
        if len(scores) >= _ENOUGH and len(set(scores)) > 1:
            evaluator = FanovaImportanceEvaluator(seed=0)
            drawn["importance"] = plots.plot_param_importances(study, evaluator, target_name=monitor)
        history = drawn["history"]
        history.xaxis.get_major_locator().set_params(integer=True)
        for line in history.lines:
            line.set_drawstyle("steps-post")
        for axes in np.ravel(drawn["values"]):
            plt.setp(axes.get_xticklabels(), rotation=30, horizontalalignment="right")  # names of options
        for name, axes in drawn.items():
            figure = np.ravel(axes)[0].figure
            figure.savefig(folder / f"{name}.png", dpi=120, bbox_inches="tight")
            plt.close(figure)
