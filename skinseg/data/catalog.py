"""The catalog: one validated table with a row per image, whichever data set it came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

import pandas as pd

from skinseg.errors import SkinsegError

COLUMNS = (
    "image_id",
    "image",
    "mask",
    "mask_source",
    "dataset",
    "group",
    "diagnosis",
    "age",
    "sex",
    "site",
    "width",
    "height",
    "licence",
)

Policy = Literal["error", "drop"]

PROBLEMS: Mapping[str, str] = {
    "missing_image": "rows of the metadata have no image file",
    "missing_metadata": "image files are not listed in the metadata",
    "missing_mask": "images have no mask",
    "unreadable": "files cannot be decoded",
    "mask_size": "masks are not of their image's size",
    "mask_format": "masks are not 8-bit grey or palette images of 0 and 255",
}
"""What may be wrong with a row; each has a switch `data.on_<name>`, and "drop" leaves the row out."""


class Problems:
    """Collects what does not fit, so that one message lists all of it.

    Args:
        policy: For each key of `PROBLEMS`, "error" or "drop". Missing keys mean "error".

    Raises:
        SkinsegError: A policy has another value.
    """

    def __init__(self, policy: Mapping[str, Policy] | None = None) -> None:
        self._policy = dict.fromkeys(PROBLEMS, "error") | dict(policy or {})
        self._found: dict[str, dict[str, str]] = {kind: {} for kind in PROBLEMS}
        for kind, value in self._policy.items():
            if kind not in PROBLEMS or value not in get_args(Policy):
                raise SkinsegError(f"data.on_{kind}: found {value!r}, expected one of {get_args(Policy)}.")

    def add(self, kind: str, image_id: str, detail: str) -> None:
        """Notes that `image_id` has the problem `kind`; `detail` names the file and what was found."""
        self._found[kind][image_id] = detail

    def settle(self) -> dict[str, list[str]]:
        """Returns the image ids to leave out by kind of problem (kinds that were found only).

        Raises:
            SkinsegError: A problem was found whose policy is "error"; all of them are listed.
        """
        refused = {k: v for k, v in self._found.items() if v and self._policy[k] == "error"}
        if refused:
            lines = ["The data do not fit together:"]
            for kind, found in refused.items():
                lines.append(f"  {len(found)} {PROBLEMS[kind]}; data.on_{kind}=drop leaves such images out:")
                shown = list(found.values())[:5]
                lines += [f"    {detail}" for detail in shown]
                if len(found) > len(shown):
                    lines.append(f"    and {len(found) - len(shown)} more")
            raise SkinsegError("\n".join(lines))
        return {kind: sorted(found) for kind, found in self._found.items() if found}


@dataclass(frozen=True)
class Catalog:
    """Images, their masks and what is known of them.

    Attributes:
        table: A row per image with at least `COLUMNS`, sorted by `image_id`. `image` and `mask` are paths
            (`mask` is missing where there is none), `group` names the lesion (the unit that a split must
            not divide), `age` is in years (NaN: unknown), `width` and `height` are the image's, in pixels.
        dropped: Image ids left out, by kind of problem (a key of `PROBLEMS`).

    Raises:
        SkinsegError: A column is missing, an image id occurs twice, a group is missing, or no row is left.
    """

    table: pd.DataFrame
    dropped: Mapping[str, list[str]] = field(default_factory=dict)

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
                f"{len(twice)} image ids occur more than once, e.g. {', '.join(twice[:5])}; "
                "keep one row for each image."
            )
        if self.table["group"].isna().any():
            raise SkinsegError(
                "Some images have no group (lesion id); without one a split cannot be trusted."
            )
        table = self.table.sort_values("image_id", ignore_index=True)
        object.__setattr__(self, "table", table)

    def __len__(self) -> int:
        return len(self.table)

    def record(self) -> dict[str, object]:
        """Returns counts for the run's record: images, groups, by data set and diagnosis, dropped."""
        table = self.table
        return {
            "images": len(table),
            "groups": int(table["group"].nunique()),
            "by_dataset": table["dataset"].value_counts().to_dict(),
            "by_diagnosis": table["diagnosis"].value_counts().to_dict(),
            "dropped": {kind: {"count": len(ids), "image_ids": ids} for kind, ids in self.dropped.items()},
        }
