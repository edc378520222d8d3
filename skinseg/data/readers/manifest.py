"""A table that names each photograph and its mask, wherever they lie."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd

from skinseg.counting import counted
from skinseg.data.catalog import ANNOTATION_COLUMNS, Catalog
from skinseg.data.files import image_id_of
from skinseg.data.inspection import Verify
from skinseg.data.problems import Problems
from skinseg.data.readers.assemble import assemble
from skinseg.data.readers.described import OTHER_FORMS, own_rows, read_described, refuse_twice
from skinseg.data.readers.masks import OWN
from skinseg.errors import SkinsegError

MANIFEST = "manifest.csv"


def read_manifest(
    path: Path,
    problems: Problems,
    columns: Mapping[str, str],
    rewritten: Callable[[pd.DataFrame], pd.DataFrame] = lambda masks: masks,
    *,
    verify: Verify = True,
) -> Catalog:
    """Reads a manifest: a row per photograph with its path, that of its mask, and what is known of it.

    Paths are as written or below the folder of the manifest. An image's id is its file's name without the
    ending, or where one name is there twice its path with two underscores for each slash.

    Args:
        path: The table; see `read_described`.
        problems: What is to happen where things do not fit.
        columns: What its columns are called; see `read_described`.
        rewritten: Writes masks of another form anew.
        verify: How much of each file is looked at now. See `inspect_files`.

    Returns:
        The catalog; `group_source` is "manifest", or "image" where nothing is known of the lesion.

    Raises:
        SkinsegError: The table cannot be read, a row has no path, or a problem whose policy is "error".
    """
    where = f"data.images={path}"
    rows = read_described(path, columns, "data.images")
    if nameless := int(rows["image"].isna().sum()):
        raise SkinsegError(f"{where}: {counted(nameless, 'row names', 'rows name')} no image; fix the file.")
    files = rows["image"].map(lambda text: path.parent / Path(text).expanduser())
    ids = files.map(lambda file: image_id_of(file.stem))
    if ids.duplicated().any():
        ids = rows["image"].map(lambda text: image_id_of("__".join(Path(text).with_suffix("").parts)))
    refuse_twice(ids, where)
    there = files.map(Path.is_file)
    for image_id, file in zip(ids[~there], files[~there], strict=True):
        problems.add("missing_image", image_id, f"{file} (row of {path}) is not there")
    drawn = rows["mask"].notna()
    masks = pd.DataFrame(
        {
            "image_id": ids[drawn],
            "mask": rows.loc[drawn, "mask"].map(lambda text: str(path.parent / Path(text).expanduser())),
            "mask_source": OWN,
            "annotator": None,
        },
        columns=list(ANNOTATION_COLUMNS),
        dtype=object,
    )
    kept = there.to_numpy()
    masks = masks[masks["image_id"].isin(ids[kept])]
    return assemble(
        own_rows(ids, files, rows, "manifest")[kept],
        masks if masks.empty else rewritten(masks),
        problems,
        verify=verify,
        missing_mask=f"has no mask in {path}",
        advice=OTHER_FORMS,
    )


def manifest_of(catalog: Catalog) -> pd.DataFrame:
    """Returns a table that `read_manifest` reads again.

    Its columns are image, mask, lesion, diagnosis, age, sex, site and licence. Paths are absolute; the lesion
    is missing where an image stands for itself.
    """
    table = catalog.table
    whole = {
        name: table[name].map(lambda path: str(Path(path).absolute()), na_action="ignore")
        for name in ("image", "mask")
    }
    lesion = table["group"].where(table["group_source"] != "image")
    others = table[["age", "sex", "site", "licence"]].replace("unknown", None)
    return pd.DataFrame(whole).assign(lesion=lesion, diagnosis=table["diagnosis_term"], **others)
