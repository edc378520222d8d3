"""Downloads against a small server, and archives that mean harm."""

from __future__ import annotations

import hashlib
import json
import stat
import time
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import pytest

from skinseg.data.readers.fetch import Archive, fetch, unpack
from skinseg.errors import SkinsegError

# 5 MB, several blocks, with the end that makes it a zip (an empty one).
CONTENT = bytes(range(256)) * 20_000 + b"PK\5\6" + bytes(18)
CHANGED = bytes(2_500_000) + CONTENT[2_500_000:]


class Server:
    """A server whose manners a test can choose.

    Attributes:
        content: What it has at /file.zip.
        etag: The version of that.
        version_header: The header that tells it.
        cut: After so many bytes it hangs up, once for each item.
        stall: Seconds that it waits before it hangs up.
        ranges: Whether it knows of ranges.
        if_range: Whether it knows of If-Range.
        shift: How far the range that it sends is off the one that was wanted.
        requests: The Range header of each request.
    """

    def __init__(self) -> None:
        self.content, self.etag = CONTENT, '"1"'
        self.version_header = "ETag"
        self.cut: list[int] = []
        self.stall, self.shift = 0.0, 0
        self.ranges = self.if_range = True
        self.status: list[int] = []
        self.requests: list[str | None] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                wanted = self.headers.get("Range")
                outer.requests.append(wanted)
                if self.path != "/file.zip" or outer.status:
                    self.send_error(outer.status.pop(0) if outer.status else 404)
                    return
                start, whole = 0, len(outer.content)
                same = self.headers.get("If-Range") == outer.etag or not outer.if_range
                if wanted and outer.ranges and same:
                    start = int(wanted.removeprefix("bytes=").rstrip("-")) + outer.shift
                    if start >= whole:
                        self.send_response(416)
                        self.send_header("Content-Range", f"bytes */{whole}")
                        self.send_header("Content-Length", "0")
                        self.end_headers()
                        return
                body = outer.content[start:]
                self.send_response(206 if start else 200)
                self.send_header("Content-Length", str(len(body)))
                if start:
                    self.send_header("Content-Range", f"bytes {start}-{whole - 1}/{whole}")
                if outer.etag:
                    self.send_header(outer.version_header, outer.etag)
                self.end_headers()
                if outer.cut:
                    self.wfile.write(body[: outer.cut.pop(0)])
                    time.sleep(outer.stall)
                else:
                    self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/file.zip"
        Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    one = Server()
    yield one
    one.close()


def sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def get(server: Server, folder: Path, digest: str | None = None, attempts: int = 3) -> Path:
    return fetch(Archive(server.url, digest), folder, attempts=attempts, pause=0)


def test_whole_and_nothing_twice(server: Server, tmp_path: Path) -> None:
    told: list[tuple[str, int, int | None]] = []
    path = fetch(Archive(server.url, sha256(CONTENT)), tmp_path, progress=lambda *a: told.append(a))
    assert path.read_bytes() == CONTENT
    assert told[-1] == ("file.zip", len(CONTENT), len(CONTENT))
    assert [file.name for file in tmp_path.iterdir()] == ["file.zip"], "nothing is left beside it"
    get(server, tmp_path, sha256(CONTENT))
    assert len(server.requests) == 1


def test_md5(server: Server, tmp_path: Path) -> None:
    assert get(server, tmp_path, f"md5:{hashlib.md5(CONTENT).hexdigest()}").is_file()


def test_broken_transfer_is_resumed(server: Server, tmp_path: Path) -> None:
    server.cut = [2_000_000, 1_000_000]
    assert get(server, tmp_path, sha256(CONTENT)).read_bytes() == CONTENT
    assert server.requests[0] is None
    starts = [int(str(wanted).removeprefix("bytes=").rstrip("-")) for wanted in server.requests[1:]]
    assert len(starts) == 2
    # Up to a block is lost where the connection breaks.
    assert 1_900_000 < starts[0] <= 2_000_000
    assert 2_800_000 < starts[1] <= 3_000_000


def test_resumed_by_a_later_call(server: Server, tmp_path: Path) -> None:
    server.cut = [2_000_000]
    with pytest.raises(
        SkinsegError, match=r"cannot be fetched \(the connection broke; tried once\).*to go on"
    ):
        get(server, tmp_path, attempts=1)
    assert not (tmp_path / "file.zip").exists()
    assert get(server, tmp_path, sha256(CONTENT)).read_bytes() == CONTENT
    assert str(server.requests[1]).startswith("bytes=19")


