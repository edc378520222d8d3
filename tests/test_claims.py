"""A folder is written by one command at a time, also where two start in the same second."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import REPOSITORY, TINY
from filelock import FileLock
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import OmegaConf

from skinseg.config import command
from skinseg.config.compose import compose, plain
from skinseg.errors import SkinsegError
from skinseg.run import claims
from skinseg.run.claims import LOCK, claim, claim_new, claimed, is_claimed, release, release_all
from skinseg.train import is_first

# A command at whose start the clock stands still. It waits for the other one after its imports, and in its
# run until the test lets it go on. What it trains is its learning rate.
RUN = """
import json, sys, time
from datetime import datetime
from pathlib import Path
import hydra.core.utils
from skinseg import train
from skinseg.config import command
from skinseg.sweep import multirun

class Clock:
    now = staticmethod(lambda: datetime(2026, 1, 2, 3, 4, 5))

def wait_for(ready):
    deadline = time.monotonic() + 60
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.01)

def learn(folder, rate):
    (Path("runs") / str(rate)).touch()
    wait_for(Path("go").exists)
    content = {"objective": {"value": rate}, "scores": {"test": None}, "training": {"steps": 1, "seconds": 1}}
    (Path(folder) / "summary.json").write_text(json.dumps(content))
    return 0

