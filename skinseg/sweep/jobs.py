"""What is on the disk of a sweep: its plan, and of each job what it was launched with and how it ended."""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter

from skinseg.config.schema import not_counted
from skinseg.errors import SkinsegError
from skinseg.run.claims import LOCK, is_claimed
from skinseg.run.layout import SUMMARY, last_of
from skinseg.run.writing import write_json

PLAN = "sweep.json"
JOB = "job.json"
FAILED = "failed.json"
TRUST = "trust="
"""How the word of `skinseg.job` begins that names packages which a job may name."""

Action = Literal["start", "resume", "skip"]

# What is raised where a file is missing, is not JSON, or lacks what is expected in it.
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """A job as it was launched.

    Attributes:
        number: Its place in the sweep, from 0.
        overrides: Hydra overrides that make its configuration.
        words: Those of them in which the sweep's jobs differ.
        folder: Its run folder.
        fingerprint: Fingerprint of its configuration, by `fingerprint`.
        action: "start"; "resume" from the last checkpoint of `earlier`; "skip", for `earlier` has finished.
        earlier: The folder of an earlier job of the same configuration. None: there is none.
        config: The resolved configuration, which no later change of a file in `conf/` reaches.
    """

    number: int
    overrides: Sequence[str]
    words: Sequence[str]
    folder: Path
    fingerprint: str
    action: Action
    earlier: Path | None
    config: Mapping[str, Any]

    @property
    def label(self) -> str:
        """The job for people."""
        return f"Job {self.number} ({' '.join(self.words) or 'no overrides'})"

    @property
    def scores(self) -> Path:
        """The folder with its scores: that of the earlier job where this one was skipped."""
        return self.earlier if self.action == "skip" and self.earlier is not None else self.folder

    def write(self) -> None:
        """Writes the job to its folder. See `skinseg.run.writing.write_json`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        earlier = None if self.earlier is None else _relative(self.earlier, self.folder)
        write_json(self.folder / JOB, {**asdict(self), "earlier": earlier})

    @classmethod
    def read(cls, folder: Path) -> Job:
        """Reads what `write` wrote; the folder is the job's run folder now, whatever it was before.

        The earlier job is looked for where it lies as seen from there, else where it lay.

        Raises:
            SkinsegError: There is no such file, or it is none of a job.
        """
        path = folder / JOB
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            config = content["config"]
            # Where it lies now, which may be elsewhere than when it was written, and on another machine.
            here = str(folder.absolute())
            if (there := config.get("run_dir", here)) != here:
                content["config"] = _moved(config, there, here)
            if content["earlier"] is not None:
                places = [(Path(place).resolve() / content["earlier"]).resolve() for place in (here, there)]
                content["earlier"] = next((place for place in places if place.exists()), places[0])
                if content["action"] == "resume":
                    content["config"]["ckpt_path"] = str(last_of(content["earlier"]))
            return TypeAdapter(cls).validate_python({**content, "folder": folder})
        except _UNREADABLE as error:
            reason = str(error).splitlines()[0]
            raise SkinsegError(f"{path} cannot be read as a job of a sweep ({reason}).") from error


@dataclass(frozen=True)
class Plan:
    """The jobs of a sweep.

    Attributes:
        folder: Folder of the sweep.
        jobs: In the order in which they start.
    """

    folder: Path
    jobs: Sequence[Job]

    def write(self) -> None:
        """Writes `sweep.json`: the jobs, each with its state."""
        write_json(
            self.folder / PLAN,
            {
                "jobs": [
                    {
                        "number": job.number,
                        "words": list(job.words),
                        "folder": _relative(job.folder, self.folder),
                        "scores": _relative(job.scores, self.folder),
                        "fingerprint": job.fingerprint,
                        **state_of(job),
                    }
                    for job in self.jobs
                ],
            },
        )


def reached_by(folder: Path) -> Path | None:
    """Returns the folder with the last checkpoint that a job has reached, None where it has reached none.

    That is the job's own or, where it was killed before its first checkpoint, the one from which it was to go
    on.

    Args:
        folder: Folder of the job.
    """
    seen: set[Path] = set()
    while not last_of(folder).is_file():
        seen.add(folder)
        try:
            job = Job.read(folder)
        except SkinsegError:
            return None
        if job.action != "resume" or job.earlier is None or job.earlier in seen:
            return None
        folder = job.earlier
    return folder


def fingerprint(config: Mapping[str, Any]) -> str:
    """Returns 12 hexadecimal digits that name all of a configuration that a job's result depends on.

    Args:
        config: Resolved. Its run folder does not count, wherever in it that stands.
    """
    counted = {key: value for key, value in config.items() if key not in not_counted("job")}
    text = json.dumps(counted, sort_keys=True, default=str)
    folder = json.dumps(str(config["run_dir"]))[1:-1]
    return hashlib.sha256(text.replace(folder, "<run_dir>").encode()).hexdigest()[:12]


def state_of(job: Job) -> dict[str, Any]:
    """Returns how far a job is: state (done, failed, interrupted, waiting), objective, seconds, error."""
    if (result := result_of(job.scores)) is not None:
        return {"state": "done", **result}
    path = job.folder / FAILED
    try:
        return {"state": "failed", **json.loads(path.read_text(encoding="utf-8"))}
    except FileNotFoundError:
        return {"state": "interrupted" if (job.folder / "config.yaml").is_file() else "waiting"}
    except _UNREADABLE as error:
        return {"state": "failed", "error": f"Why is not known, for {path} cannot be read ({error})."}


def result_of(folder: Path) -> dict[str, Any] | None:
    """Returns what a training that has finished says of itself.

    Args:
        folder: Folder of its scores.

    Returns:
        objective and dice (None where they are no numbers, or without a test), steps, seconds. None where
        there is no summary, or where it cannot be read, which is said: then the training counts as not done.
    """
    path = folder / SUMMARY
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
        if "failed" in summary:  # what is known of a training whose scoring failed
            return None
        objective, test = summary["objective"]["value"], summary["scores"]["test"]
        return {
            "objective": _number(objective),
            "dice": None if test is None else _number(test["dice"]),
            "steps": int(summary["training"]["steps"]),
            "seconds": float(summary["training"]["seconds"]),
        }
    except (FileNotFoundError, NotADirectoryError):
        return None
    except _UNREADABLE as error:
        _say(f"{path} cannot be read ({type(error).__name__}: {error}); its job counts as not done.")
        return None


def _number(value: Any) -> float | None:
    """Returns a number as `skinseg.run.writing.write_json` has written it: one that is none as null."""
    return None if value is None else float(value)


@functools.cache
def _say(what: str) -> None:
    """Warns once: a state is asked for again and again."""
    log.warning("%s", what)


def entries_of(sweep: Path) -> list[dict[str, Any]]:
    """Returns what a sweep's `sweep.json` says of its jobs; see `Plan.write`.

    Raises:
        SkinsegError: It cannot be read.
    """
    path = sweep / PLAN
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["jobs"]
        return [
            {**entry, **{key: str(entry[key]) for key in ("folder", "scores", "state")}} for entry in entries
        ]
    except _UNREADABLE as error:
        raise SkinsegError(
            f"{path} cannot be read ({type(error).__name__}: {error}). The sweep's command with "
            "sweep.resume=true writes it anew; or name the folders of its jobs one by one."
        ) from error


def earlier_jobs(folder: Path) -> Iterator[Job]:
    """Yields the jobs of all sweeps beside one, the latest sweep first, with the one itself; see `jobs_of`.

    Args:
        folder: Folder of the sweep; those beside it are of the same experiment.
    """
    plans = sorted(folder.parent.glob(f"*/{PLAN}"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in plans:
        yield from jobs_of(path.parent)


def jobs_of(sweep: Path) -> Iterator[Job]:
    """Yields the jobs of a sweep.

    What cannot be read is said and left out; where that is its `sweep.json`, the jobs are looked for below.

    Args:
        sweep: Its folder.
    """
    try:
        places = [sweep / entry["folder"] for entry in entries_of(sweep)]
    except SkinsegError as error:
        _say(f"{error} Until then its jobs are looked for below it.")
        found = (job.parent for job in sweep.rglob(JOB))
        places = sorted(place for place in found if not _hidden(place, sweep))
    for place in places:
        if (place / JOB).is_file():
            try:
                yield Job.read(place)
            except SkinsegError as error:
                _say(f"{error} It counts as not done.")


def _hidden(path: Path, below: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(below).parts)


def continued(job: Job, before: Sequence[Job]) -> Job:
    """Returns a job that goes on from an earlier one of the same configuration, if there is one.

    Args:
        job: About to start.
        before: Jobs of earlier sweeps, the latest first.

    Raises:
        SkinsegError: The earlier one is still running.
    """
    same = [other for other in before if other.fingerprint == job.fingerprint]
    for other in same:
        if result_of(other.scores) is not None:
            return replace(job, action="skip", earlier=other.scores)
    for other in same:
        if is_claimed(other.folder):
            raise SkinsegError(
                f"sweep.resume=true: {other.label} is still running, in {other.folder}. Wait for it, or stop "
                "it."
            )
        if (place := reached_by(other.folder)) is not None:
            return replace(job, action="resume", earlier=place)
    return job


def running_below(sweep: Path) -> bool:
    """Returns whether a job of a sweep is running, on whichever machine.

    Args:
        sweep: Its folder.
    """
    jobs = (lock.parent for lock in sweep.rglob(LOCK) if lock.parent != sweep)
    return any(map(is_claimed, jobs))


def _moved(value: Any, there: str, here: str) -> Any:
    """Returns a configuration whose places in one run folder are those in another."""
    if isinstance(value, dict):
        return {key: _moved(child, there, here) for key, child in value.items()}
    if isinstance(value, list):
        return [_moved(child, there, here) for child in value]
    if isinstance(value, str) and (value == there or value.startswith(f"{there}{os.sep}")):
        return here + value.removeprefix(there)
    return value


def _relative(path: Path, folder: Path) -> str:
    """Writes a path as seen from a folder, so that both may be moved together."""
    return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()
