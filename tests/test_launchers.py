"""Sweeps whose jobs run at the same time: joblib, submitit and Ray, each with what skinseg adds to it."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import yaml
from conftest import REPOSITORY, TINY, WriteHam
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.errors import MissingConfigException
from lightning.pytorch.callbacks import Callback

from skinseg.callbacks.interrupt import SaveOnInterrupt
from skinseg.config.compose import config_dir
from skinseg.config.explain import explain
from skinseg.errors import SkinsegError
from skinseg.sweep.multirun import PlanSweep

EXTRA = {
    "parallel": "joblib",
    "slurm": "submitit",
    "slurm_local": "submitit",
    "ray_local": "ray",
    "ray_cluster": "ray",
}
HERE = ("parallel", "slurm_local", "ray_local")
TWO = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "trainer.precision=32-true")


@pytest.fixture
def launcher(request: pytest.FixtureRequest) -> str:
    """The name of an option, or a skip where what it needs is not installed."""
    extra = EXTRA[request.param]
    if importlib.util.find_spec(extra) is None or importlib.util.find_spec("hydra_plugins") is None:
        pytest.skip(f"no {extra} here: pip install 'skinseg[{extra}]'")
    return str(request.param)


@pytest.fixture
def hydra_as_it_was() -> Iterator[None]:
    yield
    GlobalHydra.instance().clear()


class Act(Callback):
    """What a job of these tests does in its first step, by the seed of its run.

    Jobs 0 and 1 wait for one another; 2 and 3 fail the first time that they run: one raises, one is killed.
    """

    def __init__(self, folder: str, seed: int) -> None:
        self.folder = Path(folder)
        self.seed = seed

    def on_train_batch_start(self, *_: Any) -> None:
        first_time = not (self.folder / f"{self.seed}.txt").exists()
        (self.folder / f"{self.seed}.txt").touch()
        if first_time and self.seed == 2:
            raise SkinsegError("Failed as it should.")
        if first_time and self.seed == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        deadline = time.monotonic() + 120
        while self.seed < 2 and not (self.folder / f"{1 - self.seed}.txt").exists():
            if time.monotonic() > deadline:
                raise SkinsegError("The other job never ran beside this one.")
            time.sleep(0.05)


class Pause(Callback):
    """Leaves the process's number in the second epoch, of seven steps, and waits to be stopped."""

    def __init__(self, folder: str, seed: int) -> None:
        self.folder = Path(folder)
        self.seed = seed

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step != 9:
            return
        (self.folder / f"{self.seed}.pid").write_text(str(os.getpid()))
        stop = next(callback for callback in trainer.callbacks if isinstance(callback, SaveOnInterrupt))
        while not stop._asked and not (self.folder / "go").exists():
            time.sleep(0.05)