hydra.core.utils.datetime = Clock
this = command._COMMANDS["train"]
this.checked = multirun.check = lambda config: config  # which imports PyTorch
this.do = lambda config: learn(config["run_dir"], config["optimizer"]["lr"])
multirun.run_in_child = lambda job, **_: learn(job.folder, job.config["optimizer"]["lr"])
number, sys.argv[1:] = sys.argv[1], sys.argv[2:]
Path(f"ready{number}").touch()
wait_for(lambda: len(list(Path().glob("ready*"))) >= 2)
sys.exit(train.main())
"""
RUNS = [word for word in TINY if not word.startswith("optimizer.lr")] + ["data=synthetic"]
SWEEP = ["-m", "seed=1,2", "sweep.compare=false"]


@pytest.fixture(autouse=True)
def nothing_is_kept() -> Any:
    yield
    release_all()


def start(number: int, *words: str, cwd: Path) -> subprocess.Popen[str]:
    (cwd / "runs").mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-c", RUN, str(number), *words, *RUNS],
        cwd=cwd, env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def two(*words: str, cwd: Path) -> list[subprocess.Popen[str]]:
    return [start(number, *words, f"optimizer.lr={rate}", cwd=cwd) for number, rate in ((1, 0.25), (2, 0.5))]


def wait_for(ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def read(path: Path) -> Any:
    return json.loads(path.read_text())


@pytest.mark.parametrize("mode", ["run", "sweep"])
def test_two_commands_of_one_second_have_a_folder_each(mode: str, tmp_path: Path) -> None:
    (tmp_path / "go").touch()
    both = two(*(SWEEP if mode == "sweep" else []), cwd=tmp_path)
    said = [process.communicate(timeout=200)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    parent = tmp_path / "outputs" / ("sweeps/run" if mode == "sweep" else "run")
    folders = sorted(parent.iterdir())
    assert [folder.name for folder in folders] == ["2026-01-02_03-04-05", "2026-01-02_03-04-05_2"]
    found = []
    for folder in folders:
        for job in [folder] if mode == "run" else [folder / "0", folder / "1"]:
            rate = yaml.safe_load((job / ".hydra/config.yaml").read_text())["optimizer"]["lr"]
            assert read(job / "summary.json")["objective"]["value"] == rate
            if mode == "sweep":
                assert read(job / "job.json")["config"]["optimizer"]["lr"] == rate
                assert read(job / "job.json")["config"]["run_dir"] == str(job)
            found.append(rate)
        assert not (folder / LOCK).exists()
    assert sorted(found) == ([0.25, 0.5] if mode == "run" else [0.25, 0.25, 0.5, 0.5])


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["run", "sweep"])
def test_of_two_commands_with_one_folder_one_is_refused(mode: str, tmp_path: Path) -> None:
    words = [*(SWEEP if mode == "sweep" else []), f"hydra.{mode}.dir=mine"]
    both = two(*words, cwd=tmp_path)
    wait_for(lambda: any(process.poll() is not None for process in both))
    (loser,) = (process for process in both if process.poll() is not None)
    (winner,) = (process for process in both if process is not loser)
    assert loser.communicate()[0] == (
        f"{tmp_path / 'mine'}: another command is writing this folder. Wait until it has ended, stop it, or "
        f"take another folder; if none is running, remove {tmp_path / 'mine' / LOCK}.\n"
    )
    assert loser.returncode == 2
    wait_for(lambda: bool(list((tmp_path / "runs").iterdir())))
    rate = 0.25 if winner is both[0] else 0.5
    job = tmp_path / "mine" / ("0" if mode == "sweep" else "")
    assert yaml.safe_load((job / ".hydra/config.yaml").read_text())["optimizer"]["lr"] == rate
    if mode == "sweep":  # which is another one than the one that is killed below
        (tmp_path / "go").touch()
        out, _ = winner.communicate(timeout=100)
        assert winner.returncode == 0, out
        for number in (0, 1):
            assert read(tmp_path / f"mine/{number}/summary.json")["objective"]["value"] == rate
        return
    # A killed command has its folder no longer.
    os.kill(winner.pid, signal.SIGKILL)
    winner.communicate()
    assert (job / LOCK).exists()
    (tmp_path / "go").touch()
    third = start(3, *words, "optimizer.lr=0.75", cwd=tmp_path)
    out, _ = third.communicate(timeout=100)
    assert third.returncode == 0, out
    assert read(job / "summary.json")["objective"]["value"] == 0.75


NEEDED = {
    "train": [],
    "evaluate": ["ckpt=a.ckpt"],
    "ensemble": ["runs=[a,b]"],
    "compare": ["runs=[a,b]"],
    "audit": [],
    "preview": [],
    "split": [],
    "predict": ["ckpt=a.ckpt", "input=photographs", "output=masks"],
    "dashboard": ["entity=me", "group=mine"],
}
"""What each command that writes a run folder cannot do without."""


@pytest.mark.parametrize("name", NEEDED)
@pytest.mark.parametrize("key", ["hydra.run.dir", "run_dir"])
def test_every_command_refuses_a_folder_that_another_one_writes(
    name: str, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = importlib.import_module(f"skinseg.{name}")
    monkeypatch.setattr(command._COMMANDS[name], "checked", lambda config: config)
    monkeypatch.setattr(claims, "_PATIENCE_S", 0.1)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [name, f"{key}=mine", *NEEDED[name]])
    lock = other_process_has(tmp_path / "mine")
    with pytest.raises(SystemExit) as ended:
        module.main()
    assert ended.value.code == 2
    assert "mine: another command is writing this folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.rglob("*")] == ["mine", LOCK]
    lock.release()


def test_masks_are_not_written_beside_those_of_a_call_that_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from skinseg.predict import run

    monkeypatch.setattr(claims, "_PATIENCE_S", 0.1)
    words = ["ckpt=a.ckpt", f"input={tmp_path}", f"output={tmp_path / 'masks'}", f"run_dir={tmp_path}"]
    lock = other_process_has(tmp_path / "masks")
    with pytest.raises(SkinsegError, match="masks: another command is writing this folder"):
        run(compose(words, "predict"))
    lock.release()


class TestRanks:
    """The processes of one training share its folder, which the first one has."""

    def test_the_trainer_says_which_is_the_first(self, monkeypatch: pytest.MonkeyPatch) -> None:
        alone, two = (
            plain(compose([*TINY, "run_dir=.", *words]))
            for words in ([], ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"])
        )
        monkeypatch.setattr(rank_zero_only, "rank", 0)  # put back at the end
        for name in command.RANK_VARIABLES:
            monkeypatch.delenv(name, raising=False)
        assert is_first(alone)
        monkeypatch.setenv("LOCAL_RANK", "1")  # as Lightning starts it
        assert is_first(alone), "left over from something else"
        assert not is_first(two)
        started = {"RANK": 0, "LOCAL_RANK": 0, "GROUP_RANK": 0, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
        for name, value in (started | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": 1}).items():
            monkeypatch.setenv(name, str(value))  # as torchrun
        assert is_first(two)
        monkeypatch.setenv("RANK", "1")
        monkeypatch.setenv("LOCAL_RANK", "1")
        assert not is_first(two)

    def test_another_one_goes_on_in_the_folder_and_leaves_its_record_alone(self, tmp_path: Path) -> None:
        lock = other_process_has(tmp_path)
        cfg = OmegaConf.create({"hydra": {"run": {"dir": str(tmp_path)}, "output_subdir": ".hydra"}})
        command._take_folders(cfg, {"run_dir": str(tmp_path)}, "not")
        assert cfg.hydra.output_subdir is None
        lock.release()


def other_process_has(folder: Path) -> FileLock:
    """The lock of another process; within one, too, a second lock of a file waits for the first."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK, timeout=0, thread_local=False)
    lock.acquire()
    return lock


