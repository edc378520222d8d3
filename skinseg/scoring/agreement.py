"""How well several people agree on the outline of a lesion."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from skinseg.scoring.boundary import hd95
from skinseg.scoring.overlap import JACCARD_THRESHOLD, confusion_counts, overlap_scores

AGREEMENT_METRICS = ("dice", "jaccard", "threshold_jaccard", "hd95", "hd95_percent")


def pair_scores(masks: Mapping[str, NDArray[np.bool_]]) -> list[dict[str, object]]:
    """Compares the masks of one image pair by pair.

    Args:
        masks: bool arrays of one shape (H, W), by who drew them.

    Returns:
        For each pair: first, second, height and width (pixels), dice, jaccard, threshold_jaccard (all in
        [0, 1]), hd95 (pixels) and hd95_percent (of the frame's diagonal); the last two are nan where a mask
        is empty.
    """
    rows: list[dict[str, object]] = []
    for (first, one), (second, other) in combinations(masks.items(), 2):
        counts = (np.array([count]) for count in confusion_counts(one, other))
        scores = {name: float(values[0]) for name, values in overlap_scores(*counts).items()}
        distance = hd95(one, other)
        overlap = {name: scores[name] for name in AGREEMENT_METRICS[:3]}
        percent = 100 * distance / float(np.hypot(*one.shape))
        pair = {"first": first, "second": second, "height": one.shape[0], "width": one.shape[1]}
        rows.append({**pair, **overlap, "hd95": distance, "hd95_percent": percent})
    return rows


def summarise_agreement(pairs: pd.DataFrame) -> pd.DataFrame:
    """Averages over images, each of which counts once however many pairs it has.

    Args:
        pairs: A row per pair: image_id and `AGREEMENT_METRICS`.

    Returns:
        A row per metric (the index): mean and median over images, images, pairs, undefined (pairs without a
        distance, left out of both averages), below_threshold (share of pairs with a Jaccard below .65, where
        the metric is jaccard).
    """
    metrics = list(AGREEMENT_METRICS)
    images = pairs.groupby("image_id")[metrics].mean()
    table = pd.DataFrame(
        {
            "mean": images.mean(),
            "median": images.median(),
            "images": images.notna().sum(),
            "pairs": pairs[metrics].notna().sum(),
            "undefined": pairs[metrics].isna().sum(),
        }
    )
    table["below_threshold"] = float("nan")
    table.loc["jaccard", "below_threshold"] = (pairs["jaccard"] < JACCARD_THRESHOLD).mean()
    return table
