"""What `python -m skinseg.download` does."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import DownloadColumn, Progress, TimeRemainingColumn

from skinseg.config.schema import Plain
from skinseg.counting import counted
from skinseg.data.readers.fetch import fetch, unpack
from skinseg.data.readers.masks import how_to_get_masks
from skinseg.data.readers.sources import SOURCES, Source
from skinseg.errors import SkinsegError
from skinseg.quoting import override, pasted
from skinseg.run.claims import claimed
from skinseg.run.writing import write_json

RECORD = "SOURCE.json"


def run(config: Plain) -> list[Path]:
    """Downloads and unpacks a data set.

    Args:
        config: Checked; see `skinseg.download.DownloadConfig`.

    Returns:
        The folders that were filled.

    Raises:
        SkinsegError: A mistake in the configuration, no such source, or a download that failed.
    """
    if not config["parts"]:
        raise SkinsegError("parts=[]: there is nothing to download; expected images, masks or both.")

    console = Console(highlight=False, soft_wrap=True, markup=False)
    names = list(_names(config["data"]["reader"]))
    if not names:
        target = config["data"]["reader"]["_target_"]
        raise SkinsegError(f"data: nothing to download for {target}; known: {', '.join(SOURCES)}.")
    folders = []
    for name in names:
        folder = Path(config["data"]["root"]).expanduser() / name
        with claimed(folder):
            _download(name, SOURCES[name], folder, config, console)
        folders.append(folder)
    return folders


def _names(reader: Mapping[str, Any]) -> Iterator[str]:
    """Yields the sources that a reader reads."""
    target = str(reader["_target_"]).rsplit(".", 1)[-1]
    if target == "read_combined":
        for part in reader["readers"].values():
            yield from _names(part)
    elif target == "read_challenge":
        yield f"isic{reader['year']}"
    elif target in ("read_ham10000", "read_isic9"):
        yield target.removeprefix("read_")


def _download(name: str, source: Source, folder: Path, config: Mapping[str, Any], console: Console) -> None:
    console.print(f"{name}: {source.page}", style="bold")
    console.print(f"Licence: {source.licence}")
    for citation in source.citations:
        console.print(f"Cite: {citation}")
    record_path = folder / RECORD
    record = _read_record(record_path) or {
        "name": name,
        **{key: value for key, value in dataclasses.asdict(source).items() if key != "archives"},
        "fetched": {},
    }
    if "images" in config["parts"] and source.kaggle is not None and source.kaggle not in record["fetched"]:
        _from_kaggle(source.kaggle, folder)
        record["fetched"][source.kaggle] = {"at": _now()}
        write_json(record_path, record)
    columns = (*Progress.get_default_columns()[:2], DownloadColumn(), TimeRemainingColumn())
    for part in config["parts"]:
        for archive in source.archives.get(part, ()):
            if archive.file_name in record["fetched"]:
                console.print(f"{archive.file_name} is unpacked already.")
                continue
            if config["mirror"] is not None:
                archive = _mirrored(archive, config["mirror"])
            with Progress(*columns, console=console, transient=True) as bar:
                task = bar.add_task(archive.file_name, total=None)

                def show(
                    what: str, done: int, total: int | None, bar: Progress = bar, task: Any = task
                ) -> None:
                    bar.update(task, description=what, completed=done, total=total)

                path = fetch(archive, folder, progress=show)
                files = unpack(path, folder, progress=show)
            record["fetched"][archive.file_name] = {
                "url": archive.url, "digest": archive.digest, "files": files, "at": _now(),
            }  # fmt: skip
            write_json(record_path, record)
            if not config["keep_archives"]:
                path.unlink()
            console.print(f"{archive.file_name}: {counted(files, 'file')}.")
    if "masks" in config["parts"] and not source.archives.get("masks"):
        console.print(f"{name} has no masks of its own. {how_to_get_masks()}")
    console.print(
        f"In {folder}; licence and citations are in {record_path.name}. Use it with "
        + pasted(override("data.root", folder.parent))
    )


def _read_record(path: Path) -> dict[str, Any] | None:
    try:
        return dict(json.loads(path.read_text())) if path.is_file() else None
    except ValueError as error:
        raise SkinsegError(f"{path} is not what a download wrote ({error}); remove it.") from error


def _from_kaggle(handle: str, folder: Path) -> None:
    """Lets kagglehub fetch and unpack a data set; it resumes and checks by itself."""
    import kagglehub

    try:
        kagglehub.dataset_download(handle, output_dir=str(folder))
    except Exception as error:  # kagglehub passes on whatever its transport raises
        raise SkinsegError(
            f"The Kaggle data set {handle} cannot be fetched ({type(error).__name__}: {error}). Check the "
            f"connection, or download https://www.kaggle.com/datasets/{handle} in a browser and unpack it in "
            f"{folder}; parts=[masks] fetches the rest."
        ) from error


def _mirrored(archive: Any, mirror: str) -> Any:
    """Asks another host for the same path."""
    path = archive.url.split("://", 1)[1].split("/", 1)[1]
    return dataclasses.replace(archive, url=f"{mirror.rstrip('/')}/{path}", name=archive.file_name)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
