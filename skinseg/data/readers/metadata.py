"""What is published of an image outside its data set: lesion, diagnosis, licence, patient's age and sex."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path

import pandas as pd

from skinseg.counting import counted
from skinseg.data.catalog import join_groups, name_groups, shared_ids
from skinseg.data.diagnoses import DIAGNOSES, ISIC_ARCHIVE
from skinseg.data.files import Tree
from skinseg.data.tables import image_ids as ids_of_images
from skinseg.data.tables import lesion_ids, numbers, read_table, report_match, some
from skinseg.errors import SkinsegError

log = logging.getLogger(__name__)

HAM10000_NAMES = ("HAM10000_metadata.csv", "HAM10000_metadata", "HAM10000_metadata.tab")
ARCHIVE_NAMES = ("isic_archive_metadata.csv", "metadata.csv")
_ANYBODYS = "metadata.csv"  # other programs write files of this name too
HAM10000_LICENCE = "CC BY-NC 4.0"

# HAM10000 is ISIC_0024306 to ISIC_0034320 of the Archive, without a gap.
_HAM10000_NUMBERS = range(24_306, 34_321)

_HOW_TO_GET_LESIONS = (
    "HAM10000_metadata.csv comes with `python -m skinseg.download data=ham10000`; put it below data.root or "
    "name it in data.reader.metadata."
)

_HAM10000_COLUMNS = ("image_id", "lesion_id", "dx")
_AGE, _SITE = ("age", "age_approx"), ("localization", "anatom_site_general", "anatom_site_1")
_FILE_COLUMNS = (
    *_HAM10000_COLUMNS, "isic_id", "diagnosis_3", "sex", "copyright_license", *_AGE, *_SITE
)  # fmt: skip

COLUMNS = ("lesion_id", "group", "group_source", "diagnosis", "term", "age", "sex", "site", "licence")


def is_ham10000(image_id: str) -> bool:
    """Whether an image id of the ISIC Archive belongs to HAM10000."""
    number = image_id.removeprefix("ISIC_")
    return len(number) == 7 and number.isdecimal() and int(number) in _HAM10000_NUMBERS


def find_metadata(tree: Tree, image_ids: Iterable[str], more: Sequence[str] = ()) -> pd.DataFrame:
    """Reads HAM10000's metadata and the ISIC Archive's, from files of the usual names and from others.

    Args:
        tree: The folders to look through.
        image_ids: The images at hand; how many of them a file knows is logged.
        more: Further files; they count first.

    Returns:
        A row per image id (the index) with `COLUMNS`: `lesion_id` as the file has it (missing where it knows
        none), `group` the same with the 18 published pairs of HAM10000 joined, `group_source` "ham10000" or
        "isic_archive", `diagnosis` a common term, `term` the file's own.

    Raises:
        SkinsegError: A file of `more` is missing or knows none of the images; or one of them, or one of a
            usual name, is no such table. A metadata.csv of other columns is some other program's; it is
            passed over with a warning.
    """
    images = list(image_ids)
    tables = []
    for name in more:
        path = Path(name).expanduser()
        if not path.is_file():
            raise SkinsegError(f"data.reader.metadata: {path}: no such file.")
        table = _read(path, "data.reader.metadata")
        ids = table.index.to_series()
        # Published metadata are of many more images than any data set.
        report_match(ids.isin(images), ids, images, f"data.reader.metadata={path}", partly=logging.INFO)
        tables.append(table)
    usual = {name.lower() for name in (*HAM10000_NAMES, *ARCHIVE_NAMES)}
    for path in (folder / name for folder, names in tree for name in names if name.lower() in usual):
        try:
            table = _read(path)
        except _OtherTableError:
            if path.name.lower() != _ANYBODYS:
                raise
            log.warning("%s is not the ISIC Archive's metadata (no column isic_id) and is not used.", path)
            continue
        number = int(table.index.isin(images).sum())
        log.info("%s: knows %d of the %s.", path, number, counted(len(images), "image"))
        tables.append(table)
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
    with resources.files("skinseg.data.readers").joinpath("ham10000_duplicates.csv").open() as file:
        table = pd.read_csv(file, comment="#")
    return list(zip(table["a"], table["b"], strict=True))


def groups_of(image_ids: Iterable[str], known: pd.DataFrame) -> tuple[list[str], list[str]]:
    """Returns the group of each image and where it comes from.

    An image whose lesion nobody knows is a group of its own, from "image"; see `name_groups`.
    """
    found = known["group"].dropna().to_dict()
    source = known["group_source"].to_dict()
    ids = list(image_ids)
    groups = name_groups(ids, [found.get(i) for i in ids])
    return groups, [source[i] if i in found else "image" for i in ids]


def lesion_advice(known: pd.DataFrame) -> str:
    """Says what can be done about images of HAM10000 without a lesion id.

    Args:
        known: What `find_metadata` returned.
    """
    if known["group_source"].eq("ham10000").any():
        return "HAM10000's metadata are here, but they have no lesion_id of these images; fill it in."
    return _HOW_TO_GET_LESIONS


def ages(texts: pd.Series, where: str) -> pd.Series:
    """Returns ages in years; of HAM10000 and of the Archive 0 means unknown, and becomes NaN."""
    return numbers(texts, where, low=0, high=120).replace(0, float("nan"))


def diagnosis_codes(terms: pd.Series) -> pd.Series:
    """Returns HAM10000's terms as keys of `DIAGNOSES`, missing where they are none."""
    codes = terms.str.lower()
    return codes.where(codes.isin(list(DIAGNOSES)))


