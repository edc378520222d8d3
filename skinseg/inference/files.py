"""Files that go in and out: photographs, and masks as the ISIC Challenge and its scorer want them."""

from __future__ import annotations

import hashlib
import logging
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from skinseg.counting import counted
from skinseg.data.files import image_id_of, walk
from skinseg.data.kinds import MASK_ENDINGS, PHOTOGRAPH, endings, why_not_read
from skinseg.data.photographs import (
    DEFAULT_MAX_MEGAPIXELS,
    MaskFormatError,
    UnreadableFileError,
    read_mask,
    read_mask_header,
)
from skinseg.errors import SkinsegError
from skinseg.run.written import written_in

log = logging.getLogger(__name__)

_MASK = re.compile(rf"(?P<id>.+?)({MASK_ENDINGS})?", re.IGNORECASE)
_LONGEST_NAME = 255  # bytes, on nearly all file systems


@dataclass(frozen=True)
class Pictures:
    """What was found in a folder.

    Attributes:
        files: The photographs, or the masks, by image id, sorted.
        not_read: Files that look like pictures and are of no kind that is read, with the reason.
        others: How many further files there are, by ending.
        hidden: How many files and folders are hidden, or what systems add to a user's, and were passed over.
    """

    files: Mapping[str, Path]
    not_read: Mapping[Path, str]
    others: Mapping[str, int]
    hidden: int = 0

    def remarks(self) -> Iterator[str]:
        """Says of what is no photograph how many files there are, by ending."""
        if self.not_read:
            yield f"Pictures that are not read: {_by_ending(self.not_read)}."
        if self.others:
            yield f"Other files, passed over: {_listed(self.others)}."
        if self.hidden:
            files = counted(self.hidden, "hidden file or folder", "hidden files and folders")
            yield f"Passed over without a look: {files}."


def _by_ending(paths: Iterable[Path]) -> str:
    return _listed(Counter(_ending(path) for path in paths))


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {ending}" for ending, count in sorted(counts.items()))


def _ending(path: Path) -> str:
    return path.suffix.lower() or "without an ending"


def find_photographs(folder: Path, key: str) -> Pictures:
    """Finds the photographs of a folder and its subfolders by image id.

    Masks and the superpixels that the ISIC Challenge 2017 put beside its photographs are passed over.

    Args:
        folder: The folder.
        key: The config key that named it, for the message.

    Returns:
        The photographs, and what else lies there.

    Raises:
        SkinsegError: No such folder, one that cannot be listed, no photograph in it, or two files for one
            image.
    """
    return _one_each(folder, key, PHOTOGRAPH, "photographs")


def mask_name(image_id: str) -> str:
    """Returns the name of an image's mask in the ISIC Challenge."""
    return f"{image_id}_segmentation.png"


def kept_mask_name(image_id: str) -> str:
    """Returns the name under which an evaluation keeps a mask.

    Where `mask_name` is longer than a name can be, the end of the id is its digest.
    """
    name = mask_name(image_id)
    if len(name.encode()) <= _LONGEST_NAME:
        return name
    start = image_id.encode()[:200].decode(errors="ignore")
    return mask_name(f"{start}-{hashlib.sha256(image_id.encode()).hexdigest()[:12]}")


def masks_of_others(folder: Path) -> list[Path]:
    """Returns the masks in a folder that the current call has not written; see `skinseg.run.written`."""
    return sorted(set(folder.absolute().glob(mask_name("*"))) - set(written_in(folder)))


def find_mask_files(folder: Path, key: str) -> Mapping[str, Path]:
    """Finds the masks of a folder and its subfolders by image id.

    Args:
        folder: With files named `<image_id>_segmentation.png`; `_mask`, `_lesion`, `_pred`, `_prediction` or
            nothing may stand there instead.
        key: The config key that named it, for the message.

    Returns:
        Files by image id, sorted.

    Raises:
        SkinsegError: No such folder, one that cannot be listed, no picture in it, or two files for one image.
    """
    return _one_each(folder, key, _MASK, "masks <image_id>_segmentation.png").files


