"""Splits by lesion: which image is trained on, validated on and tested on."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold

from skinseg.counting import counted
from skinseg.data.catalog import Catalog, combine
from skinseg.data.masks import PSEUDO, how_to_get_masks
from skinseg.data.tables import image_ids, lesion_ids, matching, read_table
from skinseg.errors import SkinsegError

SIDES = ("train", "val", "test")
COLUMNS = ("image_id", "group", "split")


Unit = Literal["lesion", "image"]


@dataclass(frozen=True)
class Split:
    """An assignment of images to train, val and test, in which no lesion is on two sides.

    Attributes:
        table: Columns image_id, group, split ("train", "val" or "test"), sorted by image_id.
        unit: What stays together. "image" lets views of one lesion be on two sides, for comparison with
            papers that do so; its scores are too good, and it is stamped LEAKY.
        left_out: Image ids by why they are not on the side (or on no side) that they might be on.

    Raises:
        SkinsegError: A group is on two sides (unless the unit is "image"), an image is there twice, or a side
            is unknown.
    """

    table: pd.DataFrame
    unit: Unit = "lesion"
    left_out: Mapping[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        missing = [column for column in COLUMNS if column not in self.table]
        if missing:
            raise SkinsegError(f"The split lacks the columns {missing}; expected {list(COLUMNS)}.")
        table = self.table[list(COLUMNS)].sort_values("image_id", ignore_index=True)
        unknown = sorted(set(table["split"].map(str)) - set(SIDES))
        if unknown:
            raise SkinsegError(f"The split has the sides {unknown}; expected {list(SIDES)}.")
        twice = table["image_id"][table["image_id"].duplicated()]
        if len(twice):
            raise SkinsegError(
                f"The split lists {counted(len(twice), 'image')} twice, e.g. {', '.join(twice[:5])}."
            )
        object.__setattr__(self, "table", table)
        torn = self.torn_groups
        if len(torn) and self.unit == "lesion":
            raise SkinsegError(
                f"{counted(len(torn), 'lesion is', 'lesions are')} on two sides of the split, e.g. "
                f"{', '.join(torn[:5])}: scores would be of lesions that were trained on. Split by lesion "
                "(python -m skinseg.split), or set data.split.unit=image, which stamps all scores LEAKY."
            )

    @property
    def torn_groups(self) -> list[str]:
        """Lesions that are on two sides or more."""
        sides = self.table.groupby("group")["split"].nunique()
        return [str(group) for group in sides.index[sides > 1]]

    @property
    def stamps(self) -> list[str]:
        """What has to stand beside every score of this split: empty, or one line that begins with LEAKY."""
        if self.unit == "lesion":
            return []
        table = self.table
        trained = set(table.loc[table["split"] == "train", "group"])
        test = table[table["split"] == "test"]
        leaked = int(test["group"].isin(trained).sum())
        shows = "shows" if leaked == 1 else "show"
        return [
            f"LEAKY: split by image; {leaked} of {len(test)} test images {shows} a lesion that was trained on"
        ]

    @property
    def fingerprint(self) -> str:
        """12 hexadecimal digits that name the content (SHA-256 of its sorted rows)."""
        rows = "\n".join("\t".join(row) for row in self.table.astype(str).itertuples(index=False))
        return hashlib.sha256(rows.encode()).hexdigest()[:12]

    def ids(self, side: str) -> list[str]:
        """Returns the image ids of "train", "val" or "test", sorted."""
        return cast(list[str], self.table.loc[self.table["split"] == side, "image_id"].tolist())

    def record(self) -> dict[str, object]:
        """Returns fingerprint and counts of images and lesions by side, for the run's record."""
        counts = self.table.groupby("split").agg(images=("image_id", "size"), groups=("group", "nunique"))
        sides = {str(row.Index): {"images": row.images, "groups": row.groups} for row in counts.itertuples()}
        left_out = {why: {"count": len(ids), "image_ids": ids} for why, ids in self.left_out.items() if ids}
        return {
            "fingerprint": self.fingerprint,
            "group_key": self.unit,
            **sides,
            "left_out": left_out,
            "stamps": self.stamps,
        }


