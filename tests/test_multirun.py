"""Sweeps: planned before the first job, each job a process, gone on with, compared at the end."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import pandas as pd
import pytest
import yaml
from conftest import REPOSITORY, TINY, WriteHam
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning.pytorch.callbacks import Callback
from omegaconf import OmegaConf

from skinseg import job as command
from skinseg.config.check import check
from skinseg.config.compose import config_dir, plain
from skinseg.config.internals import GRID
from skinseg.errors import SkinsegError
from skinseg.recipes.train import _results_so_far
from skinseg.run.claims import claimed, is_claimed
from skinseg.sweep import jobs, multirun
from skinseg.sweep.jobs import Job, Plan, continued, earlier_jobs, entries_of, state_of
from skinseg.sweep.multirun import _announcement, run_job
from skinseg.sweep.plan import plan_grid

SWEEPS = sorted({path.stem for path in (config_dir() / "sweep").glob("*.yaml")} - {"hpo"})  # no grid
STUDIES = sorted(
    (path.parents[1].name, path.stem) for path in (REPOSITORY / "experiments").glob("*/sweep/*.yaml")
)


@pytest.fixture(autouse=True)
def hydra_as_it_was() -> Iterator[None]:
    yield
    GlobalHydra.instance().clear()
    HydraConfig.instance().cfg = None


def plan(*overrides: str, folder: Path, study: str | None = None) -> Plan:
    """Plans a sweep in this process as the command does."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        search = [] if study is None else [f"hydra.searchpath=[file://{REPOSITORY / 'experiments' / study}]"]
        fixed = [word for word in overrides if "," not in word or "[" in word]
        cfg = compose("train", [*fixed, *search, f"hydra.sweep.dir={folder}"], return_hydra_config=True)
        cfg.hydra.overrides.task = list(overrides)
        cfg.hydra.job.config_name = "train"
        return plan_grid(cfg)


def write(planned: Plan) -> None:
    """What a sweep leaves on the disk before its first job starts."""
    for job in planned.jobs:
        job.write()
    planned.write()


def refused(*overrides: str, folder: Path) -> str:
    with pytest.raises(SkinsegError) as caught:
        plan(*overrides, folder=folder)
    return str(caught.value)


def finish(folder: Path) -> None:
    """What a training leaves at its end."""
    content = {
        "objective": {"value": 0.5},
        "scores": {"test": None},
        "training": {"steps": 3, "seconds": 1.5},
    }
    folder.mkdir(exist_ok=True)
    (folder / "summary.json").write_text(json.dumps(content))


def sweep(*arguments: str, cwd: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "skinseg.train", "-m", *TINY, "hydra.sweep.dir=sweeps/first", *arguments],
        cwd=cwd, env={**os.environ, "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{REPOSITORY / 'tests'}"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip


def finished(process: subprocess.Popen[str], code: int = 0) -> str:
    out, _ = process.communicate(timeout=300)
    assert process.returncode == code, out
    assert "Traceback" not in out
    return out


def states(folder: Path) -> list[str]:
    return [job["state"] for job in read(folder / "sweep.json")["jobs"]]


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def wait_for(ready: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not ready():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == "losses" else pytest.mark.slow) for name in SWEEPS]
)
def test_named_sweep_is_checked_whole(name: str, tmp_path: Path) -> None:
    """Each of its jobs is composed and compared with the constructors."""
    found = plan("model.encoder_weights=null", f"+sweep={name}", folder=tmp_path / "sweep")
    assert len(found.jobs) == len({job.fingerprint for job in found.jobs}) > 1
    assert all(job.words for job in found.jobs)


@pytest.mark.slow
@pytest.mark.parametrize(("study", "sweep"), STUDIES)
def test_sweep_of_a_study_is_checked_whole(study: str, sweep: str, tmp_path: Path) -> None:
    found = plan("model.encoder_weights=null", f"+sweep={sweep}", folder=tmp_path / "sweep", study=study)
    assert {job.config["seed"] for job in found.jobs} >= {0, 1, 2}
    assert {job.config["name"] for job in found.jobs} == {study if sweep == "study" else f"{study}_{sweep}"}


def test_the_study_of_pretraining_has_trainings_without(tmp_path: Path) -> None:
    found = plan("+sweep=study", folder=tmp_path / "sweep", study="pretraining")
    assert [job.config["model"]["encoder_weights"] for job in found.jobs] == ["imagenet", None] * 3


