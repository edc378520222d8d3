"""What a table of one's own says of images, and the rows of a catalog that it makes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from skinseg.counting import counted
from skinseg.data.catalog import name_groups
from skinseg.data.diagnoses import ISIC9, ISIC_ARCHIVE
from skinseg.data.readers.metadata import ages, diagnosis_codes
from skinseg.data.tables import lesion_ids, read_table, some
from skinseg.errors import SkinsegError

COLUMNS: Mapping[str, Sequence[str]] = {
    "image": ("image_id", "image", "isic_id", "file", "filename", "image_name", "name", "id"),
    "mask": ("mask", "mask_path", "segmentation"),
    "lesion": ("lesion_id", "lesion"),
    "diagnosis": ("diagnosis", "dx"),
    "age": ("age",),
    "sex": ("sex", "gender"),
    "site": ("site", "localization", "anatom_site_general"),
    "licence": ("licence", "license"),
}
"""What is read of a table of one's own, and what its columns are usually called."""

OTHER_FORMS = {"mask_format": "data.lesion_value=<value> or data.mask_threshold=128 says what the lesion is."}
"""What can be done about masks that are not of 0 and 255."""


def read_described(path: Path, columns: Mapping[str, str], key: str) -> pd.DataFrame:
    """Reads a table of images.

    Args:
        path: The table.
        columns: What its columns are called, by the keys of `COLUMNS`; those that are not here may have one
            of their usual names.
        key: The configuration key that named the file, for messages.

    Returns:
        A row per row of the table with the keys of `COLUMNS`: `image` and `mask` as written, `lesion` as of
        `lesion_ids`, `age` in years. What is not there or not known is missing.

    Raises:
        SkinsegError: It cannot be read, an unknown key, or a column is not there.
    """
    if unknown := sorted(columns.keys() - COLUMNS.keys()):
        raise SkinsegError(
            f"data.columns: unknown {', '.join(unknown)}; expected some of {', '.join(COLUMNS)}."
        )
    where = f"{key}={path}"
    usual = [name for name, names in COLUMNS.items() if name not in columns for name in names]
    table = read_table(path, list(columns.values()), known=usual, key=key)
    called = {
        name: columns.get(name) or next((usual for usual in names if usual in table), None)
        for name, names in COLUMNS.items()
    }
    if called["image"] is None:
        raise SkinsegError(
            f"{where} has no column of images; found {', '.join(map(str, table))}; expected one of "
            f"{', '.join(COLUMNS['image'])}, or its name: data.columns.image=<column>."
        )
    nothing = pd.Series(index=table.index, dtype=object)
    rows = pd.DataFrame(
        {name: nothing if column is None else table[column] for name, column in called.items()}, dtype=object
    )
    if called["lesion"] is not None:
        rows["lesion"] = lesion_ids(table[called["lesion"]], where)
    rows["age"] = float("nan") if called["age"] is None else ages(table[called["age"]], where)
    return rows


def refuse_twice(ids: pd.Series, where: str) -> None:
    """Makes sure that no image is listed twice.

    Args:
        ids: An id per row.
        where: The key and the file.

    Raises:
        SkinsegError: One is.
    """
    if len(twice := ids[ids.duplicated()].unique()):
        raise SkinsegError(
            f"{where}: {counted(len(twice), 'image is', 'images are')} listed more than once, e.g. "
            f"{some(twice)}; keep one row for each image."
        )


def own_rows(ids: pd.Series, images: pd.Series, known: pd.DataFrame, source: str) -> pd.DataFrame:
    """Makes the rows that `assemble` takes.

    Args:
        ids: The images' ids.
        images: Their paths.
        known: What is known of them, as of `read_described`.
        source: Who says which lesion they show.
    """
    return pd.DataFrame(
        {
            "image_id": ids,
            "image": images,
            "dataset": "folder",
            "group": name_groups(ids, known["lesion"]),
            "group_source": known["lesion"].isna().map({True: "image", False: source}),
            "diagnosis": _common_terms(known["diagnosis"]),
            "diagnosis_term": known["diagnosis"],
            "publisher_split": None,
            **{name: known[name] for name in ("age", "sex", "site", "licence")},
        }
    )


def _common_terms(terms: pd.Series) -> pd.Series:
    """Returns the common term of each diagnosis that is one of HAM10000, the 9-class set or the Archive."""
    if terms.isna().all():
        return terms
    folded = terms.astype(object).map(lambda term: term.strip().lower(), na_action="ignore")
    return diagnosis_codes(folded).fillna(folded.map({**ISIC9, **ISIC_ARCHIVE}))