def check_complete(predicted: Iterable[str], expected: Iterable[str], folder: Path, *, where: str) -> None:
    """Refuses a folder of predictions that lacks an image, or has one that is not scored.

    Args:
        predicted: Image ids of the predictions.
        expected: Image ids of the truth.
        folder: Folder of the predictions, for the message.
        where: What the truth is, for the message.

    Raises:
        SkinsegError: The ids differ; all differences are counted, the first five of each named.
    """
    there, wanted = set(predicted), set(expected)
    lines = []
    for what, ids in (("lacks", wanted - there), ("has in addition", there - wanted)):
        if ids:
            more = ", ..." if len(ids) > 5 else ""
            lines.append(f"  it {what} {counted(len(ids), 'image')}: {', '.join(sorted(ids)[:5])}{more}")
    if lines:
        raise SkinsegError(
            "\n".join(
                [
                    f"predictions={folder} does not match the {counted(len(wanted), 'image')} of {where}:",
                    *lines,
                    "  A mean over other images would not be this score; predict all of them and no others.",
                ]
            )
        )


def read_prediction(
    path: Path, size: tuple[int, int], max_megapixels: float = DEFAULT_MAX_MEGAPIXELS
) -> NDArray[np.bool_]:
    """Reads a predicted mask as strictly as the public scorer, and refuses what that would misread.

    The scorer takes single-channel 8-bit or 1-bit pictures of the truth's size and calls grey above 128
    lesion. Of a mask of 0 and 1 that makes an empty one, so here only 0 and 255 are taken.

    Args:
        path: The file.
        size: Height and width of the truth, in pixels.
        max_megapixels: Most millions of pixels.

    Returns:
        bool array of that size.

    Raises:
        UnreadableFileError: Not such a mask; what was found and expected is said.
    """
    mode, found = read_mask_header(path, max_megapixels)
    if mode not in ("L", "1"):
        raise MaskFormatError(f"{path}: mode {mode}, expected single-channel 8-bit grey (L)")
    if found != size:
        raise UnreadableFileError(
            f"{path}: {found[1]}x{found[0]} pixels, expected the truth's {size[1]}x{size[0]}"
        )
    prediction: NDArray[np.bool_] = read_mask(path, max_megapixels) > 0
    return prediction


def _one_each(folder: Path, key: str, pattern: re.Pattern[str], what: str) -> Pictures:
    if not folder.is_dir():
        found_there = "a file" if folder.is_file() else "no such folder"
        raise SkinsegError(f"{key}={folder}: {found_there}; expected a folder of {what}.")
    found: dict[str, list[Path]] = defaultdict(list)
    not_read: dict[Path, str] = {}
    others: Counter[str] = Counter()
    named_as_masks = 0
    hidden: list[str] = []
    for here, names in walk(folder, hidden):
        for name in names:
            path = here / name
            match = pattern.fullmatch(path.stem)
            if path.suffix.lower() in endings():
                if match is None:
                    named_as_masks += 1
                else:
                    found[image_id_of(match["id"])].append(path)
            elif match is not None and (reason := why_not_read(path)) is not None:
                not_read[path] = reason
            else:
                others[_ending(path)] += 1
    if named_as_masks:
        many = counted(named_as_masks, "picture is named as a mask", "pictures are named as masks")
        log.info("%s=%s: %s and passed over.", key, folder, many)
    pictures = {image_id: paths[0] for image_id, paths in sorted(found.items())}
    result = Pictures(pictures, not_read, others, len(hidden))
    if not found:
        there = "".join(f"\n  {remark}" for remark in result.remarks())
        first = "".join(f"\n  {path}: {reason}" for path, reason in list(not_read.items())[:1])
        raise SkinsegError(f"{key}={folder} holds no picture that is read; expected {what}.{there}{first}")
    twice = {image_id: paths for image_id, paths in sorted(found.items()) if len(paths) > 1}
    if twice:
        shown = [f"  {image_id}: {', '.join(map(str, paths))}" for image_id, paths in list(twice.items())[:5]]
        more = [f"  and {len(twice) - 5} more"] if len(twice) > 5 else []
        first = f"{key}={folder} has several files for {counted(len(twice), 'image')}; keep one of each:"
        raise SkinsegError("\n".join([first, *shown, *more]))
    return result
