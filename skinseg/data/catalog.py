"""The catalog: one validated table with a row per image, whichever data set it came from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace

import pandas as pd

from skinseg.counting import counted
from skinseg.errors import SkinsegError

COLUMNS = (
    "image_id",
    "image",
    "mask",
    "mask_source",
    "dataset",
    "group",
    "group_source",
    "diagnosis",
    "diagnosis_term",
    "publisher_split",
    "age",
    "sex",
    "site",
    "width",
    "height",
    "licence",
)

DRAWN = "synthetic"
"""The data set, and the source of the masks, of images that were drawn: they say nothing of real skin."""

ANNOTATION_COLUMNS = ("image_id", "mask", "mask_source", "annotator")


@dataclass(frozen=True)
class Catalog:
    """Images, their masks and what is known of them.

    Attributes:
        table: A row per image with at least `COLUMNS`, sorted by `image_id`. `image` and `mask` are paths
            (`mask` is missing where there is none), `group` names the lesion (the unit that a split must
            not divide) and `group_source` who says so ("image": nobody, the image stands for itself).
            `diagnosis` is a key of `skinseg.data.diagnoses.DIAGNOSES`, missing where it is unknown or in
            conflict, `diagnosis_term` the data set's own word. `publisher_split` is the publisher's subset,
            "train", "val", "test" or "train+test". `age` is in years (NaN: unknown), `width` and `height`
            are the image's, in pixels (0: not looked at).
        dropped: Image ids left out, by kind of problem (a key of `PROBLEMS`).
        annotations: A row per mask file with `ANNOTATION_COLUMNS`, the one in use first; images with more
            than one row have several masks.
        notes: Image ids by what was noted of them, e.g. "mask_resized", or "turned" where the image is stored
            turned or mirrored and was turned upright. They are in the table.

    Raises:
        SkinsegError: A column is missing, an image id occurs twice, a group is missing, or no row is left.
    """

    table: pd.DataFrame
    dropped: Mapping[str, list[str]] = field(default_factory=dict)
    annotations: pd.DataFrame = field(
        default_factory=lambda: pd.DataFrame(columns=list(ANNOTATION_COLUMNS), dtype=str)
    )
    notes: Mapping[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        missing = [column for column in COLUMNS if column not in self.table]
        if missing:
            raise SkinsegError(f"The catalog lacks the columns {missing}; found {list(self.table)}.")
        if self.table.empty:
            dropped = {kind: len(ids) for kind, ids in self.dropped.items()}
            raise SkinsegError(f"The catalog holds no image. Left out: {dropped or 'nothing'}.")
        twice = self.table["image_id"][self.table["image_id"].duplicated()].unique()
        if len(twice):
            raise SkinsegError(
                f"{counted(len(twice), 'image id occurs', 'image ids occur')} more than once, e.g. "
                f"{', '.join(twice[:5])}; keep one row for each image."
            )
        if self.table["group"].isna().any():
            raise SkinsegError(
                "Some images have no group (lesion id); without one a split cannot be trusted."
            )
        # A column without any value is of floats, which take no word.
        words = {column: object for column in COLUMNS if column not in ("age", "width", "height")}
        table = self.table.sort_values("image_id", ignore_index=True).astype(words)
        object.__setattr__(self, "table", table)

    def __len__(self) -> int:
        return len(self.table)

    def joining(self, pairs: Iterable[tuple[str, str]]) -> Catalog:
        """Returns the catalog with the lesions of pairs of images joined; absent ids change nothing."""
        group = dict(zip(self.table["image_id"], self.table["group"], strict=True))
        known = [(group[a], group[b]) for a, b in pairs if a in group and b in group]
        return replace(self, table=self.table.assign(group=join_groups(self.table["group"], known)))

    def record(self) -> dict[str, object]:
        """Returns counts for the run's record: images, groups, where things come from, dropped, noted."""
        table = self.table

        def counts(column: str) -> dict[str, int]:
            return {str(key): int(n) for key, n in table[column].fillna("none").value_counts().items()}

        def listed(found: Mapping[str, list[str]]) -> dict[str, object]:
            return {kind: {"count": len(ids), "image_ids": ids} for kind, ids in found.items() if ids}

        return {
            "images": len(table),
            "groups": int(table["group"].nunique()),
            "by_dataset": counts("dataset"),
            "by_diagnosis": counts("diagnosis"),
            "by_mask_source": counts("mask_source"),
            "by_group_source": counts("group_source"),
            "dropped": listed(self.dropped),
            "notes": listed(self.notes),
        }


def drawn_stamps(table: pd.DataFrame) -> list[str]:
    """Returns what has to stand beside scores of these rows of a catalog where some are drawn."""
    drawn = (table["dataset"] == DRAWN).any()
    return ["SYNTHETIC: drawn images; says nothing of real skin"] if drawn else []


