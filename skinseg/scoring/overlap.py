"""Overlap of two masks, equal to the ISIC Challenge's public scorer to 1e-12.

The rules are those of `isic-challenge-scoring` 5.6.0 (PyPI), read from its source: the formulas and what
stands in for 0/0 from `metrics.py`, the foreground rule and the Jaccard threshold from `segmentation.py`.
tests/scoring holds its answers.

A score whose denominator is 0 is 1; nothing else is special. So, of one image:

| truth | prediction | Dice, Jaccard, threshold Jaccard | sensitivity | specificity | accuracy |
|---|---|---|---|---|---|
| empty | empty | 1 | 1 | 1 | 1 |
| empty | some pixels | 0 | 1 | tn / (tn + fp) | tn / all |
| some pixels | empty | 0 | 0 | 1 | tn / all |
| full frame | some pixels | by the formula | tp / (tp + fn) | 1 | tp / all |
| full frame | full frame | 1 | 1 | 1 | 1 |
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

OVERLAP_METRICS = ("dice", "jaccard", "threshold_jaccard", "sensitivity", "specificity", "accuracy")

FOREGROUND_ABOVE = 128
"""The brightest grey of an 8-bit mask that is still background."""

JACCARD_THRESHOLD = 0.65
"""The least Jaccard that `threshold_jaccard` does not set to 0 (ISIC Challenge 2018, Task 1)."""


def foreground(mask: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Where an 8-bit mask is lesion, by the public scorer's rule: grey > 128, so 128 is background.

    Args:
        mask: uint8, 0 to 255, any shape.

    Returns:
        bool, the shape of `mask`.

    Raises:
        TypeError: `mask` is not uint8. Masks of 0 and 1 in other dtypes would come out empty.
    """
    if mask.dtype != np.uint8:
        raise TypeError(f"The mask is {mask.dtype}; expected uint8 with values of 0 to 255.")
    return mask > FOREGROUND_ABOVE


def confusion_counts(truth: NDArray[np.bool_], prediction: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Count the pixels of one image by truth and prediction.

    Args:
        truth: bool, any shape; True is lesion.
        prediction: bool, the shape of `truth`.

    Returns:
        (tp, fp, fn, tn), each >= 0; their sum is the number of pixels.

    Raises:
        ValueError: The shapes differ; masks are never broadcast or resized here.
        TypeError: A mask is not bool. Which grey is lesion is decided by `foreground` alone.
    """
    if truth.shape != prediction.shape:
        raise ValueError(f"The truth has the shape {truth.shape} and the prediction {prediction.shape}.")
    if truth.dtype != np.bool_ or prediction.dtype != np.bool_:
        raise TypeError(f"The truth is {truth.dtype} and the prediction {prediction.dtype}; expected bool.")
    tp = int(np.count_nonzero(truth & prediction))
    fp = int(np.count_nonzero(prediction)) - tp
    fn = int(np.count_nonzero(truth)) - tp
    return tp, fp, fn, truth.size - tp - fp - fn


def overlap_scores(
    tp: NDArray[np.int64], fp: NDArray[np.int64], fn: NDArray[np.int64], tn: NDArray[np.int64]
) -> dict[str, NDArray[np.float64]]:
    """Score each of n images by its pixel counts.

    The formulas are those of `binary_dice`, `binary_jaccard`, `binary_threshold_jaccard`,
    `binary_sensitivity`, `binary_specificity` and `binary_accuracy` in the public scorer's `metrics.py`:

    - dice = 2 tp / (2 tp + fp + fn)
    - jaccard = tp / (tp + fp + fn)
    - threshold_jaccard = jaccard where jaccard >= 0.65, else 0
    - sensitivity = tp / (tp + fn)
    - specificity = tn / (tn + fp)
    - accuracy = (tp + tn) / (tp + fp + fn + tn)

    and 1 where the denominator is 0. The scorer's figure of a data set is the mean over its images.

    Args:
        tp: Lesion predicted as lesion; integers >= 0, shape (n,).
        fp: Background predicted as lesion; likewise.
        fn: Lesion predicted as background; likewise.
        tn: Background predicted as background; likewise.

    Returns:
        The names of `OVERLAP_METRICS`, in their order, to float64 of shape (n,) in [0, 1], never NaN.

    Raises:
        ValueError: The shapes differ, a count is negative, or an image has no pixels. (Of no pixels the
            scorer's accuracy would be NaN, which its mean would then leave out.)
        TypeError: The counts are not integers.
    """
    counts = [np.asarray(count) for count in (tp, fp, fn, tn)]
    if any(not np.issubdtype(count.dtype, np.integer) for count in counts):
        raise TypeError(
            f"The counts are {', '.join(str(count.dtype) for count in counts)}; expected integers."
        )
    if len({count.shape for count in counts}) > 1:
        raise ValueError(f"The counts differ in shape: {', '.join(str(count.shape) for count in counts)}.")
    if any((count < 0).any() for count in counts):
        raise ValueError("A count is negative.")
    # int64, so that neither the sums nor 2 tp overflow where the caller's integers are narrower.
    tp, fp, fn, tn = (count.astype(np.int64) for count in counts)
    pixels = tp + fp + fn + tn
    if (pixels == 0).any():
        raise ValueError("An image has no pixels.")

    jaccard = _ratio(tp, tp + fp + fn)
    return {
        "dice": _ratio(2 * tp, 2 * tp + fp + fn),
        "jaccard": jaccard,
        # The quotient is compared as it is: 13/20 in float64 is the literal 0.65, for the scorer as well.
        "threshold_jaccard": np.where(jaccard >= JACCARD_THRESHOLD, jaccard, 0.0),
        "sensitivity": _ratio(tp, tp + fn),
        "specificity": _ratio(tn, tn + fp),
        "accuracy": _ratio(tp + tn, pixels),
    }


def _ratio(numerator: NDArray[np.int64], denominator: NDArray[np.int64]) -> NDArray[np.float64]:
    """Divide, with 1 for 0/0: the scorer gives what cannot be computed as "a freebie"."""
    ratio = np.ones(denominator.shape, dtype=np.float64)
    return np.divide(numerator, denominator, out=ratio, where=denominator != 0)
