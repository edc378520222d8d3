"""A plain folder of masks, with or without photographs, as a catalog."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from skinseg.counting import counted
from skinseg.data.catalog import COLUMNS, Catalog, name_groups
from skinseg.data.files import describe_misfit
from skinseg.data.photographs import (
    DEFAULT_MAX_MEGAPIXELS,
    Frame,
    UnreadableFileError,
    read_frame,
    read_mask_header,
)
from skinseg.data.tables import matching
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
        lesions: Lesion id by image id; an image without one stands for itself, even where a lesion is called
            like it.
        max_megapixels: Most millions of pixels of a picture.

    Returns:
        A row per mask, and one without a mask for each further photograph, which is not opened: its width and
        height are 0. Dataset and mask_source are "folder".

    Raises:
        SkinsegError: A mask lacks its photograph or is of other proportions; all such are listed.
    """
    written = pd.Series(list(lesions or {}), dtype=object)
    names = masks.keys() | (images or {}).keys()
    known = zip(matching(written, names), (lesions or {}).values(), strict=True)
    lesion_of = {image_id: lesion for image_id, lesion in known if not pd.isna(image_id)}
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
        rows.append(
            {
                "image_id": image_id,
                "image": None if image is None else str(image),
                "mask": str(mask),
                "mask_source": "folder",
                "dataset": "folder",
                "group_source": "strata" if image_id in lesion_of else "image",
                "height": frame.height,
                "width": frame.width,
            }
        )
    if problems:
        more = [f"  and {len(problems) - 5} more"] if len(problems) > 5 else []
        listed = [f"  {problem}" for problem in problems[:5]]
        raise SkinsegError(
            "\n".join([f"{counted(len(problems), 'mask does', 'masks do')} not fit:", *listed, *more])
        )
    photographs = sorted((images or {}).keys() - masks.keys())
    rows += [
        {
            "image_id": image_id,
            "image": str((images or {})[image_id]),
            "dataset": "folder",
            "group_source": "strata" if image_id in lesion_of else "image",
            "height": 0,
            "width": 0,
        }
        for image_id in photographs
    ]
    table = pd.DataFrame(rows).reindex(columns=list(COLUMNS))
    ids = table["image_id"]
    return Catalog(table.assign(group=name_groups(ids, ids.map(lesion_of))), notes={"turned": turned})
