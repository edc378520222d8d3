"""From rows that a reader has found to a checked catalog: what all readers do alike."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from skinseg.data.catalog import ANNOTATION_COLUMNS, COLUMNS, Catalog, join_groups
from skinseg.data.files import find_copies
from skinseg.data.inspection import Verify, inspect_files
from skinseg.data.problems import Problems
from skinseg.data.readers.metadata import is_ham10000


def assemble(
    rows: pd.DataFrame,
    masks: pd.DataFrame,
    problems: Problems,
    *,
    verify: Verify,
    missing_mask: str,
    advice: Mapping[str, str] | None = None,
    notes: Mapping[str, list[str]] | None = None,
) -> Catalog:
    """Gives each image its mask, looks at all files, and settles what does not fit.

    Images whose files are the same byte for byte are one lesion (`notes["same_file"]`), so that no split
    parts them.

    Args:
        rows: A row per image with `catalog.COLUMNS` but for mask, mask_source, width and height; `image` is a
            path. Missing values mean unknown.
        masks: A row per mask with `catalog.ANNOTATION_COLUMNS`; the first one of an image counts.
        problems: What was found so far, and what is to happen with it.
        verify: See `inspect_files`.
        missing_mask: What is said of an image without a mask, after its path.
        advice: What can be done about a kind of problem.
        notes: See `Catalog`.

    Returns:
        The catalog.

    Raises:
        SkinsegError: A problem whose policy is "error".
    """
    masks = masks[masks["image_id"].isin(rows["image_id"])]
    chosen = masks.drop_duplicates("image_id").set_index("image_id")
    rows = rows.assign(
        mask=rows["image_id"].map(chosen["mask"]), mask_source=rows["image_id"].map(chosen["mask_source"])
    )
    for row in rows[rows["mask"].isna()].itertuples():
        problems.add("missing_mask", str(row.image_id), f"{row.image} {missing_mask}")
    lone = rows["group_source"].eq("image") & rows["image_id"].map(is_ham10000)
    for row in rows[lone].itertuples():
        problems.add("missing_lesion", str(row.image_id), f"{row.image_id} ({row.image})")

    ids = rows["image_id"].tolist()
    images = [Path(path) for path in rows["image"]]
    copies = find_copies(ids, images) if verify else []
    group_of = dict(zip(ids, rows["group"], strict=True))
    rows["group"] = join_groups(rows["group"], [(group_of[a], group_of[b]) for a, b in copies])
    size, looked = inspect_files(
        ids,
        images,
        [None if pd.isna(path) else Path(path) for path in rows["mask"]],
        problems,
        verify=verify,
    )
    dropped = problems.settle(advice)
    out = {image_id for kind in dropped.values() for image_id in kind}
    # A column without any value is of floats, which take no word.
    worded = {name: rows[name].astype(object).fillna("unknown") for name in ("sex", "site", "licence")}
    table = rows.assign(image=rows["image"].map(str), width=size[:, 0], height=size[:, 1], **worded)
    extra = [column for column in table if column not in COLUMNS]
    table = table[[*COLUMNS, *extra]]
    noted = {**(notes or {}), "same_file": [image_id for _, image_id in copies], **looked}
    return Catalog(
        table[~table["image_id"].isin(out)],
        dropped,
        masks.loc[~masks["image_id"].isin(out), list(ANNOTATION_COLUMNS)].reset_index(drop=True),
        {kind: [i for i in ids if i not in out] for kind, ids in noted.items()},
    )
