"""Whether the probabilities of a prediction are as frequent as they say."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

CALIBRATION_METRICS = ("brier", "ece")


def calibration_counts(
    probability: NDArray[np.float32], truth: NDArray[np.bool_], bins: int = 15
) -> NDArray[np.float64]:
    """Sorts the pixels of one image into bins of equal width by their probability of being lesion.

    Bin k of n holds k / n <= probability < (k + 1) / n, and the last one 1 as well. No edge is rounded: a
    float32 just below k / n is in the bin below.

    Args:
        probability: float32 array of shape (H, W), of being lesion, in [0, 1].
        truth: bool array of the same shape; True is lesion.
        bins: Number of bins, at least 1.

    Returns:
        float64 of shape (bins, 3): the pixels in each bin, the sum of their probabilities, and how many of
        them are lesion.

    Raises:
        ValueError: The shapes differ or hold no pixel, probabilities are NaN or outside of [0, 1], or `bins`
            is below 1.
        TypeError: The probabilities are not float32, or the truth is not bool.
    """
    _check(probability, truth)
    if bins < 1:
        raise ValueError(f"bins={bins}; expected 1 at least.")
    # In float64, for there the product is exact: 24 bits of the probability times the few of `bins`.
    weights = probability.ravel().astype(np.float64)
    index = (weights * bins).astype(np.intp)
    np.minimum(index, bins - 1, out=index)
    sums = np.bincount(index, weights, minlength=bins)
    # Background in the first half and lesion in the second, so that one pass counts both.
    pixels = np.bincount(index + bins * truth.ravel(), minlength=2 * bins).reshape(2, bins)
    return np.stack((pixels.sum(axis=0), sums, pixels[1]), axis=1).astype(np.float64)


def calibration_scores(
    probability: NDArray[np.float32], truth: NDArray[np.bool_], bins: int = 15
) -> dict[str, float]:
    """Scores the probabilities of one image.

    - brier: the mean over the pixels of (probability - truth)^2, the truth being 0 or 1 (Brier, Monthly
      Weather Review 1950; half of his figure, which sums over both classes). Equal to scikit-learn's
      `brier_score_loss`. It is also worse for masks that are wrong; 0.25 is the score of 0.5 everywhere.
    - ece: the expected calibration error (Naeini et al., AAAI 2015; Guo et al., ICML 2017) of a binary
      prediction, the mean over the pixels of |mean probability - share of lesion| of their bin, with the bins
      of `calibration_counts`. What is binned is the probability of being lesion, in [0, 1], and not the
      confidence in the more probable class, in [0.5, 1], as Guo et al. do: there, too much confidence about
      lesion and too little about skin would cancel out. Equal to torchmetrics' `binary_calibration_error`
      with the norm l1.

    Most pixels of most images are skin, far from any lesion and surely so, which makes both scores small:
    they are for comparing models on the same images. An image without lesion is scored like any other.

    Args:
        probability: float32 array of shape (H, W), of being lesion, in [0, 1].
        truth: bool array of the same shape; True is lesion.
        bins: The bins of ece, from 1.

    Returns:
        The names of `CALIBRATION_METRICS`, in their order, to numbers in [0, 1]; 0 is best.

    Raises:
        ValueError: As `calibration_counts`.
        TypeError: As `calibration_counts`.
    """
    counts = calibration_counts(probability, truth, bins)
    errors = np.subtract(probability, truth, dtype=np.float64)
    return {
        "brier": float(np.square(errors, out=errors).mean()),
        "ece": float(np.abs(counts[:, 1] - counts[:, 2]).sum() / probability.size),
    }


def reliability(counts: NDArray[np.float64]) -> tuple[pd.DataFrame, float]:
    """Pools the bins of many images, each of which weighs the same however many pixels it has.

    Args:
        counts: float64 of shape (n, bins, 3), with n from 1: `calibration_counts` of each image.

    Returns:
        A row per bin: low and high (its edges), confidence (the mean probability in it) and frequency (the
        share of lesion in it), both in [0, 1] and nan where no image has a pixel in the bin, and share (of
        the pixels, mean over images; they sum to 1).

        And the expected calibration error of that table, in [0, 1]: the sum over bins of share *
        |confidence - frequency|. It is at most the mean of the images' ece, since where one image's
        probabilities are too high and another's too low, the pool shows neither.

    Raises:
        ValueError: The shape is another one, or an image has no pixels.
    """
    if counts.ndim != 3 or counts.shape[2] != 3 or 0 in counts.shape:
        raise ValueError(f"The counts have the shape {counts.shape}; expected (n, bins, 3) with n from 1.")
    pixels = counts[:, :, 0].sum(axis=1)
    if not (pixels > 0).all():
        raise ValueError(f"{np.count_nonzero(~(pixels > 0))} of {len(counts)} images have no pixels.")
    share, probability, lesion = (counts / pixels[:, None, None]).mean(axis=0).T
    edges = np.arange(len(share) + 1) / len(share)
    confidence, frequency = np.full((2, len(share)), np.nan)
    np.divide(probability, share, out=confidence, where=share > 0)
    np.divide(lesion, share, out=frequency, where=share > 0)
    table = pd.DataFrame(
        {
            "low": edges[:-1],
            "high": edges[1:],
            "confidence": confidence,
            "frequency": frequency,
            "share": share,
        }
    )
    return table, float(np.abs(probability - lesion).sum())


def _check(probability: NDArray[np.float32], truth: NDArray[np.bool_]) -> None:
    if probability.shape != truth.shape:
        raise ValueError(
            f"The probabilities have the shape {probability.shape} and the truth has {truth.shape}."
        )
    if probability.dtype != np.float32 or truth.dtype != np.bool_:
        raise TypeError(
            f"The probabilities are {probability.dtype} and the truth is {truth.dtype}; "
            "expected float32 and bool."
        )
    if not probability.size:
        raise ValueError(f"The probabilities have the shape {probability.shape} and no pixel.")
    # Of NaN both comparisons are false, and so they are where the least or largest is NaN.
    if not (probability.min() >= 0 and probability.max() <= 1):
        wrong = probability.size - int(np.count_nonzero((probability >= 0) & (probability <= 1)))
        raise ValueError(f"{wrong} of {probability.size} probabilities are NaN or outside of [0, 1].")