def test_killed_after_the_last_byte(server: Server, tmp_path: Path) -> None:
    (tmp_path / ".file.zip.part").write_bytes(CONTENT)
    (tmp_path / ".file.zip.version").write_text('"1"')
    assert get(server, tmp_path, sha256(CONTENT)).read_bytes() == CONTENT
    assert server.requests == [f"bytes={len(CONTENT)}-"], "nothing is fetched again"


@pytest.mark.parametrize("if_range", [True, False])
def test_file_changed_between_two_attempts(server: Server, tmp_path: Path, if_range: bool) -> None:
    server.if_range = if_range
    server.cut = [2_000_000]
    with pytest.raises(SkinsegError):
        get(server, tmp_path, attempts=1)
    server.content, server.etag = CHANGED, '"2"'
    assert get(server, tmp_path).read_bytes() == CHANGED, "two versions must not be glued together"


def test_file_became_shorter_between_two_attempts(server: Server, tmp_path: Path) -> None:
    server.if_range = False
    server.cut = [2_000_000]
    with pytest.raises(SkinsegError):
        get(server, tmp_path, attempts=1)
    server.content, server.etag = CONTENT[-1_000_000:], '"2"'
    assert get(server, tmp_path).read_bytes() == server.content


def test_killed_between_two_versions(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.cut = [2_000_000]
    with pytest.raises(SkinsegError):
        get(server, tmp_path, attempts=1)
    server.content, server.etag = CHANGED, '"2"'

    def killed(path: Path, text: str) -> int:
        written(path, text)
        raise KeyboardInterrupt

    written = Path.write_text
    monkeypatch.setattr(Path, "write_text", killed)
    with pytest.raises(KeyboardInterrupt):
        get(server, tmp_path)
    monkeypatch.undo()
    assert get(server, tmp_path).read_bytes() == CHANGED, "the new version must not vouch for old content"


def test_another_range_than_wanted(server: Server, tmp_path: Path) -> None:
    server.cut = [2_000_000]
    server.shift = 1000
    assert get(server, tmp_path, sha256(CONTENT)).read_bytes() == CONTENT
    assert [wanted is None for wanted in server.requests] == [True, False, True]


def test_stalled_transfer_is_resumed(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skinseg.data.readers.fetch._TIMEOUT", 0.2)
    server.cut, server.stall = [2_000_000], 5.0
    start = time.monotonic()
    assert get(server, tmp_path, sha256(CONTENT)).read_bytes() == CONTENT
    assert time.monotonic() - start < 4
    assert len(server.requests) == 2


@pytest.mark.parametrize("etag", ["", 'W/"weak"'])
def test_server_without_versions_starts_over(server: Server, tmp_path: Path, etag: str) -> None:
    server.etag = etag
    server.cut = [2_000_000]
    assert get(server, tmp_path, sha256(CONTENT)).read_bytes() == CONTENT
    assert server.requests == [None, None]


def test_server_with_dates_for_versions(server: Server, tmp_path: Path) -> None:
    server.version_header, server.etag = "Last-Modified", "Wed, 21 Oct 2015 07:28:00 GMT"
    server.cut = [2_000_000]
    assert get(server, tmp_path, sha256(CONTENT)).read_bytes() == CONTENT
    assert str(server.requests[1]).startswith("bytes=19")


def test_pauses_grow(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("skinseg.data.readers.fetch.time.sleep", pauses.append)
    server.status = [503] * 4
    fetch(Archive(server.url), tmp_path)
    assert pauses == [2, 4, 8, 16]


def test_server_without_ranges_starts_over(server: Server, tmp_path: Path) -> None:
    server.ranges = False
    server.cut = [2_000_000]
    assert get(server, tmp_path, sha256(CONTENT)).read_bytes() == CONTENT


def test_server_in_trouble_is_asked_again(server: Server, tmp_path: Path) -> None:
    server.status = [503, 429]
    assert get(server, tmp_path, sha256(CONTENT)).read_bytes() == CONTENT


def test_wrong_checksum(server: Server, tmp_path: Path) -> None:
    expected = sha256(b"other")
    with pytest.raises(SkinsegError, match=r"wrong checksum") as caught:
        get(server, tmp_path, expected)
    assert all(word in str(caught.value) for word in (server.url, expected, sha256(CONTENT)))
    assert not list(tmp_path.glob("*.zip")) + list(tmp_path.glob(".*.part"))


def test_a_file_put_there_by_hand_is_checked(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.zip").write_bytes(b"something else")
    with pytest.raises(SkinsegError, match=r"wrong checksum"):
        get(server, tmp_path, sha256(CONTENT))
    assert server.requests == []


def test_without_a_published_checksum_the_first_one_counts(server: Server, tmp_path: Path) -> None:
    get(server, tmp_path).unlink()
    assert json.loads((tmp_path / "checksums.json").read_text()) == {"file.zip": sha256(CONTENT)}
    server.content = CHANGED
    with pytest.raises(SkinsegError, match=r"that of the first download.*remove its entry from .*\.json"):
        get(server, tmp_path)


@pytest.mark.parametrize("content", [b"<html>please log in</html>", CONTENT[:-22]])
def test_without_a_published_checksum_no_zip_is_not_remembered(
    server: Server, tmp_path: Path, content: bytes
) -> None:
    server.content = content
    with pytest.raises(SkinsegError, match=rf"{server.url} gave no whole zip archive"):
        get(server, tmp_path)
    server.content = CONTENT
    server.etag = '"2"'
    assert get(server, tmp_path).read_bytes() == CONTENT


def test_broken_record_of_checksums(server: Server, tmp_path: Path) -> None:
    (tmp_path / "checksums.json").write_text("{")
    with pytest.raises(SkinsegError, match=r"checksums\.json is not what a download wrote"):
        get(server, tmp_path)


@pytest.mark.parametrize("status", [403, 404])
def test_not_there(server: Server, tmp_path: Path, status: int) -> None:
    server.status = [status]
    with pytest.raises(SkinsegError, match=rf"HTTP status {status}"):
        get(server, tmp_path)
    assert len(server.requests) == 1, "asking again would not help"


def test_no_connection(server: Server, tmp_path: Path) -> None:
    server.close()
    with pytest.raises(
        SkinsegError, match=r"cannot be fetched \(no connection; tried twice\).*put it at .*file\.zip"
    ):
        get(server, tmp_path, attempts=2)


def test_no_address(tmp_path: Path) -> None:
    start = time.monotonic()
    with pytest.raises(SkinsegError, match=r"Invalid URL.*tried once"):
        fetch(Archive("mirror/file.zip"), tmp_path)
    assert time.monotonic() - start < 2, "asking again would not help"


def test_no_secure_connection(server: Server, tmp_path: Path) -> None:
    with pytest.raises(SkinsegError, match=r"no secure connection: .*SSL"):
        fetch(Archive(server.url.replace("http:", "https:")), tmp_path, attempts=1)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_full_disk(server: Server, tmp_path: Path) -> None:
    (tmp_path / ".file.zip.part").symlink_to("/dev/full")
    with pytest.raises(SkinsegError, match=r"file\.zip cannot be written: No space left .*; free space"):
        get(server, tmp_path)
    assert len(server.requests) == 1
    assert not (tmp_path / "file.zip").exists()


def test_target_that_cannot_be_written(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SkinsegError, match=r"file\.zip cannot be written"):
        get(server, tmp_path / "file")


def free(monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    monkeypatch.setattr("skinseg.data.readers.fetch.shutil.disk_usage", lambda _: SimpleNamespace(free=room))


def write_zip(path: Path, content: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return path


def test_unpack_and_again(tmp_path: Path) -> None:
    names = {"masks/ISIC_1.png": b"one", "masks/Läsion 2 (Kopie).png": b"two", "masks/empty.png": b""}
    junk = {"__MACOSX/masks/._ISIC_1.png": b"junk", "masks/.DS_Store": b"junk"}
    path = write_zip(tmp_path / "a.zip", names | junk)
    target = tmp_path / "out"
    told: list[tuple[str, int, int | None]] = []
    assert unpack(path, target, progress=lambda *a: told.append(a)) == 3
    assert told[-1] == ("a.zip", 6, 6)
    found = {str(p.relative_to(target)): p.read_bytes() for p in target.rglob("*") if p.is_file()}
    assert found == names
    before = (target / "masks/ISIC_1.png").stat().st_mtime_ns
    (target / "masks/empty.png").unlink()
    assert unpack(path, target) == 3, "an interrupted unpacking is completed"
    assert (target / "masks/ISIC_1.png").stat().st_mtime_ns == before


def test_interrupted_unpacking_needs_room_for_the_rest_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_zip(tmp_path / "a.zip", {"1.png": bytes(3_000_000), "2.png": bytes(1_000)})
    unpack(path, tmp_path / "out")
    (tmp_path / "out" / "2.png").unlink()
    free(monkeypatch, 2_000_000)
    assert unpack(path, tmp_path / "out") == 2


def test_backslashes_as_separators(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"masks\\": b"", "masks\\1.png": b"one", ".": b""})
    assert unpack(path, tmp_path / "out") == 1
    assert (tmp_path / "out" / "masks" / "1.png").read_bytes() == b"one"


def test_two_entries_of_one_name(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("0.png", b"zero")
        archive.writestr("masks/1.png", b"one")
        archive.writestr("masks\\1.png", b"one")
    assert unpack(path, tmp_path / "twice") == 2, "with the same content it does no harm"
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("masks/./1.png", b"two")
    with pytest.raises(SkinsegError, match=r"is there twice with different content; nothing was unpacked"):
        unpack(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_existing_file_is_not_overwritten(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"masks/1.png": b"one"})
    mine = tmp_path / "out" / "masks" / "1.png"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"own")
    with pytest.raises(SkinsegError, match=r"is there already with other content"):
        unpack(path, tmp_path / "out")
    assert mine.read_bytes() == b"own"


@pytest.mark.parametrize(
    "name",
    [
        "../evil.png",
        "a/../../evil.png",
        "a/../evil.png",
        "/evil.png",
        "{target}/evil.png",
        "C:/evil.png",
        "..\\evil.png",
        "a/..\\..\\evil.png",
    ],
)
def test_names_that_lead_out(tmp_path: Path, name: str) -> None:
    target = tmp_path / "out" / "deep"
    path = write_zip(tmp_path / "a.zip", {"good.png": b"good", name.format(target=target): b"evil"})
    with pytest.raises(SkinsegError, match=r"leads out of the folder; nothing was unpacked"):
        unpack(path, target)
    assert [p.name for p in tmp_path.rglob("*")] == ["a.zip"]


def test_a_link_planted_in_the_target(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out" / "masks").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SkinsegError, match=r"leads out of the folder"):
        unpack(write_zip(tmp_path / "a.zip", {"masks/1.png": b"one"}), tmp_path / "out")


def test_symbolic_links_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        link = zipfile.ZipInfo("masks")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc")
    with pytest.raises(SkinsegError, match=r"is a symbolic link"):
        unpack(path, tmp_path / "out")


def test_encrypted_entries_are_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"1.png": b"one"})
    data = bytearray(path.read_bytes())
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(SkinsegError, match=r"is encrypted"):
        unpack(path, tmp_path / "out")


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_zip(tmp_path / "a.zip", {"1.png": bytes(3_000_000)})
    free(monkeypatch, 2_000_000)
    with pytest.raises(SkinsegError, match=r"unpacks to 3,000,000 bytes, but .* has room for 2,000,000"):
        unpack(path, tmp_path / "out")
    monkeypatch.undo()
    monkeypatch.setattr("skinseg.data.readers.fetch._MOST", 2_999_999)
    with pytest.raises(SkinsegError, match=r"unpacks to 3,000,000 bytes, more than any data set"):
        unpack(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_entry_that_lies_about_its_size(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"1.png": bytes(100_000)})
    data = bytearray(path.read_bytes())
    entry = data.index(b"PK\x01\x02")
    for place in (22, entry + 24):
        data[place : place + 4] = (10).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(SkinsegError, match=r"no whole zip archive"):
        unpack(path, tmp_path / "out")
    assert not list((tmp_path / "out").glob("*"))


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_broken_zips(tmp_path: Path, method: int) -> None:
    whole = tmp_path / "whole.zip"
    with zipfile.ZipFile(whole, "w", method) as archive:
        archive.writestr("m/ä.png", bytes(range(256)))
    data = whole.read_bytes()
    broken = tmp_path / "a.zip"
    refused = 0
    for place in range(len(data)):
        broken.write_bytes(data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :])
        try:
            unpack(broken, tmp_path / str(place))
        except SkinsegError:
            refused += 1
        # Some bytes are a date or the like. Content is never another one.
        assert all(p.read_bytes() == bytes(range(256)) for p in tmp_path.glob(f"{place}/**/*") if p.is_file())
    assert refused > len(data) / 2


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", CONTENT[:-22]])
def test_no_zip(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(SkinsegError, match=r"is no whole zip archive"):
        unpack(tmp_path / "a.zip", tmp_path / "out")
