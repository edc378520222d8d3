"""Whether a probability of 0.8 is right in 8 pixels of 10."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

CALIBRATION_METRICS = ("brier", "ece")


def calibration_counts(
    probability: NDArray[np.float32], truth: NDArray[np.bool_], bins: int = 15
) -> NDArray[np.float64]:
    """Sorts the pixels of an image into bins of equal width by their probability of being lesion.

    Args:
        probability: float32 array of shape (H, W), in [0, 1].
        truth: bool array of that shape.
        bins: Number of bins; a probability on an edge belongs to the bin above, 1 to the last one.

    Returns:
        float64 array of shape (bins, 3): pixels, sum of their probabilities, pixels that are lesion.

    Raises:
        ValueError: The shapes differ, or a value is NaN or outside of [0, 1].
        TypeError: A dtype is another one.
    """
    _check(probability, truth)
    # In float32 so that the edges fall where the compared values are; the last bin takes 1 in.
    index = np.minimum((probability * np.float32(bins)).astype(np.int32), bins - 1).ravel()
    pixels = np.bincount(index, minlength=bins)
    confidence = np.bincount(index, probability.ravel(), minlength=bins)
    lesion = np.bincount(index[truth.ravel()], minlength=bins)
    return np.stack([pixels, confidence, lesion], axis=1).astype(np.float64)


def calibration_scores(
    probability: NDArray[np.float32], truth: NDArray[np.bool_], bins: int = 15
) -> dict[str, float]:
    """Scores how well an image's probabilities mean what they say.

    - brier: mean over pixels of (probability - truth)^2 (Brier 1950).
    - ece: expected calibration error (Naeini et al., AAAI 2015): the mean over bins of the distance between
      mean probability and share of lesion, weighted by the bins' pixels. Binned is the probability of being
      lesion in [0, 1], not the confidence in the more probable class in [0.5, 1], so that too large and too
      small lesions do not cancel.

    Args:
        probability: float32 array of shape (H, W), in [0, 1].
        truth: bool array of that shape.
        bins: Of the ece.

    Returns:
        The names of `CALIBRATION_METRICS`, each in [0, 1], 0 is best.

    Raises:
        ValueError: See `calibration_counts`.
        TypeError: Likewise.
    """
    counts = calibration_counts(probability, truth, bins)
    brier = float(np.mean(np.square(probability - truth, dtype=np.float32), dtype=np.float64))
    return {"brier": brier, "ece": float(np.abs(counts[:, 1] - counts[:, 2]).sum() / probability.size)}


def reliability(counts: NDArray[np.float64]) -> tuple[pd.DataFrame, float]:
    """Pools the bins of several images, each of which counts the same whatever its size.

    Args:
        counts: float64 array of shape (n, bins, 3) of `calibration_counts`.

    Returns:
        A row per bin: low, high (its edges), confidence (mean probability), frequency (share of lesion),
        share (of all pixels); confidence and frequency are nan where it is empty. And the calibration error of
        the pooled bins, in [0, 1]; errors of single images that cancel each other are not in it.
    """
    shares = counts / counts[:, :, :1].sum(axis=1, keepdims=True)
    pixels, confidence, lesion = shares.mean(axis=0).T
    edges = np.linspace(0, 1, counts.shape[1] + 1)
    filled = pixels > 0
    nothing = np.full(len(pixels), np.nan)
    table = pd.DataFrame(
        {
            "low": edges[:-1],
            "high": edges[1:],
            "confidence": np.divide(confidence, pixels, out=nothing.copy(), where=filled),
            "frequency": np.divide(lesion, pixels, out=nothing.copy(), where=filled),
            "share": pixels,
        }
    )
    return table, float(np.abs(confidence - lesion).sum())


def _check(probability: NDArray[np.float32], truth: NDArray[np.bool_]) -> None:
    if probability.shape != truth.shape:
        raise ValueError(f"The probabilities have the shape {probability.shape} and the truth {truth.shape}.")
    if probability.dtype != np.float32 or truth.dtype != np.bool_:
        raise TypeError(f"Found {probability.dtype} and {truth.dtype}; expected float32 and bool.")
    # NaN fails every comparison.
    wrong = probability.size - int(np.count_nonzero((probability >= 0) & (probability <= 1)))
    if wrong:
        raise ValueError(f"{wrong} of {probability.size} probabilities are NaN or outside of [0, 1].")
