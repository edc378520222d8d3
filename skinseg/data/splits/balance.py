"""How alike the subsets of a split are."""

from __future__ import annotations

import pandas as pd

from skinseg.counting import counted
from skinseg.data.catalog import Catalog
from skinseg.data.splits.split import BALANCED_BY, SIDES, Split


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
