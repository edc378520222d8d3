"""A plain folder of masks, with or without photographs, as a catalog."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from skinseg.data.catalog import COLUMNS, Catalog
from skinseg.data.files import UnreadableFileError, image_size, same_proportions
from skinseg.errors import SkinsegError


def read_folders(
    masks: Mapping[str, Path],
    images: Mapping[str, Path] | None = None,
    lesions: Mapping[str, str] | None = None,
) -> Catalog:
    """Makes a catalog of files that no data set describes.

    Args:
        masks: Truth by image id.
        images: Photographs by image id. None: there are none, and sizes are those of the masks.
        lesions: Lesion id by image id; an image without one stands for itself.

    Returns:
        A row per mask, and one without a mask for each further photograph, which is not opened: its width and
        height are 0. Dataset and mask_source are "folder".

    Raises:
        SkinsegError: A mask lacks its photograph or is of other proportions; all such are listed.
    """
    problems, rows = [], []
    for image_id, mask in masks.items():
        image = None if images is None else images.get(image_id)
        if images is not None and image is None:
            problems.append(f"{mask}: no photograph {image_id}")
            continue
        try:
            size, drawn = image_size(image or mask), image_size(mask)
        except UnreadableFileError as error:
            problems.append(str(error))
            continue
        if not same_proportions(size, drawn):
            problems.append(
                f"{mask}: {drawn[1]}x{drawn[0]} pixels, not of the proportions of its photograph "
                f"({size[1]}x{size[0]})"
            )
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
                "height": size[0],
                "width": size[1],
            }
        )
    if problems:
        more = [f"  and {len(problems) - 5} more"] if len(problems) > 5 else []
        listed = [f"  {problem}" for problem in problems[:5]]
        raise SkinsegError("\n".join([f"{len(problems)} masks do not fit:", *listed, *more]))
    for image_id in sorted((images or {}).keys() - masks.keys()):
        lesion = (lesions or {}).get(image_id)
        rows.append(
            {
                "image_id": image_id,
                "image": str((images or {})[image_id]),
                "dataset": "folder",
                "group": lesion or image_id,
                "group_source": "image" if lesion is None else "strata",
                "height": 0,
                "width": 0,
            }
        )
    return Catalog(pd.DataFrame(rows).reindex(columns=list(COLUMNS)))
