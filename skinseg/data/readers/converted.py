"""Masks in other forms than 0 and 255, written anew in this one."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from skinseg.counting import counted
from skinseg.data.files import write_mask
from skinseg.data.photographs import MaskFormatError, UnreadableFileError, read_values
from skinseg.data.problems import Problems
from skinseg.errors import SkinsegError

LesionValue = int | Sequence[int]

# How the name of a new mask ends that holds no lesion.
_EMPTY = "-empty.png"


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

    def convert(path: str) -> tuple[str, str | None]:
        """Returns the new mask, or the old one with what is wrong with it where something is."""
        try:
            stat = os.stat(path)  # noqa: PTH116 -- a path is a text here
            state = f"{os.path.realpath(path)} {stat.st_size} {stat.st_mtime_ns} {rule}"
            digest = hashlib.sha256(os.fsencode(state)).hexdigest()[:16]
            targets = [folder / f"{digest}{end}" for end in (_EMPTY, ".png")]
            for target in targets:
                if target.is_file():
                    return str(target), None
            values = read_values(path, colour=colour is not None, max_megapixels=problems.max_megapixels)
        except MaskFormatError as error:
            return path, str(error)
        except (OSError, UnreadableFileError):  # of which inspecting the files will tell
            return path, None
        lesion = _lesion(values, lesion_value if colour is None else colour, threshold)
        target = targets[bool(lesion.any())]
        write_mask(target, lesion)
        return str(target), None

    # Pillow decodes outside the interpreter lock.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = list(pool.map(convert, masks["mask"]))
    if all(target.endswith(_EMPTY) for target, _ in found):
        given = f"lesion_value={lesion_value}" if threshold is None else f"mask_threshold={threshold}"
        values = read_values(masks["mask"].iloc[0], colour=colour is not None)
        many = f"none of the {counted(len(found), 'mask')} has a"
        raise SkinsegError(f"data.{given}: {many} lesion by it; found {_values(values)}.")
    for image_id, (_, said) in zip(masks["image_id"], found, strict=True):
        if said is not None:
            problems.add("mask_format", image_id, said)
    return masks.assign(mask=[target for target, _ in found])


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