class _OtherTableError(SkinsegError):
    """A table that is readable, but of something else."""


def _read(path: Path, key: str | None = None) -> pd.DataFrame:
    """Reads a metadata file.

    Raises:
        SkinsegError: It cannot be read, or is something else; an `_OtherTableError` where it has no image ids
            of the Archive.
    """
    where = str(path) if key is None else f"{key}={path}"
    rows = read_table(path, (), known=_FILE_COLUMNS, key=key)
    ham = set(_HAM10000_COLUMNS) <= set(rows)
    if not ham and not ("isic_id" in rows and {"lesion_id", "diagnosis_3"} & set(rows)):
        found = ", ".join(map(str, rows))
        kind = SkinsegError if "isic_id" in rows else _OtherTableError
        raise kind(
            f"{where} is neither HAM10000's metadata (columns image_id, lesion_id, dx) nor the ISIC "
            f"Archive's (isic_id, and lesion_id or diagnosis_3); found the columns {found}."
        )
    ids = ids_of_images(rows["image_id" if ham else "isic_id"])
    if ids.isna().any():
        raise SkinsegError(
            f"{where}: {counted(int(ids.isna().sum()), 'row has', 'rows have')} no {ids.name}; fix the file."
        )
    lesions = lesion_ids(_column(rows, "lesion_id"), where)
    term = _column(rows, "dx" if ham else "diagnosis_3")
    table = pd.DataFrame(
        {
            "lesion_id": lesions,
            "group": lesions,
            "group_source": "ham10000" if ham else "isic_archive",
            "diagnosis": diagnosis_codes(term) if ham else term.str.lower().map(ISIC_ARCHIVE),
            "term": term,
            "age": ages(_column(rows, *_AGE), where),
            "sex": _column(rows, "sex"),
            "site": _column(rows, *_SITE),
            "licence": HAM10000_LICENCE if ham else _column(rows, "copyright_license"),
        }
    )
    table.index = pd.Index(ids, name="image_id")
    if ham and (unknown := sorted(set(term[table["diagnosis"].isna().to_numpy()].dropna()))):
        log.warning("%s: unknown diagnoses in the column dx: %s.", where, some(unknown))
    return table


def _column(rows: pd.DataFrame, *names: str) -> pd.Series:
    """Returns the first of several columns that is there, else one without values."""
    absent = pd.Series(float("nan"), index=rows.index, dtype=object, name=names[0])
    return next((rows[name] for name in names if name in rows), absent)
