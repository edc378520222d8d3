"""The list of scores: when each has a value, and what an image without one counts as."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from skinseg.scoring.metrics import METRICS, image_scores, with_penalties

DISTANCES = [name for name, metric in METRICS.items() if metric.undefined == "either"]


def box(width: int, shape: tuple[int, int] = (30, 40)) -> NDArray[np.bool_]:
    mask = np.zeros(shape, bool)
    mask[10:20, 5 : 5 + width] = True
    return mask


def table_of(*pairs: tuple[NDArray[np.bool_], NDArray[np.bool_]]) -> pd.DataFrame:
    rows = [
        {"height": truth.shape[0], "width": truth.shape[1], **image_scores(truth, mask, mask * np.float32(1))}
        for truth, mask in pairs
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize(("truth", "prediction"), [(0, 0), (0, 9), (9, 0), (9, 9)])
def test_which_empty_mask_leaves_which_score_undefined(truth: int, prediction: int) -> None:
    scores = table_of((box(truth), box(prediction)))
    empty = {"": False, "truth": not truth, "either": not truth or not prediction}
    for name, metric in METRICS.items():
        assert np.isnan(scores[name][0]) == empty[metric.undefined], name


def test_an_undefined_distance_counts_as_the_diagonal_or_as_none_where_the_masks_agree() -> None:
    tall = (300, 40)
    scores = table_of((box(9), box(0)), (box(0, tall), box(9, tall)), (box(0), box(0)), (box(9), box(11)))
    filled = with_penalties(scores)
    for name in DISTANCES:
        diagonals = [50, np.hypot(300, 40)] if METRICS[name].unit == "px" else [100, 100]
        assert filled[name].tolist() == pytest.approx([*diagonals, 0, scores[name][3]])
    others = [name for name in scores if name not in DISTANCES]
    pd.testing.assert_frame_equal(filled[others], scores[others])
    assert scores[DISTANCES].isna().sum().eq(3).all(), "the table that was given stays as it was"


def test_finding_nothing_is_never_better_than_finding_something() -> None:
    generator = np.random.default_rng(0)
    for _ in range(20):
        found = generator.random((30, 40)) < generator.random()
        filled = with_penalties(table_of((box(9), found), (box(9), box(0))))
        for name in DISTANCES:
            assert filled[name][0] <= filled[name][1]
        for name in ("dice", "jaccard", "nsd", "nsd_percent", "boundary_iou"):
            assert filled[name][0] >= filled[name][1]


def test_a_table_whose_gaps_cannot_be_filled_is_refused() -> None:
    scores = table_of((box(9), box(0)), (box(9), box(11)))
    with pytest.raises(ValueError, match=r"hd95 is undefined on 1 image, and height is missing"):
        with_penalties(scores.drop(columns=["height"]))
    with pytest.raises(ValueError, match="dice is missing"):
        with_penalties(scores.drop(columns=["dice"]))
    with pytest.raises(ValueError, match="neither mask is empty"):
        with_penalties(scores.assign(hd95_percent=np.nan))
    overlap = scores[["dice", "jaccard"]]
    pd.testing.assert_frame_equal(with_penalties(overlap), overlap)