def test_jobs_know_what_tells_them_apart(tmp_path: Path) -> None:
    found = plan("model=tiny", "loss=bce,dice", "seed=1,2", "tags=[mine]", folder=tmp_path / "sweep")
    assert [job.words for job in found.jobs[:3]] == [
        ["loss=bce", "seed=1"], ["loss=bce", "seed=2"], ["loss=dice", "seed=1"],
    ]  # fmt: skip
    config = found.jobs[1].config
    assert config["run_dir"] == str(tmp_path / "sweep/1")
    assert config["group"] == config["logger"]["wandb"]["group"] == "run_sweep"
    assert config["logger"]["wandb"]["name"] == "run loss=bce seed=2"
    assert (config["job_type"], config["tags"]) == ("train", ["mine"])
    own = plan("group=mine", "logger.wandb.name=called", "seed=1,2", folder=tmp_path / "sweep").jobs[0].config
    assert own["logger"]["wandb"]["group"] == "mine"
    assert own["logger"]["wandb"]["name"] == "called"


def test_a_sweep_says_how_much_it_is_about_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Their number before the first one, and how long the others take after the first that has ended well."""
    planned = plan("model=tiny", "+sweep=losses", folder=tmp_path)
    trainings = len(planned.jobs)
    assert _announcement(planned) == f"The sweep starts: {trainings} trainings; in {tmp_path}."
    skipped = replace(planned, jobs=[replace(planned.jobs[0], action="skip"), *planned.jobs[1:]])
    assert f": {trainings - 1} trainings, 1 done before; in " in _announcement(skipped)
    done = replace(planned, jobs=[replace(job, action="skip") for job in planned.jobs])
    assert _announcement(done) == f"Nothing to train, {trainings} trainings done before; in {tmp_path}."
    monkeypatch.setattr(multirun, "_planned", [skipped])
    monkeypatch.setattr(multirun, "_paced", [])
    write(planned)
    hydra: dict[str, Any] = {
        "mode": RunMode.MULTIRUN,
        "runtime": {"cwd": str(tmp_path)},
        "sweep": {"dir": str(tmp_path)},
        "sweeper": {"_target_": GRID},
        "launcher": {"_target_": "hydra._internal.core_plugins.basic_launcher.BasicLauncher"},
    }
    codes = iter([1, 0, 0])
    monkeypatch.setattr(multirun, "run_in_child", lambda *_, **__: next(codes))
    monkeypatch.setattr(multirun, "_objective", lambda _: 0.5)
    clock = iter([0, 100, 340, 400, 500])  # what has failed is not asked for its end
    monkeypatch.setattr(multirun.time, "monotonic", lambda: next(clock))
    for job in planned.jobs[1:4]:
        hydra["runtime"]["output_dir"] = str(job.folder)
        hydra["overrides"] = {"task": list(job.overrides)}
        monkeypatch.setattr(HydraConfig, "get", lambda: OmegaConf.create(hydra))
        with contextlib.suppress(SkinsegError):
            run_job(OmegaConf.create(dict(job.config)))
    said = capsys.readouterr().out
    left = trainings - 3
    assert said == f"The first training took 4 min; at its pace the other {left} take {left * 4} min.\n"


def test_words_show_an_interpolation_as_it_was_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEED", "3")
    found = plan("model=tiny", "seed=${oc.env:SEED},7", folder=tmp_path / "now")
    assert [job.words for job in found.jobs] == [["seed=${oc.env:SEED}"], ["seed=7"]]
    assert [job.config["seed"] for job in found.jobs] == [3, 7]


def test_an_escaped_interpolation_stays_a_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However it was given; one that is meant is filled in."""
    (tmp_path / "conf/sweep").mkdir(parents=True)
    (tmp_path / "conf/sweep/mine.yaml").write_text(
        "# @package _global_\n"
        "hydra: {sweeper: {params: {notes: '\"a\\${absent}\",b', seed: '${oc.env:SEEDS}'}}}"
    )
    monkeypatch.setenv("SEEDS", "1,2")
    given = ["model=tiny", "+sweep=mine", f"hydra.searchpath=[file://{tmp_path / 'conf'}]"]
    configs = [job.config for job in plan(*given, folder=tmp_path / "sweep").jobs]
    assert [config["notes"] for config in configs] == ["a${absent}", "a${absent}", "b", "b"]
    assert [config["seed"] for config in configs] == [1, 2, 1, 2]
    assert "${absent}" in configs[0]["logger"]["wandb"]["name"]
    typed = plan("model=tiny", r'notes="a\${absent}","b"', r"name='\${x}'", folder=tmp_path / "sweep")
    config = typed.jobs[0].config
    assert (config["notes"], config["name"]) == ("a${absent}", "${x}")
    assert config["group"] == "${x}_sweep"