class TestClaim:
    def test_a_folder_of_another_process(self, tmp_path: Path) -> None:
        lock = other_process_has(tmp_path)
        assert is_claimed(tmp_path)
        with (
            pytest.raises(SkinsegError, match="another command is writing this folder"),
            claimed(tmp_path, patience_s=0.1),
        ):
            pass
        lock.release()
        assert not is_claimed(tmp_path)
        with claimed(tmp_path):
            assert is_claimed(tmp_path)
            with claimed(tmp_path):  # within itself it is free
                pass
            assert is_claimed(tmp_path)
        assert not is_claimed(tmp_path)
        assert list(tmp_path.iterdir()) == []

    def test_who_asks_does_not_stand_in_the_way(self, tmp_path: Path) -> None:
        lock = other_process_has(tmp_path)
        threading.Timer(0.2, lock.release).start()
        claim(tmp_path)
        assert is_claimed(tmp_path)

    def test_a_new_folder_is_nobody_elses(self, tmp_path: Path) -> None:
        folder = tmp_path / "a/b"
        assert [claim_new(folder).name for _ in range(3)] == ["b", "b_2", "b_3"]
        (folder / "kept.txt").touch()
        release_all()
        assert list(folder.parent.iterdir()) == [folder], "what nothing was written into goes"

    def test_one_folder_by_two_names(self, tmp_path: Path) -> None:
        (tmp_path / "real").mkdir()
        link = tmp_path / "link"
        link.symlink_to(tmp_path / "real")
        claim(tmp_path / "real")
        claim(link)
        claim(tmp_path / "real/../link")
        assert is_claimed(link)
        release(link)
        assert not is_claimed(tmp_path / "real")

    @pytest.mark.parametrize("take", [claim, claim_new])
    def test_below_a_link_to_nothing(self, take: Callable[[Path], Any], tmp_path: Path) -> None:
        """Such as outputs on a disk that has been cleaned."""
        (tmp_path / "outputs").symlink_to(tmp_path / "gone")
        with pytest.raises(SkinsegError, match=r"outputs/1: nothing can be written there \("):
            take(tmp_path / "outputs/1")

    def test_a_folder_that_was_there_stays(self, tmp_path: Path) -> None:
        claim(tmp_path)
        release(tmp_path)
        release(tmp_path)
        assert tmp_path.is_dir()

    @pytest.mark.parametrize("take", [claim, claim_new])
    def test_a_folder_that_cannot_be_made(self, take: Callable[[Path], Any], tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(SkinsegError, match=r"file/below: nothing can be written there \("):
            take(tmp_path / "file/below")