def start(*arguments: str, cwd: Path, **environment: str) -> subprocess.Popen[str]:
    path = os.pathsep.join((str(REPOSITORY), str(REPOSITORY / "tests")))
    return subprocess.Popen(
        [sys.executable, "-m", "skinseg.train", "-m", *TINY, "hydra.sweep.dir=sweep", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": path, "RAY_AUTH_MODE": "disabled", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # a terminal of its own, so to speak
    )


def wait_for(*paths: Path, of: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 180
    while not all(path.is_file() and path.read_text() for path in paths):
        assert of.poll() is None, of.communicate()[0]
        assert time.monotonic() < deadline, paths
        time.sleep(0.1)


def alive(mark: str) -> list[str]:
    """The processes that have inherited a variable from a sweep."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found


def assert_none_alive(mark: str) -> None:
    deadline = time.monotonic() + 60
    while (left := alive(mark)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert left == []


@pytest.mark.parametrize("launcher", EXTRA, indirect=True)
def test_option(launcher: str, monkeypatch: pytest.MonkeyPatch, hydra_as_it_was: None) -> None:
    """What is written there, the plugin takes."""
    assert PlanSweep, "with it comes the count of GPUs"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        overrides = [f"hydra/launcher={launcher}", "hydra.sweep.dir=sweep", "name=unet"]
        node = compose("train", overrides, return_hydra_config=True).hydra.launcher
        made = Plugins.instance()._instantiate(node)
    assert type(made).__name__ == {
        "parallel": "JoblibLauncher",
        "slurm": "SlurmLauncher",
        "slurm_local": "LocalLauncher",
        "ray_local": "RayLauncher",
        "ray_cluster": "RayLauncher",
    }[launcher]  # fmt: skip
    if launcher == "parallel":
        assert node.n_jobs == 2
    if launcher == "ray_local":
        assert node.ray.init.num_cpus == 2
    if launcher.startswith("slurm"):
        assert (node.name, node.gpus_per_node) == ("unet", 1 if launcher == "slurm" else 0)


@pytest.mark.parametrize("option", ["joblib", "submitit_slurm", "ray"])
def test_a_missing_plugin_is_named(option: str) -> None:
    missing = MissingConfigException("not found", f"hydra/launcher/{option}", ["basic"])
    extra = option.split("_")[0]
    assert f"pip install 'skinseg[{extra}]'" in explain(missing, ["hydra/launcher=parallel"])[0]


@pytest.mark.slow
@pytest.mark.parametrize("launcher", HERE, indirect=True)
def test_jobs_at_the_same_time(launcher: str, write_ham: WriteHam, tmp_path: Path) -> None:
    """Those that fail are named while the others finish; conf/ may change meanwhile; resumed, all finish."""
    option = tmp_path / "own/optimizer/own.yaml"
    option.parent.mkdir(parents=True)
    proper = "_target_: torch.optim.SGD\n_partial_: true\nlr: 0.001\n"
    option.write_text(proper)
    command = [
        f"data.root={write_ham(20)}", f"hydra/launcher={launcher}", "seed=0,1,2,3", "optimizer=own",
        f"hydra.searchpath=[file://{tmp_path / 'own'}]",
        f"+callbacks.act={{_target_: test_launchers.Act, folder: '{tmp_path}', seed: '${{seed}}'}}",
    ]  # fmt: skip
    command = [word for word in command if not word.startswith("optimizer.lr")]
    sweep = start(*command, cwd=tmp_path)
    wait_for(tmp_path / "sweep/sweep.json", of=sweep)
    option.write_text("{")
    output = sweep.communicate(timeout=300)[0]
    assert sweep.returncode == 2, output
    assert "Traceback" not in output
    assert "2 of 4 jobs are not done; 2 are." in output
    assert "Job 2 (seed=2): Failed as it should." in output
    assert "Job 3 (seed=3): killed by signal 9." in output
    for job in range(4):
        folder = tmp_path / "sweep" / str(job)
        config = yaml.safe_load((folder / "config.yaml").read_text())
        assert (config["seed"], config["optimizer"]["_target_"]) == (job, "torch.optim.SGD")
        assert (folder / "summary.json").is_file() == (job < 2)
        assert (folder / "console.log").is_file()
    assert (tmp_path / "sweep/comparison/report.html").is_file()

    option.write_text(proper)
    resumed = start(*command, "sweep.resume=true", cwd=tmp_path)
    output = resumed.communicate(timeout=300)[0]
    assert resumed.returncode == 0, output
    assert "2 done before, 0 go on, 2 start." in output
    assert all((tmp_path / f"sweep/{job}/summary.json").is_file() for job in range(4))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc which processes are left")
@pytest.mark.parametrize(
    ("launcher", "how"),
    [
        *((name, "Ctrl-C") for name in HERE),  # to all processes of the terminal
        *((name, "SIGINT") for name in HERE),  # to the sweep alone
        ("parallel", "sweep killed"),
        ("parallel", "worker killed"),
        ("slurm_local", "worker killed"),
        ("ray_local", "sweep killed"),
    ],
    indirect=["launcher"],
)
def test_no_process_is_left(launcher: str, how: str, write_ham: WriteHam, tmp_path: Path) -> None:
    """However it ends, the jobs save within the epoch and end, and the sweep goes on from there."""
    mark = f"skinseg-{uuid.uuid4()}"
    command = [
        f"data.root={write_ham(20)}", f"hydra/launcher={launcher}", "seed=0,1,2", "trainer.max_epochs=2",
        "sweep.compare=false", "test=false",
        f"+callbacks.pause={{_target_: test_launchers.Pause, folder: '{tmp_path}', seed: '${{seed}}'}}",
    ]  # fmt: skip
    sweep = start(*command, cwd=tmp_path, SKINSEG_TEST_MARK=mark)
    pids = [tmp_path / f"{seed}.pid" for seed in (0, 1)]
    wait_for(*pids, of=sweep)
    if how == "Ctrl-C":
        os.killpg(sweep.pid, signal.SIGINT)
    elif how == "worker killed":
        os.kill(parent_of(int(pids[0].read_text())), signal.SIGKILL)
    else:
        sweep.send_signal(signal.SIGINT if how == "SIGINT" else signal.SIGKILL)
    if how == "worker killed" and launcher == "slurm_local":
        (tmp_path / "go").touch()  # the others are not told
    output = sweep.communicate(timeout=180)[0]
    assert_none_alive(mark)
    expected = {"sweep killed": -signal.SIGKILL, "worker killed": 2}
    assert sweep.returncode == expected.get(how, 130), output
    if how == "worker killed":
        assert "The launcher has lost a job" in output
    if how != "sweep killed" and (launcher, how) != ("slurm_local", "Ctrl-C"):
        assert "Traceback" not in output  # submitit's own processes say so at Ctrl-C, which is to them, too
    stopped = [0] if how == "worker killed" else [0, 1]
    for job in stopped:
        last = torch.load(tmp_path / f"sweep/{job}/checkpoints/last.ckpt", weights_only=True)
        assert last["global_step"] == 9, "the end of the first epoch is all that was kept"
        assert not (tmp_path / f"sweep/{job}/failed.json").exists()

    # With slurm_local the third job may have got as far. joblib kills all workers when it has lost one.
    jobs = [path.parents[1] for path in tmp_path.glob("sweep/[0-9]*/checkpoints/last.ckpt")]
    going_on = sum(not (job / "summary.json").exists() for job in jobs)
    assert going_on >= len(stopped)
    (tmp_path / "go").touch()
    resumed = start(*command, "sweep.resume=true", cwd=tmp_path)
    output = resumed.communicate(timeout=300)[0]
    assert resumed.returncode == 0, output
    assert f"{going_on} go on" in output


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc for a job's parent")
@pytest.mark.parametrize("launcher", ["slurm_local"], indirect=True)
def test_a_job_that_is_preempted_goes_on(launcher: str, write_ham: WriteHam, tmp_path: Path) -> None:
    """submitit's signal, which Slurm sends, puts it in the queue again; there it goes on where it was."""
    sweep = start(
        f"data.root={write_ham(20)}", f"hydra/launcher={launcher}", "seed=0,1", "trainer.max_epochs=2",
        "sweep.compare=false", "test=false",
        f"+callbacks.pause={{_target_: test_launchers.Pause, folder: '{tmp_path}', seed: '${{seed}}'}}",
        cwd=tmp_path,
    )  # fmt: skip
    pids = [tmp_path / f"{seed}.pid" for seed in (0, 1)]
    wait_for(*pids, of=sweep)
    os.kill(parent_of(int(pids[0].read_text())), signal.SIGUSR2)
    config = tmp_path / "sweep/0/config.yaml"
    deadline = time.monotonic() + 120
    while yaml.safe_load(config.read_text())["ckpt_path"] is None:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    (tmp_path / "go").touch()
    output = sweep.communicate(timeout=180)[0]
    assert sweep.returncode == 0, output
    assert yaml.safe_load(config.read_text())["ckpt_path"] == str(tmp_path / "sweep/0/checkpoints/last.ckpt")
    assert yaml.safe_load((tmp_path / "sweep/1/config.yaml").read_text())["ckpt_path"] is None


@pytest.mark.slow
@pytest.mark.parametrize("launcher", HERE, indirect=True)
def test_two_processes_within_a_job(launcher: str, write_ham: WriteHam, tmp_path: Path) -> None:
    slurm = {
        "NTASKS": "1",
        "NTASKS_PER_NODE": "1",
        "PROCID": "0",
        "LOCALID": "0",
        "NODEID": "0",
        "JOB_ID": "7",
    }
    sweep = start(
        *TWO, f"data.root={write_ham(20)}", f"hydra/launcher={launcher}", "optimizer.lr=0.001,0.002",
        "test=false", "+callbacks.rank={_target_: conftest.RecordRank, folder: '${run_dir}'}",
        cwd=tmp_path, **{f"SLURM_{name}": value for name, value in slurm.items()},
    )  # fmt: skip
    output = sweep.communicate(timeout=300)[0]
    assert sweep.returncode == 0, output
    for job, rate in ((0, 0.001), (1, 0.002)):
        ranks = {path.name: float(path.read_text()) for path in (tmp_path / f"sweep/{job}").glob("rank*.txt")}
        assert ranks == {"rank0.txt": rate, "rank1.txt": rate}


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