def make_split(
    catalog: Catalog,
    *,
    val: float = 0.1,
    test: float = 0.2,
    folds: int | None = None,
    fold: int = 0,
    seed: int = 0,
    official: bool = False,
    unit: Unit = "lesion",
    file: str | None = None,
) -> Split:
    """Splits a catalog by lesion, stratified by diagnosis, or reads a split from a file.

    Each share becomes one of round(1 / share) folds of scikit-learn's StratifiedGroupKFold, first the
    test side, then the validation side of what remains; so .2 is met exactly and .15 becomes a seventh.

    Only images with a mask take part. Pseudo masks are trained on and never scored: such images join the
    training side, unless their lesion is validated or tested on.

    Args:
        catalog: Images with group and diagnosis.
        val: Share of the images for validation, in (0, .5].
        test: Share for testing, in [0, .5]; ignored with `folds`.
        folds: k for cross-validation: fold number `fold` is the test side. None: one split by shares.
        fold: Which of the k folds is tested, 0 to k - 1.
        seed: Seed of the shuffle; apart from the run's seed, so that runs with several seeds share a split.
        official: The publisher's division, without the test (and validation) images that are also in the
            publisher's training side or show a lesion of it. Where it has no validation side, `val` of its
            training side is taken.
        unit: "lesion", or "image" for comparison with papers that split so; see `Split`.
        file: A CSV with image_id, group, split, such as the `split.csv` of a run, instead of all this.

    Returns:
        The split of the catalog's images.

    Raises:
        SkinsegError: A share or fold out of range, fewer lesions than folds, no official division, or a file
            that does not fit.
    """
    if file is not None:
        return _read_split(Path(file).expanduser(), catalog, unit)
    masked = catalog.table[catalog.table["mask"].notna()]
    pseudo = masked["mask_source"] == PSEUDO
    table = masked[~pseudo].reset_index(drop=True)
    if table.empty:
        raise SkinsegError(
            f"None of the {counted(len(catalog), 'image')} has a mask that somebody drew; there is nothing "
            f"to train on or to score. {how_to_get_masks()}"
        )
    if seed < 0:
        raise SkinsegError(f"data.split.seed={seed}: expected 0 or more.")
    # The unit that stays together; the table keeps the lesion, so that what leaks can be counted.
    strata = table if unit == "lesion" else table.assign(group=table["image_id"])
    sides = np.full(len(table), "train", dtype=object)
    left_out: dict[str, list[str]] = {}
    if official:
        if folds is not None:
            raise SkinsegError("data.split.official=true and data.split.folds exclude each other.")
        sides, left_out = _official_sides(table, unit)
        share = 0.0
    elif folds is None:
        _check_share("data.split.test", test, zero=True)
        if test > 0:
            sides[_one_fold(strata, round(1 / test), 0, seed, "data.split.test")] = "test"
        share = test
    else:
        if folds < 2 or not 0 <= fold < folds:
            raise SkinsegError(
                f"data.split.folds={folds} data.split.fold={fold}: expected at least 2 folds "
                "and a fold in 0..folds-1."
            )
        sides[_one_fold(strata, folds, fold, seed, "data.split.folds")] = "test"
        share = 1 / folds
    if "val" not in sides:
        _check_share("data.split.val", val, zero=False)
        rest = np.flatnonzero(sides == "train")
        remaining = strata.iloc[rest].reset_index(drop=True)
        parts = max(2, round((1 - share) / val))
        sides[rest[_one_fold(remaining, parts, 0, seed, "data.split.val")]] = "val"
    assigned = table[["image_id", "group"]].assign(split=sides)
    assigned = assigned[sides != _NOWHERE]
    scored = set(assigned.loc[assigned["split"] != "train", "group"])
    drawn = masked.loc[pseudo, ["image_id", "group"]]
    clash = drawn["group"].isin(scored)
    assigned = pd.concat([assigned, drawn[~clash].assign(split="train")])
    return Split(
        assigned, unit, left_out | {"pseudo_mask_of_scored_lesion": drawn["image_id"][clash].tolist()}
    )


_NOWHERE = "left out"


def _official_sides(table: pd.DataFrame, unit: Unit) -> tuple[NDArray[np.object_], dict[str, list[str]]]:
    """Returns the publisher's side of each row, and what was left out since it would leak."""
    published = table["publisher_split"]
    if published.isna().any() or not published.str.contains("train").any():
        of = f"of the {counted(len(table), 'image')} with a mask"
        raise SkinsegError(
            f"data.split.official=true: {counted(int(published.isna().sum()), f'{of} is', f'{of} are')} on "
            "no side of a publisher's division; set data.split.official=false for a split by lesion."
        )
    sides = published.str.replace(r"\+.*", "", regex=True).to_numpy(dtype=object, copy=True)
    if "test" not in sides:
        found = ", ".join(sorted(set(sides)))
        raise SkinsegError(
            f"data.split.official=true: of the publisher's sides only {found} is here; add the images and "
            "masks of the test side, or set data.split.official=false for a split by lesion."
        )
    left_out: dict[str, list[str]] = {}
    if both := sorted(table.loc[published.str.contains(r"\+"), "image_id"]):
        left_out["from_test_for_it_is_in_train"] = both
    if unit == "lesion":
        for scored, trained in (("val", ("train",)), ("test", ("train", "val"))):
            known = set(table.loc[np.isin(sides, trained), "group"])
            leaks = (sides == scored) & table["group"].isin(known).to_numpy()
            left_out[f"{scored}_shares_lesion"] = table.loc[leaks, "image_id"].tolist()
            sides[leaks] = _NOWHERE
    return sides, left_out


