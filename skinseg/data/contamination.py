"""What two data sets, or two subsets of one, have in common."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from skinseg.counting import counted
from skinseg.data.audit import Finding
from skinseg.data.catalog import Catalog
from skinseg.data.duplicates import Fingerprint, near_duplicates
from skinseg.data.splits.whole import shared


def of_near_duplicates(catalog: Catalog, pairs: pd.DataFrame) -> list[Finding]:
    """Says which near duplicates a split by lesion may part.

    Args:
        catalog: The catalog.
        pairs: What `near_duplicates` found in it; gets a column same_lesion.
    """
    group = catalog.table.set_index("image_id")["group"]
    pairs["same_lesion"] = pairs["a"].map(group).to_numpy() == pairs["b"].map(group).to_numpy()
    apart = pairs[~pairs["same_lesion"]]
    if apart.empty:
        return []
    ids = sorted({*apart["a"], *apart["b"]})
    look = counted(len(apart), "pair of images looks", "pairs of images look")
    text = f"{look} the same but count as two lesions; data.same_lesion joins them"
    return [Finding("near_duplicates", "caution", text, ids)]


def contaminated(
    catalogs: Mapping[str, Catalog], prints: Mapping[str, Mapping[str, Fingerprint]]
) -> pd.DataFrame:
    """Finds, for any two catalogs, the images of one that the other has too.

    Args:
        catalogs: By name.
        prints: Their fingerprints by name and image id.

    Returns:
        A row per image and other catalog: images_of, in, image_id, by: "id", or else "lesion", or else "near
        duplicate".
    """
    rows = []
    for name, catalog in catalogs.items():
        for other in catalogs.keys() - {name}:
            by_id, by_lesion = shared(catalogs[other], catalog)
            why = dict.fromkeys(near_duplicates(prints[name], prints[other])["a"], "near duplicate")
            why |= dict.fromkeys(by_lesion, "lesion") | dict.fromkeys(by_id, "id")
            rows += [(name, other, image_id, by) for image_id, by in sorted(why.items())]
    return pd.DataFrame(rows, columns=["images_of", "in", "image_id", "by"])


def contamination(catalogs: Mapping[str, Catalog], found: pd.DataFrame) -> pd.DataFrame:
    """Counts what `contaminated` found.

    Returns:
        A row per ordered pair of catalogs: images_of, in, images (how many there are), by_id, by_lesion (more
        of them), by_near_duplicate (yet more).
    """
    rows = []
    for name, catalog in catalogs.items():
        for other in catalogs.keys() - {name}:
            by = found.loc[(found["images_of"] == name) & (found["in"] == other), "by"].value_counts()
            counts = [int(by.get(why, 0)) for why in ("id", "lesion", "near duplicate")]
            rows.append((name, other, len(catalog), *counts))
    return pd.DataFrame(
        rows, columns=["images_of", "in", "images", "by_id", "by_lesion", "by_near_duplicate"]
    )
