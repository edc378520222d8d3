"""What an earlier call left in a folder goes; what anybody else put there stays."""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
from pathlib import Path

import pytest

from skinseg.errors import SkinsegError
from skinseg.run.writing import replacing, write_text
from skinseg.run.written import (
    RECORD,
    afresh,
    clear,
    current,
    go_on,
    written_before,
    written_by_any,
    written_in,
)


def call(folder: Path, *names: str, command: str = "evaluate", text: str = "a") -> None:
    with afresh(folder, command):
        for name in names:
            write_text(folder / name, text)


def names(folder: Path) -> list[str]:
    return sorted(
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.name != RECORD
    )


def test_a_folder_holds_what_the_last_call_wrote_and_what_others_did(tmp_path: Path) -> None:
    call(tmp_path, "a.csv", "b.csv", "masks/1.png", "0_run/masks/2.png")
    (tmp_path / "masks/own.png").write_text("mine")
    (tmp_path / "own.csv").write_text("mine")
    call(tmp_path, "b.csv", "c.csv", text="b")
    assert names(tmp_path) == ["b.csv", "c.csv", "masks/own.png", "own.csv"]
    assert not (tmp_path / "0_run").exists(), "folders that are empty by then go too"
    assert (tmp_path / "b.csv").read_text() == "b"


def test_a_file_that_was_changed_since_stays_and_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    call(tmp_path, "a.csv", "b.csv")
    (tmp_path / "a.csv").write_text("corrected by hand")
    with caplog.at_level(logging.WARNING):
        call(tmp_path, "c.csv")
    assert names(tmp_path) == ["a.csv", "c.csv"]
    assert (
        "1 file that an earlier call of evaluate wrote was changed since and left there, e.g. a.csv"
        in caplog.text
    )
    call(tmp_path, "c.csv")
    assert (tmp_path / "a.csv").read_text() == "corrected by hand", "for good"


def test_commands_in_one_folder_leave_each_other_alone(tmp_path: Path) -> None:
    call(tmp_path, "scores.csv")
    call(tmp_path, "ranking.csv", command="compare")
    call(tmp_path, "differ.csv", command="compare")
    assert names(tmp_path) == ["differ.csv", "scores.csv"]
    clear(tmp_path, "compare")
    clear(tmp_path, "evaluate")
    assert list(tmp_path.iterdir()) == [], "the record too"


def test_what_a_call_wrote_before_it_failed_is_known(tmp_path: Path) -> None:
    with contextlib.suppress(RuntimeError), afresh(tmp_path, "predict"):
        write_text(tmp_path / "half.png", "a")
        raise RuntimeError
    with (tmp_path / RECORD).open("a") as record:
        record.write('{"command": "predict", "file": "ha')  # a kill in the middle of a line
    assert written_before(tmp_path, "predict") == [tmp_path / "half.png"]
    call(tmp_path, command="predict")
    assert names(tmp_path) == []


def test_a_file_that_could_not_be_written_is_not_noted(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("mine")
    with afresh(tmp_path, "evaluate"), pytest.raises(SkinsegError), replacing(tmp_path / "a.csv"):
        raise OSError("full")
    call(tmp_path)
    assert names(tmp_path) == ["a.csv"]


def test_the_record_moves_with_its_folder(tmp_path: Path) -> None:
    call(tmp_path / "a", "x.csv")
    shutil.copytree(tmp_path / "a", tmp_path / "b", copy_function=shutil.copyfile)
    call(tmp_path / "b", "y.csv")
    assert names(tmp_path / "b") == ["y.csv"]
    assert names(tmp_path / "a") == ["x.csv"]


@pytest.mark.parametrize("kind", ["above", "absolute"])
def test_a_record_reaches_nothing_outside_of_its_folder(tmp_path: Path, kind: str) -> None:
    """It may have come with a folder that somebody else has made."""
    call(tmp_path / "in", "x.csv")
    shutil.copy(tmp_path / "in/x.csv", tmp_path / "x.csv")
    record = tmp_path / "in" / RECORD
    line = json.loads(record.read_text())
    line["file"] = "../x.csv" if kind == "above" else str(tmp_path / "x.csv")
    record.write_text(json.dumps(line) + "\n")
    call(tmp_path / "in", "y.csv")
    assert (tmp_path / "x.csv").is_file()


def test_what_is_yet_to_be_read_is_refused(tmp_path: Path) -> None:
    call(tmp_path, "masks/1.png", "report.html")
    for reads in (tmp_path / "masks", tmp_path):
        with pytest.raises(
            SkinsegError, match=r"predictions=.*earlier call of evaluate wrote it.*another folder"
        ):
            clear(tmp_path, "evaluate", {"predictions": str(reads)})
    assert names(tmp_path) == ["masks/1.png", "report.html"]
    clear(tmp_path, "evaluate", {"predictions": str(tmp_path / "others"), "truth": None})
    assert names(tmp_path) == []


def test_the_folder_of_a_training_is_refused(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(SkinsegError, match="folder of a training"), afresh(tmp_path, "evaluate"):
        pass


def test_further_processes_note_what_they_write(tmp_path: Path) -> None:
    with afresh(tmp_path, "evaluate"):
        first = current()
    go_on(first)
    try:
        write_text(tmp_path / "masks/1.png", "a")
        assert written_in(tmp_path / "masks") == [tmp_path / "masks/1.png"]
        assert written_in(tmp_path) == [], "not what lies below"
    finally:
        go_on(None)
    assert written_in(tmp_path) == []
    assert written_before(tmp_path, "evaluate") == [tmp_path / "masks/1.png"]


COMMANDS = ["split", "audit", "predict", "evaluate", "compare"]


@pytest.mark.parametrize("command", COMMANDS)
def test_what_any_command_wrote_is_found(command: str, tmp_path: Path) -> None:
    call(tmp_path, "masks/a.png", command=command)
    assert written_by_any(tmp_path) == [tmp_path / "masks/a.png"]
    (tmp_path / "masks/a.png").unlink()
    assert written_by_any(tmp_path) == []


@pytest.mark.parametrize("name", ["evaluation.json", "comparison.json"])
def test_what_commands_wrote_before_they_noted_it_is_found(name: str, tmp_path: Path) -> None:
    assert written_by_any(tmp_path / "none") == []
    (tmp_path / name).touch()
    assert written_by_any(tmp_path) == [tmp_path / name]
