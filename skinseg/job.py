"""A job of a sweep: what the sweep has planned, in a process of its own.

python -m skinseg.job <run folder> [trust=<package>,<another>]

It is what a sweep starts; by hand it starts a job as it was launched, or goes on from the job's own last
checkpoint, where there is one. The folder may be of somebody else:
which packages beside the known ones its configuration may name is said here (see `skinseg.build.trust`).
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import signal
import sys
import traceback
from dataclasses import replace
from pathlib import Path
from types import FrameType

from omegaconf import OmegaConf

from skinseg.build.trust import check_stored
from skinseg.errors import InterruptedRunError, SkinsegError
from skinseg.names import ESCAPED, escape_output
from skinseg.quoting import literal
from skinseg.run.claims import claimed
from skinseg.run.layout import RESULTS, last_of
from skinseg.run.record import BEFORE
from skinseg.run.writing import write_json
from skinseg.sweep.jobs import FAILED, JOB, TRUST, Job, result_of
from skinseg.sweep.stop import END
from skinseg.train import is_first, run

_ASIDE = "checkpoints.interrupted"


def main() -> int:
    """Runs the job and returns the exit code; why it failed is left in its folder."""
    words = sys.argv[1:]
    trust = [package for word in words[1:] for package in word.removeprefix(TRUST).split(",")]
    if not words or not all(word.startswith(TRUST) for word in words[1:]):
        print(f"Expected the job's folder and {TRUST}<packages>; found {words}.", file=sys.stderr)
        return SkinsegError.exit_code
    escape_output()
    logging.raiseExceptions = False  # as in `Command.main`
    folder = Path(words[0])
    try:
        job = _read(folder, trust)
        if not is_first(dict(job.config)):  # a further process of the one that has the folder
            return _run(job)
        _end_on_request()
        with claimed(folder):
            (folder / FAILED).unlink(missing_ok=True)
            _make_room(folder)
            return _run(job)
    except SkinsegError as error:
        print(error, file=sys.stderr)
    return SkinsegError.exit_code


def _read(folder: Path, trust: list[str]) -> Job:
    job = Job.read(folder)
    check_stored(job.config, source=str(folder / JOB), trust=trust)
    config = {**BEFORE, **job.config, "trust": trust}  # a sweep of an earlier version may go on
    if (last := last_of(folder)).is_file():
        # A sweep's scheduler has stopped it, for another job or at the end of its time, or a user has.
        config["ckpt_path"] = str(last)
    return replace(job, config=config)


def _make_room(folder: Path) -> None:
    """Moves aside what a training left from which nothing can go on, for it has no last.ckpt.

    It was killed before its first one, or its summary cannot be read.
    """
    checkpoints = folder / "checkpoints"
    if last_of(folder).is_file() or result_of(folder) is not None:
        return
    results = [path for name in (*RESULTS, "masks") if (path := folder / name).exists()]
    if not results and not any(checkpoints.glob("*.ckpt")):
        return
    number = next(n for n in itertools.count(1) if not (folder / f"{_ASIDE}-{n}").exists())
    aside = folder / f"{_ASIDE}-{number}"
    if checkpoints.is_dir():
        checkpoints.rename(aside)
    else:
        aside.mkdir()
    for path in results:
        path.rename(aside / path.name)


def _run(job: Job) -> int:
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    log = logging.FileHandler(job.folder / "train.log", encoding="utf-8", errors=ESCAPED)
    log.setFormatter(logging.Formatter("%(message)s"))
    logging.getLogger().addHandler(log)
    try:
        run(OmegaConf.create(literal(dict(job.config))))
    except InterruptedRunError as error:
        logging.getLogger("skinseg").error("%s", error)
        return error.exit_code
    except SkinsegError as error:
        logging.getLogger("skinseg").error("%s", error)
        code, reason = error.exit_code, str(error)
    except KeyboardInterrupt:
        return InterruptedRunError.exit_code
    except Exception as error:  # a bug, raised as it is; the sweep's end says which job it was
        log.handle(
            logging.LogRecord("skinseg", logging.ERROR, __file__, 0, traceback.format_exc(), None, None)
        )
        _leave_reason(job, 1, f"{type(error).__name__}: {error}")
        raise
    else:
        return 0
    # Not before the error is gone, for it may hold open the very file that has filled the disk.
    _leave_reason(job, code, reason)
    return code


def _leave_reason(job: Job, exit_code: int, error: str) -> None:
    with contextlib.suppress(OSError, SkinsegError):  # a full disk is a reason, too, and has been printed
        write_json(job.folder / FAILED, {"exit_code": exit_code, "error": error})


def _end_on_request() -> None:
    """Makes the signal `END` a Ctrl-C, at which the job saves and frees its device; a second one is none.

    It comes from a sweep that is to stop, and from the system when what has started the job is killed. The
    one may follow the other, and a second Ctrl-C would end the job before it has saved.
    """

    def press(_signal: int, _frame: FrameType | None) -> None:
        signal.signal(END, signal.SIG_IGN)
        signal.raise_signal(signal.SIGINT)

    signal.signal(END, press)
    # Ray's workers keep Ctrl-C from all that they start, a shell from what it starts in the background.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, END})
    if sys.platform == "linux":
        import ctypes

        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, END)


if __name__ == "__main__":
    sys.exit(main())
