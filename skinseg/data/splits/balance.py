"""How alike the subsets of a split are."""

from __future__ import annotations

import pandas as pd

from skinseg.counting import counted
from skinseg.data.catalog import Catalog
from skinseg.data.splits.split import BALANCED_BY, SUBSETS, Split


def balance(split: Split, catalog: Catalog) -> pd.DataFrame:
    """Describes the subsets of a split, so that one can see whether they are alike.

    Args:
        split: The split.
        catalog: What it was made of.

    Returns:
        Columns what, value, and a column for each subset that is there: images and lesions as counts, mean
        age in years, and for each value of `BALANCED_BY` its share of the subset's images in percent.
    """
    rows = split.table.merge(catalog.table.drop(columns="group"), on="image_id")
    subsets = [subset for subset in SUBSETS if (rows["split"] == subset).any()]
    by_side = rows.groupby("split")

    def line(what: str, value: str, numbers: pd.Series) -> dict[str, object]:
        return {"what": what, "value": value, **{subset: float(numbers.get(subset, 0)) for subset in subsets}}

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
    """Names the diagnoses that some subset lacks: nothing can be said of them there.

    Returns:
        A sentence for each.
    """
    rows = split.table.merge(catalog.table[["image_id", "diagnosis"]], on="image_id")
    subsets = [subset for subset in SUBSETS if (rows["split"] == subset).any()]
    lacking = {
        f"{diagnosis} has {counted(of_it['group'].nunique(), 'lesion')}": [
            s for s in subsets if s not in set(of_it["split"])
        ]
        for diagnosis, of_it in rows.dropna(subset="diagnosis").groupby("diagnosis")
    }
    return [
        f"{who}, too few for this split: none in {', '.join(which)}."
        for who, which in lacking.items()
        if which
    ]
