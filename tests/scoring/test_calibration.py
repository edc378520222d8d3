"""Calibration, against a loop in fractions and against torchmetrics and scikit-learn."""

from __future__ import annotations

from fractions import Fraction
from math import floor

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.metrics import brier_score_loss
from torchmetrics.functional.classification import binary_calibration_error

from skinseg.scoring.calibration import (
    CALIBRATION_METRICS,
    calibration_counts,
    calibration_scores,
    reliability,
)

Probability = NDArray[np.float32]
Mask = NDArray[np.bool_]


def image(seed: int, shape: tuple[int, int] = (30, 40)) -> tuple[Probability, Mask]:
    """Probabilities with the extremes among them, and a truth that is less sure than they say."""
    chance = np.random.default_rng(seed)
    probability = chance.beta(0.4, 0.7, shape).astype(np.float32)
    probability[0, :3] = 0, 1, 0.5
    return probability, chance.random(shape) < 0.2 + 0.5 * probability


def counts_by_loop(probability: Probability, truth: Mask, bins: int) -> NDArray[np.float64]:
    rows = [[0, Fraction(0), 0] for _ in range(bins)]
    for value, lesion in zip(probability.ravel().tolist(), truth.ravel().tolist(), strict=True):
        row = rows[min(floor(Fraction(value) * bins), bins - 1)]
        row[0] += 1
        row[1] += Fraction(value)
        row[2] += lesion
    return np.array([[float(value) for value in row] for row in rows])


@pytest.mark.parametrize("bins", [1, 2, 10, 15, 100])
@pytest.mark.parametrize("seed", range(3))
def test_counts_equal_to_a_loop(seed: int, bins: int) -> None:
    probability, truth = image(seed)
    counts = calibration_counts(probability, truth, bins)
    assert counts.dtype == np.float64
    assert counts.shape == (bins, 3)
    np.testing.assert_allclose(counts, counts_by_loop(probability, truth, bins), rtol=1e-12, atol=0)


@pytest.mark.parametrize("bins", [3, 10, 15, 49])
def test_edges_are_not_rounded(bins: int) -> None:
    edges = np.array([k / bins for k in range(bins + 1)], np.float32)
    beside = [np.nextafter(edges, np.float32(side)) for side in (0, 1)]
    probability = np.stack([edges, *beside])
    truth = np.zeros(probability.shape, bool)
    expected = counts_by_loop(probability, truth, bins)
    np.testing.assert_array_equal(calibration_counts(probability, truth, bins)[:, 0], expected[:, 0])


def test_known_counts() -> None:
    probability = np.array([[0.0, 0.25, 0.5], [0.625, 0.75, 1.0]], np.float32)
    truth = np.array([[False, True, False], [True, True, True]])
    expected = [[1, 0, 0], [1, 0.25, 1], [2, 1.125, 1], [2, 1.75, 2]]
    assert calibration_counts(probability, truth, 4).tolist() == expected


@pytest.mark.parametrize("quarter_turns", range(4))
def test_the_layout_in_memory_does_not_matter(quarter_turns: int) -> None:
    probability, truth = image(5)
    turned = (np.rot90(array, quarter_turns) for array in (probability, truth))
    expected = calibration_scores(probability, truth)
    assert calibration_scores(*turned) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("bins", [5, 15])
@pytest.mark.parametrize("seed", range(4))
def test_scores_equal_to_other_libraries(seed: int, bins: int) -> None:
    probability, truth = image(seed)
    scores = calibration_scores(probability, truth, bins)
    assert tuple(scores) == CALIBRATION_METRICS
    assert all(type(score) is float for score in scores.values())
    expected = brier_score_loss(truth.ravel(), probability.ravel().astype(np.float64))
    assert scores["brier"] == pytest.approx(expected, rel=1e-12)
    peer = binary_calibration_error(
        torch.from_numpy(probability).double().ravel(), torch.from_numpy(truth).int().ravel(), n_bins=bins
    )
    assert scores["ece"] == pytest.approx(peer.item(), rel=1e-6)


def test_known_scores() -> None:
    certain = np.array([[1, 0, 0, 1]], np.float32)
    truth = np.array([[True, False, False, True]])
    assert calibration_scores(certain, truth) == {"brier": 0, "ece": 0}
    assert calibration_scores(certain, ~truth) == {"brier": 1, "ece": 1}
    assert calibration_scores(np.full((2, 4), 0.5, np.float32), np.eye(2, 4, dtype=bool)) == {
        "brier": 0.25,
        "ece": 0.25,
    }
    calibrated = np.full((2, 4), 0.25, np.float32)
    assert calibration_scores(calibrated, np.eye(2, 4, dtype=bool)) == {"brier": 3 / 16, "ece": 0}


