"""A study in its storage: whose trials it holds, what is given back, storages that fail, plots."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState
from PIL import Image

from skinseg.errors import SkinsegError
from skinseg.sweep import study as module
from skinseg.sweep.study import (
    abandoned,
    agree,
    counted,
    draw,
    give_back,
    note_place,
    open_storage,
    table,
    told,
)

RATE = {"rate": FloatDistribution(0.0, 1.0)}


def open_study(where: str) -> optuna.Study:
    with told(where):
        return optuna.create_study(
            study_name="a", storage=open_storage(where), direction="maximize", load_if_exists=True
        )


@pytest.fixture(params=["journal", "sqlite"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "a.log") if request.param == "journal" else f"sqlite:///{tmp_path / 'a.db'}"


def test_a_study_is_of_one_search(where: str) -> None:
    agree(open_study(where), {"lr": 1, "seed": 0})
    agree(open_study(where), {"lr": 1, "seed": 0})
    with pytest.raises(SkinsegError, match=r"another search of that name.*\n  lr: 1 there, 2 here\nGo on"):
        agree(open_study(where), {"lr": 2, "seed": 0})


def test_a_trial_that_is_given_back_is_taken_again_but_not_for_ever(where: str, tmp_path: Path) -> None:
    study = open_study(where)
    first = study.ask(RATE)
    first.report(0.25, 0)
    numbers = []
    for number in range(3):
        note_place(first if number == 0 else study.ask(RATE), tmp_path).release()
        (left,) = abandoned(study)
        assert left.params == first.params
        assert left.intermediate_values == {0: 0.25}
        numbers.append([trial.number for trial in counted(study)])
        give_back(study, left)
        study.tell(left.number, state=TrialState.FAIL)
    assert numbers == [[0], [1], [2]]
    assert [trial.number for trial in counted(study)] == [2]
    assert study.ask(RATE).params != first.params


def test_a_trial_is_abandoned_when_nobody_holds_its_folder(where: str, tmp_path: Path) -> None:
    study = open_study(where)
    trial = study.ask(RATE)
    assert list(abandoned(study)) == []  # asked for a moment ago
    lock = note_place(trial, tmp_path)
    assert list(abandoned(open_study(where))) == []
    lock.release()
    for held in abandoned(study):
        assert held.number == 0
        assert list(abandoned(open_study(where))) == []  # nobody else settles it meanwhile
    trial.set_user_attr("place", {"number": 0, "host": "elsewhere", "folder": str(tmp_path)})
    assert list(abandoned(study)) == []


def test_a_trial_that_goes_on_is_not_taken_for_the_earlier_one(where: str, tmp_path: Path) -> None:
    """Before it has noted its own folder it has the note of the other."""
    study = open_study(where)
    note_place(study.ask(RATE), tmp_path).release()
    give_back(study, study.trials[0])
    study.tell(0, state=TrialState.FAIL)
    assert study.ask(RATE).number == 1
    assert list(abandoned(study)) == []


def test_a_silent_trial_of_another_machine_is_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SILENT_S", 1)
    study = open_study(f"sqlite:///{tmp_path}/a.db")
    study.ask(RATE)
    study._storage.record_heartbeat(study.trials[0]._trial_id)  # type: ignore[attr-defined]
    with sqlite3.connect(tmp_path / "a.db") as database:
        database.execute("UPDATE trial_heartbeats SET heartbeat = datetime('now', '-1 hour')")
    params = study.trials[0].params
    study.optimize(lambda trial: trial.suggest_float("rate", 0.0, 1.0), n_trials=1)
    assert [trial.state for trial in study.trials] == [TrialState.FAIL, TrialState.COMPLETE]
    assert study.trials[1].params == params
    assert [trial.number for trial in counted(study)] == [1]


def test_the_table_and_the_plots(tmp_path: Path) -> None:
    study = open_study(str(tmp_path / "a.log"))

    def objective(trial: optuna.Trial) -> float:
        score = trial.suggest_float("rate", 0.0, 1.0)
        trial.suggest_categorical("loss", ["dice", "bce"])
        trial.report(score, 0)
        if trial.number == 2:
            raise optuna.TrialPruned
        if trial.number == 3:
            trial.set_user_attr("error", "broken")
            raise SkinsegError
        return score

    study.optimize(objective, n_trials=8, catch=(SkinsegError,))
    draw(study, tmp_path, "val/dice")
    assert not (tmp_path / "importance.png").exists()  # too few to tell
    study.optimize(objective, n_trials=4)
    draw(study, tmp_path, "val/dice")
    for name in ("history", "values", "importance"):
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert len(picture.convert("L").getcolors() or []) > 10
    found = table(study)
    assert found["state"].tolist()[:4] == ["complete", "complete", "pruned", "fail"]
    assert found["error"].tolist()[3] == "broken"
    assert found["score"].drop(3).equals(found["rate"].drop(3))


class TestStorageThatFails:
    def test_no_folder(self, tmp_path: Path) -> None:
        with pytest.raises(SkinsegError, match=r"search\.storage=.*gone/a\.log: there is no folder .*gone"):
            open_study(str(tmp_path / "gone/a.log"))
        with pytest.raises(SkinsegError, match="unable to open database file"):
            open_study(f"sqlite:///{tmp_path}/gone/a.db")

    def test_not_a_storage(self, tmp_path: Path) -> None:
        (tmp_path / "a.db").write_text("no database at all, but some words of English\n" * 40)
        with pytest.raises(SkinsegError, match="file is not a database"):
            open_study(f"sqlite:///{tmp_path}/a.db")
        (tmp_path / "a.log").write_text("no journal\n")
        with pytest.raises(SkinsegError, match=r"a\.log cannot be used"):
            open_study(str(tmp_path / "a.log"))
        with pytest.raises(SkinsegError, match=r"search\.storage=nonsense://\.\.\. cannot be used"):
            open_study("nonsense://a b:c@d:e")

    def test_locked(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        where = f"sqlite:///{tmp_path}/a.db"
        monkeypatch.setattr(module, "_SQLITE_WAIT_S", 0.1)
        study = open_study(where)
        holder = sqlite3.connect(tmp_path / "a.db")
        holder.execute("BEGIN EXCLUSIVE")
        with pytest.raises(SkinsegError, match=r"\(database is locked\): another process"), told(where):
            study.optimize(lambda trial: 0.5, n_trials=1)
        holder.close()
        study.optimize(lambda trial: 0.5, n_trials=1)

    def test_gone_while_a_trial_runs(self, where: str, tmp_path: Path) -> None:
        def objective(trial: optuna.Trial) -> float:
            for path in tmp_path.glob("a.*"):
                path.unlink()
            return 0.5

        with pytest.raises(SkinsegError, match=r"cannot be used .*run the same command"), told(where):
            open_study(where).optimize(objective, n_trials=1)

    def test_other_errors_pass(self, where: str) -> None:
        def objective(trial: optuna.Trial) -> float:
            raise KeyError("a bug")

        with pytest.raises(KeyError, match="a bug"), told(where):
            open_study(where).optimize(objective, n_trials=1)

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
    def test_not_writable(self, tmp_path: Path) -> None:
        tmp_path.chmod(0o500)
        with pytest.raises(SkinsegError, match="Permission denied"):
            open_study(str(tmp_path / "a.log"))

    def test_no_driver_and_no_password_in_the_message(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for driver in ("psycopg", "psycopg2"):
            monkeypatch.setitem(__import__("sys").modules, driver, None)
        with pytest.raises(SkinsegError, match=r"driver is not installed.*pip install") as refused:
            open_study("postgresql://me:secret@localhost/searches")
        assert "secret" not in str(refused.value)
        assert "postgresql://me:***@localhost/searches" in str(refused.value)

    def test_a_server_that_is_not_there(self) -> None:
        pytest.importorskip("psycopg")
        with pytest.raises(SkinsegError, match=r"cannot be used \(connection .*refused") as refused:
            open_study("postgresql+psycopg://me:secret@127.0.0.1:1/searches")
        assert "secret" not in str(refused.value)


class TestTornJournal:
    """A power cut or a full disk leaves a part of the last line, or what is no text."""

    def left(self, tmp_path: Path, cut: int, then: bytes = b"") -> tuple[Path, bytes]:
        """Writes a journal with two trials that have a score, and cuts it."""
        journal = tmp_path / "a.log"
        study = open_study(str(journal))
        agree(study, {"lr": 1})
        for score in (0.25, 0.5):
            study.optimize(lambda trial, score=score: score, n_trials=1)
        content = journal.read_bytes()[:-cut] + then
        journal.write_bytes(content)
        return journal, content

    @pytest.mark.parametrize(("cut", "then"), [(1, b""), (25, b""), (25, b"\n"), (25, b"\0" * 40)])
    def test_its_last_line_is_set_aside_and_the_search_goes_on(
        self, cut: int, then: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        journal, before = self.left(tmp_path, cut, then)
        for number in range(3):  # twice again, for what was written behind a torn line is read by the next
            study = open_study(str(journal))
            agree(study, {"lr": 1})
            study.optimize(lambda trial: 0.75, n_trials=1)
            assert len(study.trials) == 3 + number
        assert study.trials[0].value == 0.25
        aside = journal.with_name("a.log.torn")
        torn = aside.read_bytes()
        assert torn.rstrip(b"\n") == before[before.rindex(b"\n", 0, -1) + 1 :].rstrip(b"\n"), "not lost"
        assert caplog.text.count("its last line is torn") == 1
        assert str(aside) in caplog.text

    def test_while_another_process_uses_it(self, tmp_path: Path) -> None:
        journal, _ = self.left(tmp_path, 25)
        one, other = open_study(str(journal)), open_study(str(journal))
        for study in (one, other, one):
            study.optimize(lambda trial: 0.75, n_trials=1)
        assert len(one.trials) == len(other.trials) == 5
        assert one.trials[-1].value == 0.75

    @pytest.mark.parametrize("length", [0, 5, 30])
    def test_its_first_line(self, length: int, tmp_path: Path) -> None:
        open_study(str(tmp_path / "a.log"))
        content = (tmp_path / "a.log").read_bytes()[:length]
        (tmp_path / "a.log").write_bytes(content)
        for _ in range(2):
            assert open_study(str(tmp_path / "a.log")).trials == []

    def test_a_torn_line_within_it_is_named(self, tmp_path: Path) -> None:
        journal, content = self.left(tmp_path, 25)
        lines = content.splitlines(keepends=True)
        # What was written behind a torn line, by an earlier version.
        journal.write_bytes(b"".join([*lines[:3], lines[3][:20] + lines[4], *lines[2:4]]))
        with pytest.raises(SkinsegError, match=r"its line 4 is no line of a journal\. Remove that line"):
            open_study(str(journal))

    def test_another_file_is_left_as_it_is(self, tmp_path: Path) -> None:
        (tmp_path / "a.log").write_text("first words\nlast words")
        with pytest.raises(SkinsegError, match="its line 1 is no line of a journal"):
            open_study(str(tmp_path / "a.log"))
        assert (tmp_path / "a.log").read_text().startswith("first words\nlast words")
        assert not (tmp_path / "a.log.torn").exists()