def whole_test_side(
    catalog: Catalog,
    *,
    train: Catalog,
    overlap: Literal["exclude", "refuse"],
    keys: tuple[str, str] = ("test_data", "test_overlap"),
) -> Split:
    """Makes all of a catalog the test side of a network that is trained on another one.

    Args:
        catalog: The images to be tested on; those with a mask that somebody drew take part.
        train: The catalog that is trained on, all of it: what it tests on counts as seen too.
        overlap: What happens to images and lesions that are in both: they are left out of the test side, or
            refused.
        keys: What a configuration calls the catalog and `overlap`, for messages.

    Returns:
        A split with a test side alone; `left_out` says what is in both.

    Raises:
        SkinsegError: There is overlap and it is refused, or nothing is left.
    """
    table = catalog.table
    scored = table[table["mask"].notna() & (table["mask_source"] != PSEUDO)]
    by_id, by_lesion = shared(train, catalog)
    same_id = scored["image_id"].isin(by_id)
    same_lesion = ~same_id & scored["image_id"].isin(by_lesion)
    of = "of the test data"
    found = (
        f"{counted(int(same_id.sum()), f'image {of} is', f'images {of} are')} in the training data, "
        f"{counted(int(same_lesion.sum()), 'more shows', 'more show')} a"
    )
    if overlap == "refuse" and (same_id | same_lesion).any():
        raise SkinsegError(
            f"{found} lesion that is: scores would be of lesions that were trained on. "
            f"{keys[1]}=exclude leaves them out."
        )
    left = scored[~(same_id | same_lesion)]
    if left.empty:
        way_out = (
            how_to_get_masks()
            if scored.empty
            else "Take other test data; evaluate takes these with overlap=keep."
        )
        raise SkinsegError(
            f"{keys[0]} leaves nothing to score: of its {counted(len(table), 'image')} "
            f"{counted(len(scored), 'has', 'have')} a mask; "
            f"{found} lesion that is. {way_out}"
        )
    left_out = {
        "in_training_data": scored["image_id"][same_id].tolist(),
        "lesion_in_training_data": scored["image_id"][same_lesion].tolist(),
    }
    return Split(left[["image_id", "group"]].assign(split="test"), left_out=left_out)


def shared(one: Catalog, other: Catalog) -> tuple[list[str], list[str]]:
    """Finds what two catalogs have in common.

    Two images are of one lesion if either catalog says so, also by way of an image that is in both.

    Args:
        one: A catalog.
        other: Another one.

    Returns:
        Ids of images of `other` that are in `one`, and ids of all images of `other` whose lesion is in `one`
        (these include the former).
    """
    here, there = set(one.table["image_id"]), set(other.table["image_id"])
    both = combine([one, other]).table
    lesions = set(both.loc[both["image_id"].isin(here), "group"])
    of_shared_lesion = both.loc[both["image_id"].isin(there) & both["group"].isin(lesions), "image_id"]
    return sorted(here & there), sorted(of_shared_lesion)


BALANCED_BY = ("diagnosis", "mask_source", "dataset", "sex")


def balance(split: Split, catalog: Catalog) -> pd.DataFrame:
    """Describes the sides of a split, so that one can see whether they are alike.

    Args:
        split: The split.
        catalog: What it was made of.

    Returns:
        Columns what, value, and a column for each side that is there: images and lesions as counts, the mean
        age in years, and for each value of `BALANCED_BY` its share of the side's images in percent.
    """
    rows = split.table.merge(catalog.table.drop(columns="group"), on="image_id")
    sides = [side for side in SIDES if (rows["split"] == side).any()]
    by_side = rows.groupby("split")

    def line(what: str, value: str, numbers: pd.Series) -> dict[str, object]:
        return {"what": what, "value": value, **{side: float(numbers.get(side, 0)) for side in sides}}

    lines = [
        line("images", "", by_side.size()),
        line("lesions", "", by_side["group"].nunique()),
        line("age", "mean", by_side["age"].mean()),
    ]
    for what in BALANCED_BY:
        values = rows[what].fillna("none")
        lines += [
            line(what, str(value), 100 * (values == value).groupby(rows["split"]).mean())
            for value in values.value_counts().index
        ]
    return pd.DataFrame(lines)