def combine(catalogs: Iterable[Catalog]) -> Catalog:
    """Puts catalogs together: one row per image id, lesions grouped across all of them.

    Of an image in several catalogs the first one with a mask counts (the first of all where none has one).
    Two images belong to one lesion if any catalog says so. A lesion id is the same lesion in all catalogs; an
    image that stands for itself is never taken for a lesion of its name.

    Args:
        catalogs: In order of precedence.

    Returns:
        One catalog; `notes["in_several"]` lists the ids that more than one of them holds.
    """
    catalogs = list(catalogs)
    rows = pd.concat(_apart([catalog.table for catalog in catalogs]), ignore_index=True)
    rows["group"] = join_groups(rows["group"], shared_ids(rows))
    several = sorted(rows["image_id"][rows["image_id"].duplicated()].unique())
    rows = rows.iloc[rows["mask"].isna().argsort(kind="stable")]
    rows = rows.drop_duplicates("image_id")
    notes: dict[str, list[str]] = {"in_several": several}
    dropped: dict[str, list[str]] = {}
    for catalog in catalogs:
        for found, into in ((catalog.notes, notes), (catalog.dropped, dropped)):
            for kind, ids in found.items():
                into[kind] = sorted({*into.get(kind, []), *ids})
    # What is bad in one data set may be good in another.
    present = set(rows["image_id"])
    dropped = {kind: left for kind, ids in dropped.items() if (left := [i for i in ids if i not in present])}
    annotations = pd.concat([catalog.annotations for catalog in catalogs], ignore_index=True)
    return Catalog(rows, dropped, annotations.drop_duplicates("mask", ignore_index=True), notes)


def name_groups(image_ids: Iterable[str], lesions: Iterable[str | None]) -> list[str]:
    """Names the group of each image.

    Args:
        image_ids: n ids.
        lesions: n lesion ids, each missing (None or NaN) where it is not known.

    Returns:
        The lesion, else the image's own id; that is "image <id>" where a lesion bears the same name, for the
        two have nothing to do with each other.
    """
    rows = list(zip(image_ids, lesions, strict=True))
    known = {str(lesion) for _, lesion in rows if not pd.isna(lesion)}
    alone = {image_id for image_id, lesion in rows if pd.isna(lesion)}
    names = _unlike(alone, known, alone | known)
    return [names[image_id] if pd.isna(lesion) else str(lesion) for image_id, lesion in rows]


def _unlike(alone: Set[str], lesions: Set[str], taken: Set[str]) -> dict[str, str]:
    """Names images that stand for themselves unlike any lesion, and where they must be renamed unlike all."""
    clash, prefix = alone & lesions, "image "
    while any(f"{prefix}{name}" in taken for name in clash):
        prefix += "image "
    return {name: f"{prefix}{name}" if name in clash else name for name in alone}


def _apart(tables: Sequence[pd.DataFrame]) -> list[pd.DataFrame]:
    """Renames images that stand for themselves in one table and are called like a lesion of another one.

    Where nobody says what a group is, its name is taken for a lesion's: two lesions of one name are joined,
    which a split can bear, rather than one put in two subsets.
    """
    alone = [
        set(table["group"][table["group_source"].eq("image") & table["group"].eq(table["image_id"])])
        for table in tables
    ]
    groups = [set(table["group"]) for table in tables]
    lesions = set().union(*(every - own for every, own in zip(groups, alone, strict=True)))
    names = [_unlike(own, lesions, set().union(*groups)) for own in alone]
    return [
        table.assign(group=[found.get(group, group) for group in table["group"]])
        for table, found in zip(tables, names, strict=True)
    ]


def shared_ids(rows: pd.DataFrame) -> list[tuple[str, str]]:
    """Returns the pairs of groups that share an image id, from rows of several catalogs."""
    first = rows.drop_duplicates("image_id").set_index("image_id")["group"]
    again = rows[rows["image_id"].duplicated()]
    return list(zip(again["image_id"].map(first), again["group"], strict=True))


def join_groups(groups: Iterable[str], pairs: Iterable[tuple[str, str]]) -> list[str]:
    """Joins groups that turn out to be the same lesion.

    Args:
        groups: The group of each image.
        pairs: Pairs of groups that are one lesion. A pair with an absent group changes nothing.

    Returns:
        The group of each image; joined groups bear the name that sorts first.
    """
    groups = list(groups)
    parent = {group: group for group in groups}

    def root(group: str) -> str:
        while parent[group] != group:
            group = parent[group]
        return group

    for a, b in pairs:
        if a in parent and b in parent:
            first, second = sorted((root(a), root(b)))
            parent[second] = first
    return [root(group) for group in groups]
