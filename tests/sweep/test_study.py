"""A study in its storage: shared numbers, seeds by trial, trials that are given back, storages that fail."""

from __future__ import annotations

import os
import platform
import sqlite3
import time
from pathlib import Path

import optuna
import pandas as pd
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState

from skinseg.errors import SkinsegError
from skinseg.sweep import study as module
from skinseg.sweep.jobs import running
from skinseg.sweep.study import (
    PRUNED,
    agree,
    ask,
    best,
    claim,
    counted,
    end,
    give_back,
    importance,
    open_study,
    repeat_reports,
    seeded,
    signs,
    state_of,
    told,
    trial_of,
    whereabouts,
    write_table,
)

RATE = {"rate": FloatDistribution(0.0, 1.0)}


@pytest.fixture(params=["journal", "sqlite"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "a.log") if request.param == "journal" else f"sqlite:///{tmp_path / 'a.db'}"


@pytest.fixture
def study(tmp_path: Path) -> optuna.Study:
    return open_study(str(tmp_path / "a.log"), "a", mode="max")


def test_there_are_never_more_trials_than_asked_for(where: str) -> None:
    first, second = (open_study(where, "a", mode="max") for _ in range(2))
    taken = [ask(study, 3, RATE) for study in (first, second, first, second, first)]
    assert [trial is None for trial in taken] == [False, False, False, True, True]
    assert len(counted(first)) == 3


def test_of_two_that_ask_at_once_for_the_last_trial_one_gets_it(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (open_study(where, "a", mode="max") for _ in range(2))
    assert ask(second, 1, RATE) is not None
    before: list[list[optuna.trial.FrozenTrial]] = [[]]  # what the first one has seen
    monkeypatch.setattr(module, "counted", lambda study: before.pop() if before else counted(study))
    assert ask(first, 1, RATE) is None
    assert [trial.number for trial in counted(first)] == [0]
    assert trial_of(first, 1).state == TrialState.FAIL


def test_draws_depend_on_the_number_of_the_trial(where: str) -> None:
    def drawn(name: str, seed: int, processes: int) -> list[float]:
        values = []
        for number in range(4):
            if number % (4 // processes) == 0:  # another process goes on
                make = lambda state: optuna.samplers.RandomSampler(seed=state)  # noqa: E731
                study = open_study(where, name, mode="max", sampler=seeded(make, seed))
            trial = ask(study, 4, RATE)
            assert trial is not None
            values.append(trial.params["rate"])
            end(study, trial.number, 0.5)
        return values

    once = drawn("once", 0, 1)
    assert len(set(once)) == 4
    assert drawn("twice", 0, 2) == once
    assert drawn("other", 1, 1) != once


def test_the_two_keys_of_a_trial_are_drawn_apart(tmp_path: Path) -> None:
    make = lambda state: optuna.samplers.TPESampler(seed=state, multivariate=False)  # noqa: E731
    study = open_study(str(tmp_path / "a.log"), "a", mode="max", sampler=seeded(make, 0))
    trial = ask(study, 1, {**RATE, "decay": FloatDistribution(0.0, 1.0)})
    assert trial is not None
    assert trial.params["rate"] != trial.params["decay"]


def test_a_study_is_of_one_search(where: str) -> None:
    agree(open_study(where, "a", mode="max"), {"config": {"lr": 1, "seed": 0}, "choices": {"loss=a": "x"}})
    again = open_study(where, "a", mode="max")
    agree(again, {"config": {"lr": 1, "seed": 0}, "choices": {"loss=a": "x"}})
    with pytest.raises(SkinsegError, match=r"another search of that name.*\n  lr: 1 there, 2 here\nGo on"):
        agree(again, {"config": {"lr": 2, "seed": 0}, "choices": {"loss=a": "y"}})
    with pytest.raises(SkinsegError, match="loss=a: x there, y here"):
        agree(again, {"config": {"lr": 1, "seed": 0}, "choices": {"loss=a": "y"}})


def test_a_trial_that_is_given_back_is_taken_again_but_not_for_ever(where: str, tmp_path: Path) -> None:
    study = open_study(where, "a", mode="max")
    first = ask(study, 2, RATE)
    assert first is not None
    first.set_user_attr("folder", str(tmp_path))
    first.report(0.25, 0)
    give_back(study, 0)
    assert counted(study) == []
    second = ask(study, 2, RATE)
    assert second is not None
    assert second.params == first.params
    assert second.user_attrs["earlier"] == str(tmp_path)
    repeat_reports(study, second.user_attrs["earlier_number"], second)
    assert trial_of(study, second.number).intermediate_values == {0: 0.25}
    give_back(study, second.number)
    third = ask(study, 2, RATE)
    assert third is not None
    give_back(study, third.number)
    assert [trial.user_attrs["error"] for trial in counted(study)] == ["Its process was ended 3 times."]
    fourth = ask(study, 2, RATE)
    assert fourth is not None
    assert fourth.params != first.params


def test_how_a_trial_ended_is_recorded_once(where: str) -> None:
    first, second = (open_study(where, "a", mode="max") for _ in range(2))
    trial = ask(first, 1, RATE)
    assert trial is not None
    assert end(first, 0, 0.5)
    assert not end(second, 0, error="lost")
    assert trial_of(second, 0).value == 0.5


def test_states(study: optuna.Study, tmp_path: Path) -> None:
    for score in (0.5, 0.75, None, 0.9):
        trial = ask(study, 9, RATE)
        assert trial is not None
        trial.report(score or 0.1, 0)
        if score == 0.9:
            trial.set_user_attr(PRUNED, 0)
        end(study, trial.number, score, error=None if score else "broken")
    ask(study, 9, RATE)
    assert [state_of(t) for t in counted(study)] == ["done", "done", "failed", "pruned", "running"]
    leading = best(study)
    assert leading is not None
    assert leading.number == 1
    write_table(tmp_path / "trials.csv", study)
    table = pd.read_csv(tmp_path / "trials.csv")
    assert table["state"].tolist() == ["done", "done", "failed", "pruned", "running"]
    assert table["error"].tolist()[2] == "broken"
    assert table["rate"].notna().all()


def test_the_best_of_losses_is_the_smallest(tmp_path: Path) -> None:
    study = open_study(str(tmp_path / "a.log"), "a", mode="min")
    for score in (0.5, 0.25, 0.75):
        trial = ask(study, 3, RATE)
        assert trial is not None
        end(study, trial.number, score)
    leading = best(study)
    assert leading is not None
    assert leading.value == 0.25


def test_what_a_key_explains(study: optuna.Study) -> None:
    for number in range(12):
        assert importance(study) is None or number > 9
        trial = ask(study, 12, {**RATE, "nothing": FloatDistribution(0.0, 1.0)})
        assert trial is not None
        end(study, trial.number, trial.params["rate"])
    found = importance(study)
    assert found is not None
    assert found["rate"] > 0.8
    assert sum(found.values()) == pytest.approx(1)


class TestWhereabouts:
    def trial(self, study: optuna.Study, folder: Path, **attributes: object) -> optuna.trial.FrozenTrial:
        folder.mkdir()
        trial = ask(study, 9, RATE)
        assert trial is not None
        for key, value in {**signs(folder), **attributes}.items():
            trial.set_user_attr(key, value)
        return trial_of(study, trial.number)

    def test_by_the_lock_of_its_folder(self, study: optuna.Study, tmp_path: Path) -> None:
        trial = self.trial(study, tmp_path / "0", alive=0.0)
        lock = claim(tmp_path / "0")
        assert whereabouts(trial) == "alive"
        lock.release()
        with running(tmp_path / "0"):
            assert whereabouts(trial) == "ending"
        assert whereabouts(trial) == "abandoned"

    def test_elsewhere_by_its_signs_of_life(self, study: optuna.Study, tmp_path: Path) -> None:
        assert platform.node() != "elsewhere"
        fresh = self.trial(study, tmp_path / "0", host="elsewhere")
        assert whereabouts(fresh) == "alive"
        silent = self.trial(study, tmp_path / "1", host="elsewhere", alive=time.time() - 3600)
        assert whereabouts(silent) == "abandoned"

    def test_just_asked_for(self, study: optuna.Study) -> None:
        ask(study, 9, RATE)
        assert whereabouts(trial_of(study, 0)) == "alive"


class TestStorageThatFails:
    def test_no_folder(self, tmp_path: Path) -> None:
        with pytest.raises(SkinsegError, match=r"search\.storage=.*gone/a\.log: there is no folder .*gone"):
            open_study(str(tmp_path / "gone/a.log"), "a", mode="max")
        with pytest.raises(SkinsegError, match="unable to open database file"):
            open_study(f"sqlite:///{tmp_path}/gone/a.db", "a", mode="max")

    def test_not_a_storage(self, tmp_path: Path) -> None:
        (tmp_path / "a.db").write_text("no database at all, but some words of English\n" * 40)
        with pytest.raises(SkinsegError, match="file is not a database"):
            open_study(f"sqlite:///{tmp_path}/a.db", "a", mode="max")
        (tmp_path / "a.log").write_text("no journal\n")
        with pytest.raises(SkinsegError, match=r"a\.log cannot be used"):
            open_study(str(tmp_path / "a.log"), "a", mode="max")

    def test_locked(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        where = f"sqlite:///{tmp_path}/a.db"
        monkeypatch.setattr(module, "_SQLITE_WAIT_S", 0.1)
        study = open_study(where, "a", mode="max")
        holder = sqlite3.connect(tmp_path / "a.db")
        holder.execute("BEGIN EXCLUSIVE")
        with pytest.raises(SkinsegError, match=r"\(database is locked\): another process"), told(where):
            study.ask(RATE)
        holder.close()
        study.ask(RATE)

    def test_gone_meanwhile(self, where: str, tmp_path: Path) -> None:
        study = open_study(where, "a", mode="max")
        study.ask(RATE)
        for path in tmp_path.glob("a.*"):
            path.unlink()
        with pytest.raises(SkinsegError, match=r"cannot be used .*the same command goes on"), told(where):
            end(open_study(where, "a", mode="max", create=False), 0, 0.5)

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
    def test_not_writable(self, tmp_path: Path) -> None:
        tmp_path.chmod(0o500)
        with pytest.raises(SkinsegError, match="Permission denied"):
            open_study(str(tmp_path / "a.log"), "a", mode="max")

    def test_no_driver_and_no_password_in_the_message(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for driver in ("psycopg", "psycopg2"):
            monkeypatch.setitem(__import__("sys").modules, driver, None)
        with pytest.raises(SkinsegError, match=r"driver is not installed.*pip install") as refused:
            open_study("postgresql://me:secret@localhost/searches", "a", mode="max")
        assert "secret" not in str(refused.value)
        assert "postgresql://me:***@localhost/searches" in str(refused.value)
