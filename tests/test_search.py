"""A search: trials chosen, pruned, shared and gone on with; what is refused before the first one."""

from __future__ import annotations

import gc
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import optuna
import pandas as pd
import pytest
import yaml
from conftest import REPOSITORY, TINY, WriteHam
from filelock import FileLock
from hydra import compose, initialize_config_dir
from hydra.conf import ConfigSourceInfo
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch.callbacks import Callback
from omegaconf import DictConfig, open_dict, read_write
from optuna.trial import TrialState

from skinseg import train
from skinseg.build.trust import check_stored
from skinseg.callbacks.pruning import ReportTrial
from skinseg.config.check import check
from skinseg.config.compose import config_dir, plain
from skinseg.config.internals import as_the_job_sees_it
from skinseg.errors import InterruptedRunError, SkinsegError
from skinseg.run.claims import LOCK
from skinseg.run.writing import write_json
from skinseg.sweep import search
from skinseg.sweep.jobs import FAILED, JOB, Job
from skinseg.sweep.study import PRUNED, STORAGE, counted, open_storage

SPACE = (
    "~search.space",
    "+search.space={optimizer.lr:{low:1e-5,high:1e-2,log:true},loss:{choices:[dice,bce]}}",
)
SMALL = (*TINY, "data=synthetic", "+sweep=hpo", *SPACE)


@pytest.fixture(autouse=True)
def hydra_as_it_was() -> Iterator[None]:
    yield
    GlobalHydra.instance().clear()
    HydraConfig.instance().cfg = None


Prepare = Callable[..., DictConfig]


@pytest.fixture
def prepare(tmp_path: Path) -> Prepare:
    """Returns a function that composes a search in this process as the command does."""

    def composed(*overrides: str) -> DictConfig:
        GlobalHydra.instance().clear()
        # Stays: a search composes its trials with it.
        initialize_config_dir(str(config_dir()), version_base="1.3").__enter__()
        task = [*SMALL, *overrides]
        cfg = compose("train", task, return_hydra_config=True)
        with read_write(cfg.hydra), open_dict(cfg.hydra):
            cfg.hydra.overrides.task = task
            cfg.hydra.overrides.hydra = []
            cfg.hydra.job.config_name = "train"
            cfg.hydra.runtime.cwd = str(tmp_path)
            cfg.hydra.runtime.config_sources = [ConfigSourceInfo("own", "file", "command-line")]
        folder = tmp_path / "search"
        folder.mkdir(exist_ok=True)
        return as_the_job_sees_it(cfg, folder)

    return composed


class Children:
    """Stands for the processes of the trials: they end at once, as a test says."""

    def __init__(self, behave: Callable[[Job], float | str | int]) -> None:
        self.behave = behave
        self.jobs: list[Job] = []

    def __call__(
        self, job: Job, *, cwd: str, alone: bool, trust: Sequence[str], variables: Mapping[str, str]
    ) -> int:
        self.jobs.append(job)
        assert Job.read(job.folder) == job
        assert set(variables) == {STORAGE}
        assert trust == []  # all that it names is known
        check_stored(json.loads((job.folder / JOB).read_text())["config"], source="job.json")
        does = self.behave(job)
        if isinstance(does, str):
            write_json(job.folder / FAILED, {"error": does, "exit_code": 1})
            return 1
        if isinstance(does, int):
            return does
        write_json(job.folder / "summary.json", summary(does))
        return 0


def summary(score: float) -> dict[str, Any]:
    """What a trial leaves; its test subset holds nothing that a search may use."""
    training = {"steps": 1, "seconds": 17.5}
    return {"objective": {"value": score}, "training": training, "scores": {"test": {"dice": 1 - score}}}


Start = Callable[..., Children]


def study_of(where: str) -> optuna.Study:
    return optuna.load_study(study_name="run", storage=open_storage(where))


