"""Making a split: by shares, by folds, as its publisher has divided a data set, or as a table says."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold

from skinseg.counting import counted
from skinseg.data.catalog import Catalog
from skinseg.data.readers.masks import PSEUDO, how_to_get_masks
from skinseg.data.splits.split import NOWHERE, Split, Unit
from skinseg.data.tables import image_ids, lesion_ids, matching, read_table
from skinseg.errors import SkinsegError


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
    test subset, then the validation subset of what remains; so .2 is met exactly and .15 becomes a seventh.

    Only images with a mask take part. Pseudo masks are trained on and never scored: such images join the
    training subset, unless their lesion is validated or tested on.

    Args:
        catalog: Images with group and diagnosis.
        val: Share of the images for validation, in (0, .5].
        test: Share for testing, in [0, .5]; ignored with `folds`.
        folds: k for cross-validation: fold number `fold` is the test subset. None: one split by shares.
        fold: Which of the k folds is tested, 0 to k - 1.
        seed: Seed of the shuffle; apart from the run's seed, so that runs with several seeds share a split.
        official: The publisher's division, without the test (and validation) images that are also in the
            publisher's training subset or show a lesion of it. Where it has no validation subset, `val` of
            its training subset is taken.
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
    subsets = np.full(len(table), "train", dtype=object)
    left_out: dict[str, list[str]] = {}
    if official:
        if folds is not None:
            raise SkinsegError("data.split.official=true and data.split.folds exclude each other.")
        subsets, left_out = _official_subsets(table, unit)
        share = 0.0
    elif folds is None:
        _check_share("data.split.test", test, zero=True)
        if test > 0:
            subsets[_one_fold(strata, round(1 / test), 0, seed, "data.split.test")] = "test"
        share = test
    else:
        if folds < 2 or not 0 <= fold < folds:
            raise SkinsegError(
                f"data.split.folds={folds} data.split.fold={fold}: expected at least 2 folds "
                "and a fold in 0..folds-1."
            )
        subsets[_one_fold(strata, folds, fold, seed, "data.split.folds")] = "test"
        share = 1 / folds
    if "val" not in subsets:
        _check_share("data.split.val", val, zero=False)
        rest = np.flatnonzero(subsets == "train")
        remaining = strata.iloc[rest].reset_index(drop=True)
        parts = max(2, round((1 - share) / val))
        subsets[rest[_one_fold(remaining, parts, 0, seed, "data.split.val")]] = "val"
    assigned = table[["image_id", "group"]].assign(split=subsets)
    assigned = assigned[subsets != NOWHERE]
    scored = set(assigned.loc[assigned["split"] != "train", "group"])
    drawn = masked.loc[pseudo, ["image_id", "group"]]
    clash = drawn["group"].isin(scored)
    assigned = pd.concat([assigned, drawn[~clash].assign(split="train")])
    return Split(
        assigned, unit, left_out | {"pseudo_mask_of_scored_lesion": drawn["image_id"][clash].tolist()}
    )


def _official_subsets(table: pd.DataFrame, unit: Unit) -> tuple[NDArray[np.object_], dict[str, list[str]]]:
    """Returns the publisher's subset of each row, and what was left out since it would leak."""
    published = table["publisher_split"]
    if published.isna().any() or not published.str.contains("train").any():
        of = f"of the {counted(len(table), 'image')} with a mask"
        raise SkinsegError(
            f"data.split.official=true: {counted(int(published.isna().sum()), f'{of} is', f'{of} are')} in "
            "no subset of a publisher's division; set data.split.official=false for a split by lesion."
        )
    subsets = published.str.replace(r"\+.*", "", regex=True).to_numpy(dtype=object, copy=True)
    if "test" not in subsets:
        found = ", ".join(sorted(set(subsets)))
        raise SkinsegError(
            f"data.split.official=true: of the publisher's subsets only {found} is here; add the images and "
            "masks of the test subset, or set data.split.official=false for a split by lesion."
        )
    left_out: dict[str, list[str]] = {}
    if both := sorted(table.loc[published.str.contains(r"\+"), "image_id"]):
        left_out["from_test_for_it_is_in_train"] = both
    if unit == "lesion":
        for scored, trained in (("val", ("train",)), ("test", ("train", "val"))):
            known = set(table.loc[np.isin(subsets, trained), "group"])
            leaks = (subsets == scored) & table["group"].isin(known).to_numpy()
            left_out[f"{scored}_shares_lesion"] = table.loc[leaks, "image_id"].tolist()
            subsets[leaks] = NOWHERE
    return subsets, left_out


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


def read_subsets(path: Path, key: str, images: Iterable[str]) -> pd.DataFrame:
    """Reads a user's table of which image is in which subset.

    Args:
        path: With image_id and split, perhaps group, as every run writes it or as somebody made it.
        key: The configuration key that named it, for messages.
        images: The ids of the images at hand.

    Returns:
        image_id (as it is at hand, else as the table has it), split (in small letters), and group if the
        table has it (missing where that is blank).

    Raises:
        SkinsegError: It cannot be read, or a row lacks its image id or its subset.
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
    rows = read_subsets(path, "data.split.file", catalog.table["image_id"])
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