def test_binned_is_the_probability_of_lesion_and_not_the_confidence() -> None:
    # Of the 8 at 0.875 half are lesion, too sure, and of the 8 at 0.125 none, not sure enough. By confidence,
    # all 16 would be in one bin, of 0.875 and with 12 right: an error of 0.125.
    probability = np.array([[0.875] * 8 + [0.125] * 8], np.float32)
    truth = np.array([[True] * 4 + [False] * 12])
    assert calibration_scores(probability, truth)["ece"] == (0.375 + 0.125) / 2


def test_an_image_without_lesion() -> None:
    scores = calibration_scores(np.full((3, 4), 0.25, np.float32), np.zeros((3, 4), bool))
    assert scores == {"brier": 0.0625, "ece": 0.25}


def test_images_weigh_the_same_whatever_their_size() -> None:
    small = np.array([[0.25, 0.75]], np.float32), np.array([[True, True]])
    large = np.full((10, 20), 0.25, np.float32), np.zeros((10, 20), bool)
    counts = np.stack([calibration_counts(*pair, bins=3) for pair in (small, large)])
    with np.errstate(all="raise"):
        table, error = reliability(counts)
    assert list(table) == ["low", "high", "confidence", "frequency", "share"]
    assert table["low"].tolist() == [0, 1 / 3, 2 / 3]
    assert table["high"].tolist() == [1 / 3, 2 / 3, 1]
    assert table["share"].tolist() == [0.75, 0, 0.25]
    assert table["confidence"].tolist() == pytest.approx([0.25, np.nan, 0.75], nan_ok=True)
    # One of the small image's 2 pixels, lesion, and all 200 of the large one: the bin is a third lesion.
    assert table["frequency"].tolist() == pytest.approx([1 / 3, np.nan, 1], nan_ok=True)
    assert error == pytest.approx(0.75 * (1 / 3 - 0.25) + 0.25 * 0.25)


def test_reliability_of_one_image_shows_its_ece() -> None:
    probability, truth = image(7)
    table, error = reliability(calibration_counts(probability, truth)[None])
    assert error == pytest.approx(calibration_scores(probability, truth)["ece"], rel=1e-12)
    gap = (table["confidence"] - table["frequency"]).abs()
    assert error == pytest.approx((table["share"] * gap).sum(), rel=1e-12)
    assert table["share"].sum() == pytest.approx(1)
    assert table["confidence"].between(table["low"], table["high"]).all()


def test_pooled_errors_cancel_but_do_not_add() -> None:
    half = np.full((2, 2), 0.5, np.float32)
    pairs = [(half, np.ones((2, 2), bool)), (half, np.zeros((2, 2), bool))]
    assert [calibration_scores(*pair)["ece"] for pair in pairs] == [0.5, 0.5]
    assert reliability(np.stack([calibration_counts(*pair) for pair in pairs]))[1] == 0
    pairs = [image(seed) for seed in range(5)]
    mean = np.mean([calibration_scores(*pair)["ece"] for pair in pairs])
    assert reliability(np.stack([calibration_counts(*pair) for pair in pairs]))[1] <= mean


@pytest.mark.parametrize("function", [calibration_counts, calibration_scores])
def test_refused_images(function: object) -> None:
    assert callable(function)
    probability, truth = image(0)
    with pytest.raises(ValueError, match=r"\(29, 40\)"):
        function(probability, truth[1:])
    with pytest.raises(ValueError, match="no pixel"):
        function(probability[:0], truth[:0])
    with pytest.raises(TypeError, match="float64"):
        function(probability.astype(np.float64), truth)
    with pytest.raises(TypeError, match="uint8"):
        function(probability, truth.astype(np.uint8))
    with pytest.raises(ValueError, match="bins=0"):
        function(probability, truth, 0)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, np.nextafter(1, 2, dtype=np.float32), -1e-7])
def test_values_that_are_no_probabilities(wrong: float) -> None:
    probability, truth = image(0)
    probability[3:5, 7] = wrong
    with pytest.raises(ValueError, match=r"^2 of 1200 probabilities are NaN or outside"):
        calibration_counts(probability, truth)


def test_refused_counts() -> None:
    counts = calibration_counts(*image(0))
    with pytest.raises(ValueError, match=r"\(15, 3\)"):
        reliability(counts)
    with pytest.raises(ValueError, match=r"\(0, 15, 3\)"):
        reliability(np.empty((0, 15, 3)))
    with pytest.raises(ValueError, match="1 of 2 images"):
        reliability(np.stack([counts, np.zeros_like(counts)]))
