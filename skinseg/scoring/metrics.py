"""Every score of an image in one place: its name, its unit, which direction is better, what it means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from skinseg.counting import counted
from skinseg.scoring.boundary import boundary_scores
from skinseg.scoring.calibration import calibration_scores
from skinseg.scoring.overlap import confusion_counts, overlap_scores
from skinseg.scoring.resampling import Estimates
from skinseg.scoring.statistics import LEAST_LESIONS


@dataclass(frozen=True)
class Metric:
    """A score.

    Attributes:
        label: What it is called in reports.
        unit: "" (a share in [0, 1]), "px" or "%".
        better: Which value is better: the "higher", the "lower", or the nearer to "zero".
        definition: Its definition, in one sentence.
        undefined: Which empty mask leaves it without a value: the "truth", "either", or "" (there always
            is a value). Where the prediction decides, `with_penalties` has a value for it.
        least_lesions: Smallest number of lesions of whose mean an interval is given.
    """

    label: str
    unit: Literal["", "px", "%"]
    better: Literal["higher", "lower", "zero"]
    definition: str
    undefined: Literal["", "truth", "either"] = ""
    least_lesions: int = LEAST_LESIONS

    @property
    def lowest(self) -> float:
        """The least value that there is."""
        return -np.inf if self.better == "zero" else 0.0

    @property
    def highest(self) -> float:
        """The greatest value that there is."""
        return np.inf if self.unit else 1.0

    def text(self, value: float | None, *, signed: bool = False) -> str:
        """Writes a value with the digits that it deserves; an undefined one as a dash."""
        if value is None or np.isnan(value):
            return "\N{EN DASH}"
        digits = 2 if self.unit else 4
        return f"{value:{'+' if signed else ''}.{digits}f}{' ' + self.unit if self.unit else ''}"


# Their means hang on a few small lesions that came out several times too large (benchmarks/coverage.py).
_LEAST_OF_AREAS = 1000
_DIAGONAL = "in percent of the image's diagonal"
METRICS: Mapping[str, Metric] = {
    "dice": Metric(
        "Dice", "", "higher", "2 tp / (2 tp + fp + fn) of an image's pixels; both masks empty: 1."
    ),
    "jaccard": Metric("Jaccard", "", "higher", "tp / (tp + fp + fn); both masks empty: 1."),
    "threshold_jaccard": Metric(
        "Threshold Jaccard", "", "higher", "Jaccard where it is at least 0.65, else 0 (ISIC Challenge 2018)."
    ),
    "sensitivity": Metric("Sensitivity", "", "higher", "Share of the lesion's pixels that were found."),
    "specificity": Metric("Specificity", "", "higher", "Share of the skin's pixels that were left out."),
    "accuracy": Metric(
        "Accuracy", "", "higher", "Share of all pixels that are right; large frames flatter it."
    ),
    "hd95": Metric(
        "HD95",
        "px",
        "lower",
        "The larger of the two directed 95th percentiles of distances between the outlines.",
        "either",
    ),
    "hd95_percent": Metric("HD95 of diagonal", "%", "lower", f"HD95 {_DIAGONAL}.", "either"),
    "assd": Metric(
        "ASSD", "px", "lower", "Mean distance between the outlines, both directions pooled.", "either"
    ),
    "assd_percent": Metric("ASSD of diagonal", "%", "lower", f"ASSD {_DIAGONAL}.", "either"),
    "nsd": Metric(
        "Surface Dice", "", "higher", "Share of both outlines within tolerance_px of the other (normalised)."
    ),
    "nsd_percent": Metric(
        "Surface Dice, relative", "", "higher", "The same with tolerance_percent of the diagonal."
    ),
    "boundary_iou": Metric(
        "Boundary IoU", "", "higher", "Jaccard of the two masks' inner rims, 2 % of the diagonal wide."
    ),
    "area_bias": Metric(
        "Area bias",
        "%",
        "zero",
        "Predicted minus true lesion area in percent of the true one; above 0: too large.",
        "truth",
        _LEAST_OF_AREAS,
    ),
    "area_error": Metric(
        "Area error", "%", "lower", "The area bias without its sign.", "truth", _LEAST_OF_AREAS
    ),
    "brier": Metric(
        "Brier score", "", "lower", "Mean squared difference of probability and truth over pixels."
    ),
    "ece": Metric(
        "Calibration error", "", "lower", "Expected calibration error of an image's lesion probabilities."
    ),
}

PENALTY = "its diagonal, or as 0 where both masks are empty"
"""What an undefined distance counts as, in words."""

HEADLINE = ("dice", "jaccard", "threshold_jaccard", "hd95_percent", "nsd_percent", "ece")
"""What a report shows first."""


def image_scores(
    truth: NDArray[np.bool_],
    prediction: NDArray[np.bool_],
    probability: NDArray[np.float32] | None = None,
    *,
    tolerance_px: float = 2.0,
    tolerance_percent: float = 0.5,
    bins: int = 15,
) -> dict[str, float]:
    """Scores one image.

    Args:
        truth: bool array of shape (H, W).
        prediction: bool array of shape (H, W).
        probability: float32 array of that shape, in [0, 1]. None: no calibration is scored.
        tolerance_px: Tolerance of `nsd`, in pixels.
        tolerance_percent: Tolerance of `nsd_percent`, in percent of the diagonal.
        bins: Number of bins of the calibration error.

    Returns:
        The keys of `METRICS` in their order, without "brier" and "ece" where there is no probability; nan is
        undefined.

    Raises:
        ValueError: The shapes differ, or a probability is not one.
        TypeError: A dtype differs.
    """
    counts = (np.array([count]) for count in confusion_counts(truth, prediction))
    scores = {name: float(values[0]) for name, values in overlap_scores(*counts).items()}
    scores |= boundary_scores(
        truth, prediction, tolerance_px=tolerance_px, tolerance_percent=tolerance_percent
    )
    if probability is not None:
        scores |= calibration_scores(probability, truth, bins)
    return scores


def no_interval(name: str, lesions: int, low: float) -> str:
    """Says why a mean has no interval although there are enough lesions; "" where there is one, or are not.

    Args:
        name: The score.
        lesions: Those with a value.
        low: The interval's lower end, NaN of none.
    """
    enough = lesions >= METRICS[name].least_lesions
    return "nearly all lesions have the same value" if enough and np.isnan(low) else ""


def with_penalties(scores: pd.DataFrame) -> pd.DataFrame:
    """Gives the distances of images on which a mask is empty a value, so that finding nothing never pays.

    Left out, such images would make a mean the better the more hard images a network gives up on. As
    challenges do, one empty mask counts as the worst that there can be, the image's diagonal (100 %), and two
    empty ones as no distance, for they agree; `overlap_scores` has 0 and 1 there. The scores that an empty
    truth alone leaves undefined are so for every prediction, and stay.

    Args:
        scores: A row per image with any of `METRICS`; where a distance is undefined also dice, and height and
            width if it is in pixels.

    Returns:
        The table, its distances filled.

    Raises:
        ValueError: A distance is undefined, but by its Dice neither mask is empty, or a column that its value
            takes is missing.
    """
    filled = {}
    for name, metric in METRICS.items():
        if name not in scores or metric.undefined != "either" or not (empty := scores[name].isna()).any():
            continue
        needed = ["dice", *(["height", "width"] if metric.unit == "px" else [])]
        if missing := [column for column in needed if column not in scores]:
            raise ValueError(
                f"{name} is undefined on {counted(int(empty.sum()), 'image')}, and {missing[0]} is missing"
            )
        dice = scores.loc[empty, "dice"]
        if not dice.isin([0, 1]).all():
            raise ValueError(f"{name} is missing where neither mask is empty (the Dice is not 0 or 1)")
        worst = np.hypot(scores["height"], scores["width"]) if metric.unit == "px" else 100.0
        filled[name] = scores[name].mask(empty, worst).mask(empty & (scores["dice"] == 1), 0.0)
    return scores.assign(**filled)


def within_bounds(estimates: Estimates, metrics: Sequence[str]) -> Estimates:
    """Cuts intervals at the least and the greatest value that their scores can have.

    Args:
        estimates: Of m scores. Student's t knows no bounds: of two seeds that differ much it goes beyond
            them.
        metrics: Their m names.

    Returns:
        The estimates.
    """
    lowest = np.array([METRICS[name].lowest for name in metrics])
    highest = np.array([METRICS[name].highest for name in metrics])
    return replace(estimates, low=np.maximum(estimates.low, lowest), high=np.minimum(estimates.high, highest))
