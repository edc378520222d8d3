"""Which images are scored, and what has to be said of the choice."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pandas as pd

from skinseg.counting import counted
from skinseg.data.catalog import COLUMNS, Catalog, drawn_stamps, name_groups
from skinseg.data.readers.masks import PSEUDO
from skinseg.data.splits.make import read_subsets
from skinseg.data.splits.split import Split
from skinseg.data.splits.whole import shared, whole_test_subset
from skinseg.data.tables import matching, report_match
from skinseg.errors import SkinsegError
from skinseg.run.record import RunRecord

log = logging.getLogger(__name__)

SubsetName = Literal["test", "val", "train"]
Overlap = Literal["exclude", "refuse", "keep"]


@dataclass(frozen=True)
class Subset:
    """The images of an evaluation.

    Attributes:
        table: Rows of a catalog, each with a mask that somebody drew.
        catalog: Where they come from.
        name: "test", "val" or "train".
        split: Fingerprint of the split that says so.
        group_key: What the split keeps together.
        left_out: Image ids that are not scored, by why.
        stamps: What has to stand beside every score.
    """

    table: pd.DataFrame
    catalog: Catalog
    name: SubsetName
    split: str
    group_key: str
    left_out: Mapping[str, list[str]] = field(default_factory=dict)
    stamps: list[str] = field(default_factory=list)


def trained_subset(catalog: Catalog, record: RunRecord, name: SubsetName) -> Subset:
    """Takes a subset of the split that a network was trained with.

    Args:
        catalog: The data set of the training, as it lies here.
        record: What the checkpoint carries.
        name: Which subset.

    Returns:
        The subset.

    Raises:
        SkinsegError: Images of the subset are not there, or the subset is empty.
    """
    split = Split(split_table(record), unit=record.config["data"]["split"]["unit"])
    ids = split.ids(name)
    if not ids:
        why = "; each was in the training of one of the ensemble's members" if record.members else ""
        raise SkinsegError(
            f"side={name}: the run's split has no image there{why}. Evaluate it on another data set "
            "(data=<data set> data.root=<folder>) or on folders (images=... truth=...)."
        )
    missing = sorted(set(ids) - set(catalog.table["image_id"]))
    if missing:
        of = f"of the {counted(len(ids), f'{name} image')} of the run's split {split.fingerprint}"
        raise SkinsegError(
            f"{counted(len(missing), f'{of} is', f'{of} are')} not in the data, e.g. "
            f"{', '.join(missing[:3])}; a mean over the others would be another score. "
            "Name the data set of the training: data.root=<folder>."
        )
    table = catalog.table[catalog.table["image_id"].isin(ids)]
    if without := table["image_id"][table["mask"].isna()].tolist():
        many = counted(len(without), f"{name} image has", f"{name} images have")
        raise SkinsegError(f"{many} no mask here, e.g. {', '.join(without[:3])}.")
    return Subset(
        table.reset_index(drop=True),
        catalog,
        name,
        split.fingerprint,
        split.unit,
        stamps=[*split.stamps, *drawn_stamps(table)],
    )


def other_subset(catalog: Catalog, record: RunRecord | None, overlap: Overlap) -> Subset:
    """Takes all of another data set as the test subset, but for what the network was trained with.

    Args:
        catalog: The data set.
        record: What the checkpoint carries; None where nothing is known of a training.
        overlap: What happens to images and lesions of the training data.

    Returns:
        The subset.

    Raises:
        SkinsegError: Nothing is left, or there is overlap and it is refused.
    """
    table = catalog.table
    scored = table[table["mask"].notna() & (table["mask_source"] != PSEUDO)]
    stamps = drawn_stamps(scored)
    if record is None or overlap == "keep":
        if scored.empty:
            raise SkinsegError(
                f"None of the {counted(len(table), 'image')} has a mask; there is nothing to score."
            )
        split = Split(scored[["image_id", "group"]].assign(split="test"))
        if record is not None:
            seen = set(shared(_seen(record), catalog)[1]) & set(scored["image_id"])
            if seen:
                of = f"of {counted(len(scored), 'image')}"
                many = counted(len(seen), f"{of} is", f"{of} are")
                stamps.append(f"CONTAMINATED: {many} of the data set of the training")
    else:
        split = whole_test_subset(catalog, train=_seen(record), overlap=overlap, keys=("data", "overlap"))
    kept = scored[scored["image_id"].isin(split.ids("test"))].reset_index(drop=True)
    return Subset(kept, catalog, "test", split.fingerprint, split.unit, left_out_of(split, catalog), stamps)


def left_out_of(split: Split, catalog: Catalog) -> dict[str, list[str]]:
    """Returns the images of another data set that are not scored, by why.

    Args:
        split: What `whole_test_subset` made of it.
        catalog: The data set.
    """
    table = catalog.table
    unscored = {
        "without_a_mask": table["image_id"][table["mask"].isna()].tolist(),
        "with_a_mask_that_a_network_drew": table["image_id"][table["mask_source"] == PSEUDO].tolist(),
    }
    return {why: ids for why, ids in {**split.left_out, **unscored}.items() if ids}


def listed_subset(subset: Subset, path: Path, name: SubsetName) -> Subset:
    """Keeps the images that a user's table puts in a subset.

    Args:
        subset: All that could be scored.
        path: CSV with image_id and split, as `python -m skinseg.split` and every run write it.
        name: Which of its subsets.

    Returns:
        A part of `subset`, named by the fingerprint of the table.

    Raises:
        SkinsegError: No such table, or an image of it is not among those that can be scored.
    """
    catalog = subset.catalog.table
    listed = read_subsets(path, "split_file", catalog["image_id"])
    # Where the table does not say which lesion an image shows, the data may; else the image stands alone.
    known = listed["image_id"].map(dict(zip(catalog["image_id"], catalog["group"], strict=True)))
    lesions = listed["group"].fillna(known) if "group" in listed else known
    listed = listed.assign(group=name_groups(listed["image_id"], lesions))
    split = Split(listed)
    missing = sorted(set(split.ids(name)) - set(subset.table["image_id"]))
    if missing or not split.ids(name):
        raise SkinsegError(
            f"split_file={path}: of its {counted(len(split.ids(name)), f'{name} image')} {len(missing)} "
            "cannot be scored"
            + (f", e.g. {', '.join(missing[:3])}" if missing else "")
            + ": not in the data, without a mask, or in the training data of the checkpoint."
        )
    table = subset.table[subset.table["image_id"].isin(split.ids(name))].reset_index(drop=True)
    return Subset(table, subset.catalog, name, split.fingerprint, split.unit, subset.left_out, subset.stamps)


def strata_of(user: pd.DataFrame | None, subset: Subset, path: str) -> pd.DataFrame | None:
    """Takes a user's strata of the scored images, and says how many of these are listed.

    Args:
        user: What `user_strata` read. None: there are none.
        subset: The images.
        path: The table, for messages.

    Returns:
        The rows of the scored images, by their ids.

    Raises:
        SkinsegError: No row is of a scored image, or two are of one.
    """
    if user is None:
        return None
    images = subset.table["image_id"]
    known = matching(user["image_id"], images)
    # An image that is not scored is no mistake, one that is nowhere may be.
    somewhere = known.notna() | matching(user["image_id"], subset.catalog.table["image_id"]).notna()
    if not known.notna().any():
        report_match(known.notna(), user["image_id"], images, f"strata={path}", what="image id")
    images_here = subset.catalog.table["image_id"]
    report_match(somewhere, user["image_id"], images_here, f"strata={path}", what="image id")
    if known.nunique() < len(images):
        of = f"of the {counted(len(images), 'scored image')}"
        log.info("strata: %s in %s.", counted(known.nunique(), f"{of} is", f"{of} are"), path)
    if (twice := known.dropna()[known.dropna().duplicated()]).size:
        raise SkinsegError(
            f"strata={path}: {counted(len(twice), 'image is', 'images are')} listed twice, "
            f"e.g. {twice.iloc[0]}."
        )
    return user.assign(image_id=known)[known.notna()]


def used_in_training(record: RunRecord | None, subset: Subset) -> dict[str, int]:
    """Counts the images of a subset that the training used, whatever the subset is called.

    Args:
        record: What the checkpoint carries; None where nothing is known of a training.
        subset: The images.

    Returns:
        Of "val" and "train" the number of images; those without any are left out.
    """
    if record is None:
        return {}
    trained = split_table(record)
    own = trained[trained["image_id"].isin(subset.table["image_id"])]["split"].value_counts()
    return {name: int(own[name]) for name in ("val", "train") if name in own}


def is_test(record: RunRecord | None, subset: Subset) -> bool:
    """Whether a score of these images is one of a test: some of them had no part in the training."""
    return sum(used_in_training(record, subset).values()) < len(subset.table)


def training_stamps(record: RunRecord | None, subset: Subset) -> list[str]:
    """Says of a score that it is of images which the training used."""
    number = len(subset.table)
    these = "this image" if number == 1 else "these images"
    said = {
        "val": "VALIDATION: a checkpoint was chosen on",
        "train": "TRAINING: the network was trained on",
    }
    return [
        f"{said[name]} {these if count == number else f'{count} of these {number} images'}"
        for name, count in used_in_training(record, subset).items()
    ]


def _seen(record: RunRecord) -> Catalog:
    return Catalog(split_table(record).drop(columns="split").reindex(columns=list(COLUMNS)))


def split_table(record: RunRecord) -> pd.DataFrame:
    """Returns the split of a training, which `evaluate` has found the checkpoint to carry."""
    assert record.subsets is not None
    return record.subsets
