"""Which files have passed an inspection before."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from skinseg.data.photographs import (
    DEFAULT_MAX_MEGAPIXELS,
)
from skinseg.errors import SkinsegError
from skinseg.run.writing import replacing


class PassedFiles:
    """Images and masks that were decoded before, without a problem, by size and time of change.

    To decode a data set takes longer than all else at the start of a run, and a sweep would do it for each of
    its jobs.

    Args:
        path: A JSON file, which need not be there yet.
        max_megapixels: What limit they passed; under another one all are decoded again.
    """

    _VERSION = 2  # of what is a problem, and of the file

    def __init__(self, path: Path, max_megapixels: float = DEFAULT_MAX_MEGAPIXELS) -> None:
        self._path = path
        self._about = {"version": self._VERSION, "max_megapixels": max_megapixels}
        self._known: dict[str, list[int]] = {}
        self._changed = False
        with suppress(OSError, ValueError, KeyError, TypeError):
            content = json.loads(path.read_text(encoding="utf-8"))
            if self._about.items() <= content.items():
                self._known = dict(content["files"])

    def find(self, image: Path, mask: Path | None, stamps: list[int]) -> tuple[int, int, bool, bool] | None:
        """Returns width, height, whether the mask has another size, and whether the image is turned.

        None where they have to be decoded.
        """
        known = self._known.get(self._key(image, mask))
        if known is None or known[:-4] != stamps:
            return None
        return known[-4], known[-3], bool(known[-2]), bool(known[-1])

    def add(
        self, image: Path, mask: Path | None, stamps: list[int], found: tuple[int, int, bool, bool]
    ) -> None:
        """Notes what was found in files that had these stamps before they were decoded."""
        entry = [*stamps, *map(int, found)]
        if self._known.get(self._key(image, mask)) != entry:
            self._known[self._key(image, mask)] = entry
            self._changed = True

    def save(self) -> None:
        """Writes the file where there is something new; where that cannot be done, the next run decodes."""
        if self._changed:
            with suppress(SkinsegError), replacing(self._path) as temporary:
                content = {**self._about, "files": self._known}
                temporary.write_text(json.dumps(content), encoding="utf-8")

    @staticmethod
    def _key(image: Path, mask: Path | None) -> str:
        return f"{image}\n{mask}"

    @staticmethod
    def stamps(image: Path, mask: Path | None) -> list[int]:
        """Returns size in bytes and time of change in ns of both files.

        Raises:
            OSError: One is not there.
        """
        found = [path.stat() for path in (image, mask) if path is not None]
        return [number for stat in found for number in (stat.st_size, stat.st_mtime_ns)]
