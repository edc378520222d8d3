"""What is on the disk of a sweep: its plan, and of each job what it was launched with and how it ended."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from skinseg.errors import SkinsegError
from skinseg.record import write_json

PLAN = "sweep.json"
JOB = "job.json"
FAILED = "failed.json"
TRUST = "trust="
"""How the word of `skinseg.job` begins that names packages which a job may name."""
_LOCK = ".running"

Action = Literal["start", "resume", "skip"]

# What two jobs that train the same may differ in: where they write and what they are called.
_PLACES = frozenset(
    {
        "run_dir",
        "ckpt_path",
        "trust",
        "group",
        "job_type",
        "tags",
        "notes",
        "logger",
        "threads",
        "sweep",
        "search",
    }
)


@dataclass(frozen=True)
class Job:
    """A job as it was launched.

    Attributes:
        number: Its place in the sweep, from 0.
        overrides: Hydra overrides that make its configuration.
        words: Those of them in which the sweep's jobs differ.
        folder: Its run folder.
        fingerprint: Of its configuration, by `fingerprint`.
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
        """Writes the job to its folder. See `skinseg.record.write_json`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / JOB, asdict(self))

    @classmethod
    def read(cls, folder: Path) -> Job:
        """Reads what `write` wrote; the folder is the job's run folder now, whatever it was before.

        Raises:
            SkinsegError: There is no such file, or it is none of a job.
        """
        path = folder / JOB
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            earlier, config = content["earlier"], content["config"]
            # Where it lies now, which may be elsewhere than when it was written, and on another machine.
            here = str(folder.absolute())
            if (there := config.get("run_dir", here)) != here:
                config = _moved(config, there, here)
            own = {"folder": folder, "earlier": None if earlier is None else Path(earlier), "config": config}
            return cls(**{**content, **own})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SkinsegError(f"{path} cannot be read as a job of a sweep ({error}).") from error


@dataclass(frozen=True)
class Plan:
    """The jobs of a sweep.

    Attributes:
        folder: Of the sweep.
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


def fingerprint(config: Mapping[str, Any]) -> str:
    """Returns 12 hexadecimal digits that name all of a configuration that a job's result depends on.

    Args:
        config: Resolved. Its run folder does not count, wherever in it that stands.
    """
    counted = {key: value for key, value in config.items() if key not in _PLACES}
    text = json.dumps(counted, sort_keys=True, default=str)
    folder = json.dumps(str(config["run_dir"]))[1:-1]
    return hashlib.sha256(text.replace(folder, "<run_dir>").encode()).hexdigest()[:12]


def state_of(job: Job) -> dict[str, Any]:
    """Returns how far a job is: state (done, failed, interrupted, waiting), objective, seconds, error."""
    try:
        summary = json.loads((job.scores / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        summary = None
    if summary is not None and "failed" not in summary:
        test = summary["scores"]["test"]
        return {
            "state": "done",
            "objective": summary["objective"]["value"],
            "dice": None if test is None else test["dice"],
            "steps": summary["training"]["steps"],
            "seconds": summary["training"]["seconds"],
        }
    if (job.folder / FAILED).is_file():
        return {"state": "failed", **json.loads((job.folder / FAILED).read_text(encoding="utf-8"))}
    return {"state": "interrupted" if (job.folder / "config.yaml").is_file() else "waiting"}


def earlier_jobs(folder: Path) -> Iterator[Job]:
    """Yields the jobs of all sweeps beside one, the latest sweep first, with the one itself.

    Args:
        folder: Of the sweep; those beside it are of the same experiment.
    """
    plans = sorted(folder.parent.glob(f"*/{PLAN}"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in plans:
        try:
            entries = json.loads(path.read_text(encoding="utf-8"))["jobs"]
            places = [path.parent / entry["folder"] for entry in entries]
        except (OSError, ValueError, KeyError, TypeError):
            continue  # what cannot be read cannot be gone on with
        for place in places:
            if (place / JOB).is_file():
                yield Job.read(place)


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
        if _has_finished(other.scores):
            return replace(job, action="skip", earlier=other.scores)
    for other in same:
        if is_running(other.folder):
            raise SkinsegError(
                f"sweep.resume=true: {other.label} is still running, in {other.folder}. Wait for it, or stop "
                "it."
            )
        if (other.folder / "checkpoints" / "last.ckpt").is_file():
            return replace(job, action="resume", earlier=other.folder)
    return job


def _has_finished(folder: Path) -> bool:
    """Returns whether a folder holds the scores of a whole run, and not what is known of one that failed."""
    try:
        return "failed" not in json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False


def running(folder: Path) -> FileLock:
    """Returns the lock that a job holds while it runs; the system releases it however the job ends."""
    return FileLock(folder / _LOCK, timeout=0)


def is_running(folder: Path) -> bool:
    """Returns whether a process holds the lock of a job's folder."""
    if not (folder / _LOCK).is_file():
        return False
    try:
        with running(folder):
            return False
    except Timeout:
        return True


def running_below(sweep: Path) -> bool:
    """Returns whether a job of a sweep is running, on whichever machine.

    Args:
        sweep: Its folder.
    """
    return any(is_running(lock.parent) for lock in sweep.rglob(_LOCK))


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
