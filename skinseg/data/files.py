"""Finding and checking image and mask files."""

from __future__ import annotations

import filecmp
import hashlib
import json
import logging
import os
import re
import unicodedata
from collections.abc import Container, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from skinseg.counting import counted
from skinseg.data import kinds
from skinseg.data.catalog import Problems
from skinseg.data.photographs import (
    DEFAULT_MAX_MEGAPIXELS,
    Frame,
    MaskFormatError,
    UnreadableFileError,
    read_frame,
    read_mask,
    read_mask_header,
    read_photograph,
)
from skinseg.errors import SkinsegError
from skinseg.names import shown
from skinseg.record import replacing

log = logging.getLogger(__name__)

Verify = bool | Literal["headers"]
"""How much of each file is looked at before any work starts: all of it, its header, nothing."""

Tree = Sequence[tuple[Path, list[str]]]
"""Folders with the names of their files, as `walk` yields them."""

_DOWNSAMPLED = "_downsampled"
_ISIC = re.compile(r"ISIC_\d{7}", re.IGNORECASE | re.ASCII)
# What macOS adds to archives, and what a disk's own root holds, closed to its users.
_JUNK = frozenset({"__MACOSX", "lost+found", "System Volume Information", "$RECYCLE.BIN"})


def same_proportions(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether two sizes can be the same picture at two scales, each rounded to whole pixels.

    Args:
        one: Width and height in pixels, or height and width.
        other: In the same order.
    """
    (a, b), (c, d) = one, other
    # Each side may have been rounded up or down by less than a pixel.
    return (a - 1) * (d - 1) < (c + 1) * (b + 1) and (c - 1) * (b - 1) < (a + 1) * (d + 1)


def describe_misfit(drawn: tuple[int, int], frame: Frame) -> str | None:
    """Says why a mask cannot be one of a photograph: it has other proportions.

    Args:
        drawn: The mask's height and width in pixels.
        frame: The photograph's.

    Returns:
        None where it can be.
    """
    if same_proportions(drawn, frame.size):
        return None
    found = f"{drawn[1]}x{drawn[0]}, its image is {frame.width}x{frame.height}"
    if frame.turned and same_proportions(drawn, frame.size[::-1]):
        found += (
            " once it is turned upright by its EXIF orientation; the mask was drawn on the stored pixels: "
            "turn it likewise, or remove the orientation from the image"
        )
    return found


def fit_mask(mask: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Brings a mask to the size of its image: lesion where it covers at least half of a pixel.

    Args:
        mask: Array of 0 and 255.
        size: Height and width in pixels.

    Returns:
        Array of that size, of 0 and 255; `mask` itself where it has that size.
    """
    if mask.shape == size:
        return mask
    shrinks = mask.shape[0] >= size[0] and mask.shape[1] >= size[1]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    grey = cv2.resize(mask, (size[1], size[0]), interpolation=how)
    return np.where(grey > 127, 255, 0).astype(np.uint8)


def below(tree: Tree, folder: Path) -> Tree:
    """Returns the part of a tree from a folder down."""
    return [(here, names) for here, names in tree if here == folder or folder in here.parents]


def walk(folder: Path, skipped: list[str] | None = None) -> Iterator[tuple[Path, list[str]]]:
    """Yields each folder from `folder` down with its file names, sorted.

    Hidden files and folders and what systems put beside the user's are skipped. Symbolic links are followed,
    each folder once, so that a link to a folder above ends.

    Args:
        folder: The folder.
        skipped: Takes the names of what is skipped.

    Raises:
        SkinsegError: A folder cannot be listed: what is in it would be lost without a word.
    """
    seen: set[tuple[int, int]] = set()
    try:
        for parent, folders, names in os.walk(folder, followlinks=True, onerror=_raise):
            here = os.stat(parent)  # noqa: PTH116 -- a hundred thousand paths are slow to build
            if (here.st_dev, here.st_ino) in seen:
                folders.clear()
                continue
            seen.add((here.st_dev, here.st_ino))
            if skipped is not None:
                skipped += filter(is_junk, [*folders, *names])
            folders[:] = sorted(name for name in folders if not is_junk(name))
            yield Path(parent), sorted(name for name in names if not is_junk(name))
    except OSError as error:
        raise SkinsegError(
            f"{error.filename or folder} cannot be listed: {error.strerror or error}. Make it readable, or "
            "name a folder without it."
        ) from error


def _raise(error: OSError) -> None:
    raise error


def subfolders(folder: Path) -> list[Path]:
    """Returns the folders in a folder, sorted, without those that `walk` skips.

    Raises:
        SkinsegError: It cannot be listed.
    """
    here, _ = next(walk(folder))
    return [path for path in sorted(here.iterdir()) if path.is_dir() and not is_junk(path.name)]


def is_junk(name: str) -> bool:
    """Whether a file or folder is none of the user's: hidden, or what systems add to archives and disks."""
    return name.startswith(".") or name in _JUNK


def name_of(stem: str) -> str:
    """Returns the name of an image in a file's name without its ending, for names of further files.

    The ISIC Archive's reduced copies bear the id of their original and `_downsampled`. Letters that were
    composed of several code points on the way through another file system are put together again, and an id
    of the Archive has capitals whatever became of them, for lesions and masks are found by it.
    """
    image_id = unicodedata.normalize("NFC", stem).strip().removesuffix(_DOWNSAMPLED)
    return image_id.upper() if _ISIC.fullmatch(image_id) else image_id


def image_id_of(stem: str) -> str:
    """Returns the image id in a file's name without its ending: `name_of` as a text.

    Bytes that are no UTF-8 are shown by `skinseg.names`.
    """
    return shown(name_of(stem))


def find_images(tree: Tree) -> tuple[dict[str, Path], list[str]]:
    """Finds JPEG images by the id in their name.

    Args:
        tree: Folders with their files; the first one wins where an image is in several.

    Returns:
        Files by image id, and the ids of which a reduced copy was passed over.

    Raises:
        SkinsegError: An id is there twice with different content.
    """
    images: dict[str, Path] = {}
    passed_over = set()
    for folder, names in tree:
        for name in names:
            stem, dot, ending = name.rpartition(".")
            if not dot or f".{ending.lower()}" not in kinds.endings("JPEG"):
                continue
            image_id = image_id_of(stem)
            path = folder / name
            known = images.setdefault(image_id, path)
            if known is path:
                continue
            if stem.endswith(_DOWNSAMPLED) != known.stem.endswith(_DOWNSAMPLED):
                passed_over.add(image_id)
                images[image_id] = known if stem.endswith(_DOWNSAMPLED) else path
            elif not same_content(known, path):
                raise SkinsegError(
                    f"{image_id} is there twice with different content: {known} and {path}; remove one."
                )
    return images, sorted(passed_over)


def warn_of_others(tree: Tree, images: Container[str]) -> None:
    """Names the photographs in folders of JPEG images that `find_images` has passed over.

    Args:
        tree: Folders that hold images alone.
        images: The ids that it has found there.
    """
    others = [
        folder / name
        for folder, names in tree
        for name in names
        if kinds.is_picture(name) and image_id_of(name.rpartition(".")[0]) not in images
    ]
    if others:
        log.warning(
            "%s passed over, for a published data set has JPEG files alone, e.g. %s.",
            counted(len(others), "picture is", "pictures are"), others[0],
        )  # fmt: skip


def same_content(one: Path, other: Path) -> bool:
    """Whether two files are byte-identical."""
    if one.stat().st_size != other.stat().st_size:
        return False
    return filecmp.cmp(one, other, shallow=False)


@dataclass(frozen=True)
class _Inspection:
    width: int = 0
    height: int = 0
    problem: tuple[str, str] | None = None
    resized: bool = False
    turned: bool = False
    stamps: list[int] | None = None


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


def inspect_files(
    image_ids: Sequence[str],
    images: Sequence[Path],
    masks: Sequence[Path | None],
    problems: Problems,
    *,
    verify: Verify = True,
) -> tuple[NDArray[np.int64], dict[str, list[str]]]:
    """Opens every image and mask once, in threads, and reports what is wrong with them.

    Args:
        image_ids: n ids.
        images: n image files.
        masks: n mask files, None where an image has none.
        problems: Receives "unreadable", "mask_size" and "mask_format"; what its `passed` knows is not decoded
            again, and its `max_megapixels` is the limit.
        verify: True decodes all pixels. "headers" reads sizes only, a tenth of the time; a truncated file
            or a mask of 0 and 1 is then found when it is first needed, in the middle of a run. False opens
            nothing.

    Returns:
        Array of shape (n, 2): width and height in pixels, upright, 0 where a file could not be read or was
        not opened; and ids by what was noted: "mask_resized", where the mask has its image's proportions but
        another size, and "turned", where the image is stored turned or mirrored.
    """
    if verify is False:
        return np.zeros((len(image_ids), 2), dtype=np.int64), {}

    passed = problems.passed if verify is True else None
    limit = problems.max_megapixels

    def inspect(image: Path, mask: Path | None) -> _Inspection:
        stamps = None
        if passed is not None:
            with suppress(OSError):  # of a missing file the decoder tells
                stamps = passed.stamps(image, mask)
        if passed is not None and stamps and (known := passed.find(image, mask, stamps)) is not None:
            return _Inspection(known[0], known[1], resized=known[2], turned=known[3])
        try:
            if verify is True:
                _, frame = read_photograph(image, max_megapixels=limit)
            else:
                frame = read_frame(image, limit)
            seen = _Inspection(frame.width, frame.height, turned=frame.turned, stamps=stamps)
            if mask is None:
                return seen
            drawn = read_mask(mask, limit).shape if verify is True else read_mask_header(mask, limit)[1]
        except MaskFormatError as error:
            return _Inspection(problem=("mask_format", str(error)))
        except UnreadableFileError as error:
            return _Inspection(problem=("unreadable", str(error)))
        if (misfit := describe_misfit((drawn[0], drawn[1]), frame)) is not None:
            return replace(seen, problem=("mask_size", f"{mask}: {misfit}"))
        return replace(seen, resized=drawn != frame.size)

    # Pillow decodes outside the interpreter lock.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(inspect, images, masks))
    for image_id, image, mask, result in zip(image_ids, images, masks, results, strict=True):
        if result.problem is not None:
            problems.add(result.problem[0], image_id, result.problem[1])
        elif passed is not None and result.stamps is not None:
            found = (result.width, result.height, result.resized, result.turned)
            passed.add(image, mask, result.stamps, found)
    size = np.array([(r.width, r.height) for r in results], dtype=np.int64).reshape(-1, 2)
    known = list(zip(image_ids, results, strict=True))
    return size, {
        "mask_resized": [image_id for image_id, r in known if r.resized],
        "turned": [image_id for image_id, r in known if r.turned],
    }


def find_copies(image_ids: Sequence[str], images: Sequence[Path]) -> list[tuple[str, str]]:
    """Finds image files that another id has too, byte for byte.

    Args:
        image_ids: n ids.
        images: n files; those that are missing or empty have no copy.

    Returns:
        Pairs of ids: the first one with these bytes, and another.
    """
    by_size: dict[int, list[tuple[str, Path]]] = {}
    for image_id, path in zip(image_ids, images, strict=True):
        if path.is_file() and (size := path.stat().st_size):
            by_size.setdefault(size, []).append((image_id, path))
    pairs = []
    for alike in by_size.values():
        first: dict[bytes, str] = {}
        for image_id, path in alike if len(alike) > 1 else ():
            original = first.setdefault(hashlib.sha256(path.read_bytes()).digest(), image_id)
            if original != image_id:
                pairs.append((original, image_id))
    return pairs
