"""Finding files: no folder and no photograph is lost without a word."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import make_ham, write_image
from trees import write_isic9

from skinseg.data.files import find_images, subfolders, walk
from skinseg.data.problems import Problems
from skinseg.data.readers.challenge import read_challenge
from skinseg.data.readers.ham10000 import read_ham10000
from skinseg.data.readers.isic9 import read_isic9
from skinseg.errors import SkinsegError
from skinseg.inference.files import find_mask_files, find_photographs

Closing = Callable[[Path], None]


@pytest.fixture
def close(monkeypatch: pytest.MonkeyPatch) -> Closing:
    """Returns a function that makes a folder one that cannot be listed; permissions do not stop root."""
    closed: set[str] = set()
    original = os.scandir

    def scandir(path: Any = ".") -> Iterator[os.DirEntry[str]]:
        if os.fspath(path) in closed:
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return original(path)

    monkeypatch.setattr(os, "scandir", scandir)

    def add(folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        closed.add(str(folder))

    return add


READERS: dict[str, Callable[[Path], object]] = {
    "walk": lambda folder: list(walk(folder)),
    "photographs": lambda folder: find_photographs(folder, "input"),
    "masks": lambda folder: find_mask_files(folder, "truth"),
    "ham10000": lambda folder: read_ham10000(folder, Problems()),
    "isic9": lambda folder: read_isic9(folder, Problems()),
    "challenge": lambda folder: read_challenge(folder, Problems(), year=2018),
}


@pytest.mark.parametrize("reader", READERS)
def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path, close: Closing, reader: str) -> None:
    make_ham(tmp_path, 2)
    write_isic9(tmp_path, {"Train/nevus": ["ISIC_0000001"]})
    close(tmp_path / "images/part_2")
    with pytest.raises(
        SkinsegError, match=r"images/part_2 cannot be listed: Permission denied.*Make it readable"
    ):
        READERS[reader](tmp_path)


@pytest.mark.parametrize("reader", READERS)
def test_a_root_that_cannot_be_listed_is_named(tmp_path: Path, close: Closing, reader: str) -> None:
    close(tmp_path / "data")
    with pytest.raises(SkinsegError, match=r"data cannot be listed: Permission denied"):
        READERS[reader](tmp_path / "data")


def test_closed_folders_of_the_system_are_none_of_the_users(tmp_path: Path, close: Closing) -> None:
    write_image(tmp_path / "a.jpg")
    for name in ("lost+found", "System Volume Information", "$RECYCLE.BIN", ".Trash-0"):
        close(tmp_path / name)
    assert list(walk(tmp_path)) == [(tmp_path, ["a.jpg"])]
    assert subfolders(tmp_path) == []


def test_links_that_lead_nowhere_and_in_a_circle(tmp_path: Path) -> None:
    write_image(tmp_path / "sub/a.jpg")
    (tmp_path / "sub/up").symlink_to(tmp_path)
    (tmp_path / "b.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (tmp_path / "photographs").symlink_to(tmp_path / "a disk that is not there")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    found = find_photographs(tmp_path, "input")
    assert list(found.files) == ["a", "b"], "b fails when it is opened, and is listed"
    assert [path.name for path in found.not_read] == ["loop", "photographs"]


def test_all_that_is_no_photograph_is_counted(tmp_path: Path) -> None:
    write_image(tmp_path / "a.jpg")
    for name in ("b.dcm", "sub/c.DCM", "d.heif", "e.txt", "f.TXT", "LICENSE"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"words")
    found = find_photographs(tmp_path, "input")
    assert sorted(path.name for path in found.not_read) in (["b.dcm", "c.DCM", "d.heif"], ["b.dcm", "c.DCM"])
    assert found.others == {".txt": 2, "without an ending": 1}
    remarks = " ".join(found.remarks())
    assert "2 .dcm" in remarks
    assert "2 .txt, 1 without an ending" in remarks
    (tmp_path / "a.jpg").unlink()
    (tmp_path / "d.heif").unlink()
    with pytest.raises(SkinsegError, match=r"(?s)holds no picture that is read.*2 \.dcm.*convert it"):
        find_photographs(tmp_path, "input")


def test_every_ending_of_a_jpeg_is_an_image_of_a_data_set(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.JPEG", "c.jfif", "d.jpe", "e.png"):
        write_image(tmp_path / name, colour="red") if name != "c.jfif" else write_image(tmp_path / name)
    assert list(find_images(list(walk(tmp_path)))[0]) == ["a", "b", "c", "d"]


def test_images_of_a_data_set_that_are_no_jpeg_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = write_isic9(tmp_path, {"Train/nevus": ["ISIC_0000001"]})
    folder = next(root.rglob("nevus"))
    write_image(folder / "ISIC_0000002.png")
    write_image(folder / "ISIC_0000001.png")
    write_image(folder / "ISIC_0000001_segmentation.png")
    (folder / "notes.txt").write_text("words")
    with caplog.at_level(logging.WARNING), pytest.raises(SkinsegError, match="no mask"):
        read_isic9(root, Problems())
    assert "1 picture is passed over" in caplog.text
    assert "ISIC_0000002.png" in caplog.text


def test_hidden_files_are_counted(tmp_path: Path) -> None:
    write_image(tmp_path / "sub/a.jpg")
    for name in (".IMG_1.jpg", "sub/.DS_Store", "__MACOSX/b.jpg", ".thumbnails/c.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    found = find_photographs(tmp_path, "input")
    assert list(found.files) == ["a"]
    assert list(found.remarks()) == ["Passed over without a look: 4 hidden files and folders."]
