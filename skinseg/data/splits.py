"""Splits by lesion: which image is trained on, validated on and tested on."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold

from skinseg.data.catalog import Catalog
from skinseg.errors import SkinsegError

SIDES = ("train", "val", "test")
COLUMNS = ("image_id", "group", "split")


@dataclass(frozen=True)
class Split:
    """An assignment of images to train, val and test, in which no lesion is on two sides.

    Attributes:
        table: Columns image_id, group, split ("train", "val" or "test"), sorted by image_id.

    Raises:
        SkinsegError: A group is on two sides, an image is there twice, or a side is unknown.
    """

    table: pd.DataFrame

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
            raise SkinsegError(f"The split lists {len(twice)} images twice, e.g. {', '.join(twice[:5])}.")
        sides = table.groupby("group")["split"].nunique()
        torn = list(sides.index[sides > 1])
        if torn:
            raise SkinsegError(
                f"{len(torn)} lesions are on two sides of the split, e.g. {', '.join(map(str, torn[:5]))}: "
                "scores would be of lesions that were trained on. Split by group."
            )
        object.__setattr__(self, "table", table)

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
        return {"fingerprint": self.fingerprint, "group_key": "lesion", **sides}


def make_split(
    catalog: Catalog,
    *,
    val: float = 0.1,
    test: float = 0.2,
    folds: int | None = None,
    fold: int = 0,
    seed: int = 0,
    file: str | None = None,
) -> Split:
    """Splits a catalog by lesion, stratified by diagnosis, or reads a split from a file.

    Each share becomes one of round(1 / share) folds of scikit-learn's StratifiedGroupKFold, first the
    test side, then the validation side of what remains; so .2 is met exactly and .15 becomes a seventh.

    Args:
        catalog: Images with group and diagnosis. Only images with a mask take part.
        val: Share of the images for validation, in (0, .5].
        test: Share for testing, in [0, .5]; ignored with `folds`.
        folds: k for cross-validation: fold number `fold` is the test side. None: one split by shares.
        fold: Which of the k folds is tested, 0 to k - 1.
        seed: Seed of the shuffle; apart from the run's seed, so that runs with several seeds share a split.
        file: A CSV with image_id, group, split, such as the `split.csv` of a run, instead of all this.

    Returns:
        The split of the catalog's images.

    Raises:
        SkinsegError: A share or fold out of range, fewer lesions than folds, or a file that does not fit.
    """
    if file is not None:
        return _read_split(Path(file).expanduser(), catalog)
    table = catalog.table[catalog.table["mask"].notna()].reset_index(drop=True)
    if table.empty:
        raise SkinsegError("No image of the catalog has a mask; there is nothing to train on or to score.")
    sides = np.full(len(table), "train", dtype=object)
    if folds is None:
        _check_share("data.split.test", test, zero=True)
        if test > 0:
            sides[_one_fold(table, round(1 / test), 0, seed, "data.split.test")] = "test"
    else:
        if folds < 2 or not 0 <= fold < folds:
            raise SkinsegError(
                f"data.split.folds={folds} data.split.fold={fold}: expected at least 2 folds "
                "and a fold in 0..folds-1."
            )
        sides[_one_fold(table, folds, fold, seed, "data.split.folds")] = "test"
        test = 1 / folds
    _check_share("data.split.val", val, zero=False)
    rest = np.flatnonzero(sides == "train")
    remaining = table.iloc[rest].reset_index(drop=True)
    parts = max(2, round((1 - test) / val))
    sides[rest[_one_fold(remaining, parts, 0, seed, "data.split.val")]] = "val"
    return Split(table[["image_id", "group"]].assign(split=sides))


def _check_share(key: str, share: float, *, zero: bool) -> None:
    if not (0 < share <= 0.5 or (zero and share == 0)):
        raise SkinsegError(f"{key}={share}: expected a share in {'[' if zero else '('}0, 0.5].")


def _one_fold(table: pd.DataFrame, folds: int, fold: int, seed: int, key: str) -> NDArray[np.intp]:
    """Returns the row numbers of one of several stratified folds by group."""
    groups = table["group"].nunique()
    if groups < folds:
        raise SkinsegError(
            f"{key} needs {folds} folds, but there are only {groups} lesions; "
            "take fewer folds (a larger share) or more data."
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


def _read_split(path: Path, catalog: Catalog) -> Split:
    try:
        split = Split(pd.read_csv(path, dtype=str))
    except (OSError, ValueError) as error:
        raise SkinsegError(f"data.split.file={path}: not a readable CSV table ({error}).") from error
    except SkinsegError as error:
        raise SkinsegError(f"data.split.file={path}: {error}") from error
    known = catalog.table[catalog.table["mask"].notna()]
    absent = sorted(set(split.table["image_id"]) - set(known["image_id"]))
    if absent:
        raise SkinsegError(
            f"data.split.file={path} lists {len(absent)} images that the data lack, e.g. "
            f"{', '.join(absent[:5])}; use the data that the split was made of."
        )
    # The catalog's groups rule: the file may come from a reader that did not know of a duplicate.
    return Split(split.table.drop(columns="group").merge(known[["image_id", "group"]], on="image_id"))