@pytest.fixture
def start(prepare: Prepare, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Returns a function that runs a search with such children."""

    def begin(behave: Callable[[Job], float | str | int], *overrides: str, drawn: bool = False) -> Children:
        children = Children(behave)
        if not drawn:
            monkeypatch.setattr(search, "draw", lambda *_: None)
        monkeypatch.setattr(search, "run_in_child", children)
        train.run(prepare(*overrides))
        return children

    return begin


def rate(job: Job) -> float:
    return float(job.config["optimizer"]["lr"])


def table(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "search/trials.csv")


class TestRefused:
    """Before there is a run folder."""

    @pytest.mark.parametrize(
        ("overrides", "says"),
        [
            (["search.trials=0"], r"search\.trials=0: expected more than 0"),
            (["search.jobs=0"], r"search\.jobs=0: expected more than 0"),
            (["test=true"], "never scores the test subset; leave it out"),
            (["ckpt_path=a.ckpt"], "each trial of a search starts anew"),
            (["find=lr"], r"find=lr: would replace optimizer\.lr"),
            (["monitor=train/loss", "mode=min"], "never on the images that it is trained or scored on"),
            (["search.storage=trials"], r"search\.storage=trials: expected a path that ends in \.log"),
            (["search.space={optimizer.lr:{low:1,high:0.1}}"], r"optimizer\.lr=.*: `low <= high` must hold"),
            (
                ["++search.space={optimizer.lrr:{low:1,high:2}}"],
                r"you mean optimizer\.lr\?.*lrr=1, .*lrr=2",
            ),
            (["++search.space={loss:{choices:[dice,bcee]}}"], r"did you mean loss=bce\?.*with loss=bcee"),
            (["++search.space={seed:{low:-1,high:3}}"], r"seed=-1: expected 0 or more\. \(with seed=-1\)"),
            (["++search.space={channels_last:{choices:[x]}}"], "valid boolean.*with channels_last=x"),
            (["search.sampler.n_startup=1"], r"did you mean search\.sampler\.n_startup_trials\?"),
            (["search.pruner._target_=optuna.pruners.Medium"], r"search\.pruner\._target_"),
            (["~search.pruner"], r"search\.pruner: missing; choose an option, e\.g\. .*none"),
            (["search.trails=1"], "did you mean search.trials"),
            (
                ["++search.space={seed:{low:1,high:many}}"],
                r"search\.space\.seed\.high='many': Input should be",
            ),
            (
                ["++search.space.optimizer.lr.low=1e-5"],
                r"space\.optimizer\.lr: a key with dots.*\{optimizer\.lr:\{",
            ),
            (["++search.space.data.split.seed.low=1"], r"space\.data\.split\.seed: a key with dots"),
        ],
    )
    def test_with_a_message(self, prepare: Prepare, overrides: list[str], says: str) -> None:
        forced = [word.replace("search.trails", "+search.trails") for word in overrides]
        forced = [word.replace("search.sampler.n_", "+search.sampler.n_") for word in forced]
        config = plain(prepare(*forced))
        with pytest.raises(SkinsegError, match=says) as refused:
            train._checked(config)
        assert "Traceback" not in str(refused.value)

    def test_bounds_from_the_environment(self, prepare: Prepare, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, text in (("LOW", "1e-4"), ("HIGH", "1e-2"), ("LOG", "true"), ("SEEDS", "5")):
            monkeypatch.setenv(name, text)
        rate = "optimizer.lr:{low:${oc.env:LOW},high:${oc.env:HIGH},log:${oc.env:LOG}}"
        config = plain(prepare(f"++search.space={{{rate},seed:{{low:1,high:${{oc.env:SEEDS}}}}}}"))
        space = train._checked(config)["search"]["space"]
        assert space["optimizer.lr"] == {"low": 1e-4, "high": 1e-2, "log": True}
        assert repr(space["seed"]) == "{'low': 1, 'high': 5}"

    def test_an_empty_space(self, prepare: Prepare) -> None:
        config = plain(prepare())
        config["search"]["space"] = {}
        with pytest.raises(SkinsegError, match=r"search\.space: empty; name at least one key"):
            train._checked(config)

    def test_all_problems_are_named_at_once(self, prepare: Prepare) -> None:
        space = "++search.space={optimizer.lrr:{low:1,high:2},model.foo:{choices:[1]},loss:{choices:[x]}}"
        with pytest.raises(SkinsegError, match=r"no trial was started") as refused:
            train._checked(plain(prepare(space)))
        for key in ("optimizer.lrr", "model.foo", "loss=x"):
            assert key in str(refused.value)

    def test_without_optuna(self, prepare: Prepare, monkeypatch: pytest.MonkeyPatch) -> None:
        config = plain(prepare())
        find = search.check.__globals__["importlib"].util.find_spec
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "optuna" else find(name))
        with pytest.raises(SkinsegError, match=r"pip install 'skinseg\[search\]'"):
            check(config)

    def test_a_grid_of_searches(self, tmp_path: Path) -> None:
        done = run_command("-m", *SMALL, "seed=1,2", cwd=tmp_path)
        assert done.returncode == 2
        assert "a search makes its own trials" in done.stderr
        assert list(tmp_path.iterdir()) == []

    def test_a_sampler_that_refuses_its_arguments(self, prepare: Prepare) -> None:
        with pytest.raises(SkinsegError, match=r"search\.pruner: .*refused its arguments: .*negative"):
            train.run(prepare("search.pruner.n_warmup_steps=-1"))


class TestTrials:
    def test_their_configurations(self, start: Start, tmp_path: Path) -> None:
        drawn = ("search.trials=4", "search.sampler.seed=0")
        children = start(rate, *drawn, "search.study=mine", "logger=[csv,wandb]")
        assert [job.number for job in children.jobs] == [0, 1, 2, 3]
        losses = set()
        for job in children.jobs:
            config = job.config
            check({**config})
            assert config["test"] is False
            assert config["search"] is None
            assert config["run_dir"] == str(job.folder) == str(tmp_path / f"search/trials/{job.number}")
            assert config["callbacks"]["checkpoint"]["dirpath"] == f"{job.folder}/checkpoints"
            assert config["group"] == config["logger"]["wandb"]["group"] == "search_mine"
            assert 1e-5 <= rate(job) <= 1e-2
            assert f"optimizer.lr={rate(job)!r}" in job.overrides
            assert config["logger"]["wandb"]["name"] == f"run {' '.join(job.words)}"
            losses.add(config["loss"]["_target_"])
        assert len({rate(job) for job in children.jobs}) == 4
        assert len(losses) > 1

    @pytest.mark.slow
    def test_what_is_left_at_the_end(
        self, start: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        given = ["search.trials=12", "data.root='a b'"]
        with caplog.at_level("INFO"):
            children = start(rate, *given, drawn=True)
        folder = tmp_path / "search"
        leading = max(children.jobs, key=rate)
        found = yaml.safe_load((folder / "best.yaml").read_text())
        assert found["trial"] == leading.number
        assert found["val/dice"] == rate(leading) == found["values"]["optimizer.lr"]
        assert found["command"] in caplog.text
        words = shlex.split(found["command"])
        assert words[:3] == ["python", "-m", "skinseg.train"]
        assert words[3:5] == ["--config-dir", "own"]
        assert words[5:-3] == [*SMALL, *given, *leading.overrides]
        assert words[-3:] == ["search=null", "test=true", f"hydra.run.dir={folder / 'best'}"]
        assert table(tmp_path)["score"].tolist() == [rate(job) for job in children.jobs]
        for picture in ("history.png", "values.png", "importance.png"):
            assert (folder / picture).stat().st_size > 10_000

    def test_the_same_command_shows_it_again_and_more_trials_go_on(
        self, start: Start, tmp_path: Path
    ) -> None:
        assert len(start(rate, "search.trials=2").jobs) == 2
        (tmp_path / "search/best.yaml").unlink()
        assert start(rate, "search.trials=2").jobs == []
        assert (tmp_path / "search/best.yaml").is_file()
        assert [job.number for job in start(rate, "search.trials=5").jobs] == [2, 3, 4]

    @pytest.mark.slow
    def test_side_by_side(self, start: Start, tmp_path: Path) -> None:
        def slow(job: Job) -> float:
            time.sleep(0.05)
            return rate(job)

        children = start(slow, "search.trials=7", "search.jobs=3")
        assert sorted(job.number for job in children.jobs) == list(range(7))
        assert table(tmp_path)["state"].tolist() == ["complete"] * 7

    def test_a_failed_trial_does_not_end_the_search(self, start: Start, tmp_path: Path) -> None:
        start(lambda job: "no memory" if job.number == 1 else 0.5, "search.trials=4")
        assert table(tmp_path)["state"].tolist() == ["complete", "fail", "complete", "complete"]
        assert table(tmp_path)["error"].tolist()[1] == "no memory"

    @pytest.mark.parametrize(
        ("does", "error"),
        [(-9, "Killed by signal 9, often for want of memory."), (3, "Ended with exit code 3.")],
    )
    def test_a_trial_that_leaves_no_reason(self, start: Start, tmp_path: Path, does: int, error: str) -> None:
        start(lambda job: does if job.number == 0 else 0.5, "search.trials=2")
        assert table(tmp_path)["error"].tolist()[0] == error

    def test_a_trial_that_diverges_has_failed(self, start: Start, tmp_path: Path) -> None:
        start(lambda job: float("nan") if job.number == 0 else 0.5, "search.trials=2")
        assert table(tmp_path)["state"].tolist() == ["fail", "complete"]
        assert "diverged" in table(tmp_path)["error"].tolist()[0]

    def test_three_failures_at_the_start_end_it(self, start: Start, tmp_path: Path) -> None:
        with pytest.raises(SkinsegError, match=r"first 3 trials failed.*\n- no disk"):
            start(lambda job: "no disk", "search.trials=9")
        assert len(table(tmp_path)) == 3

    def test_no_trial_with_a_score(self, start: Start) -> None:
        with pytest.raises(SkinsegError, match=r"No trial .* has a score: 2 of 2 failed\.\n- no disk"):
            start(lambda job: "no disk", "search.trials=2")

    @pytest.mark.slow
    def test_another_search_of_the_same_name(self, start: Start) -> None:
        start(rate, "search.trials=1")
        with pytest.raises(SkinsegError, match=r"\n  optimizer\.weight_decay: 0\.01 there, 0\.5 here"):
            start(rate, "search.trials=2", "optimizer.weight_decay=0.5")
        with pytest.raises(
            SkinsegError, match=r"\n  search\.space\.optimizer\.lr\.high: 0\.01 there, 0\.1 here"
        ):
            start(rate, "search.trials=2", "++search.space={optimizer.lr:{high:0.1}}")
        # What differs between machines, or between the parts of a search.
        start(
            rate, "search.trials=2", "data.root=elsewhere", "data.num_workers=2", "pruner@search.pruner=none"
        )

    def test_a_pruned_trial(self, start: Start, tmp_path: Path) -> None:
        def pruned(job: Job) -> float:
            if job.number == 1:
                node = job.config["callbacks"]["trial"]
                study = study_of(str(tmp_path / "search/journal.log"))
                assert study.trials[1]._trial_id == node["trial"]
                study._storage.set_trial_intermediate_value(node["trial"], 0, 0.9)
                study._storage.set_trial_user_attr(node["trial"], PRUNED, 0)
                return 0.9
            return 0.5

        start(pruned, "search.trials=3")
        assert table(tmp_path)["state"].tolist() == ["complete", "pruned", "complete"]
        assert yaml.safe_load((tmp_path / "search/best.yaml").read_text())["val/dice"] == 0.5

    def test_an_edit_of_conf_does_not_reach_later_trials(
        self, prepare: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        own = tmp_path / "own/loss"
        own.mkdir(parents=True)
        text = "_target_: skinseg.models.losses.Dice\nsmooth: {}\n"
        (own / "mine.yaml").write_text(text.format(1.0))

        def edits(job: Job) -> float:
            (own / "mine.yaml").write_text(text.format(2.0))
            return 0.5

        children = Children(edits)
        monkeypatch.setattr(search, "run_in_child", children)
        words = ["++search.space={loss:{choices:[mine]}}", "search.trials=3"]
        cfg = prepare(*words, f"hydra.searchpath=[file://{tmp_path}/own]")
        master: Any = HydraConfig.instance().cfg
        with read_write(master.hydra):
            master.hydra.overrides.task.remove(f"hydra.searchpath=[file://{tmp_path}/own]")
            master.hydra.overrides.hydra = [f"hydra.searchpath=[file://{tmp_path}/own]"]
        train.run(cfg)
        assert [job.config["loss"]["smooth"] for job in children.jobs] == [1.0] * 3


class TestGoneOnWith:
    def test_after_ctrl_c(self, start: Start, tmp_path: Path) -> None:
        def interrupted(job: Job) -> float | int:
            if job.number < 1:
                return 0.5
            (job.folder / "checkpoints").mkdir()
            (job.folder / "checkpoints/last.ckpt").touch()
            return InterruptedRunError.exit_code

        with pytest.raises(InterruptedRunError, match="to go on, run the same command"):
            start(interrupted, "search.trials=3")
        assert table(tmp_path)["trial"].tolist() == [0]
        with pytest.raises(InterruptedRunError):  # once more, before a checkpoint of its own
            start(lambda job: InterruptedRunError.exit_code, "search.trials=3")
        later = start(rate, "search.trials=3").jobs
        assert [job.number for job in later] == [3, 4]
        before = Job.read(tmp_path / "search/trials/1")
        assert later[0].overrides == before.overrides
        assert later[0].action == "resume"
        assert later[0].config["ckpt_path"] == str(before.folder / "checkpoints/last.ckpt")
        assert later[1].config["ckpt_path"] is None
        assert table(tmp_path)["trial"].tolist() == [0, 3, 4]

    def test_a_trial_that_had_ended_before_its_search_was_killed(self, start: Start, tmp_path: Path) -> None:
        """Its result counts, although nobody has recorded it."""

        class Killed(BaseException):
            pass

        def kills(job: Job) -> float:
            write_json(job.folder / "summary.json", summary(0.75))
            raise Killed

        with pytest.raises(Killed):
            start(kills, "search.trials=2")
        gc.collect()  # with the lock of the trial's folder, as the system does when it ends a process
        assert study_of(str(tmp_path / "search/journal.log")).trials[0].state == TrialState.RUNNING
        start(lambda job: 0.5, "search.trials=2")
        assert table(tmp_path)["score"].tolist() == [0.75, 0.5]
        seconds = summary(0.75)["training"]["seconds"]
        assert table(tmp_path)["seconds"][0] == seconds, "of the training, not until it was recorded"

    @pytest.mark.slow
    @pytest.mark.parametrize("torn", ["", '{"number": 0, "ov', "[]", "5"])
    def test_a_trial_whose_job_was_not_written_as_a_whole_is_taken_up_again(
        self, torn: str, start: Start, tmp_path: Path
    ) -> None:
        class Killed(BaseException):
            pass

        def kills(job: Job) -> float:
            (job.folder / JOB).write_text(torn)
            raise Killed

        with pytest.raises(Killed):
            start(kills, "search.trials=1")
        gc.collect()
        (again,) = start(rate, "search.trials=1").jobs
        assert again.number == 1
        assert table(tmp_path)["state"].tolist() == ["complete"]

    def test_a_journal_that_lost_its_end(self, start: Start, tmp_path: Path) -> None:
        """A trial whose end is lost has it in its folder."""
        start(rate, "search.trials=2")
        journal = tmp_path / "search/journal.log"
        scores = table(tmp_path)["score"].tolist()
        journal.write_bytes(journal.read_bytes()[:-25])
        for trials in (3, 4):
            start(rate, f"search.trials={trials}")
            assert table(tmp_path)["state"].tolist() == ["complete"] * trials
        assert table(tmp_path)["score"].tolist()[:2] == scores
        assert journal.with_name("journal.log.torn").is_file()

    def test_a_folder_that_another_command_writes(
        self, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(search, "AGREE_S", 0.1)
        (tmp_path / "search").mkdir()
        with (
            FileLock(tmp_path / "search" / LOCK),
            pytest.raises(SkinsegError, match="another command is writing this folder"),
        ):
            start(rate, "search.trials=1")

    def test_a_folder_that_is_left_of_another_study_is_not_read(self, start: Start, tmp_path: Path) -> None:
        start(lambda job: 0.9, "search.trials=1")
        (tmp_path / "search/journal.log").unlink()
        children = start(lambda job: "broken" if job.number == 0 else 0.5, "search.trials=2")
        assert [job.folder.name for job in children.jobs] == ["0-1", "1"]
        assert table(tmp_path)["state"].tolist() == ["fail", "complete"]


class PruneThat(optuna.pruners.BasePruner):
    """A pruner that stops one trial, after its first validation."""

    def __init__(self, number: int) -> None:
        self.number = number

    def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
        return trial.number == self.number and len(trial.intermediate_values) > 0


class InTrial(Callback):
    """Fails in one trial, or slows it down."""

    def __init__(self, folder: str, fail: int = -1, slow: int = -1) -> None:
        self.number = int(Path(folder).name)
        self.fail = fail
        self.slow = slow

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if self.number == self.fail:
            raise RuntimeError("the sky has fallen")
        if self.number == self.slow:
            time.sleep(0.2)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "skinseg.train", *arguments]


ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{REPOSITORY / 'tests'}"}


def run_command(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )


REAL = (*TINY, "+sweep=hpo", *SPACE, "hydra.run.dir=search", "callbacks=minimal")
FAILING = "+callbacks.fail={_target_: test_search.InTrial, folder: '${run_dir}', "


@pytest.mark.slow
def test_a_search_with_a_pruned_and_a_failing_trial(write_ham: WriteHam, tmp_path: Path) -> None:
    done = run_command(
        *REAL, f"data.root={write_ham(20)}", "search.trials=3", "trainer.max_epochs=3",
        "~search.pruner", "+search.pruner={_target_: test_search.PruneThat, number: 1}", FAILING + "fail: 2}",
        f"search.storage=sqlite:///{tmp_path}/trials.db", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    trials = table(tmp_path)
    assert trials["state"].tolist() == ["complete", "pruned", "fail"]
    assert trials["validations"].tolist() == [3, 1, 0]
    assert trials["error"].tolist()[2] == "RuntimeError: the sky has fallen"
    for number in (0, 1):
        folder = tmp_path / f"search/trials/{number}"
        summary = json.loads((folder / "summary.json").read_text())
        assert summary["scores"]["test"] is None
        assert summary["objective"]["value"] == pytest.approx(trials["score"][number], abs=1e-6)
        assert not (folder / "scores.csv").exists()  # those of the test subset
    # One split for all, and what was found can be trained as it is written.
    assert len({(tmp_path / f"search/trials/{n}/split.csv").read_text() for n in (0, 1)}) == 1
    best = yaml.safe_load((tmp_path / "search/best.yaml").read_text())
    words = shlex.split(best["command"])[3:]
    again = run_command(*[word for word in words if "callbacks.fail" not in word], cwd=tmp_path)
    assert again.returncode == 0, again.stdout + again.stderr
    summary = json.loads((tmp_path / "search/best/summary.json").read_text())
    assert summary["objective"]["value"] == pytest.approx(best["val/dice"], abs=1e-6)
    assert summary["scores"]["test"]["images"] > 0


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.slow
def test_a_killed_search_goes_on(write_ham: WriteHam, tmp_path: Path) -> None:
    words = command(
        *REAL, f"data.root={write_ham(20)}", "search.trials=2", "trainer.max_epochs=4", FAILING + "slow: 1}"
    )
    killed = subprocess.Popen(
        words, cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    trials = tmp_path / "search/trials"
    wait_for(lambda: (trials / "1/checkpoints/last.ckpt").is_file(), killed)
    first = (trials / "0/summary.json").stat().st_mtime_ns
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    done = subprocess.run(words, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert table(tmp_path)["trial"].tolist() == [0, 2]
    assert table(tmp_path)["state"].tolist() == ["complete"] * 2
    assert table(tmp_path)["validations"].tolist() == [4, 4]
    assert (trials / "0/summary.json").stat().st_mtime_ns == first
    before, after = (Job.read(trials / str(number)) for number in (1, 2))
    assert after.overrides == before.overrides
    assert after.config["ckpt_path"] == str(trials / "1/checkpoints/last.ckpt")
    study = study_of(str(tmp_path / "search/journal.log"))
    assert study.get_trials(states=(TrialState.RUNNING, TrialState.WAITING)) == []


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["null", "sqlite:///trials.db"])
def test_two_processes_share_the_trials(write_ham: WriteHam, tmp_path: Path, storage: str) -> None:
    words = command(*REAL, f"data.root={write_ham(20)}", "search.trials=3", f"search.storage={storage}")
    both = [
        subprocess.Popen(
            words, cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for _ in range(2)
    ]
    said = [process.communicate(timeout=300)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    started = [out.count(" starts in ") for out in said]
    assert sum(started) == 3, said
    assert min(started) > 0
    where = str(tmp_path / "search/journal.log") if storage == "null" else f"sqlite:///{tmp_path}/trials.db"
    trials = counted(study_of(where))
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 3
    assert len({trial.params["optimizer.lr"] for trial in trials}) == len(trials)


@pytest.mark.slow
def test_all_ranks_of_a_pruned_trial_end_together(write_ham: WriteHam, tmp_path: Path) -> None:
    done = run_command(
        *REAL, "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "trainer.precision=32-true",
        f"data.root={write_ham(20)}", "search.trials=2", "trainer.max_epochs=3", "~search.pruner",
        "+search.pruner={_target_: test_search.PruneThat, number: 1}", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert table(tmp_path)["state"].tolist() == ["complete", "pruned"]
    assert table(tmp_path)["validations"].tolist() == [3, 1]


class TestReport:
    """The callback of a trial, without a search around it."""

    def trainer(self, callback: ReportTrial, tmp_path: Path) -> L.Trainer:
        return L.Trainer(
            max_epochs=4, accelerator="cpu", logger=False, enable_checkpointing=False, callbacks=[callback],
            enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
        )  # fmt: skip

    @pytest.fixture
    def where(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
        where = str(tmp_path / "a.log")
        monkeypatch.setenv(STORAGE, where)
        optuna.create_study(study_name="run", storage=open_storage(where), direction="maximize").ask()
        return where

    def test_each_validation_and_the_end(self, where: str, tmp_path: Path) -> None:
        callback = ReportTrial("run", 0, "score", optuna.pruners.ThresholdPruner(upper=1.5))
        trainer = self.trainer(callback, tmp_path)
        trainer.fit(Scored())
        (trial,) = study_of(where).trials
        assert trial.intermediate_values == {0: 0.0, 1: 1.0, 2: 2.0}
        assert trial.user_attrs[PRUNED] == 2
        assert trainer.current_epoch == 3

    def test_without_a_search_nothing_happens(
        self, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv(STORAGE)
        trainer = self.trainer(ReportTrial("run", 0, "score"), tmp_path)
        trainer.fit(Scored())
        assert trainer.current_epoch == 4
        assert study_of(where).trials[0].intermediate_values == {}

    def test_a_lost_storage_does_not_end_the_trial(
        self, where: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(STORAGE, str(tmp_path / "gone/a.log"))
        trainer = self.trainer(ReportTrial("run", 0, "score"), tmp_path)
        trainer.fit(Scored())
        assert trainer.current_epoch == 4
        assert caplog.text.count("The scores of this trial are not reported") == 1

    def test_a_resumed_trial_goes_on_counting(self, where: str) -> None:
        first, second = (ReportTrial("run", 0, "score") for _ in range(2))
        first._validations = 3
        second.load_state_dict(first.state_dict())
        assert second._validations == 3


class Scored(L.LightningModule):
    """Whose score is the number of the epoch."""

    def __init__(self) -> None:
        super().__init__()
        import torch

        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch: Any, _: int) -> Any:
        return self.layer(batch).mean()

    def validation_step(self, batch: Any, _: int) -> None:
        self.log("score", float(self.current_epoch))

    def configure_optimizers(self) -> Any:
        import torch

        return torch.optim.SGD(self.parameters(), lr=0.1)

    def train_dataloader(self) -> Any:
        import torch

        return torch.utils.data.DataLoader(torch.zeros(2, 1))

    val_dataloader = train_dataloader


def test_a_job_of_a_trial_is_read_back(start: Start, tmp_path: Path) -> None:
    """So that `python -m skinseg.job <folder>` repeats it."""
    start(rate, "search.trials=1")
    job = Job.read(tmp_path / "search/trials/0")
    assert json.loads((job.folder / JOB).read_text())["config"] == job.config
    assert "storage" not in json.dumps(job.config["callbacks"]["trial"])


def test_a_trial_that_was_told_to_end_is_taken_up_again(tmp_path: Path) -> None:
    """By SIGTERM before it could answer; one that was killed has failed."""
    job = Job(0, [], [], tmp_path, "x", "start", None, {})
    with pytest.raises(KeyboardInterrupt):
        search._result(job, -signal.SIGTERM, pruned=False)
    with pytest.raises(SkinsegError, match="Killed by signal 9"):
        search._result(job, -signal.SIGKILL, pruned=False)