def test_a_job_holds_numbers_and_no_texts_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPOCHS", "3")
    found = plan("model=tiny", "trainer.max_epochs=${oc.env:EPOCHS}", "seed=1,2", folder=tmp_path / "sweep")
    assert {job.config["trainer"]["max_epochs"] for job in found.jobs} == {3}
    other = plan("model=tiny", "trainer.max_epochs=3", "seed=1,2", folder=tmp_path / "sweep")
    assert [job.fingerprint for job in found.jobs] == [job.fingerprint for job in other.jobs]


def test_jobs_share_one_split(tmp_path: Path) -> None:
    found = plan("model=tiny", "loss=bce,dice", "seed=1,2", folder=tmp_path / "sweep")
    assert len({json.dumps(job.config["data"]["split"]) for job in found.jobs}) == 1


def test_all_problems_before_the_first_job(tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    said = refused("model=tiny", "loss=bce,dicee", "seed=1,2", folder=folder)
    assert "none of its 4 jobs was started" in said
    assert "did you mean loss=dice?" in said
    assert "(2 jobs, e.g. loss=dicee seed=1)" in said
    said = refused("model=tiny", "threshold=0.5,1.5", "seed=-1,1", folder=folder)
    assert "threshold=1.5: expected a probability" in said
    assert "seed=-1: expected 0 or more" in said
    said = refused("model=tiny", "seed=0,1", "+optimizer.lrr=1,2", folder=folder)
    assert "did you mean optimizer.lr? (all jobs)" in said
    assert "refused; its job was not started." in refused("model=tiny", "seed=-1", folder=folder)
    assert not folder.exists()


def test_an_empty_grid(tmp_path: Path) -> None:
    assert "The sweep is empty" in refused("model=tiny", "seed=range(3,3)", folder=tmp_path / "sweep")


def test_two_jobs_with_one_folder(tmp_path: Path) -> None:
    said = refused("model=tiny", "seed=1,2", "hydra.sweep.subdir=one", folder=tmp_path / "sweep")
    assert "Job 0 (seed=1) and Job 1 (seed=2) have the same folder" in said


def test_a_folder_that_holds_a_sweep(tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    write(plan("model=tiny", "seed=1,2", folder=folder))
    assert "already holds a sweep" in refused("model=tiny", "seed=1,2", folder=folder)
    finish(folder / "0")
    other = ["model=tiny", "seed=3,1", "sweep.resume=true"]
    assert "holds another job than Job 0 (seed=3): seed=1" in refused(*other, folder=folder)
    # By the configuration, not by the number.
    again = plan(*other, folder=tmp_path / "second")
    assert [(job.action, job.scores) for job in again.jobs] == [
        ("start", tmp_path / "second/0"), ("skip", folder / "0"),
    ]  # fmt: skip


def test_the_fingerprint_is_of_what_matters(tmp_path: Path) -> None:
    def mark(*overrides: str, folder: str = "sweep") -> str:
        return plan("model=tiny", "seed=1,2", *overrides, folder=tmp_path / folder).jobs[0].fingerprint

    first = mark()
    for same in ("notes=other", "group=mine", "sweep.metric=jaccard", "logger=csv", "threads=1"):
        assert mark(same) == first
    assert mark(folder="elsewhere") == first
    for other in ("optimizer.lr=0.1", "callbacks=ema", "data.root=/other", "test=false", "budget.steps=3"):
        assert mark(other) != first


def test_a_job_whose_scoring_failed_is_not_done(tmp_path: Path) -> None:
    before = plan("model=tiny", "seed=1,2", folder=tmp_path / "sweeps/first")
    write(before)
    folder = before.jobs[0].folder
    summary = {
        "failed": {"what": "its end"},
        "objective": {"value": 0.5},
        "scores": {"val": None, "test": None},
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "failed.json").write_text(json.dumps({"exit_code": 2, "error": "the disk is full"}))
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints/last.ckpt").touch()
    assert state_of(before.jobs[0])["state"] == "failed"
    after = plan("model=tiny", "seed=1,2", "sweep.resume=true", folder=tmp_path / "sweeps/second")
    assert [job.action for job in after.jobs] == ["resume", "start"]


def test_a_running_job_is_not_started_twice(tmp_path: Path) -> None:
    write(plan("model=tiny", "seed=1,2", folder=tmp_path / "sweep"))
    with claimed(tmp_path / "sweep/1"):
        said = refused("model=tiny", "seed=1,2", "sweep.resume=true", folder=tmp_path / "sweep")
    assert "Job 1 (seed=2) is still running" in said
    assert plan("model=tiny", "seed=1,2", "sweep.resume=true", folder=tmp_path / "sweep")


@pytest.mark.parametrize("at_once", [False, True])
def test_a_stopped_sweep_goes_on_in_turn(
    at_once: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What Ctrl-C has left for a launcher's workers is not for jobs that run one after the other."""
    earlier, folder = tmp_path / "earlier", tmp_path / "0"
    finish(earlier)
    Job(0, [], [], folder, "", "skip", earlier, {}).write()
    (tmp_path / ".stop").touch()
    launcher = "some.Launcher" if at_once else "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
    hydra = {
        "mode": RunMode.MULTIRUN,
        "runtime": {"output_dir": str(folder)},
        "sweep": {"dir": str(tmp_path)},
        "launcher": {"_target_": launcher},
        "sweeper": {"_target_": "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"},
        "overrides": {"task": []},
    }
    monkeypatch.setattr(HydraConfig, "get", lambda: OmegaConf.create(hydra))
    if at_once:
        with pytest.raises(SkinsegError, match="the sweep was stopped"):
            run_job(OmegaConf.create())
    else:
        assert run_job(OmegaConf.create()) == 0.5


def run_by_hand(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str | None:
    """Runs `skinseg.job` up to the training and returns the checkpoint from which that would go on."""
    asked: list[str | None] = []
    monkeypatch.setattr(sys, "argv", ["job", str(folder)])
    monkeypatch.setattr(command, "run", lambda cfg: asked.append(cfg.ckpt_path))
    assert command.main() == 0
    return asked[0]


def test_a_job_that_was_moved_writes_where_it_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    planned = plan("model=tiny", "seed=1,2", "logger=csv", folder=tmp_path / "there")
    write(planned)
    (tmp_path / "there").rename(tmp_path / "here")
    asked: list[str] = []
    monkeypatch.setattr(sys, "argv", ["job", str(tmp_path / "here/1")])
    monkeypatch.setattr(command, "run", lambda cfg: asked.append(OmegaConf.to_yaml(cfg)))
    assert command.main() == 0
    assert str(tmp_path / "there") not in asked[0]
    assert asked[0].count(str(tmp_path / "here/1")) > 2, "also in the callbacks and the loggers"
    assert not (tmp_path / "there").exists()


def test_a_job_of_an_earlier_version_is_one_of_today(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It knows nothing of the root keys that came later."""
    write(plan("model=tiny", "seed=1,2", folder=tmp_path))
    content = json.loads((tmp_path / "0/job.json").read_text())
    del content["config"]["report"]
    (tmp_path / "0/job.json").write_text(json.dumps(content))
    asked: list[Any] = []
    monkeypatch.setattr(sys, "argv", ["job", str(tmp_path / "0")])
    monkeypatch.setattr(command, "run", asked.append)
    assert command.main() == 0
    check(plain(asked[0]))


def test_a_sweep_that_was_moved_with_its_earlier_one_knows_it(tmp_path: Path) -> None:
    first = plan("model=tiny", "seed=1,2", folder=tmp_path / "there/first")
    write(first)
    finish(tmp_path / "there/first/0")
    (tmp_path / "there/first/1/checkpoints").mkdir()
    (tmp_path / "there/first/1/checkpoints/last.ckpt").touch()
    second = plan("model=tiny", "seed=1,2", "sweep.resume=true", folder=tmp_path / "there/second")
    write(second)
    assert [job.action for job in second.jobs] == ["skip", "resume"]
    (tmp_path / "there").rename(tmp_path / "here")
    skipped, resumed = (Job.read(tmp_path / "here/second" / number) for number in "01")
    assert skipped.scores == tmp_path / "here/first/0"
    assert resumed.config["ckpt_path"] == str(tmp_path / "here/first/1/checkpoints/last.ckpt")
    # Moved alone it finds the earlier one where that was.
    (tmp_path / "here").rename(tmp_path / "there")
    (tmp_path / "there/second").rename(tmp_path / "elsewhere")
    assert Job.read(tmp_path / "elsewhere/0").scores == tmp_path / "there/first/0"


def test_a_job_that_is_killed_again_before_a_checkpoint_of_its_own(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """However often: what its first part has reached is not lost."""
    write(plan("model=tiny", "seed=1,2", folder=tmp_path / "sweep"))
    write(plan("model=tiny", "seed=1,2", "sweep.resume=true", folder=tmp_path / "sweep"))
    assert "has reached a checkpoint. All start anew." in caplog.text
    reached = tmp_path / "sweep/0/checkpoints/last.ckpt"
    reached.parent.mkdir()
    reached.write_text("reached")
    for _ in range(3):
        again = plan("model=tiny", "seed=1,2", "sweep.resume=true", folder=tmp_path / "sweep")
        write(again)
        assert [job.action for job in again.jobs] == ["resume", "start"]
        assert Path(again.jobs[0].config["ckpt_path"]).read_text() == "reached"
    elsewhere = plan("model=tiny", "seed=1,2", "sweep.resume=true", folder=tmp_path / "other")
    assert elsewhere.jobs[0].config["ckpt_path"] == again.jobs[0].config["ckpt_path"]


@pytest.mark.parametrize(
    ("kept", "goes_on", "left"),
    [([], False, []), (["best.ckpt"], False, []), (["best.ckpt", "epoch=1.ckpt"], False, []),
     (["best.ckpt", "last.ckpt"], True, ["best.ckpt", "last.ckpt"]), (["last.ckpt"], True, ["last.ckpt"])],
)  # fmt: skip
def test_a_job_that_is_started_again_goes_on_or_has_room(
    kept: list[str], goes_on: bool, left: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By hand, or by Slurm after it has stopped the job at whichever moment; nothing is lost."""
    planned = plan("model=tiny", "seed=1,2", folder=tmp_path)
    write(planned)
    folder = planned.jobs[1].folder
    for _ in range(2):
        (folder / "checkpoints").mkdir(exist_ok=True)
        for name in kept:
            (folder / "checkpoints" / name).touch()
        last = str(folder / "checkpoints/last.ckpt") if goes_on else None
        assert run_by_hand(folder, monkeypatch) == last
        assert sorted(path.name for path in (folder / "checkpoints").glob("*.ckpt")) == left
        assert _results_so_far(folder, last) == []
    aside = [] if goes_on else kept
    assert sorted(path.name for path in folder.glob("checkpoints.*/*")) == sorted([*aside, *aside])


def test_a_job_that_has_finished_without_a_last_checkpoint_keeps_its_best(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    planned = plan("model=tiny", "seed=1,2", folder=tmp_path)
    write(planned)
    folder = planned.jobs[0].folder
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints/best.ckpt").touch()
    finish(folder)
    assert run_by_hand(folder, monkeypatch) is None
    assert (folder / "checkpoints/best.ckpt").is_file()


TORN = ("", "{", '{"jobs": [{"num', "[]", "5", "null", '"text"', "\0\0\0\0")
"""What a power cut or a full disk leaves of a file, and what is no file of skinseg's."""


@pytest.fixture(autouse=True)
def nothing_was_said() -> None:
    jobs._say.cache_clear()


def actions(planned: Plan) -> list[str]:
    """What a sweep of the same jobs would do with each of them."""
    before = list(earlier_jobs(planned.folder))
    return [continued(job, before).action for job in planned.jobs]


class TestTornFiles:
    """One that cannot be read is said to be so, counts as not done, and stands in nobody's way."""

    def test_a_summary(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        first = plan("model=tiny", "seed=1,2", folder=tmp_path / "first")
        write(first)
        finish(tmp_path / "first/1")
        for torn in (*TORN, '{"objective": {"value": "high"}, "scores": {"test": null}}'):
            caplog.clear()
            jobs._say.cache_clear()
            (tmp_path / "first/0/summary.json").write_text(torn)
            assert [state_of(job)["state"] for job in first.jobs] == ["waiting", "done"]
            first.write()
            said = [line for line in caplog.messages if str(tmp_path / "first/0/summary.json") in line]
            assert len(said) == 1, "once"
            assert "cannot be read" in said[0]
            assert "counts as not done" in said[0]
            assert actions(first) == ["start", "skip"]
        (tmp_path / "first/0/checkpoints").mkdir()
        (tmp_path / "first/0/checkpoints/last.ckpt").touch()
        assert actions(first) == ["resume", "skip"]

    @pytest.mark.parametrize("kept", [[], ["best.ckpt"], ["best.ckpt", "last.ckpt"]])
    def test_the_summary_of_a_job_that_is_started_again(
        self, kept: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        planned = plan("model=tiny", "seed=1,2", folder=tmp_path)
        write(planned)
        folder = planned.jobs[0].folder
        (folder / "checkpoints").mkdir()
        for name in kept:
            (folder / "checkpoints" / name).touch()
        (folder / "summary.json").write_text('{"obj')
        last = str(folder / "checkpoints/last.ckpt") if "last.ckpt" in kept else None
        assert run_by_hand(folder, monkeypatch) == last
        so_far = _results_so_far(folder, last)
        assert so_far == ([folder / "summary.json"] if last else [])
        aside = sorted(path.name for path in folder.glob("checkpoints.*/*"))
        assert aside == ([] if last else sorted([*kept, "summary.json"])), "nothing is lost"

    @pytest.mark.parametrize("torn", TORN)
    def test_a_reason_of_failure(self, torn: str, tmp_path: Path) -> None:
        job = Job(0, [], [], tmp_path / "0", "", "start", None, {})
        job.write()
        (job.folder / "failed.json").write_text(torn)
        state = state_of(job)
        assert state["state"] == "failed"
        assert f"{job.folder / 'failed.json'} cannot be read" in state["error"]

    def test_a_job(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        """Its siblings go on, in this sweep's folder and in another one; what it had stays."""
        words = ["model=tiny", "seed=1,2", "sweep.resume=true"]
        folder = tmp_path / "first"
        first = plan("model=tiny", "seed=1,2", folder=folder)
        write(first)
        for job in (0, 1):
            finish(folder / str(job))
        for torn in ('{"earlier": null}', '{"earlier": null, "config": []}', *TORN):
            (folder / "0/job.json").write_text(torn)
            assert actions(first) == ["start", "skip"]
        assert f"{folder / '0/job.json'} cannot be read" in caplog.text
        with claimed(folder / "0"):
            assert "It is still running" in refused(*words, folder=folder)
        again = plan(*words, folder=folder)
        assert [job.action for job in again.jobs] == ["start", "skip"]
        assert "What its folder holds is moved aside" in caplog.text
        assert not (folder / "0").exists()
        assert (folder / ".interrupted/0-1/summary.json").is_file()

    def test_a_sweep(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        """Its jobs are found in their folders."""
        first = plan("model=tiny", "seed=1,2", folder=tmp_path / "first")
        write(first)
        finish(tmp_path / "first/1")
        for torn in (*TORN, '{"jobs": [{"folder": 5}]}', '{"jobs": 5}'):
            jobs._say.cache_clear()
            caplog.clear()
            (tmp_path / "first/sweep.json").write_text(torn)
            with pytest.raises(SkinsegError, match=r"sweep\.json cannot be read .*resume=true writes it"):
                entries_of(tmp_path / "first")
            assert actions(first) == ["start", "skip"]
            assert f"{tmp_path / 'first/sweep.json'} cannot be read" in caplog.text
        again = plan("model=tiny", "seed=1,2", "sweep.resume=true", folder=tmp_path / "first")
        again.write()
        assert [entry["state"] for entry in entries_of(tmp_path / "first")] == ["waiting", "done"]


def test_a_sweep_without_its_plan_is_not_written_over(tmp_path: Path) -> None:
    write(plan("model=tiny", "seed=1,2", folder=tmp_path / "sweep"))
    (tmp_path / "sweep/sweep.json").unlink()
    assert "already holds a sweep" in refused("model=tiny", "seed=3,4", folder=tmp_path / "sweep")


@pytest.mark.parametrize("sweeper", [GRID, "some.Sweeper"])
def test_a_folder_is_trusted_only_for_the_job_that_is_asked_for(
    sweeper: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What an earlier sweep has left in it is not run in its place."""
    planned = plan("model=tiny", "seed=1,2", folder=tmp_path)
    write(planned)
    ran: list[int] = []

    def trains(job: Job, **_: Any) -> int:
        ran.append(job.config["seed"])
        finish(job.folder)
        return 0

    monkeypatch.setattr(multirun, "run_in_child", trains)

    def ask(seed: int) -> float | None:
        words = ["model=tiny", f"seed={seed}"]
        hydra = {
            "mode": RunMode.MULTIRUN,
            "runtime": {"output_dir": str(tmp_path / "0"), "cwd": str(tmp_path)},
            "sweep": {"dir": str(tmp_path)},
            "launcher": {"_target_": "hydra._internal.core_plugins.basic_launcher.BasicLauncher"},
            "sweeper": {"_target_": sweeper},
            "overrides": {"task": words},
            "job": {"num": 0},
        }
        monkeypatch.setattr(HydraConfig, "get", lambda: OmegaConf.create(hydra))
        return run_job(OmegaConf.create({**planned.jobs[0].config, "seed": seed}))

    with pytest.raises(SkinsegError, match=r"seed=1"):
        ask(3)
    assert ran == []
    assert ask(1) == 0.5
    assert ran == [1]


@pytest.mark.slow
def test_a_failed_job_is_named_and_the_others_finish(write_ham: WriteHam, tmp_path: Path) -> None:
    root = write_ham(20)
    jobs = ["data.image_size=[33,33],[32,32]", "model=fpn", "model.encoder_weights=null"]
    jobs += ["model.encoder_name=tu-test_resnet", f"data.root={root}", "seed=0"]
    out = finished(sweep(*jobs, cwd=tmp_path), code=2)
    folder = tmp_path / "sweeps/first"
    assert f"The sweep starts: 2 trainings; in {folder}." in out
    assert "'data.image_size=[32,32]'" in out, "what stands in the table can be pasted"
    assert "1 of 2 jobs is not done; 1 is." in out
    last = out.split("is not done")[1]
    assert "Job 0 (data.image_size=[33,33]): data.image_size=[33, 33]: FPN" in last
    assert "multiples of 32" in last
    assert states(folder) == ["failed", "done"]
    assert read(folder / "0/failed.json")["exit_code"] == 2
    assert "multiples of 32" in (folder / "0/train.log").read_text()


@pytest.mark.slow
def test_interpolations_reach_the_jobs_as_they_were_planned(
    write_ham: WriteHam, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "conf/sweep").mkdir(parents=True)
    (tmp_path / "conf/sweep/mine.yaml").write_text(
        "# @package _global_\n"
        "hydra: {sweeper: {params: {notes: '\"a\\${absent}\",b', seed: '${oc.env:SEEDS}'}}}"
    )
    words = [
        "+sweep=mine",
        f"hydra.searchpath=[file://{tmp_path / 'conf'}]",
        "lr_reference_batch=${data.batch_size}",
    ]
    monkeypatch.setenv("SEEDS", "1,2")
    out = finished(
        sweep(*words, r"name='\${x}'", f"data.root={write_ham(20)}", "callbacks=minimal", cwd=tmp_path)
    )
    configs = [read(tmp_path / f"sweeps/first/{job}/job.json")["config"] for job in range(4)]
    assert states(tmp_path / "sweeps/first") == ["done"] * 4, out
    assert [(config["notes"], config["seed"]) for config in configs] == [
        ("a${absent}", 1), ("a${absent}", 2), ("b", 1), ("b", 2),
    ]  # fmt: skip
    assert {(config["name"], config["lr_reference_batch"]) for config in configs} == {("${x}", 4)}


@pytest.mark.slow
def test_what_is_done_is_not_done_again(write_ham: WriteHam, tmp_path: Path) -> None:
    """In the folder of the first sweep, too, where the jobs' own files lie."""
    jobs = [f"data.root={write_ham(20)}", "callbacks=minimal", "seed=1,2"]
    finished(sweep(*jobs, cwd=tmp_path))
    folder = tmp_path / "sweeps/first"
    files = ("scores.csv", "summary.json", "train.log")
    left = [folder / f"{job}/{name}" for job in (0, 1) for name in files]
    before = [path.stat().st_mtime_ns for path in left]
    for _ in range(2):
        out = finished(sweep(*jobs, "sweep.resume=true", cwd=tmp_path))
        assert "2 done before, 0 go on, 0 start" in out
        assert out.count("has finished before") == 2
        assert "Launching" not in out
        assert [path.stat().st_mtime_ns for path in left] == before
        assert states(folder) == ["done", "done"]
        assert read(folder / "comparison/comparison.json")["runs"][0]["members"] == 2


@pytest.mark.slow
def test_a_sweep_goes_on_and_ends_in_a_comparison(write_ham: WriteHam, tmp_path: Path) -> None:
    """Job 1 kills itself; a second call trains it alone, with one more seed, in a folder beside the first."""
    jobs = [f"data.root={write_ham(20)}", "callbacks=minimal", "loss=bce,dice", "trainer.max_epochs=3"]
    kill = "+callbacks.kill={_target_: test_multirun.KillOnce, loss: Dice, flag: '%s'}" % (tmp_path / "flag")
    out = finished(sweep(*jobs, kill, "seed=1", cwd=tmp_path), code=2)
    assert "Job 1 (loss=dice): killed by signal 9." in out
    assert states(tmp_path / "sweeps/first") == ["done", "failed"]
    assert "1 of 2 jobs is not done; 1 is." in out

    before = (tmp_path / "sweeps/first/0/scores.csv").stat().st_mtime_ns
    second = "hydra.sweep.dir=sweeps/second"
    out = finished(sweep(*jobs, kill, "seed=1,2", second, "sweep.resume=true", cwd=tmp_path))
    folder = tmp_path / "sweeps/second"
    assert "1 done before, 1 go on, 2 start" in out
    assert "sweeps/first/0" in next(line for line in out.splitlines() if "has finished before" in line)
    assert states(folder) == ["done"] * 4
    assert (tmp_path / "sweeps/first/0/scores.csv").stat().st_mtime_ns == before
    resumed = read(folder / "2/job.json")
    assert resumed["config"]["ckpt_path"] == str(tmp_path / "sweeps/first/1/checkpoints/last.ckpt")
    assert {read(folder / f"{job}/job.json")["config"]["group"] for job in range(4)} == {"run_first"}
    found = read(folder / "comparison/comparison.json")
    assert {entry["name"]: entry["members"] for entry in found["runs"]} == {"loss=bce": 2, "loss=dice": 2}
    assert ["Budget", "21 steps for every training"] in found["protocol"]
    assert "2 methods by Dice" in out
    assert "loss=dice" in (folder / "comparison/report.html").read_text()
    images = pd.read_csv(folder / "comparison/images.csv")
    assert len(images) == 2 * len(pd.read_csv(folder / "1/scores.csv"))
    # The folder stands for all four, wherever they lie.
    compared = subprocess.run(
        [sys.executable, "-m", "skinseg.compare", f"runs={folder}", "hydra.run.dir=again", "draws=100"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert compared.returncode == 0, compared.stderr
    assert sum(run["members"] for run in read(tmp_path / "again/comparison.json")["runs"]) == 4


class KillOnce(Callback):
    """Kills its process after the second epoch's first step if the loss is of a kind, but only once."""

    def __init__(self, loss: str, flag: str) -> None:
        self.loss = loss
        self.flag = Path(flag)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *_: Any) -> None:
        kind = type(pl_module.loss).__name__
        if kind == self.loss and trainer.current_epoch == 1 and not self.flag.exists():
            self.flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize("to", ["its group", "itself"])
def test_a_killed_sweep_lets_its_job_save_and_goes_on(write_ham: WriteHam, tmp_path: Path, to: str) -> None:
    jobs = [f"data.root={write_ham(20)}", "callbacks=minimal", "seed=1,2", "logger=none", "test=false"]
    process = sweep(*jobs, "trainer.max_epochs=3000", cwd=tmp_path)
    first = tmp_path / "sweeps/first/0"
    wait_for((first / "checkpoints/last.ckpt").is_file, process)
    assert is_claimed(first)
    os.kill(process.pid, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while is_claimed(first):
        assert time.monotonic() < deadline, "the job goes on without its sweep"
        time.sleep(0.1)
    assert "To go on" in (first / "train.log").read_text()
    again = sweep(*jobs, "trainer.max_epochs=3000", "sweep.resume=true", cwd=tmp_path)
    aside, resumed = tmp_path / "sweeps/first/.interrupted/0-1", first / "train.log"
    wait_for(lambda: aside.is_dir() and resumed.is_file() and "epoch" in resumed.read_text(), again)
    (os.killpg if to == "its group" else os.kill)(again.pid, signal.SIGINT)
    out, _ = again.communicate(timeout=120)
    assert again.returncode == 130
    assert "0 done before, 1 go on, 1 start" in out
    assert "to go on, run the same command with sweep.resume=true." in out
    config = read(tmp_path / "sweeps/first/0/job.json")["config"]
    assert config["ckpt_path"] == str(aside / "checkpoints/last.ckpt")


@pytest.mark.slow
def test_a_job_keeps_the_configuration_it_was_launched_with(write_ham: WriteHam, tmp_path: Path) -> None:
    own = tmp_path / "own/experiment"
    own.mkdir(parents=True)
    file = own / "mine.yaml"
    file.write_text("# @package _global_\nname: mine\noptimizer:\n  lr: 0.003\n")
    edit = f"+callbacks.edit={{_target_: test_multirun.Spoil, path: '{file}'}}"
    tiny = [word for word in TINY if not word.startswith("optimizer.lr")]
    done = subprocess.run(
        [
            sys.executable, "-m", "skinseg.train", "-m", "--config-dir", str(own.parent), *tiny,
            "+experiment=mine", f"data.root={write_ham(20)}", "seed=1,2", "test=false", "callbacks=minimal",
            edit, "hydra.sweep.dir=sweep",
        ],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{REPOSITORY / 'tests'}"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert file.read_text() == "broken: [\n"
    for job in (0, 1):
        config = yaml.safe_load((tmp_path / f"sweep/{job}/config.yaml").read_text())
        assert (config["name"], config["optimizer"]["lr"]) == ("mine", 0.003)


class Spoil(Callback):
    """Leaves a file that no configuration can be composed from."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.path.write_text("broken: [\n")


@pytest.mark.slow
def test_folds_end_in_one_score_of_all_images(write_ham: WriteHam, tmp_path: Path) -> None:
    jobs = [f"data.root={write_ham(20)}", "callbacks=minimal", "+sweep=folds", "data.split.folds=2"]
    out = finished(sweep(*jobs, "hydra.sweeper.params={data.split.fold: '0,1'}", cwd=tmp_path))
    comparison = tmp_path / "sweeps/first/comparison"
    found = read(comparison / "comparison.json")
    assert (found["images"], found["lesions"]) == (40, 20)
    (entry,) = found["runs"]
    scores = pd.read_csv(comparison / "images.csv")
    assert scores["image_id"].is_unique
    assert entry["scores"]["dice"]["mean"] == pytest.approx(scores["dice"].mean())
    assert "over 2 trainings: folds" in found["verdict"]
    assert found["verdict"] in out.replace("\n", " ")
