"""Files that go in and out: photographs, and masks as the ISIC Challenge and its scorer want them."""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from skinseg.data.files import image_id_of, walk
from skinseg.data.photographs import (
    DEFAULT_MAX_MEGAPIXELS,
    MaskFormatError,
    UnreadableFileError,
    read_mask,
    read_mask_header,
)
from skinseg.errors import SkinsegError
from skinseg.record import replacing

log = logging.getLogger(__name__)

_ENDINGS = "_segmentation|_mask|_lesion|_pred|_prediction"
_MASK = re.compile(rf"(?P<id>.+?)({_ENDINGS})?", re.IGNORECASE)
_PHOTOGRAPH = re.compile(rf"(?!.*({_ENDINGS}|_superpixels)$)(?P<id>.+)", re.IGNORECASE)
_PICTURES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".gif", ".webp"}


def find_photographs(folder: Path, key: str) -> dict[str, Path]:
    """Finds the photographs of a folder and its subfolders by image id.

    Masks and the superpixels that the ISIC Challenge 2017 put beside its photographs are passed over.

    Args:
        folder: The folder.
        key: The config key that named it, for the message.

    Returns:
        Files by image id, sorted.

    Raises:
        SkinsegError: No such folder, no photograph in it, or two files for one image.
    """
    return _one_each(folder, key, _PHOTOGRAPH, "photographs")


def mask_name(image_id: str) -> str:
    """Returns the name of an image's mask in the ISIC Challenge."""
    return f"{image_id}_segmentation.png"


def write_mask(path: Path, mask: NDArray[np.bool_]) -> None:
    """Writes a mask as an 8-bit grey PNG of 0 and 255, as a whole or not at all.

    Args:
        path: The file.
        mask: bool array of shape (H, W).

    Raises:
        SkinsegError: It cannot be written.
    """
    written, content = cv2.imencode(".png", mask.astype(np.uint8) * 255)
    assert written
    with replacing(path) as temporary:
        temporary.write_bytes(content.tobytes())


def find_mask_files(folder: Path, key: str) -> dict[str, Path]:
    """Finds the masks of a folder and its subfolders by image id.

    Args:
        folder: With files named `<image_id>_segmentation.png`; `_mask`, `_lesion`, `_pred`, `_prediction` or
            nothing may stand there instead.
        key: The config key that named it, for the message.

    Returns:
        Files by image id, sorted.

    Raises:
        SkinsegError: No such folder, no picture in it, or two files for one image.
    """
    return _one_each(folder, key, _MASK, "masks <image_id>_segmentation.png")


def check_complete(predicted: Iterable[str], expected: Iterable[str], folder: Path, *, where: str) -> None:
    """Refuses a folder of predictions that lacks an image, or has one that is not scored.

    Args:
        predicted: Image ids of the predictions.
        expected: Image ids of the truth.
        folder: Of the predictions, for the message.
        where: What the truth is, for the message.

    Raises:
        SkinsegError: The ids differ; all differences are counted, the first five of each named.
    """
    there, wanted = set(predicted), set(expected)
    lines = []
    for what, ids in (("lacks", wanted - there), ("has in addition", there - wanted)):
        if ids:
            more = ", ..." if len(ids) > 5 else ""
            lines.append(f"  it {what} {len(ids)} images: {', '.join(sorted(ids)[:5])}{more}")
    if lines:
        raise SkinsegError(
            "\n".join(
                [
                    f"predictions={folder} does not match the {len(wanted)} images of {where}:",
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


def _one_each(folder: Path, key: str, pattern: re.Pattern[str], what: str) -> dict[str, Path]:
    if not folder.is_dir():
        raise SkinsegError(f"{key}={folder}: no such folder; expected one of {what}.")
    found: dict[str, list[Path]] = defaultdict(list)
    passed_over = 0
    for here, names in walk(folder):
        for name in names:
            path = here / name
            if path.suffix.lower() not in _PICTURES:
                continue
            if (match := pattern.fullmatch(path.stem)) is None:
                passed_over += 1
            else:
                found[image_id_of(match["id"])].append(path)
    if passed_over:
        log.info("%s=%s: %d pictures are named as masks and passed over.", key, folder, passed_over)
    if not found:
        raise SkinsegError(f"{key}={folder} holds no picture; expected {what}.")
    twice = {image_id: paths for image_id, paths in sorted(found.items()) if len(paths) > 1}
    if twice:
        shown = [f"  {image_id}: {', '.join(map(str, paths))}" for image_id, paths in list(twice.items())[:5]]
        more = [f"  and {len(twice) - 5} more"] if len(twice) > 5 else []
        first = f"{key}={folder} has several files for {len(twice)} images; keep one of each:"
        raise SkinsegError("\n".join([first, *shown, *more]))
    return {image_id: paths[0] for image_id, paths in sorted(found.items())}
