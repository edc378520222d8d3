"""Reading image and mask files, and checking all of them before any work starts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from skinseg.data.catalog import Problems


class UnreadableFileError(Exception):
    """A file that cannot be decoded, or a mask in a form that would be misread."""


def read_image(path: Path | str, at_least: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """Decodes an image as RGB.

    Args:
        path: A file in any format that Pillow knows.
        at_least: Height and width that suffice: a JPEG several times larger is decoded at a half,
            a quarter or an eighth, which costs as much less.

    Returns:
        Array of shape (height, width, 3), values 0 to 255.

    Raises:
        UnreadableFileError: The file is missing, empty, cut short or no image.
    """
    try:
        with Image.open(path) as image:
            if at_least is not None:
                image.draft("RGB", (at_least[1], at_least[0]))
            return np.array(image.convert("RGB"))
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise UnreadableFileError(f"{path}: {_reason(path, error)}") from error


def read_mask(path: Path | str) -> NDArray[np.uint8]:
    """Decodes a lesion mask, strictly.

    A mask of 0 and 1, of 16 bits or in colour is refused rather than guessed at: the ISIC Challenge's
    scorer takes values above 128 for lesion and would read the first as empty.

    Args:
        path: An 8-bit grey ("L"), palette ("P") or 1-bit PNG.

    Returns:
        Array of shape (height, width) that holds 0 (skin) and 255 (lesion) only.

    Raises:
        UnreadableFileError: The file cannot be decoded.
        MaskFormatError: It is an image, but not such a mask.
    """
    try:
        with Image.open(path) as image:
            mode = image.mode
            mask = np.array(image.convert("L")) if mode in ("L", "P", "1") else None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise UnreadableFileError(f"{path}: {_reason(path, error)}") from error
    if mask is None:
        raise MaskFormatError(f"{path}: mode {mode}, expected 8-bit grey (L) or palette (P)")
    # bincount is 20 times as fast as np.unique on a mask.
    values = np.flatnonzero(np.bincount(mask.ravel(), minlength=256))
    if not np.isin(values, (0, 255)).all():
        shown = ", ".join(map(str, values[:6])) + (", ..." if len(values) > 6 else "")
        raise MaskFormatError(f"{path}: values {shown}, expected 0 (skin) and 255 (lesion)")
    return mask


class MaskFormatError(UnreadableFileError):
    """A mask in a form that would be misread."""


def _reason(path: Path | str, error: BaseException) -> str:
    path = Path(path)
    if not path.is_file():
        return "no such file"
    if path.stat().st_size == 0:
        return "empty file (0 bytes)"
    return (
        f"not an image ({path.stat().st_size} bytes)"
        if isinstance(error, UnidentifiedImageError)
        else str(error)
    )


@dataclass(frozen=True)
class _Inspection:
    width: int = 0
    height: int = 0
    problem: tuple[str, str] | None = None


def inspect_files(
    image_ids: Sequence[str],
    images: Sequence[Path],
    masks: Sequence[Path | None],
    problems: Problems,
    *,
    decode: bool = True,
) -> NDArray[np.int64]:
    """Opens every image and mask once, in threads, and reports what is wrong with them.

    Args:
        image_ids: n ids.
        images: n image files.
        masks: n mask files, None where an image has none.
        problems: Receives "unreadable", "mask_size" and "mask_format".
        decode: Decode the pixels too. Without it only the headers are read, a tenth of the time, and a
            truncated file or a mask of 0 and 1 is found when it is first needed, in the middle of a run.

    Returns:
        Array of shape (n, 2): width and height in pixels, 0 where a file could not be read.
    """

    def inspect(image: Path, mask: Path | None) -> _Inspection:
        try:
            if decode:
                height, width = read_image(image).shape[:2]
            else:
                width, height = _size(image)
            if mask is not None:
                if decode:
                    mask_height, mask_width = read_mask(mask).shape
                else:
                    mask_width, mask_height = _size(mask)
                if (mask_width, mask_height) != (width, height):
                    found = f"{mask}: {mask_width}x{mask_height}, its image is {width}x{height}"
                    return _Inspection(width, height, ("mask_size", found))
        except MaskFormatError as error:
            return _Inspection(problem=("mask_format", str(error)))
        except UnreadableFileError as error:
            return _Inspection(problem=("unreadable", str(error)))
        return _Inspection(width, height)

    # Pillow decodes outside the interpreter lock.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(inspect, images, masks))
    for image_id, result in zip(image_ids, results, strict=True):
        if result.problem is not None:
            problems.add(result.problem[0], image_id, result.problem[1])
    return np.array([(r.width, r.height) for r in results], dtype=np.int64).reshape(-1, 2)


def _size(path: Path) -> tuple[int, int]:
    try:
        with Image.open(path) as image:
            return image.size
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise UnreadableFileError(f"{path}: {_reason(path, error)}") from error
