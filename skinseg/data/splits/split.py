"""Splits by lesion: which image is trained on, validated on and tested on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, cast

import pandas as pd

from skinseg.counting import counted
from skinseg.errors import SkinsegError

SUBSETS = ("train", "val", "test")
COLUMNS = ("image_id", "group", "split")


Unit = Literal["lesion", "image"]


@dataclass(frozen=True)
class Split:
    """An assignment of images to train, val and test, in which no lesion is in two subsets.

    Attributes:
        table: Columns image_id, group, split ("train", "val" or "test"), sorted by image_id.
        unit: What stays together. "image" lets views of one lesion be in two subsets, for comparison with
            papers that do so; its scores are too good, and it is stamped LEAKY.
        left_out: Image ids by why they are not in the subset (or in no subset) that they might be in.

    Raises:
        SkinsegError: A group is in two subsets (unless the unit is "image"), an image is there twice, or a
            subset is unknown.
    """

    table: pd.DataFrame
    unit: Unit = "lesion"
    left_out: Mapping[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        missing = [column for column in COLUMNS if column not in self.table]
        if missing:
            raise SkinsegError(f"The split lacks the columns {missing}; expected {list(COLUMNS)}.")
        table = self.table[list(COLUMNS)].sort_values("image_id", ignore_index=True)
        unknown = sorted(set(table["split"].map(str)) - set(SUBSETS))
        if unknown:
            raise SkinsegError(f"The split has the subsets {unknown}; expected {list(SUBSETS)}.")
        twice = table["image_id"][table["image_id"].duplicated()]
        if len(twice):
            raise SkinsegError(
                f"The split lists {counted(len(twice), 'image')} twice, e.g. {', '.join(twice[:5])}."
            )
        object.__setattr__(self, "table", table)
        torn = self.torn_groups
        if len(torn) and self.unit == "lesion":
            raise SkinsegError(
                f"{counted(len(torn), 'lesion is', 'lesions are')} in two subsets of the split, e.g. "
                f"{', '.join(torn[:5])}: scores would be of lesions that were trained on. Split by lesion "
                "(python -m skinseg.split), or set data.split.unit=image, which stamps all scores LEAKY."
            )

    @property
    def torn_groups(self) -> list[str]:
        """Lesions that are in two subsets or more."""
        subsets = self.table.groupby("group")["split"].nunique()
        return [str(group) for group in subsets.index[subsets > 1]]

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

    def ids(self, subset: str) -> list[str]:
        """Returns the image ids of "train", "val" or "test", sorted."""
        return cast(list[str], self.table.loc[self.table["split"] == subset, "image_id"].tolist())

    def record(self) -> dict[str, object]:
        """Returns fingerprint and counts of images and lesions by subset, for the run's record."""
        counts = self.table.groupby("split").agg(images=("image_id", "size"), groups=("group", "nunique"))
        subsets = {
            str(row.Index): {"images": row.images, "groups": row.groups} for row in counts.itertuples()
        }
        left_out = {why: {"count": len(ids), "image_ids": ids} for why, ids in self.left_out.items() if ids}
        return {
            "fingerprint": self.fingerprint,
            "group_key": self.unit,
            **subsets,
            "left_out": left_out,
            "stamps": self.stamps,
        }


NOWHERE = "left out"


BALANCED_BY = ("diagnosis", "mask_source", "dataset", "sex")
