"""What is published of an image outside its data set: lesion, diagnosis, licence, patient's age and sex."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path

import pandas as pd

from skinseg.data.catalog import join_groups, shared_ids
from skinseg.data.diagnoses import DIAGNOSES, ISIC_ARCHIVE
from skinseg.data.files import Tree, image_id_of
from skinseg.errors import SkinsegError

HAM10000_NAMES = ("HAM10000_metadata.csv", "HAM10000_metadata", "HAM10000_metadata.tab")
ARCHIVE_NAMES = ("isic_archive_metadata.csv", "metadata.csv")
HAM10000_LICENCE = "CC BY-NC 4.0"

# HAM10000 is ISIC_0024306 to ISIC_0034320 of the Archive, without a gap.
_HAM10000_NUMBERS = range(24_306, 34_321)

HOW_TO_GET_LESIONS = (
    "HAM10000_metadata.csv comes with `python -m skinseg.download data=ham10000`; put it below data.root or "
    "name it in data.reader.metadata."
)

COLUMNS = ("lesion_id", "group", "group_source", "diagnosis", "term", "age", "sex", "site", "licence")


def is_ham10000(image_id: str) -> bool:
    """Whether an image id of the ISIC Archive belongs to HAM10000."""
    number = image_id.removeprefix("ISIC_")
    return len(number) == 7 and number.isdecimal() and int(number) in _HAM10000_NUMBERS


def find_metadata(tree: Tree, more: Sequence[str] = ()) -> pd.DataFrame:
    """Reads HAM10000's metadata and the ISIC Archive's, from files of the usual names and from others.

    Args:
        tree: The folders to look through.
        more: Further files; they count first.

    Returns:
        A row per image id (the index) with `COLUMNS`: `lesion_id` as the file has it (missing where it knows
        none), `group` the same with the 18 published pairs of HAM10000 joined, `group_source` "ham10000" or
        "isic_archive", `diagnosis` a common term, `term` the file's own.

    Raises:
        SkinsegError: A file of `more` is missing or no such table.
    """
    tables = []
    for name in more:
        path = Path(name).expanduser()
        if not path.is_file():
            raise SkinsegError(f"data.reader.metadata: {path}: no such file.")
        table = _read(path)
        if table is None:
            raise SkinsegError(
                f"data.reader.metadata: {path} is neither HAM10000's metadata (columns image_id, lesion_id, "
                "dx) nor the ISIC Archive's (isic_id, and lesion_id or diagnosis_3)."
            )
        tables.append(table)
    for folder, names in tree:
        usual = [folder / name for name in (*HAM10000_NAMES, *ARCHIVE_NAMES) if name in names]
        # Other programs write a metadata.csv too.
        tables += [table for table in map(_read, usual) if table is not None]
    if not tables:
        return pd.DataFrame(columns=list(COLUMNS), index=pd.Index([], name="image_id"), dtype=object)
    every = pd.concat(tables)
    # An image that two files list is of one lesion, whatever each calls it; of other values the first counts.
    known = every.dropna(subset="group").reset_index()
    rows = every.groupby(level=0).first()
    group_of = {str(image_id): str(group) for image_id, group in rows["group"].dropna().items()}
    pairs = [*shared_ids(known), *group_pairs(group_of)]
    names = join_groups(known["group"], pairs)
    joined = dict(zip(known["group"], names, strict=True))
    return rows.assign(group=rows["group"].map(joined))


def group_pairs(group_of: dict[str, str]) -> list[tuple[str, str]]:
    """Returns the groups of the 18 published pairs of HAM10000 whose two images are both known."""
    return [(group_of[a], group_of[b]) for a, b in duplicate_pairs() if a in group_of and b in group_of]


def duplicate_pairs() -> list[tuple[str, str]]:
    """Returns the 18 published pairs of image ids that show one lesion under two lesion ids."""
    with resources.files("skinseg.data").joinpath("ham10000_duplicates.csv").open() as file:
        table = pd.read_csv(file, comment="#")
    return list(zip(table["a"], table["b"], strict=True))


def groups_of(image_ids: Iterable[str], known: pd.DataFrame) -> tuple[list[str], list[str]]:
    """Returns the group of each image and where it comes from.

    An image whose lesion nobody knows is a group of its own, named like the image, from "image".
    """
    found = known["group"].dropna().to_dict()
    source = known["group_source"].to_dict()
    ids = list(image_ids)
    return [found.get(i, i) for i in ids], [source[i] if i in found else "image" for i in ids]


def _read(path: Path) -> pd.DataFrame | None:
    """Reads a metadata file, or returns None where it is something else."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            separator = "\t" if "\t" in file.readline() else ","
        rows = pd.read_csv(path, dtype=str, sep=separator)
    except (ValueError, OSError):
        return None
    rows.columns = [str(column).strip().strip('"') for column in rows.columns]
    if {"image_id", "lesion_id", "dx"} <= set(rows.columns):
        ids, source, term = rows["image_id"], "ham10000", rows["dx"]
        diagnosis = term.where(term.isin(list(DIAGNOSES)))
    elif "isic_id" in rows and {"lesion_id", "diagnosis_3"} & set(rows.columns):
        ids, source, term = rows["isic_id"], "isic_archive", _column(rows, "diagnosis_3")
        diagnosis = term.str.lower().map(ISIC_ARCHIVE)
    else:
        return None
    ham = source == "ham10000"
    table = pd.DataFrame(
        {
            "lesion_id": _column(rows, "lesion_id"),
            "group": _column(rows, "lesion_id"),
            "group_source": source,
            "diagnosis": diagnosis,
            "term": term,
            # An age of 0 means unknown in HAM10000.
            "age": pd.to_numeric(_column(rows, "age", "age_approx"), errors="coerce").replace(
                0, float("nan")
            ),
            "sex": _column(rows, "sex"),
            "site": _column(rows, "localization", "anatom_site_general", "anatom_site_1"),
            "licence": HAM10000_LICENCE if ham else _column(rows, "copyright_license"),
        }
    )
    table.index = pd.Index([image_id_of(str(i)) for i in ids], name="image_id")
    return table


def _column(rows: pd.DataFrame, *names: str) -> pd.Series:
    """Returns the first of several columns that is there, else one without values."""
    return next((rows[n] for n in names if n in rows), pd.Series(pd.NA, index=rows.index, dtype="str"))
