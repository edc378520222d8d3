"""Decoding files once to know that they can be: what has passed is remembered."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from skinseg.data.files import describe_misfit
from skinseg.data.photographs import (
    MaskFormatError,
    UnreadableFileError,
    read_frame,
    read_mask,
    read_mask_header,
    read_photograph,
)
from skinseg.data.problems import Problems

Verify = bool | Literal["headers"]
"""How much of each file is looked at before any work starts: all of it, its header, nothing."""


@dataclass(frozen=True)
class _Inspection:
    width: int = 0
    height: int = 0
    problem: tuple[str, str] | None = None
    resized: bool = False
    turned: bool = False
    stamps: list[int] | None = None


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
