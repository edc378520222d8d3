"""Fetching archives: resumed, checked, and unpacked without trust in their names.

No library at hand resumes a transfer and checks it (pooch starts over), so this does: some of the archives
have 10 GB.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import stat
import time
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from lzma import LZMAError
from pathlib import Path, PurePosixPath

import requests

from skinseg.counting import often
from skinseg.data.files import is_junk
from skinseg.errors import SkinsegError
from skinseg.run.writing import replacing, write_json

Progress = Callable[[str, int, int | None], None]
"""Called with what is being done, bytes done, and bytes in all where that is known."""

# A connection that breaks loses the block that it breaks in.
_BLOCK = 1 << 16
_TIMEOUT = 30.0
# Bytes that an archive may unpack to; the largest of the data sets has a twentieth of it.
_MOST = 200 * 10**9


@dataclass(frozen=True)
class Archive:
    """A zip that a publisher offers.

    Attributes:
        url: Its address.
        digest: "sha256:..." or "md5:..." of the whole file. None: none is published; what comes first is
            remembered, and later downloads are held against it.
        name: Its file name, where the address does not end with it.
    """

    url: str
    digest: str | None = None
    name: str | None = None

    @property
    def file_name(self) -> str:
        """The name that the file gets."""
        return self.name or self.url.rsplit("/", 1)[-1]


class _BrokenTransferError(Exception):
    """The connection ended too early; what came so far is kept."""


def fetch(
    archive: Archive,
    folder: Path,
    *,
    progress: Progress = lambda *_: None,
    attempts: int = 5,
    pause: float = 2.0,
) -> Path:
    """Downloads an archive into a folder, or goes on where an earlier call stopped.

    Args:
        archive: What to download.
        folder: The folder to put it in.
        progress: Told of each block.
        attempts: How often a transfer may break.
        pause: Seconds between attempts; doubles each time.

    Returns:
        The file, whole and checked. It has another name until then.

    Raises:
        SkinsegError: The address cannot be reached or does not have it, the content is not what it should
            be, or it cannot be written.
    """
    target = folder / archive.file_name
    part = folder / f".{archive.file_name}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not target.is_file():
            for attempt in range(attempts):
                try:
                    _transfer(archive, part, progress)
                    break
                except (requests.RequestException, _BrokenTransferError) as error:
                    # requests has its own kinds of ValueError for what is no address.
                    if attempt == attempts - 1 or isinstance(error, ValueError):
                        raise SkinsegError(
                            f"{archive.url} cannot be fetched ({_reason(error)}; tried "
                            f"{often(attempt + 1)}). What came so far is kept: run the same command to go "
                            f"on, or fetch it by other means, put it at {target} and run the command again."
                        ) from error
                    time.sleep(pause * 2**attempt)
        source = target if target.is_file() else part
        _check(archive, source, folder)
        source.replace(target)
        _state(part).unlink(missing_ok=True)
    except OSError as error:
        raise SkinsegError(
            f"{target} cannot be written: {error.strerror or error}; free space or take another folder."
        ) from error
    return target


def _transfer(archive: Archive, part: Path, progress: Progress) -> None:
    """Appends to what is there if the server still has the same file, else starts over."""
    state = _state(part)
    version = state.read_text() if state.is_file() else ""
    # Without a version nobody can tell whether the rest belongs to the beginning.
    done = part.stat().st_size if version and part.is_file() else 0
    headers = {"Accept-Encoding": "identity"}
    if done:
        headers |= {"Range": f"bytes={done}-", "If-Range": version}
    with requests.get(archive.url, headers=headers, stream=True, timeout=_TIMEOUT) as response:
        status = response.status_code
        if done and status in (206, 416):
            if not _goes_on(response, done, version):
                part.unlink()
                _transfer(archive, part, progress)
                return
            if status == 416:
                # All of it had come before the file could be checked.
                return
        if status >= 500 or status in (408, 429):
            raise _BrokenTransferError(f"HTTP status {status}")
        if status >= 400:
            raise SkinsegError(
                f"{archive.url}: HTTP status {status} ({response.reason}). The publisher has moved or closed "
                "it; look for its present address on the page of the data set."
            )
        if status != 206:
            done = 0
        length = response.headers.get("Content-Length")
        total = None if length is None else done + int(length)
        with part.open("ab" if done else "wb") as file:
            if not done:
                # Only now that the file is empty: a version must never vouch for the content of another.
                state.write_text(_version(response))
            for block in response.iter_content(_BLOCK):
                file.write(block)
                done += len(block)
                progress(archive.file_name, done, total)
    # urllib3 notices this by itself from its version 2 on.
    if total is not None and done < total:
        raise _BrokenTransferError(f"{done:,} of {total:,} bytes")


def _goes_on(response: requests.Response, done: int, version: str) -> bool:
    """Whether the answer is the rest of what is there; not every server heeds If-Range."""
    found = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", response.headers.get("Content-Range", ""))
    if found is None:
        return False
    if response.status_code == 416:
        return found[2] == str(done)
    return found[1] == str(done) and _version(response) in ("", version)


def _version(response: requests.Response) -> str:
    """Returns what tells this version of the file from others; "" if there is nothing reliable."""
    version = str(response.headers.get("ETag") or response.headers.get("Last-Modified") or "")
    return "" if version.startswith("W/") else version


def _state(part: Path) -> Path:
    """The file that remembers which version of the file is being fetched."""
    return part.with_suffix(".version")


def _reason(error: Exception) -> str:
    if isinstance(error, requests.exceptions.SSLError):
        return f"no secure connection: {error}"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    if isinstance(error, requests.Timeout):
        return "no answer"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection broke"
    return str(error)


def _check(archive: Archive, path: Path, folder: Path) -> None:
    """Compares a file with its published digest, or with the one that came first."""
    remembered = folder / "checksums.json"
    try:
        known: dict[str, str] = json.loads(remembered.read_text()) if remembered.is_file() else {}
    except ValueError as error:
        raise SkinsegError(f"{remembered} is not what a download wrote ({error}); remove it.") from error
    expected = archive.digest or known.get(archive.file_name)
    algorithm = expected.split(":")[0] if expected else "sha256"
    with path.open("rb") as file:
        start = file.read(40)
        file.seek(0)
        found = f"{algorithm}:{hashlib.file_digest(file, algorithm).hexdigest()}"
    if expected is None and zipfile.is_zipfile(path):
        write_json(remembered, known | {archive.file_name: found})
    elif expected is None:
        # Were a login page or half a file remembered, the real one would be refused ever after.
        path.unlink()
        raise SkinsegError(
            f"{archive.url} gave no whole zip archive but something that begins with {start!r}. The file was "
            "removed; look at the address in a browser, or run the command again."
        )
    elif found != expected:
        path.unlink()
        source = "the publisher's" if archive.digest else "that of the first download"
        how = "" if archive.digest else f"; remove its entry from {remembered} to accept that"
        raise SkinsegError(
            f"{archive.url}: wrong checksum. Found {found}, expected {expected} ({source}). The file was "
            f"removed; run the command again. If that fails too, the publisher's file has changed{how}."
        )


def unpack(path: Path, folder: Path, *, progress: Progress = lambda *_: None) -> int:
    """Unpacks a zip into a folder.

    All names are checked before the first file is written, so an archive that is refused leaves nothing.
    Junk (hidden files, `__MACOSX`) is skipped. A file that is there already with the same content is left as
    it is, so an unpacking that was interrupted can be repeated.

    Args:
        path: The zip.
        folder: The folder to put it in.
        progress: Told of each file.

    Returns:
        How many files of the archive are in the folder now.

    Raises:
        SkinsegError: No zip or a broken one, a name that leads out of the folder, a link, an encrypted file,
            a file in the way with other content, or too little room.
    """
    folder = folder.resolve()
    try:
        with zipfile.ZipFile(path) as archive:
            members = _members(path, archive, folder)
            total = sum(member.file_size for member in members.values())
            if total > _MOST:
                raise SkinsegError(f"{path} unpacks to {total:,} bytes, more than any data set here has.")
            lacking = sum(member.file_size for target, member in members.items() if not target.exists())
            if lacking > (free := shutil.disk_usage(_existing(folder)).free):
                raise SkinsegError(
                    f"{path} unpacks to {lacking:,} bytes, but {folder} has room for {free:,}; free some."
                )
            done = 0
            for target, member in members.items():
                _unpack_one(archive, member, target, path)
                done += member.file_size
                progress(path.name, done, total)
    # A ValueError is a name or an offset that cannot be.
    except (zipfile.BadZipFile, zlib.error, LZMAError, EOFError, NotImplementedError, ValueError) as error:
        raise SkinsegError(f"{path} is no whole zip archive ({error}); remove it and run again.") from error
    except OSError as error:
        raise SkinsegError(f"{path} cannot be unpacked to {folder}: {error.strerror or error}.") from error
    return len(members)


def _members(path: Path, archive: zipfile.ZipFile, folder: Path) -> dict[Path, zipfile.ZipInfo]:
    """Returns what is to be unpacked by where to, or refuses all of it."""
    members: dict[Path, zipfile.ZipInfo] = {}
    for member in archive.infolist():
        text = member.filename.replace("\\", "/")
        name = PurePosixPath(text)
        # ".." is no hidden file but an attack, which is to be refused and not skipped.
        junk = ".." not in name.parts and any(is_junk(part) for part in name.parts)
        if text.endswith("/") or junk or not name.parts:
            continue
        target = (folder / name).resolve()
        known = members.setdefault(target, member)
        outside = name.is_absolute() or ".." in name.parts or ":" in name.parts[0]
        if outside or not target.is_relative_to(folder):
            problem = "leads out of the folder"
        elif stat.S_ISLNK(member.external_attr >> 16):
            problem = "is a symbolic link"
        elif member.flag_bits & 0x1:
            problem = "is encrypted"
        elif (known.file_size, known.CRC) != (member.file_size, member.CRC):
            problem = "is there twice with different content"
        else:
            continue
        raise SkinsegError(f"{path}: its entry {member.filename!r} {problem}; nothing was unpacked.")
    return members


def _unpack_one(archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path, path: Path) -> None:
    if target.exists():
        if target.is_file() and target.stat().st_size == member.file_size and _crc(target) == member.CRC:
            return
        raise SkinsegError(
            f"{target} is there already with other content than in {path}; it was left as it is. Move it "
            "away or unpack into another folder."
        )
    # zipfile itself ends at the declared size and compares the checksum.
    with replacing(target) as temporary, archive.open(member) as source, temporary.open("wb") as file:
        shutil.copyfileobj(source, file, _BLOCK)


def _crc(path: Path) -> int:
    with path.open("rb") as file:
        crc = 0
        while block := file.read(_BLOCK):
            crc = zlib.crc32(block, crc)
    return crc


def _existing(folder: Path) -> Path:
    return next(parent for parent in (folder, *folder.parents) if parent.exists())
