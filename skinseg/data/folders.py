"""A plain folder of masks, with or without photographs, as a catalog."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from skinseg.data.catalog import COLUMNS, Catalog
from skinseg.data.files import describe_misfit
from skinseg.data.photographs import (
    DEFAULT_MAX_MEGAPIXELS,
    Frame,
    UnreadableFileError,
    read_frame,
    read_mask_header,
)
from skinseg.errors import SkinsegError


def read_folders(
    masks: Mapping[str, Path],
    images: Mapping[str, Path] | None = None,
    lesions: Mapping[str, str] | None = None,
    max_megapixels: float = DEFAULT_MAX_MEGAPIXELS,
) -> Catalog:
    """Makes a catalog of files that no data set describes.

    Args:
        masks: Truth by image id.
        images: Photographs by image id. None: there are none, and sizes are those of the masks.
        lesions: Lesion id by image id; an image without one stands for itself.
        max_megapixels: Most millions of pixels of a picture.

    Returns:
        A row per mask. Dataset and mask_source are "folder".

    Raises:
        SkinsegError: A mask lacks its photograph or is of other proportions; all such are listed.
    """
    problems, rows, turned = [], [], []
    for image_id, mask in masks.items():
        image = None if images is None else images.get(image_id)
        if images is not None and image is None:
            problems.append(f"{mask}: no photograph {image_id}")
            continue
        try:
            _, drawn = read_mask_header(mask, max_megapixels)
            frame = Frame(*drawn, turned=False) if image is None else read_frame(image, max_megapixels)
        except UnreadableFileError as error:
            problems.append(str(error))
            continue
        if (misfit := describe_misfit(drawn, frame)) is not None:
            problems.append(f"{mask}: {misfit}")
        if frame.turned:
            turned.append(image_id)
        lesion = (lesions or {}).get(image_id)
        rows.append(
            {
                "image_id": image_id,
                "image": None if image is None else str(image),
                "mask": str(mask),
                "mask_source": "folder",
                "dataset": "folder",
                "group": lesion or image_id,
                "group_source": "image" if lesion is None else "strata",
                "height": frame.height,
                "width": frame.width,
            }
        )
    if problems:
        more = [f"  and {len(problems) - 5} more"] if len(problems) > 5 else []
        listed = [f"  {problem}" for problem in problems[:5]]
        raise SkinsegError("\n".join([f"{len(problems)} masks do not fit:", *listed, *more]))
    return Catalog(pd.DataFrame(rows).reindex(columns=list(COLUMNS)), notes={"turned": turned})
