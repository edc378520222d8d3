"""Finding and checking image and mask files."""

from __future__ import annotations

import filecmp
import hashlib
import logging
import os
import re
import unicodedata
from collections.abc import Container, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from skinseg.counting import counted
from skinseg.data import kinds
from skinseg.data.photographs import (
    Frame,
)
from skinseg.errors import SkinsegError
from skinseg.names import shown
from skinseg.run.writing import replacing

log = logging.getLogger(__name__)


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


def write_mask(path: Path, mask: NDArray[np.bool_]) -> None:
    """Writes a mask as an 8-bit grey PNG of 0 and 255, as a whole or not at all.

    Args:
        path: The file.
        mask: bool array of shape (H, W).

    Raises:
        FileNameError: It cannot bear this name.
        SkinsegError: It cannot be written.
    """
    written, content = cv2.imencode(".png", mask.astype(np.uint8) * 255)
    assert written
    with replacing(path) as temporary:
        temporary.write_bytes(content.tobytes())
