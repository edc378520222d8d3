"""The download command, against a server on the loopback address."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from conftest import chosen
from PIL import Image

from skinseg.config.check import check
from skinseg.config.compose import compose, config_dir, plain
from skinseg.data.problems import Problems
from skinseg.data.readers.challenge import read_challenge
from skinseg.data.readers.masks import MASK_SOURCES
from skinseg.data.readers.sources import SOURCES
from skinseg.download import DownloadConfig, run
from skinseg.errors import SkinsegError


class Mirror:
    """Serves a folder in place of the publishers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[str] = []
        outer = self

        class Handler(SimpleHTTPRequestHandler):
            def __init__(self, *args: object, **kwargs: object) -> None:
                super().__init__(*args, directory=str(folder), **kwargs)  # type: ignore[arg-type]

            def do_GET(self) -> None:
                outer.asked.append(self.path.rsplit("/", 1)[-1])
                super().do_GET()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def picture(kind: str) -> bytes:
    file = io.BytesIO()
    if kind == "JPEG":
        Image.new("RGB", (40, 30), (200, 150, 130)).save(file, kind)
    else:
        mask = Image.new("L", (40, 30))
        mask.paste(255, (10, 10, 20, 20))
        mask.save(file, kind)
    return file.getvalue()


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[Mirror]:
    """A mirror of the challenge of 2016 with two images a subset."""
    folder = tmp_path / "mirror"
    number = 0
    for subset in ("Training", "Test"):
        ids = [f"ISIC_{number + i:07d}" for i in (1, 2)]
        number += 2
        for what, ending, kind in (("Data", ".jpg", "JPEG"), ("GroundTruth", "_Segmentation.png", "PNG")):
            name = f"ISBI2016_ISIC_Part1_{subset}_{what}"
            path = folder / "challenges" / "2016" / f"{name}.zip"
            path.parent.mkdir(parents=True, exist_ok=True)
            with zipfile.ZipFile(path, "w") as archive:
                for image_id in ids:
                    archive.writestr(f"{name}/{image_id}{ending}", picture(kind))
                archive.writestr(f"__MACOSX/{name}/._{ids[0]}{ending}", b"junk")
    one = Mirror(folder)
    yield one
    one.close()


def download(mirror: Mirror, tmp_path: Path, *overrides: str) -> Path:
    (folder,) = run(
        compose([f"data.root={tmp_path / 'data'}", f"mirror={mirror.url}", *overrides], "download")
    )
    return folder


def test_what_is_downloaded_is_what_the_reader_reads(
    mirror: Mirror, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = download(mirror, tmp_path, "data=isic2016")
    out = capsys.readouterr().out
    assert "Licence: CC-0" in out
    assert "arXiv:1605.01397" in out
    record = json.loads((folder / "SOURCE.json").read_text())
    assert record["licence"] == "CC-0"
    assert len(record["fetched"]) == 4
    assert not list(folder.glob("*.zip")), "unpacked archives are removed"
    catalog = read_challenge(tmp_path / "data", Problems(), year=2016)
    assert len(catalog) == 4
    assert catalog.table["mask"].notna().all()
    assert len(mirror.asked) == 4
    download(mirror, tmp_path, "data=isic2016")
    assert len(mirror.asked) == 4, "nothing is fetched twice"


def test_masks_alone(mirror: Mirror, tmp_path: Path) -> None:
    folder = download(mirror, tmp_path, "data=isic2016", "parts=[masks]", "keep_archives=true")
    assert len(list(folder.glob("*/*.png"))) == 4
    assert not list(folder.glob("*/*.jpg"))
    assert len(list(folder.glob("*.zip"))) == 2


def test_wrong_checksum(mirror: Mirror, tmp_path: Path) -> None:
    path = mirror.folder / "challenges" / "2018" / "ISIC2018_Task1_Training_GroundTruth.zip"
    path.parent.mkdir()
    path.write_bytes(b"not what was published")
    with pytest.raises(SkinsegError, match=r"wrong checksum.*expected sha256:99f8b2bb"):
        download(mirror, tmp_path, "data=isic2018", "parts=[masks]")
    assert not list((tmp_path / "data").rglob("*.zip"))


def test_hostile_archive(mirror: Mirror, tmp_path: Path) -> None:
    path = mirror.folder / "challenges" / "2016" / "ISBI2016_ISIC_Part1_Training_GroundTruth.zip"
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("../../../evil.png", b"evil")
    with pytest.raises(SkinsegError, match=r"leads out of the folder; nothing was unpacked"):
        download(mirror, tmp_path, "data=isic2016", "parts=[masks]")
    assert not list(tmp_path.rglob("evil.png"))
    assert not list((tmp_path / "data").rglob("*.png"))


def test_not_on_the_server(mirror: Mirror, tmp_path: Path) -> None:
    with pytest.raises(SkinsegError, match=r"HTTP status 404"):
        download(mirror, tmp_path, "data=isic2017")


def test_kaggle(mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []
    monkeypatch.setattr(
        "kagglehub.dataset_download", lambda handle, output_dir: asked.append((handle, output_dir))
    )
    folder = download(mirror, tmp_path, "data=isic9")
    assert asked == [("nodoubttome/skin-cancer9-classesisic", str(folder))]
    download(mirror, tmp_path, "data=isic9")
    assert len(asked) == 1

    def fail(*_: object, **__: object) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr("kagglehub.dataset_download", fail)
    with pytest.raises(
        SkinsegError, match=r"kmader/skin-cancer-mnist-ham10000 cannot be fetched .*no route.*browser"
    ):
        download(mirror, tmp_path, "data=ham10000")


def test_nothing_to_download(tmp_path: Path) -> None:
    with pytest.raises(
        SkinsegError, match=r"nothing to download for .*read_synthetic; known: ham10000, isic9"
    ):
        run(compose([f"data.root={tmp_path}", "data=synthetic"], "download"))


def test_no_part_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SkinsegError, match=r"parts=\[\]: there is nothing to download"):
        run(compose([f"data.root={tmp_path}", "parts=[]"], "download"))
    assert not list(tmp_path.iterdir())


def test_archives_unpack_to_where_masks_are_looked_for() -> None:
    for name, source in SOURCES.items():
        for archive in source.archives.get("masks", ()):
            assert MASK_SOURCES[name].folders.fullmatch(archive.file_name.removesuffix(".zip"))


@pytest.mark.slow
def test_command_line(mirror: Mirror, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "skinseg.download", "data=isic2016", f"mirror={mirror.url}"]
    done = subprocess.run(
        [*command, "data.root=x"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mirror", "x"], "no logs are strewn about"
    typo = subprocess.run([*command, "data.rot=x"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (typo.returncode, "did you mean data.root?" in typo.stderr) == (2, True)


@pytest.mark.parametrize(
    "path", sorted((config_dir() / "data").glob("[!b]*.yaml")), ids=lambda path: path.stem
)
def test_config_of_each_data_set(path: Path) -> None:
    check(plain(compose(chosen(path.stem), "download")), DownloadConfig)