def rare_diagnoses(split: Split, catalog: Catalog) -> list[str]:
    """Names the diagnoses that some side lacks: nothing can be said of them there.

    Returns:
        A sentence for each.
    """
    rows = split.table.merge(catalog.table[["image_id", "diagnosis"]], on="image_id")
    sides = [side for side in SIDES if (rows["split"] == side).any()]
    lacking = {
        f"{diagnosis} has {counted(of_it['group'].nunique(), 'lesion')}": [
            s for s in sides if s not in set(of_it["split"])
        ]
        for diagnosis, of_it in rows.dropna(subset="diagnosis").groupby("diagnosis")
    }
    return [
        f"{who}, too few for this split: none in {', '.join(which)}."
        for who, which in lacking.items()
        if which
    ]


def _check_share(key: str, share: float, *, zero: bool) -> None:
    if not (0 < share <= 0.5 or (zero and share == 0)):
        raise SkinsegError(f"{key}={share}: expected a share in {'[' if zero else '('}0, 0.5].")


def _one_fold(table: pd.DataFrame, folds: int, fold: int, seed: int, key: str) -> NDArray[np.intp]:
    """Returns the row numbers of one of several stratified folds by group."""
    groups = table["group"].nunique()
    if groups < folds:
        raise SkinsegError(
            f"{key} needs {folds} folds, but there {'is' if groups == 1 else 'are'} only "
            f"{counted(groups, 'lesion')}; take fewer folds (a larger share) or more data."
        )
    # A missing diagnosis is a stratum of its own.
    strata = table["diagnosis"].fillna("unknown")
    if strata.value_counts().max() < folds:
        strata = pd.Series("all", index=table.index)
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # A diagnosis with fewer images than folds is absent from some of them, which is all one can do.
        warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
        parts = list(splitter.split(table, strata, table["group"]))
    rows = np.asarray(parts[fold][1])
    if not len(rows):
        raise SkinsegError(f"{key}: fold {fold} of {folds} is empty; take fewer folds or more data.")
    return rows


def read_sides(path: Path, key: str, images: Iterable[str]) -> pd.DataFrame:
    """Reads a user's table of which image is on which side.

    Args:
        path: With image_id and split, perhaps group, as every run writes it or as somebody made it.
        key: The configuration key that named it, for messages.
        images: The ids of the images at hand.

    Returns:
        image_id (as it is at hand, else as the table has it), split (in small letters), and group if the
        table has it (missing where that is blank).

    Raises:
        SkinsegError: It cannot be read, or a row lacks its image id or its side.
    """
    rows = read_table(path, ["image_id", "split"], known=["group"], key=key)
    for column in ("image_id", "split"):
        if lacking := int(rows[column].isna().sum()):
            raise SkinsegError(
                f"{key}={path}: {counted(lacking, 'row has', 'rows have')} no {column}; complete or remove "
                "them."
            )
    ids = image_ids(rows["image_id"])
    rows = rows.assign(image_id=matching(ids, images).fillna(ids), split=rows["split"].str.lower())
    if "group" in rows:
        rows["group"] = lesion_ids(rows["group"], f"{key}={path}")
    return rows


def _read_split(path: Path, catalog: Catalog, unit: Unit) -> Split:
    rows = read_sides(path, "data.split.file", catalog.table["image_id"])
    known = catalog.table[catalog.table["mask"].notna()]
    absent = sorted(set(rows["image_id"].map(str)) - set(known["image_id"]))
    if absent:
        unmasked = len(set(absent) & set(catalog.table["image_id"]))
        lacked = ("image that the data lack or that has", "images that the data lack or that have")
        raise SkinsegError(
            f"data.split.file={path} lists {counted(len(absent), *lacked)} no mask "
            f"({unmasked} of them), e.g. {', '.join(absent[:5])}; use the data that the split was made of."
        )
    pseudo = set(known.loc[known["mask_source"] == PSEUDO, "image_id"])
    if scored := sorted(pseudo & set(rows.loc[rows["split"] != "train", "image_id"])):
        raise SkinsegError(
            f"data.split.file={path} scores {counted(len(scored), 'image')} by pseudo masks, e.g. "
            f"{', '.join(scored[:5])}; only masks that somebody drew can be scored against. Move them to "
            "train or leave them out."
        )
    # The catalog's groups rule: the file may come from a reader that did not know of a duplicate.
    rows = rows.drop(columns="group", errors="ignore").merge(known[["image_id", "group"]], on="image_id")
    unlisted = sorted(set(known["image_id"]) - set(rows["image_id"]))
    try:
        return Split(rows, unit, {"not_in_split_file": unlisted})
    except SkinsegError as error:
        raise SkinsegError(f"data.split.file={path}: {error}") from error
