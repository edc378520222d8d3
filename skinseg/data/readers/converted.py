"""Masks in other forms than 0 and 255, written anew in this one."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from skinseg.data.photographs import MaskFormatError, UnreadableFileError, read_values
from skinseg.data.problems import Problems
from skinseg.errors import SkinsegError
from skinseg.run.writing import replacing

LesionValue = int | Sequence[int]


def converted(
    masks: pd.DataFrame,
    folder: Path,
    problems: Problems,
    *,
    lesion_value: LesionValue | None = None,
    threshold: int | None = None,
) -> pd.DataFrame:
    """Writes masks anew as 8-bit grey PNG of 0 (skin) and 255 (lesion), once for each file as it is now.

    Args:
        masks: A row per mask with `catalog.ANNOTATION_COLUMNS`.
        folder: Where they are written.
        problems: Receives "mask_format" of masks that cannot be read so; these stay as they are.
        lesion_value: What the lesion's pixels hold: a grey value, the index of a palette or a class, or red,
            green and blue. All others are skin.
        threshold: From this grey value on a pixel is lesion.

    Returns:
        The rows, with the paths of the new masks.

    Raises:
        SkinsegError: Both or an impossible one of them is given, or no mask has a lesion by it.
    """
    if lesion_value is not None and threshold is not None:
        raise SkinsegError(
            f"data.lesion_value={lesion_value} and data.mask_threshold={threshold} both say what the lesion "
            "is; leave one out."
        )
    if threshold is not None and threshold < 1:
        raise SkinsegError(f"data.mask_threshold={threshold}: expected 1 or more; from 0 on all is lesion.")
    colour = None if lesion_value is None or isinstance(lesion_value, int) else list(lesion_value)
    if colour is not None and (len(colour) != 3 or not all(0 <= value <= 255 for value in colour)):
        raise SkinsegError(
            f"data.lesion_value={colour}: expected a number, or red, green and blue: [255,0,0]."
        )
    rule = f"{lesion_value} {threshold}"

    def convert(path: str) -> tuple[str, bool, str | None]:
        stat = os.stat(path)  # noqa: PTH116 -- a path is a text here
        state = f"{os.path.realpath(path)} {stat.st_size} {stat.st_mtime_ns} {rule}"
        digest = hashlib.sha256(os.fsencode(state)).hexdigest()[:16]
        target = folder / f"{digest}.png"
        if target.is_file():
            return str(target), True, None
        try:
            values = read_values(path, colour=colour is not None, max_megapixels=problems.max_megapixels)
        except UnreadableFileError as error:
            return path, True, str(error)
        lesion = _lesion(values, lesion_value if colour is None else colour, threshold)
        if not lesion.any():
            return path, False, _values(values)
        _write(target, lesion)
        return str(target), True, None

    # Pillow decodes outside the interpreter lock.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = list(pool.map(convert, masks["mask"]))
    empty = [said for _, has_lesion, said in found if not has_lesion]
    if empty and len(empty) == len(found):
        what = (
            f"data.lesion_value={lesion_value}" if threshold is None else f"data.mask_threshold={threshold}"
        )
        raise SkinsegError(f"{what}: none of the {len(found):,} masks has a lesion by it; found {empty[0]}.")
    paths = []
    for image_id, path, (target, has_lesion, said) in zip(
        masks["image_id"], masks["mask"], found, strict=True
    ):
        if has_lesion and said is not None:
            problems.add("mask_format", image_id, said)
        paths.append(target if has_lesion else _write_empty(folder, path, problems))
    return masks.assign(mask=paths)


def _lesion(
    values: NDArray[np.integer[Any]], lesion_value: LesionValue | None, threshold: int | None
) -> NDArray[np.bool_]:
    if threshold is not None:
        return np.asarray(values >= threshold)
    found = values == np.asarray(lesion_value)
    return np.asarray(found.all(axis=2) if found.ndim == 3 else found)


def _values(values: NDArray[np.integer[Any]]) -> str:
    found = np.unique(values) if values.ndim == 2 else np.unique(values.reshape(-1, 3), axis=0)
    shown = ", ".join(str(value) for value in found[:6].tolist())
    return f"values {shown}{', ...' if len(found) > 6 else ''}"


def _write_empty(folder: Path, path: str, problems: Problems) -> str:
    """Writes the mask of an image without a lesion by the rule, of the size that its file has."""
    try:
        height, width = read_values(path, colour=True, max_megapixels=problems.max_megapixels).shape[:2]
    except MaskFormatError:
        return path
    target = folder / f"empty_{width}x{height}.png"
    if not target.is_file():
        _write(target, np.zeros((height, width), dtype=bool))
    return str(target)


def _write(path: Path, lesion: NDArray[np.bool_]) -> None:
    written, content = cv2.imencode(".png", lesion.astype(np.uint8) * 255)
    assert written
    with replacing(path) as temporary:
        temporary.write_bytes(content.tobytes())
