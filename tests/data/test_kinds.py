"""Which files are photographs, and why the others are not."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from skinseg.data.kinds import FORMATS, endings, is_picture, why_not_read
from skinseg.data.photographs import UnreadableFileError, read_frame, read_image, read_mask
from skinseg.inference.files import read_prediction


def test_all_that_pillow_reads_of_photographs_is_read(tmp_path: Path) -> None:
    """A picture that Pillow writes by its ending comes back, whichever of the endings it is."""
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (16, 20, 3), dtype=np.uint8))
    Image.init()
    known = Image.registered_extensions()
    writable = [ending for ending in endings() if known[ending] in Image.SAVE]
    assert {".jpg", ".jpeg", ".jfif", ".jpe", ".avif", ".jp2", ".ppm", ".webp", ".tif", ".tga"} <= set(
        writable
    )
    for ending in writable:
        path = tmp_path / f"a{ending}"
        grey = ending in (".pbm", ".pgm", ".bw", ".pfm")
        mode = {".pbm": "1", ".pfm": "F"}.get(ending, "L") if grey else "RGB"
        if mode == "F":
            continue  # of which no colours can be made
        picture.convert(mode).save(path)
        assert read_image(path).shape == (16, 20, 3), ending


def test_no_format_that_runs_a_program_or_is_no_photograph_is_read() -> None:
    assert not FORMATS & {"EPS", "PDF", "WMF", "MPEG", "HDF5", "GRIB", "BUFR", "FITS", "ICO", "ICNS"}
    assert not endings() & {".eps", ".ps", ".pdf", ".wmf", ".emf", ".mpg", ".h5", ".fits", ".ico"}
    assert endings("JPEG") == {".jpg", ".jpeg", ".jpe", ".jfif"}


def test_an_eps_that_is_called_a_photograph_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pillow goes by the content, and hands an EPS to Ghostscript."""

    def run(*arguments: object, **_: object) -> None:
        raise AssertionError(f"started {arguments}")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", run)
    monkeypatch.setattr(subprocess, "Popen", run)
    Image.new("RGB", (8, 6)).save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(tmp_path / "a.jpg")
    for read in (read_image, read_mask, read_frame):
        with pytest.raises(UnreadableFileError, match="not an image"):
            read(tmp_path / "a.jpg")
    with pytest.raises(UnreadableFileError):
        read_prediction(tmp_path / "a.jpg", (6, 8))


def test_damaged_pictures_of_another_name_end_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decoders raise errors of any kind for damaged bytes."""
    (tmp_path / "notes.bin").write_bytes(b"any")
    for error in (RuntimeError, MemoryError, KeyError, OverflowError):

        def fail(*_: object, error: type[Exception] = error, **__: object) -> None:
            raise error("damaged")

        monkeypatch.setattr(Image, "open", fail)
        assert why_not_read(tmp_path / "notes.bin") is None


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a.HEIC", "skinseg[heif]"),
        ("a.hif", "skinseg[heif]"),
        ("a.dcm", ".dcm is not read; convert"),
        ("a.CR2", ".cr2 is not read"),
        ("a.svs", ".svs is not read"),
        ("a.jxl", ".jxl is not read"),
        ("a.svg", ".svg is not read"),
    ],
)
def test_a_picture_of_another_kind_has_a_reason_and_a_way_out(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / name).write_bytes(b"?")
    reason = why_not_read(tmp_path / name)
    assert reason is not None
    assert said in reason
    assert is_picture(name)


@pytest.mark.parametrize(
    "name", ["a.txt", "a.csv", "a.json", "Thumbs.db", "desktop.ini", "LICENSE", "a.ico", "a.pdf", "a.zip"]
)
def test_what_lies_beside_photographs_has_none(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"some words of no picture, and a few more of them")
    assert why_not_read(tmp_path / name) is None
    assert not is_picture(name)


def test_pictures_without_their_ending_are_known_by_their_content(tmp_path: Path) -> None:
    picture = Image.new("RGB", (8, 6))
    for name, kind in (("IMG_1", "JPEG"), ("IMG_2.jpg_large", "PNG"), ("IMG_3.bak", "TIFF")):
        picture.save(tmp_path / name, format=kind)
        assert f"{kind} by its content" in str(why_not_read(tmp_path / name))
    (tmp_path / "IM0001").write_bytes(b"\0" * 128 + b"DICM" + b"\0" * 20)
    assert "DICOM by its content" in str(why_not_read(tmp_path / "IM0001"))
    (tmp_path / "empty").write_bytes(b"")
    assert why_not_read(tmp_path / "empty") is None


def test_what_is_no_file_is_named_without_being_opened(tmp_path: Path) -> None:
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    os.mkfifo(tmp_path / "pipe")  # to open it would wait for ever
    for name in ("gone", "loop", "pipe"):
        assert "no file" in str(why_not_read(tmp_path / name))


def test_heic_is_read_where_its_plug_in_is_installed(tmp_path: Path) -> None:
    heif = pytest.importorskip("pillow_heif", reason="without the extra heif")
    pixels = np.full((64, 80, 3), (200, 150, 120), np.uint8)
    heif.from_pillow(Image.fromarray(pixels)).save(tmp_path / "a.heic")
    assert ".heic" in endings()
    assert np.abs(read_image(tmp_path / "a.heic").astype(int) - pixels).max() < 8
