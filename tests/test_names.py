"""Names of files whose bytes are no text, or are too many."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path

import pandas as pd
import pytest

from skinseg.counting import counted, often
from skinseg.data.files import image_id_of, name_of
from skinseg.data.problems import PROBLEMS
from skinseg.inference.files import kept_mask_name, mask_name
from skinseg.names import escape_output, folder_name, shown
from skinseg.run.identity import digest
from skinseg.run.writing import FileNameError, write_csv, write_json, write_text

LATIN = os.fsdecode(b"caf\xe9")


def test_a_name_that_is_no_text_is_shown_and_told_from_others() -> None:
    assert shown(LATIN) == r"caf\udce9"
    assert shown("café ☕ ISIC_0024306") == "café ☕ ISIC_0024306"
    assert image_id_of(f"{LATIN}_downsampled") == r"caf\udce9"
    assert len({image_id_of(os.fsdecode(b"caf" + bytes([byte]))) for byte in range(0x80, 0x100)}) == 128
    assert digest([LATIN]) != digest([os.fsdecode(b"caf\xe8")])


def test_masks_of_names_that_are_no_text_bear_one_name_everywhere() -> None:
    assert (
        mask_name(image_id_of(LATIN)) == kept_mask_name(image_id_of(LATIN)) == r"caf\udce9_segmentation.png"
    )
    assert name_of("ISIC_0000001_downsampled") == "ISIC_0000001"


def test_tables_texts_and_records_take_such_names(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", pd.DataFrame({"file": [f"/in/{LATIN}.jpg", "ü"]}))
    assert pd.read_csv(tmp_path / "a.csv")["file"].tolist() == [r"/in/caf\udce9.jpg", "ü"]
    write_text(tmp_path / "a.html", f"<p>{LATIN} ü")
    assert (tmp_path / "a.html").read_text(encoding="utf-8") == r"<p>caf\udce9 ü"
    write_json(tmp_path / "a.json", {"folder": LATIN})
    assert json.loads((tmp_path / "a.json").read_bytes())["folder"] == LATIN, "it may be opened again"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_output_takes_all_letters(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2)]
    monkeypatch.setattr(sys, "stdout", streams[0])
    monkeypatch.setattr(sys, "stderr", streams[1])
    escape_output()
    for stream in streams:
        stream.write(f"{LATIN} ☕")
        stream.flush()
        assert rb"caf\udce9 " in stream.buffer.getvalue()  # type: ignore[attr-defined]


def test_output_of_a_notebook_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    escape_output()


@pytest.mark.parametrize("length", [200, 238, 243, 255])
def test_a_name_may_be_as_long_as_the_file_system_takes(tmp_path: Path, length: int) -> None:
    path = tmp_path / ("b" * (length - 4) + ".png")
    write_text(path, "a")
    assert [found.name for found in tmp_path.iterdir()] == [path.name]


def test_a_longer_name_is_an_error_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(FileNameError, match="name too long"):
        write_text(tmp_path / ("b" * 256), "a")
    assert list(tmp_path.iterdir()) == []


def test_an_evaluation_keeps_masks_of_all_names() -> None:
    ids = ["b" * length for length in (10, 238, 239, 251)] + ["é" * 120, "é" * 119 + "a", "ü" * 127]
    kept = [kept_mask_name(image_id) for image_id in ids]
    assert kept[:2] == [mask_name(image_id) for image_id in ids[:2]]
    assert len(set(kept)) == len(ids)
    assert max(len(os.fsencode(name)) for name in kept) <= 255


@pytest.mark.parametrize(
    "name",
    ["..", ".", "", ".hidden", "/root", "../x", "a/../../b", "a\\..\\b", "C:x", "a\nb", "a\0b", "\udce9"],
)
def test_a_name_of_others_is_that_of_one_folder(name: str, tmp_path: Path) -> None:
    (tmp_path / folder_name(name)).mkdir()
    assert [path.name for path in tmp_path.iterdir()] == [folder_name(name)]
    assert not folder_name(name).startswith(".")


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (counted(0, "image"), "0 images"),
        (counted(1, "image"), "1 image"),
        (counted(12_345, "image"), "12,345 images"),
        (counted(1, "of 2 jobs is", "of 2 jobs are"), "1 of 2 jobs is"),
        (counted(2, "of 2 jobs is", "of 2 jobs are"), "2 of 2 jobs are"),
        (often(1), "once"),
        (often(2), "twice"),
        (often(1_000), "1,000 times"),
    ],
)
def test_numbers_and_their_words(said: str, expected: str) -> None:
    assert said == expected


def test_every_problem_is_worded_for_one_and_for_many() -> None:
    assert all(one != many for one, many in PROBLEMS.values())
