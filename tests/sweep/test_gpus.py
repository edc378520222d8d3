"""Jobs queue for the GPUs of a machine; here there are none, and environment variables say otherwise."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import REPOSITORY

from skinseg.errors import InterruptedRunError
from skinseg.sweep import gpus
from skinseg.sweep.gpus import reserved, visible_gpus

# Takes GPUs several times; a folder for each GPU in use, which a second job could not make.
JOB = """
import os, sys, time
from pathlib import Path
from skinseg.sweep import gpus

gpus._POLL_S = 0.01
trainer = {"accelerator": "gpu", "devices": int(sys.argv[1])}
for _ in range(int(sys.argv[2])):
    with gpus.reserved(trainer) as environment:
        mine = environment["CUDA_VISIBLE_DEVICES"].split(",")
        for gpu in mine:
            os.mkdir(f"in_use_{gpu}")
        Path(f"took_{os.getpid()}").write_text(" ".join(mine))
        print(len(mine), flush=True)
        time.sleep(float(sys.argv[3]))
        for gpu in mine:
            os.rmdir(f"in_use_{gpu}")
"""

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Returns a function that starts a job: GPUs asked for, how often, for how many seconds each time."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))

    def job(devices: int, times: int, seconds: float, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", JOB, str(devices), str(times), str(seconds)],
            cwd=tmp_path, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    return job


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The locks of this process lie in the test's folder."""
    monkeypatch.setattr(gpus.tempfile, "gettempdir", lambda: str(tmp_path))
    return tmp_path


class WaitedError(Exception):
    """A job had to wait for a GPU."""


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    def wait(_: float) -> None:
        raise WaitedError

    # Not time.sleep itself, with which subprocess waits for nvidia-smi.
    monkeypatch.setattr(gpus, "time", SimpleNamespace(sleep=wait))


def list_gpus(folder: Path, *names: str) -> str:
    """Writes an nvidia-smi that lists these; returns a PATH on which it comes first."""
    folder.mkdir(exist_ok=True)
    program = folder / "nvidia-smi"
    program.write_text("#!/bin/sh\n" + "".join(f"echo {name}\n" for name in names))
    program.chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


def test_two_jobs_never_share_a_gpu(start: Start, tmp_path: Path) -> None:
    """Five processes, one of which asks for both, compete for two."""
    jobs = [start(2 if number == 0 else 1, 8, 0.02, CUDA_VISIBLE_DEVICES="0,1") for number in range(5)]
    output = [job.communicate(timeout=120)[0] for job in jobs]
    assert [job.returncode for job in jobs] == [0] * 5
    assert output == ["2\n" * 8, *["1\n" * 8] * 4]
    assert {name for path in tmp_path.glob("took_*") for name in path.read_text().split()} == {"0", "1"}


@pytest.mark.slow
def test_a_killed_job_gives_its_gpu_back(start: Start, tmp_path: Path) -> None:
    holder = start(1, 1, 600, CUDA_VISIBLE_DEVICES="0")
    assert holder.stdout is not None
    assert holder.stdout.readline() == "1\n"
    waiting = start(1, 1, 0, CUDA_VISIBLE_DEVICES="0")
    with pytest.raises(subprocess.TimeoutExpired):
        waiting.wait(3)
    (tmp_path / "in_use_0").rmdir()
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    assert waiting.communicate(timeout=60) == ("1\n", None)


@pytest.mark.parametrize(
    ("trainer", "shown"),
    [
        ({"accelerator": "auto", "devices": 1}, "0"),
        ({"devices": 2}, "0,1"),
        ({"accelerator": "cuda", "devices": -1}, "0,1"),
        ({"accelerator": "gpu", "devices": 5}, "0,1"),  # Lightning says that there are not as many
        ({"accelerator": "gpu", "devices": [1]}, None),
        ({"accelerator": "gpu", "devices": "auto"}, "0,1"),
        ({"accelerator": "cpu", "devices": 2}, None),
    ],
)
def test_a_job_sees_what_it_asked_for(
    trainer: dict[str, object], shown: str | None, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpus, "visible_gpus", lambda: ["0", "1"])
    with reserved(trainer) as environment:
        assert environment == ({} if shown is None else {"CUDA_VISIBLE_DEVICES": shown})


def test_a_wait_ends_when_the_sweep_is_stopped(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "visible_gpus", lambda: ["0"])
    with (
        reserved({"devices": 1}),
        pytest.raises(InterruptedRunError, match="waited for a GPU"),
        reserved({"devices": 1}, lambda: True),
    ):
        pass


def test_without_a_gpu_nothing_is_hidden(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "visible_gpus", list)
    with reserved({"accelerator": "gpu", "devices": 1}) as environment:
        assert environment == {}


def test_visible_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", list_gpus(tmp_path / "two", "GPU-a", "GPU-b"))
    assert visible_gpus() == ["GPU-a", "GPU-b"]
    for chosen, found in (("1", ["1"]), ("GPU-b, GPU-a", ["GPU-b", "GPU-a"]), ("", []), ("-1", [])):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
        assert visible_gpus() == found
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setenv("PATH", str(tmp_path))  # without that program
    assert visible_gpus() == []


@pytest.mark.usefixtures("no_waiting")
def test_a_gpu_is_the_same_by_number_and_by_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One sweep was started with CUDA_VISIBLE_DEVICES, the other without."""
    monkeypatch.setenv("PATH", list_gpus(folder / "two", "GPU-a", "GPU-b"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    with reserved({"devices": 1}) as first:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
        with reserved({"devices": 1}) as second:
            assert (first, second) == ({"CUDA_VISIBLE_DEVICES": "1"}, {"CUDA_VISIBLE_DEVICES": "GPU-a"})
            with pytest.raises(WaitedError), reserved({"devices": 1}):
                pass


@pytest.mark.usefixtures("no_waiting")
def test_the_first_gpu_of_two_slurm_jobs_is_not_the_same(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slurm shows each job of a machine its own GPU alone, as number 0."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setenv("PATH", list_gpus(folder / "one", "GPU-a"))
    with reserved({"devices": 1}):
        monkeypatch.setenv("PATH", list_gpus(folder / "other", "GPU-b"))
        with reserved({"devices": 1}) as environment:
            assert environment == {"CUDA_VISIBLE_DEVICES": "0"}
