"""Agreement between annotators."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from skinseg.scoring.agreement import AGREEMENT_METRICS, pair_scores, summarise_agreement


def box(left: int, width: int = 10) -> np.ndarray:
    mask = np.zeros((30, 40), bool)
    mask[10:20, left : left + width] = True
    return mask


def test_all_pairs_of_an_image() -> None:
    rows = pd.DataFrame(pair_scores({"A": box(5), "B": box(5), "C": box(10)}))
    assert list(zip(rows["first"], rows["second"], strict=True)) == [("A", "B"), ("A", "C"), ("B", "C")]
    assert rows["dice"].tolist() == [1.0, 0.5, 0.5]
    assert rows["jaccard"].tolist() == pytest.approx([1.0, 1 / 3, 1 / 3])
    assert rows["threshold_jaccard"].tolist() == [1.0, 0.0, 0.0]
    assert rows["hd95"].tolist() == pytest.approx([0.0, 5.0, 5.0])
    assert rows["hd95_percent"].tolist() == pytest.approx([0.0, 10.0, 10.0])


def test_each_image_counts_once() -> None:
    many = [{"image_id": "many", **row} for row in pair_scores({"A": box(5), "B": box(5), "C": box(5)})]
    apart = [{"image_id": "apart", **row} for row in pair_scores({"A": box(5), "B": box(10)})]
    table = summarise_agreement(pd.DataFrame(many + apart))
    assert table.loc["dice", "mean"] == pytest.approx((1 + 0.5) / 2)
    assert table.loc["dice", "images"] == 2
    assert table.loc["dice", "pairs"] == 4
    assert table.loc["jaccard", "below_threshold"] == pytest.approx(1 / 4)
    assert np.isnan(table.loc["dice", "below_threshold"])


def test_undefined_distances_are_counted_and_left_out() -> None:
    empty = np.zeros((30, 40), bool)
    rows = [{"image_id": "a", **row} for row in pair_scores({"A": box(5), "B": empty})]
    rows += [{"image_id": "b", **row} for row in pair_scores({"A": box(5), "B": box(7)})]
    table = summarise_agreement(pd.DataFrame(rows))
    assert table.loc["hd95", "undefined"] == 1
    assert table.loc["hd95", "images"] == 1
    assert table.loc["hd95", "mean"] == pytest.approx(2)
    assert table.loc["dice", "images"] == 2


def test_an_image_with_one_undefined_pair_counts_by_its_others() -> None:
    empty = np.zeros((30, 40), bool)
    masks = {"A": box(5), "B": empty, "C": box(8)}
    table = summarise_agreement(pd.DataFrame({"image_id": "a", **row} for row in pair_scores(masks)))
    assert table.loc["hd95", ["mean", "images", "pairs", "undefined"]].tolist() == [3, 1, 1, 2]
    assert table.loc["hd95_percent", "mean"] == pytest.approx(6)
    assert table.loc["dice", ["pairs", "undefined"]].tolist() == [3, 0]


def test_median_is_over_images_and_065_itself_is_not_below() -> None:
    # Means of the images: .9, .65, .2; the pairs' own median would be .8.
    rows = [("a", 1.0), ("a", 0.9), ("a", 0.8), ("b", 0.65), ("c", 0.2)]
    pairs = pd.DataFrame([(i, *[score] * 5) for i, score in rows], columns=["image_id", *AGREEMENT_METRICS])
    table = summarise_agreement(pairs)
    assert table.index.tolist() == list(AGREEMENT_METRICS)
    assert table["median"].tolist() == pytest.approx([0.65] * 5)
    assert table["mean"].tolist() == pytest.approx([1.75 / 3] * 5)
    assert table.loc["jaccard", "below_threshold"] == pytest.approx(1 / 5)
    assert table["below_threshold"].isna().sum() == 4


def test_one_mask_or_none_makes_no_pair() -> None:
    assert pair_scores({"A": box(5)}) == pair_scores({}) == []
